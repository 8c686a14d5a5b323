// SPDX-License-Identifier: GPL-2.0-only
//! What a run found, as data: the one vocabulary that workers, the runner and every report share.
//!
//! A results file is JSON Lines: one [`Record`] a line, in the order `run`, `started` and `case` ..., `waiver` ...,
//! `aborted`, `not-run` ..., `summary`, with `note` and `resumed` between them, after `results-schema.json`, which a test
//! compares with these types. A reader must expect a file that ends anywhere after the first line: the runner may have been
//! killed.
//!
//! The format changes by additions only. A field or record type keeps its meaning for ever and is never removed, and each
//! addition raises [`SCHEMA_VERSION`]. So a reader passes over fields and record types that it does not know, and takes a
//! missing field for empty, and then reads what older and newer versions have written. [`ResultsFile`] does.

mod error;
mod event;
pub mod exit;
mod file;
mod left;
mod record;

pub use error::{LineError, ReadError};
pub use event::{Event, Sink};
pub use file::{AnyVerdict, Outline, ResultsFile, for_each_record};
pub use left::LeftResults;
pub use record::*;

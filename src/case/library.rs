// SPDX-License-Identifier: GPL-2.0-only
//! The cases that are part of the program.

use thiserror::Error;

use super::{Case, ParseError, parse};

include!(concat!(env!("OUT_DIR"), "/cases.rs"));

/// A case of `cases/` that the parser does not take.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a built-in case is broken: {0}")]
pub struct BrokenLibrary(#[from] ParseError);

/// Every case of `cases/`, expanded, in the order of the files.
pub fn library() -> Result<Vec<Case>, BrokenLibrary> {
    let mut cases = Vec::new();
    for (file, text) in CASES {
        cases.extend(parse(file, text)?);
    }
    Ok(cases)
}

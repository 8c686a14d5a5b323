// SPDX-License-Identifier: GPL-2.0-only
//! Text for people, terminals and shells.

mod ascii;
mod nearest;
mod shell;

pub use ascii::ascii;
pub use nearest::nearest;
pub use shell::word;

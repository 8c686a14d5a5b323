// SPDX-License-Identifier: GPL-2.0-only
//! The cases that are part of the program.

use super::{Case, ParseError, parse};

include!(concat!(env!("OUT_DIR"), "/cases.rs"));

/// Every case of `cases/`, expanded, in the order of the files.
pub fn library() -> Result<Vec<Case>, ParseError> {
    let mut cases = Vec::new();
    for (file, text) in CASES {
        cases.extend(parse(file, text)?);
    }
    Ok(cases)
}

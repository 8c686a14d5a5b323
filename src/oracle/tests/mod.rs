// SPDX-License-Identifier: GPL-2.0-only
//! The oracle against the clauses, each written down a second time as a table or a property.

mod content;
mod encrypted;
mod judge;
mod launch;
mod memslot;
mod properties;
mod request;
mod runs;
mod state;

use super::*;
use crate::case::{Attribute, Case, Mode, Pages, RawConvert};
use crate::dialect::Dialect;
use crate::errno::Errno;
use crate::platform::Platform;
use crate::uapi::PAGE_SIZE;

/// A fresh guest_memfd with slot 0 over all of it.
fn fresh(platform: Platform, dialect: Dialect, start: Attribute, pages: u64) -> Oracle {
    let case = Case { name: "t.n".into(), pages, start, ..Case::default() };
    Oracle::new(platform, dialect, &case)
}

/// The call that converts `pages`.
fn call(pages: Pages, to: Attribute, mode: Mode) -> RawConvert {
    RawConvert::of_pages(&pages, to, mode.bits())
}

/// The results that are allowed for a call.
fn results(oracle: &Oracle, call: &RawConvert) -> Vec<Result<(), Errno>> {
    oracle.judge(call).iter().map(|a| a.result).collect()
}

/// A conversion that must be accepted.
fn convert(oracle: &mut Oracle, pages: Pages, to: Attribute, mode: Mode) {
    let call = call(pages, to, mode);
    assert_eq!(results(oracle, &call), [Ok(())], "{call:?}");
    oracle.apply(&call, Ok(()));
}

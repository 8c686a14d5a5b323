// SPDX-License-Identifier: GPL-2.0-only
//! Tests of the model against what the series says of a kernel.

mod arguments;
mod content;
mod guest;
mod host;
mod memslot;
mod planted;
mod snp;
pub(crate) mod support;
mod tdx;

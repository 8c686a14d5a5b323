// SPDX-License-Identifier: GPL-2.0-only
//! The images that encrypted guests are launched with. Placeholders until the payloads' own are there: the model, which runs
//! the command loop natively, does not execute them, and hardware cannot.

use super::plain;
use crate::payload::abi::RESET_PAGE;
use crate::payload::abi::RESET_VECTOR;
use crate::uapi::PAGE_SIZE;

/// An SNP guest's payload, loaded and entered at [`crate::payload::abi::IMAGE`].
pub(super) static SNP: &[u8] = plain::PAYLOAD;
/// A TD's payload, at the same address.
pub(super) static TDX_IMAGE: &[u8] = plain::PAYLOAD;
/// The page at [`RESET_PAGE`], in which a TD starts.
pub(super) static TDX_RESET: &[u8] = &RESET;

/// A jump to itself at the reset vector.
const RESET: [u8; PAGE_SIZE as usize] = {
    let mut page = [0; PAGE_SIZE as usize];
    let at = (RESET_VECTOR - RESET_PAGE) as usize;
    page[at] = 0xeb;
    page[at + 1] = 0xfe;
    page
};

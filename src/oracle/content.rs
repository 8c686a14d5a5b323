// SPDX-License-Identifier: GPL-2.0-only
//! What is known of a page's bytes.

use std::rc::Rc;

use crate::payload::pattern;
use crate::uapi::PAGE_SIZE;

/// The bytes of one page.
pub type PageBytes = [u8; PAGE_SIZE as usize];

/// What is known of a page's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Zeros.
    Zero,
    /// The pattern with this tag, of the page's own number.
    Pattern(u64),
    /// These bytes, which nobody promised but somebody has seen.
    Bytes(Rc<PageBytes>),
    /// What nobody has written: zeros as a rule, and in no case what somebody has written elsewhere. Once seen, it must
    /// stay so.
    Unwritten,
    /// Anything; but once seen, it must stay so.
    Unknown,
}

impl Content {
    /// The bytes that page number `page` must have, unless they are unknown.
    pub fn bytes(&self, page: u64) -> Option<PageBytes> {
        let tag = match self {
            Content::Zero => return Some([0; PAGE_SIZE as usize]),
            Content::Bytes(bytes) => return Some(**bytes),
            Content::Unwritten | Content::Unknown => return None,
            Content::Pattern(tag) => *tag,
        };
        let mut bytes = [0; PAGE_SIZE as usize];
        for (index, word) in bytes.chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&pattern::word(tag, page, index as u64).to_le_bytes());
        }
        Some(bytes)
    }

    /// In words, for a failure.
    pub fn describe(&self) -> String {
        match self {
            Content::Zero => "zeros".into(),
            Content::Pattern(tag) => format!("pattern {}", (tag >> 56) as u8 as char),
            Content::Bytes(_) => "the bytes seen before".into(),
            Content::Unwritten => "nobody's data".into(),
            Content::Unknown => "anything".into(),
        }
    }
}

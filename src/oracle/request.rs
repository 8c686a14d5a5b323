// SPDX-License-Identifier: GPL-2.0-only
//! What of an encrypted guest's request must reach the host.

use std::ops::Range;

use super::state::Oracle;
use crate::case::{Attribute, PscKind, PscList, Request};
use crate::payload::abi::TEST_MEMORY;
use crate::uapi::{MAP_GPA_RANGE_PAGE_SZ_2M, PAGE_SIZE};

/// GHCB specification: where the shared buffer begins and ends, and the length of a list's header and of an entry.
const BUFFER: Range<u64> = 0x800..0xff0;
const HEADER: u64 = 8;
const ENTRY: u64 = 8;
/// The shared bit of a TD's addresses: everything below is one half of its address space, everything above the other.
const HALF: u64 = 1 << 47;

/// Pages in a row that a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Number of the list's entry.
    pub entry: u64,
    /// Pages of the test memory.
    pub pages: Range<u64>,
    /// To private, or to shared.
    pub private: bool,
    /// The page size that the guest names, as bits of the hypercall's attributes; `None` if it names none.
    pub page_size: Option<u64>,
}

/// What becomes of a request that the host grants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Petition {
    /// What reaches the host, in this order.
    pub asked: Vec<Asked>,
    /// Whether the guest is told an error behind that.
    pub refused: bool,
    /// Whether the guest may be told an error, of something that no hypervisor has to do.
    pub may_be_refused: bool,
    /// The entries that the list is about: what the current one is at the start, and behind the end.
    pub entries: Option<Range<u64>>,
}

impl Oracle {
    /// What must become of `request`.
    pub fn judge_guest_request(&self, request: &Request) -> Petition {
        match request {
            Request::List(list) => list_petition(list),
            Request::Msr { operation: operation @ (1 | 2), page } => {
                let private = *operation == 1;
                Petition {
                    asked: vec![Asked {
                        entry: 0,
                        pages: *page..page + 1,
                        private,
                        page_size: Some(0),
                    }],
                    ..Petition::default()
                }
            }
            Request::Msr { .. } => refused(),
            Request::MapGpa { offset, size, to } => {
                let start = TEST_MEMORY.wrapping_add(*offset);
                let end = start.checked_add(*size).filter(|end| *size != 0 && *end <= HALF);
                if end.is_none() || !(start | size).is_multiple_of(PAGE_SIZE) {
                    return refused();
                }
                let (first, count) = (offset / PAGE_SIZE, size / PAGE_SIZE);
                let private = *to == Attribute::Private;
                Petition {
                    asked: vec![Asked {
                        entry: 0,
                        pages: first..first + count,
                        private,
                        page_size: None,
                    }],
                    ..Petition::default()
                }
            }
        }
    }
}

/// Nothing reaches the host.
fn refused() -> Petition {
    Petition { refused: true, ..Petition::default() }
}

fn list_petition(list: &PscList) -> Petition {
    let scratch = list.scratch.unwrap_or(BUFFER.start);
    let room = BUFFER.end.checked_sub(scratch).filter(|_| BUFFER.contains(&scratch));
    let Some(room) = room.and_then(|bytes| bytes.checked_sub(HEADER)) else {
        return refused();
    };
    let entries = list.flat();
    let (current, last) = (u64::from(list.current), u64::from(list.last()));
    if last >= room / ENTRY {
        return refused();
    }
    let mut petition = Petition { entries: Some(current..last + 1), ..Petition::default() };
    if current > last {
        // There is nothing to do; whether that is a mistake is left open.
        petition.may_be_refused = true;
        petition.entries = None;
        return petition;
    }
    for entry in current..=last {
        // What the case does not name is 0, an operation that is none.
        let (kind, page) = entries.get(entry as usize).copied().unwrap_or((PscKind::Unknown, 0));
        let pages = page..page + kind.span();
        let private = match kind {
            PscKind::Done => continue,
            PscKind::Smash | PscKind::Unknown => {
                petition.may_be_refused = true;
                continue;
            }
            PscKind::Overdone => {
                petition.refused = true;
                return petition;
            }
            PscKind::Private2m | PscKind::Shared2m if !page.is_multiple_of(kind.span()) => {
                petition.refused = true;
                return petition;
            }
            PscKind::Private | PscKind::Private2m => true,
            PscKind::Shared | PscKind::Shared2m => false,
        };
        let page_size = Some(if kind.span() == 1 { 0 } else { MAP_GPA_RANGE_PAGE_SZ_2M });
        petition.asked.push(Asked { entry, pages, private, page_size });
    }
    petition
}

// SPDX-License-Identifier: GPL-2.0-only
//! What a launch call must make of its arguments.

use super::content::Content;
use super::state::Oracle;
use crate::case::{Attribute, LaunchLength, LaunchSource, RawLaunch};
use crate::clause::ClauseId;
use crate::dialect::Dialect;
use crate::platform::Platform;
use crate::uapi::PAGE_SIZE;
use crate::uapi::sev::{
    PAGE_TYPE_CPUID, PAGE_TYPE_NORMAL, PAGE_TYPE_SECRETS, PAGE_TYPE_UNMEASURED, PAGE_TYPE_ZERO,
};
use crate::uapi::tdx::MEASURE_MEMORY_REGION;

/// What a launch call may take, and why no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchLimit {
    /// The pages of the file that it may take, in order: all that it asks for, or those before the first that it must refuse.
    pub pages: Vec<u64>,
    /// The clause by which it is refused then.
    pub refusal: Option<ClauseId>,
}

impl Oracle {
    /// How far a launch call may get.
    pub fn judge_raw_launch(&self, call: &RawLaunch) -> LaunchLimit {
        let refused = |clause| LaunchLimit { pages: Vec::new(), refusal: Some(clause) };
        if self.has_finished_launch() {
            return refused(ClauseId::CocoLaunchRefused);
        }
        let Some(count) = self.good_count(call) else {
            return refused(ClauseId::CocoLaunchArguments);
        };
        let first = call.offset / PAGE_SIZE;
        let mut pages = Vec::new();
        for number in 0..count {
            let has_source =
                self.takes_no_source(call) || call.mapped.is_none_or(|mapped| number < mapped);
            let page = self.page_at(first + number);
            let refusal = match page {
                Some(page) if self.attribute(page) != Attribute::Private => {
                    ClauseId::CocoLaunchRefused
                }
                Some(page) if self.is_accepted(page) => ClauseId::CocoLaunchRefused,
                Some(page) if has_source => {
                    pages.push(page);
                    continue;
                }
                _ => ClauseId::CocoLaunchArguments,
            };
            return LaunchLimit { pages, refusal: Some(refusal) };
        }
        LaunchLimit { pages, refusal: None }
    }

    /// A launch call has taken `page`, the pattern with `tag` being its source if it has one.
    pub fn launch_raw(&mut self, call: &RawLaunch, page: u64, tag: u64) {
        match call.source {
            _ if self.is_zero_type(call) => {
                self.launch_as(page, Content::Zero, ClauseId::CocoLaunchExact);
            }
            LaunchSource::InPlace => self.launch(page, None),
            LaunchSource::Pattern(_) | LaunchSource::Unaligned => self.launch(page, Some(tag)),
        }
    }

    /// Whether the guest runs.
    fn has_finished_launch(&self) -> bool {
        self.launched
    }

    /// Whether an encrypted guest's launch is not finished.
    pub fn takes_launch_calls(&self) -> bool {
        !self.launched
    }

    /// How many pages the call asks for, if its arguments are good ones as such.
    fn good_count(&self, call: &RawLaunch) -> Option<u64> {
        let (count, known) = match (self.platform.has(|e| e.launches_by_number), call.length) {
            (false, LaunchLength::Bytes(bytes)) if !bytes.is_multiple_of(PAGE_SIZE) => {
                return None;
            }
            (false, LaunchLength::Bytes(bytes)) => (bytes / PAGE_SIZE, snp_knows(call)),
            // `len` is what is left of the product in 64 bits.
            (false, LaunchLength::Pages(pages)) => {
                (pages.wrapping_mul(PAGE_SIZE) / PAGE_SIZE, snp_knows(call))
            }
            (true, LaunchLength::Pages(pages)) => {
                // Whether an end that wraps is refused at once, or only where the memslot ends, differs (7c9a2e3a4564).
                (pages, call.flags & !MEASURE_MEMORY_REGION == 0)
            }
            (true, LaunchLength::Bytes(_)) => return None,
        };
        let has_source = match call.source {
            // The firmware takes a pattern for no table of CPUID leaves.
            LaunchSource::Pattern(_) if call.is_cpuid(self.platform) => false,
            _ if self.is_zero_type(call) => true,
            LaunchSource::Pattern(_) => true,
            LaunchSource::InPlace => self.dialect != Dialect::RfcV4,
            LaunchSource::Unaligned => false,
        };
        let aligned = call.offset.is_multiple_of(PAGE_SIZE);
        (count != 0 && known && has_source && aligned).then_some(count)
    }

    /// Whether the pages hold zeros, whatever the source is.
    fn is_zero_type(&self, call: &RawLaunch) -> bool {
        self.platform.has(|e| !e.launches_by_number) && call.page_type == PAGE_TYPE_ZERO
    }

    fn takes_no_source(&self, call: &RawLaunch) -> bool {
        self.is_zero_type(call) || call.source == LaunchSource::InPlace
    }

    /// The page of the file that is mapped at a page of the test memory.
    pub fn page_at(&self, at: u64) -> Option<u64> {
        let slot = self.slots().find(|slot| slot.mapped_at().contains(&at))?;
        Some(slot.pages.start + (at - slot.at))
    }
}

impl RawLaunch {
    /// Whether the firmware looks at what the page holds.
    pub fn is_cpuid(&self, platform: Platform) -> bool {
        platform.has(|e| !e.launches_by_number) && self.page_type == PAGE_TYPE_CPUID
    }
}

/// Whether LAUNCH_UPDATE has such a type of pages, and such flags.
fn snp_knows(call: &RawLaunch) -> bool {
    let types = [
        PAGE_TYPE_NORMAL,
        PAGE_TYPE_ZERO,
        PAGE_TYPE_UNMEASURED,
        PAGE_TYPE_SECRETS,
        PAGE_TYPE_CPUID,
    ];
    types.contains(&call.page_type) && call.flags == 0
}

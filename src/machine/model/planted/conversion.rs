// SPDX-License-Identifier: GPL-2.0-only
//! What is planted in a conversion: when there is nothing to do, when a mode is refused, and in what is stored.

use std::ops::Range;

use crate::errno::Errno;
use crate::machine::Result;
use crate::machine::model::convert::{Conversion, Refused};
use crate::machine::model::fault::Fault;
use crate::machine::model::inode::{Inode, State};
use crate::uapi::ATTRIBUTE_PRIVATE;

impl Inode {
    /// What every page of a new file starts as.
    pub fn hook_initial_attributes(fault: Option<Fault>, attributes: u64) -> u64 {
        match fault {
            Some(Fault::MissingEntryIsShared) => 0,
            Some(Fault::InitSharedIgnored) => ATTRIBUTE_PRIVATE,
            _ => attributes,
        }
    }

    /// The error with which a conversion is refused before anything is looked at, if it is.
    pub fn hook_refused_first(&self, state: &mut State, to_private: bool) -> Option<Errno> {
        let refuses = self.planted(Fault::EagainBeforeRefusal) && to_private;
        let first = refuses && !std::mem::replace(&mut state.planted.refused_once, true);
        first.then_some(Errno::EAGAIN)
    }

    /// Whether every page of the range has the wanted attributes. `None`: the attributes decide.
    pub fn hook_settled(&self, state: &State, conversion: &Conversion) -> Option<bool> {
        let Conversion { pages, attributes, .. } = conversion;
        match self.config.fault {
            Some(Fault::OnlyFirstEntryChecked) => {
                Some(state.attributes.get(pages.start) == Some(*attributes))
            }
            Some(Fault::HolesNotCompared) => {
                let mut folios = self.folios(pages.clone()).into_iter().flatten();
                Some(folios.all(|page| state.attributes.get(page) == Some(*attributes)))
            }
            _ => None,
        }
    }

    /// Whether the mode is looked at.
    pub fn hook_mode_checked(&self, settled: bool) -> bool {
        !(settled && self.planted(Fault::NoopModeNotChecked))
    }

    /// How a conversion of pages that all are what they become ends at once, if it does.
    pub fn hook_noop(&self) -> Option<Result<()>> {
        match self.config.fault {
            Some(Fault::NoopRefused) => Some(Err(Errno::EINVAL)),
            Some(Fault::ModeSkippedOnNoop) => Some(Ok(())),
            _ => None,
        }
    }

    /// A mode is not offered, so that nothing happens.
    pub fn hook_refused_mode(
        &self,
        state: &mut State,
        conversion: &Conversion,
        refused: Refused,
    ) -> Refused {
        let Conversion { pages, attributes, .. } = conversion;
        let Refused { error, offset } = refused;
        match self.config.fault {
            Some(Fault::RefusedConvertsAnyway) => {
                let _ = self.store(state, pages.clone(), *attributes);
                let _ = self.refault(state, pages.clone());
            }
            Some(Fault::RefusedZeroesAnyway) => {
                for page in self.folios(pages.clone()).into_iter().flatten() {
                    let _ = self.clear_folio(page);
                }
            }
            Some(Fault::RefusedWithEinval) => return Refused { error: Errno::EINVAL, offset },
            Some(Fault::RefusedOffsetZero) => return Refused { error, offset: 0 },
            Some(Fault::RefusedOffsetUninitialised) => {
                return Refused { error, offset: 0xffff_8881_0012_3000 };
            }
            _ => {}
        }
        Refused { error, offset }
    }

    /// The pages whose attributes are stored.
    pub fn hook_stored(&self, state: &State, pages: &Range<u64>) -> Range<u64> {
        let mut stored = pages.clone();
        match self.config.fault {
            Some(Fault::OnePageTooMany) => stored.end += 1,
            Some(Fault::OnePageTooEarly) => stored.start = stored.start.saturating_sub(1),
            Some(Fault::LastPageMissed) if stored.end - stored.start > 1 => stored.end -= 1,
            Some(Fault::FirstPageMissed) if stored.end - stored.start > 1 => stored.start += 1,
            Some(Fault::StopsAtLargePage) => stored.end = stored.end.min((stored.start | 511) + 1),
            Some(Fault::MixedFirstEntryOnly) => {
                let first = state.attributes.runs(stored.clone()).first().map(|(run, _)| run.end);
                stored.end = first.unwrap_or(stored.end);
            }
            Some(Fault::EntryNotSplit) => {
                let entry = state.attributes.runs(stored.end - 1..self.pages());
                stored.end = entry.first().map_or(stored.end, |(run, _)| run.end);
            }
            _ => {}
        }
        stored
    }

    /// The attributes of the range have been stored.
    pub fn hook_also_stored(&self, state: &mut State, conversion: &Conversion) -> Result<()> {
        let Conversion { pages, attributes, .. } = conversion;
        match self.config.fault {
            Some(Fault::MergeUnderflow) if pages.start == 0 => {
                let last = self.pages() - 1..self.pages();
                self.store(state, last.clone(), *attributes)?;
                self.refault(state, last)
            }
            Some(Fault::NeighbourRecorded)
                if conversion.to_private() && pages.end < self.pages() =>
            {
                self.store(state, pages.end..pages.end + 1, *attributes)
            }
            _ => Ok(()),
        }
    }

    /// The pages that the host's faults find anew. `changed` are those of a correct kernel, `stored` those whose attributes
    /// were stored.
    pub fn hook_refaulted(
        &self,
        conversion: &Conversion,
        stored: &Range<u64>,
        changed: Option<Range<u64>>,
    ) -> Option<Range<u64>> {
        let pages = &conversion.pages;
        match self.config.fault {
            Some(Fault::EverythingZapped) => Some(0..self.pages()),
            Some(Fault::SharedNotMapped) if !conversion.to_private() => None,
            _ if stored == pages => changed,
            _ => Some(stored.start.min(pages.start)..stored.end.max(pages.end)),
        }
    }
}

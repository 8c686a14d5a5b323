// SPDX-License-Identifier: GPL-2.0-only
//! `KVM_SET_MEMORY_ATTRIBUTES2` on a guest_memfd: the checks in the kernel's order, then the conversion.

use std::ops::Range;
use std::sync::Arc;

use super::fault::Fault;
use super::folio::Folio;
use super::inode::{Inode, State};
use super::user::{copy_from_user, copy_to_user};
use crate::dialect::Dialect;
use crate::errno::Errno;
use crate::machine::Result;
use crate::uapi::{
    ATTRIBUTE_PRIVATE, GUEST_MEMFD_FLAG_MMAP, MODE_PRESERVE, MODE_ZERO, MemoryAttributes2,
    PAGE_SIZE,
};

/// Folios that the kernel looks up at once (`PAGEVEC_SIZE`).
pub(super) const BATCH: u64 = 31;

/// Every content mode.
const MODES: u64 = MODE_ZERO | MODE_PRESERVE;

/// A conversion that was refused after its arguments were found good: why, and the byte offset that goes into
/// error_offset.
struct Refused {
    error: Errno,
    offset: u64,
}

impl Inode {
    /// `kvm_gmem_ioctl()`.
    ///
    /// # Safety
    ///
    /// As [`crate::machine::GuestMemfd::set_memory_attributes2`].
    pub(super) unsafe fn set_memory_attributes2(
        &self,
        argument: *mut MemoryAttributes2,
    ) -> Result<()> {
        if self.config.dialect == Dialect::None {
            return Err(Errno::ENOTTY);
        }
        // SAFETY: the caller keeps the promise that copy_from_user() asks for.
        let copied = unsafe { copy_from_user(argument) };
        let mut arguments = copied.map_err(|error| match self.config.fault {
            Some(Fault::BadPointerIsEinval) => Errno::EINVAL,
            _ => error,
        })?;
        let checked = self.check_arguments(&arguments);
        if checked.is_err() && self.planted(Fault::WrittenBackOnEinval) {
            // SAFETY: as above. That it may fail changes nothing.
            let _ = unsafe { copy_to_user(argument, arguments) };
        }
        let pages = checked?;
        let attributes = arguments.attributes & ATTRIBUTE_PRIVATE;
        let result = if pages.is_empty() {
            // Only a check that a bug has left out lets an empty range through.
            Ok(())
        } else {
            self.convert(pages.clone(), attributes, self.mode(arguments.flags))
        };
        match result {
            Ok(()) if self.planted(Fault::SuccessWritesErrorOffset) => {
                arguments.error_offset = pages.end * PAGE_SIZE;
                // SAFETY: as above.
                unsafe { copy_to_user(argument, arguments) }
            }
            Ok(()) if self.planted(Fault::SuccessClearsErrorOffset) => {
                arguments.error_offset = 0;
                // SAFETY: as above.
                unsafe { copy_to_user(argument, arguments) }
            }
            // On success the argument is not written.
            Ok(()) => Ok(()),
            Err(Refused { error, .. })
                if error == Errno::EAGAIN && self.planted(Fault::InUseOffsetNotWritten) =>
            {
                Err(error)
            }
            Err(Refused { error, offset }) => {
                arguments.error_offset = offset;
                // SAFETY: as above.
                let written = unsafe { copy_to_user(argument, arguments) };
                if !self.planted(Fault::WriteBackFaultIgnored) {
                    written?;
                }
                Err(error)
            }
        }
    }

    /// The content mode that `flags` select, once they have been checked.
    fn mode(&self, flags: u64) -> u64 {
        match flags & MODES {
            MODES => MODE_PRESERVE,
            mode => mode,
        }
    }

    /// The checks that give EINVAL, in order. Nothing has happened yet when one fails, and the argument stays as it is.
    fn check_arguments(&self, arguments: &MemoryAttributes2) -> Result<Range<u64>> {
        let checks: [fn(&Inode, &MemoryAttributes2) -> Result<()>; 8] = [
            Inode::check_flags,
            Inode::check_error_offset,
            Inode::check_reserved,
            Inode::check_vm,
            Inode::check_attributes,
            Inode::check_size,
            Inode::check_alignment,
            Inode::check_bounds,
        ];
        let run = |check: &fn(&Inode, &MemoryAttributes2) -> Result<()>| check(self, arguments);
        match self.config.fault {
            Some(Fault::ChecksReordered) => checks.iter().rev().try_for_each(run)?,
            Some(Fault::FlagsCheckedTooLate) => {
                checks[1..].iter().try_for_each(run)?;
                if let Err(error) = self.check_flags(arguments) {
                    let attributes = arguments.attributes & ATTRIBUTE_PRIVATE;
                    let _ = self.convert(self.range(arguments), attributes, MODE_PRESERVE);
                    return Err(error);
                }
            }
            _ => checks.iter().try_for_each(run)?,
        }
        Ok(self.range(arguments))
    }

    /// The pages of a range whose ends have been checked.
    fn range(&self, arguments: &MemoryAttributes2) -> Range<u64> {
        let (mut offset, mut size) = (arguments.offset, arguments.size);
        if self.planted(Fault::OffsetTruncated) {
            offset &= u64::from(u32::MAX);
        }
        if self.planted(Fault::SizeTruncated) {
            size &= u64::from(u32::MAX);
        }
        let end = offset.saturating_add(size);
        let mut pages = offset / PAGE_SIZE..end / PAGE_SIZE;
        if self.planted(Fault::UnalignedRounded) {
            pages.end = end.div_ceil(PAGE_SIZE);
        }
        if self.planted(Fault::OffsetIsGuestAddress) {
            let state = self.lock();
            let slot = state.bindings.first().map_or(0, |b| b.pages.start);
            if pages.end + slot <= self.pages() {
                pages = pages.start + slot..pages.end + slot;
            }
        }
        if pages.end > self.pages() {
            // Only with a bug: the wrapped end of one, the clamped end of another.
            pages.end = match self.config.fault {
                Some(Fault::RangePastEndClamped) => self.pages(),
                _ => pages.start,
            };
        }
        pages
    }

    fn check_flags(&self, arguments: &MemoryAttributes2) -> Result<()> {
        let mut flags = arguments.flags;
        if self.planted(Fault::FlagsTruncated) {
            flags &= u64::from(u32::MAX);
        }
        if !self.config.dialect.has_content_modes() {
            if self.planted(Fault::UpstreamModesIgnored) {
                flags &= !MODES;
            }
            let good = flags == 0;
            return good.then_some(()).ok_or(Errno::EINVAL);
        }
        if flags & !MODES != 0 && !self.planted(Fault::UnknownFlagIgnored) {
            return Err(Errno::EINVAL);
        }
        if flags & MODES == MODES && !self.planted(Fault::BothModesAccepted) {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    fn check_error_offset(&self, arguments: &MemoryAttributes2) -> Result<()> {
        let checked = match self.config.fault {
            Some(Fault::ErrorOffsetNotChecked) => false,
            Some(Fault::ErrorOffsetMustBeZero) => true,
            _ => self.config.dialect == Dialect::RfcV4,
        };
        if checked && arguments.error_offset != 0 {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    fn check_reserved(&self, arguments: &MemoryAttributes2) -> Result<()> {
        let checked = match self.config.fault {
            Some(Fault::ReservedNotChecked) => 0,
            Some(Fault::LastReservedNotChecked) => arguments.reserved.len() - 1,
            _ => arguments.reserved.len(),
        };
        if arguments.reserved[..checked].iter().any(|word| *word != 0) {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    /// From v8 on a VM without private memory has nothing to convert, not even to shared.
    fn check_vm(&self, _: &MemoryAttributes2) -> Result<()> {
        if self.config.dialect == Dialect::Upstream
            && !self.vm_type.has_private_memory
            && !self.planted(Fault::DefaultSharedAccepted)
        {
            return Err(Errno::EINVAL);
        }
        if self.planted(Fault::RequiresMmap) && self.flags & GUEST_MEMFD_FLAG_MMAP == 0 {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    fn check_attributes(&self, arguments: &MemoryAttributes2) -> Result<()> {
        let private =
            self.vm_type.has_private_memory || self.planted(Fault::DefaultPrivateAccepted);
        let mut unsupported = arguments.attributes;
        if private {
            unsupported &= !ATTRIBUTE_PRIVATE;
        }
        if self.planted(Fault::AttributeBitsIgnored) {
            unsupported &= ATTRIBUTE_PRIVATE;
        }
        if self.planted(Fault::AttributesTruncated) {
            unsupported &= u64::from(u32::MAX);
        }
        if unsupported != 0 {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    fn check_size(&self, arguments: &MemoryAttributes2) -> Result<()> {
        if arguments.size == 0 && !self.planted(Fault::SizeZeroAccepted) {
            return Err(Errno::EINVAL);
        }
        let wraps = arguments.offset.checked_add(arguments.size).is_none();
        if wraps && !self.planted(Fault::WrapAccepted) {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    fn check_alignment(&self, arguments: &MemoryAttributes2) -> Result<()> {
        if self.planted(Fault::UnalignedRounded) {
            return Ok(());
        }
        let size = match self.config.fault {
            Some(Fault::SizeAlignmentUnchecked) => arguments.offset,
            _ => arguments.size,
        };
        if !arguments.offset.is_multiple_of(PAGE_SIZE) || !size.is_multiple_of(PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    fn check_bounds(&self, arguments: &MemoryAttributes2) -> Result<()> {
        let offset = arguments.offset;
        if self.planted(Fault::OffsetAtEndAccepted) && offset == self.size {
            return Ok(());
        }
        // Wrapping, since it is check_size() that has seen to it that it does not.
        let end = offset.wrapping_add(arguments.size);
        let past_end = match self.config.fault {
            Some(Fault::RangePastEndClamped) => false,
            Some(Fault::EndOfFileRefused) => end >= self.size,
            _ => end > self.size,
        };
        let wrapped = self.planted(Fault::WrapAccepted) && end < offset;
        if (offset >= self.size && !wrapped) || past_end {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    /// `__kvm_gmem_set_attributes()`: `pages` are in the file and not empty.
    fn convert(
        &self,
        pages: Range<u64>,
        attributes: u64,
        mode: u64,
    ) -> std::result::Result<(), Refused> {
        let to_private = attributes & ATTRIBUTE_PRIVATE != 0;
        let at_start = |error| Refused { error, offset: pages.start * PAGE_SIZE };
        let mut state = self.lock();

        let refuses_first = self.planted(Fault::EagainBeforeRefusal) && to_private;
        if refuses_first && !std::mem::replace(&mut state.refused_once, true) {
            return Err(at_start(Errno::EAGAIN));
        }
        let settled = self.range_has_attributes(&state, &pages, attributes);
        let unchecked = settled && self.planted(Fault::NoopModeNotChecked);
        if !unchecked && !self.content_mode_supported(mode, to_private) {
            return Err(self.refuse_mode(&mut state, &pages, attributes));
        }
        if settled {
            if self.planted(Fault::NoopRefused) {
                return Err(at_start(Errno::EINVAL));
            }
            if self.planted(Fault::ModeSkippedOnNoop) {
                return Ok(());
            }
            if to_private {
                self.convert_owned(&mut state, pages.clone(), true, false).map_err(at_start)?;
            }
            return self
                .apply_content_mode(&mut state, pages.clone(), attributes, mode, to_private)
                .map_err(at_start);
        }

        if to_private || self.planted(Fault::InUseToShared) {
            // The kernel unmaps the range from the host before it looks, and the host faults it in again if the
            // conversion is refused. Nobody can tell the difference, and the host's threads shall not see a SIGBUS.
            if self.planted(Fault::InUseContentsLost) {
                self.apply_content_mode(&mut state, pages.clone(), attributes, mode, to_private)
                    .map_err(at_start)?;
            }
            self.check_unused(&mut state, &pages)?;
        }
        if to_private {
            self.zap(&state, pages.clone()).map_err(at_start)?;
        }
        self.convert_owned(&mut state, pages.clone(), to_private, true).map_err(at_start)?;
        self.apply_content_mode(&mut state, pages.clone(), attributes, mode, to_private)
            .map_err(at_start)?;
        self.store_converted(&mut state, &pages, attributes).map_err(at_start)
    }

    fn range_has_attributes(&self, state: &State, pages: &Range<u64>, attributes: u64) -> bool {
        let mut pages = pages.clone();
        if self.planted(Fault::OnlyFirstEntryChecked) {
            pages.end = pages.start + 1;
        }
        if self.planted(Fault::HolesNotCompared) {
            let mut folios = self.folios(pages).into_iter().flatten();
            return folios.all(|page| state.attributes.get(page) == Some(attributes));
        }
        let runs = state.attributes.runs(pages);
        runs.iter().all(|(_, value)| *value == attributes)
    }

    /// A content mode that is not offered: nothing happens, and error_offset is where the range starts.
    fn refuse_mode(&self, state: &mut State, pages: &Range<u64>, attributes: u64) -> Refused {
        if self.planted(Fault::RefusedConvertsAnyway) {
            let _ = self.store(state, pages.clone(), attributes);
            let _ = self.refault(state, pages.clone());
        }
        if self.planted(Fault::RefusedZeroesAnyway) {
            for page in self.folios(pages.clone()).into_iter().flatten() {
                let _ = self.clear_folio(page);
            }
        }
        Refused {
            error: match self.config.fault {
                Some(Fault::RefusedWithEinval) => Errno::EINVAL,
                _ => Errno::EOPNOTSUPP,
            },
            offset: match self.config.fault {
                Some(Fault::RefusedOffsetZero) => 0,
                Some(Fault::RefusedOffsetUninitialised) => 0xffff_8881_0012_3000,
                _ => pages.start * PAGE_SIZE,
            },
        }
    }

    /// `kvm_gmem_check_unused()` for every folio of the range: EAGAIN if one has a reference beside the page cache's.
    fn check_unused(
        &self,
        state: &mut State,
        pages: &Range<u64>,
    ) -> std::result::Result<(), Refused> {
        let mut looked_at = pages.clone();
        match self.config.fault {
            Some(Fault::InUseConverted) => return Ok(()),
            Some(Fault::InUseFirstFolioOnly) => looked_at.end = looked_at.start + 1,
            Some(Fault::InUseFirstBatchOnly) => {
                looked_at.end = looked_at.end.min(looked_at.start + BATCH)
            }
            Some(Fault::InUseOffByOne) => looked_at.end += 1,
            Some(Fault::InUseCountsBefore) => looked_at.start = looked_at.start.saturating_sub(1),
            _ => {}
        }
        let in_use = |folio: &Arc<Folio>| Arc::strong_count(folio) > 1;
        if self.planted(Fault::InUseTwiceMissed) {
            let twice =
                |page: &u64| state.referenced.get(page).is_some_and(|f| Arc::strong_count(f) > 2);
            if state.referenced.range(looked_at.clone()).all(|(page, _)| twice(page)) {
                return Ok(());
            }
        }
        state.referenced.retain(|_, folio| in_use(folio));
        let mut users = state.referenced.range(looked_at).map(|(page, _)| *page);
        let lowest =
            if self.planted(Fault::InUseOffsetHighest) { users.next_back() } else { users.next() };
        let found = [lowest, self.transient_user(state, pages)];
        let Some(page) = found.into_iter().flatten().min() else { return Ok(()) };

        if self.planted(Fault::InUseForever) {
            let leaked = state.referenced.get(&page).map(Arc::clone);
            state.leaked.extend(leaked);
        }
        if self.planted(Fault::InUsePartlyConverted) && page > pages.start {
            let before = pages.start..page;
            let _ = self.store(state, before.clone(), ATTRIBUTE_PRIVATE);
            let _ = self.refault(state, before);
        }
        if self.planted(Fault::InUseLeavesZapped) {
            let _ = self.zap(state, pages.clone());
        }
        let offset = match self.config.fault {
            Some(Fault::InUseOffsetIsStart) => pages.start * PAGE_SIZE,
            Some(Fault::InUseOffsetRelative) => page.saturating_sub(pages.start) * PAGE_SIZE,
            Some(Fault::InUseOffsetIsIndex) => page,
            Some(Fault::InUseOffsetBehind) => (page + 1) * PAGE_SIZE,
            Some(Fault::InUseOffsetTruncated) => (page * PAGE_SIZE) & 0xffff_ffff,
            Some(Fault::InUseOffsetOfLargeFolio) => (page & !511) * PAGE_SIZE,
            // Folios are one page, so the page is never before the range; from v7 on the kernel makes sure of it.
            _ if self.config.dialect == Dialect::Upstream => page.max(pages.start) * PAGE_SIZE,
            _ => page * PAGE_SIZE,
        };
        Err(Refused { error: Errno::EAGAIN, offset })
    }

    /// A page of the range on which the kernel itself holds a reference for a moment, where one is planted.
    fn transient_user(&self, state: &mut State, pages: &Range<u64>) -> Option<u64> {
        let folios = || self.folios(pages.clone()).into_iter().flatten();
        match self.config.fault? {
            Fault::SpuriousEagain if !state.refused_once => {
                state.refused_once = true;
                Some(pages.start)
            }
            Fault::DrainedLate => {
                let page = folios().find(|page| state.drained.get(*page) != Some(true));
                state.drained.set(pages.clone(), true);
                page
            }
            Fault::LruBatchNotDrained => folios().next(),
            _ => None,
        }
    }

    /// The same conversion of another file, for a bug that does not tell files apart.
    ///
    /// # Safety
    ///
    /// As [`crate::machine::GuestMemfd::set_memory_attributes2`].
    pub(super) unsafe fn converted_elsewhere(&self, argument: *mut MemoryAttributes2) {
        // SAFETY: the caller keeps the promise that copy_from_user() asks for.
        let Ok(arguments) = (unsafe { copy_from_user(argument) }) else { return };
        let mut pages = self.range(&arguments);
        pages.end = pages.end.min(self.pages());
        if pages.is_empty() {
            return;
        }
        let mut state = self.lock();
        if self.planted(Fault::OtherFileCleared) {
            if arguments.flags == MODE_ZERO {
                let mut folios = self.folios(pages).into_iter().flatten();
                let _ = folios.try_for_each(|page| self.clear_folio(page));
            }
            return;
        }
        let stored =
            self.store(&mut state, pages.clone(), arguments.attributes & ATTRIBUTE_PRIVATE);
        let _ = stored.and_then(|()| self.refault(&state, pages));
    }

    /// The attributes of the range, then what the host's page faults see of them.
    fn store_converted(
        &self,
        state: &mut State,
        pages: &Range<u64>,
        attributes: u64,
    ) -> Result<()> {
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
        if let Err(error) = self.store(state, stored.clone(), attributes) {
            // Back to what the attributes still say.
            self.refault(state, pages.clone())?;
            return Err(error);
        }
        if self.planted(Fault::MergeUnderflow) && pages.start == 0 {
            let last = self.pages() - 1..self.pages();
            self.store(state, last.clone(), attributes)?;
            self.refault(state, last)?;
        }
        if attributes & ATTRIBUTE_PRIVATE != 0
            && pages.end < self.pages()
            && self.planted(Fault::NeighbourRecorded)
        {
            self.store(state, pages.end..pages.end + 1, attributes)?;
        }
        if self.planted(Fault::EverythingZapped) {
            return self.refault(state, 0..self.pages());
        }
        if attributes & ATTRIBUTE_PRIVATE == 0 && self.planted(Fault::SharedNotMapped) {
            return Ok(());
        }
        // Made private by zap() already.
        if attributes & ATTRIBUTE_PRIVATE != 0 && stored == *pages {
            return Ok(());
        }
        self.refault(state, stored.start.min(pages.start)..stored.end.max(pages.end))
    }
}

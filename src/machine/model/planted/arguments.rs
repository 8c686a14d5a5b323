// SPDX-License-Identifier: GPL-2.0-only
//! What is planted in the checks of a conversion's argument, and in what is written back to it.

use std::ops::Range;

use crate::errno::Errno;
use crate::machine::Result;
use crate::machine::model::convert::{Check, Conversion, MODES};
use crate::machine::model::fault::Fault;
use crate::machine::model::inode::Inode;
use crate::machine::model::user::copy_to_user;
use crate::uapi::{
    ATTRIBUTE_PRIVATE, GUEST_MEMFD_FLAG_MMAP, MODE_PRESERVE, MemoryAttributes2, PAGE_SIZE,
};

impl Inode {
    /// The error for an argument that cannot be read.
    pub fn hook_bad_pointer(&self, error: Errno) -> Errno {
        match self.config.fault {
            Some(Fault::BadPointerIsEinval) => Errno::EINVAL,
            _ => error,
        }
    }

    /// An argument was found bad, which is not written back.
    ///
    /// # Safety
    ///
    /// As [`crate::machine::GuestMemfd::set_memory_attributes2`].
    pub unsafe fn hook_bad_argument(
        &self,
        argument: *mut MemoryAttributes2,
        arguments: MemoryAttributes2,
    ) {
        if self.planted(Fault::WrittenBackOnEinval) {
            // SAFETY: the caller keeps the promise that copy_to_user() asks for. That it may fail changes nothing.
            let _ = unsafe { copy_to_user(argument, arguments) };
        }
    }

    /// A conversion of `pages` has succeeded, which writes nothing back.
    ///
    /// # Safety
    ///
    /// As [`crate::machine::GuestMemfd::set_memory_attributes2`].
    pub unsafe fn hook_success(
        &self,
        argument: *mut MemoryAttributes2,
        mut arguments: MemoryAttributes2,
        pages: &Range<u64>,
    ) -> Result<()> {
        arguments.error_offset = match self.config.fault {
            Some(Fault::SuccessWritesErrorOffset) => pages.end * PAGE_SIZE,
            Some(Fault::SuccessClearsErrorOffset) => 0,
            _ => return Ok(()),
        };
        // SAFETY: the caller keeps the promise that copy_to_user() asks for.
        unsafe { copy_to_user(argument, arguments) }
    }

    /// Whether error_offset is written back for this error.
    pub fn hook_writes_error_offset(&self, error: Errno) -> bool {
        error != Errno::EAGAIN || !self.planted(Fault::InUseOffsetNotWritten)
    }

    /// What comes of writing error_offset back.
    pub fn hook_written_back(&self, written: Result<()>) -> Result<()> {
        if self.planted(Fault::WriteBackFaultIgnored) { Ok(()) } else { written }
    }

    /// The content mode that flags select. Only a bug lets both through.
    pub fn hook_mode(&self, mode: u64) -> u64 {
        if mode == MODES { MODE_PRESERVE } else { mode }
    }

    /// The checks in the order in which they are made.
    pub fn hook_check_order(&self, mut checks: [Check; 8]) -> [Check; 8] {
        match self.config.fault {
            Some(Fault::ChecksReordered) => checks.reverse(),
            Some(Fault::FlagsCheckedTooLate) => {
                checks.rotate_left(1);
                checks[7] = Inode::check_flags_too_late;
            }
            _ => {}
        }
        checks
    }

    /// The check of the flags when the conversion is already under way.
    fn check_flags_too_late(&self, arguments: &MemoryAttributes2) -> Result<()> {
        self.check_flags(arguments).inspect_err(|_| {
            let _ = self.convert(&Conversion {
                pages: self.range(arguments),
                attributes: arguments.attributes & ATTRIBUTE_PRIVATE,
                mode: MODE_PRESERVE,
            });
        })
    }

    /// The pages that are converted for these arguments.
    pub fn hook_range(&self, arguments: &MemoryAttributes2, pages: Range<u64>) -> Range<u64> {
        let truncated = |value| value & u64::from(u32::MAX);
        let (offset, size) = (arguments.offset, arguments.size);
        let of_bytes =
            |offset: u64, size: u64| offset / PAGE_SIZE..offset.saturating_add(size) / PAGE_SIZE;
        let mut pages = match self.config.fault {
            Some(Fault::OffsetTruncated) => of_bytes(truncated(offset), size),
            Some(Fault::SizeTruncated) => of_bytes(offset, truncated(size)),
            Some(Fault::UnalignedRounded) => {
                pages.start..offset.saturating_add(size).div_ceil(PAGE_SIZE)
            }
            Some(Fault::OffsetIsGuestAddress) => {
                let slot = self.lock().bindings.first().map_or(0, |b| b.pages.start);
                let moved = pages.start + slot..pages.end + slot;
                if moved.end <= self.pages() { moved } else { pages }
            }
            _ => pages,
        };
        if pages.end > self.pages() {
            // Only with a bug: the wrapped end of one, the clamped end of another.
            pages.end = match self.config.fault {
                Some(Fault::RangePastEndClamped) => self.pages(),
                _ => pages.start,
            };
        }
        pages
    }

    /// The flags that are checked.
    pub fn hook_flags(&self, flags: u64) -> u64 {
        let modes = self.config.dialect.has_content_modes();
        match self.config.fault {
            Some(Fault::FlagsTruncated) => flags & u64::from(u32::MAX),
            Some(Fault::UpstreamModesIgnored) if !modes => flags & !MODES,
            Some(Fault::UnknownFlagIgnored) if modes => flags & MODES,
            Some(Fault::BothModesAccepted) if modes && flags & MODES == MODES => {
                flags & !MODES | MODE_PRESERVE
            }
            _ => flags,
        }
    }

    /// Whether error_offset must be 0.
    pub fn hook_error_offset_checked(&self, checked: bool) -> bool {
        match self.config.fault {
            Some(Fault::ErrorOffsetNotChecked) => false,
            Some(Fault::ErrorOffsetMustBeZero) => true,
            _ => checked,
        }
    }

    /// The reserved words that must be 0.
    pub fn hook_reserved<'a>(&self, words: &'a [u64]) -> &'a [u64] {
        match self.config.fault {
            Some(Fault::ReservedNotChecked) => &[],
            Some(Fault::LastReservedNotChecked) => &words[..words.len() - 1],
            _ => words,
        }
    }

    /// Whether nothing of this file can be converted.
    pub fn hook_nothing_to_convert(&self, nothing: bool) -> bool {
        match self.config.fault {
            Some(Fault::DefaultSharedAccepted) => false,
            Some(Fault::RequiresMmap) => nothing || self.flags & GUEST_MEMFD_FLAG_MMAP == 0,
            _ => nothing,
        }
    }

    /// The bits of the wanted attributes that are refused.
    pub fn hook_unsupported(&self, unsupported: u64) -> u64 {
        match self.config.fault {
            Some(Fault::DefaultPrivateAccepted) => unsupported & !ATTRIBUTE_PRIVATE,
            Some(Fault::AttributeBitsIgnored) => unsupported & ATTRIBUTE_PRIVATE,
            Some(Fault::AttributesTruncated) => unsupported & u64::from(u32::MAX),
            _ => unsupported,
        }
    }

    /// Whether a range of this size is refused because it is empty.
    pub fn hook_empty(&self, empty: bool) -> bool {
        empty && !self.planted(Fault::SizeZeroAccepted)
    }

    /// Whether a range is refused because its end wraps.
    pub fn hook_wraps(&self, wraps: bool) -> bool {
        wraps && !self.planted(Fault::WrapAccepted)
    }

    /// The bits of offset and size that must be those of whole pages.
    pub fn hook_aligned(&self, arguments: &MemoryAttributes2, bits: u64) -> u64 {
        match self.config.fault {
            Some(Fault::UnalignedRounded) => 0,
            Some(Fault::SizeAlignmentUnchecked) => arguments.offset,
            _ => bits,
        }
    }

    /// Whether a range is refused because it is not all in the file. `end` is its end, which may have wrapped.
    pub fn hook_out_of_bounds(&self, offset: u64, end: u64, outside: bool) -> bool {
        match self.config.fault {
            Some(Fault::OffsetAtEndAccepted) if offset == self.size => false,
            Some(Fault::RangePastEndClamped) => offset >= self.size,
            Some(Fault::EndOfFileRefused) => outside || end >= self.size,
            Some(Fault::WrapAccepted) if end < offset => end > self.size,
            _ => outside,
        }
    }
}

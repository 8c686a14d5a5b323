// SPDX-License-Identifier: GPL-2.0-only
//! `KVM_SET_MEMORY_ATTRIBUTES2` on a guest_memfd: the checks in the kernel's order, then the conversion.

use std::ops::Range;
use std::sync::Arc;

use super::inode::{Inode, State};
use super::user::{copy_from_user, copy_to_user};
use crate::dialect::Dialect;
use crate::errno::Errno;
use crate::machine::Result;
use crate::uapi::{ATTRIBUTE_PRIVATE, MODE_PRESERVE, MODE_ZERO, MemoryAttributes2, PAGE_SIZE};

/// Folios that the kernel looks up at once (`PAGEVEC_SIZE`).
pub(super) const BATCH: u64 = 31;

/// Every content mode.
pub(super) const MODES: u64 = MODE_ZERO | MODE_PRESERVE;

/// One of the checks that give EINVAL.
pub(super) type Check = fn(&Inode, &MemoryAttributes2) -> Result<()>;

/// A conversion whose arguments were found good.
pub(super) struct Conversion {
    /// Pages of the file, not none.
    pub pages: Range<u64>,
    /// `KVM_MEMORY_ATTRIBUTE_*` that they get.
    pub attributes: u64,
    /// The content mode; 0 for none.
    pub mode: u64,
}

impl Conversion {
    /// Whether the pages become private.
    pub fn to_private(&self) -> bool {
        self.attributes & ATTRIBUTE_PRIVATE != 0
    }
}

/// A conversion that was refused after its arguments were found good: why, and the byte offset that goes into
/// error_offset.
pub(super) struct Refused {
    pub error: Errno,
    pub offset: u64,
}

/// EINVAL if something is wrong.
fn einval_if(wrong: bool) -> Result<()> {
    if wrong { Err(Errno::EINVAL) } else { Ok(()) }
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
        let mut arguments = copied.map_err(|error| self.hook_bad_pointer(error))?;
        let pages = self.check_arguments(&arguments).inspect_err(|_| {
            // SAFETY: the caller keeps the same promise.
            unsafe { self.hook_bad_argument(argument, arguments) };
        })?;
        let attributes = arguments.attributes & ATTRIBUTE_PRIVATE;
        let mode = self.hook_mode(arguments.flags & MODES);
        match self.convert(&Conversion { pages: pages.clone(), attributes, mode }) {
            // On success the argument is not written.
            // SAFETY: the caller keeps the same promise.
            Ok(()) => unsafe { self.hook_success(argument, arguments, &pages) },
            Err(Refused { error, offset }) => {
                if self.hook_writes_error_offset(error) {
                    arguments.error_offset = offset;
                    // SAFETY: as above.
                    self.hook_written_back(unsafe { copy_to_user(argument, arguments) })?;
                }
                Err(error)
            }
        }
    }

    /// The checks that give EINVAL, in order. Nothing has happened yet when one fails, and the argument stays as it is.
    fn check_arguments(&self, arguments: &MemoryAttributes2) -> Result<Range<u64>> {
        let checks = self.hook_check_order([
            Inode::check_flags,
            Inode::check_error_offset,
            Inode::check_reserved,
            Inode::check_vm,
            Inode::check_attributes,
            Inode::check_size,
            Inode::check_alignment,
            Inode::check_bounds,
        ]);
        checks.iter().try_for_each(|check| check(self, arguments))?;
        Ok(self.range(arguments))
    }

    /// The pages of the range that `arguments` describe. Their ends have been checked.
    pub(super) fn range(&self, arguments: &MemoryAttributes2) -> Range<u64> {
        let end = arguments.offset.saturating_add(arguments.size);
        self.hook_range(arguments, arguments.offset / PAGE_SIZE..end / PAGE_SIZE)
    }

    pub(super) fn check_flags(&self, arguments: &MemoryAttributes2) -> Result<()> {
        let known = if self.config.dialect.has_content_modes() { MODES } else { 0 };
        let flags = self.hook_flags(arguments.flags);
        einval_if(flags & !known != 0 || flags & MODES == MODES)
    }

    /// From RFC v5 on error_offset is for output only.
    fn check_error_offset(&self, arguments: &MemoryAttributes2) -> Result<()> {
        let checked = self.config.dialect == Dialect::RfcV4;
        einval_if(self.hook_error_offset_checked(checked) && arguments.error_offset != 0)
    }

    fn check_reserved(&self, arguments: &MemoryAttributes2) -> Result<()> {
        einval_if(self.hook_reserved(&arguments.reserved).iter().any(|word| *word != 0))
    }

    /// From v8 on a VM without private memory has nothing to convert, not even to shared.
    fn check_vm(&self, _: &MemoryAttributes2) -> Result<()> {
        let upstream = self.config.dialect == Dialect::Upstream;
        einval_if(self.hook_nothing_to_convert(upstream && !self.vm_type.has_private_memory))
    }

    fn check_attributes(&self, arguments: &MemoryAttributes2) -> Result<()> {
        let supported = if self.vm_type.has_private_memory { ATTRIBUTE_PRIVATE } else { 0 };
        einval_if(self.hook_unsupported(arguments.attributes & !supported) != 0)
    }

    fn check_size(&self, arguments: &MemoryAttributes2) -> Result<()> {
        let wraps = arguments.offset.checked_add(arguments.size).is_none();
        einval_if(self.hook_empty(arguments.size == 0) || self.hook_wraps(wraps))
    }

    fn check_alignment(&self, arguments: &MemoryAttributes2) -> Result<()> {
        let bits = self.hook_aligned(arguments, arguments.offset | arguments.size);
        einval_if(!bits.is_multiple_of(PAGE_SIZE))
    }

    fn check_bounds(&self, arguments: &MemoryAttributes2) -> Result<()> {
        let offset = arguments.offset;
        // Wrapping, since it is check_size() that has seen to it that it does not.
        let end = offset.wrapping_add(arguments.size);
        let outside = offset >= self.size || end > self.size;
        einval_if(self.hook_out_of_bounds(offset, end, outside))
    }

    /// `__kvm_gmem_set_attributes()`.
    pub(super) fn convert(&self, conversion: &Conversion) -> std::result::Result<(), Refused> {
        let Conversion { pages, mode, .. } = conversion;
        let to_private = conversion.to_private();
        let at_start = |error| Refused { error, offset: pages.start * PAGE_SIZE };
        if pages.is_empty() {
            // Only a check that a bug has left out lets an empty range through.
            return Ok(());
        }
        let mut state = self.lock();

        if let Some(error) = self.hook_refused_first(&mut state, to_private) {
            return Err(at_start(error));
        }
        let settled = self.has_attributes(&state, conversion);
        if !self.content_mode_supported(*mode, to_private) && self.hook_mode_checked(settled) {
            let refused = at_start(Errno::EOPNOTSUPP);
            return Err(self.hook_refused_mode(&mut state, conversion, refused));
        }
        if settled {
            if let Some(result) = self.hook_noop() {
                return result.map_err(at_start);
            }
            if to_private {
                self.convert_owned(&mut state, pages, true, false).map_err(at_start)?;
            }
            return self.apply_content_mode(&mut state, conversion).map_err(at_start);
        }

        if self.hook_in_use_matters(conversion) {
            // The kernel unmaps the range from the host before it looks, and the host faults it in again if the
            // conversion is refused. Nobody can tell the difference, and the host's threads shall not see a SIGBUS.
            self.hook_before_in_use(&mut state, conversion).map_err(at_start)?;
            self.check_unused(&mut state, pages)?;
        }
        if to_private {
            self.zap(&state, pages.clone()).map_err(at_start)?;
        }
        self.convert_owned(&mut state, pages, to_private, true).map_err(at_start)?;
        self.apply_content_mode(&mut state, conversion).map_err(at_start)?;
        self.store_converted(&mut state, conversion).map_err(at_start)
    }

    /// Whether every page of the range, holes included, has the wanted attributes.
    fn has_attributes(&self, state: &State, conversion: &Conversion) -> bool {
        let Conversion { pages, attributes, .. } = conversion;
        let settled = || state.attributes.runs(pages.clone()).iter().all(|(_, a)| a == attributes);
        self.hook_settled(state, conversion).unwrap_or_else(settled)
    }

    /// `kvm_gmem_check_unused()` for every folio of the range: EAGAIN if one has a reference beside the page cache's.
    fn check_unused(
        &self,
        state: &mut State,
        pages: &Range<u64>,
    ) -> std::result::Result<(), Refused> {
        if self.hook_users_missed(state, pages) {
            return Ok(());
        }
        state.referenced.retain(|_, folio| Arc::strong_count(folio) > 1);
        let lowest = state.referenced.range(pages.clone()).next().map(|(page, _)| *page);
        let Some(page) = self.hook_user(state, pages, lowest) else {
            return Ok(());
        };
        // Folios are one page, so the page is never before the range; from v7 on the kernel makes sure of it.
        let offset = match self.config.dialect {
            Dialect::Upstream => page.max(pages.start) * PAGE_SIZE,
            _ => page * PAGE_SIZE,
        };
        let refused = Refused { error: Errno::EAGAIN, offset };
        Err(self.hook_refused_in_use(state, pages, page, refused))
    }

    /// The attributes of the range, then what the host's page faults see of them.
    fn store_converted(&self, state: &mut State, conversion: &Conversion) -> Result<()> {
        let Conversion { pages, attributes, .. } = conversion;
        let stored = self.hook_stored(state, pages);
        if let Err(error) = self.store(state, stored.clone(), *attributes) {
            // Back to what the attributes still say.
            self.refault(state, pages.clone())?;
            return Err(error);
        }
        self.hook_also_stored(state, conversion)?;
        // What became private was unmapped by zap() already.
        let changed = if conversion.to_private() { None } else { Some(pages.clone()) };
        match self.hook_refaulted(conversion, &stored, changed) {
            Some(pages) => self.refault(state, pages),
            None => Ok(()),
        }
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! What the launches of encrypted guests have in common: the payload's memory, and how it becomes private.

use std::ops::Range;
use std::time::Instant;

use super::launch_error::{LaunchError, call};
use super::memory::PayloadMemory;
use super::page_tables::{Aliases, PageTables};
use crate::errno::Errno;
use crate::machine::{Vm, convert_patiently};
use crate::payload::abi::{IMAGE, PAGE_TABLES, PAYLOAD_SIZE};
use crate::uapi::{ATTRIBUTE_PRIVATE, EXIT_HYPERCALL_MASK, MemoryAttributes2, PAGE_SIZE};

/// How often a page of the payload may be in flight. Arbitrary, but far beyond what a correct kernel needs when nothing else
/// runs.
const CONVERSION_TRIES: u32 = 100;

/// A page's worth of memory at a page's address.
#[repr(C, align(4096))]
#[derive(Clone, Copy)]
struct Page([u64; PAGE_SIZE as usize / 8]);

/// Pages that are to be part of the launch, and what with.
pub struct LaunchPages {
    /// Guest physical addresses.
    pub(super) gpas: Range<u64>,
    /// Where their contents are; `None`: in the guest_memfd already.
    source: Option<Vec<Page>>,
}

impl LaunchPages {
    /// Pages with these contents, which zeros fill up, or with what they hold.
    pub fn new(gpas: Range<u64>, contents: Option<&[u8]>) -> LaunchPages {
        let source = contents.map(|bytes| {
            let count = (gpas.end - gpas.start) / PAGE_SIZE;
            let mut pages = vec![Page([0; PAGE_SIZE as usize / 8]); count as usize];
            let words = pages.iter_mut().flat_map(|page| &mut page.0);
            for (word, bytes) in words.zip(bytes.chunks(8)) {
                *word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
            }
            pages
        });
        LaunchPages { gpas, source }
    }

    /// Address of the contents of the page at `gpa` in this process, as the launch calls want it: 0 for in place.
    pub(super) fn source_of(&self, gpa: u64) -> u64 {
        let start = self.source.as_ref().map_or(0, |pages| pages.as_ptr() as u64);
        if start == 0 { 0 } else { start + (gpa - self.gpas.start) }
    }

    /// Length in bytes.
    pub(super) fn length(&self) -> u64 {
        self.gpas.end - self.gpas.start
    }
}

/// Lets the guest's requests for conversions exit to the host.
pub(super) fn let_hypercalls_exit(vm: &dyn Vm) -> Result<(), LaunchError> {
    let args = [EXIT_HYPERCALL_MASK, 0, 0, 0];
    let enabled = vm.enable_cap(kvm_bindings::KVM_CAP_EXIT_HYPERCALL, args);
    call("let hypercalls exit with KVM_ENABLE_CAP(KVM_CAP_EXIT_HYPERCALL)", enabled)
}

/// Creates the payload's memory with the page tables and `image` in it, `base` higher in guest physical memory than the guest
/// sees it, and puts it into slot `slot`. All of it is shared as yet. Returns the ranges that must be launched.
pub(super) fn create_memory(
    vm: &dyn Vm,
    slot: u32,
    image: &[u8],
    aliases: Aliases,
    base: u64,
) -> Result<(PayloadMemory, Vec<Range<u64>>), LaunchError> {
    let mut memory = PayloadMemory::in_guest_memfd(vm, base)
        .map_err(|(what, errno)| LaunchError::Call { what, errno })?;
    let mut tables = PageTables::at(base);
    let mapped = tables.map_encrypted(&mut memory, aliases);
    mapped.map_err(|_| LaunchError::NoRoom { gpa: 0, size: PAYLOAD_SIZE })?;
    memory.load(IMAGE, image);
    let region = memory.region(slot, 0, PAYLOAD_SIZE);
    // SAFETY: the caller keeps `memory` as long as the VM; it is accessed through raw pointers only.
    let added = unsafe { vm.set_user_memory_region2(&region) };
    call("add the payload's memslot with KVM_SET_USER_MEMORY_REGION2", added)?;
    let image_end = IMAGE + (image.len() as u64).next_multiple_of(PAGE_SIZE);
    Ok((memory, vec![PAGE_TABLES..tables.end(), IMAGE..image_end]))
}

/// Makes a range of the payload's memory private, so that it can be launched.
///
/// The launch takes the contents from a copy, which every revision does. Where a kernel also takes them from where they are,
/// cases try that, with pages that they can look at: a payload that is launched wrongly cannot tell how.
pub(super) fn make_private(
    memory: &PayloadMemory,
    gpas: Range<u64>,
) -> Result<LaunchPages, LaunchError> {
    // Once it is private the host cannot read it.
    let page = |gpa: u64| {
        let mut page = Page([0; PAGE_SIZE as usize / 8]);
        for (offset, word) in (0..).step_by(8).zip(&mut page.0) {
            *word = memory.read(gpa + offset);
        }
        page
    };
    let copy = gpas.clone().step_by(PAGE_SIZE as usize).map(page).collect();
    call("make the payload private with KVM_SET_MEMORY_ATTRIBUTES2", convert(memory, &gpas))?;
    let start = memory.place(gpas.start);
    let gpas = start..start + (gpas.end - gpas.start);
    Ok(LaunchPages { gpas, source: Some(copy) })
}

/// Converts to private. Again, as long as it is refused because a page is in use: nobody uses one, but the page cache may
/// have just written ones in flight for a moment.
fn convert(memory: &PayloadMemory, gpas: &Range<u64>) -> Result<(), Errno> {
    let argument = MemoryAttributes2 {
        offset: super::memory::offset(gpas.start),
        size: gpas.end - gpas.start,
        attributes: ATTRIBUTE_PRIVATE,
        ..Default::default()
    };
    // Only memory in a guest_memfd is launched.
    let gmem = memory.guest_memfd().ok_or(Errno::EBADF)?;
    convert_patiently(gmem, &argument, CONVERSION_TRIES).map(drop)
}

/// What a command says that was interrupted.
pub(super) const INTERRUPTED: &[Errno] = &[Errno::EAGAIN, Errno::EINTR];
/// What a command says that was interrupted, or found something busy that will not be for long.
pub(super) const INTERRUPTED_OR_BUSY: &[Errno] = &[Errno::EAGAIN, Errno::EINTR, Errno::EBUSY];

/// Gives a command again as long as it fails with one of `transient` and there is time left.
pub(super) fn retry(
    transient: &[Errno],
    deadline: Instant,
    mut give: impl FnMut() -> Result<(), LaunchError>,
) -> Result<(), LaunchError> {
    loop {
        let result = give();
        let errno = result.as_ref().err().and_then(LaunchError::errno);
        if !errno.is_some_and(|e| transient.contains(&e)) || Instant::now() >= deadline {
            return result;
        }
        std::thread::yield_now();
    }
}

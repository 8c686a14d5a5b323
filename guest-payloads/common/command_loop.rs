// SPDX-License-Identifier: GPL-2.0-only
//! The command loop: takes a command out of the mailbox, executes it, puts the result back.

use core::mem::offset_of;

use super::abi::{
    CHECK_RANGES, COPY_BUFFER, CheckRange, MAILBOX, Mailbox, operation, refusal, status,
};
use super::pattern;

/// The few things that a platform does in its own way. `Stop` is what ends a command in the middle: nothing can in a
/// guest, where the hardware re-executes the access; in the model it is the exit to the host, after which the command is
/// executed again from its start.
pub trait Cpu {
    /// Why an access did not complete.
    type Stop;
    /// Reads the word at the guest virtual address `address`, a multiple of 8.
    fn read(&mut self, address: u64) -> Result<u64, Self::Stop>;
    /// Writes the word at the guest virtual address `address`, a multiple of 8.
    fn write(&mut self, address: u64, word: u64) -> Result<(), Self::Stop>;
    /// Lets a little time pass.
    fn relax(&mut self) -> Result<(), Self::Stop>;

    // The rest is for encrypted guests. Each returns 0, or why the page was refused ([`status::REFUSED`]).

    /// Makes the private page at the guest virtual address `address` usable.
    fn accept(&mut self, address: u64) -> Result<u64, Self::Stop> {
        let _ = address;
        Ok(refusal::NOT_THERE)
    }
    /// Gives up the private page at the guest virtual address `address`.
    fn rescind(&mut self, address: u64) -> Result<u64, Self::Stop> {
        let _ = address;
        Ok(refusal::NOT_THERE)
    }
    /// Asks the hypervisor to make `length` bytes at the guest physical address `gpa` private or shared: page by page with
    /// the MSR protocol, or in as few requests as possible without.
    fn page_state_change(
        &mut self,
        gpa: u64,
        length: u64,
        private: bool,
        by_msr: bool,
    ) -> Result<u64, Self::Stop> {
        let _ = (gpa, length, private, by_msr);
        Ok(refusal::NOT_THERE)
    }
    /// One request to the hypervisor as it is, one of [`operation::RAW_LIST`] and its like: what becomes `found` and
    /// `expected`.
    fn raw_request(
        &mut self,
        operation: u64,
        address: u64,
        length: u64,
    ) -> Result<[u64; 2], Self::Stop> {
        let _ = (operation, address, length);
        Ok([refusal::NOT_THERE, 0])
    }
    /// How far behind `gpa` lies the page that the last [`Cpu::page_state_change`] was refused for, in bytes.
    fn refused_at(&self) -> u64 {
        0
    }
}

const PAGE: u64 = pattern::WORDS_PER_PAGE * 8;

/// Where a command first failed.
struct Detail {
    offset: u64,
    expected: u64,
    found: u64,
}

/// Executes the command that is in the mailbox. Afterwards the caller rings the doorbell.
pub fn execute<C: Cpu>(cpu: &mut C) -> Result<(), C::Stop> {
    let sequence = cpu.read(MAILBOX + offset_of!(Mailbox, sequence) as u64)?;
    let operation = cpu.read(MAILBOX + offset_of!(Mailbox, operation) as u64)?;
    let address = cpu.read(MAILBOX + offset_of!(Mailbox, address) as u64)?;
    let length = cpu.read(MAILBOX + offset_of!(Mailbox, length) as u64)?;
    let tag = cpu.read(MAILBOX + offset_of!(Mailbox, pattern) as u64)?;
    let first_page = cpu.read(MAILBOX + offset_of!(Mailbox, first_page) as u64)?;

    let mut outcome = status::OK;
    let mut range = 0;
    let mut detail = Detail { offset: 0, expected: 0, found: 0 };
    match operation {
        operation::FILL => fill(cpu, address, length, tag, first_page)?,
        operation::CHECK => {
            if let Some(mismatch) = check(cpu, address, length, tag, first_page)? {
                outcome = status::MISMATCH;
                detail = mismatch;
            }
        }
        operation::CHECK_LIST => {
            if let Some((number, mismatch)) = check_list(cpu, length)? {
                outcome = status::MISMATCH;
                range = number;
                detail = mismatch;
            }
        }
        operation::READ => detail.found = cpu.read(address)?,
        operation::WRITE => cpu.write(address, tag)?,
        operation::COPY_OUT => copy_out(cpu, address)?,
        operation::TOUCH => touch(cpu, address, length)?,
        operation::SPIN => loop {
            cpu.relax()?;
        },
        operation::ACCEPT | operation::RESCIND => {
            let accept = operation == operation::ACCEPT;
            if let Some(refused) = for_each_page(cpu, address, length, accept)? {
                outcome = status::REFUSED;
                detail = refused;
            }
        }
        operation::MAKE_SHARED
        | operation::MAKE_PRIVATE
        | operation::MAKE_SHARED_MSR
        | operation::MAKE_PRIVATE_MSR => {
            let private =
                matches!(operation, operation::MAKE_PRIVATE | operation::MAKE_PRIVATE_MSR);
            let by_msr =
                matches!(operation, operation::MAKE_SHARED_MSR | operation::MAKE_PRIVATE_MSR);
            let refused = cpu.page_state_change(address, length, private, by_msr)?;
            if refused != 0 {
                outcome = status::REFUSED;
                detail = Detail { offset: cpu.refused_at(), expected: 0, found: refused };
            }
        }
        operation::RAW_LIST | operation::RAW_MSR | operation::RAW_MAP_GPA => {
            [detail.found, detail.expected] = cpu.raw_request(operation, address, length)?;
        }
        _ => outcome = status::UNKNOWN_OPERATION,
    }

    cpu.write(MAILBOX + offset_of!(Mailbox, status) as u64, outcome)?;
    cpu.write(MAILBOX + offset_of!(Mailbox, offset) as u64, detail.offset)?;
    cpu.write(MAILBOX + offset_of!(Mailbox, expected) as u64, detail.expected)?;
    cpu.write(MAILBOX + offset_of!(Mailbox, found) as u64, detail.found)?;
    cpu.write(MAILBOX + offset_of!(Mailbox, range) as u64, range)?;
    // Last, so that an answer means a complete result.
    cpu.write(MAILBOX + offset_of!(Mailbox, answer) as u64, !sequence)
}

/// Goes through `length` bytes of a pattern, from the beginning of page `first_page` on: `visit` gets the offset of each
/// word and the word, and ends the walk with `Some`. The words of a page are an arithmetic progression
/// ([`pattern::word`]), and adding is much of the time that a guest saves: most of what it does is this.
fn walk<T, S>(
    length: u64,
    tag: u64,
    first_page: u64,
    mut visit: impl FnMut(u64, u64) -> Result<Option<T>, S>,
) -> Result<Option<T>, S> {
    let mut page = first_page;
    let mut offset = 0;
    while offset < length {
        let mut word = pattern::word(tag, page, 0);
        let step = pattern::word(tag, page, 1) - word;
        let end = length.min(offset + PAGE);
        while offset < end {
            if let Some(found) = visit(offset, word)? {
                return Ok(Some(found));
            }
            word = word.wrapping_add(step);
            offset += 8;
        }
        page += 1;
    }
    Ok(None)
}

fn fill<C: Cpu>(c: &mut C, address: u64, length: u64, tag: u64, page: u64) -> Result<(), C::Stop> {
    walk(length, tag, page, |offset, word| {
        c.write(address + offset, word)?;
        Ok(None::<()>)
    })?;
    Ok(())
}

fn check<C: Cpu>(
    cpu: &mut C,
    address: u64,
    length: u64,
    tag: u64,
    first_page: u64,
) -> Result<Option<Detail>, C::Stop> {
    walk(length, tag, first_page, |offset, expected| {
        let found = cpu.read(address + offset)?;
        Ok((found != expected).then_some(Detail { offset, expected, found }))
    })
}

fn check_list<C: Cpu>(cpu: &mut C, length: u64) -> Result<Option<(u64, Detail)>, C::Stop> {
    for number in 0..length.min(CHECK_RANGES as u64) {
        let at = COPY_BUFFER + number * size_of::<CheckRange>() as u64;
        let address = cpu.read(at + offset_of!(CheckRange, address) as u64)?;
        let length = cpu.read(at + offset_of!(CheckRange, length) as u64)?;
        let tag = cpu.read(at + offset_of!(CheckRange, pattern) as u64)?;
        let first_page = cpu.read(at + offset_of!(CheckRange, first_page) as u64)?;
        if let Some(mismatch) = check(cpu, address, length, tag, first_page)? {
            return Ok(Some((number, mismatch)));
        }
    }
    Ok(None)
}

fn copy_out<C: Cpu>(cpu: &mut C, address: u64) -> Result<(), C::Stop> {
    let mut offset = 0;
    while offset < PAGE {
        let word = cpu.read(address + offset)?;
        cpu.write(COPY_BUFFER + offset, word)?;
        offset += 8;
    }
    Ok(())
}

fn touch<C: Cpu>(cpu: &mut C, address: u64, length: u64) -> Result<(), C::Stop> {
    let mut offset = 0;
    while offset < length {
        cpu.read(address + offset)?;
        offset += PAGE;
    }
    Ok(())
}

/// Accepts or rescinds page after page, up to the first that is refused.
fn for_each_page<C: Cpu>(
    cpu: &mut C,
    address: u64,
    length: u64,
    accept: bool,
) -> Result<Option<Detail>, C::Stop> {
    let mut offset = 0;
    while offset < length {
        let page = address + offset;
        let refused = if accept { cpu.accept(page)? } else { cpu.rescind(page)? };
        if refused != 0 {
            return Ok(Some(Detail { offset, expected: 0, found: refused }));
        }
        offset += PAGE;
    }
    Ok(None)
}

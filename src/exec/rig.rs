// SPDX-License-Identifier: GPL-2.0-only
//! A guest with a guest_memfd, and calls and accesses that nobody judges: what measuring and observing are made of.

use std::ops::Range;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::access;
use super::bystander::creation_flags;
use super::convert::TRANSIENT_TRIES;
use super::guard::{self, BusError};
use super::setup::{FailedCall, map_all, new_file, whole_slot};
use super::steps::pattern_bytes;
use crate::case::Attribute;
use crate::errno::Errno;
use crate::machine::{GuestMemfd, HostView, Machine, convert_patiently};
use crate::oracle::PageBytes;
use crate::payload::abi::{PRIVATE_WINDOW, TEST_MEMORY};
use crate::platform::{Answer, Guest, GuestCommand, GuestStop, LaunchError, LaunchPages, Platform};
use crate::uapi::{MemoryAttributes2, PAGE_SIZE, byte_length, kvm_userspace_memory_region2};

/// Why a guest could not be made ready to be observed or measured. To be read after "failed to".
#[derive(Debug, Error)]
pub enum RigError {
    /// The handler of SIGBUS cannot be installed.
    #[error("catch SIGBUS with sigaction: {0}")]
    Guard(#[source] Errno),
    /// The guest cannot be launched.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The guest_memfd cannot be made or mapped.
    #[error("set up a guest_memfd: {call}: {errno}")]
    File {
        /// The call that failed.
        call: &'static str,
        /// Why.
        errno: Errno,
    },
    /// The memslot of the file before cannot be deleted.
    #[error("delete the memslot with KVM_SET_USER_MEMORY_REGION2: {0}")]
    DeleteSlot(#[source] Errno),
    /// The host cannot make the conversion that the guest asks for.
    #[error("convert to {to}: {errno}")]
    Convert {
        /// What the pages were to become.
        to: Attribute,
        /// Why.
        errno: Errno,
    },
    /// The guest does not get as far as to be answered.
    #[error("have the guest ask for pages: {0}")]
    Request(#[source] GuestStop),
    /// The guest was told this status instead of success.
    #[error("have the guest ask for pages: it was told {0:#x}")]
    RequestRefused(u64),
    /// The memslot of the file cannot be made.
    #[error("make the memslot with KVM_SET_USER_MEMORY_REGION2: {0}")]
    MakeSlot(#[source] Errno),
}

impl From<FailedCall> for RigError {
    fn from(FailedCall { call, errno, .. }: FailedCall) -> RigError {
        RigError::File { call, errno }
    }
}

/// A guest, and a guest_memfd that all of is in slot 0. Dropped in this order: first who uses the memory.
pub(crate) struct Rig {
    guest: Guest,
    pub file: RigFile,
    platform: Platform,
    /// The attribute of the pages, all of which are converted together where an encrypted guest accesses them.
    attribute: Attribute,
    /// Whether an encrypted guest has accepted the private pages.
    accepted: bool,
    /// How long the guest may take for one command.
    patience: Duration,
}

/// The guest_memfd, and the host's view of all of it.
pub(crate) struct RigFile {
    view: Box<dyn HostView>,
    gmem: Box<dyn GuestMemfd>,
}

impl Rig {
    /// Launches a guest with a guest_memfd of `pages` pages, which all have the attribute `start`.
    pub fn new(
        machine: &dyn Machine,
        platform: Platform,
        pages: u64,
        start: Attribute,
        patience: Duration,
    ) -> Result<Rig, RigError> {
        let mut rig = Rig::begin(machine, platform, pages, start, patience)?;
        rig.finish()?;
        Ok(rig)
    }

    /// The same without the end of the launch, which is [`Rig::finish`].
    pub fn begin(
        machine: &dyn Machine,
        platform: Platform,
        pages: u64,
        start: Attribute,
        patience: Duration,
    ) -> Result<Rig, RigError> {
        guard::install().map_err(RigError::Guard)?;
        let deadline = Instant::now() + patience;
        let guest = Guest::begin(machine, platform, deadline)?;
        let file = RigFile::new(&guest, pages, start)?;
        let mut rig = Rig { guest, file, platform, attribute: start, accepted: false, patience };
        rig.set_slot()?;
        Ok(rig)
    }

    /// Finishes the launch: the guest waits for its first command.
    pub fn finish(&mut self) -> Result<(), RigError> {
        Ok(self.guest.finish(Instant::now() + self.patience)?)
    }

    /// Makes private pages part of the launch with what they hold, so that the guest has not to accept them, and finishes
    /// it. Where the pages are refused, says why; the guest must not look at them then.
    pub fn finish_launch(&mut self) -> Result<Option<LaunchError>, RigError> {
        let mut refused = None;
        if self.attribute == Attribute::Private {
            let gpas = TEST_MEMORY..TEST_MEMORY + self.file.view.length();
            let deadline = Instant::now() + self.patience;
            match self.guest.launch_pages(&LaunchPages::new(gpas, None), deadline) {
                Ok(()) => self.accepted = true,
                Err(error) => refused = Some(error),
            }
        }
        self.finish()?;
        Ok(refused)
    }

    /// Puts a fresh guest_memfd in place of the one that there is.
    pub fn renew(&mut self, pages: u64, start: Attribute) -> Result<(), RigError> {
        let file = RigFile::new(&self.guest, pages, start)?;
        let region = kvm_userspace_memory_region2::default();
        // SAFETY: a region of size 0 gives the guest no memory.
        unsafe { self.guest.vm().set_user_memory_region2(&region) }
            .map_err(RigError::DeleteSlot)?;
        (self.file, self.attribute, self.accepted) = (file, start, false);
        self.set_slot()
    }

    fn set_slot(&mut self) -> Result<(), RigError> {
        let region = whole_slot(&*self.file.gmem, &*self.file.view);
        // SAFETY: the view is mapped until the slot is deleted (`renew`) or the VM is gone (the order of our fields), and
        // is accessed through raw pointers only.
        unsafe { self.guest.vm().set_user_memory_region2(&region) }.map_err(RigError::MakeSlot)?;
        Ok(self.guest.map(TEST_MEMORY, self.file.view.length())?)
    }

    /// Does `work` while `count` more vCPUs of the VM are in the guest. To be used once, and with guests that nothing
    /// encrypts.
    pub fn while_running<R>(
        &mut self,
        machine: &dyn Machine,
        count: u32,
        work: impl FnOnce(&RigFile) -> R,
    ) -> Result<R, RigError> {
        let deadline = Instant::now() + self.patience;
        let file = &self.file;
        Ok(self.guest.while_others_run(machine, count, deadline, || work(file))?)
    }

    /// Converts all pages, as [`RigFile::convert`]; an SNP guest gives them up before they become shared.
    pub fn convert(&mut self, to: Attribute, flags: u64) -> Result<u32, Errno> {
        self.give_up(to);
        let refused = self.file.convert(&(0..self.file.pages()), to, flags)?;
        self.converted(to);
        Ok(refused)
    }

    /// The same for `pages`, once, with the time that the call took, as [`RigFile::time_conversion`].
    pub fn time_conversion(
        &mut self,
        pages: &Range<u64>,
        to: Attribute,
        flags: u64,
    ) -> (Result<(), Errno>, Duration) {
        self.give_up(to);
        let (result, time) = self.file.time_conversion(pages, to, flags);
        if result.is_ok() {
            self.converted(to);
        }
        (result, time)
    }

    /// Has an SNP guest give up its pages before they become shared.
    fn give_up(&mut self, to: Attribute) {
        if self.platform.has(|e| e.rescinds) && to == Attribute::Shared && self.accepted {
            let (address, length) = self.place(&(0..self.file.pages()));
            // Should it fail, the guest's next look says so.
            let _ = self.command(GuestCommand::Rescind { address, length });
            self.accepted = false;
        }
    }

    fn converted(&mut self, to: Attribute) {
        if self.attribute != to {
            (self.attribute, self.accepted) = (to, false);
        }
    }

    /// An encrypted guest asks for the conversion of all pages, and the host makes it in as many calls as it is asked for. The
    /// time is from the guest's request to its answer.
    pub fn time_guest_request(&mut self, to: Attribute, flags: u64) -> Result<Duration, RigError> {
        self.give_up(to);
        let (private, length) = (to == Attribute::Private, self.file.view.length());
        let request = GuestCommand::PageState { gpa: TEST_MEMORY, length, private, by_msr: false };
        let deadline = Instant::now() + self.patience;
        let start = Instant::now();
        let mut answer = self.guest.command(request, deadline);
        while let Err(GuestStop::MapGpa { gpa, pages, .. }) = answer {
            let first = gpa.saturating_sub(TEST_MEMORY) / PAGE_SIZE;
            let converted = self.file.convert(&(first..first.saturating_add(pages)), to, flags);
            converted.map_err(|errno| RigError::Convert { to, errno })?;
            self.guest.set_hypercall_result(0);
            answer = self.guest.resume(deadline);
        }
        let time = start.elapsed();
        let answer = answer.map_err(RigError::Request)?;
        if let Some(refusal) = answer.refusal {
            return Err(RigError::RequestRefused(refusal.status));
        }
        self.converted(to);
        Ok(time)
    }

    /// How long the launch takes to take all pages, which are private, with `contents`, or with what they hold.
    pub fn time_launch(&mut self, contents: Option<&[u8]>) -> Result<Duration, RigError> {
        let gpas = TEST_MEMORY..TEST_MEMORY + self.file.view.length();
        let pages = LaunchPages::new(gpas, contents);
        let deadline = Instant::now() + self.patience;
        let start = Instant::now();
        self.guest.launch_pages(&pages, deadline)?;
        Ok(start.elapsed())
    }

    /// Where the guest sees pages, and their length.
    fn place(&self, pages: &Range<u64>) -> (u64, u64) {
        let (offset, length) = bytes(pages);
        let private = self.platform.is_encrypted() && self.attribute == Attribute::Private;
        let window = if private { PRIVATE_WINDOW } else { 0 };
        (TEST_MEMORY + window + offset, length)
    }

    /// Has an encrypted guest accept its private pages before it first uses them.
    fn accept(&mut self) -> Result<(), GuestStop> {
        let needed = self.platform.is_encrypted() && self.attribute == Attribute::Private;
        if !needed || self.accepted {
            return Ok(());
        }
        let (address, length) = self.place(&(0..self.file.pages()));
        let mut done = 0;
        while done < length {
            let rest = GuestCommand::Accept { address: address + done, length: length - done };
            // A page that was accepted before is refused, which is as well; any other reason shows in the access.
            match self.command(rest)?.refusal {
                Some(refusal) => done += refusal.offset + PAGE_SIZE,
                None => break,
            }
        }
        self.accepted = true;
        Ok(())
    }

    /// The guest writes the pattern `tag` into pages.
    pub fn guest_write(&mut self, pages: &Range<u64>, tag: u64) -> Result<(), GuestStop> {
        self.accept()?;
        let (address, length) = self.place(pages);
        let first_page = pages.start;
        self.command(GuestCommand::Fill { address, length, tag, first_page }).map(drop)
    }

    /// What the guest reads in a page.
    pub fn guest_read(&mut self, page: u64) -> Result<PageBytes, GuestStop> {
        self.accept()?;
        let (address, _) = self.place(&(page..page + 1));
        self.command(GuestCommand::CopyOut { address })?;
        let mut bytes = [0; PAGE_SIZE as usize];
        self.guest.copy_buffer(&mut bytes);
        Ok(bytes)
    }

    /// The guest reads the first word of each page.
    pub fn guest_touch(&mut self, pages: &Range<u64>) -> Result<(), GuestStop> {
        self.accept()?;
        let (address, length) = self.place(pages);
        self.command(GuestCommand::Touch { address, length }).map(drop)
    }

    fn command(&mut self, command: GuestCommand) -> Result<Answer, GuestStop> {
        self.guest.command(command, Instant::now() + self.patience)
    }
}

impl RigFile {
    fn new(guest: &Guest, pages: u64, start: Attribute) -> Result<RigFile, RigError> {
        let (size, flags) = (pages * PAGE_SIZE, creation_flags(start, true));
        let gmem = new_file(guest.vm(), size, flags)?;
        let view = map_all(&*gmem, size)?;
        Ok(RigFile { view, gmem })
    }

    fn pages(&self) -> u64 {
        self.view.length() / PAGE_SIZE
    }

    /// Converts, and says how often the call was refused with EAGAIN before.
    pub fn convert(&self, pages: &Range<u64>, to: Attribute, flags: u64) -> Result<u32, Errno> {
        convert_patiently(
            &*self.gmem,
            &MemoryAttributes2::of_pages(pages, to.bits(), flags),
            TRANSIENT_TRIES,
        )
    }

    /// Allocates pages with `fallocate`.
    pub fn allocate(&self, pages: &Range<u64>) -> Result<(), Errno> {
        let (offset, length) = bytes(pages);
        self.gmem.fallocate(libc::FALLOC_FL_KEEP_SIZE, offset, length)
    }

    /// Takes the memory of pages away with `fallocate`.
    pub fn punch(&self, pages: &Range<u64>) -> Result<(), Errno> {
        let (offset, length) = bytes(pages);
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        self.gmem.fallocate(mode, offset, length)
    }

    /// The host writes the pattern `tag` into a page.
    pub fn host_write(&self, page: u64, tag: u64) -> Result<(), BusError> {
        access::write_page(&*self.view, page, &pattern_bytes(tag, page))
    }

    /// What the host reads in a page.
    pub fn host_read(&self, page: u64) -> Result<PageBytes, BusError> {
        access::read_page(&*self.view, page)
    }

    /// The host writes the first word of each page.
    pub fn host_touch(&self, pages: &Range<u64>) -> Result<(), BusError> {
        pages.clone().try_for_each(|page| access::write_word(&*self.view, page, 0, page))
    }

    /// Makes the call once, and says how long it took.
    pub fn time_conversion(
        &self,
        pages: &Range<u64>,
        to: Attribute,
        flags: u64,
    ) -> (Result<(), Errno>, Duration) {
        let mut argument = MemoryAttributes2::of_pages(pages, to.bits(), flags);
        let start = Instant::now();
        // SAFETY: the argument is ours; pages of the guest_memfd are accessed through raw pointers only.
        let result = unsafe { self.gmem.set_memory_attributes2(&mut argument) };
        (result, start.elapsed())
    }
}

/// Offset and length of `pages`.
fn bytes(pages: &Range<u64>) -> (u64, u64) {
    (pages.start * PAGE_SIZE, byte_length(pages))
}

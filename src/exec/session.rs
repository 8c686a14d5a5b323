// SPDX-License-Identifier: GPL-2.0-only
//! One VM with one guest_memfd under test, and everything that a case knows about it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::attribution::Attribution;
use super::bystander::{Bystander, creation_flags};
use super::case_end::CaseEnd;
use super::child::Child;
use super::coverage::Coverage;
use super::guard;
use super::mappings::{Elsewhere, no_view};
use super::observations::Observations;
use super::setup::{FailedCall, map_all, new_file};
use super::used::{self, UsedFile, UsedVm};
use crate::case::{Attribute, Case, SlotMap, View, apart};
use crate::clause::ClauseId;
use crate::dialect::Dialect;
use crate::errno::Errno;
use crate::fnv::fnv1a_32;
use crate::machine::{GuestMemfd, HostView, Machine, Pin};
use crate::oracle::Oracle;
use crate::payload::abi::{PRIVATE_WINDOW, TEST_MEMORY};
use crate::platform::{Guest, GuestCommand, GuestStop, LaunchError, Platform};
use crate::results::Blame;
use crate::uapi::{CapabilityNumbers, byte_length};
use crate::uapi::{KVM_MEM_GUEST_MEMFD, PAGE_SIZE, kvm_userspace_memory_region2};

/// What the last step was, for deciding which clause a difference breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Nothing that changes attributes or contents.
    Nothing,
    /// A conversion of these pages succeeded.
    Converted(Range<u64>),
    /// A call was refused; it must not have had an effect. The clause that says so.
    Refused(ClauseId),
    /// These pages were punched out.
    Punched(Range<u64>),
    /// Pages were allocated.
    Allocated,
    /// A memslot came or went, or the view was mapped anew.
    Remapped,
}

/// What a case runs against.
pub(crate) struct Setup<'a> {
    pub machine: &'a dyn Machine,
    pub platform: Platform,
    pub dialect: Dialect,
    pub capability_numbers: Option<CapabilityNumbers>,
    /// How long the guest may take for one command.
    pub guest_deadline: Duration,
}

/// A running case. Dropped fields end in order: first who uses the memory, then the memory.
pub(super) struct Session<'a> {
    pub setup: &'a Setup<'a>,
    pub oracle: Oracle,
    pub child: Option<Child>,
    pub guest: Guest,
    /// References on pages, by page.
    pub pins: BTreeMap<u64, Vec<Box<dyn Pin>>>,
    pub view: Box<dyn HostView>,
    /// The second mapping, once a case has used it.
    pub view2: Option<Box<dyn HostView>>,
    /// Other guest_memfds of the VM, which nothing may change.
    pub bystanders: Vec<Bystander>,
    pub gmem: Box<dyn GuestMemfd>,
    /// Memory of the process that memslots have for a `userspace_addr` in place of the view's.
    elsewhere: Option<Elsewhere>,
    /// Where a deleted slot's pages were.
    former_slots: Vec<SlotMap>,
    pub coverage: Coverage,
    pub attribution: Attribution,
    pub observations: Observations,
    /// A part of the tag of each pattern. It differs from case to case, so that a pattern of another case is
    /// recognised.
    pub salt: u16,
    /// The attribute of every page of a fresh file.
    pub start: Attribute,
    /// Line of the step being executed.
    pub line: usize,
    /// Whether the VM must not be used for another case.
    pub spoiled: bool,
}

impl<'a> Session<'a> {
    /// Creates the guest_memfd, its mapping and its memslots in the VM, or takes those that the case before left there.
    pub fn start(setup: &'a Setup<'a>, case: &Case, vm: UsedVm) -> Result<Session<'a>, CaseEnd> {
        guard::install().map_err(|e| failed("sigaction", e))?;
        let (guest, file) = vm.take_for(case)?;
        if let Some(UsedFile { view, gmem, .. }) = file {
            return Ok(Session::new(setup, case, guest, view, gmem));
        }
        let flags = creation_flags(case.start, !case.no_mmap);
        let size = case.pages * PAGE_SIZE;
        let gmem = new_file(guest.vm(), size, flags).map_err(FailedCall::wrongly_refused)?;
        let view = match case.no_mmap {
            true => no_view(),
            false => map_all(&*gmem, size).map_err(FailedCall::wrongly_refused)?,
        };
        let mut session = Session::new(setup, case, guest, view, gmem);
        if case.userspace_elsewhere {
            session.elsewhere = Some(Elsewhere::new(size).map_err(|e| failed("mmap", e))?);
        }
        let slots: Vec<SlotMap> = session.oracle.slots().cloned().collect();
        for map in slots {
            session.map_slot(&map)?;
        }
        Ok(session)
    }

    fn new(
        setup: &'a Setup<'a>,
        case: &Case,
        guest: Guest,
        view: Box<dyn HostView>,
        gmem: Box<dyn GuestMemfd>,
    ) -> Session<'a> {
        let salt = salt(&case.name);
        Session {
            setup,
            oracle: Oracle::new(setup.platform, setup.dialect, case),
            child: None,
            guest,
            pins: BTreeMap::new(),
            view,
            view2: None,
            bystanders: Vec::new(),
            gmem,
            elsewhere: None,
            former_slots: Vec::new(),
            coverage: Coverage::new(case, salt),
            attribution: Attribution::new(),
            observations: Observations::default(),
            salt,
            start: case.start,
            line: 0,
            // Its memory may hold what only a launch puts there.
            spoiled: case.begins_in_launch(),
        }
    }

    /// Takes everything out of the VM that the case has put there, but for a file that the next case may use. The VM
    /// comes back, unless the case left traces in it that no call removes.
    pub fn finish(mut self, case: &Case) -> Result<Option<UsedVm>, CaseEnd> {
        if self.spoiled {
            return Ok(None);
        }
        let at_start = used::are_as_at_start(self.oracle.slots(), case);
        let may = used::may_be_used(case) && at_start && self.pins.is_empty();
        if may && used::empty(case, &*self.gmem) {
            let file = UsedFile::new(case, self.view, self.gmem);
            return Ok(Some(UsedVm::with_file(self.guest, file)));
        }
        let slots: Vec<u32> = self.oracle.slots().map(|map| map.slot).collect();
        for slot in slots {
            self.delete_slot(slot)?;
        }
        Ok(Some(UsedVm::new(self.guest)))
    }

    /// The argument that binds `size` bytes from byte `offset` of the file to the test memory from page `at` on.
    pub fn region(
        &self,
        slot: u32,
        offset: u64,
        size: u64,
        at: u64,
    ) -> kvm_userspace_memory_region2 {
        use std::os::fd::AsRawFd;
        // An address that is bad by itself would hide whether the offset is checked.
        let into_view = if offset < self.view.length() { offset } else { 0 };
        let userspace = match &self.elsewhere {
            Some(elsewhere) => elsewhere.address(),
            None => self.view.address() as u64,
        };
        kvm_userspace_memory_region2 {
            slot,
            flags: KVM_MEM_GUEST_MEMFD,
            guest_phys_addr: TEST_MEMORY + at * PAGE_SIZE,
            memory_size: size,
            userspace_addr: userspace + into_view / PAGE_SIZE * PAGE_SIZE,
            guest_memfd_offset: offset,
            guest_memfd: self.gmem.fd().as_raw_fd() as u32,
            ..Default::default()
        }
    }

    /// `KVM_SET_USER_MEMORY_REGION2` for a slot of the test memory, and the guest's page tables for it.
    pub fn map_slot(&mut self, map: &SlotMap) -> Result<(), CaseEnd> {
        let size = byte_length(&map.pages);
        let region = self.region(map.slot, map.pages.start * PAGE_SIZE, size, map.at);
        // SAFETY: the view stays mapped until every slot is deleted (`remap`) or the guest is gone (the order of our
        // fields), and is accessed through raw pointers only.
        unsafe { self.guest.vm().set_user_memory_region2(&region) }.map_err(|e| {
            wrongly_refused(ClauseId::MemslotRecreated, "KVM_SET_USER_MEMORY_REGION2", e)
        })?;
        self.guest.map(region.guest_phys_addr, size).map_err(|e| launch_failed(&e))?;
        // Where it is now, nothing that was there before is missing any more.
        self.former_slots.retain(|former| apart(&former.mapped_at(), &map.mapped_at()));
        Ok(())
    }

    /// Deletes a slot.
    pub fn delete_slot(&mut self, slot: u32) -> Result<(), CaseEnd> {
        let Some(map) = self.oracle.slots().find(|s| s.slot == slot).cloned() else {
            return Err(CaseEnd::error(
                Blame::Suite,
                format!("the case deletes slot {slot}, which is not there"),
            ));
        };
        let region = kvm_userspace_memory_region2 { slot, ..Default::default() };
        // SAFETY: a region of size 0 gives the guest no memory.
        unsafe { self.guest.vm().set_user_memory_region2(&region) }.map_err(|e| {
            wrongly_refused(ClauseId::MemslotRecreated, "KVM_SET_USER_MEMORY_REGION2 (delete)", e)
        })?;
        self.oracle.delete_slot(slot);
        self.former_slots.push(map);
        Ok(())
    }

    /// Unmaps the host's view and maps it again.
    pub fn remap(&mut self) -> Result<(), CaseEnd> {
        if self.oracle.slots().next().is_some() {
            let why = "the case remaps the host's view while a memslot still uses it";
            return Err(CaseEnd::error(Blame::Suite, why));
        }
        let size = self.view.length();
        let view = self.gmem.mmap(0, size).map_err(|e| {
            wrongly_refused(ClauseId::DescriptorCalls, "mmap of the guest_memfd", e)
        })?;
        self.view = view;
        self.coverage.forget_view(View::Host);
        Ok(())
    }

    /// Guest address of a page of the file: where a slot maps it, or where one did. An encrypted guest's is that of the
    /// alias that the page's attribute asks for.
    pub fn guest_address(&self, page: u64) -> Option<u64> {
        let at = self.oracle.slot_of(page).map(|(_, at)| at).or_else(|| {
            let slot = self.former_slots.iter().rev().find(|s| s.pages.contains(&page))?;
            Some(slot.at + (page - slot.pages.start))
        })?;
        let address = TEST_MEMORY + at * PAGE_SIZE;
        let private = self.oracle.attribute(page) == Attribute::Private;
        let encrypted = self.setup.platform.is_encrypted();
        Some(if encrypted && private { address + PRIVATE_WINDOW } else { address })
    }

    /// Makes the memory inaccessible that memslots have for a `userspace_addr` in place of the guest_memfd's mapping; false
    /// if they have none.
    pub fn hide_elsewhere(&self) -> Result<bool, CaseEnd> {
        let Some(elsewhere) = &self.elsewhere else {
            return Ok(false);
        };
        elsewhere.hide().map_err(|e| failed("mprotect", e))?;
        Ok(true)
    }

    /// When a guest command that starts now must have ended.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.setup.guest_deadline
    }

    /// The pattern tag of a letter in this case.
    pub fn tag(&self, letter: u8) -> u64 {
        crate::payload::pattern::tag(letter, self.salt)
    }

    /// Runs `pages` as groups that lie next to each other in one slot and for which `key` is the same: a guest command
    /// handles a whole group.
    pub fn groups<K: PartialEq>(
        &self,
        pages: impl IntoIterator<Item = u64>,
        key: impl Fn(u64) -> K,
    ) -> Vec<Range<u64>> {
        let mut groups: Vec<Range<u64>> = Vec::new();
        for page in pages {
            if let Some(last) = groups.last_mut()
                && last.end == page
                && self.guest_address(page)
                    == self.guest_address(page - 1).map(|address| address + PAGE_SIZE)
                && key(page) == key(page - 1)
            {
                last.end = page + 1;
                continue;
            }
            groups.push(page..page + 1);
        }
        groups
    }

    /// A command to the guest about a group of pages.
    pub fn fill_command(&self, pages: &Range<u64>, address: u64, tag: u64) -> GuestCommand {
        let length = byte_length(pages);
        GuestCommand::Fill { address, length, tag, first_page: pages.start }
    }
}

/// A number that differs from case to case and is the same in every run.
fn salt(name: &str) -> u16 {
    // Any mixing of the bytes would do.
    let hash = fnv1a_32(name.bytes());
    (hash ^ hash >> 16) as u16 & 0xfff
}

/// What a call fails with where something has run out: the machine's affair, not the kernel's.
pub(super) const SHORTAGES: [Errno; 2] = [Errno::ENOMEM, Errno::EMFILE];

/// A call failed whose arguments were good, by `clause`. A kernel that offers the interface has refused it without reason,
/// unless something ran out.
pub(crate) fn wrongly_refused(clause: ClauseId, call: &str, errno: Errno) -> CaseEnd {
    if SHORTAGES.contains(&errno) {
        return failed(call, errno);
    }
    CaseEnd::broken(clause, format!("{call} failed with {errno}, though its arguments are good"))
        .but("success", errno.to_string())
}

/// A call that has nothing to do with conversions failed.
pub(crate) fn failed(call: &str, errno: Errno) -> CaseEnd {
    CaseEnd::error(Blame::Machine, format!("{call} failed with {errno}"))
}

/// The VM could not be launched.
pub(crate) fn launch_failed(error: &LaunchError) -> CaseEnd {
    // KVM took every call of the launch, so it had to put into the guest what they said.
    if let LaunchError::StoppedAfterLaunch(stop) = error {
        let why = format!("the guest does not start, though no call of its launch failed: {stop}");
        return match stop {
            GuestStop::Hang { .. } => CaseEnd::timeout(ClauseId::CocoLaunchExact, why),
            _ => CaseEnd::broken(ClauseId::CocoLaunchExact, why),
        };
    }
    if let LaunchError::Stopped(stop) = error
        && !matches!(stop, GuestStop::Hang { .. })
    {
        let why = format!("the guest does not start: {stop}");
        return CaseEnd::broken(ClauseId::GuestAccess, why);
    }
    CaseEnd::error(Blame::Machine, format!("failed to {error}"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::case;
    use crate::machine::model::{Config, Model};

    /// Runs `test` in a session of a case of these steps on the model.
    pub fn in_session(steps: &str, test: impl FnOnce(&mut Session, &Case)) {
        let text = format!("case t.t\nclause convert.range\npages 8\nstart shared\n\n{steps}\n");
        let case = case::parse("t.case", &text).unwrap().remove(0);
        let (platform, dialect) = (Platform::SwProtected, Dialect::RfcV4);
        let model = Model::new(Config { dialect, fault: None });
        let guest_deadline = Duration::from_secs(60);
        let setup =
            Setup { machine: &model, platform, dialect, capability_numbers: None, guest_deadline };
        let guest = Guest::launch(&model, platform, guest_deadline).unwrap();
        let mut session = Session::start(&setup, &case, UsedVm::new(guest)).unwrap();
        test(&mut session, &case);
    }

    /// A kernel may serve shared pages through a memslot's userspace_addr, so that has to be where the view has the same part
    /// of the file; and an address like any other if there is no such part, since it is not for it to be refused.
    #[test]
    fn userspace_addresses_are_in_the_view() {
        in_session("slot 0 delete", |session, _| {
            let view = session.view.address() as u64;
            let address =
                |page: u64| session.region(1, page * PAGE_SIZE, PAGE_SIZE, 0).userspace_addr;
            for (page, in_view) in [(0, 0), (5, 5), (7, 7), (9, 0), (1 << 51, 0)] {
                assert_eq!(address(page), view + in_view * PAGE_SIZE, "{page}");
            }
        });
    }

    /// One command to the guest is about pages that lie next to each other, in the file and for the guest, and that are the
    /// same to whoever asks; and about all of them.
    #[test]
    fn groups_are_whole() {
        in_session("slot 0 delete\nslot 0 map 0..4\nslot 1 map 4..8 at 100", |session, case| {
            let all = 1..8;
            assert_eq!(session.groups(all.clone(), |_| ()), [all]);
            assert_eq!(session.groups([0, 1, 3, 4], |_| ()), [0..2, 3..5]);
            assert_eq!(session.groups(0..8, |page| page < 3), [0..3, 3..8]);
            case.steps.iter().for_each(|step| assert!(session.step(step).is_ok()));
            assert_eq!(session.groups(0..8, |_| ()), [0..4, 4..8]);
        });
    }
}

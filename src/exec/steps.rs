// SPDX-License-Identifier: GPL-2.0-only
//! Executing the statements of a case.

use std::fs;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};

use super::access;
use super::case_end::CaseEnd;
use super::child::Child;
use super::encrypted::suite;
use super::look::child_failed;
use super::session::{After, Session, failed, wrongly_refused};
use crate::activity::{self, Call, RunEnd};
use crate::case::{
    Action, Attribute, Capability, Look, Misbehaviour, Pages, RawConvert, RawSlot, Returns,
    SlotMap, Step, Toucher, View,
};
use crate::clause::ClauseId;
use crate::oracle::{self, Content, PageBytes, Sight};
use crate::platform::{GuestCommand, GuestStop};
use crate::results::Blame;
use crate::uapi::{self, PAGE_SIZE, byte_length};

/// An address that the guest's page tables never map.
const UNMAPPED: u64 = 1 << 46;

impl Session<'_> {
    /// Executes one statement. Says what must be audited then, if anything.
    pub fn step(&mut self, step: &Step) -> Result<Option<After>, CaseEnd> {
        if self.line == 0 {
            self.look_before_anything()?;
        }
        self.line = step.line;
        let expect = step.expect.as_ref();
        if expect.is_some_and(|returns| !may_return(&step.action, returns)) {
            return Err(CaseEnd::error(
                Blame::Suite,
                "only a conversion, a memslot, a launch call or a call on the file can be expected to fail",
            ));
        }
        self.act(&step.action, expect)
    }

    fn act(&mut self, action: &Action, expect: Option<&Returns>) -> Result<Option<After>, CaseEnd> {
        match action {
            Action::Convert { pages, to, mode } => {
                let call = RawConvert::of_pages(pages, *to, mode.bits());
                self.convert(&call, expect).map(Some)
            }
            Action::Raw(call) => self.convert(call, expect).map(Some),
            Action::GuestConvert { pages, to, by_msr } => {
                self.guest_convert(pages, *to, *by_msr, expect).map(Some)
            }
            Action::ConvertByAccess { page, to } => {
                self.convert_by_other_alias(*page, *to).map(Some)
            }
            Action::Request(request) => self.request(request, expect).map(Some),
            Action::OtherVm(call) => self.other_vm(*call, expect).map(Some),
            Action::FileCall(call) => self.file_call(call, expect).map(Some),
            Action::Punch(pages) => self.punch(pages).map(Some),
            Action::Allocate(pages) => self.allocate(pages).map(Some),
            Action::SlotRaw(raw) => self.refused_slot(raw, expect).map(Some),
            Action::SlotMap(map) => self.slot_map(map, expect).map(Some),
            Action::SlotDelete(slot) => self.delete_slot(*slot).map(|()| Some(After::Remapped)),
            Action::Remap => self.remap().map(|()| Some(After::Remapped)),
            Action::Write { view, pages, letter } => {
                self.write(*view, pages, *letter).map(|()| Some(After::Nothing))
            }
            Action::Pin(pages) => self.pin(pages).map(Some),
            Action::Unpin(pages) => self.unpin(pages).map(Some),
            Action::ChildFork => self.fork_child().map(Some),
            Action::BystanderConvert { pages, to } => {
                self.convert_bystander(pages, *to).map(|()| Some(After::Nothing))
            }
            Action::Bystander(attribute) => self.add_bystander(*attribute).map(no_audit),
            Action::Read { view, pages } => self.read(*view, pages.clone()).map(no_audit),
            Action::Touch { who, pages } => self.touch(*who, pages).map(no_audit),
            Action::Expect { view, pages, look } => self.expect(*view, pages, *look).map(no_audit),
            Action::ChildExit => self.end_child().map(no_audit),
            Action::Accept(pages) => self.accept_explicitly(pages).map(no_audit),
            Action::Rescind(pages) => self.rescind_explicitly(pages).map(no_audit),
            Action::WrongAlias { page, by_write } => {
                self.wrong_alias(*page, *by_write).map(no_audit)
            }
            Action::Launch { pages, from } => self.launch(pages, *from, expect).map(no_audit),
            Action::LaunchRaw(raw) => self.launch_raw(raw, expect).map(no_audit),
            Action::Finalize => match expect.filter(|returns| !returns.is_success()) {
                Some(returns) => self.finish_again(returns).map(no_audit),
                None => self.finalize().map(no_audit),
            },
            Action::FileExpect { pages, allocated } => {
                self.file_expect(pages, *allocated).map(no_audit)
            }
            Action::FileReplace => self.replace_file(self.start).map(no_audit),
            Action::PreFault(pages) => self.pre_fault(pages).map(no_audit),
            Action::Capability(capability) => self.capability(*capability).map(no_audit),
            Action::Misbehave(how) => self.misbehave(*how).map(no_audit),
        }
    }

    /// The guest has the host convert a page by accessing it through the other alias.
    fn convert_by_other_alias(&mut self, page: u64, to: Attribute) -> Result<After, CaseEnd> {
        if self.oracle.attribute(page) == to {
            return Err(suite(format!(
                "the case has the guest convert page {page}, which is {to}"
            )));
        }
        self.convert_by_access(page)
    }

    fn slot_map(&mut self, map: &SlotMap, expect: Option<&Returns>) -> Result<After, CaseEnd> {
        if expect.is_some_and(|returns| !returns.is_success()) {
            return self.refused_slot(&RawSlot::of(map), expect);
        }
        self.map_slot(map).map_err(|stop| {
            // The case makes a memslot that fits: refusing it is the kernel's doing.
            let (slot, why) = (map.slot, stop.failure.summary);
            let summary = format!("memslot {slot} cannot be made: {why}");
            CaseEnd::broken(ClauseId::MemslotRecreated, summary)
        })?;
        self.oracle.map_slot(map);
        Ok(After::Remapped)
    }

    fn fork_child(&mut self) -> Result<After, CaseEnd> {
        self.child = Some(Child::fork(&*self.view).map_err(|e| failed("fork", e))?);
        Ok(After::Nothing)
    }

    fn end_child(&mut self) -> Result<(), CaseEnd> {
        self.child = None;
        self.coverage.forget_view(View::Child);
        Ok(())
    }

    /// A case that accesses what its view must not is a mistake in the case.
    fn must_be_accessible(
        &self,
        view: View,
        verb: &str,
        pages: impl Iterator<Item = u64>,
    ) -> Result<(), CaseEnd> {
        for page in pages {
            if !matches!(self.oracle.sight(view, page), Sight::Content(_)) {
                let why =
                    format!("the case has {view} {verb} page {page}, which it must not access");
                return Err(CaseEnd::error(Blame::Suite, why));
            }
        }
        Ok(())
    }

    fn write(&mut self, view: View, pages: &Pages, letter: u8) -> Result<(), CaseEnd> {
        let tag = self.tag(letter);
        self.must_be_accessible(view, "write", pages.clone())?;
        match view {
            View::Guest => {
                self.accept_for_guest(pages.clone())?;
                for group in self.groups(pages.clone(), |_| ()) {
                    let Some(address) = self.guest_address(group.start) else {
                        continue;
                    };
                    let command = self.fill_command(&group, address, tag);
                    self.guest_command(command, "write", group.start)?;
                }
            }
            View::Host | View::Host2 | View::Child => {
                for page in pages.clone() {
                    let bytes = pattern_bytes(tag, page);
                    let written = match (view, &mut self.child) {
                        (View::Child, Some(child)) => {
                            child.write(page, &bytes).map_err(child_failed)?
                        }
                        (View::Child, None) => return Err(no_child()),
                        _ => access::write_page(self.mapping(view)?, page, &bytes),
                    };
                    written
                        .map_err(|fault| self.must_not_fault(view, page, fault, &After::Nothing))?;
                }
            }
        }
        for page in pages.clone() {
            self.observations.forget(page);
            self.oracle.write(page, tag);
            self.coverage.touch(page, view);
        }
        Ok(())
    }

    fn read(
        &mut self,
        view: View,
        pages: impl Iterator<Item = u64> + Clone,
    ) -> Result<(), CaseEnd> {
        self.must_be_accessible(view, "read", pages.clone())?;
        match view {
            View::Guest => {
                self.accept_for_guest(pages.clone())?;
                for group in self.groups(pages.clone(), |_| ()) {
                    let Some(address) = self.guest_address(group.start) else {
                        continue;
                    };
                    let length = byte_length(&group);
                    self.guest_command(
                        GuestCommand::Touch { address, length },
                        "read",
                        group.start,
                    )?;
                }
            }
            View::Host | View::Host2 => {
                for page in pages.clone() {
                    access::read_word(self.mapping(view)?, page, 0)
                        .map_err(|fault| self.must_not_fault(view, page, fault, &After::Nothing))?;
                }
            }
            View::Child => {
                for page in pages.clone() {
                    let child = self.child.as_mut().ok_or_else(no_child)?;
                    let read = child.read(page).map_err(child_failed)?;
                    read.map_err(|fault| self.must_not_fault(view, page, fault, &After::Nothing))?;
                }
            }
        }
        for page in pages {
            self.oracle.touch(page);
            self.coverage.touch(page, view);
        }
        Ok(())
    }

    /// Each side reads the pages that it may.
    fn touch(&mut self, who: Toucher, pages: &Pages) -> Result<(), CaseEnd> {
        let views: &[View] = match who {
            Toucher::Nobody => &[],
            Toucher::Host => &[View::Host],
            Toucher::Guest => &[View::Guest],
            Toucher::Both => &[View::Host, View::Guest],
        };
        for view in views {
            let may = |page: &u64| matches!(self.oracle.sight(*view, *page), Sight::Content(_));
            let accessible: Vec<u64> = pages.clone().filter(may).collect();
            self.read(*view, accessible.into_iter())?;
        }
        Ok(())
    }

    /// The case says what a page looks like: the oracle must agree, and then the page must be so.
    fn expect(&mut self, view: View, pages: &Pages, look: Look) -> Result<(), CaseEnd> {
        for page in pages.clone() {
            let sight = self.oracle.sight(view, page);
            let agrees = match (look, &sight) {
                (Look::Any, Sight::Content(_)) => true,
                (Look::Pattern(letter), Sight::Content(content)) => {
                    *content == Content::Pattern(self.tag(letter))
                }
                (Look::Zero, Sight::Content(content)) => *content == Content::Zero,
                (Look::Unwritten, Sight::Content(content)) => *content == Content::Unwritten,
                (Look::Fault, Sight::Fault)
                | (Look::Mmio, Sight::Mmio)
                | (Look::MemoryFault, Sight::MemoryFault) => true,
                _ => false,
            };
            if !agrees {
                let says = match sight {
                    Sight::Content(content) => content.describe(),
                    Sight::Fault => "a fault".into(),
                    Sight::Mmio => "an MMIO exit".into(),
                    Sight::MemoryFault => "KVM_EXIT_MEMORY_FAULT".into(),
                    Sight::Absent => "that nobody can see it".into(),
                };
                let why = format!(
                    "the case expects {look} of {view} at page {page}, the clauses say {says}"
                );
                return Err(CaseEnd::error(Blame::Suite, why));
            }
            if look == Look::Mmio && self.guest_address(page).is_none() {
                let why = format!("page {page} has no address where there was a memslot");
                return Err(CaseEnd::error(Blame::Suite, why));
            }
        }
        let pages: Vec<u64> = pages.clone().collect();
        self.look(view, &pages, &After::Nothing, true)
    }

    fn punch(&mut self, pages: &Pages) -> Result<After, CaseEnd> {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        self.gmem.fallocate(mode, pages.start * PAGE_SIZE, byte_length(pages)).map_err(|e| {
            wrongly_refused(ClauseId::FallocateArguments, "fallocate(FALLOC_FL_PUNCH_HOLE)", e)
        })?;
        self.punched(pages);
        Ok(After::Punched(pages.clone()))
    }

    /// Pages were punched out.
    pub(super) fn punched(&mut self, pages: &Pages) {
        self.oracle.punch(pages.clone());
        self.attribution.memory_clause = ClauseId::FallocatePages;
        self.observations.forget_all(pages);
        self.coverage.punch(pages);
    }

    fn allocate(&mut self, pages: &Pages) -> Result<After, CaseEnd> {
        self.gmem
            .fallocate(libc::FALLOC_FL_KEEP_SIZE, pages.start * PAGE_SIZE, byte_length(pages))
            .map_err(|e| wrongly_refused(ClauseId::FallocateArguments, "fallocate", e))?;
        Ok(self.allocated(pages))
    }

    /// Pages were allocated.
    pub(super) fn allocated(&mut self, pages: &Pages) -> After {
        self.oracle.allocate(pages.clone());
        self.coverage.watch_ends(pages.start, pages.end);
        self.attribution.memory_clause = ClauseId::FallocatePages;
        After::Allocated
    }

    fn pin(&mut self, pages: &Pages) -> Result<After, CaseEnd> {
        for page in pages.clone() {
            if self.oracle.sight(View::Host, page) == Sight::Fault {
                let why = format!("the case pins page {page}, which is private");
                return Err(CaseEnd::error(Blame::Suite, why));
            }
            let pin = self.view.pin(page * PAGE_SIZE).map_err(|e| failed("vmsplice", e))?;
            self.pins.entry(page).or_default().push(pin);
            self.oracle.pin(page);
            self.coverage.touch(page, View::Host);
        }
        Ok(After::Nothing)
    }

    fn unpin(&mut self, pages: &Pages) -> Result<After, CaseEnd> {
        for page in pages.clone() {
            if self.pins.get_mut(&page).and_then(Vec::pop).is_none() {
                let why = format!("the case unpins page {page}, which is not pinned");
                return Err(CaseEnd::error(Blame::Suite, why));
            }
            self.oracle.unpin(page);
        }
        Ok(After::Nothing)
    }

    /// What `KVM_CHECK_EXTENSION` says must be what the clauses say.
    fn capability(&self, capability: Capability) -> Result<(), CaseEnd> {
        let numbers = self.setup.capability_numbers;
        let number = match capability {
            Capability::MemoryAttributes => Some(uapi::KVM_CAP_MEMORY_ATTRIBUTES),
            Capability::GuestMemfdMemoryAttributes => {
                numbers.and_then(|n| n.guest_memfd_memory_attributes)
            }
            Capability::MemoryAttributes2Flags => numbers.and_then(|n| n.memory_attributes2_flags),
        };
        let Some(number) = number else {
            let why = format!("the number of the capability {} is not known", capability.name());
            return Err(CaseEnd::error(Blame::Suite, why));
        };
        let (system, vm) =
            oracle::capability_values(self.setup.platform, self.setup.dialect, capability);
        let answers = [
            ("system", system, self.setup.machine.check_extension(number)),
            ("VM", vm, self.guest.vm().check_extension(number)),
        ];
        for (on, expected, answer) in answers {
            if answer != Ok(expected) {
                let found = answer.map_or_else(|e| e.to_string(), |n| n.to_string());
                let summary = format!(
                    "capability {} ({number}) on the {on} is {found} instead of {expected}",
                    capability.name()
                );
                return Err(CaseEnd::broken(ClauseId::CapabilityAgrees, summary)
                    .but(expected.to_string(), found));
            }
        }
        Ok(())
    }

    fn misbehave(&mut self, how: Misbehaviour) -> Result<(), CaseEnd> {
        self.spoiled = true;
        match how {
            Misbehaviour::HangGuest => {
                let spun = self.guest_command(GuestCommand::Spin, "spin on", 0);
                spun.map(|_| ()).map_err(|mut stop| {
                    stop.failure.clause = None;
                    stop.failure.blame = Some(Blame::Payload);
                    stop
                })
            }
            Misbehaviour::HangHost => hang(),
            Misbehaviour::HangAccess => {
                let address = self.view.address().cast_const().cast();
                activity::access(Call::HostWrite, address, 0, hang)
            }
            Misbehaviour::HangCall => activity::during(Call::SetMemoryAttributes2, hang),
            Misbehaviour::HangRun => activity::run(hang, |_: &Result<(), CaseEnd>| RunEnd::Other),
            Misbehaviour::HangUnkillable => with_the_kernel(hang_unkillable),
            Misbehaviour::PanicKernel => with_the_kernel(|| fs::write(SYSRQ, "c")),
            Misbehaviour::Reboot => with_the_kernel(|| fs::write(SYSRQ, "b")),
            Misbehaviour::Segfault => die(Signal::SIGSEGV),
            Misbehaviour::Kill => die(Signal::SIGKILL),
            Misbehaviour::Exit => std::process::exit(3),
            Misbehaviour::Garbage => {
                println!("not ok 1 this.is.no.result\n1..0\nBail out!");
                eprintln!("{{\"reply\":\"done\"}} \u{1b}[31m\u{7f}");
                Ok(())
            }
            Misbehaviour::GuestException => {
                let deadline = self.deadline();
                let command = GuestCommand::Read { address: UNMAPPED };
                match self.guest.command(command, deadline) {
                    Ok(_) => Err(CaseEnd::error(
                        Blame::Payload,
                        "the guest read an address that is not mapped",
                    )),
                    Err(stop @ GuestStop::Exception { .. }) => {
                        Err(CaseEnd::error(Blame::Payload, stop.to_string()))
                    }
                    Err(stop) => Err(super::look::guest_stop(stop, "read", 0)),
                }
            }
            Misbehaviour::Panic => panic!("the case asked for it"),
        }
    }
}

/// Whether a case may say that this is what a statement returns. Success may be said of each.
fn may_return(action: &Action, returns: &Returns) -> bool {
    returns.is_success()
        || match action {
            Action::Convert { .. }
            | Action::Raw(_)
            | Action::GuestConvert { .. }
            | Action::Request(_)
            | Action::OtherVm(_)
            | Action::FileCall(_)
            | Action::SlotRaw(_)
            | Action::SlotMap(_)
            | Action::Launch { .. }
            | Action::LaunchRaw(_) => true,
            Action::Finalize => !returns.any_of.contains(&None),
            _ => false,
        }
}

/// For statements that convert nothing and give nobody's memory other contents.
fn no_audit(_: ()) -> Option<After> {
    None
}

/// Documentation/admin-guide/sysrq.rst.
const SYSRQ: &str = "/proc/sysrq-trigger";

/// What `run-in-vm` puts into its virtual machines for their process 1. A kernel of anybody else's is not touched.
const IN_VM: &str = "/gmem-conform.args";

/// Does to the kernel what it does not survive.
fn with_the_kernel(what: impl FnOnce() -> std::io::Result<()>) -> Result<(), CaseEnd> {
    let why = match Path::new(IN_VM).exists().then(what) {
        None => "only a virtual machine of run-in-vm may be broken".to_string(),
        Some(Err(error)) => error.to_string(),
        Some(Ok(())) => hang(),
    };
    Err(CaseEnd::error(Blame::Suite, why))
}

/// Has the first freezer freeze this process: a frozen task cannot be killed (admin-guide/cgroup-v1/freezer-subsystem.rst).
fn hang_unkillable() -> std::io::Result<()> {
    let group = Path::new("/tmp/freezer");
    fs::create_dir_all(group)?;
    let options = Some("freezer");
    mount(options, group, Some("cgroup"), MsFlags::empty(), options)?;
    let frozen = group.join("frozen");
    fs::create_dir_all(&frozen)?;
    fs::write(frozen.join("cgroup.procs"), std::process::id().to_string())?;
    fs::write(frozen.join("freezer.state"), "FROZEN")
}

/// Never returns.
fn hang<T>() -> T {
    loop {
        std::thread::park();
    }
}

/// Dies of a signal, whatever handler the process has for it.
fn die(signal: Signal) -> ! {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: restoring the default action is always sound. It fails for SIGKILL, which has no other.
    let _ = unsafe { sigaction(signal, &default) };
    let _ = kill(nix::unistd::getpid(), signal);
    loop {
        std::thread::park();
    }
}

fn no_child() -> CaseEnd {
    CaseEnd::error(Blame::Suite, "the case uses a child that was not forked")
}

/// The bytes of a pattern in a page.
pub(crate) fn pattern_bytes(tag: u64, page: u64) -> PageBytes {
    // A pattern always has known bytes.
    Content::Pattern(tag).bytes(page).unwrap_or([0; PAGE_SIZE as usize])
}

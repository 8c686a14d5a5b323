// SPDX-License-Identifier: GPL-2.0-only
//! What a case consists of.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use strum::VariantArray;

use super::mode::Mode;
use crate::clause::ClauseId;
use crate::dialect::Dialect;
use crate::errno::Errno;
use crate::platform::Platform;
use crate::uapi::sev::PAGE_TYPE_NORMAL;
use crate::uapi::{ATTRIBUTE_PRIVATE, KVM_MEM_GUEST_MEMFD, PAGE_SIZE, byte_length};

/// Pages of the guest_memfd under test, half-open.
pub type Pages = Range<u64>;

/// One scenario: its steps either hold or do not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Case {
    /// What it is about: the comment lines above it, without the `#`.
    pub about: Vec<String>,
    /// `topic.name[.variant]`, in `[a-z0-9_.-]`.
    pub name: String,
    /// The clauses that it tests.
    pub clauses: Vec<ClauseId>,
    /// Commits or mails that fixed what it found, shown when it fails.
    pub fixes: Vec<String>,
    /// Size of the guest_memfd in pages.
    pub pages: u64,
    /// Attribute of every page at the start.
    pub start: Attribute,
    /// Whether the guest_memfd has no `GUEST_MEMFD_FLAG_MMAP`, so that there is no host's view of it.
    pub no_mmap: bool,
    /// What it needs beyond the interface itself.
    pub needs: Vec<Requirement>,
    /// Whether pages are looked at only after the last step, so that no look disturbs what the steps do.
    pub audit_end: bool,
    /// Whether the guest_memfd may be one that an earlier case has used, emptied and converted back, with its mapping and
    /// memslot: what a fresh one costs is most of the time of a small case.
    pub file_reused: bool,
    /// Whether no other case may have run in the VM before. Otherwise one may: a launch is what takes most time.
    pub vm_fresh: bool,
    /// Whether there is no memslot at the start; otherwise slot 0 maps all of the file at page 0 of the test memory.
    pub no_slots: bool,
    /// Whether the memslots' `userspace_addr` is other memory than the guest_memfd's mapping. Then it shows who serves the
    /// guest's accesses to shared pages, and no MMU notifier takes the guest's mappings away when the host's go.
    pub userspace_elsewhere: bool,
    /// What happens.
    pub steps: Vec<Step>,
}

impl Case {
    /// Whether the launch of the guest is not finished at the start.
    pub fn begins_in_launch(&self) -> bool {
        self.steps.iter().any(|step| step.action == Action::Finalize)
    }

    /// Whether it is about a guest_memfd as such: it converts nothing, and no page is ever private. Such a case makes sense
    /// on a kernel without in-place conversion, too.
    pub fn converts_nothing(&self) -> bool {
        let converts = |step: &Step| {
            matches!(
                step.action,
                Action::Convert { .. }
                    | Action::Raw(_)
                    | Action::GuestConvert { .. }
                    | Action::ConvertByAccess { .. }
                    | Action::Bystander(_)
                    | Action::BystanderConvert { .. }
                    | Action::Capability(_)
            )
        };
        let mappable_and_shared = self.start == Attribute::Shared && !self.no_mmap;
        mappable_and_shared && !self.steps.iter().any(converts)
    }
}

/// Shared or private: the kernel's record for a page.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[derive(strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Attribute {
    /// Host and guest may access the page.
    #[default]
    Shared,
    /// Only the guest may.
    Private,
}

impl Attribute {
    /// The word in a case.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The value of `kvm_memory_attributes2::attributes` that stands for this attribute.
    pub fn bits(self) -> u64 {
        match self {
            Attribute::Shared => 0,
            Attribute::Private => ATTRIBUTE_PRIVATE,
        }
    }
}

/// A requirement that may skip a case, or, for platforms, keep it from being planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// `needs platform=...`: the case makes sense on these platforms only. Without it: on every platform with private
    /// memory.
    Platform(Vec<Platform>),
    /// `needs dialect=...`: the machine speaks one of these.
    Dialect(Vec<Dialect>),
    /// `needs mode=...`: the platform offers this content mode in this dialect.
    Mode(Mode),
    /// `needs capability=...`: the number of this capability is known (`--kernel-headers`).
    CapabilityNumber(Capability),
    /// `needs launch=in-place`: the launch calls of the platform's guests take no source, and then what the page holds.
    LaunchInPlace,
    /// `needs call=pre-fault`: KVM has `KVM_PRE_FAULT_MEMORY`.
    PreFault,
}

/// A memslot: which pages of the file it maps where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotMap {
    /// Number of the slot, from 0.
    pub slot: u32,
    /// Pages of the file.
    pub pages: Pages,
    /// Page of the test memory that the first of them is mapped at.
    pub at: u64,
}

impl SlotMap {
    /// The pages of the test memory that they are mapped at.
    pub fn mapped_at(&self) -> Pages {
        self.at..self.at + (self.pages.end - self.pages.start)
    }
}

/// Whether nothing is in both ranges; an empty one within the other counts as in it.
pub fn apart(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.end <= b.start || b.end <= a.start
}

/// A memslot with arguments that no range of pages can express, none of which a kernel may accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawSlot {
    /// Number of the slot, from 0.
    pub slot: u32,
    /// `guest_memfd_offset`, in bytes.
    pub offset: u64,
    /// `memory_size`, in bytes.
    pub size: u64,
    /// Page of the test memory that it begins at.
    pub at: u64,
    /// `KVM_MEM_*`.
    pub flags: u32,
    /// Which descriptor is given as the guest_memfd.
    pub file: SlotFile,
    /// Whether the call is the first version of it, `KVM_SET_USER_MEMORY_REGION`.
    pub first_version: bool,
}

impl RawSlot {
    /// The arguments of a memslot that a range of pages can express.
    pub fn of(map: &SlotMap) -> RawSlot {
        RawSlot {
            slot: map.slot,
            offset: map.pages.start * PAGE_SIZE,
            size: byte_length(&map.pages),
            at: map.at,
            flags: KVM_MEM_GUEST_MEMFD,
            file: SlotFile::GuestMemfd,
            first_version: false,
        }
    }
}

/// Which descriptor a memslot is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotFile {
    /// The guest_memfd under test.
    GuestMemfd,
    /// A file that is no guest_memfd.
    Other,
    /// None: the number is no open descriptor.
    Closed,
}

/// A call on the guest_memfd's descriptor, with its arguments as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileCall {
    /// `fallocate()`.
    Fallocate {
        /// `FALLOC_FL_*`.
        mode: u64,
        /// In bytes.
        offset: u64,
        /// In bytes.
        length: u64,
    },
    /// `ftruncate()`.
    Truncate {
        /// In bytes.
        size: u64,
    },
    /// `mmap()`.
    Map {
        /// `MAP_PRIVATE` instead of `MAP_SHARED`.
        private: bool,
        /// In bytes.
        offset: u64,
        /// In bytes.
        length: u64,
    },
    /// `KVM_CREATE_GUEST_MEMFD` for another file, which is closed again.
    Create {
        /// In bytes.
        size: u64,
        /// `GUEST_MEMFD_FLAG_*`.
        flags: u64,
    },
}

/// The arguments of a launch call, as they are; without keys a valid launch of page 0 of the test memory from a source of
/// its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawLaunch {
    /// Where it begins, in bytes from the start of the test memory. SNP guests are launched by frame numbers, which cannot
    /// be unaligned.
    pub offset: u64,
    /// How much it takes.
    pub length: LaunchLength,
    /// Where its contents are.
    pub source: LaunchSource,
    /// How many pages of the source are there; `None`: as many as it takes.
    pub mapped: Option<u64>,
    /// SNP: `type`.
    pub page_type: u8,
    /// `flags`: of LAUNCH_UPDATE, or of the command that INIT_MEM_REGION is.
    pub flags: u32,
}

impl Default for RawLaunch {
    fn default() -> RawLaunch {
        RawLaunch {
            offset: 0,
            length: LaunchLength::Pages(1),
            source: LaunchSource::Pattern(b'A'),
            mapped: None,
            page_type: PAGE_TYPE_NORMAL,
            flags: 0,
        }
    }
}

/// What another VM tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherVmCall {
    /// To make a memslot of the guest_memfd.
    Slot,
    /// `KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM`: to take over the guest's encryption context.
    MoveContext,
    /// `KVM_CAP_VM_COPY_ENC_CONTEXT_FROM`: to share it.
    CopyContext,
}

impl OtherVmCall {
    /// Every call.
    pub const ALL: [OtherVmCall; 3] =
        [OtherVmCall::Slot, OtherVmCall::MoveContext, OtherVmCall::CopyContext];

    /// The word in a case.
    pub fn name(self) -> &'static str {
        match self {
            OtherVmCall::Slot => "slot",
            OtherVmCall::MoveContext => "move-context",
            OtherVmCall::CopyContext => "copy-context",
        }
    }
}

/// How much a launch call takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaunchLength {
    /// So many pages: `nr_pages` on TDX, 4096 times as much in `len` on SNP.
    Pages(u64),
    /// So many bytes: `len`. SNP only.
    Bytes(u64),
}

/// One request of an encrypted guest to the hypervisor, as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestRequest {
    /// What is asked for.
    pub what: Request,
    /// What the host answers, exit by exit; behind the last it makes the conversion that is asked for.
    pub answers: Vec<Option<Errno>>,
}

/// What an encrypted guest asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// SNP: a page state change through the GHCB.
    List(PscList),
    /// SNP: a page state change by the GHCB's MSR protocol.
    Msr {
        /// 1: to private. 2: to shared. The others are none.
        operation: u64,
        /// Page of the test memory.
        page: u64,
    },
    /// TDX: MapGPA.
    MapGpa {
        /// Where it begins, in bytes from the start of the test memory.
        offset: u64,
        /// Bytes.
        size: u64,
        /// To what: whether the address has the shared bit.
        to: Attribute,
    },
}

/// The list of a page state change, in the GHCB's shared buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PscList {
    /// Entries, in order.
    pub entries: Vec<PscEntries>,
    /// The header's current entry.
    pub current: u16,
    /// The header's last entry; `None`: the last that there is.
    pub last: Option<u16>,
    /// Where in the GHCB the list is, in bytes; `None`: at the start of the shared buffer.
    pub scratch: Option<u64>,
}

impl PscList {
    /// Every entry: what it says, and of which page of the test memory.
    pub fn flat(&self) -> Vec<(PscKind, u64)> {
        let pages = |entries: &PscEntries| {
            let (kind, pages) = (entries.kind, entries.pages.clone());
            pages.step_by(kind.span() as usize).map(move |page| (kind, page))
        };
        self.entries.iter().flat_map(pages).collect()
    }

    /// The header's last entry.
    pub fn last(&self) -> u16 {
        let count = self.flat().len() as u16;
        self.last.unwrap_or(count.saturating_sub(1))
    }
}

/// Entries of one kind for pages in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PscEntries {
    /// What they say.
    pub kind: PscKind,
    /// Pages of the test memory: one entry each, or one for each 512.
    pub pages: Pages,
}

/// What an entry of a page state change says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PscKind {
    /// Make the page private.
    Private,
    /// Make the page shared.
    Shared,
    /// Make 2 MiB private.
    Private2m,
    /// Make 2 MiB shared.
    Shared2m,
    /// Split a page of 2 MiB, which no hypervisor has to do.
    Smash,
    /// An operation that is none.
    Unknown,
    /// Make the page private, which has been done.
    Done,
    /// Make the page private, of which more has been done than there is.
    Overdone,
}

impl PscKind {
    /// Every kind.
    pub const ALL: [PscKind; 8] = [
        PscKind::Private,
        PscKind::Shared,
        PscKind::Private2m,
        PscKind::Shared2m,
        PscKind::Smash,
        PscKind::Unknown,
        PscKind::Done,
        PscKind::Overdone,
    ];

    /// The word in a case.
    pub fn name(self) -> &'static str {
        match self {
            PscKind::Private => "private",
            PscKind::Shared => "shared",
            PscKind::Private2m => "private-2m",
            PscKind::Shared2m => "shared-2m",
            PscKind::Smash => "smash",
            PscKind::Unknown => "unknown",
            PscKind::Done => "done",
            PscKind::Overdone => "overdone",
        }
    }

    /// The bits of an entry besides the frame number: how much of it is done, the operation, the size.
    pub fn bits(self) -> u64 {
        let operation = |number: u64| number << 52;
        match self {
            PscKind::Private => operation(1),
            PscKind::Shared => operation(2),
            PscKind::Private2m => operation(1) | 1 << 56,
            PscKind::Shared2m => operation(2) | 1 << 56,
            PscKind::Smash => operation(3),
            PscKind::Unknown => operation(15),
            PscKind::Done => operation(1) | 1,
            PscKind::Overdone => operation(1) | 2,
        }
    }

    /// Pages that an entry is about.
    pub fn span(self) -> u64 {
        match self {
            PscKind::Private2m | PscKind::Shared2m => 512,
            _ => 1,
        }
    }
}

/// Where the contents of a launch call are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaunchSource {
    /// In memory with this pattern, which can be read only.
    Pattern(u8),
    /// The address is 0: in the page itself.
    InPlace,
    /// At an address that is not a multiple of a page.
    Unaligned,
}

/// One statement of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Comment lines above it, without the `#`.
    pub above: Vec<String>,
    /// What is done.
    pub action: Action,
    /// What it must return, where the case says so; otherwise the oracle decides.
    pub expect: Option<Returns>,
    /// Comment behind it, without the `#`.
    pub comment: Option<String>,
    /// Line in the text that it was parsed from, counted from 1.
    pub line: usize,
}

/// Who accesses memory.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[strum(serialize_all = "kebab-case")]
pub enum View {
    /// The host through its mapping of the guest_memfd.
    Host,
    /// The host through a second mapping of the guest_memfd, which is made when it is first used.
    Host2,
    /// The guest through its page tables and a memslot.
    Guest,
    /// A forked process through the mapping it inherited.
    Child,
}

impl View {
    /// Every view.
    pub const ALL: [View; View::VARIANTS.len()] = *View::VARIANTS.first_chunk().unwrap();

    /// Whether the view is a mapping of the guest_memfd in a process, where a private page faults.
    pub fn is_mapping(self) -> bool {
        match self {
            View::Host | View::Host2 | View::Child => true,
            View::Guest => false,
        }
    }

    /// The word in a case.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// Who touches pages before the story begins: memory that is mapped somewhere takes other paths in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum Toucher {
    /// Nobody: the pages stay as they are.
    Nobody,
    /// The host reads every page that it may.
    Host,
    /// The guest reads every page.
    Guest,
    /// Both.
    Both,
}

impl Toucher {
    /// Every toucher.
    pub const ALL: [Toucher; Toucher::VARIANTS.len()] = *Toucher::VARIANTS.first_chunk().unwrap();

    /// The word in a case.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// What a page must look like to a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The pattern with this letter.
    Pattern(u8),
    /// Zeros.
    Zero,
    /// Nobody's data: zeros as a rule.
    Unwritten,
    /// The access faults: SIGBUS for the host.
    Fault,
    /// The access is an MMIO exit.
    Mmio,
    /// The access is an exit with `KVM_EXIT_MEMORY_FAULT`.
    MemoryFault,
    /// Whatever the oracle allows; what was seen is recorded.
    Any,
}

/// What is done in a step.
#[derive(Clone, Debug, PartialEq, Eq, strum::EnumDiscriminants)]
#[strum_discriminants(
    name(ActionKind),
    doc = "Which statement of the case language an action is.",
    allow(missing_docs),
    derive(PartialOrd, Ord, Hash, strum::VariantArray, strum::IntoStaticStr, strum::EnumCount),
    strum(serialize_all = "kebab-case")
)]
pub enum Action {
    /// Write a pattern into pages.
    Write {
        /// Who writes.
        view: View,
        /// Which pages.
        pages: Pages,
        /// Letter of the pattern.
        letter: u8,
    },
    /// Read one word of each page.
    Read {
        /// Who reads.
        view: View,
        /// Which pages.
        pages: Pages,
    },
    /// Look at pages.
    Expect {
        /// Who looks.
        view: View,
        /// Which pages.
        pages: Pages,
        /// What they must look like.
        look: Look,
    },
    /// Touch pages from nowhere, one or both sides.
    Touch {
        /// From where.
        who: Toucher,
        /// Which pages.
        pages: Pages,
    },
    /// `KVM_SET_MEMORY_ATTRIBUTES2` on pages.
    Convert {
        /// Which pages.
        pages: Pages,
        /// To what.
        to: Attribute,
        /// With which content mode.
        mode: Mode,
    },
    /// `KVM_SET_MEMORY_ATTRIBUTES2` with arguments that no range can express.
    Raw(RawConvert),
    /// An encrypted guest accepts private pages: PVALIDATE, TDG.MEM.PAGE.ACCEPT. Otherwise it does so when it needs to.
    Accept(Pages),
    /// An SNP guest gives private pages up. Otherwise it does so before they are converted to shared.
    Rescind(Pages),
    /// An encrypted guest asks for a conversion, without a mode: page state change, MapGPA. The host makes it, unless it is
    /// to answer with an error.
    GuestConvert {
        /// Which pages.
        pages: Pages,
        /// To what.
        to: Attribute,
        /// An SNP guest asks page by page, with the GHCB's MSR protocol.
        by_msr: bool,
    },
    /// An encrypted guest makes one request as it is: a page state change, or MapGPA.
    Request(GuestRequest),
    /// An encrypted guest asks for the conversion of one page by an access through the alias that its attribute rules out.
    /// The host makes it, and the guest goes on.
    ConvertByAccess {
        /// The page.
        page: u64,
        /// To what: the other attribute than it has.
        to: Attribute,
    },
    /// Make private pages part of an encrypted guest's launch: LAUNCH_UPDATE, INIT_MEM_REGION.
    Launch {
        /// Which pages.
        pages: Pages,
        /// The pattern that they get; `None`: what they hold.
        from: Option<u8>,
    },
    /// One launch call with arguments that no range can express, again for what it has left undone.
    LaunchRaw(RawLaunch),
    /// Another VM of the same type tries to get at what belongs to this one, and must be refused.
    OtherVm(OtherVmCall),
    /// Finish the launch of an encrypted guest, which can run from then on. Without this statement it runs from the start.
    Finalize,
    /// An encrypted guest reads this page through the alias that its attribute rules out, from which it cannot go on.
    WrongAlias {
        /// The page.
        page: u64,
        /// Whether the access is a write. An SNP guest writes to a private page always: its reads are not checked.
        by_write: bool,
    },
    /// A call on the guest_memfd's descriptor with arguments that no range can express.
    FileCall(FileCall),
    /// Whether pages have memory, as `cachestat()` says.
    FileExpect {
        /// Which pages.
        pages: Pages,
        /// All of them, or else none.
        allocated: bool,
    },
    /// Close the guest_memfd, which its memslots do not keep, and make another one of the same kind, of which no memslot
    /// knows.
    FileReplace,
    /// `KVM_PRE_FAULT_MEMORY` on pages.
    PreFault(Pages),
    /// `fallocate(FALLOC_FL_PUNCH_HOLE)`.
    Punch(Pages),
    /// `fallocate()`.
    Allocate(Pages),
    /// Take a reference on each page, as a driver does that has I/O in flight.
    Pin(Pages),
    /// Give the references back.
    Unpin(Pages),
    /// Make a memslot.
    SlotMap(SlotMap),
    /// Try to make a memslot that must be refused.
    SlotRaw(RawSlot),
    /// Delete a memslot.
    SlotDelete(u32),
    /// Make another guest_memfd of the VM, as large, with every page shared or private. Nothing that is done to the one
    /// under test may change it.
    Bystander(Attribute),
    /// Convert pages of the newest of these, with nothing promised about their contents. The one under test must not be
    /// changed by that.
    BystanderConvert {
        /// Pages of it.
        pages: Pages,
        /// What they become.
        to: Attribute,
    },
    /// Unmap the host's view and map it again.
    Remap,
    /// Fork a process that keeps the host's mapping.
    ChildFork,
    /// End that process.
    ChildExit,
    /// Compare `KVM_CHECK_EXTENSION` with what the call does.
    Capability(Capability),
    /// Break the suite in a known way, for the runner's own tests.
    Misbehave(Misbehaviour),
}

/// A capability of the series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum Capability {
    /// `KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES`.
    GuestMemfdMemoryAttributes,
    /// `KVM_CAP_MEMORY_ATTRIBUTES2_FLAGS`.
    MemoryAttributes2Flags,
    /// `KVM_CAP_MEMORY_ATTRIBUTES`, which is 0 when attributes are kept per guest_memfd.
    MemoryAttributes,
}

impl Capability {
    /// Every capability.
    pub const ALL: [Capability; Capability::VARIANTS.len()] =
        *Capability::VARIANTS.first_chunk().unwrap();

    /// The word in a case.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The name in the kernel's header.
    pub fn constant(self) -> &'static str {
        match self {
            Capability::GuestMemfdMemoryAttributes => "KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES",
            Capability::MemoryAttributes2Flags => "KVM_CAP_MEMORY_ATTRIBUTES2_FLAGS",
            Capability::MemoryAttributes => "KVM_CAP_MEMORY_ATTRIBUTES",
        }
    }
}

/// How the suite is to be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum Misbehaviour {
    /// The guest never answers.
    HangGuest,
    /// The worker never answers.
    HangHost,
    /// An access through the host's view never ends.
    HangAccess,
    /// A conversion never returns.
    HangCall,
    /// `KVM_RUN` never returns.
    HangRun,
    /// A thread of the worker waits in the kernel for something that no signal ends. In a virtual machine only.
    HangUnkillable,
    /// The kernel panics. In a virtual machine only.
    PanicKernel,
    /// The machine reboots. In a virtual machine only.
    Reboot,
    /// The worker dies of SIGSEGV.
    Segfault,
    /// The worker is killed.
    Kill,
    /// The worker exits.
    Exit,
    /// The worker writes what looks like results to its standard output, and goes on.
    Garbage,
    /// The guest takes a page fault.
    GuestException,
    /// The worker panics.
    Panic,
}

impl Misbehaviour {
    /// Every misbehaviour.
    pub const ALL: [Misbehaviour; Misbehaviour::VARIANTS.len()] =
        *Misbehaviour::VARIANTS.first_chunk().unwrap();

    /// The word in a case.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// Where the argument of a raw call lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pointer {
    /// In ordinary memory.
    #[default]
    Good,
    /// Nowhere.
    Bad,
    /// In memory that the caller cannot write.
    ReadOnly,
}

/// Which descriptor a raw call is issued on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Descriptor {
    /// The guest_memfd.
    #[default]
    GuestMemfd,
    /// The VM.
    Vm,
}

/// The arguments of a call, as they are; without keys a valid conversion of page 0 to private without a mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawConvert {
    /// `offset`, in bytes.
    pub offset: u64,
    /// `size`, in bytes.
    pub size: u64,
    /// `attributes`.
    pub attributes: u64,
    /// `flags`.
    pub flags: u64,
    /// `error_offset`, on input.
    pub error_offset: u64,
    /// `reserved`.
    pub reserved: [u64; 11],
    /// Where the argument lies.
    pub pointer: Pointer,
    /// Which descriptor.
    pub descriptor: Descriptor,
}

impl Step {
    /// A step that expects what the clauses say.
    pub fn new(action: Action) -> Step {
        Step { above: Vec::new(), action, expect: None, comment: None, line: 0 }
    }
}

impl RawConvert {
    /// The call that converts `pages`, with a content mode in `flags`.
    pub fn of_pages(pages: &Pages, to: Attribute, flags: u64) -> RawConvert {
        RawConvert {
            offset: pages.start * PAGE_SIZE,
            size: byte_length(pages),
            attributes: to.bits(),
            flags,
            ..RawConvert::default()
        }
    }
}

impl Default for RawConvert {
    fn default() -> RawConvert {
        RawConvert {
            offset: 0,
            size: PAGE_SIZE,
            attributes: ATTRIBUTE_PRIVATE,
            flags: 0,
            error_offset: 0,
            reserved: [0; 11],
            pointer: Pointer::Good,
            descriptor: Descriptor::GuestMemfd,
        }
    }
}

/// What a step must return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Returns {
    /// Any of these; `None` is success.
    pub any_of: Vec<Option<Errno>>,
    /// The page that `error_offset` must name.
    pub error_page: Option<u64>,
}

impl Returns {
    /// Whether nothing but success is expected.
    pub fn is_success(&self) -> bool {
        self.any_of == [None]
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

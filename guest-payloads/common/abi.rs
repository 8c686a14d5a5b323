// SPDX-License-Identifier: GPL-2.0-only
//! What host and guest agree on: where things lie in guest physical memory, the mailbox, the doorbell.
//!
//! ```text
//!   0x00_1000  page tables, made by the host, identity-mapped                  PAGE_TABLES .. PAGE_TABLES_END
//!   0x08_0000  mailbox                                                         MAILBOX
//!   0x08_1000  the page that COPY_OUT fills                                    COPY_BUFFER
//!   0x08_2000  SNP: the GHCB                                                   GHCB
//!   0x10_0000  the image: code, data, bss, stack; linked and entered here      IMAGE .. PAYLOAD_SIZE
//! 0xffff_f000  TDX: the page of the reset vector                              RESET_PAGE
//! 0x1_0000_0000  the memory under test: page 0 of the frame that memslots are placed in    TEST_MEMORY
//! ```
//!
//! Further vCPUs of a guest have memory of their own for all of this below PAYLOAD_SIZE: that of vCPU N lies N *
//! PAYLOAD_SIZE higher in guest physical memory, with page tables that map it here.
//!
//! Guests that are encrypted access all of this as private memory, except for the three pages from MAILBOX to GHCB, which
//! are shared from the start and never converted. They see the memory under test twice: as shared memory where it lies, as
//! private memory [`PRIVATE_WINDOW`] further up. The page tables are the host's work, the payloads have no code for them.

/// Page tables, made by the host: guest physical address of the first.
pub const PAGE_TABLES: u64 = 0x1000;
/// End of the room for page tables.
pub const PAGE_TABLES_END: u64 = 0x8_0000;
/// Guest physical and virtual address of the mailbox page.
pub const MAILBOX: u64 = 0x8_0000;
/// Guest physical and virtual address of the page that [`operation::COPY_OUT`] fills.
pub const COPY_BUFFER: u64 = 0x8_1000;
/// SNP: guest physical and virtual address of the GHCB, the page through which guest and hypervisor exchange registers.
pub const GHCB: u64 = 0x8_2000;
/// Where the image is linked, loaded and entered.
pub const IMAGE: u64 = 0x10_0000;
/// Size of the payload's memslot at address 0, in bytes.
pub const PAYLOAD_SIZE: u64 = 0x20_0000;
/// Guest physical and virtual address of the memory under test. 4 GiB: clear of everything that KVM places itself.
pub const TEST_MEMORY: u64 = 0x1_0000_0000;
/// Encrypted guests: added to a guest physical address of the memory under test, the virtual address of its private alias.
pub const PRIVATE_WINDOW: u64 = 1 << 46;
/// TDX: guest physical address of the page that the vCPU starts in.
pub const RESET_PAGE: u64 = 0xffff_f000;
/// TDX: where the vCPU starts, architecturally: in 32-bit mode without paging.
pub const RESET_VECTOR: u64 = 0xffff_fff0;

/// The I/O port of the doorbell: the guest writes 32 bits of [`doorbell`] there. Chosen arbitrarily, clear of every
/// device that KVM emulates.
pub const DOORBELL_PORT: u16 = 0x6d0;

/// What the guest writes to [`DOORBELL_PORT`].
pub mod doorbell {
    /// The payload has started and waits for its first command. Unmistakable in a trace.
    pub const READY: u32 = 0x600d_0001;
    /// The command has been executed; [`super::Mailbox::answer`] and the result are in the mailbox.
    pub const DONE: u32 = 0x600d_0002;
    /// The guest took an exception; the exception fields of the mailbox say which. It cannot go on.
    pub const EXCEPTION: u32 = 0xbad0_0003;
}

/// What [`Mailbox::operation`] may hold.
pub mod operation {
    /// Write the pattern into every word of the range.
    pub const FILL: u64 = 1;
    /// Compare every word of the range with the pattern; report the first that differs.
    pub const CHECK: u64 = 2;
    /// Read the word at `address` into `found`.
    pub const READ: u64 = 3;
    /// Write `pattern`, as it is, to the word at `address`.
    pub const WRITE: u64 = 4;
    /// Copy the page at `address` to [`super::COPY_BUFFER`].
    pub const COPY_OUT: u64 = 5;
    /// Read one word of each page of the range.
    pub const TOUCH: u64 = 6;
    /// Never answer: for the runner's own tests of its deadlines.
    pub const SPIN: u64 = 7;
    /// Make the private pages at this range of virtual addresses usable: PVALIDATE, or TDG.MEM.PAGE.ACCEPT.
    pub const ACCEPT: u64 = 8;
    /// Give up the private pages at this range of virtual addresses: PVALIDATE; nothing on TDX.
    pub const RESCIND: u64 = 9;
    /// Ask the hypervisor to make this range of guest physical addresses shared: page state change through the GHCB, or
    /// MapGPA.
    pub const MAKE_SHARED: u64 = 10;
    /// The same, to make it private.
    pub const MAKE_PRIVATE: u64 = 11;
    /// The same as [`MAKE_PRIVATE`], page by page by the GHCB's MSR protocol. SNP only.
    pub const MAKE_PRIVATE_MSR: u64 = 12;
    /// The same as [`MAKE_SHARED`], page by page by the GHCB's MSR protocol. SNP only.
    pub const MAKE_SHARED_MSR: u64 = 13;
    /// As [`CHECK`] for each [`super::CheckRange`] of the `length` ones in [`super::COPY_BUFFER`], one after the other; the
    /// first difference ends it, and `range` says in which. An exit to the host costs more than most checks.
    pub const CHECK_LIST: u64 = 14;
    /// SNP: one page state change through the GHCB. Its shared buffer is filled with the first words of
    /// [`super::COPY_BUFFER`], [`super::LIST_WORDS`] of them, which then holds what the hypervisor has left there; the
    /// scratch area is at `address`. SW_EXITINFO1 becomes `found`, SW_EXITINFO2 `expected`. Nothing is checked.
    pub const RAW_LIST: u64 = 15;
    /// SNP: one exchange of the GHCB's MSR protocol: `address` is what is written, `found` what is read then.
    pub const RAW_MSR: u64 = 16;
    /// TDX: MapGPA with `address` in R12 and `length` in R13. R10 becomes `found`, R11 `expected`.
    pub const RAW_MAP_GPA: u64 = 17;
}

/// Words of the GHCB's shared buffer.
pub const LIST_WORDS: u64 = 254;

/// One range of [`operation::CHECK_LIST`], in [`COPY_BUFFER`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckRange {
    /// Guest virtual address of the range, a multiple of 8.
    pub address: u64,
    /// Length of the range in bytes, a multiple of 8.
    pub length: u64,
    /// The pattern's tag.
    pub pattern: u64,
    /// Page number of `address` in the guest_memfd.
    pub first_page: u64,
}

/// The most ranges of one [`operation::CHECK_LIST`]: a page of them.
pub const CHECK_RANGES: usize = 4096 / size_of::<CheckRange>();

/// What [`Mailbox::status`] may hold.
pub mod status {
    /// The command was executed, and a comparison found no difference.
    pub const OK: u64 = 0;
    /// A comparison found a difference; `offset`, `expected` and `found` say where and what.
    pub const MISMATCH: u64 = 1;
    /// The guest does not know the operation.
    pub const UNKNOWN_OPERATION: u64 = 2;
    /// CPU or hypervisor refused a page: `offset` says which, as far as they tell, `found` why: the architecture's own
    /// status, or one of [`super::refusal`].
    ///
    /// * PVALIDATE: EAX, and the carry flag in bit 32.
    /// * Page state change through the GHCB: SW_EXITINFO2. By MSR: bits 63:32 of the response.
    /// * TDG.MEM.PAGE.ACCEPT: RAX. MapGPA: R10.
    pub const REFUSED: u64 = 3;
}

/// What [`Mailbox::found`] may hold with [`status::REFUSED`] besides the architectures' statuses, none of which is close.
pub mod refusal {
    /// There is no such operation on this platform.
    pub const NOT_THERE: u64 = u64::MAX;
    /// What the hypervisor answered is no answer by the rules of its interface.
    pub const BAD_ANSWER: u64 = u64::MAX - 1;
}

/// How a payload ends that cannot go on: the reason code of the GHCB MSR protocol's termination request, or the error code
/// of TDG.VP.VMCALL<ReportFatalError>.
pub mod termination {
    /// SNP: the reason code set. Arbitrary; 0 is the specification's own and 1 is Linux's.
    pub const SET: u64 = 0xd;
    /// The hypervisor does not speak version 2 of the GHCB protocol.
    pub const NO_VERSION: u64 = 1;
    /// The hypervisor refused to register the GHCB.
    pub const NOT_REGISTERED: u64 = 2;
    /// The hypervisor refused to ring the doorbell.
    pub const NO_DOORBELL: u64 = 3;
    /// There was an exception: this plus the vector. [`super::doorbell::EXCEPTION`] has been rung, unless there was a
    /// second exception on the way.
    pub const EXCEPTION: u64 = 0x80;
}

/// The mailbox page. The host fills in the command and runs the vCPU; the guest executes it, fills in the result and
/// rings the doorbell. Both sides access it with volatile reads and writes of whole words only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Mailbox {
    /// Host: number of this command, never 0.
    pub sequence: u64,
    /// Host: one of [`operation`].
    pub operation: u64,
    /// Host: guest virtual address of the range, a multiple of 8. [`operation::MAKE_SHARED`] and its like: guest physical
    /// address, a multiple of 4096.
    pub address: u64,
    /// Host: length of the range in bytes, a multiple of 8.
    pub length: u64,
    /// Host: the pattern's tag ([`super::pattern::word`]), or the word for [`operation::WRITE`].
    pub pattern: u64,
    /// Host: page number of `address` in the guest_memfd, which the pattern depends on.
    pub first_page: u64,
    /// Guest: the complement of `sequence`, so that stale memory cannot pass for an answer.
    pub answer: u64,
    /// Guest: one of [`status`].
    pub status: u64,
    /// Guest: byte offset from the range's address of the first word that differs, or from `address` of the page that was
    /// refused.
    pub offset: u64,
    /// Guest: the word that the pattern has there.
    pub expected: u64,
    /// Guest: the word that was found there, or why a page was refused.
    pub found: u64,
    /// Guest, on [`doorbell::EXCEPTION`]: vector.
    pub vector: u64,
    /// Guest, on [`doorbell::EXCEPTION`]: error code, 0 where the vector has none. #VE: the exit reason that
    /// TDG.VP.VEINFO.GET gives.
    pub error_code: u64,
    /// Guest, on [`doorbell::EXCEPTION`]: the instruction that faulted.
    pub rip: u64,
    /// Guest, on [`doorbell::EXCEPTION`]: CR2, the address for a page fault. #VE: the linear address that
    /// TDG.VP.VEINFO.GET gives.
    pub cr2: u64,
    /// Guest: for [`operation::CHECK_LIST`], the number of the range that differs.
    pub range: u64,
}

const _: () = assert!(size_of::<Mailbox>() == 16 * 8);

// SPDX-License-Identifier: GPL-2.0-only
//! What host and guest agree on: where things lie in guest physical memory, the mailbox, the doorbell.
//!
//! ```text
//!   0x00_1000  page tables, made by the host, identity-mapped                  PAGE_TABLES .. PAGE_TABLES_END
//!   0x08_0000  mailbox                                                         MAILBOX
//!   0x08_1000  the page that COPY_OUT fills                                    COPY_BUFFER
//!   0x10_0000  the image: code, data, bss, stack; linked and entered here      IMAGE .. PAYLOAD_SIZE
//! 0x1_0000_0000  the memory under test: page 0 of the frame that memslots are placed in    TEST_MEMORY
//! ```

/// Page tables, made by the host: guest physical address of the first.
pub const PAGE_TABLES: u64 = 0x1000;
/// End of the room for page tables.
pub const PAGE_TABLES_END: u64 = 0x8_0000;
/// Guest physical and virtual address of the mailbox page.
pub const MAILBOX: u64 = 0x8_0000;
/// Guest physical and virtual address of the page that [`operation::COPY_OUT`] fills.
pub const COPY_BUFFER: u64 = 0x8_1000;
/// Where the image is linked, loaded and entered.
pub const IMAGE: u64 = 0x10_0000;
/// Size of the payload's memslot at address 0, in bytes.
pub const PAYLOAD_SIZE: u64 = 0x20_0000;
/// Guest physical and virtual address of the memory under test. 4 GiB: clear of everything that KVM places itself.
pub const TEST_MEMORY: u64 = 0x1_0000_0000;

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
    /// As [`CHECK`] for each [`super::CheckRange`] of the `length` ones in [`super::COPY_BUFFER`], one after the other; the
    /// first difference ends it, and `range` says in which. An exit to the host costs more than most checks.
    pub const CHECK_LIST: u64 = 14;
}

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
    /// Host: guest virtual address of the range, a multiple of 8.
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
    /// Guest: byte offset from the range's address of the first word that differs.
    pub offset: u64,
    /// Guest: the word that the pattern has there.
    pub expected: u64,
    /// Guest: the word that was found there.
    pub found: u64,
    /// Guest, on [`doorbell::EXCEPTION`]: vector.
    pub vector: u64,
    /// Guest, on [`doorbell::EXCEPTION`]: error code, 0 where the vector has none.
    pub error_code: u64,
    /// Guest, on [`doorbell::EXCEPTION`]: the instruction that faulted.
    pub rip: u64,
    /// Guest, on [`doorbell::EXCEPTION`]: CR2, the address for a page fault.
    pub cr2: u64,
    /// Guest: for [`operation::CHECK_LIST`], the number of the range that differs.
    pub range: u64,
}

const _: () = assert!(size_of::<Mailbox>() == 16 * 8);

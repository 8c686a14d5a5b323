// SPDX-License-Identifier: GPL-2.0-only
//! The host's half of the mailbox.

use std::mem::offset_of;

use thiserror::Error;

use super::memory::PayloadMemory;
use crate::payload::abi::{MAILBOX, Mailbox, operation, status};

/// What a guest can be told to do. Addresses are guest virtual, which are guest physical, and like lengths multiples of 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestCommand {
    /// Write the pattern `tag` into `length` bytes at `address`, as from page `first_page` of the guest_memfd on.
    Fill {
        /// First byte.
        address: u64,
        /// Bytes.
        length: u64,
        /// [`crate::payload::pattern::tag`].
        tag: u64,
        /// Page of the guest_memfd that is at `address`.
        first_page: u64,
    },
    /// Compare with the same pattern; [`Answer::mismatch`] is the first difference.
    Check {
        /// First byte.
        address: u64,
        /// Bytes.
        length: u64,
        /// [`crate::payload::pattern::tag`].
        tag: u64,
        /// Page of the guest_memfd that is at `address`.
        first_page: u64,
    },
    /// Compare each of so many ranges, which [`super::Guest::check`] has put into the copy buffer.
    CheckList {
        /// Their number.
        ranges: u64,
    },
    /// Read a word into [`Answer::found`].
    Read {
        /// The word's address.
        address: u64,
    },
    /// Write a word.
    Write {
        /// The word's address.
        address: u64,
        /// The word.
        word: u64,
    },
    /// Copy the page at `address` to where [`super::Guest::copy_buffer`] finds it.
    CopyOut {
        /// First byte of the page.
        address: u64,
    },
    /// Read the first word of each page.
    Touch {
        /// First byte.
        address: u64,
        /// Bytes.
        length: u64,
    },
    /// Never answer: for tests of deadlines.
    Spin,
    /// Encrypted guests: make private pages usable, with PVALIDATE or TDG.MEM.PAGE.ACCEPT. The address is the private
    /// alias's, and like the length a multiple of 4096.
    Accept {
        /// First byte.
        address: u64,
        /// Bytes.
        length: u64,
    },
    /// Encrypted guests: give up private pages before they become shared, with PVALIDATE. Nothing happens on TDX.
    Rescind {
        /// First byte.
        address: u64,
        /// Bytes.
        length: u64,
    },
    /// Encrypted guests: ask for a conversion, with a page state change or MapGPA. Ends with
    /// [`super::GuestStop::MapGpa`], as often as the request reaches the host.
    PageState {
        /// Guest physical address, a multiple of 4096.
        gpa: u64,
        /// Bytes, a multiple of 4096.
        length: u64,
        /// To private, or to shared.
        private: bool,
        /// SNP: page by page with the MSR protocol.
        by_msr: bool,
    },
    /// SNP: one page state change of the list that [`super::Guest::put_list`] has left. [`Answer::found`] is
    /// SW_EXITINFO1, [`Answer::second`] SW_EXITINFO2.
    RawList {
        /// Guest physical address of the scratch area.
        scratch: u64,
    },
    /// SNP: one exchange of the GHCB's MSR protocol; [`Answer::found`] is the response.
    RawMsr {
        /// What the guest writes.
        request: u64,
    },
    /// TDX: MapGPA as it is; [`Answer::found`] is R10, [`Answer::second`] R11.
    RawMapGpa {
        /// R12: guest physical address, with the shared bit if the memory is to be shared.
        gpa: u64,
        /// R13: bytes.
        size: u64,
    },
}

impl GuestCommand {
    /// Operation, address, length, pattern and first page as the mailbox has them.
    fn words(self) -> [u64; 5] {
        match self {
            GuestCommand::Fill { address, length, tag, first_page } => {
                [operation::FILL, address, length, tag, first_page]
            }
            GuestCommand::Check { address, length, tag, first_page } => {
                [operation::CHECK, address, length, tag, first_page]
            }
            GuestCommand::CheckList { ranges } => [operation::CHECK_LIST, 0, ranges, 0, 0],
            GuestCommand::Read { address } => [operation::READ, address, 0, 0, 0],
            GuestCommand::Write { address, word } => [operation::WRITE, address, 0, word, 0],
            GuestCommand::CopyOut { address } => [operation::COPY_OUT, address, 0, 0, 0],
            GuestCommand::Touch { address, length } => [operation::TOUCH, address, length, 0, 0],
            GuestCommand::Spin => [operation::SPIN, 0, 0, 0, 0],
            GuestCommand::Accept { address, length } => [operation::ACCEPT, address, length, 0, 0],
            GuestCommand::Rescind { address, length } => {
                [operation::RESCIND, address, length, 0, 0]
            }
            GuestCommand::PageState { gpa, length, private, by_msr } => {
                let operation = match (private, by_msr) {
                    (false, false) => operation::MAKE_SHARED,
                    (true, false) => operation::MAKE_PRIVATE,
                    (false, true) => operation::MAKE_SHARED_MSR,
                    (true, true) => operation::MAKE_PRIVATE_MSR,
                };
                [operation, gpa, length, 0, 0]
            }
            GuestCommand::RawList { scratch } => [operation::RAW_LIST, scratch, 0, 0, 0],
            GuestCommand::RawMsr { request } => [operation::RAW_MSR, request, 0, 0, 0],
            GuestCommand::RawMapGpa { gpa, size } => [operation::RAW_MAP_GPA, gpa, size, 0, 0],
        }
    }
}

/// What a guest says about a command that it has executed: an allegation. That there is one means that the guest ran
/// through the command's end after the host had put this command there. It does not mean that the guest's memory holds
/// what it says, which is for the host's own view to confirm where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// For [`GuestCommand::Check`] and [`GuestCommand::CheckList`]: the first difference.
    pub mismatch: Option<Mismatch>,
    /// For [`GuestCommand::Accept`], [`GuestCommand::Rescind`] and [`GuestCommand::PageState`]: what was refused.
    pub refusal: Option<Refusal>,
    /// For [`GuestCommand::Read`]: the word. For a raw request: what the hypervisor answered.
    pub found: u64,
    /// For a raw request: what it answered in the second place.
    pub second: u64,
    /// How often the vCPU had to be run again after `KVM_EXIT_MEMORY_FAULT`.
    pub retries: u32,
}

/// A page that CPU or hypervisor refused; those before it were done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Byte offset of the page from the command's address, as far as the guest knows it.
    pub offset: u64,
    /// Why: what PVALIDATE, TDG.MEM.PAGE.ACCEPT or the hypervisor answered, or one of [`crate::payload::abi::refusal`].
    pub status: u64,
}

/// Where memory differed from a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Number of the range.
    pub range: usize,
    /// Byte offset of the word from the range's address.
    pub offset: u64,
    /// The pattern's word.
    pub expected: u64,
    /// The word that was there.
    pub found: u64,
}

/// Puts `command` into the mailbox under the number `sequence`, and takes away the last answer.
pub(super) fn put(memory: &mut PayloadMemory, sequence: u64, command: GuestCommand) {
    let [operation, address, length, pattern, first_page] = command.words();
    for (offset, word) in [
        (offset_of!(Mailbox, sequence), sequence),
        (offset_of!(Mailbox, operation), operation),
        (offset_of!(Mailbox, address), address),
        (offset_of!(Mailbox, length), length),
        (offset_of!(Mailbox, pattern), pattern),
        (offset_of!(Mailbox, first_page), first_page),
        (offset_of!(Mailbox, answer), 0),
    ] {
        memory.write(MAILBOX + offset as u64, word);
    }
}

/// What is wrong with an answer of the guest.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AnswerError {
    /// It is not the answer to the command.
    #[error("the guest answered command {sequence} with {answer:#x} instead of {:#x}", !.sequence)]
    OutOfTurn {
        /// The number of the command.
        sequence: u64,
        /// What is in the mailbox instead of the complement of that number.
        answer: u64,
    },
    /// The payload is older than this program.
    #[error("the guest does not know the command")]
    UnknownCommand,
    /// The payload answers with a status that it does not have.
    #[error("the guest answered with status {0:#x}")]
    Status(u64),
}

/// Takes the answer to command `sequence` out of the mailbox.
pub(super) fn take(
    memory: &PayloadMemory,
    sequence: u64,
    retries: u32,
) -> Result<Answer, AnswerError> {
    let answer = get(memory, offset_of!(Mailbox, answer));
    if answer != !sequence {
        return Err(AnswerError::OutOfTurn { sequence, answer });
    }
    let found = get(memory, offset_of!(Mailbox, found));
    let offset = get(memory, offset_of!(Mailbox, offset));
    let second = get(memory, offset_of!(Mailbox, expected));
    let (mut mismatch, mut refusal) = (None, None);
    match get(memory, offset_of!(Mailbox, status)) {
        status::OK => {}
        status::MISMATCH => {
            let range = get(memory, offset_of!(Mailbox, range)) as usize;
            let expected = get(memory, offset_of!(Mailbox, expected));
            mismatch = Some(Mismatch { range, offset, expected, found });
        }
        status::REFUSED => refusal = Some(Refusal { offset, status: found }),
        status::UNKNOWN_OPERATION => return Err(AnswerError::UnknownCommand),
        other => return Err(AnswerError::Status(other)),
    }
    Ok(Answer { mismatch, refusal, found, second, retries })
}

/// Vector, error code, RIP and CR2 of the exception that the guest has reported.
pub(super) fn exception(memory: &PayloadMemory) -> [u64; 4] {
    [
        get(memory, offset_of!(Mailbox, vector)),
        get(memory, offset_of!(Mailbox, error_code)),
        get(memory, offset_of!(Mailbox, rip)),
        get(memory, offset_of!(Mailbox, cr2)),
    ]
}

fn get(memory: &PayloadMemory, offset: usize) -> u64 {
    memory.read(MAILBOX + offset as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    use crate::payload::abi::COPY_BUFFER;
    use crate::payload::command_loop::{Cpu, execute};

    /// A guest whose memory is the payload's.
    struct Native<'a>(&'a mut PayloadMemory);

    impl Cpu for Native<'_> {
        type Stop = Infallible;
        fn read(&mut self, address: u64) -> Result<u64, Infallible> {
            Ok(self.0.read(address))
        }
        fn write(&mut self, address: u64, word: u64) -> Result<(), Infallible> {
            self.0.write(address, word);
            Ok(())
        }
        fn relax(&mut self) -> Result<(), Infallible> {
            unreachable!("no command of these tests waits")
        }
    }

    /// A command goes through the mailbox and its answer comes back, numbers and all; nothing else is taken for it.
    #[test]
    fn only_the_answer_is_taken() {
        let mut memory = PayloadMemory::new().unwrap();
        let address = 0x10_0000;
        memory.write(address, 0x1234);

        put(&mut memory, 7, GuestCommand::Read { address });
        assert!(take(&memory, 7, 0).is_err(), "there is no answer yet");
        let Ok(()) = execute(&mut Native(&mut memory));
        let answer = take(&memory, 7, 3).unwrap();
        assert_eq!((answer.found, answer.mismatch, answer.retries), (0x1234, None, 3));
        assert!(take(&memory, 8, 0).is_err(), "that was the answer to command 7");

        // The second of two ranges differs, in its second page.
        let words = [0x11_0000, 8, 0, 0, 0x12_0000, 0x2000, 0, 5];
        for (at, word) in (COPY_BUFFER..).step_by(8).zip(words) {
            memory.write(at, word);
        }
        memory.write(0x12_1008, 0xbad);
        put(&mut memory, 8, GuestCommand::CheckList { ranges: 2 });
        let Ok(()) = execute(&mut Native(&mut memory));
        let mismatch = Mismatch { range: 1, offset: 0x1008, expected: 0, found: 0xbad };
        assert_eq!(take(&memory, 8, 0).unwrap().mismatch, Some(mismatch));

        memory.write(MAILBOX + offset_of!(Mailbox, operation) as u64, 99);
        let Ok(()) = execute(&mut Native(&mut memory));
        let error = take(&memory, 8, 0).unwrap_err();
        assert_eq!(error, AnswerError::UnknownCommand);
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! The command loop where there is nothing but memory.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::mem::offset_of;

use super::abi::{MAILBOX, Mailbox, operation, refusal, status};
use super::command_loop::{Cpu, execute};

/// A guest that nothing encrypts.
struct Plain(BTreeMap<u64, u64>);

impl Cpu for Plain {
    type Stop = Infallible;

    fn read(&mut self, address: u64) -> Result<u64, Infallible> {
        Ok(self.0.get(&address).copied().unwrap_or(0))
    }
    fn write(&mut self, address: u64, word: u64) -> Result<(), Infallible> {
        self.0.insert(address, word);
        Ok(())
    }
    fn relax(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Where there is no private memory, the operations on it are refused instead of being taken for done.
#[test]
fn plain_guests_refuse_what_is_for_encrypted_ones() {
    for operation in operation::ACCEPT..=operation::MAKE_SHARED_MSR {
        let at = |offset: usize| MAILBOX + offset as u64;
        let mut cpu = Plain(BTreeMap::from([
            (at(offset_of!(Mailbox, sequence)), 1),
            (at(offset_of!(Mailbox, operation)), operation),
            (at(offset_of!(Mailbox, address)), 0x1000),
            (at(offset_of!(Mailbox, length)), 0x1000),
        ]));
        let Ok(()) = execute(&mut cpu);
        assert_eq!(cpu.0[&at(offset_of!(Mailbox, status))], status::REFUSED);
        assert_eq!(cpu.0[&at(offset_of!(Mailbox, found))], refusal::NOT_THERE);
        assert_eq!(cpu.0[&at(offset_of!(Mailbox, answer))], !1);
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! A guest with a payload, as a test drives it: what a host does before the start and between two doorbells.

use std::collections::BTreeMap;
use std::mem::offset_of;

use gmem_conform::payload::abi::{
    DOORBELL_PORT, GHCB, IMAGE, MAILBOX, Mailbox, PAGE_TABLES, PAYLOAD_SIZE, RESET_PAGE,
    RESET_VECTOR, TEST_MEMORY, doorbell,
};
use gmem_conform::payload::{SNP, TDX_IMAGE, TDX_RESET};

use crate::cpu::{
    CR0_PG, CR4_PAE, Control, EFER_LMA, EFER_LME, EFER_NXE, Exit, R8, RBX, RCX, RDX, Registers,
    World,
};
use crate::hypervisor::{Event, Injection};
use crate::machine::Machine;
use crate::memory::PAGE;
use crate::page_tables::{self, AliasBits};
use crate::snp::Snp;
use crate::tdx::Tdx;

/// Size of the memory under test.
pub const TEST_SIZE: u64 = 6 << 20;
/// Where the C-bit is: that of EPYC 7003 and later.
const C_BIT: u64 = 1 << 51;
/// What a register holds at the start where nothing says what.
const JUNK: u64 = 0x6a6b_6c6d_6e6f_7071;

/// What makes one guest different from another.
#[derive(Clone)]
pub enum Kind {
    /// The versions of the GHCB protocol that the hypervisor speaks.
    Snp { versions: (u64, u64) },
    /// The width of guest physical addresses, and whether unaccepted pages end the guest instead of raising #VE.
    Tdx { gpaw: u64, sept_ve_disable: bool },
}

/// SNP as KVM has it.
pub const SNP_GUEST: Kind = Kind::Snp { versions: (1, 2) };
/// TDX with 48 bits and #VE.
pub const TDX_GUEST: Kind = Kind::Tdx { gpaw: 48, sept_ve_disable: false };

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The guest's result.
    Done { status: u64, offset: u64, expected: u64, found: u64 },
    /// The guest has reported an exception.
    Exception { vector: u64, error_code: u64, rip: u64, cr2: u64 },
    /// Something else.
    Exit(Exit),
}

/// A guest.
pub struct Guest {
    pub machine: Machine,
    sequence: u64,
    /// How many commands were given, by operation.
    pub commands: BTreeMap<u64, u64>,
    /// How they ended.
    pub outcomes: BTreeMap<String, u64>,
    /// How many errors were asked for.
    pub errors: u64,
}

impl Guest {
    /// A guest with the payload as it is embedded.
    pub fn new(kind: &Kind) -> Guest {
        Guest::with_image(kind, image(kind))
    }

    /// A guest whose payload may have been changed.
    pub fn with_image(kind: &Kind, image: &[u8]) -> Guest {
        let mut world = World::default();
        world.memory.add(0, PAYLOAD_SIZE);
        world.memory.add(TEST_MEMORY, TEST_SIZE);
        world.memory.load(IMAGE, true, image);
        // What the host has left there must not matter.
        for at in (MAILBOX..GHCB + PAGE).step_by(8) {
            world.memory.write(at, false, JUNK);
        }
        let bits = match *kind {
            Kind::Snp { .. } => AliasBits { private: C_BIT, shared: 0 },
            Kind::Tdx { gpaw, .. } => AliasBits { private: 0, shared: 1 << (gpaw - 1) },
        };
        let tables = page_tables::build(&mut world.memory, bits);
        // The host launches tables and image, which makes them usable at once; nothing else is private.
        let pages = |start: u64, end: u64| (start..end).step_by(PAGE as usize);
        let mut launched: Vec<u64> =
            pages(PAGE_TABLES, tables).chain(pages(IMAGE, IMAGE + image.len() as u64)).collect();
        let mut registers = Registers { rflags: 2, ..Registers::default() };
        let (platform, control): (Box<dyn crate::cpu::Platform>, _) = match *kind {
            Kind::Snp { versions } => {
                registers.general = [JUNK; 16];
                registers.rip = IMAGE;
                let control = Control {
                    cr0: CR0_PG | 1 << 16 | 0x33,
                    cr3: PAGE_TABLES,
                    cr4: CR4_PAE | 1 << 9 | 1 << 10,
                    efer: EFER_LME | EFER_LMA | EFER_NXE,
                    cs: 0x08,
                    ss: 0x10,
                    long: true,
                    ..Control::default()
                };
                let snp = Snp::new(C_BIT, versions, launched.iter().copied());
                (Box::new(snp), control)
            }
            Kind::Tdx { gpaw, sept_ve_disable } => {
                world.memory.add(RESET_PAGE, PAGE);
                world.memory.load(RESET_PAGE, true, TDX_RESET);
                launched.push(RESET_PAGE);
                let tdx = Tdx::new(gpaw, sept_ve_disable, launched.iter().copied());
                // What the module has the vCPU start with.
                registers.rip = RESET_VECTOR;
                registers.general[RBX] = gpaw;
                // KVM_TDX_INIT_VCPU's data: how far behind those of the first vCPU the page tables lie.
                registers.general[RCX] = 0;
                registers.general[R8] = 0;
                registers.general[RDX] = 0x000c_06f2;
                let control = Control {
                    cr0: 0x21,
                    cr4: 0x40,
                    efer: 1 | EFER_LME | EFER_NXE,
                    ..Control::default()
                };
                (Box::new(tdx), control)
            }
        };
        world.hypervisor.private = launched.into_iter().collect();
        Guest {
            machine: Machine::new(platform, world, control, registers),
            sequence: 0,
            commands: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            errors: 0,
        }
    }

    /// The same, which has rung that it is ready.
    pub fn started(kind: &Kind) -> Guest {
        let mut guest = Guest::new(kind);
        let exit = guest.machine.run();
        assert_eq!(exit, ring(doorbell::READY), "{:?}", guest.violations());
        guest
    }

    /// Has `event` go wrong once, after it went well `skip` times.
    pub fn inject(&mut self, event: Event, skip: u32, answer: [u64; 2]) {
        self.inject_times(event, skip, 1, answer);
    }

    /// The same, several times in a row.
    pub fn inject_times(&mut self, event: Event, skip: u32, times: u32, answer: [u64; 2]) {
        self.errors += 1;
        let injection = Injection { event, skip, times, answer };
        self.machine.world(|w| w.hypervisor.injections.push(injection));
    }

    /// Gives the guest a command: operation, address, length, pattern or word, first page.
    pub fn command(
        &mut self,
        operation: u64,
        address: u64,
        length: u64,
        pattern: u64,
        first_page: u64,
    ) -> Answer {
        self.sequence += 1;
        let sequence = self.sequence;
        *self.commands.entry(operation).or_default() += 1;
        self.machine.world(|w| {
            for (offset, word) in [
                (offset_of!(Mailbox, sequence), sequence),
                (offset_of!(Mailbox, operation), operation),
                (offset_of!(Mailbox, address), address),
                (offset_of!(Mailbox, length), length),
                (offset_of!(Mailbox, pattern), pattern),
                (offset_of!(Mailbox, first_page), first_page),
            ] {
                w.memory.write(MAILBOX + offset as u64, false, word);
            }
        });
        let answer = self.run();
        let outcome = match &answer {
            Answer::Done { status, .. } => format!("status {status}"),
            Answer::Exception { vector, .. } => format!("exception {vector}"),
            Answer::Exit(Exit::MemoryFault { .. }) => "memory fault".to_string(),
            Answer::Exit(Exit::NotAccepted { .. }) => "not accepted".to_string(),
            Answer::Exit(Exit::Hang) => "hang".to_string(),
            Answer::Exit(exit) => format!("{exit:x?}"),
        };
        *self.outcomes.entry(outcome).or_default() += 1;
        answer
    }

    /// Runs the guest up to its next answer.
    pub fn run(&mut self) -> Answer {
        let exit = self.machine.run();
        let field =
            |offset: usize| self.machine.world(|w| w.memory.read(MAILBOX + offset as u64, false));
        if exit == ring(doorbell::DONE) {
            assert_eq!(field(offset_of!(Mailbox, answer)), !self.sequence, "a stale answer");
            return Answer::Done {
                status: field(offset_of!(Mailbox, status)),
                offset: field(offset_of!(Mailbox, offset)),
                expected: field(offset_of!(Mailbox, expected)),
                found: field(offset_of!(Mailbox, found)),
            };
        }
        if exit == ring(doorbell::EXCEPTION) {
            return Answer::Exception {
                vector: field(offset_of!(Mailbox, vector)),
                error_code: field(offset_of!(Mailbox, error_code)),
                rip: field(offset_of!(Mailbox, rip)),
                cr2: field(offset_of!(Mailbox, cr2)),
            };
        }
        Answer::Exit(exit)
    }

    /// What the guest did that it must not do.
    pub fn violations(&self) -> Vec<String> {
        self.machine.world(|w| w.hypervisor.violations.clone())
    }

    /// What KVM_EXIT_HYPERCALL has said since the last time.
    pub fn requests(&self) -> Vec<(u64, u64, bool)> {
        self.machine.world(|w| std::mem::take(&mut w.hypervisor.requests))
    }

    /// The word that the host sees at `gpa`.
    pub fn host_read(&self, gpa: u64) -> u64 {
        self.machine.world(|w| w.memory.read(gpa, false))
    }

    /// Writes `word` to `gpa` as the host does.
    pub fn host_write(&self, gpa: u64, word: u64) {
        self.machine.world(|w| w.memory.write(gpa, false, word));
    }
}

/// The payload's image.
pub fn image(kind: &Kind) -> &'static [u8] {
    match kind {
        Kind::Snp { .. } => SNP,
        Kind::Tdx { .. } => TDX_IMAGE,
    }
}

/// The exit that the doorbell is.
pub fn ring(message: u32) -> Exit {
    Exit::Io { port: DOORBELL_PORT, value: u64::from(message) }
}

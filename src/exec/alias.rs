// SPDX-License-Identifier: GPL-2.0-only
//! Accesses of encrypted guests through the alias that a page's attribute rules out: implicit requests for a conversion.

use super::access;
use super::case_end::CaseEnd;
use super::encrypted::{ACCEPT, hang_of_kernel, refused, suite};
use super::session::{After, Session};
use crate::case::{Attribute, RawConvert, View};
use crate::clause::ClauseId;
use crate::payload::abi::PRIVATE_WINDOW;
use crate::platform::{Answer, GuestCommand, GuestStop};
use crate::uapi::{KVM_MEMORY_EXIT_FLAG_PRIVATE, PAGE_SIZE};

/// The word of a page that is accessed through the wrong alias; arbitrary, one in the middle. What a write puts there is
/// arbitrary, too, and no pattern's.
const WORD: usize = 257;
const WRITTEN: u64 = 0x6e6f_7420_7468_6973;

impl Session<'_> {
    /// The guest accesses a page through the other alias: KVM says which page, and what it would have to be. The guest could
    /// go on only if it became that.
    ///
    /// An SNP guest writes where the page is private. Its reads without the C-bit are not checked against the RMP (APM
    /// volume 2, table 15-39): where the nested page table has the page, a read gives ciphertext and nothing exits.
    pub fn wrong_alias(&mut self, page: u64, by_write: bool) -> Result<(), CaseEnd> {
        let private = self.oracle.attribute(page) == Attribute::Private;
        let unchecked = self.setup.platform.has(|e| e.reads_unchecked) && private;
        let address = self.other_alias(page)? + WORD as u64 * 8;
        let command = match by_write || unchecked {
            true => GuestCommand::Write { address, word: WRITTEN },
            false => GuestCommand::Read { address },
        };
        self.must_exit(page, command)?;
        self.spoiled = true;
        self.oracle.lose_guest();
        Ok(())
    }

    /// The guest accesses a page through the other alias, the host makes the page what `KVM_EXIT_MEMORY_FAULT` says that the
    /// access wants, and the guest goes on: an implicit conversion.
    pub fn convert_by_access(&mut self, page: u64) -> Result<After, CaseEnd> {
        let to = match self.oracle.attribute(page) {
            Attribute::Shared => Attribute::Private,
            Attribute::Private => Attribute::Shared,
        };
        if to == Attribute::Shared {
            self.rescind(page..page + 1)?;
        }
        let address = self.other_alias(page)?;
        let command = match to {
            // Acceptance is an access, and what a private page needs first.
            Attribute::Private => GuestCommand::Accept { address, length: PAGE_SIZE },
            Attribute::Shared => {
                GuestCommand::Write { address: address + WORD as u64 * 8, word: WRITTEN }
            }
        };
        self.must_exit(page, command)?;
        let call = RawConvert::of_pages(&(page..page + 1), to, 0);
        self.convert(&call, None)?;
        let answer = self.guest.resume(self.deadline());
        let answer = answer.map_err(|stop| match to {
            Attribute::Private => self.guest_failed(stop, ACCEPT, [page]),
            Attribute::Shared => hang_of_kernel(stop, "write", page, ClauseId::MemorySame),
        })?;
        self.observations.forget(page);
        self.coverage.touch(page, View::Guest);
        match (to, answer) {
            (Attribute::Private, Answer { refusal: Some(refusal), .. }) => {
                return Err(refused(ACCEPT, page, refusal));
            }
            (Attribute::Private, _) => self.oracle.accept(page),
            (Attribute::Shared, _) => {
                self.oracle.written_in_part(page);
                let found = access::read_word(&*self.view, page, WORD).map_err(|fault| {
                    self.must_not_fault(View::Host, page, fault, &After::Nothing)
                })?;
                self.same(View::Host, page, WORD, WRITTEN, found)?;
            }
        }
        Ok(After::Converted(page..page + 1))
    }

    /// After everything else: the other alias of one private and of one shared page, another one in every case. What each
    /// page was is known, so KVM must say so; and what the guest asks for thereby is made.
    pub fn try_other_aliases(&mut self) -> Result<(), CaseEnd> {
        if !self.setup.platform.is_encrypted() || !self.oracle.is_mappable() {
            return Ok(());
        }
        for attribute in [Attribute::Private, Attribute::Shared] {
            let usable = |page: &u64| {
                self.oracle.attribute(*page) == attribute
                    && self.oracle.slot_of(*page).is_some()
                    && !self.oracle.is_pinned(*page)
            };
            let pages: Vec<u64> = self.coverage.pages().into_iter().filter(usable).collect();
            if let Some(page) = pages.iter().copied().cycle().nth(self.salt.into())
                && !self.oracle.is_guest_lost()
            {
                self.convert_by_access(page)?;
            }
        }
        Ok(())
    }

    /// Guest address of a page of an encrypted guest through the alias that its attribute rules out.
    fn other_alias(&self, page: u64) -> Result<u64, CaseEnd> {
        let address = self.guest_address(page).filter(|_| self.setup.platform.is_encrypted());
        let address = address.ok_or_else(|| suite(format!("page {page} has no other alias")))?;
        Ok(address ^ PRIVATE_WINDOW)
    }

    /// `command`, an access through the other alias of `page`, must exit and say so.
    fn must_exit(&mut self, page: u64, command: GuestCommand) -> Result<(), CaseEnd> {
        let flags = match self.oracle.attribute(page) {
            Attribute::Shared => u64::from(KVM_MEMORY_EXIT_FLAG_PRIVATE),
            Attribute::Private => 0,
        };
        let gpa = self.other_alias(page)? & !PRIVATE_WINDOW;
        let expected = GuestStop::MemoryFault { flags, gpa, size: PAGE_SIZE };
        let found = match self.guest.command(command, self.deadline()) {
            Err(stop) if stop == expected => return Ok(()),
            Err(stop @ GuestStop::Hang { .. }) => {
                return Err(hang_of_kernel(stop, "access", page, ClauseId::CocoMemoryFault));
            }
            Err(stop) => stop.to_string(),
            Ok(answer) => match command {
                GuestCommand::Read { .. } => format!("the guest read {:#018x}", answer.found),
                GuestCommand::Write { .. } => "the guest wrote to the page".to_string(),
                _ => match answer.refusal {
                    Some(refusal) => format!("acceptance failed with {:#x}", refusal.status),
                    None => "the guest accepted the page".to_string(),
                },
            },
        };
        let summary = format!(
            "guest access through the wrong alias to page {page} is not the right KVM_EXIT_MEMORY_FAULT"
        );
        Err(CaseEnd::broken(ClauseId::CocoMemoryFault, summary)
            .at("guest", page, None)
            .but(expected.to_string(), found))
    }
}

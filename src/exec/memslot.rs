// SPDX-License-Identifier: GPL-2.0-only
//! Memslots that a kernel must refuse.

use super::session::{After, Session};
use super::stop::Stop;
use crate::case::{RawSlot, Returns};
use crate::errno::Errno;
use crate::results::Blame;

/// The clause that such a memslot breaks.
const CLAUSE: &str = "memslot.refused";

impl Session<'_> {
    /// Tries to make a memslot; it must be refused, and nothing may have changed.
    pub fn refused_slot(
        &mut self,
        raw: &RawSlot,
        explicit: Option<&Returns>,
    ) -> Result<After, Stop> {
        let allowed = self.oracle.judge_slot(raw.slot, raw.offset, raw.size, raw.at);
        let names =
            |errors: &[Errno]| errors.iter().map(Errno::to_string).collect::<Vec<_>>().join(" or ");
        if allowed.is_empty() {
            let why = format!("memslot {} is a good one: say `slot N map RANGE`", raw.slot);
            return Err(Stop::error(Blame::Suite, why));
        }
        if let Some(explicit) = explicit {
            let same = explicit.any_of.len() == allowed.len()
                && allowed.iter().all(|e| explicit.any_of.contains(&Some(*e)));
            if !same || explicit.error_page.is_some() {
                let why =
                    format!("the case expects {explicit}, the clauses say {}", names(&allowed));
                return Err(Stop::error(Blame::Suite, why));
            }
        }
        let region = self.region(raw.slot, raw.offset, raw.size, raw.at);
        // SAFETY: should the machine accept it, the case ends here and the VM goes before the view, which is accessed
        // through raw pointers only; the guest, which could reach what lies behind the view, does not run any more.
        let result = unsafe { self.guest.vm().set_user_memory_region2(&region) };
        let found = match result {
            Err(errno) if allowed.contains(&errno) => return Ok(After::Refused(CLAUSE)),
            Err(errno) => errno.to_string(),
            Ok(()) => "success".into(),
        };
        let summary = format!(
            "a memslot of {:#x} bytes at {:#x} of the guest_memfd gives {found} instead of {}",
            raw.size,
            raw.offset,
            names(&allowed)
        );
        Err(Stop::broken(CLAUSE, summary).but(names(&allowed), found))
    }
}

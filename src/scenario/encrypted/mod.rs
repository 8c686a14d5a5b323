// SPDX-License-Identifier: GPL-2.0-only
//! Races with an encrypted guest. Contents survive no conversion there, so what is held against the kernel is whose a page
//! is: attribute and fault for the host, and for the guest that it can accept and use what is private, and keeps it.

mod guest;
mod neighbours;
mod overlapping;
mod punch;
mod same_page;
mod shared;
mod writes;

pub(super) use neighbours::{neighbours, several_vcpus};
pub(super) use overlapping::overlapping;
pub(super) use punch::punch;
pub(super) use same_page::{accept_punched, same_pages};
pub(super) use shared::shared_access;
pub(super) use writes::host_writes;

use super::arena::GuestSide;
use super::memory::Memory;
use crate::case::Attribute::{Private, Shared};
use crate::clause::ClauseId;
use crate::exec::CaseEnd;
use crate::payload::pattern;

/// Nothing else goes on: every page, all of them shared, can become the guest's and come back, and is the same memory for
/// both sides then.
fn usable(guest: &mut GuestSide, memory: &Memory, salt: u16) -> Result<(), CaseEnd> {
    let all = 0..memory.pages;
    let (secret, tag) = (pattern::tag(b'U', salt), pattern::tag(b'V', salt));
    memory.convert_and_look(&all, Private, ClauseId::HostFaultPrivate)?;
    guest.accept(memory, &all)?;
    guest.fill_private(memory, &all, secret)?;
    guest.check_private(memory, &all, secret, ClauseId::CocoAcceptance)?;
    guest.give_up(memory, &all)?;
    memory.convert_and_look(&all, Shared, ClauseId::HostFaultPrivate)?;
    guest.fill(memory, &all, tag)?;
    all.into_iter().try_for_each(|page| memory.must_hold(page, tag))
}

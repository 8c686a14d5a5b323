// SPDX-License-Identifier: GPL-2.0-only
//! Which steps make sense where: a history must never fail on a correct machine, nor ask the suite for the impossible.

use std::collections::BTreeMap;

use crate::case::{
    Action, Attribute, Case, Look, Pages, Pointer, RawConvert, SlotMap, Step, Toucher, View, apart,
};
use crate::dialect::Dialect;
use crate::errno::Errno;
use crate::exec::BYSTANDER_PAGES;
use crate::oracle::{Oracle, Sight};
use crate::platform::Platform;
use crate::uapi::PAGE_SIZE;

/// References that a history holds at a time: each is a pipe, and more would only repeat what these say.
const MOST_PINS: u32 = 32;

/// Pages that one statement may access: each is looked at after every step.
const LONGEST_ACCESS: u64 = 1200;

/// Last page of the test memory that a slot may be mapped at: the guest's page tables have room for a few GiB.
const LAST_SLOT_PAGE: u64 = 3 << 20;

/// Guest_memfds of a history besides the one under test. All of each is looked at after every step.
const MOST_BYSTANDERS: usize = 2;

/// What a history has done so far, as far as it decides what may come next.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    oracle: Oracle,
    child: bool,
    /// References that are held. The oracle forgets those on pages that were punched out; their holder does not.
    pins: BTreeMap<u64, u32>,
    /// Other guest_memfds.
    bystanders: usize,
    has_private_memory: bool,
}

impl Rules {
    /// At the start of `case`.
    pub fn new(platform: Platform, dialect: Dialect, case: &Case) -> Rules {
        Rules {
            oracle: Oracle::new(platform, dialect, case),
            child: false,
            pins: BTreeMap::new(),
            bystanders: 0,
            has_private_memory: platform.has_private_memory(),
        }
    }

    /// Whether the step may come next.
    pub fn permit(&self, step: &Step) -> bool {
        if step.expect.is_some() {
            return false;
        }
        match &step.action {
            Action::Write { view, pages, .. } | Action::Read { view, pages } => {
                self.inside(pages, LONGEST_ACCESS)
                    && pages.clone().all(|page| self.may_access(*view, page))
            }
            Action::Expect { view, pages, look } => {
                self.inside(pages, LONGEST_ACCESS)
                    && pages.clone().all(|page| match look {
                        Look::Any => self.may_access(*view, page),
                        Look::Fault => self.must_fault(*view, page),
                        Look::Pattern(_)
                        | Look::Zero
                        | Look::Unwritten
                        | Look::Mmio
                        | Look::MemoryFault => false,
                    })
            }
            Action::Touch { who, pages } => {
                *who != Toucher::Nobody && self.inside(pages, LONGEST_ACCESS)
            }
            Action::Convert { pages, .. } | Action::Punch(pages) => self.inside(pages, u64::MAX),
            Action::Allocate(pages) => self.inside(pages, LONGEST_ACCESS),
            Action::Raw(call) => self.permit_raw(call),
            Action::Pin(pages) => {
                let held: u32 = self.pins.values().sum();
                self.inside(pages, u64::from(MOST_PINS.saturating_sub(held)))
                    && pages.clone().all(|page| self.may_access(View::Host, page))
            }
            Action::Unpin(pages) => {
                self.inside(pages, u64::from(MOST_PINS))
                    && pages.clone().all(|page| self.is_held(page))
            }
            Action::SlotMap(map) => self.permit_slot(map),
            Action::SlotDelete(slot) => self.oracle.slots().any(|s| s.slot == *slot),
            Action::Remap => self.oracle.slots().next().is_none(),
            Action::ChildFork => !self.child,
            Action::ChildExit => self.child,
            Action::Bystander(start) => {
                self.bystanders < MOST_BYSTANDERS
                    && self.oracle.file_pages() <= BYSTANDER_PAGES
                    && (*start == Attribute::Shared || self.has_private_memory)
            }
            Action::BystanderConvert { pages, .. } => {
                self.bystanders > 0 && self.has_private_memory && self.inside(pages, u64::MAX)
            }
            // What only encrypted guests do is not explored.
            Action::Accept(_)
            | Action::Rescind(_)
            | Action::GuestConvert { .. }
            | Action::ConvertByAccess { .. }
            | Action::WrongAlias { .. }
            | Action::Launch { .. }
            | Action::LaunchRaw(_)
            | Action::OtherVm(_)
            | Action::Request(_)
            | Action::Finalize
            | Action::SlotRaw(_)
            | Action::FileCall(_)
            | Action::FileExpect { .. }
            | Action::FileReplace
            | Action::Capability(_)
            | Action::Misbehave(_) => false,
        }
    }

    /// A step that was permitted has been done.
    pub fn follow(&mut self, step: &Step) {
        match &step.action {
            Action::Write { pages, .. }
            | Action::Read { pages, .. }
            | Action::Expect { pages, look: Look::Any, .. } => {
                pages.clone().for_each(|page| self.oracle.touch(page));
            }
            Action::Expect { .. } => {}
            Action::Touch { who, pages } => {
                let host = matches!(who, Toucher::Host | Toucher::Both);
                let guest = matches!(who, Toucher::Guest | Toucher::Both);
                for page in pages.clone() {
                    if host && self.may_access(View::Host, page)
                        || guest && self.may_access(View::Guest, page)
                    {
                        self.oracle.touch(page);
                    }
                }
            }
            Action::Convert { pages, to, mode } => self.call(&RawConvert {
                offset: pages.start * PAGE_SIZE,
                size: (pages.end - pages.start) * PAGE_SIZE,
                attributes: to.bits(),
                flags: mode.bits(),
                ..RawConvert::default()
            }),
            Action::Raw(call) => self.call(call),
            Action::Punch(pages) => self.oracle.punch(pages.clone()),
            Action::Allocate(pages) => self.oracle.allocate(pages.clone()),
            Action::Pin(pages) => {
                for page in pages.clone() {
                    self.oracle.pin(page);
                    *self.pins.entry(page).or_default() += 1;
                }
            }
            Action::Unpin(pages) => {
                for page in pages.clone() {
                    self.oracle.unpin(page);
                    self.pins.entry(page).and_modify(|held| *held -= 1);
                }
                self.pins.retain(|_, held| *held > 0);
            }
            Action::SlotMap(map) => self.oracle.map_slot(map),
            Action::SlotDelete(slot) => self.oracle.delete_slot(*slot),
            Action::ChildFork => self.child = true,
            Action::ChildExit => self.child = false,
            Action::Bystander(_) => self.bystanders += 1,
            Action::Remap
            | Action::Accept(_)
            | Action::Rescind(_)
            | Action::GuestConvert { .. }
            | Action::ConvertByAccess { .. }
            | Action::WrongAlias { .. }
            | Action::Launch { .. }
            | Action::LaunchRaw(_)
            | Action::OtherVm(_)
            | Action::Request(_)
            | Action::Finalize
            | Action::SlotRaw(_)
            | Action::FileCall(_)
            | Action::FileExpect { .. }
            | Action::FileReplace
            | Action::BystanderConvert { .. }
            | Action::Capability(_)
            | Action::Misbehave(_) => {}
        }
    }

    /// Whether `view` can access `page`.
    pub fn may_access(&self, view: View, page: u64) -> bool {
        (view != View::Child || self.child)
            && matches!(self.oracle.sight(view, page), Sight::Content(_))
    }

    /// Whether an access of `view` to `page` faults.
    pub fn must_fault(&self, view: View, page: u64) -> bool {
        (view != View::Child || self.child) && self.oracle.sight(view, page) == Sight::Fault
    }

    /// Whether a reference on `page` is held.
    pub fn is_held(&self, page: u64) -> bool {
        self.pins.contains_key(&page)
    }

    /// Pages on which a reference is held.
    pub fn held(&self) -> impl Iterator<Item = u64> {
        self.pins.keys().copied()
    }

    /// Whether there are other guest_memfds.
    pub fn has_bystander(&self) -> bool {
        self.bystanders > 0
    }

    /// Whether there is a forked child.
    pub fn has_child(&self) -> bool {
        self.child
    }

    /// The attribute of `page`.
    pub fn attribute(&self, page: u64) -> Attribute {
        self.oracle.attribute(page)
    }

    /// Whether a memslot maps `page`.
    pub fn is_mapped(&self, page: u64) -> bool {
        self.oracle.slot_of(page).is_some()
    }

    /// The memslots, by number.
    pub fn slots(&self) -> Vec<SlotMap> {
        self.oracle.slots().cloned().collect()
    }

    fn inside(&self, pages: &Pages, longest: u64) -> bool {
        pages.start < pages.end
            && pages.end <= self.oracle.file_pages()
            && pages.end - pages.start <= longest
    }

    /// A refusal for a moment, which is fine, cannot be told from another error when `error_offset` cannot be written:
    /// so such a call must be refused for certain or go to shared, where nothing can be in flight.
    fn permit_raw(&self, call: &RawConvert) -> bool {
        let likeliest = self.oracle.judge(call).first().map(|allowed| allowed.result);
        match call.pointer {
            Pointer::Good | Pointer::Bad => true,
            Pointer::ReadOnly => {
                likeliest == Some(Err(Errno::EFAULT))
                    || likeliest == Some(Ok(())) && call.attributes == Attribute::Shared.bits()
            }
        }
    }

    /// KVM takes no two memslots of one page, and none over another.
    fn permit_slot(&self, map: &SlotMap) -> bool {
        self.inside(&map.pages, u64::MAX)
            && map.mapped_at().end <= LAST_SLOT_PAGE
            && self.oracle.slots().all(|other| {
                other.slot != map.slot
                    && apart(&other.pages, &map.pages)
                    && apart(&other.mapped_at(), &map.mapped_at())
            })
    }

    /// The likeliest outcome decides: where the clauses allow others, they leave the same attributes.
    fn call(&mut self, call: &RawConvert) {
        if let Some(allowed) = self.oracle.judge(call).first() {
            self.oracle.apply(call, allowed.result);
        }
    }
}

/// The steps of `case` that may stand where they stand; the others are left out.
pub(super) fn repaired(platform: Platform, dialect: Dialect, mut case: Case) -> Case {
    let mut rules = Rules::new(platform, dialect, &case);
    case.steps.retain(|step| {
        let permitted = rules.permit(step);
        if permitted {
            rules.follow(step);
        }
        permitted
    });
    case
}

/// Whether every step of `case` may stand where it stands.
pub(super) fn is_valid(platform: Platform, dialect: Dialect, case: &Case) -> bool {
    repaired(platform, dialect, case.clone()).steps.len() == case.steps.len()
}

// SPDX-License-Identifier: GPL-2.0-only
//! Which steps make sense where: a history must never fail on a correct machine, nor ask the suite for the impossible.

use std::collections::{BTreeMap, BTreeSet};

use crate::case::{
    Action, Attribute, Case, Look, Mode, Pages, Pointer, RawConvert, Returns, SlotMap, Step,
    Toucher, View, apart,
};
use crate::dialect::Dialect;
use crate::errno::Errno;
use crate::exec::BYSTANDER_PAGES;
use crate::oracle::{Oracle, Sight};
use crate::payload::pattern;
use crate::platform::Platform;

/// References that a history holds at a time: each is a pipe, and more would only repeat what these say.
const MOST_PINS: u32 = 32;

/// Pages that one statement may access: each is looked at after every step.
const LONGEST_ACCESS: u64 = 1200;

/// Last page of the test memory that a slot may be mapped at: the guest's page tables have room for a few GiB.
const LAST_SLOT_PAGE: u64 = 3 << 20;
/// The same of an encrypted guest, which has both aliases of 8 GiB mapped.
const LAST_ENCRYPTED_SLOT_PAGE: u64 = 2 << 20;

/// Pages for which an encrypted guest asks at once: the GHCB has room for 253 entries, and TDX's KVM takes 512 pages at a
/// time, so there is more than one request.
const LONGEST_REQUEST: u64 = 600;

/// Pages of a launch call: each is a command to the firmware or the module.
const LONGEST_LAUNCH: u64 = 64;

/// Pages for which an SNP guest asks one by one, each with an exit.
const LONGEST_MSR_REQUEST: u64 = 40;

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
    platform: Platform,
    /// Pages that the guest has used since they were last punched out: an encrypted one accepts them when they are looked at.
    used: BTreeSet<u64>,
    /// On SNP: where the test memory has pages that the guest may have used as private memory. The RMP holds this address,
    /// and the guest can use them at no other one.
    assigned: BTreeMap<u64, u64>,
}

impl Rules {
    /// At the start of `case`.
    pub fn new(platform: Platform, dialect: Dialect, case: &Case) -> Rules {
        Rules {
            oracle: Oracle::new(platform, dialect, case),
            child: false,
            pins: BTreeMap::new(),
            bystanders: 0,
            platform,
            used: BTreeSet::new(),
            assigned: BTreeMap::new(),
        }
    }

    /// The history begins before the launch of the guest is finished.
    pub fn begin_launch(&mut self) {
        self.oracle.begin_launch();
    }

    /// Whether the launch of the guest is not finished.
    pub fn is_in_launch(&self) -> bool {
        self.oracle.takes_launch_calls()
    }

    /// Whether the step may come next.
    pub fn permit(&self, step: &Step) -> bool {
        let lost = self.oracle.is_guest_lost() && !self.is_in_launch();
        if lost || !is_answerable(step) {
            return false;
        }
        match &step.action {
            Action::Write { view, pages, .. } | Action::Read { view, pages } => {
                self.inside(pages, LONGEST_ACCESS)
                    && pages.clone().all(|page| self.may_access(*view, page))
            }
            Action::Expect { view, pages, look } => {
                self.inside(pages, LONGEST_ACCESS) && self.permit_look(*view, pages, *look)
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
            Action::Bystander(start) => self.permit_bystander(*start),
            Action::BystanderConvert { pages, .. } => {
                let possible = self.bystanders > 0 && self.platform.has_private_memory();
                possible && self.inside(pages, u64::MAX)
            }
            Action::Accept(pages) => {
                self.inside(pages, LONGEST_ACCESS)
                    && pages.clone().all(|page| self.is_private_for_guest(page))
            }
            Action::Rescind(pages) => {
                self.platform.has(|e| e.rescinds)
                    && self.inside(pages, LONGEST_ACCESS)
                    && pages.clone().all(|page| self.may_rescind(page))
            }
            Action::GuestConvert { pages, to, by_msr } => self.permit_request(pages, *to, *by_msr),
            Action::ConvertByAccess { page, to } => {
                self.may_use_other_alias(*page)
                    && self.attribute(*page) != *to
                    && (*to == Attribute::Shared || !self.oracle.is_pinned(*page))
            }
            Action::WrongAlias { page, .. } => self.may_use_other_alias(*page),
            Action::Launch { pages, .. } => {
                let slot = |page| self.oracle.slot_of(page).map(|(slot, _)| slot);
                self.inside(pages, LONGEST_LAUNCH)
                    && pages.clone().all(|page| self.may_launch(page))
                    && pages.clone().all(|page| slot(page) == slot(pages.start))
                    && step.expect == self.launch_refusal(pages)
            }
            Action::Finalize => self.is_in_launch(),
            // Odd calls are for cases.
            _ => false,
        }
    }

    /// Whether the oracle can say that pages look so without knowing what was written to them.
    fn permit_look(&self, view: View, pages: &Pages, look: Look) -> bool {
        pages.clone().all(|page| match look {
            Look::Any => self.may_access(view, page),
            Look::Fault => self.must_fault(view, page),
            Look::Pattern(_) | Look::Zero | Look::Unwritten | Look::Mmio | Look::MemoryFault => {
                false
            }
        })
    }

    fn permit_bystander(&self, start: Attribute) -> bool {
        self.bystanders < MOST_BYSTANDERS
            && self.oracle.file_pages() <= BYSTANDER_PAGES
            && (start == Attribute::Shared || self.platform.has_private_memory())
    }

    /// A step that was permitted has been done.
    pub fn follow(&mut self, step: &Step) {
        match &step.action {
            Action::Write { view, pages, .. }
            | Action::Read { view, pages }
            | Action::Expect { view, pages, look: Look::Any } => {
                pages.clone().for_each(|page| self.access(*view, page));
            }
            Action::Expect { .. } => {}
            Action::Touch { who, pages } => self.touch(*who, pages),
            Action::Convert { pages, to, mode } => self.convert(pages, *to, *mode),
            Action::Raw(call) => self.call(call),
            Action::Accept(pages) => {
                pages.clone().for_each(|page| self.access(View::Guest, page));
            }
            Action::Rescind(pages) => pages.clone().for_each(|page| self.oracle.rescind(page)),
            Action::GuestConvert { pages, to, .. } => self.request(pages, *to, step),
            Action::ConvertByAccess { page, to } => {
                self.convert(&(*page..page + 1), *to, Mode::Unspecified);
                self.access(View::Guest, *page);
            }
            Action::WrongAlias { .. } => self.oracle.lose_guest(),
            Action::Punch(pages) => {
                self.oracle.punch(pages.clone());
                self.used.retain(|page| !pages.contains(page));
                self.assigned.retain(|page, _| !pages.contains(page));
            }
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
            Action::Launch { pages, from } => self.launch(pages, *from, step.expect.is_none()),
            Action::Finalize => self.oracle.finalize(),
            // The others change nothing of that, or are not permitted.
            _ => {}
        }
        if self.platform.has(|e| e.has_rmp) {
            self.assign();
        }
    }

    /// Each side reads the pages that it may.
    fn touch(&mut self, who: Toucher, pages: &Pages) {
        let host = matches!(who, Toucher::Host | Toucher::Both);
        let guest = matches!(who, Toucher::Guest | Toucher::Both);
        let views = [(host, View::Host), (guest, View::Guest)];
        for (_, view) in views.into_iter().filter(|(takes_part, _)| *takes_part) {
            for page in pages.clone() {
                if self.may_access(view, page) {
                    self.access(view, page);
                }
            }
        }
    }

    /// What the guest has used and is private now may be in the RMP, at the address where it is mapped.
    fn assign(&mut self) {
        let oracle = &self.oracle;
        self.assigned.retain(|page, _| oracle.attribute(*page) == Attribute::Private);
        let private = self.used.iter().filter(|p| oracle.attribute(**p) == Attribute::Private);
        let places = private.filter_map(|page| Some((*page, oracle.slot_of(*page)?.1)));
        self.assigned.extend(places);
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

    /// Whether the guest can accept `page`, or has accepted it: it is private, and a memslot maps it.
    pub fn is_private_for_guest(&self, page: u64) -> bool {
        self.platform.is_encrypted()
            && self.attribute(page) == Attribute::Private
            && self.may_access(View::Guest, page)
    }

    /// Whether the guest can give `page` up.
    pub fn may_rescind(&self, page: u64) -> bool {
        self.is_private_for_guest(page) && self.oracle.is_accepted(page)
    }

    /// Whether a launch call may be about `page`: a memslot maps it, and none was about it since it last became private.
    pub fn may_launch(&self, page: u64) -> bool {
        self.platform.is_encrypted()
            && self.is_in_launch()
            && self.oracle.slot_of(page).is_some()
            && !self.oracle.is_accepted(page)
            && !self.oracle.may_be_accepted(page)
    }

    /// What a launch call for `pages` returns: a refusal, if any of them is shared.
    pub fn launch_refusal(&self, pages: &Pages) -> Option<Returns> {
        let refused = pages.clone().any(|page| self.oracle.judge_launch(page).is_err());
        let any_of = vec![Some(Errno::EINVAL), Some(Errno::EIO)];
        refused.then_some(Returns { any_of, error_page: None })
    }

    fn launch(&mut self, pages: &Pages, from: Option<u8>, taken: bool) {
        for page in pages.clone() {
            match taken {
                true => self.oracle.launch(page, from.map(|letter| pattern::tag(letter, 0))),
                false => self.oracle.launch_refused(page),
            }
            // It may be in the RMP.
            self.used.insert(page);
        }
    }

    /// Whether the guest can access `page` through the alias that its attribute rules out.
    pub fn may_use_other_alias(&self, page: u64) -> bool {
        self.platform.is_encrypted()
            && self.inside(&(page..page + 1), 1)
            && self.may_access(View::Guest, page)
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

    /// `view` has accessed `page`, and a guest has accepted it before.
    fn access(&mut self, view: View, page: u64) {
        self.oracle.touch(page);
        if view == View::Guest && self.platform.is_encrypted() {
            self.used.insert(page);
            if self.is_private_for_guest(page) {
                self.oracle.accept(page);
            }
        }
    }

    /// The guest asks with one address for all pages, and the host must be able to do what it asks for.
    fn permit_request(&self, pages: &Pages, to: Attribute, by_msr: bool) -> bool {
        let longest = if by_msr { LONGEST_MSR_REQUEST } else { LONGEST_REQUEST };
        let slot = |page| self.oracle.slot_of(page).map(|(slot, _)| slot);
        self.platform.is_encrypted()
            && (!by_msr || self.platform.has(|e| e.has_ghcb))
            && self.inside(pages, longest)
            && self.may_access(View::Guest, pages.start)
            && pages.clone().all(|page| slot(page) == slot(pages.start))
            && (to == Attribute::Shared || !pages.clone().any(|page| self.oracle.is_pinned(page)))
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
        let last = match self.platform.is_encrypted() {
            true => LAST_ENCRYPTED_SLOT_PAGE,
            false => LAST_SLOT_PAGE,
        };
        self.inside(&map.pages, u64::MAX)
            && map.mapped_at().end <= last
            && self
                .assigned
                .range(map.pages.clone())
                .all(|(page, at)| *at == map.at + (page - map.pages.start))
            && self.oracle.slots().all(|other| {
                other.slot != map.slot
                    && apart(&other.pages, &map.pages)
                    && apart(&other.mapped_at(), &map.mapped_at())
            })
    }

    /// The guest has asked for a conversion, and was answered as `step` says. A TD that is told EAGAIN asks again.
    fn request(&mut self, pages: &Pages, to: Attribute, step: &Step) {
        let again = self.platform.has(|e| e.asks_again) && answer(step) == Some(Errno::EAGAIN);
        if step.expect.is_none() || again {
            return self.convert(pages, to, Mode::Unspecified);
        }
        // An SNP guest gives pages up before it asks.
        if self.platform.has(|e| e.rescinds) && to == Attribute::Shared {
            pages.clone().for_each(|page| self.oracle.rescind(page));
        }
    }

    fn convert(&mut self, pages: &Pages, to: Attribute, mode: Mode) {
        self.call(&RawConvert::of_pages(pages, to, mode.bits()));
    }

    /// The likeliest outcome decides: where the clauses allow others, they leave the same attributes.
    fn call(&mut self, call: &RawConvert) {
        if let Some(allowed) = self.oracle.judge(call).first() {
            self.oracle.apply(call, allowed.result);
        }
    }
}

/// The error that the host is to answer a guest's request with.
fn answer(step: &Step) -> Option<Errno> {
    match step.expect.as_ref()?.any_of.as_slice() {
        [Some(errno @ (Errno::EAGAIN | Errno::EINVAL))] => Some(*errno),
        _ => None,
    }
}

/// Whether nothing is expected of a step, or it is a request that the host answers with an error, or a launch call.
fn is_answerable(step: &Step) -> bool {
    match &step.action {
        Action::Launch { .. } => true,
        Action::GuestConvert { .. } => step.expect.is_none() || answer(step).is_some(),
        _ => step.expect.is_none(),
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

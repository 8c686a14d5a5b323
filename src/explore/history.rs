// SPDX-License-Identifier: GPL-2.0-only
//! Making random histories.

use super::raw;
use super::rules::Rules;
use crate::case::{Action, Attribute, Case, Look, Mode, Pages, SlotMap, Step, Toucher, View};
use crate::case::{RawConvert, Requirement, Returns};
use crate::clause::ClauseId;
use crate::dialect::Dialect;
use crate::errno::Errno;
use crate::platform::Platform;
use crate::rng::Rng;

/// Clauses that every history tests; one that fails names the clause that was broken instead.
const CLAUSES: [ClauseId; 4] = [
    ClauseId::ConvertAccepted,
    ClauseId::ConvertRange,
    ClauseId::ConvertPrecise,
    ClauseId::MemorySame,
];

/// Tries to find a step of a kind that makes sense, before a conversion, which always does, takes its place.
const TRIES: usize = 16;

/// Pages where kernels change their ways: a batch of folios (31), a large folio (512), 32 bits of bytes (4 GiB).
const BOUNDARIES: [u64; 3] = [31, 512, 1 << 20];

/// So many histories of an encrypted guest in a hundred begin before its launch is finished, and so many steps are made in it.
/// Arbitrary: a launch of its own makes such a history dear.
const IN_LAUNCH: u64 = 25;
const LAUNCH_STEPS: Pages = 3..15;

/// Memslots that a history uses.
const SLOTS: u32 = 4;

/// What kind of histories to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The platform that they run on.
    pub platform: Platform,
    /// The dialect that they are judged by.
    pub dialect: Dialect,
    /// Steps in each.
    pub steps: usize,
    /// Pages of the guest_memfd; `None` for all sizes, mostly small ones.
    pub pages: Option<u64>,
    /// Whether the launch of an encrypted guest takes pages with what they hold.
    pub in_place: bool,
}

/// History `number` of `seed`: the same for the same arguments on any machine. A longer one begins as a shorter one, but for
/// the last step of an encrypted guest's: an access from which it cannot go on, or the end of its launch.
pub fn history(seed: u64, number: u64, shape: &Shape) -> Case {
    let mut generator = Generator::new(Rng::new(seed, number), seed, number, shape);
    while generator.case.steps.len() < shape.steps {
        let step = generator.step();
        generator.rules.follow(&step);
        generator.case.steps.push(step);
    }
    generator.case
}

fn opposite(attribute: Attribute) -> Attribute {
    match attribute {
        Attribute::Shared => Attribute::Private,
        Attribute::Private => Attribute::Shared,
    }
}

/// The kinds of steps.
#[derive(Clone, Copy)]
enum Kind {
    Convert,
    Raw,
    Write,
    Read,
    Expect,
    Touch,
    Punch,
    Allocate,
    Pin,
    Unpin,
    SlotMap,
    SlotDelete,
    Remap,
    Fork,
    ChildExit,
    Bystander,
    BystanderConvert,
    Accept,
    Rescind,
    GuestConvert,
    ConvertByAccess,
    WrongAlias,
    Launch,
}

struct Generator<'a> {
    rng: Rng,
    shape: &'a Shape,
    case: Case,
    rules: Rules,
    /// Pages around which ranges begin and end.
    anchors: Vec<u64>,
    /// Pages that an access may have.
    reach: u64,
    /// After how many steps the launch is finished, in a history that begins in it.
    launch_steps: usize,
    /// Where the last step was: stories are about one place.
    last: Pages,
    letter: u8,
}

impl<'a> Generator<'a> {
    fn new(mut rng: Rng, seed: u64, number: u64, shape: &'a Shape) -> Generator<'a> {
        let pages = shape.pages.unwrap_or_else(|| match rng.below(100) {
            0..80 => 2 + rng.below(11),
            80..94 => 28 + rng.below(50),
            94..97 => 505 + rng.below(40),
            _ => (1 << 20) + 1 + rng.below(12),
        });
        let reach = match pages {
            0..=12 => pages,
            13..=80 => rng.pick(&[12, 40, 80]),
            _ => rng.weighted(&[(7, 8), (2, 40), (1, 540)]),
        };
        let anchors = [0, pages].into_iter().chain(BOUNDARIES).filter(|page| *page <= pages);
        // Without private memory a page cannot be made shared again.
        let private = shape.platform.has_private_memory() && rng.chance(30);
        // A case that says nothing runs on software-protected guests.
        let needs = match shape.platform {
            Platform::SwProtected => Vec::new(),
            platform => vec![Requirement::Platform(vec![platform])],
        };
        let case = Case {
            name: format!("explore.{seed}-{number}"),
            clauses: CLAUSES.into(),
            fixes: Vec::new(),
            pages,
            start: if private { Attribute::Private } else { Attribute::Shared },
            needs,
            no_slots: rng.chance(15),
            // Where the host's mapping is the memslot's userspace_addr, an MMU notifier can hide what a conversion forgets.
            userspace_elsewhere: shape.platform.is_encrypted() && rng.chance(30),
            ..Case::default()
        };
        let mut rules = Rules::new(shape.platform, shape.dialect, &case);
        let anchors = anchors.collect();
        let in_launch = shape.platform.is_encrypted() && rng.chance(IN_LAUNCH);
        let mut launch_steps = 0;
        if in_launch {
            rules.begin_launch();
            let more = rng.below(LAUNCH_STEPS.end - LAUNCH_STEPS.start);
            launch_steps = (LAUNCH_STEPS.start + more) as usize;
        }
        Generator {
            rng,
            shape,
            case,
            rules,
            anchors,
            reach,
            launch_steps,
            last: 0..1,
            letter: b'X',
        }
    }

    /// The next step.
    fn step(&mut self) -> Step {
        if self.rules.is_in_launch()
            && (self.case.steps.len() >= self.launch_steps || self.is_last())
        {
            return Step::new(Action::Finalize);
        }
        if let Some(look) = self.look_at_launched() {
            return look;
        }
        for _ in 0..TRIES {
            let kind = self.kind();
            let Some(action) = self.action(kind) else { continue };
            let step = Step { expect: self.answer(&action), ..Step::new(action) };
            if self.rules.permit(&step) {
                return step;
            }
        }
        Step::new(self.convert())
    }

    /// When the launch has just been finished: the guest looks, most of the time, at what was launched, before it is converted
    /// or punched out.
    fn look_at_launched(&mut self) -> Option<Step> {
        let finished = self.case.steps.last().is_some_and(|step| step.action == Action::Finalize);
        if !finished || !self.rng.chance(75) {
            return None;
        }
        let launched = |rules: &Rules, page| rules.may_rescind(page);
        let pages = (0..TRIES).find_map(|_| self.run(launched))?;
        Some(Step::new(Action::Read { view: View::Guest, pages }))
    }

    fn is_last(&self) -> bool {
        self.case.steps.len() + 1 == self.shape.steps
    }

    fn kind(&mut self) -> Kind {
        let slots = self.rules.slots();
        let missing =
            slots.iter().map(|s| s.pages.end - s.pages.start).sum::<u64>() < self.case.pages;
        let held = self.rules.held().next().is_some();
        let in_launch = self.rules.is_in_launch();
        let encrypted = self.shape.platform.is_encrypted() && !in_launch;
        let last = self.is_last();
        let when = |condition: bool, weight: u64| if condition { weight } else { 0 };
        self.rng.weighted(&[
            (30, Kind::Convert),
            (5, Kind::Raw),
            (22, Kind::Write),
            (8, Kind::Read),
            (2, Kind::Expect),
            (4, Kind::Touch),
            (6, Kind::Punch),
            (5, Kind::Allocate),
            (5, Kind::Pin),
            (when(held, 5), Kind::Unpin),
            (when(missing, 10), Kind::SlotMap),
            (when(!slots.is_empty(), 2), Kind::SlotDelete),
            (when(slots.is_empty(), 8), Kind::Remap),
            (when(!self.rules.has_child(), 2), Kind::Fork),
            (when(self.rules.has_child(), 1), Kind::ChildExit),
            (1, Kind::Bystander),
            (when(self.rules.has_bystander(), 4), Kind::BystanderConvert),
            (when(encrypted, 4), Kind::Accept),
            (when(encrypted && self.shape.platform.has(|e| e.rescinds), 4), Kind::Rescind),
            (when(encrypted, 10), Kind::GuestConvert),
            (when(encrypted, 6), Kind::ConvertByAccess),
            // The guest cannot go on from there.
            (when(encrypted && last, 20), Kind::WrongAlias),
            (when(in_launch, 45), Kind::Launch),
        ])
    }

    /// A step of this kind, if there is one here.
    fn action(&mut self, kind: Kind) -> Option<Action> {
        Some(match kind {
            Kind::Convert => self.convert(),
            Kind::Raw => Action::Raw(self.raw()),
            Kind::Write => {
                let view = self.view();
                let pages = self.accessible(view)?;
                Action::Write { view, pages, letter: self.letter() }
            }
            Kind::Read => {
                let view = self.view();
                Action::Read { view, pages: self.accessible(view)? }
            }
            Kind::Expect => {
                let view = self.view();
                if view != View::Guest && self.rng.chance(50) {
                    let pages = self.run(|rules, page| rules.must_fault(view, page))?;
                    Action::Expect { view, pages, look: Look::Fault }
                } else {
                    Action::Expect { view, pages: self.accessible(view)?, look: Look::Any }
                }
            }
            Kind::Touch => {
                let who = self.rng.pick(&[Toucher::Host, Toucher::Guest, Toucher::Both]);
                Action::Touch { who, pages: self.range(self.reach) }
            }
            Kind::Punch => Action::Punch(self.range(u64::MAX)),
            Kind::Allocate => Action::Allocate(self.range(self.reach.max(64))),
            Kind::Pin => {
                let longest = 1 + self.rng.below(2);
                let pages = self.accessible(View::Host)?;
                Action::Pin(pages.start..pages.end.min(pages.start + longest))
            }
            Kind::Unpin => {
                let held: Vec<u64> = self.rules.held().collect();
                let page = self.rng.pick(&held);
                Action::Unpin(page..page + 1)
            }
            Kind::SlotMap => Action::SlotMap(self.slot()?),
            Kind::SlotDelete => {
                let slots: Vec<u32> = self.rules.slots().iter().map(|s| s.slot).collect();
                Action::SlotDelete(self.rng.pick(&slots))
            }
            Kind::Remap => Action::Remap,
            Kind::Fork => Action::ChildFork,
            Kind::ChildExit => Action::ChildExit,
            Kind::Bystander => {
                Action::Bystander(self.rng.pick(&[Attribute::Shared, Attribute::Private]))
            }
            Kind::BystanderConvert => {
                let to = self.rng.pick(&[Attribute::Shared, Attribute::Private]);
                Action::BystanderConvert { pages: self.range(u64::MAX), to }
            }
            Kind::Launch => self.launch()?,
            Kind::Accept | Kind::Rescind | Kind::GuestConvert => return self.guest_action(kind),
            Kind::ConvertByAccess => {
                let pages = self.run(|rules, page| rules.may_use_other_alias(page))?;
                let to = opposite(self.rules.attribute(pages.start));
                Action::ConvertByAccess { page: pages.start, to }
            }
            Kind::WrongAlias => {
                let pages = self.run(|rules, page| rules.may_use_other_alias(page))?;
                Action::WrongAlias { page: pages.start, by_write: self.rng.chance(50) }
            }
        })
    }

    /// A letter that was not used lately.
    fn letter(&mut self) -> u8 {
        self.letter = if self.letter == b'X' { b'A' } else { self.letter + 1 };
        self.letter
    }

    /// A launch call: of private pages, or now and then of a range that is shared in part.
    fn launch(&mut self) -> Option<Action> {
        let mixed = self.rng.chance(10);
        let private = |rules: &Rules, page| rules.attribute(page) == Attribute::Private;
        let pages =
            self.run(|rules, page| rules.may_launch(page) && (mixed || private(rules, page)))?;
        let in_place = self.shape.in_place && self.rng.chance(50);
        let from = if in_place { None } else { Some(self.letter()) };
        Some(Action::Launch { pages, from })
    }

    /// A step of an encrypted guest that is about a range, if there is one of this kind here.
    fn guest_action(&mut self, kind: Kind) -> Option<Action> {
        match kind {
            Kind::Accept => {
                self.run(|rules, page| rules.is_private_for_guest(page)).map(Action::Accept)
            }
            Kind::Rescind => self.run(|rules, page| rules.may_rescind(page)).map(Action::Rescind),
            _ => {
                let pages = self.range(self.reach);
                let to = self.direction(pages.start);
                let by_msr = self.shape.platform.has(|e| e.has_ghcb) && self.rng.chance(30);
                Some(Action::GuestConvert { pages, to, by_msr })
            }
        }
    }

    /// What the host answers an encrypted guest's request with, if not by doing it; that the launch refuses shared pages.
    fn answer(&mut self, action: &Action) -> Option<Returns> {
        if let Action::Launch { pages, .. } = action {
            return self.rules.launch_refusal(pages);
        }
        let is_request = matches!(action, Action::GuestConvert { .. });
        if !is_request || !self.rng.chance(15) {
            return None;
        }
        let errno = self.rng.pick(&[Errno::EAGAIN, Errno::EINVAL]);
        Some(Returns { any_of: vec![Some(errno)], error_page: None })
    }

    fn convert(&mut self) -> Action {
        let pages = self.range(u64::MAX);
        let to = self.direction(pages.start);
        Action::Convert { pages, to, mode: self.mode(to) }
    }

    /// What `page` and those behind it become. A conversion that changes something is the more interesting one, but not the
    /// only one.
    fn direction(&mut self, page: u64) -> Attribute {
        let there = self.rules.attribute(page);
        if self.rng.chance(70) { opposite(there) } else { there }
    }

    fn mode(&mut self, to: Attribute) -> Mode {
        if !self.shape.dialect.has_content_modes() {
            return self.rng.weighted(&[(95, Mode::Unspecified), (5, Mode::Preserve)]);
        }
        // ZERO to private is refused always.
        let zero = if to == Attribute::Private { 1 } else { 4 };
        self.rng.weighted(&[(4, Mode::Unspecified), (zero, Mode::Zero), (4, Mode::Preserve)])
    }

    /// A conversion with something wrong or odd about its arguments.
    fn raw(&mut self) -> RawConvert {
        let pages = self.range(u64::MAX);
        let to = self.rng.pick(&[Attribute::Shared, Attribute::Private]);
        let call = RawConvert::of_pages(&pages, to, self.mode(to).bits());
        raw::distort(&mut self.rng, call, self.case.pages)
    }

    /// Who accesses memory next.
    fn view(&mut self) -> View {
        let child = if self.rules.has_child() { 3 } else { 0 };
        let guest = if self.rules.is_in_launch() { 0 } else { 5 };
        self.rng.weighted(&[(5, View::Host), (guest, View::Guest), (child, View::Child)])
    }

    /// Pages that `view` may access.
    fn accessible(&mut self, view: View) -> Option<Pages> {
        self.run(|rules, page| rules.may_access(view, page))
    }

    /// Neighbouring pages of some range for which `wanted` holds.
    fn run(&mut self, wanted: impl Fn(&Rules, u64) -> bool) -> Option<Pages> {
        let range = self.range(self.reach);
        let mut runs: Vec<Pages> = Vec::new();
        for page in range.filter(|page| wanted(&self.rules, *page)) {
            match runs.last_mut() {
                Some(last) if last.end == page => last.end += 1,
                _ => runs.push(page..page + 1),
            }
        }
        let index = self.rng.below(runs.len().max(1) as u64) as usize;
        runs.get(index).cloned()
    }

    /// A memslot for pages that none maps, at a place that may be taken.
    fn slot(&mut self) -> Option<SlotMap> {
        let taken = self.rules.slots();
        let slot = (0..SLOTS).find(|slot| taken.iter().all(|t| t.slot != *slot))?;
        let wanted = self.range(u64::MAX);
        // All pages up to the next memslot, most of the time: then the guest takes part again.
        let start = (wanted.start..wanted.end).take(64).find(|p| !self.rules.is_mapped(*p))?;
        let limit = taken.iter().map(|t| t.pages.start).filter(|p| *p > start).min();
        let limit = limit.unwrap_or(self.case.pages);
        let end = if self.rng.chance(70) { limit } else { wanted.end.min(limit) };
        let start = if taken.is_empty() && self.rng.chance(50) { 0 } else { start };
        let at = self.rng.pick(&[start, start, 0, 1, 511, 1000, 1 << 18]);
        Some(SlotMap { slot, pages: start..end.max(start + 1), at })
    }

    /// Pages of the file, at most `longest`.
    fn range(&mut self, longest: u64) -> Pages {
        let pages = self.case.pages;
        let mut range = match self.rng.below(100) {
            0..45 => self.nearby(),
            45..52 => 0..pages,
            52..60 => {
                let (a, b) = (self.page(), self.page());
                a.min(b)..a.max(b) + 1
            }
            _ => {
                let start = self.page();
                let most = self.reach.min(longest).min(pages);
                // Short ones more often.
                let most = 1 + self.rng.below(most);
                start..start + 1 + self.rng.below(most)
            }
        };
        range.start = range.start.min(pages - 1);
        range.end = range.end.clamp(range.start + 1, pages);
        range.end = range.end.min(range.start.saturating_add(longest));
        self.last = range.clone();
        range
    }

    /// A range that begins or ends where the last one does, or beside it.
    fn nearby(&mut self) -> Pages {
        let Pages { start, end } = self.last.clone();
        match self.rng.below(10) {
            0..4 => start..end,
            4 => start..end + 1,
            5 => start.saturating_sub(1)..end,
            6 => start + 1..end,
            7 => start..end.saturating_sub(1),
            8 => end..end + (end - start),
            _ => start.saturating_sub(end - start)..start,
        }
    }

    /// A page, near a boundary rather than not.
    fn page(&mut self) -> u64 {
        let last = self.case.pages - 1;
        if self.rng.chance(35) && self.case.pages <= 80 {
            return self.rng.below(self.case.pages);
        }
        let anchor = self.rng.pick(&self.anchors);
        (anchor + self.rng.below(5)).saturating_sub(2).min(last)
    }
}

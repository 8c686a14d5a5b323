// SPDX-License-Identifier: GPL-2.0-only
//! Every flag combination over every layout: cases for all states that a few pages can be in, all ranges of them, both
//! directions and every content mode.
//!
//! Who touched the pages before matters too, since memory that is mapped in the host or the guest takes other paths in
//! the kernel. A row has an id, is a case like any other, and reads the same in both tiers. The quick tier holds, for
//! encrypted guests, every layout, range, direction and mode of three pages, with who touched them and what bad call came
//! before spread over the rows so that every pair of values occurs. For guests that nothing encrypts it holds a sample with
//! every pair of values: of 80 mutated kernels the other rows found none that the rest of the cases let pass. The full tier
//! holds the whole product, four pages, and three pages placed where kernels get things wrong.

use crate::case::{
    Action, Attribute, Case, Mode, Pages, RawConvert, Requirement, Returns, Step, Toucher, View,
};
use crate::clause::ClauseId;
use crate::dialect::Dialect;
use crate::errno::Errno;
use crate::platform::Platform;
use crate::uapi::PAGE_SIZE;

/// How much is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Tier {
    /// Every layout, range, direction and mode of three pages; seconds.
    #[default]
    Quick,
    /// Also every combination with who touched the pages, four pages, and pages at boundaries; minutes.
    Full,
}

/// What a page is like before the conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PageState {
    attribute: Attribute,
    allocated: bool,
}

impl PageState {
    const ALL: [PageState; 4] = [
        PageState { attribute: Attribute::Shared, allocated: true },
        PageState { attribute: Attribute::Shared, allocated: false },
        PageState { attribute: Attribute::Private, allocated: true },
        PageState { attribute: Attribute::Private, allocated: false },
    ];

    /// Shared or private, allocated or a hole.
    fn name(self) -> &'static str {
        match (self.attribute, self.allocated) {
            (Attribute::Shared, true) => "sa",
            (Attribute::Shared, false) => "sh",
            (Attribute::Private, true) => "pa",
            (Attribute::Private, false) => "ph",
        }
    }
}

/// What the conversion asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flags {
    Mode(Mode),
    /// All modes together.
    Both,
    /// A flag that no revision has.
    Unknown,
}

impl Flags {
    const MODES: [Flags; 3] =
        [Flags::Mode(Mode::Unspecified), Flags::Mode(Mode::Zero), Flags::Mode(Mode::Preserve)];
    const ALL: [Flags; 5] = [
        Flags::Mode(Mode::Unspecified),
        Flags::Mode(Mode::Zero),
        Flags::Mode(Mode::Preserve),
        Flags::Both,
        Flags::Unknown,
    ];

    fn name(self) -> &'static str {
        match self {
            Flags::Mode(mode) => mode.name(),
            Flags::Both => "both",
            Flags::Unknown => "unknown",
        }
    }

    fn bits(self) -> u64 {
        match self {
            Flags::Mode(mode) => mode.bits(),
            Flags::Both => Mode::BITS,
            Flags::Unknown => Mode::UNKNOWN_BIT,
        }
    }
}

/// Where in which file the pages lie.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// The first part of the case's name.
    topic: &'static str,
    first: u64,
    file_pages: u64,
}

/// The whole of a file.
const WHOLE: &str = "layout";

/// Boundaries that kernels get wrong: the end of the file, the batches of 31 in which folios are looked up, the 512
/// pages of a huge page, and offsets of more than 32 bits. The boundary lies between the second and the third page.
const PLACES: [Place; 4] = [
    Place { topic: "layout-at-end", first: 5, file_pages: 8 },
    Place { topic: "layout-at-32", first: 30, file_pages: 40 },
    Place { topic: "layout-at-512", first: 510, file_pages: 520 },
    Place { topic: "layout-at-4g", first: (1 << 20) - 2, file_pages: (1 << 20) + 8 },
];

/// Whose pages they are. What brings a page into a state, and what a mode must do there, differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guests {
    /// Nothing is encrypted: contents can be preserved, so a page can be private and hold what the host wrote.
    Plain,
    /// SNP and TDX guests: a page that becomes private holds nothing that anybody knows until the guest has accepted it.
    Encrypted,
}

/// One row: a conversion of a range of pages in a layout.
struct Row<'a> {
    guests: Guests,
    place: Place,
    layout: &'a [PageState],
    /// Pages of the layout, counted from its first.
    range: Pages,
    to: Attribute,
    flags: Flags,
    who: Toucher,
    /// A refused call before the conversion: it must not have an effect on what follows.
    bad_before: Option<Flags>,
    /// Whether it runs in a VM and with a file of its own.
    alone: bool,
}

/// Every row of a tier, for guests that nothing encrypts and for those that have a key. The dialect decides what a row must
/// return, not which rows there are.
pub fn rows(tier: Tier, dialect: Dialect) -> Vec<Case> {
    let mut cases = Vec::new();
    let whole = |pages| Place { topic: WHOLE, first: 0, file_pages: pages };
    for guests in [Guests::Plain, Guests::Encrypted] {
        let sample_only = tier == Tier::Quick && guests == Guests::Plain;
        let mut add = |place, pages, flags, every_toucher| {
            let table = Table { guests, place, pages, flags, every_toucher, sample_only };
            table.product(dialect, &mut cases);
        };
        match tier {
            Tier::Quick => add(whole(3), 3, &Flags::MODES[..], false),
            Tier::Full => {
                add(whole(3), 3, &Flags::ALL, true);
                add(whole(4), 4, &Flags::MODES, false);
                for place in PLACES {
                    add(place, 3, &Flags::MODES, false);
                }
            }
        }
    }
    cases
}

/// A table of rows: every layout of `pages` pages, every range of them, both directions and all of `flags`; with every
/// toucher, or one that is spread over the rows.
struct Table<'a> {
    guests: Guests,
    place: Place,
    pages: u32,
    flags: &'a [Flags],
    every_toucher: bool,
    /// Whether only the rows with a VM of their own are wanted, which have every pair of values.
    sample_only: bool,
}

/// Columns of a row: the states of three pages, range, direction, mode, toucher, bad call before.
const COLUMNS: usize = 8;
/// The most values that one has.
const VALUES: usize = 6;
/// Which pairs of values of two columns there have been.
type Pairs = [[[[bool; VALUES]; COLUMNS]; VALUES]; COLUMNS];

/// The rows of three pages that run in a VM and with a file of their own: some bugs show only on the first conversion of a
/// file. A row is one of them if it has a pair of values that none before it has.
#[derive(Default)]
struct Sample(Box<Pairs>);

impl Sample {
    fn takes(&mut self, row: [usize; COLUMNS]) -> bool {
        let mut takes = false;
        for (a, left) in row.into_iter().enumerate() {
            for (b, right) in row.into_iter().enumerate().skip(a + 1) {
                takes |= !std::mem::replace(&mut self.0[a][left][b][right], true);
            }
        }
        takes
    }
}

impl Table<'_> {
    fn product(&self, dialect: Dialect, cases: &mut Vec<Case>) {
        let mut sample = Sample::default();
        let pages = u64::from(self.pages);
        let ranges: Vec<Pages> =
            (0..pages).flat_map(|start| (start + 1..=pages).map(move |end| start..end)).collect();
        for number in 0..4usize.pow(self.pages) {
            let layout: Vec<PageState> =
                (0..self.pages).map(|page| PageState::ALL[number / 4usize.pow(page) % 4]).collect();
            for (r, range) in ranges.iter().enumerate() {
                for (d, to) in [Attribute::Shared, Attribute::Private].into_iter().enumerate() {
                    for (f, flags) in self.flags.iter().enumerate() {
                        // Sums of the positions, so that each value meets each value of every other column.
                        let spread = (number + number / 4 + r + 2 * d + f) % Toucher::ALL.len();
                        for (w, who) in Toucher::ALL.into_iter().enumerate() {
                            if !self.every_toucher && w != spread {
                                continue;
                            }
                            let bad = (number + number / 3 + r + d + f + w) % 3;
                            let [p0, p1, p2] = [1, 4, 16].map(|place| number / place % 4);
                            let alone = self.pages == 3
                                && self.place.topic == WHOLE
                                && w == spread
                                && f < Flags::MODES.len()
                                && sample.takes([p0, p1, p2, r, d, f, w, bad]);
                            if self.sample_only && !alone {
                                continue;
                            }
                            let bad_before = [None, Some(Flags::Both), Some(Flags::Unknown)][bad];
                            let row = Row {
                                guests: self.guests,
                                place: self.place,
                                layout: &layout,
                                range: range.clone(),
                                to,
                                flags: *flags,
                                who,
                                bad_before,
                                alone,
                            };
                            cases.push(row.case(dialect));
                        }
                    }
                }
            }
        }
    }
}

impl Row<'_> {
    fn case(&self, dialect: Dialect) -> Case {
        let layout: Vec<&str> = self.layout.iter().map(|page| page.name()).collect();
        let name = format!(
            "{}.{}.{}-{}-{}-{}-{}",
            self.place.topic,
            layout.join("-"),
            self.range.start,
            self.range.end,
            self.to,
            self.flags.name(),
            self.who.name()
        );
        let mut steps = self.setup(dialect);
        if let Some(flags) = self.bad_before {
            steps.push(self.call(flags, Some(Errno::EINVAL)));
        }
        steps.push(match self.flags {
            Flags::Mode(mode) if mode == Mode::Unspecified || dialect.has_content_modes() => {
                step(Action::Convert { pages: self.pages(&self.range), to: self.to, mode })
            }
            flags => self.call(flags, Some(Errno::EINVAL)),
        });
        Case {
            name,
            clauses: self.clauses(dialect),
            fixes: Vec::new(),
            pages: self.place.file_pages,
            audit_end: true,
            // Only files that are small cost more than emptying them.
            file_reused: self.place.topic == WHOLE && !self.alone,
            vm_fresh: self.alone,
            needs: match self.guests {
                Guests::Plain => Vec::new(),
                Guests::Encrypted => {
                    vec![Requirement::Platform(vec![Platform::Snp, Platform::Tdx])]
                }
            },
            steps,
            ..Case::default()
        }
        .canonical()
    }

    /// Brings the pages into their states, touched by whom it shall be.
    fn setup(&self, dialect: Dialect) -> Vec<Step> {
        // What keeps the contents on the way to private, so that a page can be private and touched by the host only.
        let keeps = self.guests == Guests::Plain && dialect.has_content_modes();
        let keep = if keeps { Mode::Preserve } else { Mode::Unspecified };
        let allocated = self.runs(|page| page.allocated);
        let private = self.runs(|page| page.attribute == Attribute::Private);
        let private_allocated =
            self.runs(|page| page.allocated && page.attribute == Attribute::Private);
        let write = |view, letter| move |pages| step(Action::Write { view, pages, letter });
        let convert =
            |mode| move |pages| step(Action::Convert { pages, to: Attribute::Private, mode });
        let mut steps = Vec::new();
        match self.who {
            Toucher::Nobody => {
                steps.extend(allocated.into_iter().map(|pages| step(Action::Allocate(pages))));
                steps.extend(private.into_iter().map(convert(Mode::Unspecified)));
            }
            Toucher::Host => {
                steps.extend(allocated.into_iter().map(write(View::Host, b'A')));
                steps.extend(private.into_iter().map(convert(keep)));
            }
            Toucher::Guest => {
                steps.extend(private.into_iter().map(convert(Mode::Unspecified)));
                steps.extend(allocated.into_iter().map(write(View::Guest, b'A')));
            }
            Toucher::Both => {
                steps.extend(allocated.iter().cloned().map(write(View::Host, b'A')));
                let read = |pages| step(Action::Read { view: View::Guest, pages });
                steps.extend(allocated.into_iter().map(read));
                steps.extend(private.into_iter().map(convert(keep)));
                steps.extend(private_allocated.into_iter().map(write(View::Guest, b'B')));
            }
        }
        steps
    }

    /// The call on the row's range with these flags.
    fn call(&self, flags: Flags, errno: Option<Errno>) -> Step {
        let pages = self.pages(&self.range);
        let call = RawConvert {
            offset: pages.start * PAGE_SIZE,
            size: (pages.end - pages.start) * PAGE_SIZE,
            attributes: self.to.bits(),
            flags: flags.bits(),
            ..RawConvert::default()
        };
        let expect = Some(Returns { any_of: vec![errno], error_page: None });
        Step { expect, ..step(Action::Raw(call)) }
    }

    fn clauses(&self, dialect: Dialect) -> Vec<ClauseId> {
        let encrypted = self.guests == Guests::Encrypted;
        let mut clauses = match (self.flags, self.to) {
            (Flags::Both | Flags::Unknown, _) => {
                vec![ClauseId::ArgumentsFlags, ClauseId::ArgumentsNoEffect]
            }
            (Flags::Mode(Mode::Unspecified), _) => {
                vec![ClauseId::UnspecifiedAccepted, ClauseId::ConvertRange]
            }
            (Flags::Mode(_), _) if !dialect.has_content_modes() => {
                vec![ClauseId::UpstreamNoModes, ClauseId::ArgumentsNoEffect]
            }
            (Flags::Mode(Mode::Preserve), _) if encrypted => {
                vec![ClauseId::ModeRefused, ClauseId::ModeRefusedNoEffect]
            }
            (Flags::Mode(Mode::Zero), Attribute::Private) => {
                vec![
                    ClauseId::ZeroToPrivateRefused,
                    ClauseId::ModeRefused,
                    ClauseId::ModeRefusedNoEffect,
                ]
            }
            (Flags::Mode(Mode::Zero), Attribute::Shared) => {
                vec![ClauseId::ZeroToShared, ClauseId::ZeroWholeRange, ClauseId::ConvertRange]
            }
            (Flags::Mode(Mode::Preserve), Attribute::Private) => {
                vec![
                    ClauseId::PreserveToPrivate,
                    ClauseId::PreserveWholeRange,
                    ClauseId::ConvertRange,
                ]
            }
            (Flags::Mode(Mode::Preserve), Attribute::Shared) => {
                vec![
                    ClauseId::PreserveToShared,
                    ClauseId::PreserveWholeRange,
                    ClauseId::ConvertRange,
                ]
            }
        };
        clauses.extend([ClauseId::ConvertPrecise, ClauseId::ConvertHoles]);
        if encrypted {
            clauses.extend([
                ClauseId::CocoAcceptance,
                ClauseId::CocoConfidential,
                ClauseId::CocoMemoryFault,
            ]);
        }
        clauses
    }

    /// Pages of the file that are these of the layout.
    fn pages(&self, range: &Pages) -> Pages {
        self.place.first + range.start..self.place.first + range.end
    }

    /// Runs of neighbouring pages for which the predicate holds.
    fn runs(&self, predicate: impl Fn(&PageState) -> bool) -> Vec<Pages> {
        let mut runs: Vec<Pages> = Vec::new();
        for (page, _) in self.layout.iter().enumerate().filter(|(_, state)| predicate(state)) {
            let page = self.place.first + page as u64;
            match runs.last_mut().filter(|run| run.end == page) {
                Some(run) => run.end = page + 1,
                None => runs.push(page..page + 1),
            }
        }
        runs
    }
}

fn step(action: Action) -> Step {
    Step { above: Vec::new(), action, expect: None, comment: None, line: 0 }
}

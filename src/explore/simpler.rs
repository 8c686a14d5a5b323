// SPDX-License-Identifier: GPL-2.0-only
//! What is simpler than a history: other histories that say nearly the same.

use crate::case::{
    Action, Attribute, Case, Descriptor, Mode, Pages, Pointer, RawConvert, SlotMap, Step, Toucher,
    View,
};
use crate::uapi::PAGE_SIZE;

/// The pages that a step names, to be read or changed.
macro_rules! range_of {
    ($action:expr) => {
        match $action {
            Action::Write { pages, .. }
            | Action::Read { pages, .. }
            | Action::Expect { pages, .. }
            | Action::Touch { pages, .. }
            | Action::Convert { pages, .. }
            | Action::BystanderConvert { pages, .. }
            | Action::Accept(pages)
            | Action::Rescind(pages)
            | Action::GuestConvert { pages, .. }
            | Action::Launch { pages, .. }
            | Action::Punch(pages)
            | Action::Allocate(pages)
            | Action::Pin(pages)
            | Action::Unpin(pages)
            | Action::SlotMap(SlotMap { pages, .. }) => Some(pages),
            _ => None,
        }
    };
}

/// The page that a step names where it names one only.
macro_rules! page_of {
    ($action:expr) => {
        match $action {
            Action::ConvertByAccess { page, .. } | Action::WrongAlias { page, .. } => Some(page),
            _ => None,
        }
    };
}

/// How much there is to a history. What counts most comes first: the steps, what each says, the pages that they name,
/// the size of the file.
pub(super) type Cost = (usize, u64, u64, u64, bool);

/// How much there is to `case`.
pub(super) fn cost(case: &Case) -> Cost {
    let say = |step: &Step| weight(&step.action) + 5 * u64::from(step.expect.is_some());
    let kinds = case.steps.iter().map(say).sum::<u64>();
    let ranges = case.steps.iter().filter_map(|step| range_of!(&step.action));
    let (mut span, mut place) = (0u64, case.pages);
    for range in ranges {
        span += range.end - range.start;
        place = place.saturating_add(range.start);
    }
    for page in case.steps.iter().filter_map(|step| page_of!(&step.action)) {
        place = place.saturating_add(*page);
    }
    let head = u64::from(case.no_slots) + u64::from(case.userspace_elsewhere);
    (case.steps.len(), kinds + head, span, place, case.start == Attribute::Private)
}

/// How much a step says, its range apart.
fn weight(action: &Action) -> u64 {
    let view = |view: &View| match view {
        View::Host => 0,
        View::Host2 => 50,
        View::Guest => 100,
        View::Child => 200,
    };
    match action {
        Action::Read { view: who, .. } => 400 + view(who),
        Action::Write { view: who, letter, .. } => 700 + view(who) + u64::from(letter - b'A'),
        Action::Expect { view: who, .. } => 500 + view(who),
        Action::Touch { who, .. } => match who {
            Toucher::Nobody => 300,
            Toucher::Host => 401,
            Toucher::Guest => 501,
            Toucher::Both => 900,
        },
        Action::Convert { mode, .. } => match mode {
            Mode::Unspecified => 500,
            Mode::Zero | Mode::Preserve => 501,
        },
        Action::Raw(call) => 600 + raw_weight(call),
        Action::SlotMap(map) => {
            600 + u64::from(map.slot) + if map.at == map.pages.start { 0 } else { 8 }
        }
        // More than the accesses and conversions that do nearly the same.
        Action::WrongAlias { by_write, .. } => 600 + u64::from(*by_write),
        Action::ConvertByAccess { .. } => 610,
        Action::GuestConvert { by_msr, .. } => 620 + u64::from(*by_msr),
        Action::Accept(_) => 630,
        Action::Rescind(_) => 640,
        // What a page holds was put there by something else.
        Action::Launch { from, .. } => 500 + from.map_or(40, |letter| u64::from(letter - b'A')),
        // As much as a conversion.
        _ => 500,
    }
}

/// One for each word that is out of the ordinary, a little more when it is a large one.
fn raw_weight(call: &RawConvert) -> u64 {
    let word = |word: u64| u64::from(word != 0) * 70 + u64::from(64 - word.leading_zeros());
    let aligned = |word: u64| if word.is_multiple_of(PAGE_SIZE) { 0 } else { 1 };
    word(call.offset)
        + word(call.size ^ PAGE_SIZE)
        + aligned(call.offset)
        + aligned(call.size)
        + word(call.attributes ^ RawConvert::default().attributes)
        + word(call.flags)
        + word(call.error_offset)
        + call.reserved.iter().map(|w| word(*w)).sum::<u64>()
        + u64::from(call.pointer != Pointer::Good) * 70
        + u64::from(call.descriptor != Descriptor::GuestMemfd) * 70
}

/// Steps that are nearly `step`, the simplest first. What is expected of it is so of a request or a launch only.
pub(super) fn steps(step: &Step) -> Vec<Step> {
    let is_request =
        |action: &Action| matches!(action, Action::GuestConvert { .. } | Action::Launch { .. });
    let mut simpler: Vec<Step> = actions(&step.action)
        .into_iter()
        .map(|action| {
            let expect = step.expect.clone().filter(|_| is_request(&action));
            Step { action, expect, ..step.clone() }
        })
        .collect();
    if step.expect.is_some() {
        // A part of what a launch refuses may be what it takes.
        let without = simpler.clone().into_iter().filter(|step| step.expect.is_some());
        simpler.extend(without.map(|step| Step { expect: None, ..step }));
        simpler.push(Step { expect: None, ..step.clone() });
    }
    simpler
}

/// Actions that are nearly `action`, the simplest first.
fn actions(action: &Action) -> Vec<Action> {
    let mut simpler = Vec::new();
    if let Some(range) = range_of!(action) {
        for range in shorter(range) {
            let mut action = action.clone();
            if let Some(pages) = range_of!(&mut action) {
                *pages = range;
                simpler.push(action);
            }
        }
    }
    match action.clone() {
        Action::Write { view, pages, letter } => {
            simpler.push(Action::Read { view, pages: pages.clone() });
            for view in views(view) {
                simpler.push(Action::Write { view, pages: pages.clone(), letter });
            }
            simpler.push(Action::Write { view, pages, letter: b'A' });
        }
        Action::Read { view, pages } => {
            simpler.extend(
                views(view).into_iter().map(|view| Action::Read { view, pages: pages.clone() }),
            );
        }
        Action::Expect { view, pages, look } => {
            simpler.push(Action::Read { view, pages: pages.clone() });
            for view in views(view) {
                simpler.push(Action::Expect { view, pages: pages.clone(), look });
            }
        }
        Action::Touch { pages, .. } => {
            for view in [View::Host, View::Guest] {
                simpler.push(Action::Read { view, pages: pages.clone() });
            }
            for who in [Toucher::Host, Toucher::Guest] {
                simpler.push(Action::Touch { who, pages: pages.clone() });
            }
        }
        Action::Convert { pages, to, mode: Mode::Zero | Mode::Preserve } => {
            simpler.push(Action::Convert { pages, to, mode: Mode::Unspecified });
        }
        Action::Raw(call) => raw(&call, &mut simpler),
        Action::SlotMap(map) => {
            simpler.push(Action::SlotMap(SlotMap { at: map.pages.start, ..map.clone() }));
            simpler.push(Action::SlotMap(SlotMap { slot: 0, ..map }));
        }
        Action::Launch { pages, from } if from != Some(b'A') => {
            simpler.push(Action::Launch { pages, from: Some(b'A') });
        }
        Action::Rescind(pages) => simpler.push(Action::Accept(pages)),
        Action::Accept(pages) => simpler.push(Action::Read { view: View::Guest, pages }),
        Action::GuestConvert { pages, to, by_msr } => {
            simpler.push(Action::Convert { pages: pages.clone(), to, mode: Mode::Unspecified });
            if by_msr {
                simpler.push(Action::GuestConvert { pages, to, by_msr: false });
            }
        }
        Action::ConvertByAccess { page, to } => {
            let pages = page..page + 1;
            simpler.push(Action::Convert { pages, to, mode: Mode::Unspecified });
        }
        Action::WrongAlias { page, by_write } => {
            simpler.push(Action::Read { view: View::Guest, pages: page..page + 1 });
            if by_write {
                simpler.push(Action::WrongAlias { page, by_write: false });
            }
        }
        _ => {}
    }
    simpler
}

/// Views that are simpler than `view`.
fn views(view: View) -> Vec<View> {
    match view {
        View::Host => vec![],
        View::Guest | View::Host2 => vec![View::Host],
        View::Child => vec![View::Host, View::Guest],
    }
}

/// Parts of `range`, the shortest first.
fn shorter(range: &Pages) -> Vec<Pages> {
    let Pages { start, end } = *range;
    let length = end - start;
    let mut parts = Vec::new();
    for part in [1, length / 2, length - 1] {
        if part > 0 && part < length {
            parts.push(start..start + part);
            parts.push(end - part..end);
        }
    }
    parts
}

/// Calls with fewer oddities than `call`.
fn raw(call: &RawConvert, simpler: &mut Vec<Action>) {
    if let Some(convert) = as_convert(call) {
        simpler.push(convert);
    }
    let usual = RawConvert::default();
    let mut candidates = vec![
        RawConvert { attributes: usual.attributes, ..call.clone() },
        RawConvert { flags: 0, ..call.clone() },
        RawConvert { error_offset: 0, ..call.clone() },
        RawConvert { pointer: Pointer::Good, ..call.clone() },
        RawConvert { descriptor: Descriptor::GuestMemfd, ..call.clone() },
        RawConvert { offset: 0, ..call.clone() },
        RawConvert { size: PAGE_SIZE, ..call.clone() },
        RawConvert { offset: call.offset / PAGE_SIZE * PAGE_SIZE, ..call.clone() },
        RawConvert { size: call.size / PAGE_SIZE * PAGE_SIZE, ..call.clone() },
    ];
    for index in 0..call.reserved.len() {
        let mut without = call.clone();
        without.reserved[index] = 0;
        candidates.push(without);
    }
    simpler.extend(candidates.into_iter().filter(|c| c != call).map(Action::Raw));
}

/// The statement that makes the same call, if there is one.
fn as_convert(call: &RawConvert) -> Option<Action> {
    let aligned = call.offset.is_multiple_of(PAGE_SIZE) && call.size.is_multiple_of(PAGE_SIZE);
    let pages = call.offset / PAGE_SIZE..call.offset.checked_add(call.size)? / PAGE_SIZE;
    let to = [Attribute::Shared, Attribute::Private]
        .into_iter()
        .find(|a| a.bits() == call.attributes)?;
    let mode = Mode::ALL.into_iter().find(|mode| mode.bits() == call.flags)?;
    let plain = RawConvert {
        offset: call.offset,
        size: call.size,
        attributes: call.attributes,
        flags: call.flags,
        ..RawConvert::default()
    };
    (aligned && plain == *call).then_some(Action::Convert { pages, to, mode })
}

/// Histories with a simpler head.
pub(super) fn with_simpler_head(case: &Case) -> Vec<Case> {
    let mut simpler = Vec::new();
    if case.no_slots {
        // One memslot for everything instead of those that are made first.
        let made = |action: &Action| matches!(action, Action::SlotMap(_));
        let mut steps = case.steps.clone();
        steps.retain(|step| !made(&step.action));
        simpler.push(Case { no_slots: false, steps, ..case.clone() });
        let mut steps = case.steps.clone();
        if let Some(first) = steps.iter().position(|step| made(&step.action)) {
            steps.remove(first);
        }
        simpler.push(Case { no_slots: false, steps, ..case.clone() });
        simpler.push(Case { no_slots: false, ..case.clone() });
    }
    if case.begins_in_launch() {
        let mut steps = case.steps.clone();
        let launches = |action: &Action| matches!(action, Action::Launch { .. } | Action::Finalize);
        steps.retain(|step| !launches(&step.action));
        simpler.push(Case { steps, ..case.clone() });
    }
    if case.userspace_elsewhere {
        simpler.push(Case { userspace_elsewhere: false, ..case.clone() });
    }
    if case.start == Attribute::Private {
        simpler.push(Case { start: Attribute::Shared, ..case.clone() });
    }
    simpler
}

/// Histories whose file lacks some of the pages. Steps move with their pages; those that have none left are gone.
pub(super) fn with_fewer_pages(case: &Case) -> Vec<Case> {
    // Between two places that a step names nothing happens, so such a stretch can go as a whole, or all but one page.
    let ranges = case.steps.iter().filter_map(|step| range_of!(&step.action));
    let raws = case.steps.iter().filter_map(|step| match &step.action {
        Action::Raw(call) => {
            Some(call.offset / PAGE_SIZE..call.offset.wrapping_add(call.size) / PAGE_SIZE)
        }
        _ => None,
    });
    let single = case.steps.iter().filter_map(|step| page_of!(&step.action));
    let single = single.map(|page| *page..page + 1);
    let ranges = ranges.cloned().chain(raws).chain(single);
    let mut places: Vec<u64> = ranges.flat_map(|r| [r.start, r.end]).collect();
    places.extend([0, case.pages]);
    places.retain(|page| *page <= case.pages);
    places.sort_unstable();
    places.dedup();
    let mut simpler = Vec::new();
    for stretch in places.windows(2).rev() {
        let (start, end) = (stretch[0], stretch[1]);
        let length = end - start;
        let mut cuts = vec![length, length - 1, length / 2, 1];
        cuts.retain(|cut| *cut > 0 && *cut < case.pages);
        cuts.dedup();
        simpler.extend(cuts.into_iter().map(|cut| without_pages(case, &(end - cut..end))));
    }
    simpler
}

/// `case` without the pages `gone` of its file.
fn without_pages(case: &Case, gone: &Pages) -> Case {
    let count = gone.end - gone.start;
    let moved = |page: u64| match page {
        page if page <= gone.start => page,
        page if page < gone.end => gone.start,
        page => page - count,
    };
    // Bytes beyond the file stay as far beyond it; those that are nowhere stay there.
    let moved_bytes = |byte: u64| match byte / PAGE_SIZE {
        page if page < case.pages => moved(page) * PAGE_SIZE + byte % PAGE_SIZE,
        page if page < case.pages + 16 => byte - count * PAGE_SIZE,
        _ => byte,
    };
    let mut simpler = Case { pages: case.pages - count, ..case.clone() };
    simpler.steps.retain_mut(|step| {
        if let Action::Raw(call) = &mut step.action {
            let end = call.offset.wrapping_add(call.size);
            call.offset = moved_bytes(call.offset);
            // A size of 0 stays one, and so does one that wraps around.
            call.size = moved_bytes(end).wrapping_sub(call.offset);
        }
        if let Some(page) = page_of!(&mut step.action) {
            let stays = !gone.contains(page);
            *page = moved(*page);
            return stays;
        }
        let Some(pages) = range_of!(&mut step.action) else { return true };
        *pages = moved(pages.start)..moved(pages.end);
        !pages.is_empty()
    });
    simpler
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::parse;

    fn case(pages: u64, steps: &str) -> Case {
        let head = format!("case a.b\nclause memory.same\npages {pages}\nstart shared\n");
        parse("test", &(head + steps)).unwrap().remove(0)
    }

    fn texts(case: &Case) -> Vec<String> {
        case.steps.iter().map(|step| step.text()).collect()
    }

    /// Ranges move with their pages, and a step whose pages are gone is gone.
    #[test]
    fn steps_move_with_their_pages() {
        let case = case(10, "host write 0..2 A\npunch 3..6\nhost read 8..10\npin 4..5\n");
        let less = without_pages(&case, &(4..6));
        assert_eq!(less.pages, 8);
        assert_eq!(texts(&less), ["host    write  0..2 A", "punch   3..4", "host    read   6..8"]);
    }

    /// The oddity of a raw call stays what it is: unaligned, past the end, or wrapping around.
    #[test]
    fn raw_calls_keep_their_oddity() {
        let odd = "raw offset=0x8000 size=0x3000\nraw offset=0x9001 size=0x800\nraw offset=0x1000 size=-0x1000\n\
                   raw offset=1<<62\n";
        let less = without_pages(&case(10, odd), &(2..8));
        let expected = [
            "raw     offset=0x2000 size=0x3000 attributes=private",
            "raw     offset=0x3001 size=0x800 attributes=private",
            "raw     offset=0x1000 size=0xfffffffffffff000 attributes=private",
            "raw     offset=0x4000000000000000 size=0x1000 attributes=private",
        ];
        assert_eq!(texts(&less), expected);
    }

    /// A step about one page moves with it, and is gone with it.
    #[test]
    fn steps_of_one_page_move_with_it() {
        let steps = "guest convert 3..4 private by-access\nguest convert 8..9 private by-access\n\
                     guest wrong-alias 9..10\n";
        let less = without_pages(&case(10, steps), &(2..6));
        assert_eq!(
            texts(&less),
            ["guest   convert 4..5 private by-access", "guest   wrong-alias 5..6"]
        );
        assert!(with_fewer_pages(&case(10, steps)).iter().any(|less| less.pages == 6));
    }

    /// A distant page comes near in one go, whatever lies between.
    #[test]
    fn a_gap_closes_at_once() {
        let case = case(1 << 20, "host write 1048000..1048001 A\n");
        assert!(
            with_fewer_pages(&case).iter().any(|less| { texts(less) == ["host    write  0..1 A"] })
        );
    }

    /// A raw call without an oddity is a conversion.
    #[test]
    fn a_raw_call_without_oddity_is_a_conversion() {
        let case = case(4, "raw offset=0x1000 size=0x2000 attributes=shared flags=preserve\n");
        let first = &actions(&case.steps[0].action)[0];
        assert_eq!(first.to_string(), "convert 1..3 shared preserve");
    }
}

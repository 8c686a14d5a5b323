// SPDX-License-Identifier: GPL-2.0-only
//! From a history that fails to the shortest one that still does: delta debugging over the steps, then over the pages,
//! then over what each step says.

use std::collections::HashSet;

use super::rules::repaired;
use super::simpler;
use crate::case::Case;
use crate::dialect::Dialect;
use crate::platform::Platform;

/// Who runs candidates.
pub(super) trait Judge {
    /// The index of the first candidate that fails as the history did. `None` when none does, or when the time or
    /// patience for more is used up.
    fn first_failure(&mut self, candidates: &[Case]) -> Option<usize>;
}

/// Shrinks `case`, which fails. Every candidate is a valid history.
pub(super) fn shrink(
    case: Case,
    platform: Platform,
    dialect: Dialect,
    judge: &mut dyn Judge,
) -> Case {
    let tried = HashSet::from([case.to_string()]);
    let mut shrinker = Shrinker { case, platform, dialect, judge, tried };
    loop {
        let before = shrinker.case.clone();
        shrinker.drop_steps();
        shrinker.drop_pages();
        shrinker.simplify();
        if shrinker.case == before {
            return shrinker.case;
        }
    }
}

struct Shrinker<'a> {
    /// The simplest history so far that fails.
    case: Case,
    platform: Platform,
    dialect: Dialect,
    judge: &'a mut dyn Judge,
    /// Every candidate so far, as text.
    tried: HashSet<String>,
}

impl Shrinker<'_> {
    /// Leaves out chunks of steps, half of them at first, single ones in the end. What comes last goes first: nothing
    /// depends on it.
    fn drop_steps(&mut self) {
        let mut size = (self.case.steps.len() / 2).max(1);
        loop {
            let mut end = self.case.steps.len();
            while end > 0 {
                let ends: Vec<usize> = (1..=end).rev().step_by(size).collect();
                let candidates = ends.iter().map(|end| {
                    let mut case = self.case.clone();
                    case.steps.drain(end.saturating_sub(size)..*end);
                    case
                });
                let candidates = candidates.collect();
                match self.adopt_first(candidates) {
                    Some(index) => {
                        end = ends[index].saturating_sub(size).min(self.case.steps.len());
                    }
                    None => break,
                }
            }
            if size == 1 {
                return;
            }
            size /= 2;
        }
    }

    /// Takes pages out of the file.
    fn drop_pages(&mut self) {
        while self.adopt_first(simpler::with_fewer_pages(&self.case)).is_some() {}
    }

    /// Makes the head and each step say something simpler.
    fn simplify(&mut self) {
        while self.adopt_first(simpler::with_simpler_head(&self.case)).is_some() {}
        let mut at = 0;
        while at < self.case.steps.len() {
            let mut steps = Vec::new();
            let mut candidates = Vec::new();
            for index in at..self.case.steps.len() {
                for step in simpler::steps(&self.case.steps[index]) {
                    let mut case = self.case.clone();
                    case.steps[index] = step;
                    steps.push(index);
                    candidates.push(case);
                }
            }
            match self.adopt_first(candidates) {
                Some(index) => at = steps[index],
                None => return,
            }
        }
    }

    /// Goes on with the first of `candidates` that is simpler and fails, and says which it is.
    fn adopt_first(&mut self, candidates: Vec<Case>) -> Option<usize> {
        let cost = simpler::cost(&self.case);
        let mut indices = Vec::new();
        let mut new = Vec::new();
        for (index, candidate) in candidates.into_iter().enumerate() {
            let candidate = repaired(self.platform, self.dialect, candidate);
            if !candidate.steps.is_empty()
                && simpler::cost(&candidate) < cost
                && self.tried.insert(candidate.to_string())
            {
                indices.push(index);
                new.push(candidate);
            }
        }
        if new.is_empty() {
            return None;
        }
        let first = self.judge.first_failure(&new)?;
        // Those behind it have not been run.
        for candidate in &new[first + 1..] {
            self.tried.remove(&candidate.to_string());
        }
        self.case = new.swap_remove(first);
        Some(indices[first])
    }
}

#[cfg(test)]
mod tests {
    use super::super::history::{Shape, history};
    use super::super::rules::is_valid;
    use super::*;
    use crate::case::{Action, Attribute, Mode};

    const SHAPE: Shape = Shape {
        platform: Platform::SwProtected,
        dialect: Dialect::RfcV4,
        steps: 60,
        pages: None,
        in_place: false,
    };

    /// Fails whatever `fails` says, and counts.
    struct Asked<F> {
        fails: F,
        runs: usize,
    }

    impl<F: Fn(&Case) -> bool> Judge for Asked<F> {
        fn first_failure(&mut self, candidates: &[Case]) -> Option<usize> {
            for case in candidates {
                assert!(is_valid(SHAPE.platform, SHAPE.dialect, case), "{case}");
            }
            let first = candidates.iter().position(|case| (self.fails)(case));
            self.runs += first.map_or(candidates.len(), |first| first + 1);
            first
        }
    }

    /// A bug that needs a page to be written, pinned and converted with the page beside it: no more than those three
    /// steps remain, with the smallest file and ranges, after a bounded number of runs.
    #[test]
    fn what_does_not_matter_vanishes() {
        let fails = |case: &Case| {
            let mut pinned = None;
            case.steps.iter().any(|step| match &step.action {
                Action::Pin(pages) => {
                    pinned = Some(pages.start);
                    false
                }
                Action::Convert { pages, to: Attribute::Private, .. } => {
                    pages.end - pages.start > 1 && pinned.is_some_and(|p| pages.contains(&p))
                }
                _ => false,
            })
        };
        let mut shrunk = 0;
        for number in 0..200 {
            let case = history(7, number, &SHAPE);
            if !fails(&case) {
                continue;
            }
            let mut judge = Asked { fails, runs: 0 };
            let case = shrink(case, SHAPE.platform, SHAPE.dialect, &mut judge);
            let texts: Vec<String> = case.steps.iter().map(|step| step.text()).collect();
            assert_eq!(texts.len(), 2, "{case}");
            assert_eq!(case.pages, 2, "{case}");
            assert!(texts[1].ends_with("0..2 private unspecified"), "{case}");
            assert!(!case.no_slots && case.start == Attribute::Shared);
            assert!(judge.runs < 500, "{} runs", judge.runs);
            shrunk += 1;
        }
        assert!(shrunk > 50, "only {shrunk} histories fail");
    }

    /// What matters stays: a failure beyond 4 GiB keeps its distance, a mode that is needed its name.
    #[test]
    fn what_matters_stays() {
        let shape = Shape { pages: Some((1 << 20) + 4), ..SHAPE };
        let fails = |case: &Case| {
            case.steps.iter().any(|step| match &step.action {
                Action::Convert { pages, mode: Mode::Zero, .. } => pages.start >= 1 << 20,
                _ => false,
            })
        };
        let case = (0..).map(|number| history(1, number, &shape)).find(fails).unwrap();
        let mut judge = Asked { fails, runs: 0 };
        let case = shrink(case, shape.platform, shape.dialect, &mut judge);
        assert_eq!(case.pages, (1 << 20) + 1);
        let texts: Vec<String> = case.steps.iter().map(|step| step.text()).collect();
        assert_eq!(texts, ["convert 1048576..1048577 shared zero"]);
    }

    /// Nothing that is offered is lost when the judge gives up: the case that failed is returned.
    #[test]
    fn without_a_judge_nothing_changes() {
        struct Never;
        impl Judge for Never {
            fn first_failure(&mut self, _: &[Case]) -> Option<usize> {
                None
            }
        }
        let case = history(1, 1, &SHAPE);
        assert_eq!(shrink(case.clone(), SHAPE.platform, SHAPE.dialect, &mut Never), case);
    }
}

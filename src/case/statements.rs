// SPDX-License-Identifier: GPL-2.0-only
//! The statements of the case language: one row each, and how the rest of its line is read.

use strum::EnumCount;

use super::ast::*;
use super::keys::{fd_statement, raw, raw_launch, slot};
use super::lexer::{Line, ParseError, Word};
use super::mode::Mode;
use super::parser::{attribute, letter, name_of, one_page, pages};
use super::requests::{map_gpa, psc, psc_msr};

/// A statement.
pub struct Statement {
    /// What it is parsed to.
    pub kind: ActionKind,
    /// Its forms, as docs/case-language.md has them. A form begins with a word, or with `VIEW`: the name of a view.
    pub syntax: &'static [&'static str],
    /// Whether it needs a mapping of the guest_memfd. Forms with `VIEW` need one where the view is one.
    needs_mapping: bool,
    /// Reads the line behind the first word. Statements with the same first word have the same.
    parse: fn(&mut Line, Word, &Case) -> Result<Action, ParseError>,
}

/// A row of [`STATEMENTS`] for a statement that needs no mapping.
const fn row(
    kind: ActionKind,
    syntax: &'static [&'static str],
    parse: fn(&mut Line, Word, &Case) -> Result<Action, ParseError>,
) -> Statement {
    Statement { kind, syntax, needs_mapping: false, parse }
}

/// The same for one that needs a mapping.
const fn mapped(
    kind: ActionKind,
    syntax: &'static [&'static str],
    parse: fn(&mut Line, Word, &Case) -> Result<Action, ParseError>,
) -> Statement {
    Statement { kind, syntax, needs_mapping: true, parse }
}

/// Every statement, in the order of [`ActionKind`].
pub const STATEMENTS: [Statement; ActionKind::COUNT] = [
    row(ActionKind::Write, &["VIEW write RANGE A"], access),
    row(ActionKind::Read, &["VIEW read RANGE"], access),
    row(ActionKind::Expect, &["VIEW expect RANGE LOOK"], access),
    row(ActionKind::Touch, &["touch nobody|host|guest|both RANGE"], |line, _, case| {
        let who = name_of(line, &Toucher::ALL, Toucher::name)?;
        Ok(Action::Touch { who, pages: pages(line, case)? })
    }),
    row(
        ActionKind::Convert,
        &["convert RANGE shared|private unspecified|zero|preserve"],
        |line, _, case| {
            let pages = pages(line, case)?;
            let to = attribute(line)?;
            let mode = name_of(line, &Mode::ALL, Mode::name)?;
            Ok(Action::Convert { pages, to, mode })
        },
    ),
    row(ActionKind::Raw, &["raw KEY=VALUE ..."], |line, _, _| raw(line).map(Action::Raw)),
    row(ActionKind::Accept, &["accept RANGE"], |line, _, case| {
        pages(line, case).map(Action::Accept)
    }),
    row(ActionKind::Rescind, &["rescind RANGE"], |line, _, case| {
        pages(line, case).map(Action::Rescind)
    }),
    row(ActionKind::GuestConvert, &["guest convert RANGE shared|private [by-msr]"], guest),
    row(
        ActionKind::Request,
        &[
            "guest psc KEY=VALUE ...",
            "guest psc-msr operation=private|shared|N page=PAGE",
            "guest map-gpa offset=BYTES size=BYTES to=shared|private",
        ],
        guest,
    ),
    row(ActionKind::ConvertByAccess, &["guest convert PAGE.. shared|private by-access"], guest),
    row(ActionKind::Launch, &["launch RANGE A|in-place"], launch),
    row(ActionKind::LaunchRaw, &["launch raw KEY=VALUE ..."], launch),
    row(
        ActionKind::OtherVm,
        &["vm2 slot -> EINVAL", "vm2 move-context|copy-context -> EINVAL"],
        |line, _, _| name_of(line, &OtherVmCall::ALL, OtherVmCall::name).map(Action::OtherVm),
    ),
    row(ActionKind::Finalize, &["finalize"], |_, _, _| Ok(Action::Finalize)),
    row(ActionKind::WrongAlias, &["guest wrong-alias PAGE.. [by-write]"], guest),
    row(
        ActionKind::FileCall,
        &[
            "fd fallocate mode=N offset=BYTES length=BYTES",
            "fd truncate size=BYTES",
            "fd mmap offset=BYTES length=BYTES sharing=shared|private",
            "fd create size=BYTES flags=N",
        ],
        fd,
    ),
    row(ActionKind::FileExpect, &["fd expect RANGE allocated|hole"], fd),
    row(ActionKind::FileReplace, &["fd replace"], fd),
    row(ActionKind::PreFault, &["prefault RANGE"], |line, _, case| {
        pages(line, case).map(Action::PreFault)
    }),
    row(ActionKind::Punch, &["punch RANGE"], |line, _, case| pages(line, case).map(Action::Punch)),
    row(ActionKind::Allocate, &["allocate RANGE"], |line, _, case| {
        pages(line, case).map(Action::Allocate)
    }),
    mapped(ActionKind::Pin, &["pin RANGE"], |line, _, case| pages(line, case).map(Action::Pin)),
    mapped(ActionKind::Unpin, &["unpin RANGE"], |line, _, case| {
        pages(line, case).map(Action::Unpin)
    }),
    row(ActionKind::SlotMap, &["slot N map RANGE at PAGE"], memslot),
    row(ActionKind::SlotRaw, &["slot N raw KEY=VALUE ..."], memslot),
    row(ActionKind::SlotDelete, &["slot N delete"], memslot),
    row(ActionKind::Bystander, &["bystander shared|private"], bystander),
    row(ActionKind::BystanderConvert, &["bystander convert RANGE shared|private"], bystander),
    mapped(ActionKind::Remap, &["remap"], |_, _, _| Ok(Action::Remap)),
    mapped(ActionKind::ChildFork, &["child fork"], child),
    mapped(ActionKind::ChildExit, &["child exit"], child),
    row(ActionKind::Capability, &["capability NAME"], |line, _, _| {
        name_of(line, &Capability::ALL, Capability::name).map(Action::Capability)
    }),
    row(ActionKind::Misbehave, &["misbehave NAME"], |line, _, _| {
        name_of(line, &Misbehaviour::ALL, Misbehaviour::name).map(Action::Misbehave)
    }),
];

// A kind without its row, or a row that is not in its place, does not compile.
const _: () = {
    let mut index = 0;
    while index < STATEMENTS.len() {
        assert!(STATEMENTS[index].kind as usize == index, "a row is not in its place");
        index += 1;
    }
};

impl Statement {
    /// The words that it can begin with.
    fn first_words(&self) -> Vec<&'static str> {
        match self.syntax[0].split(' ').next() {
            Some("VIEW") => View::ALL.iter().map(|view| view.name()).collect(),
            word => word.into_iter().collect(),
        }
    }
}

/// The view with this name.
fn view(word: Word) -> Option<View> {
    View::ALL.into_iter().find(|view| view.name() == word.text)
}

/// Reads a statement.
pub(super) fn action(line: &mut Line, case: &Case) -> Result<Action, ParseError> {
    let first = line.word("a statement")?;
    // For the runner's own tests, and none of anybody else's business.
    let is_public = |word: &&str| *word != "misbehave";
    // `guest` and `child` begin more than what every view does, so their own rows come first.
    let begins = |statement: &&Statement| statement.first_words().contains(&first.text);
    let Some(statement) = STATEMENTS.iter().rev().find(begins) else {
        let mut known: Vec<&str> = STATEMENTS.iter().flat_map(Statement::first_words).collect();
        let mut seen = std::collections::HashSet::new();
        known.retain(|word| is_public(word) && seen.insert(*word));
        let known = known.join(", ");
        let message = format!("expected a statement ({known}), found `{}`", first.text);
        return Err(line.at(first, message));
    };
    if case.no_mmap && (statement.needs_mapping || view(first).is_some_and(View::is_mapping)) {
        let message = format!("`{}` needs a mapping, which `mmap none` rules out", first.text);
        return Err(line.at(first, message));
    }
    (statement.parse)(line, first, case)
}

fn guest(line: &mut Line, first: Word, case: &Case) -> Result<Action, ParseError> {
    if line.take("psc") {
        return psc(line).map(Action::Request);
    }
    if line.take("psc-msr") {
        return psc_msr(line).map(Action::Request);
    }
    if line.take("map-gpa") {
        return map_gpa(line).map(Action::Request);
    }
    if line.take("wrong-alias") {
        let page = one_page(line, case)?;
        return Ok(Action::WrongAlias { page, by_write: line.take("by-write") });
    }
    if !line.take("convert") {
        return access(line, first, case);
    }
    let word = line.peek();
    let pages = pages(line, case)?;
    let to = attribute(line)?;
    match word {
        Some(word) if line.take("by-access") => {
            if pages.end - pages.start != 1 {
                return Err(line.at(word, "expected a range of one page".into()));
            }
            Ok(Action::ConvertByAccess { page: pages.start, to })
        }
        _ => Ok(Action::GuestConvert { pages, to, by_msr: line.take("by-msr") }),
    }
}

fn child(line: &mut Line, first: Word, case: &Case) -> Result<Action, ParseError> {
    if line.take("fork") {
        return Ok(Action::ChildFork);
    }
    if line.take("exit") {
        return Ok(Action::ChildExit);
    }
    access(line, first, case)
}

fn launch(line: &mut Line, _: Word, case: &Case) -> Result<Action, ParseError> {
    if line.take("raw") {
        return raw_launch(line).map(Action::LaunchRaw);
    }
    let pages = pages(line, case)?;
    Ok(Action::Launch { pages, from: launch_source(line)? })
}

fn memslot(line: &mut Line, _: Word, case: &Case) -> Result<Action, ParseError> {
    slot(line, case)
}

fn fd(line: &mut Line, _: Word, case: &Case) -> Result<Action, ParseError> {
    fd_statement(line, case)
}

fn bystander(line: &mut Line, _: Word, case: &Case) -> Result<Action, ParseError> {
    if !line.take("convert") {
        return attribute(line).map(Action::Bystander);
    }
    let pages = pages(line, case)?;
    Ok(Action::BystanderConvert { pages, to: attribute(line)? })
}

/// What a view does, whose name is `first`.
fn access(line: &mut Line, first: Word, case: &Case) -> Result<Action, ParseError> {
    let view = view(first).ok_or_else(|| line.at(first, "expected a view".into()))?;
    let verb = line.word("`write`, `read` or `expect`")?;
    match verb.text {
        "write" => {
            let pages = pages(line, case)?;
            let word = line.word("a pattern: a letter from A to X")?;
            let letter = letter(word).ok_or_else(|| {
                line.at(word, format!("expected a pattern A to X, found `{}`", word.text))
            })?;
            Ok(Action::Write { view, pages, letter })
        }
        "read" => Ok(Action::Read { view, pages: pages(line, case)? }),
        "expect" => {
            let pages = pages(line, case)?;
            let word = line
                .word("a pattern, `zero`, `unwritten`, `fault`, `mmio`, `memory-fault` or `any`")?;
            Ok(Action::Expect { view, pages, look: look(line, word, view)? })
        }
        _ => {
            let message = format!("expected `write`, `read` or `expect`, found `{}`", verb.text);
            Err(line.at(verb, message))
        }
    }
}

fn look(line: &Line, word: Word, view: View) -> Result<Look, ParseError> {
    Ok(match word.text {
        "zero" => Look::Zero,
        "unwritten" => Look::Unwritten,
        "fault" if view != View::Guest => Look::Fault,
        "mmio" if view == View::Guest => Look::Mmio,
        "memory-fault" if view == View::Guest => Look::MemoryFault,
        "any" => Look::Any,
        _ => Look::Pattern(letter(word).ok_or_else(|| {
            let known = match view {
                View::Guest => "A to X, `zero`, `unwritten`, `mmio`, `memory-fault` or `any`",
                View::Host | View::Host2 | View::Child => {
                    "A to X, `zero`, `unwritten`, `fault` or `any`"
                }
            };
            line.at(word, format!("expected {known}, found `{}`", word.text))
        })?),
    })
}

/// What a launch gives pages: a pattern, or what they hold.
fn launch_source(line: &mut Line) -> Result<Option<u8>, ParseError> {
    let word = line.word("`in-place` or a pattern: a letter from A to X")?;
    match word.text {
        "in-place" => Ok(None),
        _ => letter(word).map(Some).ok_or_else(|| {
            line.at(word, format!("expected `in-place` or A to X, found `{}`", word.text))
        }),
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! Text into cases.

use std::borrow::Cow;

use super::ast::*;
use super::lexer::{Line, ParseError, Word};
use super::mode::Mode;
use super::statements;
use crate::dialect::Dialect;
use crate::errno::Errno;
use crate::platform::Platform;

/// The largest guest_memfd that a case may have: 4 TiB, in pages. Patterns number pages with 32 bits, and the guest's
/// page tables have room for a few GiB at a time.
pub(super) const MAX_PAGES: u64 = 1 << 30;

/// How many cases one file may expand to; more is a mistake in an `each`.
const MAX_EXPANSION: usize = 10_000;

/// Parses a case file. `each` lines make one case for every combination of their values, in order.
pub fn parse(file: &str, text: &str) -> Result<Vec<Case>, ParseError> {
    let variables = variables(file, text)?;
    let mut combinations: Vec<Vec<(&str, String)>> = vec![Vec::new()];
    for (name, values) in &variables {
        combinations = combinations
            .iter()
            .flat_map(|c| {
                values.iter().map(move |v| {
                    c.iter().cloned().chain([(name.as_str(), v.clone())]).collect::<Vec<_>>()
                })
            })
            .collect();
    }
    combinations.iter().map(|values| parse_one(file, text, values)).collect()
}

/// The `each` lines of a file: names and values.
fn variables(file: &str, text: &str) -> Result<Vec<(String, Vec<String>)>, ParseError> {
    let mut variables: Vec<(String, Vec<String>)> = Vec::new();
    let mut count = 1usize;
    let lines = text.lines().enumerate().filter(|(_, text)| text.trim_start().starts_with("each"));
    for (index, text) in lines {
        let mut line = Line::new(file, index + 1, text);
        if !line.take("each") {
            continue;
        }
        let name = line.word("a name")?;
        if !name.text.bytes().all(|b| b.is_ascii_lowercase()) {
            return Err(line.at(name, "a name consists of lower-case letters".into()));
        }
        if variables.iter().any(|(n, _)| n == name.text) {
            return Err(line.at(name, format!("`{}` has values already", name.text)));
        }
        if line.take("in") {
            let word = line.word("a range such as 0..11")?;
            let range = range(&line, word)?;
            line.end()?;
            if range.end - range.start > MAX_EXPANSION as u64 {
                return Err(line.at(word, format!("more than {MAX_EXPANSION} values")));
            }
            variables.push((name.text.into(), range.map(|n| n.to_string()).collect()));
        } else {
            let values = line.rest();
            if values.is_empty() {
                return Err(line.expected("values, or `in` and a range"));
            }
            for word in &values {
                // Values made of values could grow without bounds.
                if word.text.contains('$') {
                    return Err(line.at(*word, "a value cannot refer to another".into()));
                }
                if variant_name(word.text).is_empty() {
                    let message = "a value needs a letter or a digit to name its case by";
                    return Err(line.at(*word, message.into()));
                }
            }
            variables.push((name.text.into(), values.iter().map(|w| w.text.to_string()).collect()));
        }
        count = count.saturating_mul(variables.last().map_or(1, |(_, v)| v.len()));
        if count > MAX_EXPANSION {
            return Err(line.at(name, format!("this makes more than {MAX_EXPANSION} cases")));
        }
    }
    Ok(variables)
}

/// Replaces `$name` by its value; a `$` that is left over becomes an error when the word is parsed.
fn substitute<'a>(text: &'a str, values: &[(&str, String)]) -> Cow<'a, str> {
    if !text.contains('$') {
        return text.into();
    }
    // The longest name first, so that `$at` does not eat the beginning of `$attribute`.
    let mut values: Vec<_> = values.iter().collect();
    values.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    let replace =
        |text: String, (name, value): &&(&str, String)| text.replace(&format!("${name}"), value);
    values.iter().fold(text.to_string(), replace).into()
}

fn parse_one(file: &str, text: &str, values: &[(&str, String)]) -> Result<Case, ParseError> {
    let mut case = Case::default();
    let mut started = false;
    let mut above: Vec<String> = Vec::new();
    let mut last = 0;
    for (index, raw) in text.lines().enumerate() {
        last = index + 1;
        let expanded = substitute(raw, values);
        let mut line = Line::new(file, index + 1, &expanded);
        if line.is_empty() {
            if let Some(comment) = line.comment
                && !comment.starts_with("SPDX-License-Identifier")
            {
                above.push(comment.to_string());
            }
            continue;
        }
        if line.peek().is_some_and(|w| w.text == "each") {
            continue;
        }
        if case.name.is_empty() {
            if !line.take("case") {
                return Err(line.expected("`case` and a name"));
            }
            case.about = std::mem::take(&mut above);
            case.name = case_name(&mut line, values)?;
            continue;
        }
        if !header(&mut line, &mut case, &mut started)? {
            if case.pages == 0 {
                return Err(line.expected("`pages` and a number before the first step"));
            }
            if !started {
                return Err(
                    line.expected("`start shared` or `start private` before the first step")
                );
            }
            let step = step(&mut line, &case, std::mem::take(&mut above))?;
            case.steps.push(step);
        } else if !case.steps.is_empty() {
            let word = Word { text: "", at: 0 };
            return Err(line.at(word, "this must stand before the first step".into()));
        }
    }
    let end = Line::new(file, last.max(1), "");
    if case.name.is_empty() {
        return Err(end.expected("`case` and a name"));
    }
    if case.clauses.is_empty() {
        return Err(end.expected("`clause` and the clauses that the case tests"));
    }
    if case.steps.is_empty() {
        return Err(end.expected("a step"));
    }
    Ok(case)
}

fn case_name(line: &mut Line, values: &[(&str, String)]) -> Result<String, ParseError> {
    let word = line.word("a name such as preserve.both-ways")?;
    line.end()?;
    let good = |s: &str| {
        !s.is_empty()
            && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b))
    };
    let parts: Vec<&str> = word.text.split('.').collect();
    if !(2..=3).contains(&parts.len()) || !parts.iter().all(|p| good(p)) {
        let message = "expected topic.name or topic.name.variant in [a-z0-9_-]".to_string();
        return Err(line.at(word, format!("{message}, found `{}`", word.text)));
    }
    let mut name = word.text.to_string();
    let variant: Vec<String> = values.iter().map(|(_, v)| variant_name(v)).collect();
    if !variant.is_empty() {
        name.push(if parts.len() == 2 { '.' } else { '-' });
        name.push_str(&variant.join("-"));
    }
    Ok(name)
}

/// A value of an `each` as a part of a name: `0..4` is `0-4`, `-1` is `minus1`.
fn variant_name(value: &str) -> String {
    let value = match value.strip_prefix('-') {
        Some(rest) => format!("minus{rest}"),
        None => value.to_ascii_lowercase(),
    };
    let words = value.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty());
    words.collect::<Vec<_>>().join("-")
}

/// Parses a header line; false if it is none.
fn header(line: &mut Line, case: &mut Case, started: &mut bool) -> Result<bool, ParseError> {
    let Some(first) = line.peek() else {
        return Ok(false);
    };
    match first.text {
        "case" => return Err(line.at(first, "a file holds one case; its name stands above".into())),
        "clause" => {
            line.word("clause")?;
            let ids = line.rest();
            if ids.is_empty() {
                return Err(line.expected("the ids of clauses"));
            }
            for id in ids {
                let Ok(clause) = id.text.parse() else {
                    let message = format!("`{}` is not a clause of cases/clauses.toml", id.text);
                    return Err(line.at(id, message));
                };
                case.clauses.push(clause);
            }
        }
        "fixes" => {
            line.word("fixes")?;
            let words: Vec<&str> = line.rest().iter().map(|word| word.text).collect();
            if words.is_empty() {
                return Err(line.expected("the commit or the mail that fixed it"));
            }
            case.fixes.push(words.join(" "));
        }
        "pages" => {
            line.word("pages")?;
            let word = line.word("a number of pages")?;
            case.pages = number(line, word)?;
            if case.pages == 0 || case.pages > MAX_PAGES {
                return Err(line.at(word, format!("expected 1 to {MAX_PAGES} pages")));
            }
        }
        "start" => {
            line.word("start")?;
            case.start = attribute(line)?;
            *started = true;
        }
        "needs" => {
            line.word("needs")?;
            let needs = line.rest();
            if needs.is_empty() {
                return Err(line.expected("needs such as mode=preserve or dialect=rfc-v4,rfc-v5"));
            }
            for word in needs {
                case.needs.push(requirement(line, word)?);
            }
        }
        "audit" => case.audit_end = switch(line, "end")?,
        "file" => case.file_reused = switch(line, "reused")?,
        "vm" => case.vm_fresh = switch(line, "fresh")?,
        "mmap" => case.no_mmap = switch(line, "none")?,
        "userspace" => case.userspace_elsewhere = switch(line, "elsewhere")?,
        "slots" => case.no_slots = switch(line, "none")?,
        _ => return Ok(false),
    }
    line.end()?;
    Ok(true)
}

/// A statement of the head that has only one value to be told, which makes it true.
fn switch(line: &mut Line, value: &str) -> Result<bool, ParseError> {
    line.word("a statement")?;
    if !line.take(value) {
        return Err(line.expected(&format!("`{value}`")));
    }
    Ok(true)
}

fn requirement(line: &Line, word: Word) -> Result<Requirement, ParseError> {
    let Some((key, values)) = word.text.split_once('=') else {
        return Err(line.at(word, format!("expected key=value, found `{}`", word.text)));
    };
    let list =
        |known: &dyn Fn(&str) -> bool, what: &str| match values.split(',').find(|v| !known(v)) {
            None => Ok(()),
            Some(bad) => Err(line.at(word, format!("`{bad}` is not {what}"))),
        };
    match key {
        "platform" => {
            list(&|v| Platform::from_name(v).is_some(), "a platform")?;
            Ok(Requirement::Platform(values.split(',').filter_map(Platform::from_name).collect()))
        }
        "dialect" => {
            list(&|v| Dialect::from_name(v).is_some(), "a dialect: rfc-v4, rfc-v5, upstream")?;
            Ok(Requirement::Dialect(values.split(',').filter_map(Dialect::from_name).collect()))
        }
        "capability" => match Capability::ALL.into_iter().find(|c| c.name() == values) {
            Some(capability) => Ok(Requirement::CapabilityNumber(capability)),
            None => {
                let names = Capability::ALL.map(Capability::name).join(", ");
                Err(line.at(word, format!("expected a capability: {names}, found `{values}`")))
            }
        },
        "mode" => match Mode::ALL.into_iter().find(|m| m.name() == values) {
            Some(mode @ (Mode::Zero | Mode::Preserve)) => Ok(Requirement::Mode(mode)),
            _ => {
                Err(line.at(word, format!("expected mode=zero or mode=preserve, found `{values}`")))
            }
        },
        "launch" if values == "in-place" => Ok(Requirement::LaunchInPlace),
        "launch" => Err(line.at(word, format!("expected launch=in-place, found `{values}`"))),
        "call" if values == "pre-fault" => Ok(Requirement::PreFault),
        "call" => Err(line.at(word, format!("expected call=pre-fault, found `{values}`"))),
        _ => {
            let keys = "platform, dialect, mode, capability, launch or call";
            Err(line.at(word, format!("expected {keys}, found `{key}`")))
        }
    }
}

fn step(line: &mut Line, case: &Case, above: Vec<String>) -> Result<Step, ParseError> {
    let action = statements::action(line, case)?;
    let expect = if line.take("->") { Some(returns(line)?) } else { None };
    line.end()?;
    Ok(Step {
        above,
        action,
        expect,
        comment: line.comment.map(str::to_string),
        line: line.number(),
    })
}

/// Y and Z are the executor's own.
pub(super) fn letter(word: Word) -> Option<u8> {
    match word.text.as_bytes() {
        [letter @ b'A'..=b'X'] => Some(*letter),
        _ => None,
    }
}

pub(super) fn attribute(line: &mut Line) -> Result<Attribute, ParseError> {
    name_of(line, &[Attribute::Shared, Attribute::Private], Attribute::name)
}

/// Takes a word that must be the name of one of `all`.
pub(super) fn name_of<T: Copy>(
    line: &mut Line,
    all: &[T],
    name: fn(T) -> &'static str,
) -> Result<T, ParseError> {
    let found = line.peek().and_then(|w| all.iter().find(|t| name(**t) == w.text));
    match found {
        Some(t) => {
            line.word("")?;
            Ok(*t)
        }
        None => {
            let names: Vec<String> = all.iter().map(|t| format!("`{}`", name(*t))).collect();
            Err(line.expected(&names.join(" or ")))
        }
    }
}

fn returns(line: &mut Line) -> Result<Returns, ParseError> {
    let word = line.word("OK or the name of an error, such as EINVAL")?;
    let mut any_of = Vec::new();
    for name in word.text.split('|') {
        any_of.push(match name {
            "OK" => None,
            _ => Some(Errno::from_name(name).ok_or_else(|| {
                line.at(word, format!("expected OK or the name of an error, found `{name}`"))
            })?),
        });
    }
    let mut error_page = None;
    if let Some(word) = line.peek().filter(|w| w.text.starts_with('@')) {
        line.word("")?;
        let page = Word { text: &word.text[1..], at: word.at + 1 };
        error_page = Some(number(line, page)?);
    }
    Ok(Returns { any_of, error_page })
}

/// Takes a range of pages that lies within the file.
pub(super) fn pages(line: &mut Line, case: &Case) -> Result<Pages, ParseError> {
    let word = line.word("a range of pages such as 0..4")?;
    let range = range(line, word)?;
    if range.end > case.pages {
        let message = format!("the range ends at page {}, the case has {}", range.end, case.pages);
        return Err(line.at(word, message));
    }
    Ok(range)
}

/// Takes a range of one page.
pub(super) fn one_page(line: &mut Line, case: &Case) -> Result<u64, ParseError> {
    let word = line.peek();
    let pages = pages(line, case)?;
    match word {
        Some(word) if pages.end - pages.start != 1 => {
            Err(line.at(word, "expected a range of one page: the guest cannot go on".into()))
        }
        _ => Ok(pages.start),
    }
}

pub(super) fn range(line: &Line, word: Word) -> Result<Pages, ParseError> {
    let Some((start, end)) = word.text.split_once("..") else {
        return Err(line.at(word, format!("expected a range such as 0..4, found `{}`", word.text)));
    };
    let end_word = Word { text: end, at: word.at + start.len() + 2 };
    let start = number(line, Word { text: start, at: word.at })?;
    let end = number(line, end_word)?;
    if start >= end {
        return Err(line.at(word, format!("the range {start}..{end} is empty")));
    }
    Ok(start..end)
}

/// A number: decimal or 0x..., with `_` between digits, `A<<B`, or `-A` for its two's complement.
pub(super) fn number(line: &Line, word: Word) -> Result<u64, ParseError> {
    parse_number(word.text).ok_or_else(|| {
        let message = format!("expected a number of at most 64 bits, found `{}`", word.text);
        line.at(word, message)
    })
}

fn parse_number(text: &str) -> Option<u64> {
    match text.strip_prefix('-') {
        Some(rest) => parse_shifted(rest).map(u64::wrapping_neg),
        None => parse_shifted(text),
    }
}

fn parse_shifted(text: &str) -> Option<u64> {
    let Some((value, shift)) = text.split_once("<<") else {
        return parse_digits(text);
    };
    let value = parse_digits(value)?;
    let shift = u32::try_from(parse_digits(shift)?).ok()?;
    // A bit that is shifted out would make another number of it, silently.
    value.checked_shl(shift).filter(|shifted| shifted >> shift == value)
}

fn parse_digits(text: &str) -> Option<u64> {
    let (text, radix) = match text.strip_prefix("0x") {
        Some(hex) => (hex, 16),
        None => (text, 10),
    };
    // from_str_radix would take a sign.
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let text: String = text.chars().filter(|c| *c != '_').collect();
    plain.then(|| u64::from_str_radix(&text, radix).ok()).flatten()
}

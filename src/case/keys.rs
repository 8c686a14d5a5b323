// SPDX-License-Identifier: GPL-2.0-only
//! Statements made of key=value, and memslots.

use super::ast::*;
use super::lexer::{Line, ParseError, Word};
use super::parser::{MAX_PAGES, number, pages};
use crate::uapi::{ATTRIBUTE_PRIVATE, MODE_PRESERVE, MODE_ZERO, PAGE_SIZE};

pub(super) fn slot(line: &mut Line, case: &Case) -> Result<Action, ParseError> {
    let word = line.word("the number of a memslot")?;
    let slot = number(line, word)?;
    let slot = u32::try_from(slot).ok().filter(|s| *s < 8);
    let slot = slot.ok_or_else(|| line.at(word, "expected a memslot from 0 to 7".into()))?;
    if line.take("delete") {
        return Ok(Action::SlotDelete(slot));
    }
    if line.take("raw") {
        return raw_slot(line, slot);
    }
    if !line.take("map") {
        return Err(line.expected("`map`, `raw` or `delete`"));
    }
    let pages = pages(line, case)?;
    let at = if line.take("at") {
        let word = line.word("a page number")?;
        test_page(line, word)?
    } else {
        pages.start
    };
    Ok(Action::SlotMap(SlotMap { slot, pages, at }))
}

/// A word `key=value`, taken apart.
struct Pair<'a> {
    word: Word<'a>,
    key: &'a str,
    value: Word<'a>,
}

/// Hands the words `key=value` up to a result, of which there must be one at least, to `take`.
fn pairs<'a>(
    line: &mut Line<'a>,
    mut take: impl FnMut(&Line<'a>, Pair<'a>) -> Result<(), ParseError>,
) -> Result<(), ParseError> {
    let mut any = false;
    while let Some(word) = line.peek().filter(|w| w.text != "->") {
        line.word("")?;
        any = true;
        let Some((key, value)) = word.text.split_once('=') else {
            return Err(line.at(word, format!("expected key=value, found `{}`", word.text)));
        };
        let value = Word { text: value, at: word.at + key.len() + 1 };
        take(line, Pair { word, key, value })?;
    }
    if any { Ok(()) } else { Err(line.expected("key=value")) }
}

fn raw_slot(line: &mut Line, slot: u32) -> Result<Action, ParseError> {
    let mut raw = RawSlot { slot, offset: 0, size: PAGE_SIZE, at: 0 };
    pairs(line, |line, Pair { word, key, value }| {
        match key {
            "offset" => raw.offset = number(line, value)?,
            "size" => raw.size = number(line, value)?,
            "at" => raw.at = test_page(line, value)?,
            _ => return Err(line.at(word, format!("expected offset, size or at, found `{key}`"))),
        }
        Ok(())
    })?;
    Ok(Action::SlotRaw(raw))
}

/// A page of the test memory.
fn test_page(line: &Line, word: Word) -> Result<u64, ParseError> {
    let page = number(line, word)?;
    if page > MAX_PAGES {
        return Err(line.at(word, format!("expected at most {MAX_PAGES}")));
    }
    Ok(page)
}

pub(super) fn raw(line: &mut Line) -> Result<RawConvert, ParseError> {
    let mut raw = RawConvert::default();
    pairs(line, |line, Pair { word, key, value }| {
        let named =
            |names: &str| line.at(value, format!("expected {names}, found `{}`", value.text));
        match key {
            "offset" => raw.offset = number(line, value)?,
            "size" => raw.size = number(line, value)?,
            "attributes" => {
                raw.attributes = match value.text {
                    "private" => ATTRIBUTE_PRIVATE,
                    "shared" => 0,
                    _ => number(line, value)?,
                }
            }
            "flags" => {
                raw.flags = match value.text {
                    "zero" => MODE_ZERO,
                    "preserve" => MODE_PRESERVE,
                    "zero+preserve" => MODE_ZERO | MODE_PRESERVE,
                    _ => number(line, value)?,
                }
            }
            "error_offset" => raw.error_offset = number(line, value)?,
            "pointer" => {
                raw.pointer = match value.text {
                    "good" => Pointer::Good,
                    "bad" => Pointer::Bad,
                    "read-only" => Pointer::ReadOnly,
                    _ => return Err(named("`good`, `bad` or `read-only`")),
                }
            }
            "fd" => {
                raw.descriptor = match value.text {
                    "guest_memfd" => Descriptor::GuestMemfd,
                    "vm" => Descriptor::Vm,
                    _ => return Err(named("`guest_memfd` or `vm`")),
                }
            }
            _ => {
                let index = key.strip_prefix("reserved").and_then(|n| n.parse::<usize>().ok());
                match index.and_then(|i| raw.reserved.get_mut(i)) {
                    Some(reserved) => *reserved = number(line, value)?,
                    None => {
                        let known = "offset, size, attributes, flags, error_offset, reserved0 to reserved10, \
                                     pointer or fd";
                        return Err(line.at(word, format!("expected {known}, found `{key}`")));
                    }
                }
            }
        }
        Ok(())
    })?;
    Ok(raw)
}

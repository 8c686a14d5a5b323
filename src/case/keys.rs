// SPDX-License-Identifier: GPL-2.0-only
//! Statements made of key=value, and memslots.

use super::ast::*;
use super::lexer::{Line, ParseError, Word};
use super::mode::Mode;
use super::parser::{MAX_PAGES, letter, number, pages};
use crate::uapi::ATTRIBUTE_PRIVATE;
use crate::uapi::sev::{PAGE_TYPE_CPUID, PAGE_TYPE_NORMAL, PAGE_TYPE_UNMEASURED, PAGE_TYPE_ZERO};

pub(super) fn slot(line: &mut Line, case: &Case) -> Result<Action, ParseError> {
    let word = line.word("the number of a memslot")?;
    let slot = number(line, word)?;
    let slot = u32::try_from(slot).map_err(|_| line.at(word, "expected 32 bits".into()))?;
    if line.take("raw") {
        return raw_slot(line, slot);
    }
    if slot >= 8 {
        return Err(line.at(word, "expected a memslot from 0 to 7".into()));
    }
    if line.take("delete") {
        return Ok(Action::SlotDelete(slot));
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
pub(super) struct Pair<'a> {
    pub(super) word: Word<'a>,
    pub(super) key: &'a str,
    pub(super) value: Word<'a>,
}

/// Hands the words `key=value` up to a result, of which there must be one at least, to `take`.
pub(super) fn pairs<'a>(
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
    let mut raw = RawSlot::of(&SlotMap { slot, pages: 0..1, at: 0 });
    pairs(line, |line, Pair { word, key, value }| {
        match key {
            "offset" => raw.offset = number(line, value)?,
            "size" => raw.size = number(line, value)?,
            "at" => raw.at = test_page(line, value)?,
            "flags" => {
                raw.flags = u32::try_from(number(line, value)?)
                    .map_err(|_| line.at(value, "expected 32 bits".into()))?;
            }
            "fd" => {
                raw.file = match value.text {
                    "guest_memfd" => SlotFile::GuestMemfd,
                    "other" => SlotFile::Other,
                    "closed" => SlotFile::Closed,
                    found => {
                        let known = "`guest_memfd`, `other` or `closed`";
                        return Err(line.at(value, format!("expected {known}, found `{found}`")));
                    }
                }
            }
            "call" if value.text == "first" => raw.first_version = true,
            "call" => {
                return Err(line.at(value, format!("expected `first`, found `{}`", value.text)));
            }
            _ => {
                let known = "offset, size, at, flags, fd or call";
                return Err(line.at(word, format!("expected {known}, found `{key}`")));
            }
        }
        Ok(())
    })?;
    Ok(Action::SlotRaw(raw))
}

/// A statement about the guest_memfd's descriptor.
pub(super) fn fd_statement(line: &mut Line, case: &Case) -> Result<Action, ParseError> {
    let verbs = "`expect`, `replace`, `fallocate`, `truncate`, `mmap` or `create`";
    let verb = line.word(verbs)?;
    let call = match verb.text {
        "replace" => return Ok(Action::FileReplace),
        "expect" => {
            let pages = pages(line, case)?;
            let allocated = line.take("allocated");
            if !allocated && !line.take("hole") {
                return Err(line.expected("`allocated` or `hole`"));
            }
            return Ok(Action::FileExpect { pages, allocated });
        }
        "fallocate" => {
            let mut mode = KEEP_SIZE;
            let [offset, length] = numbers(line, ["offset", "length"], |line, key, value| {
                match (key, value.text) {
                    ("mode", "allocate") => mode = KEEP_SIZE,
                    ("mode", "punch") => mode = KEEP_SIZE | PUNCH_HOLE,
                    ("mode", _) => mode = number(line, value)?,
                    _ => return Ok(false),
                }
                Ok(true)
            })?;
            FileCall::Fallocate { mode, offset, length }
        }
        "truncate" => {
            let [size] = numbers(line, ["size"], |_, _, _| Ok(false))?;
            FileCall::Truncate { size }
        }
        "mmap" => {
            let mut private = false;
            let [offset, length] = numbers(line, ["offset", "length"], |line, key, value| {
                match (key, value.text) {
                    ("sharing", "private") => private = true,
                    ("sharing", "shared") => private = false,
                    ("sharing", found) => {
                        let what = format!("expected `private` or `shared`, found `{found}`");
                        return Err(line.at(value, what));
                    }
                    _ => return Ok(false),
                }
                Ok(true)
            })?;
            FileCall::Map { private, offset, length }
        }
        "create" => {
            let [size, flags] = numbers(line, ["size", "flags"], |_, _, _| Ok(false))?;
            FileCall::Create { size, flags }
        }
        found => return Err(line.at(verb, format!("expected {verbs}, found `{found}`"))),
    };
    Ok(Action::FileCall(call))
}

/// `FALLOC_FL_KEEP_SIZE` and `FALLOC_FL_PUNCH_HOLE`, as a case counts bits.
const KEEP_SIZE: u64 = libc::FALLOC_FL_KEEP_SIZE as u64;
const PUNCH_HOLE: u64 = libc::FALLOC_FL_PUNCH_HOLE as u64;

/// Reads `key=value` words with these keys, whose values are numbers and 0 if they are missing; `other` takes the words of
/// another key, and says whether it knows it.
fn numbers<const N: usize>(
    line: &mut Line,
    keys: [&str; N],
    mut other: impl FnMut(&Line, &str, Word) -> Result<bool, ParseError>,
) -> Result<[u64; N], ParseError> {
    let mut values = [0; N];
    pairs(line, |line, Pair { word, key, value }| {
        match keys.iter().position(|known| *known == key) {
            Some(index) => values[index] = number(line, value)?,
            None if other(line, key, value)? => {}
            None => {
                let known = keys.join(" or ");
                return Err(line.at(word, format!("expected {known}, found `{key}`")));
            }
        }
        Ok(())
    })?;
    Ok(values)
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
                raw.flags = match Mode::flags(value.text) {
                    Some(flags) => flags,
                    None => number(line, value)?,
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

/// Types of a launched page that have a name in a case.
pub(super) const PAGE_TYPES: [(&str, u8); 4] = [
    ("normal", PAGE_TYPE_NORMAL),
    ("zero", PAGE_TYPE_ZERO),
    ("unmeasured", PAGE_TYPE_UNMEASURED),
    ("cpuid", PAGE_TYPE_CPUID),
];

pub(super) fn raw_launch(line: &mut Line) -> Result<RawLaunch, ParseError> {
    let mut raw = RawLaunch::default();
    pairs(line, |line, Pair { word, key, value }| {
        let bad = |names: &str| line.at(value, format!("expected {names}, found `{}`", value.text));
        match key {
            "offset" => raw.offset = number(line, value)?,
            "pages" => raw.length = LaunchLength::Pages(number(line, value)?),
            "length" => raw.length = LaunchLength::Bytes(number(line, value)?),
            "source" => {
                raw.source = match value.text {
                    "in-place" => LaunchSource::InPlace,
                    "unaligned" => LaunchSource::Unaligned,
                    _ => LaunchSource::Pattern(
                        letter(value).ok_or_else(|| bad("`in-place`, `unaligned` or A to X"))?,
                    ),
                }
            }
            "mapped" => raw.mapped = Some(number(line, value)?),
            "type" => {
                let named = PAGE_TYPES.into_iter().find(|(name, _)| *name == value.text);
                raw.page_type = match named {
                    Some((_, number)) => number,
                    None => u8::try_from(number(line, value)?).map_err(|_| bad("at most 255"))?,
                }
            }
            "flags" => {
                raw.flags =
                    u32::try_from(number(line, value)?).map_err(|_| bad("at most 32 bits"))?;
            }
            _ => {
                let known = "offset, pages, length, source, mapped, type or flags";
                return Err(line.at(word, format!("expected {known}, found `{key}`")));
            }
        }
        Ok(())
    })?;
    Ok(raw)
}

// SPDX-License-Identifier: GPL-2.0-only
//! Requests of encrypted guests, which are made of key=value.

use std::fmt::{self, Display};

use super::ast::*;
use super::keys::{Pair, pairs};
use super::lexer::{Line, ParseError, Word};
use super::parser::{number, range};
use crate::errno::Errno;

/// The most entries that a list may name: more than fit into the shared buffer.
const MOST_ENTRIES: u64 = 300;

pub(super) fn psc(line: &mut Line) -> Result<GuestRequest, ParseError> {
    let mut list = PscList::default();
    let mut answers = Vec::new();
    pairs(line, |line, Pair { word, key, value }| {
        let small = |number: u64| {
            u16::try_from(number).map_err(|_| line.at(value, "expected at most 16 bits".into()))
        };
        match key {
            "current" => list.current = small(number(line, value)?)?,
            "last" => list.last = Some(small(number(line, value)?)?),
            "scratch" => list.scratch = Some(number(line, value)?),
            "answers" => answers = answer_list(line, value)?,
            _ => {
                let kind = PscKind::ALL.into_iter().find(|kind| kind.name() == key);
                let kind = kind.ok_or_else(|| {
                    let kinds = PscKind::ALL.map(PscKind::name).join(", ");
                    let known = format!("{kinds}, current, last, scratch or answers");
                    line.at(word, format!("expected {known}, found `{key}`"))
                })?;
                let pages = range(line, value)?;
                if (pages.end - pages.start).div_ceil(kind.span()) > MOST_ENTRIES {
                    return Err(line.at(value, format!("more than {MOST_ENTRIES} entries")));
                }
                list.entries.push(PscEntries { kind, pages });
            }
        }
        Ok(())
    })?;
    Ok(GuestRequest { what: Request::List(list), answers })
}

pub(super) fn psc_msr(line: &mut Line) -> Result<GuestRequest, ParseError> {
    let (mut operation, mut page, mut answers) = (1, 0, Vec::new());
    pairs(line, |line, Pair { word, key, value }| {
        match key {
            "operation" => {
                operation = match value.text {
                    "private" => 1,
                    "shared" => 2,
                    _ => number(line, value)?,
                }
            }
            "page" => page = number(line, value)?,
            "answers" => answers = answer_list(line, value)?,
            _ => {
                let known = "operation, page or answers";
                return Err(line.at(word, format!("expected {known}, found `{key}`")));
            }
        }
        Ok(())
    })?;
    Ok(GuestRequest { what: Request::Msr { operation, page }, answers })
}

pub(super) fn map_gpa(line: &mut Line) -> Result<GuestRequest, ParseError> {
    let (mut offset, mut size, mut to) = (0, 0x1000, Attribute::Private);
    let mut answers = Vec::new();
    pairs(line, |line, Pair { word, key, value }| {
        match key {
            "offset" => offset = number(line, value)?,
            "size" => size = number(line, value)?,
            "to" => {
                to = match value.text {
                    "private" => Attribute::Private,
                    "shared" => Attribute::Shared,
                    _ => return Err(line.at(value, "expected `private` or `shared`".into())),
                }
            }
            "answers" => answers = answer_list(line, value)?,
            _ => {
                let known = "offset, size, to or answers";
                return Err(line.at(word, format!("expected {known}, found `{key}`")));
            }
        }
        Ok(())
    })?;
    Ok(GuestRequest { what: Request::MapGpa { offset, size, to }, answers })
}

/// What the host answers, exit by exit. KVM lets it answer an encrypted guest with nothing else.
fn answer_list(line: &Line, word: Word) -> Result<Vec<Option<Errno>>, ParseError> {
    let answer = |name: &str| match name {
        "OK" => Ok(None),
        "EINVAL" => Ok(Some(Errno::EINVAL)),
        "EAGAIN" => Ok(Some(Errno::EAGAIN)),
        _ => Err(line.at(word, format!("expected OK, EINVAL or EAGAIN, found `{name}`"))),
    };
    word.text.split(',').map(answer).collect()
}

impl Display for GuestRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            Request::List(list) => {
                f.write_str("psc")?;
                for PscEntries { kind, pages } in &list.entries {
                    write!(f, " {}={pages:?}", kind.name())?;
                }
                // Something must stand there.
                if list.current != 0 || list.entries.is_empty() {
                    write!(f, " current={}", list.current)?;
                }
                if let Some(last) = list.last {
                    write!(f, " last={last}")?;
                }
                if let Some(scratch) = list.scratch {
                    write!(f, " scratch={scratch:#x}")?;
                }
            }
            Request::Msr { operation, page } => match operation {
                1 => write!(f, "psc-msr operation=private page={page}")?,
                2 => write!(f, "psc-msr operation=shared page={page}")?,
                _ => write!(f, "psc-msr operation={operation} page={page}")?,
            },
            Request::MapGpa { offset, size, to } => {
                write!(f, "map-gpa offset={offset:#x} size={size:#x} to={to}")?;
            }
        }
        if !self.answers.is_empty() {
            let names: Vec<String> =
                self.answers.iter().map(|a| a.map_or("OK".into(), |e| e.to_string())).collect();
            write!(f, " answers={}", names.join(","))?;
        }
        Ok(())
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! The file.

use std::path::Path;

use serde::Deserialize;
use toml::value::Datetime;

use super::error::{EntryError, FileError, WaiverError};
use super::glob::matches;
use crate::clause::ClauseId;
use crate::clock::today;
use crate::dialect::Dialect;
use crate::platform::Platform;
use crate::results::WaiverNote;

/// A known failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiver {
    /// Pattern, reason, link and last day.
    pub note: WaiverNote,
    /// The platform's name, or `*`.
    pub platform: String,
    /// A pattern of `uname -r`.
    pub kernel: String,
    /// The dialect's name, or `*`.
    pub dialect: String,
    /// The only clause that may be broken, if it says one.
    pub clause: Option<ClauseId>,
    /// Whether the suite has a case that it can match.
    pub(super) known: bool,
    /// Whether it is one of the suite's own, which nobody has asked for.
    pub(super) built_in: bool,
}

/// The waivers of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waivers {
    /// In the order of the file.
    pub list: Vec<Waiver>,
    /// Whether something wrong with a waiver fails the run.
    pub strict: bool,
    /// The day of the run, `YYYY-MM-DD`.
    pub today: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WaiverList {
    #[serde(default)]
    waiver: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    reason: String,
    link: String,
    platform: String,
    kernel: String,
    dialect: String,
    expires: Datetime,
    clause: Option<String>,
}

impl Waivers {
    /// Those for bugs that every kernel so far has, `cases/known-bugs.toml`.
    pub fn built_in() -> Result<Waivers, WaiverError> {
        let list = parse(include_str!("../../cases/known-bugs.toml"))
            .map_err(|error| WaiverError::BuiltIn(Box::new(error)))?;
        let list = list.into_iter().map(|waiver| Waiver { built_in: true, ..waiver }).collect();
        Ok(Waivers { list, strict: false, today: today() })
    }

    /// Adds the waivers of `other`, which are tried first.
    pub fn add(&mut self, mut other: Waivers) {
        other.list.append(&mut self.list);
        *self = other;
    }

    /// Reads a file.
    pub fn read(path: &Path, strict: bool) -> Result<Waivers, WaiverError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| WaiverError::Unreadable { path: path.into(), error })?;
        let list = parse(&text)
            .map_err(|error| WaiverError::Wrong { path: path.into(), error: Box::new(error) })?;
        Ok(Waivers { list, strict, today: today() })
    }

    /// Says which ids the suite has, so that a waiver that can match none is found out.
    pub fn check_ids<'a>(&mut self, ids: impl Iterator<Item = &'a str> + Clone) {
        for waiver in &mut self.list {
            waiver.known = ids.clone().any(|id| matches(&waiver.note.id, id));
        }
    }
}

pub(super) fn parse(text: &str) -> Result<Vec<Waiver>, FileError> {
    let file: WaiverList = toml::from_str(text)?;
    file.waiver.into_iter().enumerate().map(|(n, entry)| check(entry, n + 1)).collect()
}

fn check(entry: Entry, number: usize) -> Result<Waiver, FileError> {
    let wrong = |problem| Err(FileError::Entry { number, id: entry.id.clone(), problem });
    let in_id = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.-*".contains(&b);
    if entry.id.is_empty() || !entry.id.bytes().all(in_id) {
        return wrong(EntryError::Id);
    }
    if entry.reason.trim().is_empty() {
        return wrong(EntryError::Reason);
    }
    if !["https://", "http://"].iter().any(|scheme| entry.link.starts_with(scheme)) {
        return wrong(EntryError::Link);
    }
    if entry.platform != "*" && Platform::from_name(&entry.platform).is_none() {
        return wrong(EntryError::Platform(entry.platform.clone()));
    }
    if entry.dialect != "*" && Dialect::from_name(&entry.dialect).is_none() {
        return wrong(EntryError::Dialect(entry.dialect.clone()));
    }
    if entry.kernel.is_empty() {
        return wrong(EntryError::Kernel);
    }
    let clause = match entry.clause.as_deref().map(|id| (id, id.parse())) {
        None => None,
        Some((_, Ok(clause))) => Some(clause),
        Some((id, Err(_))) => return wrong(EntryError::Clause(id.to_string())),
    };
    let expires = match (entry.expires.date, entry.expires.time) {
        (Some(date), None) => date.to_string(),
        _ => return wrong(EntryError::Expires),
    };
    Ok(Waiver {
        note: WaiverNote { id: entry.id, reason: entry.reason, link: entry.link, expires },
        platform: entry.platform,
        kernel: entry.kernel,
        dialect: entry.dialect,
        clause,
        known: true,
        built_in: false,
    })
}

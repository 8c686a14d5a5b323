// SPDX-License-Identifier: GPL-2.0-only
//! A case file to start from.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::commands::Message;
use crate::case;

/// What a new case says and does: it runs as it is, so that each change can be tried.
const TEMPLATE: &str = include_str!("new.case");
/// The name in it.
const NAME: &str = "TOPIC.NAME";

/// Writes the file of a new case and says what to do with it.
pub(super) fn write(name: &str) -> Result<String, Message> {
    let text = TEMPLATE.replace(NAME, name);
    // The parser knows what a name is, and a template that it does not take would be no help.
    let cases = case::parse("the new case", &text)?;
    let library = case::library()?;
    if library.iter().any(|known| cases.iter().any(|new| new.name == known.name)) {
        return Err(format!(
            "there is a case {name} already; `gmem-conform explain {name}` shows it"
        )
        .into());
    }
    let path = path(name);
    let say = |error: std::io::Error| match error.kind() {
        ErrorKind::AlreadyExists => format!("{}: exists already", path.display()),
        _ => format!("{}: {error}", path.display()),
    };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(say)?;
    }
    let mut file = File::create_new(&path).map_err(say)?;
    file.write_all(text.as_bytes()).map_err(say)?;
    Ok(format!(
        "{path}\nrun it with: gmem-conform check {path}\n",
        path = crate::text::word(&path.display().to_string())
    ))
}

/// Where a case belongs.
fn path(name: &str) -> PathBuf {
    let (topic, rest) = name.split_once('.').unwrap_or(("", name));
    let file = format!("{rest}.case");
    match Path::new("cases").is_dir() {
        true => Path::new("cases").join(topic).join(file),
        false => file.into(),
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! Files that reports are written to.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

/// Creates, or empties, the file that `option` names. The error is a sentence that names both.
pub(crate) fn create(option: &str, path: &Path) -> Result<File, String> {
    let say = |what: String| format!("{option} {}: {what}", path.display());
    File::create(path).map_err(|error| match error.kind() {
        ErrorKind::IsADirectory => say("is a directory; name a file in it".to_string()),
        _ => say(format!("cannot be created: {error}")),
    })
}

/// `text` for XML and HTML, without characters that these cannot hold.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            '\n' | '\t' => out.push(c),
            // XML 1.0 has no way to write them.
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {
                out.extend(c.escape_default());
            }
            c => out.push(c),
        }
    }
    out
}

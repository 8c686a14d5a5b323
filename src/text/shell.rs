// SPDX-License-Identifier: GPL-2.0-only
//! Commands that people paste into a shell.

/// `text` as one word of a shell.
pub fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:,@%=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_string();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A command in a report can be pasted into a shell whatever the file is called.
    #[test]
    fn words_are_quoted() {
        assert_eq!(word("cases/a-b.case"), "cases/a-b.case");
        assert_eq!(word("it's $HOME"), "'it'\\''s $HOME'");
        assert_eq!(word(""), "''");
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! Text from workers, kernels and files, made safe for terminals.

/// `text` with everything outside printable ASCII escaped: reports pass through serial consoles and mail.
pub fn ascii(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            ' '..='~' => escaped.push(c),
            _ => escaped.extend(c.escape_default()),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing that a worker or a kernel writes reaches a terminal as a control sequence.
    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(ascii("a\x1b[31mb\tc\u{e9}"), "a\\u{1b}[31mb\\tc\\u{e9}");
    }
}

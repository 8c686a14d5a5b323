// SPDX-License-Identifier: GPL-2.0-only
//! Lines into words, and errors that point at one.

use std::fmt;

/// A broken case file: where, and what was expected there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Path of the file.
    pub file: String,
    /// Line, counted from 1.
    pub line: usize,
    /// Column in bytes, counted from 1.
    pub column: usize,
    /// What was expected and what was found.
    pub message: String,
    /// The line as it was read, after the expansion of `each`.
    pub text: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Control characters of a file that is no case file at all must not reach a terminal.
        let clean = |text: &str| -> String {
            let clean = |c: char| if c.is_control() { ' ' } else { c };
            text.chars().map(clean).collect()
        };
        writeln!(f, "{}:{}:{}: {}", self.file, self.line, self.column, clean(&self.message))?;
        let before = self.text.get(..self.column.saturating_sub(1)).unwrap_or(&self.text);
        writeln!(f, "{:>5} | {}", self.line, clean(&self.text))?;
        write!(f, "      | {}^", before.chars().map(|_| ' ').collect::<String>())
    }
}

impl std::error::Error for ParseError {}

/// A word and the byte that it starts at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word<'a> {
    pub text: &'a str,
    pub at: usize,
}

/// One line: its words, its comment, and a cursor.
pub(super) struct Line<'a> {
    file: &'a str,
    number: usize,
    text: &'a str,
    words: Vec<Word<'a>>,
    next: usize,
    /// The comment without its `#`, if there is one.
    pub comment: Option<&'a str>,
}

impl<'a> Line<'a> {
    pub fn new(file: &'a str, number: usize, text: &'a str) -> Line<'a> {
        // A `#` starts a comment wherever it stands: no word contains one.
        let (code, comment) = match text.find('#') {
            Some(at) => (&text[..at], Some(text[at + 1..].trim())),
            None => (text, None),
        };
        let at = |word: &str| word.as_ptr() as usize - code.as_ptr() as usize;
        let words = code.split_ascii_whitespace().map(|text| Word { text, at: at(text) }).collect();
        Line { file, number, text, words, next: 0, comment }
    }

    pub fn number(&self) -> usize {
        self.number
    }

    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The next word without taking it.
    pub fn peek(&self) -> Option<Word<'a>> {
        self.words.get(self.next).copied()
    }

    /// Takes the next word; `expected` says what should stand there.
    pub fn word(&mut self, expected: &str) -> Result<Word<'a>, ParseError> {
        let word = self.peek().ok_or_else(|| self.expected(expected))?;
        self.next += 1;
        Ok(word)
    }

    /// Takes all words that are left.
    pub fn rest(&mut self) -> Vec<Word<'a>> {
        let rest = self.words[self.next..].to_vec();
        self.next = self.words.len();
        rest
    }

    /// Takes the next word if it is `word`.
    pub fn take(&mut self, word: &str) -> bool {
        let found = self.peek().is_some_and(|w| w.text == word);
        self.next += usize::from(found);
        found
    }

    /// Nothing may be left.
    pub fn end(&self) -> Result<(), ParseError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.expected("the end of the statement")),
        }
    }

    /// An error at the next word, or behind the last.
    pub fn expected(&self, expected: &str) -> ParseError {
        match self.peek() {
            Some(word) => self.at(word, format!("expected {expected}, found `{}`", word.text)),
            None => {
                let end = self.words.last().map_or(0, |w| w.at + w.text.len());
                self.at_byte(end, format!("expected {expected}, found the end of the line"))
            }
        }
    }

    /// An error at `word`.
    pub fn at(&self, word: Word<'_>, message: String) -> ParseError {
        self.at_byte(word.at, message)
    }

    fn at_byte(&self, byte: usize, message: String) -> ParseError {
        ParseError {
            file: self.file.to_string(),
            line: self.number,
            column: byte + 1,
            message,
            text: self.text.to_string(),
        }
    }
}

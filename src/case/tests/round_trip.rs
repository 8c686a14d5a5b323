// SPDX-License-Identifier: GPL-2.0-only
//! Parsing and printing undo each other, and no text breaks the parser.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestCaseError};

use super::strategy;
use crate::case::library::CASES;
use crate::case::{Case, parse};

/// Enough to meet every statement many times; a failure is shrunk and printed, so no file has to remember it.
fn config(cases: u32) -> Config {
    Config { cases, failure_persistence: None, ..Config::default() }
}

/// What is printed parses back to the same case, with the line numbers of the printed text, and prints the same again.
fn check_round_trip(case: &Case) -> Result<(), TestCaseError> {
    let text = case.to_string();
    let back = parse("printed.case", &text);
    let back = back.map_err(|e| TestCaseError::fail(format!("{e}\nin\n{text}")))?;
    prop_assert_eq!(back.as_slice(), &[case.clone().canonical()], "in\n{}", text);
    prop_assert_eq!(back[0].to_string(), text.clone());
    for step in &back[0].steps {
        let line = text.lines().nth(step.line - 1).unwrap_or("no such line");
        prop_assert!(line.starts_with(&step.text()), "line {}: {line}", step.line);
    }
    Ok(())
}

/// The parser refuses a text with an error that lies within it and that a terminal can show, or makes cases of it that
/// survive printing.
fn check_any_text(text: &str) -> Result<(), TestCaseError> {
    let error = match parse("any.case", text) {
        // An `each` may have made thousands of them.
        Ok(cases) => return cases.iter().take(4).try_for_each(check_round_trip),
        Err(error) => error,
    };
    let lines: Vec<&str> = text.lines().collect();
    prop_assert!((1..=lines.len().max(1)).contains(&error.line), "{error}");
    prop_assert!((1..=error.text.len() + 1).contains(&error.column), "{error}");
    if !text.contains('$') && !error.text.is_empty() {
        prop_assert_eq!(&error.text, lines[error.line - 1]);
    }
    let shown = error.to_string();
    let place = format!("any.case:{}:{}: ", error.line, error.column);
    prop_assert!(shown.starts_with(&place), "{shown}");
    prop_assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
    prop_assert_eq!(shown.lines().count(), 3, "{:?}", shown);
    Ok(())
}

/// Words of the language, and words that are almost of it.
const WORDS: [&str; 61] = [
    "fixes",
    "each",
    "in",
    "case",
    "clause",
    "pages",
    "start",
    "needs",
    "slots",
    "none",
    "host",
    "host2",
    "mmap",
    "bystander",
    "size=0x1000",
    "guest",
    "child",
    "write",
    "read",
    "expect",
    "fork",
    "exit",
    "touch",
    "nobody",
    "both",
    "convert",
    "shared",
    "private",
    "unspecified",
    "zero",
    "preserve",
    "raw",
    "offset=0x1000",
    "flags=zero",
    "reserved10=-1",
    "reserved11=1",
    "fd=vm",
    "punch",
    "allocate",
    "pin",
    "slot",
    "map",
    "at",
    "delete",
    "remap",
    "->",
    "EINVAL",
    "OK|EAGAIN",
    "@1",
    "0..4",
    "4..0",
    "0..99",
    "1<<63",
    "1<<64",
    "A",
    "Z",
    "any",
    "$x",
    "#",
    "a.b",
    "fresh.zero",
];

/// A way to damage a text.
#[derive(Clone, Debug)]
enum Damage {
    DeleteWord(Index),
    RepeatWord(Index),
    ReplaceWord(Index, &'static str),
    DeleteByte(Index),
    ReplaceByte(Index, u8),
    InsertChar(Index, char),
    DeleteLine(Index),
    RepeatLine(Index),
    SwapLines(Index, Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    use Damage::*;
    let index = any::<Index>;
    prop_oneof![
        index().prop_map(DeleteWord),
        index().prop_map(RepeatWord),
        (index(), select(WORDS.to_vec())).prop_map(|(at, word)| ReplaceWord(at, word)),
        index().prop_map(DeleteByte),
        (index(), any::<u8>()).prop_map(|(at, byte)| ReplaceByte(at, byte)),
        (index(), any::<char>()).prop_map(|(at, c)| InsertChar(at, c)),
        index().prop_map(DeleteLine),
        index().prop_map(RepeatLine),
        (index(), index()).prop_map(|(a, b)| SwapLines(a, b)),
    ]
}

impl Damage {
    fn apply(&self, text: &str) -> String {
        match self {
            Damage::DeleteWord(at) => {
                edit(text, ' ', |words| drop(words.remove(at.index(words.len()))))
            }
            Damage::RepeatWord(at) => edit(text, ' ', |words| {
                let at = at.index(words.len());
                words.insert(at, words[at].clone());
            }),
            Damage::ReplaceWord(at, word) => edit(text, ' ', |words| {
                let at = at.index(words.len());
                words[at] = (*word).to_string();
            }),
            Damage::DeleteLine(at) => {
                edit(text, '\n', |lines| drop(lines.remove(at.index(lines.len()))))
            }
            Damage::RepeatLine(at) => edit(text, '\n', |lines| {
                let at = at.index(lines.len());
                lines.insert(at, lines[at].clone());
            }),
            Damage::SwapLines(a, b) => edit(text, '\n', |lines| {
                let (a, b) = (a.index(lines.len()), b.index(lines.len()));
                lines.swap(a, b);
            }),
            Damage::DeleteByte(at) => bytes(text, |bytes| {
                if !bytes.is_empty() {
                    bytes.remove(at.index(bytes.len()));
                }
            }),
            Damage::ReplaceByte(at, byte) => bytes(text, |bytes| {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = *byte;
                }
            }),
            Damage::InsertChar(at, c) => {
                let at = at.index(text.chars().count() + 1);
                let (before, after): (String, String) =
                    (text.chars().take(at).collect(), text.chars().skip(at).collect());
                format!("{before}{c}{after}")
            }
        }
    }
}

fn edit(text: &str, separator: char, change: impl FnOnce(&mut Vec<String>)) -> String {
    // Even an empty text has one part.
    let mut parts: Vec<String> = text.split(separator).map(str::to_string).collect();
    change(&mut parts);
    parts.join(&separator.to_string())
}

fn bytes(text: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut bytes = text.as_bytes().to_vec();
    change(&mut bytes);
    // The parser takes text; bytes that are none become U+FFFD, as good a surprise as any.
    String::from_utf8_lossy(&bytes).into_owned()
}

proptest! {
    #![proptest_config(config(200))]

    /// Every case can be mailed: its canonical text is the same case again, and says the same when printed again.
    #[test]
    fn printed_cases_parse_back(case in strategy::case()) {
        check_round_trip(&case)?;
    }

    /// A file that is no case file is an error like any other.
    #[test]
    fn any_text_is_answered(text in "(?s).{0,200}") {
        check_any_text(&text)?;
    }

    /// So is one that consists of the language's words in any order.
    #[test]
    fn any_words_are_answered(
        lines in vec(vec(select(WORDS.to_vec()), 0..6), 0..8),
        headed in any::<bool>(),
    ) {
        let head = "case a.b\nclause fresh.zero\npages 4\nstart shared\n";
        let lines: Vec<String> = lines.iter().map(|words| words.join(" ")).collect();
        check_any_text(&format!("{}{}", if headed { head } else { "" }, lines.join("\n")))?;
    }

    /// And so is a built-in case with a few mistakes.
    #[test]
    fn damaged_cases_are_answered(which in any::<Index>(), damage in vec(damage(), 1..4)) {
        let (_, text) = which.get(CASES);
        let text = damage.iter().fold((*text).to_string(), |text, d| d.apply(&text));
        check_any_text(&text)?;
    }
}

/// A statement may be as long as it likes: neither signs nor shifts nest.
#[test]
fn long_numbers_do_not_exhaust_the_stack() {
    let head = "case a.b\nclause fresh.zero\npages 4\nstart shared\n";
    for number in ["-".repeat(1 << 20) + "1", "1<<".repeat(1 << 18) + "1"] {
        let error = parse("long.case", &format!("{head}raw offset={number}\n"));
        let error = error.expect_err("not a number");
        assert_eq!((error.line, error.column), (5, 12));
    }
}

/// The built-in cases survive printing, too.
#[test]
fn built_in_cases_parse_back() {
    for case in crate::case::library().expect("built-in cases parse") {
        check_round_trip(&case).expect("parses back");
    }
}

/// Canonical text looks the same for everybody: columns, hexadecimal raw arguments without those that are as they would be
/// anyway, comments in one column, and nothing of what `each` was.
#[test]
fn canonical_text() {
    let text = "# SPDX-License-Identifier: GPL-2.0-only\n#  What it is about.\neach x 3\ncase t.n\n\
                clause fresh.zero\npages 8 # few\nstart private\nneeds mode=zero\nneeds dialect=rfc-v5\n\
                slots none\n\n# First.\nslot 1 map 2..$x\nguest   write 2..3 A#said\n\n\
                raw offset=1<<12 size=4096 reserved10=17 flags=zero fd=vm->\n";
    let error = parse("a.case", text).expect_err("the arrow is a word");
    assert_eq!((error.line, error.column), (16, 56));
    let cases = parse("a.case", &text.replace("->", " -> OK|ENOTTY @2")).expect("a good case");
    let want = "# What it is about.\ncase    t.n.3\nclause  fresh.zero\npages   8\nstart   private\n\
                needs   mode=zero dialect=rfc-v5\nslots   none\n\n# First.\nslot    1 map 2..3 at 2\n\
                guest   write  2..3 A                    # said\n\
                raw     offset=0x1000 size=0x1000 attributes=private flags=zero reserved10=0x11 fd=vm -> OK|ENOTTY @2\n";
    assert_eq!(cases[0].to_string(), want);
}

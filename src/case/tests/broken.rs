// SPDX-License-Identifier: GPL-2.0-only
//! What the author of a broken case reads.

use crate::case::parse;

/// Steps behind this header are in line 5.
const HEAD: &str = "case a.b\nclause fresh.zero\npages 4\nstart shared\n";

/// Single broken steps: what is wrong, and the line.
const STEPS: &[(&str, &str)] = &[
    ("unknown statement", "hots write 0..4 A"),
    ("statement in capitals", "Convert 0..4 shared zero"),
    ("no verb", "host"),
    ("unknown verb", "guest wirte 0..4 A"),
    ("no range", "host write"),
    ("no pattern", "host write 0..4"),
    ("bad pattern letter", "host write 0..4 a"),
    ("the executor's own letter", "host write 0..4 Y"),
    ("two letters", "host write 0..4 AB"),
    ("bad range", "host write 0-4 A"),
    ("range without an end", "punch 3.."),
    ("range with three ends", "punch 0..1..2"),
    ("empty range", "punch 2..2"),
    ("reversed range", "punch 3..1"),
    ("range beyond the pages", "punch 3..5"),
    ("bad number", "punch 0x..4"),
    ("signed number", "punch +1..4"),
    ("too large a number", "raw offset=18446744073709551616"),
    ("shift by too much", "raw offset=1<<64"),
    ("shift that loses bits", "raw offset=3<<63"),
    ("two shifts", "raw offset=1<<1<<1"),
    ("two signs", "raw offset=--1"),
    ("guest expects a fault", "guest expect 0..4 fault"),
    ("host expects an MMIO exit", "host expect 0..4 mmio"),
    ("no attribute", "convert 0..4"),
    ("unknown attribute", "convert 0..4 secret zero"),
    ("no mode", "convert 0..4 shared"),
    ("unknown mode", "convert 0..4 shared scramble"),
    ("unknown toucher", "touch somebody 0..4"),
    ("raw without keys", "raw"),
    ("raw without keys but a result", "raw -> EINVAL"),
    ("raw key without a value", "raw offset"),
    ("raw key with an empty value", "raw size="),
    ("unknown raw key", "raw lenght=0x1000"),
    ("a reserved word too many", "raw reserved11=1"),
    ("unknown pointer", "raw pointer=null"),
    ("unknown descriptor", "raw fd=kvm"),
    ("arrow without a result", "punch 0..4 ->"),
    ("unknown errno", "convert 0..4 private zero -> EWHAT"),
    ("unknown errno among known ones", "convert 0..4 private zero -> OK|EAGIAN"),
    ("bad page of error_offset", "convert 0..4 private zero -> EAGAIN @x"),
    ("too many words", "remap now"),
    ("no slot", "slot"),
    ("a slot too many", "slot 8 delete"),
    ("raw slot without keys", "slot 1 raw -> EINVAL"),
    ("unknown key of a raw slot", "slot 1 raw offset=0 length=1"),
    ("raw slot too high up", "slot 1 raw at=1<<31"),
    ("bystander of no kind", "bystander"),
    ("unknown slot verb", "slot 0 destroy"),
    ("slot too high up", "slot 0 map 0..4 at 1<<31"),
    ("unknown capability", "capability kvm-cap-magic"),
    ("unknown misbehaviour", "misbehave politely"),
    ("non-ASCII word", "host schreibe→0..4 A"),
    ("control characters", "host \u{1b}[31mwrite\u{7} 0..4 A"),
    ("value that was never given", "host write $range A"),
    ("header after a step", "remap\npages 8"),
    ("second case", "remap\ncase c.d"),
];

/// Whole files that are broken: what is wrong, and the text.
const FILES: &[(&str, &str)] = &[
    ("empty file", ""),
    ("only comments", "# nothing\n\n# here\n"),
    ("no case line", "pages 4\nstart shared\nremap\n"),
    ("case without a name", "case\n"),
    ("case without a topic", "case name\n"),
    ("name with too many parts", "case a.b.c.d\n"),
    ("name with a bad letter", "case a.B\n"),
    ("name of two words", "case a.b c\n"),
    ("no clause", "case a.b\npages 4\nstart shared\nremap\n"),
    ("empty clause", "case a.b\nclause\n"),
    ("unknown clause", "case a.b\nclause fresh.zero fresh.zeros\n"),
    ("no pages", "case a.b\nclause fresh.zero\nstart shared\nremap\n"),
    ("no number of pages", "case a.b\nclause fresh.zero\npages\n"),
    ("no page at all", "case a.b\nclause fresh.zero\npages 0\n"),
    ("too many pages", "case a.b\nclause fresh.zero\npages 1073741825\n"),
    ("no start", "case a.b\nclause fresh.zero\npages 4\nremap\n"),
    ("unknown start", "case a.b\nstart both\n"),
    ("no steps", "case a.b\nclause fresh.zero\npages 4\nstart shared\n"),
    ("empty needs", "case a.b\nneeds\n"),
    ("need without a value", "case a.b\nneeds luck\n"),
    ("unknown need", "case a.b\nneeds cpu=amd\n"),
    ("unknown platform", "case a.b\nneeds platform=default,sev\n"),
    ("unknown dialect", "case a.b\nneeds dialect=rfc-v1\n"),
    ("need of no mode", "case a.b\nneeds mode=unspecified\n"),
    ("mappings that are some", "case a.b\nmmap some\n"),
    (
        "a view of what cannot be mapped",
        "case a.b\nclause fresh.zero\npages 4\nstart shared\nmmap none\nhost2 read 0..1\n",
    ),
    ("slots that are some", "case a.b\nslots 2\n"),
    ("each without a name", "each\ncase a.b\n"),
    ("each with a bad name", "each X 1 2\ncase a.b\n"),
    ("each without values", "each x\ncase a.b\n"),
    ("each in nothing", "each x in\ncase a.b\n"),
    ("duplicate each", "each x 1 2\neach x 3\ncase a.b\n"),
    ("each in an endless range", "each x in 0..10001\ncase a.b\n"),
    ("too many expansions", "each x in 0..101\neach y in 0..100\ncase a.b\n"),
    ("a value that names another", "each x $y\neach y 1\ncase a.b\n"),
    ("a value that names nothing", "each x 1 ..\ncase a.b\n"),
    (
        "error in an expansion",
        "each x 0..4 0..5\ncase a.b\nclause fresh.zero\npages 4\nstart shared\npunch $x\n",
    ),
];

/// Every mistake is answered with file, line, column, what was expected there and what was found.
#[test]
fn messages() {
    let steps = STEPS.iter().map(|(what, step)| (what, format!("{HEAD}{step}\n")));
    let files = FILES.iter().map(|(what, text)| (what, (*text).to_string()));
    let mut all = String::new();
    for (what, text) in steps.chain(files) {
        match parse("broken.case", &text) {
            Ok(cases) => panic!("{what}: parsed as {cases:?}"),
            Err(error) => all += &format!("# {what}\n{error}\n\n"),
        }
    }
    insta::assert_snapshot!(all);
}

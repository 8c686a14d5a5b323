// SPDX-License-Identifier: GPL-2.0-only
//! The expansion of `each`.

use crate::case::*;

/// Names of the cases that a file with these `each` lines and this name expands to.
fn names(each: &str, name: &str) -> Vec<String> {
    let text = format!("{each}case {name}\nclause fresh.zero\npages 4\nstart shared\nremap\n");
    let cases = parse("each.case", &text).unwrap_or_else(|e| panic!("{e}"));
    cases.into_iter().map(|case| case.name).collect()
}

/// Without `each` a file is one case, by the name that it has.
#[test]
fn nothing_to_expand() {
    assert_eq!(names("", "a.b"), ["a.b"]);
    assert_eq!(names("", "a.b.c"), ["a.b.c"]);
}

/// The variants are named after the values: a third part of the name, or a part of the third.
#[test]
fn names_of_variants() {
    assert_eq!(names("each x zero preserve\n", "a.b"), ["a.b.zero", "a.b.preserve"]);
    assert_eq!(names("each x zero\n", "a.b.c"), ["a.b.c-zero"]);
    assert_eq!(
        names("each x 0..4 -1 -0x1000 1<<63 SHARED zero+preserve host,guest\n", "a.b"),
        [
            "a.b.0-4",
            "a.b.minus1",
            "a.b.minus0x1000",
            "a.b.1-63",
            "a.b.shared",
            "a.b.zero-preserve",
            "a.b.host-guest",
        ]
    );
}

/// Several `each` lines make every combination; the last changes fastest.
#[test]
fn product() {
    assert_eq!(
        names("each x 1 2\neach y a b c\n", "t.n"),
        ["t.n.1-a", "t.n.1-b", "t.n.1-c", "t.n.2-a", "t.n.2-b", "t.n.2-c"]
    );
    assert_eq!(names("each y a b\neach x 1\n", "t.n"), ["t.n.a-1", "t.n.b-1"]);
}

/// `in` is half-open, like every range.
#[test]
fn numbers_in_a_range() {
    assert_eq!(names("each x in 2..5\n", "t.n"), ["t.n.2", "t.n.3", "t.n.4"]);
    assert_eq!(names("each x in 0..10000\n", "t.n").len(), 10_000);
}

/// Values stand wherever their name does: in headers, in statements, within a word, in comments.
#[test]
fn values_are_substituted() {
    let text = "# about $mode\neach mode zero preserve\ncase t.n\nclause fresh.zero\npages 4\n\
                start shared\nneeds mode=$mode\n# for $mode\nconvert 0..4 shared $mode # $mode\n";
    let cases = parse("each.case", text).expect("a good case");
    let case = &cases[1];
    assert_eq!(case.about, ["about preserve"]);
    assert_eq!(case.needs, [Requirement::Mode(Mode::Preserve)]);
    let step = &case.steps[0];
    assert_eq!(step.text(), "convert 0..4 shared preserve");
    assert_eq!(step.above, ["for preserve"]);
    assert_eq!(step.comment.as_deref(), Some("preserve"));
    assert_eq!(step.line, 9);
}

/// A name that begins like another one does not eat its beginning, whichever comes first.
#[test]
fn the_longest_name_wins() {
    for each in ["each at 1\neach attributes 8\n", "each attributes 8\neach at 1\n"] {
        let text = format!(
            "{each}case t.n\nclause fresh.zero\npages 4\nstart shared\n\
             raw offset=$at attributes=$attributes\n"
        );
        let cases = parse("each.case", &text).expect("a good case");
        let Action::Raw(raw) = &cases[0].steps[0].action else {
            panic!("not a raw call: {:?}", cases[0].steps);
        };
        assert_eq!((raw.offset, raw.attributes), (1, 8));
    }
}

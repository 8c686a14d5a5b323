// SPDX-License-Identifier: GPL-2.0-only

use super::file::parse;
use super::glob::matches;
use super::*;
use crate::dialect::Dialect;
use crate::results::*;

const GOOD: &str = r#"
[[waiver]]
id = "sw-protected.zero.*"
reason = "ZERO skips pages that are shared already"
link = "https://lore.kernel.org/kvm/1"
platform = "sw-protected"
kernel = "7.3.*"
dialect = "rfc-v4"
expires = 2027-01-31
"#;

fn waivers(text: &str, today: &str) -> Waivers {
    Waivers { list: parse(text).expect("a good file"), strict: false, today: today.into() }
}

fn environment() -> Environment {
    Environment {
        dialect: Some(Dialect::RfcV4),
        kernel_release: "7.3.4".into(),
        ..Environment::default()
    }
}

fn record(id: &str, verdict: Verdict, clause: &str) -> CaseRecord {
    let failure = Failure { clause: Some(clause.into()), ..Failure::default() };
    CaseRecord { failure: verdict.is_failure().then_some(failure), ..CaseRecord::new(id, verdict) }
}

/// The verdict that a record has under the waivers, and the state of the only waiver then.
fn judged(
    waivers: &Waivers,
    environment: &Environment,
    mut record: CaseRecord,
) -> (Verdict, WaiverState) {
    let mut waiving = Waiving::new(waivers, environment);
    waiving.apply(&mut record);
    (record.verdict, waiving.records()[0].state)
}

/// A star is any text, also none, and everything else is itself.
#[test]
fn globs() {
    for (pattern, text) in
        [("*", ""), ("a*", "a"), ("*c", "abc"), ("a*b*c", "axbxbc"), ("ab", "ab"), ("a*a", "aa")]
    {
        assert!(matches(pattern, text), "{pattern} {text}");
    }
    for (pattern, text) in [("", "a"), ("a*a", "a"), ("a", "ab"), ("*b", "abc"), ("a*b*c", "acb")] {
        assert!(!matches(pattern, text), "{pattern} {text}");
    }
}

/// A waiver lacks nothing that is required, and every mistake in it is named.
#[test]
fn every_field_is_required_and_checked() {
    assert_eq!(parse(GOOD).unwrap().len(), 1);
    assert_eq!(parse("").unwrap().len(), 0);
    for line in GOOD.lines().filter(|line| line.contains('=')) {
        let (name, _) = line.split_once(' ').unwrap();
        let error = parse(&GOOD.replace(line, "")).unwrap_err().to_string();
        assert!(error.contains(&format!("missing field `{name}`")), "{error}");
    }
    for (from, to, message) in [
        ("zero.*", "Zero", "`id` is the id of a case"),
        ("ZERO skips pages that are shared already", " ", "`reason` is empty"),
        ("https://lore.kernel.org/kvm/1", "soon", "`link` is not an http address"),
        ("platform = \"sw-protected\"", "platform = \"sev\"", "`sev` is not a platform"),
        ("rfc-v4", "rfc-v3", "`rfc-v3` is not a dialect"),
        ("7.3.*", "", "`kernel` is a kernel release"),
        ("2027-01-31", "2027-01-31T10:00:00Z", "`expires` is a day"),
        ("2027-01-31", "\"never\"", "expires"),
        ("reason =", "why =", "why"),
        ("expires", "clause = \"no.such\"\nexpires", "`no.such` is not a clause"),
    ] {
        let error = parse(&GOOD.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

/// A failure is waived where pattern, platform, kernel and dialect fit, up to the last day and not after it.
#[test]
fn scope() {
    let failed = || record("sw-protected.zero.holes", Verdict::Fail, "zero.to-shared");
    let good = waivers(GOOD, "2027-01-31");
    let here = environment();
    assert_eq!(judged(&good, &here, failed()), (Verdict::Waived, WaiverState::Used));
    let out = (Verdict::Fail, WaiverState::NotInScope);
    let other_kernel = Environment { kernel_release: "7.4.0".into(), ..environment() };
    assert_eq!(judged(&good, &other_kernel, failed()), out);
    let other_dialect = Environment { dialect: Some(Dialect::RfcV5), ..environment() };
    assert_eq!(judged(&good, &other_dialect, failed()), out);
    let elsewhere = CaseRecord { id: "snp.zero.holes".into(), ..failed() };
    assert_eq!(judged(&good, &here, elsewhere), out);
    let on_model = CaseRecord { id: "model.sw-protected.zero.holes".into(), ..failed() };
    assert_eq!(judged(&good, &here, on_model), out, "the model's ids need a pattern that names it");
    let late = waivers(GOOD, "2027-02-01");
    assert_eq!(judged(&late, &here, failed()), (Verdict::Fail, WaiverState::Expired));
    let any = GOOD
        .replace("\"sw-protected\"", "\"*\"")
        .replace("\"rfc-v4\"", "\"*\"")
        .replace("7.3.*", "*");
    assert_eq!(judged(&waivers(&any, "2027-01-31"), &here, failed()).0, Verdict::Waived);
}

/// A waiver whose cases pass is stale, and so is one that no case can match; one whose cases were skipped is neither.
#[test]
fn stale() {
    let good = waivers(GOOD, "2027-01-01");
    let here = environment();
    let id = "sw-protected.zero.holes";
    assert_eq!(
        judged(&good, &here, record(id, Verdict::Pass, "")),
        (Verdict::Pass, WaiverState::Stale)
    );
    assert_eq!(
        judged(&good, &here, record(id, Verdict::Skip, "")),
        (Verdict::Skip, WaiverState::NotInScope)
    );
    let mut unknown = good.clone();
    unknown.check_ids(["sw-protected.preserve.holes"].into_iter());
    assert_eq!(Waiving::new(&unknown, &here).records()[0].state, WaiverState::Stale);
    unknown.check_ids([id].into_iter());
    assert_eq!(Waiving::new(&unknown, &here).records()[0].state, WaiverState::NotInScope);
}

/// Only a failure of the kernel can be known beforehand, and with a clause only a failure of that clause.
#[test]
fn only_the_kernels_failures() {
    let here = environment();
    let id = "sw-protected.zero.holes";
    let good = waivers(GOOD, "2027-01-01");
    assert_eq!(judged(&good, &here, record(id, Verdict::Timeout, "")).0, Verdict::Waived);
    let mut error = record(id, Verdict::Error, "");
    assert_eq!(judged(&good, &here, error.clone()), (Verdict::Error, WaiverState::Stale));
    error.failure.as_mut().unwrap().blame = Some(Blame::Kernel);
    assert_eq!(judged(&good, &here, error).0, Verdict::Waived);
    let text = GOOD.replace("expires", "clause = \"zero.to-shared\"\nexpires");
    let narrow = waivers(&text, "2027-01-01");
    assert_eq!(
        judged(&narrow, &here, record(id, Verdict::Fail, "zero.to-shared")).0,
        Verdict::Waived
    );
    assert_eq!(judged(&narrow, &here, record(id, Verdict::Fail, "fresh.zero")).0, Verdict::Fail);
}

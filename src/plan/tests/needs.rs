// SPDX-License-Identifier: GPL-2.0-only
//! Where a case is planned, and the slugs of what it lacks there.

use super::*;
use crate::case::Capability;
use crate::plan::{platforms_of, unmet};

use Dialect::{RfcV4, RfcV5, Upstream};
use Platform::{Default, SwProtected};

fn slugs(needs: &str, platform: Platform, environment: &Environment) -> Vec<String> {
    let needs = unmet(&case_that(needs), platform, environment);
    assert!(needs.iter().all(|need| !need.prose.is_empty()));
    needs.into_iter().map(|need| need.slug).collect()
}

/// A case runs on the platforms that it names, and without names where there is private memory.
#[test]
fn platforms() {
    assert_eq!(platforms_of(&case_that("")), [SwProtected]);
    assert_eq!(platforms_of(&case_that("needs mode=zero")), [SwProtected]);
    assert_eq!(platforms_of(&case_that("needs platform=default")), [Default]);
    let both = case_that("needs platform=default,sw-protected");
    assert_eq!(platforms_of(&both), [Default, SwProtected]);
}

/// Whether launch calls do without a source is what asking them has shown.
#[test]
fn slug_of_the_launch() {
    let mut environment = offers_all(Upstream);
    let needs = "needs platform=snp launch=in-place";
    for (answer, slug) in
        [(None, &["no-launch-in-place"][..]), (Some(-22), &["no-launch-in-place"]), (Some(1), &[])]
    {
        environment.capabilities.extend(answer.map(|a| (Platform::Snp.launch_in_place(), a)));
        assert_eq!(slugs(needs, Platform::Snp, &environment), slug, "{answer:?}");
    }
}

/// What a case lacks, for each kind of need in each revision. Slugs are a contract: scripts look for them.
#[test]
fn slugs_by_dialect() {
    let none: [&str; 3] = ["", "", ""];
    let no_modes = ["", "", "no-content-modes"];
    let rows = [
        ("", SwProtected, none),
        ("needs platform=sw-protected", SwProtected, none),
        ("needs mode=preserve", SwProtected, no_modes),
        ("needs mode=zero", SwProtected, no_modes),
        ("needs mode=zero dialect=rfc-v4,rfc-v5", SwProtected, no_modes),
        ("needs dialect=rfc-v4,rfc-v5", SwProtected, no_modes),
        ("needs dialect=rfc-v4", SwProtected, ["", "dialect-rfc-v5", "no-content-modes"]),
        ("needs dialect=rfc-v5", SwProtected, ["dialect-rfc-v4", "", "no-content-modes"]),
        ("needs dialect=upstream", SwProtected, ["dialect-rfc-v4", "dialect-rfc-v5", ""]),
        ("needs dialect=rfc-v4,upstream", SwProtected, ["", "dialect-rfc-v5", ""]),
        (
            "needs platform=default mode=zero",
            Default,
            ["no-mode-zero", "no-mode-zero", "no-content-modes"],
        ),
        (
            "needs platform=default mode=preserve",
            Default,
            ["no-mode-preserve", "no-mode-preserve", "no-content-modes"],
        ),
        ("needs capability=memory-attributes2-flags", SwProtected, ["no-capability-number"; 3]),
    ];
    for (needs, platform, want) in rows {
        for (dialect, want) in [RfcV4, RfcV5, Upstream].into_iter().zip(want) {
            let found = slugs(needs, platform, &offers_all(dialect)).join(" ");
            assert_eq!(found, want, "`{needs}` on {platform} in {dialect}");
        }
    }
}

/// A skip lists every need that is unmet.
#[test]
fn all_unmet_needs_are_listed() {
    let needs = "needs platform=default mode=zero mode=preserve dialect=rfc-v4 \
                 capability=memory-attributes2-flags";
    assert_eq!(
        slugs(needs, Default, &offers_all(RfcV5)),
        ["no-mode-zero", "no-mode-preserve", "dialect-rfc-v5", "no-capability-number"]
    );
}

/// Where the platform is missing its reasons are the case's, and nothing is guessed about the rest.
#[test]
fn missing_platform() {
    let environment = lacks_protected();
    let want = ["no-vm-type-sw-protected", "no-luck"];
    assert_eq!(slugs("", SwProtected, &environment), want);
    assert_eq!(slugs("needs dialect=upstream", SwProtected, &environment), want);
    assert!(slugs("needs platform=default", Default, &environment).is_empty());
    let nothing = Environment::default();
    assert_eq!(slugs("", SwProtected, &nothing), ["unknown-platform"]);
}

/// What a case about the guest_memfd as such lacks on a kernel without in-place conversion: nothing on a default VM, if the
/// kernel lists the flags for a shared file. A case that converts lacks the call.
#[test]
fn without_conversion() {
    let mut environment = offers_all(Dialect::None);
    for platform in &mut environment.platforms {
        platform.missing = vec![Need::new(Need::NO_CONVERSION, "there is no such call")];
    }
    let lacks = |environment: &Environment, platform, steps: &str| {
        let head = "case t.n\nclause fresh.zero\npages 4\nstart shared\n\n";
        let case = case::parse("t.case", &format!("{head}{steps}\n")).expect("a case").remove(0);
        !unmet(&case, platform, environment).is_empty()
    };
    let file_only = "host write 0..4 A\nguest expect 0..4 A\npunch 0..1";
    assert!(lacks(&environment, Default, file_only));
    environment.capabilities.insert("KVM_CAP_GUEST_MEMFD_FLAGS".into(), 3);
    assert!(!lacks(&environment, Default, file_only));
    assert!(lacks(&environment, SwProtected, file_only));
    for step in ["convert 0..1 shared unspecified", "raw size=0", "bystander shared"] {
        assert!(lacks(&environment, Default, step), "{step}");
    }
}

/// With `--kernel-headers` the capability numbers are known, each of its own.
#[test]
fn capability_numbers() {
    let mut environment = offers_all(RfcV5);
    let known = Capability::GuestMemfdMemoryAttributes;
    environment.capabilities.insert(known.constant().to_string(), 8);
    for capability in [known, Capability::MemoryAttributes2Flags] {
        let needs = format!("needs capability={}", capability.name());
        let found = slugs(&needs, SwProtected, &environment);
        assert_eq!(found.is_empty(), capability == known, "{found:?}");
    }
}

/// No built-in case is skipped everywhere: each runs in some revision on each platform that it names.
#[test]
fn every_built_in_case_can_run() {
    let mut environments = Dialect::ALL.map(offers_all);
    for environment in &mut environments {
        for capability in Capability::ALL {
            environment.capabilities.insert(capability.constant().to_string(), 8);
        }
        environment.capabilities.insert("KVM_CAP_PRE_FAULT_MEMORY".into(), 1);
        for platform in Platform::ALL {
            environment.capabilities.insert(platform.launch_in_place(), 1);
        }
    }
    for case in case::library().expect("built-in cases parse") {
        for platform in platforms_of(&case) {
            let runs = environments.iter().any(|e| unmet(&case, platform, e).is_empty());
            assert!(runs, "{} never runs on {platform}", case.name);
        }
    }
}

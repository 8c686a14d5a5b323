// SPDX-License-Identifier: GPL-2.0-only
//! The table, and every scenario on the model, sound and with bugs planted.

use std::collections::BTreeSet;

use super::{Facility, SCENARIOS, Scenario};
use crate::case;
use crate::clause::ClauseId;
use crate::dialect::Dialect;
use crate::machine::MachineConfig;
use crate::machine::model::Fault;
use crate::plan::{self, Selection};
use crate::platform::Platform;
use crate::protocol::CaseOutcome;
use crate::results::{Environment, PlatformState, Verdict};
use crate::worker::Executor;

/// The dialects that have conversions.
const DIALECTS: [Dialect; 3] = [Dialect::RfcV4, Dialect::RfcV5, Dialect::Upstream];

fn run_on_model(
    scenario: &Scenario,
    platform: Platform,
    dialect: Dialect,
    fault: Option<Fault>,
) -> CaseOutcome {
    run(MachineConfig::model(dialect, fault), platform, &scenario.text())
}

fn run(config: MachineConfig, platform: Platform, text: &str) -> CaseOutcome {
    let timeout = std::time::Duration::from_secs(10);
    Executor::new(config).run("id", platform, text, timeout, &mut |_| {})
}

/// Names are ids: `topic.name`, unique, and no case has the same.
#[test]
fn names_are_ids() {
    let cases = case::library().expect("built-in cases parse");
    let mut names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    for Scenario { name, .. } in SCENARIOS {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b);
        assert!(name.bytes().all(good) && name.split('.').count() == 2, "{name}");
        assert!(names.insert(name), "two cases {name}");
    }
}

/// Every scenario says what it is about, and names each of its clauses once.
#[test]
fn clauses_exist() {
    for scenario in SCENARIOS {
        assert!(scenario.about.len() > 100, "{} says too little", scenario.name);
        let named: BTreeSet<&ClauseId> = scenario.clauses.iter().collect();
        assert_eq!(named.len(), scenario.clauses.len(), "{} repeats a clause", scenario.name);
        assert!(!named.is_empty());
    }
}

/// What runs on the model passes there in every dialect; there is something that does.
#[test]
fn sound_model_passes() {
    let mut ran = 0;
    for scenario in SCENARIOS.iter().filter(|scenario| scenario.needs.is_none()) {
        for (platform, dialect) in
            scenario.platforms.iter().flat_map(|p| DIALECTS.map(|dialect| (*p, dialect)))
        {
            let outcome = run_on_model(scenario, platform, dialect, None);
            assert_eq!(
                outcome.verdict,
                Verdict::Pass,
                "{} on {platform} in {dialect}: {:#?}",
                scenario.name,
                outcome.failure
            );
            ran += 1;
        }
    }
    assert!(ran >= 23 * DIALECTS.len());
}

/// Each scenario that runs on the model finds bugs there, and says that their clause is broken, or one that it tests too.
#[test]
fn planted_bugs_are_found() {
    let rows = [
        ("race.guest-access", "preserve-scrambles"),
        ("race.guest-access", "host-faults-private"),
        ("race.host-reads", "host-faults-private"),
        ("race.host-reads", "shared-not-mapped"),
        ("race.first-touch", "fresh-not-zeroed"),
        ("race.host-writes", "host-faults-private"),
        ("race.overlapping", "one-page-too-many"),
        ("race.punch", "punch-resets-attribute"),
        ("race.punch", "punch-keeps-contents"),
        ("pin.vmsplice", "in-use-converted"),
        ("pin.vmsplice", "in-use-offset-is-start"),
        ("pin.vmsplice", "in-use-to-shared"),
        ("pin.vmsplice", "in-use-forever"),
        ("coco.race-overlapping", "one-page-too-many"),
        ("coco.race-overlapping", "stays-usable"),
        ("coco.race-punch", "punch-resets-attribute"),
        ("coco.race-punch", "punch-stays-owned"),
        ("coco.race-host-writes", "host-faults-private"),
        ("coco.race-neighbours", "request-direction-inverted"),
        ("coco.race-neighbours", "host-faults-private"),
        ("coco.race-shared-access", "host-faults-private"),
        ("coco.race-vcpus", "request-direction-inverted"),
        ("coco.race-vcpus", "host-faults-private"),
        ("coco.race-same-pages", "accepted-again"),
        ("coco.race-same-pages", "host-faults-private"),
        ("coco.race-accept-punch", "punch-resets-attribute"),
        ("coco.race-accept-punch", "punch-stays-owned"),
    ];
    for (name, fault) in rows {
        let scenario = Scenario::named(name).expect("a scenario");
        let platform = scenario.platforms[0];
        let planted = Fault::from_name(fault).expect("a planted bug");
        let outcome = run_on_model(scenario, platform, Dialect::RfcV5, Some(planted));
        assert_eq!(outcome.verdict, Verdict::Fail, "{name} with {fault}: {:?}", outcome.failure);
        let failure = outcome.failure.expect("a failure has a reason");
        let clause = failure.clause.and_then(|id| id.parse().ok()).expect("a clause was broken");
        assert!(scenario.clauses.contains(&clause), "{name} with {fault} blames {clause}");
        assert_eq!(failure.statement, Some(format!("scenario {name}")));
    }
}

/// A liberty of a kernel is no failure.
#[test]
fn liberties_pass() {
    let run = |fault: &Fault| {
        for scenario in SCENARIOS.iter().filter(|scenario| scenario.needs.is_none()) {
            let (name, fault_name) = (scenario.name, fault.name());
            for platform in scenario.platforms {
                let dialect = fault.dialects()[0];
                let outcome = run_on_model(scenario, *platform, dialect, Some(*fault));
                let failure = outcome.failure;
                let on = format!("{name} on {platform} with {fault_name}");
                assert_eq!(outcome.verdict, Verdict::Pass, "{on}: {failure:#?}");
            }
        }
    };
    // Most of their time is waiting for each other.
    std::thread::scope(|scope| {
        for fault in Fault::BENIGN {
            scope.spawn(move || run(fault));
        }
    });
}

/// A scenario is planned like a case: its id selects it, what it needs is a skip, and `explain` shows it.
#[test]
fn scenarios_are_planned() {
    let config = MachineConfig { dialect: None, ..MachineConfig::model(Dialect::RfcV5, None) };
    let state = |p: Platform| PlatformState { name: p.name().into(), missing: Vec::new() };
    let environment = Environment {
        dialect: Some(Dialect::RfcV5),
        platforms: Platform::ALL.map(state).to_vec(),
        ..Environment::default()
    };
    for (scenario, platform) in
        SCENARIOS.iter().flat_map(|scenario| scenario.platforms.iter().map(move |p| (scenario, p)))
    {
        let id = format!("model.{platform}.{}", scenario.name);
        let selection =
            Selection { filters: vec![id.clone()], exact: true, ..Selection::default() };
        let plan = plan::build(&config, &environment, &selection).expect("it is planned");
        let [case] = plan.as_slice() else { panic!("{id} selects {}", plan.len()) };
        assert_eq!((case.id.as_str(), &case.text), (id.as_str(), &scenario.text()));
        assert_eq!(case.unmet.is_empty(), scenario.needs.is_none(), "{id}: {:?}", case.unmet);
        for name in [scenario.name, &id] {
            let text = plan::explain(name).expect("it is known");
            assert!(
                text.contains(&scenario.text()) && text.contains(scenario.clauses[0].name()),
                "{text}"
            );
        }
    }
    let near = plan::explain("race.gest-access").expect_err("a typing error").to_string();
    assert!(near.contains("sw-protected.race.guest-access"), "{near}");
}

/// A job that names no scenario is an error of the suite, not a pass.
#[test]
fn unknown_names_are_errors() {
    let config = MachineConfig::model(Dialect::RfcV4, None);
    let outcome = run(config, Platform::SwProtected, "scenario no.such\n");
    assert_eq!(outcome.verdict, Verdict::Error);
    assert_eq!(outcome.failure.unwrap().summary, "there is no scenario `no.such`");
}

/// What a kernel cannot do is a skip with the reason that the probe found, and so is what makes no sense on the model.
#[test]
fn facilities_are_needs() {
    for facility in Facility::ALL {
        let mut environment = Environment::default();
        let model = facility.unmet(&environment).expect("the model has none");
        assert!(model.prose.contains("model"), "{}", model.prose);
        environment.capabilities.insert(facility.name().into(), -i64::from(libc::EPERM));
        let refused = facility.unmet(&environment).expect("refused");
        assert_eq!(refused.slug, model.slug);
        assert!(refused.prose.contains("EPERM"), "{}", refused.prose);
        environment.capabilities.insert(facility.name().into(), 1);
        assert_eq!(facility.unmet(&environment), None);
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! Tests of what is made of trials.

use serde_json::json;

use super::record::words;
use super::*;
use crate::case::{Attribute, Mode};
use crate::measured::{Backing, Head, History, PageSight, Phase, Seen, Spot, Trial, spots};
use crate::platform::Platform;
use crate::protocol::WorkerError;
use crate::results::Environment;
use crate::tests::schema;

const FILE: &str = "observe-schema.json";

/// The committed schema is the one that the types give.
#[test]
fn schema_is_current() {
    let title = "One line of what gmem-conform observe writes";
    schema::is_current(FILE, title, schemars::schema_for!(ObserveRecord));
}

fn spot() -> Spot {
    Spot {
        platform: Platform::SwProtected,
        phase: Phase::Running,
        from: Attribute::Private,
        to: Attribute::Shared,
        mode: Mode::Zero,
        backing: Backing::Allocated,
        history: History::Converted,
    }
}

/// A trial in which both views find `seen`, with these bytes.
fn trial(seen: Seen, fingerprint: u64) -> Result<Trial, WorkerError> {
    let page = PageSight { seen, fingerprint };
    Ok(Trial { conversion: "success".into(), host: vec![page.clone()], guest: vec![page] })
}

/// What happens always reads otherwise than what happens sometimes, and a situation that could not be looked at once is not
/// lost among those that could.
#[test]
fn always_is_told_from_sometimes() {
    let always = SpotRecord::new(spot(), &[trial(Seen::Zeros, 0), trial(Seen::Zeros, 0)]);
    assert_eq!(words(&always.host), "zeros");
    let failed = Err(WorkerError("write the pages from the guest: hang".into()));
    let trials = [trial(Seen::Kept, 0), trial(Seen::Zeros, 0), trial(Seen::Zeros, 0), failed];
    let sometimes = SpotRecord::new(spot(), &trials);
    assert_eq!(words(&sometimes.guest), "zeros 2/3; kept 1/3");
    assert_eq!(words(&sometimes.conversion), "success");
    assert_eq!(words(&sometimes.errors), "write the pages from the guest: hang");
}

/// Ciphertext of the same plaintext that is the same each time is told from random bytes; one look says neither.
#[test]
fn ciphertext_is_compared_with_itself() {
    let cipher = |print| trial(Seen::CiphertextLike, print);
    let seen = |trials: &[Result<Trial, WorkerError>]| words(&SpotRecord::new(spot(), trials).host);
    assert_eq!(seen(&[cipher(1)]), "ciphertext-like");
    assert_eq!(seen(&[cipher(1), cipher(1)]), "ciphertext-like, the same each time");
    assert_eq!(
        seen(&[cipher(1), cipher(1), trial(Seen::Kept, 3), cipher(2)]),
        "ciphertext-like, different each time 3/4; kept 1/4"
    );
}

/// A record of every kind is valid by the schema, and comes back as it was written; what is no record is not valid.
#[test]
fn records_are_valid() {
    let head = Head::new(OBSERVE_SCHEMA_VERSION, vec!["observe".into()], Environment::default(), 8);
    let stopped = trial(Seen::NoAccess("KVM_EXIT_MMIO".into()), 0);
    let trials = [
        stopped,
        trial(Seen::CiphertextLike, 1),
        trial(Seen::CiphertextLike, 2),
        Err(WorkerError("x".into())),
    ];
    let observation = ObserveRecord::Observation(SpotRecord::new(spot(), &trials));
    let records = [
        ObserveRecord::Observe(Box::new(head)),
        observation.clone(),
        ObserveRecord::Summary(ObserveSummary::default()),
    ];
    for record in records {
        let value = serde_json::to_value(&record).unwrap();
        schema::is_valid(FILE, &value).unwrap_or_else(|error| panic!("{record:?}: {error}"));
        assert_eq!(serde_json::from_value::<ObserveRecord>(value).unwrap(), record);
    }
    let mut bad = serde_json::to_value(observation).unwrap();
    bad["backing"] = json!("borrowed");
    assert!(schema::is_valid(FILE, &bad).is_err());
}

/// Every situation is there once, a private page is never one that the host has written to, and a VM without private
/// memory has none.
#[test]
fn situations_are_possible() {
    for platform in Platform::ALL {
        let spots = spots(platform);
        for (number, spot) in spots.iter().enumerate() {
            assert!(!spots[..number].contains(spot), "{spot:?} is there twice");
            assert!(spot.from == Attribute::Shared || platform.has_private_memory());
            assert!(spot.from == Attribute::Shared || spot.history != History::HostWritten);
        }
    }
}

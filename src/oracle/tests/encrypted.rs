// SPDX-License-Identifier: GPL-2.0-only
//! Which pages an encrypted guest has accepted, what a launch does to them, and what the host must never read.

use super::*;
use crate::clause::ClauseId;
use Attribute::{Private, Shared};
use Dialect::{RfcV4, RfcV5, Upstream};
use Platform::{Snp, Tdx};

const TAG: u64 = (b'A' as u64) << 56;
const OTHER: u64 = (b'B' as u64) << 56;
const ENCRYPTED: [Platform; 2] = [Snp, Tdx];

/// A guest that runs, with private pages of which it has accepted all.
fn accepted(platform: Platform, dialect: Dialect) -> Oracle {
    let mut oracle = fresh(platform, dialect, Private, 4);
    (0..4).for_each(|page| oracle.accept(page));
    oracle
}

/// A guest whose launch is not finished.
fn launching(platform: Platform, start: Attribute) -> Oracle {
    let mut oracle = fresh(platform, RfcV5, start, 4);
    oracle.launched = false;
    oracle
}

/// Whether the guest has accepted a page, must do so before it uses it, and may find that it had done so.
fn acceptance(oracle: &Oracle, page: u64) -> (bool, bool, bool) {
    (oracle.is_accepted(page), oracle.must_be_accepted(page), oracle.may_be_accepted(page))
}

const ACCEPTED: (bool, bool, bool) = (true, false, false);
const NOT_ACCEPTED: (bool, bool, bool) = (false, true, false);
const PERHAPS: (bool, bool, bool) = (false, true, true);
const SHARED: (bool, bool, bool) = (false, false, false);

/// A private page is accepted once, and again after it was given up or shared. What is found there then: zeros on TDX,
/// anything on SNP.
#[test]
fn accepting() {
    for (platform, content, clause) in [
        (Snp, Content::Unknown, ClauseId::UnspecifiedStable),
        (Tdx, Content::Zero, ClauseId::CocoAcceptedZero),
    ] {
        let mut oracle = fresh(platform, RfcV5, Private, 4);
        assert_eq!(acceptance(&oracle, 1), NOT_ACCEPTED);
        assert_eq!(oracle.content(1), content);
        oracle.accept(1);
        assert_eq!(acceptance(&oracle, 1), ACCEPTED);
        assert_eq!(acceptance(&oracle, 2), NOT_ACCEPTED);
        assert_eq!((oracle.content(1), oracle.content_clause(1)), (content, clause));
        oracle.write(1, TAG);
        assert_eq!(oracle.content(1), Content::Pattern(TAG));
        oracle.rescind(1);
        assert_eq!(acceptance(&oracle, 1), NOT_ACCEPTED);
        oracle.accept(1);
        convert(&mut oracle, 0..2, Shared, Mode::Unspecified);
        assert_eq!(acceptance(&oracle, 1), SHARED);
        convert(&mut oracle, 0..2, Private, Mode::Unspecified);
        assert_eq!(acceptance(&oracle, 1), NOT_ACCEPTED);
        oracle.lose_guest();
        assert_eq!(acceptance(&oracle, 1), SHARED);
    }
}

/// Nobody accepts pages where memory is not encrypted.
#[test]
fn nothing_to_accept() {
    let oracle = fresh(Platform::SwProtected, RfcV5, Private, 4);
    assert_eq!(acceptance(&oracle, 1), SHARED);
}

/// A conversion to private leaves alone what is private already, as the queued revision was made to; of the others nobody
/// knows whether the page is still accepted, and nothing is promised of what it holds.
#[test]
fn private_already() {
    for platform in ENCRYPTED {
        for dialect in Dialect::ALL {
            let mut oracle = accepted(platform, dialect);
            oracle.write(1, TAG);
            oracle.write(3, TAG);
            convert(&mut oracle, 0..2, Private, Mode::Unspecified);
            let (state, content, clause) = match dialect {
                Upstream => (ACCEPTED, Content::Pattern(TAG), ClauseId::CocoMixedRange),
                _ => (PERHAPS, Content::Unknown, ClauseId::UnspecifiedStable),
            };
            assert_eq!(acceptance(&oracle, 1), state, "{platform} {dialect}");
            assert_eq!((oracle.content(1), oracle.content_clause(1)), (content, clause));
            assert_eq!(acceptance(&oracle, 3), ACCEPTED, "{platform} {dialect}");
            assert_eq!(oracle.content(3), Content::Pattern(TAG));
        }
    }
}

/// Accepting a page that may have been accepted tells that it is now, and nothing of what it holds.
#[test]
fn perhaps_accepted() {
    for platform in ENCRYPTED {
        let mut oracle = accepted(platform, RfcV4);
        convert(&mut oracle, 0..4, Private, Mode::Unspecified);
        oracle.accept(1);
        assert_eq!(acceptance(&oracle, 1), ACCEPTED);
        assert_eq!(oracle.content(1), Content::Unknown);
        convert(&mut oracle, 2..3, Shared, Mode::Unspecified);
        assert_eq!(acceptance(&oracle, 2), SHARED);
        assert_eq!(acceptance(&oracle, 3), PERHAPS);
    }
}

/// Punched pages are neither accepted nor may they be, and what they held is nobody's secret any more; their neighbours
/// stay what they are.
#[test]
fn punched() {
    for platform in ENCRYPTED {
        let mut oracle = accepted(platform, RfcV4);
        (0..4).for_each(|page| oracle.write(page, TAG));
        oracle.punch(1..2);
        assert_eq!(acceptance(&oracle, 0), ACCEPTED);
        assert_eq!(acceptance(&oracle, 1), NOT_ACCEPTED);
        assert_eq!(acceptance(&oracle, 2), ACCEPTED);
        assert_eq!([0, 1, 2].map(|page| oracle.secret(page).is_some()), [true, false, true]);
        convert(&mut oracle, 2..4, Private, Mode::Unspecified);
        oracle.punch(3..4);
        assert_eq!(acceptance(&oracle, 2), PERHAPS);
        assert_eq!(acceptance(&oracle, 3), NOT_ACCEPTED);
    }
}

/// What the guest last wrote to its private page is what the host must not see there, until somebody writes there again;
/// conversions do not end it. Where memory is not encrypted there are no secrets.
#[test]
fn secrets() {
    for platform in ENCRYPTED {
        let mut oracle = accepted(platform, RfcV5);
        assert_eq!(oracle.secret(1), None);
        oracle.write(1, OTHER);
        oracle.write(1, TAG);
        assert_eq!(oracle.secret(1), Content::Pattern(TAG).bytes(1));
        assert_eq!(oracle.secret(2), None);
        convert(&mut oracle, 0..4, Shared, Mode::Zero);
        assert_eq!(oracle.secret(1), Content::Pattern(TAG).bytes(1));
        oracle.write(1, OTHER);
        assert_eq!(oracle.secret(1), None);
    }
    let mut oracle = fresh(Platform::SwProtected, RfcV5, Private, 4);
    oracle.write(1, TAG);
    assert_eq!(oracle.secret(1), None);
}

/// Until its launch is finished the guest neither runs nor accepts. A launch call takes private pages only, which are
/// accepted from the start, and only then.
#[test]
fn launch() {
    for platform in ENCRYPTED {
        let mut oracle = launching(platform, Private);
        assert!(oracle.is_guest_lost());
        assert_eq!(oracle.judge_launch(1), Ok(()));
        oracle.write(2, OTHER);
        oracle.launch(1, Some(TAG));
        oracle.launch(2, None);
        oracle.launch(3, None);
        oracle.finalize();
        assert!(!oracle.is_guest_lost());
        let page =
            |page| (acceptance(&oracle, page), oracle.content(page), oracle.content_clause(page));
        assert_eq!(page(0).0, NOT_ACCEPTED);
        assert_eq!(page(1), (ACCEPTED, Content::Pattern(TAG), ClauseId::CocoLaunchExact));
        assert_eq!(page(2), (ACCEPTED, Content::Pattern(OTHER), ClauseId::CocoLaunchPreserve));
        assert_eq!(page(3), (ACCEPTED, Content::Unknown, ClauseId::CocoLaunchPreserve));
        assert_eq!(oracle.judge_launch(1), Err(ClauseId::CocoLaunchRefused));
        assert_eq!(launching(platform, Shared).judge_launch(1), Err(ClauseId::CocoLaunchRefused));
    }
}

/// What a refused launch call did to a private page by then is its own affair; a shared page it left alone.
#[test]
fn refused_launch() {
    for platform in ENCRYPTED {
        for (start, state, content) in
            [(Private, PERHAPS, Content::Unknown), (Shared, SHARED, Content::Pattern(TAG))]
        {
            let mut oracle = launching(platform, start);
            oracle.write(1, TAG);
            oracle.launch_refused(1);
            oracle.finalize();
            assert_eq!((acceptance(&oracle, 1), oracle.content(1)), (state, content), "{platform}");
        }
    }
}

/// That PRESERVE to private is taken before the launch is a promise of its own.
#[test]
fn preserve_in_launch() {
    for platform in ENCRYPTED {
        let oracle = launching(platform, Shared);
        let allowed = oracle.judge(&call(0..4, Private, Mode::Preserve));
        let clauses: Vec<_> = allowed.iter().map(|a| (a.result, a.clause)).collect();
        assert_eq!(clauses, [(Ok(()), ClauseId::CocoLaunchPreserve)]);
    }
    let oracle = fresh(Platform::SwProtected, RfcV5, Shared, 4);
    let allowed = oracle.judge(&call(0..4, Private, Mode::Preserve));
    assert_eq!(allowed[0].clause, ClauseId::ConvertAccepted);
}

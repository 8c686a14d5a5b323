// SPDX-License-Identifier: GPL-2.0-only
//! How far a launch call may get, by its arguments.

use super::*;
use crate::case::{LaunchLength, LaunchSource, RawLaunch, SlotMap};
use crate::clause::ClauseId;
use crate::uapi::sev::PAGE_TYPE_ZERO;
use Dialect::{RfcV4, RfcV5};
use LaunchLength::{Bytes, Pages as Count};
use LaunchSource::{InPlace, Unaligned};
use Platform::{Snp, Tdx};

const ARGUMENTS: Option<ClauseId> = Some(ClauseId::CocoLaunchArguments);
const REFUSED: Option<ClauseId> = Some(ClauseId::CocoLaunchRefused);

/// A guest whose launch is not finished, with private pages but for page 3.
fn launching(platform: Platform, dialect: Dialect) -> Oracle {
    let mut oracle = fresh(platform, dialect, Attribute::Private, 6);
    oracle.launched = false;
    convert(&mut oracle, 3..4, Attribute::Shared, Mode::Unspecified);
    oracle
}

fn at(page: u64, length: LaunchLength) -> RawLaunch {
    RawLaunch { offset: page * PAGE_SIZE, length, ..RawLaunch::default() }
}

fn limit(oracle: &Oracle, call: &RawLaunch) -> (Vec<u64>, Option<ClauseId>) {
    let limit = oracle.judge_raw_launch(call);
    (limit.pages, limit.refusal)
}

/// What no launch call may do anything with.
#[test]
fn bad_arguments() {
    let with = |change: fn(&mut RawLaunch)| {
        let mut call = at(1, Count(1));
        change(&mut call);
        call
    };
    for platform in [Snp, Tdx] {
        let oracle = launching(platform, RfcV4);
        for call in [
            at(1, Count(0)),
            at(6, Count(1)),
            with(|c| c.source = Unaligned),
            with(|c| c.source = InPlace),
            with(|c| c.flags = 2),
            with(|c| c.mapped = Some(0)),
        ] {
            assert_eq!(limit(&oracle, &call), (vec![], ARGUMENTS), "{platform} {call}");
        }
    }
    let snp = launching(Snp, RfcV5);
    for call in [at(1, Bytes(0x1800)), with(|c| c.page_type = 2), with(|c| c.flags = 1)] {
        assert_eq!(limit(&snp, &call), (vec![], ARGUMENTS), "{call}");
    }
    let tdx = launching(Tdx, RfcV5);
    let unaligned = with(|c| c.offset += 8);
    assert_eq!(limit(&tdx, &unaligned), (vec![], ARGUMENTS));
    assert_eq!(limit(&tdx, &with(|c| c.flags = 1)), (vec![1], None));
    assert_eq!(limit(&snp, &with(|c| c.source = InPlace)), (vec![1], None));
    let zeros = with(|c| (c.page_type, c.source, c.mapped) = (PAGE_TYPE_ZERO, Unaligned, Some(0)));
    assert_eq!(limit(&snp, &zeros), (vec![1], None));
}

/// The first page that must be refused ends a launch call: a shared one, one that was launched, one without memslot or
/// source.
#[test]
fn first_bad_page() {
    for platform in [Snp, Tdx] {
        let mut oracle = launching(platform, RfcV5);
        assert_eq!(limit(&oracle, &at(0, Count(3))), (vec![0, 1, 2], None));
        assert_eq!(limit(&oracle, &at(1, Count(4))), (vec![1, 2], REFUSED));
        assert_eq!(limit(&oracle, &at(3, Count(1))), (vec![], REFUSED));
        assert_eq!(limit(&oracle, &at(4, Count(1 << 51))), (vec![4, 5], ARGUMENTS));
        let short = RawLaunch { mapped: Some(1), ..at(0, Count(3)) };
        assert_eq!(limit(&oracle, &short), (vec![0], ARGUMENTS));
        oracle.launch(1, None);
        assert_eq!(limit(&oracle, &at(0, Count(3))), (vec![0], REFUSED));
        oracle.finalize();
        assert_eq!(limit(&oracle, &at(0, Count(1))), (vec![], REFUSED));
    }
}

/// Pages are those of the file that the memslots map there.
#[test]
fn through_memslots() {
    let mut oracle = launching(Tdx, RfcV5);
    oracle.delete_slot(0);
    oracle.map_slot(&SlotMap { slot: 0, pages: 4..6, at: 0 });
    oracle.map_slot(&SlotMap { slot: 1, pages: 0..2, at: 2 });
    assert_eq!(limit(&oracle, &at(0, Count(4))), (vec![4, 5, 0, 1], None));
    assert_eq!(limit(&oracle, &at(1, Count(4))), (vec![5, 0, 1], ARGUMENTS));
}

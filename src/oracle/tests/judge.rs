// SPDX-License-Identifier: GPL-2.0-only
//! What each call must return: the error table of RFC v4 10/44 and 13/44, and what the later revisions changed.

use super::*;
use crate::case::{Capability, Descriptor, Pointer};
use crate::clause::ClauseId;
use crate::uapi::{MODE_PRESERVE, MODE_ZERO};
use Attribute::{Private, Shared};
use Dialect::{RfcV4, RfcV5, Upstream};
use ErrorOffset::{Anything, At, Untouched};

/// Result, error_offset and clause.
type Outcome = (Result<(), Errno>, ErrorOffset, ClauseId);

fn einval(clause: ClauseId) -> Outcome {
    (Err(Errno::EINVAL), Anything, clause)
}

/// What the oracle allows for `call`.
fn judged(oracle: &Oracle, call: &RawConvert) -> Vec<Outcome> {
    let outcome = |a: &Allowed| (a.result, a.error_offset, a.clause);
    oracle.judge(call).iter().map(outcome).collect()
}

/// Asserts the only outcome of `call` in each revision, on a software-protected VM with 4 shared pages.
fn check(call: &RawConvert, v4: Outcome, v5: Outcome, upstream: Outcome) {
    for (dialect, want) in [(RfcV4, v4), (RfcV5, v5), (Upstream, upstream)] {
        let oracle = fresh(Platform::SwProtected, dialect, Shared, 4);
        assert_eq!(judged(&oracle, call), [want], "{dialect}: {call:?}");
    }
}

/// Asserts the only outcome of `call`, the same in each revision.
fn check_all(call: &RawConvert, want: Outcome) {
    check(call, want, want, want);
}

/// The call that every row changes in one way: pages 1 and 2 to private, or to shared.
fn good(to: Attribute) -> RawConvert {
    call(1..3, to, Mode::Unspecified)
}

/// Without anything wrong a call succeeds, in either direction, and leaves error_offset alone.
#[test]
fn valid_calls() {
    let accepted = (Ok(()), Untouched, ClauseId::UnspecifiedAccepted);
    for to in [Shared, Private] {
        for pages in [0..1, 3..4, 0..4, 1..3] {
            check_all(&call(pages, to, Mode::Unspecified), accepted);
        }
    }
    let accepted = (Ok(()), Untouched, ClauseId::ConvertAccepted);
    let refused = einval(ClauseId::UpstreamNoModes);
    for (to, mode) in [(Shared, Mode::Zero), (Shared, Mode::Preserve), (Private, Mode::Preserve)] {
        check(&call(1..3, to, mode), accepted, accepted, refused);
    }
}

/// Rows 1 and 2: the wrong descriptor is ENOTTY, an argument that cannot be read EFAULT; the descriptor comes first.
#[test]
fn descriptor_and_pointer() {
    for to in [Shared, Private] {
        let bad = RawConvert { pointer: Pointer::Bad, flags: 1 << 5, ..good(to) };
        check_all(&bad, (Err(Errno::EFAULT), Anything, ClauseId::ArgumentsPointer));
        for pointer in [Pointer::Good, Pointer::Bad, Pointer::ReadOnly] {
            let vm = RawConvert { descriptor: Descriptor::Vm, pointer, ..good(to) };
            check_all(&vm, (Err(Errno::ENOTTY), Anything, ClauseId::DescriptorVm));
        }
    }
}

/// Rows 3 and 4: unknown flags, alone and with known ones, and both modes at once; upstream knows no flag.
#[test]
fn flags() {
    for to in [Shared, Private] {
        for bit in 2..64 {
            for known in [0, MODE_ZERO, MODE_PRESERVE] {
                let call = RawConvert { flags: 1 << bit | known, ..good(to) };
                check_all(&call, einval(ClauseId::ArgumentsFlags));
            }
        }
        let both = RawConvert { flags: MODE_ZERO | MODE_PRESERVE, ..good(to) };
        let (rfc, upstream) = (einval(ClauseId::ArgumentsFlags), einval(ClauseId::UpstreamNoModes));
        check(&both, rfc, rfc, upstream);
        for flags in [MODE_ZERO, MODE_PRESERVE] {
            let call = RawConvert { flags, ..good(to) };
            let oracle = fresh(Platform::SwProtected, Upstream, Shared, 4);
            assert_eq!(judged(&oracle, &call), [upstream]);
        }
    }
}

/// Row 5: error_offset must be 0 on input in v4, and is kept from v5 on.
#[test]
fn error_offset_on_input() {
    let kept = (Ok(()), Untouched, ClauseId::UnspecifiedAccepted);
    for error_offset in [1, PAGE_SIZE, 1 << 63, u64::MAX] {
        for to in [Shared, Private] {
            let call = RawConvert { error_offset, ..good(to) };
            check(&call, einval(ClauseId::ArgumentsErrorOffset), kept, kept);
        }
    }
}

/// Rows 6 and 7: each reserved word, and each bit of the attributes but PRIVATE, alone and together with it.
#[test]
fn reserved_words_and_attributes() {
    for word in 0..11 {
        for value in [1, 1 << 63, u64::MAX] {
            let mut call = good(Private);
            call.reserved[word] = value;
            check_all(&call, einval(ClauseId::ArgumentsReserved));
        }
    }
    for bit in (0..64).filter(|bit| *bit != 3) {
        for attributes in [1 << bit, 1 << bit | Private.bits()] {
            let call = RawConvert { attributes, ..good(Private) };
            check_all(&call, einval(ClauseId::ArgumentsAttributes));
        }
    }
}

/// Rows 8 to 10: ranges that are empty, wrap, are unaligned, or do not lie within 4 pages.
#[test]
fn ranges() {
    const P: u64 = PAGE_SIZE;
    let range = ClauseId::ArgumentsRange;
    let alignment = ClauseId::ArgumentsAlignment;
    let rows = [
        (0, 0, range),
        (P, 0, range),
        (4 * P, 0, range),
        (P, P.wrapping_neg(), range),
        (P.wrapping_neg(), 2 * P, range),
        (1 << 63, 1 << 63, range),
        (4 * P, P, range),
        (5 * P, P, range),
        (3 * P, 2 * P, range),
        (0, 5 * P, range),
        (1 << 62, P, range),
        (1, P, alignment),
        (P - 1, P, alignment),
        (P / 2, P, alignment),
        (P, 1, alignment),
        (P, P - 1, alignment),
        (P, P + 8, alignment),
        (P / 2, P / 2, alignment),
    ];
    for (offset, size, clause) in rows {
        for to in [Shared, Private] {
            check_all(&RawConvert { offset, size, ..good(to) }, einval(clause));
        }
    }
}

/// Row 11: ZERO to private is refused with the start of the range, whatever the state and whether or not a page is in use;
/// but only after the arguments were found good.
#[test]
fn zero_to_private() {
    for dialect in [RfcV4, RfcV5] {
        for start in [Shared, Private] {
            let mut oracle = fresh(Platform::SwProtected, dialect, start, 4);
            if start == Shared {
                oracle.pin(2);
            }
            let zero = call(1..3, Private, Mode::Zero);
            let want = (Err(Errno::EOPNOTSUPP), At(PAGE_SIZE), ClauseId::ZeroToPrivateRefused);
            assert_eq!(judged(&oracle, &zero), [want]);
            let read_only = RawConvert { pointer: Pointer::ReadOnly, ..zero.clone() };
            let want = (Err(Errno::EFAULT), Anything, ClauseId::ZeroToPrivateRefused);
            assert_eq!(judged(&oracle, &read_only), [want]);
            let empty = RawConvert { size: 0, ..zero };
            assert_eq!(judged(&oracle, &empty), [einval(ClauseId::ArgumentsRange)]);
        }
    }
}

/// Row 14: to private with a page of the range in use is EAGAIN at the lowest such page; to shared is not.
#[test]
fn in_use() {
    for dialect in Dialect::ALL {
        let mut oracle = fresh(Platform::SwProtected, dialect, Shared, 8);
        oracle.pin(5);
        oracle.pin(3);
        let rows = [
            (0..8, Some(3)),
            (3..4, Some(3)),
            (2..5, Some(3)),
            (4..8, Some(5)),
            (0..3, None),
            (4..5, None),
            (6..8, None),
        ];
        for (pages, lowest) in rows {
            let private = call(pages.clone(), Private, Mode::Unspecified);
            let want = match lowest {
                Some(page) => (Err(Errno::EAGAIN), At(page * PAGE_SIZE), ClauseId::InUseRefused),
                None => (Ok(()), Untouched, ClauseId::UnspecifiedAccepted),
            };
            assert_eq!(judged(&oracle, &private), [want], "{dialect} {pages:?}");
            let read_only = RawConvert { pointer: Pointer::ReadOnly, ..private };
            let want = match lowest {
                Some(_) => (Err(Errno::EFAULT), Anything, ClauseId::InUseRefused),
                None => want,
            };
            assert_eq!(judged(&oracle, &read_only), [want], "{dialect} {pages:?}");
            let shared = call(pages, Shared, Mode::Unspecified);
            assert_eq!(results(&oracle, &shared), [Ok(())]);
        }
    }
}

/// A VM without private memory: PRIVATE is EINVAL; to shared upstream refuses, and before that it may be accepted, but with
/// no mode.
#[test]
fn without_private_memory() {
    let refused = einval(ClauseId::DefaultRefused);
    for dialect in Dialect::ALL {
        let oracle = fresh(Platform::Default, dialect, Shared, 4);
        assert_eq!(judged(&oracle, &good(Private)), [refused], "{dialect}");
    }
    for dialect in [RfcV4, RfcV5] {
        let oracle = fresh(Platform::Default, dialect, Shared, 4);
        let accepted = (Ok(()), Untouched, ClauseId::UnspecifiedAccepted);
        assert_eq!(judged(&oracle, &good(Shared)), [accepted, refused]);
        for mode in [Mode::Zero, Mode::Preserve] {
            let no_mode = (Err(Errno::EOPNOTSUPP), At(PAGE_SIZE), ClauseId::ModeRefused);
            assert_eq!(judged(&oracle, &call(1..3, Shared, mode)), [no_mode, refused]);
            let private = call(1..3, Private, mode);
            assert_eq!(judged(&oracle, &private), [refused]);
        }
    }
    let oracle = fresh(Platform::Default, Upstream, Shared, 4);
    assert_eq!(judged(&oracle, &good(Shared)), [refused]);
}

/// The modes that are offered: unspecified always, others by software-protected VMs in the revisions that have them, but
/// ZERO never to private. To encrypted guests only ZERO, and, in RFC v5 until they are launched, PRESERVE to private.
#[test]
fn modes() {
    use Mode::{Preserve, Unspecified, Zero};
    for (platform, launched) in Platform::ALL.into_iter().flat_map(|p| [(p, false), (p, true)]) {
        for dialect in Dialect::ALL {
            let offered: Vec<_> = Mode::ALL
                .into_iter()
                .flat_map(|mode| [(mode, Shared), (mode, Private)])
                .filter(|(mode, to)| mode_offered(platform, dialect, *to, *mode, launched))
                .collect();
            let always = [(Unspecified, Shared), (Unspecified, Private)];
            let modes = [(Zero, Shared), (Preserve, Shared), (Preserve, Private)];
            let want = match (platform, dialect) {
                (Platform::SwProtected, RfcV4 | RfcV5) => [&always[..], &modes].concat(),
                (Platform::Snp | Platform::Tdx, RfcV5) if !launched => {
                    [&always[..], &[(Zero, Shared), (Preserve, Private)]].concat()
                }
                (Platform::Snp | Platform::Tdx, RfcV4 | RfcV5) => {
                    [&always[..], &[(Zero, Shared)]].concat()
                }
                _ => always.to_vec(),
            };
            assert_eq!(offered, want, "{platform} {dialect} {launched}");
        }
    }
}

/// The capabilities say what the calls do: PRIVATE where there is private memory, the modes where there are modes, and
/// nothing per VM.
#[test]
fn capabilities() {
    use Capability::*;
    let (default, protected) = (Platform::Default, Platform::SwProtected);
    for dialect in Dialect::ALL {
        let modes = if dialect == Upstream { 0 } else { 3 };
        // RFC v5 counts what is offered before the launch is finished.
        let encrypted = if dialect == RfcV4 { 1 } else { modes };
        let rows = [
            (default, GuestMemfdMemoryAttributes, (8, 0)),
            (protected, GuestMemfdMemoryAttributes, (8, 8)),
            (default, MemoryAttributes2Flags, (modes, 0)),
            (protected, MemoryAttributes2Flags, (modes, modes)),
            (Platform::Snp, GuestMemfdMemoryAttributes, (8, 8)),
            (Platform::Snp, MemoryAttributes2Flags, (modes, encrypted)),
            (Platform::Tdx, MemoryAttributes2Flags, (modes, encrypted)),
            (Platform::Tdx, MemoryAttributes, (0, 0)),
            (default, MemoryAttributes, (0, 0)),
            (protected, MemoryAttributes, (0, 0)),
        ];
        for (platform, capability, want) in rows {
            let values = capability_values(platform, dialect, capability);
            assert_eq!(values, want, "{platform} {dialect} {capability:?}");
        }
    }
}

/// A kernel without the interface offers nothing of it, on the system or on any VM.
#[test]
fn nothing_is_offered_without_the_interface() {
    for platform in Platform::ALL {
        for capability in crate::case::Capability::ALL {
            let values = capability_values(platform, Dialect::None, capability);
            assert_eq!(values, (0, 0), "{platform} {capability:?}");
        }
    }
}

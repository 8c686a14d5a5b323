// SPDX-License-Identifier: GPL-2.0-only
//! Every scenario, and how one is told from a case.

use super::arena::Arena;
use super::facility::Facility;
use super::{encrypted, nomem, pin, race};
use crate::clause::ClauseId;
use crate::exec::{CaseEnd, Setup};
use crate::platform::Platform;
use crate::results::{Blame, Observation};

/// What the text of a job begins with that is no case.
const KEYWORD: &str = "scenario ";

/// A test that is written in Rust.
pub struct Scenario {
    /// `topic.name`, as a case has one.
    pub name: &'static str,
    /// What is done and what is looked for, in one paragraph.
    pub about: &'static str,
    /// Ids of the clauses that it tests.
    pub clauses: &'static [ClauseId],
    /// What it needs besides its platforms.
    pub needs: Option<Facility>,
    /// The platforms that it runs on.
    pub platforms: &'static [Platform],
    /// How many vCPUs the guest has: several only if it is encrypted.
    vcpus: u32,
    /// Size of the guest_memfd in pages, all of them shared at first.
    pages: u64,
    run: fn(&mut Arena) -> Result<(), CaseEnd>,
}

impl Scenario {
    /// The scenario with this name.
    pub fn named(name: &str) -> Option<&'static Scenario> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }

    /// What stands in a plan where a case has its text.
    pub fn text(&self) -> String {
        format!("{KEYWORD}{}\n", self.name)
    }
}

/// Contents outlive a conversion: there is something to convert, and nothing encrypts it.
const PLAIN: &[Platform] = &[Platform::SwProtected];
/// The guest's private memory is its own.
const ENCRYPTED: &[Platform] = &[Platform::Snp, Platform::Tdx];
/// Wherever there is something to convert.
const EVERY: &[Platform] = &[Platform::SwProtected, Platform::Snp, Platform::Tdx];

/// Whether `text` names a scenario; else it is a case.
pub(crate) fn is_scenario(text: &str) -> bool {
    text.starts_with(KEYWORD)
}

/// Runs the scenario that `text` names; `None` if `text` is a case.
pub(crate) fn run(
    text: &str,
    setup: &Setup<'_>,
    progress: &mut dyn FnMut(usize),
    observations: &mut Vec<Observation>,
) -> Option<Result<(), CaseEnd>> {
    let statement = text.trim_end();
    let name = statement.strip_prefix(KEYWORD)?;
    let Some(scenario) = Scenario::named(name) else {
        return Some(Err(CaseEnd::error(Blame::Suite, format!("there is no scenario `{name}`"))));
    };
    progress(1);
    let result = Arena::new(setup, scenario.pages, scenario.vcpus).and_then(|mut arena| {
        let result = (scenario.run)(&mut arena);
        let seen = arena.take_observations().into_iter();
        observations.extend(seen.map(|(what, seen)| Observation {
            line: 1,
            what: what.into(),
            seen,
        }));
        result
    });
    Some(result.map_err(|mut stop| {
        stop.failure.line = Some(1);
        stop.failure.statement = Some(statement.to_string());
        stop
    }))
}

/// What a conversion must do whatever goes on at the same time.
macro_rules! racing {
    ($($more:expr),*) => {
        &[
            ClauseId::ConvertAccepted,
            ClauseId::ConvertSuccessUntouched,
            ClauseId::InUseErrorOffset,
            ClauseId::InUseRetry,
            ClauseId::InUseToShared,
            ClauseId::HostFaultPrivate,
            ClauseId::HostAccessShared,
            $($more),*
        ]
    };
}

/// What a reference on a page does.
const PINNED: &[ClauseId] = &[
    ClauseId::InUseRefused,
    ClauseId::InUseErrorOffset,
    ClauseId::InUseNoEffect,
    ClauseId::InUseRetry,
    ClauseId::InUseToShared,
    ClauseId::HostFaultPrivate,
    ClauseId::HostAccessShared,
];

/// What a want of memory does.
const NO_MEMORY: &[ClauseId] = &[
    ClauseId::NoMemoryRefused,
    ClauseId::NoMemoryNoEffect,
    ClauseId::NoMemoryRetry,
    ClauseId::ConvertAccepted,
    ClauseId::ConvertRange,
    ClauseId::ConvertPrecise,
];

/// Every scenario.
pub static SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "race.guest-access",
        about: "A guest fills and checks pages without a pause while the host converts ranges of them to private and \
                back, keeping the contents. The guest never finds anything but what it has written. In between the \
                converting thread itself looks: what it has made private is a SIGBUS, what it has made shared is not.",
        clauses: racing!(
            ClauseId::GuestAccess,
            ClauseId::PreserveToPrivate,
            ClauseId::PreserveToShared,
            ClauseId::UpstreamContentsKept
        ),
        needs: None,
        platforms: PLAIN,
        vcpus: 1,
        pages: 8,
        run: race::guest_access,
    },
    Scenario {
        name: "race.host-reads",
        about: "Threads of the host read pages without a pause, so that faults are in flight, while ranges are converted \
                to private and back, keeping the contents. A read ends in SIGBUS or finds what the guest has written \
                before. From the return of a conversion to private no page of it can be read by the thread that made it, \
                however the faults of the others were timed.",
        clauses: racing!(
            ClauseId::PreserveToPrivate,
            ClauseId::PreserveToShared,
            ClauseId::UpstreamContentsKept
        ),
        needs: None,
        platforms: PLAIN,
        vcpus: 1,
        pages: 8,
        run: race::host_reads,
    },
    Scenario {
        name: "race.first-touch",
        about: "As race.host-reads, but all pages are punched out before each conversion, so that the threads' faults and \
                the conversion meet over pages that come into being at that moment. Whoever may read finds zeros.",
        clauses: racing!(ClauseId::FreshZero, ClauseId::PunchZero, ClauseId::ConvertHoles),
        needs: None,
        platforms: PLAIN,
        vcpus: 1,
        pages: 8,
        run: race::first_touch,
    },
    Scenario {
        name: "race.host-writes",
        about: "Threads of the host write to pages without a pause while ranges are converted to private and back. Once a \
                conversion to private has returned, the guest's copies of its pages do not change any more, although the \
                threads go on trying: no write lands late.",
        clauses: racing!(),
        needs: None,
        platforms: PLAIN,
        vcpus: 1,
        pages: 4,
        run: race::host_writes,
    },
    Scenario {
        name: "race.overlapping",
        about: "Three threads start at once, each with one conversion; their ranges overlap, their directions and modes \
                differ. What every page then is and holds must be the result of the three calls in one of their six \
                orders.",
        clauses: racing!(
            ClauseId::ConvertRange,
            ClauseId::ConvertPrecise,
            ClauseId::ZeroToShared,
            ClauseId::PreserveToPrivate,
            ClauseId::PreserveToShared,
            ClauseId::UpstreamContentsKept
        ),
        needs: None,
        platforms: PLAIN,
        vcpus: 1,
        pages: 8,
        run: race::overlapping,
    },
    Scenario {
        name: "race.punch",
        about: "One thread punches holes and allocates pages while another converts the same pages to private and back. \
                Neither changes an attribute, each call succeeds, and a word of a page is zero or what was written last.",
        clauses: racing!(ClauseId::PunchAttribute, ClauseId::PunchZero, ClauseId::AllocateZero),
        needs: None,
        platforms: PLAIN,
        vcpus: 1,
        pages: 8,
        run: race::punch,
    },
    Scenario {
        name: "nomem.few-pages",
        about: "Each memory allocation of a conversion is made to fail in turn, with fail-nth: single pages and ranges of \
                a small file, with and without a change of neighbours, in both directions, with every content mode. The \
                call fails with ENOMEM and error_offset at its start, or does without that allocation; after a failure \
                all attributes and contents are as before, and the next try succeeds.",
        clauses: NO_MEMORY,
        needs: Some(Facility::FailNth),
        platforms: EVERY,
        vcpus: 1,
        pages: 8,
        run: nomem::few_pages,
    },
    Scenario {
        name: "nomem.alternating",
        about: "As nomem.few-pages, in a file whose pages are shared and private by turns, so that the store of attributes \
                is as large as it can be: one page is converted, and all are.",
        clauses: NO_MEMORY,
        needs: Some(Facility::FailNth),
        platforms: EVERY,
        vcpus: 1,
        pages: 128,
        run: nomem::alternating,
    },
    Scenario {
        name: "pin.vmsplice",
        about: "A page in a pipe is in use. Conversions to private of ranges that hold it are EAGAIN with its offset and \
                change nothing, other pages can be converted, to shared everything can, and when the last of several \
                references is gone the conversion succeeds.",
        clauses: PINNED,
        needs: None,
        platforms: EVERY,
        vcpus: 1,
        pages: 8,
        run: pin::vmsplice,
    },
    Scenario {
        name: "pin.io-uring",
        about: "As pin.vmsplice, for a page that is a registered buffer of an io_uring, which is a long-term pin: one \
                reference, and several rings that hold the same page.",
        clauses: PINNED,
        needs: Some(Facility::IoUring),
        platforms: EVERY,
        vcpus: 1,
        pages: 8,
        run: pin::io_uring,
    },
    Scenario {
        name: "pin.gup-test",
        about: "As pin.vmsplice, for a page on which the kernel's own GUP_TEST holds a long-term pin, as a device that is \
                assigned to the guest would: taken through the page tables without locks, and with them.",
        clauses: PINNED,
        needs: Some(Facility::GupTest),
        platforms: EVERY,
        vcpus: 1,
        pages: 8,
        run: pin::gup_test,
    },
    Scenario {
        name: "coco.race-overlapping",
        about: "Three threads start at once, each with one conversion of an encrypted guest's memory; their ranges overlap, \
                their directions and modes differ. What every page then is must be the result of the three calls in one of \
                their six orders. The guest accepts and uses what is private then, and what is shared is the same memory for \
                both sides.",
        clauses: racing!(
            ClauseId::ConvertRange,
            ClauseId::ConvertPrecise,
            ClauseId::ZeroToShared,
            ClauseId::CocoAcceptance,
            ClauseId::MemorySame,
            ClauseId::GuestAccess
        ),
        needs: None,
        platforms: ENCRYPTED,
        vcpus: 1,
        pages: 8,
        run: encrypted::overlapping,
    },
    Scenario {
        name: "coco.race-punch",
        about: "One thread punches holes and allocates pages while another converts the same pages to private and back, those \
                that the guest has used as well as others. Neither changes an attribute, and each call succeeds. After that \
                the guest can have every page, and give it back.",
        clauses: racing!(
            ClauseId::PunchAttribute,
            ClauseId::CocoAcceptance,
            ClauseId::MemorySame,
            ClauseId::GuestAccess
        ),
        needs: None,
        platforms: ENCRYPTED,
        vcpus: 1,
        pages: 8,
        run: encrypted::punch,
    },
    Scenario {
        name: "coco.race-host-writes",
        about: "Threads of the host write to pages through their mapping without a pause while ranges become the guest's and \
                come back. What the guest has written to a page that is its own does not change, although the threads go on \
                trying: no write lands late.",
        clauses: racing!(ClauseId::CocoAcceptance, ClauseId::MemorySame, ClauseId::GuestAccess),
        needs: None,
        platforms: ENCRYPTED,
        vcpus: 1,
        pages: 4,
        run: encrypted::host_writes,
    },
    Scenario {
        name: "coco.race-neighbours",
        about: "A guest asks for pages, accepts and uses them, gives them up and asks for them to be shared, again and again, \
                while the host converts and punches the pages on both sides of them. What the guest has in private stays its \
                own all the time, and what it shares is the same memory for the host.",
        clauses: racing!(
            ClauseId::ConvertPrecise,
            ClauseId::CocoAcceptance,
            ClauseId::CocoGuestConverts,
            ClauseId::MemorySame,
            ClauseId::GuestAccess
        ),
        needs: None,
        platforms: ENCRYPTED,
        vcpus: 1,
        pages: 12,
        run: encrypted::neighbours,
    },
    Scenario {
        name: "coco.race-shared-access",
        about: "A guest writes and reads shared pages without a pause while the host converts ranges of them to private and \
                back, where there is a mode for that with ZERO. An access that meets a private page exits, and goes on when \
                the page is shared again; a page that was cleared holds zeros, or what the guest has written since.",
        clauses: racing!(
            ClauseId::ZeroToShared,
            ClauseId::CocoAcceptance,
            ClauseId::MemorySame,
            ClauseId::GuestAccess
        ),
        needs: None,
        platforms: ENCRYPTED,
        vcpus: 1,
        pages: 8,
        run: encrypted::shared_access,
    },
    Scenario {
        name: "coco.race-vcpus",
        about: "Two vCPUs at once ask for pages of their own, accept and use them, give them up and ask for them to be \
                shared, again and again, while the host converts and punches other pages. What each of them has in private \
                stays its own all the time, and what it shares is the same memory for the host.",
        clauses: racing!(
            ClauseId::ConvertPrecise,
            ClauseId::CocoAcceptance,
            ClauseId::CocoGuestConverts,
            ClauseId::MemorySame,
            ClauseId::GuestAccess
        ),
        needs: None,
        platforms: ENCRYPTED,
        // KVM gives a TD no more than there are CPUs.
        vcpus: 2,
        pages: 12,
        run: encrypted::several_vcpus,
    },
    Scenario {
        name: "coco.race-same-pages",
        about: "Two vCPUs accept the same private pages at once: each page is accepted by exactly one of them, and the other \
                is told that it is accepted already. Then each finds what the other has written, in private and, when the \
                pages have come back, in shared memory.",
        clauses: racing!(ClauseId::CocoAcceptance, ClauseId::MemorySame, ClauseId::GuestAccess),
        needs: None,
        platforms: ENCRYPTED,
        vcpus: 2,
        pages: 8,
        run: encrypted::same_pages,
    },
    Scenario {
        name: "coco.race-accept-punch",
        about: "A vCPU accepts private pages without a pause while the host punches holes into them, and another vCPU keeps \
                pages of its own beside them. No acceptance fails, no attribute changes, and what the other vCPU has written \
                stays. After that every page can be accepted, used by both and given back.",
        clauses: racing!(
            ClauseId::PunchAttribute,
            ClauseId::CocoAcceptance,
            ClauseId::MemorySame,
            ClauseId::GuestAccess
        ),
        needs: None,
        // An SNP guest reads a page that it has validated, to evict old lines of the caches, and it must not find a hole there.
        platforms: &[Platform::Tdx],
        vcpus: 2,
        pages: 12,
        run: encrypted::accept_punched,
    },
];

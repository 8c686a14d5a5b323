// SPDX-License-Identifier: GPL-2.0-only
//! The host, as far as it is the same for both platforms: which pages are private, KVM_EXIT_HYPERCALL, errors on demand.

use std::collections::{BTreeMap, BTreeSet};

use gmem_conform::payload::abi::TEST_MEMORY;

use crate::memory::PAGE;

/// EAGAIN and EINVAL.
pub const EAGAIN: u64 = 11;
pub const EINVAL: u64 = 22;

/// Where a test may have something go wrong, and what `answer` means there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// KVM_EXIT_HYPERCALL for KVM_HC_MAP_GPA_RANGE: the errno that userspace answers, nothing being converted.
    MapGpaRange,
    /// PVALIDATE: EAX, and the carry flag in bit 32; nothing is changed.
    Pvalidate,
    /// The GHCB MSR protocol's request with these bits 11:0: the response.
    Msr(u64),
    /// The GHCB event with this exit code: SW_EXITINFO1 and SW_EXITINFO2, nothing being done.
    Ghcb(u64),
    /// Page state change through the GHCB: comes back to the guest after so many entries, without an error.
    PscStops,
    /// Page state change through the GHCB: the header is this afterwards, nothing being done.
    PscHeader,
    /// TDG.MEM.PAGE.ACCEPT: RAX, nothing being done.
    Accept,
    /// TDG.VP.VMCALL of this function: R10 and R11, nothing being done.
    Vmcall(u64),
    /// An interrupt is pending after so many chunks of MapGPA.
    MapGpaStops,
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug)]
pub struct Injection {
    pub event: Event,
    /// How often it goes well before.
    pub skip: u32,
    /// How often it goes wrong then.
    pub times: u32,
    pub answer: [u64; 2],
}

/// What KVM_EXIT_HYPERCALL said: guest physical address, number of pages, to private.
pub type MapGpaRange = (u64, u64, bool);

/// The host.
#[derive(Default)]
pub struct Hypervisor {
    /// Guest physical addresses of the pages that are private.
    pub private: BTreeSet<u64>,
    /// What has gone by so far.
    pub requests: Vec<MapGpaRange>,
    /// What is still to go wrong.
    pub injections: Vec<Injection>,
    /// How often what went wrong.
    pub injected: BTreeMap<Event, u64>,
    /// What the guest did that it must not do.
    pub violations: Vec<String>,
}

impl Hypervisor {
    /// Records a violation.
    pub fn violation(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }

    /// Whether `event` goes wrong this time, and how.
    pub fn injected(&mut self, event: Event) -> Option<[u64; 2]> {
        let i = self.injections.iter().position(|i| i.event == event)?;
        let injection = &mut self.injections[i];
        if injection.skip > 0 {
            injection.skip -= 1;
            return None;
        }
        injection.times -= 1;
        let answer = injection.answer;
        if injection.times == 0 {
            self.injections.remove(i);
        }
        *self.injected.entry(event).or_default() += 1;
        Some(answer)
    }

    /// KVM_EXIT_HYPERCALL: what userspace answers. With 0 the pages are for the platform to convert.
    pub fn map_gpa_range(&mut self, gpa: u64, pages: u64, private: bool) -> u64 {
        self.requests.push((gpa, pages, private));
        if gpa < TEST_MEMORY {
            self.violation(format!("conversion of {gpa:#x}, which the payload itself uses"));
        }
        match self.injected(Event::MapGpaRange) {
            Some([errno, _]) => errno,
            None => 0,
        }
    }

    /// Whether the page at `gpa` is private.
    pub fn is_private(&self, gpa: u64) -> bool {
        self.private.contains(&(gpa & !(PAGE - 1)))
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! What is measured: series, and their points.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::spot::Backing;
use crate::case::{Attribute, Mode};
use crate::dialect::Dialect;
use crate::oracle::mode_offered;
use crate::platform::Platform;

/// What is measured in a situation, for ranges of every size or for any number of fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Series {
    /// The VM's type.
    pub platform: Platform,
    /// What is timed.
    pub what: What,
    /// What the pages are converted to, from the other attribute.
    pub to: Attribute,
    /// The content mode.
    pub mode: Mode,
    /// What is behind the pages.
    pub backing: Backing,
    /// Whether the host has every page mapped, by a write.
    pub host_mapped: bool,
    /// Whether the guest has every page mapped, by a read. An encrypted guest has accepted the private ones.
    pub guest_mapped: bool,
    /// How many vCPUs are in the guest.
    pub vcpus: u32,
}

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// The conversion of a range whose pages all have the other attribute.
    Conversion,
    /// The conversion of a range of which every second page has the wanted attribute already.
    Fragments,
    /// The conversion of one page of a file of which every second page has the other attribute.
    OneOfFragments,
    /// After the conversion: the host writes a word of each page.
    HostTouch,
    /// After the conversion: the guest reads a word of each page, and what it takes to have it do so. An encrypted guest
    /// accepts private pages first.
    GuestTouch,
    /// An encrypted guest's pages are shared, made private again without a mode, accepted, and read.
    RoundTrip,
    /// An encrypted guest asks for the conversion, with page state changes or MapGPA: from its request to its answer, with the
    /// exits and the conversions that the host makes for it.
    GuestRequest,
    /// The launch of an encrypted guest takes private pages, with contents from elsewhere.
    LaunchCopied,
    /// The launch of an encrypted guest takes private pages with what they hold.
    LaunchInPlace,
}

impl What {
    /// What the costs of a series grow with.
    pub fn unit(self) -> &'static str {
        match self {
            What::Fragments | What::OneOfFragments => "fragment",
            What::Conversion
            | What::HostTouch
            | What::GuestTouch
            | What::RoundTrip
            | What::GuestRequest
            | What::LaunchCopied
            | What::LaunchInPlace => "page",
        }
    }

    /// Whether it is a part of a launch, which has a guest once only.
    pub fn is_launch(self) -> bool {
        matches!(self, What::LaunchCopied | What::LaunchInPlace)
    }
}

/// One size of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Point {
    /// The series.
    #[serde(flatten)]
    pub series: Series,
    /// Pages of the range, or fragments of the file, which are as many pages.
    pub size: u64,
}

impl Series {
    /// The name in tables and on the command line: platform, direction, mode and backing, such as
    /// `sw-protected.to-private.zero.allocated`, and then what differs from a plain conversion.
    pub fn name(&self) -> String {
        let Series { platform, what, to, mode, backing, host_mapped, guest_mapped, vcpus } = self;
        let mut name = format!("{platform}.to-{to}.{mode}.{}", backing.name());
        match (host_mapped, guest_mapped) {
            (false, false) => {}
            (true, false) => name += ".host-mapped",
            (false, true) => name += ".guest-mapped",
            (true, true) => name += ".both-mapped",
        }
        if *vcpus > 0 {
            let _ = write!(name, ".vcpus-{vcpus}");
        }
        match what {
            What::Conversion => {}
            What::Fragments => name += ".fragments",
            What::OneOfFragments => name += ".one-of-fragments",
            What::HostTouch => name += ".host-touch",
            What::GuestTouch => name += ".guest-touch",
            What::RoundTrip => name += ".round-trip",
            What::GuestRequest => name += ".guest-request",
            What::LaunchCopied => name += ".launch-copied",
            What::LaunchInPlace => name += ".launch-in-place",
        }
        name
    }
}

/// How far to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Pages of the largest range.
    pub pages: u64,
    /// Fragments of the most fragmented file.
    pub fragments: u64,
    /// The most vCPUs in the guest, 0 where there is no real guest.
    pub vcpus: u32,
}

/// One size is so many times the one before.
const STEP: u64 = 4;

/// The sizes from `from` up to `to`.
fn sizes(from: u64, to: u64) -> Vec<u64> {
    std::iter::successors(Some(from), |size| size.checked_mul(STEP))
        .take_while(|size| *size <= to)
        .collect()
}

/// The modes that are offered for conversions to `to`, once the launch is finished or before.
fn modes(platform: Platform, dialect: Dialect, to: Attribute, launched: bool) -> Vec<Mode> {
    let offered = |mode: &Mode| mode_offered(platform, dialect, to, *mode, launched);
    Mode::ALL.into_iter().filter(offered).collect()
}

/// The series of a platform with private memory and their sizes, from the smallest. Guests that are encrypted are given no
/// more vCPUs, which would have to be launched with them.
pub fn series(platform: Platform, dialect: Dialect, extent: Extent) -> Vec<(Series, Vec<u64>)> {
    let pages = sizes(1, extent.pages);
    let fragments = sizes(STEP, extent.fragments);
    let both = [Attribute::Private, Attribute::Shared];
    // The mode that leaves the contents alone, so that what is measured is the rest.
    let keeps =
        both.into_iter().all(|to| mode_offered(platform, dialect, to, Mode::Preserve, true));
    let keep = if keeps { Mode::Preserve } else { Mode::Unspecified };
    let mut all = Vec::new();
    for to in both {
        let base = Series {
            platform,
            what: What::Conversion,
            to,
            mode: keep,
            backing: Backing::Allocated,
            host_mapped: false,
            guest_mapped: false,
            vcpus: 0,
        };
        let hole = Series { backing: Backing::Hole, ..base };
        let mapped = Series { guest_mapped: true, ..base };
        let modes = modes(platform, dialect, to, true);
        all.extend(modes.iter().map(|mode| (Series { mode: *mode, ..base }, pages.clone())));
        all.push((hole, pages.clone()));
        all.push((Series { backing: Backing::Reserved, ..base }, pages.clone()));
        all.push((mapped, pages.clone()));
        if to == Attribute::Private {
            all.push((Series { host_mapped: true, ..base }, pages.clone()));
            all.push((Series { host_mapped: true, ..mapped }, pages.clone()));
        }
        if platform.is_encrypted() {
            let more = of_encrypted(mapped, &modes);
            all.extend(more.into_iter().map(|series| (series, pages.clone())));
        } else {
            for vcpus in [1, 2, 4, 16, 64, 256].into_iter().filter(|n| *n <= extent.vcpus) {
                all.push((Series { vcpus, ..base }, sizes(1, extent.pages.min(1024))));
            }
        }
        all.push((Series { what: What::Fragments, ..hole }, fragments.clone()));
        all.push((Series { what: What::OneOfFragments, ..hole }, fragments.clone()));
        let touches = match to {
            Attribute::Private => &[What::GuestTouch][..],
            Attribute::Shared => &[What::HostTouch, What::GuestTouch],
        };
        for what in touches {
            all.push((Series { what: *what, ..base }, pages.clone()));
            all.push((Series { what: *what, ..hole }, pages.clone()));
        }
    }
    if platform.is_encrypted() {
        let launches = launches(platform, dialect);
        all.extend(launches.into_iter().map(|series| (series, pages.clone())));
    }
    all
}

/// What is measured with encrypted guests only, of pages that they use: the conversion in the other modes, requests for it,
/// and, where it is to shared, the way there and back.
fn of_encrypted(mapped: Series, modes: &[Mode]) -> Vec<Series> {
    let whats = match mapped.to {
        Attribute::Private => &[What::Conversion, What::GuestRequest][..],
        Attribute::Shared => &[What::Conversion, What::GuestRequest, What::RoundTrip],
    };
    let each = modes.iter().flat_map(|mode| whats.iter().map(move |what| (*mode, *what)));
    let each = each.map(|(mode, what)| Series { what, mode, ..mapped });
    each.filter(|series| *series != mapped).collect()
}

/// Launch calls: with contents from elsewhere for holes and for memory, in place for memory that was made private in each
/// mode.
fn launches(platform: Platform, dialect: Dialect) -> Vec<Series> {
    let copied = Series {
        platform,
        what: What::LaunchCopied,
        to: Attribute::Private,
        mode: Mode::Unspecified,
        backing: Backing::Allocated,
        host_mapped: false,
        guest_mapped: false,
        vcpus: 0,
    };
    let modes = modes(platform, dialect, Attribute::Private, false);
    let in_place = |mode| Series { what: What::LaunchInPlace, mode, ..copied };
    let holes = Series { backing: Backing::Hole, ..copied };
    [copied, holes].into_iter().chain(modes.into_iter().map(in_place)).collect()
}

/// The times of one round.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// Each in nanoseconds.
    pub ns: Vec<u64>,
    /// How often a conversion that was to be timed was refused with EAGAIN. It was made again, and only then counted.
    pub refused: u32,
}

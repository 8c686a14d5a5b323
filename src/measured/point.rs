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
    /// Whether the guest has every page mapped, by a read.
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
    /// After the conversion: the guest reads a word of each page, and what it takes to have it do so.
    GuestTouch,
}

impl What {
    /// What the costs of a series grow with.
    pub fn unit(self) -> &'static str {
        match self {
            What::Conversion | What::HostTouch | What::GuestTouch => "page",
            What::Fragments | What::OneOfFragments => "fragment",
        }
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
    /// Its name in tables and on the command line: `sw-protected.to-private.zero.allocated`, and what is special.
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

/// The series of a platform with private memory and their sizes, from the smallest. Guests that are encrypted are not told
/// to touch pages, which they would have to accept first, nor given more vCPUs, which would have to be launched with them.
pub fn series(platform: Platform, dialect: Dialect, extent: Extent) -> Vec<(Series, Vec<u64>)> {
    let sizes = |from: u64, to: u64| -> Vec<u64> {
        std::iter::successors(Some(from), |size| size.checked_mul(STEP))
            .take_while(|size| *size <= to)
            .collect()
    };
    let pages = sizes(1, extent.pages);
    let fragments = sizes(STEP, extent.fragments);
    let offered = |to, mode| mode_offered(platform, dialect, to, mode, true);
    let both = [Attribute::Private, Attribute::Shared];
    // The mode that leaves the contents alone, so that what is measured is the rest.
    let keeps = both.into_iter().all(|to| offered(to, Mode::Preserve));
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
        for mode in Mode::ALL.into_iter().filter(|mode| offered(to, *mode)) {
            all.push((Series { mode, ..base }, pages.clone()));
        }
        let hole = Series { backing: Backing::Hole, ..base };
        all.push((hole, pages.clone()));
        all.push((Series { backing: Backing::Reserved, ..base }, pages.clone()));
        all.push((Series { guest_mapped: true, ..base }, pages.clone()));
        if to == Attribute::Private {
            all.push((Series { host_mapped: true, ..base }, pages.clone()));
            all.push((Series { host_mapped: true, guest_mapped: true, ..base }, pages.clone()));
        }
        for vcpus in [1, 2, 4, 16, 64, 256] {
            if vcpus <= extent.vcpus {
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
    all.retain(|(series, _)| {
        let guest = series.guest_mapped || series.vcpus > 0 || series.what == What::GuestTouch;
        !(platform.is_encrypted() && guest)
    });
    all
}

/// The times of one round.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// Each in nanoseconds.
    pub ns: Vec<u64>,
    /// How often a conversion that was to be timed was refused with EAGAIN. It was made again, and only then counted.
    pub refused: u32,
}

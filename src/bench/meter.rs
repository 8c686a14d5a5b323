// SPDX-License-Identifier: GPL-2.0-only
//! Taking times: in a worker.

use std::ops::Range;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::case::{Attribute, Mode};
use crate::dialect::Dialect;
use crate::errno::Errno;
use crate::exec::{Rig, RigError, RigFile, TRANSIENT_TRIES};
use crate::machine::{self, Machine, MachineConfig, OpenError};
use crate::measured::{Backing, Point, Series, Times, What};
use crate::oracle::mode_offered;
use crate::platform::GuestStop;
use crate::uapi::PAGE_SIZE;

/// The most times that are taken of one point in one round.
const MOST_SAMPLES: usize = 32;

/// No further time is taken of a point once a round of it has lasted so long. Several times average out what one
/// interrupt does; the rounds average out what the machine does meanwhile.
const ROUND: Duration = Duration::from_millis(20);

/// How long the guest may take for one command.
const PATIENCE: Duration = Duration::from_secs(25);

/// Why nothing could be measured. To be read after "failed to".
#[derive(Debug, Error)]
pub enum MeterError {
    /// The machine cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The guest or its memory cannot be made.
    #[error(transparent)]
    Rig(#[from] RigError),
    /// Pages cannot be allocated.
    #[error("fallocate: {0}")]
    Allocate(#[source] Errno),
    /// The memory of pages cannot be taken away.
    #[error("punch a hole: {0}")]
    Punch(#[source] Errno),
    /// The guest cannot touch the pages.
    #[error("touch pages from the guest: {0}")]
    GuestTouch(#[source] GuestStop),
    /// Nobody can tell a guest to touch pages while its vCPUs are running.
    #[error("touch pages from a guest whose vCPUs are running")]
    GuestRunning,
    /// The same of requests.
    #[error("ask for pages from a guest whose vCPUs are running")]
    RequestRunning,
    /// The host cannot touch the pages.
    #[error("touch pages from the host: SIGBUS")]
    HostTouch,
    /// A conversion is refused.
    #[error("convert to {to}: {errno}")]
    Convert {
        /// What the pages were to become.
        to: Attribute,
        /// Why.
        errno: Errno,
    },
}

/// Measures points one after the other, each in a VM of its own: in one that was used before, KVM still has page tables
/// from then, and a conversion that looks through them costs several times as much.
pub struct Meter {
    config: MachineConfig,
    machine: Option<Box<dyn Machine>>,
}

impl Meter {
    /// Measures on this machine.
    pub fn new(config: MachineConfig) -> Meter {
        Meter { config, machine: None }
    }

    /// Takes one round of times.
    pub fn measure(&mut self, point: &Point) -> Result<Times, MeterError> {
        let machine = match self.machine.take() {
            Some(machine) => machine,
            None => machine::open(&self.config)?,
        };
        let machine = &**self.machine.insert(machine);
        let Series { platform, what, vcpus, .. } = point.series;
        let round = Round::new(point, &self.config);
        if what.is_launch() {
            return round.launches(machine);
        }
        let mut rig = Rig::new(machine, platform, point.size, Attribute::Shared, PATIENCE)?;
        round.prepare(&mut rig)?;
        match vcpus {
            0 => round.run(&mut rig),
            _ => rig.while_running(machine, vcpus, |file| round.run(&mut Host(file)))?,
        }
    }
}

/// Who takes the times: with a guest that can be told to do things, or without.
trait Stage {
    fn file(&self) -> &RigFile;
    /// Makes the conversion once, and says how long the call took.
    fn time_conversion(
        &mut self,
        pages: &Range<u64>,
        to: Attribute,
        flags: u64,
    ) -> (Result<(), Errno>, Duration);
    fn guest_touch(&mut self, pages: &Range<u64>) -> Result<(), MeterError>;
    fn time_guest_request(&mut self, to: Attribute, flags: u64) -> Result<Duration, MeterError>;

    /// Converts, again as often as a page is in flight.
    fn convert(&mut self, pages: &Range<u64>, to: Attribute, flags: u64) -> Result<(), MeterError> {
        self.time_conversion_patiently(pages, to, flags, &mut 0).map(drop)
    }

    /// Converts as [`Stage::convert`] does, and returns the time of the call that succeeded. `refused` counts the calls
    /// that ended with EAGAIN.
    fn time_conversion_patiently(
        &mut self,
        pages: &Range<u64>,
        to: Attribute,
        flags: u64,
        refused: &mut u32,
    ) -> Result<Duration, MeterError> {
        loop {
            match self.time_conversion(pages, to, flags) {
                (Ok(()), time) => return Ok(time),
                (Err(Errno::EAGAIN), _) if *refused < TRANSIENT_TRIES => *refused += 1,
                (Err(errno), _) => return Err(MeterError::Convert { to, errno }),
            }
        }
    }
}

impl Stage for Rig {
    fn file(&self) -> &RigFile {
        &self.file
    }

    fn time_conversion(
        &mut self,
        pages: &Range<u64>,
        to: Attribute,
        flags: u64,
    ) -> (Result<(), Errno>, Duration) {
        Rig::time_conversion(self, pages, to, flags)
    }

    fn guest_touch(&mut self, pages: &Range<u64>) -> Result<(), MeterError> {
        Rig::guest_touch(self, pages).map_err(MeterError::GuestTouch)
    }

    fn time_guest_request(&mut self, to: Attribute, flags: u64) -> Result<Duration, MeterError> {
        Ok(Rig::time_guest_request(self, to, flags)?)
    }
}

/// While vCPUs are running, none of them is told anything.
struct Host<'a>(&'a RigFile);

impl Stage for Host<'_> {
    fn file(&self) -> &RigFile {
        self.0
    }

    fn time_conversion(
        &mut self,
        pages: &Range<u64>,
        to: Attribute,
        flags: u64,
    ) -> (Result<(), Errno>, Duration) {
        self.0.time_conversion(pages, to, flags)
    }

    fn guest_touch(&mut self, _: &Range<u64>) -> Result<(), MeterError> {
        Err(MeterError::GuestRunning)
    }

    fn time_guest_request(&mut self, _: Attribute, _: u64) -> Result<Duration, MeterError> {
        Err(MeterError::RequestRunning)
    }
}

/// A round of one point.
struct Round<'a> {
    point: &'a Point,
    from: Attribute,
    /// The flags that keep the contents, for conversions that are not timed.
    keep: u64,
}

impl Round<'_> {
    fn new<'a>(point: &'a Point, config: &MachineConfig) -> Round<'a> {
        let keep = config.dialect.map_or(0, |dialect| keep(&point.series, dialect));
        Round { point, from: from(&point.series), keep }
    }

    /// All pages of the range, which the file consists of.
    fn pages(&self) -> Range<u64> {
        0..self.point.size
    }

    /// Gives pages, which are shared holes, their backing; nobody has them mapped.
    fn prepare(&self, rig: &mut Rig) -> Result<(), MeterError> {
        let pages = self.pages();
        match self.point.series.backing {
            Backing::Hole => {}
            Backing::Reserved => {
                rig.file.allocate(&pages).map_err(MeterError::Allocate)?;
            }
            Backing::Allocated => {
                touch(&rig.file, &pages)?;
                // Takes the host's mapping away.
                Stage::convert(rig, &pages, Attribute::Private, self.keep)?;
            }
        }
        Stage::convert(rig, &pages, self.from, self.keep)
    }

    /// Takes times of the launch, each of a guest of its own.
    fn launches(&self, machine: &dyn Machine) -> Result<Times, MeterError> {
        let Series { platform, what, to, mode, backing, .. } = self.point.series;
        let contents = vec![0x5a; (self.point.size * PAGE_SIZE) as usize];
        let contents = (what == What::LaunchCopied).then_some(&contents[..]);
        let mut times = Times::default();
        let start = Instant::now();
        while times.ns.is_empty() || times.ns.len() < MOST_SAMPLES && start.elapsed() < ROUND {
            let pages = self.pages();
            let mut rig =
                Rig::begin(machine, platform, self.point.size, Attribute::Shared, PATIENCE)?;
            if backing == Backing::Allocated {
                touch(&rig.file, &pages)?;
            }
            Stage::convert(&mut rig, &pages, to, mode.bits())?;
            times.ns.push(nanoseconds(rig.time_launch(contents)?));
        }
        Ok(times)
    }

    /// Takes times, after one that does not count.
    fn run(&self, stage: &mut impl Stage) -> Result<Times, MeterError> {
        let Series { what, backing, .. } = self.point.series;
        let mut times = Times::default();
        if what == What::OneOfFragments {
            self.fragment(stage)?;
        }
        let start = Instant::now();
        let mut warm = false;
        while times.ns.is_empty() || times.ns.len() < MOST_SAMPLES && start.elapsed() < ROUND {
            let mut refused = 0;
            let time = self.sample(stage, &mut refused)?;
            // Large ranges are warm enough: the pages before warm up for those behind, and the rounds begin with one that does not count.
            if warm || start.elapsed() > ROUND {
                times.ns.push(nanoseconds(time));
                times.refused += refused;
            }
            warm = true;
            // A hole that was touched is none any more.
            if backing == Backing::Hole && matches!(what, What::HostTouch | What::GuestTouch) {
                stage.file().punch(&self.pages()).map_err(MeterError::Punch)?;
            }
        }
        Ok(times)
    }

    /// Converts and times, and puts the pages back.
    fn sample(&self, stage: &mut impl Stage, refused: &mut u32) -> Result<Duration, MeterError> {
        let Series { what, to, mode, host_mapped, guest_mapped, .. } = self.point.series;
        let pages = match what {
            What::OneOfFragments => self.one(),
            _ => self.pages(),
        };
        if what == What::Fragments {
            self.fragment(stage)?;
        }
        if host_mapped {
            touch(stage.file(), &pages)?;
        }
        if guest_mapped {
            stage.guest_touch(&pages)?;
        }
        if what == What::GuestRequest {
            let time = stage.time_guest_request(to, mode.bits())?;
            stage.convert(&pages, self.from, self.keep)?;
            return Ok(time);
        }
        let beginning = Instant::now();
        let converted = stage.time_conversion_patiently(&pages, to, mode.bits(), refused)?;
        let start = Instant::now();
        let time = match what {
            What::HostTouch => {
                touch(stage.file(), &pages)?;
                start.elapsed()
            }
            What::GuestTouch => {
                stage.guest_touch(&pages)?;
                start.elapsed()
            }
            What::RoundTrip => {
                stage.convert(&pages, self.from, self.keep)?;
                stage.guest_touch(&pages)?;
                return Ok(beginning.elapsed());
            }
            _ => converted,
        };
        stage.convert(&pages, self.from, self.keep)?;
        Ok(time)
    }

    /// The page that is converted in a fragmented file, in the middle of it. It has the attribute `from`.
    fn one(&self) -> Range<u64> {
        let middle = (self.point.size / 2) & !1;
        middle..middle + 1
    }

    /// Gives every second page the wanted attribute. All have the other.
    fn fragment(&self, stage: &mut impl Stage) -> Result<(), MeterError> {
        let mut pages = (1..self.point.size).step_by(2);
        pages.try_for_each(|page| stage.convert(&(page..page + 1), self.point.series.to, self.keep))
    }
}

/// The attribute that pages of a series have before the conversion.
fn from(series: &Series) -> Attribute {
    match series.to {
        Attribute::Shared => Attribute::Private,
        Attribute::Private => Attribute::Shared,
    }
}

/// The flags that keep the contents, for the conversions of a series that are not timed, where there are such.
pub(super) fn keep(series: &Series, dialect: Dialect) -> u64 {
    let keeps = |to| mode_offered(series.platform, dialect, to, Mode::Preserve, true);
    match keeps(series.to) && keeps(from(series)) {
        true => Mode::Preserve.bits(),
        false => Mode::Unspecified.bits(),
    }
}

/// At least 1: a clock may be too coarse to see a call.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1)
}

fn touch(file: &RigFile, pages: &Range<u64>) -> Result<(), MeterError> {
    file.host_touch(pages).map_err(|_| MeterError::HostTouch)
}

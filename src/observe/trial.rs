// SPDX-License-Identifier: GPL-2.0-only
//! Bringing a situation about, converting, and looking: in a worker.

use std::ops::Range;
use std::time::Duration;

use thiserror::Error;

use crate::case::Attribute;
use crate::errno::Errno;
use crate::exec::{Rig, RigError, pattern_bytes};
use crate::machine::{self, Machine, MachineConfig, OpenError};
use crate::measured::{Backing, History, PageSight, Phase, Seen, Spot, Trial};
use crate::oracle::PageBytes;
use crate::payload::pattern;
use crate::platform::{GuestStop, Platform};
use crate::uapi::PAGE_SIZE;

/// Pages that are converted at once. More than one, since a kernel may treat the first differently.
pub(super) const PAGES: Range<u64> = 0..4;

/// How long the guest may take for one command.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pattern that is converted, and the one that is there before a conversion that is history. The salt is arbitrary,
/// and the same each time, so that ciphertext of the same plaintext can be told from random bytes.
const PATTERN: u64 = pattern::tag(b'O', 0x0b5);
const OLD_PATTERN: u64 = pattern::tag(b'H', 0x0b5);

/// Why a situation could not be brought about. To be read after "failed to".
#[derive(Debug, Error)]
pub enum TrialError {
    /// The machine cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The guest or its memory cannot be made.
    #[error(transparent)]
    Rig(#[from] RigError),
    /// Pages cannot be allocated.
    #[error("fallocate: {0}")]
    Allocate(#[source] Errno),
    /// The host cannot write a page.
    #[error("write page {0} from the host: SIGBUS")]
    HostWrite(u64),
    /// The guest cannot write the pages.
    #[error("write the pages from the guest: {0}")]
    GuestWrite(#[source] GuestStop),
    /// A conversion that belongs to the history is refused.
    #[error("convert the pages to {to} beforehand: {errno}")]
    Convert {
        /// What the pages were to become.
        to: Attribute,
        /// Why.
        errno: Errno,
    },
}

/// Tries situations one after the other, in one VM as long as it works.
pub struct Observer {
    config: MachineConfig,
    machine: Option<Box<dyn Machine>>,
    rig: Option<(Platform, Rig)>,
}

impl Observer {
    /// Observes this machine.
    pub fn new(config: MachineConfig) -> Observer {
        Observer { config, machine: None, rig: None }
    }

    /// Brings `spot` about in a fresh guest_memfd and looks at what the conversion does. Every other trial the guest looks
    /// first.
    pub fn observe(&mut self, spot: &Spot, trial: u32) -> Result<Trial, TrialError> {
        let mut rig = self.rig(spot)?;
        let before = prepare(&mut rig, spot)?;
        let conversion = match rig.convert(spot.to, spot.mode.bits()) {
            Ok(0) => "success".to_string(),
            Ok(_) => "success after EAGAIN".to_string(),
            Err(errno) => errno.to_string(),
        };
        let mut unlaunched = None;
        if spot.phase == Phase::Launching {
            unlaunched = rig.finish_launch()?;
        }
        let guest_sees = |rig: &mut Rig| -> Vec<PageSight> {
            match &unlaunched {
                None => look_guest(rig, &before),
                Some(why) => before
                    .iter()
                    .map(|_| PageSight::none(Seen::NoAccess(format!("failed to {why}"))))
                    .collect(),
            }
        };
        let (host, guest);
        if trial.is_multiple_of(2) {
            host = look_host(&rig, &before);
            guest = guest_sees(&mut rig);
        } else {
            guest = guest_sees(&mut rig);
            host = look_host(&rig, &before);
        }
        // A guest that was stopped is somewhere inside a command, and no launch begins again.
        if spot.phase == Phase::Running
            && !guest.iter().any(|sight| matches!(sight.seen, Seen::NoAccess(_)))
        {
            self.rig = Some((spot.platform, rig));
        }
        Ok(Trial { conversion, host, guest })
    }

    /// The VM of the last trial with a fresh file, or a new one.
    fn rig(&mut self, spot: &Spot) -> Result<Rig, TrialError> {
        if let Some((platform, mut rig)) = self.rig.take()
            && platform == spot.platform
            && spot.phase == Phase::Running
        {
            rig.renew(PAGES.end, spot.from)?;
            return Ok(rig);
        }
        let machine = match self.machine.take() {
            Some(machine) => machine,
            None => machine::open(&self.config)?,
        };
        let machine = self.machine.insert(machine);
        let mut rig = Rig::begin(&**machine, spot.platform, PAGES.end, spot.from, PATIENCE)?;
        if spot.phase == Phase::Running {
            rig.finish()?;
        }
        Ok(rig)
    }
}

/// Gives the pages their backing and history; what then is in each.
fn prepare(rig: &mut Rig, spot: &Spot) -> Result<Vec<PageBytes>, TrialError> {
    let reserve = |rig: &Rig| rig.file.allocate(&PAGES).map_err(TrialError::Allocate);
    let written = match (spot.history, spot.backing) {
        (History::Untouched, Backing::Reserved) => {
            reserve(rig)?;
            false
        }
        (History::Untouched, _) => false,
        (History::HostWritten, _) => {
            for page in PAGES {
                let written = rig.file.host_write(page, PATTERN);
                written.map_err(|_| TrialError::HostWrite(page))?;
            }
            true
        }
        (History::GuestWritten, _) => {
            guest_write(rig, PATTERN)?;
            true
        }
        (History::Converted, backing) => {
            match backing {
                Backing::Allocated => guest_write(rig, OLD_PATTERN)?,
                Backing::Reserved => reserve(rig)?,
                Backing::Hole => {}
            }
            let away = match spot.from {
                Attribute::Shared => Attribute::Private,
                Attribute::Private => Attribute::Shared,
            };
            for to in [away, spot.from] {
                rig.convert(to, 0).map_err(|errno| TrialError::Convert { to, errno })?;
            }
            if backing == Backing::Allocated {
                guest_write(rig, PATTERN)?;
            }
            backing == Backing::Allocated
        }
    };
    let contents = |page| match written {
        true => pattern_bytes(PATTERN, page),
        false => [0; PAGE_SIZE as usize],
    };
    Ok(PAGES.map(contents).collect())
}

fn guest_write(rig: &mut Rig, tag: u64) -> Result<(), TrialError> {
    rig.guest_write(&PAGES, tag).map_err(TrialError::GuestWrite)
}

fn look_host(rig: &Rig, before: &[PageBytes]) -> Vec<PageSight> {
    let look = |(page, before)| match rig.file.host_read(page) {
        Ok(found) => PageSight::of(&found, before),
        Err(_) => PageSight::none(Seen::Sigbus),
    };
    PAGES.zip(before).map(look).collect()
}

fn look_guest(rig: &mut Rig, before: &[PageBytes]) -> Vec<PageSight> {
    let look = |(page, before)| match rig.guest_read(page) {
        Ok(found) => PageSight::of(&found, before),
        Err(stop) => PageSight::none(Seen::NoAccess(stopped(&stop))),
    };
    PAGES.zip(before).map(look).collect()
}

/// What stopped the guest, without addresses, which differ from page to page.
fn stopped(stop: &GuestStop) -> String {
    match stop {
        GuestStop::Mmio { .. } => "KVM_EXIT_MMIO".to_string(),
        GuestStop::MemoryFault { flags, .. } => format!("KVM_EXIT_MEMORY_FAULT, flags {flags:#x}"),
        GuestStop::Exception { vector, .. } => format!("exception {vector}"),
        GuestStop::Hang { .. } => "hang".to_string(),
        other => other.to_string(),
    }
}

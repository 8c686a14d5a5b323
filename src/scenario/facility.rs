// SPDX-License-Identifier: GPL-2.0-only
//! What some scenarios need of the kernel besides KVM. Whether it is there is only known by trying it.

use strum::VariantArray;

use super::fail_nth::FailNth;
use super::{gup_test, io_uring};
use crate::errno::Errno;
use crate::machine::{HostView, Machine, Result};
use crate::platform::Platform;
use crate::results::{Environment, Need};
use crate::uapi::{
    GUEST_MEMFD_FLAG_INIT_SHARED, GUEST_MEMFD_FLAG_MMAP, KVM_CAP_VM_TYPES, PAGE_SIZE,
};

/// Something that a scenario needs of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum Facility {
    /// fail-nth and debugfs: allocations of one's own can be made to fail.
    FailNth,
    /// A page of a guest_memfd can be a registered buffer of an io_uring.
    #[strum(serialize = "pin.io-uring")]
    IoUring,
    /// A page of a guest_memfd can be pinned by GUP_TEST.
    #[strum(serialize = "pin.gup-test")]
    GupTest,
}

impl Facility {
    /// Every one.
    pub const ALL: [Facility; Facility::VARIANTS.len()] =
        *Facility::VARIANTS.first_chunk().unwrap();

    /// Its name among the environment's capabilities.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Why it cannot be had, or `None` where it can.
    pub fn unmet(self, environment: &Environment) -> Option<Need> {
        let answer = environment.capabilities.get(self.name()).copied();
        if answer.is_some_and(|answer| answer > 0) {
            return None;
        }
        let slug = match self {
            Facility::FailNth => "no-fail-nth",
            Facility::IoUring => "no-pin-io-uring",
            Facility::GupTest => "no-pin-gup-test",
        };
        let Some(answer) = answer else {
            return Some(Need::new(slug, "the model has no kernel around it: it is for /dev/kvm"));
        };
        let errno = Errno(i32::try_from(-answer).unwrap_or(0));
        let prose = match self {
            Facility::FailNth => format!(
                "allocations cannot be made to fail ({errno}): it takes CONFIG_FAILSLAB, \
                 CONFIG_FAULT_INJECTION_DEBUG_FS, debugfs at /sys/kernel/debug, and root"
            ),
            Facility::IoUring => format!(
                "a page of a guest_memfd cannot be a registered buffer of an io_uring here ({errno}): the kernel \
                 has no io_uring, forbids it (kernel.io_uring_disabled), or does not pin such a page"
            ),
            Facility::GupTest => format!(
                "GUP_TEST does not pin a page of a guest_memfd here ({errno}): it takes CONFIG_GUP_TEST, debugfs \
                 at /sys/kernel/debug, and root"
            ),
        };
        Some(Need::new(slug, prose))
    }
}

/// Tries every facility of the kernel below `machine`, which is /dev/kvm. As among the capabilities: 1, or the error
/// number as a negative number.
pub(crate) fn ask(machine: &dyn Machine) -> Vec<(String, i64)> {
    let answer = |facility| match facility {
        Facility::FailNth => FailNth::open().map(drop),
        Facility::IoUring => pin_scratch(machine, |view| io_uring::pin(view, 0).map(drop)),
        Facility::GupTest => pin_scratch(machine, |view| {
            gup_test::pin(view, 0, true)?;
            gup_test::pin(view, 0, false).map(drop)
        }),
    };
    Facility::ALL
        .into_iter()
        .map(|facility| {
            let value = answer(facility).map_or_else(|errno| -i64::from(errno.0), |()| 1);
            (facility.name().to_string(), value)
        })
        .collect()
}

/// Tries a pin on a guest_memfd that nobody uses.
fn pin_scratch(machine: &dyn Machine, pin: impl FnOnce(&dyn HostView) -> Result<()>) -> Result<()> {
    let types = machine.check_extension(KVM_CAP_VM_TYPES)?;
    // Pages of encrypted guests are never pinned.
    let offered = |platform: &Platform| platform.is_among(types) && !platform.is_encrypted();
    let platform = Platform::ALL.into_iter().rfind(offered).unwrap_or(Platform::Default);
    let vm = machine.create_vm(platform.vm_type())?;
    let flags = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED;
    let gmem = vm.create_guest_memfd(PAGE_SIZE, flags)?;
    pin(&*gmem.mmap(0, PAGE_SIZE)?)
}

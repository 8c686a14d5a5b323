// SPDX-License-Identifier: GPL-2.0-only
//! Where a case makes sense, and what it lacks there.

use crate::case::{Attribute, Case, Requirement};
use crate::errno::Errno;
use crate::oracle::mode_offered;
use crate::platform::Platform;
use crate::results::{Environment, Need};
use crate::scenario::Scenario;
use crate::uapi::{GUEST_MEMFD_FLAG_INIT_SHARED, GUEST_MEMFD_FLAG_MMAP};

/// The platforms that a case is planned on: those that it names, or all that have private memory which nothing encrypts.
/// What a case says about contents seldom holds where a conversion makes noise of them; a case that makes sense there
/// names these platforms.
pub fn platforms_of(case: &Case) -> Vec<Platform> {
    let named = case.needs.iter().find_map(|need| match need {
        Requirement::Platform(platforms) => Some(platforms.clone()),
        _ => None,
    });
    named.unwrap_or_else(|| {
        let plain = |p: &Platform| p.has_private_memory() && !p.is_encrypted();
        Platform::ALL.into_iter().filter(plain).collect()
    })
}

/// Everything that a case needs on a platform and that is not there.
pub fn unmet(case: &Case, platform: Platform, environment: &Environment) -> Vec<Need> {
    let mut unmet = missing(platform, environment);
    if case.converts_nothing() && has_shared_guest_memfd(platform, environment) {
        unmet.retain(|need| need.slug != Need::NO_CONVERSION);
    }
    // Without a dialect the platform is missing, and nothing more can be said.
    let Some(dialect) = environment.dialect.filter(|_| unmet.is_empty()) else {
        return unmet;
    };
    for need in &case.needs {
        match need {
            Requirement::Platform(_) => {}
            Requirement::Dialect(dialects) if dialects.contains(&dialect) => {}
            Requirement::Dialect(dialects) => {
                let names: Vec<&str> = dialects.iter().map(|d| d.name()).collect();
                // That a kernel has no content modes is the more telling reason.
                unmet.push(
                    if !dialect.has_content_modes()
                        && dialects.iter().all(|d| d.has_content_modes())
                    {
                        no_content_modes()
                    } else {
                        let prose = format!(
                            "the case is about {}, the machine speaks {dialect}",
                            names.join(" and ")
                        );
                        Need::new(format!("dialect-{dialect}"), prose)
                    },
                );
            }
            Requirement::Mode(_) if !dialect.has_content_modes() => unmet.push(no_content_modes()),
            Requirement::Mode(mode) => {
                let offered = [Attribute::Shared, Attribute::Private]
                    .into_iter()
                    .any(|to| mode_offered(platform, dialect, to, *mode, true));
                if !offered {
                    let prose =
                        format!("{platform} VMs do not offer the content mode {mode} in {dialect}");
                    unmet.push(Need::new(format!("no-mode-{mode}"), prose));
                }
            }
            Requirement::PreFault if offers_pre_fault(environment) => {}
            Requirement::PreFault => unmet.push(Need::new(
                "no-pre-fault",
                "KVM does not have KVM_PRE_FAULT_MEMORY, which came with Linux 6.11 and needs the TDP MMU",
            )),
            Requirement::LaunchInPlace => unmet.extend(no_launch_in_place(platform, environment)),
            Requirement::CapabilityNumber(capability)
                if environment.capabilities.contains_key(capability.constant()) => {}
            Requirement::CapabilityNumber(capability) => {
                let prose = format!(
                    "the number of {} is not known: give --kernel-headers DIR of a kernel that has it",
                    capability.constant()
                );
                unmet.push(Need::new("no-capability-number", prose));
            }
        }
    }
    unmet.dedup();
    unmet
}

/// Whether VMs of a platform have a guest_memfd that host and guest share, conversions or not: default VMs, from Linux 6.18
/// on, which lists the flags for it.
fn has_shared_guest_memfd(platform: Platform, environment: &Environment) -> bool {
    let shared = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED;
    let listed = environment.capabilities.get("KVM_CAP_GUEST_MEMFD_FLAGS").copied().unwrap_or(0);
    platform == Platform::Default && listed > 0 && listed as u64 & shared == shared
}

fn offers_pre_fault(environment: &Environment) -> bool {
    environment.capabilities.get("KVM_CAP_PRE_FAULT_MEMORY").is_some_and(|answer| *answer > 0)
}

/// Why launch calls of a platform's guests must be given a source, or `None` if they need none.
fn no_launch_in_place(platform: Platform, environment: &Environment) -> Option<Need> {
    let answer = environment.capabilities.get(&platform.launch_in_place()).copied();
    let why = match answer {
        Some(1) => return None,
        Some(errno) => Errno(i32::try_from(-errno).unwrap_or(0)).to_string(),
        None => "it could not be asked".to_string(),
    };
    let prose = format!("the launch calls of {platform} guests do not take pages in place ({why})");
    Some(Need::new("no-launch-in-place", prose))
}

/// Everything that a scenario needs on a platform and that is not there.
pub(super) fn unmet_by_scenario(
    scenario: &Scenario,
    platform: Platform,
    environment: &Environment,
) -> Vec<Need> {
    let missing = missing(platform, environment);
    if !missing.is_empty() {
        return missing;
    }
    scenario.needs.and_then(|facility| facility.unmet(environment)).into_iter().collect()
}

/// Why a platform cannot run here; empty when it can.
fn missing(platform: Platform, environment: &Environment) -> Vec<Need> {
    match environment.platforms.iter().find(|p| p.name == platform.name()) {
        Some(state) => state.missing.clone(),
        None => vec![Need::new("unknown-platform", format!("nothing is known of {platform} here"))],
    }
}

fn no_content_modes() -> Need {
    Need::new("no-content-modes", "this revision of the interface has no content modes")
}

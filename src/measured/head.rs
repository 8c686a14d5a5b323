// SPDX-License-Identifier: GPL-2.0-only
//! What stands first in the files that `observe` and `bench` write: what was measured, and where.

use std::collections::BTreeMap;
use std::fs;

use serde::{Deserialize, Serialize};

use crate::clock::now_ms;
use crate::platform::Platform;
use crate::platform::cpuinfo_field;
use crate::results::{Environment, suite};
use crate::text::ascii;

/// What was measured, and where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Head {
    /// Version of the file's format. The format changes by additions only, as that of results files.
    pub schema: u32,
    /// Name and version of the program, with its commit where it is known.
    pub suite: String,
    /// The command line, without the program's name.
    pub arguments: Vec<String>,
    /// Where it took place.
    pub environment: Environment,
    /// The machine's firmware as far as Linux names it: `bios`, `microcode`.
    pub firmware: BTreeMap<String, String>,
    /// When it began, in milliseconds since 1970.
    pub started_ms: u64,
    /// How often everything was done.
    pub repeat: u32,
}

impl Head {
    /// Of something that begins now.
    pub fn new(schema: u32, arguments: Vec<String>, environment: Environment, repeat: u32) -> Head {
        Head {
            schema,
            suite: suite(),
            arguments,
            environment,
            firmware: firmware(),
            started_ms: now_ms(),
            repeat,
        }
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let environment = &self.environment;
        let dialect = environment.dialect.map_or("unknown", |dialect| dialect.name());
        let planted = environment.planted_fault.as_deref();
        let planted = planted.map_or(String::new(), |fault| format!(", planted fault {fault}"));
        ascii(&format!(
            "{}, machine {}, Linux {}, {} ({}), dialect {dialect}{planted}",
            self.suite,
            environment.machine,
            environment.kernel_release,
            environment.cpu,
            environment.kind_of_host(),
        ))
    }
}

fn firmware() -> BTreeMap<String, String> {
    let read = |path: &str| fs::read_to_string(path).ok();
    let dmi = |field: &str| read(&format!("/sys/class/dmi/id/{field}"));
    let bios: Vec<String> =
        ["bios_vendor", "bios_version", "bios_date"].into_iter().filter_map(dmi).collect();
    let bios: Vec<&str> = bios.iter().map(|field| field.trim()).collect();
    let microcode = read("/proc/cpuinfo").map(|info| cpuinfo_field(&info, "microcode"));
    let known = [("bios", Some(bios.join(" "))), ("microcode", microcode)];
    known
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_string(), value.filter(|v| !v.is_empty())?)))
        .collect()
}

/// The platforms of `wanted`, or of all, that can run here; and a line for each that cannot.
pub(crate) fn runnable(
    environment: &Environment,
    wanted: Option<&[Platform]>,
) -> (Vec<Platform>, String) {
    let (mut platforms, mut missing) = (Vec::new(), String::new());
    for state in &environment.platforms {
        let Some(platform) = Platform::from_name(&state.name) else { continue };
        if wanted.is_some_and(|wanted| !wanted.contains(&platform)) {
            continue;
        }
        if state.missing.is_empty() {
            platforms.push(platform);
        }
        for need in &state.missing {
            let why = ascii(&format!("{}: {}", need.slug, need.prose));
            missing += &format!("{platform} cannot run: {why}\n");
        }
    }
    (platforms, missing)
}

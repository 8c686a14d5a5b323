// SPDX-License-Identifier: GPL-2.0-only
//! What a machine offers, for people.

use std::fmt::Write;

use crate::results::Environment;
use crate::text::ascii;

/// The text of `gmem-conform probe`.
pub(super) fn probe_text(environment: &Environment) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "{name:<12} {}", ascii(value));
        }
    };
    row("machine", &environment.machine);
    row("kernel", &environment.kernel_release);
    row("", &environment.kernel_version);
    row("boot", &environment.kernel_command_line);
    row("cpu", &environment.cpu);
    row("", &environment.virtualization);
    row("host", &environment.host);
    let forced = if environment.dialect_forced { " (forced)" } else { "" };
    let dialect = match environment.dialect {
        Some(dialect) => format!("{dialect}{forced}"),
        None => "unknown: the machine could not be asked".to_string(),
    };
    row("dialect", &dialect);
    row("fault", environment.planted_fault.as_deref().unwrap_or(""));

    text += "\nplatforms\n";
    for platform in &environment.platforms {
        if platform.missing.is_empty() {
            let _ = writeln!(text, "  {:<16} can run", ascii(&platform.name));
        }
        for (n, need) in platform.missing.iter().enumerate() {
            let name = if n == 0 { platform.name.as_str() } else { "" };
            let why = format!("{}: {}", need.slug, need.prose);
            let _ = writeln!(text, "  {:<16} {}", ascii(name), ascii(&why));
        }
    }
    section(&mut text, "capabilities", environment.capabilities.iter());
    section(&mut text, "parameters", environment.kvm_parameters.iter());
    if !environment.remarks.is_empty() {
        text += "\nremarks\n";
        for remark in &environment.remarks {
            let _ = writeln!(text, "  {}", ascii(remark));
        }
    }
    text
}

fn section<'a, V: std::fmt::Display + 'a>(
    text: &mut String,
    title: &str,
    entries: impl Iterator<Item = (&'a String, &'a V)>,
) {
    for (n, (name, value)) in entries.enumerate() {
        if n == 0 {
            let _ = write!(text, "\n{title}\n");
        }
        let _ = writeln!(text, "  {:<44} {}", ascii(name), ascii(&value.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Dialect;
    use crate::results::{Need, PlatformState};

    /// Everything that the probe found is shown, and every reason for what is missing.
    #[test]
    fn everything_is_shown() {
        let environment = Environment {
            machine: "host".into(),
            dialect: Some(Dialect::RfcV4),
            dialect_forced: true,
            kernel_release: "7.3.4".into(),
            cpu: "AMD EPYC".into(),
            virtualization: "bare-metal".into(),
            host: "bare-metal".into(),
            capabilities: [("KVM_CAP_GUEST_MEMFD".into(), 1)].into(),
            kvm_parameters: [("kvm_amd.sev_snp".into(), "N".into())].into(),
            platforms: vec![
                PlatformState { name: "sw-protected".into(), missing: vec![] },
                PlatformState {
                    name: "snp".into(),
                    missing: vec![
                        Need::new("no-snp", "kvm_amd.sev_snp is off"),
                        Need::new("no-sev-device", "/dev/sev is not there"),
                    ],
                },
            ],
            remarks: vec!["the kernel log cannot be read".into()],
            ..Environment::default()
        };
        insta::assert_snapshot!(probe_text(&environment));
    }
}

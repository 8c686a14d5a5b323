// SPDX-License-Identifier: GPL-2.0-only
//! Which lines of the kernel log mean that the kernel is broken.

/// Lines that a report keeps after the one that set it off, where no end marker comes.
const TRACE_LINES: usize = 40;

/// What the message of a broken kernel begins with. A kernel warning begins its line; `WARNING` within a line is mostly
/// advice to the administrator, and a fault of a *user* process begins with `traps:` or its name.
const BEGINNINGS: [&str; 12] = [
    "WARNING:",
    "BUG:",
    "watchdog: BUG:",
    "UBSAN:",
    "KASAN:",
    "Oops",
    "general protection fault",
    "rcu: INFO:",
    "INFO: rcu",
    "Kernel panic",
    "Internal error:",
    "double fault:",
];

/// What such a message contains, wherever it begins.
const CONTENTS: [&str; 5] = [
    "kernel BUG at",
    "unable to handle page fault for address",
    "unable to handle kernel",
    "kernel NULL pointer dereference",
    "detected hard LOCKUP",
];

/// Whether this line by itself says that the kernel is broken.
pub(crate) fn is_damage(line: &str) -> bool {
    BEGINNINGS.iter().any(|text| line.starts_with(text))
        || CONTENTS.iter().any(|text| line.contains(text))
        || is_die(line)
        || is_stuck_task(line)
}

/// `invalid opcode: 0000 [#1] SMP`: the counter that die() prints.
fn is_die(line: &str) -> bool {
    line.split_once(" [#").is_some_and(|(_, rest)| {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        digits > 0 && rest.as_bytes().get(digits) == Some(&b']')
    })
}

/// `INFO: task NAME:PID blocked for more than N seconds.`
fn is_stuck_task(line: &str) -> bool {
    line.starts_with("INFO: task ") && line.contains(" blocked ")
}

/// The lines of `log` that belong to a report of damage: those that set one off, each with what follows it up to the end
/// marker of its trace. Empty when the log has nothing worse than information.
pub(crate) fn damage(log: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut left = 0;
    for line in log {
        if is_damage(line) {
            left = TRACE_LINES;
        } else if left > 0 {
            left -= 1;
        } else {
            continue;
        }
        kept.push(line.clone());
        if line.contains("---[ end trace") {
            left = 0;
        }
    }
    kept
}

/// The messages of what was read from /dev/kmsg: records of `PRIORITY,SEQUENCE,MICROSECONDS,FLAGS[,...];MESSAGE`, each
/// followed by lines that begin with a space and hold its properties.
pub(crate) fn messages(records: &str) -> Vec<String> {
    records
        .lines()
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split_once(';'))
        .map(|(_, message)| message.to_string())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines that kernels print when they are broken.
    const DAMAGE: &[&str] = &[
        "WARNING: CPU: 3 PID: 1234 at arch/x86/kvm/mmu/tdp_mmu.c:812 tdp_mmu_zap_root+0x1f0/0x260 [kvm]",
        "WARNING: virt/kvm/guest_memfd.c:412 at kvm_gmem_set_attributes+0x3c1/0x5d0, CPU#1: gmem-conform/331",
        "WARNING: possible circular locking dependency detected",
        "WARNING: suspicious RCU usage",
        "BUG: kernel NULL pointer dereference, address: 0000000000000008",
        "BUG: unable to handle page fault for address: ffffea0004000034",
        "BUG: Bad page state in process gmem-conform  pfn:10e6d4",
        "BUG: KASAN: slab-use-after-free in kvm_gmem_release+0x1b1/0x3a0",
        "BUG: sleeping function called from invalid context at mm/memory.c:6951",
        "KASAN: null-ptr-deref in range [0x0000000000000008-0x000000000000000f]",
        "UBSAN: array-index-out-of-bounds in arch/x86/kvm/x86.c:1201:17",
        "kernel BUG at mm/filemap.c:153!",
        "Oops: 0002 [#1] PREEMPT SMP NOPTI",
        "Oops: general protection fault, probably for non-canonical address 0xdead000000000100: 0000 [#1] SMP",
        "general protection fault, probably for non-canonical address 0xdead000000000122: 0000 [#1] SMP",
        "invalid opcode: 0000 [#2] SMP NOPTI",
        "watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [gmem-conform:331]",
        "watchdog: CPU1: Watchdog detected hard LOCKUP on cpu 1",
        "INFO: task gmem-conform:331 blocked for more than 122 seconds.",
        "INFO: rcu_sched self-detected stall on CPU",
        "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
        "Kernel panic - not syncing: Fatal exception",
    ];

    /// Lines that healthy kernels print.
    const HARMLESS: &[&str] = &[
        "Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on, data leaks possible via Spectre v2 BHB attacks!",
        "kasan: KernelAddressSanitizer initialized",
        "traps: gmem-conform[331] general protection fault ip:401000 sp:7ffc0 error:0 in gmem-conform[401000+1f000]",
        "gmem-conform[331]: segfault at 0 ip 0000000000401000 sp 00007ffc1b2e7d40 error 6 in gmem-conform[401000+1f000]",
        "[Firmware Bug]: TSC ADJUST: CPU0: -101 force to 0",
        "L1TF CPU bug present and SMT on, data leak possible.",
        "kvm_amd: SEV-SNP enabled (ASIDs 1 - 99)",
        "kvm: SMP vm created on host with unstable TSC; guest TSC will not be reliable",
        "kvm_intel: KVM_SET_TSS_ADDR needs to be called before running vCPU",
        "mce: [Hardware Error]: Machine check events logged",
        "rcu: Hierarchical RCU implementation.",
        "RIP: 0033:0x7f2c4b1f2a3d",
        "perf: interrupt took too long (2503 > 2500), lowering kernel.perf_event_max_sample_rate to 79750",
        "audit: type=1400 audit(1767010203.123:45): apparmor=\"DENIED\" operation=\"open\" name=\"/BUG:\"",
        "hrtimer: interrupt took 41733 ns",
        "warning: `gmem-conform' uses 32-bit capabilities (legacy support in use)",
    ];

    /// Every line of a broken kernel is recognised.
    #[test]
    fn damage_is_recognised() {
        for line in DAMAGE {
            assert!(is_damage(line), "not recognised: {line}");
        }
    }

    /// No line of a healthy kernel is: a suite that cries wolf is switched off.
    #[test]
    fn harmless_lines_are_not() {
        for line in HARMLESS {
            assert!(!is_damage(line), "taken for damage: {line}");
        }
    }

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_string).collect()
    }

    /// A report is kept up to the end of its trace, and nothing around it.
    #[test]
    fn a_report_ends_with_its_trace() {
        let log = lines(
            "kvm: healthy\n\
             WARNING: CPU: 0 PID: 1 at mm/gup.c:70 x+0x1/0x2\n\
             RIP: 0010:x+0x1/0x2\n\
             Call Trace:\n\
             ---[ end trace 0000000000000000 ]---\n\
             kvm: healthy again",
        );
        assert_eq!(damage(&log), log[1..5]);
        assert_eq!(damage(&log[2..]), Vec::<String>::new());
    }

    /// A report without an end marker does not swallow the rest of the log.
    #[test]
    fn a_report_without_an_end_is_bounded() {
        let mut log = lines("INFO: task a:1 blocked for more than 122 seconds.");
        log.extend((0..100).map(|n| format!("usb: line {n}")));
        assert_eq!(damage(&log).len(), 1 + TRACE_LINES);
    }

    /// Records of /dev/kmsg lose their header and their properties; a message may hold the separators.
    #[test]
    fn records_become_messages() {
        let records = "4,1208,81237651,-,caller=T331;WARNING: a;b, c\n SUBSYSTEM=pci\n DEVICE=+pci:0\n\
                       6,1209,81237660,c;next\nnot a record\n";
        assert_eq!(messages(records), ["WARNING: a;b, c", "next"]);
    }
}

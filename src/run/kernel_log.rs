// SPDX-License-Identifier: GPL-2.0-only
//! Which lines of the kernel log mean that the kernel is broken, and which known report they are.

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

/// What names a known report, and the name. Each is damage wherever it stands in a line. The texts are those of the kernel's
/// sources: kernel/locking/lockdep.c, mm/kasan/report.c, kernel/kcsan/report.c, mm/kmsan/report.c, lib/ubsan.c,
/// mm/kfence/report.c, kernel/watchdog.c, kernel/rcu/tree_stall.h, lib/list_debug.c, mm/slub.c, lib/refcount.c, mm/memory.c,
/// mm/page_alloc.c, mm/pgtable-generic.c, kernel/fork.c, kernel/sched/core.c.
const KNOWN: [(&str, &str); 42] = [
    ("possible circular locking dependency detected", "lockdep"),
    ("possible recursive locking detected", "lockdep"),
    ("possible irq lock inversion dependency detected", "lockdep"),
    ("-unsafe lock order detected", "lockdep"),
    ("inconsistent lock state", "lockdep"),
    ("suspicious RCU usage", "lockdep"),
    ("bad unlock balance detected", "lockdep"),
    ("held lock freed!", "lockdep"),
    ("Invalid wait context", "lockdep"),
    ("lock held when returning to user space", "lockdep"),
    ("Nested lock was not taken", "lockdep"),
    ("KASAN: ", "KASAN"),
    ("BUG: KCSAN:", "KCSAN"),
    ("BUG: KMSAN:", "KMSAN"),
    ("UBSAN:", "UBSAN"),
    ("BUG: KFENCE:", "KFENCE"),
    ("soft lockup - CPU", "soft lockup"),
    ("detected hard LOCKUP", "hard lockup"),
    ("self-detected stall on CPU", "RCU stall"),
    ("detected stalls on CPUs/tasks", "RCU stall"),
    ("detected expedited stalls on CPUs/tasks", "RCU stall"),
    ("kthread starved for", "RCU stall"),
    ("list_add corruption", "list corruption"),
    ("list_add double add", "list corruption"),
    ("list_del corruption", "list corruption"),
    ("Redzone overwritten", "slab corruption"),
    ("Poison overwritten", "slab corruption"),
    ("Object already free", "slab corruption"),
    ("Freepointer corrupt", "slab corruption"),
    ("Freechain corrupt", "slab corruption"),
    ("adding overwritten", "slab corruption"),
    ("Wrong slab cache", "slab corruption"),
    ("refcount_t: ", "refcount_t"),
    ("BUG: Bad page state", "bad page"),
    ("BUG: Bad page map", "bad page table"),
    (": bad pmd ", "bad page table"),
    (": bad pud ", "bad page table"),
    (": bad pgd ", "bad page table"),
    ("BUG: non-zero pgtables_bytes", "bad page table"),
    ("BUG: Bad rss-counter state", "bad page table"),
    ("sleeping function called from invalid context", "sleep in atomic context"),
    ("scheduling while atomic", "sleep in atomic context"),
];

/// Reports that a kernel makes long after the cause.
const SLOW: [&str; 4] = ["soft lockup", "hard lockup", "RCU stall", "hung task"];

/// Who runs what others have put off: work queues, softirqs, RCU, the idle loop.
const PUT_OFF: [&str; 6] = [
    "Workqueue: ",
    "Comm: kworker/",
    "Comm: ksoftirqd/",
    "Comm: rcu",
    "Comm: swapper/",
    "Comm: migration/",
];

/// The name of the report that this line begins, if it is a known one.
pub(crate) fn name(line: &str) -> Option<&'static str> {
    if is_stuck_task(line) {
        return Some("hung task");
    }
    KNOWN.iter().find(|(text, _)| line.contains(text)).map(|(_, name)| *name)
}

/// Whether this line by itself says that the kernel is broken.
pub(crate) fn is_damage(line: &str) -> bool {
    BEGINNINGS.iter().any(|text| line.starts_with(text))
        || CONTENTS.iter().any(|text| line.contains(text))
        || is_die(line)
        || name(line).is_some()
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

/// The reports that `log`, as [`damage`] gives it, consists of.
fn reports(log: &[String]) -> Vec<&[String]> {
    let begins = |line: &String| is_damage(line);
    let mut starts: Vec<usize> = (0..log.len()).filter(|at| begins(&log[*at])).collect();
    starts.push(log.len());
    starts.windows(2).map(|pair| &log[pair[0]..pair[1]]).collect()
}

/// `log`, as [`damage`] gives it, with the reports that are known by name in front.
pub(crate) fn known_first(log: &[String]) -> Vec<String> {
    let (known, others): (Vec<_>, Vec<_>) =
        reports(log).into_iter().partition(|report| name(&report[0]).is_some());
    known.into_iter().chain(others).flatten().cloned().collect()
}

/// The line of `log` that tells the most, with the name of its report: none when there is no report.
pub(crate) fn most_telling(log: &[String]) -> Option<String> {
    let line = known_first(log).into_iter().next()?;
    Some(match name(&line) {
        Some(name) if !line.contains(name) => format!("{name}: {line}"),
        _ => line,
    })
}

/// Whether a report in `log` may have come long after its cause: made by whoever runs what others have put off, or by a
/// watchdog.
pub(crate) fn may_be_late(log: &[String]) -> bool {
    log.iter().any(|line| {
        name(line).is_some_and(|name| SLOW.contains(&name))
            || PUT_OFF.iter().any(|text| line.contains(text))
    })
}

/// The message in a line of a kernel's console: without the time, the caller and the end of the line.
pub(crate) fn console_message(line: &str) -> String {
    let mut rest = line.trim_end();
    // `[    1.234567]`, and with CONFIG_PRINTK_CALLER `[   T33]` or `[    C1]`.
    let is_stamp = |inside: &str| {
        let inside = inside.trim_start().trim_start_matches(['T', 'C']);
        !inside.is_empty() && inside.bytes().all(|b| b.is_ascii_digit() || b == b'.')
    };
    while let Some((stamp, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        if !is_stamp(stamp) {
            break;
        }
        rest = after;
    }
    rest.trim_start_matches(' ').to_string()
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
        "WARNING: possible recursive locking detected",
        "WARNING: HARDIRQ-safe -> HARDIRQ-unsafe lock order detected",
        "[ BUG: Invalid wait context ]",
        "BUG: KCSAN: data-race in kvm_gmem_convert / kvm_gmem_fault",
        "BUG: KFENCE: use-after-free read in kvm_gmem_release+0x11/0x20",
        "list_del corruption. prev->next should be ffff888, but was dead000000000122",
        "BUG kmalloc-64 (Not tainted): Redzone overwritten",
        "refcount_t: underflow; use-after-free.",
        "mm/pgtable-generic.c:50: bad pmd ffff88810a3b8000(8000000112e008e7)",
        "BUG: Bad rss-counter state mm:00000000f1a2 type:MM_FILEPAGES val:1",
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

    /// A report is known by its name, in whatever line it has it; a plain WARNING has none.
    #[test]
    fn reports_have_names() {
        for (line, expected) in [
            (DAMAGE[0], None),
            (DAMAGE[2], Some("lockdep")),
            (DAMAGE[6], Some("bad page")),
            (DAMAGE[7], Some("KASAN")),
            (DAMAGE[10], Some("UBSAN")),
            ("INFO: task a:1 blocked for more than 122 seconds.", Some("hung task")),
            ("rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", Some("RCU stall")),
            ("watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [a:1]", Some("soft lockup")),
            ("BUG: KCSAN: data-race in a / b", Some("KCSAN")),
            ("BUG: KFENCE: memory corruption in a", Some("KFENCE")),
            ("list_add corruption. next->prev should be a, but was b.", Some("list corruption")),
            ("BUG kmalloc-8 (Not tainted): Poison overwritten", Some("slab corruption")),
            ("refcount_t: addition on 0; use-after-free.", Some("refcount_t")),
        ] {
            assert_eq!(name(line), expected, "{line}");
        }
    }

    /// Known reports come before others, whole, and their name is told where the line does not say it.
    #[test]
    fn known_reports_come_first() {
        let log = lines(
            "WARNING: CPU: 0 PID: 1 at mm/gup.c:70 x+0x1/0x2\n\
             RIP: 0010:x+0x1/0x2\n\
             ---[ end trace 0000000000000000 ]---\n\
             WARNING: possible circular locking dependency detected\n\
             7.3.4 Not tainted",
        );
        let sorted = known_first(&log);
        assert_eq!(sorted[..2], log[3..]);
        assert_eq!(sorted[2..], log[..3]);
        let said = "lockdep: WARNING: possible circular locking dependency detected";
        assert_eq!(most_telling(&log).as_deref(), Some(said));
        assert_eq!(most_telling(&log[..3]).as_ref(), Some(&log[0]));
        assert_eq!(most_telling(&[]), None);
    }

    /// What somebody else ran for the one who had asked for it may be late, and what a watchdog says.
    #[test]
    fn late_reports_are_told() {
        let by = |comm: &str| vec![DAMAGE[0].to_string(), format!("CPU: 0 PID: 9 Comm: {comm}")];
        assert!(!may_be_late(&by("gmem-conform Not tainted 7.3.4")));
        assert!(may_be_late(&by("kworker/0:1 Not tainted 7.3.4")));
        assert!(may_be_late(&["INFO: rcu_sched self-detected stall on CPU".to_string()]));
    }

    /// A console has what /dev/kmsg has not: times, callers, carriage returns.
    #[test]
    fn console_lines_become_messages() {
        for (line, message) in [
            ("[    1.234567] BUG: x\r", "BUG: x"),
            ("[   12.234567][   T33] BUG: x", "BUG: x"),
            ("[   12.234567][    C1]  x", "x"),
            ("[ BUG: Invalid wait context ]", "[ BUG: Invalid wait context ]"),
            ("---[ end trace 0 ]---", "---[ end trace 0 ]---"),
            ("", ""),
        ] {
            assert_eq!(console_message(line), message);
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

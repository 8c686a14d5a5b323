// SPDX-License-Identifier: GPL-2.0-only
//! What the threads of a worker that hangs are in, from `/proc` and from what it wrote down itself, and who is to blame.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use crate::activity::{Activity, Call, Slot};
use crate::clause::ClauseId;
use crate::results::Blame;
use crate::uapi::KVMIO;

/// Lines of a kernel stack that are told; what is below is the entry of the system call.
const STACK_LINES: usize = 12;
/// `KVM_RUN`: `_IO(KVMIO, 0x80)`, include/uapi/linux/kvm.h.
const KVM_RUN: u64 = KVMIO << 8 | 0x80;
/// The system calls that the suite makes on purpose, and those in which a thread waits for another.
const SYSCALLS: [(i64, &str); 17] = [
    (libc::SYS_read, "read"),
    (libc::SYS_write, "write"),
    (libc::SYS_close, "close"),
    (libc::SYS_poll, "poll"),
    (libc::SYS_mmap, "mmap"),
    (libc::SYS_munmap, "munmap"),
    (libc::SYS_ioctl, "ioctl"),
    (libc::SYS_madvise, "madvise"),
    (libc::SYS_nanosleep, "nanosleep"),
    (libc::SYS_wait4, "wait4"),
    (libc::SYS_exit_group, "exit_group"),
    (libc::SYS_ftruncate, "ftruncate"),
    (libc::SYS_futex, "futex"),
    (libc::SYS_clock_nanosleep, "clock_nanosleep"),
    (libc::SYS_vmsplice, "vmsplice"),
    (libc::SYS_fallocate, "fallocate"),
    (libc::SYS_io_uring_enter, "io_uring_enter"),
];

/// One thread, as `/proc` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Thread {
    id: u64,
    name: String,
    /// As in `/proc/PID/stat`: R running, S sleeping, D in a wait that no signal ends, Z dead.
    state: char,
    /// The system call and its first two arguments; none of a thread that is running, or that took a fault.
    syscall: Option<[u64; 3]>,
    /// What the first argument refers to, if it is a descriptor.
    file: String,
    wchan: String,
    stack: Vec<String>,
}

/// What a worker that hangs is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hang {
    /// For people, line by line.
    pub(super) lines: Vec<String>,
    /// Whose fault it is.
    pub(super) blame: Blame,
    /// The clause that is broken, where it follows from the place.
    pub(super) clause: Option<ClauseId>,
}

/// Looks at the process `pid` and its children; `root` is `/` but in tests. `activity` is what it has written down.
pub(super) fn look(root: &Path, pid: u32, activity: &Activity) -> Hang {
    let mut threads = Vec::new();
    let mut processes = vec![u64::from(pid)];
    while let Some(process) = processes.pop() {
        let tasks = root.join(format!("proc/{process}/task"));
        for task in fs::read_dir(tasks).into_iter().flatten().flatten() {
            processes.extend(numbers(&read(&task.path().join("children"))));
            threads.extend(thread(&task.path()));
        }
    }
    threads.sort_by_key(|thread: &Thread| thread.id);
    judge(&threads, activity)
}

/// Whether a thread of the process waits in a way that no signal ends.
pub(super) fn is_uninterruptible(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    tasks.into_iter().flatten().flatten().any(|task| stat(&task.path()).is_some_and(|s| s.1 == 'D'))
}

fn judge(threads: &[Thread], activity: &Activity) -> Hang {
    let slot = |thread: &Thread| activity.slots.iter().find(|slot| slot.thread == thread.id);
    let mut lines = Vec::new();
    for thread in threads {
        lines.push(describe(thread, slot(thread)));
        lines.extend(thread.stack.iter().map(|line| format!("  {line}")));
        let runs = slot(thread).and_then(Slot::describe_runs);
        lines.extend(runs.map(|text| format!("  {text}")));
    }
    // A child of a worker writes into the slot of the thread that has forked it, so slots are looked at for themselves.
    let calls = || activity.slots.iter().map(|slot| slot.call).filter(|call| *call != Call::None);
    let access = calls().find(|call| matches!(call, Call::HostRead | Call::HostWrite));
    let in_kvm = threads.iter().any(|thread| thread.in_kvm() || thread.state == 'D');
    let blame = match in_kvm || calls().next().is_some() {
        true => Blame::Kernel,
        false => Blame::Suite,
    };
    // A shared page is served, a private one is a SIGBUS: an access ends in either way.
    let clause = access.map(|_| ClauseId::HostAccessShared);
    Hang { lines, blame, clause }
}

fn describe(thread: &Thread, slot: Option<&Slot>) -> String {
    let state = match thread.state {
        'R' => "running".to_string(),
        'S' => "sleeping".to_string(),
        'D' => "in a wait that no signal ends (D)".to_string(),
        'Z' | 'X' => "dead".to_string(),
        other => format!("in state {other}"),
    };
    let mut text = format!("thread {} ({}) is {state}", thread.id, thread.name);
    if let Some(what) = slot.and_then(Slot::describe) {
        let _ = write!(text, ", in {what}");
    }
    if let Some(call) = thread.syscall_name() {
        let _ = write!(text, ", system call {call}");
    }
    if !thread.file.is_empty() {
        let _ = write!(text, " of {}", thread.file);
    }
    if !thread.wchan.is_empty() {
        let _ = write!(text, ", waits in {}", thread.wchan);
    }
    text
}

impl Thread {
    /// Whether it is in a call of KVM, or in one on a guest_memfd.
    fn in_kvm(&self) -> bool {
        let ioctl = self.syscall.is_some_and(|[number, _, request]| {
            name_of(number) == Some("ioctl") && request >> 8 & 0xff == KVMIO
        });
        // The links are anon_inode:kvm-vm, anon_inode:kvm-vcpu:0, and that of a guest_memfd.
        ioctl || self.file.contains("kvm") || self.file.contains("guest_memfd")
    }

    fn syscall_name(&self) -> Option<String> {
        let [number, _, request] = self.syscall?;
        Some(match (name_of(number), request) {
            (Some("ioctl"), KVM_RUN) => "ioctl KVM_RUN".to_string(),
            (Some("ioctl"), request) => format!("ioctl {request:#x}"),
            (Some(name), _) => name.to_string(),
            (None, _) => format!("number {number}"),
        })
    }
}

/// The name of a system call, of [`SYSCALLS`].
fn name_of(number: u64) -> Option<&'static str> {
    SYSCALLS.iter().find(|(other, _)| *other as u64 == number).map(|(_, name)| *name)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_string()
}

fn numbers(text: &str) -> impl Iterator<Item = u64> {
    text.split_whitespace().filter_map(|word| word.parse().ok())
}

/// The name and the state of a task.
fn stat(task: &Path) -> Option<(String, char)> {
    let stat = read(&task.join("stat"));
    // The name is in parentheses and may hold some itself.
    let (head, rest) = stat.rsplit_once(") ")?;
    let name = head.split_once('(')?.1.to_string();
    Some((name, rest.chars().next()?))
}

/// A thread by its folder in `/proc`; none of one that has gone.
fn thread(task: &Path) -> Option<Thread> {
    let (name, state) = stat(task)?;
    let syscall = syscall(&read(&task.join("syscall")));
    let link = |[_, fd, _]: [u64; 3]| fs::read_link(task.join(format!("fd/{fd}"))).ok();
    let has_descriptor = |[number, ..]: &[u64; 3]| {
        name_of(*number).is_some_and(|name| {
            ["read", "write", "close", "ioctl", "ftruncate", "fallocate"].contains(&name)
        })
    };
    let file: PathBuf = syscall.filter(has_descriptor).and_then(link).unwrap_or_default();
    let wchan = read(&task.join("wchan"));
    let stack = read(&task.join("stack"));
    Some(Thread {
        id: task.file_name()?.to_str()?.parse().ok()?,
        name,
        state,
        syscall,
        file: file.display().to_string(),
        // "0" of one that does not wait.
        wchan: if wchan == "0" { String::new() } else { wchan },
        stack: stack.lines().take(STACK_LINES).map(frame).collect(),
    })
}

/// `16 0x5 0xae80 ...`: number and arguments; `running`; or `-1` and two registers for a thread that took a fault.
fn syscall(text: &str) -> Option<[u64; 3]> {
    let mut words = text.split_whitespace();
    let number = words.next()?.parse().ok()?;
    let mut argument = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
    Some([number, argument()?, argument()?])
}

/// `[<0>] kvm_gmem_set_attributes+0x3c1/0x5d0`, without the address that is no address.
fn frame(line: &str) -> String {
    line.trim_start_matches("[<0>] ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activity::RunEnd;

    fn in_call(call: Call) -> Activity {
        let slot = Slot {
            thread: 20,
            call,
            address: 0x7000,
            page: 3,
            entered: 4,
            returned: 3,
            run_end: Some(RunEnd::MemoryFault),
        };
        Activity { line: Some(1), slots: vec![slot] }
    }

    /// A likeness of `/proc` with one thread.
    fn root(stat: &str, syscall: &str, file: &str) -> tempfile::TempDir {
        let root = tempfile::TempDir::new().unwrap();
        let task = root.path().join("proc/20/task/20");
        fs::create_dir_all(task.join("fd")).unwrap();
        fs::write(task.join("stat"), format!("20 (a (b) c) {stat} 1 20")).unwrap();
        fs::write(task.join("syscall"), syscall).unwrap();
        fs::write(task.join("wchan"), "kvm_gmem_wait").unwrap();
        fs::write(task.join("stack"), "[<0>] kvm_gmem_wait+0x1/0x2\n[<0>] do_syscall_64+0x3/0x4\n")
            .unwrap();
        std::os::unix::fs::symlink(file, task.join("fd/5")).unwrap();
        root
    }

    /// A thread is told with its state, call, file, place and stack, and its vCPU with its exits.
    #[test]
    fn a_thread_is_told() {
        let root = root("D", "16 0x5 0xae80 0x0 0x0 0x0 0x0 0x7ffd 0x7fb", "anon_inode:kvm-vcpu:0");
        let hang = look(root.path(), 20, &in_call(Call::Run));
        assert_eq!(
            hang.lines,
            [
                "thread 20 (a (b) c) is in a wait that no signal ends (D), in KVM_RUN, system call ioctl KVM_RUN of \
                 anon_inode:kvm-vcpu:0, waits in kvm_gmem_wait",
                "  kvm_gmem_wait+0x1/0x2",
                "  do_syscall_64+0x3/0x4",
                "  KVM_RUN came back 3 times, the last time with KVM_EXIT_MEMORY_FAULT, and then no more",
            ]
        );
        assert_eq!((hang.blame, hang.clause), (Blame::Kernel, None));
    }

    /// The kernel is to blame for a call of KVM, one on a guest_memfd, an access, and a wait that no signal ends; the suite
    /// for whatever else it does not come out of.
    #[test]
    fn the_guilty_one_is_found() {
        let nothing = Activity::default();
        let (sleeps, futex) = ("S", "202 0x1 0x2 0x0 0x0 0x0 0x0 0x1 0x2");
        for (stat, syscall, file, activity, blame) in [
            (sleeps, futex, "/dev/null", &nothing, Blame::Suite),
            ("R", "running", "/dev/null", &nothing, Blame::Suite),
            ("S", "0 0x5 0x1 0x1 0x0 0x0 0x0 0x1 0x2", "pipe:[7]", &nothing, Blame::Suite),
            ("R", "running", "/dev/null", &in_call(Call::HostWrite), Blame::Kernel),
            ("R", "running", "/dev/null", &in_call(Call::SetMemoryAttributes2), Blame::Kernel),
            ("S", "16 0x5 0x4040aed2 0x1 0x0 0x0 0x0 0x1 0x2", "x", &nothing, Blame::Kernel),
            ("S", "285 0x5 0x3 0x0 0x0 0x0 0x0 0x1 0x2", "guest_memfd", &nothing, Blame::Kernel),
            ("D", futex, "/dev/null", &nothing, Blame::Kernel),
        ] {
            let root = root(stat, syscall, file);
            let hang = look(root.path(), 20, activity);
            assert_eq!(hang.blame, blame, "{stat} {syscall} {file}: {:?}", hang.lines);
        }
        let access = judge(&[], &in_call(Call::HostRead));
        assert_eq!(
            (access.blame, access.clause),
            (Blame::Kernel, Some(ClauseId::HostAccessShared))
        );
    }

    /// What a system call's file can say.
    #[test]
    fn system_calls_are_read() {
        assert_eq!(syscall("16 0x5 0xae80 0x0 0x0 0x0 0x0 0x7ff 0x7fb"), Some([16, 5, KVM_RUN]));
        assert_eq!(syscall("running"), None);
        assert_eq!(syscall("-1 0x7ffd 0x7fb"), None);
        assert_eq!(syscall(""), None);
    }
}

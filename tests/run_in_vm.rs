// SPDX-License-Identifier: GPL-2.0-only
//! Tests of `scripts/run-in-vm` and of [`gmem_conform::init`] in a real virtual machine.
//!
//! What the virtual machine runs is this very program, which is static as the suite is: as process 1 it does what the
//! suite does there, and with the argument `fixture` it misbehaves in the way that a test asks for.
//!
//! `GMEM_CONFORM_TEST_KERNEL` names the bzImage to boot. Without it the tests that need one are ignored; with it, whatever
//! is missing fails them.

mod accounting;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use gmem_conform::init;
use gmem_conform::results::{Blame, CaseRecord, Record, Verdict};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::Pid;
use serde_json::Value;

const KERNEL_VARIABLE: &str = "GMEM_CONFORM_TEST_KERNEL";
/// First argument of this program when it is to be the program in the virtual machine.
const FIXTURE: &str = "fixture";

fn main() -> ExitCode {
    if init::is_init() {
        init::run()
    }
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == FIXTURE) {
        return fixture::main(&arguments[1..]);
    }
    let trials = vec![
        trial("usage_errors_are_status_1", usage_errors_are_status_1),
        trial("missing_tools_are_named", missing_tools_are_named),
        trial("missing_hosts_are_named", missing_hosts_are_named),
        vm_trial("version_of_the_suite", version_of_the_suite),
        vm_trial("bad_flag_of_the_suite", bad_flag_of_the_suite),
        vm_trial("arguments_arrive_unchanged", arguments_arrive_unchanged),
        vm_trial("streams_stay_apart_and_clean", streams_stay_apart_and_clean),
        vm_trial("serial_ports_serve_as_well", serial_ports_serve_as_well),
        vm_trial("files_are_there", files_are_there),
        vm_trial("leftover_process_delays_nothing", leftover_process_delays_nothing),
        vm_trial("signal_is_status_1", signal_is_status_1),
        vm_trial("crash_keeps_results", crash_keeps_results),
        vm_trial("panic_at_boot", panic_at_boot),
        vm_trial("silent_guest_is_given_up", silent_guest_is_given_up),
        vm_trial("interrupt_ends_the_machine", interrupt_ends_the_machine),
        vm_trial("guests_share_the_cases", guests_share_the_cases),
        vm_trial("guests_that_skip_all_are_no_pass", guests_that_skip_all_are_no_pass),
        vm_trial("kernel_without_conversion", kernel_without_conversion),
        vm_trial("guests_agree_on_a_bad_flag", guests_agree_on_a_bad_flag),
        vm_trial("guest_that_dies_is_missed", guest_that_dies_is_missed),
        vm_trial("interrupt_ends_every_guest", interrupt_ends_every_guest),
        vm_trial("panic_costs_one_case", panic_costs_one_case),
        vm_trial("killed_guest_costs_one_case", killed_guest_costs_one_case),
        vm_trial("panic_without_restarts_ends_the_run", panic_without_restarts_ends_the_run),
        vm_trial("reboot_costs_one_case", reboot_costs_one_case),
        vm_trial("frozen_machine_costs_one_case", frozen_machine_costs_one_case),
        vm_trial("killed_machine_costs_one_case", killed_machine_costs_one_case),
        vm_trial("unkillable_worker_is_left_behind", unkillable_worker_is_left_behind),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial(name: &'static str, test: fn(&Script)) -> Trial {
    Trial::test(name, move || run_in_directory(name, test, PathBuf::from("/nonexistent")))
}

/// A test that boots the kernel.
fn vm_trial(name: &'static str, test: fn(&Script)) -> Trial {
    Trial::ignorable_test(name, move || {
        let Some(kernel) = env::var_os(KERNEL_VARIABLE) else {
            let reason = format!("{KERNEL_VARIABLE} names no bzImage to boot");
            println!("{name}: skipped: {reason}");
            return Ok(Completion::ignored_with(reason));
        };
        // Absolute, because the script runs in another directory.
        run_in_directory(name, test, std::path::absolute(kernel)?)?;
        Ok(Completion::Completed)
    })
}

/// Runs a test in a new directory, whose name has a space and a comma to show that no shell and no option parser of
/// QEMU takes it apart.
fn run_in_directory(name: &str, test: fn(&Script), kernel: PathBuf) -> Result<(), Failed> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("run in vm, {name}"));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(directory.join("tmp"))?;
    test(&Script { kernel, directory, transcript: RefCell::default() });
    Ok(())
}

/// `scripts/run-in-vm`, run in a directory of the test's own.
struct Script {
    kernel: PathBuf,
    directory: PathBuf,
    /// What the script has written to standard error, for whoever reads a failure.
    transcript: RefCell<String>,
}

impl Drop for Script {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.transcript.borrow());
        }
    }
}

impl Script {
    fn bare(&self) -> Command {
        let mut command =
            Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/run-in-vm"));
        command
            .current_dir(&self.directory)
            .env("TMPDIR", self.directory.join("tmp"))
            .stdin(Stdio::null());
        command
    }

    /// Boots the kernel with `options`, to run `binary`.
    fn booting(&self, binary: impl AsRef<OsStr>, options: &[&str]) -> Command {
        let mut command = self.bare();
        command.arg(&self.kernel).arg("--binary").arg(binary).args(options);
        command
    }

    /// Boots the kernel with `options`, and has the fixture do what `arguments` say.
    fn fixture(&self, options: &[&str], arguments: &[&str]) -> Command {
        let this = env::current_exe().expect("/proc/self/exe is readable");
        let mut command = self.booting(this, options);
        command.arg("--").arg(FIXTURE).args(arguments);
        command
    }

    /// Runs a command to its end; its exit status, standard output and standard error.
    fn finish(&self, mut command: Command) -> (Option<i32>, String, String) {
        let Output { status, stdout, stderr } =
            command.output().expect("bash runs scripts/run-in-vm");
        let stdout = String::from_utf8_lossy(&stdout).into_owned();
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        let entry = format!("{command:?}: {status}\n{stderr}");
        self.transcript.borrow_mut().push_str(&entry);
        (status.code(), stdout, stderr)
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.directory.join(name)).expect("the file was brought back")
    }

    /// The processes that this test has running, with their command lines, which name temporary files: QEMU an initramfs,
    /// and the script, where it runs for one of several guests, a results file.
    fn processes(&self) -> Vec<(Pid, Vec<u8>)> {
        let temporary = self.directory.join("tmp");
        let temporary = temporary.as_os_str().as_encoded_bytes();
        fs::read_dir("/proc")
            .expect("/proc is mounted")
            .flatten()
            .filter_map(|process| {
                let pid = process.file_name().to_str()?.parse().ok()?;
                Some((Pid::from_raw(pid), fs::read(process.path().join("cmdline")).ok()?))
            })
            .filter(|(_, line)| line.windows(temporary.len()).any(|part| part == temporary))
            .collect()
    }

    /// Waits until so many of them run.
    fn wait_for_qemus(&self, count: usize) -> Vec<Pid> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let mut processes = self.processes();
            processes.retain(|(_, line)| {
                let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
                let name = program.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
                name.starts_with(b"qemu-system")
            });
            let qemus: Vec<Pid> = processes.into_iter().map(|(pid, _)| pid).collect();
            if qemus.len() == count {
                return qemus;
            }
            assert!(Instant::now() < deadline, "{} of {count} guests run", qemus.len());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the results of so many guests have so many lines.
    fn wait_for_results(&self, guests: usize, lines: usize) {
        let deadline = Instant::now() + Duration::from_secs(120);
        let enough = |path: &PathBuf| {
            let text = fs::read(path).unwrap_or_default();
            text.iter().filter(|byte| **byte == b'\n').count() >= lines
        };
        let channels = || {
            let temporary = fs::read_dir(self.directory.join("tmp")).expect("it exists");
            temporary.flatten().map(|work| work.path().join("json"))
        };
        while channels().filter(|path| enough(path)).count() < guests {
            assert!(Instant::now() < deadline, "no {guests} guests have {lines} results");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Requires that a script which has ended has left neither QEMU nor files behind.
    fn nothing_is_left(&self) {
        let temporary = self.directory.join("tmp");
        let left = fs::read_dir(&temporary).expect("it exists").count();
        assert_eq!(left, 0, "files in {}", temporary.display());
        assert_eq!(self.processes(), []);
    }
}

/// Requires that every usage error is status 1, because a kselftest runner reads 2 and 3 as results, and that it names
/// what is wrong.
fn usage_errors_are_status_1(script: &Script) {
    // So that it does not matter here whether these are installed; no case gets as far as running them.
    let bin = script.directory.join("bin");
    fs::create_dir(&bin).expect("the directory is writable");
    for tool in ["qemu-system-x86_64", "cpio"] {
        symlink("/bin/true", bin.join(tool)).expect("the directory is writable");
    }
    let path = env::var_os("PATH").expect("PATH is set");
    let path = env::join_paths([bin].into_iter().chain(env::split_paths(&path)))
        .expect("no directory has a colon in its name");
    let run = |arguments: &[&str]| {
        let mut command = script.bare();
        command.env("PATH", &path).args(arguments);
        script.finish(command)
    };

    fs::write(script.directory.join("text"), "no kernel\n").expect("the directory is writable");
    for (arguments, message) in [
        (&[][..], "no KERNEL given"),
        (&["--bogus"], "unknown option --bogus"),
        (&["text", "--memory"], "--memory needs a value"),
        (&["text", "--memory", "2G"], "--memory needs a positive number, not '2G'"),
        (&["text", "--idle=0"], "--idle needs a positive number, not '0'"),
        (&["text", "--host", "sev"], "--host is snp or tdx, not 'sev'"),
        (&["text", "--qemu", "missing"], "missing: no such QEMU, or it cannot be executed"),
        (&["text", "--guests", "two"], "--guests needs a positive number, not 'two'"),
        (&["missing"], "missing: no such kernel"),
        (&["text"], "text: not a bzImage"),
    ] {
        let (status, _, stderr) = run(arguments);
        assert_eq!(status, Some(1), "{arguments:?}");
        assert!(stderr.contains(message), "{arguments:?}: {stderr}");
    }

    // A kernel by its magic number alone, so that the binary is what is complained about.
    let mut kernel = vec![0; 0x206];
    kernel[0x202..].copy_from_slice(b"HdrS");
    fs::write(script.directory.join("kernel"), kernel).expect("the directory is writable");
    for (binary, message) in [
        ("missing", "missing: no such binary"),
        ("text", "text: not a static x86-64 executable"),
        // The shell is dynamic wherever cargo and QEMU come from a distribution.
        ("/bin/bash", "/bin/bash: not a static x86-64 executable"),
    ] {
        let (status, _, stderr) = run(&["kernel", "--binary", binary]);
        assert_eq!(status, Some(1), "{binary}");
        assert!(stderr.contains(message), "{binary}: {stderr}");
    }

    let this = env::current_exe().expect("/proc/self/exe is readable");
    let this = this.to_str().expect("cargo's directories are UTF-8");
    let arguments = ["kernel", "--binary", this, "--json", "missing/results"];
    let (status, _, stderr) = run(&arguments);
    assert_eq!(status, Some(1));
    let message = "missing/results: cannot be written";
    assert!(stderr.contains(message), "{stderr}");
}

/// Requires that a missing tool is reported with the Debian package that has it.
fn missing_tools_are_named(script: &Script) {
    // Only what the script uses before it looks for the two tools.
    let bin = script.directory.join("bin");
    fs::create_dir(&bin).expect("the directory is writable");
    for tool in ["bash", "dirname", "readlink"] {
        let found = env::split_paths(&env::var_os("PATH").expect("PATH is set"))
            .map(|directory| directory.join(tool))
            .find(|path| path.exists())
            .expect("bash and coreutils are installed");
        symlink(found, bin.join(tool)).expect("the directory is writable");
    }
    let missing = |package: &str| {
        let mut command = script.bare();
        command.env("PATH", &bin).arg("kernel");
        let (status, _, stderr) = script.finish(command);
        assert_eq!(status, Some(1));
        assert!(stderr.contains(package), "{stderr}");
    };
    missing("qemu-system-x86_64 not found; Debian has it in the package qemu-system-x86");
    symlink("/bin/true", bin.join("qemu-system-x86_64")).expect("the directory is writable");
    missing("cpio not found; Debian has it in the package cpio");
}

/// Requires that a QEMU without the emulated hosts is found out before anything boots, with what it says.
fn missing_hosts_are_named(script: &Script) {
    let bin = script.directory.join("qemu");
    let refuses = "#!/bin/bash\necho \"Property 'x.snp-host' not found\" >&2\nexit 1\n";
    fs::write(&bin, refuses).expect("the directory is writable");
    fs::set_permissions(&bin, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let mut kernel = vec![0; 0x206];
    kernel[0x202..].copy_from_slice(b"HdrS");
    fs::write(script.directory.join("kernel"), kernel).expect("the directory is writable");
    for (host, name) in [("snp", "SNP"), ("tdx", "TDX")] {
        let mut command = script.bare();
        command.env("GMEM_CONFORM_QEMU", &bin).args(["--host", host, "kernel", "--binary"]);
        command.arg(env::current_exe().expect("/proc/self/exe is readable"));
        let (status, _, stderr) = script.finish(command);
        assert_eq!(status, Some(1));
        let said = "run-in-vm: qemu: Property 'x.snp-host' not found\n";
        assert!(stderr.contains(said), "{stderr}");
        let message = format!("qemu does not emulate {name} hosts; see --qemu");
        assert!(stderr.contains(&message), "{stderr}");
    }
}

/// Requires that the suite itself runs as the only program of a guest.
fn version_of_the_suite(script: &Script) {
    let mut command = script.booting(env!("CARGO_BIN_EXE_gmem-conform"), &[]);
    command.arg("--version");
    let (status, stdout, _) = script.finish(command);
    assert_eq!(status, Some(0));
    assert!(stdout.starts_with(concat!("gmem-conform ", env!("CARGO_PKG_VERSION"))), "{stdout}");
}

/// Requires that the suite's own usage error comes out as it is, without the guest's console after it.
fn bad_flag_of_the_suite(script: &Script) {
    let mut command = script.booting(env!("CARGO_BIN_EXE_gmem-conform"), &[]);
    command.arg("--no-such-flag");
    let (status, stdout, stderr) = script.finish(command);
    assert_eq!(status, Some(1));
    assert_eq!(stdout, "");
    assert!(stderr.contains("--no-such-flag"), "{stderr}");
    assert!(!stderr.contains("run-in-vm:"), "{stderr}");
}

/// Requires that no argument is split, expanded, dropped or taken for an option of the script.
fn arguments_arrive_unchanged(script: &Script) {
    let arguments = [
        "arguments",
        "",
        "a  b",
        "'\"`",
        "$(echo x) $HOME *",
        "\\n\n",
        "ä",
        "--append",
        "--",
        "--memory=1",
    ];
    let (status, stdout, _) = script.finish(script.fixture(&[], &arguments));
    assert_eq!(status, Some(0));
    let directory = script.directory.display();
    assert_eq!(stdout, format!("{directory}\n{:?}\n", &arguments[1..]));
}

/// Requires that standard output, standard error and the JSON file arrive whole, byte by byte, and apart.
fn streams_stay_apart_and_clean(script: &Script) {
    expect_streams(script, &[]);
}

/// Requires the same of a kernel without virtio-serial, through serial ports.
fn serial_ports_serve_as_well(script: &Script) {
    expect_streams(script, &["--append", "initcall_blacklist=virtio_console_init"]);
}

fn expect_streams(script: &Script, options: &[&str]) {
    let Output { status, stdout, stderr } = script
        .fixture(options, &["streams", "--json=results.jsonl"])
        .output()
        .expect("bash runs scripts/run-in-vm");
    assert_eq!(String::from_utf8_lossy(&stderr), fixture::STDERR);
    assert_eq!(status.code(), Some(4));
    // Not assert_eq, which would print it all.
    assert!(stdout == fixture::every_byte(), "{} bytes", stdout.len());
    assert_eq!(script.file("results.jsonl"), fixture::JSON);
}

/// Requires that files which arguments name are in the guest under their names, and the headers of --kernel-headers.
fn files_are_there(script: &Script) {
    fs::create_dir_all(script.directory.join("tree/include/uapi/linux"))
        .expect("the directory is writable");
    for (name, contents) in [
        ("a case.case", "contents of a case\n"),
        ("waivers", "contents of waivers\n"),
        ("tree/include/uapi/linux/kvm.h", "contents of kvm.h\n"),
    ] {
        fs::write(script.directory.join(name), contents).expect("the directory is writable");
    }
    let absolute = script.directory.join("waivers");
    let (status, stdout, _) = script.finish(script.fixture(
        &[],
        &[
            "cat",
            "a case.case",
            &format!("--waivers={}", absolute.display()),
            "--kernel-headers",
            "tree",
            "tree/include/uapi/linux/../linux/kvm.h",
        ],
    ));
    assert_eq!(status, Some(0));
    assert_eq!(stdout, "contents of a case\ncontents of waivers\ncontents of kvm.h\n");
}

/// Requires that a process which the program leaves behind, with all of its descriptors, does not keep the guest up.
fn leftover_process_delays_nothing(script: &Script) {
    let (status, stdout, _) = script.finish(script.fixture(&[], &["leftover"]));
    assert_eq!((status, stdout.as_str()), (Some(4), "left\n"));
}

/// Requires that a program which dies is a failure, and that how it died is said.
fn signal_is_status_1(script: &Script) {
    let (status, stdout, stderr) = script.finish(script.fixture(&[], &["abort"]));
    assert_eq!((status, stdout.as_str()), (Some(1), "aborting\n"));
    assert!(stderr.contains("SIGABRT"), "{stderr}");
}

/// Requires that what was written before the kernel died is brought back: all output, and the results' complete lines.
fn crash_keeps_results(script: &Script) {
    let (status, stdout, stderr) =
        script.finish(script.fixture(&[], &["crash", "--json", "results.jsonl"]));
    assert_eq!((status, stdout.as_str()), (Some(1), "crashing\n"));
    assert!(stderr.contains("the guest's kernel panicked"), "{stderr}");
    assert!(stderr.contains("sysrq triggered crash"), "{stderr}");
    assert_eq!(script.file("results.jsonl"), fixture::JSON);
}

/// Requires that a kernel which does not get as far as the program is a failure that shows the console.
fn panic_at_boot(script: &Script) {
    let options = ["--append", "rdinit=/nonexistent", "--append=init=/nonexistent"];
    let (status, stdout, stderr) = script.finish(script.fixture(&options, &["arguments"]));
    assert_eq!((status, stdout.as_str()), (Some(1), ""));
    assert!(stderr.contains("the guest's kernel panicked"), "{stderr}");
    assert!(stderr.contains("Kernel panic - not syncing"), "{stderr}");
}

/// Requires that a guest which says nothing for --idle seconds is given up. Whether it then is still booting or already
/// waits in the fixture is a matter of the machine's speed, and the same to the script.
fn silent_guest_is_given_up(script: &Script) {
    let (status, _, stderr) = script.finish(script.fixture(&["--idle", "3"], &["hang"]));
    assert_eq!(status, Some(1));
    assert!(stderr.contains("the guest was silent for 3 seconds"), "{stderr}");
}

/// Requires that an interrupted script leaves neither QEMU nor files behind, and keeps the results so far.
fn interrupt_ends_the_machine(script: &Script) {
    let mut command = script.fixture(&[], &["hang", "--json", "results.jsonl"]);
    command.stdout(Stdio::piped());
    // SAFETY: signal() is async-signal-safe.
    unsafe {
        // A shell that runs the tests in the background has them ignore SIGINT, and bash cannot trap what it was started to
        // ignore.
        command.pre_exec(|| Ok(signal(Signal::SIGINT, SigHandler::SigDfl).map(drop)?));
    }
    let mut child = command.spawn().expect("bash runs scripts/run-in-vm");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("it is a pipe"))
        .read_line(&mut line)
        .expect("the pipe is readable");
    assert_eq!(line, "hanging\n");

    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("the child has not been reaped");
    let status = child.wait().expect("it is our child");
    assert_eq!(status.code(), Some(130));
    assert_eq!(script.file("results.jsonl"), fixture::JSON);

    script.nothing_is_left();
}

/// Requires that several guests run every case once between them, and that what comes out is one run.
fn guests_share_the_cases(script: &Script) {
    let suite = env!("CARGO_BIN_EXE_gmem-conform");
    let options = ["--guests=2", "--append=kvm.vm_memory_attributes=0"];
    let mut command = script.booting(suite, &options);
    command.args(["--platform=sw-protected", "--json", "results.jsonl", "--format", "tap"]);
    command.arg("sw-protected.zero.");
    let (status, stdout, stderr) = script.finish(command);
    // A kernel without the interface has all of them skipped.
    assert!(matches!(status, Some(0 | 4)), "{status:?}");
    assert_eq!(stderr, "");

    let records: Vec<Value> = script
        .file("results.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line is a JSON value"))
        .collect();
    let mut shards: Vec<_> = records[0]["merged"]
        .as_array()
        .expect("results of several guests are merged ones")
        .iter()
        .map(|run| (run["run"]["shard"]["index"].as_u64(), run["run"]["planned"].as_u64()))
        .collect();
    shards.sort();
    assert_eq!([shards[0].0, shards[1].0], [Some(1), Some(2)]);
    assert!(shards.iter().all(|(_, planned)| *planned > Some(0)), "{shards:?}");
    let ids: BTreeSet<&str> =
        records.iter().filter(|r| r["type"] == "case").filter_map(|r| r["id"].as_str()).collect();
    let planned: u64 = shards.iter().filter_map(|(_, planned)| *planned).sum();
    assert_eq!(ids.len() as u64, planned);

    assert!(stdout.contains(&format!("\n1..{planned}\n")), "{stdout}");
    let told: BTreeSet<&str> =
        stdout.lines().filter_map(|line| line.strip_prefix("ok ")?.split(' ').nth(1)).collect();
    assert_eq!(told, ids);
}

/// Requires that several guests which skip everything end with the status of one that does.
fn guests_that_skip_all_are_no_pass(script: &Script) {
    let suite = env!("CARGO_BIN_EXE_gmem-conform");
    let mut command = script.booting(suite, &["--guests", "2"]);
    // No virtual machine has the firmware that these need.
    command.args(["--platform", "snp", "snp.zero."]);
    let (status, stdout, _) = script.finish(command);
    assert_eq!(status, Some(4), "{stdout}");
}

/// Requires that a kernel without in-place conversion, which the test kernel is unless it is told otherwise, is held to what
/// guest_memfd promises as such.
fn kernel_without_conversion(script: &Script) {
    let suite = env!("CARGO_BIN_EXE_gmem-conform");
    let mut command = script.bare();
    command.arg(&script.kernel).arg("--binary").arg(suite);
    command.args(["--append", "kvm.vm_memory_attributes=1", "--", "--platform", "default"]);
    let (status, stdout, _) = script.finish(command);
    assert_eq!(status, Some(0), "{stdout}");
    let passed = stdout.lines().filter(|l| l.starts_with("ok ") && !l.contains("# SKIP")).count();
    assert!(passed >= 90, "{passed} passed: {stdout}");
    assert!(stdout.contains("dialect none"), "{stdout}");
}

/// Requires that a mistake is told once and not by every guest, and that one in an option which the script takes out is
/// told, too.
fn guests_agree_on_a_bad_flag(script: &Script) {
    for (arguments, message) in [
        (&["--no-such-flag"][..], "unexpected argument '--no-such-flag'"),
        (&["--format", "prose"], "invalid value 'prose'"),
        (&["bench"], "--shard selects built-in cases"),
    ] {
        let suite = env!("CARGO_BIN_EXE_gmem-conform");
        let mut command = script.booting(suite, &["--guests", "2", "--"]);
        command.args(arguments);
        let (status, stdout, stderr) = script.finish(command);
        assert_eq!((status, stdout.as_str()), (Some(1), ""), "{arguments:?}");
        assert_eq!(stderr.matches(message).count(), 1, "{arguments:?}: {stderr}");
        assert!(!stderr.contains("run-in-vm:"), "{stderr}");
    }
}

/// Requires that the cases of a guest that dies do not go missing without a word, and that those of the other count.
fn guest_that_dies_is_missed(script: &Script) {
    let mut command = script.booting(env!("CARGO_BIN_EXE_gmem-conform"), &["--guests", "2"]);
    command.args(["--json", "results.jsonl", "sw-protected.zero."]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("bash runs scripts/run-in-vm");
    let qemus = script.wait_for_qemus(2);
    kill(qemus[0], Signal::SIGKILL).expect("it is running");
    let Output { status, stdout, stderr } = child.wait_with_output().expect("it is our child");
    let stdout = String::from_utf8_lossy(&stdout);
    let stderr = String::from_utf8_lossy(&stderr);

    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("of 2 did not come to its end"), "{stderr}");
    assert!(stderr.contains("qemu-system-x86_64 ended with status 137"), "{stderr}");
    assert!(stdout.contains("missing shards: "), "{stdout}");
    assert!(script.file("results.jsonl").contains("\"type\":\"case\""));
}

/// Requires that several guests end with the script, and leave what is on disk as one does.
fn interrupt_ends_every_guest(script: &Script) {
    let mut command = script.booting(env!("CARGO_BIN_EXE_gmem-conform"), &["--guests", "2"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("bash runs scripts/run-in-vm");
    script.wait_for_qemus(2);
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).expect("it has not been reaped");
    let status = child.wait().expect("it is our child");
    assert_eq!(status.code(), Some(143));
    script.nothing_is_left();
}

/// The fixtures `name`s, between cases that are fine, in a virtual machine.
fn checking(script: &Script, options: &[&str], names: &[&str]) -> Command {
    let append = ["--append=kvm.vm_memory_attributes=0"];
    let suite = env!("CARGO_BIN_EXE_gmem-conform");
    let mut command = script.booting(suite, &[&append[..], options].concat());
    command.args(["--json", "results.jsonl", "--platform=sw-protected", "--format=tap"]);
    command.arg("check");
    for name in [&["fine"], names, &["later"]].concat() {
        let file = format!("{name}.case");
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(&file);
        fs::copy(from, script.directory.join(&file)).expect("the directory is writable");
        command.arg(file);
    }
    command
}

/// The record of a fixture's case, after looking at that of all others, which must pass, and at the sum.
fn costs_one_case(script: &Script, name: &str) -> CaseRecord {
    let results = script.directory.join("results.jsonl");
    let summary = accounting::holds(&results);
    assert_eq!((summary.planned, summary.passed, summary.not_run), (5, 4, 0));
    let text = fs::read_to_string(results).expect("it was brought back");
    let record = text.lines().find_map(|line| match serde_json::from_str(line) {
        Ok(Record::Case(record)) if record.id.ends_with(name) => Some(*record),
        _ => None,
    });
    record.unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// Requires that a report in TAP which several boots have written is one: each number once, in order.
fn is_one_report(stdout: &str, count: usize) {
    assert_eq!(stdout.matches("TAP version 13\n").count(), 1, "{stdout}");
    let numbers: Vec<usize> = stdout
        .lines()
        .filter_map(|line| line.strip_prefix("not ").unwrap_or(line).strip_prefix("ok "))
        .filter_map(|rest| rest.split(' ').next()?.parse().ok())
        .collect();
    assert_eq!(numbers, (1..=count).collect::<Vec<_>>(), "{stdout}");
}

/// Requires that a kernel which panics costs the case that was running, with what the console says of it, and that the rest
/// runs after another boot; the report names the boot.
fn panic_costs_one_case(script: &Script) {
    let (status, stdout, stderr) = script.finish(checking(script, &[], &["panic-kernel"]));
    assert_eq!(status, Some(1));
    is_one_report(&stdout, 5);
    assert!(
        stdout.contains("# part 2 of the run: the guest's kernel panicked during "),
        "{stdout}"
    );
    assert!(stderr.contains("run-in-vm: boots again to go on, restart 1 of 3\n"), "{stderr}");
    let record = costs_one_case(script, "panic-kernel");
    assert_eq!(record.verdict, Verdict::Fail);
    assert!(record.kernel_log[0].starts_with("Kernel panic - not syncing"), "{record:?}");
    let failure = record.failure.expect("it failed");
    assert_eq!(failure.blame, Some(Blame::Kernel));
    assert!(failure.summary.contains("Kernel panic - not syncing"), "{}", failure.summary);
    script.nothing_is_left();
}

/// Requires that one of several guests which dies costs one case at most.
fn killed_guest_costs_one_case(script: &Script) {
    let suite = env!("CARGO_BIN_EXE_gmem-conform");
    let options = ["--guests=2", "--append=kvm.vm_memory_attributes=0"];
    let mut command = script.booting(suite, &options);
    // Many, so that both still run when one is killed.
    command.args(["--platform=sw-protected", "--json", "results.jsonl", "--skip=.layout."]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("bash runs scripts/run-in-vm");
    let qemus = script.wait_for_qemus(2);
    script.wait_for_results(2, 3);
    kill(qemus[1], Signal::SIGKILL).expect("it is running");
    let Output { status, stderr, .. } = child.wait_with_output().expect("it is our child");
    let stderr = String::from_utf8_lossy(&stderr);
    let summary = accounting::holds(&script.directory.join("results.jsonl"));
    assert!(summary.passed > 10 && summary.not_run == 0, "{summary:?}: {stderr}");
    // Between two cases none is lost.
    assert!(summary.errors <= 1, "{summary:?}");
    assert_eq!(status.code(), Some(i32::from(summary.errors > 0)), "{stderr}");
    assert!(stderr.contains("restart 1 of 3"), "{stderr}");
}

/// Requires that without restarts the results are ended all the same, with the case that was running and those that did not
/// run.
fn panic_without_restarts_ends_the_run(script: &Script) {
    let (status, stdout, _) =
        script.finish(checking(script, &["--restarts", "0"], &["panic-kernel"]));
    assert_eq!(status, Some(1));
    let summary = accounting::holds(&script.directory.join("results.jsonl"));
    assert_eq!((summary.passed, summary.failed, summary.not_run), (3, 1, 1));
    is_one_report(&stdout, 4);
    assert!(stdout.contains("\nBail out! the guest's kernel panicked\n"), "{stdout}");
}

/// Requires that a machine which goes down without a word costs the case that was running, as an error.
fn reboot_costs_one_case(script: &Script) {
    let (status, stdout, _) = script.finish(checking(script, &[], &["reboot"]));
    assert_eq!(status, Some(1));
    is_one_report(&stdout, 5);
    let record = costs_one_case(script, "reboot");
    assert_eq!(record.verdict, Verdict::Error);
    let failure = record.failure.expect("it is an error");
    assert_eq!(failure.summary, "the guest ended before the program did");
}

/// Requires that a machine in which nothing moves any more is noticed, though its last case had time left.
fn frozen_machine_costs_one_case(script: &Script) {
    let record = disturbed(script, Signal::SIGSTOP);
    let failure = record.failure.expect("it is an error");
    assert_eq!(failure.summary, "the guest's kernel showed no sign of life for 30 seconds");
    assert_eq!((record.verdict, failure.blame), (Verdict::Error, Some(Blame::Kernel)));
}

/// Requires that whoever kills a machine loses the case that was running.
fn killed_machine_costs_one_case(script: &Script) {
    let record = disturbed(script, Signal::SIGKILL);
    let failure = record.failure.expect("it is an error");
    assert!(failure.summary.ends_with(" ended with status 137"), "{}", failure.summary);
    assert_eq!((record.verdict, failure.blame), (Verdict::Error, Some(Blame::Machine)));
}

/// The record of a case that hangs, and whose machine gets a signal then.
fn disturbed(script: &Script, signal: Signal) -> CaseRecord {
    let mut command = checking(script, &[], &["hang-host"]);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("bash runs scripts/run-in-vm");
    let mut reader = BufReader::new(child.stdout.take().expect("it is a pipe"));
    let mut stdout = String::new();
    while !stdout.contains("\nok 3 ") {
        assert_ne!(reader.read_line(&mut stdout).expect("the pipe is readable"), 0, "{stdout}");
    }
    let qemus = script.wait_for_qemus(1);
    script.wait_for_results(1, 8);
    kill(qemus[0], signal).expect("it is running");
    reader.read_to_string(&mut stdout).expect("the pipe is readable");
    assert_eq!(child.wait().expect("it is our child").code(), Some(1), "{stdout}");
    is_one_report(&stdout, 5);
    costs_one_case(script, "hang-host")
}

/// Requires that a worker which cannot be killed is left behind, and holds up neither the run nor its end.
fn unkillable_worker_is_left_behind(script: &Script) {
    let mut command = checking(script, &[], &["hang-unkillable"]);
    command.arg("--timeout=6");
    let (status, stdout, stderr) = script.finish(command);
    assert_eq!((status, stderr.as_str()), (Some(1), ""));
    is_one_report(&stdout, 5);
    let record = costs_one_case(script, "hang-unkillable");
    assert_eq!(record.verdict, Verdict::Timeout);
    let failure = record.failure.expect("it is a timeout");
    assert_eq!(failure.blame, Some(Blame::Kernel));
    let detail = failure.detail.join("\n");
    for part in ["is in a wait that no signal ends (D)", "cannot be killed and is left behind"] {
        assert!(detail.contains(part), "{detail}");
    }
}

/// What this program does in the virtual machine.
mod fixture {
    use super::*;

    /// Complete lines of a results file, for the script only text.
    pub(super) const JSON: &str = "{\"type\":\"run\"}\n{\"type\":\"case\"}\n";
    pub(super) const STDERR: &str = "to standard error\r\n";

    /// Each byte many times over, among them those that a terminal changes; more than any buffer in between holds.
    pub(super) fn every_byte() -> Vec<u8> {
        (0..=255).cycle().take(200_000).collect()
    }

    pub(super) fn main(arguments: &[String]) -> ExitCode {
        let (what, rest) = arguments.split_first().expect("a test says what to do");
        let done = match what.as_str() {
            "arguments" => print_arguments(rest),
            "streams" => streams(rest),
            "cat" => cat(rest),
            "leftover" => leave_child(),
            "abort" => abort(),
            "crash" => crash(rest),
            "hang" => hang(rest),
            other => panic!("unknown fixture {other}"),
        };
        match done {
            Ok(status) => status,
            Err(error) => {
                eprintln!("fixture: {error}");
                ExitCode::FAILURE
            }
        }
    }

    fn print_arguments(arguments: &[String]) -> io::Result<ExitCode> {
        println!("{}\n{arguments:?}", env::current_dir()?.display());
        Ok(ExitCode::SUCCESS)
    }

    /// Writes to the file given with --json, if any.
    fn write_json(arguments: &[String], text: &str) -> io::Result<()> {
        let file = match arguments {
            [option, file] if option == "--json" => Some(file.as_str()),
            [option] => option.strip_prefix("--json="),
            _ => None,
        };
        // Truncated and written to as by the suite.
        match file {
            Some(file) => fs::File::create(file)?.write_all(text.as_bytes()),
            None => Ok(()),
        }
    }

    fn streams(arguments: &[String]) -> io::Result<ExitCode> {
        eprint!("{STDERR}");
        io::stdout().write_all(&every_byte())?;
        write_json(arguments, JSON)?;
        Ok(ExitCode::from(4))
    }

    /// Prints the files that arguments name, as file or as `--option=file`.
    fn cat(arguments: &[String]) -> io::Result<ExitCode> {
        for argument in arguments {
            let name = argument.split_once('=').map_or(&argument[..], |pair| pair.1);
            if Path::new(name).is_file() {
                io::stdout().write_all(&fs::read(name)?)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn leave_child() -> io::Result<ExitCode> {
        Command::new("/proc/self/exe").args([FIXTURE, "hang"]).stdout(Stdio::piped()).spawn()?;
        println!("left");
        Ok(ExitCode::from(4))
    }

    fn abort() -> io::Result<ExitCode> {
        println!("aborting");
        std::process::abort()
    }

    /// Makes the kernel oops, with a line of results half written.
    fn crash(arguments: &[String]) -> io::Result<ExitCode> {
        println!("crashing");
        write_json(arguments, &format!("{JSON}{{\"type\":\"ca"))?;
        fs::write("/proc/sysrq-trigger", "c")?;
        Ok(ExitCode::SUCCESS)
    }

    fn hang(arguments: &[String]) -> io::Result<ExitCode> {
        write_json(arguments, &format!("{JSON}{{\"type\":\"ca"))?;
        println!("hanging");
        loop {
            thread::park();
        }
    }
}

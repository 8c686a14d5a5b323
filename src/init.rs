// SPDX-License-Identifier: GPL-2.0-only
//! What the program does as process 1 of the initramfs that `scripts/run-in-vm` makes: it runs itself as an ordinary
//! process, with three channels to the host, and powers the machine off.
//!
//! The channels are virtio-serial ports where the kernel has the driver, and otherwise serial ports:
//!
//! | port name             | serial port  | carries                                                        |
//! |-----------------------|--------------|----------------------------------------------------------------|
//! | `gmem-conform.stdout` | `/dev/ttyS1` | the program's standard output                                  |
//! | `gmem-conform.stderr` | `/dev/ttyS2` | its standard error                                             |
//! | `gmem-conform.json`   | `/dev/ttyS3` | the file given with `--json`, then a line with the exit status |
//! | `gmem-conform.alive`  | none         | a byte a second                                                |
//!
//! The kernel's console, `/dev/ttyS0`, is for the kernel and for what fails here. That the exit status comes last, on the
//! same channel as the results, tells a run that has ended from one whose kernel died.
//!
//! A run of cases keeps its results on the third channel even where nobody asks for them, so that it can be resumed when its
//! kernel dies.
//!
//! Arguments arrive unchanged: `run-in-vm` puts, in place of the file given with `--json`, a symbolic link to
//! [`JSON_LINK`], so that nobody here needs to understand them.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{SetArg, cfmakeraw, tcdrain, tcgetattr, tcsetattr};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, sync};
use thiserror::Error;

/// The file that tells process 1 that it is in an initramfs of `run-in-vm`: the working directory and then the
/// arguments, each ended by a NUL.
pub const ARGUMENTS_FILE: &str = "/gmem-conform.args";
/// Where the file given with `--json` leads: a symbolic link to the device of the JSON channel.
pub const JSON_LINK: &str = "/gmem-conform.json";

/// Names a file in which a run keeps its results besides what its options say: set where the machine may go down, by who then
/// has the run resumed.
pub(crate) const RECORD_VARIABLE: &str = "GMEM_CONFORM_RECORD";

/// How long a virtio-serial device may take to announce its ports. It does so from a work queue, right after its driver
/// has found it at boot; seconds are for a slow emulator.
const PORTS_DEADLINE: Duration = Duration::from_secs(10);
/// How long processes that were killed may take to be gone. One that is stuck in the kernel never is, and must not keep the
/// machine on.
const DEATH: Duration = Duration::from_secs(5);
/// How often this process shows that the machine is alive. `run-in-vm` waits for many times as long.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Exit status when the program ended in another way than by exiting.
const STATUS_ERROR: i32 = 1;

/// What process 1 could not do.
#[derive(Debug, Error)]
enum InitError {
    #[error("failed to read {ARGUMENTS_FILE}: {0}")]
    Arguments(#[source] io::Error),
    #[error("{ARGUMENTS_FILE} is not a list of strings ended by NUL")]
    NoArguments,
    #[error("failed to make {JSON_LINK}: {0}")]
    JsonLink(#[source] io::Error),
    #[error("failed to mount {kind} on {target}: {errno}")]
    Mount { kind: &'static str, target: &'static str, errno: Errno },
    #[error("failed to make /tmp: {0}")]
    Tmp(#[source] io::Error),
    #[error(
        "no virtio-serial ports, and {} is no serial port ({error}); the kernel needs \
         CONFIG_VIRTIO_CONSOLE and CONFIG_VIRTIO_PCI, or CONFIG_SERIAL_8250 with 4 ports",
        .device.display()
    )]
    NoChannel { device: PathBuf, error: io::Error },
    #[error("failed to open {}: {error}", .device.display())]
    Open { device: PathBuf, error: io::Error },
    #[error("failed to duplicate a descriptor: {0}")]
    Duplicate(#[source] io::Error),
    #[error("failed to start the program: {0}")]
    Start(#[source] io::Error),
    #[error("failed to wait for the program: {0}")]
    Wait(#[source] Errno),
    #[error("failed to write output: {0}")]
    Write(#[source] io::Error),
    #[error("the thread that writes output panicked")]
    Panicked,
    #[error("failed to report exit status {status}: {error}")]
    Report { status: i32, error: io::Error },
}

/// Whether this process has been started by the kernel, out of an initramfs of `run-in-vm`.
pub fn is_init() -> bool {
    std::process::id() == 1 && Path::new(ARGUMENTS_FILE).exists()
}

/// Runs the program in a process of its own, tells the host its exit status and powers the machine off.
///
/// What fails here is printed to the console; `run-in-vm`, which then never sees an exit status, shows it and reports
/// status 1.
pub fn run() -> ! {
    if let Err(error) = run_program() {
        eprintln!("gmem-conform: as process 1: {error}");
    }
    sync();
    let Err(errno) = reboot(RebootMode::RB_POWER_OFF);
    eprintln!("gmem-conform: as process 1: failed to power off: {errno}");
    // The exit of process 1 panics the kernel, which ends the machine as well.
    std::process::exit(STATUS_ERROR)
}

fn run_program() -> Result<(), InitError> {
    mount_filesystems()?;
    let arguments = fs::read(ARGUMENTS_FILE).map_err(InitError::Arguments)?;
    let (directory, arguments) = parse_arguments(&arguments).ok_or(InitError::NoArguments)?;

    let devices = Devices::find()?;
    symlink(&devices.json, JSON_LINK).map_err(InitError::JsonLink)?;
    show_signs_of_life();
    let stdout = Output::open(&devices.stdout)?;
    let stderr = Output::open(&devices.stderr)?;

    // The program must not be process 1 itself: that one ignores signals that it does not handle, and its death is a
    // kernel panic.
    let child = Command::new("/proc/self/exe")
        .arg0("gmem-conform")
        .args(arguments)
        .env(RECORD_VARIABLE, JSON_LINK)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(stdout.handle()?)
        .stderr(stderr.handle()?)
        .spawn()
        .map_err(InitError::Start)?;
    let status = wait_for(Pid::from_raw(child.id() as i32))?;
    end_all_others();

    let status = match status {
        WaitStatus::Exited(_, status) => status,
        other => {
            // The host has no other way to learn this; a status of 128 + N would break the contract on exit codes.
            let mut stderr = &stderr.file;
            let _ = writeln!(stderr, "gmem-conform: the program ended with {other:?}");
            STATUS_ERROR
        }
    };
    stdout.finish()?;
    stderr.finish()?;
    report_status(&devices.json, status)
}

/// Mounts what the program reads. The root of an initramfs is writable memory, so nothing is needed for `/tmp`.
fn mount_filesystems() -> Result<(), InitError> {
    for (kind, target, needed) in [
        ("proc", "/proc", true),
        ("sysfs", "/sys", true),
        ("devtmpfs", "/dev", true),
        // Not every kernel has it, and no result depends on it.
        ("debugfs", "/sys/kernel/debug", false),
    ] {
        // Fails harmlessly in sysfs, which makes the mount point itself.
        let _ = fs::create_dir_all(target);
        let mounted = mount(Some(kind), target, Some(kind), MsFlags::empty(), None::<&str>);
        if let Err(errno) = mounted
            && needed
        {
            return Err(InitError::Mount { kind, target, errno });
        }
    }
    fs::create_dir_all("/tmp").map_err(InitError::Tmp)
}

/// The working directory and the arguments, or `None` when `bytes` is not a non-empty list of strings ended by NUL.
fn parse_arguments(bytes: &[u8]) -> Option<(PathBuf, Vec<OsString>)> {
    let mut strings = bytes
        .strip_suffix(b"\0")?
        .split(|byte| *byte == 0)
        .map(|string| OsString::from_vec(string.to_vec()));
    Some((PathBuf::from(strings.next()?), strings.collect()))
}

/// The devices of the three channels.
struct Devices {
    stdout: PathBuf,
    stderr: PathBuf,
    json: PathBuf,
}

impl Devices {
    /// Finds the channels and makes them carry bytes unchanged.
    fn find() -> Result<Devices, InitError> {
        if has_virtio_console() {
            let start = Instant::now();
            while start.elapsed() < PORTS_DEADLINE {
                if let Some(devices) = Devices::virtio() {
                    return Ok(devices);
                }
                // The ports' devices come from a kernel work queue, and there is nothing in sysfs to wait on.
                thread::sleep(Duration::from_millis(5));
            }
        }
        let devices = Devices {
            stdout: "/dev/ttyS1".into(),
            stderr: "/dev/ttyS2".into(),
            json: "/dev/ttyS3".into(),
        };
        for device in [&devices.stdout, &devices.stderr, &devices.json] {
            make_raw(device)
                .map_err(|error| InitError::NoChannel { device: device.clone(), error })?;
        }
        Ok(devices)
    }

    /// The virtio-serial ports, once all of them have been announced.
    fn virtio() -> Option<Devices> {
        Some(Devices {
            stdout: virtio_port("gmem-conform.stdout")?,
            stderr: virtio_port("gmem-conform.stderr")?,
            json: virtio_port("gmem-conform.json")?,
        })
    }
}

/// Whether a driver has taken the virtio-serial device, so that its ports will appear.
fn has_virtio_console() -> bool {
    fs::read_dir("/sys/bus/virtio/drivers/virtio_console").is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().as_encoded_bytes().starts_with(b"virtio"))
    })
}

fn virtio_port(name: &str) -> Option<PathBuf> {
    let port = fs::read_dir("/sys/class/virtio-ports").ok()?.flatten().find(|port| {
        fs::read_to_string(port.path().join("name")).is_ok_and(|found| found.trim() == name)
    })?;
    Some(Path::new("/dev").join(port.file_name()))
}

/// Stops a serial line from changing what is written to it; it stays so when it is closed.
fn make_raw(device: &Path) -> io::Result<()> {
    let line = open_for_writing(device)?;
    let mut settings = tcgetattr(&line)?;
    cfmakeraw(&mut settings);
    tcsetattr(&line, SetArg::TCSANOW, &settings)?;
    Ok(())
}

fn open_for_writing(device: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).open(device)
}

/// Where the program's standard output or error goes.
struct Output {
    file: File,
    /// Carries the bytes of a pipe to a serial line. That is a terminal, for which the program would choose another
    /// format, so the output must look the same as through virtio-serial. There the program writes to the port itself,
    /// and no byte waits in between when the kernel dies.
    copier: Option<JoinHandle<io::Result<()>>>,
}

impl Output {
    fn open(device: &Path) -> Result<Output, InitError> {
        let open = || {
            let file = open_for_writing(device)?;
            if !file.is_terminal() {
                return Ok(Output { file, copier: None });
            }
            let (mut reader, writer) = io::pipe()?;
            let mut line = file;
            let copier = thread::spawn(move || {
                io::copy(&mut reader, &mut line)?;
                Ok(tcdrain(&line)?)
            });
            Ok(Output {
                file: File::from(std::os::fd::OwnedFd::from(writer)),
                copier: Some(copier),
            })
        };
        open().map_err(|error| InitError::Open { device: device.into(), error })
    }

    fn handle(&self) -> Result<File, InitError> {
        self.file.try_clone().map_err(InitError::Duplicate)
    }

    /// Waits until all has been written. Nobody else may have the output open any more.
    fn finish(self) -> Result<(), InitError> {
        drop(self.file);
        match self.copier.map(JoinHandle::join) {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(error))) => Err(InitError::Write(error)),
            Some(Err(_)) => Err(InitError::Panicked),
        }
    }
}

/// Reaps children, also those that were left to process 1 by others, until `program` has ended.
fn wait_for(program: Pid) -> Result<WaitStatus, InitError> {
    loop {
        match waitpid(None, None) {
            Ok(status) if status.pid() == Some(program) => return Ok(status),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(InitError::Wait(errno)),
        }
    }
}

/// Ends what the program has left behind, so that nobody holds a channel open.
fn end_all_others() {
    // To -1: every process except process 1. Fails when there is none.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    let until = Instant::now() + DEATH;
    while Instant::now() < until {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(Errno::ECHILD) => return,
            // Nobody signals this process in a way that it could wait for with a deadline.
            Ok(WaitStatus::StillAlive) => thread::sleep(Duration::from_millis(5)),
            Ok(_) | Err(_) => {}
        }
    }
}

/// Writes a byte from time to time, as long as the kernel runs processes. Where there is no port for that, nobody looks.
fn show_signs_of_life() {
    let Some(mut port) =
        virtio_port("gmem-conform.alive").and_then(|port| open_for_writing(&port).ok())
    else {
        return;
    };
    thread::spawn(move || {
        while port.write_all(b".").is_ok() {
            thread::sleep(HEARTBEAT);
        }
    });
}

/// Ends the JSON channel with the exit status. The newline in front separates it from a line that a dying program left
/// unfinished, and makes an empty line otherwise; `run-in-vm` drops either.
fn report_status(device: &Path, status: i32) -> Result<(), InitError> {
    let report = || {
        let mut channel = open_for_writing(device)?;
        write!(channel, "\n# exit status {status}\n")?;
        if channel.is_terminal() {
            tcdrain(&channel)?;
        }
        Ok(())
    };
    report().map_err(|error| InitError::Report { status, error })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Arguments are separated by NUL and by nothing else: empty ones, white space and bytes that are not UTF-8 arrive.
    #[test]
    fn arguments_arrive_unchanged() {
        let (directory, arguments) =
            parse_arguments(b"/home/a b\0--json\0\0x 'y'\n\0\xff\0").expect("a valid list");
        assert_eq!(directory, Path::new("/home/a b"));
        let expected = [&b"--json"[..], b"", b"x 'y'\n", b"\xff"];
        let arguments: Vec<Vec<u8>> = arguments.into_iter().map(OsString::into_vec).collect();
        assert_eq!(arguments, expected);
    }

    /// A program without arguments is the common case, not an empty first argument.
    #[test]
    fn no_arguments() {
        let (directory, arguments) = parse_arguments(b"/\0").expect("a valid list");
        assert_eq!(directory, Path::new("/"));
        assert!(arguments.is_empty());
    }

    /// A file that was cut short is an error, not fewer arguments.
    #[test]
    fn cut_list_is_refused() {
        assert_eq!(parse_arguments(b""), None);
        assert_eq!(parse_arguments(b"/\0--filter\0pres"), None);
    }

    /// An ordinary process is never mistaken for process 1, whatever files the machine has.
    #[test]
    fn ordinary_process_is_not_init() {
        assert!(!is_init());
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! One worker process, seen from the runner.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind, PipeReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, ExitStatus};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use thiserror::Error;

use super::headers::describe;
use super::spawn::spawn;
use super::threads;
use crate::activity::Activity;
use crate::protocol::{Job, Reply};

/// What is kept of a worker's output during one case, in bytes.
const STRAY_BYTES: usize = 64 * 1024;
/// Bytes that are read from a pipe at once: most replies are shorter.
const READ_BYTES: usize = 4 * 1024;
/// Longest reply, in bytes. A failure of a case of thousands of pages stays far below.
const REPLY_BYTES: usize = 4 << 20;
/// How long a killed worker may take to be gone. One that is stuck in the kernel never is.
const DEATH: Duration = Duration::from_secs(5);
/// The same for one of which a thread then waits in the kernel for something that no signal ends: longer than VMs and pages
/// take to be given back.
const DEATH_IN_WAIT: Duration = Duration::from_secs(1);
/// How long a worker may live after it closed one of its pipes, before that counts as its own doing: a process that dies
/// closes its descriptors a little before it is gone.
const LAST_BREATH: Duration = Duration::from_secs(1);

/// Why a worker is of no more use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It is dead.
    Died,
    /// It lives, but cannot reply any more.
    ClosedReplies,
    /// It lives, but takes no more jobs.
    ClosedJobs,
    /// It said something that is no reply.
    Garbage(String),
}

/// What became of a worker that was killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Death {
    /// How it ended; a worker that had died before keeps its own status.
    Reaped(ExitStatus),
    /// It did not go away: it is stuck in the kernel, at this place if that can be told.
    Stuck(String),
}

/// A worker process.
pub(super) struct WorkerProcess {
    child: Child,
    pidfd: OwnedFd,
    jobs: Option<ChildStdin>,
    outbox: Vec<u8>,
    replies: Option<PipeReader>,
    inbox: Vec<u8>,
    output: Option<PipeReader>,
    progress: File,
    stray: Vec<u8>,
    stray_lost: usize,
    /// Whether it was killed; it is not waited for twice.
    killed: bool,
    /// Replies that have come and were not looked at yet.
    pub(super) said: VecDeque<Reply>,
    /// Set when it is of no more use.
    pub(super) end: Option<End>,
    /// When it must be dead, having closed one of its pipes.
    pub(super) closing: Option<Instant>,
}

impl WorkerProcess {
    /// Starts `command` as a worker.
    pub(super) fn start(command: &[OsString]) -> io::Result<WorkerProcess> {
        let spawned = spawn(command)?;
        Ok(WorkerProcess {
            child: spawned.child,
            pidfd: spawned.pidfd,
            jobs: Some(spawned.jobs),
            outbox: Vec::new(),
            replies: Some(spawned.replies),
            inbox: Vec::new(),
            output: Some(spawned.output),
            progress: spawned.progress,
            stray: Vec::new(),
            stray_lost: 0,
            killed: false,
            said: VecDeque::new(),
            end: None,
            closing: None,
        })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends a worker that closed one of its pipes and did not die of it in time.
    pub(super) fn check_closing(&mut self, now: Instant) {
        if self.end.is_none() && self.closing.is_some_and(|until| until <= now) {
            self.end = Some(match self.replies {
                None => End::ClosedReplies,
                Some(_) => End::ClosedJobs,
            });
        }
    }

    /// Sends a job, as far as the pipe takes it; [`wait`] sends the rest.
    pub(super) fn send(&mut self, job: &Job) -> io::Result<()> {
        serde_json::to_writer(&mut self.outbox, job)?;
        self.outbox.push(b'\n');
        self.write_jobs();
        Ok(())
    }

    /// Forgets how far the last case has come.
    pub(super) fn begin_case(&mut self) {
        // A memfd that the runner itself made takes them; if not, that of the last case would be shown.
        let _ = self.progress.write_all_at(&[0; 8], 0);
    }

    /// What it is doing, or was doing when it died.
    pub(super) fn activity(&self) -> Activity {
        Activity::read(&self.progress)
    }

    /// What it has written to its standard output and error since the last call, made printable.
    pub(super) fn stray_output(&mut self) -> String {
        self.read_output();
        let stray = std::mem::take(&mut self.stray);
        let lost = std::mem::take(&mut self.stray_lost);
        let mut text: String = String::from_utf8_lossy(&stray)
            .chars()
            .flat_map(|c| {
                let keep = c == '\n' || c == '\t' || !c.is_control();
                keep.then_some(c)
                    .into_iter()
                    .chain((!keep).then(|| c.escape_default()).into_iter().flatten())
            })
            .collect();
        if lost > 0 {
            text += &format!("\n[{lost} more bytes]");
        }
        text
    }

    /// Kills it with all of its process group and waits for it, for a bounded time.
    pub(super) fn kill(&mut self) -> Death {
        let death = self.reap();
        self.read_replies();
        self.read_output();
        death
    }

    fn reap(&mut self) -> Death {
        // Its number cannot belong to another process before it has been waited for.
        let _ = killpg(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
        let gone = self.wait_dead(DEATH_IN_WAIT)
            || (!threads::is_uninterruptible(self.child.id())
                && self.wait_dead(DEATH.saturating_sub(DEATH_IN_WAIT)));
        self.killed = true;
        match self.child.try_wait() {
            Ok(Some(status)) => Death::Reaped(status),
            _ if gone => Death::Stuck("its status cannot be read".to_string()),
            _ => Death::Stuck(
                std::fs::read_to_string(format!("/proc/{}/wchan", self.child.id()))
                    .ok()
                    .filter(|place| !place.is_empty() && place != "0")
                    .unwrap_or_else(|| "an unknown place".to_string()),
            ),
        }
    }

    /// Lets it end by itself, as it does when no more jobs can come, and kills what is left of it. Returns how it ended
    /// if that was not in order, in words that follow "worker".
    pub(super) fn dismiss(mut self) -> Option<String> {
        self.jobs = None;
        let willing = self.wait_dead(LAST_BREATH);
        match self.reap() {
            Death::Reaped(status) if status.success() => None,
            Death::Reaped(status) if willing => Some(describe_status(status)),
            Death::Reaped(_) => Some("did not end with its jobs".to_string()),
            Death::Stuck(place) => Some(format!("is stuck in the kernel at {place}")),
        }
    }

    /// Waits until it is dead; false when it still lives after `time`.
    fn wait_dead(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            let mut set = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
            match poll(&mut set, poll_timeout(Some(until))) {
                Ok(0) if Instant::now() >= until => return false,
                Ok(0) | Err(nix::errno::Errno::EINTR) => {}
                Ok(_) => return true,
                Err(_) => return false,
            }
        }
    }

    fn write_jobs(&mut self) {
        while let (Some(jobs), false) = (&mut self.jobs, self.outbox.is_empty()) {
            match jobs.write(&self.outbox) {
                Ok(written) => drop(self.outbox.drain(..written)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.jobs = None;
                    self.outbox.clear();
                    self.closing.get_or_insert(Instant::now() + LAST_BREATH);
                }
            }
        }
    }

    /// Reads what the reply pipe holds.
    fn read_replies(&mut self) {
        let mut buffer = [0; READ_BYTES];
        while let Some(pipe) = &mut self.replies {
            match pipe.read(&mut buffer) {
                Ok(0) => {
                    self.replies = None;
                    self.closing.get_or_insert(Instant::now() + LAST_BREATH);
                }
                Ok(length) => {
                    self.inbox.extend_from_slice(&buffer[..length]);
                    self.parse_replies();
                    if length < buffer.len() {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
            if matches!(self.end, Some(End::Garbage(_))) {
                return;
            }
        }
    }

    fn parse_replies(&mut self) {
        while let Some(length) = self.inbox.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.inbox.drain(..=length).collect();
            match serde_json::from_slice(&line) {
                Ok(reply) => self.said.push_back(reply),
                Err(_) => {
                    self.end = Some(End::Garbage(quote(&line[..length])));
                    return;
                }
            }
        }
        if self.inbox.len() > REPLY_BYTES {
            self.end = Some(End::Garbage(quote(&self.inbox)));
        }
    }

    /// Reads what the output pipe holds; bounded, because a process that escaped may go on writing.
    fn read_output(&mut self) {
        let mut buffer = [0; READ_BYTES];
        for _ in 0..STRAY_BYTES / READ_BYTES * 4 {
            let Some(pipe) = &mut self.output else { return };
            match pipe.read(&mut buffer) {
                Ok(0) => self.output = None,
                Ok(length) => {
                    let room = (STRAY_BYTES - self.stray.len()).min(length);
                    self.stray.extend_from_slice(&buffer[..room]);
                    self.stray_lost += length - room;
                    if length < buffer.len() {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        if !self.killed {
            self.reap();
        }
    }
}

/// The beginning of what a worker wrote, in quotes and printable.
fn quote(bytes: &[u8]) -> String {
    let text = bytes[..bytes.len().min(60)].escape_ascii();
    let more = if bytes.len() > 60 { "..." } else { "" };
    format!("\"{text}\"{more}")
}

/// Time left for poll, rounded up so that it does not return early; forever without a moment to end at.
fn poll_timeout(until: Option<Instant>) -> PollTimeout {
    let Some(until) = until else {
        return PollTimeout::NONE;
    };
    let left = until.saturating_duration_since(Instant::now());
    let milliseconds = left.as_micros().div_ceil(1000);
    PollTimeout::from(u16::try_from(milliseconds).unwrap_or(u16::MAX))
}

/// Which descriptor of a worker poll has reported.
enum Ready {
    Interrupt,
    Process(usize),
    Replies(usize),
    Output(usize),
    Jobs(usize),
}

/// Waits until a worker has something to say, dies, takes more of a job, until `interrupt` is readable or `until` has
/// come, and moves the bytes. Returns whether `interrupt` is readable. May return for no reason.
pub(super) fn wait(
    workers: &mut [&mut WorkerProcess],
    interrupt: Option<BorrowedFd<'_>>,
    until: Option<Instant>,
) -> io::Result<bool> {
    let mut set = Vec::new();
    let mut meaning = Vec::new();
    if let Some(fd) = interrupt {
        set.push(PollFd::new(fd, PollFlags::POLLIN));
        meaning.push(Ready::Interrupt);
    }
    for (index, worker) in workers.iter().enumerate() {
        set.push(PollFd::new(worker.pidfd.as_fd(), PollFlags::POLLIN));
        meaning.push(Ready::Process(index));
        if let Some(replies) = &worker.replies {
            set.push(PollFd::new(replies.as_fd(), PollFlags::POLLIN));
            meaning.push(Ready::Replies(index));
        }
        if let Some(output) = &worker.output {
            set.push(PollFd::new(output.as_fd(), PollFlags::POLLIN));
            meaning.push(Ready::Output(index));
        }
        if let (Some(jobs), false) = (&worker.jobs, worker.outbox.is_empty()) {
            set.push(PollFd::new(jobs.as_fd(), PollFlags::POLLOUT));
            meaning.push(Ready::Jobs(index));
        }
    }
    match poll(&mut set, poll_timeout(until)) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let ready: Vec<Ready> = set
        .iter()
        .zip(meaning)
        .filter(|(fd, _)| fd.revents().is_some_and(|events| !events.is_empty()))
        .map(|(_, meaning)| meaning)
        .collect();
    drop(set);
    let mut interrupted = false;
    for event in ready {
        match event {
            Ready::Interrupt => interrupted = true,
            Ready::Replies(index) => workers[index].read_replies(),
            Ready::Output(index) => workers[index].read_output(),
            Ready::Jobs(index) => workers[index].write_jobs(),
            Ready::Process(index) => {
                // What it said before it died still counts.
                let worker = &mut workers[index];
                worker.read_replies();
                if !matches!(worker.end, Some(End::Garbage(_))) {
                    worker.end = Some(End::Died);
                }
            }
        }
    }
    Ok(interrupted)
}

/// How a process ended, in words that follow "worker".
pub(super) fn describe_status(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(number), _) => match Signal::try_from(number) {
            Ok(signal) => format!("died of {}", signal.as_str()),
            Err(_) => format!("died of signal {number}"),
        },
        (None, Some(code)) => format!("exited with status {code}"),
        (None, None) => format!("ended: {status}"),
    }
}

/// Why no worker could be started.
#[derive(Debug, Error)]
#[error("cannot start a worker ({program}): {}", describe(.error))]
pub(super) struct StartError {
    program: String,
    error: io::Error,
}

impl StartError {
    /// About the program that `command` begins with.
    pub(super) fn new(command: &[OsString], error: io::Error) -> StartError {
        let program =
            command.first().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        StartError { program, error }
    }
}

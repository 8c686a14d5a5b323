// SPDX-License-Identifier: GPL-2.0-only
//! Workers that misbehave, and what a run says about them.

use std::ffi::OsString;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use gmem_conform::clause::ClauseId;
use gmem_conform::machine::{MachineConfig, MachineKind};
use gmem_conform::plan::PlannedCase;
use gmem_conform::platform::Platform;
use gmem_conform::results::{CaseRecord, Environment, Summary};
use gmem_conform::results::{Event, Sink};
use gmem_conform::run::{self, Options};

/// A worker that does what the name of each case says, in a shell: `$dir` is a folder of the test.
pub const WORKER: &str = r#"
dir=$1
pass() {
    echo "{\"reply\":\"done\",\"id\":\"$id\",\"verdict\":\"pass\",\"failure\":null,\"observations\":[]}" >&3
}
read -r configuration
while read -r job; do
    id=$(printf '%s\n' "$job" | sed 's/.*"id":"\([^"]*\)".*/\1/')
    case $id in
    *.deaf) exit 7 ;;
    *.deaf-once) if mkdir "$dir/was-deaf" 2>/dev/null; then kill -BUS $$; fi ;;
    esac
    printf '\001\0\0\0\0\0\0\0' 1<>/proc/self/fd/4
    case $id in
    *.hang) printf '\004\0\0\0\0\0\0\0' 1<>/proc/self/fd/4; sleep 1000 & echo $! >"$dir/grandchild"; wait ;;
    *.segfault) printf '\004\0\0\0\0\0\0\0' 1<>/proc/self/fd/4; kill -SEGV $$ ;;
    *.exit) exit 3 ;;
    *.exit-silently) exit 0 ;;
    *.garbage) echo 'ok 1 not JSON' >&3; sleep 1000 ;;
    *.wrong-id) id=another.case ;;
    *.half-reply) printf '{"reply":"done","id' >&3; exit 0 ;;
    *.deaf-mute) exec 3>&-; sleep 1000 ;;
    *.kill-worker) kill -KILL $$ ;;
    *.noise) echo 'not ok 1 fake'; printf 'red \033[31m \377\n' >&2 ;;
    *.flood) head -c 200000 /dev/zero | tr '\0' x ;;
    *.orphan) sleep 1000 & echo $! >"$dir/grandchild"; exit 5 ;;
    *.slow) sleep 0.3 ;;
    *.warn) echo '4,9,9,-;WARNING: CPU: 0 PID: 1 at virt/kvm/guest_memfd.c:1 x+0x1/0x2' >>"$dir/dev/kmsg" ;;
    *.warn-and-die) echo '1,9,9,-;BUG: kernel NULL pointer dereference, address: 8' >>"$dir/dev/kmsg"; kill -KILL $$ ;;
    *.taint) echo 512 >"$dir/proc/sys/kernel/tainted" ;;
    *.meet-a) echo hello >"$dir/fifo" ;;
    *.meet-b) read -r word <"$dir/fifo" ;;
    *.reply-and-die) pass; kill -ABRT $$ ;;
    esac
    pass
done
"#;

/// What happened in a run.
#[derive(Default)]
pub struct Log {
    pub events: Vec<Event>,
    /// Asks for the end of the run after this many events.
    pub break_after: Option<usize>,
    /// Told of every event.
    #[expect(clippy::type_complexity, reason = "one use")]
    pub spy: Option<Box<dyn FnMut(&Event)>>,
}

impl Sink for Log {
    fn event(&mut self, event: &Event) -> ControlFlow<()> {
        self.events.push(event.clone());
        if let Some(spy) = &mut self.spy {
            spy(event);
        }
        match self.break_after {
            Some(count) if self.events.len() >= count => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }

    fn failed(&self) -> bool {
        false
    }
}

impl Log {
    pub fn records(&self) -> Vec<&CaseRecord> {
        self.events
            .iter()
            .filter_map(|event| match event {
                Event::Finished { record, .. } => Some(&**record),
                _ => None,
            })
            .collect()
    }

    pub fn notes(&self) -> Vec<&str> {
        self.events
            .iter()
            .filter_map(|event| match event {
                Event::Note(text) => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }

    pub fn aborted(&self) -> Option<&str> {
        self.events.iter().find_map(|event| match event {
            Event::Aborted(reason) => Some(reason.as_str()),
            _ => None,
        })
    }
}

/// A folder of one test, removed at its end.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Folder {
        let folder = Folder(TempDir::new().unwrap());
        for dir in ["proc/sys/kernel", "dev"] {
            fs::create_dir_all(folder.join(dir)).unwrap();
        }
        fs::write(folder.join("proc/sys/kernel/tainted"), "0\n").unwrap();
        fs::write(folder.join("dev/kmsg"), "").unwrap();
        folder
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

pub fn shell(script: &str, dir: &Path) -> Vec<OsString> {
    ["/bin/sh", "-c", script, "worker"]
        .map(OsString::from)
        .into_iter()
        .chain([dir.into()])
        .collect()
}

pub fn options(dir: &Path) -> Options {
    Options {
        worker: shell(WORKER, dir),
        root: dir.into(),
        ..Options::new(Duration::from_secs(60))
    }
}

pub fn case(id: &str) -> PlannedCase {
    PlannedCase {
        id: format!("test.{id}"),
        platform: Platform::Default,
        clauses: vec![ClauseId::MemorySame],
        text: format!("case {id}\npages 1\n  host write 0..1 A\n"),
        unmet: Vec::new(),
    }
}

pub fn config(kind: MachineKind) -> MachineConfig {
    MachineConfig { kind, dialect: None, fault: None, capability_numbers: None }
}

pub fn run_log(ids: &[&str], kind: MachineKind, options: &Options, mut log: Log) -> (Log, Summary) {
    let plan = ids.iter().map(|id| case(id)).collect();
    let environment = Environment::default();
    let summary = run::run(plan, &config(kind), options, environment, &mut log);
    assert_eq!(log.events.last(), Some(&Event::Ended(summary)));
    (log, summary)
}

pub fn run_cases(ids: &[&str], options: &Options) -> (Log, Summary) {
    run_log(ids, MachineKind::Model, options, Log::default())
}

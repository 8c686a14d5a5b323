// SPDX-License-Identifier: GPL-2.0-only
//! The scripts around the program, with a kernel tree and a virtual machine that are none.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A directory, removed at the end.
struct Dir(TempDir);

impl Dir {
    fn new() -> Dir {
        Dir(TempDir::new().unwrap())
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.path().join(name)).unwrap()
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name)
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

fn install(dir: &Dir) -> Output {
    run(Command::new(script("install-kselftest"))
        .args(["--binary", env!("CARGO_BIN_EXE_gmem-conform")])
        .arg(dir.0.path()))
}

/// An entry a platform is added to the list, once, and the entries of others stay; each entry runs its platform, from
/// any directory, and hands on arguments and status.
#[test]
fn kselftest_layout() {
    let dir = Dir::new();
    dir.write("kselftest-list.txt", "kvm:set_memory_region_test\ngmem-conform:of-old\n");
    for _ in 0..2 {
        let output = install(&dir);
        assert!(output.status.success(), "{output:?}");
    }
    assert_eq!(
        dir.read("kselftest-list.txt"),
        "kvm:set_memory_region_test\n\
         gmem-conform:default\ngmem-conform:snp\ngmem-conform:sw-protected\ngmem-conform:tdx\n"
    );
    assert!(dir.read("gmem-conform/settings").contains("\ntimeout=1800\n"));
    let entry = |arguments: &[&str]| {
        run(Command::new(dir.0.path().join("gmem-conform/sw-protected"))
            .args(["--machine", "model"])
            .args(arguments))
    };
    let listed = entry(&["--list"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.lines().count() > 100);
    assert!(listed.lines().all(|id| id.starts_with("model.sw-protected.")), "{listed}");
    for (arguments, status) in [
        (&["--exact", "model.sw-protected.zero.holes"][..], 0),
        (&["sw-protected.zero.wholly-shared", "--plant", "mode-skipped-on-noop"], 1),
        (&["sw-protected.upstream.no-modes"], 4),
        (&["--no-such-option"], 1),
    ] {
        assert_eq!(entry(arguments).status.code(), Some(status), "{arguments:?}");
    }
}

/// A kernel tree whose build is `build`, and a machine in which `boot` runs with results in `$json`.
fn bisect(build: &str, boot: &str, arguments: &[&str]) -> Output {
    let dir = Dir::new();
    dir.write("scripts/bisect-run", &fs::read_to_string(script("bisect-run")).unwrap());
    let vm =
        "#!/usr/bin/env bash\nset -eu\n[[ $1 == arch/x86/boot/bzImage && -f $1 ]]\njson=${!#}\n";
    dir.write("scripts/run-in-vm", &format!("{vm}{boot}\n"));
    let makefile = "olddefconfig:\n\t@grep -q FROM_FILE .config\nbzImage:\n\t";
    dir.write("linux/Makefile", &format!("{makefile}{build}\n"));
    fs::create_dir(dir.0.path().join("linux/.git")).unwrap();
    dir.write("config", "CONFIG_FROM_FILE=y\n");
    run(Command::new(dir.0.path().join("scripts/bisect-run"))
        .args(["--config", "../config", "--make", "-j1"])
        .args(arguments)
        .current_dir(dir.0.path().join("linux")))
}

/// What git bisect is told: 0 good, 1 bad, 125 for a commit that says nothing, 128 and above to stop.
#[test]
fn bisect_statuses() {
    const BUILD: &str = "@mkdir -p arch/x86/boot && touch arch/x86/boot/bzImage";
    const RUN: &str = r#"echo '{"type":"run"}' >"$json"; "#;
    let case = |verdict: &str, blame: &str| {
        format!(
            r#"echo '{{"type":"case","verdict":"{verdict}","failure":{{"blame":"{blame}"}}}}' >>"$json"; "#
        )
    };
    let summary = |status: u8| format!(r#"echo '{{"type":"summary"}}' >>"$json"; exit {status}"#);
    let pass = format!("{RUN}{}{}", case("pass", "suite"), summary(0));
    let fail = format!("{RUN}{}{}", case("fail", "kernel"), summary(1));
    let hangs = format!("{RUN}{}{}", case("timeout", "suite"), summary(1));
    let undecided = format!("{RUN}{}{}", case("error", "suite"), summary(1));
    let oops = format!("{RUN}{}{}", case("error", "kernel"), summary(1));
    let skips = format!("{RUN}{}", summary(4));
    let dies = format!("{RUN}{}exit 1", case("pass", "suite"));
    for (name, build, boot, status) in [
        ("good", BUILD, pass.as_str(), 0),
        ("bad", BUILD, &fail, 1),
        ("hangs", BUILD, &hangs, 1),
        ("oops", BUILD, &oops, 1),
        ("dies", BUILD, &dies, 1),
        ("undecided", BUILD, &undecided, 125),
        ("skips", BUILD, &skips, 125),
        ("no-boot", BUILD, ": >\"$json\"; exit 1", 125),
        ("no-build", "@false", "exit 0", 125),
        ("interrupted", BUILD, "exit 130", 130),
    ] {
        let output = bisect(build, boot, &["--append", "x=1", "--", "zero."]);
        assert_eq!(output.status.code(), Some(status), "{name}: {output:?}");
    }
    let output = bisect(BUILD, &pass, &["--", "--json", "x"]);
    assert_eq!(output.status.code(), Some(128), "{output:?}");
}

/// The machine gets the options that are for it, and the arguments as they are.
#[test]
fn bisect_passes_arguments_on() {
    let check = r#"[[ "$*" == "arch/x86/boot/bzImage --restarts 0 --append a b --idle 9 -- zero. two words --json $json" ]]; [[ $9 == zero. ]]
        [[ ${10} == 'two words' ]]; echo '{"type":"run"}' >"$json"; echo '{"type":"summary"}' >>"$json""#;
    let build = "@mkdir -p arch/x86/boot && touch arch/x86/boot/bzImage";
    let arguments = ["--append", "a b", "--idle=9", "--", "zero.", "two words"];
    let output = bisect(build, check, &arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

/// LAVA gets a result for each case, and whether the run came to its end: a program that dies early is not complete.
#[test]
fn lava_results() {
    let dir = Dir::new();
    dir.write("bin/lava-test-case", "#!/bin/sh\necho \"$*\" >>\"$RESULTS\"\ncat >/dev/null\n");
    dir.write(
        "bin/dies",
        "#!/bin/sh\necho TAP version 13; echo 1..2; echo ok 1 a.b.c; kill -KILL $$\n",
    );
    let run_lava_with = |variables: &[(&str, &str)], arguments: &[&str]| {
        let results = dir.0.path().join("results");
        let _ = fs::remove_file(&results);
        let path =
            format!("{}:{}", dir.0.path().join("bin").display(), std::env::var("PATH").unwrap());
        let output = run(Command::new(script("lava/run-and-report"))
            .args(arguments)
            .env("PATH", path)
            .env("RESULTS", &results)
            .envs(variables.iter().copied()));
        assert!(output.status.success(), "{output:?}");
        fs::read_to_string(results).unwrap()
    };
    let run_lava = |arguments: &[&str]| run_lava_with(&[], arguments);
    let program = env!("CARGO_BIN_EXE_gmem-conform");
    let model = [program, "--machine", "model", "sw-protected.zero.", "sw-protected.upstream."];
    let said = run_lava(&[&model[..], &["--plant", "mode-skipped-on-noop"]].concat());
    for line in [
        "model.sw-protected.zero.holes --result pass\n",
        "model.sw-protected.zero.wholly-shared.0-1-host --result fail\n",
        "model.sw-protected.upstream.no-modes.zero-shared --result skip\n",
        "gmem-conform.complete --result pass --measurement ",
        "gmem-conform.status --result fail\n",
    ] {
        assert!(said.contains(line), "{line} is not in {said}");
    }
    // What a kernel that died has left of a run is resumed by the next test.
    let kept = dir.0.path().join("kept.jsonl");
    let kept_name = kept.to_str().unwrap();
    let whole = run_lava_with(&[("RESULTS_FILE", kept_name)], &model);
    let text = fs::read_to_string(&kept).unwrap();
    let half: Vec<&str> = text.lines().take(text.lines().count() / 2).collect();
    fs::write(&kept, half.join("\n") + "\n").unwrap();
    let variables = [("RESULTS_FILE", kept_name), ("RESUME", "yes")];
    let resumed = run_lava_with(&variables, &model);
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&resumed), sorted(&whole));
    let said = run_lava(&["dies"]);
    assert_eq!(
        said,
        "a.b.c --result pass\ngmem-conform.complete --result fail --measurement 1 --units cases\n\
         gmem-conform.status --result fail\n"
    );
}

/// Each file that the hooks want in QEMU's build, or include, is one of ours or was there: a source file that git ignores
/// is on its maker's machine only.
#[test]
fn emulated_hosts_are_whole() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("emulated-hosts");
    if !root.is_dir() {
        println!("skipped: this source tree has no emulated-hosts, as a packaged crate");
        return;
    }
    let listed = run(Command::new("git").current_dir(&root).args(["ls-files", "qemu"]));
    let listed = String::from_utf8(listed.stdout).unwrap();
    let hooks = fs::read_to_string(root.join("hooks.patch")).unwrap();
    let added = hooks
        .lines()
        .filter_map(|line| line.strip_prefix('+').filter(|line| !line.starts_with("++")));
    let mut wanted: Vec<String> = added
        .flat_map(|line| {
            line.split(['\'', '"']).filter(|word| word.ends_with(".c") || word.ends_with(".h"))
        })
        .map(|path| path.rsplit('/').next().unwrap().to_owned())
        .collect();
    for path in listed.lines() {
        let text = fs::read_to_string(root.join(path)).unwrap();
        assert!(text.contains("SPDX-License-Identifier: GPL-2.0-or-later"), "{path}");
        let own = ["snp-", "tdx-"].iter().flat_map(|prefix| {
            text.lines().filter_map(move |line| {
                line.strip_prefix("#include \"")?
                    .strip_suffix('"')
                    .filter(|file| file.starts_with(prefix))
            })
        });
        wanted.extend(own.map(str::to_owned));
    }
    wanted.sort_unstable();
    wanted.dedup();
    assert!(wanted.len() >= 6, "{wanted:?}");
    for file in wanted {
        assert!(
            listed.lines().any(|path| path.ends_with(&format!("/{file}"))),
            "{file} is not in emulated-hosts/qemu"
        );
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! Builds what the program carries inside: the guests' payloads, the conformance cases, the commit.

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

#[path = "guest-payloads/common/abi.rs"]
#[allow(dead_code, reason = "only the addresses are needed here")]
mod abi;
#[path = "guest-payloads/elf.rs"]
#[allow(dead_code, reason = "only the tests tell code from data")]
mod elf;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo::rerun-if-changed=build.rs");
    for name in ["plain", "snp", "tdx"] {
        payload(name, &out)?;
    }
    cases(&out)?;
    clause_ids(&out)?;
    println!("cargo::rustc-env=GMEM_CONFORM_COMMIT={}", commit());
    Ok(())
}

/// Compiles `guest-payloads/NAME/main.rs` and writes `NAME.elf`, for debuggers and tests, and `NAME.bin`, which the program
/// embeds.
fn payload(name: &str, out: &Path) -> Result<()> {
    println!("cargo::rerun-if-changed=guest-payloads");
    println!("cargo::rerun-if-env-changed=RUSTC");
    let rustc = env::var_os("RUSTC").ok_or("RUSTC is not set")?;
    let elf = out.join(format!("{name}.elf"));

    // The bare-metal target has no SSE to begin with. Where its core library is not installed, the host's target serves:
    // nothing in a payload moves 16 bytes at once, and tests/payload_image.rs watches over that.
    let bare = Command::new(&rustc)
        .args(["--print=target-libdir", "--target=x86_64-unknown-none"])
        .output()
        .is_ok_and(|o| Path::new(String::from_utf8_lossy(&o.stdout).trim_end()).is_dir());
    // The bare-metal target calls the linker itself, the host's calls it through the C compiler.
    let (target, driver, to_linker): (_, &[_], _) = if bare {
        ("x86_64-unknown-none", &[], "")
    } else {
        let driver = &["-nostartfiles", "-nostdlib", "-static", "-no-pie"];
        ("x86_64-unknown-linux-gnu", driver, "-Wl,")
    };

    let mut compile = Command::new(&rustc);
    // The linker that cargo was told to use for the host's target, if it was.
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    if let Some(linker) = env::var("RUSTC_LINKER").ok().filter(|_| !bare) {
        compile.arg(format!("-Clinker={linker}"));
    }
    compile
        // What the user wants for the host, such as target-cpu=native, must not reach a guest.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .args(["--edition=2024", "--crate-type=bin", "--crate-name", name])
        .args(["--target", target])
        .args(["-Copt-level=s", "-Cpanic=abort", "-Coverflow-checks=off"])
        .args(["-Crelocation-model=static", "-Ccode-model=small"])
        .args(["-Cno-vectorize-loops", "-Cno-vectorize-slp"])
        .args(driver.iter().map(|a| format!("-Clink-arg={a}")))
        .arg(format!("-Clink-arg={to_linker}--build-id=none"))
        .arg(format!("-Clink-arg={to_linker}--defsym=IMAGE={:#x}", abi::IMAGE))
        .arg("-Clink-arg=-Tguest-payloads/payload.ld")
        .arg("-o")
        .arg(&elf)
        .arg(format!("guest-payloads/{name}/main.rs"));
    let output = compile.output()?;
    let messages = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        eprint!("{messages}");
        eprintln!("failed to build the payload '{name}': rustc: {}", output.status);
        exit(1);
    }
    for line in messages.lines() {
        println!("cargo::warning={line}");
    }

    let image = flatten(&fs::read(&elf)?).map_err(|e| format!("{}: {e}", elf.display()))?;
    fs::write(out.join(format!("{name}.bin")), image)?;
    Ok(())
}

/// What memory holds from [`abi::IMAGE`] on when `file` has been loaded.
fn flatten(file: &[u8]) -> Result<Vec<u8>> {
    let (entry, segments) = elf::parse(file)?;
    if entry != abi::IMAGE {
        return Err(format!("the entry point is {entry:#x}, not {:#x}", abi::IMAGE).into());
    }
    let mut image = Vec::new();
    for segment in segments {
        let start = segment.address.checked_sub(abi::IMAGE);
        let start = start.ok_or("a segment lies before the image")? as usize;
        let end = start + segment.size as usize;
        let fits = end as u64 <= abi::PAYLOAD_SIZE - abi::IMAGE;
        if start < image.len() || segment.bytes.len() as u64 > segment.size || !fits {
            return Err("the segments overlap or do not fit".into());
        }
        image.resize(end, 0);
        image[start..start + segment.bytes.len()].copy_from_slice(segment.bytes);
    }
    Ok(image)
}

/// Writes `cases.rs`: every `*.case` below `cases/`, by its path.
fn cases(out: &Path) -> Result<()> {
    println!("cargo::rerun-if-changed=cases");
    let root = env::var("CARGO_MANIFEST_DIR")?;
    let mut files = Vec::new();
    if Path::new("cases").is_dir() {
        find_cases(Path::new("cases"), &mut files)?;
    }
    files.sort();
    let mut source = String::from(
        "/// The conformance cases: path in the repository, text.\npub static CASES: &[(&str, &str)] = &[\n",
    );
    for file in files {
        let path = file.to_str().ok_or("the name of a case is not UTF-8")?;
        writeln!(source, "    ({path:?}, include_str!({:?})),", format!("{root}/{path}"))?;
    }
    source.push_str("];\n");
    fs::write(out.join("cases.rs"), source)?;
    Ok(())
}

fn find_cases(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            find_cases(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "case") {
            files.push(path);
        }
    }
    Ok(())
}

/// Writes `clause_id.rs`: the enum `ClauseId` with a variant for each clause of `cases/clauses.toml`, so that a wrong id does
/// not compile. Only the lines `id` and `text` are read here; the program parses the file as TOML.
fn clause_ids(out: &Path) -> Result<()> {
    let mut source = String::from(
        "/// The id of a clause of `cases/clauses.toml`: `topic.name`.\n\
         #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Deserialize)]\n\
         #[derive(strum::Display, strum::EnumString, strum::IntoStaticStr, strum::VariantArray)]\n\
         pub enum ClauseId {\n",
    );
    let mut id = None;
    for line in fs::read_to_string("cases/clauses.toml")?.lines() {
        if let Some(value) = quoted(line, "id") {
            id = Some(value);
        } else if let Some(text) = quoted(line, "text") {
            let id = id.take().ok_or("cases/clauses.toml: a `text` that no `id` precedes")?;
            writeln!(source, "    /// {text}.")?;
            writeln!(source, "    #[serde(rename = {id:?})]\n    #[strum(serialize = {id:?})]")?;
            writeln!(source, "    {},", camel_case(id))?;
        }
    }
    source.push_str("}\n");
    fs::write(out.join("clause_id.rs"), source)?;
    Ok(())
}

/// The value of a line `KEY = "VALUE"`.
fn quoted<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"')
}

/// `in-use.refused` as `InUseRefused`.
fn camel_case(id: &str) -> String {
    let capitalised = |word: &str| word[..1].to_uppercase() + &word[1..];
    id.split(['.', '-']).filter(|word| !word.is_empty()).map(capitalised).collect()
}

/// The commit that is being built, `-dirty` if files have changed since, `unknown` outside of a git repository.
fn commit() -> String {
    // A tarball unpacked inside some other repository is not of that repository's commit.
    let tracked = git(&["ls-files", "--error-unmatch", "build.rs"]).is_some();
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]).filter(|_| tracked) else {
        return "unknown".to_string();
    };
    // A branch's commit is in a file of its own, unless the branch is packed; the log of HEAD grows in any case.
    let head = git(&["symbolic-ref", "-q", "HEAD"]);
    for name in ["HEAD", head.as_deref().unwrap_or("HEAD"), "logs/HEAD"] {
        if let Some(path) =
            git(&["rev-parse", "--git-path", name]).filter(|p| Path::new(p).exists())
        {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    // Whether it is dirty must be asked again when it becomes so. The cases and payloads are watched anyway.
    for path in ["Cargo.toml", "Cargo.lock", "src"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let clean =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|s| s.is_empty());
    if clean { commit } else { commit + "-dirty" }
}

/// What `git ARGUMENTS` prints, if it succeeds.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .args(arguments)
        .output()
        .ok()
        .filter(|o| o.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim_end().to_string())
}

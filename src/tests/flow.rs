// SPDX-License-Identifier: GPL-2.0-only
//! The modules use each other in one direction: down the list at the head of lib.rs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The source files below `directory`.
fn sources(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The name in `mod NAME;`, whoever may see it.
fn declared(line: &str) -> Option<&str> {
    line.rsplit_once("mod ")?.1.strip_suffix(';')
}

/// The part of a file that is built for the program: no comments, and nothing from its tests on.
fn program(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let code = |line: &&str| !line.trim_start().starts_with("//");
    text.lines().filter(code).map(|line| line.to_string() + "\n").collect()
}

/// The top-level modules that a file names. The file lies `depth` modules below the root. As many `super::` lead to the
/// root, as `crate::` does.
fn named(code: &str, depth: usize) -> BTreeSet<String> {
    let code = code.replace(&"super::".repeat(depth), "crate::");
    code.split("crate::")
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or(""))
        .map(str::to_string)
        .collect()
}

#[test]
fn modules_use_what_is_below_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let lib = fs::read_to_string(root.join("lib.rs")).expect("lib.rs");
    let order: Vec<&str> = lib
        .lines()
        .filter_map(|line| line.strip_prefix("//! * "))
        .filter_map(|line| line.trim_start_matches('[').split('`').nth(1))
        .collect();
    let modules: BTreeSet<&str> =
        lib.lines().filter_map(declared).filter(|name| *name != "tests").collect();
    assert_eq!(modules, order.iter().copied().collect(), "lib.rs lists each of its modules once");
    assert_eq!(modules.len(), order.len(), "lib.rs lists each of its modules once");

    let mut files = Vec::new();
    sources(&root, &mut files);
    // Files that are built for tests only.
    let mut tests: BTreeSet<PathBuf> = BTreeSet::new();
    for file in &files {
        let text = fs::read_to_string(file).expect("a source file");
        for part in text.split("#[cfg(test)]\n").skip(1) {
            if let Some(name) = part.lines().next().and_then(declared) {
                tests.insert(file.with_file_name(name));
                tests.insert(file.with_file_name(name).with_extension("rs"));
            }
        }
    }
    let place = |name: &str| order.iter().position(|other| *other == name);
    let mut upwards = Vec::new();
    let mut uses = 0;
    for file in files.iter().filter(|file| !tests.iter().any(|test| file.starts_with(test))) {
        let inside = file.strip_prefix(&root).expect("below src");
        let mut parts: Vec<String> =
            inside.with_extension("").iter().map(|part| part.to_string_lossy().into()).collect();
        parts.retain(|part| part != "mod");
        let Some(user) = place(&parts[0]) else { continue };
        let text = fs::read_to_string(file).expect("a source file");
        for name in named(&program(&text), parts.len()) {
            match place(&name) {
                Some(used) if used < user => {
                    upwards.push(format!("{} uses {name}", inside.display()));
                }
                Some(_) => uses += 1,
                None => upwards.push(format!("{} names crate::{name}", inside.display())),
            }
        }
    }
    assert!(upwards.is_empty(), "against the order of lib.rs:\n{}", upwards.join("\n"));
    assert!(uses > 400, "only {uses} uses were seen");
}

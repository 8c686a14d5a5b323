// SPDX-License-Identifier: GPL-2.0-only
//! The documents say what is true: their console blocks are typed as they stand and print what they say, and their examples
//! of the case language do what they say.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use strum::VariantArray;
use tempfile::TempDir;

use gmem_conform::case::{ActionKind, STATEMENTS, parse};
use gmem_conform::results::{Record, Verdict, for_each_record};

/// The README and every document in docs/.
fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = vec![root.join("README.md")];
    for entry in fs::read_dir(root.join("docs")).unwrap() {
        documents.push(entry.unwrap().path());
    }
    documents.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    documents.sort();
    documents
}

/// Each document in a folder of its own, since some of the commands write files; in the order of the document, since some
/// read them.
#[test]
fn console_blocks() {
    for document in documents() {
        let folder = TempDir::new().unwrap();
        let copy = folder.path().join(document.file_name().unwrap());
        fs::copy(&document, &copy).unwrap();
        // Where the commands write; no other test of the process depends on it.
        std::env::set_current_dir(folder.path()).unwrap();
        let cases = trycmd::TestCases::new();
        cases
            .default_bin_path(env!("CARGO_BIN_EXE_gmem-conform"))
            .register_bin("gmem-conform", Path::new(env!("CARGO_BIN_EXE_gmem-conform")))
            .case(copy.to_str().expect("the temporary directory's name is text"));
        cases.run();
    }
}

/// The examples in docs/case-language.md, each with the head that the document gives those without one.
fn examples() -> Vec<String> {
    let text = include_str!("../docs/case-language.md");
    let blocks = text.split("\n```case\n").skip(1);
    let with_head = |(index, block): (usize, &str)| {
        let example = &block[..block.find("\n```").expect("the end of an example") + 1];
        let has = |word: &str| example.lines().any(|line| line.starts_with(word));
        let mut head = String::new();
        if !has("case ") {
            head += &format!("case example.{index}\nclause convert.accepted\n");
            head += if has("pages ") { "" } else { "pages 8\n" };
            head += if has("start ") { "" } else { "start shared\n" };
        }
        head + example
    };
    blocks.enumerate().map(with_head).collect()
}

/// The reference has an example of every statement.
#[test]
fn every_statement_has_an_example() {
    let mut missing: BTreeSet<ActionKind> = ActionKind::VARIANTS.iter().copied().collect();
    // For the tests of the runner only.
    missing.remove(&ActionKind::Misbehave);
    for (index, text) in examples().iter().enumerate() {
        for case in
            parse(&format!("example {index}"), text).unwrap_or_else(|error| panic!("{error}"))
        {
            for step in case.steps {
                missing.remove(&ActionKind::from(&step.action));
            }
        }
    }
    assert!(missing.is_empty(), "no example of {missing:?}");
}

/// The reference lists every form of every statement, as the parser's table has it, and no other.
#[test]
fn every_statement_is_listed() {
    let text = include_str!("../docs/case-language.md");
    let mut tables = text.split("| statement | meaning |").skip(1);
    let head = tables.next().expect("the table of the head");
    assert!(head.contains("`case TOPIC"), "the first table is that of the head");
    let rows = tables.flat_map(|table| {
        table.lines().skip(2).take_while(|line| line.starts_with('|')).map(|line| line.to_string())
    });
    let listed: BTreeSet<String> = rows
        .flat_map(|row| {
            let cell = row.replace("\\|", "\u{0}");
            let cell = cell.split('|').nth(1).expect("a cell").replace('\u{0}', "|");
            cell.split(", ")
                .map(|form| form.trim().trim_matches('`').to_string())
                .collect::<Vec<_>>()
        })
        .collect();
    let known: BTreeSet<String> = STATEMENTS
        .iter()
        // For the tests of the runner only.
        .filter(|statement| statement.kind != ActionKind::Misbehave)
        .flat_map(|statement| statement.syntax.iter().map(|form| form.to_string()))
        .collect();
    assert_eq!(listed, known, "docs/case-language.md and src/case/statements.rs differ");
}

/// Every example passes on the model, in some dialect and on some platform, and fails nowhere.
#[test]
fn examples_pass() {
    let folder = TempDir::new().unwrap();
    let mut waiting = BTreeSet::new();
    let mut files = Vec::new();
    for (index, text) in examples().iter().enumerate() {
        let file = folder.path().join(format!("{index}.case"));
        fs::write(&file, text).unwrap();
        waiting.extend(parse("example", text).unwrap().into_iter().map(|case| case.name));
        files.push(file);
    }
    for dialect in ["rfc-v4", "rfc-v5", "upstream"] {
        let json = folder.path().join(format!("{dialect}.jsonl"));
        let output = Command::new(env!("CARGO_BIN_EXE_gmem-conform"))
            .args(["check", "--machine", "model", "--format", "human", "--dialect", dialect])
            .arg("--json")
            .arg(&json)
            .args(&files)
            .output()
            .unwrap();
        assert!(output.status.success(), "{dialect}:\n{}", String::from_utf8_lossy(&output.stdout));
        for_each_record(&json, |record| {
            if let Record::Case(case) = record
                && case.verdict == Verdict::Pass
            {
                waiting.retain(|name| !case.id.ends_with(name.as_str()));
            }
        })
        .unwrap();
    }
    assert!(waiting.is_empty(), "skipped in every dialect: {waiting:?}");
}

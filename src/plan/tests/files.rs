// SPDX-License-Identifier: GPL-2.0-only
//! Case files given on the command line.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::plan::{PlanError, PlannedCase, from_files};

const CASE: &str = "case t.n\nclause fresh.zero\npages 4\nstart shared\nhost expect 0..4 zero\n";

/// A directory of a test's own, which goes away with the test.
struct Files(TempDir);

impl Files {
    fn new() -> Files {
        Files(TempDir::new().expect("a directory can be made"))
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).expect("a file can be written");
        path
    }
}

fn plan_of(files: &[PathBuf]) -> Result<Vec<(PathBuf, PlannedCase)>, PlanError> {
    from_files(&config(MachineKind::Model), &offers_all(Dialect::RfcV5), files, None)
}

/// Each planned case goes with its file, in the order given.
#[test]
fn cases_go_with_their_files() {
    let files = Files::new();
    let one = files.write("one.case", CASE.replace("t.n", "t.one"));
    let two = files.write("two.case", format!("each x 1 2\n{}", CASE.replace("t.n", "t.two")));
    let plan = plan_of(&[two.clone(), one.clone()]).expect("good files");
    let found: Vec<(PathBuf, String)> = plan.into_iter().map(|(f, case)| (f, case.id)).collect();
    let want = [
        (two.clone(), "model.sw-protected.t.two.1".to_string()),
        (two, "model.sw-protected.t.two.2".to_string()),
        (one, "model.sw-protected.t.one".to_string()),
    ];
    assert_eq!(found, want);
}

/// Reports key results by id, so two cases of one id are refused: from two files, or from values of an `each` that differ in
/// nothing that a name can hold.
#[test]
fn duplicate_ids() {
    let files = Files::new();
    let (one, two) = (files.write("one.case", CASE), files.write("two.case", CASE));
    let error = plan_of(&[one, two]).expect_err("the same id twice").to_string();
    assert_eq!(error, "two cases have the id model.sw-protected.t.n");
    let each = files.write("each.case", format!("each x 1<<2 1..2\n{CASE}"));
    let error = plan_of(&[each]).expect_err("the same name twice").to_string();
    assert_eq!(error, "two cases have the id model.sw-protected.t.n.1-2");
}

/// What cannot be read is named, with the reason; so is the line that is no text.
#[test]
fn unreadable_files() {
    let files = Files::new();
    let missing = files.0.path().join("missing.case");
    let error = plan_of(std::slice::from_ref(&missing)).expect_err("no file").to_string();
    let want = format!("{}: No such file or directory (os error 2)", missing.display());
    assert_eq!(error, want);
    let error = plan_of(&[files.0.path().into()]).expect_err("a directory").to_string();
    assert_eq!(error, format!("{}: Is a directory (os error 21)", files.0.path().display()));
    let binary = files.write("binary.case", b"case t.n\npages 4\n# caf\xe9\n");
    let error = plan_of(std::slice::from_ref(&binary)).expect_err("Latin-1").to_string();
    let want = format!("{}:3: not a case file: the line is not UTF-8 text", binary.display());
    assert_eq!(error, want);
}

/// A mistake in a file is shown as the parser shows it, with the file's name.
#[test]
fn broken_file() {
    let files = Files::new();
    let good = files.write("good.case", CASE);
    let broken = files.write("broken.case", CASE.replace("0..4", "0..5"));
    let error = plan_of(&[good, broken.clone()]).expect_err("a range beyond the pages").to_string();
    let want = format!(
        "{}:5:13: the range ends at page 5, the case has 4\n    \
         5 | host expect 0..5 zero\n      |             ^",
        broken.display()
    );
    assert_eq!(error, want);
}

/// A file whose cases are all for other platforms than those asked for would run nothing, silently.
#[test]
fn no_case_for_the_platform() {
    let files = Files::new();
    let file = files.write("one.case", CASE);
    let environment = offers_all(Dialect::RfcV5);
    let only = Some(&[Platform::Default][..]);
    let error =
        from_files(&config(MachineKind::Host), &environment, std::slice::from_ref(&file), only);
    let want = format!("{}: no case of it is for the platforms asked for", file.display());
    assert_eq!(error.expect_err("another platform").to_string(), want);
}

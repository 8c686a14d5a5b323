// SPDX-License-Identifier: GPL-2.0-only
//! The README's console blocks, typed as they stand: what they print is what it says.

use std::fs;

/// In a folder of its own, since some of the commands write files; in the order of the README, since some read them.
#[test]
fn console_blocks() {
    let dir = std::env::temp_dir().join(format!("gmem-readme-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir(&dir).unwrap();
    let readme = dir.join("README.md");
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"), &readme).unwrap();
    // Where the commands write; this is the only test of the process.
    std::env::set_current_dir(&dir).unwrap();
    let cases = trycmd::TestCases::new();
    cases
        .default_bin_path(env!("CARGO_BIN_EXE_gmem-conform"))
        .register_bin("gmem-conform", std::path::Path::new(env!("CARGO_BIN_EXE_gmem-conform")))
        .case(readme.to_str().expect("the temporary directory's name is text"));
    cases.run();
    fs::remove_dir_all(&dir).unwrap();
}

// SPDX-License-Identifier: GPL-2.0-only
//! Whether costs grow in proportion: the time per row for 10, 1,000 and 100,000 rows, and the time of a case for files of
//! 4 MiB, 1 GiB and 1 TiB of which it uses a few pages. Nothing is asserted: timings belong to whoever reads them.
//!
//! `cargo bench --bench scale` runs on the model.

use std::time::{Duration, Instant};

use gmem_conform::case::Case;
use gmem_conform::case::layouts::{Tier, rows};
use gmem_conform::dialect::Dialect;
use gmem_conform::machine::{MachineConfig, MachineKind};
use gmem_conform::platform::Platform;
use gmem_conform::results::Verdict;
use gmem_conform::worker::Executor;

/// How long a case may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Times that a case of a large file is run; the fastest counts.
const REPEAT: usize = 9;

/// What a case of a file of any size does: conversions and accesses at both ends and in the middle. The guest sees both ends
/// only: its page tables have no room for a file of 1 TiB.
const CASE: &str = "case scale.sparse
clause convert.range
pages {pages}
start shared
needs mode=preserve
slots none

slot 0 map 0..4 at 0
slot 1 map {end} at 4
host write 0..2 A
host write {middle} A
host write {end} A
convert 0..{pages} private preserve
guest expect 0..2 A
guest expect {end} A
convert {middle} shared preserve
host expect {middle} A
convert 0..{pages} shared zero
host expect 0..2 zero
";

fn main() {
    let mut executor = Executor::new(MachineConfig {
        kind: MachineKind::Model,
        dialect: Some(Dialect::RfcV4),
        fault: None,
        capability_numbers: None,
    });
    let cases = rows(Tier::Full, Dialect::RfcV4);
    println!("{} different rows", cases.len());
    for count in [10, 1000, 100_000] {
        let start = Instant::now();
        for case in cases.iter().cycle().take(count) {
            run(&mut executor, &case.name, &Case::to_string(case));
        }
        let each = start.elapsed().as_secs_f64() * 1e6 / count as f64;
        println!("{count:>7} rows: {each:.0} us each");
    }
    for (name, pages) in [("4 MiB", 1u64 << 10), ("1 GiB", 1 << 18), ("1 TiB", 1 << 28)] {
        let (middle, end) = (pages / 2, pages - 1);
        let text = CASE
            .replace("{pages}", &pages.to_string())
            .replace("{middle}", &format!("{middle}..{}", middle + 1))
            .replace("{end}", &format!("{end}..{pages}"));
        let times = (0..REPEAT).map(|_| {
            let start = Instant::now();
            run(&mut executor, "scale.sparse", &text);
            start.elapsed()
        });
        let fastest = times.min().unwrap_or_default();
        println!("a file of {name}: {:.0} us a case", fastest.as_secs_f64() * 1e6);
    }
}

fn run(executor: &mut Executor, name: &str, text: &str) {
    let outcome = executor.run(name, Platform::SwProtected, text, PATIENCE, &mut |_| {});
    assert_eq!(outcome.verdict, Verdict::Pass, "{name}: {:?}", outcome.failure);
}

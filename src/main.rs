// SPDX-License-Identifier: GPL-2.0-only
//! The program; see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    if gmem_conform::init::is_init() {
        gmem_conform::init::run()
    }
    gmem_conform::cli::main(std::env::args_os().collect())
}

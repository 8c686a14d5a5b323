// SPDX-License-Identifier: GPL-2.0-only
//! The command line.

mod args;
mod commands;
mod formats;
mod generate;
mod measure;
mod new_case;
mod probe_text;
mod resume;

pub use args::Cli;
pub use commands::main;

// SPDX-License-Identifier: GPL-2.0-only
//! The case language: one statement a line, parsed, expanded and printed; and the cases and clauses built in.

mod ast;
mod keys;
pub mod layouts;
mod lexer;
mod library;
mod mode;
mod parser;
mod print;
mod requests;
mod statements;
#[cfg(test)]
mod tests;

pub use ast::*;
pub use lexer::ParseError;
pub use library::{BrokenLibrary, library};
pub use mode::Mode;
pub use parser::parse;
pub use statements::{STATEMENTS, Statement};

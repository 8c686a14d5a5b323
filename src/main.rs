// SPDX-License-Identifier: GPL-2.0-only
//! The program; see the library.
fn main() {}

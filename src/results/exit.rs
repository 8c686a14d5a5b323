// SPDX-License-Identifier: GPL-2.0-only
//! The exit statuses of the program.

/// All that ran passed, and something ran.
pub const PASSED: u8 = 0;
/// A failure, bad usage, a run that did not end, or something that could not be written.
pub const FAILED: u8 = 1;
/// Nothing ran, everything was skipped. (2 and 3 mean XFAIL and XPASS to a kselftest runner.)
pub const SKIPPED: u8 = 4;

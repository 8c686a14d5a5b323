// SPDX-License-Identifier: GPL-2.0-only
//! Running a plan: workers, deadlines, the kernel log.

pub mod protocol;

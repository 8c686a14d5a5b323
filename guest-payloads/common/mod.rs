// SPDX-License-Identifier: GPL-2.0-only
//! The half of a payload that is the same on every platform, `no_std`: patterns, the mailbox, the command loop.
//!
//! This directory is compiled twice: into each guest image, and natively into the program, where the host half of the
//! mailbox uses it and where the model's vCPU runs the command loop.

pub mod abi;
pub mod command_loop;
pub mod pattern;

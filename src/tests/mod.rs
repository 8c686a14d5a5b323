// SPDX-License-Identifier: GPL-2.0-only
//! What the tests of several modules share, and a test of how the modules are layered.

mod flow;
pub(crate) mod schema;

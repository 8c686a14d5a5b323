// SPDX-License-Identifier: GPL-2.0-only
//! Which cases on which platforms, and which of them cannot run here.

use crate::results::Need;

/// One line of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedCase {
    /// `platform.topic.name[.variant]`, with `model.` in front on the model.
    pub id: String,
    /// The platform's name.
    pub platform: String,
    /// The clauses that the case tests.
    pub clauses: Vec<String>,
    /// The case in canonical text.
    pub text: String,
    /// What it needs that is not there; the case runs if this is empty.
    pub unmet: Vec<Need>,
}

// SPDX-License-Identifier: GPL-2.0-only
//! What is planted in accesses through the alias that a page does not have.

use std::ops::Range;

use crate::machine::Result;
use crate::machine::model::fault::Fault;
use crate::machine::model::inode::{Inode, State};
use crate::uapi::ATTRIBUTE_PRIVATE;

impl Inode {
    /// Whether an access through the other alias of `page` is let through. `private` is the alias of the access.
    pub fn hook_other_alias(&self, state: &mut State, page: u64, private: bool) -> Result<bool> {
        if self.planted(Fault::FaultConvertsItself) {
            let wanted = if private { ATTRIBUTE_PRIVATE } else { 0 };
            self.store(state, page..page + 1, wanted)?;
            self.refault(state, page..page + 1)?;
            return Ok(true);
        }
        Ok(state.planted.old_alias.contains(&page))
    }

    /// A conversion begins: what the one before has left is over.
    pub fn hook_conversion_begins(&self, state: &mut State, pages: &Range<u64>) {
        state.planted.taken_back.clear();
        state.planted.old_alias.retain(|page| !pages.contains(page));
    }
}

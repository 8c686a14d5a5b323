// SPDX-License-Identifier: GPL-2.0-only
//! A second memory behind a file's pages, for bugs that show the guest other memory than the page cache's.

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use crate::errno::Errno;
use crate::machine::Result;
use crate::machine::model::fault::Fault;
use crate::machine::model::folio::WORDS;
use crate::machine::model::inode::{Inode, State};
use crate::machine::model::memory::{Mapping, new_memfd};
use crate::uapi::PAGE_SIZE;

/// The second memory, made when it is first needed.
#[derive(Default)]
pub(in crate::machine::model) struct Elsewhere(OnceLock<(OwnedFd, Mapping)>);

impl Inode {
    fn elsewhere(&self) -> Result<&Mapping> {
        let Elsewhere(memory) = &self.elsewhere;
        if let Some((_, mapping)) = memory.get() {
            return Ok(mapping);
        }
        let fd = new_memfd(self.size)?;
        let mapping = Mapping::new(self.size, Some(fd.as_fd()))?;
        Ok(&memory.get_or_init(|| (fd, mapping)).1)
    }

    /// The memory that the guest's access to `page` reaches.
    pub fn hook_guest_memory<'a>(
        &'a self,
        state: &mut State,
        page: u64,
        page_cache: &'a Mapping,
    ) -> Result<&'a Mapping> {
        let split = self.planted(Fault::SplitMemory) && self.is_private(state, page);
        let planted = &mut state.planted;
        if split || planted.stale.contains(&page) || planted.seen_late.remove(&page) {
            return self.elsewhere();
        }
        Ok(page_cache)
    }

    /// Keeps what the guest sees of `pages` as it is, for a bug that leaves its mappings alone.
    pub fn keep_for_guest(&self, state: &mut State, pages: Range<u64>) -> Result<()> {
        for page in self.folios(pages).into_iter().flatten() {
            for index in 0..WORDS {
                let value = self.load_word(page, index)?;
                let word = self.elsewhere()?.word(page * PAGE_SIZE + index * 8);
                word.ok_or(Errno::EFAULT)?.store(value, Ordering::Relaxed);
            }
            state.planted.stale.insert(page);
        }
        Ok(())
    }

    /// Pages have been taken out of the page cache, at this place of the file, given in bytes.
    pub fn hook_freed(
        &self,
        state: &mut State,
        pages: &Range<u64>,
        offset: i64,
        length: i64,
    ) -> Result<()> {
        let mode = nix::fcntl::FallocateFlags::FALLOC_FL_KEEP_SIZE
            | nix::fcntl::FallocateFlags::FALLOC_FL_PUNCH_HOLE;
        let Elsewhere(memory) = &self.elsewhere;
        if let Some((fd, _)) = memory.get().filter(|_| state.planted.stale.is_empty()) {
            nix::fcntl::fallocate(fd, mode, offset, length)?;
        }
        state.planted.drained.set(pages.clone(), false);
        // What a bug has put off goes with the folio.
        state.planted.scramble_later.retain(|page| !pages.contains(page));
        Ok(())
    }
}

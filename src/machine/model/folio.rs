// SPDX-License-Identifier: GPL-2.0-only
//! The page cache of an inode: which folios exist, what they hold, who has a reference.
//!
//! The folios are the pages of a memfd, so that the host's mapping is a mapping of them. One that the memfd has data for
//! is up to date. One that was only allocated, by `fallocate`, is in [`State::allocated`] and nowhere else: not up to
//! date, so whatever happens to it, its first user finds zeros.

use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::inode::{Inode, State};
use super::memory::Mapping;
use crate::errno::Errno;
use crate::machine::{Pin, Result};
use crate::uapi::{PAGE_SIZE, byte_length};

/// Words of a folio.
pub(super) const WORDS: u64 = PAGE_SIZE / 8;

/// Ranges up to this many pages are short enough for a fault that looks at every page, hole or not.
pub(super) const SHORT: u64 = 1024;

/// A folio that somebody has had a reference on: the page cache holds one reference, each [`Pinned`] another.
#[derive(Debug)]
pub(super) struct Folio;

/// A reference on a folio.
pub(super) struct Pinned {
    #[expect(dead_code, reason = "held for its reference count, which is what a pin is")]
    folio: Arc<Folio>,
}

impl Pin for Pinned {}

impl Inode {
    /// The up-to-date folios in `pages`, as runs, from the lowest. Takes time in proportion to the runs.
    pub(super) fn folios(&self, pages: Range<u64>) -> Vec<Range<u64>> {
        let mut runs = Vec::new();
        let (mut at, end) = (pages.start * PAGE_SIZE, pages.end * PAGE_SIZE);
        while at < end {
            let Some(data) = self.seek(at, libc::SEEK_DATA).filter(|data| *data < end) else {
                break;
            };
            let hole = self.seek(data, libc::SEEK_HOLE).unwrap_or(end).min(end);
            runs.push(data / PAGE_SIZE..hole.div_ceil(PAGE_SIZE));
            at = hole;
        }
        runs
    }

    /// `lseek(2)` on the memfd. Its position is used for nothing else, and only with the inode locked.
    fn seek(&self, offset: u64, whence: i32) -> Option<u64> {
        let offset = i64::try_from(offset).ok()?;
        // SAFETY: no memory is involved.
        let found = unsafe { libc::lseek(self.backing.as_raw_fd(), offset, whence) };
        u64::try_from(found).ok()
    }

    /// Whether `page` has an up-to-date folio.
    pub(super) fn is_up_to_date(&self, page: u64) -> bool {
        self.seek(page * PAGE_SIZE, libc::SEEK_DATA) == Some(page * PAGE_SIZE)
    }

    /// How many of `pages` have a folio, up to date or not.
    pub(super) fn cached(&self, pages: Range<u64>) -> u64 {
        let state = self.lock();
        let length = |run: &Range<u64>| run.end - run.start;
        let mut count: u64 = self.folios(pages.clone()).iter().map(length).sum();
        for (run, allocated) in state.allocated.runs(pages) {
            if allocated {
                count += run.filter(|page| !self.is_up_to_date(*page)).count() as u64;
            }
        }
        count
    }

    /// `kvm_gmem_get_folio()`: makes sure that `page` has a folio, which is zero if it had none.
    pub(super) fn touch(&self, page: u64) -> Result<()> {
        let word = self.direct()?.word(page * PAGE_SIZE).ok_or(Errno::EFAULT)?;
        word.load(Ordering::Relaxed);
        Ok(())
    }

    /// The kernel's own mapping of all folios, made when it is first needed: files may be huge.
    fn direct(&self) -> Result<&Mapping> {
        if let Some(mapping) = self.direct.get() {
            return Ok(mapping);
        }
        let mapping = Mapping::new(self.size, Some(self.backing.as_fd()))?;
        Ok(self.direct.get_or_init(|| mapping))
    }

    /// The word that a guest's access to byte `offset` of `page` reaches.
    pub(super) fn guest_word(&self, page: u64, offset: u64) -> Result<&AtomicU64> {
        self.guest_word_locked(&mut self.lock(), page, offset)
    }

    /// As [`Inode::guest_word`], with the lock held.
    pub(super) fn guest_word_locked(
        &self,
        state: &mut State,
        page: u64,
        offset: u64,
    ) -> Result<&AtomicU64> {
        if page >= self.pages() {
            return Err(Errno::EFAULT);
        }
        self.hook_guest_access(state, page)?;
        let memory = self.hook_guest_memory(state, page, self.direct()?)?;
        // A folio that does not exist yet comes into being, cleared, by the access.
        memory.word(page * PAGE_SIZE + offset).ok_or(Errno::EFAULT)
    }

    /// Fills the folio of `page` with random bytes.
    pub(super) fn scramble(&self, page: u64) -> Result<()> {
        let mut random = [0u8; PAGE_SIZE as usize];
        // SAFETY: `random` is 4096 bytes of ours to write. A short or failed read, which cannot happen for this size once
        // the kernel has booted, leaves zeros, which mode unspecified allows as well.
        unsafe { libc::getrandom(random.as_mut_ptr().cast(), random.len(), 0) };
        for (index, bytes) in (0..).zip(random.chunks_exact(8)) {
            let word = bytes.iter().fold(0, |word, b| word << 8 | u64::from(*b));
            self.store_word(page, index, word)?;
        }
        Ok(())
    }

    /// Clears words `words` of the folio of `page`.
    pub(super) fn clear(&self, page: u64, words: Range<u64>) -> Result<()> {
        for index in words {
            self.store_word(page, index, 0)?;
        }
        Ok(())
    }

    /// Clears the folio of `page`.
    pub(super) fn clear_folio(&self, page: u64) -> Result<()> {
        self.clear(page, 0..WORDS)
    }

    pub(super) fn load_word(&self, page: u64, index: u64) -> Result<u64> {
        let word = self.direct()?.word(page * PAGE_SIZE + index * 8);
        Ok(word.ok_or(Errno::EFAULT)?.load(Ordering::Relaxed))
    }

    pub(super) fn store_word(&self, page: u64, index: u64, value: u64) -> Result<()> {
        let word = self.direct()?.word(page * PAGE_SIZE + index * 8);
        word.ok_or(Errno::EFAULT)?.store(value, Ordering::Relaxed);
        Ok(())
    }

    /// `pin_user_pages()` on the host's mapping of `page`.
    pub(super) fn pin(&self, page: u64) -> Result<Pinned> {
        let mut state = self.lock();
        let refused = self.hook_host_refused(self.is_private(&state, page));
        if refused || page >= self.pages() {
            return Err(Errno::EFAULT);
        }
        self.touch(page)?;
        let folio = state.referenced.entry(page).or_insert(Arc::new(Folio));
        Ok(Pinned { folio: Arc::clone(folio) })
    }

    /// `fallocate(2)`.
    pub(super) fn fallocate(&self, mode: i32, offset: u64, length: u64) -> Result<()> {
        // vfs_fallocate(), before it calls the file's own.
        if i64::try_from(offset).is_err() || i64::try_from(length).is_err() || length == 0 {
            return Err(Errno::EINVAL);
        }
        let known = libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE;
        if mode & libc::FALLOC_FL_KEEP_SIZE == 0 || mode & !known != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let end = offset + length;
        if i64::try_from(end).is_err() {
            return Err(Errno::EFBIG);
        }
        if !offset.is_multiple_of(PAGE_SIZE) || !length.is_multiple_of(PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        let punch = mode & libc::FALLOC_FL_PUNCH_HOLE != 0;
        if !punch && self.hook_allocates_past_end(end > self.size) {
            return Err(Errno::EINVAL);
        }
        // A hole may reach past the end of the file.
        let pages = offset.min(self.size) / PAGE_SIZE..end.min(self.size) / PAGE_SIZE;
        if pages.is_empty() {
            return Ok(());
        }
        let mut state = self.lock();
        if punch { self.punch(&mut state, pages) } else { self.allocate(&mut state, pages) }
    }

    fn allocate(&self, state: &mut State, pages: Range<u64>) -> Result<()> {
        self.hook_before_allocate(state, &pages)?;
        let mut start = pages.start;
        for run in self.folios(pages.clone()) {
            state.allocated.set(start..run.start, true);
            start = run.end;
        }
        state.allocated.set(start..pages.end, true);
        self.hook_allocated(state, pages)
    }

    fn punch(&self, state: &mut State, pages: Range<u64>) -> Result<()> {
        for run in self.hook_punched_out(state, &pages)? {
            self.free(state, run)?;
        }
        // The attributes belong to the file's pages, not to the folios: a hole keeps them.
        self.hook_punched(state, pages)
    }

    /// `truncate_inode_pages_range()`: takes the folios out of the page cache, whoever else has references on them.
    pub(super) fn free(&self, state: &mut State, pages: Range<u64>) -> Result<()> {
        let mode = nix::fcntl::FallocateFlags::FALLOC_FL_KEEP_SIZE
            | nix::fcntl::FallocateFlags::FALLOC_FL_PUNCH_HOLE;
        let bytes = byte_length(&pages);
        let (Ok(offset), Ok(length)) =
            (i64::try_from(pages.start * PAGE_SIZE), i64::try_from(bytes))
        else {
            return Err(Errno::EINVAL);
        };
        nix::fcntl::fallocate(&self.backing, mode, offset, length)?;
        self.hook_freed(state, &pages, offset, length)?;
        if self.hook_freed_is_disowned() {
            self.disown(state, pages.clone());
        }
        state.allocated.set(pages.clone(), false);
        let gone: Vec<u64> = state.referenced.range(pages).map(|(k, _)| *k).collect();
        for page in gone {
            state.referenced.remove(&page);
        }
        Ok(())
    }
}

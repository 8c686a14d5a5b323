// SPDX-License-Identifier: GPL-2.0-only
//! Pages of encrypted guests: whose the hardware says they are, and what is in them for whom.
//!
//! Memory holds what DRAM holds. Who accesses it with the guest's key sees it decrypted, everybody else sees it as it is.
//! Nothing else is needed for most of what encrypted guests find in their pages: what a guest wrote privately is noise to
//! the host, a page that becomes private holds noise for the guest, and a page that was never used as private memory
//! holds after its return what it held before.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use super::folio::WORDS;
use super::inode::{Inode, State};
use super::user::PageWords;
use crate::errno::Errno;
use crate::machine::Result;

/// Pages of 2 MiB.
pub(super) const LARGE_PAGE: u64 = 512;

/// What the hardware knows of a guest, shared by its VM and its guest_memfds.
#[derive(Debug)]
pub(super) struct Protection {
    /// The memory controller's key for the guest.
    key: u64,
    /// Whether the launch is finished: `pre_fault_allowed`.
    launched: AtomicBool,
}

impl Protection {
    /// Protection of a new VM.
    pub(super) fn new() -> Protection {
        let mut key = [0u8; 8];
        // SAFETY: `key` is 8 bytes of ours to write. Should nothing be written, the key is a weak one.
        unsafe { libc::getrandom(key.as_mut_ptr().cast(), key.len(), 0) };
        Protection { key: u64::from_le_bytes(key), launched: AtomicBool::new(false) }
    }

    pub(super) fn is_launched(&self) -> bool {
        self.launched.load(Ordering::Relaxed)
    }

    pub(super) fn set_launched(&self) {
        self.launched.store(true, Ordering::Relaxed);
    }

    /// The two words that word `index` of `page` is encrypted with: a key, and the place, so that equal words look
    /// different.
    fn pads(&self, page: u64, index: u64) -> (u64, u64) {
        let first = mix(self.key ^ mix(page * WORDS + index));
        (first, mix(first))
    }

    pub(super) fn encrypt(&self, page: u64, index: u64, word: u64) -> u64 {
        let (first, second) = self.pads(page, index);
        (word ^ first).rotate_left(23) ^ second
    }

    pub(super) fn decrypt(&self, page: u64, index: u64, word: u64) -> u64 {
        let (first, second) = self.pads(page, index);
        (word ^ second).rotate_right(23) ^ first
    }
}

/// A bijection that leaves no pattern (the finalizer of splitmix64).
fn mix(mut word: u64) -> u64 {
    word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

/// A page that is the guest's in the eyes of the hardware: assigned in the RMP, or mapped in the secure EPT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owned {
    /// Whether the guest may access it: it has been validated, or accepted, or was part of the launch.
    pub(super) usable: bool,
}

/// How an access to a page of a guest_memfd ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// It is done; the word.
    Done(u64),
    /// The page is shared and the access private, or the other way round.
    Mismatch,
    /// The guest has not validated or accepted the page.
    NotUsable,
}

impl Inode {
    /// An access of 8 bytes by an encrypted guest, through its private or its shared alias.
    ///
    /// `reads_checked`: whether the hardware looks at who owns a page that is read through the shared alias. The RMP is
    /// not asked then (APM volume 2, table 15-39): where the nested page table has the page, the read gives ciphertext.
    pub(super) fn guest_access(
        &self,
        page: u64,
        offset: u64,
        private: bool,
        word: Option<u64>,
        reads_checked: bool,
    ) -> Result<Access> {
        let mut state = self.lock();
        if page >= self.pages() {
            return Err(Errno::EFAULT);
        }
        let attribute = self.is_private(&state, page);
        let unchecked = !reads_checked && !private && word.is_none();
        if unchecked && attribute && state.owned.contains_key(&page) {
            let cell = self.guest_word_locked(&mut state, page, offset)?;
            return Ok(Access::Done(cell.load(Ordering::Relaxed)));
        }
        if attribute != private {
            if !self.hook_other_alias(&mut state, page, private)? {
                return Ok(Access::Mismatch);
            }
        } else if private && !self.own(&mut state, page).usable {
            return Ok(Access::NotUsable);
        }
        let cell = self.guest_word_locked(&mut state, page, offset)?;
        let (index, key) = (offset / 8, &self.protection);
        Ok(Access::Done(match word {
            Some(word) if private => {
                cell.store(key.encrypt(page, index, word), Ordering::Relaxed);
                word
            }
            Some(word) => {
                cell.store(word, Ordering::Relaxed);
                word
            }
            None if private => key.decrypt(page, index, cell.load(Ordering::Relaxed)),
            None => cell.load(Ordering::Relaxed),
        }))
    }

    /// `kvm_gmem_prepare()`, TDH.MEM.PAGE.AUG: what a private fault does to a page that is not the guest's yet.
    fn own(&self, state: &mut State, page: u64) -> Owned {
        let usable = self.hook_usable_at_once();
        *state.owned.entry(page).or_insert(Owned { usable })
    }

    /// A page that was faulted in for the guest, as it is: what is private becomes the guest's, and waits to be accepted.
    pub(super) fn pre_fault(&self, page: u64) {
        let mut state = self.lock();
        if page < self.pages() && self.is_private(&state, page) {
            self.own(&mut state, page);
            self.hook_pre_faulted(&mut state, page);
        }
    }

    /// PVALIDATE: makes `page` usable, or not. `None` if the page is shared; otherwise whether that changed anything.
    pub(super) fn validate(&self, page: u64, validate: bool) -> Option<bool> {
        let mut state = self.lock();
        if page >= self.pages() || !self.is_private(&state, page) {
            return None;
        }
        let before = self.own(&mut state, page);
        state.owned.insert(page, Owned { usable: validate });
        Some(before.usable != validate || self.hook_accepted_again())
    }

    /// TDG.MEM.PAGE.ACCEPT: makes `page` usable and clears it. `None` if the page is shared; otherwise whether it had not
    /// been accepted before.
    pub(super) fn accept(&self, page: u64) -> Option<bool> {
        let mut state = self.lock();
        if page >= self.pages() || !self.is_private(&state, page) {
            return None;
        }
        let accepted = self.own(&mut state, page).usable && !self.hook_accepted_again();
        if !accepted {
            let words = self.hook_accepted_words(WORDS);
            self.write_private(page, &[0; WORDS as usize][..words as usize]).ok()?;
            state.owned.insert(page, Owned { usable: true });
        }
        Some(!accepted)
    }

    /// `kvm_gmem_populate()` of one page: encrypts `contents`, or what the page holds, into it, and makes it the guest's.
    /// EINVAL if it is not private, unless that is `unchecked`, EEXIST if it is the guest's already.
    pub(super) fn populate(
        &self,
        page: u64,
        contents: Option<&PageWords>,
        unchecked: bool,
    ) -> Result<()> {
        let mut state = self.lock();
        let takes = unchecked || self.hook_launch_takes(self.is_private(&state, page));
        if page >= self.pages() || !takes {
            return Err(Errno::EINVAL);
        }
        if self.hook_launched_before(state.owned.contains_key(&page)) {
            return Err(Errno::EEXIST);
        }
        let in_place;
        let contents = match contents {
            Some(contents) => contents,
            None => {
                self.hook_launched_in_place(page)?;
                in_place = self.read_page(page)?;
                &in_place
            }
        };
        self.write_private(page, contents)?;
        self.hook_launched(page)?;
        state.owned.insert(page, Owned { usable: true });
        Ok(())
    }

    /// Writes the page's first words with the guest's key.
    fn write_private(&self, page: u64, contents: &[u64]) -> Result<()> {
        for (index, word) in (0..).zip(contents) {
            self.store_word(page, index, self.protection.encrypt(page, index, *word))?;
        }
        Ok(())
    }

    /// Reads without a key.
    fn read_page(&self, page: u64) -> Result<PageWords> {
        let mut contents = [0; WORDS as usize];
        for (index, word) in (0..).zip(&mut contents) {
            *word = self.load_word(page, index)?;
        }
        Ok(contents)
    }

    /// What becomes of the guest's pages among `pages` in a conversion. `mixed`: not all of them are what they become.
    pub(super) fn convert_owned(
        &self,
        state: &mut State,
        pages: &Range<u64>,
        to_private: bool,
        mixed: bool,
    ) -> Result<()> {
        let owned: Vec<u64> = state.owned.range(pages.clone()).map(|(page, _)| *page).collect();
        self.hook_conversion_begins(state, pages);
        if to_private {
            return self.hook_stays_owned(state, pages, &owned, mixed);
        }
        let taken = self.hook_taken_back(state, pages, &owned)?;
        self.disown(state, taken);
        Ok(())
    }

    /// Takes pages back from the guest: RMPUPDATE to shared, or TDH.MEM.RANGE.BLOCK and TDH.MEM.PAGE.REMOVE.
    pub(super) fn disown(&self, state: &mut State, pages: Range<u64>) {
        let owned: Vec<u64> = state.owned.range(pages).map(|(page, _)| *page).collect();
        for page in owned {
            state.owned.remove(&page);
        }
    }
}

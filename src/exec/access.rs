// SPDX-License-Identifier: GPL-2.0-only
//! Whole pages through the host's view.

use super::guard::{self, BusError};
use crate::activity::{Call, access};
use crate::machine::HostView;
use crate::oracle::PageBytes;
use crate::uapi::PAGE_SIZE;

const WORDS: usize = PAGE_SIZE as usize / 8;

/// Address of `page` in the view.
///
/// # Panics
///
/// If the view does not reach that far: the parser keeps a case's ranges within its file.
fn address(view: &dyn HostView, page: u64) -> *mut u64 {
    assert!((page + 1) * PAGE_SIZE <= view.length(), "page {page} lies outside of the view");
    // SAFETY: checked above.
    unsafe { view.address().add((page * PAGE_SIZE) as usize) }.cast()
}

/// Reads a page.
pub(crate) fn read_page(view: &dyn HostView, page: u64) -> Result<PageBytes, BusError> {
    let mut words = [0u64; WORDS];
    let from = address(view, page);
    // SAFETY: the handler is installed before a session starts; the page is in the view, the buffer is ours.
    access(Call::HostRead, from, page, || unsafe { guard::copy(words.as_mut_ptr(), from, WORDS) })?;
    let mut bytes = [0; PAGE_SIZE as usize];
    for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
    Ok(bytes)
}

/// Writes a page.
pub(crate) fn write_page(
    view: &dyn HostView,
    page: u64,
    bytes: &PageBytes,
) -> Result<(), BusError> {
    let mut words = [0u64; WORDS];
    for (chunk, word) in bytes.chunks_exact(8).zip(&mut words) {
        *word = u64::from_ne_bytes([
            chunk[0], chunk[1], chunk[2], chunk[3], chunk[4], chunk[5], chunk[6], chunk[7],
        ]);
    }
    let to = address(view, page);
    // SAFETY: as in `read_page`.
    access(Call::HostWrite, to, page, || unsafe { guard::copy(to, words.as_ptr(), WORDS) })
}

/// Reads word `index` of a page.
pub(crate) fn read_word(view: &dyn HostView, page: u64, index: usize) -> Result<u64, BusError> {
    assert!(index < WORDS);
    let mut word = 0;
    // SAFETY: the index is within the page, and the page in the view.
    let from = unsafe { address(view, page).add(index) };
    // SAFETY: as in `read_page`.
    access(Call::HostRead, from, page, || unsafe { guard::copy(&mut word, from, 1) })?;
    Ok(word)
}

/// Writes word `index` of a page.
pub(crate) fn write_word(
    view: &dyn HostView,
    page: u64,
    index: usize,
    word: u64,
) -> Result<(), BusError> {
    assert!(index < WORDS);
    // SAFETY: as in `read_word`.
    let to = unsafe { address(view, page).add(index) };
    // SAFETY: as in `read_page`.
    access(Call::HostWrite, to, page, || unsafe { guard::copy(to, &word, 1) })
}

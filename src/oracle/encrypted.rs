// SPDX-License-Identifier: GPL-2.0-only
//! What is promised of the pages of encrypted guests.
//!
//! The guest accepts a page that became private before it uses it: PVALIDATE, TDG.MEM.PAGE.ACCEPT. What it then finds there
//! is nothing that anybody promised on SNP, and zeros on TDX. What it wrote there is nothing for the host's eyes ever after.

use std::ops::Range;

use super::content::{Content, PageBytes};
use super::state::{Backing, Oracle, Page};
use crate::case::Attribute;
use crate::clause::ClauseId;

impl Oracle {
    /// Whether the guest has to accept `page` before it uses it.
    pub fn must_be_accepted(&self, page: u64) -> bool {
        self.platform.is_encrypted()
            && !self.is_guest_lost()
            && self.attribute(page) == Attribute::Private
            && !self.accepted.contains(&page)
    }

    /// Whether the guest has accepted `page`, and it is private still.
    pub fn is_accepted(&self, page: u64) -> bool {
        self.accepted.contains(&page)
    }

    /// Whether accepting `page` may find that it is accepted: it was when it was converted to what it was, and no revision
    /// before the queued one says what becomes of it then.
    pub fn may_be_accepted(&self, page: u64) -> bool {
        self.uncertain.contains(&page)
    }

    /// The guest has accepted `page`.
    pub fn accept(&mut self, page: u64) {
        let content = self.unaccepted_content(page);
        let clause = match content {
            Content::Zero => ClauseId::CocoAcceptedZero,
            _ => ClauseId::UnspecifiedStable,
        };
        self.touch(page);
        self.pages.insert(page, Page { backing: Backing::Allocated, content, clause });
        self.accepted.insert(page);
        self.uncertain.remove(&page);
    }

    /// The guest has given `page` up.
    pub fn rescind(&mut self, page: u64) {
        self.accepted.remove(&page);
    }

    /// The guest cannot be run any more.
    pub fn lose_guest(&mut self) {
        self.guest_lost = true;
    }

    /// Whether the guest cannot be run, any more or as yet.
    pub fn is_guest_lost(&self) -> bool {
        self.guest_lost || !self.launched
    }

    /// Whether a launch call must take `page`, or else the clause that says that it must not.
    pub fn judge_launch(&self, page: u64) -> Result<(), ClauseId> {
        if self.launched || self.attribute(page) != Attribute::Private {
            return Err(ClauseId::CocoLaunchRefused);
        }
        Ok(())
    }

    /// A launch call has taken `page` and given it the pattern with `tag`, or left it what it held.
    pub fn launch(&mut self, page: u64, tag: Option<u64>) {
        let held = self.pages.get(&page).map(|page| page.content.clone());
        match tag {
            Some(tag) => self.launch_as(page, Content::Pattern(tag), ClauseId::CocoLaunchExact),
            None => {
                self.launch_as(page, held.unwrap_or(Content::Unknown), self.in_place_clause());
            }
        }
    }

    /// A launch call has taken `page`, and clause `clause` says that the guest finds `content` there.
    pub(super) fn launch_as(&mut self, page: u64, content: Content, clause: ClauseId) {
        self.touch(page);
        self.pages.insert(page, Page { backing: Backing::Allocated, content, clause });
        self.accepted.insert(page);
    }

    /// The clause that says what a launch call without a source takes.
    pub fn in_place_clause(&self) -> ClauseId {
        if self.dialect.has_content_modes() {
            ClauseId::CocoLaunchPreserve
        } else {
            ClauseId::CocoLaunchInPlace
        }
    }

    /// A launch call was refused. What it had done to `page` by then, and whether the guest has to accept it, is its own
    /// affair.
    pub fn launch_refused(&mut self, page: u64) {
        if self.attribute(page) == Attribute::Private {
            self.accepted.remove(&page);
            self.uncertain.insert(page);
            let (content, clause) = (Content::Unknown, ClauseId::UnspecifiedStable);
            self.pages.insert(page, Page { backing: Backing::Allocated, content, clause });
        }
    }

    /// The launch of the guest is not finished, whatever the case says.
    pub fn begin_launch(&mut self) {
        self.launched = false;
    }

    /// The launch is finished: the guest runs.
    pub fn finalize(&mut self) {
        self.launched = true;
    }

    /// What the guest last wrote to `page` while it was private, unless somebody has written there since.
    pub fn secret(&self, page: u64) -> Option<PageBytes> {
        Content::Pattern(*self.secrets.get(&page)?).bytes(page)
    }

    /// What a private page holds once the guest has accepted it.
    pub(super) fn unaccepted_content(&self, page: u64) -> Content {
        match self.platform.has(|e| e.accepts_zeros) && !self.uncertain.contains(&page) {
            true => Content::Zero,
            false => Content::Unknown,
        }
    }

    /// The pattern with `tag` was written to `page`.
    pub(super) fn note_secret(&mut self, page: u64, tag: u64) {
        if self.platform.is_encrypted() && self.attribute(page) == Attribute::Private {
            self.secrets.insert(page, tag);
        } else {
            self.secrets.remove(&page);
        }
    }

    /// Somebody else than the guest in private has written to `page`.
    pub(super) fn note_overwritten(&mut self, page: u64) {
        self.secrets.remove(&page);
    }

    /// The memory of `range` is gone.
    pub(super) fn forget_encrypted(&mut self, range: &Range<u64>) {
        self.accepted.retain(|page| !range.contains(page));
        self.uncertain.retain(|page| !range.contains(page));
        self.secrets.retain(|page, _| !range.contains(page));
    }

    /// The memslot of `range` is gone. KVM takes the pages out of a TD's secure EPT with it, so the TD accepts them anew. The
    /// RMP belongs to the memory, and stays as it is.
    pub(super) fn unmap_encrypted(&mut self, range: &Range<u64>) {
        if self.platform.has(|e| e.forgets_with_memslot) {
            self.accepted.retain(|page| !range.contains(page));
            self.uncertain.retain(|page| !range.contains(page));
        }
    }

    /// Pages of `range` become `to`: which of them the guest has still accepted.
    pub(super) fn convert_acceptance(&mut self, range: &Range<u64>, to: Attribute) {
        let settled: Vec<u64> =
            self.accepted.iter().copied().filter(|page| range.contains(page)).collect();
        match to {
            Attribute::Shared => {
                self.accepted.retain(|page| !range.contains(page));
                self.uncertain.retain(|page| !range.contains(page));
            }
            Attribute::Private if self.keeps_settled() => {}
            Attribute::Private => {
                for page in settled {
                    self.accepted.remove(&page);
                    self.uncertain.insert(page);
                }
            }
        }
    }

    /// Whether a conversion to private leaves alone what is private already. The queued revision was made to.
    pub(super) fn keeps_settled(&self) -> bool {
        !self.dialect.has_content_modes()
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! The state of the memory as the clauses have it, and how each step changes it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

use super::content::{Content, PageBytes};
use super::runs::Runs;
use crate::case::{Attribute, Case, SlotMap, View};
use crate::clause::ClauseId;
use crate::dialect::Dialect;
use crate::platform::Platform;

/// Whether a page has memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// It was never allocated, or punched out.
    Hole,
    /// It was allocated but nobody has touched it: whatever happens to it, the first touch reads zeros.
    Reserved,
    /// Somebody has touched it.
    Allocated,
}

/// What became of a page that has no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hole {
    /// Nothing: it is as in a fresh file.
    Fresh,
    /// It was in the range of a conversion.
    Converted,
    /// It was punched out since.
    Punched,
}

/// A page that is not simply a hole.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub backing: Backing,
    pub content: Content,
    /// The clause that its contents follow from.
    pub clause: ClauseId,
}

/// What a view must see at a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// These contents.
    Content(Content),
    /// The access faults.
    Fault,
    /// The access is an MMIO exit.
    Mmio,
    /// The access is an exit with `KVM_EXIT_MEMORY_FAULT`: the file of the memslot is gone.
    MemoryFault,
    /// Nobody may look: the guest_memfd cannot be mapped, so the host does not see it, nor the guest its shared pages; or
    /// the guest cannot go on, or has not begun.
    Absent,
}

/// The memory under test as the clauses have it.
#[derive(Clone, Debug)]
pub struct Oracle {
    pub(super) platform: Platform,
    pub(super) dialect: Dialect,
    pub(super) file_pages: u64,
    /// Whether there is a host's view.
    pub(super) mappable: bool,
    /// Attribute of each page and the clause that it follows from.
    pub(super) attributes: Runs<(Attribute, ClauseId)>,
    /// Every page that is not a hole.
    pub(super) pages: BTreeMap<u64, Page>,
    pub(super) slots: BTreeMap<u32, SlotMap>,
    /// The memslots of which the file is gone.
    pub(super) orphans: BTreeSet<u32>,
    /// Pages that are in use elsewhere, with the number of references.
    pub(super) pins: BTreeMap<u64, u32>,
    /// Whether a conversion has been refused because of a page in use.
    pub(super) was_refused: bool,
    /// What became of the pages that have no memory.
    pub(super) holes: Runs<Hole>,
    /// Encrypted guests: private pages that the guest has accepted.
    pub(super) accepted: BTreeSet<u64>,
    /// Those of which it cannot be told whether they still are.
    pub(super) uncertain: BTreeSet<u64>,
    /// The pattern that the guest has last written to a page as private memory.
    pub(super) secrets: BTreeMap<u64, u64>,
    /// Whether the guest is somewhere from where it cannot go on.
    pub(super) guest_lost: bool,
    /// Whether the launch of the guest is finished.
    pub(super) launched: bool,
}

impl Oracle {
    /// A fresh guest_memfd, with the case's memslots at the start.
    pub fn new(platform: Platform, dialect: Dialect, case: &Case) -> Oracle {
        let mut slots = BTreeMap::new();
        if !case.no_slots {
            slots.insert(0, SlotMap { slot: 0, pages: 0..case.pages, at: 0 });
        }
        Oracle {
            platform,
            dialect,
            file_pages: case.pages,
            mappable: !case.no_mmap,
            attributes: Runs::new((case.start, ClauseId::FreshAttribute)),
            pages: BTreeMap::new(),
            slots,
            orphans: BTreeSet::new(),
            pins: BTreeMap::new(),
            was_refused: false,
            holes: Runs::new(Hole::Fresh),
            accepted: BTreeSet::new(),
            uncertain: BTreeSet::new(),
            secrets: BTreeMap::new(),
            guest_lost: false,
            launched: !case.begins_in_launch(),
        }
    }

    /// Size of the file in pages.
    pub fn file_pages(&self) -> u64 {
        self.file_pages
    }

    /// Whether the host can map the file.
    pub fn is_mappable(&self) -> bool {
        self.mappable
    }

    /// The attribute of `page`.
    pub fn attribute(&self, page: u64) -> Attribute {
        self.attributes.get(page).0
    }

    /// The clause that the attribute of `page` follows from.
    pub fn attribute_clause(&self, page: u64) -> ClauseId {
        self.attributes.get(page).1
    }

    /// Whether `page` has memory.
    pub fn backing(&self, page: u64) -> Backing {
        self.pages.get(&page).map_or(Backing::Hole, |p| p.backing)
    }

    /// What is known of the bytes of `page`, for whoever may read them.
    pub fn content(&self, page: u64) -> Content {
        if self.must_be_accepted(page) {
            return self.unaccepted_content(page);
        }
        self.pages.get(&page).map_or_else(|| self.hole_content(page), |p| p.content.clone())
    }

    /// What the first touch of a page without memory finds.
    fn hole_content(&self, page: u64) -> Content {
        match self.holes.get(page) {
            Hole::Fresh | Hole::Punched => Content::Zero,
            // RFC v4 13/44 guarantees nothing for what has no memory; a kernel may give it some.
            Hole::Converted => Content::Unwritten,
        }
    }

    /// The clause that the contents of `page` follow from.
    pub fn content_clause(&self, page: u64) -> ClauseId {
        match self.pages.get(&page) {
            Some(page) => page.clause,
            None => match self.holes.get(page) {
                Hole::Fresh => ClauseId::FreshZero,
                Hole::Converted => ClauseId::ConvertHoles,
                Hole::Punched => ClauseId::PunchZero,
            },
        }
    }

    /// What `view` must see at `page`.
    pub fn sight(&self, view: View, page: u64) -> Sight {
        match (view, self.attribute(page)) {
            (View::Host | View::Host2 | View::Child, _) if !self.mappable => Sight::Absent,
            (View::Host | View::Host2 | View::Child, Attribute::Private) => Sight::Fault,
            (View::Host | View::Host2 | View::Child, Attribute::Shared) => {
                Sight::Content(self.content(page))
            }
            (View::Guest, _) if self.is_guest_lost() => Sight::Absent,
            (View::Guest, _) => match self.slot_of(page) {
                None => Sight::Mmio,
                Some((slot, _)) if self.orphans.contains(&slot) => Sight::MemoryFault,
                Some(_) => self.guest_sight(page),
            },
        }
    }

    /// What the guest must see at a page that a memslot maps.
    fn guest_sight(&self, page: u64) -> Sight {
        match self.attribute(page) {
            // Before the queued revision KVM took such a page from the memslot's userspace_addr, where nothing is.
            Attribute::Shared if !self.mappable => Sight::Absent,
            // An encrypted guest uses the alias that the attribute asks for; on other platforms the state is the
            // guest_memfd's alone, and no access can contradict it.
            Attribute::Shared | Attribute::Private => Sight::Content(self.content(page)),
        }
    }

    /// The lowest memslot that maps `page`, and the page of the test memory that it is mapped at.
    pub fn slot_of(&self, page: u64) -> Option<(u32, u64)> {
        let slot = self.slots.values().find(|s| s.pages.contains(&page))?;
        Some((slot.slot, slot.at + (page - slot.pages.start)))
    }

    /// The memslots, by number.
    pub fn slots(&self) -> impl Iterator<Item = &SlotMap> {
        self.slots.values()
    }

    /// Somebody has touched `page`: it has memory from now on.
    pub fn touch(&mut self, page: u64) {
        let (content, clause) = (self.hole_content(page), self.content_clause(page));
        let new = Page { backing: Backing::Allocated, content, clause };
        self.pages.entry(page).or_insert(new).backing = Backing::Allocated;
    }

    /// Somebody has written the pattern with `tag` to `page`.
    pub fn write(&mut self, page: u64, tag: u64) {
        self.note_secret(page, tag);
        let content = Content::Pattern(tag);
        self.pages.insert(
            page,
            Page { backing: Backing::Allocated, content, clause: ClauseId::MemorySame },
        );
    }

    /// Somebody has written to a part of `page`.
    pub fn written_in_part(&mut self, page: u64) {
        self.touch(page);
        self.note_overwritten(page);
        if let Some(page) = self.pages.get_mut(&page) {
            (page.content, page.clause) = (Content::Unknown, ClauseId::MemorySame);
        }
    }

    /// Somebody has seen the contents of `page`, which nobody had promised.
    pub fn learn(&mut self, page: u64, bytes: &PageBytes) {
        self.touch(page);
        let Some(page) = self.pages.get_mut(&page) else {
            return;
        };
        match page.content {
            Content::Unwritten if bytes.iter().all(|byte| *byte == 0) => {
                page.content = Content::Zero;
            }
            Content::Unwritten | Content::Unknown => {
                page.content = Content::Bytes(Rc::new(*bytes));
            }
            Content::Zero | Content::Pattern(_) | Content::Bytes(_) => {}
        }
    }

    /// Pages of `range` were punched out.
    pub fn punch(&mut self, range: Range<u64>) {
        self.forget_encrypted(&range);
        for page in self.pages_with_memory(range.clone()) {
            self.pages.remove(&page);
            // Who used the old memory of the page does not use the page any more.
            self.pins.remove(&page);
        }
        self.holes.set(range, Hole::Punched);
    }

    /// Pages of `range` were allocated.
    pub fn allocate(&mut self, range: Range<u64>) {
        for page in range {
            let content = self.hole_content(page);
            let clause = match content {
                Content::Zero => ClauseId::AllocateZero,
                _ => self.content_clause(page),
            };
            self.pages.entry(page).or_insert(Page { backing: Backing::Reserved, content, clause });
        }
    }

    /// `page` is in use once more; taking the reference touched it.
    pub fn pin(&mut self, page: u64) {
        self.touch(page);
        *self.pins.entry(page).or_default() += 1;
    }

    /// One use of `page` has ended.
    pub fn unpin(&mut self, page: u64) {
        if let Some(count) = self.pins.get_mut(&page) {
            *count -= 1;
            if *count == 0 {
                self.pins.remove(&page);
            }
        }
    }

    /// Whether `page` is in use elsewhere.
    pub fn is_pinned(&self, page: u64) -> bool {
        self.pins.contains_key(&page)
    }

    /// The file is gone, and a fresh one in its place: the memslots are the old one's.
    pub fn replace_file(&mut self, start: Attribute) {
        self.attributes = Runs::new((start, ClauseId::FreshAttribute));
        self.holes = Runs::new(Hole::Fresh);
        self.pages.clear();
        self.pins.clear();
        self.accepted.clear();
        self.uncertain.clear();
        self.secrets.clear();
        self.was_refused = false;
        self.orphans = self.slots.keys().copied().collect();
    }

    /// A memslot was made.
    pub fn map_slot(&mut self, map: &SlotMap) {
        self.slots.insert(map.slot, map.clone());
    }

    /// A memslot was deleted.
    pub fn delete_slot(&mut self, slot: u32) {
        if let Some(map) = self.slots.remove(&slot) {
            self.unmap_encrypted(&map.pages);
        }
        self.orphans.remove(&slot);
    }

    /// Every page of `range` that is not a hole.
    pub fn pages_with_memory(&self, range: Range<u64>) -> Vec<u64> {
        self.pages.range(range).map(|(page, _)| *page).collect()
    }

    /// The state of `range`, a letter a page: `S` shared, `P` private, lower case for a hole.
    pub fn map(&self, range: Range<u64>) -> String {
        let letter = |page| match (self.attribute(page), self.backing(page)) {
            (Attribute::Shared, Backing::Hole) => 's',
            (Attribute::Shared, _) => 'S',
            (Attribute::Private, Backing::Hole) => 'p',
            (Attribute::Private, _) => 'P',
        };
        range.map(letter).collect()
    }
}

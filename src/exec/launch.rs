// SPDX-License-Identifier: GPL-2.0-only
//! Launch calls as they are, and what the kernel says of how far they got.

use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::time::Instant;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use super::case_end::CaseEnd;
use super::encrypted::suite;
use super::session::{Session, failed, launch_failed};
use super::steps::pattern_bytes;
use crate::case::{Attribute, LaunchLength, LaunchSource, RawLaunch, Returns};
use crate::clause::ClauseId;
use crate::errno::Errno;
use crate::oracle::LaunchLimit;
use crate::payload::abi::TEST_MEMORY;
use crate::platform::{LaunchCall, LaunchError};
use crate::uapi::PAGE_SIZE;
use crate::uapi::sev::PAGE_TYPE_ZERO;

/// What a launch call that was interrupted says. It is made again.
const INTERRUPTED: [Errno; 2] = [Errno::EAGAIN, Errno::EINTR];

/// Memory that a launch takes contents from: it can be read, but for the pages at its end that are not there.
struct Source {
    start: NonNull<c_void>,
    size: usize,
}

impl Source {
    /// `contents`, behind which there are pages up to `size` bytes that nobody can access.
    fn new(contents: &[u8], size: usize) -> Result<Source, CaseEnd> {
        let size = NonZeroUsize::new(size).ok_or_else(|| suite("an empty source".into()))?;
        let failed = |call, errno: nix::Error| failed(call, Errno(errno as i32));
        let both = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping where the kernel likes.
        let start = unsafe { mmap_anonymous(None, size, both, flags) };
        let start = start.map_err(|errno| failed("mmap", errno))?;
        let source = Source { start, size: size.get() };
        let to: *mut u8 = start.as_ptr().cast();
        // SAFETY: the caller has no more contents than bytes, and nobody else knows the mapping.
        unsafe { to.copy_from_nonoverlapping(contents.as_ptr(), contents.len()) };
        // SAFETY: the mapping is ours, and no reference into it exists.
        unsafe { mprotect(start, size.get(), ProtFlags::PROT_NONE) }
            .map_err(|errno| failed("mprotect", errno))?;
        if !contents.is_empty() {
            // SAFETY: as above.
            unsafe { mprotect(start, contents.len(), ProtFlags::PROT_READ) }
                .map_err(|errno| failed("mprotect", errno))?;
        }
        Ok(source)
    }

    /// Whether it still holds `contents`.
    fn holds(&self, contents: &[u8]) -> bool {
        let start: *const u8 = self.start.as_ptr().cast();
        // SAFETY: the contents were copied there, can be read since, and nobody of this process writes there.
        let found = unsafe { std::slice::from_raw_parts(start, contents.len()) };
        found == contents
    }

    fn address(&self) -> u64 {
        self.start.as_ptr() as u64
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference into it exists.
        let _ = unsafe { munmap(self.start, self.size) };
    }
}

/// How a launch call ended, with those that take up what it has left.
struct Ended {
    /// Pages that it says are part of the launch now.
    taken: u64,
    /// Its error.
    errno: Option<Errno>,
    /// How it reads.
    found: String,
}

impl Session<'_> {
    /// Makes a launch call as the case has it, and again as long as the kernel says that it has done a part.
    pub fn launch_raw(&mut self, raw: &RawLaunch, expect: Option<&Returns>) -> Result<(), CaseEnd> {
        if !self.setup.platform.is_encrypted() {
            return Err(suite("the case launches pages where there is no launch".into()));
        }
        let limit = self.oracle.judge_raw_launch(raw);
        let allowed = expect.map_or(&[None][..], |returns| &returns.any_of);
        if allowed.contains(&None) != limit.refusal.is_none() {
            let says = limit.refusal.map_or("success", ClauseId::name);
            return Err(suite(format!("of this launch call the clauses expect {says}")));
        }
        let tag = match raw.source {
            LaunchSource::Pattern(letter) => self.tag(letter),
            LaunchSource::InPlace | LaunchSource::Unaligned => self.tag(b'A'),
        };
        let (source, contents) = self.source(raw, tag)?;
        let call = self.call(raw, source.address())?;
        let ended = self.call_until_done(raw, call)?;
        if !source.holds(&contents) {
            let summary = "a launch call has changed its source, which cannot be written";
            return Err(CaseEnd::broken(ClauseId::CocoLaunchSource, summary));
        }
        self.judge_end(raw, &limit, allowed, &ended)?;
        let (taken, left) = limit.pages.split_at(ended.taken as usize);
        for page in taken {
            self.oracle.launch_raw(raw, *page, tag);
            self.coverage.watch([*page]);
        }
        // What the call has done to the page that it stopped at is its own affair, unless it had no business with it.
        let first = raw.offset / PAGE_SIZE + ended.taken;
        let stopped_at = left.first().copied().or_else(|| self.oracle.page_at(first));
        if let (Some(clause), Some(page)) = (limit.refusal, stopped_at) {
            let private = self.oracle.attribute(page) == Attribute::Private;
            let tried =
                clause != ClauseId::CocoLaunchArguments || raw.is_cpuid(self.setup.platform);
            if private && tried && !self.oracle.is_accepted(page) {
                self.oracle.launch_refused(page);
            }
            self.coverage.watch([page]);
        }
        Ok(())
    }

    /// The contents of each page that the call might take.
    fn source(&self, raw: &RawLaunch, tag: u64) -> Result<(Source, Vec<u8>), CaseEnd> {
        let most = self.oracle.file_pages() + 1;
        let count = match raw.length {
            LaunchLength::Pages(pages) => pages,
            LaunchLength::Bytes(bytes) => bytes.div_ceil(PAGE_SIZE),
        };
        let count = count.clamp(1, most);
        let mapped = raw.mapped.unwrap_or(count).min(count);
        let first = raw.offset / PAGE_SIZE;
        let contents: Vec<u8> = (0..mapped)
            .flat_map(|number| {
                let at = first.saturating_add(number);
                pattern_bytes(tag, self.oracle.page_at(at).unwrap_or(0))
            })
            .collect();
        // A page more than is ever asked for, for an address that is not aligned.
        let source = Source::new(&contents, ((count + 1) * PAGE_SIZE) as usize)?;
        Ok((source, contents))
    }

    /// The call that the case describes.
    fn call(&self, raw: &RawLaunch, source: u64) -> Result<LaunchCall, CaseEnd> {
        let by_number = self.setup.platform.has(|e| e.launches_by_number);
        let length = match raw.length {
            LaunchLength::Pages(pages) if by_number => pages,
            LaunchLength::Pages(pages) => pages.wrapping_mul(PAGE_SIZE),
            LaunchLength::Bytes(_) if by_number => {
                return Err(suite("a TD's pages are launched by their number".into()));
            }
            LaunchLength::Bytes(bytes) => bytes,
        };
        if !by_number && !raw.offset.is_multiple_of(PAGE_SIZE) {
            return Err(suite("an SNP guest's pages are launched by frame numbers".into()));
        }
        let source = match raw.source {
            LaunchSource::Pattern(_) => source,
            LaunchSource::InPlace => 0,
            // A multiple of what anybody might ask for less than a page.
            LaunchSource::Unaligned => source + PAGE_SIZE / 2,
        };
        let gpa = TEST_MEMORY.wrapping_add(raw.offset);
        Ok(LaunchCall { gpa, source, length, page_type: raw.page_type, flags: raw.flags })
    }

    /// Makes the call, and again with what the kernel has written back as long as it says that it was interrupted.
    fn call_until_done(&mut self, raw: &RawLaunch, mut call: LaunchCall) -> Result<Ended, CaseEnd> {
        let deadline = self.deadline();
        let mut taken = 0;
        loop {
            let before = call;
            let result = self.guest.launch_once(&mut call);
            let done = self.progress(raw, &before, &call)?;
            taken += done;
            let (errno, found) = match result {
                Ok(()) => (None, "success".to_string()),
                Err(error) => match error.errno() {
                    Some(errno) => (Some(errno), told(&error)),
                    None => return Err(launch_failed(&error)),
                },
            };
            let interrupted = errno.is_some_and(|errno| INTERRUPTED.contains(&errno));
            let partly = errno.is_none() && done > 0 && call.length > 0;
            if errno.is_none() && done == 0 && before.length > 0 {
                let what = "a launch call says that it succeeds, and that it has taken no page";
                let refusal = self.oracle.judge_raw_launch(raw).refusal;
                return Err(CaseEnd::broken(refusal.unwrap_or(ClauseId::CocoLaunchProgress), what));
            }
            if !(interrupted || partly) || Instant::now() >= deadline {
                return Ok(Ended { taken, errno, found });
            }
        }
    }

    /// How many pages the call says that it has taken: start, source and length must agree.
    fn progress(
        &self,
        raw: &RawLaunch,
        before: &LaunchCall,
        after: &LaunchCall,
    ) -> Result<u64, CaseEnd> {
        let by_number = self.setup.platform.has(|e| e.launches_by_number);
        let unit = if by_number { 1 } else { PAGE_SIZE };
        let done = before.length.wrapping_sub(after.length) / unit;
        let bytes = done.wrapping_mul(PAGE_SIZE);
        let zero = !by_number && raw.page_type == PAGE_TYPE_ZERO;
        let source = if zero || raw.source == LaunchSource::InPlace { 0 } else { bytes };
        let expected = LaunchCall {
            gpa: before.gpa.wrapping_add(bytes),
            source: before.source.wrapping_add(source),
            length: before.length.wrapping_sub(done.wrapping_mul(unit)),
            ..*before
        };
        if after.length <= before.length && *after == expected {
            return Ok(done);
        }
        let show = |call: &LaunchCall| {
            let (page, into) = (
                call.gpa.wrapping_sub(TEST_MEMORY) / PAGE_SIZE,
                call.source.wrapping_sub(before.source),
            );
            let left = call.length;
            format!("page {page} is next, the source has advanced {into:#x} bytes, {left:#x} left")
        };
        let summary = "what a launch call writes back does not agree with itself";
        Err(CaseEnd::broken(ClauseId::CocoLaunchProgress, summary)
            .but(show(&expected), show(after)))
    }

    /// Whether the call ended as the clauses have it.
    fn judge_end(
        &self,
        raw: &RawLaunch,
        limit: &LaunchLimit,
        allowed: &[Option<Errno>],
        ended: &Ended,
    ) -> Result<(), CaseEnd> {
        let most = limit.pages.len() as u64;
        if !allowed.contains(&ended.errno) {
            let clause = limit.refusal.unwrap_or(match raw.source {
                LaunchSource::InPlace => self.oracle.in_place_clause(),
                _ => ClauseId::CocoLaunchExact,
            });
            let name = |errno: &Option<Errno>| errno.map_or("success".into(), |e| e.to_string());
            let expected: Vec<String> = allowed.iter().map(name).collect();
            let taken = ended.taken;
            let summary = format!("a launch call ended so after {taken} pages: {}", ended.found);
            return Err(CaseEnd::broken(clause, summary).but(expected.join(" or "), &ended.found));
        }
        if ended.taken > most {
            let summary = "a launch call says that it has taken a page that it has to refuse";
            let (says, expected) = (ended.taken.to_string(), format!("at most {most} pages"));
            return Err(CaseEnd::broken(ClauseId::CocoLaunchProgress, summary).but(expected, says));
        }
        Ok(())
    }

    /// A second call to finish the launch is refused.
    pub fn finish_again(&mut self, expect: &Returns) -> Result<(), CaseEnd> {
        let deadline = self.deadline();
        let errno = match self.guest.finish_only(deadline) {
            Ok(()) => None,
            Err(error) => Some(error.errno().ok_or_else(|| launch_failed(&error))?),
        };
        if expect.any_of.contains(&errno) {
            return Ok(());
        }
        let found = errno.map_or("success".to_string(), |errno| errno.to_string());
        let summary = format!("a second call to finish the launch ended so: {found}");
        Err(CaseEnd::broken(ClauseId::CocoFinishedOnce, summary).but("a refusal", found))
    }
}

fn told(error: &LaunchError) -> String {
    format!("failed to {error}")
}

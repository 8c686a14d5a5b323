// SPDX-License-Identifier: GPL-2.0-only
//! Cases into canonical text, which parses back to the same case.

use std::fmt::{self, Display, Write};

use super::ast::*;
use super::keys::PAGE_TYPES;
use super::mode::Mode;
use crate::uapi::{ATTRIBUTE_PRIVATE, KVM_MEM_GUEST_MEMFD};

/// The column where a trailing comment starts, if the statement leaves room.
const COMMENT_COLUMN: usize = 40;

impl Case {
    /// The case with the line numbers that its canonical text has, so that a failure's line is the one that is mailed.
    pub fn canonical(mut self) -> Case {
        let mut line = Header(&self).to_string().lines().count();
        for step in &mut self.steps {
            line += step.above.len() + 1;
            step.line = line;
        }
        self
    }
}

/// What stands above the statements.
struct Header<'a>(&'a Case);

impl Display for Header<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Header(case) = self;
        write_comments(f, &case.about)?;
        writeln!(f, "case    {}", case.name)?;
        let clauses: Vec<&str> = case.clauses.iter().map(|id| id.name()).collect();
        writeln!(f, "clause  {}", clauses.join(" "))?;
        for fix in &case.fixes {
            writeln!(f, "fixes   {fix}")?;
        }
        writeln!(f, "pages   {}", case.pages)?;
        writeln!(f, "start   {}", case.start)?;
        if case.no_mmap {
            f.write_str("mmap    none\n")?;
        }
        if !case.needs.is_empty() {
            let needs: Vec<String> = case.needs.iter().map(Requirement::to_string).collect();
            writeln!(f, "needs   {}", needs.join(" "))?;
        }
        if case.audit_end {
            f.write_str("audit   end\n")?;
        }
        if case.file_reused {
            f.write_str("file    reused\n")?;
        }
        if case.vm_fresh {
            f.write_str("vm      fresh\n")?;
        }
        if case.no_slots {
            f.write_str("slots   none\n")?;
        }
        if case.userspace_elsewhere {
            f.write_str("userspace elsewhere\n")?;
        }
        f.write_str("\n")
    }
}

fn write_comments(f: &mut fmt::Formatter<'_>, lines: &[String]) -> fmt::Result {
    lines.iter().try_for_each(|line| writeln!(f, "{}", format!("# {line}").trim_end()))
}

impl Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Header(self))?;
        for step in &self.steps {
            write_comments(f, &step.above)?;
            match &step.comment {
                Some(comment) => {
                    let text =
                        format!("{:width$} # {comment}", step.text(), width = COMMENT_COLUMN);
                    writeln!(f, "{}", text.trim_end())?;
                }
                None => {
                    step.write_text(f)?;
                    f.write_str("\n")?;
                }
            }
        }
        Ok(())
    }
}

impl Step {
    /// The statement without its comments.
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.write_text(&mut text).expect("a string has room");
        text
    }

    fn write_text(&self, out: &mut impl Write) -> fmt::Result {
        match &self.expect {
            Some(expect) => write!(out, "{} -> {expect}", self.action),
            None => write!(out, "{}", self.action),
        }
    }
}

/// A range of pages reads as [`Range`](std::ops::Range) shows itself.
impl Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Write { view, pages, letter } => {
                write!(f, "{:7} write  {pages:?} {}", view.name(), *letter as char)
            }
            Action::Read { view, pages } => write!(f, "{:7} read   {pages:?}", view.name()),
            Action::Expect { view, pages, look } => {
                write!(f, "{:7} expect {pages:?} {look}", view.name())
            }
            Action::Touch { who, pages } => write!(f, "touch   {} {pages:?}", who.name()),
            Action::Convert { pages, to, mode } => {
                write!(f, "convert {pages:?} {to} {mode}")
            }
            Action::Raw(raw) => write!(f, "raw     {raw}"),
            Action::Accept(pages) => write!(f, "accept  {pages:?}"),
            Action::Rescind(pages) => write!(f, "rescind {pages:?}"),
            Action::GuestConvert { pages, to, by_msr } => {
                let by_msr = if *by_msr { " by-msr" } else { "" };
                write!(f, "guest   convert {pages:?} {to}{by_msr}")
            }
            Action::Request(request) => write!(f, "guest   {request}"),
            Action::Launch { pages, from: Some(letter) } => {
                write!(f, "launch  {pages:?} {}", *letter as char)
            }
            Action::Launch { pages, from: None } => write!(f, "launch  {pages:?} in-place"),
            Action::LaunchRaw(raw) => write!(f, "launch  raw {raw}"),
            Action::OtherVm(call) => write!(f, "vm2     {}", call.name()),
            Action::Finalize => f.write_str("finalize"),
            Action::ConvertByAccess { page, to } => {
                write!(f, "guest   convert {page}..{} {to} by-access", page + 1)
            }
            Action::WrongAlias { page, by_write } => {
                let by_write = if *by_write { " by-write" } else { "" };
                write!(f, "guest   wrong-alias {page}..{}{by_write}", page + 1)
            }
            Action::PreFault(pages) => write!(f, "prefault {pages:?}"),
            Action::Punch(pages) => write!(f, "punch   {pages:?}"),
            Action::Allocate(pages) => write!(f, "allocate {pages:?}"),
            Action::Pin(pages) => write!(f, "pin     {pages:?}"),
            Action::Unpin(pages) => write!(f, "unpin   {pages:?}"),
            Action::SlotMap(map) => {
                write!(f, "slot    {} map {:?} at {}", map.slot, map.pages, map.at)
            }
            Action::SlotRaw(raw) => write!(f, "slot    {raw}"),
            Action::FileCall(call) => write!(f, "fd      {call}"),
            Action::FileExpect { pages, allocated } => {
                let what = if *allocated { "allocated" } else { "hole" };
                write!(f, "fd      expect {pages:?} {what}")
            }
            Action::FileReplace => f.write_str("fd      replace"),
            Action::Bystander(attribute) => write!(f, "bystander {attribute}"),
            Action::BystanderConvert { pages, to } => {
                write!(f, "bystander convert {pages:?} {to}")
            }
            Action::SlotDelete(slot) => write!(f, "slot    {slot} delete"),
            Action::Remap => f.write_str("remap"),
            Action::ChildFork => f.write_str("child   fork"),
            Action::ChildExit => f.write_str("child   exit"),
            Action::Capability(capability) => write!(f, "capability {}", capability.name()),
            Action::Misbehave(how) => write!(f, "misbehave {}", how.name()),
        }
    }
}

impl Display for RawSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} raw offset={:#x} size={:#x}", self.slot, self.offset, self.size)?;
        if self.at != 0 {
            write!(f, " at={}", self.at)?;
        }
        if self.flags != KVM_MEM_GUEST_MEMFD {
            write!(f, " flags={:#x}", self.flags)?;
        }
        f.write_str(match self.file {
            SlotFile::GuestMemfd => "",
            SlotFile::Other => " fd=other",
            SlotFile::Closed => " fd=closed",
        })?;
        f.write_str(if self.first_version { " call=first" } else { "" })
    }
}

impl Display for FileCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileCall::Fallocate { mode, offset, length } => {
                write!(f, "fallocate mode={mode:#x} offset={offset:#x} length={length:#x}")
            }
            FileCall::Truncate { size } => write!(f, "truncate size={size:#x}"),
            FileCall::Map { private, offset, length } => {
                let kind = if *private { "private" } else { "shared" };
                write!(f, "mmap offset={offset:#x} length={length:#x} sharing={kind}")
            }
            FileCall::Create { size, flags } => {
                write!(f, "create size={size:#x} flags={flags:#x}")
            }
        }
    }
}

impl Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Look::Pattern(letter) => write!(f, "{}", *letter as char),
            Look::Zero => f.write_str("zero"),
            Look::Unwritten => f.write_str("unwritten"),
            Look::Fault => f.write_str("fault"),
            Look::Mmio => f.write_str("mmio"),
            Look::MemoryFault => f.write_str("memory-fault"),
            Look::Any => f.write_str("any"),
        }
    }
}

impl Display for RawConvert {
    /// Range and attributes always, the other keys where they differ from the default.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = RawConvert::default();
        write!(f, "offset={:#x} size={:#x}", self.offset, self.size)?;
        match self.attributes {
            ATTRIBUTE_PRIVATE => f.write_str(" attributes=private")?,
            0 => f.write_str(" attributes=shared")?,
            other => write!(f, " attributes={other:#x}")?,
        }
        match (self.flags, Mode::word(self.flags)) {
            (0, _) => {}
            (_, Some(word)) => write!(f, " flags={word}")?,
            (other, None) => write!(f, " flags={other:#x}")?,
        }
        if self.error_offset != default.error_offset {
            write!(f, " error_offset={:#x}", self.error_offset)?;
        }
        for (i, value) in self.reserved.iter().enumerate().filter(|(_, v)| **v != 0) {
            write!(f, " reserved{i}={value:#x}")?;
        }
        match self.pointer {
            Pointer::Good => {}
            Pointer::Bad => f.write_str(" pointer=bad")?,
            Pointer::ReadOnly => f.write_str(" pointer=read-only")?,
        }
        match self.descriptor {
            Descriptor::GuestMemfd => Ok(()),
            Descriptor::Vm => f.write_str(" fd=vm"),
        }
    }
}

impl Display for RawLaunch {
    /// Start, length and source always, the other keys where they differ from the default.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = RawLaunch::default();
        write!(f, "offset={:#x}", self.offset)?;
        match self.length {
            LaunchLength::Pages(pages) => write!(f, " pages={pages}")?,
            LaunchLength::Bytes(bytes) => write!(f, " length={bytes:#x}")?,
        }
        match self.source {
            LaunchSource::Pattern(letter) => write!(f, " source={}", letter as char)?,
            LaunchSource::InPlace => f.write_str(" source=in-place")?,
            LaunchSource::Unaligned => f.write_str(" source=unaligned")?,
        }
        if let Some(mapped) = self.mapped {
            write!(f, " mapped={mapped}")?;
        }
        if self.page_type != default.page_type {
            match PAGE_TYPES.into_iter().find(|(_, number)| *number == self.page_type) {
                Some((name, _)) => write!(f, " type={name}")?,
                None => write!(f, " type={}", self.page_type)?,
            }
        }
        match self.flags {
            0 => Ok(()),
            flags => write!(f, " flags={flags:#x}"),
        }
    }
}

impl Display for Returns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> =
            self.any_of.iter().map(|e| e.map_or("OK".into(), |e| e.to_string())).collect();
        f.write_str(&names.join("|"))?;
        match self.error_page {
            Some(page) => write!(f, " @{page}"),
            None => Ok(()),
        }
    }
}

impl Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: Vec<&str>| names.join(",");
        match self {
            Requirement::Platform(platforms) => {
                write!(f, "platform={}", list(platforms.iter().map(|p| p.name()).collect()))
            }
            Requirement::Dialect(dialects) => {
                write!(f, "dialect={}", list(dialects.iter().map(|d| d.name()).collect()))
            }
            Requirement::Mode(mode) => write!(f, "mode={mode}"),
            Requirement::LaunchInPlace => f.write_str("launch=in-place"),
            Requirement::PreFault => f.write_str("call=pre-fault"),
            Requirement::CapabilityNumber(capability) => {
                write!(f, "capability={}", capability.name())
            }
        }
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! Cases into canonical text, which parses back to the same case.

use std::fmt::{self, Display};

use super::ast::*;
use crate::uapi::{ATTRIBUTE_PRIVATE, MODE_PRESERVE, MODE_ZERO};

/// Both modes at once, which is refused.
const MODE_BOTH: u64 = MODE_ZERO | MODE_PRESERVE;

/// The column where a trailing comment starts, if the statement leaves room.
const COMMENT_COLUMN: usize = 40;

impl Case {
    /// The case with the line numbers that its canonical text has, so that a failure's line is the one that is mailed.
    pub fn canonical(&self) -> Case {
        let mut case = self.clone();
        let mut line = self.header().lines().count();
        for step in &mut case.steps {
            line += step.above.len() + 1;
            step.line = line;
        }
        case
    }

    fn header(&self) -> String {
        let mut out = String::new();
        for line in &self.about {
            out += format!("# {line}").trim_end();
            out.push('\n');
        }
        out += &format!("case    {}\n", self.name);
        out += &format!("clause  {}\n", self.clauses.join(" "));
        for fix in &self.fixes {
            out += &format!("fixes   {fix}\n");
        }
        out += &format!("pages   {}\n", self.pages);
        out += &format!("start   {}\n", self.start);
        if self.no_mmap {
            out += "mmap    none\n";
        }
        if !self.needs.is_empty() {
            let needs: Vec<String> = self.needs.iter().map(Requirement::to_string).collect();
            out += &format!("needs   {}\n", needs.join(" "));
        }
        if self.audit_end {
            out += "audit   end\n";
        }
        if self.file_reused {
            out += "file    reused\n";
        }
        if self.no_slots {
            out += "slots   none\n";
        }
        out.push('\n');
        out
    }
}

impl Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.header())?;
        for step in &self.steps {
            for line in &step.above {
                writeln!(f, "{}", format!("# {line}").trim_end())?;
            }
            match &step.comment {
                Some(comment) => {
                    let text =
                        format!("{:width$} # {comment}", step.text(), width = COMMENT_COLUMN);
                    writeln!(f, "{}", text.trim_end())?;
                }
                None => writeln!(f, "{}", step.text())?,
            }
        }
        Ok(())
    }
}

impl Step {
    /// The statement without its comments.
    pub fn text(&self) -> String {
        match &self.expect {
            Some(expect) => format!("{} -> {expect}", self.action),
            None => self.action.to_string(),
        }
    }
}

/// A range of pages as it stands in a case.
pub(crate) fn range(pages: &Pages) -> String {
    format!("{}..{}", pages.start, pages.end)
}

impl Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Write { view, pages, letter } => {
                write!(f, "{:7} write  {} {}", view.name(), range(pages), *letter as char)
            }
            Action::Read { view, pages } => write!(f, "{:7} read   {}", view.name(), range(pages)),
            Action::Expect { view, pages, look } => {
                write!(f, "{:7} expect {} {look}", view.name(), range(pages))
            }
            Action::Touch { who, pages } => write!(f, "touch   {} {}", who.name(), range(pages)),
            Action::Convert { pages, to, mode } => {
                write!(f, "convert {} {to} {mode}", range(pages))
            }
            Action::Raw(raw) => write!(f, "raw     {raw}"),
            Action::Accept(pages) => write!(f, "accept  {}", range(pages)),
            Action::Rescind(pages) => write!(f, "rescind {}", range(pages)),
            Action::GuestConvert { pages, to } => {
                write!(f, "guest   convert {} {to}", range(pages))
            }
            Action::WrongAlias(page) => write!(f, "guest   wrong-alias {page}..{}", page + 1),
            Action::Punch(pages) => write!(f, "punch   {}", range(pages)),
            Action::Allocate(pages) => write!(f, "allocate {}", range(pages)),
            Action::Pin(pages) => write!(f, "pin     {}", range(pages)),
            Action::Unpin(pages) => write!(f, "unpin   {}", range(pages)),
            Action::SlotMap(map) => {
                write!(f, "slot    {} map {} at {}", map.slot, range(&map.pages), map.at)
            }
            Action::SlotRaw(raw) => {
                write!(
                    f,
                    "slot    {} raw offset={:#x} size={:#x}",
                    raw.slot, raw.offset, raw.size
                )?;
                if raw.at != 0 { write!(f, " at={}", raw.at) } else { Ok(()) }
            }
            Action::Bystander(attribute) => write!(f, "bystander {attribute}"),
            Action::BystanderConvert { pages, to } => {
                write!(f, "bystander convert {}..{} {to}", pages.start, pages.end)
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

impl Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Look::Pattern(letter) => write!(f, "{}", *letter as char),
            Look::Zero => f.write_str("zero"),
            Look::Fault => f.write_str("fault"),
            Look::Mmio => f.write_str("mmio"),
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
        match self.flags {
            0 => {}
            MODE_ZERO => f.write_str(" flags=zero")?,
            MODE_PRESERVE => f.write_str(" flags=preserve")?,
            MODE_BOTH => f.write_str(" flags=zero+preserve")?,
            other => write!(f, " flags={other:#x}")?,
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
            Requirement::CapabilityNumber(capability) => {
                write!(f, "capability={}", capability.name())
            }
        }
    }
}

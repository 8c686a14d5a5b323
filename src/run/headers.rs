// SPDX-License-Identifier: GPL-2.0-only
//! Capability numbers from a kernel tree's headers, for `--kernel-headers`: those of an unmerged series move whenever it
//! is rebased.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::uapi::CapabilityNumbers;

/// Where a kernel tree, an installed tree of headers, or a folder of them has the file.
const PLACES: [&str; 4] =
    ["linux/kvm.h", "include/uapi/linux/kvm.h", "usr/include/linux/kvm.h", "include/linux/kvm.h"];

/// Why there are no capability numbers.
#[derive(Debug, Error)]
pub enum HeaderError {
    /// A file or directory cannot be read.
    #[error("{}: {}", .path.display(), describe(.error))]
    Unreadable {
        /// What cannot be read.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The directory is none of a kernel tree or of headers.
    #[error("no kvm.h below {}; tried {}", .0.display(), PLACES.join(", "))]
    NotFound(PathBuf),
    /// The header is one of a kernel without the interface.
    #[error(
        "{} defines neither KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES nor \
         KVM_CAP_MEMORY_ATTRIBUTES2_FLAGS: this kernel tree does not have the interface",
        .0.display()
    )]
    NoNumber(PathBuf),
}

/// Reads the numbers from `path`: a `kvm.h`, or a directory that has one where kernel trees have it.
pub fn capability_numbers(path: &Path) -> Result<CapabilityNumbers, HeaderError> {
    let header = find(path)?;
    let text = std::fs::read(&header)
        .map_err(|error| HeaderError::Unreadable { path: header.clone(), error })?;
    let text = String::from_utf8_lossy(&text);
    let numbers = CapabilityNumbers {
        guest_memfd_memory_attributes: define(&text, "KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES"),
        memory_attributes2_flags: define(&text, "KVM_CAP_MEMORY_ATTRIBUTES2_FLAGS"),
    };
    if numbers.guest_memfd_memory_attributes.is_none() && numbers.memory_attributes2_flags.is_none()
    {
        return Err(HeaderError::NoNumber(header));
    }
    Ok(numbers)
}

fn find(path: &Path) -> Result<PathBuf, HeaderError> {
    let metadata = std::fs::metadata(path)
        .map_err(|error| HeaderError::Unreadable { path: path.into(), error })?;
    if metadata.is_file() {
        return Ok(path.to_path_buf());
    }
    PLACES
        .iter()
        .map(|place| path.join(place))
        .find(|header| header.is_file())
        .ok_or_else(|| HeaderError::NotFound(path.into()))
}

/// The number that a header gives to `name`.
fn define(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let directive = line.trim_start().strip_prefix('#')?.trim_start();
        let mut words = directive.strip_prefix("define")?.split_whitespace();
        if words.next() != Some(name) {
            return None;
        }
        let value = words.next()?;
        match value.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => value.parse().ok(),
        }
    })
}

/// An I/O error in the system's words, without the number that std adds.
pub(crate) fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the spacing and the notation, the number is found; a name that merely begins like it is another name.
    #[test]
    fn defines_are_found() {
        let text = "#define KVM_CAP_MEMORY_ATTRIBUTES2_FLAGS_OLD 7\n\
                    # define\tKVM_CAP_MEMORY_ATTRIBUTES2_FLAGS\t253 /* rebased */\n\
                    #define KVM_CAP_HEX 0xfc\n#define KVM_CAP_WORD (1 + 1)\n";
        assert_eq!(define(text, "KVM_CAP_MEMORY_ATTRIBUTES2_FLAGS"), Some(253));
        assert_eq!(define(text, "KVM_CAP_HEX"), Some(252));
        assert_eq!(define(text, "KVM_CAP_WORD"), None);
        assert_eq!(define(text, "KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES"), None);
    }

    /// A tree, a folder of headers and the header itself all do; anything else is refused with a sentence.
    #[test]
    fn places_and_messages() {
        let dir = std::env::temp_dir().join(format!("gmem-conform-headers-{}", std::process::id()));
        let header = dir.join("include/uapi/linux/kvm.h");
        std::fs::create_dir_all(dir.join("include/uapi/linux")).unwrap();
        let message = capability_numbers(&dir).unwrap_err().to_string();
        assert!(message.starts_with("no kvm.h below"), "{message}");
        std::fs::write(&header, "#define KVM_CAP_MEMORY_ATTRIBUTES2 245\n").unwrap();
        let message = capability_numbers(&dir).unwrap_err().to_string();
        assert!(message.contains("does not have the interface"), "{message}");
        std::fs::write(&header, "#define KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES 252\n").unwrap();
        let expected = CapabilityNumbers {
            guest_memfd_memory_attributes: Some(252),
            memory_attributes2_flags: None,
        };
        assert_eq!(capability_numbers(&dir).unwrap(), expected);
        assert_eq!(capability_numbers(&header).unwrap(), expected);
        assert_eq!(capability_numbers(&dir.join("include/uapi")).unwrap(), expected);
        assert_eq!(
            capability_numbers(&dir.join("absent")).unwrap_err().to_string(),
            format!("{}: no such file or directory", dir.join("absent").display())
        );
        std::fs::remove_dir_all(&dir).unwrap();
    }
}

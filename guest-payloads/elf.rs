// SPDX-License-Identifier: GPL-2.0-only
//! As much of ELF as a linked payload needs: `build.rs` makes the raw image with it, a test finds the code with it.

/// `PT_LOAD`.
const PT_LOAD: u64 = 1;
/// `PF_X`.
pub const EXECUTABLE: u64 = 1;

/// A `PT_LOAD` segment.
pub struct Segment<'a> {
    /// `p_flags`.
    pub flags: u64,
    /// `p_vaddr`, which is also the physical address.
    pub address: u64,
    /// The bytes that the file has.
    pub bytes: &'a [u8],
    /// `p_memsz`: with the zeros behind them.
    pub size: u64,
}

/// Entry point and segments of the little-endian 64-bit executable `file`; what is wrong with it if it is none.
pub fn parse(file: &[u8]) -> Result<(u64, Vec<Segment<'_>>), &'static str> {
    if file.get(..6) != Some(b"\x7fELF\x02\x01") {
        return Err("not a little-endian 64-bit ELF file");
    }
    let entry = field(file, 24, 8)?;
    let headers = field(file, 32, 8)?;
    let header_size = field(file, 54, 2)?;
    let mut segments = Vec::new();
    for i in 0..field(file, 56, 2)? {
        let header = headers + i * header_size;
        if field(file, header, 4)? != PT_LOAD {
            continue;
        }
        let offset = field(file, header + 8, 8)? as usize;
        let bytes = file
            .get(offset..)
            .zip(field(file, header + 32, 8).ok())
            .and_then(|(rest, size)| rest.get(..size as usize))
            .ok_or("a segment ends after the file")?;
        segments.push(Segment {
            flags: field(file, header + 4, 4)?,
            address: field(file, header + 16, 8)?,
            bytes,
            size: field(file, header + 40, 8)?,
        });
    }
    Ok((entry, segments))
}

/// The little-endian integer of `size` bytes at `offset`.
fn field(file: &[u8], offset: u64, size: usize) -> Result<u64, &'static str> {
    let bytes = usize::try_from(offset)
        .ok()
        .and_then(|offset| file.get(offset..)?.get(..size))
        .ok_or("the file is too short")?;
    Ok(bytes.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)))
}

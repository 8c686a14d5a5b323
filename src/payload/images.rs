// SPDX-License-Identifier: GPL-2.0-only
//! What a host loads into an encrypted guest's memory before it starts it.

use super::abi::{IMAGE, PAYLOAD_SIZE, RESET_PAGE, RESET_VECTOR};

/// SEV-SNP: what is at [`IMAGE`], and entered there in 64-bit mode.
pub static SNP: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/snp.bin"));
const _: () = assert!(SNP.len() as u64 <= PAYLOAD_SIZE - IMAGE);

/// TDX: what is at [`IMAGE`]. It is entered from [`TDX_RESET`].
pub static TDX_IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tdx.bin"));
const _: () = assert!(TDX_IMAGE.len() as u64 <= PAYLOAD_SIZE - IMAGE);

/// TDX: the page at [`RESET_PAGE`], which the vCPU starts in: a jump to [`IMAGE`], where paging can be switched on because
/// the page tables map it. No linker would make it: it is a jump of almost 4 GiB, which only wraps in 32-bit mode.
pub static TDX_RESET: &[u8; 4096] = &reset_page();

const fn reset_page() -> [u8; 4096] {
    /// JMP rel32.
    const JUMP: u8 = 0xe9;
    /// Length of that instruction, in bytes.
    const LENGTH: u64 = 5;
    // INT3 everywhere else.
    let mut page = [0xcc; 4096];
    let distance = (IMAGE as u32).wrapping_sub((RESET_VECTOR + LENGTH) as u32);
    let [a, b, c, d] = distance.to_le_bytes();
    let start = (RESET_VECTOR - RESET_PAGE) as usize;
    page[start] = JUMP;
    page[start + 1] = a;
    page[start + 2] = b;
    page[start + 3] = c;
    page[start + 4] = d;
    page
}

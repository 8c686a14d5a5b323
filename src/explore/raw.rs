// SPDX-License-Identifier: GPL-2.0-only
//! Arguments that no range can express.

use crate::case::{Descriptor, Mode, Pointer, RawConvert};
use crate::rng::Rng;
use crate::uapi::PAGE_SIZE;

/// Puts something wrong or odd into a call that is valid, sometimes two things. `pages` is the size of the file.
pub(super) fn distort(rng: &mut Rng, mut call: RawConvert, pages: u64) -> RawConvert {
    let file = pages * PAGE_SIZE;
    for _ in 0..1 + rng.below(5) / 4 {
        match rng.below(17) {
            0 => call.offset += rng.pick(&[1, 8, PAGE_SIZE / 2, PAGE_SIZE - 1]),
            1 => call.size -= rng.pick(&[1, 8, PAGE_SIZE / 2, PAGE_SIZE - 1]).min(call.size),
            2 => call.size = 0,
            3 => call.size = u64::MAX - PAGE_SIZE + 1 - rng.below(3) * PAGE_SIZE,
            // The end wraps around to the start of the file.
            4 => call.size = (PAGE_SIZE * rng.below(2)).wrapping_sub(call.offset),
            5 => call.size = file.wrapping_sub(call.offset).wrapping_add(PAGE_SIZE),
            6 => call.offset = file + rng.below(2) * PAGE_SIZE,
            7 => call.offset = 1 << rng.pick(&[44, 62, 63]),
            8 => call.attributes |= 1 << rng.pick(&[0, 1, 2, 4, 31, 32, 63]),
            9 => call.flags |= 1 << rng.pick(&[2, 3, 16, 31, 32, 63]),
            10 => call.flags = Mode::BITS,
            // Ignored from RFC v5 on.
            11 | 12 => call.error_offset = rng.pick(&[1, PAGE_SIZE, u64::MAX, call.offset | 8]),
            13 => {
                let index = rng.pick(&[0, 1, 5, 9, 10]);
                call.reserved[index] = rng.pick(&[1, 1 << 32, 1 << 63]);
            }
            14 => call.pointer = Pointer::Bad,
            15 => {
                call.pointer = Pointer::ReadOnly;
                // Nothing else is wrong with it: an EINVAL may be written back or not.
                return call;
            }
            _ => call.descriptor = Descriptor::Vm,
        }
    }
    call
}

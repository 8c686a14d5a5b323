// SPDX-License-Identifier: GPL-2.0-only
//! The program; see the library.
fn main() {
    if gmem_conform::init::is_init() {
        gmem_conform::init::run()
    }
}

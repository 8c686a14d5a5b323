// SPDX-License-Identifier: GPL-2.0-only
//! One HTML file that needs nothing else: to be attached to a mail or kept by a CI system.

mod failure;
mod matrix;
mod page;

pub use page::Html;

// SPDX-License-Identifier: GPL-2.0-only
//! The case language and the built-in cases.

mod broken;
mod each;
mod layouts;
mod library;
mod round_trip;
mod strategy;

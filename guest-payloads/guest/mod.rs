// SPDX-License-Identifier: GPL-2.0-only
//! What the payloads have in common that makes sense in a guest only.

pub mod exceptions;
pub mod memory;

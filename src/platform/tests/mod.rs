// SPDX-License-Identifier: GPL-2.0-only
//! The launches of encrypted guests, on the model.

mod injection;
mod launch;
mod missing;
mod support;

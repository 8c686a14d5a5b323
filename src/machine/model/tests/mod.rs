// SPDX-License-Identifier: GPL-2.0-only
//! Tests of the model against what the facts say of a kernel.

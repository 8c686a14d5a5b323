// SPDX-License-Identifier: GPL-2.0-only
//! Planted faults do what their descriptions say.

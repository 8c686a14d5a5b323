// SPDX-License-Identifier: GPL-2.0-only
//! What observing and measuring speak of: the situations, what was seen in one, how long it took, and the head of the
//! files that hold it.

mod head;
mod point;
mod sight;
mod spot;

pub use head::Head;
pub(crate) use head::runnable;
pub use point::{Extent, Point, Series, Times, What, series};
pub use sight::{PageSight, Seen, Trial};
pub(crate) use spot::states;
pub use spot::{Backing, History, Phase, Spot, spots};

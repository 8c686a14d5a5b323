// SPDX-License-Identifier: GPL-2.0-only
//! Which mapping of the guest_memfd a view is.

use super::session::{Session, failed};
use super::stop::Stop;
use crate::case::View;
use crate::errno::Errno;
use crate::machine::{HostView, Pin, Result};

impl Session<'_> {
    /// The mapping that `view` looks through; the second one is made when it is first asked for.
    pub fn mapping(&mut self, view: View) -> std::result::Result<&dyn HostView, Stop> {
        if view != View::Host2 {
            return Ok(&*self.view);
        }
        let second = match self.view2.take() {
            Some(second) => second,
            None => {
                let length = self.view.length();
                let second = self.gmem.mmap(0, length);
                second.map_err(|e| failed("a second mmap of the guest_memfd", e))?
            }
        };
        Ok(&**self.view2.insert(second))
    }
}

/// The view of a guest_memfd that cannot be mapped. The oracle says that no page of it can be seen, so nobody looks.
struct NoView;

/// No view.
pub(super) fn no_view() -> Box<dyn HostView> {
    Box::new(NoView)
}

impl HostView for NoView {
    fn address(&self) -> *mut u8 {
        std::ptr::null_mut()
    }

    fn length(&self) -> u64 {
        0
    }

    fn pin(&self, _offset: u64) -> Result<Box<dyn Pin>> {
        Err(Errno::EFAULT)
    }

    fn sync_in_child(&self, _offset: u64, _length: u64) {}
}

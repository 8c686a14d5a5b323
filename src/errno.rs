// SPDX-License-Identifier: GPL-2.0-only
//! Error numbers as an open set: a kernel may return one that this program has never heard of.

use std::fmt;

/// An error number as the kernel returned it, printed by name where it has one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Errno(pub i32);

/// Declares the constants and the two directions of the name table in one place.
macro_rules! errnos {
    ($($name:ident)*) => {
        impl Errno {
            $(#[doc = concat!("`", stringify!($name), "`.")] pub const $name: Errno = Errno(libc::$name);)*

            /// The symbolic name, where it is one that KVM, guest_memfd or the paths to them are known to return.
            pub fn name(self) -> Option<&'static str> {
                match self.0 { $(libc::$name => Some(stringify!($name)),)* _ => None }
            }

            /// The error number with this symbolic name.
            pub fn from_name(name: &str) -> Option<Errno> {
                match name { $(stringify!($name) => Some(Errno::$name),)* _ => None }
            }
        }
    };
}

errnos! {
    EPERM ENOENT EINTR EIO ENXIO E2BIG EBADF EAGAIN ENOMEM EACCES EFAULT EBUSY EEXIST ENODEV EINVAL EMFILE ENOTTY
    EFBIG ENOSPC ESPIPE EROFS ERANGE ENOSYS EOVERFLOW EOPNOTSUPP EHWPOISON EISDIR ENOTDIR
}

impl Errno {
    /// The calling thread's `errno`, directly after a failed call.
    pub fn last() -> Errno {
        Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno-{}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Errno {}

impl From<nix::errno::Errno> for Errno {
    fn from(e: nix::errno::Errno) -> Errno {
        Errno(e as i32)
    }
}

impl From<kvm_ioctls::Error> for Errno {
    fn from(e: kvm_ioctls::Error) -> Errno {
        Errno(e.errno())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error number that nobody has named is still shown, as a number.
    #[test]
    fn unknown_numbers_print() {
        assert_eq!(Errno(524).to_string(), "errno-524");
        assert_eq!(Errno::EOPNOTSUPP.to_string(), "EOPNOTSUPP");
        assert_eq!(Errno::from_name("EAGAIN"), Some(Errno(11)));
        assert_eq!(Errno::from_name("EWHAT"), None);
    }
}

// SPDX-License-Identifier: GPL-2.0-only
//! Accesses that may end in SIGBUS, which is what a private page answers.
//!
//! All of them go through one copy routine. When SIGBUS arrives at its copy instruction, the handler continues behind
//! it, as the kernel's own exception tables do, and the routine returns how much it did not copy. A SIGBUS anywhere else
//! kills the process as if there were no handler. The fault costs one signal; a child process for each would cost a fork.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::errno::Errno;
use crate::timings::{Part, spend};

// gmem_conform_copy(to: rdi, from: rsi, words: rdx) -> words not copied: rax
std::arch::global_asm!(
    ".pushsection .text.gmem_conform_copy,\"ax\",@progbits",
    ".globl gmem_conform_copy, gmem_conform_copy_fault, gmem_conform_copy_done",
    "gmem_conform_copy:",
    "    mov rcx, rdx",
    "    cld",
    "gmem_conform_copy_fault:",
    "    rep movsq",
    "gmem_conform_copy_done:",
    "    mov rax, rcx",
    "    ret",
    ".popsection",
);

unsafe extern "C" {
    fn gmem_conform_copy(to: *mut u64, from: *const u64, words: u64) -> u64;
    /// The instruction that may fault, and the one behind it. Labels, not functions.
    fn gmem_conform_copy_fault();
    fn gmem_conform_copy_done();
}

thread_local! {
    /// `si_code` of the last SIGBUS that the handler survived on this thread. Const-initialised and without a
    /// destructor, so that the handler can use it: no allocation, no lock.
    static SI_CODE: AtomicI32 = const { AtomicI32::new(0) };
}

/// An access that ended in SIGBUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusError {
    /// Bytes that were copied before it.
    pub copied: usize,
    /// `si_code`: BUS_ADRERR for a private page.
    pub code: i32,
}

/// `BUS_ADRERR`: what a fault on a page that is not there gives (asm-generic/siginfo.h).
pub const BUS_ADRERR: i32 = 2;

/// Installs the handler, once per process. Forked children inherit it.
pub fn install() -> Result<(), Errno> {
    static INSTALLED: OnceLock<Result<(), Errno>> = OnceLock::new();
    *INSTALLED.get_or_init(|| {
        let action =
            SigAction::new(SigHandler::SigAction(on_sigbus), SaFlags::SA_SIGINFO, SigSet::empty());
        // SAFETY: the handler does only what is allowed in one: it reads its arguments, stores to a const-initialised
        // thread-local atomic, and changes the context that it was given or resets the signal's action.
        unsafe { sigaction(Signal::SIGBUS, &action) }?;
        Ok(())
    })
}

extern "C" fn on_sigbus(_: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the kernel passes a valid ucontext to a handler installed with SA_SIGINFO, for the handler's duration.
    let rip = unsafe { &mut (*context).uc_mcontext.gregs[libc::REG_RIP as usize] };
    if *rip == gmem_conform_copy_fault as *const () as i64 {
        // SAFETY: the kernel passes a valid siginfo.
        let code = unsafe { (*info).si_code };
        SI_CODE.with(|c| c.store(code, Ordering::Relaxed));
        // `rep movsq` leaves rcx, rsi and rdi as they were before the word that faulted.
        *rip = gmem_conform_copy_done as *const () as i64;
        return;
    }
    // Not ours: die of it. The instruction is executed again, and SIGBUS then has its default action.
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: restoring the default action is always sound.
    let _ = unsafe { sigaction(Signal::SIGBUS, &default) };
}

/// Copies `words` words and reports a SIGBUS instead of dying of it.
///
/// # Safety
///
/// [`install`] has succeeded. `from` and `to` are multiples of 8 and each lies, for `words * 8` bytes, either in memory
/// that this thread owns or in a mapping of a guest_memfd that is touched through raw pointers only.
pub unsafe fn copy(to: *mut u64, from: *const u64, words: usize) -> Result<(), BusError> {
    // SAFETY: the caller keeps the promise above; a fault inside is survived by the handler.
    let left = spend(Part::Host, || unsafe { gmem_conform_copy(to, from, words as u64) }) as usize;
    if left == 0 {
        return Ok(());
    }
    Err(BusError { copied: (words - left) * 8, code: SI_CODE.with(|c| c.load(Ordering::Relaxed)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroUsize;

    use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

    /// A copy that runs past the end of a mapped file stops there, says where and with which code, and the process lives.
    #[test]
    fn sigbus_is_reported() {
        install().unwrap();
        let name = c"guard-test";
        let fd =
            nix::sys::memfd::memfd_create(name, nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap();
        nix::unistd::ftruncate(&fd, 4096).unwrap();
        let length = NonZeroUsize::new(8192).unwrap();
        // SAFETY: a new mapping at an address of the kernel's choice.
        let map = unsafe { mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, &fd, 0) }
            .unwrap();
        let mut out = vec![1u64; 1024];
        // SAFETY: `map` is mapped for 8192 bytes, of which the file has 4096; `out` has 1024 words.
        let result = unsafe { copy(out.as_mut_ptr(), map.as_ptr().cast(), 1024) };
        assert_eq!(result, Err(BusError { copied: 4096, code: BUS_ADRERR }));
        assert!(out[..512].iter().all(|w| *w == 0) && out[512..].iter().all(|w| *w == 1));
        // SAFETY: as above, within the file.
        let within = unsafe { copy(out.as_mut_ptr(), map.as_ptr().cast(), 512) };
        assert_eq!(within, Ok(()));
        // SAFETY: the mapping was made above and is not used any more.
        unsafe { munmap(map, 8192) }.unwrap();
    }
}

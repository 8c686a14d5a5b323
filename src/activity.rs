// SPDX-License-Identifier: GPL-2.0-only
//! What the threads of a worker are doing, in a page that its runner reads even when the worker hangs or is dead: the
//! statement of the case, and for each thread the call or the access that it is in, and how its vCPU fares.
//!
//! The page is an array of words, in native byte order. The first says how far the worker has come with its job: 0 when it
//! has not begun, otherwise 1 and the line of the statement being executed, which is 0 before the first. Then comes a
//! [`Slot`] for each thread. In a process that has no such page, nothing is written down.

use std::cell::Cell;
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use strum::{FromRepr, IntoStaticStr};

use crate::errno::Errno;

/// Threads that can be followed at a time: more than any scenario starts. A thread beyond is not.
const SLOTS: usize = 32;
/// Words of a slot, in the order of [`Slot`].
const WORDS: usize = 8;
/// Bytes of the page.
pub const BYTES: usize = (1 + SLOTS * WORDS) * 8;

/// What a thread can be in. The names are those of the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRepr, IntoStaticStr)]
#[repr(u64)]
pub enum Call {
    /// No call of the machine, and no access to guest memory.
    #[strum(serialize = "no call")]
    None,
    /// A read through a mapping of a guest_memfd.
    #[strum(serialize = "a read")]
    HostRead,
    /// A write through a mapping of a guest_memfd.
    #[strum(serialize = "a write")]
    HostWrite,
    /// `KVM_RUN`.
    #[strum(serialize = "KVM_RUN")]
    Run,
    /// `KVM_SET_MEMORY_ATTRIBUTES2`.
    #[strum(serialize = "KVM_SET_MEMORY_ATTRIBUTES2")]
    SetMemoryAttributes2,
    /// `KVM_SET_MEMORY_ATTRIBUTES`.
    #[strum(serialize = "KVM_SET_MEMORY_ATTRIBUTES")]
    SetMemoryAttributes,
    /// `fallocate` of a guest_memfd.
    #[strum(serialize = "fallocate")]
    Fallocate,
    /// `KVM_PRE_FAULT_MEMORY`.
    #[strum(serialize = "KVM_PRE_FAULT_MEMORY")]
    PreFaultMemory,
    /// `KVM_MEMORY_ENCRYPT_OP`.
    #[strum(serialize = "KVM_MEMORY_ENCRYPT_OP")]
    MemoryEncryptOp,
    /// Any other call of the machine, or the end of something of it.
    #[strum(serialize = "a call that makes, maps or closes something")]
    SetUp,
}

/// How `KVM_RUN` came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRepr, IntoStaticStr)]
#[repr(u64)]
#[expect(missing_docs, reason = "the names are the kernel's")]
pub enum RunEnd {
    #[strum(serialize = "KVM_EXIT_IO")]
    Io = 1,
    #[strum(serialize = "KVM_EXIT_MMIO")]
    Mmio,
    #[strum(serialize = "KVM_EXIT_MEMORY_FAULT")]
    MemoryFault,
    #[strum(serialize = "KVM_EXIT_HYPERCALL")]
    Hypercall,
    #[strum(serialize = "KVM_EXIT_SYSTEM_EVENT")]
    SystemEvent,
    #[strum(serialize = "KVM_EXIT_HLT")]
    Hlt,
    #[strum(serialize = "KVM_EXIT_SHUTDOWN")]
    Shutdown,
    #[strum(serialize = "KVM_EXIT_FAIL_ENTRY")]
    FailEntry,
    #[strum(serialize = "KVM_EXIT_INTERNAL_ERROR")]
    InternalError,
    #[strum(serialize = "EINTR, at the guest's deadline")]
    Interrupted,
    #[strum(serialize = "EIO")]
    Dead,
    #[strum(serialize = "an error")]
    Error,
    #[strum(serialize = "another exit")]
    Other,
}

/// What one thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its id.
    pub thread: u64,
    /// What it is in.
    pub call: Call,
    /// Of an access: the address.
    pub address: u64,
    /// Of an access: the page of the mapping.
    pub page: u64,
    /// How often it has called `KVM_RUN` in this case.
    pub entered: u64,
    /// How often that came back.
    pub returned: u64,
    /// How it came back the last time.
    pub run_end: Option<RunEnd>,
}

/// What a worker was doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// The line of the statement that is being executed, 0 before the first; none when the job has not begun.
    pub line: Option<usize>,
    /// Its threads.
    pub slots: Vec<Slot>,
}

const THREAD: usize = 0;
const CALL: usize = 1;
const ADDRESS: usize = 2;
const PAGE: usize = 3;
const ENTERED: usize = 4;
const RETURNED: usize = 5;
const RUN_END: usize = 6;

/// The page of this process, if it has one; it is never unmapped.
static WRITTEN: AtomicPtr<AtomicU64> = AtomicPtr::new(null_mut());

thread_local! {
    /// The slot of this thread, and its id. Const-initialised and without a destructor, so that a forked child may use it.
    static MINE: Cell<Option<(usize, u64)>> = const { Cell::new(None) };
}

/// Has this process write down what it does in `file`, of [`BYTES`] bytes, which nobody shortens.
pub fn map(file: &File) -> Result<(), Errno> {
    let size = NonZeroUsize::new(BYTES).ok_or(Errno::EINVAL)?;
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping where the kernel likes; it stays until the process ends.
    let page = unsafe { mmap(None, size, protection, MapFlags::MAP_SHARED, file, 0) }?;
    WRITTEN.store(page.as_ptr().cast(), Ordering::Release);
    Ok(())
}

/// Word `index` of the page.
fn word(index: usize) -> Option<&'static AtomicU64> {
    let page = WRITTEN.load(Ordering::Acquire);
    let inside = !page.is_null() && index < BYTES / 8;
    // SAFETY: the mapping holds BYTES and is never taken away; everybody accesses its words atomically, or reads the file.
    inside.then(|| unsafe { &*page.add(index) })
}

fn slot_word(slot: usize, which: usize) -> Option<&'static AtomicU64> {
    word(1 + slot * WORDS + which)
}

/// The slot of this thread; claims one that is free. None when there is no page, or no free one.
fn mine() -> Option<usize> {
    word(0)?;
    let (known, thread) = match MINE.get() {
        Some((slot, thread)) => (Some(slot), thread),
        // SAFETY: no arguments, and it cannot fail.
        None => (None, unsafe { libc::gettid() } as u64),
    };
    let holds = |slot: usize| {
        slot_word(slot, THREAD).is_some_and(|holder| holder.load(Ordering::Relaxed) == thread)
    };
    if let Some(slot) = known.filter(|slot| holds(*slot)) {
        return Some(slot);
    }
    let slot = (0..SLOTS).find(|slot| {
        slot_word(*slot, THREAD).is_some_and(|holder| {
            holder.compare_exchange(0, thread, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        })
    })?;
    for which in CALL..WORDS {
        slot_word(slot, which)?.store(0, Ordering::Relaxed);
    }
    MINE.set(Some((slot, thread)));
    Some(slot)
}

fn put(slot: usize, which: usize, value: u64) {
    if let Some(word) = slot_word(slot, which) {
        word.store(value, Ordering::Relaxed);
    }
}

fn add(slot: usize, which: usize) {
    if let Some(word) = slot_word(slot, which) {
        word.fetch_add(1, Ordering::Relaxed);
    }
}

/// A job has been taken. The threads of the last one are gone.
pub fn begin() {
    for slot in 0..SLOTS {
        put(slot, THREAD, 0);
    }
    set_line(0);
}

/// The statement at `line` begins; 0 before the first.
pub fn set_line(line: usize) {
    if let Some(progress) = word(0) {
        progress.store(line as u64 + 1, Ordering::Relaxed);
    }
}

/// Does `work`, which is in `call`.
pub fn during<T>(call: Call, work: impl FnOnce() -> T) -> T {
    match mine() {
        Some(slot) => within(slot, call, work),
        None => work(),
    }
}

/// Does `work`, which is in `call`, in the thread of this slot.
fn within<T>(slot: usize, call: Call, work: impl FnOnce() -> T) -> T {
    let before = slot_word(slot, CALL).map_or(0, |word| word.swap(call as u64, Ordering::Relaxed));
    let result = work();
    put(slot, CALL, before);
    result
}

/// Does `work`, which is an access to this page of a mapping.
pub fn access<T>(call: Call, address: *const u64, page: u64, work: impl FnOnce() -> T) -> T {
    let Some(slot) = mine() else { return work() };
    put(slot, ADDRESS, address as u64);
    put(slot, PAGE, page);
    within(slot, call, work)
}

/// Does `work`, which is `KVM_RUN`; `end` says how it came back.
pub fn run<T>(work: impl FnOnce() -> T, end: impl FnOnce(&T) -> RunEnd) -> T {
    let Some(slot) = mine() else { return work() };
    add(slot, ENTERED);
    let result = within(slot, Call::Run, work);
    put(slot, RUN_END, end(&result) as u64);
    add(slot, RETURNED);
    result
}

/// What this process is doing, to tell in a failure; nothing where it has no page.
pub fn current() -> Activity {
    let words = (0..BYTES / 8).map_while(word).map(|word| word.load(Ordering::Relaxed));
    Activity::from_words(&words.collect::<Vec<_>>())
}

impl Activity {
    /// What the worker was doing that `file` is mapped by.
    pub fn read(file: &File) -> Activity {
        let mut bytes = [0; BYTES];
        // It is written by mapping, so that each word is whole; a worker that was none has only the first of them.
        let length = file.read_at(&mut bytes, 0).unwrap_or(0);
        let words: Vec<u64> = bytes[..length]
            .chunks_exact(8)
            .filter_map(|chunk| chunk.try_into().ok().map(u64::from_ne_bytes))
            .collect();
        Activity::from_words(&words)
    }

    fn from_words(words: &[u64]) -> Activity {
        let Some((progress, slots)) = words.split_first() else { return Activity::default() };
        let slot = |words: &[u64]| {
            Some(Slot {
                thread: Some(words[THREAD]).filter(|thread| *thread != 0)?,
                call: Call::from_repr(words[CALL]).unwrap_or(Call::None),
                address: words[ADDRESS],
                page: words[PAGE],
                entered: words[ENTERED],
                returned: words[RETURNED],
                run_end: RunEnd::from_repr(words[RUN_END]),
            })
        };
        Activity {
            line: usize::try_from(*progress).ok().and_then(|line| line.checked_sub(1)),
            slots: slots.chunks_exact(WORDS).filter_map(slot).collect(),
        }
    }
}

impl Slot {
    /// What the thread is in, in words; nothing when it is in nothing.
    pub fn describe(&self) -> Option<String> {
        let name: &str = self.call.into();
        match self.call {
            Call::None => None,
            Call::HostRead | Call::HostWrite => Some(format!(
                "{name} of page {} of the guest_memfd, at host address {:#x}",
                self.page, self.address
            )),
            _ => Some(name.to_string()),
        }
    }

    /// How its vCPU fares, in words; nothing when it has run none.
    pub fn describe_runs(&self) -> Option<String> {
        if self.entered == 0 {
            return None;
        }
        let last: &str = self.run_end.map_or("nothing", Into::into);
        let (entered, returned) = (self.entered, self.returned);
        Some(match returned {
            0 => "KVM_RUN has not come back from its first call".to_string(),
            n if n < entered => {
                format!("KVM_RUN came back {n} times, the last time with {last}, and then no more")
            }
            n => format!("KVM_RUN came back {n} times, the last time with {last}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(call: Call, entered: u64, returned: u64, run_end: Option<RunEnd>) -> Slot {
        Slot { thread: 1, call, address: 0x7000, page: 3, entered, returned, run_end }
    }

    /// Each thing that a thread can be in is told apart, and whether KVM_RUN came back.
    #[test]
    fn slots_are_told() {
        let write = slot(Call::HostWrite, 0, 0, None);
        let said = "a write of page 3 of the guest_memfd, at host address 0x7000";
        assert_eq!(write.describe().as_deref(), Some(said));
        assert_eq!(write.describe_runs(), None);
        let never = slot(Call::Run, 1, 0, None);
        assert_eq!(never.describe().as_deref(), Some("KVM_RUN"));
        let said = "KVM_RUN has not come back from its first call";
        assert_eq!(never.describe_runs().as_deref(), Some(said));
        let again = slot(Call::None, 18, 17, Some(RunEnd::MemoryFault));
        assert_eq!(again.describe(), None);
        let said = "KVM_RUN came back 17 times, the last time with KVM_EXIT_MEMORY_FAULT, and then no more";
        assert_eq!(again.describe_runs().as_deref(), Some(said));
    }

    /// What a process writes down is what is read from its file; and a call ends where it ends.
    #[test]
    fn what_is_written_is_read() {
        let name = c"activity-test";
        let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
        let file = File::from(nix::sys::memfd::memfd_create(name, flags).unwrap());
        file.set_len(BYTES as u64).unwrap();
        assert_eq!(Activity::read(&file), Activity::default());
        map(&file).unwrap();
        begin();
        set_line(7);
        // SAFETY: no arguments, and it cannot fail.
        let thread = unsafe { libc::gettid() } as u64;
        // Other tests of this process write as well.
        let own = || {
            let activity = Activity::read(&file);
            activity.slots.iter().copied().find(|slot| slot.thread == thread)
        };
        during(Call::SetUp, || {
            access(Call::HostWrite, std::ptr::without_provenance(0x7000), 3, || {
                assert_eq!(own(), Some(Slot { thread, ..slot(Call::HostWrite, 0, 0, None) }));
            });
            assert_eq!(own().unwrap().call, Call::SetUp);
        });
        run(|| assert_eq!(own().unwrap().call, Call::Run), |()| RunEnd::Io);
        let after = own().unwrap();
        assert_eq!((after.call, after.entered, after.returned), (Call::None, 1, 1));
        assert_eq!(after.run_end, Some(RunEnd::Io));
    }
}

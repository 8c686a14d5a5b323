// SPDX-License-Identifier: GPL-2.0-only
//! VM and guest_memfd descriptors.

use std::collections::BTreeSet;
use std::ffi::c_void;
use std::io::PipeReader;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
};

use kvm_bindings::{
    KVM_CAP_EXIT_HYPERCALL, KVM_CAP_SPLIT_IRQCHIP, KVM_CAP_VM_COPY_ENC_CONTEXT_FROM,
    KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM, kvm_userspace_memory_region,
};

use super::encryption::Protection;
use super::inode::Inode;
use super::memslot::Memslots;
use super::range_map::RangeMap;
use super::system::{Config, SevDevice, check_extension, guest_memfd_flags};
use super::vcpu::ModelVcpu;
use super::vm_type::{Hardware, VmType};
use super::{snp, tdx};
use crate::dialect::Dialect;
use crate::errno::Errno;
use crate::machine::{GuestMemfd, HostView, Result, Vcpu, Vm};
use crate::uapi::{
    ATTRIBUTE_PRIVATE, EXIT_HYPERCALL_MASK, KVM_MEM_GUEST_MEMFD, MemoryAttributes2, PAGE_SIZE,
    kvm_memory_attributes, kvm_userspace_memory_region2,
};

/// `KVM_MAX_VCPU_IDS` on x86.
const MAX_VCPU_IDS: u64 = 4096;
/// `KVM_IOAPIC_NUM_PINS`: how many interrupt routes a split irqchip may reserve.
const IOAPIC_PINS: u64 = 24;
/// Guest frame numbers are below this: 52 bits of physical address.
const GFN_END: u64 = 1 << 40;

/// A VM, shared by its descriptor and its vCPUs.
pub(super) struct VmState {
    pub(super) config: Config,
    pub(super) vm_type: &'static VmType,
    slots: RwLock<Memslots>,
    /// The guest_memfds of this VM by descriptor; entries of closed ones are dead.
    pub(super) files: Mutex<Vec<(RawFd, Weak<Inode>)>>,
    vcpu_ids: Mutex<BTreeSet<u64>>,
    /// The attributes per VM, for when in-place conversion is off.
    attributes: Mutex<RangeMap<u64>>,
    pub(super) protection: Arc<Protection>,
    pub(super) sev: Arc<SevDevice>,
    /// How far the launch of an SNP guest has got.
    pub(super) snp: Lock<snp::Stage>,
    /// How far the launch of a TD has got.
    pub(super) tdx: Lock<tdx::Stage>,
    irqchip: Lock<Irqchip>,
    /// Whether the guest's hypercalls exit to the host.
    pub(super) hypercall_exits: AtomicBool,
    /// Whether a launch was kept from being finished, for a liberty that does so once.
    pub(super) was_busy: AtomicBool,
    /// `kvm->vm_dead`.
    dead: AtomicBool,
    /// A descriptor for others to name the VM by.
    fd: PipeReader,
}

/// What delivers interrupts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Irqchip {
    #[default]
    None,
    Kernel,
    Split,
}

/// A mutex. A thread that died holding it does not take the machine with it.
#[derive(Debug, Default)]
pub(super) struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        lock(&self.0)
    }
}

/// Takes a lock. A thread that died holding it does not take the machine with it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl VmState {
    pub(super) fn new(
        config: Config,
        vm_type: &'static VmType,
        sev: Arc<SevDevice>,
        fd: PipeReader,
    ) -> VmState {
        VmState {
            config,
            vm_type,
            slots: RwLock::default(),
            files: Mutex::default(),
            vcpu_ids: Mutex::default(),
            attributes: Mutex::new(RangeMap::new(GFN_END, 0)),
            protection: Arc::new(Protection::new()),
            sev,
            snp: Lock::default(),
            tdx: Lock::default(),
            irqchip: Lock::default(),
            hypercall_exits: AtomicBool::new(false),
            was_busy: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            fd,
        }
    }

    pub(super) fn slots(&self) -> RwLockReadGuard<'_, Memslots> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn slots_mut(&self) -> RwLockWriteGuard<'_, Memslots> {
        self.slots.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// `fget()` and the check whose file it is: EBADF if `fd` is closed, EINVAL if it is no guest_memfd of this VM.
    pub(super) fn file(&self, fd: RawFd) -> Result<Arc<Inode>> {
        // SAFETY: F_GETFD involves no memory and changes nothing, whatever the number is.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
            return Err(Errno::EBADF);
        }
        let files = lock(&self.files);
        let known = files.iter().find(|(number, _)| *number == fd);
        known.and_then(|(_, inode)| inode.upgrade()).ok_or(Errno::EINVAL)
    }

    pub(super) fn vcpu_count(&self) -> usize {
        lock(&self.vcpu_ids).len()
    }

    /// Every call on a VM and its vCPUs first: EIO once the VM is dead.
    pub(super) fn alive(&self) -> Result<()> {
        if self.dead.load(Ordering::Relaxed) { Err(Errno::EIO) } else { Ok(()) }
    }

    /// `kvm_vm_dead()`.
    pub(super) fn kill(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }

    /// `guest_state_protected`: whether the host has no way to the vCPUs' registers.
    pub(super) fn registers_are_protected(&self) -> bool {
        match self.vm_type.hardware {
            Hardware::None => false,
            Hardware::Snp => *self.snp.lock() == snp::Stage::Finished,
            Hardware::Tdx => true,
        }
    }

    /// Whether the VM's own attributes make `gfn` private. With in-place conversion they do not exist.
    pub(super) fn gfn_is_private(&self, gfn: u64) -> bool {
        self.config.dialect == Dialect::None
            && self.vm_type.has_private_memory
            && lock(&self.attributes).get(gfn).is_some_and(|a| a != 0)
    }
}

/// A VM's descriptor.
pub(super) struct ModelVm(pub(super) Arc<VmState>);

impl Vm for ModelVm {
    fn check_extension(&self, capability: u32) -> Result<i32> {
        Ok(check_extension(&self.0.config, Some(self.0.vm_type), capability))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }

    fn enable_cap(&self, capability: u32, args: [u64; 4]) -> Result<()> {
        self.0.alive()?;
        match capability {
            KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM if self.0.hook_context_moved() => Ok(()),
            KVM_CAP_VM_COPY_ENC_CONTEXT_FROM if self.0.hook_context_copied() => Ok(()),
            KVM_CAP_EXIT_HYPERCALL if args[0] & !EXIT_HYPERCALL_MASK == 0 => {
                self.0.hypercall_exits.store(args[0] != 0, Ordering::Relaxed);
                Ok(())
            }
            KVM_CAP_SPLIT_IRQCHIP if args[0] <= IOAPIC_PINS => self.set_irqchip(Irqchip::Split),
            _ => Err(Errno::EINVAL),
        }
    }

    fn create_irqchip(&self) -> Result<()> {
        self.0.alive()?;
        // A TD's interrupt controller is its own.
        if self.0.vm_type.hardware == Hardware::Tdx {
            return Err(Errno::EINVAL);
        }
        self.set_irqchip(Irqchip::Kernel)
    }

    unsafe fn memory_encrypt_op(&self, command: *mut c_void) -> Result<()> {
        self.0.alive()?;
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe {
            match self.0.vm_type.hardware {
                Hardware::None => Err(Errno::ENOTTY),
                Hardware::Snp => self.0.sev_command(command),
                Hardware::Tdx => self.0.tdx_command(command),
            }
        }
    }

    fn create_guest_memfd(&self, size: u64, flags: u64) -> Result<Box<dyn GuestMemfd>> {
        let vm = &self.0;
        vm.alive()?;
        let known = vm.hook_creation_flags(guest_memfd_flags(&vm.config, Some(vm.vm_type)));
        if flags & !known != 0 {
            return Err(Errno::EINVAL);
        }
        let negative = i64::try_from(size).is_err();
        if size == 0 || negative || !size.is_multiple_of(PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        let inode =
            Arc::new(Inode::new(size, flags, vm.config, vm.vm_type, Arc::clone(&vm.protection))?);
        let fd = inode
            .backing
            .try_clone()
            .map_err(|e| Errno(e.raw_os_error().unwrap_or(libc::EMFILE)))?;
        let mut files = lock(&vm.files);
        // A number that was closed is used again; only its newest owner counts.
        files.retain(|(number, _)| *number != fd.as_raw_fd());
        files.push((fd.as_raw_fd(), Arc::downgrade(&inode)));
        Ok(Box::new(ModelGuestMemfd { fd, inode, vm: Arc::clone(vm) }))
    }

    unsafe fn set_user_memory_region2(&self, region: &kvm_userspace_memory_region2) -> Result<()> {
        self.0.alive()?;
        self.0.set_memory_region(region)
    }

    unsafe fn set_user_memory_region(&self, region: &kvm_userspace_memory_region) -> Result<()> {
        self.0.alive()?;
        if region.flags & KVM_MEM_GUEST_MEMFD != 0 {
            return Err(Errno::EINVAL);
        }
        self.0.set_memory_region(&kvm_userspace_memory_region2 {
            slot: region.slot,
            flags: region.flags,
            guest_phys_addr: region.guest_phys_addr,
            memory_size: region.memory_size,
            userspace_addr: region.userspace_addr,
            ..Default::default()
        })
    }

    fn set_memory_attributes(&self, attributes: &kvm_memory_attributes) -> Result<()> {
        let vm = &self.0;
        if vm.config.dialect != Dialect::None {
            return Err(Errno::ENOTTY);
        }
        let supported = if vm.vm_type.has_private_memory { ATTRIBUTE_PRIVATE } else { 0 };
        let end = attributes.address.checked_add(attributes.size);
        let aligned = (attributes.address | attributes.size).is_multiple_of(PAGE_SIZE);
        let good = attributes.flags == 0 && attributes.attributes & !supported == 0;
        let Some(end) = end.filter(|_| good && aligned && attributes.size != 0) else {
            return Err(Errno::EINVAL);
        };
        let gfns = attributes.address / PAGE_SIZE..end / PAGE_SIZE;
        lock(&vm.attributes).set(gfns, attributes.attributes);
        Ok(())
    }

    unsafe fn set_memory_attributes2(&self, _argument: *mut MemoryAttributes2) -> Result<()> {
        self.0.hook_on_vm(Err(Errno::ENOTTY))
    }

    fn create_vcpu(&self, id: u64) -> Result<Box<dyn Vcpu>> {
        self.0.alive()?;
        if self.0.vm_type.hardware == Hardware::Tdx {
            if *self.0.irqchip.lock() != Irqchip::Split {
                return Err(Errno::EINVAL);
            }
            if *self.0.tdx.lock() == tdx::Stage::Created {
                return Err(Errno::EIO);
            }
        }
        if id >= MAX_VCPU_IDS {
            return Err(Errno::EINVAL);
        }
        if !lock(&self.0.vcpu_ids).insert(id) {
            return Err(Errno::EEXIST);
        }
        Ok(Box::new(ModelVcpu::new(Arc::clone(&self.0))))
    }
}

impl ModelVm {
    /// Once, and before there are vCPUs.
    fn set_irqchip(&self, new: Irqchip) -> Result<()> {
        let mut irqchip = self.0.irqchip.lock();
        if *irqchip != Irqchip::None {
            return Err(Errno::EEXIST);
        }
        if self.0.vcpu_count() != 0 {
            return Err(Errno::EINVAL);
        }
        *irqchip = new;
        Ok(())
    }
}

/// A guest_memfd's descriptor.
struct ModelGuestMemfd {
    fd: OwnedFd,
    inode: Arc<Inode>,
    vm: Arc<VmState>,
}

impl GuestMemfd for ModelGuestMemfd {
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    unsafe fn set_memory_attributes2(&self, argument: *mut MemoryAttributes2) -> Result<()> {
        // SAFETY: the caller keeps the same promise.
        unsafe { self.inode.set_memory_attributes2(argument) }?;
        // SAFETY: as above.
        unsafe { self.vm.hook_converted(&self.inode, argument) };
        Ok(())
    }

    fn fallocate(&self, mode: i32, offset: u64, length: u64) -> Result<()> {
        self.inode.fallocate(mode, offset, length)
    }

    fn mmap(&self, offset: u64, length: u64) -> Result<Box<dyn HostView>> {
        Ok(Box::new(self.inode.mmap(offset, length)?))
    }

    fn mmap_private(&self, offset: u64, length: u64) -> Result<()> {
        // kvm_gmem_mmap(): VM_SHARED and VM_MAYSHARE must both be set.
        let mapped = self.inode.mmap(offset, length)?;
        drop(mapped);
        self.vm.hook_mapped_privately(Err(Errno::EINVAL))
    }

    fn truncate(&self, _length: u64) -> Result<()> {
        // kvm_gmem_setattr() refuses everything.
        self.vm.hook_truncated(Err(Errno::EINVAL))
    }

    fn size(&self) -> Result<u64> {
        Ok(self.inode.size)
    }

    fn cached_pages(&self, offset: u64, length: u64) -> Result<u64> {
        let end = offset.saturating_add(length).min(self.inode.size);
        Ok(self.inode.cached(offset.min(end) / PAGE_SIZE..end.div_ceil(PAGE_SIZE)))
    }
}

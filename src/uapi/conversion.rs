// SPDX-License-Identifier: GPL-2.0-only
//! The numbers and structures of guest_memfd and its in-place conversion.

use std::mem::{offset_of, size_of};
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::ioctl::{KVMIO, ioc};

pub use kvm_bindings::{
    KVM_MEM_GUEST_MEMFD, KVM_MEMORY_ATTRIBUTE_PRIVATE, KVM_MEMORY_EXIT_FLAG_PRIVATE,
    KVM_X86_DEFAULT_VM, KVM_X86_SNP_VM, KVM_X86_SW_PROTECTED_VM, KVM_X86_TDX_VM,
    kvm_create_guest_memfd, kvm_memory_attributes, kvm_userspace_memory_region2,
};

/// Size of a page of guest memory, in bytes. guest_memfd has order-0 folios only.
pub const PAGE_SIZE: u64 = 4096;

/// The argument of `KVM_SET_MEMORY_ATTRIBUTES2` (RFC v2 and later, RFC v4 10/44).
///
/// ```c
/// struct kvm_memory_attributes2 {
///     union { __u64 address; __u64 offset; };
///     __u64 size; __u64 attributes; __u64 flags; __u64 error_offset; __u64 reserved[11];
/// };
/// ```
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryAttributes2 {
    /// First byte of the range, as an offset into the guest_memfd (never a guest physical address).
    pub offset: u64,
    /// Length of the range in bytes.
    pub size: u64,
    /// `KVM_MEMORY_ATTRIBUTE_PRIVATE` or 0 for shared.
    pub attributes: u64,
    /// Content mode; see [`MODE_ZERO`] and [`MODE_PRESERVE`].
    pub flags: u64,
    /// Out: where the conversion failed, as a byte offset into the guest_memfd.
    pub error_offset: u64,
    /// Must be zero.
    pub reserved: [u64; 11],
}

/// The length of `pages` in bytes.
pub fn byte_length(pages: &Range<u64>) -> u64 {
    (pages.end - pages.start) * PAGE_SIZE
}

impl MemoryAttributes2 {
    /// The argument that converts `pages` of the file to `attributes`, with a content mode in `flags`.
    pub fn of_pages(pages: &Range<u64>, attributes: u64, flags: u64) -> MemoryAttributes2 {
        MemoryAttributes2 {
            offset: pages.start * PAGE_SIZE,
            size: byte_length(pages),
            attributes,
            flags,
            ..Default::default()
        }
    }
}

const _: () = assert!(size_of::<MemoryAttributes2>() == 128);
const _: () = assert!(offset_of!(MemoryAttributes2, offset) == 0);
const _: () = assert!(offset_of!(MemoryAttributes2, size) == 8);
const _: () = assert!(offset_of!(MemoryAttributes2, attributes) == 16);
const _: () = assert!(offset_of!(MemoryAttributes2, flags) == 24);
const _: () = assert!(offset_of!(MemoryAttributes2, error_offset) == 32);
const _: () = assert!(offset_of!(MemoryAttributes2, reserved) == 40);
// The first four fields are those of the per-VM ioctl.
const _: () = assert!(size_of::<kvm_memory_attributes>() == 32);
const _: () = assert!(size_of::<kvm_create_guest_memfd>() == 64);
const _: () = assert!(size_of::<kvm_userspace_memory_region2>() == 160);

/// `KVM_SET_MEMORY_ATTRIBUTES2`, issued on a guest_memfd: `_IOWR(KVMIO, 0xd2, struct kvm_memory_attributes2)`.
pub const KVM_SET_MEMORY_ATTRIBUTES2: u64 = ioc(3, KVMIO, 0xd2, size_of::<MemoryAttributes2>());
const _: () = assert!(KVM_SET_MEMORY_ATTRIBUTES2 == 0xC080_AED2);

/// `KVM_SET_MEMORY_ATTRIBUTES`, issued on a VM: `_IOW(KVMIO, 0xd2, struct kvm_memory_attributes)`.
pub const KVM_SET_MEMORY_ATTRIBUTES: u64 = ioc(1, KVMIO, 0xd2, size_of::<kvm_memory_attributes>());
const _: () = assert!(KVM_SET_MEMORY_ATTRIBUTES == 0x4020_AED2);

/// `KVM_SET_MEMORY_ATTRIBUTES2_ZERO` (RFC v3 to v5).
pub const MODE_ZERO: u64 = 1 << 0;
/// `KVM_SET_MEMORY_ATTRIBUTES2_PRESERVE` (RFC v3 to v5).
pub const MODE_PRESERVE: u64 = 1 << 1;

/// `KVM_MEMORY_ATTRIBUTE_PRIVATE` with the type of the field it goes into.
pub const ATTRIBUTE_PRIVATE: u64 = KVM_MEMORY_ATTRIBUTE_PRIVATE as u64;
const _: () = assert!(ATTRIBUTE_PRIVATE == 8);

/// `GUEST_MEMFD_FLAG_MMAP`: the guest_memfd can be mapped by the host.
pub const GUEST_MEMFD_FLAG_MMAP: u64 = 1 << 0;
/// `GUEST_MEMFD_FLAG_INIT_SHARED`: every page starts shared instead of private.
pub const GUEST_MEMFD_FLAG_INIT_SHARED: u64 = 1 << 1;

/// `KVM_CAP_VM_TYPES`.
pub const KVM_CAP_VM_TYPES: u32 = 235;
/// `KVM_CAP_MEMORY_ATTRIBUTES`: the per-VM attributes of Linux 6.8.
pub const KVM_CAP_MEMORY_ATTRIBUTES: u32 = 233;
/// `KVM_CAP_GUEST_MEMFD`.
pub const KVM_CAP_GUEST_MEMFD: u32 = 234;
/// `KVM_CAP_GUEST_MEMFD_FLAGS`.
pub const KVM_CAP_GUEST_MEMFD_FLAGS: u32 = 244;

/// `KVM_CAP_PRE_FAULT_MEMORY`.
pub const KVM_CAP_PRE_FAULT_MEMORY: u32 = 236;

/// `struct kvm_pre_fault_memory` (Documentation/virt/kvm/api.rst, KVM_PRE_FAULT_MEMORY). KVM moves `gpa` and `size` past what
/// it has done.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PreFaultMemory {
    /// Guest physical address.
    pub gpa: u64,
    /// In bytes.
    pub size: u64,
    /// Must be 0.
    pub flags: u64,
    /// Not looked at.
    pub padding: [u64; 5],
}

/// `KVM_PRE_FAULT_MEMORY`, issued on a vCPU: `_IOWR(KVMIO, 0xd5, struct kvm_pre_fault_memory)`.
pub const KVM_PRE_FAULT_MEMORY: u64 = ioc(3, KVMIO, 0xd5, size_of::<PreFaultMemory>());
const _: () = assert!(KVM_PRE_FAULT_MEMORY == 0xC040_AED5);

/// Capability numbers of the unmerged series, from `--kernel-headers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityNumbers {
    /// `KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES`.
    pub guest_memfd_memory_attributes: Option<u32>,
    /// `KVM_CAP_MEMORY_ATTRIBUTES2_FLAGS`.
    pub memory_attributes2_flags: Option<u32>,
}

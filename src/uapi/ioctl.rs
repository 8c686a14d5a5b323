// SPDX-License-Identifier: GPL-2.0-only
//! Ioctl numbers, and what is common to all encrypted guests.

use std::mem::{offset_of, size_of};

use kvm_bindings::kvm_device_attr;

/// `_IOC()` of asm-generic/ioctl.h: direction (1 write, 2 read), type, number, size.
pub(super) const fn ioc(direction: u64, kind: u64, number: u64, size: usize) -> u64 {
    direction << 30 | (size as u64) << 16 | kind << 8 | number
}

/// The type letter of every KVM ioctl.
pub const KVMIO: u64 = 0xAE;

/// `KVM_MEMORY_ENCRYPT_OP`, issued on a VM or, for some commands of TDX, on a vCPU. The header declares it with
/// `unsigned long`; the argument is a pointer to the platform's command structure.
pub const KVM_MEMORY_ENCRYPT_OP: u64 = ioc(3, KVMIO, 0xba, size_of::<u64>());
const _: () = assert!(KVM_MEMORY_ENCRYPT_OP == 0xC008_AEBA);

/// `KVM_GET_DEVICE_ATTR`, here issued on /dev/kvm: `_IOW(KVMIO, 0xe2, struct kvm_device_attr)`.
pub const KVM_GET_DEVICE_ATTR: u64 = ioc(1, KVMIO, 0xe2, size_of::<kvm_device_attr>());
const _: () = assert!(KVM_GET_DEVICE_ATTR == 0x4018_AEE2);
const _: () = assert!(offset_of!(kvm_device_attr, group) == 4);
const _: () = assert!(offset_of!(kvm_device_attr, attr) == 8);
const _: () = assert!(offset_of!(kvm_device_attr, addr) == 16);

/// `KVM_HC_MAP_GPA_RANGE`: the number of the hypercall by which a guest asks for a conversion. Its arguments are the
/// guest physical address, the number of 4 KiB pages, and [`MAP_GPA_RANGE_ENCRYPTED`] or 0 besides the page size.
pub const KVM_HC_MAP_GPA_RANGE: u64 = 12;
/// `KVM_MAP_GPA_RANGE_ENCRYPTED`: to private; without it to shared.
pub const MAP_GPA_RANGE_ENCRYPTED: u64 = 1 << 4;
/// `KVM_MAP_GPA_RANGE_PAGE_SZ_2M`: the guest prefers pages of 2 MiB.
pub const MAP_GPA_RANGE_PAGE_SZ_2M: u64 = 1;
/// `KVM_MAP_GPA_RANGE_PAGE_SZ_1G`: the guest prefers pages of 1 GiB.
pub const MAP_GPA_RANGE_PAGE_SZ_1G: u64 = 2;
/// What `KVM_CAP_EXIT_HYPERCALL` is enabled with.
pub const EXIT_HYPERCALL_MASK: u64 = 1 << KVM_HC_MAP_GPA_RANGE;
const _: () = assert!(EXIT_HYPERCALL_MASK == 0x1000);

/// `KVM_SYSTEM_EVENT_SEV_TERM`: an SEV guest asked to be terminated.
pub const KVM_SYSTEM_EVENT_SEV_TERM: u32 = 6;
const _: () = assert!(KVM_SYSTEM_EVENT_SEV_TERM == kvm_bindings::KVM_SYSTEM_EVENT_SEV_TERM);
/// `KVM_SYSTEM_EVENT_TDX_FATAL`: a TD reported a fatal error.
pub const KVM_SYSTEM_EVENT_TDX_FATAL: u32 = 7;

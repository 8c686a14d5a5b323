/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the tests of the SNP host have in common: a VM of two identity mappings of 2 MiB, with and without the C-bit. */
#include "host.h"

#define C_BIT               (1ull << 51)
#define SEV_INIT2           22
#define SNP_LAUNCH_START    100
#define SNP_LAUNCH_UPDATE   101
#define SNP_LAUNCH_FINISH   102
#define PAGE_TYPE_NORMAL    1
#define POLICY_SMT          0x30000
#define EXIT_SYSTEM_EVENT   24
#define PAGE_TABLES         0x1000
#define CODE                0x10000

static int sev;

static int sev_op(int id, void *data, uint32_t *firmware)
{
	struct { uint32_t id, pad; uint64_t data; uint32_t error, fd; } c = { id, 0, (uint64_t)data, 0, sev };
	int r = ioctl(vm, KVM_MEMORY_ENCRYPT_OP, &c);

	*firmware = c.error;
	return r;
}

static void sev_must(int id, void *data, const char *what)
{
	uint32_t firmware;

	if (sev_op(id, data, &firmware)) {
		comment("firmware status %#x", firmware);
		must(-1, what);
	}
}

static void create_vm(uint64_t gmem_flags)
{
	struct { uint64_t features; uint32_t flags; uint16_t version, p1; uint32_t p2[8]; } init = { 0 };
	struct kvm_enable_cap cap = { .cap = KVM_CAP_EXIT_HYPERCALL, .args = { 1 << HC_MAP_GPA_RANGE } };

	sev = must(open("/dev/sev", O_RDWR), "open /dev/sev");
	vm = must(ioctl(kvm, KVM_CREATE_VM, 4), "KVM_CREATE_VM");
	sev_must(SEV_INIT2, &init, "KVM_SEV_INIT2");
	must(ioctl(vm, KVM_ENABLE_CAP, &cap), "KVM_CAP_EXIT_HYPERCALL");
	must(ioctl(vm, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
	gmem = add_slot(0, 0, MEMORY, gmem_flags, &shared);
}

static int create_vcpu(int n, uint64_t rdi, struct kvm_run **run)
{
	static struct { struct kvm_cpuid2 head; struct kvm_cpuid_entry2 entry[256]; } cpuid;
	struct kvm_regs r = { .rip = CODE, .rflags = 2, .rdi = rdi };
	struct kvm_mp_state mp = { n ? KVM_MP_STATE_HALTED : KVM_MP_STATE_RUNNABLE };
	struct kvm_sregs s;
	int vcpu = must(ioctl(vm, KVM_CREATE_VCPU, n), "KVM_CREATE_VCPU");

	*run = map(vcpu, 4096);
	cpuid.head.nent = 256;
	must(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid), "KVM_GET_SUPPORTED_CPUID");
	must(ioctl(vcpu, KVM_SET_CPUID2, &cpuid), "KVM_SET_CPUID2");
	must(ioctl(vcpu, KVM_GET_SREGS, &s), "KVM_GET_SREGS");
	s.cr3 = PAGE_TABLES;
	s.cr4 = 0x220;
	s.cr0 = 0x80000031;
	s.efer = 0xd00;
	s.cs = (struct kvm_segment){ .limit = -1, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1 };
	s.ds = (struct kvm_segment){ .limit = -1, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1 };
	s.es = s.ss = s.fs = s.gs = s.ds;
	s.gdt.base = PAGE_TABLES + 5 * 4096;
	s.gdt.limit = 0x1f;
	must(ioctl(vcpu, KVM_SET_SREGS, &s), "KVM_SET_SREGS");
	must(ioctl(vcpu, KVM_SET_REGS, &r), "KVM_SET_REGS");
	must(ioctl(vcpu, KVM_SET_MP_STATE, &mp), "KVM_SET_MP_STATE");
	return vcpu;
}

static void add_pages(uint64_t gpa, void *source, uint64_t length)
{
	struct { uint64_t gfn, address, length; uint8_t type, p0; uint16_t flags; uint32_t p1; uint64_t p2[4]; } u =
		{ gpa >> 12, (uint64_t)source, length, PAGE_TYPE_NORMAL };

	while (u.length)
		sev_must(SNP_LAUNCH_UPDATE, &u, "KVM_SEV_SNP_LAUNCH_UPDATE");
}

/* Page tables and code; make_private() is told of each range first. */
static void launch(const void *guest, size_t size, void (*make_private)(uint64_t gpa, uint64_t size))
{
	static uint64_t pt[6][512] __attribute__((aligned(4096)));
	static uint8_t code[2 * 4096] __attribute__((aligned(4096)));
	struct { uint64_t policy; uint8_t gosvw[16]; uint16_t flags; uint8_t p0[6]; uint64_t p1[4]; } start = { POLICY_SMT };

	pt[0][0] = 0x2003;
	pt[1][0] = 0x3003;
	pt[2][0] = 0x4003;
	pt[2][1] = 0x5003;
	for (uint64_t i = 0; i < 512; i++) {
		pt[3][i] = i << 12 | 3 | C_BIT;
		pt[4][i] = i << 12 | 3;
	}
	pt[5][1] = 0x00af9b000000ffff;
	pt[5][2] = 0x00cf93000000ffff;
	memcpy(code, guest, size);
	sev_must(SNP_LAUNCH_START, &start, "KVM_SEV_SNP_LAUNCH_START");
	make_private(PAGE_TABLES, sizeof(pt));
	add_pages(PAGE_TABLES, pt, sizeof(pt));
	make_private(CODE, sizeof(code));
	add_pages(CODE, code, sizeof(code));
}

static void finish_launch(void)
{
	struct { uint64_t a, b; uint8_t en, k, v, host_data[32], p0[3]; uint16_t flags; uint64_t p1[4]; } f = { 0 };

	sev_must(SNP_LAUNCH_FINISH, &f, "KVM_SEV_SNP_LAUNCH_FINISH");
}

/* What the guest reports with a termination request of the GHCB MSR protocol: tag in 63:56, value in 55:16. */
static uint64_t report_of(struct kvm_run *run, int *tag)
{
	uint64_t v = run->system_event.data[0];

	*tag = v >> 56;
	return v >> 16 & 0xffffffffff;
}

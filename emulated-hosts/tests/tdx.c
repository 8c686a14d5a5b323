// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * TDs and their host.  The host's part is what of SEAMCALL's statuses KVM lets through; the TD's is tdx-guest.S, which
 * reports a value at a time, and here is what the rules say that it must be.
 *
 * With the kernel parameter kvm.gmem_mutant=19, a bug of a kernel for testing that lets the host into private pages, it
 * tests nothing but what becomes of a TD whose page the host writes.
 */
#include <pthread.h>
#include "host.h"
#include "tdx-guest.h"

#define TDX_CAPABILITIES        0
#define TDX_INIT_VM             1
#define TDX_INIT_VCPU           2
#define TDX_INIT_MEM_REGION     3
#define TDX_FINALIZE_VM         4
#define TDX_GET_CPUID           5
#define SEPT_VE_DISABLE         (1ull << 28)
#define NX_SUBFUNCTIONS         0x80000008
#define GPA_WIDTH               48
#define CAP_SPLIT_IRQCHIP       121

/* The layout of the TD, as tdx-guest.S has it */
#define SHARED_BIT      (1ull << (GPA_WIDTH - 1))
#define PAGE_TABLES     0x1000
#define MODE            0x7000
#define CODE            0x10000
#define RESET           0xfffff000
#define PORT            0x1000
#define X               0x80000
#define END             0x55
#define RUN_SIZE        (3 * 4096)      /* KVM_GET_VCPU_MMAP_SIZE, with the data of port I/O */

/* Statuses, without details */
#define OPERAND_INVALID             0xc000010000000000
#define OPERAND_RCX                 1
#define ALREADY_ACCEPTED            0x00000b0a
#define SIZE_MISMATCH               0xc0000b0b
#define NO_VALID_VE_INFO            0xc000070400000000
#define EPT_ENTRY_STATE_INCORRECT   0xc0000b0d
#define VE(reason)                  (20ull << 32 | (reason))
#define UD                          (6ull << 32)
#define EPT_VIOLATION               48

enum kind { REPORT, HYPERCALL, FAULT, EXIT, ERROR };
struct step {
	enum kind kind;
	uint64_t tag;           /* of a report; address of a hypercall or fault; exit reason; error number */
	uint64_t value;         /* of a report; attributes of a hypercall; flags of a fault */
	const char *what, *rule;
};

static const struct step whole[] = {
	{ REPORT, 1, GPA_WIDTH, "VP.INFO: the width of guest addresses that INIT_VM was given", "TDX ABI, TDG.VP.INFO" },
	{ REPORT, 2, 0, "VP.INFO: the attributes that INIT_VM was given", "TDX ABI, TDG.VP.INFO" },
	{ REPORT, 3, 1, "VP.INFO: one vCPU", "TDX ABI, TDG.VP.INFO" },
	{ REPORT, 4, OPERAND_INVALID, "TDCALL of no known leaf: OPERAND_INVALID, RAX", "TDX ABI, TDCALL" },
	{ REPORT, 5, NO_VALID_VE_INFO, "VEINFO.GET without a #VE: NO_VALID_VE_INFO", "TDX ABI, TDG.VP.VEINFO.GET" },
	{ REPORT, 6, OPERAND_INVALID | OPERAND_RCX, "VP.VMCALL that passes RAX: OPERAND_INVALID, RCX",
	  "TDX ABI, TDG.VP.VMCALL" },
	{ REPORT, 10, VE(EPT_VIOLATION), "access to a pending page: #VE, EPT violation", "TDX base, PENDING pages" },
	{ REPORT, 11, X, "that #VE: the guest physical address", "TDX ABI, TDG.VP.VEINFO.GET" },
	{ REPORT, 12, NO_VALID_VE_INFO, "VEINFO.GET empties it", "TDX ABI, TDG.VP.VEINFO.GET" },
	{ REPORT, 13, 0, "ACCEPT of a pending page: SUCCESS", "TDX ABI, TDG.MEM.PAGE.ACCEPT" },
	{ REPORT, 14, 0, "access to an accepted page", "TDX ABI, TDG.MEM.PAGE.ACCEPT" },
	{ REPORT, 15, 0, "which holds zeros", "TDX ABI, TDG.MEM.PAGE.ACCEPT" },
	{ REPORT, 16, ALREADY_ACCEPTED, "ACCEPT again: PAGE_ALREADY_ACCEPTED", "TDX ABI, TDG.MEM.PAGE.ACCEPT" },
	{ REPORT, 17, OPERAND_INVALID | OPERAND_RCX, "ACCEPT at level 3: OPERAND_INVALID, RCX",
	  "TDX ABI, TDG.MEM.PAGE.ACCEPT" },
	{ REPORT, 18, OPERAND_INVALID | OPERAND_RCX, "ACCEPT of a shared address: OPERAND_INVALID, RCX",
	  "TDX ABI, TDG.MEM.PAGE.ACCEPT" },
	{ REPORT, 19, OPERAND_INVALID | OPERAND_RCX, "ACCEPT of 2 MiB at an address between: OPERAND_INVALID, RCX",
	  "TDX ABI, TDG.MEM.PAGE.ACCEPT" },
	{ REPORT, 20, SIZE_MISMATCH, "ACCEPT of 2 MiB where pages are of 4 KiB: PAGE_SIZE_MISMATCH",
	  "TDX ABI, TDG.MEM.PAGE.ACCEPT" },
	{ REPORT, 21, 0, "ACCEPT of a page that is not there: exits until the host has added it",
	  "TDX ABI, TDG.MEM.PAGE.ACCEPT" },
	{ REPORT, 22, 0, "which holds zeros", "TDX ABI, TDG.MEM.PAGE.ACCEPT" },
	{ REPORT, 23, 0x1122334455667788, "RBX survives an exit", "TDX ABI, TDH.VP.ENTER" },
	{ REPORT, 24, 0, "what was written private is read private", "TDX base, private memory" },
	{ REPORT, 30, VE(10), "CPUID of a hypervisor's leaf: #VE", "TDX base, CPUID virtualization" },
	{ REPORT, 31, VE(12), "HLT: #VE", "TDX base, instructions that cause a #VE" },
	{ REPORT, 32, VE(30), "OUT: #VE", "TDX base, instructions that cause a #VE" },
	{ REPORT, 33, VE(31), "RDMSR of one that is not the module's: #VE", "TDX base, MSR virtualization" },
	{ REPORT, 34, VE(18), "VMCALL: #VE", "TDX base, instructions that cause a #VE" },
	{ REPORT, 35, VE(13), "INVD: #VE", "TDX base, instructions that cause a #VE" },
	{ REPORT, 36, UD, "VMXOFF: #UD", "TDX base, instructions that cause a #UD" },
	{ REPORT, 37, 0, "RDMSR of EFER works", "TDX base, MSR virtualization" },
	{ REPORT, 38, 0xd01, "EFER: SCE, LME, LMA, NXE", "TDX base, initial state of vCPUs" },
	{ REPORT, 39, 0x12345678, "XMM5 survives an exit", "TDX ABI, TDH.VP.ENTER" },
	{ HYPERCALL, X, 0, "MapGPA to shared reaches the host, without the shared bit", "GHCI, TDG.VP.VMCALL<MapGPA>" },
	{ REPORT, 50, 0, "its answer is success", "GHCI, TDG.VP.VMCALL<MapGPA>" },
	{ REPORT, 51, 0x5152535455565758, "what the TD wrote shared is what the host finds", "TDX base, shared memory" },
	{ REPORT, 52, 0x6162636465666768, "what the host wrote is what the TD finds", "TDX base, shared memory" },
	{ HYPERCALL, X, MAP_ENCRYPTED, "MapGPA to private reaches the host", "GHCI, TDG.VP.VMCALL<MapGPA>" },
	{ REPORT, 53, 0, "its answer is success", "GHCI, TDG.VP.VMCALL<MapGPA>" },
	{ REPORT, 54, VE(EPT_VIOLATION), "the page has to be accepted anew", "TDX ABI, TDH.MEM.PAGE.REMOVE and AUG" },
	{ REPORT, 55, 0, "ACCEPT of it", "TDX ABI, TDG.MEM.PAGE.ACCEPT" },
	{ REPORT, 56, 0, "which holds zeros", "TDX ABI, TDG.MEM.PAGE.ACCEPT" },
	{ REPORT, 57, 0, "a page nearby stayed accepted", "TDX ABI, TDH.MEM.PAGE.REMOVE" },
	{ FAULT, 0x82000, 0, "shared access to a page that is private for the host exits", "TDX base, shared EPT" },
	{ REPORT, 58, 0, "and works once the page is shared", "TDX base, shared EPT" },
	{ REPORT, END, 0x999, "the TD comes to its end", "the test itself" },
	{ 0 }
};

static const struct step without_handlers[] = {
	{ EXIT, KVM_EXIT_SHUTDOWN, 0, "a #VE without a handler is a triple fault", "TDX base, #VE" },
	{ 0 }
};

static const struct step ve_disabled[] = {
	{ REPORT, 60, 0, "the TD runs", "the test itself" },
	{ ERROR, EIO, 0, "with SEPT_VE_DISABLE an access to a pending page is no #VE: it exits, and KVM gives up",
	  "TDX base, ATTRIBUTES.SEPT_VE_DISABLE" },
	{ 0 }
};

static const struct step interrupted[] = {
	{ REPORT, 80, 0, "TDVMCALL of WRMSR turns the APIC on", "GHCI, TDG.VP.VMCALL<Instruction.WRMSR>" },
	{ REPORT, 81, 1, "an interrupt that is posted while the TD runs arrives", "TDX base, posted interrupts" },
	{ REPORT, 82, 2, "and one that is posted while it does not", "TDX base, posted interrupts" },
	{ REPORT, END, 0x999, "the TD comes to its end", "the test itself" },
	{ 0 }
};

static const struct step poisoned[] = {
	{ REPORT, 70, 0, "ACCEPT", "TDX ABI, TDG.MEM.PAGE.ACCEPT" },
	{ REPORT, 71, 0, "after the host has read a private page the TD finds it as it was", "TDX base, TD bit" },
	/* "run" sees the rest on the console: the machine check is the last that happens */
	{ ERROR, 0, 0, "after the host has written it, the TD does not go on", "TDX base, memory integrity" },
	{ 0 }
};

struct cpuid { uint32_t nent, pad; struct kvm_cpuid_entry2 entry[256]; };
static struct {
	uint64_t attributes, xfam, vmcalls[4], reserved[250];
	struct cpuid cpuid;
} offered;
static struct {
	uint64_t attributes, xfam, measured[18], reserved[12];
	struct cpuid cpuid;
} init;
static uint8_t *reset_view;
static int reset_gmem;
static bool in_place;

/* Gives KVM a command; the status of the SEAMCALL, if it was one that failed. */
static int tdx_op(int fd, int id, uint32_t flags, void *data, uint64_t *status)
{
	struct { uint32_t id, flags; uint64_t data, hw_error; } c = { id, flags, (uint64_t)data, 0 };
	int r = ioctl(fd, KVM_MEMORY_ENCRYPT_OP, &c);

	*status = c.hw_error;
	return r;
}

static void tdx_must(int fd, int id, void *data, const char *what)
{
	uint64_t status;

	if (tdx_op(fd, id, 0, data, &status)) {
		comment("SEAMCALL status %#llx", (unsigned long long)status);
		must(-1, what);
	}
}

static void refused(int fd, int id, void *data, int error, const char *what)
{
	uint64_t status;
	int r = tdx_op(fd, id, 0, data, &status);

	check(r == -1 && errno == error, "KVM, TDX", "%s: %s", what, strerror(error));
	if (r != -1 || errno != error)
		comment("%d, %s, SEAMCALL status %#llx", r, strerror(errno), (unsigned long long)status);
}

/* Of CPUID's bits that can be chosen those that KVM supports; KVM refuses HLE, RTM and WAITPKG, which the module offers. */
static void choose_cpuid(void)
{
	static struct cpuid supported;

	supported.nent = 256;
	must(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &supported), "KVM_GET_SUPPORTED_CPUID");
	for (uint32_t i = 0; i < offered.cpuid.nent; i++) {
		struct kvm_cpuid_entry2 *may = &offered.cpuid.entry[i], *e = NULL;

		for (uint32_t j = 0; j < supported.nent && !e; j++)
			if (supported.entry[j].function == may->function && supported.entry[j].index == may->index)
				e = &supported.entry[j];
		if (!e)
			continue;
		e->eax &= may->eax;
		e->ebx &= may->ebx;
		e->ecx &= may->ecx;
		e->edx &= may->edx;
		if (e->function == 7 && e->index == 0) {
			e->ebx &= ~(1u << 4 | 1u << 11);
			e->ecx &= ~(1u << 5);
		}
		if (e->function == NX_SUBFUNCTIONS)
			e->eax = (e->eax & ~0xff0000u) | GPA_WIDTH << 16;
		init.cpuid.entry[init.cpuid.nent++] = *e;
	}
}

static int create_vm(uint64_t attributes)
{
	struct kvm_enable_cap split = { .cap = CAP_SPLIT_IRQCHIP, .args = { 24 } };
	struct kvm_enable_cap exits = { .cap = KVM_CAP_EXIT_HYPERCALL, .args = { 1 << HC_MAP_GPA_RANGE } };

	vm = must(ioctl(kvm, KVM_CREATE_VM, 5), "KVM_CREATE_VM");
	memset(&offered, 0, sizeof(offered));
	memset(&init, 0, sizeof(init));
	offered.cpuid.nent = 256;
	tdx_must(vm, TDX_CAPABILITIES, &offered, "KVM_TDX_CAPABILITIES");
	must(ioctl(vm, KVM_ENABLE_CAP, &split), "KVM_CAP_SPLIT_IRQCHIP");
	must(ioctl(vm, KVM_ENABLE_CAP, &exits), "KVM_CAP_EXIT_HYPERCALL");
	choose_cpuid();
	init.attributes = attributes;
	return vm;
}

static int create_vcpu(struct kvm_run **run)
{
	static struct cpuid cpuid;
	int vcpu = must(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");

	*run = map(vcpu, RUN_SIZE);
	cpuid.nent = 256;
	tdx_must(vcpu, TDX_GET_CPUID, &cpuid, "KVM_TDX_GET_CPUID");
	must(ioctl(vcpu, KVM_SET_CPUID2, &cpuid), "KVM_SET_CPUID2");
	return vcpu;
}

static void convert(int fd, uint64_t gpa, uint64_t offset, uint64_t size, bool private)
{
	struct attributes2 a = { offset, size, private ? ATTRIBUTE_PRIVATE : 0 };

	if (in_place)
		must(ioctl(fd, SET_MEMORY_ATTRIBUTES2, &a), "KVM_SET_MEMORY_ATTRIBUTES2");
	else
		set_private(gpa, size, private);
}

struct region { uint64_t source, gpa, pages; };

static void add_pages(int vcpu, void *source, uint64_t gpa, uint64_t size)
{
	struct region r = { (uint64_t)source, gpa, size / 4096 };

	convert(gpa < RESET ? gmem : reset_gmem, gpa, gpa < RESET ? gpa : gpa - RESET, size, true);
	while (r.pages)
		tdx_must(vcpu, TDX_INIT_MEM_REGION, &r, "KVM_TDX_INIT_MEM_REGION");
}

static void load(int vcpu, uint32_t mode)
{
	static uint64_t pt[6][512] __attribute__((aligned(4096)));
	static uint8_t code[2 * 4096] __attribute__((aligned(4096))), reset[4096] __attribute__((aligned(4096)));
	static uint32_t modes[1024] __attribute__((aligned(4096)));
	/* At the reset vector: JMP rel32 to CODE, in 32-bit mode */
	int32_t jump = CODE - (int32_t)(RESET + 0xff0 + 5);

	pt[0][0] = 0x2003;
	pt[1][0] = 0x3003;
	pt[2][0] = 0x4003;
	pt[2][1] = 0x5003;
	for (uint64_t i = 0; i < 512; i++) {
		pt[3][i] = i << 12 | 3;
		pt[4][i] = i << 12 | 3 | SHARED_BIT;
	}
	memcpy(code, tdx_guest, sizeof(tdx_guest));
	reset[0xff0] = 0xe9;
	memcpy(reset + 0xff1, &jump, 4);
	modes[0] = mode;
	add_pages(vcpu, pt, PAGE_TABLES, sizeof(pt));
	add_pages(vcpu, modes, MODE, sizeof(modes));
	add_pages(vcpu, code, CODE, sizeof(code));
	add_pages(vcpu, reset, RESET, sizeof(reset));
	convert(gmem, X, X, 3 * 4096, true);
}

/* What happened. A report is two exits: the low half, and the high one. */
static void next(int vcpu, struct kvm_run *run, struct step *seen)
{
	for (int half = 0; half < 2; half++) {
		int ret = ioctl(vcpu, KVM_RUN, 0);
		uint64_t *fault = (uint64_t *)&run->ex;     /* flags, gpa, size */

		if (ret && errno == EFAULT && run->exit_reason == EXIT_MEMORY_FAULT) {
			*seen = (struct step){ FAULT, fault[1], fault[0] };
			return;
		}
		if (ret) {
			*seen = (struct step){ ERROR, errno };
			return;
		}
		if (run->exit_reason == KVM_EXIT_HYPERCALL && run->hypercall.nr == HC_MAP_GPA_RANGE) {
			*seen = (struct step){ HYPERCALL, run->hypercall.args[0], run->hypercall.args[2] & MAP_ENCRYPTED };
			run->hypercall.ret = 0;
			return;
		}
		if (run->exit_reason != KVM_EXIT_IO) {
			*seen = (struct step){ EXIT, run->exit_reason };
			return;
		}
		seen->kind = REPORT;
		seen->tag = (run->io.port - PORT) / 2;
		seen->value |= (uint64_t)*(uint32_t *)((uint8_t *)run + run->io.data_offset) << (32 * half);
	}
}

/* Vector 64, to the only vCPU */
static void send_interrupt(void)
{
	struct kvm_msi msi = { .address_lo = 0xfee00000, .data = 64 };

	check(ioctl(vm, KVM_SIGNAL_MSI, &msi) > 0, "KVM, TDX", "KVM_SIGNAL_MSI has a vCPU to go to");
}

/* Long enough for the TD to be in its loop */
static void *send_later(void *unused)
{
	(void)unused;
	usleep(200000);
	send_interrupt();
	return NULL;
}

/* What the host does before the TD goes on. */
static void answer(const struct step *seen)
{
	volatile uint64_t *x = (uint64_t *)(shared + X);
	uint64_t found = *x;
	pthread_t thread;

	switch (seen->kind) {
	case HYPERCALL:
		convert(gmem, seen->tag, seen->tag, 4096, seen->value == MAP_ENCRYPTED);
		break;
	case FAULT:
		convert(gmem, seen->tag, seen->tag, 4096, seen->value & MEMORY_FAULT_PRIVATE);
		break;
	case REPORT:
		if (seen->tag == 51) {
			check(found == 0x5152535455565758, "TDX base, shared memory", "the host finds it");
			*x = 0x6162636465666768;
		} else if (seen->tag == 70) {
			check(found != 0x1122334455667788, "TDX base, TD bit", "the host does not find what the TD has written");
		} else if (seen->tag == 71) {
			*x = 1;
		} else if (seen->tag == 80) {
			must(-pthread_create(&thread, NULL, send_later, NULL), "pthread_create");
			pthread_detach(thread);
		} else if (seen->tag == 81) {
			send_interrupt();
		}
		break;
	default:
		break;
	}
}

static void play(int vcpu, struct kvm_run *run, const struct step *steps)
{
	for (; steps->what; steps++) {
		struct step seen = { 0 };
		bool good;

		next(vcpu, run, &seen);
		good = seen.kind == steps->kind && seen.tag == steps->tag && seen.value == steps->value;
		check(good, steps->rule, "%s", steps->what);
		if (!good)
			comment("kind %d, %#llx: %#llx", seen.kind, (unsigned long long)seen.tag,
				(unsigned long long)seen.value);
		if (seen.kind != steps->kind || seen.tag != steps->tag)
			break;
		answer(&seen);
	}
}

static void guest(uint32_t mode, uint64_t attributes, const struct step *steps)
{
	struct kvm_run *run;
	int vcpu;

	create_vm(attributes);
	tdx_must(vm, TDX_INIT_VM, &init, "KVM_TDX_INIT_VM");
	gmem = add_slot(0, 0, MEMORY, in_place ? 3 : 0, &shared);
	reset_gmem = add_slot(1, RESET, 4096, in_place ? 3 : 0, &reset_view);
	vcpu = create_vcpu(&run);
	tdx_must(vcpu, TDX_INIT_VCPU, NULL, "KVM_TDX_INIT_VCPU");
	load(vcpu, mode);
	tdx_must(vm, TDX_FINALIZE_VM, NULL, "KVM_TDX_FINALIZE_VM");
	play(vcpu, run, steps);
	close(vcpu);
	close(vm);
	close(gmem);
	close(reset_gmem);
	munmap(shared, MEMORY);
	munmap(run, RUN_SIZE);
}

/* The life cycle of a TD, out of order. */
static void life_cycle(void)
{
	static uint8_t page[4096] __attribute__((aligned(4096)));
	struct region region = { (uint64_t)page, 0, 1 };
	struct kvm_run *run;
	uint64_t status;
	int vcpu, r;

	create_vm(0);
	check(ioctl(vm, KVM_CREATE_VCPU, 0) == -1, "TDX ABI, TDH.VP.CREATE", "no vCPU before TDH.MNG.INIT");
	refused(vm, TDX_FINALIZE_VM, NULL, EINVAL, "FINALIZE before INIT_VM");
	init.attributes = 1ull << 62;
	refused(vm, TDX_INIT_VM, &init, EINVAL, "INIT_VM with an attribute that is not offered");
	init.attributes = 0;
	init.xfam = 1ull << 62;
	refused(vm, TDX_INIT_VM, &init, EINVAL, "INIT_VM with an extended feature that is not offered");
	init.xfam = 0;
	r = tdx_op(vm, TDX_INIT_VM, 0, &init, &status);
	check(!r && !status, "TDX ABI, TDH.MNG.INIT", "INIT_VM after the ones that were refused");
	refused(vm, TDX_INIT_VM, &init, EINVAL, "INIT_VM again");
	gmem = add_slot(0, 0, MEMORY, 0, &shared);
	vcpu = create_vcpu(&run);
	refused(vcpu, TDX_INIT_MEM_REGION, &region, EINVAL, "INIT_MEM_REGION before INIT_VCPU");
	tdx_must(vcpu, TDX_INIT_VCPU, NULL, "KVM_TDX_INIT_VCPU");
	refused(vcpu, TDX_INIT_VCPU, NULL, EINVAL, "INIT_VCPU again");
	check(ioctl(vcpu, KVM_RUN, 0) == -1, "TDX ABI, TDH.VP.ENTER", "no entry before TDH.MR.FINALIZE");
	set_private(0, MEMORY, true);
	r = tdx_op(vcpu, TDX_INIT_MEM_REGION, 0, &region, &status);
	check(!r && !region.pages, "TDX ABI, TDH.MEM.PAGE.ADD", "ADD of a free page");
	region = (struct region){ (uint64_t)page, 0, 1 };
	r = tdx_op(vcpu, TDX_INIT_MEM_REGION, 0, &region, &status);
	check(r == -1 && (!status || status >> 32 == EPT_ENTRY_STATE_INCORRECT), "TDX ABI, TDH.MEM.PAGE.ADD",
	      "ADD of a page that is there already");
	comment("%s, SEAMCALL status %#llx", strerror(errno), (unsigned long long)status);
	region = (struct region){ (uint64_t)page, SHARED_BIT, 1 };
	refused(vcpu, TDX_INIT_MEM_REGION, &region, EINVAL, "INIT_MEM_REGION of a shared address");
	tdx_must(vm, TDX_FINALIZE_VM, NULL, "KVM_TDX_FINALIZE_VM");
	region = (struct region){ (uint64_t)page, 4096, 1 };
	refused(vcpu, TDX_INIT_MEM_REGION, &region, EINVAL, "INIT_MEM_REGION after FINALIZE");
	refused(vm, TDX_FINALIZE_VM, NULL, EINVAL, "FINALIZE again");
	close(vcpu);
	close(vm);
	close(gmem);
}

/* All that a TD had can be used by the next: KeyIDs, pages of every type. */
static void many(int count)
{
	static const struct step end[] = {
		{ EXIT, KVM_EXIT_SHUTDOWN, 0, "one of many TDs, one after another", "TDX ABI, TDH.PHYMEM.PAGE.RECLAIM" },
		{ 0 }
	};
	int before = failed;

	failures_only = true;
	for (int i = 0; i < count; i++)
		guest(1, 0, end);
	failures_only = false;
	check(failed == before, "TDX ABI, TDH.PHYMEM.PAGE.RECLAIM", "%d TDs, one after another", count);
}

static void test(void)
{
	char text[16] = "";
	int fd = open("/sys/module/kvm/parameters/gmem_mutant", O_RDONLY);

	if (fd >= 0 && read(fd, text, sizeof(text) - 1) > 0 && atoi(text) == 19) {
		in_place = true;
		guest(3, 0, poisoned);
		return;
	}
	life_cycle();
	guest(0, 0, whole);
	guest(1, 0, without_handlers);
	guest(2, SEPT_VE_DISABLE, ve_disabled);
	guest(4, 0, interrupted);
	/* More than the machine has KeyIDs for TDs */
	many(40);
}

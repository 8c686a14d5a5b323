// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * An SNP guest and its host, as the guest sees the rules: validation, aliases, encryption, intercepts.  The guest is
 * snp-guest.S, which reports a value at a time; here is what the rules say that it must be.
 */
#include "snp.h"
#include "snp-guest.h"

#define X   0x80000
#define VC(code)    (29ull << 32 | (code))
#define UD          (6ull << 32)
#define ANY         ~0ull       /* random */
#define CF          0x100       /* in what PVALIDATE gives, above its status */
#define END         0x55

enum kind { REPORT, NOT, FAULT, HYPERCALL, EXIT };
struct step {
	enum kind kind;
	uint64_t tag;           /* of a report; address of a fault or hypercall; exit reason */
	uint64_t value;         /* of a report; flags of a fault; attributes of a hypercall */
	const char *what, *rule;
};

static const struct step whole[] = {
	{ REPORT, 1, 7, "SEV_STATUS says SEV, SEV-ES and SNP", "APM 2, 15.34.10" },
	{ FAULT, X, MEMORY_FAULT_PRIVATE, "access with C to a page of the host: #NPF with ENC", "APM 2, 15.36.10" },
	{ REPORT, 2, VC(0x404), "access to a page that is not validated: #VC, page not validated", "APM 2, 15.36.10" },
	{ REPORT, 3, X, "that #VC: CR2 is the address", "APM 2, 15.36.10" },
	{ REPORT, 4, 0, "PVALIDATE: success, CF clear as something changed", "APM 3, PVALIDATE" },
	{ REPORT, 5, CF, "PVALIDATE again: success, CF set as nothing changed", "APM 3, PVALIDATE" },
	{ REPORT, 6, 0, "what was written with C is read with C", "APM 2, 15.34.5" },
	{ REPORT, 7, 0, "it is not what is read without C", "APM 2, 15.34.4" },
	{ REPORT, 8, VC(0x72), "CPUID: #VC", "APM 2, 15.35.5" },
	{ REPORT, 9, VC(0x7b), "OUT: #VC", "APM 2, 15.35.5" },
	{ REPORT, 10, 1, "PVALIDATE of 2 MiB at an address between: FAIL_INPUT", "APM 3, PVALIDATE" },
	{ FAULT, 0, MEMORY_FAULT_PRIVATE, "PVALIDATE of a page of the host: #NPF", "APM 3, PVALIDATE" },
	{ REPORT, 11, 6, "PVALIDATE of 2 MiB where pages are of 4 KiB: FAIL_SIZEMISMATCH", "APM 3, PVALIDATE" },
	{ REPORT, 12, 7, "instructions are private whatever the C-bit says", "APM 2, 15.34.5" },
	{ FAULT, X, 0, "write without C to a page of the guest: #NPF", "APM 2, table 15-39" },
	{ REPORT, 13, 0, "the write is done once the page is shared", "APM 2, table 15-39" },
	{ REPORT, 14, 7, "what was written without C is read without C", "APM 2, 15.34.5" },
	{ FAULT, X, MEMORY_FAULT_PRIVATE, "access with C to a page that became shared: #NPF with ENC", "APM 2, 15.36.10" },
	{ REPORT, 15, 0, "the private page kept its contents", "APM 2, 15.36.5" },
	{ REPORT, 16, 0, "the host takes the page away", "the test itself" },
	{ REPORT, 17, VC(0x404), "another page at the same address is not validated", "APM 2, 15.36.6" },
	{ REPORT, 18, 0, "PVALIDATE of it: CF clear", "APM 3, PVALIDATE" },
	{ REPORT, 19, 0, "it does not hold the host's zeros: they were not encrypted", "APM 2, 15.34.4" },
	{ REPORT, 20, 0, "PVALIDATE rescinds: success, CF clear", "APM 3, PVALIDATE" },
	{ REPORT, 21, VC(0x404), "access after that: #VC", "APM 2, 15.36.10" },
	{ HYPERCALL, X, 0, "page state change by MSR reaches the host", "GHCB 56421, 2.3.2" },
	{ REPORT, 22, 0x15, "its answer says success", "GHCB 56421, 2.3.2" },
	{ REPORT, 23, VC(0x81), "VMMCALL: #VC", "APM 2, 15.35.5" },
	{ REPORT, 24, VC(0x7c), "RDMSR of one that is intercepted: #VC", "APM 2, 15.35.5" },
	{ REPORT, 25, UD, "RMPUPDATE in a guest: #UD", "APM 3, RMPUPDATE" },
	{ REPORT, 26, 0x260, "CR4 is written before the trap, which KVM only looks at", "APM 2, 15.35.6" },
	{ REPORT, 27, 0x260, "RAX survives exits", "APM 2, 15.35.8" },
	{ REPORT, 28, 0x12345678, "XMM5 survives exits", "APM 2, 15.35.8" },
	{ REPORT, END, 0x999, "the guest comes to its end", "the test itself" },
	{ 0 }
};

static const struct step without_handlers[] = {
	{ FAULT, X, MEMORY_FAULT_PRIVATE, "access with C to a page of the host: #NPF", "APM 2, 15.36.10" },
	{ EXIT, KVM_EXIT_SHUTDOWN, 0, "a #VC without a handler is a shutdown", "APM 2, 15.35.5" },
	{ 0 }
};

static const struct step walk[] = {
	{ REPORT, 30, 0, "PVALIDATE rescinds a page table", "APM 3, PVALIDATE" },
	{ REPORT, 31, VC(0x404), "a walk through it: #VC", "APM 2, 15.36.10" },
	{ REPORT, 32, 0x200000 + X, "that #VC: CR2 is the address of the access", "APM 2, 15.36.10" },
	{ REPORT, 33, 0, "PVALIDATE of it again", "APM 3, PVALIDATE" },
	{ NOT, 34, 0, "code read without C is no plaintext", "APM 2, 15.34.4" },
	{ REPORT, END, 0x998, "the guest comes to its end", "the test itself" },
	{ 0 }
};

static void make_private(uint64_t gpa, uint64_t size)
{
	set_private(gpa, size, true);
}

/* What happened; returns false when the guest cannot go on. */
static bool next(int vcpu, struct kvm_run *run, struct step *seen)
{
	int ret = ioctl(vcpu, KVM_RUN, 0), tag;

	if (ret && errno != EFAULT) {
		comment("KVM_RUN: %s", strerror(errno));
		return false;
	}
	switch (run->exit_reason) {
	case EXIT_SYSTEM_EVENT:
		seen->kind = REPORT;
		seen->value = report_of(run, &tag);
		seen->tag = tag;
		return true;
	case EXIT_MEMORY_FAULT: {
		uint64_t *fault = (uint64_t *)&run->ex;     /* flags, gpa, size */

		seen->kind = FAULT;
		seen->tag = fault[1];
		seen->value = fault[0];
		return true;
	}
	case KVM_EXIT_HYPERCALL:
		seen->kind = HYPERCALL;
		seen->tag = run->hypercall.args[0];
		seen->value = run->hypercall.args[2] & MAP_ENCRYPTED;
		run->hypercall.ret = 0;
		return run->hypercall.nr == HC_MAP_GPA_RANGE;
	default:
		seen->kind = EXIT;
		seen->tag = run->exit_reason;
		seen->value = 0;
		return true;
	}
}

static void guest(int mode, const struct step *steps)
{
	struct kvm_run *run;
	int vcpu;

	create_vm(0);
	vcpu = create_vcpu(0, mode, &run);
	launch(snp_guest, sizeof(snp_guest), make_private);
	finish_launch();
	for (; steps->what; steps++) {
		struct step seen = { 0 };
		bool goes_on = next(vcpu, run, &seen), same = seen.tag == steps->tag, good;

		if (steps->kind == NOT)
			good = same && seen.kind == REPORT && seen.value != steps->value &&
				seen.value != (*(uint64_t *)snp_guest & 0xffffffffff);
		else
			good = same && seen.kind == steps->kind && seen.value == steps->value;
		check(goes_on && good, steps->rule, "%s", steps->what);
		if (!goes_on || !good)
			comment("kind %d, %#llx: %#llx", seen.kind, (unsigned long long)seen.tag,
				(unsigned long long)seen.value);
		if (!goes_on || !same)
			break;
		if (seen.kind == FAULT)
			set_private(seen.tag, 4096, seen.value & MEMORY_FAULT_PRIVATE);
		if (seen.kind == REPORT && seen.tag == 16)
			must(fallocate(gmem, 3, X, 4096), "punch a hole");
	}
	close(vcpu);
	close(vm);
	close(gmem);
}

static void test(void)
{
	guest(0, whole);
	guest(1, without_handlers);
	guest(2, walk);
}

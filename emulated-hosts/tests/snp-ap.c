// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A second vCPU whose VMSA the guest made (snp-ap-guest.S), in a guest_memfd that the host can map: what becomes of it
 * when the host takes the page of the VMSA.  Needs in-place conversion.
 */
#include <pthread.h>
#include "snp.h"
#include "snp-ap-guest.h"

#define VMSA        0xa0000
#define VMSA_RIP    0x178
#define COUNTER     0x92008
#define GMEM_FLAGS  3           /* MMAP, INIT_SHARED */
#define END         0x55

static int vcpu[2], ap_failed_entry;
static struct kvm_run *run[2];

static void convert(uint64_t gpa, uint64_t size, bool private)
{
	struct attributes2 a = { gpa, size, private ? ATTRIBUTE_PRIVATE : 0 };

	must(ioctl(gmem, SET_MEMORY_ATTRIBUTES2, &a), "KVM_SET_MEMORY_ATTRIBUTES2");
}

static void make_private(uint64_t gpa, uint64_t size)
{
	convert(gpa, size, true);
}

static void *run_ap(void *unused)
{
	for (int n = 0; n < 50; n++) {
		int r = ioctl(vcpu[1], KVM_RUN, 0);

		if (!r && run[1]->exit_reason == KVM_EXIT_FAIL_ENTRY)
			__atomic_add_fetch(&ap_failed_entry, 1, __ATOMIC_SEQ_CST);
		else if (r && errno != EINTR && errno != EAGAIN)
			break;
		usleep(1000);
	}
	return unused;
}

static bool ap_counts(void)
{
	volatile uint64_t *counter = (uint64_t *)(shared + COUNTER);
	uint64_t before;

	usleep(50000);
	before = *counter;
	usleep(50000);
	return *counter > before;
}

static const struct { int tag; uint64_t value; const char *what, *rule; } reports[] = {
	{ 1, 0x90013, "the GHCB's address is registered", "GHCB 56421, 2.3.1" },
	{ 2, 0, "PVALIDATE of the page for the VMSA", "APM 3, PVALIDATE" },
	{ 3, 0, "RMPADJUST makes it a VMSA", "APM 3, RMPADJUST" },
	{ 4, 0, "the host takes AP creation", "GHCB 56421, 4.1.9" },
	{ 5, 0x4150, "the AP runs on it", "APM 2, 15.36.12" },
	{ END, 0x997, "the first vCPU comes to its end", "the test itself" },
};

static void test(void)
{
	pthread_t thread;
	uint64_t code;

	if (ioctl(kvm, KVM_CHECK_EXTENSION, 252) <= 0)
		skip("the kernel has no in-place conversion, or was not told to use it");
	create_vm(GMEM_FLAGS);
	for (int n = 0; n < 2; n++)
		vcpu[n] = create_vcpu(n, 0, &run[n]);
	launch(snp_ap_guest, sizeof(snp_ap_guest), make_private);
	convert(VMSA, 4096, true);
	finish_launch();
	pthread_create(&thread, NULL, run_ap, NULL);
	for (size_t i = 0; i < sizeof(reports) / sizeof(*reports); i++) {
		int ret = ioctl(vcpu[0], KVM_RUN, 0), tag = 0;
		uint64_t value = report_of(run[0], &tag);

		check(!ret && run[0]->exit_reason == EXIT_SYSTEM_EVENT && tag == reports[i].tag &&
		      value == reports[i].value, reports[i].rule, "%s", reports[i].what);
	}
	check(ap_counts(), "the test itself", "the AP counts");
	code = CODE;
	convert(VMSA, 4096, false);
	check(*(uint64_t *)(shared + VMSA + VMSA_RIP) - code > 2 * 4096, "APM 2, 15.34.4",
	      "the host does not find the AP's RIP in its VMSA");
	*(uint64_t *)(shared + VMSA) = 1;
	check(!ap_counts(), "APM 2, 15.36.12", "the AP does not run on a page of the host");
	pthread_join(thread, NULL);
	check(ap_failed_entry > 0, "APM 2, 15.36.12", "VMRUN with such a VMSA: VMEXIT_INVALID");
	convert(VMSA, 4096, true);
	check(!ap_counts(), "APM 2, 15.36.5", "nor on the page that became private again: it is no VMSA");
}

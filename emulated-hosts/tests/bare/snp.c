// SPDX-License-Identifier: GPL-2.0-or-later
/* The host's side of the RMP: RMPUPDATE, PSMASH, the host's own accesses. */
#include "bare.h"

#define SYSCFG          0xc0010010
#define RMP_BASE        0xc0010132
#define RMP_END         0xc0010133
#define GHCB            0xc0010130
#define HSAVE_PA        0xc0010117
#define EFER            0xc0000080
#define SNP_ENABLE      (1ull << 24 | 1ull << 25)       /* SNP and VMPL */
#define MFDM            (1ull << 19)
#define BOOKKEEPING     0x4000

/* Statuses of RMPUPDATE and PSMASH */
#define FAIL_INPUT      1
#define FAIL_PERMISSION 2
#define FAIL_OVERLAP    4
#define FAIL_BADADDR    4       /* of PSMASH */

#define RMPUPDATE "APM 3, RMPUPDATE"
#define PSMASH    "APM 3, PSMASH"
#define ACCESSES  "APM 2, table 15-39"
/* Of #PF's error code */
#define PF_WRITE  2ull
#define PF_RMP    (1ull << 31)

/* 4 MiB that nobody uses, in large mappings of the host */
#define FREE      0x4000000ull

static uint64_t rmp_base, rmp_end;

/* The state that RMPUPDATE gives a page */
struct state { uint64_t gpa; uint8_t assigned, large, immutable, reserved; uint32_t asid; uint8_t more[32]; };

static int update(uint64_t pa, uint64_t gpa, bool assigned, bool large, bool immutable, uint32_t asid)
{
	struct state state = { .gpa = gpa, .assigned = assigned, .large = large, .immutable = immutable, .asid = asid };
	int status;

	asm volatile(".byte 0xf2, 0x0f, 0x01, 0xfe" : "=a"(status) : "a"(pa), "c"(&state) : "memory", "cc");
	return status;
}

static int shared(uint64_t pa)
{
	return update(pa, 0, false, false, false, 0);
}

static int smash(uint64_t pa)
{
	int status;

	asm volatile(".byte 0xf3, 0x0f, 0x01, 0xff" : "=a"(status) : "a"(pa) : "memory", "cc");
	return status;
}

/* The second entry's layout is that of PPR 19h/01h, and Linux's struct rmpentry_raw. */
static bool is_assigned(uint64_t pa)
{
	return read_at(rmp_base + BOOKKEEPING + pa / PAGE * 16) & 1;
}

static void writes(uint64_t pa, bool work, const char *what)
{
	write_to(pa);
	if (work)
		equal(exception_vector, 0, what, ACCESSES);
	else
		check(exception_vector == PF && exception_address == pa &&
		      (exception_error & (PF_RMP | PF_WRITE)) == (PF_RMP | PF_WRITE), what, ACCESSES);
}

static void before_snp(void)
{
	TRY(".byte 0xf2, 0x0f, 0x01, 0xfe", : : "a"(FREE), "c"(0) : "r11", "memory");
	equal(exception_vector, UD, "RMPUPDATE without SNP: #UD", RMPUPDATE);
	TRY(".byte 0xf3, 0x0f, 0x01, 0xff", : : "a"(FREE) : "r11", "memory");
	equal(exception_vector, UD, "PSMASH without SNP: #UD", PSMASH);
}

static void enable(void)
{
	rmp_base = rdmsr(RMP_BASE);
	rmp_end = rdmsr(RMP_END);
	check(rmp_base && rmp_end > rmp_base && !(rmp_base % PAGE), "the BIOS has reserved an RMP", "APM 2, 15.36.4");
	wrmsr(SYSCFG, rdmsr(SYSCFG) | MFDM);
	wrmsr(SYSCFG, rdmsr(SYSCFG) | SNP_ENABLE);
	equal(rdmsr(SYSCFG) & SNP_ENABLE, SNP_ENABLE, "SYSCFG enables SNP", "APM 2, 15.36.2");
	wrmsr(SYSCFG, rdmsr(SYSCFG) & ~SNP_ENABLE);
	equal(rdmsr(SYSCFG) & SNP_ENABLE, SNP_ENABLE, "and is locked then", "APM 2, 15.36.2");
	wrmsr(RMP_BASE, 0);
	equal(rdmsr(RMP_BASE), rmp_base, "RMP_BASE is locked then", "APM 2, 15.36.4");
	wrmsr(GHCB, 5);
	equal(exception_vector, GP, "the host's GHCB MSR: #GP", "APM 2, 15.35.7");
}

static void small_pages(void)
{
	writes(FREE, true, "the host writes a page that is its own");
	equal(update(FREE, 0x5000, true, false, false, 7), 0, "RMPUPDATE assigns a page", RMPUPDATE);
	check(is_assigned(FREE), "the RMP says so", RMPUPDATE);
	check(!is_assigned(FREE + PAGE), "and of its neighbour that it is not", RMPUPDATE);
	writes(FREE, false, "the host writes an assigned page: #PF with RMP");
	writes(FREE + PAGE, false, "and its neighbour in a large mapping: #PF with RMP");
	writes(FREE + LARGE, true, "and the first page behind that mapping");
	check((read_at(FREE), true), "the host reads an assigned page", ACCESSES);
	equal(update(FREE, 0x6000, true, false, false, 8), 0, "RMPUPDATE gives a page to another guest", RMPUPDATE);
	equal(shared(FREE), 0, "RMPUPDATE takes a page back", RMPUPDATE);
	check(!is_assigned(FREE), "the RMP says so", RMPUPDATE);
	equal(shared(FREE), 0, "and once more", RMPUPDATE);
	writes(FREE, true, "the host writes it again");
	equal(update(FREE + LARGE - PAGE, 0x5000, true, false, false, 7), 0, "the last page of a large mapping", RMPUPDATE);
	writes(FREE, false, "keeps the host from the first: #PF with RMP");
	equal(shared(FREE + LARGE - PAGE), 0, "until it is taken back", RMPUPDATE);
	writes(FREE, true, "the host writes the first again");
}

static void large_pages(void)
{
	equal(update(FREE + 3 * PAGE, 0x8000, true, false, false, 7), 0, "a small page within 2 MiB", RMPUPDATE);
	equal(update(FREE, LARGE, true, true, false, 7), FAIL_OVERLAP, "RMPUPDATE to a large page there: FAIL_OVERLAP", RMPUPDATE);
	shared(FREE + 3 * PAGE);
	equal(update(FREE, LARGE, true, true, false, 7), 0, "and when it was taken back", RMPUPDATE);
	equal(shared(FREE + 5 * PAGE), FAIL_OVERLAP, "RMPUPDATE of a small page within it: FAIL_OVERLAP", RMPUPDATE);
	writes(FREE + 5 * PAGE, false, "the host writes within a large page: #PF with RMP");
	equal(smash(FREE + PAGE), FAIL_INPUT, "PSMASH at an address between: FAIL_INPUT", PSMASH);
	equal(smash(FREE), 0, "PSMASH of a large page", PSMASH);
	equal(smash(FREE), FAIL_BADADDR, "PSMASH of small ones: FAIL_BADADDR", PSMASH);
	check(is_assigned(FREE + 5 * PAGE) && is_assigned(FREE + LARGE - PAGE), "all of them are assigned", PSMASH);
	equal(shared(FREE + 5 * PAGE), 0, "RMPUPDATE of one of them", RMPUPDATE);
	for (uint64_t pa = FREE; pa < FREE + LARGE; pa += PAGE)
		shared(pa);
	writes(FREE, true, "the host writes when all were taken back");
	equal(smash(FREE), FAIL_BADADDR, "PSMASH of the host's pages: FAIL_BADADDR", PSMASH);
}

static void operands(void)
{
	equal(update(FREE + 1, 0, true, false, false, 7), FAIL_INPUT, "an address that is no page's: FAIL_INPUT", RMPUPDATE);
	equal(update(FREE + PAGE, 0, true, true, false, 7), FAIL_INPUT, "a large page at an address between: FAIL_INPUT", RMPUPDATE);
	equal(update(FREE, PAGE, true, true, false, 7), FAIL_INPUT, "a large page with the GPA of none: FAIL_INPUT", RMPUPDATE);
	equal(update(FREE, 0, false, false, false, 7), FAIL_INPUT, "an ASID for the host's page: FAIL_INPUT", RMPUPDATE);
	equal(update(0x4000000000, 0, true, false, false, 7), FAIL_INPUT, "a page that the RMP does not cover: FAIL_INPUT", RMPUPDATE);
	equal(update(rmp_base, 0, true, false, false, 7), FAIL_INPUT, "a page of the RMP itself: FAIL_INPUT", RMPUPDATE);
	equal(update(rmp_end & -PAGE, 0, true, false, false, 7), FAIL_INPUT, "the last page of the RMP: FAIL_INPUT", RMPUPDATE);
}

/* Last, as nobody but the firmware gets such a page back */
static void immutable(void)
{
	equal(update(FREE, 0, true, false, true, 0), 0, "RMPUPDATE gives a page to the firmware", RMPUPDATE);
	equal(shared(FREE), FAIL_PERMISSION, "the host takes it back: FAIL_PERMISSION", RMPUPDATE);
	equal(update(FREE, 0x5000, true, false, false, 7), FAIL_PERMISSION, "or assigns it: FAIL_PERMISSION", RMPUPDATE);
	writes(FREE, false, "the host writes it: #PF with RMP");
	wrmsr(EFER, rdmsr(EFER) | 1 << 12);
	wrmsr(HSAVE_PA, FREE);
	equal(exception_vector, GP, "HSAVE_PA with that page: #GP", "APM 2, 15.36.12");
}

static void test(void)
{
	before_snp();
	enable();
	small_pages();
	large_pages();
	operands();
	immutable();
}

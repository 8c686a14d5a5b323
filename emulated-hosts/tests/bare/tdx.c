// SPDX-License-Identifier: GPL-2.0-or-later
/* The TDX module as its host sees it: the calls of the life cycle and of memory, in and out of order. */
#include "bare.h"

#define MODULE "TDX ABI, SEAMCALL"
#define INIT   "TDX ABI, TDH.SYS"
#define LIFE   "TDX base, life cycle of a TD"
#define PAMT   "TDX base, physical memory management"
#define SEPT   "TDX base, secure EPT"
#define TRACKING "TDX base, TLB tracking"

/* Leaves, TDX ABI */
enum {
	VP_ENTER = 0, MNG_ADDCX = 1, MEM_PAGE_ADD = 2, MEM_SEPT_ADD = 3, VP_ADDCX = 4, MEM_PAGE_AUG = 6, MEM_RANGE_BLOCK = 7,
	MNG_KEY_CONFIG = 8, MNG_CREATE = 9, VP_CREATE = 10, MR_EXTEND = 16, MR_FINALIZE = 17, VP_FLUSH = 18,
	MNG_VPFLUSHDONE = 19, MNG_KEY_FREEID = 20, MNG_INIT = 21, VP_INIT = 22, PHYMEM_PAGE_RDMD = 24, MEM_SEPT_RD = 25,
	PHYMEM_PAGE_RECLAIM = 28, MEM_PAGE_REMOVE = 29, MEM_SEPT_REMOVE = 30, SYS_KEY_CONFIG = 31, SYS_INIT = 33, SYS_RD = 34,
	SYS_LP_INIT = 35, SYS_TDMR_INIT = 36, MEM_TRACK = 38, MEM_RANGE_UNBLOCK = 39, PHYMEM_CACHE_WB = 40,
	PHYMEM_PAGE_WBINVD = 41, SYS_CONFIG = 45, UNKNOWN = 200,
};

/* Statuses, TDX ABI, with the operand where one is named: RCX 1, RDX 2, R8 8, R9 9 */
#define OPERAND_INVALID             0xc000010000000000
#define ADDR_RANGE_ERROR            0xc000010100000000
#define PAGE_METADATA_INCORRECT     0xc000030000000000
#define TD_ASSOCIATED_PAGES_EXIST   0xc000040000000000
#define SYS_INIT_NOT_PENDING        0xc000050000000000
#define SYS_LP_INIT_NOT_DONE        0xc000050200000000
#define SYS_LP_INIT_DONE            0xc000050300000000
#define SYS_NOT_READY               0xc000050500000000
#define SYS_KEY_CONFIG_NOT_PENDING  0xc000050700000000
#define SYS_LP_INIT_NOT_PENDING     0xc000050b00000000
#define SYS_CONFIG_NOT_PENDING      0xc000050c00000000
#define TDCS_NOT_ALLOCATED          0xc000060600000000
#define LIFECYCLE_STATE_INCORRECT   0xc000060700000000
#define OP_STATE_INCORRECT          0xc000060800000000
#define TDCX_NUM_INCORRECT          0xc000061000000000
#define VCPU_STATE_INCORRECT        0xc000070000000000
#define VCPU_NOT_ASSOCIATED         0x8000070200000000
#define TD_KEYS_NOT_CONFIGURED      0x8000081000000000
#define KEY_CONFIGURED              0x0000081500000000
#define WBCACHE_NOT_COMPLETE        0x8000081700000000
#define HKID_NOT_FREE               0xc000082000000000
#define NO_HKID_READY_TO_WBCACHE    0x0000082100000000
#define FLUSHVP_NOT_DONE            0x8000082400000000
#define NON_ORDERED_TDMR            0xc0000a0100000000
#define INVALID_TDMR                0xc0000a0000000000
#define TDMR_OUTSIDE_CMRS           0xc0000a0200000000
#define TDMR_ALREADY_INITIALIZED    0x00000a0300000000
#define INVALID_PAMT                0xc0000a1000000000
#define EPT_WALK_FAILED             0xc0000b0000000000
#define EPT_ENTRY_NOT_PRESENT       0xc0000b0300000000
#define GPA_RANGE_NOT_BLOCKED       0xc0000b0600000000
#define GPA_RANGE_ALREADY_BLOCKED   0x00000b0700000000
#define TLB_TRACKING_NOT_DONE       0xc0000b0800000000
#define EPT_ENTRY_STATE_INCORRECT   0xc0000b0d00000000
#define EPT_ENTRY_NOT_FREE          0xc0000b0e00000000
#define RCX 1
#define RDX 2
#define R8  8
#define R9  9

/* Page types of PAMT */
enum { PT_NDA = 0, PT_RSVD = 1, PT_REG = 3, PT_TDR = 4, PT_TDCX = 5, PT_TDVPR = 6, PT_EPT = 8 };

#define KEYID_PARTITIONING  0x87
#define VMX_BASIC           0x480
#define CR4_VMXE            (1ull << 13)

/* The one TDMR, and its PAMT below it; of the machine's 2 GiB */
#define TDMR        0x40000000ull
#define TDMR_SIZE   0x40000000ull
#define PAMT_AT     0x2000000ull
#define TDCS_PAGES  5
#define TDVPS_PAGES 6
#define SHARED      (1ull << 47)

static uint64_t rcx, rdx, r8, r9;       /* of the last call, as it left them */

static uint64_t seamcall(int leaf, uint64_t c, uint64_t d, uint64_t e, uint64_t f)
{
	register uint64_t r8_ asm("r8") = e, r9_ asm("r9") = f;
	uint64_t status = leaf;

	asm volatile(".byte 0x66, 0x0f, 0x01, 0xcf"
		     : "+a"(status), "+c"(c), "+d"(d), "+r"(r8_), "+r"(r9_) : : "r10", "r11", "memory", "cc");
	rcx = c;
	rdx = d;
	r8 = r8_;
	r9 = r9_;
	return status;
}

/* A page of the TDMR that nobody has yet */
static uint64_t fresh(void)
{
	static uint64_t next = TDMR;

	return next += PAGE;
}

static uint64_t page_type(uint64_t pa)
{
	return seamcall(PHYMEM_PAGE_RDMD, pa, 0, 0, 0) ? ~0ull : rcx;
}

static void vmx(void)
{
	static uint64_t region[512] __attribute__((aligned(4096)));
	uint64_t at = (uint64_t)region, cr4;

	TRY(".byte 0x66, 0x0f, 0x01, 0xcf", : : "a"(SYS_INIT), "c"(0) : "r11", "memory", "cc");
	equal(exception_vector, UD, "SEAMCALL before VMXON: #UD", MODULE);
	asm volatile("mov %%cr4, %0" : "=r"(cr4));
	asm volatile("mov %0, %%cr4" : : "r"(cr4 | CR4_VMXE));
	region[0] = rdmsr(VMX_BASIC) & 0x7fffffff;
	TRY("vmxon %0", : : "m"(at) : "r11", "memory", "cc");
	equal(exception_vector, 0, "VMXON", "SDM, VMXON");
}

/* TDMR_INFO: base, size, then address and size of the PAMT of 1 GiB, 2 MiB and 4 KiB pages, and reserved areas */
static uint64_t info[64] __attribute__((aligned(512)));
static uint64_t infos[64] __attribute__((aligned(512)));

static void describe_tdmr(uint64_t base)
{
	memset(info, 0, sizeof(info));
	info[0] = base;
	info[1] = TDMR_SIZE;
	info[2] = PAMT_AT;
	info[3] = PAGE;
	info[4] = PAMT_AT + PAGE;
	info[5] = 2 * PAGE;
	info[6] = PAMT_AT + 3 * PAGE;
	info[7] = TDMR_SIZE / PAGE * 16;
	infos[0] = (uint64_t)info;
}

static void module(uint64_t keyid)
{
	equal(seamcall(SYS_CONFIG, (uint64_t)infos, 1, keyid, 0), SYS_CONFIG_NOT_PENDING, "SYS.CONFIG before SYS.INIT", INIT);
	equal(seamcall(SYS_LP_INIT, 0, 0, 0, 0), SYS_LP_INIT_NOT_PENDING, "SYS.LP.INIT before SYS.INIT", INIT);
	equal(seamcall(MNG_CREATE, TDMR, keyid, 0, 0), SYS_NOT_READY, "MNG.CREATE before SYS.INIT", INIT);
	equal(seamcall(SYS_INIT, 0, 0, 0, 0), 0, "SYS.INIT", INIT);
	equal(seamcall(SYS_INIT, 0, 0, 0, 0), SYS_INIT_NOT_PENDING, "SYS.INIT again", INIT);
	equal(seamcall(SYS_RD, 0, 0, 0, 0), SYS_LP_INIT_NOT_DONE, "SYS.RD before SYS.LP.INIT", INIT);
	describe_tdmr(TDMR);
	equal(seamcall(SYS_CONFIG, (uint64_t)infos, 1, keyid, 0), SYS_LP_INIT_NOT_DONE, "SYS.CONFIG before SYS.LP.INIT", INIT);
	equal(seamcall(SYS_LP_INIT, 0, 0, 0, 0), 0, "SYS.LP.INIT", INIT);
	equal(seamcall(SYS_LP_INIT, 0, 0, 0, 0), SYS_LP_INIT_DONE, "SYS.LP.INIT again", INIT);
	equal(seamcall(SYS_CONFIG, (uint64_t)infos + 8, 1, keyid, 0), OPERAND_INVALID | RCX, "SYS.CONFIG of an address that is not aligned", INIT);
	equal(seamcall(SYS_CONFIG, (uint64_t)infos, 0, keyid, 0), OPERAND_INVALID | RDX, "SYS.CONFIG without TDMRs", INIT);
	equal(seamcall(SYS_CONFIG, (uint64_t)infos, 1, 1, 0), OPERAND_INVALID | R8, "SYS.CONFIG with a KeyID that is not private", INIT);
	describe_tdmr(TDMR + PAGE);
	equal(seamcall(SYS_CONFIG, (uint64_t)infos, 1, keyid, 0), INVALID_TDMR, "SYS.CONFIG of a TDMR that is not aligned", INIT);
	describe_tdmr(0);
	equal(seamcall(SYS_CONFIG, (uint64_t)infos, 1, keyid, 0), TDMR_OUTSIDE_CMRS, "SYS.CONFIG of a TDMR below 1 MiB", INIT);
	describe_tdmr(TDMR);
	info[7] -= PAGE;
	equal(seamcall(SYS_CONFIG, (uint64_t)infos, 1, keyid, 0), INVALID_PAMT, "SYS.CONFIG with a PAMT that is too small", INIT);
	describe_tdmr(TDMR);
	equal(seamcall(SYS_KEY_CONFIG, 0, 0, 0, 0), SYS_KEY_CONFIG_NOT_PENDING, "SYS.KEY.CONFIG before SYS.CONFIG", INIT);
	equal(seamcall(SYS_CONFIG, (uint64_t)infos, 1, keyid, 0), 0, "SYS.CONFIG", INIT);
	equal(seamcall(MNG_CREATE, TDMR, keyid + 1, 0, 0), SYS_NOT_READY, "MNG.CREATE before SYS.KEY.CONFIG", INIT);
	equal(seamcall(SYS_KEY_CONFIG, 0, 0, 0, 0), 0, "SYS.KEY.CONFIG", INIT);
	equal(seamcall(MNG_CREATE, TDMR, keyid + 1, 0, 0), ADDR_RANGE_ERROR | RCX, "MNG.CREATE before SYS.TDMR.INIT", PAMT);
	equal(seamcall(SYS_TDMR_INIT, TDMR + PAGE, 0, 0, 0), OPERAND_INVALID | RCX, "SYS.TDMR.INIT of no TDMR", INIT);
	do
		equal(seamcall(SYS_TDMR_INIT, TDMR, 0, 0, 0), 0, "SYS.TDMR.INIT", INIT);
	while (rdx < TDMR + TDMR_SIZE);
	equal(seamcall(SYS_TDMR_INIT, TDMR, 0, 0, 0), TDMR_ALREADY_INITIALIZED, "SYS.TDMR.INIT again", INIT);
	equal(seamcall(UNKNOWN, 0, 0, 0, 0), OPERAND_INVALID, "a leaf that is none", MODULE);
}

struct td { uint64_t tdr, keyid; };

static void create(struct td *td, uint64_t keyid)
{
	*td = (struct td){ fresh(), keyid };
	seamcall(MNG_CREATE, td->tdr, keyid, 0, 0);
	seamcall(MNG_KEY_CONFIG, td->tdr, 0, 0, 0);
}

/* TD_PARAMS: x87 and SSE, one vCPU, secure EPT of four levels, 2.5 GHz */
static uint64_t params[128] __attribute__((aligned(1024)));

static void describe_td(void)
{
	memset(params, 0, sizeof(params));
	params[1] = 3;
	params[2] = 1;
	params[3] = 0x1e;
	params[5] = 100;
}

static void init(struct td *td)
{
	for (int i = 0; i < TDCS_PAGES; i++)
		seamcall(MNG_ADDCX, fresh(), td->tdr, 0, 0);
	describe_td();
	seamcall(MNG_INIT, td->tdr, (uint64_t)params, 0, 0);
}

static void life_begins(struct td *td, uint64_t keyid)
{
	*td = (struct td){ fresh(), keyid };
	equal(seamcall(MNG_CREATE, td->tdr, 1, 0, 0), OPERAND_INVALID | RDX, "MNG.CREATE with a KeyID that is not private", LIFE);
	equal(seamcall(MNG_CREATE, td->tdr, keyid - 1, 0, 0), HKID_NOT_FREE, "MNG.CREATE with the module's KeyID", LIFE);
	equal(seamcall(MNG_CREATE, td->tdr + 8, keyid, 0, 0), OPERAND_INVALID | RCX, "MNG.CREATE at an address that is no page's", LIFE);
	equal(seamcall(MNG_CREATE, PAMT_AT, keyid, 0, 0), ADDR_RANGE_ERROR | RCX, "MNG.CREATE of a page in no TDMR", PAMT);
	equal(seamcall(MNG_CREATE, td->tdr, keyid, 0, 0), 0, "MNG.CREATE", LIFE);
	equal(page_type(td->tdr), PT_TDR, "PAMT says TDR", PAMT);
	equal(seamcall(MNG_CREATE, td->tdr, keyid + 1, 0, 0), PAGE_METADATA_INCORRECT | RCX, "MNG.CREATE of a page that is taken", PAMT);
	equal(seamcall(MNG_CREATE, fresh(), keyid, 0, 0), HKID_NOT_FREE, "MNG.CREATE with a KeyID that is taken", LIFE);
	equal(seamcall(MNG_ADDCX, fresh(), td->tdr, 0, 0), TD_KEYS_NOT_CONFIGURED, "MNG.ADDCX before MNG.KEY.CONFIG", LIFE);
	equal(seamcall(MNG_KEY_CONFIG, fresh(), 0, 0, 0), PAGE_METADATA_INCORRECT | RCX, "MNG.KEY.CONFIG of a page that is no TDR", PAMT);
	equal(seamcall(MNG_KEY_CONFIG, td->tdr, 0, 0, 0), 0, "MNG.KEY.CONFIG", LIFE);
	equal(seamcall(MNG_KEY_CONFIG, td->tdr, 0, 0, 0), KEY_CONFIGURED, "MNG.KEY.CONFIG again", LIFE);
	describe_td();
	equal(seamcall(MNG_INIT, td->tdr, (uint64_t)params, 0, 0), TDCS_NOT_ALLOCATED, "MNG.INIT before MNG.ADDCX", LIFE);
	equal(seamcall(MNG_ADDCX, td->tdr, td->tdr, 0, 0), PAGE_METADATA_INCORRECT | RCX, "MNG.ADDCX of a page that is taken", PAMT);
	for (int i = 0; i < TDCS_PAGES; i++)
		equal(seamcall(MNG_ADDCX, fresh(), td->tdr, 0, 0), 0, "MNG.ADDCX", LIFE);
	equal(seamcall(MEM_SEPT_ADD, 3, td->tdr, fresh(), 0), OP_STATE_INCORRECT, "MEM.SEPT.ADD before MNG.INIT", LIFE);
	equal(seamcall(MR_FINALIZE, td->tdr, 0, 0, 0), OP_STATE_INCORRECT, "MR.FINALIZE before MNG.INIT", LIFE);
	equal(seamcall(VP_CREATE, fresh(), td->tdr, 0, 0), OP_STATE_INCORRECT, "VP.CREATE before MNG.INIT", LIFE);
	equal(seamcall(MNG_INIT, td->tdr, (uint64_t)params + 8, 0, 0), OPERAND_INVALID | RDX, "MNG.INIT with parameters that are not aligned", LIFE);
	equal(seamcall(MNG_INIT, td->tdr, (uint64_t)params, 0, 0), 0, "MNG.INIT", LIFE);
	equal(seamcall(MNG_INIT, td->tdr, (uint64_t)params, 0, 0), OP_STATE_INCORRECT, "MNG.INIT again", LIFE);
	equal(seamcall(MNG_ADDCX, fresh(), td->tdr, 0, 0), OP_STATE_INCORRECT, "MNG.ADDCX after MNG.INIT", LIFE);
}

/* Secure EPT down to the table of 4 KiB pages; returns that table's page. */
static uint64_t add_tables(struct td *td)
{
	uint64_t table = 0;

	for (int level = 3; level; level--)
		equal(seamcall(MEM_SEPT_ADD, level, td->tdr, table = fresh(), 0), 0, "MEM.SEPT.ADD", SEPT);
	return table;
}

static void adding(struct td *td)
{
	static uint8_t source[PAGE] __attribute__((aligned(4096)));
	uint64_t page = fresh(), from = (uint64_t)source;

	equal(seamcall(MEM_PAGE_ADD, 0, td->tdr, page, from), EPT_WALK_FAILED | RCX, "MEM.PAGE.ADD before MEM.SEPT.ADD", SEPT);
	equal(rdx & 7, 3, "the level where the walk ended", SEPT);
	equal(seamcall(MEM_SEPT_ADD, 2, td->tdr, fresh(), 0), EPT_WALK_FAILED | RCX, "MEM.SEPT.ADD below a table that is not there", SEPT);
	equal(page_type(add_tables(td)), PT_EPT, "PAMT says EPT", PAMT);
	equal(seamcall(MEM_SEPT_ADD, 1, td->tdr, fresh(), 0), EPT_ENTRY_STATE_INCORRECT | RCX, "MEM.SEPT.ADD again", SEPT);
	equal(seamcall(MEM_SEPT_ADD, 0, td->tdr, fresh(), 0), OPERAND_INVALID | RCX, "MEM.SEPT.ADD at level 0", SEPT);
	equal(seamcall(MEM_PAGE_ADD, SHARED, td->tdr, page, from), OPERAND_INVALID | RCX, "MEM.PAGE.ADD at a shared address", SEPT);
	equal(seamcall(MEM_PAGE_ADD, 8, td->tdr, page, from), OPERAND_INVALID | RCX, "MEM.PAGE.ADD at an address that is no page's", SEPT);
	equal(seamcall(MEM_PAGE_ADD, 0, td->tdr, page, from + 8), OPERAND_INVALID | R9, "MEM.PAGE.ADD from an address that is no page's", SEPT);
	equal(seamcall(MEM_PAGE_ADD, 0, fresh(), page, from), PAGE_METADATA_INCORRECT | RDX, "MEM.PAGE.ADD to no TD", PAMT);
	equal(seamcall(MEM_PAGE_ADD, 0, td->tdr, td->tdr, from), PAGE_METADATA_INCORRECT | R8, "MEM.PAGE.ADD of a TDR", PAMT);
	equal(seamcall(MEM_PAGE_ADD, 0, td->tdr, PAMT_AT, from), ADDR_RANGE_ERROR | R8, "MEM.PAGE.ADD of a page in no TDMR", PAMT);
	equal(seamcall(MEM_PAGE_ADD, 0, td->tdr, page, from), 0, "MEM.PAGE.ADD", SEPT);
	equal(page_type(page), PT_REG, "PAMT says REG", PAMT);
	equal(rdx, td->tdr, "and whose it is", PAMT);
	equal(seamcall(MEM_PAGE_ADD, 0, td->tdr, fresh(), from), EPT_ENTRY_STATE_INCORRECT | RCX, "MEM.PAGE.ADD where a page is", SEPT);
	equal(seamcall(MEM_PAGE_ADD, PAGE, td->tdr, page, from), PAGE_METADATA_INCORRECT | R8, "MEM.PAGE.ADD of a page that is taken", PAMT);
	equal(seamcall(MEM_PAGE_AUG, PAGE, td->tdr, page, 0), PAGE_METADATA_INCORRECT | R8, "MEM.PAGE.AUG of a page that is taken", PAMT);
	equal(seamcall(PHYMEM_PAGE_WBINVD, page, 0, 0, 0), PAGE_METADATA_INCORRECT | RCX, "PHYMEM.PAGE.WBINVD of a page that is taken", PAMT);
	equal(seamcall(PHYMEM_PAGE_RECLAIM, page, 0, 0, 0), LIFECYCLE_STATE_INCORRECT, "PHYMEM.PAGE.RECLAIM while the TD lives", PAMT);
	equal(seamcall(MR_EXTEND, 0, td->tdr, 0, 0), 0, "MR.EXTEND of a page that is there", SEPT);
	equal(seamcall(MR_EXTEND, PAGE, td->tdr, 0, 0) & ~0xffull, EPT_ENTRY_NOT_PRESENT, "MR.EXTEND of a page that is not", SEPT);
	equal(seamcall(MR_EXTEND, 8, td->tdr, 0, 0), OPERAND_INVALID | RCX, "MR.EXTEND at an address between", SEPT);
}

static uint64_t vcpu(struct td *td)
{
	uint64_t tdvpr = fresh();

	equal(seamcall(VP_CREATE, td->tdr, td->tdr, 0, 0), PAGE_METADATA_INCORRECT | RCX, "VP.CREATE of a page that is taken", PAMT);
	equal(seamcall(VP_CREATE, tdvpr, td->tdr, 0, 0), 0, "VP.CREATE", LIFE);
	equal(page_type(tdvpr), PT_TDVPR, "PAMT says TDVPR", PAMT);
	equal(seamcall(VP_INIT, tdvpr, 0, 0, 0), TDCX_NUM_INCORRECT, "VP.INIT before VP.ADDCX", LIFE);
	for (int i = 1; i < TDVPS_PAGES; i++)
		equal(seamcall(VP_ADDCX, fresh(), tdvpr, 0, 0), 0, "VP.ADDCX", LIFE);
	equal(seamcall(VP_ADDCX, fresh(), tdvpr, 0, 0), TDCX_NUM_INCORRECT, "VP.ADDCX of one too many", LIFE);
	equal(seamcall(VP_FLUSH, tdvpr, 0, 0, 0), VCPU_NOT_ASSOCIATED, "VP.FLUSH before VP.INIT", LIFE);
	equal(seamcall(VP_INIT, tdvpr, 0, 0, 0), 0, "VP.INIT", LIFE);
	equal(seamcall(VP_INIT, tdvpr, 0, 0, 0), VCPU_STATE_INCORRECT, "VP.INIT again", LIFE);
	equal(seamcall(VP_ENTER, tdvpr, 0, 0, 0), OP_STATE_INCORRECT, "VP.ENTER before MR.FINALIZE", LIFE);
	return tdvpr;
}

static void finalize(struct td *td)
{
	equal(seamcall(MR_FINALIZE, td->tdr, 0, 0, 0), 0, "MR.FINALIZE", LIFE);
	equal(seamcall(MR_FINALIZE, td->tdr, 0, 0, 0), OP_STATE_INCORRECT, "MR.FINALIZE again", LIFE);
	equal(seamcall(MEM_PAGE_ADD, PAGE, td->tdr, fresh(), TDMR), OP_STATE_INCORRECT, "MEM.PAGE.ADD after MR.FINALIZE", LIFE);
	equal(seamcall(MR_EXTEND, 0, td->tdr, 0, 0), OP_STATE_INCORRECT, "MR.EXTEND after MR.FINALIZE", LIFE);
	equal(seamcall(VP_CREATE, fresh(), td->tdr, 0, 0), OP_STATE_INCORRECT, "VP.CREATE after MR.FINALIZE", LIFE);
}

/* BLOCK, TRACK, REMOVE: each of them before its turn. */
static void removing(struct td *td)
{
	uint64_t page = fresh(), gpa = 8 * PAGE, table, free;

	equal(seamcall(MEM_RANGE_BLOCK, gpa, td->tdr, 0, 0), EPT_ENTRY_STATE_INCORRECT | RCX, "MEM.RANGE.BLOCK where no page is", SEPT);
	equal(seamcall(MEM_PAGE_REMOVE, gpa, td->tdr, 0, 0), EPT_ENTRY_STATE_INCORRECT | RCX, "MEM.PAGE.REMOVE where no page is", SEPT);
	equal(seamcall(MEM_PAGE_AUG, gpa, td->tdr, page, 0), 0, "MEM.PAGE.AUG", SEPT);
	equal(seamcall(MEM_PAGE_AUG, gpa, td->tdr, fresh(), 0), EPT_ENTRY_STATE_INCORRECT | RCX, "MEM.PAGE.AUG where a page is", SEPT);
	equal(seamcall(MEM_PAGE_REMOVE, gpa, td->tdr, 0, 0), GPA_RANGE_NOT_BLOCKED | RCX, "MEM.PAGE.REMOVE before MEM.RANGE.BLOCK", TRACKING);
	equal(seamcall(MEM_RANGE_UNBLOCK, gpa, td->tdr, 0, 0), EPT_ENTRY_STATE_INCORRECT | RCX, "MEM.RANGE.UNBLOCK of what is not blocked", SEPT);
	equal(seamcall(MEM_RANGE_BLOCK, gpa, td->tdr, 0, 0), 0, "MEM.RANGE.BLOCK", SEPT);
	equal(seamcall(MEM_RANGE_BLOCK, gpa, td->tdr, 0, 0), GPA_RANGE_ALREADY_BLOCKED | RCX, "MEM.RANGE.BLOCK again", SEPT);
	equal(seamcall(MEM_PAGE_REMOVE, gpa, td->tdr, 0, 0), TLB_TRACKING_NOT_DONE | RCX, "MEM.PAGE.REMOVE before MEM.TRACK", TRACKING);
	equal(page_type(page), PT_REG, "the page is still the TD's", PAMT);
	equal(seamcall(MEM_RANGE_UNBLOCK, gpa, td->tdr, 0, 0), 0, "MEM.RANGE.UNBLOCK", SEPT);
	equal(seamcall(MEM_RANGE_BLOCK, gpa, td->tdr, 0, 0), 0, "MEM.RANGE.BLOCK once more", SEPT);
	equal(seamcall(MEM_TRACK, td->tdr, 0, 0, 0), 0, "MEM.TRACK", TRACKING);
	equal(seamcall(MEM_PAGE_REMOVE, gpa, td->tdr, 0, 0), 0, "MEM.PAGE.REMOVE after that", TRACKING);
	equal(rcx, page, "it says which page that was", SEPT);
	equal(page_type(page), PT_NDA, "which is nobody's now", PAMT);
	equal(seamcall(MEM_PAGE_AUG, gpa, td->tdr, page, 0), 0, "MEM.PAGE.AUG of it again", SEPT);
	/* A MEM.TRACK before the block is none of it */
	equal(seamcall(MEM_TRACK, td->tdr, 0, 0, 0), 0, "MEM.TRACK before MEM.RANGE.BLOCK", TRACKING);
	equal(seamcall(MEM_RANGE_BLOCK, gpa, td->tdr, 0, 0), 0, "MEM.RANGE.BLOCK", SEPT);
	equal(seamcall(MEM_PAGE_REMOVE, gpa, td->tdr, 0, 0), TLB_TRACKING_NOT_DONE | RCX, "MEM.PAGE.REMOVE: that MEM.TRACK was too early", TRACKING);
	equal(seamcall(MEM_TRACK, td->tdr, 0, 0, 0), 0, "MEM.TRACK", TRACKING);
	equal(seamcall(MEM_PAGE_REMOVE, gpa, td->tdr, 0, 0), 0, "MEM.PAGE.REMOVE", TRACKING);
	/* A table goes when it is empty, blocked and tracked. */
	equal(seamcall(MEM_SEPT_ADD, LARGE | 1, td->tdr, table = fresh(), 0), 0, "MEM.SEPT.ADD of another table", SEPT);
	equal(seamcall(MEM_PAGE_AUG, LARGE, td->tdr, page, 0), 0, "MEM.PAGE.AUG in it", SEPT);
	equal(seamcall(MEM_SEPT_REMOVE, LARGE | 1, td->tdr, 0, 0), EPT_ENTRY_STATE_INCORRECT | RCX, "MEM.SEPT.REMOVE before MEM.RANGE.BLOCK", SEPT);
	equal(seamcall(MEM_RANGE_BLOCK, LARGE | 1, td->tdr, 0, 0), 0, "MEM.RANGE.BLOCK of 2 MiB", SEPT);
	equal(seamcall(MEM_TRACK, td->tdr, 0, 0, 0), 0, "MEM.TRACK", TRACKING);
	equal(seamcall(MEM_SEPT_REMOVE, LARGE | 1, td->tdr, 0, 0) & ~0xffull, EPT_ENTRY_NOT_FREE, "MEM.SEPT.REMOVE with a page in it", SEPT);
	equal(seamcall(MEM_PAGE_REMOVE, LARGE, td->tdr, 0, 0), EPT_WALK_FAILED | RCX, "MEM.PAGE.REMOVE below a blocked table", SEPT);
	equal(seamcall(MEM_RANGE_UNBLOCK, LARGE | 1, td->tdr, 0, 0), 0, "MEM.RANGE.UNBLOCK of it", SEPT);
	seamcall(MEM_RANGE_BLOCK, LARGE, td->tdr, 0, 0);
	seamcall(MEM_TRACK, td->tdr, 0, 0, 0);
	equal(seamcall(MEM_PAGE_REMOVE, LARGE, td->tdr, 0, 0), 0, "MEM.PAGE.REMOVE of that page", SEPT);
	equal(seamcall(MEM_RANGE_BLOCK, LARGE | 1, td->tdr, 0, 0), 0, "MEM.RANGE.BLOCK of 2 MiB", SEPT);
	equal(seamcall(MEM_SEPT_REMOVE, LARGE | 1, td->tdr, 0, 0), TLB_TRACKING_NOT_DONE | RCX, "MEM.SEPT.REMOVE before MEM.TRACK", TRACKING);
	seamcall(MEM_TRACK, td->tdr, 0, 0, 0);
	equal(seamcall(MEM_SEPT_REMOVE, LARGE | 1, td->tdr, 0, 0), 0, "MEM.SEPT.REMOVE", SEPT);
	equal(rcx, table, "it says which page that was", SEPT);
	/* A large page is 512 entries of PAMT */
	seamcall(MEM_PAGE_AUG, LARGE | 1, td->tdr, TDMR + 16 * LARGE, 0);
	equal(page_type(TDMR + 16 * LARGE), PT_REG, "MEM.PAGE.AUG of 2 MiB takes the first page", PAMT);
	free = TDMR + 17 * LARGE - PAGE;
	equal(seamcall(MEM_PAGE_AUG, gpa, td->tdr, free, 0), PAGE_METADATA_INCORRECT | R8, "and the last", PAMT);
}

/* Pages of one TD are not another's. */
static void two_tds(struct td *td, struct td *other)
{
	uint64_t page = fresh();

	create(other, td->keyid + 1);
	init(other);
	add_tables(other);
	seamcall(MEM_PAGE_AUG, 16 * PAGE, td->tdr, page, 0);
	equal(seamcall(MEM_PAGE_AUG, 16 * PAGE, other->tdr, page, 0), PAGE_METADATA_INCORRECT | R8, "MEM.PAGE.AUG of another TD's page", PAMT);
	equal(seamcall(MEM_PAGE_ADD, 16 * PAGE, other->tdr, page, TDMR + 64 * LARGE), PAGE_METADATA_INCORRECT | R8, "MEM.PAGE.ADD of another TD's page", PAMT);
	page_type(page);
	equal(rdx, td->tdr, "PAMT says whose it is", PAMT);
}

static void life_ends(struct td *td, uint64_t tdvpr)
{
	equal(seamcall(MNG_KEY_FREEID, td->tdr, 0, 0, 0), LIFECYCLE_STATE_INCORRECT, "MNG.KEY.FREEID before MNG.VPFLUSHDONE", LIFE);
	equal(seamcall(MNG_VPFLUSHDONE, td->tdr, 0, 0, 0), FLUSHVP_NOT_DONE, "MNG.VPFLUSHDONE before VP.FLUSH", LIFE);
	equal(seamcall(VP_FLUSH, tdvpr, 0, 0, 0), 0, "VP.FLUSH", LIFE);
	equal(seamcall(VP_FLUSH, tdvpr, 0, 0, 0), VCPU_NOT_ASSOCIATED, "VP.FLUSH again", LIFE);
	equal(seamcall(PHYMEM_CACHE_WB, 0, 0, 0, 0), NO_HKID_READY_TO_WBCACHE, "PHYMEM.CACHE.WB before MNG.VPFLUSHDONE", LIFE);
	equal(seamcall(MNG_VPFLUSHDONE, td->tdr, 0, 0, 0), 0, "MNG.VPFLUSHDONE", LIFE);
	equal(seamcall(MEM_TRACK, td->tdr, 0, 0, 0), TD_KEYS_NOT_CONFIGURED, "MEM.TRACK after MNG.VPFLUSHDONE", LIFE);
	equal(seamcall(MNG_KEY_FREEID, td->tdr, 0, 0, 0), WBCACHE_NOT_COMPLETE, "MNG.KEY.FREEID before PHYMEM.CACHE.WB", LIFE);
	equal(seamcall(PHYMEM_PAGE_RECLAIM, tdvpr, 0, 0, 0), LIFECYCLE_STATE_INCORRECT, "PHYMEM.PAGE.RECLAIM before MNG.KEY.FREEID", LIFE);
	equal(seamcall(PHYMEM_CACHE_WB, 0, 0, 0, 0), 0, "PHYMEM.CACHE.WB", LIFE);
	equal(seamcall(MNG_KEY_FREEID, td->tdr, 0, 0, 0), 0, "MNG.KEY.FREEID", LIFE);
	equal(seamcall(PHYMEM_PAGE_RECLAIM, td->tdr, 0, 0, 0), TD_ASSOCIATED_PAGES_EXIST, "PHYMEM.PAGE.RECLAIM of the TDR before the rest", LIFE);
	for (uint64_t pa = TDMR; pa < TDMR + 32 * LARGE; pa += PAGE) {
		uint64_t type = page_type(pa);

		if (type > PT_RSVD && type != PT_TDR && rdx == td->tdr && seamcall(PHYMEM_PAGE_RECLAIM, pa, 0, 0, 0))
			check(false, "PHYMEM.PAGE.RECLAIM", LIFE);
	}
	equal(seamcall(PHYMEM_PAGE_RECLAIM, td->tdr, 0, 0, 0), 0, "and after it", LIFE);
	equal(page_type(td->tdr), PT_NDA, "which is nobody's now", PAMT);
	equal(seamcall(PHYMEM_PAGE_RECLAIM, td->tdr, 0, 0, 0), PAGE_METADATA_INCORRECT | RCX, "PHYMEM.PAGE.RECLAIM again", PAMT);
	equal(seamcall(MNG_CREATE, td->tdr, td->keyid, 0, 0), 0, "page and KeyID serve another TD", LIFE);
}

static void test(void)
{
	uint64_t partitioning = rdmsr(KEYID_PARTITIONING), first = (partitioning & 0xffffffff) + 1, tdvpr;
	struct td td, other;

	check(partitioning >> 32 >= 3, "there are private KeyIDs", "SDM, IA32_MKTME_KEYID_PARTITIONING");
	vmx();
	module(first);
	life_begins(&td, first + 1);
	adding(&td);
	tdvpr = vcpu(&td);
	finalize(&td);
	removing(&td);
	two_tds(&td, &other);
	life_ends(&td, tdvpr);
}

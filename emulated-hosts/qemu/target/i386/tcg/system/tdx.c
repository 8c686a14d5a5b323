/*
 * Emulation of a TDX capable host
 *
 * The TDX module's host and guest interfaces (348551, 344425, 348550 and the
 * module's public source 1.5.01), secure EPT, the world switch of trust
 * domains, for test of a hypervisor.  Of VMX there is what KVM needs to load:
 * VM entry always fails.  Only with -accel tcg,thread=single.
 *
 * Memory: RAM of a page that a private key has written holds either what its
 * owner sees, or what everybody else does.  Whoever needs the other has it
 * exchanged, and all TLBs are flushed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/log.h"
#include "qemu/main-loop.h"
#include "qemu/guest-random.h"
#include "cpu.h"
#include "exec/address-spaces.h"
#include "exec/exec-all.h"
#include "exec/helper-proto.h"
#include "exec/cpu_ldst.h"
#include "exec/cputlb.h"
#include "exec/ram_addr.h"
#include "hw/boards.h"
#include "hw/i386/apic.h"
#include "tcg/helper-tcg.h"
#include "tdx-host.h"
#include "tdx-tcg.h"

TdxHost tdx;

static int trace = -1;
static unsigned busy_every, busy_count;

/* ---------------------------------------------------------------------- */
/* Status codes                                                           */

#define TDX_SUCCESS                             0x0000000000000000ULL
#define TDX_NON_RECOVERABLE_VCPU                0x4000000100000000ULL
#define TDX_NON_RECOVERABLE_TD                  0x6000000200000000ULL
#define TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE   0x6000000500000000ULL
#define TDX_OPERAND_INVALID                     0xC000010000000000ULL
#define TDX_OPERAND_ADDR_RANGE_ERROR            0xC000010100000000ULL
#define TDX_OPERAND_BUSY                        0x8000020000000000ULL
#define TDX_PREVIOUS_TLB_EPOCH_BUSY             0x8000020100000000ULL
#define TDX_PAGE_METADATA_INCORRECT             0xC000030000000000ULL
#define TDX_PAGE_NOT_FREE                       0xC000030300000000ULL
#define TDX_TD_ASSOCIATED_PAGES_EXIST           0xC000040000000000ULL
#define TDX_SYS_INIT_NOT_PENDING                0xC000050000000000ULL
#define TDX_SYS_LP_INIT_NOT_DONE                0xC000050200000000ULL
#define TDX_SYS_LP_INIT_DONE                    0xC000050300000000ULL
#define TDX_SYS_NOT_READY                       0xC000050500000000ULL
#define TDX_SYS_SHUTDOWN                        0xC000050600000000ULL
#define TDX_SYS_KEY_CONFIG_NOT_PENDING          0xC000050700000000ULL
#define TDX_SYS_LP_INIT_NOT_PENDING             0xC000050B00000000ULL
#define TDX_SYS_CONFIG_NOT_PENDING              0xC000050C00000000ULL
#define TDX_TD_FATAL                            0xE000060400000000ULL
#define TDX_TDCS_NOT_ALLOCATED                  0xC000060600000000ULL
#define TDX_LIFECYCLE_STATE_INCORRECT           0xC000060700000000ULL
#define TDX_OP_STATE_INCORRECT                  0xC000060800000000ULL
#define TDX_NO_VCPUS                            0xC000060900000000ULL
#define TDX_TDCX_NUM_INCORRECT                  0xC000061000000000ULL
#define TDX_VCPU_STATE_INCORRECT                0xC000070000000000ULL
#define TDX_VCPU_ASSOCIATED                     0x8000070100000000ULL
#define TDX_VCPU_NOT_ASSOCIATED                 0x8000070200000000ULL
#define TDX_NO_VALID_VE_INFO                    0xC000070400000000ULL
#define TDX_MAX_VCPUS_EXCEEDED                  0xC000070500000000ULL
#define TDX_TD_KEYS_NOT_CONFIGURED              0x8000081000000000ULL
#define TDX_KEY_CONFIGURED                      0x0000081500000000ULL
#define TDX_WBCACHE_NOT_COMPLETE                0x8000081700000000ULL
#define TDX_HKID_NOT_FREE                       0xC000082000000000ULL
#define TDX_NO_HKID_READY_TO_WBCACHE            0x0000082100000000ULL
#define TDX_FLUSHVP_NOT_DONE                    0x8000082400000000ULL
#define TDX_INVALID_TDMR                        0xC0000A0000000000ULL
#define TDX_NON_ORDERED_TDMR                    0xC0000A0100000000ULL
#define TDX_TDMR_OUTSIDE_CMRS                   0xC0000A0200000000ULL
#define TDX_TDMR_ALREADY_INITIALIZED            0x00000A0300000000ULL
#define TDX_INVALID_PAMT                        0xC0000A1000000000ULL
#define TDX_PAMT_OUTSIDE_CMRS                   0xC0000A1100000000ULL
#define TDX_PAMT_OVERLAP                        0xC0000A1200000000ULL
#define TDX_INVALID_RESERVED_IN_TDMR            0xC0000A2000000000ULL
#define TDX_EPT_WALK_FAILED                     0xC0000B0000000000ULL
#define TDX_EPT_ENTRY_NOT_PRESENT               0xC0000B0300000000ULL
#define TDX_GPA_RANGE_NOT_BLOCKED               0xC0000B0600000000ULL
#define TDX_GPA_RANGE_ALREADY_BLOCKED           0x00000B0700000000ULL
#define TDX_TLB_TRACKING_NOT_DONE               0xC0000B0800000000ULL
#define TDX_PAGE_ALREADY_ACCEPTED               0x00000B0A00000000ULL
#define TDX_PAGE_SIZE_MISMATCH                  0xC0000B0B00000000ULL
#define TDX_EPT_ENTRY_STATE_INCORRECT           0xC0000B0D00000000ULL
#define TDX_METADATA_FIELD_ID_INCORRECT         0xC0000C0000000000ULL
#define TDX_METADATA_FIELD_NOT_WRITABLE         0xC0000C0100000000ULL
#define TDX_METADATA_FIELD_NOT_READABLE         0xC0000C0200000000ULL

#define OP_RAX          0
#define OP_RCX          1
#define OP_RDX          2
#define OP_R8           8
#define OP_R9           9
#define OP_ATTRIBUTES   64
#define OP_XFAM         65
#define OP_EXEC_CTLS    66
#define OP_EPTP         67
#define OP_MAX_VCPUS    68
#define OP_CPUID_CONFIG 69
#define OP_TSC          70
#define OP_TDR          128
#define OP_TD_EPOCH     169
#define OP_SEPT_TREE    146

#define EXIT_EXCEPTION_NMI      0
#define EXIT_EXT_INT            1
#define EXIT_TRIPLE_FAULT       2
#define EXIT_CPUID              10
#define EXIT_HLT                12
#define EXIT_INVD               13
#define EXIT_VMCALL             18
#define EXIT_CR                 28
#define EXIT_IO                 30
#define EXIT_MSR_READ           31
#define EXIT_MSR_WRITE          32
#define EXIT_MWAIT              36
#define EXIT_MONITOR            39
#define EXIT_EPT_VIOLATION      48
#define EXIT_EPT_MISCONFIG      49
#define EXIT_WBINVD             54
#define EXIT_TDCALL             77

#define EEQ_ACCEPT      1
#define EEQ_PENDING     6

#define EXCP_VE         20

/* ---------------------------------------------------------------------- */
/* State                                                                  */

#define TDCS_PAGES      5
#define TDVPS_PAGES     6       /* TDVPR and TDCXs */

enum { LC_HKID_ASSIGNED, LC_KEYS_CONFIGURED, LC_BLOCKED, LC_TEARDOWN };
enum { OP_UNINITIALIZED = 1, OP_INITIALIZED = 2, OP_RUNNABLE = 4 };
enum { VCPU_UNINITIALIZED, VCPU_READY, VCPU_ACTIVE, VCPU_DISABLED };
enum { LAST_ASYNC, LAST_TDVMCALL };

/* Entries of secure EPT: frame in [51:12], state in [3:0] */
enum { S_FREE, S_NL, S_NL_BLOCKED, S_MAPPED, S_BLOCKED, S_PENDING, S_PENDING_BLOCKED };
static const uint8_t arch_state[] = { 0, 4 | 0x80, 1 | 0x80, 4, 1, 2, 3 };
#define S_STATE(e)      ((e) & 15)
#define S_PA(e)         ((e) & 0xffffffffff000ULL)

#define ATTR_DEBUG              (1ULL << 0)
#define ATTR_SEPT_VE_DISABLE    (1ULL << 28)
#define CONFIG_GPAW             (1ULL << 0)
#define CONFIG_FLEXIBLE_VE      (1ULL << 1)
#define CONFIG_NO_RBP_MOD       (1ULL << 2)
#define TDCTL_PENDING_VE_DIS    (1ULL << 0)

#define NCPUID 80
typedef struct TdxCpuid {
    uint32_t leaf, sub;
    uint32_t v[4];
} TdxCpuid;

typedef struct TdxTd {
    hwaddr tdr;
    unsigned hkid;
    int lifecycle, op_state;
    bool fatal;
    uint64_t chldcnt;
    unsigned num_tdcx;
    uint64_t attributes, xfam, config_flags, td_ctls;
    bool gpaw;
    int levels;
    uint16_t max_vcpus, tsc_freq;
    unsigned num_vcpus, num_assoc;
    uint64_t epoch;
    uint16_t refcount[2];
    uint64_t root[512];
    TdxCpuid cpuid[NCPUID];
    int ncpuid;
} TdxTd;

#define CHUNK offsetof(CPUX86State, end_reset_fields)

typedef struct TdxVp {
    TdxTd *td;
    hwaddr tdvpr;
    int state, last_exit;
    unsigned num_tdcx, index;
    int assoc;
    uint64_t epoch, x2apic_id;
    uint64_t mask;              /* RCX of the TDVMCALL */
    uint64_t shared_eptp;
    uint16_t pi_nv;
    uint64_t pi_desc;
    uint32_t pin, secondary;
    uint8_t pend_nmi;
    uint64_t debugctl;
    struct {
        bool valid;
        uint32_t reason, len, info;
        uint64_t qual, gla, gpa;
    } ve;
    struct {
        bool valid;
        int intno, is_int, error, is_hw;
        target_ulong next_eip;
    } event;
    /* virtual APIC */
    uint32_t irr[8], isr[8];
    uint8_t tpr;
    bool cpuid_ve_s, cpuid_ve_u;
    uint8_t *cpu;               /* CHUNK bytes */
} TdxVp;

typedef struct Tdmr {
    hwaddr base, size, next;
} Tdmr;

static struct {
    enum { SYS_INIT_PENDING, SYS_SYSINIT_DONE, SYS_CONFIG_DONE, SYS_READY, SYS_DOWN } state;
    uint64_t lp_init;           /* bitmap */
    unsigned global_hkid;
    Tdmr tdmr[64];
    int ntdmr;
    uint8_t hkid_state[1 << TDX_KEYID_BITS];    /* 0 free, 1 assigned, 2 flushed */
    bool hkid_wb[1 << TDX_KEYID_BITS];          /* caches to be written back */
    uint8_t *host[256];         /* of each CPU, CHUNK bytes, while a TD runs */
    GHashTable *vmcs;
} sys;

/* ---------------------------------------------------------------------- */
/* Memory                                                                 */

static uint8_t *ram_of(hwaddr pa, ram_addr_t *ram_addr)
{
    hwaddr xlat, len = TARGET_PAGE_SIZE;
    MemoryRegion *mr;

    RCU_READ_LOCK_GUARD();
    mr = address_space_translate(&address_space_memory, pa & TARGET_PAGE_MASK,
                                 &xlat, &len, true, MEMTXATTRS_UNSPECIFIED);
    if (!memory_region_is_ram(mr) || memory_region_is_rom(mr)) {
        return NULL;
    }
    if (ram_addr) {
        *ram_addr = memory_region_get_ram_addr(mr) + xlat;
    }
    return (uint8_t *)memory_region_get_ram_ptr(mr) + xlat;
}

static void flush_tlbs(void)
{
    CPUState *cs;

    CPU_FOREACH(cs) {
        tlb_flush(cs);
    }
}

static void ram_changed(ram_addr_t ram_addr)
{
    tb_invalidate_phys_range(ram_addr, ram_addr + TARGET_PAGE_SIZE - 1);
    flush_tlbs();
}

void tdx_host_init(void)
{
    if (trace < 0) {
        trace = getenv("TDX_TRACE") ? atoi(getenv("TDX_TRACE")) : 0;
        tdx.zero_view = getenv("TDX_HOST_VIEW") && !strcmp(getenv("TDX_HOST_VIEW"), "zero");
        busy_every = getenv("TDX_BUSY") ? atoi(getenv("TDX_BUSY")) : 0;
    }
}

void tdx_host_ram(hwaddr ram_top)
{
    tdx.npfn = ram_top >> 12;
    tdx.page = g_new0(TdxPage, tdx.npfn);
}

static inline TdxPage *page_of(hwaddr pa)
{
    return &tdx.page[pa >> 12];
}

/* What others read of a page that a private key wrote. */
static uint64_t view_of(TdxPage *p, int i)
{
    uint64_t x;

    if (tdx.zero_view) {
        return 0;
    }
    x = ((uint64_t)(p - tdx.page) << 32 ^ p->gen) * 0x9e3779b97f4a7c15ULL + i;
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9ULL;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

static void fill_view(TdxPage *p, uint8_t *ram)
{
    int i;

    for (i = 0; i < 512; i++) {
        stq_le_p(ram + 8 * i, view_of(p, i));
    }
}

/* Lines that others have written since are lost for the owner. */
static void find_poison(TdxPage *p, uint8_t *ram)
{
    int i;

    for (i = 0; i < 512; i++) {
        if (ldq_le_p(ram + 8 * i) != view_of(p, i)) {
            p->poison |= 1ULL << (i / 8);
        }
    }
}

void tdx_see_slow(TdxPage *p, hwaddr pa, unsigned key, bool store)
{
    ram_addr_t ram_addr;
    uint8_t *ram;

    if (!key && store) {
        p->poison |= 1ULL << ((pa >> 6) & 63);
    }
    if (p->in_td == (key != 0)) {
        return;
    }
    ram = ram_of(pa, &ram_addr);
    if (!ram) {
        return;
    }
    if (key) {
        find_poison(p, ram);
        memcpy(ram, p->hidden, TARGET_PAGE_SIZE);
        g_free(p->hidden);
        p->hidden = NULL;
        p->in_td = true;
    } else {
        p->hidden = g_memdup2(ram, TARGET_PAGE_SIZE);
        fill_view(p, ram);
        p->in_td = false;
    }
    ram_changed(ram_addr);
}

/* All of the page is written with a private key. */
static void write_private(hwaddr pa, const uint8_t *content)
{
    TdxPage *p = page_of(pa);
    ram_addr_t ram_addr;
    uint8_t *ram = ram_of(pa, &ram_addr);

    g_assert(ram);
    if (content) {
        memmove(ram, content, TARGET_PAGE_SIZE);
    } else {
        memset(ram, 0, TARGET_PAGE_SIZE);
    }
    g_free(p->hidden);
    p->hidden = NULL;
    p->priv = p->in_td = true;
    p->poison = 0;
    p->gen++;
    ram_changed(ram_addr);
}

/* The page is not its owner's any more.  Nothing clears it. */
static void let_go(hwaddr pa)
{
    TdxPage *p = page_of(pa);
    ram_addr_t ram_addr;
    uint8_t *ram;

    if (p->priv && p->in_td) {
        ram = ram_of(pa, &ram_addr);
        fill_view(p, ram);
        ram_changed(ram_addr);
    }
    g_free(p->hidden);
    p->hidden = NULL;
    p->priv = p->in_td = false;
    p->poison = 0;
}

/* Host memory that the module reads; false if there is none */
static bool read_host(hwaddr pa, void *buf, unsigned len)
{
    hwaddr at;

    for (at = pa & TARGET_PAGE_MASK; at < pa + len; at += TARGET_PAGE_SIZE) {
        tdx_see(at, 0, false);
    }
    return address_space_read(&address_space_memory, pa, MEMTXATTRS_UNSPECIFIED, buf, len) ==
           MEMTX_OK;
}

/* ---------------------------------------------------------------------- */
/* Checks of operands                                                     */

static bool in_tdmr(hwaddr pa)
{
    int i;

    for (i = 0; i < sys.ntdmr; i++) {
        if (pa >= sys.tdmr[i].base && pa < sys.tdmr[i].next) {
            return true;
        }
    }
    return false;
}

static uint64_t check_page(hwaddr pa, int operand, int pt)
{
    if ((pa & 0xfff) || (pa >> TDX_PA_BITS)) {
        return TDX_OPERAND_INVALID | operand;
    }
    if (!in_tdmr(pa) || (pa >> 12) >= tdx.npfn) {
        return TDX_OPERAND_ADDR_RANGE_ERROR | operand;
    }
    if (page_of(pa)->pt != pt) {
        return TDX_PAGE_METADATA_INCORRECT | operand;
    }
    return 0;
}

static uint64_t find_td(hwaddr tdr, int operand, TdxTd **td)
{
    uint64_t err = check_page(tdr, operand, PT_TDR);

    if (!err) {
        *td = page_of(tdr)->obj;
    }
    return err;
}

static uint64_t check_td(TdxTd *td, int op_states)
{
    if (td->fatal) {
        return TDX_TD_FATAL;
    }
    if (td->lifecycle != LC_KEYS_CONFIGURED) {
        return TDX_TD_KEYS_NOT_CONFIGURED;
    }
    if (td->num_tdcx < TDCS_PAGES) {
        return TDX_TDCS_NOT_ALLOCATED;
    }
    if (!(td->op_state & op_states)) {
        return TDX_OP_STATE_INCORRECT;
    }
    return 0;
}

static uint64_t find_vp(hwaddr tdvpr, TdxVp **vp)
{
    uint64_t err = check_page(tdvpr, OP_RCX, PT_TDVPR);

    if (!err) {
        *vp = page_of(tdvpr)->obj;
    }
    return err;
}

static void take_page(hwaddr pa, int pt, TdxTd *td, void *obj)
{
    TdxPage *p = page_of(pa);

    write_private(pa, NULL);
    p->pt = pt;
    p->owner = td->tdr >> 12;
    p->obj = obj;
    p->bepoch = 0;
    if (pt != PT_TDR) {
        td->chldcnt++;
    }
}

/* ---------------------------------------------------------------------- */
/* Secure EPT                                                             */

static uint64_t shared_bit(TdxTd *td)
{
    return 1ULL << (td->gpaw ? 51 : 47);
}

static bool gpa_valid(TdxTd *td, uint64_t gpa)
{
    return !(gpa & shared_bit(td)) && !(gpa >> (td->gpaw ? 51 : 47));
}

/*
 * Walks down to *level.  NULL if it ends above; *level is then where, and *last
 * the entry that ended it.
 */
static uint64_t *sept_walk(TdxTd *td, uint64_t gpa, int *level, uint64_t *last)
{
    uint64_t *table = td->root;
    int l;

    for (l = td->levels - 1; ; l--) {
        uint64_t *e = &table[(gpa >> (12 + 9 * l)) & 511];

        *last = *e;
        if (l == *level) {
            return e;
        }
        if (S_STATE(*e) != S_NL) {
            *level = l;
            return NULL;
        }
        table = page_of(S_PA(*e))->obj;
    }
}

static void sept_details(CPUX86State *env, uint64_t e, int level)
{
    uint64_t arch;

    if (S_STATE(e) == S_FREE) {
        arch = 1ULL << 63;
    } else {
        arch = S_PA(e);
        if (S_STATE(e) == S_NL || S_STATE(e) == S_MAPPED) {
            arch |= 7;
        }
        if (S_STATE(e) >= S_MAPPED) {
            arch |= 1 << 7;
        }
    }
    env->regs[R_ECX] = arch;
    env->regs[R_EDX] = level | arch_state[S_STATE(e)] << 8;
}

static bool page_info_ok(uint64_t info, int min, int max)
{
    int level = info & 7;

    if ((info & 0xff8) || (info >> 52)) {
        return false;
    }
    if (level < min || level > max) {
        return false;
    }
    return !((info & ~7ULL) & ((1ULL << (12 + 9 * level)) - 1));
}

/* The common beginning of leaves that take GPA and level in RCX, TDR in RDX */
static uint64_t sept_leaf(CPUX86State *env, int op_states, int min, int max, TdxTd **td,
                          uint64_t *gpa, int *level, uint64_t **e)
{
    uint64_t info = env->regs[R_ECX], tdr = env->regs[R_EDX], err, last;
    int at;

    env->regs[R_ECX] = env->regs[R_EDX] = 0;
    err = find_td(tdr, OP_RDX, td);
    if (err) {
        return err;
    }
    err = check_td(*td, op_states);
    if (err) {
        return err;
    }
    if (!page_info_ok(info, min, max < 0 ? (*td)->levels - 1 : max)) {
        return TDX_OPERAND_INVALID | OP_RCX;
    }
    *gpa = info & ~0xfffULL;
    *level = info & 7;
    if (!gpa_valid(*td, *gpa)) {
        return TDX_OPERAND_INVALID | OP_RCX;
    }
    at = *level;
    *e = sept_walk(*td, *gpa, &at, &last);
    if (!*e) {
        sept_details(env, last, at);
        return TDX_EPT_WALK_FAILED | OP_RCX;
    }
    return 0;
}

static uint64_t wrong_state(CPUX86State *env, uint64_t e, int level)
{
    sept_details(env, e, level);
    return TDX_EPT_ENTRY_STATE_INCORRECT | OP_RCX;
}

static uint64_t tdh_mem_sept_add(CPUX86State *env)
{
    hwaddr page = env->regs[R_R8] & ~(1ULL << 63);
    uint64_t gpa, *e, err;
    TdxTd *td;
    int level;

    err = sept_leaf(env, OP_INITIALIZED | OP_RUNNABLE, 1, -1, &td, &gpa, &level, &e);
    if (err) {
        return err;
    }
    if (S_STATE(*e) != S_FREE) {
        return wrong_state(env, *e, level);
    }
    err = check_page(page, OP_R8, PT_NDA);
    if (err) {
        return err;
    }
    take_page(page, PT_EPT, td, g_new0(uint64_t, 512));
    *e = page | S_NL;
    return 0;
}

static uint64_t tdh_mem_page_add(CPUX86State *env)
{
    hwaddr page = env->regs[R_R8], source = env->regs[R_R9];
    uint8_t content[TARGET_PAGE_SIZE];
    uint64_t gpa, *e, err;
    TdxTd *td;
    int level;

    err = sept_leaf(env, OP_INITIALIZED, 0, 0, &td, &gpa, &level, &e);
    if (err) {
        return err;
    }
    if (S_STATE(*e) != S_FREE) {
        return wrong_state(env, *e, level);
    }
    if ((source & 0xfff) || (source >> TDX_PA_BITS)) {
        return TDX_OPERAND_INVALID | OP_R9;
    }
    err = check_page(page, OP_R8, PT_NDA);
    if (err) {
        return err;
    }
    /* Line by line, reading before writing: source may be the page itself. */
    if (!read_host(source, content, sizeof(content))) {
        return TDX_OPERAND_INVALID | OP_R9;
    }
    take_page(page, PT_REG, td, NULL);
    write_private(page, content);
    *e = page | S_MAPPED;
    return 0;
}

static uint64_t tdh_mem_page_aug(CPUX86State *env)
{
    hwaddr page = env->regs[R_R8], at;
    uint64_t gpa, *e, err, size;
    TdxTd *td;
    int level;

    err = sept_leaf(env, OP_INITIALIZED | OP_RUNNABLE, 0, 1, &td, &gpa, &level, &e);
    if (err) {
        return err;
    }
    if (S_STATE(*e) != S_FREE) {
        return wrong_state(env, *e, level);
    }
    size = 0x1000ULL << (9 * level);
    if (page & (size - 1)) {
        return TDX_OPERAND_INVALID | OP_R8;
    }
    for (at = page; at < page + size; at += 0x1000) {
        err = check_page(at, OP_R8, PT_NDA);
        if (err) {
            return err == (TDX_PAGE_METADATA_INCORRECT | OP_R8) && level ?
                   TDX_PAGE_NOT_FREE | OP_R8 : err;
        }
    }
    /* Memory is not touched: it stays as it is until it is accepted. */
    for (at = page; at < page + size; at += 0x1000) {
        page_of(at)->pt = PT_REG;
        page_of(at)->owner = td->tdr >> 12;
        page_of(at)->bepoch = 0;
    }
    td->chldcnt += size >> 12;
    *e = page | S_PENDING;
    return 0;
}

static uint64_t tdh_mem_range_block(CPUX86State *env)
{
    uint64_t gpa, *e, err;
    TdxTd *td;
    int level;

    err = sept_leaf(env, OP_INITIALIZED | OP_RUNNABLE, 0, -1, &td, &gpa, &level, &e);
    if (err) {
        return err;
    }
    switch (S_STATE(*e)) {
    case S_NL:
        *e += S_NL_BLOCKED - S_NL;
        break;
    case S_MAPPED:
        *e += S_BLOCKED - S_MAPPED;
        break;
    case S_PENDING:
        *e += S_PENDING_BLOCKED - S_PENDING;
        break;
    case S_NL_BLOCKED:
    case S_BLOCKED:
    case S_PENDING_BLOCKED:
        sept_details(env, *e, level);
        return TDX_GPA_RANGE_ALREADY_BLOCKED | OP_RCX;
    default:
        return wrong_state(env, *e, level);
    }
    page_of(S_PA(*e))->bepoch = td->epoch;
    return 0;
}

static uint64_t tdh_mem_range_unblock(CPUX86State *env)
{
    uint64_t gpa, *e, err;
    TdxTd *td;
    int level;

    err = sept_leaf(env, OP_INITIALIZED | OP_RUNNABLE, 0, -1, &td, &gpa, &level, &e);
    if (err) {
        return err;
    }
    switch (S_STATE(*e)) {
    case S_NL_BLOCKED:
        *e -= S_NL_BLOCKED - S_NL;
        break;
    case S_BLOCKED:
        *e -= S_BLOCKED - S_MAPPED;
        break;
    case S_PENDING_BLOCKED:
        *e -= S_PENDING_BLOCKED - S_PENDING;
        break;
    default:
        return wrong_state(env, *e, level);
    }
    return 0;
}

static bool is_tlb_tracked(TdxTd *td, uint64_t bepoch)
{
    if (bepoch == td->epoch - 1 && td->refcount[bepoch & 1] == 0) {
        return true;
    }
    return bepoch < td->epoch - 1;
}

static uint64_t tdh_mem_page_remove(CPUX86State *env)
{
    uint64_t gpa, *e, err, size;
    hwaddr page, at;
    TdxTd *td;
    int level;

    err = sept_leaf(env, OP_INITIALIZED | OP_RUNNABLE, 0, 2, &td, &gpa, &level, &e);
    if (err) {
        return err;
    }
    if (S_STATE(*e) < S_MAPPED) {
        return wrong_state(env, *e, level);
    }
    page = S_PA(*e);
    if (td->op_state == OP_RUNNABLE) {
        if (S_STATE(*e) != S_BLOCKED && S_STATE(*e) != S_PENDING_BLOCKED) {
            sept_details(env, *e, level);
            return TDX_GPA_RANGE_NOT_BLOCKED | OP_RCX;
        }
        if (!is_tlb_tracked(td, page_of(page)->bepoch)) {
            return TDX_TLB_TRACKING_NOT_DONE | OP_RCX;
        }
    }
    size = 0x1000ULL << (9 * level);
    for (at = page; at < page + size; at += 0x1000) {
        let_go(at);
        page_of(at)->pt = PT_NDA;
    }
    td->chldcnt -= size >> 12;
    *e = S_FREE;
    env->regs[R_ECX] = page;
    return 0;
}

static uint64_t tdh_mem_sept_remove(CPUX86State *env)
{
    uint64_t gpa, *e, err, *table;
    hwaddr page;
    TdxTd *td;
    int level, i;

    err = sept_leaf(env, OP_INITIALIZED | OP_RUNNABLE, 1, -1, &td, &gpa, &level, &e);
    if (err) {
        return err;
    }
    if (S_STATE(*e) != S_NL_BLOCKED && (S_STATE(*e) != S_NL || td->op_state == OP_RUNNABLE)) {
        return wrong_state(env, *e, level);
    }
    page = S_PA(*e);
    table = page_of(page)->obj;
    for (i = 0; i < 512; i++) {
        if (S_STATE(table[i]) != S_FREE) {
            return 0xC0000B0E00000000ULL;
        }
    }
    if (td->op_state == OP_RUNNABLE && !is_tlb_tracked(td, page_of(page)->bepoch)) {
        return TDX_TLB_TRACKING_NOT_DONE | OP_RCX;
    }
    g_free(table);
    page_of(page)->obj = NULL;
    let_go(page);
    page_of(page)->pt = PT_NDA;
    td->chldcnt--;
    *e = S_FREE;
    env->regs[R_ECX] = page;
    return 0;
}

static uint64_t tdh_mem_track(CPUX86State *env)
{
    TdxTd *td;
    uint64_t err = find_td(env->regs[R_ECX], OP_RCX, &td);

    if (err) {
        return err;
    }
    err = check_td(td, OP_INITIALIZED | OP_RUNNABLE);
    if (err) {
        return err;
    }
    if (td->refcount[1 - (td->epoch & 1)]) {
        return TDX_PREVIOUS_TLB_EPOCH_BUSY;
    }
    td->epoch++;
    return 0;
}

static uint64_t tdh_mem_sept_rd(CPUX86State *env)
{
    uint64_t info = env->regs[R_ECX], last, err;
    int level = info & 7;
    TdxTd *td;

    err = find_td(env->regs[R_EDX], OP_RDX, &td);
    env->regs[R_ECX] = env->regs[R_EDX] = 0;
    if (err) {
        return err;
    }
    err = check_td(td, OP_INITIALIZED | OP_RUNNABLE);
    if (err) {
        return err;
    }
    if (!page_info_ok(info, 0, td->levels - 1) || !gpa_valid(td, info & ~0xfffULL)) {
        return TDX_OPERAND_INVALID | OP_RCX;
    }
    if (!sept_walk(td, info & ~0xfffULL, &level, &last)) {
        sept_details(env, last, level);
        return TDX_EPT_WALK_FAILED | OP_RCX;
    }
    sept_details(env, last, level);
    return 0;
}

/* ---------------------------------------------------------------------- */
/* CPUID of TDs                                                           */

/* From the module's table; direct: chosen freely, allow: if the CPU has it */
static const struct {
    uint32_t leaf, sub;
    uint32_t direct[4], allow[4];
} configurable[] = {
    { 0x1, -1u, { 0x0fff3fff, 0x00ff0000, 0, 0 }, { 0, 0, 0x31044d88, 0xb8440000 } },
    { 0x4, 0, { 0xffffc3ff, 0xfffff000, 0xffffffff, 0xfffffffb } },
    { 0x4, 1, { 0xffffc3ff, 0xfffff000, 0xffffffff, 0xfffffffb } },
    { 0x4, 2, { 0xffffc3ff, 0xfffff000, 0xffffffff, 0xfffffffb } },
    { 0x4, 3, { 0xffffc3ff, 0xfffff000, 0xffffffff, 0x00000007 } },
    { 0x7, 0, { 0 }, { 0, 0xdc2b9b18, 0x02417f65, 0x0005411c } },
    { 0x7, 1, { 0 }, { 0x00001d30 } },
    { 0xa, -1u },
    { 0x1c, -1u, { 0 }, { 0xff } },
    { 0x80000008, -1u, { 0 }, { 0, 0x200 } },
    { 0x7, 2, { 0 }, { 0, 0, 0, 0x28 } },
    { 0x23, 0, { 0 }, { 0xf } },
};

static int find_configurable(uint32_t leaf, uint32_t sub)
{
    int i;

    for (i = 0; i < ARRAY_SIZE(configurable); i++) {
        if (configurable[i].leaf == leaf && configurable[i].sub == sub) {
            return i;
        }
    }
    return -1;
}

static void add_cpuid(CPUX86State *env, TdxTd *td, uint32_t leaf, uint32_t sub)
{
    TdxCpuid *c = &td->cpuid[td->ncpuid++];

    g_assert(td->ncpuid <= NCPUID);
    c->leaf = leaf;
    c->sub = sub;
    cpu_x86_cpuid(env, leaf, sub == -1u ? 0 : sub, &c->v[0], &c->v[1], &c->v[2], &c->v[3]);
}

static TdxCpuid *find_cpuid(TdxTd *td, uint32_t leaf, uint32_t sub)
{
    int i;

    for (i = 0; i < td->ncpuid; i++) {
        if (td->cpuid[i].leaf == leaf && (td->cpuid[i].sub == -1u || td->cpuid[i].sub == sub)) {
            return &td->cpuid[i];
        }
    }
    return NULL;
}

static uint64_t set_cpuid(CPUX86State *env, TdxTd *td, const uint32_t *config, uint32_t *bad_leaf,
                          uint32_t *bad_sub)
{
    static const uint8_t single[] = { 0, 1, 2, 3, 5, 6, 9, 0xa, 0xc, 0xe, 0xf, 0x10, 0x11, 0x12,
                                      0x13, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1e,
                                      0x20, 0x22 };
    uint32_t fms, unused;
    int i, j, k;

    cpu_x86_cpuid(env, 1, 0, &fms, &unused, &unused, &unused);
    td->ncpuid = 0;
    for (i = 0; i < ARRAY_SIZE(single); i++) {
        add_cpuid(env, td, single[i], -1u);
    }
    for (i = 0; i < 5; i++) {
        add_cpuid(env, td, 4, i);
    }
    for (i = 0; i < 3; i++) {
        add_cpuid(env, td, 7, i);
    }
    for (i = 0; i < 20; i++) {
        add_cpuid(env, td, 0xd, i);
    }
    add_cpuid(env, td, 0x14, 0);
    add_cpuid(env, td, 0x14, 1);
    add_cpuid(env, td, 0x1d, 0);
    add_cpuid(env, td, 0x1d, 1);
    for (i = 0; i < 3; i++) {
        add_cpuid(env, td, 0x1f, i);
    }
    add_cpuid(env, td, 0x21, 0);
    add_cpuid(env, td, 0x23, 0);
    for (i = 0; i <= 8; i++) {
        add_cpuid(env, td, 0x80000000 + i, -1u);
    }

    for (i = 0; i < td->ncpuid; i++) {
        TdxCpuid *c = &td->cpuid[i];

        switch (c->leaf) {
        case 0:
            c->v[0] = 0x23;
            break;
        case 1:
            c->v[1] &= 0x0000ff00;
            c->v[2] |= 1u << 21 | 1u << 31;                             /* x2APIC, hypervisor */
            c->v[2] &= ~(1u << 5 | 1u << 6 | 1u << 24);                 /* VMX, SMX */
            if (!(td->xfam & 4)) {
                c->v[2] &= ~(1u << 28 | 1u << 12 | 1u << 29);
            }
            break;
        case 7:
            if (c->sub == 0) {
                c->v[0] = 2;
                c->v[1] &= ~(1u << 2);                                  /* SGX */
                if (!(td->xfam & 4)) {
                    c->v[1] &= ~(1u << 5);
                    c->v[2] &= ~(3u << 9);
                }
                if (!(td->xfam & 0x200)) {
                    c->v[2] &= ~(1u << 3);
                }
            }
            break;
        case 0xa:
        case 0x12:
        case 0x14:
        case 0x23:
            memset(c->v, 0, sizeof(c->v));
            break;
        case 0xd:
            if (c->sub == 0) {
                c->v[0] &= td->xfam;
                c->v[3] &= td->xfam >> 32;
            } else if (c->sub == 1) {
                c->v[2] &= td->xfam;
                c->v[3] &= td->xfam >> 32;
            } else if (!(td->xfam >> c->sub & 1)) {
                memset(c->v, 0, sizeof(c->v));
            }
            break;
        case 0x15:
            c->v[0] = 1;
            c->v[1] = td->tsc_freq;
            c->v[2] = 25000000;
            c->v[3] = 0;
            break;
        case 0x21:
            c->v[0] = 0;
            c->v[1] = 0x65746e49;   /* "IntelTDX    " */
            c->v[2] = 0x20202020;
            c->v[3] = 0x5844546c;
            break;
        case 0x80000000:
            c->v[0] = 0x80000008;
            break;
        case 0x80000008:
            c->v[0] = 52 | (c->v[0] & 0xff00);
            break;
        }
        j = find_configurable(c->leaf, c->sub);
        if (j < 0) {
            continue;
        }
        for (k = 0; k < 4; k++) {
            uint32_t want = config[4 * j + k];
            uint32_t direct = configurable[j].direct[k], allow = configurable[j].allow[k];

            if (want & ~(direct | allow)) {
                *bad_leaf = c->leaf;
                *bad_sub = c->sub;
                return TDX_OPERAND_INVALID | OP_CPUID_CONFIG;
            }
            c->v[k] = (c->v[k] & ~direct) | (want & direct);
            c->v[k] &= want | ~allow;
        }
        if (c->leaf == 1) {
            if (!c->v[0]) {
                c->v[0] = fms;
            } else if (c->v[0] != fms) {
                *bad_leaf = c->leaf;
                *bad_sub = c->sub;
                return TDX_OPERAND_INVALID | OP_CPUID_CONFIG;
            }
        }
    }
    return 0;
}

/* ---------------------------------------------------------------------- */
/* Metadata fields                                                        */

#define XFAM_FIXED1     3ULL

static uint64_t xfam_fixed0(CPUX86State *env)
{
    uint64_t x = env->features[FEAT_XSAVE_XCR0_LO] |
                 (uint64_t)env->features[FEAT_XSAVE_XCR0_HI] << 32;

    return (x & 0x602e7) | XFAM_FIXED1;
}

static bool sys_field(CPUX86State *env, uint64_t id, uint64_t *val)
{
    int i;

    switch (id) {
    case 0x0800000200000001:    /* build date */
        *val = 20261127;
        return true;
    case 0x0800000100000002:    /* build number */
        *val = 1;
        return true;
    case 0x0800000100000003:
        *val = 5;
        return true;
    case 0x0800000100000004:
        *val = 1;
        return true;
    case 0x0800000100000005:
        *val = 6;
        return true;
    case 0x0A00000300000008:    /* TDX_FEATURES0: NO_RBP_MOD, ENUM_TOPOLOGY */
        *val = 1 << 18 | 1 << 20;
        return true;
    case 0x9100000100000008:
        *val = 64;
        return true;
    case 0x9100000100000009:
        *val = 16;
        return true;
    case 0x9100000100000010:
    case 0x9100000100000011:
    case 0x9100000100000012:
        *val = 16;
        return true;
    case 0x9800000100000000:
        *val = 4096;
        return true;
    case 0x9800000100000100:
        *val = TDCS_PAGES * 4096;
        return true;
    case 0x9800000100000200:
        *val = TDVPS_PAGES * 4096;
        return true;
    case 0x1900000300000000:
        *val = ATTR_DEBUG | ATTR_SEPT_VE_DISABLE;
        return true;
    case 0x1900000300000001:
        *val = 0;
        return true;
    case 0x1900000300000002:
        *val = xfam_fixed0(env);
        return true;
    case 0x1900000300000003:
        *val = XFAM_FIXED1;
        return true;
    case 0x9900000100000004:
        *val = ARRAY_SIZE(configurable);
        return true;
    case 0x9900000100000008:
        *val = 576;
        return true;
    case 0x8900000100000000:
        *val = 0;
        return true;
    }
    if (id >= 0x9900000300000400 && id < 0x9900000300000400 + ARRAY_SIZE(configurable)) {
        i = id & 0xff;
        *val = configurable[i].leaf | (uint64_t)configurable[i].sub << 32;
        return true;
    }
    if (id >= 0x9900000300000500 && id < 0x9900000300000500 + 2 * ARRAY_SIZE(configurable)) {
        int k = (id & 1) * 2;

        i = (id & 0xff) / 2;
        *val = (configurable[i].direct[k] | configurable[i].allow[k]) |
               (uint64_t)(configurable[i].direct[k + 1] | configurable[i].allow[k + 1]) << 32;
        return true;
    }
    return false;
}

static uint64_t sys_rd(CPUX86State *env)
{
    uint64_t val = 0;
    bool ok = sys_field(env, env->regs[R_EDX], &val);

    env->regs[R_R8] = val;
    if (!ok) {
        return TDX_METADATA_FIELD_ID_INCORRECT | OP_RDX;
    }
    env->regs[R_EDX] = -1;
    return 0;
}

/* Class and code without the format */
#define MDFIELD(id)   ((id) & 0xbf00000000ffffffULL)
#define TD_FIELD(c) (0x1100000000000000ULL | (c))

static bool td_field(TdxTd *td, uint64_t id, uint64_t *val)
{
    TdxCpuid *c;

    switch (MDFIELD(id)) {
    case TD_FIELD(0):
        *val = td->attributes;
        return true;
    case TD_FIELD(1):
        *val = td->xfam;
        return true;
    case TD_FIELD(2):
        *val = td->max_vcpus;
        return true;
    case TD_FIELD(3):
        *val = td->gpaw;
        return true;
    case TD_FIELD(10):
        *val = 0;                   /* TSC offset */
        return true;
    case TD_FIELD(11):
        *val = 1ULL << 48;          /* and multiplier */
        return true;
    case TD_FIELD(12):
        *val = td->tsc_freq;
        return true;
    case TD_FIELD(0x16):
        *val = td->config_flags;
        return true;
    case TD_FIELD(0x17):
        *val = td->td_ctls;
        return true;
    case 0x9100000000000010ULL:     /* NOTIFY_ENABLES */
        *val = 0;
        return true;
    case 0x9100000000000019ULL:     /* TOPOLOGY_ENUM_CONFIGURED */
        *val = 1;
        return true;
    }
    if ((id & 0xff000000ff000000ULL) == 0x9400000000000000ULL) {
        uint32_t leaf = (id >> 9 & 0x7f) | (id >> 16 & 1) << 31;
        uint32_t sub = id & 0x100 ? -1u : id >> 1 & 0x7f;

        c = find_cpuid(td, leaf, sub);
        if (!c || c->sub != sub) {
            return false;
        }
        *val = c->v[2 * (id & 1)] | (uint64_t)c->v[2 * (id & 1) + 1] << 32;
        return true;
    }
    return false;
}

static uint64_t tdh_mng_rd(CPUX86State *env)
{
    TdxTd *td;
    uint64_t val = 0, err = find_td(env->regs[R_ECX], OP_RCX, &td);

    env->regs[R_R8] = 0;
    if (err) {
        return err;
    }
    err = check_td(td, OP_INITIALIZED | OP_RUNNABLE);
    if (err) {
        return err;
    }
    if (!td_field(td, env->regs[R_EDX], &val)) {
        return TDX_METADATA_FIELD_ID_INCORRECT | OP_RDX;
    }
    env->regs[R_R8] = val;
    env->regs[R_EDX] = -1;
    return 0;
}

static int highest(const uint32_t *v)
{
    int i;

    for (i = 7; i >= 0; i--) {
        if (v[i]) {
            return i * 32 + 31 - clz32(v[i]);
        }
    }
    return -1;
}

static bool vp_field(TdxVp *vp, uint64_t id, uint64_t *val, uint64_t *mask)
{
    switch (MDFIELD(id)) {
    case 0x0002:
        *val = vp->pi_nv;
        *mask = 0xffff;
        return true;
    case 0x2016:
        *val = vp->pi_desc;
        *mask = -1;
        return true;
    case 0x203c:
        *val = vp->shared_eptp;
        *mask = 0xffffffffff000ULL;
        return true;
    case 0x4000:
        *val = vp->pin;
        *mask = 1 << 7;
        return true;
    case 0x401e:
        *val = vp->secondary;
        *mask = 1u << 30 | 1u << 31;
        return true;
    case 0x4024:                    /* notify window */
        *val = 0;
        *mask = 0xffffffff;
        return true;
    case 0xa00000000000000bULL & ~0x8000000000000000ULL:    /* PEND_NMI */
        *val = vp->pend_nmi;
        *mask = 1;
        return true;
    case 0x9100000000000100ULL:     /* VCPU_STATE_DETAILS */
        *val = highest(vp->irr) >> 4 > MAX(vp->tpr >> 4, highest(vp->isr) >> 4);
        *mask = 0;
        return true;
    }
    return false;
}

static uint64_t check_vp(CPUX86State *env, TdxVp **vp, int op_states, bool associate)
{
    uint64_t err = find_vp(env->regs[R_ECX], vp);
    int cpu = env_cpu(env)->cpu_index;

    if (!err) {
        err = check_td((*vp)->td, op_states);
    }
    if (err) {
        return err;
    }
    if (!associate) {
        return 0;
    }
    if ((*vp)->state != VCPU_READY && (*vp)->state != VCPU_DISABLED) {
        return TDX_VCPU_STATE_INCORRECT;
    }
    if ((*vp)->assoc != -1 && (*vp)->assoc != cpu) {
        return TDX_VCPU_ASSOCIATED;
    }
    if ((*vp)->assoc == -1) {
        (*vp)->assoc = cpu;
        (*vp)->td->num_assoc++;
    }
    return 0;
}

static uint64_t tdh_vp_rd(CPUX86State *env)
{
    TdxVp *vp;
    uint64_t val = 0, mask, err = check_vp(env, &vp, OP_INITIALIZED | OP_RUNNABLE, true);

    env->regs[R_R8] = 0;
    if (err) {
        return err;
    }
    if (!vp_field(vp, env->regs[R_EDX], &val, &mask)) {
        return TDX_METADATA_FIELD_ID_INCORRECT | OP_RDX;
    }
    env->regs[R_R8] = val;
    env->regs[R_EDX] = -1;
    return 0;
}

static uint64_t tdh_vp_wr(CPUX86State *env)
{
    TdxVp *vp;
    uint64_t val = 0, mask, err = check_vp(env, &vp, OP_INITIALIZED | OP_RUNNABLE, true);
    uint64_t id = env->regs[R_EDX], new = env->regs[R_R8], wr = env->regs[R_R9];

    if (err) {
        return err;
    }
    if (!vp_field(vp, id, &val, &mask)) {
        return TDX_METADATA_FIELD_ID_INCORRECT | OP_RDX;
    }
    if (!mask) {
        return TDX_METADATA_FIELD_NOT_WRITABLE | OP_RDX;
    }
    env->regs[R_R8] = val;
    new = (val & ~(wr & mask)) | (new & wr & mask);
    switch (MDFIELD(id)) {
    case 0x0002:
        vp->pi_nv = new;
        break;
    case 0x2016:
        vp->pi_desc = new;
        break;
    case 0x203c:
        vp->shared_eptp = new;
        break;
    case 0x4000:
        vp->pin = new;
        break;
    case 0x401e:
        vp->secondary = new;
        break;
    case 0x4024:
        break;
    default:
        vp->pend_nmi = new;
        break;
    }
    return 0;
}

/* ---------------------------------------------------------------------- */
/* The platform                                                           */

static uint64_t tdh_sys_init(CPUX86State *env)
{
    if (sys.state != SYS_INIT_PENDING) {
        return TDX_SYS_INIT_NOT_PENDING;
    }
    if (env->regs[R_ECX]) {
        return TDX_OPERAND_INVALID | OP_RCX;
    }
    sys.state = SYS_SYSINIT_DONE;
    return 0;
}

static uint64_t tdh_sys_lp_init(CPUX86State *env)
{
    uint64_t bit = 1ULL << env_cpu(env)->cpu_index;

    if (sys.state == SYS_INIT_PENDING) {
        return TDX_SYS_LP_INIT_NOT_PENDING;
    }
    if (sys.lp_init & bit) {
        return TDX_SYS_LP_INIT_DONE;
    }
    sys.lp_init |= bit;
    return 0;
}

/* Is all of it memory of the machine?  What the BIOS says are CMRs is RAM above 1M. */
static bool in_cmr(hwaddr base, hwaddr size)
{
    hwaddr at;

    if (base < 0x100000) {
        return false;
    }
    for (at = base; at < base + size; at = (at | 0xffff) + 1) {
        if (!ram_of(at, NULL)) {
            return false;
        }
    }
    return ram_of(base + size - 1, NULL) != NULL;
}

static uint64_t tdh_sys_config(CPUX86State *env)
{
    hwaddr array = env->regs[R_ECX];
    uint64_t n = env->regs[R_EDX], hkid = env->regs[R_R8];
    hwaddr pamt[64][3][2];
    uint64_t pas[64], info[8 + 32], i, j, k;
    hwaddr at;

    if (sys.state != SYS_SYSINIT_DONE) {
        return TDX_SYS_CONFIG_NOT_PENDING;
    }
    if (ctpop64(sys.lp_init) != current_machine->smp.cpus) {
        return TDX_SYS_LP_INIT_NOT_DONE;
    }
    if (hkid <= TDX_NUM_MKTME_KEYIDS || hkid > TDX_NUM_MKTME_KEYIDS + TDX_NUM_KEYIDS) {
        return TDX_OPERAND_INVALID | OP_R8;
    }
    if (!n || n > 64) {
        return TDX_OPERAND_INVALID | OP_RDX;
    }
    if ((array & 511) || !read_host(array, pas, n * 8)) {
        return TDX_OPERAND_INVALID | OP_RCX;
    }
    for (i = 0; i < n; i++) {
        uint64_t pa = le64_to_cpu(pas[i]), need, end;

        if ((pa & 511) || !read_host(pa, info, sizeof(info))) {
            return TDX_OPERAND_INVALID | OP_RCX;
        }
        for (j = 0; j < ARRAY_SIZE(info); j++) {
            info[j] = le64_to_cpu(info[j]);
        }
        if ((info[0] & 0x3fffffff) || (info[1] & 0x3fffffff) || !info[1] ||
            ((info[0] + info[1]) >> TDX_PA_BITS)) {
            return TDX_INVALID_TDMR | i;
        }
        if (i && info[0] < sys.tdmr[i - 1].base + sys.tdmr[i - 1].size) {
            return TDX_NON_ORDERED_TDMR | i;
        }
        for (j = 0; j < 3; j++) {
            /* 1G, 2M, 4K */
            pamt[i][j][0] = info[2 + 2 * j];
            pamt[i][j][1] = info[3 + 2 * j];
            need = ROUND_UP((info[1] >> (30 - 9 * j)) * 16, 4096);
            if ((pamt[i][j][0] & 0xfff) || (pamt[i][j][1] & 0xfff) || pamt[i][j][1] < need) {
                return TDX_INVALID_PAMT | i;
            }
            if (!in_cmr(pamt[i][j][0], pamt[i][j][1])) {
                return TDX_PAMT_OUTSIDE_CMRS | i;
            }
        }
        /* Between the reserved areas all is memory. */
        at = info[0];
        end = info[0] + info[1];
        for (j = 0; j < 16; j++) {
            uint64_t off = info[8 + 2 * j], len = info[9 + 2 * j];

            if (!len) {
                break;
            }
            if ((off & 0xfff) || (len & 0xfff) || off + len > info[1] || info[0] + off < at) {
                return TDX_INVALID_RESERVED_IN_TDMR | i;
            }
            if (info[0] + off > at && !in_cmr(at, info[0] + off - at)) {
                return TDX_TDMR_OUTSIDE_CMRS | i;
            }
            at = info[0] + off + len;
        }
        if (at < end && !in_cmr(at, end - at)) {
            return TDX_TDMR_OUTSIDE_CMRS | i;
        }
        sys.tdmr[i].base = sys.tdmr[i].next = info[0];
        sys.tdmr[i].size = info[1];
        for (j = 0; j < 16 && info[9 + 2 * j]; j++) {
            for (at = info[0] + info[8 + 2 * j];
                 at < info[0] + info[8 + 2 * j] + info[9 + 2 * j]; at += 4096) {
                if (at >> 12 < tdx.npfn) {
                    page_of(at)->pt = PT_RSVD;
                }
            }
        }
    }
    for (i = 0; i < n; i++) {
        for (k = 0; k < 3; k++) {
            for (at = pamt[i][k][0]; at < pamt[i][k][0] + pamt[i][k][1]; at += 4096) {
                for (j = 0; j < n; j++) {
                    if (at >= sys.tdmr[j].base && at < sys.tdmr[j].base + sys.tdmr[j].size &&
                        page_of(at)->pt != PT_RSVD) {
                        return TDX_PAMT_OVERLAP | i;
                    }
                }
            }
        }
    }
    sys.ntdmr = n;
    sys.global_hkid = hkid;
    sys.hkid_state[hkid] = 1;
    sys.state = SYS_CONFIG_DONE;
    return 0;
}

static uint64_t tdh_sys_key_config(CPUX86State *env)
{
    if (sys.state != SYS_CONFIG_DONE) {
        return TDX_SYS_KEY_CONFIG_NOT_PENDING;
    }
    sys.state = SYS_READY;
    return 0;
}

static uint64_t tdh_sys_tdmr_init(CPUX86State *env)
{
    hwaddr base = env->regs[R_ECX];
    int i;

    env->regs[R_EDX] = 0;
    if (sys.state != SYS_READY) {
        return TDX_SYS_NOT_READY;
    }
    for (i = 0; i < sys.ntdmr; i++) {
        Tdmr *t = &sys.tdmr[i];

        if (t->base != base) {
            continue;
        }
        if (t->next == t->base + t->size) {
            return TDX_TDMR_ALREADY_INITIALIZED;
        }
        t->next += 1 << 30;
        env->regs[R_EDX] = t->next;
        return 0;
    }
    return TDX_OPERAND_INVALID | OP_RCX;
}

static uint64_t tdh_phymem_page_rdmd(CPUX86State *env)
{
    hwaddr pa = env->regs[R_ECX];
    TdxPage *p;

    env->regs[R_ECX] = env->regs[R_EDX] = env->regs[R_R8] = 0;
    env->regs[R_R9] = env->regs[R_R10] = env->regs[R_R11] = 0;
    if ((pa & 0xfff) || (pa >> TDX_PA_BITS)) {
        return TDX_OPERAND_INVALID | OP_RCX;
    }
    if (!in_tdmr(pa) || pa >> 12 >= tdx.npfn) {
        return TDX_OPERAND_ADDR_RANGE_ERROR | OP_RCX;
    }
    p = page_of(pa);
    env->regs[R_ECX] = p->pt;
    env->regs[R_EDX] = p->pt > PT_RSVD && p->pt != PT_TDR ? (uint64_t)p->owner << 12 : 0;
    env->regs[R_R9] = p->bepoch;
    return 0;
}

static uint64_t tdh_phymem_page_reclaim(CPUX86State *env)
{
    hwaddr pa = env->regs[R_ECX];
    TdxPage *p;
    TdxTd *td;

    env->regs[R_ECX] = env->regs[R_EDX] = env->regs[R_R8] = 0;
    env->regs[R_R9] = env->regs[R_R10] = env->regs[R_R11] = 0;
    if ((pa & 0xfff) || (pa >> TDX_PA_BITS)) {
        return TDX_OPERAND_INVALID | OP_RCX;
    }
    if (!in_tdmr(pa) || pa >> 12 >= tdx.npfn) {
        return TDX_OPERAND_ADDR_RANGE_ERROR | OP_RCX;
    }
    p = page_of(pa);
    if (p->pt == PT_NDA || p->pt == PT_RSVD) {
        return TDX_PAGE_METADATA_INCORRECT | OP_RCX;
    }
    env->regs[R_ECX] = p->pt;
    env->regs[R_EDX] = p->pt == PT_TDR ? 0 : (uint64_t)p->owner << 12;
    td = p->pt == PT_TDR ? p->obj : tdx.page[p->owner].obj;
    if (td->lifecycle != LC_TEARDOWN) {
        return TDX_LIFECYCLE_STATE_INCORRECT;
    }
    if (p->pt == PT_TDR) {
        if (td->chldcnt) {
            return TDX_TD_ASSOCIATED_PAGES_EXIST;
        }
        g_free(td);
    } else {
        if (p->pt == PT_TDVPR) {
            g_free(((TdxVp *)p->obj)->cpu);
        }
        g_free(p->obj);
        td->chldcnt--;
    }
    p->obj = NULL;
    let_go(pa);
    p->pt = PT_NDA;
    return 0;
}

static uint64_t tdh_phymem_page_wbinvd(CPUX86State *env)
{
    return check_page(env->regs[R_ECX] & ((1ULL << TDX_PA_BITS) - 1), OP_RCX, PT_NDA);
}

static uint64_t tdh_phymem_cache_wb(CPUX86State *env)
{
    bool any = false;
    int i;

    if (env->regs[R_ECX] > 1) {
        return TDX_OPERAND_INVALID | OP_RCX;
    }
    for (i = 0; i < ARRAY_SIZE(sys.hkid_state); i++) {
        if (sys.hkid_state[i] == 2) {
            any = true;
            sys.hkid_wb[i] = false;
        }
    }
    return any ? 0 : TDX_NO_HKID_READY_TO_WBCACHE;
}

/* ---------------------------------------------------------------------- */
/* Life of a TD                                                           */

static uint64_t tdh_mng_create(CPUX86State *env)
{
    hwaddr tdr = env->regs[R_ECX];
    uint64_t hkid = env->regs[R_EDX], err;
    TdxTd *td;

    if (hkid <= TDX_NUM_MKTME_KEYIDS || hkid > TDX_NUM_MKTME_KEYIDS + TDX_NUM_KEYIDS) {
        return TDX_OPERAND_INVALID | OP_RDX;
    }
    err = check_page(tdr, OP_RCX, PT_NDA);
    if (err) {
        return err;
    }
    if (sys.hkid_state[hkid]) {
        return TDX_HKID_NOT_FREE;
    }
    td = g_new0(TdxTd, 1);
    td->tdr = tdr;
    td->hkid = hkid;
    td->lifecycle = LC_HKID_ASSIGNED;
    td->op_state = OP_UNINITIALIZED;
    td->epoch = 1;
    td->levels = 4;
    sys.hkid_state[hkid] = 1;
    take_page(tdr, PT_TDR, td, td);
    return 0;
}

static uint64_t tdh_mng_key_config(CPUX86State *env)
{
    TdxTd *td;
    uint64_t err = find_td(env->regs[R_ECX], OP_RCX, &td);

    if (err) {
        return err;
    }
    if (td->fatal) {
        return TDX_TD_FATAL;
    }
    if (td->lifecycle == LC_KEYS_CONFIGURED) {
        return TDX_KEY_CONFIGURED;
    }
    if (td->lifecycle != LC_HKID_ASSIGNED) {
        return TDX_LIFECYCLE_STATE_INCORRECT;
    }
    td->lifecycle = LC_KEYS_CONFIGURED;     /* of the only package */
    return 0;
}

static uint64_t tdh_mng_addcx(CPUX86State *env)
{
    TdxTd *td;
    uint64_t err = find_td(env->regs[R_EDX], OP_RDX, &td);

    if (err) {
        return err;
    }
    if (td->fatal) {
        return TDX_TD_FATAL;
    }
    if (td->lifecycle != LC_KEYS_CONFIGURED) {
        return TDX_TD_KEYS_NOT_CONFIGURED;
    }
    if (td->num_tdcx >= 9) {
        return TDX_TDCX_NUM_INCORRECT;
    }
    err = check_page(env->regs[R_ECX], OP_RCX, PT_NDA);
    if (err) {
        return err;
    }
    if (td->op_state != OP_UNINITIALIZED) {
        return TDX_OP_STATE_INCORRECT;
    }
    take_page(env->regs[R_ECX], PT_TDCX, td, NULL);
    td->num_tdcx++;
    return 0;
}

static uint64_t tdh_mng_init(CPUX86State *env)
{
    hwaddr params = env->regs[R_EDX];
    uint8_t p[1024];
    uint32_t config[256], leaf = 0, sub = 0;
    uint64_t err, eptp;
    TdxTd *td;
    int i;

    err = find_td(env->regs[R_ECX], OP_RCX, &td);
    env->regs[R_ECX] = 0;
    if (err) {
        return err;
    }
    err = check_td(td, OP_UNINITIALIZED);
    if (err) {
        return err;
    }
    if ((params & 1023) || (params >> TDX_PA_BITS) || !read_host(params, p, sizeof(p))) {
        return TDX_OPERAND_INVALID | OP_RDX;
    }
    td->attributes = ldq_le_p(p);
    if (td->attributes & ~(ATTR_DEBUG | ATTR_SEPT_VE_DISABLE)) {
        return TDX_OPERAND_INVALID | OP_ATTRIBUTES;
    }
    td->td_ctls = td->attributes & ATTR_SEPT_VE_DISABLE ? TDCTL_PENDING_VE_DIS : 0;
    td->xfam = ldq_le_p(p + 8);
    if ((td->xfam & ~xfam_fixed0(env)) || (td->xfam & XFAM_FIXED1) != XFAM_FIXED1) {
        return TDX_OPERAND_INVALID | OP_XFAM;
    }
    td->max_vcpus = lduw_le_p(p + 16);
    if (!td->max_vcpus) {
        return TDX_OPERAND_INVALID | OP_MAX_VCPUS;
    }
    for (i = 18; i < 24; i++) {
        if (p[i]) {
            return TDX_OPERAND_INVALID | OP_RDX;
        }
    }
    td->config_flags = ldq_le_p(p + 32);
    if (td->config_flags & ~(CONFIG_GPAW | CONFIG_FLEXIBLE_VE | CONFIG_NO_RBP_MOD)) {
        return TDX_OPERAND_INVALID | OP_EXEC_CTLS;
    }
    td->gpaw = td->config_flags & CONFIG_GPAW;
    eptp = ldq_le_p(p + 24);
    td->levels = ((eptp >> 3) & 7) + 1;
    if ((eptp & 7) != 6 || (eptp & ~0x3fULL) || (td->levels != 4 && td->levels != 5) ||
        (td->gpaw && td->levels != 5)) {
        return TDX_OPERAND_INVALID | OP_EPTP;
    }
    td->tsc_freq = lduw_le_p(p + 40);
    if (td->tsc_freq < 4 || td->tsc_freq > 400) {
        return TDX_OPERAND_INVALID | OP_TSC;
    }
    for (i = 42; i < 80; i++) {
        if (p[i]) {
            return TDX_OPERAND_INVALID | OP_RDX;
        }
    }
    for (i = 224; i < 256; i++) {
        if (p[i]) {
            return TDX_OPERAND_INVALID | OP_RDX;
        }
    }
    for (i = 256 + 16 * ARRAY_SIZE(configurable); i < 1024; i++) {
        if (p[i]) {
            return TDX_OPERAND_INVALID | OP_RDX;
        }
    }
    for (i = 0; i < 4 * ARRAY_SIZE(configurable); i++) {
        config[i] = ldl_le_p(p + 256 + 4 * i);
    }
    err = set_cpuid(env, td, config, &leaf, &sub);
    if (err) {
        env->regs[R_ECX] = leaf | (uint64_t)sub << 32;
        return err;
    }
    td->op_state = OP_INITIALIZED;
    return 0;
}

static uint64_t tdh_mr_extend(CPUX86State *env)
{
    uint64_t gpa = env->regs[R_ECX], err, last;
    int level = 0;
    TdxTd *td;

    err = find_td(env->regs[R_EDX], OP_RDX, &td);
    env->regs[R_ECX] = env->regs[R_EDX] = 0;
    if (err) {
        return err;
    }
    err = check_td(td, OP_INITIALIZED);
    if (err) {
        return err;
    }
    if ((gpa & 255) || !gpa_valid(td, gpa)) {
        return TDX_OPERAND_INVALID | OP_RCX;
    }
    if (!sept_walk(td, gpa, &level, &last)) {
        sept_details(env, last, level);
        return TDX_EPT_ENTRY_NOT_PRESENT | OP_RCX;
    }
    return S_STATE(last) == S_MAPPED ? 0 : TDX_EPT_ENTRY_NOT_PRESENT;
}

static uint64_t tdh_mr_finalize(CPUX86State *env)
{
    TdxTd *td;
    uint64_t err = find_td(env->regs[R_ECX], OP_RCX, &td);

    if (!err) {
        err = check_td(td, OP_INITIALIZED);
    }
    if (err) {
        return err;
    }
    td->op_state = OP_RUNNABLE;
    return 0;
}

static uint64_t tdh_mng_vpflushdone(CPUX86State *env)
{
    TdxTd *td;
    uint64_t err = find_td(env->regs[R_ECX], OP_RCX, &td);

    if (err) {
        return err;
    }
    if (td->lifecycle != LC_KEYS_CONFIGURED && td->lifecycle != LC_HKID_ASSIGNED) {
        return TDX_LIFECYCLE_STATE_INCORRECT;
    }
    if (td->num_assoc) {
        return TDX_FLUSHVP_NOT_DONE;
    }
    td->lifecycle = LC_BLOCKED;
    sys.hkid_state[td->hkid] = 2;
    sys.hkid_wb[td->hkid] = true;
    return 0;
}

static uint64_t tdh_mng_key_freeid(CPUX86State *env)
{
    TdxTd *td;
    uint64_t err = find_td(env->regs[R_ECX], OP_RCX, &td);

    if (err) {
        return err;
    }
    if (td->lifecycle != LC_BLOCKED) {
        return TDX_LIFECYCLE_STATE_INCORRECT;
    }
    if (sys.hkid_wb[td->hkid]) {
        return TDX_WBCACHE_NOT_COMPLETE;
    }
    sys.hkid_state[td->hkid] = 0;
    td->lifecycle = LC_TEARDOWN;
    return 0;
}

static uint64_t tdh_vp_create(CPUX86State *env)
{
    TdxTd *td;
    TdxVp *vp;
    uint64_t err = check_page(env->regs[R_ECX], OP_RCX, PT_NDA);

    if (!err) {
        err = find_td(env->regs[R_EDX], OP_RDX, &td);
    }
    if (!err) {
        err = check_td(td, OP_INITIALIZED);
    }
    if (err) {
        return err;
    }
    vp = g_new0(TdxVp, 1);
    vp->td = td;
    vp->tdvpr = env->regs[R_ECX];
    vp->assoc = -1;
    take_page(vp->tdvpr, PT_TDVPR, td, vp);
    return 0;
}

static uint64_t tdh_vp_addcx(CPUX86State *env)
{
    hwaddr page = env->regs[R_ECX];
    uint64_t err = check_page(env->regs[R_EDX], OP_RDX, PT_TDVPR);
    TdxVp *vp;

    if (err) {
        return err;
    }
    vp = page_of(env->regs[R_EDX])->obj;
    err = check_td(vp->td, OP_INITIALIZED);
    if (err) {
        return err;
    }
    if (vp->state != VCPU_UNINITIALIZED) {
        return TDX_VCPU_STATE_INCORRECT;
    }
    if (vp->num_tdcx >= TDVPS_PAGES - 1) {
        return TDX_TDCX_NUM_INCORRECT;
    }
    err = check_page(page, OP_RCX, PT_NDA);
    if (err) {
        return err;
    }
    take_page(page, PT_TDCX, vp->td, NULL);
    vp->num_tdcx++;
    return 0;
}

static uint64_t tdh_vp_flush(CPUX86State *env)
{
    TdxVp *vp;
    uint64_t err = find_vp(env->regs[R_ECX], &vp);

    if (err) {
        return err;
    }
    if (vp->td->lifecycle != LC_KEYS_CONFIGURED) {
        return TDX_TD_KEYS_NOT_CONFIGURED;
    }
    if (vp->num_tdcx < TDVPS_PAGES - 1) {
        return TDX_TDCX_NUM_INCORRECT;
    }
    if (vp->assoc != env_cpu(env)->cpu_index) {
        return TDX_VCPU_NOT_ASSOCIATED;
    }
    vp->assoc = -1;
    vp->td->num_assoc--;
    tlb_flush(env_cpu(env));
    return 0;
}

/* ---------------------------------------------------------------------- */
/* World switch                                                           */

static uint8_t *host_state(CPUX86State *env)
{
    int cpu = env_cpu(env)->cpu_index;

    if (!sys.host[cpu]) {
        sys.host[cpu] = g_malloc(CHUNK);
    }
    return sys.host[cpu];
}

static void init_fpu(CPUX86State *env)
{
    int i;

    cpu_set_mxcsr(env, 0x1f80);
    cpu_set_fpuc(env, 0x37f);
    env->fpstt = 0;
    env->fpus = 0;
    env->fpop = 0;
    env->fpip = env->fpdp = 0;
    for (i = 0; i < 8; i++) {
        env->fptags[i] = 1;
        env->fpregs[i].d.low = 0;
        env->fpregs[i].d.high = 0;
    }
    memset(env->xmm_regs, 0, sizeof(env->xmm_regs));
}

static uint64_t tdh_vp_init(CPUX86State *env, int version)
{
    TdxVp *vp;
    TdxTd *td;
    uint64_t rcx = env->regs[R_EDX], x2apic = env->regs[R_R8], err = find_vp(env->regs[R_ECX], &vp);
    uint32_t fms, unused;
    uint8_t *host;
    int i;

    if (err) {
        return err;
    }
    td = vp->td;
    err = check_td(td, OP_INITIALIZED);
    if (err) {
        return err;
    }
    if (vp->num_tdcx < TDVPS_PAGES - 1) {
        return TDX_TDCX_NUM_INCORRECT;
    }
    if (vp->state != VCPU_UNINITIALIZED) {
        return TDX_VCPU_STATE_INCORRECT;
    }
    if (version && (x2apic >> 32)) {
        return TDX_OPERAND_INVALID | OP_R8;
    }
    if (td->num_vcpus >= td->max_vcpus) {
        return TDX_MAX_VCPUS_EXCEEDED;
    }
    vp->index = td->num_vcpus++;
    vp->x2apic_id = version ? x2apic : vp->index;
    vp->assoc = env_cpu(env)->cpu_index;
    td->num_assoc++;

    host = host_state(env);
    memcpy(host, env, CHUNK);

    memset(env->regs, 0, sizeof(env->regs));
    env->eip = 0xfffffff0;
    env->eflags = 2;
    CC_OP = CC_OP_EFLAGS;
    CC_SRC = 0;
    env->df = 1;
    for (i = 0; i < 6; i++) {
        env->segs[i] = (SegmentCache) { .selector = 0, .base = 0, .limit = 0xffffffff,
            .flags = (i == R_CS ? 0x00c09b00 : 0x00c09300) };
    }
    env->ldt = (SegmentCache) { .limit = 0, .flags = 0 };
    env->tr = (SegmentCache) { .limit = 0xffff, .flags = 0x8b00 };
    env->gdt = (SegmentCache) { .limit = 0xffff };
    env->idt = (SegmentCache) { .limit = 0xffff };
    env->cr[0] = 0x31;
    env->cr[2] = env->cr[3] = 0;
    env->cr[4] = CR4_MCE_MASK;
    env->efer = MSR_EFER_SCE | MSR_EFER_LME | MSR_EFER_NXE;
    env->star = env->lstar = env->cstar = env->fmask = env->kernelgsbase = 0;
    env->sysenter_cs = env->sysenter_esp = env->sysenter_eip = 0;
    env->tsc_aux = 0;
    env->pat = 0x0007040600070406ULL;
    env->dr[0] = env->dr[1] = env->dr[2] = env->dr[3] = 0;
    env->dr[6] = 0xffff0ff0;
    env->dr[7] = 0x400;
    env->xcr0 = 1;
    env->xss = 0;
    env->pkru = 0;
    env->old_exception = -1;
    init_fpu(env);
    env->hflags = (env->hflags & ~(HF_INHIBIT_IRQ_MASK | HF_RF_MASK | HF_AVX_EN_MASK |
                                   HF_SMAP_MASK | HF_UMIP_MASK | HF_IOBPT_MASK)) | HF_GUEST_MASK;
    x86_update_hflags(env);
    cpu_sync_avx_hflag(env);
    env->hflags2 = (env->hflags2 & ~HF2_NMI_MASK) | HF2_GIF_MASK | HF2_VGIF_MASK |
                   HF2_VINTR_MASK | HF2_HIF_MASK | HF2_NPT_MASK;
    env->intercept = 0;
    env->intercept_cr_read = env->intercept_cr_write = 0;
    env->intercept_dr_read = env->intercept_dr_write = 0;
    env->intercept_exceptions = 0;
    env->nested_cr3 = 0;
    env->nested_pg_mode = 0;
    env->int_ctl = 0;
    cpu_x86_cpuid(env, 1, 0, &fms, &unused, &unused, &unused);
    env->regs[R_EBX] = td->gpaw ? 52 : 48;
    env->regs[R_ECX] = env->regs[R_R8] = rcx;
    env->regs[R_EDX] = fms;
    env->regs[R_ESI] = vp->index;

    vp->cpu = g_malloc(CHUNK);
    memcpy(vp->cpu, env, CHUNK);
    memcpy(env, host, CHUNK);
    vp->state = VCPU_READY;
    vp->last_exit = LAST_ASYNC;
    return 0;
}

static bool pi_to_irr(TdxVp *vp)
{
    uint8_t desc[64], zero[40] = { 0 };
    int i;

    if (!(vp->pin & 0x80) || !vp->pi_desc) {
        return false;
    }
    address_space_read(&address_space_memory, vp->pi_desc, MEMTXATTRS_UNSPECIFIED, desc, 64);
    if (!(desc[32] & 1)) {
        return false;
    }
    zero[32] = desc[32] & ~1;
    address_space_write(&address_space_memory, vp->pi_desc, MEMTXATTRS_UNSPECIFIED, zero, 33);
    for (i = 0; i < 8; i++) {
        vp->irr[i] |= ldl_le_p(desc + 4 * i);
    }
    return true;
}

static void set_virq(CPUState *cs, bool on)
{
    bool locked = bql_locked();

    if (!locked) {
        bql_lock();
    }
    if (on) {
        cpu_interrupt(cs, CPU_INTERRUPT_VIRQ);
    } else {
        cpu_reset_interrupt(cs, CPU_INTERRUPT_VIRQ);
    }
    if (!locked) {
        bql_unlock();
    }
}

static void update_virq(CPUX86State *env)
{
    TdxVp *vp = env->tdx_vp;
    CPUState *cs = env_cpu(env);

    if (highest(vp->irr) >> 4 > MAX(vp->tpr >> 4, highest(vp->isr) >> 4)) {
        set_virq(cs, true);
    } else if (cs->interrupt_request & CPU_INTERRUPT_VIRQ) {
        set_virq(cs, false);
    }
}

static uint64_t tdh_vp_enter(CPUX86State *env, bool *entered)
{
    TdxVp *vp;
    TdxTd *td;
    uint64_t regs[16];
    uint64_t err;
    int i;

    if (env->regs[R_ECX] & 0xfff) {
        return TDX_OPERAND_INVALID | OP_RCX;
    }
    err = find_vp(env->regs[R_ECX], &vp);
    if (err) {
        return err;
    }
    td = vp->td;
    err = check_td(td, OP_RUNNABLE);
    if (err) {
        return err;
    }
    if (vp->state != VCPU_READY) {
        return TDX_VCPU_STATE_INCORRECT;
    }
    err = check_vp(env, &vp, OP_RUNNABLE, true);
    if (err) {
        return err;
    }
    vp->epoch = td->epoch;
    td->refcount[vp->epoch & 1]++;
    vp->state = VCPU_ACTIVE;

    memcpy(regs, env->regs, sizeof(regs));
    memcpy(host_state(env), env, CHUNK);
    memcpy(env, vp->cpu, CHUNK);
    env->tdx_vp = vp;
    if (vp->last_exit == LAST_TDVMCALL) {
        for (i = 2; i < 16; i++) {
            if (vp->mask >> i & 1) {
                env->regs[i] = regs[i];
            }
        }
        env->regs[R_EAX] = 0;
    }
    tlb_flush(env_cpu(env));
    if (vp->pend_nmi && !(env->hflags2 & HF2_NMI_MASK) && !vp->ve.valid && !vp->event.valid) {
        vp->pend_nmi = 0;
        vp->event.valid = true;
        vp->event.intno = EXCP02_NMI;
        vp->event.is_int = vp->event.error = 0;
        vp->event.is_hw = 1;
        vp->event.next_eip = 0;
        env->hflags2 |= HF2_NMI_MASK;
    }
    pi_to_irr(vp);
    update_virq(env);
    *entered = true;
    if (vp->event.valid) {
        /* what was being delivered when it exited, or may exit again */
        do_interrupt_all(env_archcpu(env), vp->event.intno, vp->event.is_int, vp->event.error,
                         vp->event.next_eip, vp->event.is_hw);
        env->old_exception = -1;
    }
    return 0;
}

/* Back to the host: its state but for what TDH.VP.ENTER returns and what the module leaves behind */
static void td_exit(CPUX86State *env, int last_exit, int state)
{
    TdxVp *vp = env->tdx_vp;
    CPUState *cs = env_cpu(env);
    uint64_t xfam = vp->td->xfam;
    int i;

    env->old_exception = -1;
    cs->exception_index = -1;
    memcpy(vp->cpu, env, CHUNK);
    vp->td->refcount[vp->epoch & 1]--;
    vp->state = state;
    vp->last_exit = last_exit;

    memcpy(env, host_state(env), CHUNK);
    env->tdx_vp = NULL;
    for (i = 8; i < 16; i++) {
        env->regs[i] = 0;
    }
    env->regs[R_EBX] = env->regs[R_EDX] = env->regs[R_ESI] = env->regs[R_EDI] = 0;
    env->cr[2] = 0;
    env->dr[0] = env->dr[1] = env->dr[2] = env->dr[3] = 0;
    env->dr[6] = 0xffff0ff0;
    env->dr[7] = 0x400;
    env->star = env->lstar = env->kernelgsbase = 0;
    env->fmask = 0x20200;
    env->tsc_aux = 0;
    env->pkru = 0;
    env->xcr0 = xfam & xfam_fixed0(env);
    env->xss = 0;
    init_fpu(env);
    cpu_sync_avx_hflag(env);
    CC_OP = CC_OP_EFLAGS;
    CC_SRC = 0;
    env->hflags &= ~HF_INHIBIT_IRQ_MASK;
    tlb_flush(cs);
    if (cs->interrupt_request & CPU_INTERRUPT_VIRQ) {
        set_virq(cs, false);
    }
}

/* An exit that is not the TD's wish.  The state of the CPU is that of an instruction boundary. */
static void async_exit(CPUX86State *env, uint64_t status, uint32_t reason, uint64_t qual,
                       uint64_t ext, uint64_t gpa, uint64_t info)
{
    TdxTd *td = env->tdx_vp->td;
    int state = VCPU_READY;

    if (trace) {
        fprintf(stderr, "tdx: exit %u status %016" PRIx64 " qual %" PRIx64 "/%" PRIx64
                " gpa %" PRIx64 " info %" PRIx64 " rip " TARGET_FMT_lx "\n", reason, status, qual,
                ext, gpa, info, env->eip);
    }
    if (status == TDX_NON_RECOVERABLE_VCPU) {
        state = VCPU_DISABLED;
    } else if (status) {
        td->fatal = true;
    }
    td_exit(env, LAST_ASYNC, state);
    env->regs[R_EAX] = status | reason;
    env->regs[R_ECX] = qual;
    env->regs[R_EDX] = ext;
    env->regs[R_R8] = gpa;
    env->regs[R_R9] = info;
}

static G_NORETURN void async_exit_loop(CPUX86State *env, uint64_t status, uint32_t reason,
                                       uint64_t qual, uint64_t ext, uint64_t gpa, uint64_t info)
{
    async_exit(env, status, reason, qual, ext, gpa, info);
    cpu_loop_exit(env_cpu(env));
}

/* ---------------------------------------------------------------------- */
/* What a TD does                                                         */

static G_NORETURN void inject_ve(CPUX86State *env, uint32_t reason, uint64_t qual, uint64_t gpa,
                                 uint64_t gla, uint32_t len, uintptr_t ra)
{
    TdxVp *vp = env->tdx_vp;

    if (vp->ve.valid) {
        raise_exception_err_ra(env, EXCP08_DBLE, 0, ra);
    }
    vp->ve.valid = true;
    vp->ve.reason = reason;
    vp->ve.qual = qual;
    vp->ve.gpa = gpa;
    vp->ve.gla = gla;
    vp->ve.len = len;
    vp->ve.info = 0;
    raise_exception_ra(env, EXCP_VE, ra);
}

/* #VE of an instruction, which has set svm_next_eip */
static G_NORETURN void insn_ve(CPUX86State *env, uint32_t reason, uint64_t qual, uintptr_t ra)
{
    cpu_restore_state(env_cpu(env), ra);
    inject_ve(env, reason, qual, 0, 0, env->svm_next_eip - env->eip, 0);
}

void tdx_check_intercept(CPUX86State *env, uint32_t type, uint64_t param, uintptr_t ra)
{
    switch (type) {
    case SVM_EXIT_HLT:
        insn_ve(env, EXIT_HLT, 0, ra);
    case SVM_EXIT_INVD:
        insn_ve(env, EXIT_INVD, 0, ra);
    case SVM_EXIT_WBINVD:
        insn_ve(env, EXIT_WBINVD, 0, ra);
    case SVM_EXIT_MONITOR:
        insn_ve(env, EXIT_MONITOR, 0, ra);
    case SVM_EXIT_MWAIT:
        insn_ve(env, EXIT_MWAIT, 0, ra);
    case SVM_EXIT_RDPMC:
        raise_exception_err_ra(env, EXCP0D_GPF, 0, ra);
    case SVM_EXIT_RSM:
    case SVM_EXIT_VMRUN ... SVM_EXIT_SKINIT:
        raise_exception_ra(env, EXCP06_ILLOP, ra);
    case SVM_EXIT_XSETBV:
        if ((env->hflags & HF_CPL_MASK) == 0) {
            uint64_t val = (uint32_t)env->regs[R_EAX] | env->regs[R_EDX] << 32;

            if ((uint32_t)env->regs[R_ECX] || (val & ~env->tdx_vp->td->xfam)) {
                raise_exception_err_ra(env, EXCP0D_GPF, 0, ra);
            }
        }
        return;
    case SVM_EXIT_SMI:
    case SVM_EXIT_NMI:
    case SVM_EXIT_INTR:
    case SVM_EXIT_VINTR:
    default:
        return;
    }
}

void tdx_io(CPUX86State *env, uint32_t port, uint32_t param, uint32_t next_addend, uintptr_t ra)
{
    uint64_t size = param >> 4 & 7;
    uint64_t qual = (size - 1) | (param & 1) << 3 | (param >> 2 & 1) << 4 | (param >> 3 & 1) << 5 |
                    (uint64_t)port << 16;

    cpu_restore_state(env_cpu(env), ra);
    inject_ve(env, EXIT_IO, qual, 0, 0, next_addend, 0);
}

/* Reached for what SVM would exit for: a triple fault */
void tdx_vmexit(CPUX86State *env, uint64_t code, uint64_t info, uintptr_t ra)
{
    cpu_restore_state(env_cpu(env), ra);
    env->tdx_vp->event.valid = false;
    if (code == SVM_EXIT_SHUTDOWN) {
        async_exit_loop(env, TDX_NON_RECOVERABLE_VCPU, EXIT_TRIPLE_FAULT, 0, 0, 0, 0);
    }
    async_exit_loop(env, TDX_NON_RECOVERABLE_TD, EXIT_CR, 0, 0, 0, 0);
}

void tdx_event(CPUX86State *env, int intno, int is_int, int error_code, target_ulong next_eip,
               int is_hw)
{
    TdxVp *vp = env->tdx_vp;

    vp->event.valid = true;
    vp->event.intno = intno;
    vp->event.is_int = is_int;
    vp->event.error = error_code;
    vp->event.next_eip = next_eip;
    vp->event.is_hw = is_hw;
}

void tdx_event_done(CPUX86State *env)
{
    if (env->tdx_vp) {
        env->tdx_vp->event.valid = false;
    }
}

/* true: the request has been dealt with */
bool tdx_interrupt(CPUX86State *env, int request)
{
    CPUState *cs = env_cpu(env);
    TdxVp *vp = env->tdx_vp;
    int vector;

    switch (request) {
    case CPU_INTERRUPT_NMI:
        cs->interrupt_request &= ~CPU_INTERRUPT_NMI;
        async_exit(env, TDX_SUCCESS, EXIT_EXCEPTION_NMI, 0, 0, 0, 0x80000202);
        env->hflags2 |= HF2_NMI_MASK;
        return true;
    case CPU_INTERRUPT_HARD:
        cs->interrupt_request &= ~CPU_INTERRUPT_HARD;
        vector = cpu_get_pic_interrupt(env);
        if (vector < 0) {
            return true;
        }
        if ((vp->pin & 0x80) && vector == vp->pi_nv) {
            if (cpu_get_apic_base(env_archcpu(env)->apic_state) & MSR_IA32_APICBASE_EXTD) {
                apic_msr_write(0xb, 0);
            } else {
                address_space_stl(&address_space_memory, 0xfee000b0, 0, MEMTXATTRS_UNSPECIFIED,
                                  NULL);
            }
            pi_to_irr(vp);
            update_virq(env);
            return true;
        }
        async_exit(env, TDX_SUCCESS, EXIT_EXT_INT, 0, 0, 0, 0x80000000 | vector);
        return true;
    case CPU_INTERRUPT_VIRQ:
        cpu_reset_interrupt(cs, CPU_INTERRUPT_VIRQ);
        vector = highest(vp->irr);
        if (vector >> 4 > MAX(vp->tpr >> 4, highest(vp->isr) >> 4)) {
            vp->irr[vector / 32] &= ~(1u << (vector % 32));
            vp->isr[vector / 32] |= 1u << (vector % 32);
            do_interrupt_x86_hardirq(env, vector, 1);
            update_virq(env);
        }
        return true;
    case CPU_INTERRUPT_MCE:
        cs->interrupt_request &= ~CPU_INTERRUPT_MCE;
        async_exit(env, TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE, EXIT_EXCEPTION_NMI, 0, 0, 0,
                   0x80000312);
        return true;
    }
    return false;
}

/* ---------------------------------------------------------------------- */
/* Translation                                                            */

bool tdx_gpa_reserved(CPUX86State *env, hwaddr gpa)
{
    TdxTd *td = env->tdx_vp->td;

    return !td->gpaw && (gpa >> 48);
}

static bool ept_walk(TdxVp *vp, hwaddr gpa, uint64_t *entry, int *level)
{
    hwaddr table = vp->shared_eptp;
    int l;

    /* The shared bit is part of the index. */
    for (l = vp->td->levels - 1; ; l--) {
        hwaddr at = table + ((gpa >> (12 + 9 * l)) & 511) * 8;

        tdx_see(at, 0, false);
        *entry = address_space_ldq(&address_space_memory, at, MEMTXATTRS_UNSPECIFIED, NULL);
        *level = l;
        if (!(*entry & 7)) {
            return false;
        }
        if (!l || ((*entry & 0x80) && l < 3)) {
            return true;
        }
        table = *entry & 0xffffffffff000ULL & ((1ULL << TDX_PA_BITS) - 1);
    }
}

bool tdx_stage2(CPUX86State *env, hwaddr gpa, MMUAccessType type, bool walk,
                hwaddr *pa, int *prot, unsigned *key)
{
    TdxVp *vp = env->tdx_vp;
    TdxTd *td = vp->td;
    uint64_t e;
    int level = 0;

    if (!(gpa & shared_bit(td))) {
        uint64_t *p;
        TdxPage *page;

        p = sept_walk(td, gpa, &level, &e);
        if (!p && S_STATE(e) < S_MAPPED) {
            return false;
        }
        if (S_STATE(e) != S_MAPPED) {
            return false;
        }
        *pa = S_PA(e) + (gpa & ((0x1000ULL << (9 * level)) - 1));
        page = page_of(*pa);
        if (!page->in_td) {
            tdx_see(*pa, td->hkid, false);
        }
        if (page->poison) {
            return false;
        }
        *prot = PAGE_READ | PAGE_WRITE | PAGE_EXEC;
        *key = td->hkid;
        return true;
    }
    if (!ept_walk(vp, gpa, &e, &level)) {
        return false;
    }
    *prot = (e & 1 ? PAGE_READ : 0) | (e & 2 ? PAGE_WRITE : 0);     /* never fetched from */
    if (!(*prot & (1 << type))) {
        return false;
    }
    *pa = (e & ((1ULL << TDX_PA_BITS) - 1) & ~((0x1000ULL << (9 * level)) - 1)) |
          (gpa & ~shared_bit(td) & ((0x1000ULL << (9 * level)) - 1));
    *key = 0;
    return true;
}

static uint64_t access_qual(MMUAccessType type)
{
    return type == MMU_DATA_STORE ? 2 : type == MMU_INST_FETCH ? 4 : 1;
}

void tdx_stage2_fault(CPUX86State *env, vaddr gla, hwaddr gpa, MMUAccessType type, bool walk,
                      uintptr_t ra)
{
    TdxVp *vp = env->tdx_vp;
    TdxTd *td = vp->td;
    uint64_t qual = access_qual(type) | 1 << 7 | (walk ? 0 : 1 << 8), e;
    int level = 0;

    if (!(gpa & shared_bit(td))) {
        sept_walk(td, gpa, &level, &e);
        if (S_STATE(e) == S_MAPPED) {
            /* integrity error */
            cpu_restore_state(env_cpu(env), ra);
            async_exit_loop(env, TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE, EXIT_EXCEPTION_NMI, 0, 0,
                            0, 0x80000312);
        }
        if (S_STATE(e) == S_PENDING && !(td->td_ctls & TDCTL_PENDING_VE_DIS)) {
            cpu_restore_state(env_cpu(env), ra);
            inject_ve(env, EXIT_EPT_VIOLATION, qual, gpa, gla, 0, 0);
        }
        cpu_restore_state(env_cpu(env), ra);
        async_exit_loop(env, TDX_SUCCESS, EXIT_EPT_VIOLATION, qual,
                        S_STATE(e) == S_PENDING ? EEQ_PENDING : 0, gpa & ~0xfffULL, 0);
    }
    if (type == MMU_INST_FETCH || walk) {
        /* TDs neither execute nor keep page tables in shared memory */
        env->cr[2] = gla;
        raise_exception_err_ra(env, EXCP0E_PAGE, PG_ERROR_P_MASK |
                               (walk ? PG_ERROR_RSVD_MASK : 0) |
                               (type == MMU_INST_FETCH ? PG_ERROR_I_D_MASK : 0), ra);
    }
    if (!ept_walk(vp, gpa, &e, &level) && !(e >> 63) && !vp->ve.valid) {
        /* convertible */
        cpu_restore_state(env_cpu(env), ra);
        inject_ve(env, EXIT_EPT_VIOLATION, qual | (e & 7) << 3, gpa, gla, 0, 0);
    }
    cpu_restore_state(env_cpu(env), ra);
    if ((e & 7) == 6 || (e & 7) == 2) {
        async_exit_loop(env, TDX_SUCCESS, EXIT_EPT_MISCONFIG, 0, 0, gpa, 0);
    }
    async_exit_loop(env, TDX_SUCCESS, EXIT_EPT_VIOLATION, qual | (e & 7) << 3, 0, gpa, 0);
}

/* ---------------------------------------------------------------------- */
/* TDCALL                                                                 */

static void tdg_vp_vmcall(CPUX86State *env)
{
    TdxVp *vp = env->tdx_vp;
    uint64_t mask = env->regs[R_ECX], regs[16];
    int i;

    if ((mask & 0x13) || (mask >> 32) ||
        ((vp->td->config_flags & CONFIG_NO_RBP_MOD) && (mask & 0x20))) {
        env->regs[R_EAX] = TDX_OPERAND_INVALID | OP_RCX;
        return;
    }
    memcpy(regs, env->regs, sizeof(regs));
    if (trace) {
        fprintf(stderr, "tdx: vmcall r10 %" PRIx64 " r11 %" PRIx64 " r12 %" PRIx64 " r13 %" PRIx64
                " r14 %" PRIx64 " r15 %" PRIx64 "\n", regs[10], regs[11], regs[12], regs[13],
                regs[14], regs[15]);
    }
    vp->mask = mask;
    td_exit(env, LAST_TDVMCALL, VCPU_READY);
    env->regs[R_EAX] = EXIT_TDCALL;
    env->regs[R_ECX] = mask;
    for (i = 2; i < 16; i++) {
        if (mask >> i & 1) {
            env->regs[i] = regs[i];
        }
    }
}

static uint64_t tdg_mem_page_accept(CPUX86State *env, bool *exited)
{
    TdxTd *td = env->tdx_vp->td;
    uint64_t info = env->regs[R_ECX], gpa = info & ~0xfffULL, last, *e;
    int want = info & 7, level = want;
    hwaddr at, size;

    if (!page_info_ok(info, 0, 1) || !gpa_valid(td, gpa)) {
        return TDX_OPERAND_INVALID | OP_RCX;
    }
    e = sept_walk(td, gpa, &level, &last);
    if (S_STATE(last) == S_MAPPED) {
        return TDX_PAGE_ALREADY_ACCEPTED | level;
    }
    if (e && (S_STATE(last) == S_NL || S_STATE(last) == S_NL_BLOCKED)) {
        return TDX_PAGE_SIZE_MISMATCH | level;
    }
    if (!e || S_STATE(last) != S_PENDING) {
        async_exit(env, TDX_SUCCESS, EXIT_EPT_VIOLATION, 2,
                   EEQ_ACCEPT | (uint64_t)want << 32 | (uint64_t)level << 35 |
                   (uint64_t)arch_state[S_STATE(last)] << 38, gpa, 0);
        *exited = true;
        return 0;
    }
    size = 0x1000ULL << (9 * level);
    for (at = S_PA(last); at < S_PA(last) + size; at += 0x1000) {
        write_private(at, NULL);
    }
    *e += S_MAPPED - S_PENDING;
    return 0;
}

static uint64_t tdg_vm_rd_wr(CPUX86State *env, bool wr)
{
    TdxTd *td = env->tdx_vp->td;
    uint64_t id = env->regs[R_EDX], val = 0, new = env->regs[R_R8], mask = env->regs[R_R9];

    env->regs[R_R8] = 0;
    if (env->regs[R_ECX]) {
        return TDX_OPERAND_INVALID | OP_RCX;
    }
    if (!td_field(td, id, &val)) {
        return TDX_METADATA_FIELD_ID_INCORRECT | OP_RDX;
    }
    env->regs[R_R8] = val;
    if (wr) {
        if (MDFIELD(id) != TD_FIELD(0x17)) {
            return TDX_METADATA_FIELD_NOT_WRITABLE | OP_RDX;
        }
        if (!(td->config_flags & CONFIG_FLEXIBLE_VE) && ((new ^ val) & mask & 1)) {
            return 0xC0000C0300000000ULL | OP_R8;
        }
        td->td_ctls = (val & ~(mask & 1)) | (new & mask & 1);
    } else {
        env->regs[R_EDX] = -1;
    }
    return 0;
}

void helper_tdcall(CPUX86State *env, target_ulong next)
{
    TdxVp *vp = env->tdx_vp;
    uint64_t leaf = env->regs[R_EAX], ret;
    bool exited = false;

    if (!vp) {
        raise_exception_ra(env, EXCP06_ILLOP, GETPC());
    }
    if ((env->hflags & HF_CPL_MASK) || !(env->hflags & HF_CS64_MASK)) {
        raise_exception_err_ra(env, EXCP0D_GPF, 0, GETPC());
    }
    env->hflags &= ~HF_INHIBIT_IRQ_MASK;
    env->eflags &= ~RF_MASK;
    switch (leaf) {
    case 0:
        env->eip = next;
        tdg_vp_vmcall(env);
        return;
    case 1:
        env->regs[R_ECX] = vp->td->gpaw ? 52 : 48;
        env->regs[R_EDX] = vp->td->attributes;
        env->regs[R_R8] = vp->td->num_vcpus | (uint64_t)vp->td->max_vcpus << 32;
        env->regs[R_R9] = vp->index;
        env->regs[R_R10] = 1;
        env->regs[R_R11] = 0;
        ret = 0;
        break;
    case 2:
        ret = env->regs[R_EDX] < 4 ? 0 : TDX_OPERAND_INVALID | OP_RDX;
        break;
    case 3:
        if (!vp->ve.valid) {
            env->regs[R_ECX] = env->regs[R_EDX] = env->regs[R_R8] = env->regs[R_R9] = 0;
            env->regs[R_R10] = 0;
            ret = TDX_NO_VALID_VE_INFO;
            break;
        }
        env->regs[R_ECX] = vp->ve.reason;
        env->regs[R_EDX] = vp->ve.qual;
        env->regs[R_R8] = vp->ve.gla;
        env->regs[R_R9] = vp->ve.gpa;
        env->regs[R_R10] = vp->ve.len | (uint64_t)vp->ve.info << 32;
        vp->ve.valid = false;
        ret = 0;
        break;
    case 5:
        if (env->regs[R_ECX] >> 2) {
            ret = TDX_OPERAND_INVALID | OP_RCX;
            break;
        }
        vp->cpuid_ve_s = env->regs[R_ECX] & 1;
        vp->cpuid_ve_u = env->regs[R_ECX] & 2;
        ret = 0;
        break;
    case 6:
        ret = tdg_mem_page_accept(env, &exited);
        if (exited) {
            return;
        }
        break;
    case 7:
        ret = tdg_vm_rd_wr(env, false);
        break;
    case 8:
        ret = tdg_vm_rd_wr(env, true);
        break;
    case 11:
        ret = sys_rd(env);
        break;
    default:
        ret = TDX_OPERAND_INVALID | OP_RAX;
        break;
    }
    if (trace > 1) {
        fprintf(stderr, "tdx: tdcall %" PRIu64 " = %016" PRIx64 "\n", leaf, ret);
    }
    env->regs[R_EAX] = ret;
    env->eip = next;
}

/* ---------------------------------------------------------------------- */
/* SEAMCALL                                                               */

static void set_flags(CPUX86State *env, uint32_t flags)
{
    CC_OP = CC_OP_EFLAGS;
    CC_SRC = flags;
}

static bool maybe_busy(unsigned leaf)
{
    static unsigned last;

    if (!busy_every) {
        return false;
    }
    switch (leaf) {
    case 2: case 3: case 6: case 7: case 29: case 38:
        /* never twice in a row */
        if (last != leaf && ++busy_count >= busy_every) {
            busy_count = 0;
            last = leaf;
            return true;
        }
        last = 0;
    }
    return false;
}

void helper_seamcall(CPUX86State *env, target_ulong next)
{
    uint64_t rax = env->regs[R_EAX], ret, in[4];
    unsigned leaf = rax & 0xffff, version = (rax >> 16) & 0xff;
    bool entered = false;

    if (env->tdx_vp || !env->vmx_on || !(env->hflags & HF_CS64_MASK)) {
        raise_exception_ra(env, EXCP06_ILLOP, GETPC());
    }
    if (env->hflags & HF_CPL_MASK) {
        raise_exception_err_ra(env, EXCP0D_GPF, 0, GETPC());
    }
    env->hflags &= ~HF_INHIBIT_IRQ_MASK;
    env->eflags &= ~RF_MASK;
    env->eip = next;
    set_flags(env, 0);
    if (rax >> 63 || !tdx.page) {
        /* There is no P-SEAMLDR. */
        set_flags(env, CC_C);
        return;
    }
    in[0] = env->regs[R_ECX];
    in[1] = env->regs[R_EDX];
    in[2] = env->regs[R_R8];
    in[3] = env->regs[R_R9];
    if ((rax >> 24) || (version && leaf != 22 && leaf != 3)) {
        ret = TDX_OPERAND_INVALID | OP_RAX;
        goto out;
    }
    if (sys.state == SYS_DOWN) {
        ret = TDX_SYS_SHUTDOWN;
        goto out;
    }
    switch (leaf) {
    case 33:
        ret = tdh_sys_init(env);
        goto out;
    case 35:
        ret = tdh_sys_lp_init(env);
        goto out;
    case 34:
        ret = sys.lp_init >> env_cpu(env)->cpu_index & 1 ? sys_rd(env) : TDX_SYS_LP_INIT_NOT_DONE;
        goto out;
    case 45:
        ret = tdh_sys_config(env);
        goto out;
    case 31:
        ret = tdh_sys_key_config(env);
        goto out;
    case 69:
        sys.state = SYS_DOWN;
        ret = 0;
        goto out;
    }
    if (sys.state != SYS_READY) {
        ret = TDX_SYS_NOT_READY;
        goto out;
    }
    if (maybe_busy(leaf)) {
        ret = TDX_OPERAND_BUSY | OP_SEPT_TREE;
        env->regs[R_ECX] = env->regs[R_EDX] = 0;
        goto out;
    }
    switch (leaf) {
    case 0:
        ret = tdh_vp_enter(env, &entered);
        if (entered) {
            return;
        }
        break;
    case 1:
        ret = tdh_mng_addcx(env);
        break;
    case 2:
        ret = tdh_mem_page_add(env);
        break;
    case 3:
        ret = tdh_mem_sept_add(env);
        break;
    case 4:
        ret = tdh_vp_addcx(env);
        break;
    case 6:
        ret = tdh_mem_page_aug(env);
        break;
    case 7:
        ret = tdh_mem_range_block(env);
        break;
    case 8:
        ret = tdh_mng_key_config(env);
        break;
    case 9:
        ret = tdh_mng_create(env);
        break;
    case 10:
        ret = tdh_vp_create(env);
        break;
    case 11:
        ret = tdh_mng_rd(env);
        break;
    case 16:
        ret = tdh_mr_extend(env);
        break;
    case 17:
        ret = tdh_mr_finalize(env);
        break;
    case 18:
        ret = tdh_vp_flush(env);
        break;
    case 19:
        ret = tdh_mng_vpflushdone(env);
        break;
    case 20:
        ret = tdh_mng_key_freeid(env);
        break;
    case 21:
        ret = tdh_mng_init(env);
        break;
    case 22:
        ret = tdh_vp_init(env, version);
        break;
    case 24:
        ret = tdh_phymem_page_rdmd(env);
        break;
    case 25:
        ret = tdh_mem_sept_rd(env);
        break;
    case 26:
        ret = tdh_vp_rd(env);
        break;
    case 28:
        ret = tdh_phymem_page_reclaim(env);
        break;
    case 29:
        ret = tdh_mem_page_remove(env);
        break;
    case 30:
        ret = tdh_mem_sept_remove(env);
        break;
    case 36:
        ret = tdh_sys_tdmr_init(env);
        break;
    case 38:
        ret = tdh_mem_track(env);
        break;
    case 39:
        ret = tdh_mem_range_unblock(env);
        break;
    case 40:
        ret = tdh_phymem_cache_wb(env);
        break;
    case 41:
        ret = tdh_phymem_page_wbinvd(env);
        break;
    case 43:
        ret = tdh_vp_wr(env);
        break;
    default:
        ret = TDX_OPERAND_INVALID | OP_RAX;
        break;
    }
out:
    env->regs[R_EAX] = ret;
    if (trace && (trace > 1 || ret)) {
        fprintf(stderr, "tdx: seamcall %u rcx %" PRIx64 " rdx %" PRIx64 " r8 %" PRIx64 " r9 %"
                PRIx64 " = %016" PRIx64 "\n", leaf, in[0], in[1], in[2], in[3], ret);
    }
}

/* ---------------------------------------------------------------------- */
/* VMX: what KVM needs to load                                            */

static void check_vmx(CPUX86State *env, bool on, uintptr_t ra)
{
    if (env->tdx_vp || !(env->cr[4] & CR4_VMXE_MASK) || !(env->cr[0] & CR0_PE_MASK) ||
        (on && !env->vmx_on)) {
        raise_exception_ra(env, EXCP06_ILLOP, ra);
    }
    if (env->hflags & HF_CPL_MASK) {
        raise_exception_err_ra(env, EXCP0D_GPF, 0, ra);
    }
}

static GHashTable *vmcs_of(uint64_t pa, bool create)
{
    GHashTable *h;

    if (!sys.vmcs) {
        sys.vmcs = g_hash_table_new(NULL, NULL);
    }
    h = g_hash_table_lookup(sys.vmcs, (gpointer)pa);
    if (!h && create) {
        h = g_hash_table_new(NULL, NULL);
        g_hash_table_insert(sys.vmcs, (gpointer)pa, h);
    }
    return h;
}

/* VMfailValid if there is a VMCS */
static void vmx_fail(CPUX86State *env, int error)
{
    if (env->vmx_vmcs == -1ULL) {
        set_flags(env, CC_C);
        return;
    }
    g_hash_table_insert(vmcs_of(env->vmx_vmcs, true), (gpointer)0x4400UL, (gpointer)(long)error);
    set_flags(env, CC_Z);
}

void helper_vmx_op(CPUX86State *env, uint32_t op, target_ulong next)
{
    if (env->tdx_vp && op == 0xc1) {
        /* VMCALL in a TD */
        env->svm_next_eip = next;
        insn_ve(env, EXIT_VMCALL, 0, GETPC());
    }
    if (op == 0xc1 || op == 0xcd || op == 0xce) {
        raise_exception_ra(env, EXCP06_ILLOP, GETPC());
    }
    check_vmx(env, true, GETPC());
    env->hflags &= ~HF_INHIBIT_IRQ_MASK;
    env->eflags &= ~RF_MASK;
    env->eip = next;
    switch (op) {
    case 0xc4:
        env->vmx_on = false;
        env->vmx_vmcs = -1;
        set_flags(env, 0);
        break;
    default:
        vmx_fail(env, 7);   /* invalid control fields: no VM entry here */
        break;
    }
}

void helper_vmx_mem(CPUX86State *env, uint32_t op, target_ulong addr, target_ulong reg)
{
    uintptr_t ra = GETPC();
    uint64_t pa;
    GHashTable *h;

    check_vmx(env, op != 2, ra);
    switch (op) {
    case 2:     /* VMXON */
        pa = cpu_ldq_data_ra(env, addr, ra);
        if (!(env->vmx_feat_ctl & 1) || !(env->vmx_feat_ctl & 4)) {
            raise_exception_err_ra(env, EXCP0D_GPF, 0, ra);
        }
        if (env->vmx_on) {
            vmx_fail(env, 15);
            return;
        }
        env->vmx_on = true;
        env->vmx_vmcs = -1;
        break;
    case 0:     /* VMPTRLD */
        pa = cpu_ldq_data_ra(env, addr, ra);
        vmcs_of(pa, true);
        env->vmx_vmcs = pa;
        break;
    case 1:     /* VMCLEAR */
        pa = cpu_ldq_data_ra(env, addr, ra);
        h = vmcs_of(pa, false);
        (void)h;
        if (env->vmx_vmcs == pa) {
            env->vmx_vmcs = -1;
        }
        break;
    case 3:     /* VMPTRST */
        cpu_stq_data_ra(env, addr, env->vmx_vmcs, ra);
        break;
    default:    /* INVEPT, INVVPID */
        tlb_flush(env_cpu(env));
        break;
    }
    set_flags(env, 0);
}

target_ulong helper_vmx_vmread(CPUX86State *env, target_ulong field)
{
    check_vmx(env, true, GETPC());
    if (env->vmx_vmcs == -1ULL) {
        set_flags(env, CC_C);
        return 0;
    }
    set_flags(env, 0);
    return (target_ulong)g_hash_table_lookup(vmcs_of(env->vmx_vmcs, true), (gpointer)field);
}

void helper_vmx_vmwrite(CPUX86State *env, target_ulong field, target_ulong val)
{
    check_vmx(env, true, GETPC());
    if (env->vmx_vmcs == -1ULL) {
        set_flags(env, CC_C);
        return;
    }
    set_flags(env, 0);
    g_hash_table_insert(vmcs_of(env->vmx_vmcs, true), (gpointer)field, (gpointer)val);
}

void helper_movdir64b(CPUX86State *env, target_ulong dst, target_ulong src)
{
    uintptr_t ra = GETPC();
    uint64_t v[8];
    int i;

    if (dst & 63) {
        raise_exception_err_ra(env, EXCP0D_GPF, 0, ra);
    }
    for (i = 0; i < 8; i++) {
        v[i] = cpu_ldq_data_ra(env, src + 8 * i, ra);
    }
    for (i = 0; i < 8; i++) {
        cpu_stq_data_ra(env, dst + 8 * i, v[i], ra);
    }
}

/* ---------------------------------------------------------------------- */
/* MSRs, control registers, CPUID                                         */

static int vmx_msr(uint32_t msr, uint64_t *val)
{
    switch (msr) {
    case 0x480: /* BASIC */
        *val = 0x13 | 0x400ULL << 32 | 6ULL << 50 | 1ULL << 54 | 1ULL << 55 | 1ULL << 56 |
               1ULL << 60;
        return 0;
    case 0x481: /* pin based */
        *val = 0x16 | 0xffULL << 32;
        return 0;
    case 0x48d:
        *val = 0x16 | 0xffULL << 32;
        return 0;
    case 0x482: /* processor based */
        *val = 0x0401e172 | 0xfffbfffeULL << 32;
        return 0;
    case 0x48e:
        *val = 0x04006172 | 0xfffbfffeULL << 32;
        return 0;
    case 0x483: /* exit */
        *val = 0x00036dff | 0x77fbffffULL << 32;
        return 0;
    case 0x48f:
        *val = 0x00036dfb | 0x77fbffffULL << 32;
        return 0;
    case 0x484: /* entry */
        *val = 0x000011ff | 0x0077f3ffULL << 32;
        return 0;
    case 0x490:
        *val = 0x000011fb | 0x0077f3ffULL << 32;
        return 0;
    case 0x485: /* MISC */
        *val = 0x7004c1e7;
        return 0;
    case 0x486:
        *val = 0x80000021;
        return 0;
    case 0x487:
        *val = 0xffffffff;
        return 0;
    case 0x488:
        *val = 0x2000;
        return 0;
    case 0x489:
        *val = 0x01ff7fff;
        return 0;
    case 0x48a:
        *val = 0x2e;
        return 0;
    case 0x48b: /* secondary: no ENCLS, PT, SGX, user wait, TSC scaling as on SPR */
        *val = (0x033fbfffULL & ~(1ULL << 14)) << 32;
        return 0;
    case 0x48c: /* EPT, VPID */
        *val = 0xf01ULL << 32 | 0x067341c1;
        return 0;
    case 0x491:
        *val = 1;
        return 0;
    case 0x492: /* tertiary: IPI virtualization */
        *val = 0x10;
        return 0;
    case 0x493:
        *val = 0;
        return 0;
    }
    return 1;
}

/* MSRs which a TD has without the module's help */
static bool native_msr(uint32_t msr)
{
    switch (msr) {
    case MSR_FSBASE: case MSR_GSBASE: case MSR_KERNELGSBASE: case MSR_STAR: case MSR_LSTAR:
    case MSR_FMASK: case MSR_TSC_AUX: case MSR_PAT: case MSR_IA32_SYSENTER_CS:
    case MSR_IA32_SYSENTER_ESP: case MSR_IA32_SYSENTER_EIP: case MSR_IA32_XSS:
    case MSR_IA32_SPEC_CTRL: case MSR_IA32_PRED_CMD: case MSR_IA32_TSC:
        return true;
    }
    return false;
}

int tdx_rdmsr(CPUX86State *env, uint32_t msr, uint64_t *val, uintptr_t ra)
{
    TdxVp *vp = env->tdx_vp;

    if (vp) {
        if (native_msr(msr) || msr == MSR_EFER) {
            return 2;
        }
        switch (msr) {
        case 0x808:
            *val = vp->tpr;
            return 0;
        case 0x80a:
            *val = MAX(vp->tpr, highest(vp->isr) < 0 ? 0 : highest(vp->isr) & 0xf0);
            return 0;
        case 0x810 ... 0x817:
            *val = vp->isr[msr & 7];
            return 0;
        case 0x818 ... 0x81f:
            *val = 0;
            return 0;
        case 0x820 ... 0x827:
            *val = vp->irr[msr & 7];
            return 0;
        case 0x10a: /* ARCH_CAPABILITIES */
            *val = 0;
            return 0;
        case MSR_IA32_APICBASE:
            *val = 0xfee00c00 | (vp->index == 0) << 8;
            return 0;
        case MSR_IA32_FEATURE_CONTROL:
        case 0x480 ... 0x493:
            return -1;
        }
        insn_ve(env, EXIT_MSR_READ, 0, ra);
    }
    switch (msr) {
    case MSR_IA32_FEATURE_CONTROL:
        *val = env->vmx_feat_ctl;
        return 0;
    case 0x10a: /* IA32_ARCH_CAPABILITIES: RDCL, SKIP_L1DFL, SSB, MDS, PSCHANGE, TAA, MMIO, BHI, GDS, RFDS */
        *val = 0x0c10e179;
        return 0;
    case 0x87:  /* IA32_MKTME_KEYID_PARTITIONING */
        *val = TDX_NUM_MKTME_KEYIDS | (uint64_t)TDX_NUM_KEYIDS << 32;
        return 0;
    case 0x981: /* IA32_TME_CAPABILITY */
        *val = 5 | (uint64_t)TDX_KEYID_BITS << 32 |
               ((1ULL << TDX_KEYID_BITS) - 1) << 36;
        return 0;
    case 0x982: /* IA32_TME_ACTIVATE */
        *val = 3 | (uint64_t)TDX_KEYID_BITS << 32 | 5ULL << 36 | 5ULL << 48;
        return 0;
    }
    return vmx_msr(msr, val);
}

int tdx_wrmsr(CPUX86State *env, uint32_t msr, uint64_t val, uintptr_t ra)
{
    TdxVp *vp = env->tdx_vp;
    uint64_t unused;
    int v;

    if (vp) {
        if (native_msr(msr)) {
            if (msr == MSR_IA32_XSS && (val & ~vp->td->xfam)) {
                return -1;
            }
            return 2;
        }
        switch (msr) {
        case MSR_EFER:
            if ((val ^ env->efer) & ~(uint64_t)(MSR_EFER_SCE | MSR_EFER_LMA)) {
                insn_ve(env, EXIT_MSR_WRITE, 0, ra);
            }
            return 2;
        case 0x808:
            vp->tpr = val;
            update_virq(env);
            return 0;
        case 0x80b:
            v = highest(vp->isr);
            if (v >= 0) {
                vp->isr[v / 32] &= ~(1u << (v % 32));
            }
            update_virq(env);
            return 0;
        case 0x83f:
            if (val < 16 || val > 255) {
                return -1;
            }
            vp->irr[val / 32] |= 1u << (val % 32);
            update_virq(env);
            return 0;
        case MSR_IA32_FEATURE_CONTROL:
        case 0x480 ... 0x493:
            return -1;
        }
        insn_ve(env, EXIT_MSR_WRITE, 0, ra);
    }
    switch (msr) {
    case MSR_IA32_FEATURE_CONTROL:
        if (env->vmx_feat_ctl & 1) {
            return -1;
        }
        env->vmx_feat_ctl = val;
        return 0;
    case 0x87:
    case 0x981:
    case 0x982:
        return -1;
    }
    return vmx_msr(msr, &unused) ? 1 : -1;
}

/* true: go on natively */
bool tdx_write_cr(CPUX86State *env, int reg, uint64_t val, uintptr_t ra)
{
    if (!env->tdx_vp) {
        if (reg == 4 && env->vmx_on && !(val & CR4_VMXE_MASK)) {
            raise_exception_err_ra(env, EXCP0D_GPF, 0, ra);
        }
        return true;
    }
    switch (reg) {
    case 0:
        if ((val >> 32) || (!(val & CR0_PE_MASK) && (val & CR0_PG_MASK))) {
            raise_exception_err_ra(env, EXCP0D_GPF, 0, ra);
        }
        if (!(val & CR0_NE_MASK)) {
            raise_exception_err_ra(env, EXCP0D_GPF, 0, ra);     /* fixed to 1 by VMX */
        }
        if (!(val & CR0_PE_MASK) || (val & (CR0_NW_MASK | CR0_CD_MASK))) {
            insn_ve(env, EXIT_CR, 0, ra);
        }
        break;
    case 4:
        if (val & cr4_reserved_bits(env)) {
            raise_exception_err_ra(env, EXCP0D_GPF, 0, ra);
        }
        if (!(val & CR4_MCE_MASK) || (val & (CR4_VMXE_MASK | CR4_SMXE_MASK))) {
            insn_ve(env, EXIT_CR, 4, ra);
        }
        break;
    case 8:
        env->tdx_vp->tpr = (val & 15) << 4;
        update_virq(env);
        return false;
    }
    return true;
}

bool tdx_cpuid(CPUX86State *env, uintptr_t ra)
{
    TdxVp *vp = env->tdx_vp;
    uint32_t leaf = env->regs[R_EAX], sub = env->regs[R_ECX];
    bool user = env->hflags & HF_CPL_MASK;
    TdxCpuid *c;

    if (!vp) {
        return false;
    }
    if (user ? vp->cpuid_ve_u : vp->cpuid_ve_s) {
        insn_ve(env, EXIT_CPUID, 0, ra);
    }
    c = find_cpuid(vp->td, leaf, sub);
    if (!c) {
        insn_ve(env, EXIT_CPUID, 0, ra);
    }
    env->regs[R_EAX] = c->v[0];
    env->regs[R_EBX] = c->v[1];
    env->regs[R_ECX] = c->v[2];
    env->regs[R_EDX] = c->v[3];
    if (leaf == 1) {
        env->regs[R_EBX] |= vp->x2apic_id << 24;
        if (env->cr[4] & CR4_OSXSAVE_MASK) {
            env->regs[R_ECX] |= 1 << 27;
        } else {
            env->regs[R_ECX] &= ~(1u << 27);
        }
    }
    return true;
}

/*
 * Emulation of an SEV-SNP capable host
 *
 * The reverse map table (APM volume 2, 15.36), memory encryption by ASID
 * (15.34) and the world switch of SEV-ES guests (15.35), for test of a
 * hypervisor.  Only with -accel tcg,thread=single.
 *
 * Encryption: RAM of a page holds either what is in DRAM (key 0), or what the
 * owner of one key sees.  A translation is only ever made for the state that
 * the page is in: whoever needs the other has it converted in place, and all
 * TLBs flushed.  Only pages that are assigned in the RMP are ever in another
 * state than raw, so that devices see raw memory without being asked.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/log.h"
#include "qemu/guest-random.h"
#include "qemu/main-loop.h"
#include "cpu.h"
#include "exec/address-spaces.h"
#include "exec/exec-all.h"
#include "exec/helper-proto.h"
#include "exec/cpu_ldst.h"
#include "exec/cputlb.h"
#include "exec/ram_addr.h"
#include "tcg/helper-tcg.h"
#include "snp-host.h"
#include "snp-tcg.h"

SnpHost snp;

/*
 * 15.36.10: an access may fail the RMP check because another processor uses
 * the entry; software has to retry.  Of so many checks one does, if not 0.
 */
static unsigned spurious;

/* ---------------------------------------------------------------------- */
/* RAM                                                                    */

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

uint8_t *snp_ram(hwaddr pa)
{
    return ram_of(pa, NULL);
}

void snp_host_init(hwaddr rmp_base, hwaddr rmp_size, hwaddr ram_top)
{
    snp.present = true;
    snp.rmp_base = rmp_base;
    snp.rmp_end = rmp_base + rmp_size - 1;
    snp.key_of_n = ram_top >> 12;
    snp.key_of = g_new0(uint16_t, snp.key_of_n);
    qemu_guest_getrandom_nofail(snp.key, sizeof(snp.key));
    if (getenv("SNP_SPURIOUS")) {
        spurious = atoi(getenv("SNP_SPURIOUS"));
    }
}

/* With SNP enabled the processor knows the table. */
static void snp_find_rmp(void)
{
    if (!snp.rmp) {
        snp.rmp_mem = snp_ram(snp.rmp_base);
        g_assert(snp.rmp_mem);
        snp.rmp = (SnpRmpEntry *)(snp.rmp_mem + SNP_BOOKKEEPING);
        snp.npfn = (snp.rmp_end + 1 - snp.rmp_base - SNP_BOOKKEEPING) / sizeof(SnpRmpEntry);
    }
}

void snp_flush_tlbs(void)
{
    CPUState *cs;

    CPU_FOREACH(cs) {
        tlb_flush(cs);
    }
}

/* ---------------------------------------------------------------------- */
/* Encryption: a Feistel permutation of 16-byte blocks, tweaked by address  */

static inline uint64_t round_of(uint64_t x, uint64_t k)
{
    x = (x ^ k) * 0x9e3779b97f4a7c15ULL;
    x ^= x >> 29;
    x *= 0xbf58476d1ce4e5b9ULL;
    return x ^ (x >> 32);
}

static void crypt_page(uint8_t *p, hwaddr pa, unsigned key, bool encrypt)
{
    uint64_t k0 = snp.key[key][0] ^ (pa & TARGET_PAGE_MASK) * 0xd6e8feb86659fd93ULL;
    uint64_t k1 = snp.key[key][1];
    int i;

    for (i = 0; i < TARGET_PAGE_SIZE; i += 16) {
        uint64_t l = ldq_le_p(p + i), r = ldq_le_p(p + i + 8);

        if (encrypt) {
            l ^= round_of(r, k0 + i);
            r ^= round_of(l, k1 + i);
            l ^= round_of(r, k1 - k0 - i);
            r ^= round_of(l, k0 - i);
        } else {
            r ^= round_of(l, k0 - i);
            l ^= round_of(r, k1 - k0 - i);
            r ^= round_of(l, k1 + i);
            l ^= round_of(r, k0 + i);
        }
        stq_le_p(p + i, l);
        stq_le_p(p + i + 8, r);
    }
}

void snp_set_key(hwaddr pa, unsigned key)
{
    uint64_t pfn = pa >> 12;
    ram_addr_t ram_addr;
    uint8_t *p;
    unsigned old;

    if (pfn >= snp.key_of_n || likely(snp.key_of[pfn] == key)) {
        return;
    }
    p = ram_of(pa, &ram_addr);
    if (!p) {
        return;
    }
    old = snp.key_of[pfn];
    if (old) {
        crypt_page(p, pa, old, true);
    }
    if (key) {
        crypt_page(p, pa, key, false);
    }
    snp.key_of[pfn] = key;
    tb_invalidate_phys_range(ram_addr, ram_addr + TARGET_PAGE_SIZE - 1);
    snp_flush_tlbs();
}

void snp_forget_key(unsigned asid, bool new_key)
{
    uint64_t pfn;

    for (pfn = 0; pfn < snp.key_of_n; pfn++) {
        if (snp.key_of[pfn] == asid) {
            snp_set_key(pfn << 12, 0);
        }
    }
    if (new_key) {
        qemu_guest_getrandom_nofail(snp.key[asid], sizeof(snp.key[asid]));
    }
}

/* ---------------------------------------------------------------------- */
/* The RMP                                                                */

static inline bool assigned(const SnpRmpEntry *e)
{
    return e->lo & RMP_ASSIGNED;
}

void snp_rmp_set(hwaddr pa, uint64_t lo, uint64_t hi)
{
    SnpRmpEntry *e = snp_rmp(pa);
    SnpRmpEntry *base = snp_rmp(pa & ~0x1fffffULL);

    if (assigned(e)) {
        snp.asid_pages[snp_rmp_asid(e)]--;
        if (e != base) {
            base->lo -= 1ULL << RMP_SUBPAGES_SHIFT;
        }
    }
    e->lo = (lo & ~RMP_SUBPAGES) | (e == base ? e->lo & RMP_SUBPAGES : 0);
    e->hi = hi;
    if (assigned(e)) {
        snp.asid_pages[snp_rmp_asid(e)]++;
        if (e != base) {
            base->lo += 1ULL << RMP_SUBPAGES_SHIFT;
        }
    }
}

/* The entry that is authoritative for a page; *large tells its size. */
static SnpRmpEntry *rmp_of(hwaddr pa, bool *large)
{
    SnpRmpEntry *base = snp_rmp(pa & ~0x1fffffULL);

    *large = (base->lo & (RMP_ASSIGNED | RMP_2M)) == (RMP_ASSIGNED | RMP_2M);
    return *large ? base : snp_rmp(pa);
}

static bool overlaps_rmp(hwaddr pa)
{
    return pa >= snp.rmp_base && pa <= snp.rmp_end;
}

/* 15.36.10, Hypervisor-Owned, for a mapping of a size. */
bool snp_hypervisor_owned(hwaddr pa, uint64_t size)
{
    SnpRmpEntry *base;

    if (snp.locked && overlaps_rmp(pa)) {
        return false;   /* trusted memory region of the firmware */
    }
    if (!snp_covered(pa)) {
        return true;
    }
    base = snp_rmp(pa & ~0x1fffffULL);
    if (size >= 0x200000) {
        return !(base->lo & (RMP_ASSIGNED | RMP_SUBPAGES));
    }
    return !assigned(snp_rmp(pa)) &&
           (base->lo & (RMP_ASSIGNED | RMP_2M)) != (RMP_ASSIGNED | RMP_2M);
}

bool snp_in_use(hwaddr pa)
{
    CPUState *cs;

    CPU_FOREACH(cs) {
        CPUX86State *env = cpu_env(cs);

        if (env->hflags & HF_GUEST_MASK) {
            if ((env->vm_vmcb & TARGET_PAGE_MASK) == (pa & TARGET_PAGE_MASK) ||
                ((env->snp_guest & SNP_G_ES) && env->snp_vmsa == (pa & TARGET_PAGE_MASK))) {
                return true;
            }
        }
    }
    return false;
}

int snp_rmpupdate(hwaddr pa, uint64_t gpa, bool assign, bool large, bool immutable, uint32_t asid)
{
    hwaddr size = large ? 0x200000 : 0x1000, at;
    uint64_t lo = 0, hi = 0;
    SnpRmpEntry *e;
    bool is_large;

    if (!snp_covered(pa) || !snp_covered(pa + size - 1) || (pa & (size - 1)) ||
        overlaps_rmp(pa) || asid > 0x3ff ||
        (assign && large && (gpa & 0x1fffff)) || (!assign && asid)) {
        return SNP_FAIL_INPUT;
    }
    e = rmp_of(pa, &is_large);
    /* a 4K page in the middle of a 2M page, and a 2M page over 4K pages */
    if (is_large && !large) {
        if (e->lo & RMP_IMMUTABLE) {
            return SNP_FAIL_PERMISSION;
        }
        return SNP_FAIL_OVERLAP;
    }
    if (large && !is_large && (e->lo & RMP_SUBPAGES)) {
        return SNP_FAIL_OVERLAP;
    }
    if (e->lo & RMP_IMMUTABLE) {
        return SNP_FAIL_PERMISSION;
    }
    for (at = pa; at < pa + size; at += 0x1000) {
        if (snp_in_use(at)) {
            return SNP_FAIL_INUSE;
        }
    }

    for (at = pa; at < pa + size; at += 0x1000) {
        snp_set_key(at, 0);
        if (assign) {
            /* Validated and VMSA are cleared, VMPL0 has all permissions. */
            lo = RMP_ASSIGNED | (large ? RMP_2M : 0) | ((gpa + (at - pa)) & RMP_GPA) |
                 (uint64_t)asid << RMP_ASID_SHIFT;
            hi = RMP_PERM_ALL;
        }
        if (immutable) {
            lo |= RMP_IMMUTABLE;
        }
        snp_rmp_set(at, lo, hi);
    }
    snp_flush_tlbs();
    return SNP_SUCCESS;
}

static int psmash(hwaddr pa)
{
    SnpRmpEntry *base;
    hwaddr at;

    if ((pa & 0x1fffff) || !snp_covered(pa) || !snp_covered(pa + 0x1fffff)) {
        return SNP_FAIL_INPUT;
    }
    base = snp_rmp(pa);
    if ((base->lo & (RMP_ASSIGNED | RMP_2M)) != (RMP_ASSIGNED | RMP_2M)) {
        return SNP_FAIL_BADADDR;
    }
    if (base->lo & RMP_IMMUTABLE) {
        return SNP_FAIL_PERMISSION;
    }
    for (at = pa + 0x1fffff; at > pa; at -= 0x1000) {
        hwaddr page = at & TARGET_PAGE_MASK;
        uint64_t lo = (base->lo & ~(RMP_2M | RMP_GPA)) |
                      (((base->lo & RMP_GPA) + (page - pa)) & RMP_GPA);

        snp_rmp_set(page, lo, base->hi);
        if (page == pa) {
            break;
        }
    }
    snp_flush_tlbs();
    return SNP_SUCCESS;
}

/* ---------------------------------------------------------------------- */
/* Checks of accesses, table 15-39                                        */

bool snp_enabled(CPUX86State *env)
{
    return env->snp_syscfg & SYSCFG_SNP_EN;
}

/*
 * An access of an SNP-active guest, of which the page tables are already
 * satisfied, to private memory.  0 or what is wrong with it.
 */
int snp_check_private(CPUX86State *env, hwaddr gpa, hwaddr pa, uint64_t npt_size,
                      MMUAccessType type, bool user, int *prot)
{
    SnpRmpEntry *e;
    bool large;
    uint64_t entry_gpa;
    uint8_t perm;

    if (!snp_covered(pa)) {
        return SNP_CHECK_RMP;
    }
    if (unlikely(spurious)) {
        static unsigned count;

        if (++count >= spurious) {
            count = 0;
            return SNP_CHECK_RMP;
        }
    }
    e = rmp_of(pa, &large);
    if (!assigned(e) || snp_rmp_asid(e) != env->snp_asid) {
        return SNP_CHECK_RMP;
    }
    entry_gpa = e->lo & RMP_GPA;
    if (entry_gpa + (large ? pa & 0x1ff000 : 0) != (gpa & TARGET_PAGE_MASK)) {
        return SNP_CHECK_RMP;
    }
    if (e->lo & RMP_IMMUTABLE) {
        return SNP_CHECK_RMP;
    }
    if (large != (npt_size >= 0x200000)) {
        return SNP_CHECK_RMP;
    }
    if (!(e->lo & RMP_VALIDATED)) {
        return SNP_CHECK_NOT_VALIDATED;
    }
    perm = e->hi >> (8 * env->snp_vmpl);
    if (!(perm & RMP_PERM_R)) {
        *prot &= ~(PAGE_READ | PAGE_WRITE);
    }
    if (!(perm & RMP_PERM_W)) {
        *prot &= ~PAGE_WRITE;
    }
    if (!(perm & (user ? RMP_PERM_XU : RMP_PERM_XS))) {
        *prot &= ~PAGE_EXEC;
    }
    if (!(*prot & (1 << type))) {
        return SNP_CHECK_VMPL;
    }
    return 0;
}

/* ---------------------------------------------------------------------- */
/* Instructions                                                           */

static void set_result(CPUX86State *env, uint32_t code, bool carry)
{
    uint32_t flags = cpu_cc_compute_all(env) & ~(CC_C | CC_Z | CC_S | CC_P | CC_A | CC_O);

    env->regs[R_EAX] = code;
    if (carry) {
        flags |= CC_C;
    }
    if (!code) {
        flags |= CC_Z;
    }
    if ((int32_t)code < 0) {
        flags |= CC_S;
    }
    flags |= compute_pf(code);
    CC_SRC = flags;
    CC_OP = CC_OP_EFLAGS;
}

/* RMPUPDATE, PSMASH: the host at CPL 0 with SNP enabled */
static void check_host_insn(CPUX86State *env, uintptr_t ra)
{
    if (!snp_enabled(env) || (env->hflags & HF_GUEST_MASK)) {
        raise_exception_ra(env, EXCP06_ILLOP, ra);
    }
    if (env->hflags & HF_CPL_MASK) {
        raise_exception_err_ra(env, EXCP0D_GPF, 0, ra);
    }
}

void helper_rmpupdate(CPUX86State *env)
{
    uintptr_t ra = GETPC();
    uint64_t q0, q1;
    uint8_t assign, large, immutable;
    int ret;

    check_host_insn(env, ra);
    q0 = cpu_ldq_data_ra(env, env->regs[R_ECX], ra);
    q1 = cpu_ldq_data_ra(env, env->regs[R_ECX] + 8, ra);
    assign = q1;
    large = q1 >> 8;
    immutable = q1 >> 16;
    if (assign > 1 || large > 1 || immutable > 1 || ((q1 >> 24) & 0xff)) {
        ret = SNP_FAIL_INPUT;
    } else {
        ret = snp_rmpupdate(env->regs[R_EAX], q0, assign, large, immutable, q1 >> 32);
    }
    qemu_log_mask(CPU_LOG_TB_IN_ASM, "RMPUPDATE " TARGET_FMT_lx " gpa %" PRIx64
                  " %016" PRIx64 " = %d\n", env->regs[R_EAX], q0, q1, ret);
    set_result(env, ret, false);
}

void helper_psmash(CPUX86State *env)
{
    check_host_insn(env, GETPC());
    set_result(env, psmash(env->regs[R_EAX]), false);
}

/*
 * The page that PVALIDATE or RMPADJUST means.  Faults as an access to private
 * memory would, except that it need not be validated.  false: the size differs,
 * which the guest is told.
 */
static bool page_of_insn(CPUX86State *env, target_ulong va, bool large, hwaddr *pa, uintptr_t ra)
{
    SnpWalk w;
    SnpRmpEntry *e;
    bool rmp_large;

    snp_walk(env, va, &w, ra);
    if (!snp_covered(w.pa)) {
        snp_npf(env, va, w.gpa, NPF_RMP | NPF_ENC | PG_ERROR_P_MASK | PG_ERROR_U_MASK, ra);
    }
    e = rmp_of(w.pa, &rmp_large);
    if (!assigned(e) || snp_rmp_asid(e) != env->snp_asid || (e->lo & RMP_IMMUTABLE) ||
        (e->lo & RMP_GPA) + (rmp_large ? w.pa & 0x1ff000 : 0) != (w.gpa & TARGET_PAGE_MASK)) {
        snp_npf(env, va, w.gpa, NPF_RMP | NPF_ENC | PG_ERROR_P_MASK | PG_ERROR_U_MASK, ra);
    }
    if (!large && (rmp_large || w.npt_size >= 0x200000)) {
        snp_npf(env, va, w.gpa,
                NPF_RMP | NPF_ENC | NPF_SIZEM | PG_ERROR_P_MASK | PG_ERROR_U_MASK, ra);
    }
    if (large && (!rmp_large || w.npt_size < 0x200000)) {
        return false;
    }
    *pa = w.pa & (large ? ~0x1fffffULL : ~0xfffULL);
    return true;
}

static void check_guest_insn(CPUX86State *env, uintptr_t ra)
{
    if (!(env->hflags & HF_GUEST_MASK) || !(env->snp_guest & SNP_G_SNP)) {
        raise_exception_ra(env, EXCP06_ILLOP, ra);
    }
    if (env->hflags & HF_CPL_MASK) {
        raise_exception_err_ra(env, EXCP0D_GPF, 0, ra);
    }
}

void helper_pvalidate(CPUX86State *env)
{
    uintptr_t ra = GETPC();
    uint32_t ecx = env->regs[R_ECX], edx = env->regs[R_EDX];
    target_ulong va = env->regs[R_EAX];
    bool large = ecx & 1, validate = edx & 1, was;
    hwaddr pa, at;

    if (!(env->hflags & HF_CS64_MASK)) {
        va = (uint32_t)va;
    }
    check_guest_insn(env, ra);
    if (ecx > 1 || edx > 1 || (large && (va & 0x1ff000))) {
        set_result(env, SNP_FAIL_INPUT, false);
        return;
    }
    if (env->snp_vmpl) {
        set_result(env, SNP_FAIL_PERMISSION, false);
        return;
    }
    if (!page_of_insn(env, va & TARGET_PAGE_MASK, large, &pa, ra)) {
        set_result(env, SNP_FAIL_SIZEMISMATCH, false);
        return;
    }
    was = snp_rmp(pa)->lo & RMP_VALIDATED;
    if (was != validate) {
        for (at = pa; at < pa + (large ? 0x200000 : 0x1000); at += 0x1000) {
            SnpRmpEntry *e = snp_rmp(at);

            snp_rmp_set(at, (e->lo & ~RMP_VALIDATED) | (validate ? RMP_VALIDATED : 0), e->hi);
        }
        snp_flush_tlbs();
    }
    set_result(env, SNP_SUCCESS, was == validate);
}

void helper_rmpadjust(CPUX86State *env)
{
    uintptr_t ra = GETPC();
    uint64_t rdx = env->regs[R_EDX];
    bool large = env->regs[R_ECX] & 1, vmsa = rdx & (1 << 16);
    unsigned target = rdx & 0xff, perm = (rdx >> 8) & 0xff;
    target_ulong va = env->regs[R_EAX];
    SnpRmpEntry *e;
    hwaddr pa;
    uint64_t lo;

    check_guest_insn(env, ra);
    if ((large && (va & 0x1ff000)) || target > 3 || (perm & 0xe0) || (vmsa && large)) {
        set_result(env, SNP_FAIL_INPUT, false);
        return;
    }
    if (target <= env->snp_vmpl) {
        set_result(env, SNP_FAIL_PERMISSION, false);
        return;
    }
    if (!page_of_insn(env, va & TARGET_PAGE_MASK, large, &pa, ra)) {
        set_result(env, SNP_FAIL_SIZEMISMATCH, false);
        return;
    }
    e = snp_rmp(pa);
    if (!(e->lo & RMP_VALIDATED)) {
        env->cr[2] = va;
        raise_exception_err_ra(env, EXCP_VC, SNP_VC_NOT_VALIDATED, ra);
    }
    if (perm & ~(e->hi >> (8 * env->snp_vmpl))) {
        set_result(env, SNP_FAIL_PERMISSION, false);
        return;
    }
    lo = e->lo;
    if (env->snp_vmpl == 0) {
        lo = (lo & ~RMP_VMSA) | (vmsa ? RMP_VMSA : 0);
    }
    if (snp_in_use(pa)) {
        set_result(env, SNP_FAIL_INUSE, false);
        return;
    }
    snp_rmp_set(pa, lo, (e->hi & ~(0xffULL << (8 * target))) | (uint64_t)perm << (8 * target));
    snp_flush_tlbs();
    set_result(env, SNP_SUCCESS, false);
}

void helper_vmgexit(CPUX86State *env)
{
    if ((env->hflags & HF_GUEST_MASK) && (env->snp_guest & SNP_G_ES)) {
        cpu_vmexit(env, SVM_EXIT_VMGEXIT, 0, GETPC());
    }
    helper_vmmcall(env);
}

/* ---------------------------------------------------------------------- */
/* MSRs                                                                   */

/* 1: not ours, 0: done, -1: #GP */
int snp_rdmsr(CPUX86State *env, uint32_t msr, uint64_t *val)
{
    bool guest = env->hflags & HF_GUEST_MASK;

    if (!env_archcpu(env)->snp_host) {
        return 1;
    }
    switch (msr) {
    case MSR_SNP_SYSCFG:
        *val = env->snp_syscfg;
        return 0;
    case MSR_SNP_HWCR:
        *val = env->snp_hwcr;
        return 0;
    case MSR_SNP_GHCB:
        if (!guest || !(env->snp_guest & SNP_G_ES)) {
            return -1;
        }
        *val = env->snp_ghcb;
        return 0;
    case MSR_SNP_STATUS:
        *val = 0;
        if (guest) {
            *val = env->snp_guest & 7;
            if (env->snp_guest & SNP_G_SNP) {
                *val |= (env->snp_sev_features & ~1ULL) << 2;
            }
        }
        return 0;
    case MSR_SNP_RMP_BASE:
        *val = snp.present ? snp.rmp_base : 0;
        return 0;
    case MSR_SNP_RMP_END:
        *val = snp.present ? snp.rmp_end : 0;
        return 0;
    case MSR_SNP_PAGE_FLUSH:
        return -1;
    case 0xc0010134:    /* GUEST_TSC_FREQ: no secure TSC */
        return -1;
    }
    return 1;
}

int snp_wrmsr(CPUX86State *env, uint32_t msr, uint64_t val)
{
    bool guest = env->hflags & HF_GUEST_MASK;

    if (!env_archcpu(env)->snp_host) {
        return 1;
    }
    switch (msr) {
    case MSR_SNP_SYSCFG:
        if (snp_enabled(env)) {
            return 0;   /* ignored */
        }
        env->snp_syscfg = val;
        env->snp_cmask = val & SYSCFG_MEM_ENCRYPT ? SNP_CMASK : 0;
        if (val & SYSCFG_SNP_EN) {
            if (!(val & SYSCFG_MEM_ENCRYPT) || !snp.present) {
                env->snp_syscfg &= ~SYSCFG_SNP_EN;
                return -1;
            }
            snp_find_rmp();
        }
        tlb_flush(env_cpu(env));
        return 0;
    case MSR_SNP_HWCR:
        env->snp_hwcr = val | (env->snp_hwcr & 1);
        return 0;
    case MSR_SNP_GHCB:
        if (!guest || !(env->snp_guest & SNP_G_ES)) {
            return -1;
        }
        env->snp_ghcb = val;
        return 0;
    case MSR_SNP_STATUS:
    case 0xc0010134:
        return -1;
    case MSR_SNP_RMP_BASE:
    case MSR_SNP_RMP_END:
        return snp_enabled(env) ? -1 : 0;       /* set by the BIOS, fixed here */
    case MSR_SNP_PAGE_FLUSH:
        return val & 0xfff ? 0 : -1;            /* memory is coherent */
    case MSR_VM_HSAVE_PA:
        if (val && snp_enabled(env) && !snp_hypervisor_owned(val, 0x1000)) {
            return -1;
        }
        return 1;
    }
    return 1;
}

/* ---------------------------------------------------------------------- */
/* World switch of SEV-ES guests                                          */

/* Table 15-33 */
bool snp_exit_is_automatic(uint64_t code, uint64_t info_1)
{
    switch (code) {
    case SVM_EXIT_EXCP_BASE + EXCP12_MCHK:
    case SVM_EXIT_INTR ... SVM_EXIT_VINTR:
    case SVM_EXIT_PAUSE:
    case SVM_EXIT_HLT:
    case SVM_EXIT_SHUTDOWN:
    case SVM_EXIT_EFER_TRAP:
    case SVM_EXIT_CR0_TRAP ... SVM_EXIT_CR0_TRAP + 15:
    case SVM_EXIT_VMGEXIT:
    case -4ULL ... -1ULL:
        return true;
    case SVM_EXIT_NPF:
        return !(info_1 & PG_ERROR_RSVD_MASK);
    }
    return false;
}

bool snp_exit_advances(uint64_t code)
{
    switch (code) {
    case SVM_EXIT_PAUSE:
    case SVM_EXIT_HLT:
    case SVM_EXIT_EFER_TRAP:
    case SVM_EXIT_CR0_TRAP ... SVM_EXIT_CR0_TRAP + 15:
    case SVM_EXIT_VMGEXIT:
        return true;
    }
    return false;
}

static void get_seg(CPUX86State *env, const uint8_t *p, SegmentCache *sc)
{
    unsigned flags = lduw_le_p(p + 2);
    int shift = 64 - 48;

    sc->selector = lduw_le_p(p);
    sc->flags = ((flags & 0xff) << 8) | ((flags & 0x0f00) << 12);
    sc->limit = ldl_le_p(p + 4);
    sc->base = (int64_t)(ldq_le_p(p + 8) << shift) >> shift;
}

static void put_seg(uint8_t *p, const SegmentCache *sc)
{
    stw_le_p(p, sc->selector);
    stw_le_p(p + 2, ((sc->flags >> 8) & 0xff) | ((sc->flags >> 12) & 0x0f00));
    stl_le_p(p + 4, sc->limit);
    stq_le_p(p + 8, sc->base);
}

static const struct {
    unsigned at;
    int reg;
} gprs[] = {
    { 0x308, R_ECX }, { 0x310, R_EDX }, { 0x318, R_EBX }, { 0x328, R_EBP },
    { 0x330, R_ESI }, { 0x338, R_EDI }, { 0x340, R_R8 }, { 0x348, R_R9 },
    { 0x350, R_R10 }, { 0x358, R_R11 }, { 0x360, R_R12 }, { 0x368, R_R13 },
    { 0x370, R_R14 }, { 0x378, R_R15 },
};

#define SA(field) offsetof(struct vmcb_save_area, field)

static void load_more(CPUX86State *env, const uint8_t *v)
{
    SegmentCache sc;
    int i;

    get_seg(env, v + SA(fs), &sc);
    cpu_x86_load_seg_cache(env, R_FS, sc.selector, sc.base, sc.limit, sc.flags);
    get_seg(env, v + SA(gs), &sc);
    cpu_x86_load_seg_cache(env, R_GS, sc.selector, sc.base, sc.limit, sc.flags);
    get_seg(env, v + SA(tr), &env->tr);
    get_seg(env, v + SA(ldtr), &env->ldt);
    env->kernelgsbase = ldq_le_p(v + SA(kernel_gs_base));
    env->star = ldq_le_p(v + SA(star));
    env->lstar = ldq_le_p(v + SA(lstar));
    env->cstar = ldq_le_p(v + SA(cstar));
    env->fmask = ldq_le_p(v + SA(sfmask));
    env->sysenter_cs = ldq_le_p(v + SA(sysenter_cs));
    env->sysenter_esp = ldq_le_p(v + SA(sysenter_esp));
    env->sysenter_eip = ldq_le_p(v + SA(sysenter_eip));
    for (i = 0; i < ARRAY_SIZE(gprs); i++) {
        env->regs[gprs[i].reg] = ldq_le_p(v + gprs[i].at);
    }
    env->xss = ldq_le_p(v + 0x140);
    env->xcr0 = ldq_le_p(v + 0x3e8);
    env->pkru = ldl_le_p(v + 0x2e8);
    cpu_sync_avx_hflag(env);
}

/* Returns the VMSA if VMRUN may use it.  15.36.12 */
static uint8_t *find_vmsa(CPUX86State *env, uint64_t vmsa, uint32_t asid, uint64_t nested_ctl)
{
    CPUState *cs = env_cpu(env);
    uint64_t features, allowed, lbr_ctl;
    bool large;
    uint8_t *v;

    lbr_ctl = x86_ldq_phys(cs, env->vm_vmcb + 0xb8);
    if (!(nested_ctl & SVM_NPT_ENABLED) || !(nested_ctl & 2) || !(env->snp_hwcr & 1) ||
        !(env->snp_syscfg & SYSCFG_MEM_ENCRYPT) || asid > SNP_MAX_ASID || !(lbr_ctl & 1) ||
        !(env->hflags & HF_CS64_MASK) || (vmsa & ~TARGET_PAGE_MASK)) {
        return NULL;
    }
    v = snp_ram(vmsa);
    if (!v || snp_in_use(vmsa)) {
        return NULL;
    }
    /* Without the right key features are random; so is all else, and the checksum would tell. */
    if (snp_covered(vmsa) && assigned(snp_rmp(vmsa))) {
        SnpRmpEntry *e = rmp_of(vmsa, &large);

        if (!snp_enabled(env) || snp_rmp_asid(e) != asid || (e->lo & RMP_IMMUTABLE) ||
            !(e->lo & RMP_VMSA) || large) {
            return NULL;
        }
        snp_set_key(vmsa, asid);
        features = ldq_le_p(v + 0x3b0);
        if (!(features & 1)) {
            return NULL;
        }
    } else {
        /* of an SEV-ES guest that is not SNP-active; firmware here launches none */
        return NULL;
    }
    allowed = x86_ldq_phys(cs, env->vm_vmcb + 0x138);
    if (((allowed >> 63) && (features & ~allowed)) || (features & ~1ULL)) {
        return NULL;    /* no feature but SNP is emulated */
    }
    return v;
}

/* false: VMEXIT_INVALID */
bool snp_vmrun(CPUX86State *env, uint32_t asid, uint64_t nested_ctl, uint32_t event_inj)
{
    CPUState *cs = env_cpu(env);
    uint64_t vmsa = x86_ldq_phys(cs, env->vm_vmcb + 0x108);
    uint8_t *v = find_vmsa(env, vmsa, asid, nested_ctl);
    uint64_t efer, cr0, cr3, cr4, dr6, dr7;
    SegmentCache sc;
    unsigned i, ftw;

    if (!v) {
        return false;
    }
    if ((event_inj & SVM_EVTINJ_VALID) &&
        ((event_inj & SVM_EVTINJ_TYPE_MASK) == SVM_EVTINJ_TYPE_SOFT ||
         ((event_inj & SVM_EVTINJ_TYPE_MASK) == SVM_EVTINJ_TYPE_EXEPT &&
          ((event_inj & 0xff) == 3 || (event_inj & 0xff) == 4)))) {
        return false;
    }
    efer = ldq_le_p(v + SA(efer));
    cr0 = ldq_le_p(v + SA(cr0));
    cr3 = ldq_le_p(v + SA(cr3));
    cr4 = ldq_le_p(v + SA(cr4));
    dr6 = ldq_le_p(v + SA(dr6));
    dr7 = ldq_le_p(v + SA(dr7));
    if ((cr0 >> 32) || ((cr0 & CR0_NW_MASK) && !(cr0 & CR0_CD_MASK)) ||
        (cr4 & cr4_reserved_bits(env)) || (dr6 >> 32) || (dr7 >> 32) ||
        !(efer & MSR_EFER_SVME) || (efer & MSR_EFER_RESERVED)) {
        return false;
    }

    env->snp_vmsa = vmsa;
    env->snp_asid = asid;
    env->snp_sev_features = ldq_le_p(v + 0x3b0);
    env->snp_vmpl = v[0xca] & 3;
    env->snp_ghcb = x86_ldq_phys(cs, env->vm_vmcb + 0xa0);
    env->snp_guest = SNP_G_SEV | SNP_G_ES | SNP_G_SNP;

    cpu_x86_update_cr0(env, cr0);
    cpu_x86_update_cr4(env, cr4);
    cpu_x86_update_cr3(env, cr3);
    env->cr[2] = ldq_le_p(v + SA(cr2));
    cpu_load_efer(env, efer);
    env->eflags = 0;
    cpu_load_eflags(env, ldq_le_p(v + SA(rflags)),
                    ~(CC_O | CC_S | CC_Z | CC_A | CC_P | CC_C | DF_MASK));
    get_seg(env, v + SA(es), &sc);
    cpu_x86_load_seg_cache(env, R_ES, sc.selector, sc.base, sc.limit, sc.flags);
    get_seg(env, v + SA(cs), &sc);
    cpu_x86_load_seg_cache(env, R_CS, sc.selector, sc.base, sc.limit, sc.flags);
    get_seg(env, v + SA(ss), &sc);
    cpu_x86_load_seg_cache(env, R_SS, sc.selector, sc.base, sc.limit, sc.flags);
    get_seg(env, v + SA(ds), &sc);
    cpu_x86_load_seg_cache(env, R_DS, sc.selector, sc.base, sc.limit, sc.flags);
    get_seg(env, v + SA(idtr), &env->idt);
    get_seg(env, v + SA(gdtr), &env->gdt);
    env->eip = ldq_le_p(v + SA(rip));
    env->regs[R_ESP] = ldq_le_p(v + SA(rsp));
    env->regs[R_EAX] = ldq_le_p(v + SA(rax));
    cpu_x86_update_dr7(env, dr7);
    env->dr[6] = dr6;
    env->snp_host_pat = env->pat;
    env->pat = ldq_le_p(v + SA(g_pat));
    load_more(env, v);

    /* x87, SSE, AVX */
    cpu_set_mxcsr(env, ldl_le_p(v + 0x408));
    ftw = lduw_le_p(v + 0x40c);
    i = lduw_le_p(v + 0x40e);
    env->fpstt = (i >> 11) & 7;
    env->fpus = i & ~0x3800;
    cpu_set_fpuc(env, lduw_le_p(v + 0x410));
    env->fpop = lduw_le_p(v + 0x412);
    env->fpip = ldq_le_p(v + 0x418);
    env->fpdp = ldq_le_p(v + 0x400);
    for (i = 0; i < 8; i++) {
        unsigned st = (env->fpstt + i) & 7;

        /* the abridged tags of FXSAVE */
        env->fptags[i] = !((ftw >> i) & 1);
        env->fpregs[st].d.low = ldq_le_p(v + 0x420 + 8 * i);
        env->fpregs[st].d.high = lduw_le_p(v + 0x460 + 2 * i);
    }
    for (i = 0; i < 16; i++) {
        env->xmm_regs[i].ZMM_Q(0) = ldq_le_p(v + 0x470 + 16 * i);
        env->xmm_regs[i].ZMM_Q(1) = ldq_le_p(v + 0x478 + 16 * i);
        env->xmm_regs[i].ZMM_Q(2) = ldq_le_p(v + 0x570 + 16 * i);
        env->xmm_regs[i].ZMM_Q(3) = ldq_le_p(v + 0x578 + 16 * i);
    }
    return true;
}

/* The guest part of an automatic exit; the VMSA then is not in use any more. */
void snp_vmexit_save(CPUX86State *env)
{
    CPUState *cs = env_cpu(env);
    unsigned i, ftw = 0;
    uint8_t *v;

    snp_set_key(env->snp_vmsa, env->snp_asid);
    v = snp_ram(env->snp_vmsa);

    put_seg(v + SA(es), &env->segs[R_ES]);
    put_seg(v + SA(cs), &env->segs[R_CS]);
    put_seg(v + SA(ss), &env->segs[R_SS]);
    put_seg(v + SA(ds), &env->segs[R_DS]);
    put_seg(v + SA(fs), &env->segs[R_FS]);
    put_seg(v + SA(gs), &env->segs[R_GS]);
    put_seg(v + SA(tr), &env->tr);
    put_seg(v + SA(ldtr), &env->ldt);
    stq_le_p(v + SA(gdtr.base), env->gdt.base);
    stl_le_p(v + SA(gdtr.limit), env->gdt.limit);
    stq_le_p(v + SA(idtr.base), env->idt.base);
    stl_le_p(v + SA(idtr.limit), env->idt.limit);
    v[SA(cpl)] = env->hflags & HF_CPL_MASK;
    stq_le_p(v + SA(efer), env->efer);
    stq_le_p(v + SA(cr0), env->cr[0]);
    stq_le_p(v + SA(cr2), env->cr[2]);
    stq_le_p(v + SA(cr3), env->cr[3]);
    stq_le_p(v + SA(cr4), env->cr[4]);
    stq_le_p(v + SA(dr6), env->dr[6]);
    stq_le_p(v + SA(dr7), env->dr[7]);
    stq_le_p(v + SA(rflags), cpu_compute_eflags(env));
    stq_le_p(v + SA(rip), env->eip);
    stq_le_p(v + SA(rsp), env->regs[R_ESP]);
    stq_le_p(v + SA(rax), env->regs[R_EAX]);
    stq_le_p(v + SA(g_pat), env->pat);
    stq_le_p(v + SA(kernel_gs_base), env->kernelgsbase);
    stq_le_p(v + SA(star), env->star);
    stq_le_p(v + SA(lstar), env->lstar);
    stq_le_p(v + SA(cstar), env->cstar);
    stq_le_p(v + SA(sfmask), env->fmask);
    stq_le_p(v + SA(sysenter_cs), env->sysenter_cs);
    stq_le_p(v + SA(sysenter_esp), env->sysenter_esp);
    stq_le_p(v + SA(sysenter_eip), env->sysenter_eip);
    for (i = 0; i < ARRAY_SIZE(gprs); i++) {
        stq_le_p(v + gprs[i].at, env->regs[gprs[i].reg]);
    }
    stq_le_p(v + 0x140, env->xss);
    stq_le_p(v + 0x3e8, env->xcr0);
    stl_le_p(v + 0x2e8, env->pkru);

    /* 15.36.9: for whoever handles it in another VMPL */
    stq_le_p(v + 0x390, x86_ldq_phys(cs, env->vm_vmcb + 0x78));
    stq_le_p(v + 0x398, x86_ldq_phys(cs, env->vm_vmcb + 0x80));
    stq_le_p(v + 0x3c0, x86_ldq_phys(cs, env->vm_vmcb + 0x70));

    update_mxcsr_from_sse_status(env);
    stl_le_p(v + 0x408, env->mxcsr);
    for (i = 0; i < 8; i++) {
        unsigned st = (env->fpstt + i) & 7;

        ftw |= !env->fptags[i] << i;
        stq_le_p(v + 0x420 + 8 * i, env->fpregs[st].d.low);
        stw_le_p(v + 0x460 + 2 * i, env->fpregs[st].d.high);
    }
    stw_le_p(v + 0x40c, ftw);
    stw_le_p(v + 0x40e, (env->fpus & ~0x3800) | (env->fpstt & 7) << 11);
    stw_le_p(v + 0x410, env->fpuc);
    stw_le_p(v + 0x412, env->fpop);
    stq_le_p(v + 0x418, env->fpip);
    stq_le_p(v + 0x400, env->fpdp);
    for (i = 0; i < 16; i++) {
        stq_le_p(v + 0x470 + 16 * i, env->xmm_regs[i].ZMM_Q(0));
        stq_le_p(v + 0x478 + 16 * i, env->xmm_regs[i].ZMM_Q(1));
        stq_le_p(v + 0x570 + 16 * i, env->xmm_regs[i].ZMM_Q(2));
        stq_le_p(v + 0x578 + 16 * i, env->xmm_regs[i].ZMM_Q(3));
    }

    x86_stq_phys(cs, env->vm_vmcb + 0xa0, env->snp_ghcb);
    x86_stq_phys(cs, env->vm_vmcb + 0x140, env->snp_sev_features);
}

/* What VMRUN did not save of the host, but the exit of such a guest loads. */
void snp_vmexit_load(CPUX86State *env)
{
    uint8_t v[0x670];
    unsigned i;

    address_space_read(cpu_get_address_space(env_cpu(env), X86ASIdx_MEM), env->vm_hsave + 0x400,
                       MEMTXATTRS_UNSPECIFIED, v, sizeof(v));
    load_more(env, v);
    env->pat = env->snp_host_pat;
    env->snp_guest = 0;
    env->snp_vmsa = 0;
    env->snp_asid = 0;

    /* type C: reset values */
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

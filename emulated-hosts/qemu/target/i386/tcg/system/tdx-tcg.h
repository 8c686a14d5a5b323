/*
 * Emulation of a TDX capable host, what the parts of TCG share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef I386_TCG_TDX_H
#define I386_TCG_TDX_H

/* Stage 2 for a running TD: false if it ends in an EPT violation or #MC */
bool tdx_stage2(CPUX86State *env, hwaddr gpa, MMUAccessType type, bool walk,
                hwaddr *pa, int *prot, unsigned *key);
/* What becomes of it */
G_NORETURN void tdx_stage2_fault(CPUX86State *env, vaddr gla, hwaddr gpa, MMUAccessType type,
                                 bool walk, uintptr_t ra);
/* A guest physical address that faults in the guest itself */
bool tdx_gpa_reserved(CPUX86State *env, hwaddr gpa);
/* An access is about to be made to a page of RAM. */
void tdx_see_slow(TdxPage *p, hwaddr pa, unsigned key, bool store);
static inline void tdx_see(hwaddr pa, unsigned key, bool store)
{
    uint64_t pfn = pa >> 12;

    if (pfn < tdx.npfn && unlikely(tdx.page[pfn].priv)) {
        tdx_see_slow(&tdx.page[pfn], pa, key, store);
    }
}

void tdx_check_intercept(CPUX86State *env, uint32_t type, uint64_t param, uintptr_t ra);
void tdx_io(CPUX86State *env, uint32_t port, uint32_t param, uint32_t next_addend, uintptr_t ra);
G_NORETURN void tdx_vmexit(CPUX86State *env, uint64_t code, uint64_t info, uintptr_t ra);
bool tdx_interrupt(CPUX86State *env, int request);
/* An event is being delivered through the TD's IDT, or has been. */
void tdx_event(CPUX86State *env, int intno, int is_int, int error_code, target_ulong next_eip,
               int is_hw);
void tdx_event_done(CPUX86State *env);

/* 0: done, -1: #GP, 1: not ours, 2: natively */
int tdx_rdmsr(CPUX86State *env, uint32_t msr, uint64_t *val, uintptr_t ra);
int tdx_wrmsr(CPUX86State *env, uint32_t msr, uint64_t val, uintptr_t ra);
/* true: it was a TD's */
bool tdx_cpuid(CPUX86State *env, uintptr_t ra);
bool tdx_write_cr(CPUX86State *env, int reg, uint64_t val, uintptr_t ra);

#endif

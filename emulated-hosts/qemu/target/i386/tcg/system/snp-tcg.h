/*
 * Emulation of an SEV-SNP capable host, what the parts of TCG share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef I386_TCG_SNP_H
#define I386_TCG_SNP_H

#define SVM_EXIT_EFER_TRAP  0x08f
#define SVM_EXIT_CR0_TRAP   0x090
#define SVM_EXIT_VMGEXIT    0x403

enum {
    SNP_CHECK_RMP = 1,
    SNP_CHECK_NOT_VALIDATED,
    SNP_CHECK_VMPL,
};

typedef struct SnpWalk {
    hwaddr gpa, pa;
    uint64_t npt_size;
} SnpWalk;

bool snp_enabled(CPUX86State *env);
int snp_check_private(CPUX86State *env, hwaddr gpa, hwaddr pa, uint64_t npt_size,
                      MMUAccessType type, bool user, int *prot);
/* excp_helper.c; both tables for a linear address, and their faults */
void snp_walk(CPUX86State *env, target_ulong va, SnpWalk *w, uintptr_t ra);
G_NORETURN void snp_npf(CPUX86State *env, target_ulong va, hwaddr gpa, uint64_t error, uintptr_t ra);

int snp_rdmsr(CPUX86State *env, uint32_t msr, uint64_t *val);
int snp_wrmsr(CPUX86State *env, uint32_t msr, uint64_t val);

bool snp_exit_is_automatic(uint64_t code, uint64_t info_1);
bool snp_exit_advances(uint64_t code);
bool snp_vmrun(CPUX86State *env, uint32_t asid, uint64_t nested_ctl, uint32_t event_inj);
void snp_vmexit_save(CPUX86State *env);
void snp_vmexit_load(CPUX86State *env);

#endif

/*
 * Emulation of an SEV-SNP capable host: reverse map table, memory encryption,
 * SEV-ES world switch.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TARGET_I386_SNP_HOST_H
#define TARGET_I386_SNP_HOST_H

#include "exec/hwaddr.h"

/* RMP entry in memory, PPR family 19h model 01h (Milan). */
typedef struct SnpRmpEntry {
    uint64_t lo, hi;
} SnpRmpEntry;

#define RMP_ASSIGNED        (1ULL << 0)
#define RMP_2M              (1ULL << 1)
#define RMP_IMMUTABLE       (1ULL << 2)
#define RMP_SUBPAGES_SHIFT  3
#define RMP_SUBPAGES        (0x1ffULL << RMP_SUBPAGES_SHIFT)
#define RMP_GPA             (((1ULL << 39) - 1) << 12)
#define RMP_ASID_SHIFT      51
#define RMP_ASID            (0x3ffULL << RMP_ASID_SHIFT)
#define RMP_VMSA            (1ULL << 61)
#define RMP_VALIDATED       (1ULL << 62)
/* hi: one byte of permissions for each VMPL, 0 in the lowest */
#define RMP_PERM_R          1
#define RMP_PERM_W          2
#define RMP_PERM_XU         4
#define RMP_PERM_XS         8
#define RMP_PERM_ALL        0x1f

#define SNP_BOOKKEEPING     0x4000
#define SNP_MAX_ASID        509
#define SNP_CBIT            51
#define SNP_CMASK           (1ULL << SNP_CBIT)
#define SNP_PA_REDUCTION    1
/* "key" of pages which are written with the C-bit by the host (SME) */
#define SNP_KEY_HOST        0x3ff

/* results of the RMP instructions */
#define SNP_SUCCESS             0
#define SNP_FAIL_INPUT          1
#define SNP_FAIL_PERMISSION     2
#define SNP_FAIL_INUSE          3
#define SNP_FAIL_OVERLAP        4
#define SNP_FAIL_BADADDR        4   /* of PSMASH */
#define SNP_FAIL_SIZEMISMATCH   6

#define MSR_SNP_SYSCFG      0xc0010010
#define MSR_SNP_HWCR        0xc0010015
#define MSR_SNP_PAGE_FLUSH  0xc001011e
#define MSR_SNP_GHCB        0xc0010130
#define MSR_SNP_STATUS      0xc0010131
#define MSR_SNP_RMP_BASE    0xc0010132
#define MSR_SNP_RMP_END     0xc0010133

#define SYSCFG_MEM_ENCRYPT  (1ULL << 23)
#define SYSCFG_SNP_EN       (1ULL << 24)
#define SYSCFG_VMPL_EN      (1ULL << 25)
#define SYSCFG_MFDM         (1ULL << 19)

/* env->snp_guest */
#define SNP_G_SEV   1
#define SNP_G_ES    2
#define SNP_G_SNP   4

#define EXCP_VC     29
#define SNP_VC_NOT_VALIDATED 0x404

#define NPF_RMP     (1ULL << 31)
#define NPF_ENC     (1ULL << 34)
#define NPF_SIZEM   (1ULL << 35)
#define NPF_VMPL    (1ULL << 36)

typedef struct SnpHost {
    bool present;
    hwaddr rmp_base, rmp_end;       /* the MSRs */
    SnpRmpEntry *rmp;               /* host pointer to the first entry */
    uint8_t *rmp_mem;               /* host pointer to RMP_BASE */
    uint64_t npfn;                  /* pages covered */
    uint16_t *key_of;               /* by pfn: the ASID with whose key RAM is now decrypted, 0: raw */
    uint64_t key_of_n;
    uint64_t key[1024][2];
    uint32_t asid_pages[1024];      /* pages assigned to an ASID */
    bool locked;                    /* the firmware has initialised the RMP: no direct writes to it */
} SnpHost;

extern SnpHost snp;

void snp_host_init(hwaddr rmp_base, hwaddr rmp_size, hwaddr ram_top);

static inline bool snp_covered(hwaddr pa)
{
    return snp.rmp && (pa >> 12) < snp.npfn;
}

static inline SnpRmpEntry *snp_rmp(hwaddr pa)
{
    return &snp.rmp[pa >> 12];
}

static inline unsigned snp_rmp_asid(const SnpRmpEntry *e)
{
    return (e->lo & RMP_ASID) >> RMP_ASID_SHIFT;
}

/* Replaces an entry; keeps the counts right. */
void snp_rmp_set(hwaddr pa, uint64_t lo, uint64_t hi);
/* No CPU has a translation left that the tables do not give. */
void snp_flush_tlbs(void);
/* Makes RAM of a page hold what accesses with this key see. */
void snp_set_key(hwaddr pa, unsigned key);
/* Host pointer to a page of RAM or NULL. */
uint8_t *snp_ram(hwaddr pa);
void snp_forget_key(unsigned asid, bool new_key);
bool snp_hypervisor_owned(hwaddr pa, uint64_t size);
bool snp_in_use(hwaddr pa);
int snp_rmpupdate(hwaddr pa, uint64_t gpa, bool assigned, bool large, bool immutable, uint32_t asid);

#endif

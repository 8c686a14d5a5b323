/*
 * AMD secure processor (PSP) with SEV-SNP firmware, as the Linux ccp driver
 * uses it (PCI 1022:14ca, mailbox in BAR 2).
 *
 * Rules: SEV-SNP firmware ABI specification (56860), checked against the
 * firmware source that AMD has published (AMD-ASPFW).  Measurement,
 * attestation and signatures are not emulated.  Guests of the legacy SEV
 * interface are refused.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/log.h"
#include "qemu/guest-random.h"
#include "qemu/main-loop.h"
#include "hw/pci/pci_device.h"
#include "hw/pci/msi.h"
#include "qapi/error.h"
#include "exec/address-spaces.h"
#include "cpu.h"
#include "snp-host.h"
#include "amd_iommu.h"
#include "hw/i386/x86-iommu.h"

#define TYPE_AMD_PSP "amd-psp"
OBJECT_DECLARE_SIMPLE_TYPE(AmdPsp, AMD_PSP)

#define PSP_BAR_SIZE    (1 << 20)
#define REG_CMDRESP     0x10980
#define REG_CMDBUF_LO   0x109e0
#define REG_CMDBUF_HI   0x109e4
#define REG_INFO        0x109ec
#define REG_FEATURE     0x109fc
#define REG_INTEN       0x10690
#define REG_INTSTS      0x10694
#define CMD_IOC         (1 << 0)
#define CMD_DONE        (1u << 31)
#define SEV_CMD_COMPLETE (1 << 1)

#define API_MAJOR       1
#define API_MINOR       55
#define BUILD_ID        37
#define TCB_VERSION     0xde1b000000000004ULL    /* SNP 0x1b, from which on there is no SEV-ES */

enum {
    OK                      = 0x00,
    INVALID_PLATFORM_STATE  = 0x01,
    INVALID_GUEST_STATE     = 0x02,
    INVALID_CONFIG          = 0x03,
    INVALID_LEN             = 0x04,
    POLICY_FAILURE          = 0x07,
    INACTIVE                = 0x08,
    INVALID_ADDRESS         = 0x09,
    BAD_MEASUREMENT         = 0x0b,
    ASID_OWNED              = 0x0c,
    INVALID_ASID            = 0x0d,
    DFFLUSH_REQUIRED        = 0x0f,
    INVALID_GUEST           = 0x10,
    INVALID_COMMAND         = 0x11,
    ACTIVE                  = 0x12,
    UNSUPPORTED             = 0x15,
    INVALID_PARAM           = 0x16,
    INVALID_PAGE_SIZE       = 0x19,
    INVALID_PAGE_STATE      = 0x1a,
    INVALID_PAGE_OWNER      = 0x1c,
    RMP_INIT_REQUIRED       = 0x20,
};

/* 6.2, page states */
typedef enum PageState {
    PS_INVALID,
    PS_DEFAULT,
    PS_HYPERVISOR,
    PS_HV_FIXED,
    PS_FIRMWARE,
    PS_RECLAIM,
    PS_CONTEXT,
    PS_METADATA,
    PS_PRE_GUEST,
    PS_PRE_SWAP,
    PS_GUEST_INVALID,
    PS_GUEST_VALID,
} PageState;

enum { G_INIT, G_LAUNCH, G_RUNNING };

typedef struct Guest {
    uint64_t gctx;
    int state;
    uint32_t asid;
    uint64_t policy;
    uint8_t gosvw[16];
    uint8_t host_data[32];
    uint8_t vmpck[4][32];
    uint64_t imi_en;
} Guest;

struct AmdPsp {
    PCIDevice parent_obj;

    MemoryRegion bar;
    uint32_t cmdresp, lo, hi, inten, intsts;
    bool sev_init, snp_init;
    uint64_t reported_tcb;
    uint32_t config_flags;
    GHashTable *guests;             /* by address of the context page */
    uint64_t tmr, tmr_len;
    uint8_t asid_dirty[1024];       /* used since the last DF_FLUSH */
};

static uint64_t sme_clr(uint64_t pa)
{
    return pa & ~SNP_CMASK;
}

static bool mem_read(uint64_t pa, void *buf, size_t len)
{
    return address_space_read(&address_space_memory, sme_clr(pa), MEMTXATTRS_UNSPECIFIED,
                              buf, len) == MEMTX_OK;
}

static bool mem_write(uint64_t pa, const void *buf, size_t len)
{
    return address_space_write(&address_space_memory, sme_clr(pa), MEMTXATTRS_UNSPECIFIED,
                               buf, len) == MEMTX_OK;
}

static bool in_rmp_table(uint64_t pa)
{
    return pa >= snp.rmp_base && pa <= snp.rmp_end;
}

/* The state of a 4K page */
static PageState page_state(uint64_t pa)
{
    SnpRmpEntry *e;
    bool assigned, validated, immutable, vmsa;
    unsigned asid;
    uint64_t gpa;

    pa = sme_clr(pa);
    if (!snp_covered(pa)) {
        return PS_DEFAULT;
    }
    if (in_rmp_table(pa)) {
        return PS_INVALID;
    }
    e = snp_rmp(pa);
    assigned = e->lo & RMP_ASSIGNED;
    validated = e->lo & RMP_VALIDATED;
    immutable = e->lo & RMP_IMMUTABLE;
    vmsa = e->lo & RMP_VMSA;
    asid = snp_rmp_asid(e);
    gpa = e->lo & RMP_GPA;
    if (!assigned) {
        return immutable ? PS_HV_FIXED : PS_HYPERVISOR;
    }
    if (asid) {
        if (immutable) {
            return validated ? PS_PRE_SWAP : PS_PRE_GUEST;
        }
        return validated ? PS_GUEST_VALID : PS_GUEST_INVALID;
    }
    if (!immutable) {
        return PS_RECLAIM;
    }
    if (gpa == 1 << 12) {
        return PS_INVALID;      /* a page of the IOMMU's, see iommu_pages() */
    }
    if (gpa) {
        return PS_METADATA;
    }
    return vmsa ? PS_CONTEXT : PS_FIRMWARE;
}

static void change(uint64_t pa, uint64_t clear, uint64_t set)
{
    SnpRmpEntry *e = snp_rmp(sme_clr(pa));

    snp_rmp_set(sme_clr(pa), (e->lo & ~clear) | set, e->hi);
    snp_flush_tlbs();
}

/* Memory that the firmware writes to once SNP is initialised */
static int writable(AmdPsp *s, uint64_t pa, uint32_t len)
{
    uint64_t at;
    PageState state;

    if (!s->snp_init || !len) {
        return OK;
    }
    for (at = sme_clr(pa) & ~0xfffULL; at < sme_clr(pa) + len; at += 0x1000) {
        state = page_state(at);
        if (state != PS_FIRMWARE && state != PS_DEFAULT) {
            return INVALID_PAGE_STATE;
        }
    }
    return OK;
}

static Guest *guest_of(AmdPsp *s, uint64_t gctx, int *status)
{
    Guest *g;

    if (!s->snp_init) {
        *status = INVALID_PLATFORM_STATE;
        return NULL;
    }
    gctx = sme_clr(gctx);
    if (gctx & 0xfff) {
        *status = INVALID_PARAM;
        return NULL;
    }
    g = g_hash_table_lookup(s->guests, &gctx);
    if (page_state(gctx) != PS_CONTEXT || !g) {
        *status = INVALID_GUEST;
        return NULL;
    }
    *status = OK;
    return g;
}

static AMDVIState *find_iommu(void)
{
    X86IOMMUState *iommu = x86_iommu_get_default();

    return iommu ? (AMDVIState *)object_dynamic_cast(OBJECT(iommu), TYPE_AMD_IOMMU_DEVICE) : NULL;
}

static uint64_t iommu_reg(AMDVIState *iommu, unsigned reg)
{
    return ldq_le_p(&iommu->mmior[reg]);
}

/*
 * The buffers that the IOMMU writes to: firmware pages of its own (GPA 1) while SNP is
 * initialised; to Reclaim at a shutdown.
 */
static void iommu_pages(bool init)
{
    static const struct {
        unsigned reg;
        bool log;
    } bufs[] = {
        { AMDVI_MMIO_EVENT_BASE, true }, { AMDVI_MMIO_PPR_BASE, true },
        { AMDVI_MMIO_EXCL_BASE, false },
    };
    AMDVIState *iommu = find_iommu();
    uint64_t base, len, at;
    int i;

    if (!iommu) {
        return;
    }
    for (i = 0; i < ARRAY_SIZE(bufs); i++) {
        uint64_t reg = iommu_reg(iommu, bufs[i].reg);

        base = reg & 0x000ffffffffff000ULL;
        len = bufs[i].log ? 16ULL << ((reg >> 56) & 0xf) : 0x1000;
        if (!base) {
            continue;
        }
        for (at = base; at < base + len; at += 0x1000) {
            if (!snp_covered(at)) {
                continue;
            }
            if (init) {
                snp_rmp_set(at, RMP_ASSIGNED | RMP_IMMUTABLE | 1 << 12, 0);
            } else {
                snp_rmp_set(at, RMP_ASSIGNED, 0);
            }
        }
    }
    snp_flush_tlbs();
}

static int cmd_snp_init(AmdPsp *s, const uint8_t *cmd)
{
    CPUState *cs;
    uint64_t i;

    if (s->snp_init || s->sev_init) {
        return INVALID_PLATFORM_STATE;
    }
    CPU_FOREACH(cs) {
        CPUX86State *env = cpu_env(cs);
        uint64_t need = SYSCFG_MEM_ENCRYPT | SYSCFG_SNP_EN | SYSCFG_VMPL_EN | SYSCFG_MFDM;

        if ((env->snp_syscfg & need) != need || env->vm_hsave || !(env->snp_hwcr & 1)) {
            return INVALID_CONFIG;
        }
    }
    if (cmd && !(ldl_le_p(cmd) & 1) && !snp.locked) {
        return RMP_INIT_REQUIRED;
    }
    if (cmd && (ldl_le_p(cmd) & ~0x3u)) {
        return INVALID_PARAM;       /* no RAPL, ciphertext hiding or TIO here */
    }
    /* All of the RMP is zero or what it was before; the firmware makes it zero. */
    memset(snp.rmp_mem, 0, SNP_BOOKKEEPING);
    memset(snp.rmp, 0, snp.npfn * sizeof(*snp.rmp));
    memset(snp.asid_pages, 0, sizeof(snp.asid_pages));
    memset(s->asid_dirty, 0, sizeof(s->asid_dirty));
    snp.locked = true;
    if (cmd && (ldl_le_p(cmd) & 2)) {
        uint64_t list = ldq_le_p(cmd + 8);
        uint8_t range[16];
        uint32_t n;

        mem_read(list, range, 8);
        n = ldl_le_p(range);
        for (i = 0; i < n && i < 255; i++) {
            uint64_t base, pages;

            mem_read(list + 8 + 16 * i, range, 16);
            base = ldq_le_p(range);
            pages = ldl_le_p(range + 8);
            for (; pages; pages--, base += 0x1000) {
                if (snp_covered(base) && !in_rmp_table(base)) {
                    snp_rmp_set(base, RMP_IMMUTABLE, 0);
                }
            }
        }
    }
    iommu_pages(true);
    s->snp_init = true;
    snp_flush_tlbs();
    return OK;
}

static gboolean drop_guest(gpointer key, gpointer value, gpointer data)
{
    Guest *g = value;

    if (g->asid) {
        snp_forget_key(g->asid, true);
    }
    return true;
}

static int cmd_snp_shutdown(AmdPsp *s, const uint8_t *cmd)
{
    if (s->sev_init) {
        return INVALID_PLATFORM_STATE;
    }
    if (cmd && ldl_le_p(cmd) != 8) {
        return INVALID_PARAM;
    }
    if (s->snp_init && cmd && (ldl_le_p(cmd + 4) & 1)) {
        iommu_pages(false);
    }
    g_hash_table_foreach_remove(s->guests, drop_guest, NULL);
    s->snp_init = false;
    return OK;
}

static int cmd_snp_platform_status(AmdPsp *s, const uint8_t *cmd)
{
    uint64_t pa = ldq_le_p(cmd);
    uint8_t out[32] = { 0 };
    int ret;

    if ((pa & 0xfff) + sizeof(out) > 0x1000) {
        return INVALID_PARAM;
    }
    ret = writable(s, pa, sizeof(out));
    if (ret) {
        return ret;
    }
    out[0] = API_MAJOR;
    out[1] = API_MINOR;
    out[2] = s->snp_init;
    out[3] = snp.locked;
    stl_le_p(out + 4, BUILD_ID);
    stl_le_p(out + 8, (s->config_flags & 3) | 1 << 3 /* FEATURE_INFO */);
    stl_le_p(out + 12, g_hash_table_size(s->guests));
    stq_le_p(out + 16, TCB_VERSION);
    stq_le_p(out + 24, s->reported_tcb);
    return mem_write(pa, out, sizeof(out)) ? OK : INVALID_ADDRESS;
}

static int cmd_snp_feature_info(AmdPsp *s, const uint8_t *cmd)
{
    uint8_t out[16] = { 0 };
    uint64_t pa = ldq_le_p(cmd + 8);
    int ret;

    if (ldl_le_p(cmd) < 16) {
        return INVALID_PARAM;
    }
    ret = writable(s, pa, sizeof(out));
    if (ret) {
        return ret;
    }
    if (ldl_le_p(cmd + 4) == 0) {
        stl_le_p(out, 0);   /* EAX: highest subfunction; no optional features */
    }
    return mem_write(pa, out, sizeof(out)) ? OK : INVALID_ADDRESS;
}

static int cmd_gctx_create(AmdPsp *s, const uint8_t *cmd)
{
    uint64_t pa = sme_clr(ldq_le_p(cmd));
    uint8_t page[0x1000];
    Guest *g;

    if (pa & 0xfff) {
        return INVALID_PARAM;
    }
    if (!s->snp_init) {
        return INVALID_PLATFORM_STATE;
    }
    if (page_state(pa) != PS_FIRMWARE) {
        return INVALID_PAGE_STATE;
    }
    if (snp_rmp(pa)->lo & RMP_2M) {
        return INVALID_PAGE_SIZE;
    }
    /* what the host sees of it is ciphertext */
    qemu_guest_getrandom_nofail(page, sizeof(page));
    mem_write(pa, page, sizeof(page));
    g = g_new0(Guest, 1);
    g->gctx = pa;
    g->state = G_INIT;
    g_hash_table_replace(s->guests, &g->gctx, g);
    change(pa, 0, RMP_VMSA);
    return OK;
}

static int cmd_launch_start(AmdPsp *s, const uint8_t *cmd)
{
    uint64_t policy = ldq_le_p(cmd + 8);
    uint32_t flags = ldl_le_p(cmd + 24);
    CPUX86State *env = cpu_env(first_cpu);
    bool smt = env->topo_info.threads_per_core > 1;
    int ret;
    Guest *g;

    if (flags & ~3u) {
        return INVALID_PARAM;
    }
    g = guest_of(s, ldq_le_p(cmd), &ret);
    if (!g) {
        return ret;
    }
    if (g->state != G_INIT) {
        return INVALID_GUEST_STATE;
    }
    if ((flags & 1) || !(policy & (1 << 17)) || (!(policy & (1 << 16)) && smt) ||
        ((policy >> 8) & 0xff) > API_MAJOR ||
        (((policy >> 8) & 0xff) == API_MAJOR && (policy & 0xff) > API_MINOR) ||
        (policy >> 26)) {
        return POLICY_FAILURE;
    }
    g->policy = policy;
    g->imi_en = flags >> 1;
    memcpy(g->gosvw, cmd + 32, 16);
    qemu_guest_getrandom_nofail(g->vmpck, sizeof(g->vmpck));
    g->state = G_LAUNCH;
    return OK;
}

static gboolean has_asid(gpointer key, gpointer value, gpointer data)
{
    return ((Guest *)value)->asid == *(uint32_t *)data;
}

static int cmd_activate(AmdPsp *s, const uint8_t *cmd)
{
    uint32_t asid = ldl_le_p(cmd + 8);
    int ret;
    Guest *g = guest_of(s, ldq_le_p(cmd), &ret);

    if (!g) {
        return ret;
    }
    if (g->state != G_LAUNCH && g->state != G_RUNNING) {
        return INVALID_GUEST_STATE;
    }
    if (asid == 0 || asid > SNP_MAX_ASID) {
        return INVALID_ASID;
    }
    if (snp.asid_pages[asid]) {
        return INVALID_CONFIG;
    }
    if (g->asid) {
        return g->asid == asid ? OK : ACTIVE;
    }
    if (g_hash_table_find(s->guests, has_asid, &asid)) {
        return ASID_OWNED;
    }
    if (s->asid_dirty[asid]) {
        return DFFLUSH_REQUIRED;
    }
    g->asid = asid;
    snp_forget_key(asid, true);
    return OK;
}

static int check_cpuid_page(uint8_t *p)
{
    if (ldl_le_p(p) > 64 || ldl_le_p(p + 4) || ldq_le_p(p + 8)) {
        return INVALID_PARAM;
    }
    return OK;
}

static int cmd_launch_update(AmdPsp *s, const uint8_t *cmd)
{
    uint32_t f = ldl_le_p(cmd + 8), perms = ldl_le_p(cmd + 24);
    bool large = f & 1;
    unsigned type = (f >> 1) & 7;
    uint64_t pa = sme_clr(ldq_le_p(cmd + 16)), at, size = large ? 0x200000 : 0x1000;
    uint64_t set;
    PageState state;
    uint8_t *p;
    int ret;
    Guest *g;

    if ((f >> 5) || ldl_le_p(cmd + 12) || (perms & 0xff) || ldl_le_p(cmd + 28) || (pa & 0xfff)) {
        return INVALID_PARAM;
    }
    g = guest_of(s, ldq_le_p(cmd), &ret);
    if (!g) {
        return ret;
    }
    state = page_state(pa);
    if (state != PS_PRE_GUEST) {
        return INVALID_PAGE_STATE;
    }
    if (large != !!(snp_rmp(pa)->lo & RMP_2M)) {
        return INVALID_PAGE_SIZE;
    }
    if (large && (pa & 0x1fffff)) {
        return INVALID_ADDRESS;
    }
    if (type == 0 || type > 6) {
        return INVALID_PARAM;
    }
    if (large && (type == 2 || type >= 5)) {
        return INVALID_PAGE_SIZE;
    }
    if (g->state != G_LAUNCH) {
        return INVALID_GUEST_STATE;
    }
    if (!g->asid) {
        return INACTIVE;
    }
    if (snp_rmp_asid(snp_rmp(pa)) != g->asid) {
        return INVALID_PAGE_OWNER;
    }
    for (at = pa; at < pa + size; at += 0x1000) {
        uint8_t plain[0x1000];

        snp_set_key(at, 0);
        p = snp_ram(at);
        if (!p) {
            return INVALID_ADDRESS;
        }
        memcpy(plain, p, sizeof(plain));
        switch (type) {
        case 3:     /* ZERO */
            memset(plain, 0, sizeof(plain));
            break;
        case 5:     /* SECRETS */
            memset(plain, 0, sizeof(plain));
            stl_le_p(plain, 3);
            memcpy(plain + 16, g->gosvw, 16);
            memcpy(plain + 32, g->vmpck, sizeof(g->vmpck));
            break;
        case 6:     /* CPUID */
            ret = check_cpuid_page(plain);
            if (ret) {
                return ret;
            }
            break;
        }
        /* from here on with the key of the guest */
        snp_set_key(at, g->asid);
        memcpy(snp_ram(at), plain, sizeof(plain));
    }
    set = RMP_VALIDATED | (type == 2 ? RMP_VMSA : 0);
    for (at = pa; at < pa + size; at += 0x1000) {
        SnpRmpEntry *e = snp_rmp(at);

        snp_rmp_set(at, (e->lo & ~RMP_IMMUTABLE) | set,
                    (e->hi & 0xff) | (perms & 0xffffff00));
    }
    snp_flush_tlbs();
    return OK;
}

static int cmd_launch_finish(AmdPsp *s, const uint8_t *cmd)
{
    int ret;
    Guest *g = guest_of(s, ldq_le_p(cmd), &ret);
    uint8_t id_block[96];
    int i;

    if (!g) {
        return ret;
    }
    if (g->state != G_LAUNCH) {
        return INVALID_GUEST_STATE;
    }
    if (!g->asid) {
        return INACTIVE;
    }
    if (cmd[24] & 1) {
        /* The measurement here is zero; signatures are not checked. */
        mem_read(ldq_le_p(cmd + 8), id_block, sizeof(id_block));
        for (i = 0; i < 48; i++) {
            if (id_block[i]) {
                return BAD_MEASUREMENT;
            }
        }
        if (ldq_le_p(id_block + 88) != g->policy) {
            return POLICY_FAILURE;
        }
    }
    memcpy(g->host_data, cmd + 32, 32);
    g->state = G_RUNNING;
    return OK;
}

static int cmd_decommission(AmdPsp *s, const uint8_t *cmd)
{
    int ret;
    Guest *g = guest_of(s, ldq_le_p(cmd), &ret);
    uint64_t gctx;

    if (!g) {
        return ret;
    }
    gctx = g->gctx;
    if (g->asid) {
        s->asid_dirty[g->asid] = g->state == G_RUNNING;
        snp_forget_key(g->asid, true);
    }
    g_hash_table_remove(s->guests, &gctx);
    change(gctx, RMP_VMSA, 0);
    return OK;
}

static int cmd_page_reclaim(AmdPsp *s, const uint8_t *cmd)
{
    uint64_t v = sme_clr(ldq_le_p(cmd)), pa = v & ~0xfffULL, at, size;
    bool large = v & 1;

    if (v & 0xffe) {
        return INVALID_PARAM;
    }
    if (!s->snp_init) {
        return INVALID_PLATFORM_STATE;
    }
    size = large ? 0x200000 : 0x1000;
    if (!snp_covered(pa) || in_rmp_table(pa) ||
        (s->sev_init && pa < s->tmr + s->tmr_len && pa + size > s->tmr)) {
        return INVALID_ADDRESS;
    }
    if (large != !!(snp_rmp(pa)->lo & RMP_2M)) {
        return INVALID_PAGE_SIZE;
    }
    if (large && (pa & 0x1fffff)) {
        return INVALID_ADDRESS;
    }
    if (!(snp_rmp(pa)->lo & RMP_IMMUTABLE)) {
        return OK;
    }
    switch (page_state(pa)) {
    case PS_METADATA:
    case PS_FIRMWARE:
    case PS_PRE_GUEST:      /* then Guest-Invalid */
    case PS_PRE_SWAP:       /* then Guest-Valid */
        for (at = pa; at < pa + size; at += 0x1000) {
            change(at, RMP_IMMUTABLE, 0);
        }
        return OK;
    default:
        return INVALID_PAGE_STATE;
    }
}

static int cmd_page_unsmash(AmdPsp *s, const uint8_t *cmd)
{
    return s->snp_init ? UNSUPPORTED : INVALID_PLATFORM_STATE;
}

static int cmd_dbg(AmdPsp *s, const uint8_t *cmd, bool decrypt)
{
    uint64_t src = sme_clr(ldq_le_p(cmd + 8)), dst = sme_clr(ldq_le_p(cmd + 16));
    uint8_t page[0x1000];
    int ret;
    Guest *g = guest_of(s, ldq_le_p(cmd), &ret);

    if (!g) {
        return ret;
    }
    if ((src & 0xfff) || (dst & 0xfff)) {
        return INVALID_PARAM;
    }
    if (!(g->policy & (1 << 19))) {
        return POLICY_FAILURE;
    }
    if (!g->asid) {
        return INACTIVE;
    }
    if (decrypt) {
        ret = writable(s, dst, 0x1000);
        if (ret) {
            return ret;
        }
        snp_set_key(src, g->asid);
        memcpy(page, snp_ram(src), sizeof(page));
        mem_write(dst, page, sizeof(page));
        if (page_state(src) != PS_GUEST_VALID && page_state(src) != PS_GUEST_INVALID) {
            snp_set_key(src, 0);
        }
    } else {
        if ((page_state(dst) != PS_GUEST_VALID && page_state(dst) != PS_PRE_GUEST &&
             page_state(dst) != PS_GUEST_INVALID) || snp_rmp_asid(snp_rmp(dst)) != g->asid) {
            return INVALID_PAGE_STATE;
        }
        mem_read(src, page, sizeof(page));
        snp_set_key(dst, g->asid);
        memcpy(snp_ram(dst), page, sizeof(page));
    }
    return OK;
}

static int cmd_guest_status(AmdPsp *s, const uint8_t *cmd)
{
    uint8_t out[0x20] = { 0 };
    int ret;
    Guest *g = guest_of(s, ldq_le_p(cmd), &ret);

    if (!g) {
        return ret;
    }
    ret = writable(s, ldq_le_p(cmd + 8), sizeof(out));
    if (ret) {
        return ret;
    }
    stq_le_p(out, g->policy);
    stl_le_p(out + 8, g->asid);
    out[12] = g->state;
    mem_write(ldq_le_p(cmd + 8), out, sizeof(out));
    return OK;
}

static int cmd_config(AmdPsp *s, const uint8_t *cmd)
{
    if (!s->snp_init) {
        return INVALID_PLATFORM_STATE;
    }
    if (ldl_le_p(cmd + 8) & ~3u) {
        return INVALID_PARAM;
    }
    s->reported_tcb = ldq_le_p(cmd) ? ldq_le_p(cmd) : TCB_VERSION;
    s->config_flags = ldl_le_p(cmd + 8);
    return OK;
}

static int cmd_sev_init(AmdPsp *s, uint32_t flags, uint64_t tmr, uint32_t tmr_len)
{
    if (s->sev_init) {
        return INVALID_PLATFORM_STATE;
    }
    if (flags & 1) {
        uint64_t at;

        if (s->snp_init) {
            if ((tmr & 0x1fffff) || tmr_len < 0x200000) {
                return INVALID_ADDRESS;
            }
            for (at = tmr; at < tmr + tmr_len; at += 0x1000) {
                if (page_state(at) != PS_FIRMWARE) {
                    return INVALID_PAGE_STATE;
                }
            }
        } else if ((tmr & 0xfffff) || tmr_len < 0x100000) {
            return INVALID_ADDRESS;
        }
        s->tmr = tmr;
        s->tmr_len = tmr_len;
    }
    s->sev_init = true;
    return OK;
}

static int cmd_sev_status(AmdPsp *s, uint64_t buf)
{
    uint8_t out[12] = { 0 };
    int ret = writable(s, buf, sizeof(out));

    if (ret) {
        return ret;
    }
    out[0] = API_MAJOR;
    out[1] = API_MINOR;
    out[2] = s->sev_init;
    stl_le_p(out + 3, s->sev_init && s->tmr_len ? 0x100 : 0);
    out[7] = BUILD_ID;
    stl_le_p(out + 8, 0);
    return mem_write(buf, out, sizeof(out)) ? OK : INVALID_ADDRESS;
}

static int cmd_get_id(AmdPsp *s, uint64_t buf, const uint8_t *cmd)
{
    uint8_t id[128] = { 'e', 'm', 'u', 'l', 'a', 't', 'e', 'd' }, len[4];
    int ret = writable(s, buf, 12);

    if (!ret) {
        ret = writable(s, ldq_le_p(cmd), ldl_le_p(cmd + 8));
    }
    if (ret) {
        return ret;
    }
    stl_le_p(len, 128);
    mem_write(buf + 8, len, 4);
    if (ldl_le_p(cmd + 8) < 128) {
        return INVALID_LEN;
    }
    mem_write(ldq_le_p(cmd), id, 128);
    return OK;
}

static int run_command(AmdPsp *s, unsigned id, uint64_t buf)
{
    uint8_t cmd[256] = { 0 };

    if (buf) {
        if ((buf & 0xfff) > 0x1000 - sizeof(cmd)) {
            mem_read(buf, cmd, 0x1000 - (buf & 0xfff));
        } else {
            mem_read(buf, cmd, sizeof(cmd));
        }
    }
    if (!snp.present) {
        return UNSUPPORTED;
    }
    switch (id) {
    case 0x001:
        return cmd_sev_init(s, ldl_le_p(cmd), ldq_le_p(cmd + 8), ldl_le_p(cmd + 16));
    case 0x00d:
        return cmd_sev_init(s, ldl_le_p(cmd + 4), ldq_le_p(cmd + 8), ldl_le_p(cmd + 16));
    case 0x002:
        s->sev_init = false;
        s->tmr_len = 0;
        return OK;
    case 0x003:
        return s->sev_init ? INVALID_PLATFORM_STATE : OK;
    case 0x004:
        return cmd_sev_status(s, buf);
    case 0x00a:
        memset(s->asid_dirty, 0, sizeof(s->asid_dirty));
        return s->sev_init ? OK : INVALID_PLATFORM_STATE;
    case 0x00c:
        return cmd_get_id(s, buf, cmd);
    case 0x081:
        return cmd_snp_init(s, NULL);
    case 0x085:
        return cmd_snp_init(s, cmd);
    case 0x082:
        return cmd_snp_shutdown(s, NULL);
    case 0x086:
        return cmd_snp_shutdown(s, cmd);
    case 0x083:
        return cmd_snp_platform_status(s, cmd);
    case 0x084:
        memset(s->asid_dirty, 0, sizeof(s->asid_dirty));
        return OK;
    case 0x090:
        return cmd_decommission(s, cmd);
    case 0x091:
        return cmd_activate(s, cmd);
    case 0x092:
        return cmd_guest_status(s, cmd);
    case 0x093:
        return cmd_gctx_create(s, cmd);
    case 0x0a0:
        return cmd_launch_start(s, cmd);
    case 0x0a1:
        return cmd_launch_update(s, cmd);
    case 0x0a2:
        return cmd_launch_finish(s, cmd);
    case 0x0b0:
        return cmd_dbg(s, cmd, true);
    case 0x0b1:
        return cmd_dbg(s, cmd, false);
    case 0x0c7:
        return cmd_page_reclaim(s, cmd);
    case 0x0c8:
        return cmd_page_unsmash(s, cmd);
    case 0x0c9:
        return cmd_config(s, cmd);
    case 0x0cb:
        return OK;
    case 0x0ce:
        return cmd_snp_feature_info(s, cmd);
    }
    return UNSUPPORTED;
}

static uint64_t psp_read(void *opaque, hwaddr addr, unsigned size)
{
    AmdPsp *s = opaque;

    switch (addr) {
    case REG_CMDRESP:
        return s->cmdresp;
    case REG_CMDBUF_LO:
        return s->lo;
    case REG_CMDBUF_HI:
        return s->hi;
    case REG_FEATURE:
        return 1;           /* SEV */
    case REG_INTEN:
        return s->inten;
    case REG_INTSTS:
        return s->intsts;
    }
    return 0;
}

static void psp_write(void *opaque, hwaddr addr, uint64_t val, unsigned size)
{
    AmdPsp *s = opaque;
    unsigned id;
    int status;

    switch (addr) {
    case REG_CMDRESP:
        id = (val >> 16) & 0x7ff;
        status = run_command(s, id, (uint64_t)s->hi << 32 | s->lo);
        if (getenv("SNP_TRACE")) {
            fprintf(stderr, "psp: command %#x buffer %#x%08x = %#x\n", id, s->hi, s->lo, status);
        }
        s->cmdresp = CMD_DONE | id << 16 | status;
        if (val & CMD_IOC) {
            s->intsts |= SEV_CMD_COMPLETE;
            if (s->inten && msi_enabled(PCI_DEVICE(s))) {
                msi_notify(PCI_DEVICE(s), 0);
            }
        }
        break;
    case REG_CMDBUF_LO:
        s->lo = val;
        break;
    case REG_CMDBUF_HI:
        s->hi = val;
        break;
    case REG_INTEN:
        s->inten = val;
        break;
    case REG_INTSTS:
        s->intsts &= ~val;
        break;
    }
}

static const MemoryRegionOps psp_ops = {
    .read = psp_read,
    .write = psp_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .impl = { .min_access_size = 4, .max_access_size = 4 },
};

static void psp_realize(PCIDevice *dev, Error **errp)
{
    AmdPsp *s = AMD_PSP(dev);

    s->guests = g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL, g_free);
    s->reported_tcb = TCB_VERSION;
    memory_region_init_io(&s->bar, OBJECT(s), &psp_ops, s, "amd-psp", PSP_BAR_SIZE);
    pci_register_bar(dev, 2, PCI_BASE_ADDRESS_SPACE_MEMORY, &s->bar);
    msi_init(dev, 0, 1, true, false, errp);
}

static void psp_class_init(ObjectClass *klass, void *data)
{
    PCIDeviceClass *k = PCI_DEVICE_CLASS(klass);
    DeviceClass *dc = DEVICE_CLASS(klass);

    k->realize = psp_realize;
    k->vendor_id = PCI_VENDOR_ID_AMD;
    k->device_id = 0x14ca;
    k->class_id = 0x1080;   /* encryption controller */
    dc->desc = "AMD secure processor with emulated SEV-SNP firmware";
    dc->hotpluggable = false;
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
}

static const TypeInfo psp_info = {
    .name = TYPE_AMD_PSP,
    .parent = TYPE_PCI_DEVICE,
    .instance_size = sizeof(AmdPsp),
    .class_init = psp_class_init,
    .interfaces = (InterfaceInfo[]) {
        { INTERFACE_CONVENTIONAL_PCI_DEVICE },
        { },
    },
};

static void psp_register(void)
{
    type_register_static(&psp_info);
}

type_init(psp_register)

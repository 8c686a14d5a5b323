/*
 * Emulation of a TDX capable host: VMX root operation as far as TDX needs it,
 * the TDX module, secure EPT, the world switch of trust domains.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TARGET_I386_TDX_HOST_H
#define TARGET_I386_TDX_HOST_H

#include "exec/hwaddr.h"

#define TDX_KEYID_BITS          6
#define TDX_PA_BITS             (52 - TDX_KEYID_BITS)
#define TDX_NUM_MKTME_KEYIDS    31
#define TDX_NUM_KEYIDS          32

/* PAMT page types */
enum {
    PT_NDA = 0,
    PT_RSVD = 1,
    PT_REG = 3,
    PT_TDR = 4,
    PT_TDCX = 5,
    PT_TDVPR = 6,
    PT_EPT = 8,
};

typedef struct TdxPage {        /* by page frame */
    uint64_t bepoch;
    uint64_t poison;            /* lines that were written without the TD's key */
    uint8_t *hidden;            /* what its owner sees, while RAM shows what others do */
    void *obj;                  /* TdxTd, TdxVp, entries of secure EPT */
    uint32_t owner;             /* frame of the TDR */
    uint32_t gen;
    uint8_t pt;
    bool priv;                  /* written with a private key: TD bit is set */
    bool in_td;                 /* RAM shows what the owner sees */
} TdxPage;

typedef struct TdxHost {
    TdxPage *page;
    uint64_t npfn;
    bool zero_view;
} TdxHost;

extern TdxHost tdx;

void tdx_host_init(void);
void tdx_host_ram(hwaddr ram_top);

#endif

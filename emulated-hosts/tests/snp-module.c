// SPDX-License-Identifier: GPL-2.0-or-later
/* Checks of the host's side of the RMP */
#include <linux/module.h>
#include <linux/mm.h>
#include <linux/uaccess.h>
#include <linux/io.h>
#include <asm/sev.h>
static int run(const char *what, void *p)
{
	u64 v = 0x4141414141414141ULL;
	long r = 0;
	__put_kernel_nofault(p, &v, u64, fail);
	goto out;
fail:	r = -EFAULT;
out:
	pr_info("snpmod: %s: write %ld, read %llx\n", what, r, *(volatile u64 *)p);
	return r;
}
static int upd(u64 pa, u64 gpa, u8 assigned, u8 size, u8 imm, u32 asid)
{
	struct rmp_state s = { .gpa = gpa, .assigned = assigned, .pagesize = size, .immutable = imm, .asid = asid };
	int ret;
	asm volatile(".byte 0xF2, 0x0F, 0x01, 0xFE" : "=a"(ret) : "a"(pa), "c"(&s) : "memory", "cc");
	return ret;
}
#define UPD(...) ({ int r_ = upd(__VA_ARGS__); pr_info("snpmod: rmpupdate(" #__VA_ARGS__ ") = %d\n", r_); r_; })
static int __init snpmod_init(void)
{
	struct page *big = alloc_pages(GFP_KERNEL | __GFP_ZERO, 10);	/* 4M: has a 2M page */
	u64 pa = ALIGN(page_to_phys(big), 0x200000), base;
	void *p = __va(pa), *m;
	bool as; int level, i, e, f, g;

	run("shared page", p);
	UPD(pa, 0x5000, 1, 0, 0, 7);
	run("assigned, large direct map", p);
	run("its neighbour 4K page, same 2M mapping", p + 0x1000);
	snp_lookup_rmpentry(pa >> 12, &as, &level);
	pr_info("snpmod: lookup: assigned %d level %d\n", as, level);
	UPD(pa + 0x3000, 0x8000, 1, 0, 0, 7);
	UPD(pa, 0x200000, 1, 1, 0, 7);	/* FAIL_OVERLAP 4 */
	UPD(pa + 0x3000, 0, 0, 0, 0, 0);
	UPD(pa, 0, 0, 0, 0, 0);
	run("shared again", p);
	UPD(pa, 0x200000, 1, 1, 0, 7);
	UPD(pa + 0x5000, 0, 0, 0, 0, 0);	/* 4 */
	snp_lookup_rmpentry((pa >> 12) + 5, &as, &level);
	pr_info("snpmod: in the 2M page: assigned %d level %d\n", as, level);
	pr_info("snpmod: psmash %d, again %d\n", e = psmash(pa >> 12), f = psmash(pa >> 12));
	snp_lookup_rmpentry((pa >> 12) + 5, &as, &level);
	pr_info("snpmod: after psmash: assigned %d level %d\n", as, level);
	UPD(pa + 0x5000, 0, 0, 0, 0, 0);
	for (i = 0; i < 512; i++)
		upd(pa + i * 0x1000, 0, 0, 0, 0, 0);
	UPD(pa, 0, 1, 0, 1, 0);		/* firmware page */
	UPD(pa, 0, 0, 0, 0, 0);		/* FAIL_PERMISSION 2 */
	UPD(pa + 1, 0, 1, 0, 0, 7);	/* FAIL_INPUT 1 */
	UPD(pa + 0x4000, 0, 0, 0, 0, 7);	/* 1 */
	UPD(0x4000000000ULL, 0, 1, 0, 0, 7);	/* 1: not covered */
	UPD(pa + 0x1000, 0, 1, 1, 0, 7);	/* 1 */
	rdmsrq(0xc0010132, base);
	m = memremap(base + 0x4000, 0x1000, MEMREMAP_WB);
	run("the RMP itself", m);
	e = wrmsrq_safe(0xc0010130, 5);
	f = wrmsrq_safe(0xc0010117, pa);
	g = wrmsrq_safe(0xc0010132, 0);
	pr_info("snpmod: WRMSR: GHCB in the host %d, HSAVE_PA to a firmware page %d, RMP_BASE %d\n", e, f, g);
	return -EINVAL;
}
module_init(snpmod_init);
MODULE_LICENSE("GPL");

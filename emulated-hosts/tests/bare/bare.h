/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the tests without a kernel have in common.  They see what no kernel lets through: instructions of the host out of
 * order, with wrong operands, at pages that are somebody's.  Results go to the second serial port, a line a check; "run"
 * makes TAP of them.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE        4096ull
#define LARGE       (2ull << 20)

extern volatile uint64_t exception_vector, exception_error, exception_address, exception_after;
volatile uint64_t exception_vector, exception_error, exception_address, exception_after;
#define UD  6
#define GP  13
#define PF  14

/* An instruction that may fault; exception_vector is then which one it was, and 0 when it was none. */
#define TRY(insn, ...) do {                                                             \
	exception_vector = 0;                                                           \
	asm volatile("lea 991f(%%rip), %%r11; mov %%r11, exception_after; " insn "; 991:"  \
		     __VA_ARGS__);                                                      \
} while (0)

static void outb(uint16_t port, uint8_t value)
{
	asm volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static uint8_t inb(uint16_t port)
{
	uint8_t value;

	asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

#define SERIAL 0x2f8

static void put(const char *text)
{
	for (; *text; text++) {
		while (!(inb(SERIAL + 5) & 0x20))
			;
		outb(SERIAL, *text);
	}
}

static void put_hex(uint64_t value)
{
	char text[19] = "0x", *at = text + 2;

	for (int shift = 60; shift >= 0; shift -= 4) {
		int digit = value >> shift & 15;

		if (digit || at != text + 2 || !shift)
			*at++ = "0123456789abcdef"[digit];
	}
	*at = 0;
	put(text);
}

static void check(bool good, const char *what, const char *rule)
{
	put(good ? "ok - " : "not ok - ");
	put(what);
	put(" [");
	put(rule);
	put("]\n");
}

/* What must be a value */
static void equal(uint64_t found, uint64_t expected, const char *what, const char *rule)
{
	check(found == expected, what, rule);
	if (found == expected)
		return;
	put("# ");
	put_hex(found);
	put(" instead of ");
	put_hex(expected);
	put("\n");
}

static uint64_t rdmsr(uint32_t msr)
{
	uint32_t low, high;

	asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
	return (uint64_t)high << 32 | low;
}

static void wrmsr(uint32_t msr, uint64_t value)
{
	TRY("wrmsr", : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)) : "r11", "memory");
}

static void write_to(uint64_t pa)
{
	TRY("movq $0x41414141, (%0)", : : "r"(pa) : "r11", "memory");
}

static uint64_t read_at(uint64_t pa)
{
	return *(volatile uint64_t *)pa;
}

/* The compiler may call it. */
void *memset(void *to, int value, size_t size)
{
	void *at = to;

	asm volatile("rep stosb" : "+D"(at), "+c"(size) : "a"(value) : "memory");
	return to;
}

void on_ud(void);
void on_gp(void);
void on_pf(void);

static void set_gate(uint64_t (*idt)[2], int vector, void (*handler)(void))
{
	uint64_t at = (uint64_t)handler;

	idt[vector][0] = (at & 0xffff) | 24 << 16 | 0x8e00ull << 32 | (at & 0xffff0000) << 32;
	idt[vector][1] = at >> 32;
}

static void test(void);

void start(void);
void start(void)
{
	static uint64_t idt[32][2];
	struct { uint16_t limit; uint64_t base; } __attribute__((packed)) idtr = { sizeof(idt) - 1, (uint64_t)idt };

	set_gate(idt, UD, on_ud);
	set_gate(idt, GP, on_gp);
	set_gate(idt, PF, on_pf);
	asm volatile("lidt %0" : : "m"(idtr));
	test();
	put("done\n");
	/* A reset, which ends QEMU */
	for (;;)
		outb(0x64, 0xfe);
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * The conversions that `gmem-conform bench` times, made by as little as can make them: what bench adds to a call is the
 * difference. Nothing is checked but that the calls succeed.
 *
 *	cc -O2 -static -o bare-loop benches/bare-loop.c
 *	gmem-conform bench --bare-loop ./bare-loop
 *
 * bench runs it as: bare-loop PAGES private|shared allocated|hole FLAGS KEEP, with FLAGS for the conversions that are timed
 * and KEEP for the others. It prints the nanoseconds of each, a line each.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

/* As src/bench/meter.rs. */
#define MOST_SAMPLES 32
#define ROUND_NS 20000000ull

#define PAGE 4096ull
#define PAYLOAD_SIZE 0x200000ull
#define TEST_MEMORY 0x100000000ull
#define CODE 0x1000
#define PRIVATE 8

/* Not in every header yet. */
struct region2 {
	uint32_t slot, flags;
	uint64_t guest_phys_addr, memory_size, userspace_addr, guest_memfd_offset;
	uint32_t guest_memfd, pad1;
	uint64_t pad2[14];
};

struct create_guest_memfd {
	uint64_t size, flags, reserved[6];
};

struct attributes2 {
	uint64_t offset, size, attributes, flags, error_offset, reserved[11];
};

#define SET_USER_MEMORY_REGION2 _IOW(KVMIO, 0x49, struct region2)
#define CREATE_GUEST_MEMFD _IOWR(KVMIO, 0xd4, struct create_guest_memfd)
#define SET_MEMORY_ATTRIBUTES2 _IOWR(KVMIO, 0xd2, struct attributes2)
#define SW_PROTECTED_VM 1
#define MEM_GUEST_MEMFD 4
#define MMAP_AND_INIT_SHARED 3

static int checked(int result, const char *what)
{
	if (result < 0) {
		fprintf(stderr, "bare-loop: %s: %s\n", what, strerror(errno));
		exit(1);
	}
	return result;
}

static void *mapped(void *address)
{
	if (address == MAP_FAILED)
		checked(-1, "mmap");
	return address;
}

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

/* How long the call that succeeded took. */
static uint64_t convert(int gmem, uint64_t size, uint64_t attributes, uint64_t flags)
{
	struct attributes2 argument = { .size = size, .attributes = attributes, .flags = flags };
	int tries, result;
	uint64_t start, end;

	for (tries = 0; tries < 100; tries++) {
		argument.error_offset = 0;
		start = now();
		result = ioctl(gmem, SET_MEMORY_ATTRIBUTES2, &argument);
		end = now();
		if (result == 0)
			return end - start;
		if (errno != EAGAIN)
			break;
	}
	checked(-1, "KVM_SET_MEMORY_ATTRIBUTES2");
	return 0;
}

/* A vCPU that has been in the guest, so that KVM has page tables to look through. */
static void run_guest(int kvm, int vm, uint8_t *payload)
{
	int vcpu = checked(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
	int size = checked(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
	struct kvm_run *run = mapped(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0));
	struct kvm_regs regs = { .rip = CODE, .rflags = 2 };
	struct kvm_sregs sregs;

	payload[CODE] = 0xf4; /* hlt */
	checked(ioctl(vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	checked(ioctl(vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
	checked(ioctl(vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
	checked(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
	if (run->exit_reason != KVM_EXIT_HLT) {
		fprintf(stderr, "bare-loop: KVM_RUN: exit reason %u\n", run->exit_reason);
		exit(1);
	}
}

int main(int argc, char **argv)
{
	if (argc != 6) {
		fprintf(stderr, "bare-loop: PAGES private|shared allocated|hole FLAGS KEEP\n");
		return 1;
	}
	uint64_t size = strtoull(argv[1], NULL, 10) * PAGE;
	uint64_t to = strcmp(argv[2], "private") ? 0 : PRIVATE, from = to ^ PRIVATE;
	int allocated = !strcmp(argv[3], "allocated");
	uint64_t flags = strtoull(argv[4], NULL, 10), keep = strtoull(argv[5], NULL, 10);

	int kvm = checked(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
	int vm = checked(ioctl(kvm, KVM_CREATE_VM, SW_PROTECTED_VM), "KVM_CREATE_VM");
	uint8_t *payload = mapped(mmap(NULL, PAYLOAD_SIZE, PROT_READ | PROT_WRITE,
				       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	struct region2 slot = {
		.slot = 9, .memory_size = PAYLOAD_SIZE, .userspace_addr = (uintptr_t)payload,
	};
	checked(ioctl(vm, SET_USER_MEMORY_REGION2, &slot), "KVM_SET_USER_MEMORY_REGION2");
	run_guest(kvm, vm, payload);

	struct create_guest_memfd create = { .size = size, .flags = MMAP_AND_INIT_SHARED };
	int gmem = checked(ioctl(vm, CREATE_GUEST_MEMFD, &create), "KVM_CREATE_GUEST_MEMFD");
	volatile uint8_t *view = mapped(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, gmem, 0));
	slot = (struct region2){
		.flags = MEM_GUEST_MEMFD, .guest_phys_addr = TEST_MEMORY, .memory_size = size,
		.userspace_addr = (uintptr_t)view, .guest_memfd = gmem,
	};
	checked(ioctl(vm, SET_USER_MEMORY_REGION2, &slot), "KVM_SET_USER_MEMORY_REGION2");

	if (allocated) {
		for (uint64_t at = 0; at < size; at += PAGE)
			view[at] = 1;
		convert(gmem, size, PRIVATE, keep);
	}
	convert(gmem, size, from, keep);

	uint64_t times[MOST_SAMPLES];
	int count = 0, warm = 0;
	uint64_t start = now();
	while (!count || (count < MOST_SAMPLES && now() - start < ROUND_NS)) {
		uint64_t time = convert(gmem, size, to, flags);
		convert(gmem, size, from, keep);
		if (warm || now() - start > ROUND_NS)
			times[count++] = time;
		warm = 1;
	}
	for (int i = 0; i < count; i++)
		printf("%llu\n", (unsigned long long)times[i]);
	return 0;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the emulator's tests have in common.  Each is process 1 of a machine of its own: main() comes from here, and calls
 * test().  Results go to the second serial port, a line a check; "run" makes TAP of them.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>
#include <linux/kvm.h>

/* The host's side of the interface, of Linux 7.3; the C library's headers may be older. */
struct create_guest_memfd { uint64_t size, flags, reserved[6]; };
struct memory_region2 { uint32_t slot, flags; uint64_t gpa, size, hva, offset; uint32_t fd, pad1; uint64_t pad2[14]; };
struct attributes { uint64_t address, size, attributes, flags; };
struct attributes2 { uint64_t offset, size, attributes, flags, error_offset, reserved[11]; };
#define CREATE_GUEST_MEMFD          _IOWR(KVMIO, 0xd4, struct create_guest_memfd)
#define SET_USER_MEMORY_REGION2     _IOW(KVMIO, 0x49, struct memory_region2)
#define SET_MEMORY_ATTRIBUTES       _IOW(KVMIO, 0xd2, struct attributes)
#define SET_MEMORY_ATTRIBUTES2      _IOWR(KVMIO, 0xd2, struct attributes2)
#define ATTRIBUTE_PRIVATE           8
#define MEM_GUEST_MEMFD             4
#define EXIT_MEMORY_FAULT           39
#define MEMORY_FAULT_PRIVATE        8
#define HC_MAP_GPA_RANGE            12
/* What a guest asks for with it */
#define MAP_ENCRYPTED               0x10

static int kvm, vm, gmem, failed;
static bool failures_only;
static uint8_t *shared;         /* the host's view of the guest's shared memory, slot 0 */
#define MEMORY (2 << 20)

static void check(bool good, const char *rule, const char *format, ...)
{
	va_list args;

	failed += !good;
	if (good && failures_only)
		return;
	printf("%s - ", good ? "ok" : "not ok");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf(" [%s]\n", rule);
}

static void comment(const char *format, ...)
{
	va_list args;

	printf("# ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
}

static void finish(void)
{
	printf("done\n");
	fflush(stdout);
	sync();
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}

/* What must work for a test to be one. */
static int must(int result, const char *what)
{
	if (result < 0) {
		check(false, "the test itself", "%s: %s", what, strerror(errno));
		finish();
	}
	return result;
}

static void skip(const char *why)
{
	printf("skip %s\n", why);
	finish();
}

/* Attributes per VM */
static void set_private(uint64_t gpa, uint64_t size, bool private)
{
	struct attributes a = { gpa, size, private ? ATTRIBUTE_PRIVATE : 0, 0 };

	must(ioctl(vm, SET_MEMORY_ATTRIBUTES, &a), "KVM_SET_MEMORY_ATTRIBUTES");
}

static void *map(int fd, uint64_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, fd, 0);

	must(p == MAP_FAILED ? -1 : 0, "mmap");
	return p;
}

/*
 * A slot of guest_memfd.  Where that can be mapped (flags), it is the shared memory as well, else other memory is.  Sets
 * *view to the latter.
 */
static int add_slot(int slot, uint64_t gpa, uint64_t size, uint64_t flags, uint8_t **view)
{
	struct create_guest_memfd c = { size, flags };
	int fd = must(ioctl(vm, CREATE_GUEST_MEMFD, &c), "KVM_CREATE_GUEST_MEMFD");
	struct memory_region2 m = { slot, MEM_GUEST_MEMFD, gpa, size, 0, 0, fd };

	*view = map(flags ? fd : -1, size);
	m.hva = (uint64_t)*view;
	must(ioctl(vm, SET_USER_MEMORY_REGION2, &m), "KVM_SET_USER_MEMORY_REGION2");
	return fd;
}

static void test(void);

int main(void)
{
	int fd;

	mkdir("/dev", 0755);
	mkdir("/sys", 0755);
	mount("devtmpfs", "/dev", "devtmpfs", 0, "");
	mount("sysfs", "/sys", "sysfs", 0, "");
	fd = open("/dev/ttyS1", O_RDWR | O_NOCTTY);
	dup2(fd, 1);
	dup2(fd, 2);
	setvbuf(stdout, NULL, _IOLBF, 0);
	kvm = must(open("/dev/kvm", O_RDWR), "open /dev/kvm");
	test();
	finish();
}

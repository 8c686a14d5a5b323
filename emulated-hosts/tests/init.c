// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Process 1 of a machine that runs programs of somebody else, one after another: those in /tests, by name.  What they
 * print goes to the second serial port, with a line for "run-selftests" after each: "status", name, exit status.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
	struct dirent **names;
	int fd, count;

	mkdir("/dev", 0755);
	mkdir("/sys", 0755);
	mkdir("/proc", 0755);
	mkdir("/tmp", 0755);
	mount("devtmpfs", "/dev", "devtmpfs", 0, "");
	mount("sysfs", "/sys", "sysfs", 0, "");
	mount("proc", "/proc", "proc", 0, "");
	fd = open("/dev/ttyS1", O_RDWR | O_NOCTTY);
	dup2(fd, 1);
	dup2(fd, 2);
	chdir("/tests");
	count = scandir(".", &names, NULL, alphasort);
	for (int i = 0; i < count; i++) {
		char *name = names[i]->d_name;
		int status = -1;

		if (*name == '.')
			continue;
		if (!fork()) {
			alarm(300);
			execl(name, name, NULL);
			_exit(127);
		}
		wait(&status);
		printf("\nstatus %s %d\n", name, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
		fflush(stdout);
	}
	puts("done");
	fflush(stdout);
	sync();
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}

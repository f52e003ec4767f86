/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the ptshare selftests have in common.
 *
 * A test must pass whether its memory is shared or not: sharing is an
 * implementation detail.  It runs under whatever policy the caller has set.
 * Where sharing itself is the point, sharing() tells whether it can happen.
 */
#ifndef PT_UTIL_H
#define PT_UTIL_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../kselftest_harness.h"

/* Seconds for one test: enough for a kernel with KASAN in an emulator. */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	300

#ifndef MADV_PTSHARE
#define MADV_PTSHARE	200
#define MADV_NOPTSHARE	201
#endif

#ifndef PR_SET_PTSHARE
#define PR_SET_PTSHARE	0x50545348
#define PR_GET_PTSHARE	0x50545349
#define PTSHARE_DEFAULT	0
#define PTSHARE_ALWAYS	1
#define PTSHARE_NEVER	2
#endif

#define KB		1024UL
#define MB		(1024 * KB)
#define PAGE		4096UL
#define CHUNK		(2 * MB)

#define SYSFS		"/sys/kernel/mm/ptshare/"

/* A number in /sys/kernel/mm/ptshare, -1 if the kernel has none. */
static inline long pt_stat(const char *name)
{
	char path[128], buf[32] = "";
	int fd;

	snprintf(path, sizeof(path), SYSFS "%s", name);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		return -1;
	if (read(fd, buf, sizeof(buf) - 1) < 0)
		buf[0] = 0;
	close(fd);
	return atol(buf);
}

/* Wait for a gauge: teardown may be left to a kernel thread. */
static inline long pt_settle(const char *name, long want)
{
	int i;

	for (i = 0; i < 250 && pt_stat(name) != want; i++)
		usleep(20000);
	return pt_stat(name);
}

/* What there is of sharing in the system. */
struct pt_gauges {
	long sharers, owners, tables, attached;
};

static inline struct pt_gauges pt_gauges(void)
{
	return (struct pt_gauges) {
		.sharers = pt_stat("sharers"),
		.owners = pt_stat("owners"),
		.tables = pt_stat("tables"),
		.attached = pt_stat("attached"),
	};
}

/* Which gauge does not come back to what it was. */
static inline const char *pt_left_over(const struct pt_gauges *was)
{
	if (pt_settle("sharers", was->sharers) != was->sharers)
		return "sharers";
	if (pt_settle("owners", was->owners) != was->owners)
		return "owners";
	if (pt_settle("tables", was->tables) != was->tables)
		return "tables";
	if (pt_settle("attached", was->attached) != was->attached)
		return "attached";
	return "nothing";
}

/* Will big shared mappings of this process share? */
static inline bool sharing(void)
{
	char buf[64] = "";
	int fd = open(SYSFS "enabled", O_RDONLY);

	if (fd < 0)
		return false;
	if (read(fd, buf, sizeof(buf) - 1) < 0)
		buf[0] = 0;
	close(fd);
	if (strstr(buf, "[never]"))
		return false;
	return strstr(buf, "[always]") ||
	       prctl(PR_GET_PTSHARE, 0, 0, 0, 0) == PTSHARE_ALWAYS;
}

/* The same for whoever runs under the policy madvise. */
static inline void pt_opt_in(void)
{
	prctl(PR_SET_PTSHARE, PTSHARE_ALWAYS, 0, 0, 0);
}

static inline long meminfo_kb(const char *key)
{
	char line[128];
	long kb = -1;
	FILE *f = fopen("/proc/meminfo", "r");

	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, key, strlen(key)) &&
		    line[strlen(key)] == ':')
			kb = atol(line + strlen(key) + 1);
	fclose(f);
	return kb;
}

static inline int new_memfd(size_t size)
{
	int fd = memfd_create("ptshare", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd >= 0 && ftruncate(fd, size)) {
		close(fd);
		return -1;
	}
	return fd;
}

/*
 * Map at a given distance from a chunk boundary of the address space, so that
 * mappings are congruent with the file, or not, on purpose.
 */
static inline char *map_mod(int fd, size_t len, off_t off, int prot,
			    unsigned long mod)
{
	char *area, *addr;

	area = mmap(NULL, len + 2 * CHUNK, PROT_NONE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (area == MAP_FAILED)
		return area;
	addr = (char *)(((uintptr_t)area + CHUNK - 1) & ~(CHUNK - 1)) + mod;
	munmap(area, addr - area);
	munmap(addr + len, area + len + 2 * CHUNK - (addr + len));
	return mmap(addr, len, prot, MAP_SHARED | MAP_FIXED, fd, off);
}

/* Map so that it can share. */
static inline char *map_at(int fd, size_t len, off_t off, int prot)
{
	return map_mod(fd, len, off, prot, off & (CHUNK - 1));
}

/* --- accesses that may be refused --- */

static sigjmp_buf pt_env;
static volatile sig_atomic_t pt_sig;

static void pt_handler(int sig)
{
	pt_sig = sig;
	siglongjmp(pt_env, 1);
}

/* SA_NODEFER: the mask of signals stays as it is, and need not be saved. */
static inline void pt_catch(void)
{
	struct sigaction sa = { .sa_handler = pt_handler, .sa_flags = SA_NODEFER };

	sigaction(SIGSEGV, &sa, NULL);
	sigaction(SIGBUS, &sa, NULL);
}

/* Load or store a byte; the signal that it raised, or 0. */
static inline int try_load(const volatile char *p, char *val)
{
	pt_sig = 0;
	if (!sigsetjmp(pt_env, 0)) {
		char c = *p;

		if (val)
			*val = c;
	}
	return pt_sig;
}

static inline int try_store(volatile char *p, char val)
{
	pt_sig = 0;
	if (!sigsetjmp(pt_env, 0))
		*p = val;
	return pt_sig;
}

static inline int uffd_open(unsigned long features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int fd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK |
			 UFFD_USER_MODE_ONLY);

	if (fd >= 0 && ioctl(fd, UFFDIO_API, &api)) {
		close(fd);
		return -1;
	}
	return fd;
}

static inline void fill(char *p, size_t len, unsigned int seed)
{
	size_t i;

	for (i = 0; i < len; i += PAGE)
		p[i] = seed + i / PAGE;
}

/* The first page that does not hold what fill() wrote, or -1. */
static inline long check(const char *p, size_t len, unsigned int seed)
{
	size_t i;

	for (i = 0; i < len; i += PAGE)
		if (p[i] != (char)(seed + i / PAGE))
			return i / PAGE;
	return -1;
}

/* Run fn in a child; its return value, or 256 + signal. */
static inline int in_child(int (*fn)(void *), void *arg)
{
	pid_t pid = fork();
	int status;

	if (pid < 0)
		return 1000;
	if (!pid)
		_exit(fn(arg));
	waitpid(pid, &status, 0);
	return WIFSIGNALED(status) ? 256 + WTERMSIG(status) :
				     WEXITSTATUS(status);
}

/* How many lines of /proc/self/maps lie in a range. */
static inline int count_vmas(const char *start, size_t len)
{
	unsigned long from, to;
	char line[512];
	int n = 0;
	FILE *f = fopen("/proc/self/maps", "r");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%lx-%lx", &from, &to) == 2 &&
		    from < (uintptr_t)start + len && to > (uintptr_t)start)
			n++;
	if (f)
		fclose(f);
	return n;
}

#endif /* PT_UTIL_H */

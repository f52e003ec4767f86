// SPDX-License-Identifier: GPL-2.0
/*
 * vmaops - what operations on a big shared mapping cost
 *
 * X is the size of the mapping in MiB; in series that end in /N it is 16 MiB,
 * and X is the number of processes that map it.  The process has touched it all
 * before.
 *
 *	mprotect	to read-only and back
 *	mprotect+touch	the same, and then read it all
 *	mremap		to another address
 *	mremap+touch	the same, and then read it all
 *	munmap
 *	fork		a child, until it is gone; it touches nothing
 *	fork+touch	the same; the child reads it all
 *	exit		of a process that has read it all
 *	exec		by a process that has read it all
 *
 * Sharing defers work to the next access, which is why some come in pairs.
 */
#define _GNU_SOURCE
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

static size_t size;
static int fd;
static char *map;		/* of this process */
static long long *stamp;	/* when a child began */

static char *map_touched(void)
{
	char *p = map_file(fd, size, PROT_READ | PROT_WRITE, ANYWHERE);

	touch_read(p, size, PAGE);
	return p;
}

static double mprotect_touch(bool touch)
{
	char *p = map_touched();
	struct meter meter;
	double cost;

	meter_start(&meter);
	if (mprotect(p, size, PROT_READ) ||
	    mprotect(p, size, PROT_READ | PROT_WRITE))
		err(1, "mprotect");
	if (touch)
		touch_read(p, size, PAGE);
	cost = meter_stop(&meter, 1);
	munmap(p, size);
	return cost;
}

static double do_mprotect(void)
{
	return mprotect_touch(false);
}

static double do_mprotect_touch(void)
{
	return mprotect_touch(true);
}

static double mremap_touch(bool touch)
{
	void *there = (void *)(1UL << 44);
	char *p = map_touched();
	struct meter meter;
	double cost;

	meter_start(&meter);
	p = mremap(p, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, there);
	if (p == MAP_FAILED)
		err(1, "mremap");
	if (touch)
		touch_read(p, size, PAGE);
	cost = meter_stop(&meter, 1);
	munmap(p, size);
	return cost;
}

static double do_mremap(void)
{
	return mremap_touch(false);
}

static double do_mremap_touch(void)
{
	return mremap_touch(true);
}

static double do_munmap(void)
{
	char *p = map_touched();
	struct meter meter;

	meter_start(&meter);
	munmap(p, size);
	return meter_stop(&meter, 1);
}

static void wait_for(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid || status)
		errx(1, "a child ended with status %#x", status);
}

static double fork_touch(bool touch)
{
	struct meter meter;
	pid_t pid;

	meter_start(&meter);
	pid = fork();
	if (pid < 0)
		err(1, "fork");
	if (!pid) {
		if (touch)
			touch_read(map, size, PAGE);
		_exit(0);
	}
	wait_for(pid);
	return meter_stop(&meter, 1);
}

static double do_fork(void)
{
	return fork_touch(false);
}

static double do_fork_touch(void)
{
	return fork_touch(true);
}

static double do_exit(void)
{
	pid_t pid = fork();

	if (pid < 0)
		err(1, "fork");
	if (!pid) {
		touch_read(map, size, PAGE);
		*stamp = now();
		_exit(0);
	}
	wait_for(pid);
	return now() - *stamp;
}

static double do_exec(void)
{
	long long end;
	int to[2];
	pid_t pid;

	if (pipe(to))
		err(1, "pipe");
	pid = fork();
	if (pid < 0)
		err(1, "fork");
	if (!pid) {
		touch_read(map, size, PAGE);
		*stamp = now();
		exec_clock(to[1]);
	}
	if (read(to[0], &end, sizeof(end)) != sizeof(end))
		errx(1, "exec failed");
	wait_for(pid);
	close(to[0]);
	close(to[1]);
	return end - *stamp;
}

static const struct op {
	const char *name;
	double (*run)(void);
	bool counts_ipis;
} ops[] = {
	{ "mprotect", do_mprotect, true },
	{ "mprotect+touch", do_mprotect_touch, true },
	{ "mremap", do_mremap, true },
	{ "mremap+touch", do_mremap_touch, true },
	{ "munmap", do_munmap, true },
	{ "fork", do_fork, true },
	{ "fork+touch", do_fork_touch, true },
	{ "exit", do_exit, false },
	{ "exec", do_exec, false },
};

static void measure(const struct op *op, long x, const char *suffix)
{
	struct samples cost = {};
	char series[64];
	int i;

	if (bench.ipi && !op->counts_ipis)
		return;
	op->run();		/* warms up */
	for (i = 0; i < bench.runs; i++)
		sample(&cost, op->run());
	snprintf(series, sizeof(series), "%s%s", op->name, suffix);
	report(series, x, &cost, meter_unit("call"));
}

static void measure_all(long mb, long n, long x, const char *suffix)
{
	struct crew_spec spec = {};
	static struct crew crew;
	size_t i;

	spec.size = size = mb * MB;
	spec.fd = fd = new_file(size);
	map = map_file(fd, size, PROT_READ | PROT_WRITE, ANYWHERE);
	touch_write(map, size, PAGE);
	must_be_huge(map);
	if (n > 1) {
		crew_start(&crew, &spec, n - 1);
		crew_spin(&crew);
		crew_do(&crew, CREW_MAP);
		crew_do(&crew, CREW_READ);
	}
	must_share(n * (size / CHUNK));
	for (i = 0; i < ARRAY_SIZE(ops); i++)
		measure(&ops[i], x, suffix);
	if (n > 1)
		crew_quit(&crew);
	munmap(map, size);
	close(fd);
	settle();
}

int main(int argc, char **argv)
{
	static const long full[] = { 4, 16, 64, 256, 0 }, quick[] = { 4, 16, 0 };
	static const long many[] = { 1, 16, 256, 0 }, few[] = { 4, 0 };
	const long *x;

	bench_init(argc, argv, 5);
	stamp = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (stamp == MAP_FAILED)
		err(1, "mmap");
	for (x = bench_list(full, quick); *x; x++)
		measure_all(*x, 1, *x, "");
	for (x = bench.quick ? few : many; *x; x++)
		measure_all(16, *x, *x, "/N");
	return 0;
}

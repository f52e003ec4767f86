// SPDX-License-Identifier: GPL-2.0
/*
 * offcost - what the feature costs a single process, used or not
 *
 * Everything here is done by one process with nobody to share with: what could
 * only be slower.  Zeroing a page is 4096 instructions in an emulator that
 * counts them (rep stosb), which hides all else; so faults come also without.
 *
 * Where a VMA stands in its node of the maple tree, and whether a node is just
 * full, makes thousands of instructions of difference to mmap(), and always
 * places big mappings elsewhere than never.  So the one that stays has a fixed
 * address, and everything is done with 0, 1, ... more mappings than the process
 * has, of which the mean counts.
 */
#define _GNU_SOURCE
#include <err.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

#define SMALL	(256 * KB)	/* does not share by itself */
#define BIG	(4 * MB)	/* does */

#define PADS	((char *)(1UL << 40))
#define BIG_AT	(1UL << 41)

static int small_fd, big_fd;
static char *big;		/* touched by us, so that there is something */
static const char zeroes[SMALL];
static int ops = 100;
static int paddings = 32;	/* twice what a node has room for */

static char *anonymous(size_t size)
{
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED || madvise(p, size, MADV_NOHUGEPAGE))
		err(1, "mmap");
	return p;
}

/* --- faults: cost of one --- */

static double touched(char *p, size_t size, bool write)
{
	struct meter meter;
	double cost;

	meter_start(&meter);
	if (write)
		touch_write(p, size, PAGE);
	else
		touch_read(p, size, PAGE);
	cost = meter_stop(&meter, size / PAGE);
	munmap(p, size);
	return cost;
}

static double anon_zero_page(void)
{
	return touched(anonymous(SMALL), SMALL, false);
}

static double anon_write(void)
{
	return touched(anonymous(SMALL), SMALL, true);
}

static double small_write(void)
{
	return touched(map_file(small_fd, SMALL, PROT_READ | PROT_WRITE,
				ANYWHERE), SMALL, true);
}

static double small_read(void)
{
	return touched(map_file(small_fd, SMALL, PROT_READ, ANYWHERE), SMALL,
		       false);
}

/* Nobody has it mapped but the one who touches it: no table to find. */
static double lone_touch(bool write)
{
	int fd = new_file(BIG);
	double cost;

	allocate(fd, BIG);
	cost = touched(map_file(fd, BIG, PROT_READ | PROT_WRITE, ANYWHERE), BIG,
		       write);
	close(fd);
	return cost;
}

static double big_write(void)
{
	return lone_touch(true);
}

static double big_read(void)
{
	return lone_touch(false);
}

static double big_fill(void)
{
	int fd = new_file(BIG);
	double cost = touched(map_file(fd, BIG, PROT_READ | PROT_WRITE, ANYWHERE),
			      BIG, true);

	close(fd);
	return cost;
}

/* --- calls: cost of one --- */

static double calls(void (*call)(void))
{
	struct meter meter;
	int i;

	meter_start(&meter);
	for (i = 0; i < ops; i++)
		call();
	return meter_stop(&meter, ops);
}

static void anon_map(void)
{
	void *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	munmap(p, PAGE);
}

static void small_map(void)
{
	munmap(map_file(small_fd, SMALL, PROT_READ, ANYWHERE), SMALL);
}

static void big_map(void)
{
	munmap(map_file(big_fd, BIG, PROT_READ | PROT_WRITE, ANYWHERE), BIG);
}

static char buffer[PAGE];

static void read_page(void)
{
	if (pread(big_fd, buffer, PAGE, MB) != PAGE)
		err(1, "pread");
}

static void write_page(void)
{
	if (pwrite(big_fd, buffer, PAGE, MB) != PAGE)
		err(1, "pwrite");
}

static void fork_exit(void)
{
	pid_t pid = fork();

	if (pid < 0)
		err(1, "fork");
	if (!pid)
		_exit(0);
	waitpid(pid, NULL, 0);
}

static double do_anon_map(void)
{
	return calls(anon_map);
}

static double do_small_map(void)
{
	return calls(small_map);
}

static double do_big_map(void)
{
	return calls(big_map);
}

static double do_read(void)
{
	return calls(read_page);
}

static double do_write(void)
{
	return calls(write_page);
}

static double do_fork(void)
{
	double cost;
	int was = ops;

	ops = 2;
	cost = calls(fork_exit);
	ops = was;
	return cost;
}

/* The process that forks maps nothing that could be shared. */
static double do_fork_plain(void)
{
	double cost;

	munmap(big, BIG);
	cost = do_fork();
	big = map_file(big_fd, BIG, PROT_READ | PROT_WRITE, BIG_AT);
	touch_write(big, BIG, PAGE);
	return cost;
}

static double mprotected(char *p, size_t size)
{
	struct meter meter;
	double cost;
	int i;

	touch_write(p, size, PAGE);
	meter_start(&meter);
	for (i = 0; i < 10; i++)
		if (mprotect(p, size, PROT_READ) ||
		    mprotect(p, size, PROT_READ | PROT_WRITE))
			err(1, "mprotect");
	cost = meter_stop(&meter, 10);
	munmap(p, size);
	return cost;
}

static double anon_mprotect(void)
{
	return mprotected(anonymous(SMALL), SMALL);
}

static double small_mprotect(void)
{
	return mprotected(map_file(small_fd, SMALL, PROT_READ | PROT_WRITE,
				   ANYWHERE), SMALL);
}

static double big_punch(void)
{
	struct meter meter;

	touch_write(big, BIG, PAGE);
	meter_start(&meter);
	punch(big_fd, 0, BIG);
	return meter_stop(&meter, BIG / PAGE);
}

static const struct op {
	const char *name;
	double (*run)(void);
	const char *of;
	int times;	/* a sample takes many of the 250 ticks a second */
} table[] = {
	{ "fault-anon-zero-page", anon_zero_page, "page", 8 },
	{ "fault-anon-write", anon_write, "page", 8 },
	{ "fault-shm-256K-write", small_write, "page", 8 },
	{ "fault-shm-256K-read", small_read, "page", 8 },
	{ "fault-shm-4M-write", big_write, "page", 1 },
	{ "fault-shm-4M-read", big_read, "page", 1 },
	{ "fill-shm-4M", big_fill, "page", 1 },
	{ "mmap-anon-4K", do_anon_map, "call", 1 },
	{ "mmap-shm-256K", do_small_map, "call", 1 },
	{ "mmap-shm-4M", do_big_map, "call", 1 },
	{ "mprotect-anon-256K", anon_mprotect, "pair", 8 },
	{ "mprotect-shm-256K", small_mprotect, "pair", 8 },
	{ "fork-exit", do_fork_plain, "call", 1 },
	{ "fork-exit-shm-4M", do_fork, "call", 1 },
	{ "punch-shm-4M", big_punch, "page", 1 },
	{ "pread-4K", do_read, "call", 1 },
	{ "pwrite-4K", do_write, "call", 1 },
};

/* The mean over processes with 0, 1, ... more mappings. */
static double padded(const struct op *op)
{
	char *pad = PADS;
	double sum = 0;
	int i, k;

	for (i = 0; i < paddings; i++, pad += 2 * PAGE) {
		for (k = 0; k < op->times; k++)
			sum += op->run() / op->times;
		if (mmap(pad, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS |
			 MAP_FIXED_NOREPLACE, -1, 0) != pad)
			err(1, "mmap");
	}
	munmap(PADS, pad - PADS);
	return sum / paddings;
}

int main(int argc, char **argv)
{
	size_t k;
	int i;

	bench_init(argc, argv, 5);
	if (bench.quick)
		paddings = 4;
	small_fd = new_file(SMALL);
	if (pwrite(small_fd, zeroes, SMALL, 0) != SMALL)
		err(1, "pwrite");
	big_fd = new_file(BIG);
	big = map_file(big_fd, BIG, PROT_READ | PROT_WRITE, BIG_AT);
	touch_write(big, BIG, PAGE);
	must_share(BIG / CHUNK);
	for (k = 0; k < ARRAY_SIZE(table); k++) {
		struct samples cost = {};

		table[k].run();		/* warms up */
		for (i = 0; i < bench.runs; i++)
			sample(&cost, padded(&table[k]));
		report(table[k].name, 1, &cost, meter_unit(table[k].of));
		touch_write(big, BIG, PAGE);
		must_share(BIG / CHUNK);
	}
	return 0;
}

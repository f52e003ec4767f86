// SPDX-License-Identifier: GPL-2.0
/*
 * rmap - what it costs to take pages away from N processes that map them
 *
 *	punch		holes of 64 KiB, as a balloon makes them (2 MiB where
 *			the memory is in huge pages)
 *	truncate	the file becomes empty
 *	reclaim		the pages are swapped out (memory.reclaim of a cgroup)
 *	migrate		the pages go to the other NUMA node
 *
 * Before each run one of them has written to all pages, and the others have read
 * them; or, when interrupts are counted, all have written: dirty pages have TLBs
 * flushed one by one when they are reclaimed.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <linux/mempolicy.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bench.h"

#define CGROUP	"/sys/fs/cgroup/bench-rmap"

/* The least that shares without asking: touching it in 1000 processes is slow. */
static const size_t size = 4 * MB;
static int fd;
static char *map;
static int to_node;

/* --- the paths; each returns how many pages it took away --- */

static size_t do_punch(void)
{
	const size_t at_once = piece() > 64 * KB ? piece() : 64 * KB;
	size_t off;

	for (off = 0; off < size; off += at_once)
		punch(fd, off, at_once);
	return size / PAGE;
}

static size_t do_truncate(void)
{
	if (ftruncate(fd, 0))
		err(1, "ftruncate");
	return size / PAGE;
}

static size_t do_reclaim(void)
{
	long before = number_in(CGROUP "/memory.stat", "pgsteal ");
	long pages;
	char text[32];

	snprintf(text, sizeof(text), "%zu", size);
	if (!write_file(CGROUP "/memory.reclaim", text) && errno != EAGAIN)
		err(1, "memory.reclaim");
	pages = number_in(CGROUP "/memory.stat", "pgsteal ") - before;
	if (pages < (long)(size / PAGE / 2))
		errx(1, "reclaim: %ld of %zu pages", pages, size / PAGE);
	return pages;
}

static void move(size_t n, void **pages, const int *nodes, int *status)
{
	if (syscall(SYS_move_pages, 0, n, pages, nodes, status,
		    MPOL_MF_MOVE_ALL) < 0)
		err(1, "move_pages");
}

static size_t do_migrate(void)
{
	static void *pages[4 * MB / PAGE];
	static int nodes[4 * MB / PAGE], status[4 * MB / PAGE];
	const size_t n = size / piece();
	size_t i;

	for (i = 0; i < n; i++) {
		pages[i] = map + i * piece();
		nodes[i] = to_node;
	}
	move(n, pages, nodes, status);
	for (i = 0; i < n; i++)
		if (status[i] != to_node)
			errx(1, "migrate: page %zu: status %d", i, status[i]);
	return size / PAGE;
}

/* Not counted: where are the pages now? */
static void before_migrate(void)
{
	void *page = map;
	int node;

	move(1, &page, NULL, &node);
	if (node != 0 && node != 1)
		errx(1, "migrate: the pages are on node %d", node);
	to_node = !node;
}

/* --- which are possible --- */

static bool two_nodes(void)
{
	return !access("/sys/devices/system/node/node1", F_OK);
}

/* The file's pages are charged to us; so is nothing else that is big. */
static bool can_reclaim(void)
{
	FILE *f = fopen("/proc/swaps", "r");
	char line[128];
	int lines = 0;

	while (f && fgets(line, sizeof(line), f))
		lines++;
	if (f)
		fclose(f);
	return lines > 1 && !bench.hugetlb &&
	       !access(CGROUP "/memory.reclaim", W_OK);
}

static const struct path {
	const char *name;
	size_t (*run)(void);
	bool (*possible)(void);
	void (*before)(void);
} paths[] = {
	{ "punch", do_punch, NULL, NULL },
	{ "truncate", do_truncate, NULL, NULL },
	{ "reclaim", do_reclaim, can_reclaim, NULL },
	{ "migrate", do_migrate, two_nodes, before_migrate },
};

static void measure(struct crew *crew, const struct path *path, long n)
{
	struct samples cost = {};
	struct meter meter;
	int runs = n < 1000 ? bench.runs : (bench.runs + 1) / 2;
	int i;

	for (i = 0; i < runs; i++) {
		size_t pages;

		/* New pages: what was swapped out comes back in small ones. */
		if (ftruncate(fd, 0) || ftruncate(fd, size))
			err(1, "ftruncate");
		touch_write(map, size, PAGE);
		must_be_huge(map);
		if (n > 1)
			crew_do(crew, bench.ipi ? CREW_WRITE : CREW_READ);
		must_share(n * (size / CHUNK));
		if (path->before)
			path->before();
		meter_start(&meter);
		pages = path->run();
		sample(&cost, meter_stop(&meter, pages));
	}
	report(path->name, n, &cost, meter_unit("page"));
}

static void measure_all(long n)
{
	struct crew_spec spec = { .size = size };
	static struct crew crew;
	size_t i;

	/* Children stay in our first cgroup: their memory is not reclaimed. */
	write_file("/sys/fs/cgroup/cgroup.procs", "0");
	fd = spec.fd = new_file(size);
	map = map_file(fd, size, PROT_READ | PROT_WRITE, ANYWHERE);
	if (n > 1) {
		crew_start(&crew, &spec, n - 1);
		crew_spin(&crew);
		crew_do(&crew, CREW_MAP);
	}
	write_file(CGROUP "/cgroup.procs", "0");
	for (i = 0; i < ARRAY_SIZE(paths); i++) {
		if (!paths[i].possible || paths[i].possible())
			measure(&crew, &paths[i], n);
		else
			printf("# %s: not possible here\n", paths[i].name);
	}
	if (n > 1)
		crew_quit(&crew);
	munmap(map, size);
	close(fd);
	settle();
}

int main(int argc, char **argv)
{
	static const long full[] = { 1, 16, 256, 1000, 0 };
	static const long quick[] = { 1, 16, 0 };
	const long *n;

	bench_init(argc, argv, 5);
	write_file("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
	if (mkdir(CGROUP, 0755) && errno != EEXIST)
		printf("# no memory cgroups here\n");
	for (n = bench_list(full, quick); *n; n++)
		measure_all(*n);
	return 0;
}

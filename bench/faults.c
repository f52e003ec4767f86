// SPDX-License-Identifier: GPL-2.0
/*
 * faults - what it costs a process to touch all of a file
 *
 *	first		nobody has touched it before; it writes
 *	attach		it maps again what was touched, and reads
 *	attach-write	the same, and writes
 *	fork		a child of a process that has touched it all, reads
 *	exec		a program of its own that maps it, reads
 *	ramp		N programs, as clients connect: start, map, read it all
 *
 * Each as faults and as cost.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench.h"

enum what { FIRST, ATTACH, ATTACH_WRITE, FORK, EXEC, NR };

static const char *const names[NR] = {
	"first", "attach", "attach-write", "fork", "exec"
};

struct cost {
	double faults, ns;
};

/* This process maps it all and touches it. */
static struct cost by_self(int fd, size_t size, bool write)
{
	struct cost cost;
	long faults = minor_faults();
	long long start = now();
	char *map = map_file(fd, size, PROT_READ | PROT_WRITE, ANYWHERE);

	if (write)
		touch_write(map, size, PAGE);
	else
		touch_read(map, size, PAGE);
	cost.ns = now() - start;
	cost.faults = minor_faults() - faults;
	must_share(size / CHUNK);
	must_be_huge(map);
	munmap(map, size);
	return cost;
}

static struct cost by_member(int fd, size_t size, char *map)
{
	const struct crew_spec spec = {
		.fd = fd, .size = size, .map = map, .exec = !map
	};
	static struct crew crew;
	struct cost cost = {};

	crew_start(&crew, &spec, 1);
	if (!map) {
		crew_do(&crew, CREW_MAP);
		cost.faults += crew.page->of[0].faults;
		cost.ns += crew.page->of[0].ns;
	}
	crew_do(&crew, CREW_READ);
	cost.faults += crew.page->of[0].faults;
	cost.ns += crew.page->of[0].ns;
	must_share(2 * (size / CHUNK));
	crew_quit(&crew);
	return cost;
}

static void measure(long mb)
{
	struct samples faults[NR] = {}, ns[NR] = {};
	size_t size = mb * MB;
	struct cost cost[NR];
	char series[64];
	int i, k, fd;
	char *map;

	/* The biggest takes its time, and instructions do not drift. */
	for (i = 0; i < (mb < 512 ? bench.runs : 1); i++) {
		fd = new_file(size);
		cost[FIRST] = by_self(fd, size, true);
		/* Another keeps it mapped from now on. */
		map = map_file(fd, size, PROT_READ | PROT_WRITE, ANYWHERE);
		touch_read(map, size, PAGE);
		cost[ATTACH] = by_self(fd, size, false);
		cost[ATTACH_WRITE] = by_self(fd, size, true);
		cost[FORK] = by_member(fd, size, map);
		cost[EXEC] = by_member(fd, size, NULL);
		munmap(map, size);
		close(fd);
		settle();
		for (k = 0; k < NR; k++) {
			sample(&faults[k], cost[k].faults * GB / size);
			sample(&ns[k], cost[k].ns / (size / PAGE));
		}
	}
	for (k = 0; k < NR; k++) {
		snprintf(series, sizeof(series), "%s.faults", names[k]);
		report(series, mb, &faults[k], "faults/GiB");
		report(names[k], mb, &ns[k], "ns/page");
	}
}

static void ramp(long n)
{
	const size_t size = 32 * MB;
	struct crew_spec spec = { .size = size, .exec = true };
	struct samples faults = {}, ns = {};
	static struct crew crew;
	long long start;
	char *map;
	int i, nr;

	for (i = 0; i < bench.runs; i++) {
		double sum = 0;

		spec.fd = new_file(size);
		map = map_file(spec.fd, size, PROT_READ | PROT_WRITE, ANYWHERE);
		touch_write(map, size, PAGE);
		start = now();
		crew_start(&crew, &spec, n);
		crew_do(&crew, CREW_MAP);
		crew_do(&crew, CREW_READ);
		sample(&ns, (double)(now() - start) / n);
		must_share((n + 1) * (size / CHUNK));
		for (nr = 0; nr < n; nr++)
			sum += crew.page->of[nr].faults;
		sample(&faults, sum / n);
		crew_quit(&crew);
		munmap(map, size);
		close(spec.fd);
		settle();
	}
	report("ramp.faults", n, &faults, "faults/process");
	report("ramp", n, &ns, "ns/process");
}

int main(int argc, char **argv)
{
	static const long full[] = { 32, 128, 512, 0 }, quick[] = { 16, 0 };
	static const long many[] = { 1, 16, 256, 0 }, few[] = { 4, 0 };
	const long *x;

	bench_init(argc, argv, 3);
	for (x = bench_list(full, quick); *x; x++)
		measure(*x);
	for (x = bench.quick ? few : many; *x; x++)
		ramp(*x);
	return 0;
}

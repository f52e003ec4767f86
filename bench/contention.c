// SPDX-License-Identifier: GPL-2.0
/*
 * contention - N processes that touch the same memory at once for the first time
 *
 *	fill	nobody has touched it: pages are allocated too
 *	write	the pages are there, nobody has mapped them
 *	read	the same, read
 *
 * From the start until the last is done.  Each has a CPU.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <unistd.h>

#include "bench.h"

static const struct kind {
	const char *name;
	bool allocated;
	enum crew_cmd touch;
} kinds[] = {
	{ "fill", false, CREW_WRITE },
	{ "write", true, CREW_WRITE },
	{ "read", true, CREW_READ },
};

static void measure(const struct kind *kind, size_t size, long n)
{
	struct crew_spec spec = { .size = size };
	struct samples cost = {};
	static struct crew crew;
	struct meter meter;
	int i;

	for (i = 0; i <= bench.runs; i++) {
		double one;

		spec.fd = new_file(size);
		if (kind->allocated)
			allocate(spec.fd, size);
		crew_start(&crew, &spec, n);
		crew_do(&crew, CREW_MAP);
		meter_start(&meter);
		crew_do(&crew, kind->touch);
		one = meter_stop(&meter, size / PAGE);
		if (i)		/* the first warms up */
			sample(&cost, one);
		must_share(n * (size / CHUNK));
		crew_quit(&crew);
		close(spec.fd);
		settle();
	}
	report(kind->name, n, &cost, meter_unit("page"));
}

int main(int argc, char **argv)
{
	long full[16] = {}, i = 0, n, cpus = sysconf(_SC_NPROCESSORS_ONLN);
	const long *x;
	size_t k, size;

	bench_init(argc, argv, 7);
	size = (bench.quick ? 8 : 32) * MB;
	for (n = 1; n < cpus && i < 14; n *= 2)
		full[i++] = n;
	full[i] = cpus;
	for (x = bench_list(full, full); *x; x++)
		for (k = 0; k < ARRAY_SIZE(kinds); k++)
			measure(&kinds[k], size, *x);
	return 0;
}

// SPDX-License-Identifier: GPL-2.0
/*
 * ptbytes - bytes of page tables for each process and GiB that it maps
 *
 *	fork		processes inherit the mapping
 *	unrelated	programs of their own, each at another address
 *	mixed		the same, and every other one may only read
 *
 * What is counted is PageTables of /proc/meminfo, less what as many processes
 * need that do not map the file.  One page in each chunk is touched: a table
 * costs the same however full it is.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench.h"

static size_t size;

static void measure(const char *series, struct crew_spec spec, bool inherit,
		    long n)
{
	long before, after, members = inherit ? n - 1 : n;
	static struct crew crew;
	char *map = NULL;

	crew_start(&crew, &spec, members);
	before = page_tables_kb();
	crew_quit(&crew);

	if (inherit) {
		map = map_file(spec.fd, size, PROT_READ | PROT_WRITE, ANYWHERE);
		touch_read(map, size, CHUNK);
		must_be_huge(map);
	}
	spec.map = map;
	crew_start(&crew, &spec, members);
	crew_do(&crew, CREW_MAP);
	crew_do(&crew, CREW_SPARSE);
	must_share(n * (size / CHUNK));
	after = page_tables_kb();
	crew_quit(&crew);
	if (inherit)
		munmap(map, size);
	settle();
	report_one(series, n, (after - before) / (double)n * GB / size,
		   "KiB/process/GiB");
}

int main(int argc, char **argv)
{
	static const long full[] = { 1, 10, 100, 1000, 0 };
	static const long quick[] = { 1, 16, 0 };
	struct crew_spec forked = {}, unrelated = {}, mixed;
	const long *n;
	char *map;

	bench_init(argc, argv, 1);
	size = bench.quick ? 128 * MB : GB;
	forked.size = size;
	forked.fd = new_file(size);
	unrelated = forked;
	unrelated.exec = true;
	unrelated.addr = 1UL << 44;
	mixed = unrelated;
	mixed.mixed = true;

	map = map_file(forked.fd, size, PROT_READ | PROT_WRITE, ANYWHERE);
	touch_write(map, size, CHUNK);
	munmap(map, size);
	settle();
	for (n = bench_list(full, quick); *n; n++) {
		measure("fork", forked, true, *n);
		measure("unrelated", unrelated, false, *n);
		measure("mixed", mixed, false, *n);
	}
	return 0;
}

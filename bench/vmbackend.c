// SPDX-License-Identifier: GPL-2.0
/*
 * vmbackend - a virtual machine's memory that three other processes map
 *
 * As QEMU does with vhost-user and virtiofsd: the memory is a memfd that this
 * process fills, and three programs map it each at an address of its own and
 * touch it all.  X is the size in MiB.
 *
 *	page-tables	of the four together
 *	faults		of one of the three
 *	touch		what touching it costs one of the three
 *	balloon		this process gives back half, in holes of 64 KiB (2 MiB
 *			where the memory is in huge pages)
 *	refill		and takes it again
 */
#define _GNU_SOURCE
#include <err.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench.h"

#define BACKENDS	3

struct results {
	struct samples tables, faults, touch, balloon, refill;
};

static void balloon(int fd, char *map, size_t size, struct results *r)
{
	const size_t at_once = piece() > 64 * KB ? piece() : 64 * KB;
	struct meter meter;
	size_t at, off;

	meter_start(&meter);
	for (at = 0; at < size; at += 2 * CHUNK)
		for (off = at; off < at + CHUNK; off += at_once)
			punch(fd, off, at_once);
	sample(&r->balloon, meter_stop(&meter, size / 2 / PAGE));
	meter_start(&meter);
	for (at = 0; at < size; at += 2 * CHUNK)
		touch_write(map + at, CHUNK, PAGE);
	sample(&r->refill, meter_stop(&meter, size / 2 / PAGE));
}

static void run(size_t size, struct results *r)
{
	struct crew_spec spec = {
		.size = size, .exec = true, .addr = 1UL << 44
	};
	static struct crew crew;
	double faults = 0, ns = 0;
	long before;
	char *map;
	int nr;

	spec.fd = new_file(size);
	crew_start(&crew, &spec, BACKENDS);
	before = page_tables_kb();
	map = map_file(spec.fd, size, PROT_READ | PROT_WRITE, ANYWHERE);
	touch_write(map, size, PAGE);
	must_be_huge(map);
	crew_do(&crew, CREW_MAP);
	crew_do(&crew, CREW_READ);
	must_share((BACKENDS + 1) * (size / CHUNK));
	sample(&r->tables, (page_tables_kb() - before) * (double)GB / size);
	for (nr = 0; nr < BACKENDS; nr++) {
		faults += crew.page->of[nr].faults;
		ns += crew.page->of[nr].ns;
	}
	sample(&r->faults, faults / BACKENDS * GB / size);
	sample(&r->touch, ns / BACKENDS / (size / PAGE));
	balloon(spec.fd, map, size, r);
	crew_quit(&crew);
	munmap(map, size);
	close(spec.fd);
	settle();
}

int main(int argc, char **argv)
{
	static const long full[] = { 128, 256, 512, 1024, 0 };
	static const long quick[] = { 32, 0 };
	const long *mb;
	int i;

	bench_init(argc, argv, 3);
	for (mb = bench_list(full, quick); *mb; mb++) {
		struct results r = {};

		/* The biggest takes its time, and instructions do not drift. */
		for (i = 0; i < (*mb < 512 ? bench.runs : 1); i++)
			run(*mb * MB, &r);
		report("page-tables", *mb, &r.tables, "KiB/GiB");
		report("faults", *mb, &r.faults, "faults/GiB");
		report("touch", *mb, &r.touch, "ns/page");
		report("balloon", *mb, &r.balloon, "ns/page");
		report("refill", *mb, &r.refill, "ns/page");
	}
	return 0;
}

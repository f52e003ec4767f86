// SPDX-License-Identifier: GPL-2.0
/*
 * What the benchmarks have in common: the command line, measuring, memory.
 * Processes are in crew.c.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "crew.h"

#define SYSFS	"/sys/kernel/mm/ptshare/"

struct bench bench;

static long xs[16];

/* --- the command line --- */

static long number(const char *text, long least, long most)
{
	char *end;
	long n = strtol(text, &end, 10);

	if (*end || end == text || n < least || n > most)
		errx(2, "%s: a number from %ld to %ld is wanted", text, least,
		     most);
	return n;
}

static void parse_xs(char *text)
{
	size_t n = 0;
	char *word;

	for (word = strtok(text, ","); word; word = strtok(NULL, ",")) {
		if (n == ARRAY_SIZE(xs) - 1)
			errx(2, "-x: at most %zu numbers", n);
		xs[n++] = number(word, 1, 1 << 20);
	}
}

static void set_variant(const char *variant)
{
	static const char *const known[] = {
		"stock", "never", "always", "hugetlb", "thp"
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(known); i++)
		if (!strcmp(variant, known[i]))
			break;
	if (i == ARRAY_SIZE(known))
		errx(2, "-v %s: there are stock, never, always, hugetlb, thp",
		     variant);
	bench.variant = variant;
	bench.always = !strcmp(variant, "always");
	bench.hugetlb = !strcmp(variant, "hugetlb");
	bench.thp = !strcmp(variant, "thp");
}

void bench_init(int argc, char **argv, int runs)
{
	int opt;

	crew_main(argc, argv);
	bench.runs = runs;
	set_variant("stock");
	while ((opt = getopt(argc, argv, "v:r:x:qi")) != -1) {
		switch (opt) {
		case 'v':
			set_variant(optarg);
			break;
		case 'r':
			bench.runs = number(optarg, 1, MOST_RUNS);
			break;
		case 'x':
			parse_xs(optarg);
			break;
		case 'q':
			bench.quick = true;
			break;
		case 'i':
			bench.ipi = true;
			crew_pin();
			break;
		default:
			exit(2);
		}
	}
	if (optind != argc)
		errx(2, "usage: %s [-v VARIANT] [-r RUNS] [-x X,...] [-q] [-i]",
		     argv[0]);
}

const long *bench_list(const long *full, const long *quick)
{
	if (xs[0])
		return xs;
	return bench.quick ? quick : full;
}

/* --- measuring --- */

long long now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

/* TLB shootdown interrupts that all CPUs have received. */
static long ipis(void)
{
	char line[4096], *p;
	long sum = 0, n;
	int used;
	FILE *f = fopen("/proc/interrupts", "r");

	if (!f)
		err(1, "/proc/interrupts");
	while (fgets(line, sizeof(line), f)) {
		p = strstr(line, "TLB:");
		if (!p)
			continue;
		for (p += 4; sscanf(p, "%ld%n", &n, &used) == 1; p += used)
			sum += n;
	}
	fclose(f);
	return sum;
}

void meter_start(struct meter *m)
{
	m->ipis = bench.ipi ? ipis() : 0;
	m->ns = now();
}

double meter_stop(const struct meter *m, double units)
{
	long long ns = now() - m->ns;

	return (bench.ipi ? ipis() - m->ipis : ns) / units;
}

const char *meter_unit(const char *of)
{
	static char unit[64];

	snprintf(unit, sizeof(unit), "%s/%s", bench.ipi ? "ipi" : "ns", of);
	return unit;
}

void sample(struct samples *s, double v)
{
	if (s->n == MOST_RUNS)
		errx(1, "too many samples");
	s->v[s->n++] = v;
}

static int compare(const void *a, const void *b)
{
	double x = *(double *)a, y = *(double *)b;

	return (x > y) - (x < y);
}

void report(const char *series, long x, struct samples *s, const char *unit)
{
	double median;

	if (!s->n)
		errx(1, "%s: nothing was measured", series);
	qsort(s->v, s->n, sizeof(*s->v), compare);
	median = (s->v[(s->n - 1) / 2] + s->v[s->n / 2]) / 2;
	printf("%s %ld %.4f %s %.4f %.4f\n", series, x, median, unit, s->v[0],
	       s->v[s->n - 1]);
	fflush(stdout);
	s->n = 0;
}

void report_one(const char *series, long x, double v, const char *unit)
{
	struct samples s = { .v = { v }, .n = 1 };

	report(series, x, &s, unit);
}

long minor_faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt;
}

/* The number after a key at the start of a line, or -1. */
long number_in(const char *path, const char *key)
{
	char line[512];
	long n = -1;
	FILE *f = fopen(path, "r");

	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f)) {
		if (strncmp(line, key, strlen(key)))
			continue;
		n = atol(line + strlen(key));
		break;
	}
	fclose(f);
	return n;
}

bool write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok;

	if (fd < 0)
		return false;
	ok = write(fd, text, strlen(text)) >= 0;
	close(fd);
	return ok;
}

long page_tables_kb(void)
{
	long kb;

	/* CPUs hold back what they have counted. */
	if (!write_file("/proc/sys/vm/stat_refresh", "1"))
		err(1, "/proc/sys/vm/stat_refresh");
	kb = number_in("/proc/meminfo", "PageTables:");
	if (kb < 0)
		errx(1, "/proc/meminfo does not tell PageTables");
	return kb;
}

/* --- the memory that is shared --- */

int new_file(size_t size)
{
	int flags = bench.hugetlb ? MFD_HUGETLB | MFD_HUGE_2MB : 0;
	int fd = memfd_create("bench", flags);

	if (fd < 0 || ftruncate(fd, size))
		err(1, "memfd_create");
	return fd;
}

/* By writing: pages from fallocate() are not up to date, which faults find out. */
void allocate(int fd, size_t size)
{
	static const char zeroes[MB];
	size_t off;

	if (bench.hugetlb) {	/* no write() there */
		if (fallocate(fd, 0, 0, size))
			err(1, "fallocate");
		return;
	}
	for (off = 0; off < size; off += MB)
		if (pwrite(fd, zeroes, MB, off) != MB)
			err(1, "pwrite");
}

char *map_file(int fd, size_t size, int prot, unsigned long addr)
{
	int flags = MAP_SHARED | (addr ? MAP_FIXED_NOREPLACE : 0);
	char *p = mmap((void *)addr, size, prot, flags, fd, 0);

	if (p == MAP_FAILED)
		err(1, "mmap of %zu MiB", size / MB);
	return p;
}

size_t piece(void)
{
	return bench.hugetlb || bench.thp ? CHUNK : PAGE;
}

void punch(int fd, off_t off, off_t len)
{
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len))
		err(1, "fallocate");
}

void touch_read(const char *p, size_t size, size_t step)
{
	const volatile char *q = p;
	size_t i;

	for (i = 0; i < size; i += step)
		(void)q[i];
}

void touch_write(char *p, size_t size, size_t step)
{
	volatile char *q = p;
	size_t i;

	/*
	 * Zeroes: dirty all the same, and when such a page is swapped out,
	 * compressing it costs little beside unmapping it.
	 */
	for (i = 0; i < size; i += step)
		q[i] = 0;
}

void must_share(long tables)
{
	long attached = number_in(SYSFS "attached", "");

	if (bench.always && attached < tables)
		errx(1, "always: %ld page tables are attached, not %ld: nothing is shared",
		     attached, tables);
	if (!bench.always && attached > 0)
		errx(1, "%s: %ld shared page tables are attached",
		     bench.variant, attached);
	if (!strcmp(bench.variant, "stock") && attached >= 0)
		errx(1, "stock: this kernel can share page tables");
	if (!strcmp(bench.variant, "never") && attached < 0)
		errx(1, "never: this kernel cannot share page tables");
}

void must_be_huge(const char *p)
{
	char line[512];
	unsigned long from, to;
	bool here = false;
	long kb = 0, n;
	FILE *f;

	if (!bench.thp && !bench.hugetlb)
		return;
	f = fopen("/proc/self/smaps", "r");
	if (!f)
		err(1, "/proc/self/smaps");
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			here = (uintptr_t)p >= from && (uintptr_t)p < to;
		else if (here && (sscanf(line, "ShmemPmdMapped: %ld", &n) == 1 ||
				  sscanf(line, "Shared_Hugetlb: %ld", &n) == 1 ||
				  sscanf(line, "Private_Hugetlb: %ld", &n) == 1))
			kb += n;
	}
	fclose(f);
	if (!kb)
		errx(1, "%s: no huge page is mapped", bench.variant);
}

void settle(void)
{
	int i;

	for (i = 0; i < 500 && number_in(SYSFS "owners", "") > 0; i++)
		usleep(10000);
	if (i == 500)
		errx(1, "shared page tables stay when nobody maps the file");
}

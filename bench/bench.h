/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the benchmarks have in common
 *
 * A benchmark is a program that measures one variant and prints lines
 *
 *	SERIES X VALUE UNIT LOW HIGH
 *
 * which bench/points.py reads: VALUE is the median of the runs, LOW and HIGH are
 * the least and the greatest.  Variants are "stock" (a kernel without page-table
 * sharing), "never" and "always" (policies of one that has it), and the peers
 * "hugetlb" and "thp" (shared memory in huge pages, under "never").
 *
 * In an emulator that lets one nanosecond pass for each instruction (vm/run
 * --icount), nanoseconds are instructions, which do not drift.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define KB	1024UL
#define MB	(1024 * KB)
#define GB	(1024 * MB)
#define PAGE	(4 * KB)
#define CHUNK	(2 * MB)	/* what a PTE table maps */
#define ANYWHERE	0UL

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof(*(a)))

/* --- the command line --- */

struct bench {
	const char *variant;
	bool always, hugetlb, thp;	/* the variant */
	int runs;
	bool quick;			/* a smoke test */
	bool ipi;			/* count TLB interrupts, not time */
};

extern struct bench bench;

/* Must come first in main(): mappers that were started by exec end in it. */
void bench_init(int argc, char **argv, int runs);

/* Which X to measure: lists end in 0; the command line's replaces both. */
const long *bench_list(const long *full, const long *quick);

/* --- measuring --- */

#define MOST_RUNS	32

struct samples {
	double v[MOST_RUNS];
	int n;
};

struct meter {
	long long ns;
	long ipis;
};

long long now(void);
void meter_start(struct meter *m);
/* Nanoseconds, or interrupts, for each of @units. */
double meter_stop(const struct meter *m, double units);
/* What meter_stop() counts, such as "ns/page". */
const char *meter_unit(const char *of);

void sample(struct samples *s, double v);
/* Print the median, and forget the samples. */
void report(const char *series, long x, struct samples *s, const char *unit);
void report_one(const char *series, long x, double v, const char *unit);

long minor_faults(void);
long page_tables_kb(void);
long number_in(const char *path, const char *key);
bool write_file(const char *path, const char *text);

/* --- the memory that is shared --- */

int new_file(size_t size);
/* Give it pages, as far as possible without mapping it. */
void allocate(int fd, size_t size);
/* Map it all, shared; ends the program if that does not work. */
char *map_file(int fd, size_t size, int prot, unsigned long addr);
/* The least that the variant can free, and how much is freed at a time. */
size_t piece(void);
void punch(int fd, off_t off, off_t len);
void touch_read(const char *p, size_t size, size_t step);
void touch_write(char *p, size_t size, size_t step);

/*
 * A benchmark that measures something else than it says is worth nothing: end
 * it unless at least @tables page tables are attached somewhere, if the variant
 * shares, or none, if it does not.
 */
void must_share(long tables);
/* The same for huge pages: this process must map some at @p. */
void must_be_huge(const char *p);
/* Wait until all that was shared is gone. */
void settle(void);

/* --- processes that map it --- */

#define CREW_MOST	1024

enum crew_cmd {
	CREW_MAP = 'm',		/* if not mapped already */
	CREW_UNMAP = 'u',
	CREW_READ = 'r',	/* each page */
	CREW_WRITE = 'w',
	CREW_SPARSE = 's',	/* read one page of each chunk */
	CREW_QUIT = 'q',
};

struct crew_page {		/* what members and their starter share */
	atomic_int round, arrived;
	int n, spin;
	enum crew_cmd cmd;
	struct crew_result {
		long faults;
		long long ns;
	} of[CREW_MOST];
};

struct crew_spec {
	int fd;
	size_t size;
	char *map;		/* inherited, or NULL */
	unsigned long addr;	/* of member 0, the next are higher; or ANYWHERE */
	bool exec;		/* a new program each, not only a fork */
	bool mixed;		/* every other may only read */
};

struct crew {
	struct crew_page *page;
	int page_fd;
	struct crew_spec spec;
	pid_t pid[CREW_MOST];
};

/* When it returns, all members wait for commands. */
void crew_start(struct crew *crew, const struct crew_spec *spec, int n);
/* All members do it; returns when the last is done. */
void crew_do(struct crew *crew, enum crew_cmd cmd);
/*
 * To count interrupts: as many members as there are CPUs beside the first, which
 * has all others, keep running between commands, each on its own.
 */
void crew_spin(struct crew *crew);
void crew_quit(struct crew *crew);
/* Start a program that says when it runs; see exec in vmaops.c. */
void exec_clock(int fd);

#endif /* BENCH_H */

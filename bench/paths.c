// SPDX-License-Identifier: GPL-2.0
/*
 * paths - what the kernel's paths on shared memory cost, by number of mappers
 *
 * Usage: paths [-s MB] [-r RUNS] MAPPERS...
 *
 * For each number of processes that map one file prints lines
 *
 *	PATH MAPPERS COST ns/UNIT
 *
 * COST is the median of RUNS, in nanoseconds of CLOCK_MONOTONIC for one UNIT.
 * In an emulator that lets one nanosecond pass for each instruction (vm/run
 * --icount) these are instructions, which do not drift.
 *
 * With several CPUs one mapper on each of the others keeps running, and COST is
 * instead how many TLB interrupts a unit took.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <numaif.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE	4096UL
#define MB	(1UL << 20)
#define MOST	32		/* runs */

#define CGROUP	"/sys/fs/cgroup/paths"

static size_t size = 16 * MB;
static int runs = 5;
static int cpus;
static int fd;
static char *map;
static volatile char sink;

static long long now(void)
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

static void touch(char *p)
{
	size_t i;

	for (i = 0; i < size; i += PAGE)
		sink = p[i];
}

static void store(char *p)
{
	size_t i;

	for (i = 0; i < size; i += PAGE)
		p[i] = 1;
}

static char *map_file(void)
{
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		err(1, "mmap");
	return p;
}

/* --- the paths; each returns how many units it did --- */

static size_t do_mmap(void)
{
	munmap(map_file(), size);
	return 1;
}

/* A process maps what others have filled, reads it all and unmaps it. */
static size_t do_read_all(void)
{
	char *p = map_file();

	touch(p);
	munmap(p, size);
	return size / PAGE;
}

/* The first to write to each page. */
static size_t do_fill(void)
{
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, size))
		err(1, "fallocate");
	store(map);
	return size / PAGE;
}

static void in_child(void (*fn)(char *))
{
	pid_t pid = fork();

	if (pid < 0)
		err(1, "fork");
	if (!pid) {
		if (fn)
			fn(map);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
}

static size_t do_fork_exit(void)
{
	in_child(NULL);
	return 1;
}

static size_t do_fork_touch_exit(void)
{
	in_child(touch);
	return 1;
}

static size_t do_mprotect(void)
{
	if (mprotect(map, size, PROT_READ) ||
	    mprotect(map, size, PROT_READ | PROT_WRITE))
		err(1, "mprotect");
	touch(map);
	return 1;
}

/* In pieces of 64 KiB, as a balloon or a garbage collector would. */
static size_t do_punch(void)
{
	const size_t piece = 16 * PAGE;
	size_t off;

	for (off = 0; off < size; off += piece)
		if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			      off, piece))
			err(1, "fallocate");
	return size / PAGE;
}

static size_t do_migrate(void)
{
	static int node;
	size_t n = size / PAGE, i;
	void **pages = calloc(n, sizeof(*pages));
	int *nodes = calloc(n, sizeof(*nodes));
	int *status = calloc(n, sizeof(*status));

	node = !node;
	for (i = 0; i < n; i++) {
		pages[i] = map + i * PAGE;
		nodes[i] = node;
	}
	if (move_pages(0, n, pages, nodes, status, MPOL_MF_MOVE_ALL) < 0)
		err(1, "move_pages");
	for (i = 0; i < n; i++)
		if (status[i] != node)
			errx(1, "page %zu: status %d", i, status[i]);
	free(pages);
	free(nodes);
	free(status);
	return n;
}

static bool write_file(const char *path, const char *text)
{
	int file = open(path, O_WRONLY);
	bool ok = file >= 0 && write(file, text, strlen(text)) >= 0;

	close(file);
	return ok;
}

static size_t do_reclaim(void)
{
	char text[32];

	snprintf(text, sizeof(text), "%zu", size);
	if (!write_file(CGROUP "/memory.reclaim", text) && errno != EAGAIN)
		err(1, "memory.reclaim");
	return size / PAGE;
}

/* --- what must be so before each run, not counted --- */

static void all_filled(void)
{
	store(map);
}

struct path {
	const char *name;
	size_t (*run)(void);
	const char *unit;
	bool (*possible)(void);
};

static bool two_nodes(void)
{
	return !access("/sys/devices/system/node/node1", F_OK);
}

static bool can_reclaim(void)
{
	char line[128];
	int lines = 0;
	FILE *f = fopen("/proc/swaps", "r");

	while (f && fgets(line, sizeof(line), f))
		lines++;
	if (f)
		fclose(f);
	return lines > 1 && !access(CGROUP "/memory.reclaim", W_OK);
}

static const struct path paths[] = {
	{ "mmap", do_mmap, "mapping", NULL },
	{ "read-all", do_read_all, "page", NULL },
	{ "fill", do_fill, "page", NULL },
	{ "fork-exit", do_fork_exit, "process", NULL },
	{ "fork-touch-exit", do_fork_touch_exit, "process", NULL },
	{ "mprotect", do_mprotect, "pair", NULL },
	{ "punch", do_punch, "page", NULL },
	{ "migrate", do_migrate, "page", two_nodes },
	{ "reclaim", do_reclaim, "page", can_reclaim },
};

/* --- the mappers --- */

static volatile int *busy;	/* some mappers keep running */

static void mapper(int ready, int quit, bool spin)
{
	char c;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	touch(map_file());
	if (write(ready, "", 1) != 1)
		_exit(1);
	while (spin && *busy)
		;
	if (read(quit, &c, 1) < 0)
		_exit(1);
	_exit(0);
}

/* Starts processes that map the file; closing the result ends them. */
static int start_mappers(int n)
{
	int ready[2], quit[2], i;
	char c;

	if (pipe(ready) || pipe(quit))
		err(1, "pipe");
	for (i = 0; i < n; i++) {
		pid_t pid = fork();

		if (pid < 0)
			err(1, "fork");
		if (!pid) {
			close(quit[1]);
			mapper(ready[1], quit[0], i < cpus - 1);
		}
	}
	for (i = 0; i < n; i++)
		if (read(ready[0], &c, 1) != 1)
			errx(1, "a mapper died");
	close(ready[0]);
	close(ready[1]);
	close(quit[0]);
	return quit[1];
}

/* --- measuring --- */

static int compare(const void *a, const void *b)
{
	double x = *(double *)a, y = *(double *)b;

	return (x > y) - (x < y);
}

static void measure(const struct path *path, int mappers)
{
	double cost[MOST], ipi[MOST];
	int i;

	if (path->possible && !path->possible()) {
		printf("# %s: not possible here\n", path->name);
		return;
	}
	for (i = 0; i <= runs; i++) {
		long long start;
		long before;
		size_t units;

		all_filled();
		before = ipis();
		start = now();
		units = path->run();
		if (!i)
			continue;	/* the first warms up */
		cost[i - 1] = (double)(now() - start) / units;
		ipi[i - 1] = (double)(ipis() - before) / units;
	}
	qsort(cost, runs, sizeof(*cost), compare);
	qsort(ipi, runs, sizeof(*ipi), compare);
	if (*busy)
		printf("%s %d %.4f ipi/%s\n", path->name, mappers,
		       ipi[runs / 2], path->unit);
	else
		printf("%s %d %.1f ns/%s\n", path->name, mappers,
		       cost[runs / 2], path->unit);
	fflush(stdout);
}

static void measure_all(int mappers)
{
	size_t i;
	int quit;

	fd = memfd_create("paths", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, size))
		err(1, "memfd_create");
	map = map_file();
	store(map);
	*busy = cpus > 1;
	quit = start_mappers(mappers - 1);
	for (i = 0; i < sizeof(paths) / sizeof(*paths); i++)
		measure(&paths[i], mappers);
	*busy = 0;
	close(quit);
	while (wait(NULL) > 0)
		;
	munmap(map, size);
	close(fd);
}

/* Reclaim of what we charge, if there is a cgroup file system to ask. */
static void enter_cgroup(void)
{
	if (mkdir(CGROUP, 0755) && errno != EEXIST)
		return;
	write_file(CGROUP "/cgroup.procs", "0");
}

static int number(const char *text, int least, int most)
{
	char *end;
	long n = strtol(text, &end, 10);

	if (*end || end == text || n < least || n > most)
		errx(2, "%s: a number from %d to %d is wanted", text, least,
		     most);
	return n;
}

int main(int argc, char **argv)
{
	int opt;

	while ((opt = getopt(argc, argv, "s:r:")) != -1) {
		if (opt == 's')
			size = number(optarg, 2, 1 << 20) * MB;
		else if (opt == 'r')
			runs = number(optarg, 1, MOST);
		else
			return 2;
	}
	if (optind == argc)
		errx(2, "usage: paths [-s MB] [-r RUNS] MAPPERS...");
	cpus = sysconf(_SC_NPROCESSORS_ONLN);
	enter_cgroup();
	busy = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (busy == MAP_FAILED)
		err(1, "mmap");
	for (; optind < argc; optind++)
		measure_all(number(argv[optind], 1, 10000));
	return 0;
}

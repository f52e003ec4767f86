// SPDX-License-Identifier: GPL-2.0
/*
 * Processes that map the file and touch it on command.
 *
 * They and their starter share a page, in which rounds are counted: a member
 * does the command when the round has changed, then adds itself to those that
 * have arrived.  The last one wakes the starter.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <linux/futex.h>
#include <linux/memfd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "crew.h"

#define SELF	"/proc/self/exe"

static void futex_wait(atomic_int *word, int value)
{
	const struct timespec second = { .tv_sec = 1 };

	syscall(SYS_futex, word, FUTEX_WAIT, value, &second, NULL, 0);
}

static void futex_wake(atomic_int *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, CREW_MOST, NULL, NULL, 0);
}

/* --- a member --- */

static void arrive(struct crew_page *page)
{
	if (atomic_fetch_add(&page->arrived, 1) + 1 == page->n)
		futex_wake(&page->arrived);
}

static void await_round(struct crew_page *page, int nr, int round)
{
	while (atomic_load(&page->round) == round)
		if (nr >= page->spin)
			futex_wait(&page->round, round);
}

static char *member_map(const struct crew_spec *spec, int nr)
{
	bool read_only = spec->mixed && nr % 2;
	unsigned long addr = spec->addr;

	if (addr)
		addr += nr * (spec->size + CHUNK);
	return map_file(spec->fd, spec->size,
			PROT_READ | (read_only ? 0 : PROT_WRITE), addr);
}

static void obey(enum crew_cmd cmd, const struct crew_spec *spec, int nr,
		 char **map)
{
	switch (cmd) {
	case CREW_MAP:
		if (!*map)
			*map = member_map(spec, nr);
		break;
	case CREW_UNMAP:
		munmap(*map, spec->size);
		*map = NULL;
		break;
	case CREW_READ:
		touch_read(*map, spec->size, PAGE);
		break;
	case CREW_WRITE:
		touch_write(*map, spec->size, PAGE);
		break;
	case CREW_SPARSE:
		touch_read(*map, spec->size, CHUNK);
		break;
	case CREW_QUIT:
		_exit(0);
	}
}

/* What it takes this process; others may have the CPU in between. */
static long long cpu_time(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static void member(struct crew_page *page, const struct crew_spec *spec, int nr)
{
	struct crew_result *result = &page->of[nr];
	char *map = spec->map;
	int round;

	/* Nobody else would end it. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (round = 0;; round++) {
		long long start;
		long faults;

		arrive(page);
		await_round(page, nr, round);
		faults = minor_faults();
		start = cpu_time();
		obey(page->cmd, spec, nr, &map);
		result->ns = cpu_time() - start;
		result->faults = minor_faults() - faults;
	}
}

/* --- members that are programs of their own --- */

static struct crew_page *map_page(int fd)
{
	struct crew_page *page = mmap(NULL, sizeof(*page),
				      PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (page == MAP_FAILED)
		err(1, "mmap");
	return page;
}

static void member_exec(struct crew *crew, int nr)
{
	const struct crew_spec *spec = &crew->spec;
	char text[128];

	snprintf(text, sizeof(text), "%d %d %d %zu %lu %d", crew->page_fd, nr,
		 spec->fd, spec->size, spec->addr, spec->mixed);
	execl(SELF, "member", text, NULL);
	_exit(1);
}

void exec_clock(int fd)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", fd);
	execl(SELF, "clock", text, NULL);
	_exit(1);
}

void crew_main(int argc, char **argv)
{
	struct crew_spec spec = {};
	int page_fd, nr, mixed;

	if (argc != 2)
		return;
	if (!strcmp(argv[0], "clock")) {
		long long t = now();

		_exit(write(atoi(argv[1]), &t, sizeof(t)) != sizeof(t));
	}
	if (strcmp(argv[0], "member"))
		return;
	if (sscanf(argv[1], "%d %d %d %zu %lu %d", &page_fd, &nr, &spec.fd,
		   &spec.size, &spec.addr, &mixed) != 6)
		_exit(1);
	spec.mixed = mixed;
	member(map_page(page_fd), &spec, nr);
}

/* --- their starter --- */

/* Members end when they are told to; one that does not is seen here. */
static void await_all(struct crew *crew)
{
	struct crew_page *page = crew->page;
	int arrived, i, status;

	while ((arrived = atomic_load(&page->arrived)) < page->n) {
		futex_wait(&page->arrived, arrived);
		if (atomic_load(&page->arrived) != arrived)
			continue;
		for (i = 0; i < page->n; i++)
			if (crew->pid[i] &&
			    waitpid(crew->pid[i], &status, WNOHANG) > 0)
				errx(1, "mapper %d of %d died: status %#x", i,
				     page->n, status);
	}
}

void crew_start(struct crew *crew, const struct crew_spec *spec, int n)
{
	int nr;

	if (n > CREW_MOST)
		errx(1, "%d mappers: at most %d", n, CREW_MOST);
	memset(crew, 0, sizeof(*crew));
	crew->spec = *spec;
	crew->page_fd = memfd_create("crew", 0);
	if (crew->page_fd < 0 || ftruncate(crew->page_fd, sizeof(*crew->page)))
		err(1, "memfd_create");
	crew->page = map_page(crew->page_fd);
	crew->page->n = n;
	fflush(stdout);
	for (nr = 0; nr < n; nr++) {
		pid_t pid = fork();

		if (pid < 0)
			err(1, "fork of mapper %d", nr);
		if (!pid && spec->exec)
			member_exec(crew, nr);
		if (!pid)
			member(crew->page, &crew->spec, nr);
		crew->pid[nr] = pid;
	}
	await_all(crew);
}

void crew_do(struct crew *crew, enum crew_cmd cmd)
{
	struct crew_page *page = crew->page;

	page->cmd = cmd;
	atomic_store(&page->arrived, 0);
	atomic_fetch_add(&page->round, 1);
	futex_wake(&page->round);
	if (cmd != CREW_QUIT)
		await_all(crew);
}

static void pin(pid_t pid, int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(pid, sizeof(set), &set))
		err(1, "sched_setaffinity");
}

void crew_pin(void)
{
	pin(0, 0);
}

void crew_spin(struct crew *crew)
{
	int nr, n = sysconf(_SC_NPROCESSORS_ONLN) - 1;

	if (!bench.ipi)
		return;
	if (n > crew->page->n)
		n = crew->page->n;
	for (nr = 0; nr < n; nr++)
		pin(crew->pid[nr], nr + 1);
	crew->page->spin = n;
}

void crew_quit(struct crew *crew)
{
	int nr, status;

	crew_do(crew, CREW_QUIT);
	for (nr = 0; nr < crew->page->n; nr++)
		if (waitpid(crew->pid[nr], &status, 0) < 0 || status)
			errx(1, "mapper %d: status %#x", nr, status);
	munmap(crew->page, sizeof(*crew->page));
	close(crew->page_fd);
}

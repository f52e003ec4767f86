// SPDX-License-Identifier: GPL-2.0
/*
 * No stale TLB entry: when a page has been taken out of the file, nobody can
 * read or write it any more through any mapping.
 *
 * Writers on all CPUs store into pages through their own mappings, while the
 * pages are punched out or swapped out and their frames are handed to a
 * canary that must never change.
 */
#include "pt_many.h"

#include <pthread.h>

#define SIZE	(4 * MB)
#define SECONDS	4
#define CANARY	0x5c

/* A few pages, far apart, so that their TLB entries live until flushed. */
#define HOT	16
#define hot(p, i) ((p) + (i) * 61 * PAGE + 64)

/* Common to all processes of a test. */
static struct {
	volatile int stop;
	volatile unsigned long rounds[3];
	volatile unsigned long mapped;
} *common;

FIXTURE(stale)
{
	int fd;
	char *p;
};

/* Few sharers are flushed one by one, many all at once. */
FIXTURE_VARIANT(stale)
{
	int more;
};

FIXTURE_VARIANT_ADD(stale, few)
{
	.more = 0,
};

FIXTURE_VARIANT_ADD(stale, many)
{
	.more = 12,
};

FIXTURE_SETUP(stale)
{
	int i;

	pt_opt_in();
	pt_catch();
	self->fd = new_memfd(SIZE);
	ASSERT_GE(self->fd, 0);
	self->p = map_at(self->fd, SIZE, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(self->p, MAP_FAILED);
	for (i = 0; i < variant->more; i++)
		ASSERT_NE(MAP_FAILED, map_at(self->fd, SIZE, 0, PROT_READ));
	common = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(common, MAP_FAILED);
}

FIXTURE_TEARDOWN(stale)
{
	munmap(self->p, SIZE);
	munmap(common, PAGE);
	close(self->fd);
}

static void writer(char *p)
{
	size_t i;

	while (!common->stop)
		for (i = 0; i < SIZE && !common->stop; i += PAGE)
			p[i + 64] = 1;
}

static void start_writers(int fd, char *inherited, pid_t *pid, int n)
{
	int i;

	for (i = 0; i < n; i++) {
		pid[i] = fork();
		if (!pid[i]) {
			/* Some inherit, some map at an address of their own. */
			writer(i & 1 ? inherited :
			       map_at(fd, SIZE, 0, PROT_READ | PROT_WRITE));
			_exit(0);
		}
	}
}

static int reap(pid_t *pid, int n)
{
	int i, status, bad = 0;

	common->stop = 1;
	for (i = 0; i < n; i++) {
		waitpid(pid[i], &status, 0);
		bad += status != 0;
	}
	return bad;
}

/* Take the frames that have just been freed and see whether they change. */
static long canary(size_t len)
{
	char *c = mmap(NULL, len, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long bad = 0, looks = 0;
	size_t i;

	if (c == MAP_FAILED)
		return 0;
	for (i = 0; i < len; i += PAGE)
		c[i + 64] = CANARY;
	while (looks < 3000)
		for (i = 0; i < len; i += PAGE, looks++)
			bad += ((volatile char *)c)[i + 64] != CANARY;
	munmap(c, len);
	return bad;
}

TEST_F(stale, punch_hole)
{
	double end = now() + SECONDS;
	pid_t pid[3];
	long bad = 0;

	start_writers(self->fd, self->p, pid, 3);
	while (now() < end) {
		ASSERT_EQ(0, fallocate(self->fd, FALLOC_FL_PUNCH_HOLE |
				       FALLOC_FL_KEEP_SIZE, 0, SIZE));
		bad += canary(SIZE);
	}
	EXPECT_EQ(0, reap(pid, 3));
	EXPECT_EQ(0, bad);
}

static void run_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu % sysconf(_SC_NPROCESSORS_ONLN), &set);
	sched_setaffinity(0, sizeof(set), &set);
}

/* Punch out the hot pages and hand their frames to a canary, for a while. */
static long punch_hot(int fd, double end)
{
	long bad = 0;
	int i;

	while (now() < end) {
		for (i = 0; i < HOT; i++)
			fallocate(fd, FALLOC_FL_PUNCH_HOLE |
				  FALLOC_FL_KEEP_SIZE,
				  (hot((off_t)0, i)) & ~(PAGE - 1), PAGE);
		bad += canary(4 * HOT * PAGE);
	}
	return bad;
}

/*
 * Store into all pages, fast: where a store failed it is not tried again until
 * there is a new mapping.  Only one thread of a process may fault.
 */
static void *thread_writer(void *arg)
{
	static bool gone[SIZE / PAGE];
	unsigned long mapped = 0;
	char *p = arg;
	size_t i;

	while (!common->stop) {
		if (mapped != common->mapped) {
			mapped = common->mapped;
			memset(gone, 0, sizeof(gone));
		}
		for (i = 0; i < SIZE / PAGE; i++)
			if (!gone[i])
				gone[i] = try_store(p + i * PAGE + 64, 1);
		common->rounds[0]++;
	}
	return NULL;
}

/*
 * What comes behind the mapping, and is unmapped with it: VMAs enough that
 * unlinking them takes a while, in which ours is unlinked already.
 */
#define TAIL	2000

static bool map_with_tail(char *area, int fd, int other)
{
	int i;

	if (mmap(area, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		 fd, 0) != area)
		return false;
	for (i = 0; i < TAIL; i++)
		if (mmap(area + SIZE + i * PAGE, PAGE, PROT_READ,
			 MAP_PRIVATE | MAP_FIXED, other,
			 (TAIL - i) * PAGE) == MAP_FAILED)
			return false;
	common->mapped++;
	return true;
}

static int unmapper(int fd, char *inherited)
{
	char *area = mmap(NULL, SIZE + TAIL * PAGE + CHUNK, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int other = new_memfd((TAIL + 1) * PAGE);
	pthread_t thread;

	area = (char *)(((uintptr_t)area + CHUNK - 1) & ~(CHUNK - 1));
	/* Or its flushes would reach us anyhow. */
	munmap(inherited, SIZE);
	run_on(1);
	if (pthread_create(&thread, NULL, thread_writer, area))
		return 1;
	run_on(2);
	while (!common->stop) {
		if (!map_with_tail(area, fd, other))
			return 2;
		usleep(5000);
		munmap(area, SIZE + TAIL * PAGE);
	}
	pthread_join(thread, NULL);
	return 0;
}

/*
 * A process detaches by munmap while one of its threads stores there and
 * another process punches: the flush must come before the VMA is unlinked
 * (hazard H1).  One page at a time, at random: what is punched before that is
 * flushed, and what is punched after it must not have been punched before.
 */
TEST_F(stale, munmap_vs_punch)
{
	double end = now() + SECONDS;
	long bad = 0;
	pid_t pid;

	pid = fork();
	ASSERT_GE(pid, 0);
	if (!pid)
		_exit(unmapper(self->fd, self->p));
	run_on(0);
	while (now() < end) {
		ASSERT_EQ(0, fallocate(self->fd, FALLOC_FL_PUNCH_HOLE |
				       FALLOC_FL_KEEP_SIZE,
				       random() % (SIZE / PAGE) * PAGE, PAGE));
		bad += canary(4 * PAGE);
	}
	EXPECT_EQ(0, reap(&pid, 1));
	EXPECT_EQ(0, bad);
}

/*
 * A process sleeps between stores, always on one CPU, which stays lazy on its
 * page tables meanwhile and gets no interrupt (hazard H7).
 */
TEST_F(stale, lazy)
{
	struct timespec nap = { .tv_nsec = 200000 };
	pid_t pid[3];
	long bad;
	int i, n;

	for (n = 0; n < 3; n++) {
		pid[n] = fork();
		ASSERT_GE(pid[n], 0);
		if (pid[n])
			continue;
		run_on(n + 1);
		while (!common->stop) {
			for (i = 0; i < HOT; i++)
				*hot((volatile char *)self->p, i) = 1;
			nanosleep(&nap, NULL);
		}
		_exit(0);
	}
	run_on(0);
	bad = punch_hot(self->fd, now() + SECONDS);
	EXPECT_EQ(0, reap(pid, 3));
	EXPECT_EQ(0, bad);
}

/* A thread waits for a mapping that another one makes, then stores there. */
static char *volatile made;

static void *thread_waiter(void *arg)
{
	run_on(1);
	while (!made)
		;
	return thread_writer(made);
}

static int late_joiner(int more)
{
	int fd = new_memfd(SIZE), i;
	pthread_t thread;
	long bad;
	char *p;

	run_on(0);
	if (fd < 0 || pthread_create(&thread, NULL, thread_waiter, NULL))
		return 1;
	for (i = 0; i < 1000; i++)
		sched_yield();
	p = map_at(fd, SIZE, 0, PROT_READ | PROT_WRITE);
	for (i = 0; i < more; i++)
		map_at(fd, SIZE, 0, PROT_READ);
	/* The thread shall find all there and have no reason to sleep. */
	fill(p, SIZE, 1);
	made = p;
	while (common->rounds[0] < 2)
		;
	bad = punch_hot(fd, now() + 0.2);
	common->stop = 1;
	pthread_join(thread, NULL);
	return bad != 0;
}

/*
 * A process becomes a sharer while another of its threads runs and will not
 * be scheduled for a while: it must hear of flushes nevertheless.
 */
TEST_F(stale, late_join)
{
	double end = now() + SECONDS;
	int status;
	pid_t pid;

	while (now() < end) {
		common->stop = 0;
		common->rounds[0] = 0;
		pid = fork();
		ASSERT_GE(pid, 0);
		if (!pid)
			_exit(late_joiner(variant->more));
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		ASSERT_EQ(0, status);
	}
}

/* Permissions: after mprotect() returns no store gets through. */
static void *thread_counter(void *arg)
{
	volatile long *p = arg;

	while (!common->stop)
		try_store((char *)p, (char)(common->stop ? 0 : random()));
	return NULL;
}

TEST_F(stale, mprotect)
{
	double end = now() + SECONDS;
	pthread_t thread;
	long bad = 0;
	int i;

	ASSERT_EQ(0, pthread_create(&thread, NULL, thread_counter, self->p));
	while (now() < end) {
		char c;

		ASSERT_EQ(0, mprotect(self->p, SIZE, PROT_READ));
		c = *(volatile char *)self->p;
		for (i = 0; i < 2000; i++)
			bad += *(volatile char *)self->p != c;
		ASSERT_EQ(0, mprotect(self->p, SIZE, PROT_READ | PROT_WRITE));
		sched_yield();
	}
	common->stop = 1;
	pthread_join(thread, NULL);
	EXPECT_EQ(0, bad);
}

/*
 * No lost write: each process counts in words of its own while pages go to
 * swap and come back (hazards H3, H4, H43).  What is stored by a stale entry
 * into a frame that has been written out is missing in the next frame, or
 * appears in another page that got the old one: so each page counts in numbers
 * of its own.
 *
 * Many pages: some wait in a list of the CPU that brought them in, where
 * nobody can reclaim them.  Each process has a CPU for itself: as long as its TLB
 * has the entries, pages do not look used, and are reclaimed while they are
 * stored to.  Whoever reads them all the time makes them look used.
 */
#define SWAPPED	256

struct counts {
	/* What has been stored; the stores themselves are in the file. */
	volatile unsigned long stored[3][SWAPPED];
};

static volatile unsigned long *count_of(char *p, int i, int slot)
{
	return (volatile unsigned long *)(p + i * PAGE) + slot;
}

static void counter(char *p, int slot, struct counts *counts)
{
	unsigned long n;
	int i;

	for (n = 1; !common->stop; n++) {
		for (i = 0; i < SWAPPED; i++) {
			*count_of(p, i, slot) = n * SWAPPED + i;
			counts->stored[slot][i] = n * SWAPPED + i;
		}
	}
}

/* Pages in which a count is less than what its process has stored. */
static long lost_writes(char *p, const struct counts *counts)
{
	unsigned long stored, count;
	long bad = 0;
	int slot, i;

	for (slot = 0; slot < 3; slot++) {
		for (i = 0; i < SWAPPED; i++) {
			stored = counts->stored[slot][i];
			if (!stored)
				continue;
			count = *count_of(p, i, slot);
			bad += count < stored || count % SWAPPED != i;
		}
	}
	return bad;
}

TEST_F(stale, pageout)
{
	double end = now() + SECONDS;
	char dir[64], procs[96], reclaim[96];
	struct counts *counts;
	long bad = 0, swapped;
	int nr = sysconf(_SC_NPROCESSORS_ONLN) - 1, i;
	pid_t pid[3];

	if (meminfo_kb("SwapTotal") <= 0 || !make_cgroup(dir, sizeof(dir)))
		SKIP(return, "no swap, or no memory cgroups");
	snprintf(procs, sizeof(procs), "%s/cgroup.procs", dir);
	snprintf(reclaim, sizeof(reclaim), "%s/memory.reclaim", dir);
	ASSERT_EQ(0, write_file(procs, "0"));
	counts = mmap(NULL, sizeof(*counts), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, counts);
	nr = nr < 1 ? 1 : nr > 3 ? 3 : nr;
	run_on(0);
	swapped = read_key("/proc/vmstat", "pswpout ");
	for (i = 0; i < nr; i++) {
		pid[i] = fork();
		ASSERT_GE(pid[i], 0);
		if (pid[i])
			continue;
		run_on(i + 1);
		counter(self->p, i, counts);
		_exit(0);
	}
	/* On a slow machine for longer, until enough has been swapped. */
	for (i = 1; now() < end ||
	     (now() < end + 60 &&
	      read_key("/proc/vmstat", "pswpout ") <= swapped + SWAPPED); i++) {
		write_file(reclaim, "1M");
		if (i % 4 == 0)
			bad += lost_writes(self->p, counts);
	}
	bad += lost_writes(self->p, counts);
	EXPECT_EQ(0, reap(pid, nr));
	EXPECT_EQ(0, bad);
	EXPECT_LT(swapped + SWAPPED, read_key("/proc/vmstat", "pswpout "));
	ASSERT_EQ(0, write_file(CGROUP "cgroup.procs", "0"));
	EXPECT_EQ(0, rmdir(dir));
	munmap(counts, sizeof(*counts));
}

TEST_HARNESS_MAIN

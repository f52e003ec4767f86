// SPDX-License-Identifier: GPL-2.0
/*
 * No stale TLB entry: when a page has been taken out of the file, nobody can
 * read or write it any more through any mapping.
 *
 * Writers on all CPUs store into pages through their own mappings, while the
 * pages are punched out or swapped out and their frames are handed to a
 * canary that must never change.
 */
#include "pt_util.h"

#include <pthread.h>
#include <time.h>

#define SIZE	(4 * MB)
#define SECONDS	4
#define CANARY	0x5c

static volatile int *stop;

FIXTURE(stale)
{
	int fd;
	char *p;
};

FIXTURE_SETUP(stale)
{
	pt_opt_in();
	pt_catch();
	self->fd = new_memfd(SIZE);
	ASSERT_GE(self->fd, 0);
	self->p = map_at(self->fd, SIZE, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(self->p, MAP_FAILED);
	stop = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(stop, MAP_FAILED);
	*stop = 0;
}

FIXTURE_TEARDOWN(stale)
{
	munmap(self->p, SIZE);
	munmap((void *)stop, PAGE);
	close(self->fd);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static void writer(char *p)
{
	size_t i;

	while (!*stop)
		for (i = 0; i < SIZE && !*stop; i += PAGE)
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

	*stop = 1;
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
	size_t i;
	long bad = 0;
	int n;

	if (c == MAP_FAILED)
		return 0;
	for (i = 0; i < len; i += PAGE)
		c[i + 64] = CANARY;
	for (n = 0; n < 3; n++)
		for (i = 0; i < len; i += PAGE)
			bad += c[i + 64] != CANARY;
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

static void *thread_writer(void *arg)
{
	volatile char *p = arg;
	size_t i;

	while (!*stop)
		for (i = 0; i < SIZE && !*stop; i += PAGE)
			try_store((char *)p + i + 64, 1);
	return NULL;
}

/*
 * A process detaches by munmap while one of its threads stores there and
 * another process punches: the flush must come before the VMA is unlinked
 * (hazard H1).  The one thread that may fault uses sigsetjmp; so only one.
 */
TEST_F(stale, munmap_vs_punch)
{
	double end = now() + SECONDS;
	pthread_t thread;
	long bad = 0;
	pid_t pid;

	pid = fork();
	ASSERT_GE(pid, 0);
	if (!pid) {
		if (pthread_create(&thread, NULL, thread_writer, self->p))
			_exit(1);
		while (!*stop) {
			munmap(self->p, SIZE);
			if (mmap(self->p, SIZE, PROT_READ | PROT_WRITE,
				 MAP_SHARED | MAP_FIXED, self->fd, 0) !=
			    self->p)
				_exit(2);
			sched_yield();
		}
		pthread_join(thread, NULL);
		_exit(0);
	}
	while (now() < end) {
		ASSERT_EQ(0, fallocate(self->fd, FALLOC_FL_PUNCH_HOLE |
				       FALLOC_FL_KEEP_SIZE, 0, SIZE));
		bad += canary(SIZE);
	}
	EXPECT_EQ(0, reap(&pid, 1));
	EXPECT_EQ(0, bad);
}

/* Permissions: after mprotect() returns no store gets through. */
static void *thread_counter(void *arg)
{
	volatile long *p = arg;

	while (!*stop)
		try_store((char *)p, (char)(*stop ? 0 : random()));
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
	*stop = 1;
	pthread_join(thread, NULL);
	EXPECT_EQ(0, bad);
}

/*
 * No lost write: each process counts in words of its own while pages go to
 * swap and come back (hazards H3, H4, H43).
 */
static int counter(char *p, int slot)
{
	unsigned long n = 0;
	size_t i;

	while (!*stop) {
		n++;
		for (i = 0; i < SIZE && !*stop; i += PAGE) {
			volatile unsigned long *w = (void *)(p + i);

			if (w[slot] + 1 != n && w[slot] != n)
				return 1;
			w[slot] = n;
		}
	}
	return 0;
}

TEST_F(stale, pageout)
{
	double end = now() + SECONDS;
	pid_t pid[3];
	int i;

	if (meminfo_kb("SwapTotal") <= 0)
		SKIP(return, "no swap");
	for (i = 0; i < 3; i++) {
		pid[i] = fork();
		ASSERT_GE(pid[i], 0);
		if (!pid[i])
			_exit(counter(self->p, i));
	}
	while (now() < end) {
		madvise(self->p, SIZE, MADV_PAGEOUT);
		sched_yield();
	}
	EXPECT_EQ(0, reap(pid, 3));
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/*
 * CPUs, memory and processes are taken away and come back while sharers work.
 */
#include "pt_system.h"

/* Four chunks and a bit, which has private tables. */
#define SIZE	(8 * MB + 16 * PAGE)
#define SECONDS	5

FIXTURE(hotplug)
{
	struct pt_gauges was;
	struct tally t;
	struct crew crew;
	char *p;
	int fd;
};

FIXTURE_SETUP(hotplug)
{
	pt_opt_in();
	self->was = pt_gauges();
	self->fd = new_memfd(SIZE);
	ASSERT_GE(self->fd, 0);
	self->p = map_at(self->fd, SIZE, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(self->p, MAP_FAILED);
	self->t = (struct tally) { .fd = self->fd, .size = SIZE,
				   .inherited = self->p };
}

FIXTURE_TEARDOWN(hotplug)
{
	munmap(self->p, SIZE);
	close(self->fd);
	EXPECT_STREQ("nothing", pt_left_over(&self->was));
}

/* --- CPUs --- */

/*
 * Holes with a page of one's own: after each punch the page must be zero, and
 * the next must not find what a stale entry has written to the old one.
 */
static int child_punches(volatile int *stop, int nr, void *arg)
{
	struct tally *t = arg;
	off_t at = CHUNK + (100 + nr) * PAGE;
	volatile char *p = t->inherited + at;

	while (!*stop) {
		*p = 1;
		if (punch(t->fd, at, PAGE))
			return 2;
		if (*p)
			return 1;
	}
	return 0;
}

/* Reads where the others punch: 0 or 1, and no other file's data. */
static int child_watches(volatile int *stop, int nr, void *arg)
{
	struct tally *t = arg;
	const volatile char *p = t->inherited + CHUNK + 100 * PAGE;

	while (!*stop)
		for (nr = 0; nr < 16; nr++)
			if (p[nr * PAGE] & ~1)
				return 1;
	return 0;
}

#define CPU1	"/sys/devices/system/cpu/cpu1/online"

/*
 * A CPU that goes leaves what it had loaded, and one that comes has missed all
 * flushes meanwhile.
 */
TEST_F(hotplug, cpu)
{
	double end = now() + SECONDS;
	int i, rounds = 0;

	if (write_file(CPU1, "1") || write_file(CPU1, "0"))
		SKIP(return, "no CPU to take away");
	ASSERT_EQ(0, write_file(CPU1, "1"));
	ASSERT_EQ(0, crew_init(&self->crew));
	for (i = 0; i < 3; i++)
		ASSERT_EQ(0, crew_hire(&self->crew, child_punches, &self->t));
	/* More than eight sharers are flushed all at once. */
	for (i = 0; i < 7; i++)
		ASSERT_EQ(0, crew_hire(&self->crew, child_watches, &self->t));
	while (now() < end) {
		EXPECT_EQ(0, write_file(CPU1, "0"));
		usleep(20000);
		EXPECT_EQ(0, write_file(CPU1, "1"));
		usleep(20000);
		rounds++;
	}
	EXPECT_EQ(0, crew_dismiss(&self->crew));
	TH_LOG("%d times", rounds);
}

/* --- processes --- */

/*
 * Frozen sharers hold nothing that others need, and find what was done to the
 * file meanwhile.
 */
TEST_F(hotplug, freezer)
{
	double end = now() + SECONDS;
	char cgroup[96], *q;
	int i;

	if (!cgroup_make(cgroup, sizeof(cgroup)))
		SKIP(return, "no cgroups");
	self->t.cgroup = cgroup;
	/* They count in the first half only. */
	self->t.size = SIZE / 2;
	ASSERT_EQ(0, tally_hire(&self->crew, &self->t, 4));
	while (now() < end) {
		usleep(20000);
		ASSERT_EQ(0, cgroup_write(cgroup, "cgroup.freeze", "1"));
		for (i = 0; i < 500 &&
		     cgroup_key(cgroup, "cgroup.events", "frozen ") != 1; i++)
			usleep(10000);
		EXPECT_EQ(1, cgroup_key(cgroup, "cgroup.events", "frozen "));
		q = map_at(self->fd, SIZE, 0, PROT_READ | PROT_WRITE);
		ASSERT_NE(q, MAP_FAILED);
		fill(q + SIZE / 2, SIZE / 2, 3);
		ASSERT_EQ(0, ftruncate(self->fd, SIZE / 2));
		ASSERT_EQ(0, ftruncate(self->fd, SIZE));
		EXPECT_EQ(0, q[SIZE / 2]);
		madvise(q, SIZE / 2, MADV_PAGEOUT);
		munmap(q, SIZE);
		ASSERT_EQ(0, cgroup_write(cgroup, "cgroup.freeze", "0"));
	}
	EXPECT_EQ(0, crew_dismiss(&self->crew));
	EXPECT_EQ(0, cgroup_remove(cgroup));
}

/* --- memory --- */

#define MEMORY	"/sys/devices/system/memory/"
#define MOST	8

static unsigned long block_size(void)
{
	char text[32];

	if (read_text(MEMORY "block_size_bytes", text, sizeof(text)))
		return 0;
	return strtoul(text, NULL, 16);
}

/* The blocks that hold pages of a mapping; each once. */
static int blocks_of(const char *p, size_t len, unsigned long size,
		     unsigned long *block)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	unsigned long entry;
	int i, n = 0;
	size_t at;

	for (at = 0; at < len && n < MOST; at += PAGE) {
		if (pread(fd, &entry, 8, ((uintptr_t)p + at) / PAGE * 8) != 8 ||
		    !(entry >> 63))
			continue;
		entry = (entry & ((1UL << 55) - 1)) * PAGE / size;
		for (i = 0; i < n && block[i] != entry; i++)
			;
		if (i == n)
			block[n++] = entry;
	}
	close(fd);
	return n;
}

static int block_online(unsigned long block, bool on)
{
	char path[96];

	snprintf(path, sizeof(path), MEMORY "memory%lu/state", block);
	return write_file(path, on ? "online_movable" : "offline");
}

/* The memory that shared pages lie in is taken away, under those who count. */
TEST_F(hotplug, memory)
{
	unsigned long size = block_size(), block[MOST];
	double end = now() + SECONDS;
	int i, n, gone = 0;
	char *ballast;

	if (!size)
		SKIP(return, "no memory hotplug");
	/* Not in the last block, which has a hole and cannot go. */
	ballast = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE |
		       MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	ASSERT_NE(ballast, MAP_FAILED);
	memset(self->p, 0, SIZE);
	munmap(ballast, size);
	ASSERT_EQ(0, tally_hire(&self->crew, &self->t, 3));
	while (now() < end) {
		n = blocks_of(self->p, SIZE, size, block);
		for (i = 0; i < n; i++) {
			if (block_online(block[i], false))
				continue;
			gone++;
			EXPECT_EQ(0, block_online(block[i], true));
		}
		usleep(10000);
	}
	EXPECT_EQ(0, crew_dismiss(&self->crew));
	if (!gone)
		SKIP(return, "no memory that can go: boot with movablecore=");
	TH_LOG("%d blocks went and came back", gone);
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/*
 * What a program sees of its address space is what it sees without sharing:
 * the same lines in /proc/PID/maps and the same results after any sequence of
 * operations; seals of files and of mappings hold and do not get in the way.
 */
#include "pt_many.h"

#define SIZE	(16 * MB)

#ifndef __NR_mseal
#define __NR_mseal	462
#endif

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE	0x0010
#endif

FIXTURE(layout)
{
	int fd;
	char *p, *w;
};

FIXTURE_SETUP(layout)
{
	pt_opt_in();
	pt_catch();
	self->fd = new_memfd(SIZE);
	ASSERT_GE(self->fd, 0);
	self->p = map_at(self->fd, SIZE, 0, PROT_READ | PROT_WRITE);
	self->w = map_at(self->fd, SIZE, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(self->p, MAP_FAILED);
	ASSERT_NE(self->w, MAP_FAILED);
	fill(self->w, SIZE, 1);
	ASSERT_EQ(-1, check(self->p, SIZE, 1));
}

FIXTURE_TEARDOWN(layout)
{
	munmap(self->p, SIZE);
	munmap(self->w, SIZE);
	close(self->fd);
}

/* --- remap_file_pages() --- */

static int nonlinear(char *p, size_t len, size_t off)
{
	return syscall(SYS_remap_file_pages, p, len, 0, off / PAGE, 0);
}

/*
 * An emulated system call: a new mapping in the middle of the old one.  With
 * and without an offset at which the piece can share.
 */
TEST_F(layout, remap_file_pages)
{
	static const size_t from[] = { 10 * MB, 9 * MB, 8 * MB + PAGE };
	size_t at = 4 * MB, len = 3 * MB, i;

	for (i = 0; i < ARRAY_SIZE(from); i++) {
		ASSERT_EQ(0, nonlinear(self->p + at, len, from[i]));
		EXPECT_EQ(3, count_vmas(self->p, SIZE));
		EXPECT_EQ(-1, check(self->p, at, 1));
		EXPECT_EQ(-1, check(self->p + at, len, 1 + from[i] / PAGE));
		EXPECT_EQ(-1, check(self->p + at + len, SIZE - at - len,
				    1 + (at + len) / PAGE));
		self->p[at + 2 * MB] = 99;
		EXPECT_EQ(99, self->w[from[i] + 2 * MB]);
		ASSERT_EQ(0, punch(self->fd, from[i], PAGE));
		EXPECT_EQ(0, self->p[at]);
		fill(self->w, SIZE, 1);
		/* Back to where it belongs: one VMA again. */
		ASSERT_EQ(0, nonlinear(self->p + at, len, at));
		EXPECT_EQ(1, count_vmas(self->p, SIZE));
		EXPECT_EQ(-1, check(self->p, SIZE, 1));
	}
}

/* --- mseal() --- */

static int sealed(char *p, size_t len)
{
	char *to = mmap(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			0);

	if (munmap(p, len) != -1 || errno != EPERM)
		return 1;
	if (mprotect(p, len, PROT_READ) != -1 || errno != EPERM)
		return 2;
	if (mremap(p, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to) !=
	    MAP_FAILED || errno != EPERM)
		return 3;
	if (mmap(p, len, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		 -1, 0) != MAP_FAILED || errno != EPERM)
		return 4;
	munmap(to, len);
	return 0;
}

struct seal_test {
	char *p, *w;
};

/* Sealed for good, so in a process that ends. */
static int child_mseal(void *arg)
{
	struct seal_test *t = arg;
	int n;

	if (syscall(__NR_mseal, t->p + 3 * MB, 6 * MB, 0))
		return 1;
	n = count_vmas(t->p, SIZE);
	if (n != 3)
		return 2;
	if (sealed(t->p + 3 * MB, 6 * MB) || sealed(t->p + 4 * MB, CHUNK) ||
	    sealed(t->p + 5 * MB, PAGE))
		return 3;
	if (check(t->p, SIZE, 1) >= 0)
		return 4;
	/* The policy is no property that a seal keeps. */
	madvise(t->p + 3 * MB, 6 * MB, MADV_NOPTSHARE);
	if (check(t->p, SIZE, 1) >= 0)
		return 5;
	madvise(t->p + 3 * MB, 6 * MB, MADV_PTSHARE);
	if (check(t->p, SIZE, 1) >= 0 || sealed(t->p + 4 * MB, CHUNK))
		return 6;
	/* The rest is as free as before. */
	if (munmap(t->p, 3 * MB) || mprotect(t->p + 9 * MB, MB, PROT_READ))
		return 7;
	t->p[4 * MB] = 55;
	return t->w[4 * MB] != 55;
}

TEST_F(layout, mseal)
{
	struct seal_test t = { self->p, self->w };

	if (syscall(__NR_mseal, self->p, 0, 0))
		SKIP(return, "no mseal");
	EXPECT_EQ(0, in_child(child_mseal, &t));
	EXPECT_EQ(55, self->p[4 * MB]);
	fill(self->w, SIZE, 1);
	/* Of that process only. */
	EXPECT_EQ(0, munmap(self->p, SIZE));
}

/* --- seals of the file --- */

static int child_writes(void *arg)
{
	char *p = arg;

	fill(p, SIZE, 7);
	return check(p, SIZE, 7) >= 0;
}

/* Who may write already goes on; nobody new may. */
TEST_F(layout, seal_future_write)
{
	char *ro, c;

	ASSERT_EQ(0, fcntl(self->fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, SIZE, PROT_READ | PROT_WRITE,
				   MAP_SHARED, self->fd, 0));
	EXPECT_EQ(-1, pwrite(self->fd, "x", 1, 0));
	ro = map_at(self->fd, SIZE, 0, PROT_READ);
	ASSERT_NE(ro, MAP_FAILED);
	EXPECT_EQ(-1, check(ro, SIZE, 1));
	EXPECT_EQ(-1, mprotect(ro + 4 * MB, CHUNK, PROT_READ | PROT_WRITE));
	EXPECT_EQ(SIGSEGV, try_store(ro + 4 * MB, 1));
	/* A child writes, at the old address and after a split. */
	EXPECT_EQ(0, in_child(child_writes, self->p));
	EXPECT_EQ(-1, check(ro, SIZE, 7));
	ASSERT_EQ(0, mprotect(self->p + 5 * MB, 4 * MB, PROT_READ));
	EXPECT_EQ(SIGSEGV, try_store(self->p + 5 * MB, 1));
	ASSERT_EQ(0, mprotect(self->p + 5 * MB, 4 * MB,
			      PROT_READ | PROT_WRITE));
	EXPECT_EQ(1, count_vmas(self->p, SIZE));
	EXPECT_EQ(0, in_child(child_writes, self->p));
	EXPECT_EQ(0, try_load(ro + 5 * MB, &c));
	EXPECT_EQ((char)(7 + 5 * MB / PAGE), c);
	munmap(ro, SIZE);
}

/* A file that only readers map can be sealed; a window must not count. */
TEST_F(layout, seal_under_readers)
{
	char path[64], *ro, *ro2;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	ASSERT_GE(fd, 0);
	ro = map_at(fd, SIZE, 0, PROT_READ);
	ro2 = map_at(fd, SIZE, 0, PROT_READ);
	ASSERT_NE(ro, MAP_FAILED);
	ASSERT_NE(ro2, MAP_FAILED);
	EXPECT_EQ(-1, check(ro, SIZE, 1));
	EXPECT_EQ(-1, check(ro2, SIZE, 1));
	EXPECT_EQ(-1, fcntl(self->fd, F_ADD_SEALS, F_SEAL_WRITE));
	EXPECT_EQ(EBUSY, errno);
	munmap(self->p, SIZE);
	munmap(self->w, SIZE);
	ASSERT_EQ(0, fcntl(self->fd, F_ADD_SEALS, F_SEAL_WRITE));
	EXPECT_EQ(-1, check(ro, SIZE, 1));
	EXPECT_EQ(-1, check(ro2, SIZE, 1));
	EXPECT_EQ(-1, mprotect(ro, SIZE, PROT_READ | PROT_WRITE));
	munmap(ro, SIZE);
	munmap(ro2, SIZE);
	close(fd);
}

/* At once after the last writer is gone, by whatever way. */
TEST_F(layout, seal_after_exit)
{
	int i;

	for (i = 0; i < 20; i++) {
		int fd = new_memfd(SIZE);
		pid_t pid;
		char *p;

		ASSERT_GE(fd, 0);
		p = map_at(fd, SIZE, 0, PROT_READ | PROT_WRITE);
		ASSERT_NE(p, MAP_FAILED);
		fill(p, 4 * MB, 1);
		pid = fork();
		ASSERT_GE(pid, 0);
		if (!pid) {
			fill(p, SIZE, 1);
			kill(getpid(), i & 1 ? SIGKILL : SIGTERM);
		}
		if (i & 2)
			ASSERT_EQ(0, munmap(p, SIZE));
		ASSERT_EQ(pid, waitpid(pid, NULL, 0));
		if (!(i & 2))
			ASSERT_EQ(0, munmap(p, SIZE));
		EXPECT_EQ(0, fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE |
				   F_SEAL_GROW | F_SEAL_SHRINK));
		EXPECT_EQ(-1, ftruncate(fd, 0));
		close(fd);
	}
}

/* --- the same program twice, with sharing and without --- */

#define AREA	(12 * MB)
#define STEPS	100

struct step {
	unsigned long maps;		/* hash of the lines of /proc/self/maps */
	unsigned long bytes;		/* and of what a few addresses hold */
	long ret;
	int err;
};

static unsigned long mix(unsigned long h, unsigned long v)
{
	h = (h ^ v) * 0x9e3779b97f4a7c15UL;
	return h ^ h >> 29;
}

/* Addresses, permissions and offsets of all that lies in the area. */
static unsigned long hash_maps(char *area)
{
	unsigned long from, to, off;
	char line[512], perms[8];
	unsigned long h = 0;
	FILE *f = fopen("/proc/self/maps", "r");

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx %7s %lx", &from, &to, perms, &off) !=
		    4 || to <= (uintptr_t)area ||
		    from >= (uintptr_t)area + AREA)
			continue;
		h = mix(mix(mix(h, from), to), off);
		h = mix(h, *(unsigned int *)perms);
	}
	if (f)
		fclose(f);
	return h;
}

static unsigned long hash_bytes(char *area, unsigned int *seed)
{
	unsigned long h = 0;
	int i;

	for (i = 0; i < 16; i++) {
		char *p = area + rand_r(seed) % (AREA / PAGE) * PAGE, c = 0;
		int sig = i & 3 ? try_load(p, &c) : try_store(p, i);

		h = mix(mix(h, sig), c);
	}
	return h;
}

/* Mostly whole chunks and halves, so that pieces meet and merge again. */
static size_t pick(unsigned int *seed, size_t limit)
{
	static const size_t unit[] = { CHUNK, CHUNK, MB, PAGE };
	size_t u = unit[rand_r(seed) % 4];

	return rand_r(seed) % (limit / u + 1) * u % limit;
}

static long one_step(int fd, char *area, unsigned int *seed)
{
	static const int prots[] = { PROT_READ | PROT_WRITE, PROT_READ,
				     PROT_READ | PROT_WRITE, PROT_NONE };
	static const int advices[] = { MADV_DONTFORK, MADV_DOFORK,
				       MADV_DONTNEED, MADV_RANDOM, MADV_NORMAL,
				       MADV_DONTDUMP, MADV_DODUMP };
	size_t off = pick(seed, AREA), len = PAGE + pick(seed, AREA - off);
	int prot = prots[rand_r(seed) % 4], what = rand_r(seed) % 16;
	size_t to = pick(seed, AREA);

	/* Ends at chunk boundaries as well. */
	if (rand_r(seed) & 1)
		len = len > PAGE ? len - PAGE : CHUNK;
	if (off + len > AREA)
		len = AREA - off;
	switch (what) {
	case 0 ... 4:
		return mprotect(area + off, len, prot);
	case 5 ... 6:
		return munmap(area + off, len);
	case 7 ... 10:	/* mostly where it belongs in the file */
		return mmap(area + off, len, prot, MAP_SHARED | MAP_FIXED, fd,
			    what == 7 ? to : off) == MAP_FAILED;
	case 11:
		return mlock(area + off, len);
	case 12:
		return munlock(area, AREA);
	case 13:
		return madvise(area + off, len, advices[rand_r(seed) % 7]);
	case 14:	/* grow or shrink in place, or fail */
		return mremap(area + off, len, to + PAGE, 0) == MAP_FAILED;
	default:
		if (to + len > AREA)
			to = AREA - len;
		return mremap(area + off, len, len, MREMAP_MAYMOVE |
			      MREMAP_FIXED, area + to) == MAP_FAILED;
	}
}

struct story {
	char *area;
	struct step *steps;
	unsigned int seed;
	long policy;
};

static int child_story(void *arg)
{
	struct story *s = arg;
	unsigned int seed = s->seed;
	int fd = new_memfd(AREA), i;

	prctl(PR_SET_PTSHARE, s->policy, 0, 0, 0);
	if (fd < 0 || mmap(s->area, AREA, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_FIXED, fd, 0) != s->area)
		return 1;
	fill(s->area, AREA, 1);
	for (i = 0; i < STEPS; i++) {
		errno = 0;
		s->steps[i].ret = one_step(fd, s->area, &seed);
		s->steps[i].err = errno;
		s->steps[i].maps = hash_maps(s->area);
		s->steps[i].bytes = hash_bytes(s->area, &seed);
	}
	return 0;
}

/*
 * Guards __ptshare_judge() and __ptshare_merge(): whether VMAs merge must not
 * depend on whether they share.
 */
TEST_F(layout, same_with_and_without)
{
	const size_t len = STEPS * sizeof(struct step);
	struct step *a = mmap(NULL, 2 * len, PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS, -1, 0), *b = a + STEPS;
	struct story s = {};
	long join = pt_stat("stats/join");
	int i, round;

	ASSERT_NE(a, MAP_FAILED);
	if (!sharing())
		SKIP(return, "sharing is off");
	/* A hole around it: nothing to merge with, mremap() cannot leave. */
	s.area = mmap(NULL, AREA + 2 * CHUNK, PROT_NONE, MAP_PRIVATE |
		      MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ASSERT_NE(s.area, MAP_FAILED);
	s.area = (char *)(((uintptr_t)s.area + CHUNK - 1) & ~(CHUNK - 1));
	for (round = 0; round < 4; round++) {
		s.seed = 1000 + round;
		s.steps = a;
		s.policy = PTSHARE_NEVER;
		ASSERT_EQ(0, in_child(child_story, &s));
		s.steps = b;
		s.policy = PTSHARE_ALWAYS;
		ASSERT_EQ(0, in_child(child_story, &s));
		for (i = 0; i < STEPS; i++)
			if (memcmp(&a[i], &b[i], sizeof(*a)))
				break;
		EXPECT_EQ(STEPS, i) {
			TH_LOG("seed %u: ret %ld/%ld errno %d/%d maps %s bytes %s",
			       s.seed, a[i].ret, b[i].ret, a[i].err, b[i].err,
			       a[i].maps == b[i].maps ? "same" : "differ",
			       a[i].bytes == b[i].bytes ? "same" : "differ");
		}
	}
	EXPECT_LT(join, pt_stat("stats/join"));
	munmap(a, 2 * len);
}

/*
 * What is often done to shared memory leaves one line of /proc/PID/maps, and
 * goes on sharing: nothing but the policy decides about that.
 */
TEST_F(layout, whole_again)
{
	long sharers = pt_stat("sharers");
	int i;

	for (i = 0; i < 8; i++) {
		char *a = self->p + 3 * MB + i * (MB + PAGE);

		ASSERT_EQ(0, mprotect(a, CHUNK, PROT_READ));
		ASSERT_EQ(0, mprotect(a, CHUNK, PROT_READ | PROT_WRITE));
		ASSERT_EQ(0, mlock(a, CHUNK));
		ASSERT_EQ(0, munlock(a, CHUNK));
		ASSERT_EQ(0, mprotect(a, PAGE, PROT_NONE));
		ASSERT_EQ(0, mprotect(a, PAGE, PROT_READ | PROT_WRITE));
		ASSERT_EQ(0, madvise(a, 3 * MB, MADV_DONTFORK));
		ASSERT_EQ(0, madvise(a, 3 * MB, MADV_DOFORK));
	}
	EXPECT_EQ(1, count_vmas(self->p, SIZE));
	EXPECT_EQ(-1, check(self->p, SIZE, 1));
	EXPECT_EQ(sharers, pt_stat("sharers"));
}

TEST_HARNESS_MAIN

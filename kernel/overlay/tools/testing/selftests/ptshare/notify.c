// SPDX-License-Identifier: GPL-2.0
/*
 * What mmu notifiers hear: a secondary MMU (KVM, RDMA) of one process must be
 * told whatever happens to a page that the process maps, by whomever and
 * through whatever page table.
 *
 * /sys/kernel/debug/ptshare/notifier (CONFIG_PTSHARE_TEST) registers a notifier
 * on a process and tells what it heard.  What is expected is what stock Linux
 * promises: nothing here knows who shares.
 */
#include "pt_many.h"

#define NOTIFIER	"/sys/kernel/debug/ptshare/notifier"

#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif

/* Four chunks with a partial one at either end. */
#define HEAD	(CHUNK / 2)
#define SIZE	(10 * MB)
#define TAIL	(SIZE - MB)	/* offset of the partial chunk at the end */

struct heard {
	char kind[32];
	unsigned long start, end;
};

#define MAX_HEARD	8192

static struct heard heard[MAX_HEARD];
static int nr_heard;

static int listen_to(pid_t pid, const char *how)
{
	char word[64];
	int fd = open(NOTIFIER, O_RDWR | O_CLOEXEC);

	snprintf(word, sizeof(word), "%s%d", how, pid);
	if (fd >= 0 && write(fd, word, strlen(word)) != (ssize_t)strlen(word)) {
		close(fd);
		return -1;
	}
	return fd;
}

static int tell_listener(int fd, const char *word)
{
	return write(fd, word, strlen(word)) != (ssize_t)strlen(word);
}

/* What was heard since the last time; -1 if some of it was lost. */
static int hear(int fd)
{
	char *line = NULL;
	size_t size = 0;
	FILE *f;

	nr_heard = 0;
	f = fdopen(dup(fd), "r");
	if (!f)
		return -1;
	rewind(f);
	while (getline(&line, &size, f) > 0 && nr_heard < MAX_HEARD) {
		struct heard *h = &heard[nr_heard];

		if (sscanf(line, "%31s %lx %lx", h->kind, &h->start,
			   &h->end) == 3)
			nr_heard++;
		else
			nr_heard = -1;
		if (nr_heard < 0)
			break;
	}
	free(line);
	fclose(f);
	tell_listener(fd, "clear");
	return nr_heard;
}

static bool covers(const struct heard *h, const char *kind, const char *p,
		   size_t len)
{
	return !strcmp(h->kind, kind) && h->start <= (uintptr_t)p &&
	       h->end >= (uintptr_t)p + len;
}

/* Was it said of this range? */
static bool told(const char *kind, const char *p, size_t len)
{
	int i;

	for (i = 0; i < nr_heard; i++)
		if (covers(&heard[i], kind, p, len))
			return true;
	return false;
}

/* Does an end follow each start, of the same range? */
static bool paired(void)
{
	int i, j, open = 0;

	for (i = 0; i < nr_heard; i++) {
		bool start = !strcmp(heard[i].kind, "start");

		if (!start && strcmp(heard[i].kind, "end"))
			continue;
		open += start ? 1 : -1;
		if (open < 0)
			return false;
		if (!start)
			continue;
		for (j = i + 1; j < nr_heard; j++)
			if (!strcmp(heard[j].kind, "end") &&
			    heard[j].start == heard[i].start &&
			    heard[j].end == heard[i].end)
				break;
		if (j == nr_heard)
			return false;
	}
	return !open;
}

/* A whole invalidation of the range, with all that was heard in order. */
static bool invalidated(int fd, const char *p, size_t len)
{
	return hear(fd) > 0 && paired() && told("start", p, len) &&
	       told("end", p, len);
}

FIXTURE(notify)
{
	int fd, listener;
	char *p;		/* of the process that is listened to */
	struct servant other;	/* maps the file elsewhere */
	char *q;		/* where */
};

FIXTURE_VARIANT(notify)
{
	bool before;	/* the mapping */
};

/* Which is first, the notifier or the mapping? */
FIXTURE_VARIANT_ADD(notify, first)
{
	.before = true,
};

FIXTURE_VARIANT_ADD(notify, last)
{
	.before = false,
};

FIXTURE_SETUP(notify)
{
	long sharers;

	if (access(NOTIFIER, F_OK))
		SKIP(return, "no CONFIG_PTSHARE_TEST");
	pt_opt_in();
	pt_catch();
	self->fd = new_memfd(HEAD + SIZE);
	ASSERT_GE(self->fd, 0);
	self->q = map_at(self->fd, HEAD + SIZE, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(self->q, MAP_FAILED);
	ASSERT_EQ(0, servant_start(&self->other, NULL, NULL));
	munmap(self->q, HEAD + SIZE);

	if (variant->before)
		self->listener = listen_to(getpid(), "");
	sharers = pt_stat("sharers");
	self->p = map_at(self->fd, SIZE, HEAD, PROT_READ | PROT_WRITE);
	ASSERT_NE(self->p, MAP_FAILED);
	fill(self->p, SIZE, 1);
	if (!variant->before)
		self->listener = listen_to(getpid(), "");
	ASSERT_GE(self->listener, 0);
	tell_listener(self->listener, "clear");
	/* A notifier is no reason not to share. */
	if (sharing())
		ASSERT_EQ(sharers + 1, pt_stat("sharers"));
}

FIXTURE_TEARDOWN(notify)
{
	servant_end(&self->other);
	if (self->listener >= 0)
		close(self->listener);
	if (self->p)
		munmap(self->p, SIZE);
	close(self->fd);
}

/* --- by others --- */

TEST_F(notify, punch)
{
	size_t at[] = { 0, 5 * PAGE, 3 * MB + PAGE, TAIL + PAGE };
	int i;

	for (i = 0; i < 4; i++) {
		ASSERT_EQ(0, punch(self->fd, HEAD + at[i], PAGE));
		EXPECT_TRUE(invalidated(self->listener, self->p + at[i], PAGE));
	}
	ASSERT_EQ(0, punch(self->fd, 0, HEAD + SIZE));
	EXPECT_TRUE(hear(self->listener) > 0 && paired());
	/* In pieces, if need be: here the chunks, there the ends. */
	EXPECT_TRUE(told("start", self->p, HEAD));
	EXPECT_TRUE(told("start", self->p + HEAD, TAIL - HEAD));
	EXPECT_TRUE(told("start", self->p + TAIL, SIZE - TAIL));
}

TEST_F(notify, truncate)
{
	ASSERT_EQ(0, ftruncate(self->fd, HEAD + 3 * MB + PAGE));
	EXPECT_TRUE(hear(self->listener) > 0 && paired());
	EXPECT_TRUE(told("start", self->p + 3 * MB + PAGE, PAGE));
	EXPECT_TRUE(told("start", self->p + SIZE - PAGE, PAGE));
}

/* Where the process has a mapping but never touched it. */
TEST_F(notify, untouched)
{
	char *p;

	p = map_at(self->fd, 4 * MB, CHUNK, PROT_READ);
	ASSERT_NE(p, MAP_FAILED);
	tell_listener(self->listener, "clear");
	ASSERT_EQ(0, punch(self->fd, CHUNK + PAGE, PAGE));
	EXPECT_TRUE(hear(self->listener) > 0 && paired());
	EXPECT_TRUE(told("start", p + PAGE, PAGE));
	EXPECT_TRUE(told("start", self->p + CHUNK - HEAD + PAGE, PAGE));
	munmap(p, 4 * MB);
}

static int remove_page(void *arg)
{
	return madvise(arg, PAGE, MADV_REMOVE);
}

static int offline_page(void *arg)
{
	*(volatile char *)arg;
	return madvise(arg, PAGE, MADV_SOFT_OFFLINE) ? errno : 0;
}

static int poison_page(void *arg)
{
	signal(SIGBUS, SIG_DFL);
	*(volatile char *)arg;
	return madvise(arg, PAGE, MADV_HWPOISON) ? errno : 0;
}

/* By processes that map the file at other addresses. */
TEST_F(notify, others)
{
	char *q;
	int err;

	q = map_at(self->fd, HEAD + SIZE, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(q, MAP_FAILED);
	ASSERT_EQ(0, madvise(q, HEAD + SIZE, MADV_DONTFORK));
	tell_listener(self->listener, "clear");
	ASSERT_EQ(0, remove_page(q + HEAD + 2 * MB));
	EXPECT_TRUE(invalidated(self->listener, self->p + 2 * MB, PAGE));
	madvise(q, HEAD + SIZE, MADV_DOFORK);

	/* Migration. */
	err = in_child(offline_page, q + HEAD + 3 * MB);
	if (err)
		TH_LOG("soft offline: error %d", err);
	EXPECT_TRUE(err || invalidated(self->listener, self->p + 3 * MB, PAGE));
	EXPECT_EQ((char)(1 + 3 * MB / PAGE), self->p[3 * MB]);

	hear(self->listener);
	/* Loses its page, and may be killed for that. */
	err = in_child(poison_page, q + HEAD + 4 * MB);
	if (err == 256 + SIGBUS)
		err = 0;
	if (err)
		TH_LOG("poison: error %d", err);
	EXPECT_TRUE(err || invalidated(self->listener, self->p + 4 * MB, PAGE));
	munmap(q, HEAD + SIZE);
}

/* Reclaim: a cgroup gives back what it can. */
TEST_F(notify, reclaim)
{
	static const char dir[] = "/sys/fs/cgroup/ptshare-notify";
	char path[128], pid[32];
	int i;

	write_file("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
	if (meminfo_kb("SwapTotal") <= 0 || (mkdir(dir, 0755) && errno != EEXIST))
		SKIP(return, "no swap, or no memory cgroups");
	snprintf(path, sizeof(path), "%s/cgroup.procs", dir);
	snprintf(pid, sizeof(pid), "%d", getpid());
	ASSERT_EQ(0, write_file(path, pid));
	ASSERT_EQ(0, punch(self->fd, 0, HEAD + SIZE));
	fill(self->p, SIZE, 3);
	hear(self->listener);
	snprintf(path, sizeof(path), "%s/memory.reclaim", dir);
	for (i = 0; i < 10 && write_file(path, "8M"); i++)
		;
	EXPECT_GT(hear(self->listener), 0);
	EXPECT_TRUE(paired());
	/* Asked whether they are in use, and told that they go. */
	for (i = 0; i < nr_heard; i++)
		if (!strcmp(heard[i].kind, "start") &&
		    heard[i].start >= (uintptr_t)self->p + HEAD &&
		    heard[i].end <= (uintptr_t)self->p + TAIL)
			break;
	EXPECT_LT(i, nr_heard);
	EXPECT_EQ(-1, check(self->p, SIZE, 3));
	write_file("/sys/fs/cgroup/cgroup.procs", pid);
	rmdir(dir);
}

/* --- by the process itself --- */

TEST_F(notify, own_calls)
{
	char *p = self->p;
	int fd = self->listener;

	ASSERT_EQ(0, mprotect(p + MB, 2 * MB, PROT_READ));
	EXPECT_GT(hear(fd), 0);
	EXPECT_TRUE(paired());
	EXPECT_TRUE(told("start", p + MB, PAGE));
	EXPECT_TRUE(told("start", p + 3 * MB - PAGE, PAGE));

	EXPECT_EQ(-1, check(p, SIZE, 1));
	ASSERT_EQ(0, mprotect(p + MB, 2 * MB, PROT_READ | PROT_WRITE));
	fill(p, SIZE, 2);
	hear(fd);
	ASSERT_EQ(0, madvise(p + 4 * MB, 8 * PAGE, MADV_DONTNEED));
	EXPECT_TRUE(invalidated(fd, p + 4 * MB, 8 * PAGE));

	EXPECT_EQ(-1, check(p, SIZE, 2));
	hear(fd);
	ASSERT_EQ(0, munmap(p + 5 * MB, 3 * PAGE));
	EXPECT_TRUE(invalidated(fd, p + 5 * MB, 3 * PAGE));
}

/*
 * A chunk that is cut by a split is mapped by a private table from now on: what
 * a secondary MMU has of it stems from a table that the process has no more.
 */
TEST_F(notify, split)
{
	char *p = self->p;
	int fd = self->listener;
	bool all;

	/* Only the first page is concerned without sharing. */
	ASSERT_EQ(0, mprotect(p + HEAD + MB, PAGE, PROT_READ));
	EXPECT_GT(hear(fd), 0);
	EXPECT_TRUE(paired());
	EXPECT_TRUE(told("start", p + HEAD + MB, PAGE));
	all = told("start", p + HEAD, CHUNK);
	if (sharing())
		EXPECT_TRUE(all);
	EXPECT_EQ(-1, check(p, SIZE, 1));
	/* And is covered again, by a merge. */
	hear(fd);
	ASSERT_EQ(0, mprotect(p + HEAD + MB, PAGE, PROT_READ | PROT_WRITE));
	hear(fd);
	EXPECT_TRUE(paired());
	fill(p, SIZE, 2);
	ASSERT_EQ(0, punch(self->fd, 2 * HEAD + MB, PAGE));
	EXPECT_TRUE(invalidated(fd, p + HEAD + MB, PAGE));
}

TEST_F(notify, leave_and_join)
{
	char *p = self->p, *to;
	int fd = self->listener;

	ASSERT_EQ(0, mlock(p, SIZE));
	hear(fd);
	EXPECT_TRUE(paired());
	ASSERT_EQ(0, punch(self->fd, HEAD + 2 * MB, PAGE));
	EXPECT_TRUE(invalidated(fd, p + 2 * MB, PAGE));
	ASSERT_EQ(0, munlock(p, SIZE));
	fill(p, SIZE, 2);
	hear(fd);
	EXPECT_TRUE(paired());
	ASSERT_EQ(0, punch(self->fd, HEAD + 2 * MB, PAGE));
	EXPECT_TRUE(invalidated(fd, p + 2 * MB, PAGE));

	/* At another place it is told of the new addresses. */
	to = map_at(self->fd, SIZE, HEAD, PROT_NONE);
	ASSERT_NE(to, MAP_FAILED);
	hear(fd);
	ASSERT_EQ(to, mremap(p, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, to));
	self->p = to;
	EXPECT_TRUE(invalidated(fd, p, SIZE));
	fill(to, SIZE, 3);
	hear(fd);
	ASSERT_EQ(0, punch(self->fd, HEAD + 2 * MB, PAGE));
	EXPECT_TRUE(invalidated(fd, to + 2 * MB, PAGE));
}

/* --- aging --- */

static unsigned long pfn_of(char *p)
{
	unsigned long entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	if (pread(fd, &entry, 8, (uintptr_t)p / PAGE * 8) != 8)
		entry = 0;
	close(fd);
	return entry & ((1UL << 55) - 1);
}

/* Is a page idle since it was said to be?  Asks notifiers, among others. */
static int idle(int bitmap, unsigned long pfn)
{
	unsigned long word = 0;

	if (pread(bitmap, &word, 8, pfn / 64 * 8) != 8)
		return -1;
	return word >> pfn % 64 & 1;
}

static int set_idle(int bitmap, unsigned long pfn)
{
	unsigned long word = 1UL << pfn % 64;

	return pwrite(bitmap, &word, 8, pfn / 64 * 8) != 8;
}

/*
 * A page that only a secondary MMU uses is in use (H24).  Twice: in a chunk
 * that can be shared, and in a partial one.
 */
TEST_F(notify, young)
{
	int bitmap = open("/sys/kernel/mm/page_idle/bitmap", O_RDWR);
	size_t at[] = { 2 * MB, PAGE };
	unsigned long pfn;
	int i;

	if (bitmap < 0)
		SKIP(return, "no page idle tracking");
	/* Pages are seen once they are on an LRU list. */
	write_file("/proc/sys/vm/compact_memory", "1");
	for (i = 0; i < 2; i++) {
		pfn = pfn_of(self->p + at[i]);
		ASSERT_NE(0UL, pfn);
		EXPECT_EQ(0, tell_listener(self->listener, "young 0"));
		ASSERT_EQ(0, set_idle(bitmap, pfn));
		EXPECT_EQ(1, idle(bitmap, pfn));
		hear(self->listener);
		EXPECT_TRUE(told("clear_young", self->p + at[i], PAGE));

		EXPECT_EQ(0, tell_listener(self->listener, "young 1"));
		EXPECT_EQ(0, idle(bitmap, pfn));
	}
	close(bitmap);
}

/* --- secondary TLBs, as IOMMUs have --- */

static int many(volatile int *stop, int nr, void *arg)
{
	while (!*stop)
		usleep(10000);
	return 0;
}

TEST_F(notify, secondary_tlb)
{
	struct crew crew;
	int fd, i;

	fd = listen_to(getpid(), "secondary ");
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, punch(self->fd, HEAD + 2 * MB, PAGE));
	EXPECT_GT(hear(fd), 0);
	EXPECT_TRUE(told("secondary", self->p + 2 * MB, PAGE));

	ASSERT_EQ(0, crew_init(&crew));
	for (i = 0; i < 12; i++)
		ASSERT_EQ(0, crew_hire(&crew, many, NULL));
	hear(fd);
	ASSERT_EQ(0, punch(self->fd, HEAD + 3 * MB, PAGE));
	EXPECT_GT(hear(fd), 0);
	EXPECT_TRUE(told("secondary", self->p + 3 * MB, PAGE));
	if (!madvise(self->p + 5 * MB, PAGE, MADV_SOFT_OFFLINE)) {
		EXPECT_GT(hear(fd), 0);
		EXPECT_TRUE(told("secondary", self->p + 5 * MB, PAGE));
	}
	EXPECT_EQ(0, crew_dismiss(&crew));
	close(fd);
}

/* --- life --- */

struct listening_child {
	int fd;
	char *p;
};

/* Exits with its notifier, or closes it first. */
static int child_listens(void *arg)
{
	struct listening_child *c = arg;
	int fd = listen_to(getpid(), "");

	if (fd < 0)
		return 1;
	fill(c->p, 4 * MB, 7);
	if (c->fd)
		close(fd);
	return 0;
}

/* Owners with notifiers go like any other; so do notifiers of sharers. */
TEST_F(notify, gone)
{
	struct listening_child c = { .p = self->p };
	struct pt_gauges was;
	char *p;
	int i, fd;

	was = pt_gauges();
	for (i = 0; i < 20; i++) {
		c.fd = i & 1;
		EXPECT_EQ(0, in_child(child_listens, &c));
	}
	EXPECT_STREQ("nothing", pt_left_over(&was));
	hear(self->listener);

	/* A file whose last sharer goes while it is listened to. */
	for (i = 0; i < 20; i++) {
		fd = new_memfd(4 * MB);
		p = map_at(fd, 4 * MB, 0, PROT_READ | PROT_WRITE);
		ASSERT_NE(p, MAP_FAILED);
		fill(p, 4 * MB, i);
		munmap(p, 4 * MB);
		close(fd);
	}
	EXPECT_STREQ("nothing", pt_left_over(&was));

	close(self->listener);
	self->listener = -1;
	ASSERT_EQ(0, punch(self->fd, 0, HEAD + SIZE));
	EXPECT_EQ(0, self->p[3 * MB]);
}

/* Storm: notifiers come and go while pages do. */
static int puncher(volatile int *stop, int nr, void *arg)
{
	struct listening_child *c = arg;
	unsigned int i;

	for (i = nr; !*stop; i++) {
		punch(c->fd, (HEAD + i * 7 * PAGE) % SIZE, 16 * PAGE);
		c->p[i * 13 * PAGE % SIZE] = i;
	}
	return 0;
}

static int registrar(volatile int *stop, int nr, void *arg)
{
	struct listening_child *c = arg;

	char *p = c->p + (2 + nr) * PAGE;

	while (!*stop) {
		int fd = listen_to(getpid(), "");

		if (fd < 0)
			return 1;
		*p = nr;
		punch(c->fd, HEAD + (p - c->p), PAGE);
		/* Unless more was heard than is kept. */
		if (hear(fd) >= 0 && !told("start", p, PAGE))
			return 2;
		close(fd);
		munmap(c->p, MB);
		mmap(c->p, MB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		     c->fd, HEAD);
	}
	return 0;
}

TEST_F(notify, storm)
{
	struct listening_child c = { .p = self->p, .fd = self->fd };
	struct crew crew;
	int i;

	ASSERT_EQ(0, crew_init(&crew));
	for (i = 0; i < 4; i++) {
		ASSERT_EQ(0, crew_hire(&crew, puncher, &c));
		ASSERT_EQ(0, crew_hire(&crew, registrar, &c));
	}
	for (i = 0; i < 20; i++) {
		usleep(100000);
		tell_listener(self->listener, "clear");
	}
	EXPECT_EQ(0, crew_dismiss(&crew));
}

TEST_HARNESS_MAIN

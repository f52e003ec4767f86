// SPDX-License-Identifier: GPL-2.0
/*
 * Memory management at work on shared tables: what is tracked for one process
 * (soft-dirty, userfaultfd) stays that process' affair, what is done to pages
 * (migration, swap, huge pages, poison) loses no write of anybody, and the cost
 * of page tables is what was promised.
 */
#include "pt_many.h"

#include <linux/mempolicy.h>
#include <poll.h>
#include <pthread.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif

#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif

/* Four chunks, and half a one, which has private tables. */
#define SIZE	(9 * MB)
#define NPAGES	(SIZE / PAGE)
#define SECONDS	3

FIXTURE(memory)
{
	int fd;
	char *p, *w;
};

FIXTURE_SETUP(memory)
{
	pt_opt_in();
	pt_catch();
	self->fd = new_memfd(SIZE);
	ASSERT_GE(self->fd, 0);
	self->p = map_at(self->fd, SIZE, 0, PROT_READ | PROT_WRITE);
	self->w = map_at(self->fd, SIZE, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(self->p, MAP_FAILED);
	ASSERT_NE(self->w, MAP_FAILED);
}

FIXTURE_TEARDOWN(memory)
{
	munmap(self->p, SIZE);
	munmap(self->w, SIZE);
	close(self->fd);
}

/* --- soft-dirty --- */

/* Does a process' pagemap call a page soft-dirty? */
static int soft_dirty(pid_t pid, char *p)
{
	unsigned long entry = 0;
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || pread(fd, &entry, 8, (uintptr_t)p / PAGE * 8) != 8)
		return -1;
	close(fd);
	return entry >> 55 & 1;
}

/* Are pages @a and @b of a mapping soft-dirty, and no other? */
static bool only_dirty(pid_t pid, char *p, size_t a, size_t b)
{
	unsigned long entry[NPAGES];
	char path[64];
	size_t i;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || pread(fd, entry, sizeof(entry),
			    (uintptr_t)p / PAGE * 8) != sizeof(entry))
		return false;
	close(fd);
	for (i = 0; i < NPAGES; i++)
		if ((entry[i] >> 55 & 1) != (i == a || i == b))
			return false;
	return true;
}

static int clear_soft_dirty(pid_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/clear_refs", pid);
	return write_file(path, "4");
}

static bool have_soft_dirty(void)
{
	static char area[2 * PAGE];
	char *page = area + PAGE - (uintptr_t)area % PAGE;
	pid_t self = getpid();

	page[0] = 1;
	clear_soft_dirty(self);
	if (soft_dirty(self, page))
		return false;
	page[0] = 2;
	return soft_dirty(self, page) == 1;
}

#define NONE	NPAGES

/*
 * Each process has its own history of what it wrote (H40); guards the hook in
 * clear_refs_write(): a sharer writes through PTEs that are not its own.
 */
TEST_F(memory, soft_dirty)
{
	struct servant s;
	pid_t me = getpid();
	char c;

	fill(self->w, SIZE, 1);
	EXPECT_EQ(-1, check(self->p, SIZE, 1));
	ASSERT_EQ(0, servant_start(&s, NULL, NULL));
	if (!have_soft_dirty()) {
		servant_end(&s);
		SKIP(return, "no soft-dirty bits");
	}
	ASSERT_EQ(0, clear_soft_dirty(me));
	EXPECT_TRUE(only_dirty(me, self->p, NONE, NONE));
	self->p[3 * PAGE] = 9;
	EXPECT_EQ(0, servant_store(&s, self->p + 5 * PAGE, 9));
	EXPECT_TRUE(only_dirty(me, self->p, 3, NONE));
	EXPECT_TRUE(only_dirty(me, self->w, NONE, NONE));
	/* It has never cleared anything. */
	EXPECT_EQ(1, soft_dirty(s.pid, self->p + 5 * PAGE));
	EXPECT_EQ(1, soft_dirty(s.pid, self->p + 6 * PAGE));

	ASSERT_EQ(0, clear_soft_dirty(s.pid));
	EXPECT_EQ(0, servant_store(&s, self->p + 700 * PAGE, 9));
	EXPECT_EQ(0, servant_load(&s, self->p + 701 * PAGE, &c));
	self->p[9 * PAGE] = 9;
	EXPECT_TRUE(only_dirty(s.pid, self->p, 700, NONE));
	EXPECT_TRUE(only_dirty(me, self->p, 3, 9));

	/* Loads first, so that PTEs exist, and must be write-protected. */
	ASSERT_EQ(0, clear_soft_dirty(me));
	EXPECT_EQ(9, self->p[700 * PAGE]);
	EXPECT_EQ(9, self->w[5 * PAGE]);
	EXPECT_TRUE(only_dirty(me, self->p, NONE, NONE));
	self->p[700 * PAGE] = 10;
	self->p[1500 * PAGE] = 10;
	EXPECT_TRUE(only_dirty(me, self->p, 700, 1500));
	EXPECT_EQ(0, servant_end(&s));
}

/* A new mapping counts as written all over, whatever it merges with. */
TEST_F(memory, soft_dirty_merge)
{
	pid_t me = getpid();
	char *half = self->p + 4 * MB;

	if (!have_soft_dirty())
		SKIP(return, "no soft-dirty bits");
	fill(self->w, SIZE, 1);
	ASSERT_EQ(0, munmap(half, SIZE - 4 * MB));
	EXPECT_EQ(-1, check(self->p, 4 * MB, 1));
	ASSERT_EQ(0, clear_soft_dirty(me));
	/* New, and kept apart by its permission; written to. */
	ASSERT_EQ(half, mmap(half, SIZE - 4 * MB, PROT_READ | PROT_WRITE | PROT_EXEC,
			     MAP_SHARED | MAP_FIXED, self->fd, 4 * MB));
	half[5 * PAGE] = 9;
	/* The old one gets the permission of the new one, and swallows it. */
	ASSERT_EQ(0, mprotect(self->p, 4 * MB,
			      PROT_READ | PROT_WRITE | PROT_EXEC));
	EXPECT_EQ(1, count_vmas(self->p, SIZE));
	EXPECT_EQ(1, soft_dirty(me, half + 5 * PAGE));
}

/* --- userfaultfd --- */

static int uffd_register(int fd, char *p, size_t len, int mode)
{
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)p, .len = len },
		.mode = mode,
	};

	return ioctl(fd, UFFDIO_REGISTER, &reg);
}

static int uffd_wp(int fd, char *p, size_t len, bool on)
{
	struct uffdio_writeprotect wp = {
		.range = { .start = (uintptr_t)p, .len = len },
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	return ioctl(fd, UFFDIO_WRITEPROTECT, &wp);
}

static int uffd_continue(int fd, char *p)
{
	struct uffdio_continue c = {
		.range = { .start = (uintptr_t)p, .len = PAGE },
	};

	return ioctl(fd, UFFDIO_CONTINUE, &c);
}

struct access {
	volatile char *p;
	char store;	/* if not 0 */
	char got;
};

static void *do_access(void *arg)
{
	struct access *a = arg;

	if (a->store)
		*a->p = a->store;
	else
		a->got = *a->p;
	return NULL;
}

/* The fault that is reported next: its address and flags. */
static char *uffd_next(int fd, unsigned long *flags)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	struct uffd_msg msg;

	if (poll(&pfd, 1, 60000) != 1 ||
	    read(fd, &msg, sizeof(msg)) != sizeof(msg) ||
	    msg.event != UFFD_EVENT_PAGEFAULT)
		return NULL;
	*flags = msg.arg.pagefault.flags;
	return (char *)(uintptr_t)msg.arg.pagefault.address;
}

static bool uffd_silent(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	return poll(&pfd, 1, 0) == 0;
}

static int child_reads(void *arg)
{
	return check(arg, SIZE, 1) >= 0;
}

/*
 * Pages that others have in their tables are minor faults for who asked for
 * them, each one (H39); guards the hook in userfaultfd_register_range() and
 * __VM_UFFD_FLAGS among the reasons not to share.
 */
TEST_F(memory, uffd_minor)
{
	int uffd = uffd_open(UFFD_FEATURE_MINOR_SHMEM), i;
	struct access a = {};
	unsigned long flags;
	pthread_t thread;

	if (uffd < 0)
		SKIP(return, "no minor faults of userfaultfd");
	fill(self->w, SIZE, 1);
	ASSERT_EQ(0, uffd_register(uffd, self->p + MB, 6 * MB,
				   UFFDIO_REGISTER_MODE_MINOR));
	for (i = 0; i < 4; i++) {
		a.p = self->p + MB + i * (MB + PAGE);
		ASSERT_EQ(0, in_child(child_reads, self->w));
		EXPECT_TRUE(uffd_silent(uffd));
		ASSERT_EQ(0, pthread_create(&thread, NULL, do_access, &a));
		ASSERT_EQ(a.p, uffd_next(uffd, &flags));
		EXPECT_TRUE(!!(flags & UFFD_PAGEFAULT_FLAG_MINOR));
		self->w[a.p - self->p] = 99;
		ASSERT_EQ(0, uffd_continue(uffd, (char *)a.p));
		ASSERT_EQ(0, pthread_join(thread, NULL));
		EXPECT_EQ(99, a.got);
		fill(self->w, SIZE, 1);
	}
	/* Outside of the range nothing is reported. */
	EXPECT_EQ(-1, check(self->p, MB, 1));
	EXPECT_TRUE(uffd_silent(uffd));
	close(uffd);
	EXPECT_EQ(-1, check(self->p, SIZE, 1));
}

static int child_writes(void *arg)
{
	fill(arg, SIZE, 1);
	return 0;
}

/* Writes of one process are held up, through one mapping, others' are not. */
TEST_F(memory, uffd_wp)
{
	int uffd = uffd_open(UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
			     UFFD_FEATURE_PAGEFAULT_FLAG_WP), i;
	struct access a = { .store = 88 };
	unsigned long flags;
	pthread_t thread;

	if (uffd < 0)
		SKIP(return, "no write protection of userfaultfd");
	fill(self->w, SIZE, 1);
	EXPECT_EQ(-1, check(self->p, SIZE, 1));
	ASSERT_EQ(0, uffd_register(uffd, self->p + MB, 6 * MB,
				   UFFDIO_REGISTER_MODE_WP));
	/* Pages must be mapped to be protected, as without sharing. */
	EXPECT_EQ(-1, check(self->p, SIZE, 1));
	ASSERT_EQ(0, uffd_wp(uffd, self->p + MB, 6 * MB, true));
	for (i = 0; i < 4; i++) {
		size_t at = MB + i * (MB + PAGE);

		a.p = self->p + at;
		fill(self->w, SIZE, 1);
		ASSERT_EQ(0, in_child(child_writes, self->w));
		ASSERT_EQ(0, in_child(child_writes, self->p));
		EXPECT_EQ(-1, check(self->p, SIZE, 1));
		EXPECT_TRUE(uffd_silent(uffd));
		/* A swapped page must not forget it. */
		if (i & 1)
			madvise(self->w, SIZE, MADV_PAGEOUT);
		ASSERT_EQ(0, pthread_create(&thread, NULL, do_access, &a));
		ASSERT_EQ(a.p, uffd_next(uffd, &flags));
		EXPECT_TRUE(!!(flags & UFFD_PAGEFAULT_FLAG_WP));
		EXPECT_EQ((char)(1 + at / PAGE), self->w[at]);
		ASSERT_EQ(0, uffd_wp(uffd, (char *)a.p, PAGE, false));
		ASSERT_EQ(0, pthread_join(thread, NULL));
		EXPECT_EQ(88, self->w[at]);
		fill(self->w, SIZE, 1);
	}
	self->p[PAGE] = self->p[PAGE];
	EXPECT_TRUE(uffd_silent(uffd));
	close(uffd);
	fill(self->p, SIZE, 1);
	EXPECT_EQ(-1, check(self->w, SIZE, 1));
}

/* --- pages move while processes count in them --- */

struct counters {
	int fd;
	char *inherited;
	const char *cgroup;	/* to live in, if any */
};

static int count(volatile int *stop, int nr, void *arg)
{
	struct counters *c = arg;
	char *p = c->inherited;

	if (c->cgroup && write_file(c->cgroup, "0"))
		return 2;
	if (nr & 1)
		p = map_at(c->fd, SIZE, 0, PROT_READ | PROT_WRITE);
	return p == MAP_FAILED ? 3 : crew_count(stop, nr, p, SIZE);
}

static int hire_counters(struct crew *crew, struct counters *c, int n)
{
	int i;

	if (crew_init(crew))
		return -1;
	for (i = 0; i < n; i++)
		if (crew_hire(crew, count, c))
			return -1;
	return 0;
}

static bool two_nodes(void)
{
	return access("/sys/devices/system/node/node1", F_OK) == 0;
}

static void move_all(char *p, int node)
{
	void *pages[NPAGES];
	int nodes[NPAGES], status[NPAGES];
	size_t i;

	for (i = 0; i < NPAGES; i++) {
		pages[i] = p + i * PAGE;
		nodes[i] = node;
	}
	syscall(SYS_move_pages, 0, NPAGES, pages, nodes, status,
		MPOL_MF_MOVE_ALL);
}

static void mbind_all(char *p, int node)
{
	unsigned long mask = 1UL << node;

	syscall(SYS_mbind, p, SIZE, MPOL_BIND, &mask, 64, MPOL_MF_MOVE_ALL);
	syscall(SYS_mbind, p, SIZE, MPOL_DEFAULT, NULL, 0, 0);
}

static void migrate_all(pid_t pid, int node)
{
	unsigned long from = 1UL << !node, to = 1UL << node;

	syscall(SYS_migrate_pages, pid, 64, &from, &to);
}

/* H3: with N mappers no write is lost when a page moves. */
TEST_F(memory, migrate)
{
	struct counters c = { .fd = self->fd, .inherited = self->p };
	long before = read_key("/proc/vmstat", "pgmigrate_success ");
	double end = now() + SECONDS;
	struct crew crew;
	int n = 0;

	if (!two_nodes())
		SKIP(return, "one memory node");
	ASSERT_EQ(0, hire_counters(&crew, &c, 4));
	while (now() < end) {
		move_all(self->w, n & 1);
		mbind_all(self->w, !(n & 1));
		migrate_all(crew.pid[n % 4], n & 1);
		n++;
	}
	EXPECT_EQ(0, crew_dismiss(&crew));
	EXPECT_LT(before, read_key("/proc/vmstat", "pgmigrate_success "));
}

/* The same where there is one node: a page at a time is taken out of use. */
TEST_F(memory, soft_offline)
{
	struct counters c = { .fd = self->fd, .inherited = self->p };
	struct crew crew;
	int i, moved = 0;

	ASSERT_EQ(0, hire_counters(&crew, &c, 4));
	for (i = 0; i < 8; i++) {
		usleep(100000);
		if (!madvise(self->w + i * (MB - PAGE), PAGE,
			     MADV_SOFT_OFFLINE))
			moved++;
	}
	ASSERT_EQ(0, crew_dismiss(&crew));
	if (!moved)
		SKIP(return, "no soft offlining");
}

/*
 * A page in a chunk that nobody covers can be moved, too, although several
 * private tables map it; guards __ptshare_rmap_walk().
 */
TEST_F(memory, soft_offline_tail)
{
	size_t at = SIZE - 3 * PAGE;
	struct servant s;
	char c;

	fill(self->w, SIZE, 1);
	EXPECT_EQ(-1, check(self->p, SIZE, 1));
	ASSERT_EQ(0, servant_start(&s, NULL, NULL));
	EXPECT_EQ(0, servant_load(&s, self->p + at, &c));
	EXPECT_EQ(0, servant_store(&s, self->w + at + 1, 5));
	if (madvise(self->w + at, PAGE, MADV_SOFT_OFFLINE)) {
		ASSERT_NE(EBUSY, errno);
		ASSERT_NE(EIO, errno);
		servant_end(&s);
		SKIP(return, "no soft offlining");
	}
	EXPECT_EQ(5, self->p[at + 1]);
	EXPECT_EQ(0, servant_store(&s, self->p + at + 1, 6));
	EXPECT_EQ(6, self->w[at + 1]);
	EXPECT_EQ(0, servant_end(&s));
	EXPECT_EQ(-1, check(self->p, SIZE, 1));
}

static int compactor(volatile int *stop, int nr, void *arg)
{
	while (!*stop)
		if (write_file("/proc/sys/vm/compact_memory", "1"))
			return 1;
	return 0;
}

/* Map, count, unmap: now and then nobody has it mapped. */
static int churn(volatile int *stop, int nr, void *arg)
{
	unsigned long n = 0;
	size_t i;

	while (!*stop) {
		char *p = map_at(*(int *)arg, SIZE, 0, PROT_READ | PROT_WRITE);

		if (p == MAP_FAILED)
			return 1;
		for (i = 0; i < SIZE; i += 5 * PAGE) {
			volatile unsigned long *w = (void *)(p + i + 8 * nr);

			if (*w != n)
				return 2;
			*w = n + 1;
		}
		n++;
		munmap(p, SIZE);
	}
	return 0;
}

/*
 * Compaction finds pages by their frame and not through a mapping, so owners
 * come and go while it has migration entries in their tables (H21): nobody
 * must wait for ever at one that was left behind.
 */
TEST_F(memory, compact_churn)
{
	struct crew crew;
	int i;

	munmap(self->p, SIZE);
	munmap(self->w, SIZE);
	if (access("/proc/sys/vm/compact_memory", W_OK))
		SKIP(return, "no compaction");
	ASSERT_EQ(0, crew_init(&crew));
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, crew_hire(&crew, churn, &self->fd));
	ASSERT_EQ(0, crew_hire(&crew, compactor, NULL));
	sleep(SECONDS);
	EXPECT_EQ(0, crew_dismiss(&crew));
}

/*
 * NUMA hinting makes PTEs of one process inaccessible: not those of a shared
 * table (H42); guards the numa case of ptshare_change_pmd().
 */
TEST_F(memory, numa_hinting)
{
	static const char sysctl[] = "/proc/sys/kernel/numa_balancing";
	static const char period[] =
		"/sys/kernel/debug/sched/numa_balancing/scan_period_min_ms";
	static const char delay[] =
		"/sys/kernel/debug/sched/numa_balancing/scan_delay_ms";
	struct counters c = { .fd = self->fd, .inherited = self->p };
	long updates = read_key("/proc/vmstat", "numa_pte_updates ");
	struct crew crew;
	long detached;

	if (!two_nodes() || write_file(sysctl, "1"))
		SKIP(return, "no NUMA balancing");
	write_file(period, "20");
	write_file(delay, "20");
	ASSERT_EQ(0, hire_counters(&crew, &c, 4));
	sleep(1);
	detached = pt_stat("stats/detach");
	sleep(SECONDS);
	EXPECT_EQ(detached, pt_stat("stats/detach"));
	EXPECT_EQ(0, crew_dismiss(&crew));
	EXPECT_LT(updates, read_key("/proc/vmstat", "numa_pte_updates "));
	write_file(period, "1000");
	write_file(delay, "1000");
	write_file(sysctl, "0");
}

/* --- huge pages --- */

/* No huge page takes a shared table away (H14), and none is lost in one. */
TEST_F(memory, collapse)
{
	char dir[64] = "", procs[96], reclaim[96];
	struct counters c = { .fd = self->fd, .inherited = self->p };
	double end = now() + SECONDS;
	struct crew crew;
	long huge = 0;
	size_t i;

	/* madvise() would not page out what others map. */
	if (meminfo_kb("SwapTotal") > 0 && make_cgroup(dir, sizeof(dir)))
		c.cgroup = procs;
	snprintf(procs, sizeof(procs), "%s/cgroup.procs", dir);
	snprintf(reclaim, sizeof(reclaim), "%s/memory.reclaim", dir);
	if (c.cgroup)
		ASSERT_EQ(0, write_file(procs, "0"));
	fill(self->w, SIZE, 0);
	for (i = 0; i < SIZE; i += PAGE)
		self->w[i] = 0;
	ASSERT_EQ(0, hire_counters(&crew, &c, 3));
	while (now() < end) {
		madvise(self->w, SIZE, MADV_COLLAPSE);
		if (meminfo_kb("ShmemHugePages") > huge)
			huge = meminfo_kb("ShmemHugePages");
		/* Swapped out in pieces, or split. */
		write_file(reclaim, "4M");
		sched_yield();
	}
	EXPECT_EQ(0, crew_dismiss(&crew));
	if (c.cgroup) {
		ASSERT_EQ(0, write_file(CGROUP "cgroup.procs", "0"));
		EXPECT_EQ(0, rmdir(dir));
	}
	fill(self->p, SIZE, 1);
	madvise(self->w, SIZE, MADV_COLLAPSE);
	EXPECT_EQ(-1, check(self->w, SIZE, 1));
	/* Out of the middle of what may be huge. */
	ASSERT_EQ(0, punch(self->fd, 3 * MB, PAGE));
	EXPECT_EQ(0, self->p[3 * MB]);
	EXPECT_EQ(0, self->w[3 * MB]);
	fill(self->w, SIZE, 1);
	EXPECT_EQ(-1, check(self->p, SIZE, 1));
	if (!huge)
		TH_LOG("no huge page was made");
}

#define SHMEM_ENABLED	"/sys/kernel/mm/transparent_hugepage/shmem_enabled"

/*
 * Mappings of huge pages by PMD entries beside shared tables that map the same
 * pages by PTEs, in either order (H46).
 */
TEST_F(memory, huge_mix)
{
	char *huge;
	int i;

	if (write_file(SHMEM_ENABLED, "advise"))
		SKIP(return, "no huge pages in shmem");
	for (i = 0; i < 4; i++) {
		huge = map_at(self->fd, SIZE, 0, PROT_READ | PROT_WRITE);
		ASSERT_NE(huge, MAP_FAILED);
		ASSERT_EQ(0, madvise(huge, SIZE, MADV_HUGEPAGE));
		fill(i & 1 ? self->p : huge, SIZE, i);
		EXPECT_EQ(-1, check(self->w, SIZE, i));
		EXPECT_EQ(-1, check(huge, SIZE, i));
		EXPECT_EQ(0, in_child(child_writes, self->p));
		EXPECT_EQ(-1, check(huge, SIZE, 1));
		/* Part of a huge page, in the table of all three. */
		ASSERT_EQ(0, punch(self->fd, 3 * MB, PAGE));
		EXPECT_EQ(0, huge[3 * MB]);
		EXPECT_EQ(0, self->w[3 * MB]);
		EXPECT_EQ(self->w[3 * MB + PAGE], huge[3 * MB + PAGE]);
		madvise(self->w, SIZE, MADV_PAGEOUT);
		ASSERT_EQ(0, madvise(huge, SIZE, MADV_NOHUGEPAGE));
		fill(huge, SIZE, i);
		EXPECT_EQ(-1, check(self->p, SIZE, i));
		munmap(huge, SIZE);
		ASSERT_EQ(0, ftruncate(self->fd, 0));
		ASSERT_EQ(0, ftruncate(self->fd, SIZE));
		EXPECT_EQ(0, self->p[SIZE - PAGE]);
	}
	/* Sharers remain what they are when huge pages come to all. */
	write_file(SHMEM_ENABLED, "always");
	fill(self->p, SIZE, 2);
	EXPECT_EQ(-1, check(self->w, SIZE, 2));
	huge = map_at(self->fd, SIZE, 0, PROT_READ);
	EXPECT_EQ(-1, check(huge, SIZE, 2));
	ASSERT_EQ(0, mprotect(self->p + 3 * MB, PAGE, PROT_READ));
	ASSERT_EQ(0, mprotect(self->p + 3 * MB, PAGE, PROT_READ | PROT_WRITE));
	EXPECT_EQ(-1, check(self->p, SIZE, 2));
	munmap(huge, SIZE);
	write_file(SHMEM_ENABLED, "never");
}

/* --- poison --- */

#define AT	(3 * MB)

/* Who does this is sent a SIGBUS as well, as if it had run into the page. */
static int poison(char *p)
{
	pt_sig = 0;
	if (!sigsetjmp(pt_env, 1))
		return madvise(p, PAGE, MADV_HWPOISON);
	return 0;
}

/*
 * A page whose frame has gone bad is lost to all, and only that page (H25,
 * H26): the entry that says so stands in the table of all sharers.
 */
TEST_F(memory, poison)
{
	struct servant s;
	char *q, c;

	fill(self->w, SIZE, 1);
	EXPECT_EQ(-1, check(self->p, SIZE, 1));
	ASSERT_EQ(0, servant_start(&s, NULL, NULL));
	if (poison(self->p + AT)) {
		servant_end(&s);
		SKIP(return, "no injection of memory failures");
	}
	EXPECT_EQ(SIGBUS, try_load(self->p + AT, NULL));
	EXPECT_EQ(SIGBUS, try_store(self->w + AT, 1));
	EXPECT_EQ(SIGBUS, servant_load(&s, self->p + AT, NULL));
	EXPECT_EQ(SIGBUS, servant_store(&s, self->w + AT, 1));
	EXPECT_EQ(0, servant_load(&s, self->p + AT + PAGE, &c));
	EXPECT_EQ((char)(2 + AT / PAGE), c);
	q = map_at(self->fd, SIZE, 0, PROT_READ);
	ASSERT_NE(q, MAP_FAILED);
	EXPECT_EQ(SIGBUS, try_load(q + AT, NULL));
	EXPECT_EQ(-1, check(q, AT, 1));
	/* Every way to detach a table that has such an entry. */
	ASSERT_EQ(0, mprotect(self->p + AT, PAGE, PROT_READ));
	ASSERT_EQ(0, madvise(self->w, SIZE, MADV_DONTNEED));
	ASSERT_EQ(0, munmap(q, AT + PAGE));
	EXPECT_EQ(SIGBUS, try_load(self->p + AT, NULL));
	EXPECT_EQ(SIGBUS, try_load(self->w + AT, NULL));
	munmap(q + AT + PAGE, SIZE - AT - PAGE);
	EXPECT_EQ(0, servant_end(&s));
	/* Out of the file with it, and there is a new one. */
	ASSERT_EQ(0, ftruncate(self->fd, 0));
	ASSERT_EQ(0, ftruncate(self->fd, SIZE));
	fill(self->w, SIZE, 1);
	EXPECT_EQ(-1, check(self->p, SIZE, 1));
}

/*
 * A hole takes the bad page away, for who maps the file from now on at least;
 * mappings that were there keep the mark that it left in their tables.
 */
TEST_F(memory, poison_punched)
{
	char *q, c = 1;

	fill(self->w, SIZE, 1);
	if (poison(self->w + AT))
		SKIP(return, "no injection of memory failures");
	ASSERT_EQ(0, punch(self->fd, AT, PAGE));
	q = map_at(self->fd, SIZE, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(q, MAP_FAILED);
	EXPECT_EQ(0, try_load(q + AT, &c));
	EXPECT_EQ(0, c);
	munmap(q, SIZE);
}

static volatile sig_atomic_t bus_code;

static void on_bus(int sig, siginfo_t *info, void *context)
{
	bus_code = info->si_code;
}

/* Wants to know at once, not when it touches the page. */
static int child_early(volatile int *stop, int nr, void *arg)
{
	struct sigaction sa = { .sa_sigaction = on_bus,
				.sa_flags = SA_SIGINFO };
	int i;

	sigaction(SIGBUS, &sa, NULL);
	prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0);
	if (check(arg, SIZE, 1) >= 0)
		return 1;
	*stop = 2;
	for (i = 0; i < 500 && !bus_code; i++)
		usleep(10000);
	return bus_code != BUS_MCEERR_AO;
}

/* Guards collect_procs_file(): it looks for mappings in i_mmap (H25). */
TEST_F(memory, poison_early)
{
	struct crew crew;
	int ret;

	fill(self->w, SIZE, 1);
	ASSERT_EQ(0, crew_init(&crew));
	ASSERT_EQ(0, crew_hire(&crew, child_early, self->p));
	while (*crew.stop != 2)
		usleep(1000);
	ret = poison(self->w + AT);
	ASSERT_EQ(ret ? 0 : SIGBUS, pt_sig);
	ASSERT_EQ(0, crew_dismiss(&crew) && !ret);
	if (ret)
		SKIP(return, "no injection of memory failures");
}

/* --- memory cgroups --- */

/* Pages are swapped out and in again by demand, under those who count. */
TEST_F(memory, memcg_reclaim)
{
	char dir[64], procs[96], reclaim[96];
	struct counters c = { self->fd, self->p, procs };
	double end = now() + SECONDS;
	struct crew crew;
	long out = read_key("/proc/vmstat", "pswpout ");

	if (meminfo_kb("SwapTotal") <= 0 || !make_cgroup(dir, sizeof(dir)))
		SKIP(return, "no swap, or no memory cgroups");
	snprintf(procs, sizeof(procs), "%s/cgroup.procs", dir);
	snprintf(reclaim, sizeof(reclaim), "%s/memory.reclaim", dir);
	ASSERT_EQ(0, hire_counters(&crew, &c, 3));
	while (now() < end)
		write_file(reclaim, "4M");
	EXPECT_EQ(0, crew_dismiss(&crew));
	EXPECT_LT(out, read_key("/proc/vmstat", "pswpout "));
	EXPECT_EQ(0, rmdir(dir));
}

static int child_in_cgroup(void *arg)
{
	struct counters *c = arg;

	if (write_file(c->cgroup, "0"))
		return 1;
	fill(c->inherited, SIZE, 1);
	return 0;
}

/*
 * Tables are charged to who touched first.  They outlive its cgroup, but do
 * not keep that for ever (H49).
 */
TEST_F(memory, memcg_gone)
{
	static const char stat[] = CGROUP "cgroup.stat";
	static const char key[] = "nr_dying_descendants ";
	long dying = read_key(stat, key);
	char dir[64], procs[96];
	struct counters c = { self->fd, self->p, procs };
	int i;

	if (!make_cgroup(dir, sizeof(dir)))
		SKIP(return, "no memory cgroups");
	snprintf(procs, sizeof(procs), "%s/cgroup.procs", dir);
	ASSERT_EQ(0, in_child(child_in_cgroup, &c));
	EXPECT_EQ(-1, check(self->w, SIZE, 1));
	for (i = 0; i < 100 && rmdir(dir); i++)
		usleep(20000);
	EXPECT_EQ(-1, access(dir, F_OK));
	EXPECT_EQ(-1, check(self->p, SIZE, 1));
	munmap(self->p, SIZE);
	munmap(self->w, SIZE);
	ASSERT_EQ(0, ftruncate(self->fd, 0));
	/* Empties the queues of pages that each CPU has. */
	write_file("/proc/sys/vm/compact_memory", "1");
	for (i = 0; i < 500 && read_key(stat, key) > dying; i++)
		usleep(20000);
	EXPECT_GE(dying, read_key(stat, key));
}

/* --- what it costs --- */

#define BIG	(1024 * MB)

static void touch_chunks(volatile char *p)
{
	size_t i;

	for (i = 0; i < BIG; i += CHUNK)
		(void)p[i];
}

static long vm_pte(void)
{
	return read_key("/proc/self/status", "VmPTE:");
}

/* One more process, one more mapping: how many KiB of page tables. */
static int child_cost(void *arg)
{
	int fd = *(int *)arg;
	long before = vm_pte();
	char *p = mmap(NULL, BIG, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		return 255;
	touch_chunks(p);
	return (vm_pte() - before) / 4;
}

static long page_tables(void)
{
	/* Collects what CPUs have counted. */
	read_key("/proc/sys/vm/stat_refresh", "");
	return meminfo_kb("PageTables");
}

/*
 * A process more costs a page for each GiB and a few of upper levels; and when
 * all have gone, nothing is left of any page table.
 */
TEST(page_table_cost)
{
	long tables, base, peak;
	int fd, i, round;
	char *p;

	pt_opt_in();
	base = page_tables();
	for (round = 0; round < 4; round++) {
		fd = new_memfd(BIG);
		ASSERT_GE(fd, 0);
		p = mmap(NULL, BIG, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		ASSERT_NE(p, MAP_FAILED);
		touch_chunks(p);
		tables = vm_pte();
		if (sharing()) {
			EXPECT_LE(tables, 200);
			for (i = 0; i < 4; i++)
				EXPECT_GE(1 + 4, in_child(child_cost, &fd));
		} else {
			EXPECT_LE(2048, tables);
		}
		peak = page_tables();
		EXPECT_LE(base + 2048, peak);
		EXPECT_GE(base + 2048 + 400, peak);
		munmap(p, BIG);
		close(fd);
	}
	for (i = 0; i < 250 && page_tables() > base + 200; i++)
		usleep(20000);
	EXPECT_GE(base + 200, page_tables());
}

/* All that CPUs were interrupted for flushes. */
static long tlb_interrupts(void)
{
	char line[4096], *p = line;
	long sum = 0;
	FILE *f = fopen("/proc/interrupts", "r");

	while (f && fgets(line, sizeof(line), f)) {
		p = strstr(line, "TLB:");
		if (!p)
			continue;
		for (p += 4; *p; ) {
			char *end;

			sum += strtol(p, &end, 10);
			if (end == p)
				break;
			p = end;
		}
	}
	if (f)
		fclose(f);
	return sum;
}

static volatile int over;

static void *spin(void *arg)
{
	pin_to_cpu(1);
	while (!over)
		;
	return NULL;
}

/* Unmapping hundreds of tables takes a flush or a few, not one each (H50). */
TEST(few_flushes)
{
	pthread_t thread;
	long before;
	char *p;
	int fd;

	pt_opt_in();
	fd = new_memfd(BIG);
	ASSERT_GE(fd, 0);
	p = mmap(NULL, BIG, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(p, MAP_FAILED);
	touch_chunks(p);
	pin_to_cpu(0);
	ASSERT_EQ(0, pthread_create(&thread, NULL, spin, NULL));
	usleep(50000);
	before = tlb_interrupts();
	ASSERT_EQ(0, munmap(p, BIG));
	EXPECT_GE(before + 40, tlb_interrupts());
	over = 1;
	pthread_join(thread, NULL);
	close(fd);
}

TEST_HARNESS_MAIN

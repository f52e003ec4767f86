// SPDX-License-Identifier: GPL-2.0
/*
 * Who maps how much: what /proc says of pages, and what the kernel lets one
 * process do to pages that others use, must not depend on whether they share
 * page tables.
 *
 * Each test knows which of its processes has touched which page, and so how
 * often each page is mapped; all expected numbers come from that.
 */
#include "pt_many.h"

#include <linux/mempolicy.h>
#include <pthread.h>

/* Four chunks, and half a one, which has private tables. */
#define SIZE	(9 * MB)
#define NPAGES	(SIZE / PAGE)
#define SIZE_KB	((long)(SIZE / KB))
#define SHARED_KB	((long)(8 * MB / KB))

#define RO	PROT_READ
#define RW	(PROT_READ | PROT_WRITE)

/* --- processes that map a part of the file and do what they are asked --- */

struct member {
	pid_t pid;
	int fd;
	char *p;
	size_t off, len;
	int to, from;
};

static long touch_all(struct member *m)
{
	size_t i;

	for (i = 0; i < m->len; i += PAGE)
		(void)*(volatile char *)(m->p + i);
	return 0;
}

static long write_all(struct member *m)
{
	fill(m->p, m->len, 1 + m->off / PAGE);
	return 0;
}

static void member_main(struct member *m, int in, int out)
{
	long (*fn)(struct member *m);
	long ret;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (write(out, &m->p, sizeof(m->p)) != sizeof(m->p))
		_exit(1);
	while (read(in, &fn, sizeof(fn)) == sizeof(fn) && fn) {
		ret = fn(m);
		if (write(out, &ret, sizeof(ret)) != sizeof(ret))
			break;
	}
	_exit(0);
}

/* @touch is run before anybody is told that the member is there. */
static int enter(struct member *m, int fd, size_t off, size_t len, int prot,
		 long (*touch)(struct member *m))
{
	int to[2], from[2];

	m->fd = fd;
	m->off = off;
	m->len = len;
	if (pipe2(to, O_CLOEXEC) || pipe2(from, O_CLOEXEC))
		return -1;
	m->pid = fork();
	if (!m->pid) {
		close(to[1]);
		close(from[0]);
		m->p = map_at(fd, len, off, prot);
		if (m->p == MAP_FAILED || (touch && touch(m)))
			_exit(1);
		member_main(m, to[0], from[1]);
	}
	close(to[0]);
	close(from[1]);
	m->to = to[1];
	m->from = from[0];
	return m->pid < 0 ||
	       read(m->from, &m->p, sizeof(m->p)) != sizeof(m->p);
}

/* Have it call a function; what that returns. */
static long ask(struct member *m, long (*fn)(struct member *m))
{
	long ret = -1;

	if (write(m->to, &fn, sizeof(fn)) != sizeof(fn) ||
	    read(m->from, &ret, sizeof(ret)) != sizeof(ret))
		return -1;
	return ret;
}

static int leave(struct member *m)
{
	long (*fn)(struct member *m) = NULL;
	int status = -1;

	/* To close the pipe is not enough: later members have copies. */
	if (write(m->to, &fn, sizeof(fn)) == sizeof(fn))
		waitpid(m->pid, &status, 0);
	close(m->to);
	close(m->from);
	m->pid = 0;
	return status;
}

/* --- what /proc says --- */

struct smaps {
	long rss, pss, pss_shmem, shared, private, referenced, ptshared;
};

static void smaps_line(struct smaps *s, const char *line)
{
	long kb = strchr(line, ':') ? atol(strchr(line, ':') + 1) : 0;

	if (!strncmp(line, "Rss:", 4))
		s->rss = kb;
	else if (!strncmp(line, "Pss:", 4))
		s->pss = kb;
	else if (!strncmp(line, "Pss_Shmem:", 10))
		s->pss_shmem = kb;
	else if (!strncmp(line, "Shared_Clean:", 13) ||
		 !strncmp(line, "Shared_Dirty:", 13))
		s->shared += kb;
	else if (!strncmp(line, "Private_Clean:", 14) ||
		 !strncmp(line, "Private_Dirty:", 14))
		s->private += kb;
	else if (!strncmp(line, "Referenced:", 11))
		s->referenced = kb;
	else if (!strncmp(line, "PtShared:", 9))
		s->ptshared = kb;
}

static FILE *proc_file(pid_t pid, const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	return fopen(path, "r");
}

/* Of the mapping that starts at @p; of all, without @p. */
static struct smaps smaps(pid_t pid, char *p)
{
	FILE *f = proc_file(pid, p ? "smaps" : "smaps_rollup");
	unsigned long from, to;
	struct smaps s = { .rss = -1 };
	bool here = !p;
	char line[512];

	while (f && fgets(line, sizeof(line), f)) {
		if (p && sscanf(line, "%lx-%lx ", &from, &to) == 2)
			here = from == (uintptr_t)p;
		else if (here)
			smaps_line(&s, line);
	}
	if (f)
		fclose(f);
	return s;
}

/* The number after "mapmax=" in numa_maps, 1 if it is not there; -1 if none. */
static long most_mapped(pid_t pid, char *p)
{
	FILE *f = proc_file(pid, "numa_maps");
	char line[1024], *s;
	long max = -1;

	while (f && fgets(line, sizeof(line), f)) {
		if (strtoul(line, NULL, 16) != (uintptr_t)p)
			continue;
		s = strstr(line, "mapmax=");
		max = s ? atol(s + 7) : 1;
	}
	if (f)
		fclose(f);
	return max;
}

#define PM_PRESENT	0x8000000000000000UL
#define PM_EXCLUSIVE	0x0100000000000000UL
#define PM_PFN		((1UL << 55) - 1)

static bool read_pagemap(struct member *m, unsigned long *entries)
{
	ssize_t len = m->len / PAGE * 8;
	char path[64];
	bool ok;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", m->pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	ok = fd >= 0 && pread(fd, entries, len,
			      (uintptr_t)m->p / PAGE * 8) == len;
	close(fd);
	return ok;
}

static long mapped_times(unsigned long pfn)
{
	static int fd = -1;
	long count;

	if (fd < 0)
		fd = open("/proc/kpagecount", O_RDONLY | O_CLOEXEC);
	return pread(fd, &count, 8, pfn * 8) == 8 ? count : -1;
}

/* --- comparing it with what must be --- */

#define MAX	16

static int nr_mappers(struct member *m, int n, size_t off)
{
	int i, count = 0;

	for (i = 0; i < n; i++)
		count += m[i].pid && off >= m[i].off &&
			 off < m[i].off + m[i].len;
	return count;
}

/* Pages for which pagemap or kpagecount disagree with the number of mappers. */
static int wrong_pages(struct member *all, int n, struct member *m)
{
	static unsigned long entry[NPAGES];
	int want, wrong = 0;
	bool alone;
	size_t i;

	if (!read_pagemap(m, entry))
		return -1;
	for (i = 0; i < m->len / PAGE; i++) {
		bool present = entry[i] & PM_PRESENT;
		bool exclusive = entry[i] & PM_EXCLUSIVE;
		long times = mapped_times(entry[i] & PM_PFN);

		want = nr_mappers(all, n, m->off + i * PAGE);
		alone = want == 1;
		if (present && exclusive == alone && times == want)
			continue;
		if (!wrong++)
			fprintf(stderr, "# page %zu, member %d, %d mappers: %#lx, count %ld\n",
				i, (int)(m - all), want, entry[i], times);
	}
	return wrong;
}

/* What smaps says wrong of a member; 0 if nothing. */
static int wrong_smaps(struct member *all, int n, struct member *m)
{
	struct smaps s = smaps(m->pid, m->p), sum = smaps(m->pid, NULL);
	long shared = 0, private = 0, max = 0;
	double pss = 0;
	size_t i;
	int wrong;

	for (i = 0; i < m->len; i += PAGE) {
		int count = nr_mappers(all, n, m->off + i);

		*(count > 1 ? &shared : &private) += PAGE / KB;
		pss += (double)PAGE / KB / count;
		if (count > max)
			max = count;
	}
	wrong = (s.rss != (long)(m->len / KB)) |
		(s.pss < pss - 2 || s.pss > pss + 2) << 1 |
		(s.shared != shared) << 2 | (s.private != private) << 3 |
		/* Some pages of the test's own, too. */
		(sum.pss_shmem < pss - 2 || sum.pss_shmem > pss + 64) << 4 |
		(sum.ptshared != s.ptshared) << 5 |
		(s.ptshared > s.rss) << 6 |
		(s.ptshared && !sharing()) << 7 |
		(most_mapped(m->pid, m->p) != max) << 8;
	if (wrong)
		fprintf(stderr, "# member %d: %#x: Rss %ld Pss %ld, not %.0f, Shared %ld, not %ld\n"
			"# Private %ld, not %ld, Pss_Shmem %ld PtShared %ld and %ld mapmax %ld, not %ld\n",
			(int)(m - all), wrong, s.rss, s.pss, pss, s.shared,
			shared, s.private, private, sum.pss_shmem, s.ptshared,
			sum.ptshared, most_mapped(m->pid, m->p), max);
	return wrong;
}

static int wrong(struct member *all, int n)
{
	int i, ret = 0;

	for (i = 0; i < n; i++) {
		if (!all[i].pid)
			continue;
		ret |= wrong_smaps(all, n, &all[i]);
		if (wrong_pages(all, n, &all[i]))
			ret |= 1 << 16;
	}
	return ret;
}

FIXTURE(account)
{
	int fd;
	struct member m[MAX];
};

FIXTURE_SETUP(account)
{
	pt_opt_in();
	pt_catch();
	memset(self->m, 0, sizeof(self->m));
	self->fd = new_memfd(SIZE);
	ASSERT_GE(self->fd, 0);
}

FIXTURE_TEARDOWN(account)
{
	int i;

	for (i = 0; i < MAX; i++)
		if (self->m[i].pid)
			EXPECT_EQ(0, leave(&self->m[i]));
	close(self->fd);
}

/* --- statistics --- */

/* One more at a time, and then one less. */
TEST_F(account, equals)
{
	struct member *m = self->m;
	int i;

	for (i = 0; i < 10; i++) {
		ASSERT_EQ(0, enter(&m[i], self->fd, 0, SIZE, RW, write_all));
		if (i > 2 && i < 8)
			continue;
		EXPECT_EQ(0, wrong(m, i + 1));
		EXPECT_EQ(sharing() ? SHARED_KB : 0,
			  smaps(m[i].pid, m[i].p).ptshared);
	}
	for (i = 9; i > 0; i--) {
		ASSERT_EQ(0, leave(&m[i]));
		if (i <= 2 || i >= 8)
			EXPECT_EQ(0, wrong(m, i));
	}
}

static long lock_all(struct member *m)
{
	return mlock(m->p, m->len);
}

/* Both classes, a locked mapping, and such as begin and end inside chunks. */
TEST_F(account, mixed)
{
	struct member *m = self->m;
	int i;

	ASSERT_EQ(0, enter(&m[0], self->fd, 0, SIZE, RW, write_all));
	ASSERT_EQ(0, enter(&m[1], self->fd, 0, SIZE, RO, touch_all));
	EXPECT_EQ(0, wrong(m, 2));
	ASSERT_EQ(0, enter(&m[2], self->fd, 0, SIZE, RO, touch_all));
	ASSERT_EQ(0, enter(&m[3], self->fd, MB, 6 * MB, RW, touch_all));
	EXPECT_EQ(0, wrong(m, 4));
	ASSERT_EQ(0, enter(&m[4], self->fd, 0, SIZE, RW, lock_all));
	EXPECT_EQ(0, wrong(m, 5));
	ASSERT_EQ(0, enter(&m[5], self->fd, CHUNK + 5 * PAGE, 5 * MB, RO,
			   touch_all));
	ASSERT_EQ(0, enter(&m[6], self->fd, MB, 64 * PAGE, RW, touch_all));
	EXPECT_EQ(0, wrong(m, 7));
	for (i = 0; i < 6; i++) {
		ASSERT_EQ(0, leave(&m[i]));
		EXPECT_EQ(0, wrong(m, 7));
	}
}

/*
 * The table of a class that nobody has attached any more still maps its pages
 * in the owner's window: the last one to map them is alone nevertheless.
 */
TEST_F(account, alone)
{
	struct member *m = self->m;

	ASSERT_EQ(0, enter(&m[0], self->fd, 0, SIZE, RW, write_all));
	ASSERT_EQ(0, enter(&m[1], self->fd, 0, SIZE, RO, touch_all));
	ASSERT_EQ(0, leave(&m[0]));
	EXPECT_EQ(0, wrong(m, 2));
	/* And if the last one does not share, but somebody keeps the owner. */
	ASSERT_EQ(0, enter(&m[2], self->fd, 0, SIZE, RW, lock_all));
	ASSERT_EQ(0, enter(&m[3], self->fd, 0, SIZE, RW, NULL));
	ASSERT_EQ(0, leave(&m[1]));
	m[3].len = 0;		/* has touched nothing */
	EXPECT_EQ(0, wrong_pages(m, 4, &m[2]));
	EXPECT_EQ(0, wrong_smaps(m, 4, &m[2]));
}

static long fork_and_touch(struct member *m)
{
	pid_t pid = fork();
	int status;

	if (!pid)
		_exit(touch_all(m));
	waitpid(pid, &status, 0);
	return status;
}

/* Away to another address, and back. */
static int move(struct member *m)
{
	char *q = map_at(m->fd, m->len, m->off, RO);
	int flags = MREMAP_MAYMOVE | MREMAP_FIXED;

	return q == MAP_FAILED ||
	       mremap(m->p, m->len, m->len, flags, q) != q ||
	       mremap(q, m->len, m->len, flags, m->p) != m->p;
}

/* A page out of the middle of a chunk, and in again. */
static int cut(struct member *m)
{
	return munmap(m->p + MB, PAGE) ||
	       mmap(m->p + MB, PAGE, RW, MAP_SHARED | MAP_FIXED, m->fd,
		    m->off + MB) != m->p + MB;
}

/* Everything that takes tables out of page tables; then all in again. */
static long stir(struct member *m)
{
	char *p = m->p;
	int i;

	for (i = 0; i < 3; i++)
		if (mprotect(p, m->len, RO) || touch_all(m) ||
		    mprotect(p, m->len, RW) || touch_all(m) ||
		    mprotect(p + MB, 5 * MB, RO) || touch_all(m) ||
		    mprotect(p + MB, 5 * MB, RW) || touch_all(m) ||
		    madvise(p + CHUNK, CHUNK, MADV_DONTNEED) || touch_all(m) ||
		    madvise(p + MB, CHUNK, MADV_DONTNEED) || touch_all(m) ||
		    mlock(p + 3 * MB, MB) || munlock(p + 3 * MB, MB) ||
		    touch_all(m) || fork_and_touch(m) || move(m) ||
		    touch_all(m) || cut(m) || touch_all(m))
			return 1;
	return 0;
}

/* What is attached and detached in whatever way is counted right. */
TEST_F(account, stirred)
{
	struct member *m = self->m;
	int i;

	for (i = 0; i < 3; i++)
		ASSERT_EQ(0, enter(&m[i], self->fd, 0, SIZE, RW, write_all));
	EXPECT_EQ(0, ask(&m[1], stir));
	EXPECT_EQ(0, wrong(m, 3));
	EXPECT_EQ(0, ask(&m[2], stir));
	ASSERT_EQ(0, leave(&m[0]));
	EXPECT_EQ(0, wrong(m, 3));
	ASSERT_EQ(0, leave(&m[1]));
	EXPECT_EQ(0, wrong(m, 3));
}

static pid_t child;

static long fork_child(struct member *m)
{
	child = fork();
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		touch_all(m);
		raise(SIGSTOP);
		_exit(0);
	}
	if (waitpid(child, NULL, WUNTRACED) != child)
		return -1;
	return child;
}

static long kill_child(struct member *m)
{
	kill(child, SIGKILL);
	return waitpid(child, NULL, 0) != child;
}

/* A child counts for one, too, and it inherits tables. */
TEST_F(account, fork)
{
	struct member *m = self->m;

	ASSERT_EQ(0, enter(&m[0], self->fd, 0, SIZE, RW, write_all));
	m[1] = m[0];
	m[1].pid = ask(&m[0], fork_child);
	ASSERT_LT(0, m[1].pid);
	EXPECT_EQ(0, wrong(m, 2));
	m[1].pid = 0;
	EXPECT_EQ(0, ask(&m[0], kill_child));
	EXPECT_EQ(0, wrong(m, 2));
}

#define SHMEM_ENABLED	"/sys/kernel/mm/transparent_hugepage/shmem_enabled"

static long map_huge(struct member *m)
{
	return madvise(m->p, m->len, MADV_HUGEPAGE) || write_all(m);
}

/*
 * Parts of huge pages in shared tables, beside a mapping of whole ones.  A huge
 * page that one process maps by PTEs is its own again.
 */
TEST_F(account, huge)
{
	long before = meminfo_kb("ShmemHugePages");
	struct member *m = self->m;
	int i;

	if (write_file(SHMEM_ENABLED, "advise"))
		SKIP(return, "no huge pages in shmem");
	ASSERT_EQ(0, enter(&m[0], self->fd, 0, SIZE, RW, map_huge));
	write_file(SHMEM_ENABLED, "never");
	if (meminfo_kb("ShmemHugePages") <= before)
		SKIP(return, "no huge page was made");
	for (i = 1; i < 4; i++) {
		ASSERT_EQ(0, enter(&m[i], self->fd, 0, SIZE, RW, touch_all));
		EXPECT_EQ(0, wrong(m, i + 1));
	}
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, leave(&m[i]));
		EXPECT_EQ(0, wrong(m, 4));
	}
}

/* --- what one process may do to pages --- */

/* How many pages of the file are in memory; the mapping touches none. */
static long resident(int fd)
{
	unsigned char vec[NPAGES];
	char *p = map_at(fd, SIZE, 0, RO);
	long n = 0;
	size_t i;

	if (p == MAP_FAILED || mincore(p, SIZE, vec))
		return -1;
	for (i = 0; i < NPAGES; i++)
		n += vec[i] & 1;
	munmap(p, SIZE);
	return n;
}

static long page_out(struct member *m)
{
	return madvise(m->p, m->len, MADV_PAGEOUT);
}

static long make_cold(struct member *m)
{
	return madvise(m->p, m->len, MADV_COLD);
}

/* madvise() leaves alone what others map, and only that. */
TEST_F(account, madvise)
{
	struct member *m = self->m;
	int i;

	if (meminfo_kb("SwapTotal") <= 0)
		SKIP(return, "no swap");
	/* Of one class, one with the other, which then remains. */
	ASSERT_EQ(0, enter(&m[0], self->fd, 0, SIZE, RW, write_all));
	ASSERT_EQ(0, enter(&m[1], self->fd, 0, SIZE, RW, touch_all));
	EXPECT_EQ(SIZE_KB, smaps(m[1].pid, m[1].p).referenced);
	for (i = 1; i >= 0; i--) {
		EXPECT_EQ(0, ask(&m[0], make_cold));
		EXPECT_EQ(SIZE_KB, smaps(m[0].pid, m[0].p).referenced);
		EXPECT_EQ(0, ask(&m[0], page_out));
		EXPECT_EQ((long)NPAGES, resident(self->fd));
		if (i)
			ASSERT_EQ(0, enter(&m[2], self->fd, 0, SIZE, RO,
					   touch_all));
		ASSERT_EQ(0, leave(&m[1 + !i]));
	}
	EXPECT_EQ(0, ask(&m[0], make_cold));
	/* Some may wait in a CPU's queue for the LRU. */
	EXPECT_GT(SIZE_KB / 4, smaps(m[0].pid, m[0].p).referenced);
	EXPECT_EQ(0, ask(&m[0], page_out));
	EXPECT_GT((long)NPAGES / 4, resident(self->fd));
}

static bool two_nodes(void)
{
	return access("/sys/devices/system/node/node1", F_OK) == 0;
}

static long move_to(struct member *m, int node, int flags, int *status)
{
	void *pages[NPAGES];
	int nodes[NPAGES];
	size_t i;

	for (i = 0; i < NPAGES; i++) {
		pages[i] = m->p + i * PAGE;
		nodes[i] = node;
	}
	return syscall(SYS_move_pages, 0, NPAGES, pages,
		       node < 0 ? NULL : nodes, status, flags);
}

/* The node on which all pages are, or -1; or an error of all. */
static long all_on(struct member *m)
{
	int status[NPAGES];
	size_t i;

	if (touch_all(m) || move_to(m, -1, 0, status))
		return -1000;
	for (i = 1; i < NPAGES; i++)
		if (status[i] != status[0])
			return -1;
	return status[0];
}

/* To the other node than that of the first page: 0, an error, or mixed. */
static long try_move(struct member *m)
{
	int status[NPAGES];
	size_t i;

	if (move_to(m, -1, 0, status))
		return -1000;
	if (move_to(m, !status[0], MPOL_MF_MOVE, status) < 0)
		return -errno;
	for (i = 1; i < NPAGES; i++)
		if (status[i] != status[0])
			return -1000;
	return status[0] < 0 ? status[0] : 0;
}

static long try_mbind(struct member *m)
{
	unsigned long mask = 1UL << !all_on(m);

	if (syscall(SYS_mbind, m->p, m->len, MPOL_BIND, &mask, 64,
		    MPOL_MF_MOVE) ||
	    syscall(SYS_mbind, m->p, m->len, MPOL_DEFAULT, NULL, 0, 0))
		return -errno;
	return 0;
}

static long try_migrate(struct member *m)
{
	long node = all_on(m);
	unsigned long from = 1UL << node, to = 1UL << !node;

	/* Without CAP_SYS_NICE. */
	if (setresuid(65534, 65534, 65534))
		return -1000;
	return syscall(SYS_migrate_pages, 0, 64, &from, &to) < 0 ? -errno : 0;
}

/* What others use stays where it is; a lone sharer's pages move. */
TEST_F(account, migrate)
{
	static const char balancing[] = "/proc/sys/kernel/numa_balancing";
	long was = read_key(balancing, "");
	struct member *m = self->m;
	long node;

	if (!two_nodes())
		SKIP(return, "one memory node");
	/* It would move pages back. */
	write_file(balancing, "0");
	ASSERT_EQ(0, enter(&m[0], self->fd, 0, SIZE, RW, write_all));
	ASSERT_EQ(0, enter(&m[1], self->fd, 0, SIZE, RW, touch_all));
	node = ask(&m[0], all_on);
	ASSERT_LE(0, node);
	EXPECT_EQ(-EACCES, ask(&m[0], try_move));
	EXPECT_EQ(node, ask(&m[0], all_on));
	EXPECT_EQ(0, ask(&m[1], try_mbind));
	EXPECT_EQ(node, ask(&m[0], all_on));
	EXPECT_LE(0, ask(&m[1], try_migrate));
	EXPECT_EQ(node, ask(&m[0], all_on));
	/* One of each class; then the one that made the tables alone. */
	ASSERT_EQ(0, enter(&m[2], self->fd, 0, SIZE, RO, touch_all));
	ASSERT_EQ(0, leave(&m[1]));
	EXPECT_EQ(-EACCES, ask(&m[2], try_move));
	EXPECT_EQ(0, ask(&m[0], try_mbind));
	EXPECT_EQ(node, ask(&m[0], all_on));
	ASSERT_EQ(0, leave(&m[2]));
	EXPECT_EQ(0, ask(&m[0], try_move));
	EXPECT_EQ(!node, ask(&m[0], all_on));
	EXPECT_EQ(0, ask(&m[0], try_mbind));
	EXPECT_EQ(node, ask(&m[0], all_on));
	EXPECT_EQ(0, ask(&m[0], try_migrate));
	EXPECT_EQ(!node, ask(&m[0], all_on));
	write_file(balancing, was > 0 ? "1" : "0");
}

/* --- the OOM killer --- */

#define BIG	(64 * MB)

static long oom_score(pid_t pid)
{
	FILE *f = proc_file(pid, "oom_score");
	long score = -1;

	if (f && fscanf(f, "%ld", &score) != 1)
		score = -1;
	if (f)
		fclose(f);
	return score;
}

/*
 * What is mapped through shared tables counts, if only for one's share of it.
 * Without sharing each counts the whole.
 */
TEST_F(account, oom_score)
{
	long total = meminfo_kb("MemTotal") + meminfo_kb("SwapTotal");
	double whole = 2000.0 / 3 * (BIG / KB) / total;
	struct member *m = self->m;
	long score, base;
	int i;

	ASSERT_EQ(0, ftruncate(self->fd, BIG));
	ASSERT_EQ(0, enter(&m[0], self->fd, 0, BIG, RW, NULL));
	base = oom_score(m[0].pid);
	ASSERT_LE(0, base);
	for (i = 1; i < 4; i++) {
		ASSERT_EQ(0, enter(&m[i], self->fd, 0, BIG, RW, touch_all));
		score = oom_score(m[i].pid) - base;
		/* The first shares, too, but its page tables are empty. */
		EXPECT_LE((long)(whole / (i + 1) * 0.9), score);
		EXPECT_GE((long)(whole * 1.1) + 1, score);
	}
	for (i = 0; i < 3; i++)
		ASSERT_EQ(0, leave(&m[i]));
	score = oom_score(m[3].pid) - base;
	EXPECT_LE((long)(whole * 0.9), score);
	EXPECT_GE((long)(whole * 1.1) + 1, score);
}

/* VMAs come and go, and with them owners, while their scores are read. */
static int map_and_unmap(volatile int *stop, int nr, void *arg)
{
	int fd = *(int *)arg, i;
	char *p;

	while (!*stop) {
		p = map_at(fd, SIZE, 0, RW);
		if (p == MAP_FAILED)
			return 1;
		for (i = 1; i < 4; i++) {
			p[i * CHUNK] = 1;
			/* Split, merge; leave sharing and join again. */
			if (mprotect(p + i * MB, MB, RO) ||
			    mprotect(p + i * MB, MB, RW) ||
			    mlock(p, SIZE) || munlock(p, SIZE))
				return 2;
		}
		munmap(p, SIZE);
	}
	return 0;
}

TEST_F(account, oom_score_race)
{
	double end = now() + 3;
	struct crew crew;
	long bad = 0;
	int i;

	ASSERT_EQ(0, crew_init(&crew));
	for (i = 0; i < 3; i++)
		ASSERT_EQ(0, crew_hire(&crew, map_and_unmap, &self->fd));
	while (now() < end)
		for (i = 0; i < 3; i++)
			bad += oom_score(crew.pid[i]) < 0;
	EXPECT_EQ(0, crew_dismiss(&crew));
	EXPECT_EQ(0, bad);
}

/* Pages are looked at while their tables and owners come and go. */
TEST_F(account, proc_race)
{
	struct member *m = self->m;
	static unsigned long entry[NPAGES];
	double end = now() + 3;
	struct crew crew;
	int i, n = 0;

	ASSERT_EQ(0, enter(&m[0], self->fd, 0, SIZE, RW, lock_all));
	ASSERT_EQ(0, crew_init(&crew));
	for (i = 0; i < 3; i++)
		ASSERT_EQ(0, crew_hire(&crew, map_and_unmap, &self->fd));
	while (now() < end) {
		struct smaps s = smaps(m[0].pid, m[0].p);
		long count;

		EXPECT_EQ(SIZE_KB, s.rss);
		EXPECT_EQ(SIZE_KB, s.shared + s.private);
		smaps(crew.pid[n++ % 3], NULL);
		ASSERT_TRUE(read_pagemap(&m[0], entry));
		for (i = 0; i < (int)NPAGES; i += 13) {
			count = mapped_times(entry[i] & PM_PFN);
			/* A snapshot of three processes and dying owners. */
			EXPECT_TRUE(count >= 0 && count <= 16) {
				TH_LOG("kpagecount %ld", count);
			}
		}
	}
	EXPECT_EQ(0, crew_dismiss(&crew));
	EXPECT_EQ(0, wrong(m, 1));
}

/* --- memory cgroups --- */

static char cgroup[64];

static long cgroup_key(const char *file, const char *key)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", cgroup, file);
	return read_key(path, key);
}

static long enter_and_write(struct member *m)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
	return write_file(path, "0") || write_all(m);
}

static long check_all(struct member *m)
{
	return check(m->p, m->len, 1 + m->off / PAGE) >= 0;
}

/*
 * Shared memory is charged to who touches it first, whoever owns the table, and
 * kept within its limit.
 */
TEST_F(account, memcg)
{
	struct member *m = self->m;
	char path[128];
	int i;

	if (meminfo_kb("SwapTotal") <= 0 || !make_cgroup(cgroup, sizeof(cgroup)))
		SKIP(return, "no swap, or no memory cgroups");
	/* A sharer outside of it makes the owner, and some of the tables. */
	ASSERT_EQ(0, enter(&m[0], self->fd, 0, SIZE, RW, NULL));
	ASSERT_EQ(0, enter(&m[1], self->fd, 0, SIZE, RW, enter_and_write));
	EXPECT_EQ((long)SIZE, cgroup_key("memory.stat", "shmem "));
	EXPECT_LE((long)SIZE, cgroup_key("memory.current", ""));
	/* Who comes later pays nothing, and nothing moves. */
	EXPECT_EQ(0, ask(&m[0], check_all));
	EXPECT_EQ((long)SIZE, cgroup_key("memory.stat", "shmem "));
	ASSERT_EQ(0, leave(&m[1]));
	EXPECT_EQ((long)SIZE, cgroup_key("memory.stat", "shmem "));
	ASSERT_EQ(0, ftruncate(self->fd, 0));
	ASSERT_EQ(0, ftruncate(self->fd, SIZE));

	/* Half of it has room. */
	snprintf(path, sizeof(path), "%s/memory.max", cgroup);
	ASSERT_EQ(0, write_file(path, "6M"));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, enter(&m[1], self->fd, 0, SIZE, RW,
				   enter_and_write));
		EXPECT_GE((long)(6 * MB), cgroup_key("memory.stat", "shmem "));
		EXPECT_LE((long)(3 * MB), cgroup_key("memory.stat", "shmem "));
		EXPECT_GE((long)(6 * MB), cgroup_key("memory.current", ""));
		EXPECT_EQ(0, ask(&m[1], check_all));
		ASSERT_EQ(0, leave(&m[1]));
	}
	EXPECT_EQ(0, ask(&m[0], check_all));
	ASSERT_EQ(0, leave(&m[0]));
	ASSERT_EQ(0, ftruncate(self->fd, 0));
	for (i = 0; i < 100 && rmdir(cgroup); i++)
		usleep(20000);
	EXPECT_NE(0, access(cgroup, F_OK));
}

TEST_HARNESS_MAIN

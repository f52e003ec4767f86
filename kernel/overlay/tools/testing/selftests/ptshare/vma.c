// SPDX-License-Identifier: GPL-2.0
/*
 * Every operation on a VMA does to a sharer what it does to any mapping, and
 * leaves /proc/PID/maps in the shape that it has without sharing.
 */
#include "pt_util.h"

#include <poll.h>
#include <pthread.h>

#define SIZE	(16 * MB)

FIXTURE(vma)
{
	int fd;
	char *p;	/* under test */
	char *w;	/* witness: another mapping of the same memory */
};

FIXTURE_SETUP(vma)
{
	pt_opt_in();
	pt_catch();
	self->fd = new_memfd(SIZE);
	ASSERT_GE(self->fd, 0);
	self->p = map_at(self->fd, SIZE, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(self->p, MAP_FAILED);
	self->w = map_at(self->fd, SIZE, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(self->w, MAP_FAILED);
	fill(self->w, SIZE, 1);
	ASSERT_EQ(-1, check(self->p, SIZE, 1));
}

FIXTURE_TEARDOWN(vma)
{
	EXPECT_EQ(-1, check(self->w, SIZE, 1));
	munmap(self->p, SIZE);
	munmap(self->w, SIZE);
	close(self->fd);
}

static const struct {
	size_t off, len;
} cuts[] = {
	{ 4 * MB, 2 * MB },		/* chunks */
	{ 4 * MB + PAGE, 2 * MB },	/* parts of two chunks */
	{ 5 * MB, PAGE },		/* a page in the middle of a chunk */
	{ 0, PAGE },			/* head */
	{ SIZE - PAGE, PAGE },		/* tail */
	{ 3 * MB, 9 * MB },		/* part, chunks, part */
	{ 0, SIZE },
};

#define for_each_cut(i)	for (i = 0; i < (int)ARRAY_SIZE(cuts); i++)

static int nr_parts(int i)
{
	return 1 + (cuts[i].off != 0) + (cuts[i].off + cuts[i].len != SIZE);
}

TEST_F(vma, mprotect_readonly)
{
	int i;

	for_each_cut(i) {
		char *a = self->p + cuts[i].off;
		size_t len = cuts[i].len;

		ASSERT_EQ(0, mprotect(a, len, PROT_READ));
		EXPECT_EQ(nr_parts(i), count_vmas(self->p, SIZE));
		EXPECT_EQ(SIGSEGV, try_store(a, 0));
		EXPECT_EQ(SIGSEGV, try_store(a + len - 1, 0));
		EXPECT_EQ(-1, check(self->p, SIZE, 1));
		if (cuts[i].off) {
			EXPECT_EQ(0, try_store(a - 1, 0));
		}
		ASSERT_EQ(0, mprotect(a, len, PROT_READ | PROT_WRITE));
		EXPECT_EQ(1, count_vmas(self->p, SIZE));
		EXPECT_EQ(0, try_store(a + 1, 0));
		EXPECT_EQ(-1, check(self->p, SIZE, 1));
	}
}

/* Loads by the kernel with FOLL_FORCE must not open it to user mode. */
TEST_F(vma, mprotect_none)
{
	int mem = open("/proc/self/mem", O_RDWR), i;
	char c;

	ASSERT_GE(mem, 0);
	for_each_cut(i) {
		char *a = self->p + cuts[i].off;
		size_t len = cuts[i].len;

		ASSERT_EQ(0, mprotect(a, len, PROT_NONE));
		EXPECT_EQ(nr_parts(i), count_vmas(self->p, SIZE));
		EXPECT_EQ(SIGSEGV, try_load(a, NULL));
		EXPECT_EQ(1, pread(mem, &c, 1, (uintptr_t)a));
		EXPECT_EQ(self->w[cuts[i].off], c);
		EXPECT_EQ(SIGSEGV, try_load(a, NULL));
		EXPECT_EQ(SIGSEGV, try_load(a + len - 1, NULL));
		ASSERT_EQ(0, mprotect(a, len, PROT_READ | PROT_WRITE));
		EXPECT_EQ(1, count_vmas(self->p, SIZE));
		EXPECT_EQ(-1, check(self->p, SIZE, 1));
	}
	close(mem);
}

/* A reservation that is opened bit by bit, as heaps do it. */
TEST_F(vma, grow_by_mprotect)
{
	long join = pt_stat("stats/join");
	size_t top;

	ASSERT_EQ(0, mprotect(self->p, SIZE, PROT_NONE));
	for (top = 0; top < SIZE; top += MB + PAGE) {
		size_t len = top + MB + PAGE > SIZE ? SIZE - top : MB + PAGE;

		ASSERT_EQ(0, mprotect(self->p + top, len,
				      PROT_READ | PROT_WRITE));
		EXPECT_EQ(-1, check(self->p, top + len, 1));
		EXPECT_EQ(top + len < SIZE ? 2 : 1,
			  count_vmas(self->p, SIZE));
		if (top + len < SIZE) {
			EXPECT_EQ(SIGSEGV, try_load(self->p + top + len, NULL));
		}
	}
	if (sharing())
		EXPECT_LE(pt_stat("stats/join") - join, 2);
}

TEST_F(vma, munmap_and_map_again)
{
	int i;

	for_each_cut(i) {
		char *a = self->p + cuts[i].off;
		size_t len = cuts[i].len;

		ASSERT_EQ(0, munmap(a, len));
		EXPECT_EQ(nr_parts(i) - 1, count_vmas(self->p, SIZE));
		EXPECT_EQ(SIGSEGV, try_load(a, NULL));
		EXPECT_EQ(SIGSEGV, try_load(a + len - 1, NULL));
		if (cuts[i].off) {
			EXPECT_EQ(-1, check(self->p, cuts[i].off, 1));
		}
		ASSERT_EQ(a, mmap(a, len, PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_FIXED, self->fd,
				  cuts[i].off));
		EXPECT_EQ(1, count_vmas(self->p, SIZE));
		EXPECT_EQ(-1, check(self->p, SIZE, 1));
	}
}

/* MAP_FIXED over a part, by something else, and back. */
TEST_F(vma, map_fixed_over)
{
	int i;

	for_each_cut(i) {
		char *a = self->p + cuts[i].off;
		size_t len = cuts[i].len;

		ASSERT_EQ(a, mmap(a, len, PROT_READ | PROT_WRITE, MAP_FIXED |
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
		EXPECT_EQ(0, a[0]);
		a[0] = 99;
		a[len - 1] = 99;
		if (cuts[i].off) {
			EXPECT_EQ(-1, check(self->p, cuts[i].off, 1));
		}
		ASSERT_EQ(a, mmap(a, len, PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_FIXED, self->fd,
				  cuts[i].off));
		EXPECT_EQ(-1, check(self->p, SIZE, 1));
	}
}

/*
 * Two mappings meet in the middle of a chunk, both with PTEs of their own
 * there; merged, they cover it.  A hole punched then is seen.
 */
TEST_F(vma, merge_covers_chunk)
{
	size_t mid = 5 * MB;

	ASSERT_EQ(0, munmap(self->p, SIZE));
	ASSERT_EQ(self->p, mmap(self->p, mid, PROT_READ | PROT_WRITE,
				MAP_SHARED | MAP_FIXED, self->fd, 0));
	EXPECT_EQ(-1, check(self->p, mid, 1));
	/* A gap of a page keeps them apart at first. */
	ASSERT_EQ(self->p + mid + PAGE,
		  mmap(self->p + mid + PAGE, SIZE - mid - PAGE,
		       PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		       self->fd, mid + PAGE));
	EXPECT_EQ(self->p[mid + PAGE], self->w[mid + PAGE]);
	EXPECT_EQ(2, count_vmas(self->p, SIZE));
	ASSERT_EQ(self->p + mid, mmap(self->p + mid, PAGE,
				      PROT_READ | PROT_WRITE,
				      MAP_SHARED | MAP_FIXED, self->fd, mid));
	EXPECT_EQ(1, count_vmas(self->p, SIZE));
	EXPECT_EQ(-1, check(self->p, SIZE, 1));
	ASSERT_EQ(0, fallocate(self->fd, FALLOC_FL_PUNCH_HOLE |
			       FALLOC_FL_KEEP_SIZE, 4 * MB, 2 * MB));
	EXPECT_EQ(0, self->p[mid - PAGE]);
	EXPECT_EQ(0, self->p[mid]);
	EXPECT_EQ(0, self->p[mid + PAGE]);
	fill(self->w, SIZE, 1);
	EXPECT_EQ(-1, check(self->p, SIZE, 1));
}

TEST_F(vma, mremap_move)
{
	int i;

	for_each_cut(i) {
		size_t off = cuts[i].off, len = cuts[i].len;
		char *to = map_mod(self->fd, len, off, PROT_NONE,
				   off % CHUNK), *back;

		ASSERT_NE(to, MAP_FAILED);
		ASSERT_EQ(to, mremap(self->p + off, len, len,
				     MREMAP_MAYMOVE | MREMAP_FIXED, to));
		EXPECT_EQ(-1, check(to, len, 1 + off / PAGE));
		EXPECT_EQ(SIGSEGV, try_load(self->p + off, NULL));
		back = mremap(to, len, len, MREMAP_MAYMOVE | MREMAP_FIXED,
			      self->p + off);
		ASSERT_EQ(self->p + off, back);
		EXPECT_EQ(-1, check(self->p, SIZE, 1));
		EXPECT_EQ(1, count_vmas(self->p, SIZE));
	}
}

/* To an address that is not congruent: goes on unshared. */
TEST_F(vma, mremap_askew)
{
	char *to = map_mod(self->fd, SIZE, 0, PROT_NONE, 3 * PAGE);

	ASSERT_NE(to, MAP_FAILED);
	ASSERT_EQ(to, mremap(self->p, SIZE, SIZE,
			     MREMAP_MAYMOVE | MREMAP_FIXED, to));
	EXPECT_EQ(-1, check(to, SIZE, 1));
	to[7 * MB] = self->w[7 * MB];
	ASSERT_EQ(self->p, mremap(to, SIZE, SIZE,
				  MREMAP_MAYMOVE | MREMAP_FIXED, self->p));
	EXPECT_EQ(-1, check(self->p, SIZE, 1));
}

TEST_F(vma, mremap_dontunmap)
{
	char *to = mremap(self->p, SIZE, SIZE,
			  MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);

	ASSERT_NE(to, MAP_FAILED);
	EXPECT_EQ(-1, check(to, SIZE, 1));
	EXPECT_EQ(-1, check(self->p, SIZE, 1));
	munmap(to, SIZE);
}

/* The old way to map the same memory once more. */
TEST_F(vma, mremap_duplicate)
{
	char *to = mremap(self->p + 3 * MB, 0, 5 * MB, MREMAP_MAYMOVE);

	ASSERT_NE(to, MAP_FAILED);
	EXPECT_EQ(-1, check(to, 5 * MB, 1 + 3 * MB / PAGE));
	EXPECT_EQ(-1, check(self->p, SIZE, 1));
	munmap(to, 5 * MB);
}

TEST_F(vma, mremap_resize)
{
	size_t sizes[] = { SIZE - PAGE, 3 * MB, PAGE, 4 * MB, 5 * MB + PAGE,
			   SIZE }, cur = SIZE;
	int i;

	for (i = 0; i < 6; i++) {
		char *q = mremap(self->p, cur, sizes[i], 0);

		ASSERT_EQ(self->p, q);
		cur = sizes[i];
		EXPECT_EQ(-1, check(self->p, cur, 1));
		EXPECT_EQ(1, count_vmas(self->p, SIZE));
	}
}

/* mlock() leaves sharing for as long as it lasts. */
TEST_F(vma, mlock)
{
	unsigned char vec[SIZE / PAGE];
	int i;
	size_t j;

	for_each_cut(i) {
		char *a = self->p + cuts[i].off;
		size_t len = cuts[i].len;

		ASSERT_EQ(0, mlock(a, len));
		EXPECT_EQ(nr_parts(i), count_vmas(self->p, SIZE));
		EXPECT_EQ(0, madvise(self->w, SIZE, MADV_PAGEOUT));
		ASSERT_EQ(0, mincore(a, len, vec));
		for (j = 0; j < len / PAGE; j++)
			ASSERT_EQ(1, vec[j] & 1);
		EXPECT_EQ(-1, check(self->p, SIZE, 1));
		ASSERT_EQ(0, munlock(a, len));
		EXPECT_EQ(1, count_vmas(self->p, SIZE));
		EXPECT_EQ(-1, check(self->p, SIZE, 1));
	}
}

TEST_F(vma, madvise)
{
	static const int advice[] = { MADV_RANDOM, MADV_NORMAL, MADV_SEQUENTIAL,
		MADV_NORMAL, MADV_WILLNEED, MADV_DONTNEED, MADV_COLD,
		MADV_PAGEOUT, MADV_DONTFORK, MADV_DOFORK, MADV_DONTDUMP,
		MADV_DODUMP, MADV_POPULATE_READ, MADV_POPULATE_WRITE,
		MADV_NOHUGEPAGE };
	unsigned int n;
	int i;

	for_each_cut(i)
		for (n = 0; n < sizeof(advice) / sizeof(*advice); n++) {
			EXPECT_EQ(0, madvise(self->p + cuts[i].off,
					     cuts[i].len, advice[n])) {
				TH_LOG("advice %d: %s", advice[n],
				       strerror(errno));
			}
			EXPECT_EQ(-1, check(self->p, SIZE, 1));
		}
	EXPECT_EQ(1, count_vmas(self->p, SIZE));
}

TEST_F(vma, madvise_remove)
{
	ASSERT_EQ(0, madvise(self->p + MB, 6 * MB, MADV_REMOVE));
	EXPECT_EQ(0, self->p[MB]);
	EXPECT_EQ(0, self->w[5 * MB]);
	fill(self->w, SIZE, 1);
	EXPECT_EQ(-1, check(self->p, SIZE, 1));
}

/* --- policy of one range --- */

TEST_F(vma, advice_share)
{
	long n = pt_stat("sharers");

	if (n < 0) {
		EXPECT_EQ(-1, madvise(self->p, SIZE, MADV_PTSHARE));
		EXPECT_EQ(EINVAL, errno);
		SKIP(return, "no ptshare in this kernel");
	}
	ASSERT_EQ(0, madvise(self->p, SIZE, MADV_NOPTSHARE));
	EXPECT_EQ(n - (sharing() ? 1 : 0), pt_stat("sharers"));
	EXPECT_EQ(-1, check(self->p, SIZE, 1));
	ASSERT_EQ(0, madvise(self->p, SIZE, MADV_PTSHARE));
	if (sharing())
		EXPECT_EQ(n, pt_stat("sharers"));
	EXPECT_EQ(-1, check(self->p, SIZE, 1));
	/* In the middle, and not at chunk boundaries. */
	ASSERT_EQ(0, madvise(self->p + 3 * MB, 5 * MB, MADV_NOPTSHARE));
	EXPECT_EQ(3, count_vmas(self->p, SIZE));
	EXPECT_EQ(-1, check(self->p, SIZE, 1));
	ASSERT_EQ(0, madvise(self->p + 3 * MB, 5 * MB, MADV_PTSHARE));
	EXPECT_EQ(1, count_vmas(self->p, SIZE));
	EXPECT_EQ(-1, check(self->p, SIZE, 1));
}

/* --- userfaultfd --- */

struct toucher {
	volatile char *p;
	char got;
};

static void *touch(void *arg)
{
	struct toucher *t = arg;

	t->got = *t->p;
	return NULL;
}

/*
 * A missing page is reported to who registered, although others map the same
 * file without.
 */
TEST_F(vma, uffd_missing)
{
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)self->p + MB, .len = 6 * MB },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	struct toucher t = { .p = self->p + 5 * MB };
	static char page[PAGE] = "served";
	struct uffdio_copy copy = {
		.dst = (uintptr_t)self->p + 5 * MB,
		.src = (uintptr_t)page, .len = PAGE,
	};
	struct pollfd pfd = { .events = POLLIN };
	struct uffd_msg msg;
	pthread_t thread;

	pfd.fd = uffd_open(0);
	if (pfd.fd < 0)
		SKIP(return, "no userfaultfd");
	ASSERT_EQ(0, ioctl(pfd.fd, UFFDIO_REGISTER, &reg));
	ASSERT_EQ(0, fallocate(self->fd, FALLOC_FL_PUNCH_HOLE |
			       FALLOC_FL_KEEP_SIZE, 4 * MB, 2 * MB));
	ASSERT_EQ(0, pthread_create(&thread, NULL, touch, &t));
	ASSERT_EQ(1, poll(&pfd, 1, 20000));
	ASSERT_EQ((ssize_t)sizeof(msg), read(pfd.fd, &msg, sizeof(msg)));
	EXPECT_EQ(UFFD_EVENT_PAGEFAULT, msg.event);
	EXPECT_EQ((uintptr_t)self->p + 5 * MB, msg.arg.pagefault.address);
	ASSERT_EQ(0, ioctl(pfd.fd, UFFDIO_COPY, &copy));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ('s', t.got);
	EXPECT_EQ('s', self->w[5 * MB]);
	ASSERT_EQ(0, ioctl(pfd.fd, UFFDIO_UNREGISTER, &reg.range));
	close(pfd.fd);
	fill(self->w, SIZE, 1);
	EXPECT_EQ(-1, check(self->p, SIZE, 1));
	EXPECT_EQ(1, count_vmas(self->p, SIZE));
}

/* --- the kernel reading and writing on behalf of others --- */

TEST_F(vma, process_vm)
{
	char buf[3 * PAGE];
	int mem = open("/proc/self/mem", O_RDWR);

	ASSERT_GE(mem, 0);
	ASSERT_EQ((ssize_t)sizeof(buf),
		  pread(mem, buf, sizeof(buf), (uintptr_t)self->p + 6 * MB));
	EXPECT_EQ(0, memcmp(buf, self->w + 6 * MB, sizeof(buf)));
	buf[0] = 55;
	ASSERT_EQ(1, pwrite(mem, buf, 1, (uintptr_t)self->p + 6 * MB + 7));
	EXPECT_EQ(55, self->w[6 * MB + 7]);
	close(mem);
}

/* --- seals --- */

TEST_F(vma, seals)
{
	char *ro;

	EXPECT_EQ(-1, fcntl(self->fd, F_ADD_SEALS, F_SEAL_WRITE));
	EXPECT_EQ(EBUSY, errno);
	ASSERT_EQ(0, munmap(self->p, SIZE));
	ASSERT_EQ(0, munmap(self->w, SIZE));
	ASSERT_EQ(0, fcntl(self->fd, F_ADD_SEALS, F_SEAL_WRITE));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, SIZE, PROT_READ | PROT_WRITE,
				   MAP_SHARED, self->fd, 0));
	ro = mmap(self->p, SIZE, PROT_READ, MAP_SHARED | MAP_FIXED, self->fd,
		  0);
	ASSERT_EQ(self->p, ro);
	self->w = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, self->fd, 0);
	ASSERT_NE(self->w, MAP_FAILED);
	EXPECT_EQ(-1, check(ro, SIZE, 1));
	EXPECT_EQ(-1, mprotect(ro, SIZE, PROT_READ | PROT_WRITE));
}

TEST_HARNESS_MAIN

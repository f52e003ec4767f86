// SPDX-License-Identifier: GPL-2.0
/*
 * Every allocation fails once: each operation is repeated with its first, its
 * second, its third ... allocation refused, until none is left (hazard H29).
 * Whatever it returns, nobody finds anything but the file's bytes.
 */
#include "pt_many.h"

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#define SIZE	(8 * MB)
#define STEP	(MB / 2 + PAGE)		/* some pages of each chunk */

#define DEBUGFS	"/sys/kernel/debug/"

/* Refuse the @n-th allocation of this task from now on. */
static int fail_nth(int fd, int n)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%d", n);

	return pwrite(fd, text, len, 0) == len ? 0 : -1;
}

/* Has it not come to that? */
static bool fail_pending(int fd)
{
	char text[16] = "";

	if (pread(fd, text, sizeof(text) - 1, 0) < 0)
		return true;
	return atoi(text) > 0;
}

static int inject_open(void)
{
	write_file(DEBUGFS "failslab/verbose", "0");
	write_file(DEBUGFS "fail_page_alloc/verbose", "0");
	write_file(DEBUGFS "fail_page_alloc/min-order", "0");
	if (write_file(DEBUGFS "failslab/ignore-gfp-wait", "N") ||
	    write_file(DEBUGFS "fail_page_alloc/ignore-gfp-wait", "N"))
		return -1;
	return open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
}

FIXTURE(inject)
{
	int fd, nth;
	char *p, *w;
	struct pt_gauges was;
};

FIXTURE_SETUP(inject)
{
	pt_opt_in();
	pt_catch();
	self->was = pt_gauges();
	self->nth = inject_open();
	if (self->nth < 0)
		SKIP(return, "no fault injection");
	self->fd = new_memfd(SIZE);
	ASSERT_GE(self->fd, 0);
	self->w = map_at(self->fd, SIZE, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(self->w, MAP_FAILED);
	fill(self->w, SIZE, 1);
	self->p = map_at(self->fd, SIZE, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(self->p, MAP_FAILED);
}

FIXTURE_TEARDOWN(inject)
{
	if (self->nth < 0)
		return;
	close(self->nth);
	EXPECT_EQ(-1, check(self->w, SIZE, 1));
	munmap(self->p, SIZE);
	munmap(self->w, SIZE);
	close(self->fd);
	EXPECT_STREQ("nothing", pt_left_over(&self->was));
}

static void touch(char *p)
{
	size_t i;

	for (i = 0; i < SIZE; i += STEP)
		try_load(p + i, NULL);
}

/* Bytes of the file, or nothing at all if that may be. */
static int wrong(char *p, bool may_fault)
{
	size_t i;
	char c;
	int sig;

	for (i = 0; i < SIZE; i += STEP) {
		sig = try_load(p + i, &c);
		if (sig ? sig != SIGSEGV || !may_fault :
		    c != (char)(1 + i / PAGE))
			return 1;
	}
	return 0;
}

/* --- what is done with allocations failing; the result does not matter --- */

static void do_map(int fd, char *p)
{
	mmap(p, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
}

static void do_other_class(int fd, char *p)
{
	mmap(p, SIZE, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd, 0);
}

/* Pages and tables that did not exist before, at an address that did not. */
static void do_fault(int fd, char *p)
{
	char *q;
	size_t i;

	if (ftruncate(fd, SIZE + CHUNK))
		return;
	q = mmap(NULL, SIZE + CHUNK, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (q != MAP_FAILED) {
		for (i = 0; i < SIZE + CHUNK; i += STEP)
			try_load(q + i, NULL);
		munmap(q, SIZE + CHUNK);
	}
	ftruncate(fd, SIZE);
}

/* A mapping, and an owner, that did not exist before. */
static void do_new_file(int fd, char *p)
{
	int new = new_memfd(SIZE);
	char *q;

	q = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, new, 0);
	if (q != MAP_FAILED) {
		touch(q);
		munmap(q, SIZE);
	}
	close(new);
}

static void do_mprotect(int fd, char *p)
{
	mprotect(p + 3 * MB, 3 * MB + PAGE, PROT_READ);
	mprotect(p + 3 * MB, 3 * MB + PAGE, PROT_READ | PROT_WRITE);
}

static void do_mprotect_none(int fd, char *p)
{
	mprotect(p + 3 * MB, 3 * MB + PAGE, PROT_NONE);
	mprotect(p + 3 * MB, 2 * MB + PAGE, PROT_READ);
}

static void do_munmap(int fd, char *p)
{
	munmap(p + 3 * MB, 3 * MB + PAGE);
}

static void do_map_over(int fd, char *p)
{
	mmap(p + 3 * MB, 2 * MB + PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, fd,
	     3 * MB);
	mmap(p + 3 * MB, 2 * MB + PAGE, PROT_READ | PROT_WRITE,
	     MAP_SHARED | MAP_FIXED, fd, 3 * MB);
}

static void do_mremap(int fd, char *p)
{
	char *q = mremap(p + 3 * MB, 3 * MB, 4 * MB, MREMAP_MAYMOVE);

	if (q == MAP_FAILED)
		return;
	if (q != p + 3 * MB)
		munmap(q, 4 * MB);
}

static void do_advise(int fd, char *p)
{
	madvise(p + 3 * MB, 3 * MB, MADV_NOPTSHARE);
	touch(p);
	madvise(p, SIZE, MADV_PTSHARE);
}

static void do_mlock(int fd, char *p)
{
	mlock(p + 3 * MB, 3 * MB);
	munlock(p, SIZE);
}

static void do_fork(int fd, char *p)
{
	pid_t pid = fork();
	int status;

	if (!pid)
		_exit(wrong(p, false));
	if (pid > 0 && (waitpid(pid, &status, 0) != pid || status))
		abort();
}

static void do_uffd(int fd, char *p)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)p + 3 * MB, .len = 3 * MB },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	int uffd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK |
			   UFFD_USER_MODE_ONLY);

	if (uffd < 0)
		return;
	if (!ioctl(uffd, UFFDIO_API, &api))
		ioctl(uffd, UFFDIO_REGISTER, &reg);
	close(uffd);
}

static void do_clear_refs(int fd, char *p)
{
	write_file("/proc/self/clear_refs", "4");
	touch(p);
}

static const struct op {
	const char *name;
	void (*fn)(int fd, char *p);
	bool may_fault;		/* may leave less mapped than before */
} ops[] = {
	{ "map", do_map, true },
	{ "other class", do_other_class, true },
	{ "fault", do_fault, false },
	{ "new file", do_new_file, false },
	{ "mprotect", do_mprotect, false },
	{ "mprotect none", do_mprotect_none, true },
	{ "munmap", do_munmap, true },
	{ "map over", do_map_over, true },
	{ "mremap", do_mremap, true },
	{ "advise", do_advise, false },
	{ "mlock", do_mlock, false },
	{ "fork", do_fork, false },
	{ "uffd", do_uffd, false },
	{ "clear_refs", do_clear_refs, false },
};

/* With allocation @n refused; true if it did not come to that. */
static bool refuse(int nth, int n, const struct op *op, int fd, char *p)
{
	bool pending;

	if (fail_nth(nth, n))
		return true;
	op->fn(fd, p);
	pending = fail_pending(nth);
	fail_nth(nth, 0);
	return pending;
}

TEST_F(inject, each)
{
	const struct op *op;
	bool none_left;
	int n;

	for (op = ops; op < ops + ARRAY_SIZE(ops); op++) {
		none_left = false;
		for (n = 1; n < 400 && !none_left; n++) {
			ASSERT_EQ(0, munmap(self->p, SIZE));
			ASSERT_EQ(self->p,
				  mmap(self->p, SIZE, PROT_READ | PROT_WRITE,
				       MAP_SHARED | MAP_FIXED, self->fd, 0));
			touch(self->p);
			none_left = refuse(self->nth, n, op, self->fd, self->p);
			ASSERT_EQ(0, wrong(self->p, op->may_fault)) {
				TH_LOG("%s: allocation %d", op->name, n);
			}
			ASSERT_EQ(0, wrong(self->w, false));
		}
		/* Some allocation was refused, and some n was too many. */
		EXPECT_TRUE(n > 2 && none_left) {
			TH_LOG("%s: %d allocations", op->name, n - 2);
		}
		TH_LOG("%s: %d allocations", op->name, n - 2);
	}
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/*
 * Access that is not a load or store of the process' own: by another process
 * (process_vm_*, ptrace, /proc/PID/mem), by page pins that outlive the mapping,
 * by futexes, protection keys, and execution.  Whoever comes, each mapping
 * keeps its own permissions, and a pinned page stays the page that it was.
 */
#include "pt_many.h"

#include <linux/futex.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

#include "../../../../mm/gup_test.h"

/* Four chunks and a half: the last is mapped by a private table. */
#define SIZE	(9 * MB)

/* In a chunk, across two, across a shared and a private table, in the tail. */
static const size_t places[] = {
	0, CHUNK - 8, 4 * MB + PAGE, 8 * MB - 8, 8 * MB + 5 * PAGE,
	SIZE - 16,
};

#define NPLACES	((int)ARRAY_SIZE(places))

FIXTURE(access)
{
	int fd;
	char *w;	/* witness */
	char *p, *ro, *none;
	struct servant s;
};

/* Does the other process have the tables already? */
FIXTURE_VARIANT(access)
{
	bool touched;
};

FIXTURE_VARIANT_ADD(access, fresh)
{
};

FIXTURE_VARIANT_ADD(access, touched)
{
	.touched = true,
};

FIXTURE_SETUP(access)
{
	pt_opt_in();
	pt_catch();
	self->fd = new_memfd(SIZE);
	ASSERT_GE(self->fd, 0);
	self->w = map_at(self->fd, SIZE, 0, PROT_READ | PROT_WRITE);
	self->p = map_at(self->fd, SIZE, 0, PROT_READ | PROT_WRITE);
	self->ro = map_at(self->fd, SIZE, 0, PROT_READ);
	self->none = map_at(self->fd, SIZE, 0, PROT_NONE);
	ASSERT_NE(self->w, MAP_FAILED);
	ASSERT_NE(self->p, MAP_FAILED);
	ASSERT_NE(self->ro, MAP_FAILED);
	ASSERT_NE(self->none, MAP_FAILED);
	fill(self->w, SIZE, 1);
	if (variant->touched) {
		ASSERT_EQ(-1, check(self->p, SIZE, 1));
		ASSERT_EQ(-1, check(self->ro, SIZE, 1));
	}
	ASSERT_EQ(0, servant_start(&self->s, NULL, NULL));
}

FIXTURE_TEARDOWN(access)
{
	EXPECT_EQ(0, servant_end(&self->s));
	EXPECT_EQ(-1, check(self->w, SIZE, 1));
	munmap(self->w, SIZE);
	munmap(self->p, SIZE);
	munmap(self->ro, SIZE);
	munmap(self->none, SIZE);
	close(self->fd);
}

/* The remote end still sees what its own permissions let it see. */
static int unchanged(struct servant *s, char *ro, char *none, char want)
{
	char c;

	if (servant_load(s, none, NULL) != SIGSEGV ||
	    servant_store(s, none, 1) != SIGSEGV)
		return 1;
	if (servant_store(s, ro, 1) != SIGSEGV)
		return 2;
	if (servant_load(s, ro, &c) || c != want)
		return 3;
	return 0;
}

static ssize_t vm_copy(pid_t pid, char *here, char *there, size_t len,
		       bool to_them)
{
	struct iovec l = { here, len }, r = { there, len };

	return to_them ? process_vm_writev(pid, &l, 1, &r, 1, 0) :
			 process_vm_readv(pid, &l, 1, &r, 1, 0);
}

/* Guards the class of the table that a remote fault attaches. */
TEST_F(access, process_vm)
{
	char buf[16], old[16];
	int i;

	for (i = 0; i < NPLACES; i++) {
		size_t at = places[i];
		char *w = self->w + at;

		memcpy(old, w, 16);
		EXPECT_EQ(16, vm_copy(self->s.pid, buf, self->p + at, 16, 0));
		EXPECT_EQ(0, memcmp(buf, w, 16));
		EXPECT_EQ(16, vm_copy(self->s.pid, buf, self->ro + at, 16, 0));
		EXPECT_EQ(0, memcmp(buf, w, 16));
		EXPECT_EQ(-1, vm_copy(self->s.pid, buf, self->none + at, 16,
				      0));
		EXPECT_EQ(EFAULT, errno);

		memset(buf, 0x77, 16);
		EXPECT_EQ(-1, vm_copy(self->s.pid, buf, self->ro + at, 16, 1));
		EXPECT_EQ(EFAULT, errno);
		EXPECT_EQ(-1, vm_copy(self->s.pid, buf, self->none + at, 16,
				      1));
		EXPECT_EQ(EFAULT, errno);
		EXPECT_EQ(0, memcmp(old, w, 16));
		EXPECT_EQ(16, vm_copy(self->s.pid, buf, self->p + at, 16, 1));
		EXPECT_EQ(0, memcmp(buf, w, 16));
		memcpy(w, old, 16);
		EXPECT_EQ(0, unchanged(&self->s, self->ro + at,
				       self->none + at, *w));
	}
}

/* A big copy, which pins many pages at once, and stops where it must. */
TEST_F(access, process_vm_bulk)
{
	char *buf = malloc(SIZE);

	ASSERT_NE(NULL, buf);
	EXPECT_EQ((ssize_t)SIZE, vm_copy(self->s.pid, buf, self->ro, SIZE, 0));
	EXPECT_EQ(-1, check(buf, SIZE, 1));
	ASSERT_EQ(0, mprotect(self->p + 3 * MB, PAGE, PROT_READ));
	/* Ours is read-only now, theirs is not. */
	fill(buf, SIZE, 2);
	EXPECT_EQ((ssize_t)SIZE, vm_copy(self->s.pid, buf, self->p, SIZE, 1));
	EXPECT_EQ(-1, check(self->w, SIZE, 2));
	fill(buf, SIZE, 1);
	EXPECT_GE(3 * MB, (size_t)vm_copy(getpid(), buf, self->p, SIZE, 1));
	EXPECT_EQ((char)(2 + 3 * MB / PAGE), self->w[3 * MB]);
	fill(self->w, SIZE, 1);
	free(buf);
}

/*
 * The debugger's access forces its way: to what is PROT_NONE, but not into
 * what is shared and read-only.  Guards ptshare_flags_ok(), VM_READ.
 */
TEST_F(access, ptrace)
{
	pid_t pid = self->s.pid;
	int i, status;

	for (i = 0; i < NPLACES; i++) {
		size_t at = places[i] & ~7UL;
		long want = *(long *)(self->w + at);

		ASSERT_EQ(0, ptrace(PTRACE_SEIZE, pid, 0, 0));
		ASSERT_EQ(0, ptrace(PTRACE_INTERRUPT, pid, 0, 0));
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		EXPECT_EQ(want, ptrace(PTRACE_PEEKDATA, pid, self->p + at, 0));
		EXPECT_EQ(want, ptrace(PTRACE_PEEKDATA, pid, self->ro + at, 0));
		EXPECT_EQ(want, ptrace(PTRACE_PEEKDATA, pid, self->none + at,
				       0));
		EXPECT_EQ(-1, ptrace(PTRACE_POKEDATA, pid, self->ro + at, 5L));
		EXPECT_EQ(EIO, errno);
		EXPECT_EQ(-1, ptrace(PTRACE_POKEDATA, pid, self->none + at,
				     5L));
		EXPECT_EQ(EIO, errno);
		EXPECT_EQ(want, *(long *)(self->w + at));
		EXPECT_EQ(0, ptrace(PTRACE_POKEDATA, pid, self->p + at, 5L));
		EXPECT_EQ(5, *(long *)(self->w + at));
		*(long *)(self->w + at) = want;
		ASSERT_EQ(0, ptrace(PTRACE_DETACH, pid, 0, 0));
		EXPECT_EQ(0, unchanged(&self->s, self->ro + at,
				       self->none + at, self->w[at]));
	}
}

/* The same through a file; only whole accesses. */
TEST_F(access, proc_mem)
{
	char path[64], buf[16], old[16];
	int mem, i;

	snprintf(path, sizeof(path), "/proc/%d/mem", self->s.pid);
	mem = open(path, O_RDWR | O_CLOEXEC);
	ASSERT_GE(mem, 0);
	for (i = 0; i < NPLACES; i++) {
		size_t at = places[i];
		char *w = self->w + at;

		memcpy(old, w, 16);
		EXPECT_EQ(16, pread(mem, buf, 16, (uintptr_t)self->p + at));
		EXPECT_EQ(0, memcmp(buf, w, 16));
		EXPECT_EQ(16, pread(mem, buf, 16, (uintptr_t)self->none + at));
		EXPECT_EQ(0, memcmp(buf, w, 16));
		memset(buf, 0x77, 16);
		EXPECT_EQ(-1, pwrite(mem, buf, 16, (uintptr_t)self->ro + at));
		EXPECT_EQ(-1, pwrite(mem, buf, 16,
				     (uintptr_t)self->none + at));
		EXPECT_EQ(0, memcmp(old, w, 16));
		EXPECT_EQ(16, pwrite(mem, buf, 16, (uintptr_t)self->p + at));
		EXPECT_EQ(0, memcmp(buf, w, 16));
		memcpy(w, old, 16);
		EXPECT_EQ(0, unchanged(&self->s, self->ro + at,
				       self->none + at, *w));
	}
	close(mem);
}

/* --- futex --- */

static long futex(void *addr, int op, unsigned int val, void *timeout,
		  void *addr2, unsigned int val3)
{
	return syscall(SYS_futex, addr, op, val, timeout, addr2, val3);
}

struct sleeper {
	char *addr;
	int ready;
};

static void sleep_on(void *arg)
{
	struct timespec limit = { .tv_sec = 60 };
	struct sleeper *s = arg;
	unsigned int val = *(unsigned int *)s->addr;

	if (write(s->ready, "x", 1) != 1)
		_exit(1);
	_exit(futex(s->addr, FUTEX_WAIT, val, &limit, NULL, 0) ? 2 : 0);
}

/*
 * A process waits at one address and is woken at another: in shared and in
 * private tables, through a read-only mapping too.  The key is the file's
 * page, which get_futex_key() finds by GUP.
 */
TEST_F(access, futex_wake)
{
	int i, n, status, pfd[2];
	struct sleeper sleeper;
	long woken;
	pid_t pid;
	char c;

	ASSERT_EQ(0, pipe(pfd));
	for (i = 0; i < NPLACES; i++) {
		size_t at = places[i] & ~7UL;

		sleeper.addr = (i & 1 ? self->ro : self->p) + at;
		sleeper.ready = pfd[1];
		pid = fork();
		ASSERT_GE(pid, 0);
		if (!pid)
			sleep_on(&sleeper);
		ASSERT_EQ(1, read(pfd[0], &c, 1));
		for (n = 0, woken = 0; n < 2000 && !woken; n++) {
			usleep(5000);
			woken = futex(self->w + at, FUTEX_WAKE, 1, NULL, NULL,
				      0);
		}
		EXPECT_EQ(1, woken);
		waitpid(pid, &status, 0);
		EXPECT_EQ(0, status);
	}
	close(pfd[0]);
	close(pfd[1]);
}

/*
 * An atomic operation by the kernel, which faults with interrupts of its own:
 * fault_in_user_writeable().  Not into a read-only mapping.
 */
TEST_F(access, futex_op)
{
	const unsigned int inc = FUTEX_OP(FUTEX_OP_ADD, 1, FUTEX_OP_CMP_EQ, 0);
	unsigned int dummy = 0;
	int i;

	for (i = 0; i < NPLACES; i++) {
		size_t at = places[i] & ~7UL;
		unsigned int *w = (void *)(self->w + at), old = *w;

		EXPECT_LE(0, futex(&dummy, FUTEX_WAKE_OP, 1, NULL,
				   self->p + at, inc));
		EXPECT_EQ(old + 1, *w);
		EXPECT_EQ(-1, futex(&dummy, FUTEX_WAKE_OP, 1, NULL,
				    self->ro + at, inc));
		EXPECT_EQ(EFAULT, errno);
		EXPECT_EQ(old + 1, *w);
		*w = old;
	}
}

/* --- pins --- */

FIXTURE(pin)
{
	int fd;
	char *w, *p, *ro;
};

FIXTURE_SETUP(pin)
{
	pt_opt_in();
	pt_catch();
	self->fd = new_memfd(SIZE);
	ASSERT_GE(self->fd, 0);
	self->w = map_at(self->fd, SIZE, 0, PROT_READ | PROT_WRITE);
	self->p = map_at(self->fd, SIZE, 0, PROT_READ | PROT_WRITE);
	self->ro = map_at(self->fd, SIZE, 0, PROT_READ);
	ASSERT_NE(self->w, MAP_FAILED);
	ASSERT_NE(self->p, MAP_FAILED);
	ASSERT_NE(self->ro, MAP_FAILED);
	fill(self->w, SIZE, 1);
}

FIXTURE_TEARDOWN(pin)
{
	munmap(self->w, SIZE);
	munmap(self->p, SIZE);
	munmap(self->ro, SIZE);
	close(self->fd);
}

#define PINNED	4	/* pages */

/* What lets go of a mapping, or of the pages below it. */
enum letting_go { LG_NOTHING, LG_UNMAP, LG_DONTNEED, LG_PUNCH, LG_NR };

static int let_go(enum letting_go how, int fd, char *p, size_t at)
{
	switch (how) {
	case LG_UNMAP:
		return munmap(p, SIZE);
	case LG_DONTNEED:
		return madvise(p, SIZE, MADV_DONTNEED);
	case LG_PUNCH:
		return punch(fd, at, PINNED * PAGE);
	default:
		return 0;
	}
}

/* Put the fixture back for the next round. */
static int take_back(enum letting_go how, int fd, char *p, char *w)
{
	if (how == LG_UNMAP &&
	    mmap(p, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
		 0) != p)
		return 1;
	fill(w, SIZE, 1);
	return 0;
}

/* Pages in a pipe are the file's until they are punched out of it. */
TEST_F(pin, vmsplice)
{
	char buf[PINNED * PAGE];
	struct iovec iov;
	int pfd[2], i, how;

	ASSERT_EQ(0, pipe(pfd));
	for (i = 0; i < NPLACES - 1; i++)
		for (how = 0; how < LG_NR; how++) {
			size_t at = places[i] & ~(PAGE - 1);
			char want = how == LG_PUNCH ? self->w[at] : 99;

			iov.iov_base = self->p + at;
			iov.iov_len = sizeof(buf);
			ASSERT_EQ((ssize_t)sizeof(buf),
				  vmsplice(pfd[1], &iov, 1, 0));
			ASSERT_EQ(0, let_go(how, self->fd, self->p, at));
			self->w[at] = 99;
			ASSERT_EQ((ssize_t)sizeof(buf),
				  read(pfd[0], buf, sizeof(buf)));
			EXPECT_EQ(want, buf[0]);
			if (how != LG_PUNCH)
				EXPECT_EQ(0, memcmp(buf, self->w + at,
						    sizeof(buf)));
			ASSERT_EQ(0, take_back(how, self->fd, self->p,
					       self->w));
			EXPECT_EQ(-1, check(self->p, SIZE, 1));
		}
	close(pfd[0]);
	close(pfd[1]);
}

/* Long-term pins by GUP, slow and fast, for reading and for writing. */
TEST_F(pin, longterm)
{
	char buf[PINNED * PAGE];
	__u64 to = (uintptr_t)buf;
	unsigned int flags;
	int gup, i, how;

	gup = open("/sys/kernel/debug/gup_test", O_RDWR | O_CLOEXEC);
	if (gup < 0)
		SKIP(return, "no CONFIG_GUP_TEST");
	for (i = 0; i < NPLACES - 1; i++)
		for (how = 0; how < LG_NR; how++) {
			size_t at = places[i] & ~(PAGE - 1);
			char want = how == LG_PUNCH ? self->w[at] : 99;

			for (flags = 0; flags < 4; flags++) {
				struct pin_longterm_test test = {
					.addr = (uintptr_t)self->p + at,
					.size = sizeof(buf),
					.flags = flags,
				};

				ASSERT_EQ(0, ioctl(gup, PIN_LONGTERM_TEST_START,
						   &test));
				ASSERT_EQ(0, let_go(how, self->fd, self->p,
						    at));
				self->w[at] = 99;
				EXPECT_EQ(0, ioctl(gup, PIN_LONGTERM_TEST_READ,
						   &to));
				EXPECT_EQ(0, ioctl(gup,
						   PIN_LONGTERM_TEST_STOP));
				EXPECT_EQ(want, buf[0]);
				ASSERT_EQ(0, take_back(how, self->fd, self->p,
						       self->w));
			}
		}
	close(gup);
}

/* To write one must be allowed to: the pte in the table decides (H35). */
TEST_F(pin, longterm_readonly)
{
	struct pin_longterm_test test = {
		.addr = (uintptr_t)self->ro, .size = PAGE,
	};
	unsigned int flags;
	int gup, i;

	gup = open("/sys/kernel/debug/gup_test", O_RDWR | O_CLOEXEC);
	if (gup < 0)
		SKIP(return, "no CONFIG_GUP_TEST");
	for (i = 0; i < 2; i++) {
		for (flags = 0; flags < 4; flags++) {
			test.flags = flags;
			if (flags & PIN_LONGTERM_TEST_FLAG_USE_WRITE) {
				EXPECT_EQ(-1, ioctl(gup,
						    PIN_LONGTERM_TEST_START,
						    &test));
				EXPECT_EQ(EFAULT, errno);
			} else {
				EXPECT_EQ(0, ioctl(gup, PIN_LONGTERM_TEST_START,
						   &test));
				EXPECT_EQ(0, ioctl(gup,
						   PIN_LONGTERM_TEST_STOP));
			}
		}
		EXPECT_EQ(-1, check(self->ro, SIZE, 1));
	}
	close(gup);
}

/* --- io_uring: a ring with one entry, by hand --- */

struct ring {
	int fd;
	unsigned int *sq_tail, *sq_array, *cq_head, *cq_tail, cq_mask;
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
};

static int ring_open(struct ring *r)
{
	struct io_uring_params p = {};
	char *sq, *cq;

	r->fd = syscall(__NR_io_uring_setup, 1, &p);
	if (r->fd < 0)
		return -1;
	sq = mmap(NULL, p.sq_off.array + p.sq_entries * sizeof(unsigned int),
		  PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, IORING_OFF_SQ_RING);
	cq = mmap(NULL, p.cq_off.cqes + p.cq_entries * sizeof(*r->cqe),
		  PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, IORING_OFF_CQ_RING);
	r->sqe = mmap(NULL, p.sq_entries * sizeof(*r->sqe),
		      PROT_READ | PROT_WRITE, MAP_SHARED, r->fd,
		      IORING_OFF_SQES);
	if (sq == MAP_FAILED || cq == MAP_FAILED || r->sqe == MAP_FAILED)
		return -1;
	r->sq_tail = (void *)(sq + p.sq_off.tail);
	r->sq_array = (void *)(sq + p.sq_off.array);
	r->cq_head = (void *)(cq + p.cq_off.head);
	r->cq_tail = (void *)(cq + p.cq_off.tail);
	r->cq_mask = *(unsigned int *)(cq + p.cq_off.ring_mask);
	r->cqe = (void *)(cq + p.cq_off.cqes);
	return 0;
}

/* Read or write @len bytes of @file at @off from or to a registered buffer. */
static int ring_io(struct ring *r, int op, int file, char *buf, unsigned int len,
		   off_t off)
{
	int res;

	memset(r->sqe, 0, sizeof(*r->sqe));
	r->sqe->opcode = op;
	r->sqe->fd = file;
	r->sqe->addr = (uintptr_t)buf;
	r->sqe->len = len;
	r->sqe->off = off;
	r->sq_array[0] = 0;
	__atomic_store_n(r->sq_tail, *r->sq_tail + 1, __ATOMIC_RELEASE);
	if (syscall(__NR_io_uring_enter, r->fd, 1, 1, IORING_ENTER_GETEVENTS,
		    NULL, 0) != 1)
		return -errno;
	if (__atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE) == *r->cq_head)
		return -ETIME;
	res = r->cqe[*r->cq_head & r->cq_mask].res;
	__atomic_store_n(r->cq_head, *r->cq_head + 1, __ATOMIC_RELEASE);
	return res;
}

static int ring_register(struct ring *r, char *buf, size_t len)
{
	struct iovec iov = { buf, len };

	return syscall(__NR_io_uring_register, r->fd, IORING_REGISTER_BUFFERS,
		       &iov, 1);
}

/* A registered buffer stays where it is when its mapping goes. */
TEST_F(pin, io_uring)
{
	char page[PAGE];
	struct ring r;
	int i, how, src = new_memfd(PAGE);

	ASSERT_GE(src, 0);
	if (ring_open(&r))
		SKIP(return, "no io_uring");
	memset(page, 77, PAGE);
	ASSERT_EQ((ssize_t)PAGE, pwrite(src, page, PAGE, 0));
	EXPECT_EQ(-1, ring_register(&r, self->ro, PINNED * PAGE));
	EXPECT_EQ(EFAULT, errno);
	for (i = 0; i < NPLACES - 1; i++)
		for (how = 0; how < LG_NR; how++) {
			size_t at = places[i] & ~(PAGE - 1);
			char *p = self->p + at, *w = self->w + at;

			ASSERT_EQ(0, ring_register(&r, p, PINNED * PAGE));
			ASSERT_EQ(0, let_go(how, self->fd, self->p, at));
			EXPECT_EQ((int)PAGE, ring_io(&r, IORING_OP_READ_FIXED,
						     src, p, PAGE, 0));
			/* In the file, unless it was taken out of that. */
			EXPECT_EQ(how == LG_PUNCH ? 0 : 77, w[8]);
			ASSERT_EQ(0, syscall(__NR_io_uring_register, r.fd,
					     IORING_UNREGISTER_BUFFERS, NULL,
					     0));
			memset(w, 0, PAGE);
			ASSERT_EQ(0, take_back(how, self->fd, self->p,
					       self->w));
		}
	close(r.fd);
	close(src);
}

/* --- GUP-fast against the end of the tables --- */

static volatile int over;

struct splicer {
	char *p;
	long good, bad;
};

/* Each page holds its own number, so a page of anything else shows. */
static void *splice_pages(void *arg)
{
	struct splicer *s = arg;
	unsigned int seed = 1;
	unsigned long tag;
	int pfd[2];

	if (pipe(pfd))
		return NULL;
	while (!over) {
		unsigned long page = rand_r(&seed) % (SIZE / PAGE);
		struct iovec iov = { s->p + page * PAGE, sizeof(tag) };

		if (vmsplice(pfd[1], &iov, 1, 0) != sizeof(tag))
			continue;	/* unmapped just now */
		if (read(pfd[0], &tag, sizeof(tag)) == sizeof(tag) &&
		    tag == page)
			s->good++;
		else
			s->bad++;
	}
	close(pfd[0]);
	close(pfd[1]);
	return NULL;
}

/*
 * The only sharer unmaps, which frees the owner and its tables, while GUP-fast
 * walks them: they must be freed through RCU (hazards H15, H18, H32).  That
 * is what MMU_GATHER_RCU_TABLE_FREE is selected for.
 */
TEST(gup_fast_vs_free)
{
	struct splicer s = {};
	double end = now() + 3;
	int fd = new_memfd(SIZE);
	pthread_t thread;
	char *canary;
	size_t i;

	pt_opt_in();
	ASSERT_GE(fd, 0);
	s.p = map_at(fd, SIZE, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(s.p, MAP_FAILED);
	for (i = 0; i < SIZE; i += PAGE)
		*(unsigned long *)(s.p + i) = i / PAGE;
	ASSERT_EQ(0, pthread_create(&thread, NULL, splice_pages, &s));
	while (now() < end) {
		ASSERT_EQ(0, munmap(s.p, SIZE));
		/* Give the freed tables another content. */
		canary = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1,
			      0);
		ASSERT_NE(canary, MAP_FAILED);
		memset(canary, 0x67, 64 * PAGE);
		munmap(canary, 64 * PAGE);
		ASSERT_EQ(s.p, mmap(s.p, SIZE, PROT_READ | PROT_WRITE,
				    MAP_SHARED | MAP_FIXED, fd, 0));
		for (i = 0; i < SIZE; i += CHUNK)
			EXPECT_EQ(i / PAGE, *(unsigned long *)(s.p + i));
		usleep(200);
	}
	over = 1;
	pthread_join(thread, NULL);
	EXPECT_EQ(0, s.bad);
	EXPECT_LT(0, s.good);
	munmap(s.p, SIZE);
	close(fd);
}

/* --- what else a table entry says --- */

/* Protection keys stand in the PTE: such a mapping may not share (H36). */
TEST_F(pin, pkey)
{
	int key = pkey_alloc(0, 0), i;
	char c;

	if (key < 0)
		SKIP(return, "no protection keys");
	EXPECT_EQ(-1, check(self->p, SIZE, 1));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, pkey_mprotect(self->p + CHUNK, 4 * MB,
					   PROT_READ | PROT_WRITE, key));
		pkey_set(key, PKEY_DISABLE_ACCESS);
		EXPECT_EQ(SIGSEGV, try_load(self->p + CHUNK, NULL));
		pkey_set(key, PKEY_DISABLE_WRITE);
		EXPECT_EQ(0, try_load(self->p + 3 * MB, &c));
		EXPECT_EQ(self->w[3 * MB], c);
		EXPECT_EQ(SIGSEGV, try_store(self->p + 3 * MB, 5));
		/* The rest, and others, have no key. */
		pkey_set(key, PKEY_DISABLE_ACCESS);
		EXPECT_EQ(0, try_load(self->p + PAGE, NULL));
		pkey_set(key, PKEY_DISABLE_ACCESS);
		EXPECT_EQ(-1, check(self->w, SIZE, 1));
		EXPECT_EQ(-1, check(self->ro, SIZE, 1));
		pkey_set(key, 0);
		EXPECT_EQ(-1, check(self->p, SIZE, 1));
		ASSERT_EQ(0, pkey_mprotect(self->p + CHUNK, 4 * MB,
					   PROT_READ | PROT_WRITE, 0));
		pkey_set(key, PKEY_DISABLE_ACCESS);
		EXPECT_EQ(-1, check(self->p, SIZE, 1));
		EXPECT_EQ(1, count_vmas(self->p, SIZE));
	}
	pkey_free(key);
}

#ifdef __x86_64__
/* Code runs where a mapping is executable, and nowhere else. */
TEST_F(pin, execute)
{
	static const unsigned char code[] = {
		0xb8, 42, 0, 0, 0,	/* mov $42, %eax */
		0xc3,			/* ret */
	};
	volatile int got = 0;
	char *x = map_at(self->fd, SIZE, 0, PROT_READ | PROT_EXEC);
	int i;

	ASSERT_NE(x, MAP_FAILED);
	for (i = 0; i < NPLACES - 1; i++) {
		size_t at = places[i] & ~(PAGE - 1);

		memcpy(self->w + at, code, sizeof(code));
		got = 0;
		pt_sig = 0;
		if (!sigsetjmp(pt_env, 1))
			got = ((int (*)(void))(x + at))();
		EXPECT_EQ(0, pt_sig);
		EXPECT_EQ(42, got);
		pt_sig = 0;
		if (!sigsetjmp(pt_env, 1))
			((int (*)(void))(self->ro + at))();
		EXPECT_EQ(SIGSEGV, pt_sig);
		pt_sig = 0;
		if (!sigsetjmp(pt_env, 1))
			((int (*)(void))(self->w + at))();
		EXPECT_EQ(SIGSEGV, pt_sig);
		EXPECT_EQ(SIGSEGV, try_store(x + at, 1));
	}
	munmap(x, SIZE);
}
#endif

TEST_HARNESS_MAIN

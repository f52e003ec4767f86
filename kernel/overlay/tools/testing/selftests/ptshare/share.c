// SPDX-License-Identifier: GPL-2.0
/*
 * Processes that map the same memory see the same bytes, each with its own
 * permissions, whether or not they share page tables - and do share them.
 */
#include "pt_util.h"

#include <sys/ipc.h>
#include <sys/shm.h>

#define SIZE	(16 * MB)
#define NPROC	8

FIXTURE(share)
{
	int fd;
	char *p;
};

FIXTURE_SETUP(share)
{
	pt_opt_in();
	pt_catch();
	self->fd = new_memfd(SIZE);
	ASSERT_GE(self->fd, 0);
	self->p = map_at(self->fd, SIZE, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(self->p, MAP_FAILED);
}

FIXTURE_TEARDOWN(share)
{
	munmap(self->p, SIZE);
	close(self->fd);
}

static int child_check_and_write(void *arg)
{
	char *p = arg;

	if (check(p, SIZE, 1) >= 0)
		return 1;
	p[SIZE / 2 + 1] = 42;
	return 0;
}

TEST_F(share, fork_inherits)
{
	fill(self->p, SIZE, 1);
	ASSERT_EQ(0, in_child(child_check_and_write, self->p));
	EXPECT_EQ(42, self->p[SIZE / 2 + 1]);
	EXPECT_EQ(-1, check(self->p, SIZE, 1));
}

/* The point of it all: the second process costs next to nothing. */
TEST_F(share, tables_are_shared)
{
	int ready[2], go[2], i;
	long before, after;
	pid_t pid[NPROC];
	char c;

	if (!sharing())
		SKIP(return, "sharing is off");
	fill(self->p, SIZE, 1);
	ASSERT_EQ(0, pipe(ready));
	ASSERT_EQ(0, pipe(go));
	before = pt_stat("tables");
	EXPECT_GE(before, (long)(SIZE / CHUNK));
	for (i = 0; i < NPROC; i++) {
		pid[i] = fork();
		ASSERT_GE(pid[i], 0);
		if (!pid[i]) {
			char *q = map_at(self->fd, SIZE, 0,
					 PROT_READ | PROT_WRITE);

			close(go[1]);
			c = check(self->p, SIZE, 1) >= 0 ||
			    check(q, SIZE, 1) >= 0;
			if (write(ready[1], &c, 1) != 1 ||
			    read(go[0], &c, 1) < 0)
				_exit(1);
			_exit(0);
		}
	}
	for (i = 0; i < NPROC; i++) {
		ASSERT_EQ(1, read(ready[0], &c, 1));
		EXPECT_EQ(0, c);
	}
	after = pt_stat("tables");
	EXPECT_EQ(before, after);
	EXPECT_GE(pt_stat("attached"),
		  (long)((2 * NPROC + 1) * SIZE / CHUNK));
	close(go[1]);
	for (i = 0; i < NPROC; i++)
		waitpid(pid[i], NULL, 0);
	close(go[0]);
	close(ready[0]);
	close(ready[1]);
}

/* Attach-around: the second mapping takes a fault or two, not one a chunk. */
TEST_F(share, few_faults)
{
	long before, after;
	char *q;

	if (!sharing())
		SKIP(return, "sharing is off");
	fill(self->p, SIZE, 1);
	q = map_at(self->fd, SIZE, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(q, MAP_FAILED);
	before = pt_stat("stats/attach_faults");
	EXPECT_EQ(-1, check(q, SIZE, 1));
	after = pt_stat("stats/attach_faults");
	EXPECT_LE(after - before, 2);
	munmap(q, SIZE);
}

TEST_F(share, two_addresses)
{
	char *q = map_at(self->fd, SIZE, 0, PROT_READ | PROT_WRITE);

	ASSERT_NE(q, MAP_FAILED);
	fill(self->p, SIZE, 3);
	EXPECT_EQ(-1, check(q, SIZE, 3));
	q[5 * MB] = 77;
	EXPECT_EQ(77, self->p[5 * MB]);
	munmap(q, SIZE);
	EXPECT_EQ(77, self->p[5 * MB]);
}

/* An address that is not congruent works, unshared (hazard H47). */
TEST_F(share, not_congruent)
{
	char *q = map_mod(self->fd, SIZE, 0, PROT_READ | PROT_WRITE, PAGE);

	ASSERT_NE(q, MAP_FAILED);
	fill(q, SIZE, 9);
	EXPECT_EQ(-1, check(self->p, SIZE, 9));
	ASSERT_EQ(0, fallocate(self->fd, FALLOC_FL_PUNCH_HOLE |
			       FALLOC_FL_KEEP_SIZE, 0, SIZE));
	EXPECT_EQ(0, q[0]);
	EXPECT_EQ(0, self->p[SIZE - PAGE]);
	munmap(q, SIZE);
}

/* Each mapping keeps its own permissions (hazards H22, H35, H36). */
TEST_F(share, own_permissions)
{
	char *ro = map_at(self->fd, SIZE, 0, PROT_READ), *none, c = 0;

	ASSERT_NE(ro, MAP_FAILED);
	none = map_at(self->fd, SIZE, 0, PROT_NONE);
	ASSERT_NE(none, MAP_FAILED);
	fill(self->p, SIZE, 5);
	EXPECT_EQ(-1, check(ro, SIZE, 5));
	EXPECT_EQ(SIGSEGV, try_store(ro + 3 * MB, 1));
	EXPECT_EQ(SIGSEGV, try_load(none + 3 * MB, NULL));
	EXPECT_EQ(0, try_load(ro + 3 * MB, &c));
	EXPECT_EQ(self->p[3 * MB], c);
	EXPECT_EQ(0, try_store(self->p + 3 * MB, 99));
	EXPECT_EQ(99, ro[3 * MB]);
	munmap(ro, SIZE);
	munmap(none, SIZE);
}

/* The kernel honours them as well: read() into a read-only view fails. */
TEST_F(share, kernel_respects_readonly)
{
	char *ro = map_at(self->fd, SIZE, 0, PROT_READ);
	int zero = open("/dev/zero", O_RDONLY), pfd[2];

	ASSERT_NE(ro, MAP_FAILED);
	fill(self->p, SIZE, 5);
	EXPECT_EQ(-1, check(ro, SIZE, 5));
	EXPECT_EQ(-1, read(zero, ro + 2 * MB, PAGE));
	EXPECT_EQ(EFAULT, errno);
	ASSERT_EQ(0, pipe(pfd));
	ASSERT_EQ(1, write(pfd[1], "x", 1));
	EXPECT_EQ(-1, read(pfd[0], ro + 2 * MB, 1));
	EXPECT_EQ(-1, check(self->p, SIZE, 5));
	close(pfd[0]);
	close(pfd[1]);
	close(zero);
	munmap(ro, SIZE);
}

TEST_F(share, readonly_fd)
{
	char path[64], *ro;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->fd);
	fd = open(path, O_RDONLY);
	ASSERT_GE(fd, 0);
	fill(self->p, SIZE, 6);
	ro = map_at(fd, SIZE, 0, PROT_READ);
	ASSERT_NE(ro, MAP_FAILED);
	EXPECT_EQ(-1, check(ro, SIZE, 6));
	EXPECT_EQ(SIGSEGV, try_store(ro, 1));
	EXPECT_EQ(-1, mprotect(ro, SIZE, PROT_READ | PROT_WRITE));
	munmap(ro, SIZE);
	close(fd);
}

/*
 * Heads and tails that are no whole chunks: mapped privately, and a hole
 * punched there or in the middle is seen by everybody.
 */
TEST_F(share, partial_chunks)
{
	const size_t off = MB, len = 7 * MB;
	char *a = map_at(self->fd, len, off, PROT_READ | PROT_WRITE);
	char *b = map_at(self->fd, len, off, PROT_READ);
	size_t at;

	ASSERT_NE(a, MAP_FAILED);
	ASSERT_NE(b, MAP_FAILED);
	fill(self->p, SIZE, 7);
	EXPECT_EQ(-1, check(a, len, 7 + off / PAGE));
	EXPECT_EQ(-1, check(b, len, 7 + off / PAGE));
	for (at = 0; at < len; at += MB) {
		ASSERT_EQ(0, fallocate(self->fd, FALLOC_FL_PUNCH_HOLE |
				       FALLOC_FL_KEEP_SIZE, off + at, PAGE));
		EXPECT_EQ(0, a[at]);
		EXPECT_EQ(0, b[at]);
		EXPECT_EQ(0, self->p[off + at]);
		EXPECT_EQ(a[at + PAGE], b[at + PAGE]);
	}
	munmap(a, len);
	munmap(b, len);
}

TEST_F(share, punch_hole)
{
	char *q = map_at(self->fd, SIZE, 0, PROT_READ);
	size_t i;

	ASSERT_NE(q, MAP_FAILED);
	fill(self->p, SIZE, 1);
	EXPECT_EQ(-1, check(q, SIZE, 1));
	ASSERT_EQ(0, fallocate(self->fd, FALLOC_FL_PUNCH_HOLE |
			       FALLOC_FL_KEEP_SIZE, MB, 6 * MB));
	for (i = MB; i < 7 * MB; i += PAGE) {
		ASSERT_EQ(0, q[i]);
		ASSERT_EQ(0, self->p[i]);
	}
	EXPECT_EQ((char)(1 + 8 * MB / PAGE), q[8 * MB]);
	munmap(q, SIZE);
}

/* Beyond the end of the file there is SIGBUS, for everybody (H45). */
TEST_F(share, truncate)
{
	char *q = map_at(self->fd, SIZE, 0, PROT_READ), c;
	int i;

	ASSERT_NE(q, MAP_FAILED);
	for (i = 0; i < 3; i++) {
		fill(self->p, SIZE, i);
		EXPECT_EQ(-1, check(q, SIZE, i));
		ASSERT_EQ(0, ftruncate(self->fd, 3 * MB + 5 * PAGE));
		EXPECT_EQ(SIGBUS, try_load(self->p + 3 * MB + 5 * PAGE, NULL));
		EXPECT_EQ(SIGBUS, try_load(q + 9 * MB, NULL));
		EXPECT_EQ(0, try_load(q + 3 * MB + 4 * PAGE, &c));
		EXPECT_EQ((char)(i + (3 * MB + 4 * PAGE) / PAGE), c);
		ASSERT_EQ(0, ftruncate(self->fd, SIZE));
		EXPECT_EQ(0, self->p[3 * MB + 5 * PAGE]);
		EXPECT_EQ(0, q[9 * MB]);
	}
	munmap(q, SIZE);
}

/* write() and mappings agree. */
TEST_F(share, pwrite_coherent)
{
	char buf[PAGE];

	memset(buf, 0x5a, sizeof(buf));
	fill(self->p, SIZE, 1);
	ASSERT_EQ((ssize_t)PAGE, pwrite(self->fd, buf, PAGE, 4 * MB));
	EXPECT_EQ(0x5a, self->p[4 * MB + 100]);
	self->p[4 * MB] = 1;
	ASSERT_EQ((ssize_t)PAGE, pread(self->fd, buf, PAGE, 4 * MB));
	EXPECT_EQ(1, buf[0]);
}

static int child_anon(void *arg)
{
	char *p = arg;

	if (check(p, SIZE, 4) >= 0)
		return 1;
	fill(p, SIZE, 8);
	return 0;
}

TEST(anonymous_shared)
{
	char *p;

	pt_opt_in();
	p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(p, MAP_FAILED);
	if (sharing())
		EXPECT_EQ(0, (uintptr_t)p % CHUNK);
	fill(p, SIZE, 4);
	ASSERT_EQ(0, in_child(child_anon, p));
	EXPECT_EQ(-1, check(p, SIZE, 8));
	munmap(p, SIZE);
}

TEST(dev_zero)
{
	int fd = open("/dev/zero", O_RDWR);
	char *p;

	pt_opt_in();
	ASSERT_GE(fd, 0);
	p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(p, MAP_FAILED);
	fill(p, SIZE, 4);
	ASSERT_EQ(0, in_child(child_anon, p));
	EXPECT_EQ(-1, check(p, SIZE, 8));
	munmap(p, SIZE);
	close(fd);
}

TEST(sysv)
{
	long before, sharers = pt_stat("sharers");
	struct shmid_ds ds;
	char *p, *q;
	int id;

	pt_opt_in();
	id = shmget(IPC_PRIVATE, SIZE, IPC_CREAT | 0600);
	ASSERT_GE(id, 0);
	p = shmat(id, NULL, 0);
	ASSERT_NE(p, (void *)-1);
	q = shmat(id, NULL, SHM_RDONLY);
	ASSERT_NE(q, (void *)-1);
	ASSERT_EQ(0, shmctl(id, IPC_STAT, &ds));
	EXPECT_EQ(2, ds.shm_nattch);
	fill(p, SIZE, 4);
	EXPECT_EQ(-1, check(q, SIZE, 4));
	if (sharing())
		EXPECT_EQ(sharers + 2, pt_stat("sharers"));
	ASSERT_EQ(0, in_child(child_anon, p));
	EXPECT_EQ(-1, check(q, SIZE, 8));
	before = pt_stat("tables");
	ASSERT_EQ(0, shmctl(id, IPC_RMID, NULL));
	EXPECT_EQ(before, pt_stat("tables"));
	EXPECT_EQ(0, shmdt(p));
	EXPECT_EQ(-1, check(q, SIZE, 8));
	EXPECT_EQ(0, shmdt(q));
}

/* Unrelated processes get addresses that can share (design: placement). */
TEST(placement)
{
	int fd = new_memfd(SIZE), i;
	char *p;

	pt_opt_in();
	ASSERT_GE(fd, 0);
	if (!sharing())
		SKIP(return, "sharing is off");
	for (i = 0; i < 4; i++) {
		p = mmap(NULL, SIZE - i * MB, PROT_READ, MAP_SHARED, fd,
			 i * MB);
		ASSERT_NE(p, MAP_FAILED);
		EXPECT_EQ(i * MB % CHUNK, (uintptr_t)p % CHUNK);
	}
	close(fd);
}

TEST_HARNESS_MAIN

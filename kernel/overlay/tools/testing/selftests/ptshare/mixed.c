// SPDX-License-Identifier: GPL-2.0
/*
 * Mappings of one file in address spaces of other shapes: a 32-bit process, and
 * addresses that need five levels of page tables.  PTE tables are the same in
 * all of them; addresses and the end of the address space are not.
 */
#include "pt_many.h"
#include "peer32.h"

#define SIZE	(8 * MB)
#define CHUNKS	((int)(SIZE / CHUNK))
#define PEER	"./peer32"

FIXTURE(mixed)
{
	int fd, to, from;
	pid_t pid;
	char *p;
	struct pt_gauges was;
};

/* A memory file descriptor that survives exec. */
static pid_t start_peer(int fd, int *to, int *from)
{
	char number[16], size[16];
	int in[2], out[2];
	pid_t pid;

	snprintf(number, sizeof(number), "%d", fd);
	snprintf(size, sizeof(size), "%lu", SIZE);
	if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC))
		return -1;
	pid = fork();
	if (!pid) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		fcntl(fd, F_SETFD, 0);
		execl(PEER, PEER, number, size, NULL);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	*to = in[1];
	*from = out[0];
	return pid;
}

FIXTURE_SETUP(mixed)
{
	self->pid = 0;
	pt_opt_in();
	pt_catch();
	signal(SIGPIPE, SIG_IGN);
	if (access(PEER, X_OK))
		SKIP(return, "no peer32: the compiler makes no 32-bit programs");
	self->was = pt_gauges();
	self->fd = new_memfd(SIZE);
	ASSERT_GE(self->fd, 0);
	self->p = map_at(self->fd, SIZE, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(self->p, MAP_FAILED);
	fill(self->p, SIZE, 1);
	self->pid = start_peer(self->fd, &self->to, &self->from);
	ASSERT_GT(self->pid, 0);
}

FIXTURE_TEARDOWN(mixed)
{
	if (!self->pid)
		return;
	close(self->to);
	waitpid(self->pid, NULL, 0);
	close(self->from);
	munmap(self->p, SIZE);
	close(self->fd);
	EXPECT_STREQ("nothing", pt_left_over(&self->was));
}

/* The peer's answer; ret is -2 if it gave none: it is dead. */
static struct peer32_order order(struct _test_data_mixed *self,
				 struct peer32_order o)
{
	if (write(self->to, &o, sizeof(o)) != sizeof(o) ||
	    read(self->from, &o, sizeof(o)) != sizeof(o))
		o.ret = -2;
	return o;
}

#define ORDER(_what, ...) \
	order(self, (struct peer32_order) { .what = PEER32_##_what, __VA_ARGS__ })

/* Does the peer find at each page what the file holds? The first that differs. */
static long peer_check(struct _test_data_mixed *self, size_t from, size_t to)
{
	struct peer32_order o;
	size_t i;

	for (i = from; i < to; i += 61 * PAGE) {
		o = ORDER(LOAD, .off = i);
		if (o.ret || (char)o.val != self->p[i])
			return i;
	}
	return -1;
}

/* The width of the peer's world, by what it is: ELFCLASS32. */
TEST_F(mixed, peer_is_32_bit)
{
	char path[32], ident[5] = "";
	int fd;

	/* It has answered: it is past exec. */
	ASSERT_EQ(0, ORDER(LOAD, .off = 0).ret);
	snprintf(path, sizeof(path), "/proc/%d/exe", self->pid);
	fd = open(path, O_RDONLY);
	ASSERT_EQ(5, read(fd, ident, 5));
	close(fd);
	EXPECT_EQ(1, ident[4]);
}

TEST_F(mixed, same_bytes)
{
	size_t i;

	EXPECT_EQ(-1, peer_check(self, 0, SIZE));
	for (i = 0; i < SIZE; i += MB / 2 + PAGE) {
		ASSERT_EQ(0, ORDER(STORE, .off = i, .val = 77).ret);
		EXPECT_EQ(77, self->p[i]);
		self->p[i] = 78;
		EXPECT_EQ(78, ORDER(LOAD, .off = i).val);
	}
}

TEST_F(mixed, same_tables)
{
	long tables, attached;
	int i;

	ASSERT_EQ(0, ORDER(LOAD, .off = 0).ret);
	tables = pt_stat("tables");
	for (i = 0; i < CHUNKS; i++)
		ASSERT_EQ(0, ORDER(STORE, .off = i * CHUNK, .val = i).ret);
	attached = pt_stat("attached") - self->was.attached;
	if (!sharing())
		SKIP(return, "nothing is shared");
	EXPECT_EQ(self->was.tables + CHUNKS, tables);
	EXPECT_EQ(tables, pt_stat("tables"));
	EXPECT_EQ(2 * CHUNKS, attached);
}

TEST_F(mixed, own_permissions)
{
	ASSERT_EQ(0, ORDER(STORE, .off = CHUNK, .val = 5).ret);
	ASSERT_EQ(0, ORDER(PROTECT, .off = CHUNK, .len = CHUNK,
			   .val = PROT_READ).ret);
	EXPECT_EQ(SIGSEGV, ORDER(STORE_IN_CHILD, .off = CHUNK, .val = 6).ret);
	EXPECT_EQ(0, ORDER(STORE_IN_CHILD, .off = 2 * CHUNK, .val = 6).ret);
	EXPECT_EQ(5, self->p[CHUNK]);
	EXPECT_EQ(6, self->p[2 * CHUNK]);
	EXPECT_EQ(0, try_store(self->p + CHUNK, 7));
	EXPECT_EQ(7, ORDER(LOAD, .off = CHUNK).val);
	/* And the other way round. */
	ASSERT_EQ(0, mprotect(self->p, SIZE, PROT_READ));
	EXPECT_EQ(SIGSEGV, try_store(self->p, 8));
	EXPECT_EQ(0, ORDER(STORE, .off = 0, .val = 9).ret);
	EXPECT_EQ(9, self->p[0]);
}

TEST_F(mixed, punch_and_truncate)
{
	ASSERT_EQ(-1, peer_check(self, 0, SIZE));
	ASSERT_EQ(0, punch(self->fd, CHUNK, CHUNK));
	EXPECT_EQ(0, ORDER(LOAD, .off = CHUNK + PAGE).val);
	EXPECT_EQ(0, self->p[CHUNK + PAGE]);
	EXPECT_EQ(-1, peer_check(self, 2 * CHUNK, SIZE));
	ASSERT_EQ(0, ftruncate(self->fd, CHUNK + PAGE));
	EXPECT_EQ(SIGBUS, ORDER(STORE_IN_CHILD, .off = 2 * CHUNK).ret);
	EXPECT_EQ(SIGBUS, try_load(self->p + 2 * CHUNK, NULL));
	EXPECT_EQ(-1, peer_check(self, 0, CHUNK));
	ASSERT_EQ(0, ftruncate(self->fd, SIZE));
	EXPECT_EQ(0, ORDER(LOAD, .off = 2 * CHUNK).val);
}

TEST_F(mixed, unmap_and_move)
{
	ASSERT_EQ(-1, peer_check(self, 0, SIZE));
	/* Into a hole of the file first: what is there to move is shared. */
	ASSERT_EQ(0, ftruncate(self->fd, SIZE + CHUNK));
	ASSERT_EQ(0, ORDER(GROW, .len = CHUNK).ret);
	EXPECT_EQ(-1, peer_check(self, 0, SIZE));
	EXPECT_EQ(0, ORDER(LOAD, .off = SIZE).val);
	ASSERT_EQ(0, ORDER(UNMAP, .off = CHUNK + PAGE, .len = CHUNK).ret);
	EXPECT_EQ(SIGSEGV, ORDER(STORE_IN_CHILD, .off = 2 * CHUNK).ret);
	EXPECT_EQ(-1, peer_check(self, 0, CHUNK + PAGE));
	EXPECT_EQ(-1, peer_check(self, 2 * CHUNK + PAGE, SIZE));
	EXPECT_EQ(-1, check(self->p, SIZE, 1));
}

/* Neither takes anything from the other when it goes, however it goes. */
TEST_F(mixed, sudden_end)
{
	int status;

	ASSERT_EQ(-1, peer_check(self, 0, SIZE));
	ASSERT_EQ(0, munmap(self->p, SIZE));
	ASSERT_EQ(0, ORDER(STORE, .off = 3 * CHUNK, .val = 3).ret);
	ASSERT_EQ(self->p, mmap(self->p, SIZE, PROT_READ | PROT_WRITE,
				MAP_SHARED | MAP_FIXED, self->fd, 0));
	EXPECT_EQ(3, self->p[3 * CHUNK]);
	ASSERT_EQ(0, kill(self->pid, SIGKILL));
	ASSERT_EQ(self->pid, waitpid(self->pid, &status, 0));
	EXPECT_EQ(SIGKILL, WTERMSIG(status));
	EXPECT_EQ(3, self->p[3 * CHUNK]);
	self->p[3 * CHUNK] = 1 + (char)(3 * CHUNK / PAGE);
	EXPECT_EQ(-1, check(self->p, SIZE, 1));
}

/* Above what four levels of page tables can map. */
TEST(five_levels)
{
	char *hint = (char *)(1UL << 50), *low, *high;
	struct pt_gauges was = pt_gauges();
	int fd = new_memfd(SIZE);
	long tables;

	pt_opt_in();
	ASSERT_GE(fd, 0);
	low = map_at(fd, SIZE, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(MAP_FAILED, low);
	fill(low, SIZE, 1);
	tables = pt_stat("tables");
	high = mmap(hint, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, high);
	if (high != hint) {
		munmap(high, SIZE);
		munmap(low, SIZE);
		close(fd);
		SKIP(return, "four levels of page tables");
	}
	EXPECT_EQ(-1, check(high, SIZE, 1));
	if (sharing()) {
		EXPECT_EQ(tables, pt_stat("tables"));
		EXPECT_EQ(was.attached + 2 * CHUNKS, pt_stat("attached"));
	}
	/* A reduction reaches both. */
	ASSERT_EQ(0, punch(fd, CHUNK, CHUNK));
	EXPECT_EQ(0, low[CHUNK]);
	EXPECT_EQ(0, high[CHUNK]);
	high[CHUNK] = 5;
	EXPECT_EQ(5, low[CHUNK]);
	ASSERT_EQ(0, munmap(low, SIZE));
	EXPECT_EQ(5, high[CHUNK]);
	munmap(high, SIZE);
	close(fd);
	EXPECT_STREQ("nothing", pt_left_over(&was));
}

TEST_HARNESS_MAIN

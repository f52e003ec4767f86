// SPDX-License-Identifier: GPL-2.0
/*
 * Processes and CPUs that get in each other's way: the first fault of a chunk,
 * mappings that come and go under punching and writing, death in the middle of
 * a fault, CPUs that keep an idle address space loaded.
 */
#include "pt_many.h"

#include <pthread.h>
#include <sys/mount.h>

#define SIZE	(8 * MB)
#define SECONDS	3

FIXTURE(race)
{
	struct pt_gauges was;
};

FIXTURE_SETUP(race)
{
	pt_opt_in();
	pt_catch();
	self->was = pt_gauges();
}

/* Whatever happened, nothing is left of it. */
FIXTURE_TEARDOWN(race)
{
	EXPECT_STREQ("nothing", pt_left_over(&self->was));
}

/* --- the first fault of a chunk --- */

#define CHUNKS	48
#define FIRST	4		/* processes, of two threads each */

struct first {
	char *p;
	int id;
	volatile int *gate;	/* one counter for each chunk */
};

/* All arrive, then all store at once, each into a byte of its own. */
static void *first_thread(void *arg)
{
	struct first *f = arg;
	int i;

	for (i = 0; i < CHUNKS; i++) {
		__atomic_add_fetch(&f->gate[i], 1, __ATOMIC_SEQ_CST);
		while (f->gate[i] < 2 * FIRST)
			sched_yield();
		f->p[i * CHUNK + f->id] = f->id + 1;
	}
	return NULL;
}

static int first_process(struct first *a, int fd, int nr)
{
	struct first b = *a;
	pthread_t thread;

	if (nr & 1)
		a->p = map_at(fd, CHUNKS * CHUNK, 0, PROT_READ | PROT_WRITE);
	if (a->p == MAP_FAILED)
		return 1;
	b.p = a->p;
	a->id = 2 * nr;
	b.id = 2 * nr + 1;
	if (pthread_create(&thread, NULL, first_thread, &b))
		return 2;
	first_thread(a);
	pthread_join(thread, NULL);
	return 0;
}

/*
 * Processes and threads make the table of a chunk at once: there is one, and
 * all use it (H28).  Guards pmd_install() in ptshare_table_alloc().
 */
TEST_F(race, first_table)
{
	const size_t len = CHUNKS * CHUNK;
	struct first f;
	pid_t pid[FIRST];
	int fd = new_memfd(len), i, j, status;

	ASSERT_GE(fd, 0);
	f.gate = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(f.gate, MAP_FAILED);
	f.p = map_at(fd, len, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(f.p, MAP_FAILED);
	for (i = 0; i < FIRST; i++) {
		pid[i] = fork();
		ASSERT_GE(pid[i], 0);
		if (!pid[i])
			_exit(first_process(&f, fd, i));
	}
	for (i = 0; i < FIRST; i++) {
		ASSERT_EQ(pid[i], waitpid(pid[i], &status, 0));
		EXPECT_EQ(0, status);
	}
	if (sharing())
		EXPECT_EQ(self->was.tables + CHUNKS, pt_stat("tables"));
	for (i = 0; i < CHUNKS; i++)
		for (j = 0; j < 2 * FIRST; j++)
			ASSERT_EQ(j + 1, f.p[i * CHUNK + j]);
	munmap(f.p, len);
	munmap((void *)f.gate, PAGE);
	close(fd);
}

/* --- everything at once --- */

/* What a page holds: nothing yet, or its own number.  Never another's. */
static unsigned long tag(size_t page)
{
	return 0x7074000000000000UL | page;
}

static int look(char *p, size_t page)
{
	unsigned long got = *(volatile unsigned long *)(p + page * PAGE);

	return got && got != tag(page);
}

static void leave_tag(char *p, size_t page)
{
	*(volatile unsigned long *)(p + page * PAGE) = tag(page);
}

static int storm_forked(char *p, unsigned int seed)
{
	int i;

	for (i = 0; i < 20; i++) {
		size_t page = rand_r(&seed) % (SIZE / PAGE);

		if (look(p, page))
			return 1;
		leave_tag(p, page);
	}
	if (seed & 1)
		kill(getpid(), SIGKILL);
	return 0;
}

/* One thing that a process may do with its mapping, which stays whole. */
static int storm_step(int fd, char *p, unsigned int *seed)
{
	size_t off = rand_r(seed) % (SIZE / MB) * MB, len = SIZE - off;
	int status;
	pid_t pid;
	char *q;

	if (rand_r(seed) & 1)
		len = len > CHUNK ? CHUNK : MB;
	switch (rand_r(seed) % 7) {
	case 0:
		pid = fork();
		if (!pid)
			_exit(storm_forked(p, *seed));
		if (pid < 0 || waitpid(pid, &status, 0) != pid)
			return 10;
		return WIFEXITED(status) ? WEXITSTATUS(status) :
					   WTERMSIG(status) != SIGKILL;
	case 1:
		if (munmap(p + off, len))
			return 11;
		q = mmap(p + off, len, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_FIXED, fd, off);
		return q == p + off ? 0 : 12;
	case 2:
	case 3:
		if (mprotect(p + off, len, PROT_READ) || look(p, off / PAGE))
			return 13;
		return mprotect(p + off, len, PROT_READ | PROT_WRITE) ? 14 : 0;
	case 4:
		return madvise(p + off, len, MADV_DONTNEED) ? 15 : 0;
	case 5:
		madvise(p + off, len, MADV_NOPTSHARE);
		leave_tag(p, off / PAGE);
		madvise(p + off, len, MADV_PTSHARE);
		return 0;
	default:
		/* As much as is one VMA for sure. */
		q = mremap(p + off, MB, MB, MREMAP_MAYMOVE | MREMAP_DONTUNMAP,
			   NULL);
		if (q == MAP_FAILED || look(q - off, off / PAGE))
			return 16;
		return munmap(q, MB) ? 17 : 0;
	}
}

static int storm(volatile int *stop, int nr, void *arg)
{
	unsigned int seed = 100 + nr;
	int fd = *(int *)arg, ret, i;
	char *p = map_at(fd, SIZE, 0, PROT_READ | PROT_WRITE);

	if (p == MAP_FAILED)
		return 1;
	while (!*stop) {
		for (i = 0; i < 100; i++) {
			size_t page = rand_r(&seed) % (SIZE / PAGE);

			if (look(p, page))
				return 2;
			leave_tag(p, page);
		}
		ret = storm_step(fd, p, &seed);
		if (ret)
			return ret;
	}
	return 0;
}

/*
 * Two CPUs or more fork, unmap, protect, move and advise, while a third takes
 * pages out of the file and writes others to it.  Frames that were freed are
 * soon another page's, so a stale entry finds a wrong number (H1, H2, H30).
 */
TEST_F(race, storm)
{
	double end = now() + SECONDS;
	unsigned int seed = 5;
	struct crew crew;
	int fd = new_memfd(SIZE), i;

	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, crew_init(&crew));
	for (i = 0; i < 4; i++)
		ASSERT_EQ(0, crew_hire(&crew, storm, &fd));
	while (now() < end) {
		size_t off = rand_r(&seed) % (SIZE / MB) * MB;
		size_t page = rand_r(&seed) % (SIZE / PAGE);
		unsigned long t = tag(page);

		ASSERT_EQ(0, punch(fd, off, MB));
		ASSERT_EQ((ssize_t)sizeof(t),
			  pwrite(fd, &t, sizeof(t), page * PAGE));
		if (rand_r(&seed) % 64 == 0) {
			/* Beyond the end there is SIGBUS, so not for long. */
			ASSERT_EQ(0, ftruncate(fd, SIZE + MB));
			ASSERT_EQ(0, ftruncate(fd, SIZE));
		}
	}
	EXPECT_EQ(0, crew_dismiss(&crew));
	close(fd);
}

/* --- death --- */

static void *fault_thread(void *arg)
{
	unsigned int seed = getpid();

	for (;;)
		leave_tag(arg, rand_r(&seed) % (SIZE / PAGE));
	return NULL;
}

static void fault_for_ever(char *p)
{
	pthread_t thread;

	pthread_create(&thread, NULL, fault_thread, p);
	for (;;) {
		leave_tag(p, random() % (SIZE / PAGE));
		madvise(p, SIZE, MADV_DONTNEED);
	}
}

/* Killed at any point of a fault, with all threads; others go on. */
TEST_F(race, sigkill)
{
	int fd = new_memfd(SIZE), i, n;
	pid_t pid[3];
	char *p;
	size_t page;

	ASSERT_GE(fd, 0);
	for (n = 0; n < 30; n++) {
		p = map_at(fd, SIZE, 0, PROT_READ | PROT_WRITE);
		ASSERT_NE(p, MAP_FAILED);
		for (i = 0; i < 3; i++) {
			pid[i] = fork();
			ASSERT_GE(pid[i], 0);
			if (!pid[i])
				fault_for_ever(p);
		}
		/* Sometimes they are the last ones. */
		if (n & 1)
			munmap(p, SIZE);
		ASSERT_EQ(0, punch(fd, 0, SIZE));
		usleep(random() % 20000);
		for (i = 0; i < 3; i++)
			kill(pid[i], SIGKILL);
		for (i = 0; i < 3; i++)
			ASSERT_EQ(pid[i], waitpid(pid[i], NULL, 0));
		if (n & 1)
			continue;
		for (page = 0; page < SIZE / PAGE; page++)
			ASSERT_EQ(0, look(p, page));
		munmap(p, SIZE);
	}
	close(fd);
}

static int child_execs(void *arg)
{
	pthread_t thread;

	pthread_create(&thread, NULL, fault_thread, arg);
	usleep(random() % 5000);
	execl("/bin/true", "true", NULL);
	return 1;
}

/* A thread executes another program while others fault. */
TEST_F(race, exec)
{
	int fd = new_memfd(SIZE), i;
	char *p;

	ASSERT_GE(fd, 0);
	p = map_at(fd, SIZE, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(p, MAP_FAILED);
	for (i = 0; i < 10; i++) {
		ASSERT_EQ(0, punch(fd, 0, SIZE));
		/* The child is the last sharer, or not. */
		if (i & 1) {
			ASSERT_EQ(0, in_child(child_execs, p));
			continue;
		}
		if (!fork()) {
			p = map_at(fd, SIZE, 0, PROT_READ | PROT_WRITE);
			_exit(child_execs(p));
		}
		ASSERT_EQ(0, munmap(p, SIZE));
		ASSERT_EQ(p, mmap(p, SIZE, PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_FIXED, fd, 0));
		ASSERT_LT(0, wait(NULL));
	}
	munmap(p, SIZE);
	close(fd);
}

/* umount succeeds as soon as the last sharer has been killed and reaped. */
TEST_F(race, umount_after_kill)
{
	char dir[] = "/tmp/ptshare-XXXXXX", path[64];
	int fd, i, j;
	pid_t pid[3];
	char *p;

	ASSERT_NE(NULL, mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/file", dir);
	for (i = 0; i < 12; i++) {
		if (mount("none", dir, "tmpfs", 0, NULL))
			SKIP(return, "may not mount");
		fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		ASSERT_GE(fd, 0);
		ASSERT_EQ(0, ftruncate(fd, SIZE));
		p = map_at(fd, SIZE, 0, PROT_READ | PROT_WRITE);
		ASSERT_NE(p, MAP_FAILED);
		close(fd);
		if (i & 1)
			unlink(path);
		for (j = 0; j < 3; j++) {
			pid[j] = fork();
			ASSERT_GE(pid[j], 0);
			if (!pid[j])
				fault_for_ever(p);
		}
		usleep(random() % 20000);
		munmap(p, SIZE);
		for (j = 0; j < 3; j++)
			kill(pid[j], SIGKILL);
		for (j = 0; j < 3; j++)
			ASSERT_EQ(pid[j], waitpid(pid[j], NULL, 0));
		EXPECT_EQ(0, umount(dir)) {
			TH_LOG("umount %d: %s", i, strerror(errno));
			umount2(dir, MNT_DETACH);
		}
	}
	rmdir(dir);
}

#define CGROUP	"/sys/fs/cgroup/"

/* Eats memory of its own until the cgroup has had enough. */
static int child_eats(char *p, const char *procs)
{
	size_t i, page;
	char *q;

	for (page = 0; page < SIZE / PAGE; page++)
		leave_tag(p, page);
	if (write_file(procs, "0"))
		return 1;
	for (i = 0; i < 64; i++) {
		q = mmap(NULL, MB, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
		if (q == MAP_FAILED)
			return 2;
		memset(q, 1, MB);
		if (look(p, i))
			return 3;
	}
	return 0;
}

/*
 * A sharer is killed for want of memory, with the reaper after it, which must
 * let shared memory be (H44): others keep what it wrote.
 */
TEST_F(race, oom)
{
	char dir[64], path[96], procs[96];
	int fd = new_memfd(SIZE), i, status;
	size_t page;
	pid_t pid;
	char *p;

	ASSERT_GE(fd, 0);
	write_file(CGROUP "cgroup.subtree_control", "+memory");
	snprintf(dir, sizeof(dir), CGROUP "ptshare-%d", getpid());
	snprintf(procs, sizeof(procs), "%s/cgroup.procs", dir);
	if (mkdir(dir, 0755))
		SKIP(return, "no cgroups");
	snprintf(path, sizeof(path), "%s/memory.max", dir);
	if (write_file(path, "24M")) {
		rmdir(dir);
		SKIP(return, "no memory cgroups");
	}
	snprintf(path, sizeof(path), "%s/memory.swap.max", dir);
	write_file(path, "0");
	p = map_at(fd, SIZE, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(p, MAP_FAILED);
	for (i = 0; i < 4; i++) {
		memset(p, 0, SIZE);
		pid = fork();
		ASSERT_GE(pid, 0);
		if (!pid)
			_exit(child_eats(p, procs));
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		EXPECT_TRUE(WIFSIGNALED(status));
		for (page = 0; page < SIZE / PAGE; page++)
			ASSERT_EQ(tag(page), *(unsigned long *)
				  (p + page * PAGE));
	}
	munmap(p, SIZE);
	close(fd);
	for (i = 0; i < 100 && rmdir(dir); i++)
		usleep(20000);
	EXPECT_EQ(-1, access(dir, F_OK));
}

/* --- lazy CPUs --- */

/*
 * A thread that waits on a CPU of its own: an idle CPU keeps the address space
 * that it ran last, with all that its TLB and paging-structure caches hold, and
 * is not interrupted when others flush.
 */
struct idler {
	char *p;
	int to[2], from[2];
	unsigned long got;
};

/* Each order: load the word at p, or store @got there if it is not 0. */
static void *idle(void *arg)
{
	struct idler *t = arg;
	char c;

	pin_to_cpu(1);
	while (read(t->to[0], &c, 1) == 1) {
		if (c == 's')
			*(volatile unsigned long *)t->p = t->got;
		else
			t->got = *(volatile unsigned long *)t->p;
		if (write(t->from[1], &c, 1) != 1)
			break;
	}
	return NULL;
}

static int idler_start(struct idler *t, pthread_t *thread)
{
	return pipe(t->to) || pipe(t->from) ||
	       pthread_create(thread, NULL, idle, t);
}

static unsigned long idler_do(struct idler *t, char what)
{
	if (write(t->to[1], &what, 1) != 1 || read(t->from[0], &what, 1) != 1)
		return -1;
	return t->got;
}

static void idler_end(struct idler *t, pthread_t thread)
{
	close(t->to[1]);
	pthread_join(thread, NULL);
	close(t->to[0]);
	close(t->from[0]);
	close(t->from[1]);
}

/* Let the CPU of the idler go idle, with its address space. */
static void let_idle(int n)
{
	if (n & 1)
		usleep(300);
	else
		sched_yield();
}

/*
 * Another thread replaces the mapping meanwhile: the idler wakes up to the new
 * one.  The old tables are freed and reused, as there is no other sharer.
 * Guards the flush that __ptshare_detach() asks for (H7).  What cannot be seen
 * from here is a speculative walk while the CPU idles.
 */
TEST_F(race, lazy_munmap)
{
	struct idler t;
	int fd[2], n;
	pthread_t thread;
	char *q;

	for (n = 0; n < 2; n++) {
		fd[n] = new_memfd(SIZE);
		ASSERT_GE(fd[n], 0);
		ASSERT_EQ(8, pwrite(fd[n], n ? "file 1\0" : "file 0\0", 8,
				    CHUNK));
	}
	t.p = map_at(fd[0], SIZE, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(t.p, MAP_FAILED);
	q = t.p;
	t.p += CHUNK;
	pin_to_cpu(0);
	ASSERT_EQ(0, idler_start(&t, &thread));
	for (n = 0; n < 300; n++) {
		char want[8] = "file 0";

		want[5] += n & 1;
		EXPECT_EQ(*(unsigned long *)want, idler_do(&t, 'l'));
		let_idle(n / 2);
		ASSERT_EQ(0, munmap(q, SIZE));
		ASSERT_EQ(q, mmap(q, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED |
				  MAP_FIXED, fd[~n & 1], 0));
	}
	idler_end(&t, thread);
	munmap(q, SIZE);
	close(fd[0]);
	close(fd[1]);
}

struct punch_test {
	struct idler t;
	int fd;
};

/* In a process of its own, with an idle thread and nothing else to do. */
static int child_idles(volatile int *stop, int nr, void *arg)
{
	struct punch_test *pt = arg;

	pt->t.p = map_at(pt->fd, SIZE, 0, PROT_READ | PROT_WRITE) + CHUNK;
	pt->t.got = tag(CHUNK / PAGE);
	close(pt->t.to[1]);
	close(pt->t.from[0]);
	idle(&pt->t);
	return 0;
}

/*
 * Another process takes the page away meanwhile and gives its frame another
 * use: the idler's store must not go there.  Guards the generation that
 * ptshare_flush_each() leaves for a CPU that is not interrupted.
 */
TEST_F(race, lazy_punch)
{
	struct punch_test pt = {};
	struct crew crew;
	long bad = 0;
	char *p, *c;
	size_t i;
	int n;

	pt.fd = new_memfd(SIZE);
	ASSERT_GE(pt.fd, 0);
	p = map_at(pt.fd, SIZE, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(p, MAP_FAILED);
	ASSERT_EQ(0, pipe(pt.t.to));
	ASSERT_EQ(0, pipe(pt.t.from));
	ASSERT_EQ(0, crew_init(&crew));
	ASSERT_EQ(0, crew_hire(&crew, child_idles, &pt));
	close(pt.t.to[0]);
	close(pt.t.from[1]);
	pin_to_cpu(0);
	for (n = 0; n < 200; n++) {
		idler_do(&pt.t, 's');
		EXPECT_EQ(tag(CHUNK / PAGE), *(unsigned long *)(p + CHUNK));
		let_idle(n);
		ASSERT_EQ(0, punch(pt.fd, CHUNK, 16 * PAGE));
		c = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE |
			 MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
		ASSERT_NE(c, MAP_FAILED);
		memset(c, 0x5c, 64 * PAGE);
		idler_do(&pt.t, 's');
		for (i = 0; i < 64 * PAGE; i += PAGE)
			bad += c[i] != 0x5c;
		munmap(c, 64 * PAGE);
	}
	EXPECT_EQ(0, bad);
	close(pt.t.to[1]);
	EXPECT_EQ(0, crew_dismiss(&crew));
	close(pt.t.from[0]);
	munmap(p, SIZE);
	close(pt.fd);
}

TEST_HARNESS_MAIN

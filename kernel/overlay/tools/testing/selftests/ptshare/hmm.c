// SPDX-License-Identifier: GPL-2.0
/*
 * A device that mirrors a process' page tables (HMM, lib/test_hmm.c) sees shared
 * tables as it would see private ones, and what it does to them in the name of
 * one process does no harm to others.
 */
#include "pt_many.h"

#include <linux/types.h>

#include "../../../../lib/test_hmm_uapi.h"

/* Three chunks and a bit, which has private tables. */
#define SIZE	(6 * MB + 16 * PAGE)
#define NPAGES	(SIZE / PAGE)
#define SOME	64

/* The device, and where it puts what it reads and takes what it writes. */
struct mirror {
	int dev;
	char *buf;
};

FIXTURE(hmm)
{
	int fd;
	char *p;
	struct mirror m;
	struct servant other;
};

static int hmm_call(struct mirror *m, unsigned long request, char *p,
		    size_t npages, struct hmm_dmirror_cmd *cmd)
{
	*cmd = (struct hmm_dmirror_cmd) {
		.addr = (uintptr_t)p,
		.ptr = (uintptr_t)m->buf,
		.npages = npages,
	};
	return ioctl(m->dev, request, cmd) ? -errno : 0;
}

FIXTURE_SETUP(hmm)
{
	pt_opt_in();
	self->m.dev = -1;
	self->fd = new_memfd(SIZE);
	ASSERT_GE(self->fd, 0);
	self->p = map_at(self->fd, SIZE, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(self->p, MAP_FAILED);
	self->m.buf = mmap(NULL, SIZE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(self->m.buf, MAP_FAILED);
	ASSERT_EQ(0, servant_start(&self->other, NULL, NULL));
	/* This process is the one that is mirrored; its child is not. */
	self->m.dev = open("/dev/hmm_dmirror0", O_RDWR | O_CLOEXEC);
	if (self->m.dev < 0)
		SKIP(return, "no HMM test device");
	fill(self->p, SIZE, 1);
}

FIXTURE_TEARDOWN(hmm)
{
	close(self->m.dev);
	servant_end(&self->other);
	munmap(self->p, SIZE);
	munmap(self->m.buf, SIZE);
	close(self->fd);
}

/* What a device reads is what the processes have written last. */
TEST_F(hmm, read)
{
	struct hmm_dmirror_cmd cmd;
	size_t at = 3 * MB;

	ASSERT_EQ(0, hmm_call(&self->m, HMM_DMIRROR_READ, self->p,
			      NPAGES, &cmd));
	EXPECT_EQ(NPAGES, cmd.cpages);
	EXPECT_EQ(-1, check(self->m.buf, SIZE, 1));
	EXPECT_EQ(0, servant_store(&self->other, self->p + at, 77));
	EXPECT_EQ(0, servant_store(&self->other, self->p + SIZE - PAGE, 78));
	ASSERT_EQ(0, hmm_call(&self->m, HMM_DMIRROR_READ, self->p,
			      NPAGES, &cmd));
	EXPECT_EQ(77, self->m.buf[at]);
	EXPECT_EQ(78, self->m.buf[SIZE - PAGE]);
	/* Out of the file with a page: the device must not go on with it. */
	ASSERT_EQ(0, punch(self->fd, at, PAGE));
	ASSERT_EQ(0, hmm_call(&self->m, HMM_DMIRROR_READ, self->p,
			      NPAGES, &cmd));
	EXPECT_EQ(0, self->m.buf[at]);
	EXPECT_EQ(78, self->m.buf[SIZE - PAGE]);
}

/* What a device writes is seen by all. */
TEST_F(hmm, write)
{
	struct hmm_dmirror_cmd cmd;
	char c = 0;

	fill(self->m.buf, SIZE, 5);
	ASSERT_EQ(0, hmm_call(&self->m, HMM_DMIRROR_WRITE, self->p,
			      NPAGES, &cmd));
	EXPECT_EQ(NPAGES, cmd.cpages);
	EXPECT_EQ(0, servant_load(&self->other, self->p + 3 * MB, &c));
	EXPECT_EQ((char)(5 + 3 * MB / PAGE), c);
	EXPECT_EQ(-1, check(self->p, SIZE, 5));
	ASSERT_EQ(0, mprotect(self->p, SIZE, PROT_READ));
	EXPECT_EQ(-EPERM, hmm_call(&self->m, HMM_DMIRROR_WRITE, self->p, NPAGES,
				   &cmd));
	EXPECT_EQ(0, servant_store(&self->other, self->p, 6));
	EXPECT_EQ(6, self->p[0]);
}

/* Permissions of the mirrored process, page by page, present or not. */
TEST_F(hmm, snapshot)
{
	struct hmm_dmirror_cmd cmd;
	char *at = self->p + 2 * MB;
	size_t i;

	for (i = 0; i < SOME; i++)
		at[i * PAGE] = at[i * PAGE];
	ASSERT_EQ(0, hmm_call(&self->m, HMM_DMIRROR_SNAPSHOT, at, SOME, &cmd));
	for (i = 0; i < SOME; i++)
		EXPECT_EQ(HMM_DMIRROR_PROT_WRITE, self->m.buf[i]);

	ASSERT_EQ(0, punch(self->fd, at - self->p, PAGE));
	ASSERT_EQ(0, hmm_call(&self->m, HMM_DMIRROR_SNAPSHOT, at, SOME, &cmd));
	EXPECT_EQ(HMM_DMIRROR_PROT_NONE, self->m.buf[0]);
	EXPECT_EQ(HMM_DMIRROR_PROT_WRITE, self->m.buf[1]);

	ASSERT_EQ(0, mprotect(self->p, SIZE, PROT_READ));
	for (i = 0; i < SOME; i++)
		(void)*(volatile char *)(at + i * PAGE);
	EXPECT_EQ(0, servant_store(&self->other, at, 1));
	ASSERT_EQ(0, hmm_call(&self->m, HMM_DMIRROR_SNAPSHOT, at, SOME, &cmd));
	for (i = 1; i < SOME; i++)
		EXPECT_EQ(HMM_DMIRROR_PROT_READ, self->m.buf[i]);
}

static int child_counts(volatile int *stop, int nr, void *arg)
{
	return crew_count(stop, nr, arg, SIZE);
}

/*
 * Shared memory does not go to a device.  Stock finds that out late and puts
 * pages back that it has unmapped; of a shared table it must unmap none (see
 * migrate_vma_collect_pmd()), which the tracepoint remove_migration_pte tells.
 * Here: nobody loses a page or a write, either way.
 */
TEST_F(hmm, migrate)
{
	struct hmm_dmirror_cmd cmd;
	struct crew crew;
	double end = now() + 3;
	int i;

	for (i = 0; i < 3; i++)
		EXPECT_EQ(0, servant_load(&self->other, self->p + i * CHUNK,
					  NULL));
	EXPECT_EQ(-ENOENT, hmm_call(&self->m, HMM_DMIRROR_MIGRATE_TO_DEV,
				    self->p, NPAGES, &cmd));
	EXPECT_EQ(-1, check(self->p, SIZE, 1));
	for (i = 0; i < 3; i++)
		EXPECT_EQ(0, servant_store(&self->other, self->p + i * CHUNK,
					   1 + i * (CHUNK / PAGE)));
	EXPECT_EQ(-1, check(self->p, SIZE, 1));

	/* The same while others write. */
	memset(self->p, 0, SIZE);
	ASSERT_EQ(0, crew_init(&crew));
	for (i = 0; i < 3; i++)
		ASSERT_EQ(0, crew_hire(&crew, child_counts, self->p));
	while (now() < end)
		EXPECT_EQ(-ENOENT, hmm_call(&self->m, HMM_DMIRROR_MIGRATE_TO_DEV,
					    self->p, NPAGES, &cmd));
	EXPECT_EQ(0, crew_dismiss(&crew));
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/*
 * What can be seen of sharing: /proc/vmstat, debugfs and tracepoints agree
 * with what a process does.
 */
#include "pt_many.h"

#define SIZE	(8 * MB)
#define OWNERS	"/sys/kernel/debug/ptshare/owners"
#define TRACING	"/sys/kernel/tracing/"

/* How many lines of a file have all of two words. */
static int lines_with(const char *path, const char *one, const char *two)
{
	char line[512];
	int n = 0;
	FILE *f = fopen(path, "r");

	while (f && fgets(line, sizeof(line), f))
		n += strstr(line, one) && strstr(line, two);
	if (f)
		fclose(f);
	return n;
}

FIXTURE(see)
{
	int fd;
	char *p;
	char ino[32];
};

FIXTURE_SETUP(see)
{
	struct stat st;

	pt_opt_in();
	if (!sharing())
		SKIP(return, "sharing is off");
	self->fd = new_memfd(SIZE);
	ASSERT_GE(self->fd, 0);
	ASSERT_EQ(0, fstat(self->fd, &st));
	snprintf(self->ino, sizeof(self->ino), "%lu ", st.st_ino);
	self->p = map_at(self->fd, SIZE, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(self->p, MAP_FAILED);
}

FIXTURE_TEARDOWN(see)
{
}

TEST_F(see, vmstat)
{
	long attach = read_key("/proc/vmstat", "ptshare_attach ");
	long detach = read_key("/proc/vmstat", "ptshare_detach ");

	ASSERT_GE(attach, 0);
	fill(self->p, SIZE, 1);
	EXPECT_LE(attach + 4, read_key("/proc/vmstat", "ptshare_attach "));
	EXPECT_LE(4, pt_stat("attached"));
	munmap(self->p, SIZE);
	EXPECT_LE(detach + 4, read_key("/proc/vmstat", "ptshare_detach "));
}

TEST_F(see, owners)
{
	char *q;

	if (access(OWNERS, R_OK))
		SKIP(return, "no debugfs");
	EXPECT_EQ(1, lines_with(OWNERS, self->ino,
				"sharers=1 tables=0 attached=0 memfd:pt"));
	fill(self->p, SIZE, 1);
	q = map_at(self->fd, SIZE, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(q, MAP_FAILED);
	EXPECT_EQ(-1, check(q, SIZE, 1));
	EXPECT_EQ(1, lines_with(OWNERS, self->ino,
				"sharers=2 tables=4 attached=8 memfd:pt"));
	munmap(self->p, SIZE);
	munmap(q, SIZE);
	EXPECT_EQ(0, lines_with(OWNERS, self->ino, "memfd:pt"));
}

TEST_F(see, trace)
{
	char ino[48];

	if (truncate(TRACING "trace", 0) ||
	    write_file(TRACING "events/ptshare/enable", "1"))
		SKIP(return, "no tracing");
	snprintf(ino, sizeof(ino), "ino=%s", self->ino);
	fill(self->p, SIZE, 1);
	fallocate(self->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, PAGE,
		  2 * PAGE);
	munmap(self->p, SIZE);
	write_file(TRACING "events/ptshare/enable", "0");
	EXPECT_LE(4, lines_with(TRACING "trace", "ptshare_attach: ", ino));
	EXPECT_EQ(1, lines_with(TRACING "trace", ino, "pgoff=1-2 sharers=1"));
	EXPECT_LE(4, lines_with(TRACING "trace", "ptshare_detach: ", "addr="));
	EXPECT_EQ(1, lines_with(TRACING "trace", "ptshare_owner_destroy: ",
				ino));
}

TEST_HARNESS_MAIN

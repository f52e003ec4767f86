// SPDX-License-Identifier: GPL-2.0
/*
 * Owners come and go with their sharers, in any order, and leave nothing
 * behind.
 */
#include "pt_util.h"

#include <sys/mount.h>
#include <time.h>

#define SIZE	(8 * MB)

FIXTURE(life)
{
	struct pt_gauges was;
};

FIXTURE_SETUP(life)
{
	pt_opt_in();
	pt_catch();
	self->was = pt_gauges();
}

FIXTURE_TEARDOWN(life)
{
	EXPECT_STREQ("nothing", pt_left_over(&self->was));
}

static int child_use(void *arg)
{
	fill(arg, SIZE, getpid());
	return 0;
}

TEST_F(life, exit_order)
{
	pid_t pid[6];
	int fd = new_memfd(SIZE), i, round;
	char *p;

	ASSERT_GE(fd, 0);
	for (round = 0; round < 5; round++) {
		p = map_at(fd, SIZE, 0, PROT_READ | PROT_WRITE);
		ASSERT_NE(p, MAP_FAILED);
		fill(p, SIZE, round);
		for (i = 0; i < 6; i++) {
			pid[i] = fork();
			ASSERT_GE(pid[i], 0);
			if (!pid[i]) {
				child_use(p);
				if (i & 1)
					pause();
				_exit(0);
			}
		}
		if (round & 1)
			munmap(p, SIZE);
		for (i = 0; i < 6; i++) {
			int n = (i * 5 + round) % 6;

			if (n & 1)
				kill(pid[n], SIGKILL);
			waitpid(pid[n], NULL, 0);
		}
		if (!(round & 1))
			munmap(p, SIZE);
	}
	close(fd);
}

/* A mapping may outlive its file descriptor and its name. */
TEST_F(life, outlive_fd)
{
	int fd = new_memfd(SIZE);
	char *p;

	ASSERT_GE(fd, 0);
	p = map_at(fd, SIZE, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(p, MAP_FAILED);
	close(fd);
	fill(p, SIZE, 3);
	ASSERT_EQ(0, in_child(child_use, p));
	munmap(p, SIZE);
}

/*
 * Join and leave in a loop from several processes: the owner dies and is born
 * again all the time (hazard H13).
 */
static int child_churn(void *arg)
{
	int fd = *(int *)arg, i;

	for (i = 0; i < 300; i++) {
		char *p = map_at(fd, SIZE, 0, PROT_READ | PROT_WRITE);

		if (p == MAP_FAILED)
			return 1;
		p[(i % 4) * CHUNK] = i;
		if (i % 16 == 0 && in_child(child_use, p))
			return 2;
		munmap(p, SIZE);
	}
	return 0;
}

TEST_F(life, churn)
{
	int fd = new_memfd(SIZE), i, status;
	pid_t pid[3];

	ASSERT_GE(fd, 0);
	for (i = 0; i < 3; i++) {
		pid[i] = fork();
		ASSERT_GE(pid[i], 0);
		if (!pid[i])
			_exit(child_churn(&fd));
	}
	for (i = 0; i < 3; i++) {
		waitpid(pid[i], &status, 0);
		EXPECT_EQ(0, status);
	}
	close(fd);
}

/* umount succeeds straight after the last munmap, or exit. */
TEST_F(life, umount)
{
	char dir[] = "/tmp/ptshare-XXXXXX", path[64];
	int fd, i;
	char *p;

	ASSERT_NE(NULL, mkdtemp(dir));
	for (i = 0; i < 4; i++) {
		if (mount("none", dir, "tmpfs", 0, NULL))
			SKIP(return, "may not mount");
		snprintf(path, sizeof(path), "%s/file", dir);
		fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		ASSERT_GE(fd, 0);
		ASSERT_EQ(0, ftruncate(fd, SIZE));
		p = map_at(fd, SIZE, 0, PROT_READ | PROT_WRITE);
		ASSERT_NE(p, MAP_FAILED);
		close(fd);
		fill(p, SIZE, 1);
		if (i & 1) {
			/* The child is the last to have it mapped. */
			pid_t pid = fork();

			ASSERT_GE(pid, 0);
			if (!pid) {
				usleep(100000);
				_exit(check(p, SIZE, 1) >= 0);
			}
			munmap(p, SIZE);
			waitpid(pid, &fd, 0);
			EXPECT_EQ(0, fd);
		} else {
			munmap(p, SIZE);
		}
		EXPECT_EQ(0, umount(dir)) {
			TH_LOG("umount %d: %s", i, strerror(errno));
			umount2(dir, MNT_DETACH);
		}
	}
	rmdir(dir);
}

/* The owner keeps no mount busy but the sharers' own. */
TEST_F(life, bind_mounts)
{
	char dir[] = "/tmp/ptshare-XXXXXX", other[] = "/tmp/ptshare-XXXXXX";
	char path[64];
	char *p, *q;
	int fd;

	ASSERT_NE(NULL, mkdtemp(dir));
	ASSERT_NE(NULL, mkdtemp(other));
	if (mount("none", dir, "tmpfs", 0, NULL))
		SKIP(return, "may not mount");
	ASSERT_EQ(0, mount(dir, other, NULL, MS_BIND, NULL));
	snprintf(path, sizeof(path), "%s/file", dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, ftruncate(fd, SIZE));
	p = map_at(fd, SIZE, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(p, MAP_FAILED);
	close(fd);
	fill(p, SIZE, 1);
	snprintf(path, sizeof(path), "%s/file", other);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	ASSERT_GE(fd, 0);
	q = map_at(fd, SIZE, 0, PROT_READ);
	ASSERT_NE(q, MAP_FAILED);
	close(fd);
	EXPECT_EQ(-1, check(q, SIZE, 1));
	munmap(p, SIZE);
	EXPECT_EQ(0, umount(dir));
	EXPECT_EQ(-1, check(q, SIZE, 1));
	munmap(q, SIZE);
	EXPECT_EQ(0, umount(other));
	rmdir(dir);
	rmdir(other);
}

/* A memfd may be executed while it is mapped, as on stock. */
TEST_F(life, not_a_writer)
{
	char dir[] = "/tmp/ptshare-XXXXXX", path[64];
	char *p;
	int fd;

	ASSERT_NE(NULL, mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/file", dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, ftruncate(fd, SIZE));
	p = map_at(fd, SIZE, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(p, MAP_FAILED);
	fill(p, SIZE, 1);
	/* A write lease needs to be the only opener. */
	EXPECT_EQ(0, fcntl(fd, F_SETLEASE, F_WRLCK)) {
		TH_LOG("lease: %s", strerror(errno));
	}
	fcntl(fd, F_SETLEASE, F_UNLCK);
	munmap(p, SIZE);
	close(fd);
	unlink(path);
	rmdir(dir);
}

/* Holes beyond all reason: a byte in each chunk of a big sparse file (H51). */
TEST_F(life, sparse)
{
	const size_t big = 1024 * MB;
	int fd = new_memfd(big);
	size_t i;
	char *p;

	ASSERT_GE(fd, 0);
	p = map_at(fd, big, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(p, MAP_FAILED);
	for (i = 0; i < big; i += CHUNK)
		p[i] = 1;
	ASSERT_EQ(0, in_child(child_use, p));
	for (i = CHUNK * 4; i < big; i += CHUNK)
		ASSERT_EQ(1, p[i]);
	munmap(p, big);
	close(fd);
}

TEST_HARNESS_MAIN

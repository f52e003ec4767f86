/* SPDX-License-Identifier: GPL-2.0 */
/*
 * For ptshare selftests that turn knobs of the whole system: memory cgroups,
 * text files, and processes that count in shared memory meanwhile.
 */
#ifndef PT_SYSTEM_H
#define PT_SYSTEM_H

#include "pt_many.h"

#define CGROUP	"/sys/fs/cgroup/"

/* A memory cgroup of our own; @dir gets its path. */
static inline bool cgroup_make(char *dir, size_t len)
{
	char file[128];

	write_file(CGROUP "cgroup.subtree_control", "+memory");
	snprintf(dir, len, CGROUP "ptshare-%d", getpid());
	if (mkdir(dir, 0755))
		return false;
	snprintf(file, sizeof(file), "%s/memory.reclaim", dir);
	if (!access(file, W_OK))
		return true;
	rmdir(dir);
	return false;
}

/* Its members are gone, but may not have been reaped entirely. */
static inline int cgroup_remove(const char *dir)
{
	int i;

	for (i = 0; i < 250 && rmdir(dir); i++)
		usleep(20000);
	return access(dir, F_OK) ? 0 : -1;
}

static inline int cgroup_write(const char *dir, const char *file,
			       const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	return write_file(path, text);
}

static inline long cgroup_key(const char *dir, const char *file,
			      const char *key)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	return read_key(path, key);
}

static inline int read_text(const char *path, char *buf, size_t len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = -1;

	buf[0] = 0;
	if (fd < 0)
		return -1;
	n = read(fd, buf, len - 1);
	close(fd);
	if (n < 0)
		return -1;
	buf[n] = 0;
	buf[strcspn(buf, "\n")] = 0;
	return 0;
}

/* --- processes that count in a file: each write must be there next time --- */

struct tally {
	int fd;
	size_t size;
	char *inherited;	/* mapped before, for every other one */
	const char *cgroup;	/* to live in, if any */
};

static inline int tally_count(volatile int *stop, int nr, void *arg)
{
	struct tally *t = arg;
	char *p = t->inherited;

	if (t->cgroup && cgroup_write(t->cgroup, "cgroup.procs", "0"))
		return 2;
	if (nr & 1)
		p = map_at(t->fd, t->size, 0, PROT_READ | PROT_WRITE);
	return p == MAP_FAILED ? 3 : crew_count(stop, nr, p, t->size);
}

static inline int tally_hire(struct crew *crew, struct tally *t, int n)
{
	int i;

	if (crew_init(crew))
		return -1;
	for (i = 0; i < n; i++)
		if (crew_hire(crew, tally_count, t))
			return -1;
	return 0;
}

#endif /* PT_SYSTEM_H */

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * For ptshare selftests with several processes at work: time, numbers in
 * files, a crew of children that works until it is told to stop, and a child
 * that loads and stores on demand.
 */
#ifndef PT_MANY_H
#define PT_MANY_H

#include "pt_util.h"

#include <sched.h>
#include <time.h>

static inline double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static inline int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int ret = -1;

	if (fd < 0)
		return -1;
	if (write(fd, text, strlen(text)) == (ssize_t)strlen(text))
		ret = 0;
	close(fd);
	return ret;
}

/* The number that follows a key in a file of lines "key number", or -1. */
static inline long read_key(const char *path, const char *key)
{
	char line[512];
	long val = -1;
	FILE *f = fopen(path, "r");

	if (!f)
		return -1;
	while (val < 0 && fgets(line, sizeof(line), f))
		if (!strncmp(line, key, strlen(key)))
			val = atol(line + strlen(key));
	fclose(f);
	return val;
}

static inline int punch(int fd, off_t off, off_t len)
{
	return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off,
			 len);
}

/* This thread goes to a CPU, modulo those that there are; which one. */
static inline int pin_to_cpu(int n)
{
	cpu_set_t allowed, one;
	int cpu, nr;

	if (sched_getaffinity(0, sizeof(allowed), &allowed))
		return -1;
	nr = CPU_COUNT(&allowed);
	for (cpu = 0, n %= nr; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &allowed) && !n--)
			break;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	sched_setaffinity(0, sizeof(one), &one);
	return cpu;
}

/* --- memory cgroups: where reclaim takes what several processes map --- */

#define CGROUP	"/sys/fs/cgroup/"

/* Its directory goes to @dir, with a few bytes to spare in @len. */
static inline bool make_cgroup(char *dir, size_t len)
{
	write_file(CGROUP "cgroup.subtree_control", "+memory");
	snprintf(dir, len, CGROUP "ptshare-%d", getpid());
	if (mkdir(dir, 0755))
		return false;
	strcat(dir, "/memory.reclaim");
	if (!access(dir, W_OK)) {
		*strrchr(dir, '/') = 0;
		return true;
	}
	*strrchr(dir, '/') = 0;
	rmdir(dir);
	return false;
}

/* --- a crew: children that run until *stop, status 0 when all is well --- */

#define MAX_CREW	16

struct crew {
	volatile int *stop;
	pid_t pid[MAX_CREW];
	int n;
};

static inline int crew_init(struct crew *crew)
{
	crew->n = 0;
	crew->stop = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return crew->stop == MAP_FAILED;
}

static inline int crew_hire(struct crew *crew,
			    int (*fn)(volatile int *stop, int nr, void *arg),
			    void *arg)
{
	int nr = crew->n;
	pid_t pid = fork();

	if (!pid) {
		/* Nobody else would stop it. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(fn(crew->stop, nr, arg));
	}
	crew->pid[crew->n++] = pid;
	return pid < 0;
}

/* Stop all; how many ended badly. */
static inline int crew_dismiss(struct crew *crew)
{
	int i, status, bad = 0;

	*crew->stop = 1;
	for (i = 0; i < crew->n; i++) {
		if (waitpid(crew->pid[i], &status, 0) == crew->pid[i] &&
		    !status)
			continue;
		fprintf(stderr, "# crew member %d: status %#x\n", i, status);
		bad++;
	}
	crew->n = 0;
	munmap((void *)crew->stop, PAGE);
	return bad;
}

/*
 * A child counts in words of its own, one in each page, and looks whether the
 * page still holds what it counted last.  Store and load find a write that
 * went to a page which is not, or no longer, the file's.
 */
static inline int crew_count(volatile int *stop, int nr, char *p, size_t len)
{
	unsigned long n = 0;
	size_t i;

	while (!*stop) {
		for (i = 0; i < len && !*stop; i += PAGE) {
			volatile unsigned long *w = (void *)(p + i + 8 * nr);

			/* The last round may have been stopped half-way. */
			if (*w != n)
				return 1;
			*w = n + 1;
		}
		if (i >= len)
			n++;
	}
	return 0;
}

/* --- a child that does on demand what may raise a signal --- */

struct order {
	char what;	/* 'l'oad, 's'tore */
	char val;	/* stored, or loaded */
	int sig;	/* raised */
	char *addr;
};

struct servant {
	pid_t pid;
	int to, from;
};

static inline void servant_loop(int in, int out)
{
	struct order o;

	while (read(in, &o, sizeof(o)) == sizeof(o)) {
		if (o.what == 'l')
			o.sig = try_load(o.addr, &o.val);
		else
			o.sig = try_store(o.addr, o.val);
		if (write(out, &o, sizeof(o)) != sizeof(o))
			break;
	}
}

/* @enter, if any, runs first in the child. */
static inline int servant_start(struct servant *s, void (*enter)(void *),
				void *arg)
{
	int to[2], from[2];

	if (pipe(to) || pipe(from))
		return -1;
	s->pid = fork();
	if (!s->pid) {
		close(to[1]);
		close(from[0]);
		if (enter)
			enter(arg);
		servant_loop(to[0], from[1]);
		_exit(0);
	}
	close(to[0]);
	close(from[1]);
	s->to = to[1];
	s->from = from[0];
	return s->pid < 0;
}

static inline int servant_load(struct servant *s, char *addr, char *val)
{
	struct order o = { .what = 'l', .addr = addr };

	if (write(s->to, &o, sizeof(o)) != sizeof(o) ||
	    read(s->from, &o, sizeof(o)) != sizeof(o))
		return -1;
	if (val)
		*val = o.val;
	return o.sig;
}

static inline int servant_store(struct servant *s, char *addr, char val)
{
	struct order o = { .what = 's', .addr = addr, .val = val };

	if (write(s->to, &o, sizeof(o)) != sizeof(o) ||
	    read(s->from, &o, sizeof(o)) != sizeof(o))
		return -1;
	return o.sig;
}

static inline int servant_end(struct servant *s)
{
	int status = -1;

	close(s->to);
	waitpid(s->pid, &status, 0);
	close(s->from);
	return status;
}

#endif /* PT_MANY_H */

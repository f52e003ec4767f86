/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The model of random.c: what files hold, what workers map, and the claims that
 * keep operations of one step apart.  Also the random numbers and how to fail.
 */
#ifndef RANDOM_MODEL_H
#define RANDOM_MODEL_H

#include <stdarg.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "../kselftest.h"
#include "random_worker.h"

#define CHUNK		512U		/* pages */
#define ARENA_PAGES	(24 * CHUNK)
#define MAX_PAGES	(8 * CHUNK)	/* of a file, and of what maps it */
#define MAX_LOCKED	256U		/* pages, of a worker */
#define NFILES		4
#define HISTORY		20		/* steps told of when one fails */
#define ANY		0xffffffffU	/* version: nobody knows */

/* Far from what the kernel chooses; a 1 GiB boundary in the middle. */
#define ARENA		(0x10040000000UL - ARENA_PAGES / 2 * PAGE)
#define HOME(f)		(0x20000000000UL + (f) * 0x4000000UL)

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif
#ifndef MADV_PTSHARE
#define MADV_PTSHARE	200
#define MADV_NOPTSHARE	201
#endif

/* How an operation uses a page: soft is what one access does atomically. */
enum { READ_SOFT = 1, READ_HARD = 2, WRITE_SOFT = 4, WRITE_HARD = 8 };

struct fpage {
	uint32_t v[2], old[2];		/* versions now and before this step */
	unsigned int changed, claimed;	/* in which step */
	uint8_t claims;
};

static struct file {
	enum { MEMFD, ANON, SYSV } type;
	int fd, rofd, shmid;
	unsigned long ino, size, oldsize;
	struct fpage p[MAX_PAGES];
} files[NFILES];

enum { MAYWRITE = 1, LOCKED = 2, DONTFORK = 4 };

struct vpage {
	uint8_t file;			/* number + 1, or 0: nothing mapped */
	uint8_t prot, flags;
	uint16_t pg;
};

/* What a worker is told to do, and what it should answer. */
struct op {
	struct cmd cmd;
	const char *name;
	int nargs;
	long want, also[2];		/* results */
	bool any;			/* whatever the result */
	bool remaps;			/* old mappings vanish for a moment */
	bool spin, kill;
	unsigned int at, n;		/* pages of the arena it is about ... */
	int target;			/* ... of this worker, if not its own */
	unsigned int bytes;		/* to compare of what was copied ... */
	struct vpage src[MAX_COPY];	/* ... from these pages */
};

static struct worker {
	pid_t pid;			/* 0: none */
	/* In this step: */
	bool busy;			/* has an operation */
	bool reserved;			/* will be born */
	bool watched, changed;		/* others see its mappings, they change */
	struct op op;
	struct vpage v[ARENA_PAGES], old[ARENA_PAGES];
} workers[MAX_WORKERS];

static struct {
	unsigned long seed, steps, seconds, mb;
	int workers;
	bool verbose, system;
} opt;

static uint64_t rng;
static unsigned int stepno, version, nops;
static bool hot;			/* contents vanish in this step */
static bool force_works;		/* /proc/PID/mem reads PROT_NONE */
static char history[HISTORY][2048];
static char cgroup[64];

static unsigned int rnd(unsigned int n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (rng * 0x2545f4914f6cdd1dUL >> 33) % n;
}

static bool one_in(unsigned int n)
{
	return !rnd(n);
}

/* Into the history: one line for each operation. */
static void __attribute__((format(printf, 1, 2))) say(const char *fmt, ...)
{
	char *h = history[stepno % HISTORY];
	size_t len = strlen(h);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(h + len, sizeof(history[0]) - len, fmt, ap);
	va_end(ap);
	if (opt.verbose)
		printf("%s", h + len);
}

static void leave_cgroup(void)
{
	FILE *f = cgroup[0] ? fopen("/sys/fs/cgroup/cgroup.procs", "w") : NULL;

	if (!f)
		return;
	fprintf(f, "%d\n", getpid());
	fclose(f);
	rmdir(cgroup);
}

static void end_workers(void)
{
	int i;

	for (i = 0; i < MAX_WORKERS; i++) {
		if (!workers[i].pid)
			continue;
		kill(workers[i].pid, SIGKILL);
		waitpid(workers[i].pid, NULL, 0);
		workers[i].pid = 0;
	}
	leave_cgroup();
}

static void __attribute__((noreturn, format(printf, 1, 2)))
fail(const char *fmt, ...)
{
	unsigned int i;
	va_list ap;

	printf("# FAILED in step %u of --seed %lu --workers %d%s", stepno,
	       opt.seed, opt.workers, opt.system ? " --system" : "");
	if (opt.mb)
		printf(" -m %lu", opt.mb);
	printf("\n# The last steps:\n");
	for (i = stepno < HISTORY ? 1 : stepno - HISTORY + 1; i <= stepno; i++)
		printf("%s", history[i % HISTORY]);
	printf("# ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	end_workers();
	fflush(stdout);
	_exit(1);
}

static void must(bool ok, const char *what)
{
	if (!ok)
		fail("%s: %s", what, strerror(errno));
}

/* --- model: files --- */

static uint64_t stamp(int file, unsigned int pg, uint32_t v, int word)
{
	/* The first byte of a head is the return instruction of x86. */
	return v ? (uint64_t)v << 32 | pg << 16 | file << 8 |
		   (word ? 0x3c : 0xc3) : 0;
}

static bool exists(unsigned int pg, unsigned long size)
{
	return pg * PAGE < size;
}

static bool claim(struct file *f, unsigned int pg, unsigned int n, int how)
{
	int clash = how == READ_SOFT ? WRITE_HARD :
		    how == READ_HARD ? WRITE_SOFT | WRITE_HARD :
		    how == WRITE_SOFT ? READ_HARD | WRITE_SOFT | WRITE_HARD :
		    0xf;
	struct fpage *p;

	for (p = f->p + pg; n && p < f->p + MAX_PAGES; p++, n--) {
		if (p->claimed != stepno)
			p->claims = 0;
		p->claimed = stepno;
		if (p->claims & clash)
			return false;
		p->claims |= how;
	}
	return true;
}

static void set_word(struct fpage *p, int word, uint32_t v)
{
	if (p->changed != stepno) {
		memcpy(p->old, p->v, sizeof(p->v));
		p->changed = stepno;
	}
	p->v[word] = v;
}

/* A store to a mapping: what lies behind the end of file is nobody's. */
static void set_page(struct file *f, unsigned int pg, uint32_t v)
{
	set_word(&f->p[pg], 0, v);
	set_word(&f->p[pg], 1, (pg + 1) * PAGE > f->size ? ANY : v);
}

static void zero_bytes(struct file *f, unsigned long from, unsigned long to)
{
	unsigned int pg;
	int word;

	for (pg = from / PAGE; pg < MAX_PAGES && pg * PAGE < to; pg++)
		for (word = 0; word < 2; word++)
			if (pg * PAGE + word * TAIL >= from &&
			    pg * PAGE + word * TAIL < to && f->p[pg].v[word]) {
				set_word(&f->p[pg], word, 0);
				hot = true;
			}
}

/* Pages that are changed as a whole change atomically, others do not. */
static bool claim_bytes(struct file *f, unsigned long from, unsigned long to)
{
	unsigned int first = from / PAGE, end = (to + PAGE - 1) / PAGE;

	if (from % PAGE && !claim(f, first++, 1, WRITE_HARD))
		return false;
	if (to % PAGE && end > first && !claim(f, --end, 1, WRITE_HARD))
		return false;
	return end <= first || claim(f, first, end - first, WRITE_SOFT);
}

/* A write or fallocate() behind the end: others may do so as well. */
static bool grow(struct file *f, unsigned long size)
{
	if (!claim_bytes(f, f->size, (size + PAGE - 1) & ~(PAGE - 1)))
		return false;
	f->size = size;
	return true;
}

/* Nobody else may make the file grow: who comes last would matter. */
static bool truncate_file(struct file *f, unsigned long size)
{
	unsigned long from = size < f->size ? size : f->size;

	if (!claim_bytes(f, from, MAX_PAGES * PAGE))
		return false;
	if (size < f->size)
		zero_bytes(f, size, MAX_PAGES * PAGE);
	f->size = size;
	return true;
}

/* --- model: address spaces --- */

static uint64_t va(unsigned int at)
{
	return ARENA + at * PAGE;
}

static struct file *file_of(const struct vpage *v)
{
	return &files[v->file - 1];
}

static bool mapped(const struct vpage *v)
{
	return v->file;
}

static bool page_exists(const struct vpage *v)
{
	return exists(v->pg, file_of(v)->size);
}

static bool usable(const struct vpage *v, int prot)
{
	return mapped(v) && (v->prot & prot) == prot && page_exists(v);
}

/* The same mapping continues from a to b. */
static bool continues(const struct vpage *a, const struct vpage *b)
{
	return mapped(a) && a->file == b->file && a->prot == b->prot &&
	       a->flags == b->flags && a->pg + 1 == b->pg;
}

static void set_holes(struct worker *w, unsigned int at, unsigned int n)
{
	memset(w->v + at, 0, n * sizeof(w->v[0]));
}

static void set_pages(struct worker *w, unsigned int at, unsigned int n,
		      struct vpage v)
{
	for (; n--; v.pg++)
		w->v[at++] = v;
}

static unsigned int locked_pages(struct worker *w)
{
	unsigned int i, n = 0;

	for (i = 0; i < ARENA_PAGES; i++)
		n += !!(w->v[i].flags & LOCKED);
	return n;
}

#endif /* RANDOM_MODEL_H */

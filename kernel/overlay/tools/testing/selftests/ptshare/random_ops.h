/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The operations of random.c.  A generator chooses arguments, claims what the
 * operation touches, foretells its result and changes the model.  If it cannot
 * it returns false, having changed nothing but mappings, which are put back.
 */
#ifndef RANDOM_OPS_H
#define RANDOM_OPS_H

#include <sys/ipc.h>
#include <sys/shm.h>

#include "random_model.h"

/* --- choosing --- */

static int rnd_prot(void)
{
	static const int prots[] = {
		PROT_READ, PROT_READ, PROT_READ | PROT_EXEC, PROT_NONE,
		PROT_READ | PROT_WRITE | PROT_EXEC,
	};

	return one_in(2) ? PROT_READ | PROT_WRITE :
			   prots[rnd(ARRAY_SIZE(prots))];
}

static unsigned int pick_mapped(struct worker *w)
{
	unsigned int at = 0, i;

	for (i = 0; i < 16; i++) {
		at = rnd(ARENA_PAGES);
		if (mapped(&w->v[at]))
			break;
	}
	return at;
}

/* A range of the arena: tiny, whole chunks, or what one mapping covers. */
static void pick_range(struct worker *w, unsigned int *at, unsigned int *n)
{
	unsigned int i = pick_mapped(w), end = i + 1, kind = rnd(8);

	if (kind < 2) {
		*at = kind ? i : rnd(ARENA_PAGES);
		*n = 1 + rnd(kind ? 700 : 8);
	} else if (kind < 4) {
		*at = i / CHUNK * CHUNK;
		*n = CHUNK * (1 + rnd(kind == 2 ? 1 : 4));
	} else {
		while (i && continues(&w->v[i - 1], &w->v[i]))
			i--;
		while (end < ARENA_PAGES &&
		       continues(&w->v[end - 1], &w->v[end]))
			end++;
		*at = i + (kind == 4 ? 0 : rnd(end - i));
		*n = end - *at;
		if (kind == 6)
			*n = 1 + rnd(*n);
		else if (kind == 7)
			*n += rnd(10);
	}
	if (*n > ARENA_PAGES - *at)
		*n = ARENA_PAGES - *at;
}

/* Where to map @n pages beginning with page @pg: mostly congruent. */
static unsigned int pick_place(unsigned int n, unsigned int pg)
{
	unsigned int at = rnd(ARENA_PAGES - n + 1);

	if (one_in(4))
		return at;
	at = at / CHUNK * CHUNK + pg % CHUNK;
	return at + n <= ARENA_PAGES ? at : ARENA_PAGES - n;
}

static struct worker *pick_worker(void)
{
	struct worker *w;

	do
		w = &workers[rnd(MAX_WORKERS)];
	while (!w->pid);
	return w;
}

static int count_workers(void)
{
	int i, n = 0;

	for (i = 0; i < MAX_WORKERS; i++)
		n += !!workers[i].pid;
	return n;
}

/* --- operations: each makes its command and changes the model --- */

#define SYSCALL(o, call, ...) do {					\
	const uint64_t _args[] = { __VA_ARGS__ };			\
									\
	(o)->cmd.what = DO_SYSCALL;					\
	(o)->cmd.nr = SYS_##call;					\
	(o)->name = #call;						\
	(o)->nargs = ARRAY_SIZE(_args);					\
	memcpy((o)->cmd.arg, _args, sizeof(_args));			\
} while (0)

#define SPECIAL(o, cmnd, ...) do {					\
	const uint64_t _args[] = { __VA_ARGS__ };			\
									\
	(o)->cmd.what = cmnd;						\
	(o)->name = #cmnd;						\
	(o)->nargs = ARRAY_SIZE(_args);					\
	memcpy((o)->cmd.arg, _args, sizeof(_args));			\
} while (0)

/* The mappings of @w will change: nobody else may look at them. */
static bool change(struct worker *w, struct op *o, unsigned int at,
		   unsigned int n)
{
	if (w->watched)
		return false;
	w->changed = true;
	o->at = at;
	o->n = n;
	return true;
}

static bool gen_map_home(struct worker *w, struct op *o, int fnum,
			 struct vpage v, unsigned int n)
{
	unsigned int at = pick_place(n, v.pg);

	if (!change(w, o, at, n))
		return false;
	SYSCALL(o, mremap, HOME(fnum) + v.pg * PAGE, 0, n * PAGE,
		MREMAP_MAYMOVE | MREMAP_FIXED, va(at));
	v.prot = PROT_READ | PROT_WRITE;
	set_pages(w, at, n, v);
	o->want = va(at);
	return true;
}

static bool gen_shmat(struct worker *w, struct op *o, struct file *f,
		      struct vpage v)
{
	unsigned int n = f->size / PAGE, at = pick_place(n, 0);
	int flags = SHM_REMAP;

	if (!change(w, o, at, n))
		return false;
	v.pg = 0;
	v.prot = PROT_READ | PROT_WRITE;
	if (one_in(3)) {
		flags |= SHM_RDONLY;
		v.prot = PROT_READ;
		v.flags = 0;
	}
	if (one_in(4)) {
		flags |= SHM_EXEC;
		v.prot |= PROT_EXEC;
	}
	SYSCALL(o, shmat, f->shmid, va(at), flags);
	set_pages(w, at, n, v);
	o->want = va(at);
	return true;
}

static bool gen_mmap(struct worker *w, struct op *o)
{
	int fnum = rnd(NFILES), flags = MAP_SHARED | MAP_FIXED;
	struct file *f = &files[fnum];
	unsigned int at, n = f->size / PAGE + !!(f->size % PAGE || !f->size);
	struct vpage v = { .file = fnum + 1, .flags = MAYWRITE };

	o->remaps = true;
	if (one_in(3)) {
		v.pg = rnd(f->type == MEMFD ? MAX_PAGES : n);
		n = 1 + rnd(MAX_PAGES - v.pg);
	} else if (one_in(3)) {
		v.pg = rnd(n);
		n -= v.pg;
	}
	if (f->type == SYSV && one_in(2))
		return gen_shmat(w, o, f, v);
	if (f->type != MEMFD)
		return gen_map_home(w, o, fnum, v, n);

	at = pick_place(n, v.pg);
	v.prot = rnd_prot();
	if (one_in(6))
		v.flags = 0;
	if (one_in(10))
		flags |= MAP_POPULATE;
	SYSCALL(o, mmap, va(at), n * PAGE, v.prot, flags,
		v.flags ? f->fd : f->rofd, v.pg * PAGE);
	o->want = va(at);
	if (!v.flags && v.prot & PROT_WRITE) {
		o->want = -EACCES;
		return true;
	}
	if (!change(w, o, at, n))
		return false;
	set_pages(w, at, n, v);
	return true;
}

static bool gen_munmap(struct worker *w, struct op *o)
{
	unsigned int at, n;

	pick_range(w, &at, &n);
	if (!change(w, o, at, n))
		return false;
	o->remaps = true;
	SYSCALL(o, munmap, va(at), n * PAGE);
	set_holes(w, at, n);
	return true;
}

static bool gen_mprotect(struct worker *w, struct op *o)
{
	unsigned int at, n, i;
	int prot = rnd_prot();

	pick_range(w, &at, &n);
	if (!change(w, o, at, n))
		return false;
	SYSCALL(o, mprotect, va(at), n * PAGE, prot);
	for (i = at; i < at + n && !o->want; i++) {
		if (!mapped(&w->v[i]))
			o->want = -ENOMEM;
		else if (prot & PROT_WRITE && !(w->v[i].flags & MAYWRITE))
			o->want = -EACCES;
		else
			w->v[i].prot = prot;
	}
	return true;
}

/*
 * Which pages one VMA covers around @at is the kernel's business, mremap()
 * depends on it, so ask.  Returns where it ends.
 */
static unsigned int vma_end(struct worker *w, unsigned int at)
{
	unsigned long from, to;
	char line[512];
	FILE *maps;

	snprintf(line, sizeof(line), "/proc/%d/maps", w->pid);
	maps = fopen(line, "r");
	must(maps, line);
	while (fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx", &from, &to) != 2 || to <= va(at))
			continue;
		if (from > va(at))
			break;
		fclose(maps);
		return (to - ARENA) / PAGE;
	}
	fail("worker %d has nothing mapped at %lx", (int)(w - workers), va(at));
}

static bool gen_mremap_in_place(struct worker *w, struct op *o, unsigned int at,
				unsigned int n, unsigned int end)
{
	struct vpage v = w->v[at];
	unsigned int i, m = 1 + rnd(n + (one_in(2) ? 0 : 600));

	if (m > n && v.flags & LOCKED)
		return false;	/* would lock more */
	if (m > ARENA_PAGES - at)
		m = ARENA_PAGES - at;
	if (m > MAX_PAGES - v.pg)
		m = MAX_PAGES - v.pg;
	SYSCALL(o, mremap, va(at), n * PAGE, m * PAGE, 0);
	o->want = va(at);
	if (m <= n) {
		set_holes(w, at + m, n - m);
		return true;
	}
	for (i = at + n; i < at + m; i++)
		if (at + n < end || mapped(&w->v[i]))
			o->want = -ENOMEM;
	if (o->want == (long)va(at))
		set_pages(w, at, m, v);
	return true;
}

static bool gen_mremap(struct worker *w, struct op *o)
{
	unsigned int at = pick_mapped(w), to, n, m, end;
	int kind = rnd(6), flags = MREMAP_MAYMOVE | MREMAP_FIXED;
	struct vpage v = w->v[at];

	if (!mapped(&v) || !change(w, o, 0, ARENA_PAGES))
		return false;
	if (one_in(2))	/* from the beginning of what looks like a mapping */
		while (at && continues(&w->v[at - 1], &w->v[at]))
			at--;
	v = w->v[at];
	o->remaps = true;
	end = vma_end(w, at);
	n = one_in(2) ? end - at : 1 + rnd(end - at);
	if (kind < 2)
		return gen_mremap_in_place(w, o, at, n, end);
	m = kind == 5 && !(v.flags & LOCKED) ? 1 + rnd(n + 300) : n;
	if (m > MAX_PAGES - v.pg)
		m = MAX_PAGES - v.pg;
	to = pick_place(m, v.pg);
	if (to <= at + n && at <= to + m)
		return false;
	if (kind >= 3 && kind <= 4 && v.flags & LOCKED)
		return false;
	SYSCALL(o, mremap, va(at), (kind == 4 ? 0 : n) * PAGE, m * PAGE,
		flags | (kind == 3 ? MREMAP_DONTUNMAP : 0), va(to));
	o->want = va(to);
	set_pages(w, to, m, v);
	if (kind == 2 || kind == 5)
		set_holes(w, at, n);
	return true;
}

/* What madvise() says for a range, with the errors of single pages. */
static long advise(struct worker *w, unsigned int at, unsigned int n,
		   long on_locked, long on_mapped)
{
	long ret = 0;

	for (; n--; at++) {
		if (!mapped(&w->v[at]))
			ret = -ENOMEM;
		else if (w->v[at].flags & LOCKED && on_locked)
			return on_locked;
		else if (on_mapped)
			return on_mapped;
	}
	return ret;
}

static bool gen_remove(struct worker *w, struct op *o, unsigned int at,
		       unsigned int n)
{
	struct vpage *v, *end = w->v + at + n;

	o->at = at;
	o->n = n;
	for (v = w->v + at; v < end; v++) {
		if (!mapped(v)) {
			o->want = -ENOMEM;
		} else if (v->flags & LOCKED || !(v->flags & MAYWRITE)) {
			o->want = v->flags & LOCKED ? -EINVAL : -EACCES;
			end = v;
		} else if (!claim(file_of(v), v->pg, 1, WRITE_SOFT)) {
			return false;
		}
	}
	for (v = w->v + at; v < end; v++)
		if (mapped(v))
			zero_bytes(file_of(v), v->pg * PAGE,
				   (v->pg + 1) * PAGE);
	return true;
}

/* Faults pages in: the first that it cannot is told. */
static bool gen_populate(struct worker *w, struct op *o, unsigned int at,
			 unsigned int n, int prot)
{
	struct vpage *v;

	for (v = w->v + at; n-- && !o->want; v++) {
		if (!mapped(v)) {
			o->want = -ENOMEM;
		} else if (!(v->prot & prot)) {
			o->want = -EINVAL;
		} else {
			if (!page_exists(v))
				o->want = -EFAULT;
			if (!claim(file_of(v), v->pg, 1, READ_HARD))
				return false;
		}
	}
	return true;
}

static void gen_dontfork(struct worker *w, struct op *o, unsigned int at,
			 unsigned int n, bool dont)
{
	struct vpage *v;

	for (v = w->v + at; n--; v++) {
		if (!mapped(v))
			o->want = -ENOMEM;
		else
			v->flags = (v->flags & ~DONTFORK) | dont * DONTFORK;
	}
}

static bool gen_madvise(struct worker *w, struct op *o)
{
	static const int advices[] = {
		MADV_DONTNEED, MADV_DONTNEED, MADV_PAGEOUT, MADV_PAGEOUT,
		MADV_COLD, MADV_WILLNEED, MADV_FREE, MADV_REMOVE, MADV_REMOVE,
		MADV_POPULATE_READ, MADV_POPULATE_WRITE, MADV_DONTFORK,
		MADV_DOFORK, MADV_DOFORK, MADV_COLLAPSE, MADV_RANDOM,
		MADV_NORMAL, MADV_DONTDUMP, MADV_DODUMP, MADV_HUGEPAGE,
		MADV_NOHUGEPAGE, MADV_NOHUGEPAGE, MADV_DONTNEED_LOCKED,
		MADV_PTSHARE, MADV_PTSHARE, MADV_NOPTSHARE,
	};
	int advice = advices[rnd(ARRAY_SIZE(advices))];
	unsigned int at, n, i;

	pick_range(w, &at, &n);
	SYSCALL(o, madvise, va(at), n * PAGE, advice);
	switch (advice) {
	case MADV_REMOVE:
		return gen_remove(w, o, at, n);
	case MADV_POPULATE_READ:
		return gen_populate(w, o, at, n, PROT_READ);
	case MADV_POPULATE_WRITE:
		return gen_populate(w, o, at, n, PROT_WRITE);
	case MADV_DONTFORK:
	case MADV_DOFORK:
		gen_dontfork(w, o, at, n, advice == MADV_DONTFORK);
		return change(w, o, at, n);
	case MADV_DONTNEED:
	case MADV_PAGEOUT:
	case MADV_COLD:
		o->want = advise(w, at, n, -EINVAL, 0);
		break;
	case MADV_FREE:
		o->want = advise(w, at, n, 0, -EINVAL);
		break;
	case MADV_COLLAPSE:
		o->any = true;
		__attribute__((fallthrough));
	case MADV_HUGEPAGE:
		/* A PMD that maps a huge page does not stop at end of file. */
		for (i = at; i < at + n; i++)
			if (mapped(&w->v[i]) &&
			    (file_of(&w->v[i])->type == MEMFD ||
			     !page_exists(&w->v[i])))
				return false;
		__attribute__((fallthrough));
	case MADV_NOHUGEPAGE:
	case MADV_PTSHARE:
	case MADV_NOPTSHARE:
		o->also[0] = -EINVAL;
		__attribute__((fallthrough));
	default:
		o->want = advise(w, at, n, 0, 0);
	}
	o->at = at;
	o->n = n;
	return true;
}

static bool gen_mlock(struct worker *w, struct op *o)
{
	int what = rnd(4);		/* 0: lock, 1: on fault, else unlock */
	unsigned int at, n, i;

	pick_range(w, &at, &n);
	if (what < 2 && n > MAX_LOCKED)
		n = MAX_LOCKED;
	if (what < 2 && locked_pages(w) + n > MAX_LOCKED)
		return false;
	if (!change(w, o, at, n))
		return false;
	if (what < 2)
		SYSCALL(o, mlock2, va(at), n * PAGE, what);
	else
		SYSCALL(o, munlock, va(at), n * PAGE);
	for (i = at; i < at + n && mapped(&w->v[i]); i++) {
		w->v[i].flags &= ~LOCKED;
		w->v[i].flags |= what < 2 ? LOCKED : 0;
		if (!what && (!w->v[i].prot || !page_exists(&w->v[i])))
			o->want = -ENOMEM;
		if (!what && !claim(file_of(&w->v[i]), w->v[i].pg, 1,
				    READ_HARD))
			o->any = true;
	}
	if (i < at + n)
		o->want = -ENOMEM;
	return true;
}

static bool gen_msync(struct worker *w, struct op *o)
{
	int flags = one_in(2) ? MS_ASYNC : MS_SYNC;
	unsigned int at, n;

	pick_range(w, &at, &n);
	o->at = at;
	o->n = n;
	if (one_in(2)) {
		SYSCALL(o, mincore, va(at), n * PAGE, (uintptr_t)copy_buf);
		o->want = advise(w, at, n, 0, 0);
		return true;
	}
	flags |= one_in(2) ? MS_INVALIDATE : 0;
	SYSCALL(o, msync, va(at), n * PAGE, flags);
	o->want = advise(w, at, n, flags & MS_INVALIDATE ? -EBUSY : 0, 0);
	return true;
}

static bool gen_uffd(struct worker *w, struct op *o)
{
	unsigned int at, n;

	pick_range(w, &at, &n);
	SPECIAL(o, DO_UFFD, va(at), n * PAGE);
	o->any = true;
	/* A helper that faults meanwhile would wait for an answer. */
	o->cmd.helper = false;
	return change(w, o, at, n);
}

static unsigned long rnd_size(void)
{
	unsigned long size = (1 + rnd(MAX_PAGES)) * PAGE;

	if (one_in(4))
		size &= ~(CHUNK * PAGE - 1);
	if (one_in(3))
		size -= PAGE / 2;
	return size < MAX_PAGES * PAGE ? size : MAX_PAGES * PAGE;
}

static bool gen_truncate(struct worker *w, struct op *o)
{
	struct file *f = &files[rnd(NFILES)];
	unsigned long size = rnd_size();

	if (f->type != MEMFD)
		return false;
	/* Large files are more fun. */
	if (size < 2 * CHUNK * PAGE && !one_in(4))
		size += 4 * CHUNK * PAGE;
	SYSCALL(o, ftruncate, f->fd, size);
	return truncate_file(f, size);
}

static bool gen_fallocate(struct worker *w, struct op *o)
{
	struct file *f = &files[rnd(NFILES)];
	unsigned long from = rnd_size(), to = from;
	int mode = rnd(4);	/* 1: keep the size, 2, 3: punch a hole */

	if (f->type != MEMFD)
		return false;
	to += one_in(2) ? PAGE * rnd(2 * CHUNK) : PAGE / 2 * rnd(64);
	if (to > MAX_PAGES * PAGE)
		to = MAX_PAGES * PAGE;
	if (to <= from)
		return false;
	if (mode > 1)
		mode = 3;
	else if (to - from > 100 * PAGE)
		to = from + 100 * PAGE;
	SYSCALL(o, fallocate, f->fd, mode, from, to - from);
	if (mode == 3) {
		if (!claim_bytes(f, from, to))
			return false;
		zero_bytes(f, from, to);
	} else if (!mode && to > f->size) {
		return grow(f, to);
	} else if (!mode) {
		return claim(f, from / PAGE, (to - from) / PAGE + 1, READ_HARD);
	}
	return true;
}

/* Takes contents away that this worker maps, and others probably, too. */
static bool gen_hole(struct worker *w, struct op *o)
{
	unsigned int at, n, tries = 0;
	struct vpage *v;
	struct file *f;

	do {
		at = pick_mapped(w);
		v = &w->v[at];
		f = file_of(v);
	} while ((!mapped(v) || !f->p[v->pg].v[0]) && ++tries < 64);
	if (tries == 64)
		return false;
	for (n = 1; n < 200 && at + n < ARENA_PAGES; n++)
		if (!continues(v + n - 1, v + n))
			break;
	if (f->type != MEMFD || one_in(3)) {
		SYSCALL(o, madvise, va(at), n * PAGE, MADV_REMOVE);
		return gen_remove(w, o, at, n);
	}
	if (one_in(4) && v->pg > CHUNK) {
		SYSCALL(o, ftruncate, f->fd, v->pg * PAGE);
		return truncate_file(f, v->pg * PAGE);
	}
	SYSCALL(o, fallocate, f->fd, 3, v->pg * PAGE, n * PAGE);
	if (!claim(f, v->pg, n, WRITE_SOFT))
		return false;
	zero_bytes(f, v->pg * PAGE, (v->pg + n) * PAGE);
	return true;
}

/* --- operations: accesses --- */

static bool add_access(struct lane *l, struct worker *w, unsigned int at,
		       int kind)
{
	struct acc *a = &l->acc[l->n];
	struct vpage *v = &w->v[at];
	struct file *f = file_of(v);
	int word, how = READ_SOFT;

	if (l->n == MAX_ACC)
		return false;
	a->addr = va(at);
	a->kind = kind;
	if (!mapped(v)) {
		l->n++;
		return true;
	}
	if (kind == EXEC && usable(v, PROT_EXEC) &&
	    (!f->p[v->pg].v[0] || f->p[v->pg].v[0] == ANY))
		return false;	/* nothing to run */
	if (kind == EXEC)
		how = READ_HARD;
	if (kind == STORE)
		how = usable(v, PROT_WRITE) ? WRITE_SOFT : READ_HARD;
	if (!claim(f, v->pg, 1, how))
		return false;
	if (kind == STORE) {
		version++;
		for (word = 0; word < 2; word++)
			a->val[word] = stamp(v->file - 1, v->pg, version, word);
		if (how == WRITE_SOFT)
			set_page(f, v->pg, version);
	}
	l->n++;
	return true;
}

static void clear_lane(struct lane *l, bool spin)
{
	l->n = 0;
	l->spin = spin;
	l->stop = 0;
	l->warm = 0;
}

/* Where others change something in this step. */
static void add_hot(struct lane *l, struct worker *w, int max)
{
	unsigned int at = rnd(ARENA_PAGES), i;
	struct vpage *v;

	for (i = 0; i < ARENA_PAGES && l->n < max; i++) {
		at = (at + 1) % ARENA_PAGES;
		v = &w->v[at];
		if (mapped(v) && file_of(v)->p[v->pg].changed == stepno &&
		    one_in(2))
			add_access(l, w, at, LOAD);
	}
}

static bool gen_access(struct worker *w, struct op *o)
{
	struct lane *l = &mailboxes[w - workers]->main;
	unsigned int at, n, stride = one_in(2) ? 1 : 1 + rnd(60), i;
	int kind = rnd(10);

	kind = kind < 5 ? STORE : kind < 9 ? LOAD : EXEC;
	if (o->spin)
		kind = LOAD;
#ifndef __x86_64__
	if (kind == EXEC)
		kind = LOAD;
#endif
	clear_lane(l, o->spin);
	/* Few, so that a TLB keeps them until somebody flushes it. */
	if (o->spin)
		add_hot(l, w, 24);
	pick_range(w, &at, &n);
	if (l->n && !one_in(4))
		n = 0;
	if (kind == EXEC || (o->spin && n > 200))
		n = 1 + n % 200;
	for (i = at; i < at + n && i < ARENA_PAGES; i += stride)
		add_access(l, w, i, kind);
	for (i = 0; n && i < 16; i++)	/* and some anywhere */
		add_access(l, w, rnd(ARENA_PAGES), kind);
	if (!l->n)
		return false;
	o->cmd.helper = false;
	SPECIAL(o, DO_ACCESS, kind, l->acc[0].addr, l->n);
	return true;
}

/* The list of a helper, for an operation that was just generated. */
static void gen_helper(struct worker *w, struct op *o)
{
	struct lane *l = &mailboxes[w - workers]->helper;
	struct vpage *old;
	unsigned int i, at;

	clear_lane(l, true);
	for (i = 0; i < 48; i++) {
		at = rnd(ARENA_PAGES);
		if (o->n && !one_in(3))
			at = o->at + rnd(o->n);
		old = &w->old[at];
		if (mapped(old) && !claim(file_of(old), old->pg, 1, READ_SOFT))
			continue;
		add_access(l, w, at, LOAD);
	}
}

/* --- operations: the kernel copies --- */

/* Stamps for @n pages of @v or of the file itself, in the mailbox. */
static void give(struct worker *w, struct op *o, int i, struct vpage v)
{
	int word;

	o->cmd.give = true;
	for (word = 0; word < 2; word++)
		mailboxes[w - workers]->in[i][word] =
			stamp(v.file - 1, v.pg, version, word);
}

static bool gen_file_copy(struct worker *w, struct op *o)
{
	struct vpage v = { .file = 1 + rnd(NFILES) };
	struct file *f = file_of(&v);
	unsigned int i, n = 1 + rnd(MAX_COPY);
	unsigned long from;

	v.pg = rnd(MAX_PAGES - n);
	from = v.pg * PAGE;
	if (f->type != MEMFD)
		return false;
	o->want = n * PAGE;
	if (one_in(2)) {
		SYSCALL(o, pread64, f->fd, (uintptr_t)copy_buf, n * PAGE, from);
		o->want = from >= f->size ? 0 :
			  from + n * PAGE > f->size ? f->size - from : n * PAGE;
		o->cmd.take = true;
		o->bytes = o->want;
		for (i = 0; i < n; i++, v.pg++)
			o->src[i] = v;
		return claim(f, from / PAGE, n, READ_HARD);
	}
	SYSCALL(o, pwrite64, f->fd, (uintptr_t)copy_buf, n * PAGE, from);
	if (!claim(f, v.pg, n, WRITE_HARD))
		return false;
	if (from > f->size && !grow(f, from))
		return false;
	if (from + n * PAGE > f->size)
		f->size = from + n * PAGE;
	version++;
	for (i = 0; i < n; i++, v.pg++) {
		give(w, o, i, v);
		set_page(f, v.pg, version);
	}
	return true;
}

/* The pages at @at of @t are copied until one is not usable. */
static bool copy_pages(struct worker *w, struct op *o, struct worker *t,
		       unsigned int at, unsigned int n, int prot, long error)
{
	int how = prot & PROT_WRITE ? WRITE_HARD : READ_HARD;
	unsigned int i, good = n;
	struct vpage *v;

	for (i = 0; i < n; i++) {
		v = &t->v[at + i];
		if (good == n && !usable(v, prot))
			good = i;
		if (mapped(v) && !claim(file_of(v), v->pg, 1, how))
			return false;
	}
	version++;
	for (i = 0; i < n; i++) {
		v = &t->v[at + i];
		o->src[i] = *v;
		if (how == READ_HARD)
			continue;
		give(w, o, i, *v);	/* what must not arrive, too */
		if (i < good)
			set_page(file_of(v), v->pg, version);
	}
	o->want = good ? (long)(good * PAGE) : error;
	o->cmd.take = how == READ_HARD;
	o->bytes = o->cmd.take ? good * PAGE : 0;
	o->at = at;
	o->n = n;
	o->target = t - workers;
	return true;
}

static bool gen_memory_copy(struct worker *w, struct op *o)
{
	struct iovec *iov = mailboxes[w - workers]->iov;
	struct worker *t = pick_worker();
	unsigned int at, n;
	bool write = one_in(2);
	int how = rnd(3), prot = write ? PROT_WRITE : PROT_READ;

	if (how == 2)
		t = w;
	else if (t->changed)
		return false;
	t->watched = true;
	pick_range(t, &at, &n);
	n = 1 + (n - 1) % 16;
	if (how == 2) {
		SPECIAL(o, DO_PIPE, va(at), n * PAGE,
			write ? 0 : 1 + rnd(2));
	} else if (how == 1) {
		SPECIAL(o, DO_PROCMEM, t->pid, va(at), n * PAGE, write);
		if (!write && force_works)
			prot = PROT_NONE;
	} else {
		iov[0] = (struct iovec) { copy_buf, n * PAGE };
		iov[1] = (struct iovec) { (void *)va(at), n * PAGE };
		SYSCALL(o, process_vm_readv, t->pid, (uintptr_t)iov, 1,
			(uintptr_t)(iov + 1), 1, 0);
		if (write) {
			o->cmd.nr = SYS_process_vm_writev;
			o->name = "process_vm_writev";
		}
	}
	return copy_pages(w, o, t, at, n, prot, how == 1 ? -EIO : -EFAULT);
}

/* --- operations: processes --- */

static struct worker *free_slot(void)
{
	char drain[256];
	int i, end;

	for (i = 0; i < MAX_WORKERS; i++)
		if (!workers[i].pid && !workers[i].reserved)
			break;
	if (i == MAX_WORKERS)
		return NULL;
	for (end = 0; end < 2; end++)	/* what a killed worker left */
		while (recv(sockets[i][end], drain, sizeof(drain),
			    MSG_DONTWAIT) > 0)
			;
	return &workers[i];
}

static bool gen_fork(struct worker *w, struct op *o)
{
	struct worker *child = free_slot();
	unsigned int i;

	if (!child || w->changed)
		return false;
	w->watched = true;
	SPECIAL(o, DO_FORK, child - workers);
	o->any = true;
	o->cmd.helper = false;
	memset(child, 0, sizeof(*child));
	child->reserved = true;
	memcpy(child->v, w->v, sizeof(w->v));
	for (i = 0; i < ARENA_PAGES; i++) {
		if (child->v[i].flags & DONTFORK)
			set_holes(child, i, 1);
		child->v[i].flags &= ~LOCKED;
	}
	return true;
}

/* Dies by itself, or is killed while it touches memory. */
static bool gen_end(struct worker *w, struct op *o)
{
	if (w->watched || count_workers() < 3)
		return false;
	w->changed = true;
	o->kill = true;
	o->spin = one_in(2);
	if (o->spin)
		return gen_access(w, o);
	o->cmd.helper = false;
	SPECIAL(o, DO_EXIT, 0);
	return true;
}

static void spawn(void)
{
	struct worker *w = free_slot();
	pid_t pid, director = getpid();

	if (!w)
		return;
	memset(w, 0, sizeof(*w));
	fflush(stdout);
	pid = fork();
	must(pid >= 0, "fork");
	if (!pid) {
		worker_born(director);
		worker_main(w - workers);
	}
	w->pid = pid;
}

#endif /* RANDOM_OPS_H */

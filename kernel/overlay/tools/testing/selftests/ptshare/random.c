// SPDX-License-Identifier: GPL-2.0
/*
 * A random tester of shared mappings of shmem: what Linux promises about them
 * is compared with what happens.  It knows nothing of shared page tables and
 * passes on any Linux.
 *
 * The director holds a model of
 *   - files (memfd, MAP_SHARED | MAP_ANONYMOUS, System V): the size, and for
 *     each page a version, 0 for zeroes.  Head and tail of a page carry a stamp
 *     of file, page and version, so that a wrong page betrays where it is from.
 *   - workers: for each page of an arena of address space which page of which
 *     file is mapped there, and how.
 * A step picks workers and for each of them an operation, works out its result,
 * changes the model, has the workers do it, and compares return values, signals
 * and contents.  Every few steps a whole worker is compared with the model:
 * /proc/PID/maps and a load from every page.
 *
 * Operations of one step run at once.  Each claims the file pages that it reads
 * or writes; what clashes is not done.  Only loads may race with what changes a
 * page atomically (a store, a hole): they see either state, and a worker that
 * spins on such pages must see the new one when everybody is done.  A helper
 * thread may likewise race with a change of its own worker's mappings.
 *
 * To reproduce a failure, repeat seed and options, which are printed.
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <poll.h>
#include <time.h>

#include "random_system.h"

/* --- comparing --- */

/* Would one access have this result, given the mapping and existence? */
static bool explains(const struct vpage *v, const struct acc *a,
		     const struct res *r, bool exist, bool loose)
{
	int prot = a->kind == EXEC ? PROT_EXEC :
		   a->kind == STORE ? PROT_WRITE : PROT_READ;
	struct fpage *p;
	int word;

	if (!mapped(v))
		return r->sig == (SIGSEGV << 8 | SEGV_MAPERR);
	/* x86 looks for the page before it sees that it must not be run. */
	if (a->kind == EXEC && v->prot && !exist &&
	    r->sig == (SIGBUS << 8 | BUS_ADRERR))
		return true;
	if (!(v->prot & prot))
		return r->sig == (SIGSEGV << 8 | SEGV_ACCERR);
	if (!exist)
		return r->sig == (SIGBUS << 8 | BUS_ADRERR);
	if (r->sig)
		return false;
	p = &file_of(v)->p[v->pg];
	loose = loose && p->changed == stepno;
	for (word = 0; a->kind == LOAD && word < 2; word++) {
		if (p->v[word] == ANY || (loose && p->old[word] == ANY))
			continue;
		if (r->val[word] != stamp(v->file - 1, v->pg, p->v[word],
					  word) &&
		    (!loose || r->val[word] != stamp(v->file - 1, v->pg,
						     p->old[word], word)))
			return false;
	}
	return true;
}

static bool explains_any(const struct vpage *v, const struct acc *a,
			 const struct res *r, bool loose)
{
	if (!mapped(v) || explains(v, a, r, page_exists(v), loose))
		return explains(v, a, r, mapped(v) && page_exists(v), loose);
	return loose && explains(v, a, r, exists(v->pg, file_of(v)->oldsize),
				 true);
}

static void wrong(struct worker *w, const struct acc *a, const struct res *r,
		  const struct vpage *v, const char *when)
{
	struct fpage *p = mapped(v) ? &file_of(v)->p[v->pg] : NULL;

	if (!p)
		fail("worker %d, %lx (%s): nothing mapped\n"
		     "#   got signal %d code %d%s, head %016lx tail %016lx",
		     (int)(w - workers), a->addr, when, r->sig >> 8 & 0xff,
		     r->sig & 0xff, r->sig & BAD_SI_ADDR ? " BAD ADDRESS" : "",
		     r->val[0], r->val[1]);
	fail("worker %d, %s at %lx (%s):\n"
	     "#   maps file %d page %u prot %d flags %d\n"
	     "#   file size %lu (was %lu) = page %lu, changed in step %u\n"
	     "#   expected head %016lx tail %016lx\n"
	     "#   before   head %016lx tail %016lx\n"
	     "#   got      head %016lx tail %016lx signal %d code %d%s",
	     (int)(w - workers), a->kind == LOAD ? "load" :
	     a->kind == STORE ? "store" : "exec", a->addr, when, v->file - 1,
	     v->pg, v->prot, v->flags, file_of(v)->size, file_of(v)->oldsize,
	     file_of(v)->size / PAGE, p->changed,
	     stamp(v->file - 1, v->pg, p->v[0], 0),
	     stamp(v->file - 1, v->pg, p->v[1], 1),
	     stamp(v->file - 1, v->pg, p->old[0], 0),
	     stamp(v->file - 1, v->pg, p->old[1], 1),
	     r->val[0], r->val[1], r->sig >> 8 & 0xff, r->sig & 0xff,
	     r->sig & BAD_SI_ADDR ? " BAD ADDRESS" : "");
}

/*
 * @content_settled: nobody changes pages any more; @w->old counts as well if
 * @remapping, and nothing at all if @gap.
 */
static void compare_access(struct worker *w, const struct acc *a,
			   const struct res *r, bool content_settled,
			   bool remapping, bool gap, const char *when)
{
	unsigned int at = (a->addr - ARENA) / PAGE;

	if (explains_any(&w->v[at], a, r, !content_settled) ||
	    (remapping && explains_any(&w->old[at], a, r, !content_settled)) ||
	    (gap && r->sig == (SIGSEGV << 8 | SEGV_MAPERR)))
		return;
	wrong(w, a, r, &w->v[at], when);
}

static void compare_lane(struct worker *w, struct lane *l, bool helper)
{
	bool settled = nops == 1 || (l->spin && !helper), gap = w->op.remaps;
	int i;

	for (i = 0; l->spin && i < l->nchg; i++)
		compare_access(w, &l->acc[l->chg[i].idx], &l->chg[i], false,
			       helper, helper && gap, "meanwhile");
	for (i = 0; i < l->n; i++)
		compare_access(w, &l->acc[i], &l->last[i], settled, false,
			       false, settled ? "settled" : "racing");
}

static void compare_copy(struct worker *w, struct op *o)
{
	uint64_t want, got;
	unsigned int i, v;
	int word;

	for (i = 0; i < o->bytes; i += PAGE / 2) {
		word = i % PAGE ? 1 : 0;
		if (word && i + PAGE / 2 > o->bytes)
			break;
		v = file_of(&o->src[i / PAGE])->p[o->src[i / PAGE].pg].v[word];
		want = stamp(o->src[i / PAGE].file - 1, o->src[i / PAGE].pg, v,
			     word);
		got = mailboxes[w - workers]->out[i / PAGE][word];
		if (v != ANY && got != want)
			fail("worker %d %s: page %u word %d is %016lx, expected %016lx",
			     (int)(w - workers), o->name, i / (int)PAGE, word,
			     got, want);
	}
}

static void compare_maps_line(struct worker *w, const char *line, bool *seen)
{
	unsigned long from, to, off, ino, addr;
	struct vpage *v;
	char perms[8];
	int prot;

	if (sscanf(line, "%lx-%lx %7s %lx %*s %lu", &from, &to, perms, &off,
		   &ino) != 5)
		fail("/proc/PID/maps: %s", line);
	prot = (perms[0] == 'r' ? PROT_READ : 0) |
	       (perms[1] == 'w' ? PROT_WRITE : 0) |
	       (perms[2] == 'x' ? PROT_EXEC : 0);
	for (addr = from; addr < to; addr += PAGE, off += PAGE) {
		if (addr < va(0) || addr >= va(ARENA_PAGES))
			continue;
		v = &w->v[(addr - ARENA) / PAGE];
		if (!mapped(v) || v->prot != prot || perms[3] != 's' ||
		    v->pg * PAGE != off || ino != file_of(v)->ino)
			fail("worker %d %lx: expected file %d page %u prot %d inode %lu\n"
			     "#   got %s",
			     (int)(w - workers), addr, v->file - 1, v->pg,
			     v->prot, mapped(v) ? file_of(v)->ino : 0, line);
		seen[(addr - ARENA) / PAGE] = true;
	}
}

static void compare_maps(struct worker *w)
{
	static bool seen[ARENA_PAGES];
	char line[512];
	unsigned int i;
	FILE *maps;

	memset(seen, 0, sizeof(seen));
	snprintf(line, sizeof(line), "/proc/%d/maps", w->pid);
	maps = fopen(line, "r");
	must(maps, line);
	while (fgets(line, sizeof(line), maps))
		compare_maps_line(w, line, seen);
	fclose(maps);
	for (i = 0; i < ARENA_PAGES; i++)
		if (mapped(&w->v[i]) && !seen[i])
			fail("worker %d %lx: file %d page %u expected, but maps has nothing",
			     (int)(w - workers), va(i), w->v[i].file - 1,
			     w->v[i].pg);
}

/* --- talking to workers --- */

static void tell(struct worker *w)
{
	struct op *o = &w->op;

	must(send(sockets[w - workers][0], &o->cmd, sizeof(o->cmd), 0) ==
	     sizeof(o->cmd), "send");
}

static long answer(struct worker *w)
{
	struct pollfd p = { sockets[w - workers][0], POLLIN, 0 };
	int i, status;
	long ret;

	for (i = 0; i < 600; i++) {
		if (poll(&p, 1, 1000) > 0) {
			must(recv(p.fd, &ret, sizeof(ret), 0) == sizeof(ret),
			     "recv");
			return ret;
		}
		if (waitpid(w->pid, &status, WNOHANG) == w->pid) {
			w->pid = 0;
			fail("worker %d died, wait status %x; out of memory or swap?",
			     (int)(w - workers), status);
		}
	}
	fail("worker %d is silent for ten minutes", (int)(w - workers));
}

static void log_op(struct worker *w)
{
	struct op *o = &w->op;
	int i;

	say("# %u: worker %d: %s(", stepno, (int)(w - workers), o->name);
	for (i = 0; i < o->nargs; i++)
		say("%s0x%lx", i ? ", " : "", o->cmd.arg[i]);
	if (o->any)
		say(") = ?");
	else if (o->want > (long)ARENA_PAGES * (long)PAGE)
		say(") = 0x%lx", o->want);
	else
		say(") = %ld", o->want);
	if (o->n)
		say(" at pages %u+%u of %d", o->at, o->n, o->target);
	say("%s%s\n", o->cmd.helper ? " with helper" : "",
	    o->kill ? " and dies" : o->spin ? " until all is done" : "");
}

static void finish_end(struct worker *w)
{
	if (w->op.spin)
		kill(w->pid, SIGKILL);
	waitpid(w->pid, NULL, 0);
	w->pid = 0;
}

static void finish(struct worker *w)
{
	struct op *o = &w->op;
	long ret = answer(w);

	if (o->cmd.what == DO_FORK) {
		if (ret < 0)
			fail("fork: %s", strerror(-ret));
		workers[o->cmd.arg[0]].pid = ret;
		workers[o->cmd.arg[0]].reserved = false;
		return;
	}
	if (!o->any && ret != o->want && (!o->also[0] || ret != o->also[0]))
		fail("worker %d: %s returned %ld, expected %ld",
		     (int)(w - workers), o->name, ret, o->want);
	if (o->cmd.what == DO_ACCESS)
		compare_lane(w, &mailboxes[w - workers]->main, false);
	if (o->cmd.helper)
		compare_lane(w, &mailboxes[w - workers]->helper, true);
	if (o->cmd.take)
		compare_copy(w, o);
}

/* --- steps --- */

static const struct {
	bool (*gen)(struct worker *w, struct op *o);
	unsigned int weight;
} gens[] = {
	{ gen_mmap, 10 }, { gen_munmap, 5 }, { gen_mprotect, 10 },
	{ gen_mremap, 7 }, { gen_madvise, 14 }, { gen_mlock, 3 },
	{ gen_msync, 2 }, { gen_uffd, 1 }, { gen_truncate, 3 },
	{ gen_fallocate, 5 }, { gen_hole, 12 }, { gen_access, 30 },
	{ gen_file_copy, 5 }, { gen_memory_copy, 8 }, { gen_fork, 2 }, { gen_end, 2 },
};

static bool gen_op(struct worker *w)
{
	unsigned int i, r = 0;
	struct op *o = &w->op;

	for (i = 0; i < ARRAY_SIZE(gens); i++)
		r += gens[i].weight;
	r = rnd(r);
	for (i = 0; r >= gens[i].weight; i++)
		r -= gens[i].weight;
	memset(o, 0, sizeof(*o));
	memcpy(w->old, w->v, sizeof(w->v));
	o->cmd.helper = one_in(4);
	o->target = w - workers;
	if (gens[i].gen(w, o)) {
		if (o->cmd.helper)
			gen_helper(w, o);
		w->busy = true;
		log_op(w);
		return true;
	}
	memcpy(w->v, w->old, sizeof(w->v));
	return false;
}

static void begin_step(void)
{
	int i;

	stepno++;
	history[stepno % HISTORY][0] = 0;
	for (i = 0; i < NFILES; i++)
		files[i].oldsize = files[i].size;
	for (i = 0; i < MAX_WORKERS; i++) {
		workers[i].busy = false;
		workers[i].watched = false;
		workers[i].changed = false;
	}
	nops = 0;
	hot = false;
}

static void gen_spinner(struct worker *w)
{
	struct op *o = &w->op;

	memset(o, 0, sizeof(*o));
	o->target = w - workers;
	o->spin = true;
	if (!gen_access(w, o))
		return;
	w->busy = true;
	nops++;
	log_op(w);
}

/* At most a second: what spins may be on its way to a signal. */
static void wait_warm(int *warm)
{
	int i;

	for (i = 0; i < 10000 && !__atomic_load_n(warm, __ATOMIC_ACQUIRE); i++)
		usleep(100);
}

/* Spinners first, and let them have the pages in their TLBs. */
static void tell_all(void)
{
	struct worker *w;
	int spin;

	for (spin = 1; spin >= 0; spin--)
		for (w = workers; w < workers + MAX_WORKERS; w++)
			if (w->busy && w->op.spin == spin)
				tell(w);
			else if (w->busy && !spin)
				wait_warm(&mailboxes[w - workers]->main.warm);
}

static void finish_all(void)
{
	struct worker *w;

	for (w = workers; w < workers + MAX_WORKERS; w++)
		if (w->busy && w->op.kill)
			finish_end(w);
		else if (w->busy && !w->op.spin)
			finish(w);
	for (w = workers; w < workers + MAX_WORKERS; w++)
		if (w->busy && w->op.spin && !w->op.kill)
			__atomic_store_n(&mailboxes[w - workers]->main.stop, 1,
					 __ATOMIC_RELEASE);
	for (w = workers; w < workers + MAX_WORKERS; w++)
		if (w->busy && w->op.spin && !w->op.kill)
			finish(w);
}

static void step(void)
{
	unsigned int i, n = one_in(2) ? 1 : 2 + rnd(MAX_WORKERS - 1);
	struct worker *w;

	begin_step();
	for (i = 0; i < n; i++) {
		w = pick_worker();
		if (!w->busy && gen_op(w))
			nops++;
	}
	for (w = workers; (n > 1 || hot) && w < workers + MAX_WORKERS; w++)
		if (w->pid && !w->busy && one_in(2))
			gen_spinner(w);
	tell_all();
	finish_all();
	if (count_workers() < opt.workers)
		spawn();
}

/* --- everything, in between --- */

static void check_worker(struct worker *w)
{
	struct lane *l = &mailboxes[w - workers]->main;
	unsigned int i, at = 0;

	compare_maps(w);
	while (at < ARENA_PAGES) {
		begin_step();
		nops = 1;
		say("# %u: check worker %d\n", stepno, (int)(w - workers));
		memset(&w->op, 0, sizeof(w->op));
		w->op.cmd.what = DO_ACCESS;
		clear_lane(l, false);
		for (i = 0; at < ARENA_PAGES && i < MAX_ACC; at++, i++)
			if (usable(&w->v[at], PROT_READ) ||
			    one_in(mapped(&w->v[at]) ? 8 : 64))
				add_access(l, w, at, LOAD);
		tell(w);
		finish(w);
	}
}

static void check_word(int f, unsigned int pg, int word, uint64_t got)
{
	uint32_t v = files[f].p[pg].v[word];

	if (v != ANY && got != stamp(f, pg, v, word))
		fail("file %d page %u word %d is %016lx, expected %016lx", f,
		     pg, word, got, stamp(f, pg, v, word));
}

static void check_file(int fnum)
{
	struct file *f = &files[fnum];
	uint64_t page[PAGE / 8];
	unsigned int pg;
	struct acc a = { .kind = LOAD };
	struct res r;

	for (pg = 0; exists(pg, f->size); pg++) {
		if (f->type == MEMFD) {
			must(pread(f->fd, page, PAGE, pg * PAGE) > 0, "pread");
			check_word(fnum, pg, 0, page[0]);
			if ((pg + 1) * PAGE <= f->size)
				check_word(fnum, pg, 1, page[PAGE / 8 - 1]);
			continue;
		}
		a.addr = HOME(fnum) + pg * PAGE;
		access_page(&a, &r);
		if (r.sig)
			fail("file %d page %u: signal %x", fnum, pg, r.sig);
		check_word(fnum, pg, 0, r.val[0]);
		check_word(fnum, pg, 1, r.val[1]);
	}
}

static void check_all(void)
{
	int i;

	for (i = 0; i < MAX_WORKERS; i++)
		if (workers[i].pid)
			check_worker(&workers[i]);
	for (i = 0; i < NFILES; i++)
		check_file(i);
}

/* --- beginning and end --- */

static unsigned long home_inode(int fnum)
{
	unsigned long from, ino;
	char line[512];
	FILE *maps = fopen("/proc/self/maps", "r");

	must(maps, "/proc/self/maps");
	while (fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%*x %*s %*x %*s %lu", &from, &ino) == 2 &&
		    from == HOME(fnum)) {
			fclose(maps);
			return ino;
		}
	}
	fail("file %d is not mapped", fnum);
}

static void make_file(int fnum)
{
	struct file *f = &files[fnum];
	void *home = (void *)HOME(fnum);
	char path[64];
	struct stat st;

	f->type = fnum < 2 ? MEMFD : fnum == 2 ? ANON : SYSV;
	f->size = (3 + rnd(4)) * CHUNK * PAGE + rnd(CHUNK) * PAGE;
	switch (f->type) {
	case MEMFD:
		f->fd = memfd_create("random", 0);
		must(f->fd >= 0 && !ftruncate(f->fd, f->size), "memfd");
		snprintf(path, sizeof(path), "/proc/self/fd/%d", f->fd);
		f->rofd = open(path, O_RDONLY);
		must(f->rofd >= 0 && !fstat(f->fd, &st), path);
		f->ino = st.st_ino;
		return;
	case ANON:
		home = mmap(home, f->size, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		break;
	case SYSV:
		f->shmid = shmget(IPC_PRIVATE, f->size, 0600);
		must(f->shmid >= 0, "shmget");
		home = shmat(f->shmid, home, 0);
		shmctl(f->shmid, IPC_RMID, NULL);
		break;
	}
	must(home == (void *)HOME(fnum), "mapping a file");
	f->ino = home_inode(fnum);
}

static void probe_force(void)
{
	char *p = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		       0);
	uint64_t arg[] = { getpid(), (uintptr_t)p, PAGE, 0 };

	must(p != MAP_FAILED, "mmap");
	force_works = do_procmem(arg) == (long)PAGE;
	munmap(p, PAGE);
}

static void enter_cgroup(void)
{
	char path[128];

	put("/sys/fs/cgroup/cgroup.subtree_control", "+memory", 0);
	snprintf(cgroup, sizeof(cgroup), "/sys/fs/cgroup/ptshare-random-%d",
		 getpid());
	snprintf(path, sizeof(path), "%s/memory.max", cgroup);
	if (mkdir(cgroup, 0755) || !put(path, "%lu", opt.mb << 20)) {
		printf("# no memory cgroup (v2): -m is ignored\n");
		rmdir(cgroup);
		cgroup[0] = 0;
		return;
	}
	snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
	must(put(path, "%lu", getpid()), path);
}

static void set_up(void)
{
	void *p;
	int i;

	setvbuf(stdout, NULL, _IOLBF, 0);
	rng = opt.seed * 0x9e3779b97f4a7c15UL + 1;
	if (opt.mb)
		enter_cgroup();
	trap_signals();
	probe_force();
	for (i = 0; i < NFILES; i++)
		make_file(i);
	for (i = 0; i < MAX_WORKERS; i++) {
		p = mmap(NULL, sizeof(struct mailbox), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		must(p != MAP_FAILED, "mmap");
		mailboxes[i] = p;
		must(!socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sockets[i]),
		     "socketpair");
	}
	for (i = 0; i < opt.workers; i++)
		spawn();
}

static void run(void)
{
	time_t end = time(NULL) + opt.seconds;
	unsigned long n;

	printf("# --seed %lu --workers %d\n", opt.seed, opt.workers);
	set_up();
	for (n = 1; opt.seconds ? time(NULL) < end : n <= opt.steps; n++) {
		step();
		if (n % 20 == 0)
			check_worker(pick_worker());
		if (n % 15 == 0) {
			begin_step();
			poke();
		}
		if (n % 200 == 0)
			check_all();
	}
	check_all();
	printf("# %lu steps done\n", n - 1);
	end_workers();
}

/* --- as a selftest --- */

/* Then a PMD may map memory behind the end of any file. */
static bool shmem_is_huge(void)
{
	char buf[128] = "";
	FILE *f = fopen("/sys/kernel/mm/transparent_hugepage/shmem_enabled",
			"r");

	if (!f)
		return false;
	if (!fgets(buf, sizeof(buf), f))
		buf[0] = 0;
	fclose(f);
	return !strstr(buf, "[never]") && !strstr(buf, "[deny]");
}

#define TEST_STEPS	200	/* takes seconds, in an emulator too */

static void test(unsigned long seed)
{
	int status = 1;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid) {
		opt.seed = seed;
		run();
		exit(0);
	}
	waitpid(pid, &status, 0);
	ksft_test_result(!status, "seed %lu, %lu steps\n", seed, opt.steps);
}

static void usage(void)
{
	fprintf(stderr,
		"Usage: random [--seed N] [--steps N | --seconds S]\n"
		"              [--workers N] [-m MB] [--system] [-v]\n"
		"Without options: a short selftest.\n");
	exit(2);
}

static void parse(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "seed", 1, NULL, 's' }, { "steps", 1, NULL, 'n' },
		{ "seconds", 1, NULL, 't' }, { "workers", 1, NULL, 'w' },
		{ "system", 0, NULL, 'S' }, { }
	};
	int c;

	while ((c = getopt_long(argc, argv, "m:v", longs, NULL)) != -1) {
		switch (c) {
		case 's':
			opt.seed = strtoul(optarg, NULL, 0);
			break;
		case 'n':
			opt.steps = strtoul(optarg, NULL, 0);
			break;
		case 't':
			opt.seconds = strtoul(optarg, NULL, 0);
			break;
		case 'w':
			opt.workers = atoi(optarg);
			break;
		case 'm':
			opt.mb = strtoul(optarg, NULL, 0);
			break;
		case 'S':
			opt.system = true;
			break;
		case 'v':
			opt.verbose = true;
			break;
		default:
			usage();
		}
	}
	if (optind < argc || opt.workers < 1 || opt.workers > MAX_WORKERS)
		usage();
}

int main(int argc, char **argv)
{
	unsigned long seed;

	opt.seed = time(NULL);
	opt.steps = 1000;
	opt.workers = 5;
	if (sysconf(_SC_PAGESIZE) != (long)PAGE)
		ksft_exit_skip("pages are not 4 KiB\n");
	if (shmem_is_huge())
		ksft_exit_skip("huge pages may reach beyond end of file\n");
	if (argc > 1) {
		parse(argc, argv);
		run();
		return 0;
	}
	opt.steps = TEST_STEPS;
	ksft_print_header();
	ksft_set_plan(4);
	for (seed = 1; seed <= 3; seed++)
		test(seed);
	test(opt.seed);
	ksft_finished();
}

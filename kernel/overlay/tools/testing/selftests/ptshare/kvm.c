// SPDX-License-Identifier: GPL-2.0
/*
 * Virtual machines whose memory is a shared file: what the owner of the shared
 * page tables takes away must be taken from KVM's page tables too (hazard H6).
 *
 * A guest must never read an old page, nor write to one, whoever made it old,
 * in whichever way, and whatever the VMM did to its mapping before.  What it
 * has written must not be lost.  How the VM works is told in kvm_guest.h.
 */
#include "kvm_guest.h"

#include <linux/mempolicy.h>

#define SIZE	(8 * MB)
#define NPAGES	(SIZE / PAGE)
#define SECONDS	1
#define CROWD	12	/* mappings more than are flushed one by one */

static_assert(NPAGES <= MAX_PAGES, "pages have numbers of PAGE_BITS bits");

/* For counters that are no guests. */
#define CREW_WORD	512

struct scene {
	int fd;
	struct low *low;
	char *w, *r;		/* our own mappings, if any */
	char *crowd[CROWD];
	struct vmm v;
	bool readonly;
	char cgroup[64], reclaim[96];
	uint32_t gen;
	long swapped, moved;
};

/* --- memory of our own, and what is in the file --- */

/* The VMM, which is our child, shall have none of it. */
static char *map_ours(int fd, int prot)
{
	char *p = map_at(fd, SIZE, 0, prot);

	if (p != MAP_FAILED)
		madvise(p, SIZE, MADV_DONTFORK);
	return p;
}

static void scene_map(struct scene *s)
{
	s->w = map_ours(s->fd, PROT_READ | PROT_WRITE);
	s->r = map_ours(s->fd, PROT_READ);
	vmm_populate(s->r, SIZE);
}

static void crowd_map(struct scene *s)
{
	int i;

	for (i = 0; i < CROWD; i++)
		if (!s->crowd[i])
			s->crowd[i] = map_ours(s->fd, PROT_READ);
}

static void crowd_unmap(struct scene *s)
{
	int i;

	for (i = 0; i < CROWD; i++)
		if (s->crowd[i])
			munmap(s->crowd[i], SIZE);
	memset(s->crowd, 0, sizeof(s->crowd));
}

static void scene_unmap(struct scene *s)
{
	if (s->w)
		munmap(s->w, SIZE);
	if (s->r)
		munmap(s->r, SIZE);
	s->w = NULL;
	s->r = NULL;
}

static uint32_t file_word(struct scene *s, uint32_t page, int word)
{
	uint32_t value = ~0u;

	if (pread(s->fd, &value, 4, page * PAGE + word) != 4)
		return ~0u;
	return value;
}

static volatile uint32_t *word_at(char *p, uint32_t page, int word)
{
	return (volatile uint32_t *)(p + page * PAGE + word);
}

/* Write to a page in one of three ways. */
struct deposit {
	int fd;
	uint32_t page, value;
	int word;
};

static int child_writes(void *arg)
{
	struct deposit *d = arg;
	char *p = map_at(d->fd, SIZE, 0, PROT_READ | PROT_WRITE);

	if (p == MAP_FAILED)
		return 1;
	*word_at(p, d->page, d->word) = d->value;
	return 0;
}

static int put_word(struct scene *s, uint32_t page, int word, uint32_t value,
		    int how)
{
	struct deposit d = { s->fd, page, value, word };

	if (how % 3 == 2)
		return in_child(child_writes, &d);
	if (how % 3 == 1 && s->w) {
		*word_at(s->w, page, word) = value;
		return 0;
	}
	return pwrite(s->fd, &value, 4, page * PAGE + word) != 4;
}

static uint32_t next_stamp(struct scene *s, uint32_t page)
{
	return ++s->gen << PAGE_BITS | page;
}

/* --- a cgroup to live in, for reclaim --- */

#define CGROUP	"/sys/fs/cgroup/"

static void enter_cgroup(struct scene *s)
{
	char procs[96];

	if (meminfo_kb("SwapTotal") <= 0)
		return;
	write_file(CGROUP "cgroup.subtree_control", "+memory");
	snprintf(s->cgroup, sizeof(s->cgroup), CGROUP "ptshare-kvm-%d", getpid());
	if (mkdir(s->cgroup, 0755)) {
		s->cgroup[0] = 0;
		return;
	}
	snprintf(procs, sizeof(procs), "%s/cgroup.procs", s->cgroup);
	write_file(procs, "0");
	snprintf(s->reclaim, sizeof(s->reclaim), "%s/memory.reclaim", s->cgroup);
	if (access(s->reclaim, W_OK))
		s->reclaim[0] = 0;
}

static void leave_cgroup(struct scene *s)
{
	int i;

	if (!s->cgroup[0])
		return;
	write_file(CGROUP "cgroup.procs", "0");
	for (i = 0; i < 100 && rmdir(s->cgroup); i++)
		usleep(20000);
}

/* --- setting the scene --- */

static bool scene_init(struct scene *s, bool crowd)
{
	pt_opt_in();
	pt_catch();
	memset(s, 0, sizeof(*s));
	enter_cgroup(s);
	s->fd = new_memfd(SIZE);
	s->low = low_alloc();
	if (s->fd < 0 || s->low == MAP_FAILED)
		return false;
	scene_map(s);
	if (crowd)
		crowd_map(s);
	return s->w != MAP_FAILED && s->r != MAP_FAILED;
}

static void scene_end(struct scene *s)
{
	scene_unmap(s);
	crowd_unmap(s);
	close(s->fd);
	munmap(s->low, sizeof(*s->low));
	leave_cgroup(s);
}

FIXTURE(kvm)
{
	struct scene s;
	struct vmm_conf conf;
};

FIXTURE_VARIANT(kvm)
{
	off_t off;
	size_t len;
	bool late, readonly, crowd;
};

/* The usual order of a VMM, and a mapping that shares as a whole. */
FIXTURE_VARIANT_ADD(kvm, early)
{
	.len = SIZE,
};

/* The notifier comes long after the mapping, whose ends are no whole chunks. */
FIXTURE_VARIANT_ADD(kvm, late)
{
	.off = MB + 8 * PAGE,
	.len = 6 * MB,
	.late = true,
};

FIXTURE_VARIANT_ADD(kvm, crowd)
{
	.off = MB,
	.len = SIZE - MB,
	.crowd = true,
};

/* A mapping of another class than that of those who write. */
FIXTURE_VARIANT_ADD(kvm, readonly)
{
	.len = 7 * MB,
	.late = true,
	.readonly = true,
};

FIXTURE_SETUP(kvm)
{
	if (!have_kvm())
		SKIP(return, "no /dev/kvm");
	ASSERT_TRUE(scene_init(&self->s, variant->crowd));
	self->s.readonly = variant->readonly;
	self->conf = (struct vmm_conf) {
		.fd = self->s.fd,
		.off = variant->off,
		.len = variant->len,
		.late = variant->late,
		.readonly = variant->readonly,
		.nr_vcpus = 1,
	};
}

FIXTURE_TEARDOWN(kvm)
{
	scene_end(&self->s);
}

static uint32_t walk_flags(struct scene *s, uint32_t flags)
{
	return s->readonly ? flags : flags | WRITES;
}

/* --- what the VMM, or others, do before a page is taken away --- */

static long hva_of(struct vmm *v, uint32_t page)
{
	return (long)v->hva + (page - v->first) * PAGE;
}

static size_t len_of(struct vmm *v)
{
	return (v->end - v->first) * PAGE;
}

/* In the same chunk, and mapped too. */
static uint32_t neighbour(uint32_t page)
{
	return page ^ 1;
}

static int usual_prot(struct scene *s)
{
	return s->readonly ? PROT_READ : PROT_READ | PROT_WRITE;
}

/* Another permission with which the guest can work. */
static int other_prot(struct scene *s)
{
	return usual_prot(s) | PROT_EXEC;
}

static long protect(struct scene *s, uint32_t page, size_t len, int prot)
{
	return vmm_call(&s->v, SYS_mprotect, hva_of(&s->v, page), len, prot, 0);
}

static long advise_all(struct scene *s, int advice)
{
	return vmm_call(&s->v, SYS_madvise, (long)s->v.hva, len_of(&s->v),
			advice, 0);
}

static long do_nothing(struct scene *s, uint32_t page)
{
	return 0;
}

/* Detaches the whole chunk, says so to KVM for one page. */
static long do_dontneed(struct scene *s, uint32_t page)
{
	return vmm_call(&s->v, SYS_madvise, hva_of(&s->v, neighbour(page)),
			PAGE, MADV_DONTNEED, 0);
}

static long do_split(struct scene *s, uint32_t page)
{
	return protect(s, neighbour(page), PAGE, other_prot(s));
}

static long undo_split(struct scene *s, uint32_t page)
{
	return protect(s, neighbour(page), PAGE, usual_prot(s));
}

static long do_split_and_merge(struct scene *s, uint32_t page)
{
	return do_split(s, page) ?: undo_split(s, page);
}

static long do_class(struct scene *s, uint32_t page)
{
	return protect(s, s->v.first, len_of(&s->v), other_prot(s));
}

static long undo_class(struct scene *s, uint32_t page)
{
	return protect(s, s->v.first, len_of(&s->v), usual_prot(s));
}

static long do_leave(struct scene *s, uint32_t page)
{
	advise_all(s, MADV_NOPTSHARE);
	return 0;
}

static long do_join(struct scene *s, uint32_t page)
{
	advise_all(s, MADV_PTSHARE);
	return 0;
}

static long do_leave_and_join(struct scene *s, uint32_t page)
{
	return do_leave(s, page) ?: do_join(s, page);
}

/* Beyond the end of the file it cannot be locked, but counts as locked. */
static long do_mlock(struct scene *s, uint32_t page)
{
	long addr = hva_of(&s->v, neighbour(page));

	vmm_call(&s->v, SYS_mlock, addr, PAGE, 0, 0);
	return vmm_call(&s->v, SYS_munlock, addr, PAGE, 0, 0);
}

/* A hole in the mapping, and the same mapping again. */
static long do_remap(struct scene *s, uint32_t page)
{
	long addr = hva_of(&s->v, neighbour(page));

	if (vmm_call(&s->v, SYS_munmap, addr, PAGE, 0, 0))
		return -1;
	return vmm_call6(&s->v, SYS_mmap, addr, PAGE, usual_prot(s),
			 MAP_SHARED | MAP_FIXED, s->fd,
			 neighbour(page) * PAGE) != addr;
}

static long do_fork(struct scene *s, uint32_t page)
{
	return vmm_call(&s->v, SYS_fork, 0, 0, 0, 0);
}

static long do_alone(struct scene *s, uint32_t page)
{
	scene_unmap(s);
	crowd_unmap(s);
	return 0;
}

static long undo_alone(struct scene *s, uint32_t page)
{
	scene_map(s);
	return 0;
}

static long do_crowd(struct scene *s, uint32_t page)
{
	crowd_map(s);
	return 0;
}

static long do_others_detach(struct scene *s, uint32_t page)
{
	return madvise(s->w, SIZE, MADV_DONTNEED) ?:
	       madvise(s->r, SIZE, MADV_DONTNEED);
}

static const struct before {
	const char *name;
	long (*act)(struct scene *s, uint32_t page);
	long (*undo)(struct scene *s, uint32_t page);
} openings[] = {
	{ "nothing", do_nothing, do_nothing },
	{ "MADV_DONTNEED beside it", do_dontneed, do_nothing },
	{ "split", do_split, undo_split },
	{ "split and merge", do_split_and_merge, do_nothing },
	{ "another permission", do_class, undo_class },
	{ "leave and join", do_leave_and_join, do_nothing },
	{ "leave", do_leave, do_join },
	{ "mlock beside it", do_mlock, do_nothing },
	{ "munmap and mmap beside it", do_remap, do_nothing },
	{ "fork", do_fork, do_nothing },
	{ "others' MADV_DONTNEED", do_others_detach, do_nothing },
	{ "crowd", do_crowd, do_nothing },
	{ "alone", do_alone, undo_alone },
};

/* --- how a page is taken away --- */

enum fate {
	GONE,		/* the file has a hole there */
	KEPT,		/* in another frame, or swapped out */
	FAILED,
};

static enum fate by_punch(struct scene *s, uint32_t page)
{
	return punch(s->fd, page * PAGE, PAGE) ? FAILED : GONE;
}

/* From somewhere in the chunk before to somewhere in the next one. */
static enum fate by_big_punch(struct scene *s, uint32_t page)
{
	off_t from = page > 700 ? (page - 700) * PAGE : 0;

	return punch(s->fd, from, 1400 * PAGE) ? FAILED : GONE;
}

static enum fate by_punch_of_vmm(struct scene *s, uint32_t page)
{
	return vmm_call(&s->v, SYS_fallocate, s->fd, FALLOC_FL_PUNCH_HOLE |
			FALLOC_FL_KEEP_SIZE, page * PAGE, PAGE) ? FAILED : GONE;
}

static enum fate by_remove_of_vmm(struct scene *s, uint32_t page)
{
	if (s->readonly)
		return by_punch_of_vmm(s, page);
	return vmm_call(&s->v, SYS_madvise, hva_of(&s->v, page), PAGE,
			MADV_REMOVE, 0) ? FAILED : GONE;
}

static enum fate by_truncate(struct scene *s, uint32_t page)
{
	if (ftruncate(s->fd, page * PAGE) || ftruncate(s->fd, SIZE))
		return FAILED;
	return GONE;
}

static bool two_nodes(void)
{
	return access("/sys/devices/system/node/node1", F_OK) == 0;
}

/* Move a page to the other node, through a mapping that knows only this one. */
static enum fate by_migration(struct scene *s, uint32_t page)
{
	void *p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, s->fd, page * PAGE);
	int node, now_on = -1;

	if (p == MAP_FAILED)
		return FAILED;
	vmm_populate(p, PAGE);
	syscall(SYS_move_pages, 0, 1, &p, NULL, &now_on, 0);
	node = !now_on;
	syscall(SYS_move_pages, 0, 1, &p, &node, &now_on, MPOL_MF_MOVE_ALL);
	s->moved += now_on == node;
	munmap(p, PAGE);
	return KEPT;
}

static bool in_memory(struct scene *s, uint32_t page)
{
	void *p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, s->fd, page * PAGE);
	unsigned char vec = 1;

	mincore(p, PAGE, &vec);
	munmap(p, PAGE);
	return vec & 1;
}

/* What has just been used goes last; not each page is worth waiting for. */
static enum fate by_reclaim(struct scene *s, uint32_t page)
{
	double end = now() + 0.3;

	while (s->reclaim[0] && in_memory(s, page) && now() < end)
		write_file(s->reclaim, "256K");
	s->swapped += !in_memory(s, page);
	return KEPT;
}

static const struct reduction {
	const char *name;
	enum fate (*act)(struct scene *s, uint32_t page);
} reductions[] = {
	{ "punch", by_punch },
	{ "big punch", by_big_punch },
	{ "punch by the VMM", by_punch_of_vmm },
	{ "MADV_REMOVE by the VMM", by_remove_of_vmm },
	{ "truncate", by_truncate },
	{ "migration", by_migration },
	{ "reclaim", by_reclaim },
};

/* --- and what the guest sees then --- */

/* The guest, or somebody for it, stores in its word of a page. */
static int store_own(struct scene *s, struct vmm *v, uint32_t page,
		     uint32_t value)
{
	if (s->readonly)
		return put_word(s, page, OWN(v->id), value, 0);
	return guest_store(v, page, OWN(v->id), value);
}

/* Have guest and others use a page: the TLBs are full of it. */
static uint32_t warm_up(struct scene *s, struct vmm *v, uint32_t page)
{
	uint32_t value = next_stamp(s, page);

	if (put_word(s, page, STAMP, value, 1) ||
	    guest_load(v, page, STAMP) != value ||
	    store_own(s, v, page, value))
		return 0;
	guest_load(v, neighbour(page), STAMP);
	if (guest_load(v, page, OWN(v->id)) != value ||
	    file_word(s, page, OWN(v->id)) != value)
		return 0;
	return value;
}

/* NULL, or what the guest should not have seen or done. */
static const char *look_again(struct scene *s, struct vmm *v, uint32_t page,
			      uint32_t was, enum fate fate)
{
	static int turn;
	uint32_t value = next_stamp(s, page);
	int own = OWN(v->id);

	if (fate == FAILED)
		return "that failed";
	turn++;
	if (fate == KEPT && file_word(s, page, own) != was)
		return "the file lost what the guest had written";
	if (fate == KEPT && guest_load(v, page, own) != was)
		return "the guest does not find what it had written";
	/* Sometimes the guest comes first, sometimes the file is refilled. */
	if (fate == GONE && (turn & 1) && guest_load(v, page, own))
		return "the guest reads what is gone";
	if (put_word(s, page, STAMP, value, turn))
		return "cannot refill it";
	if (guest_load(v, page, STAMP) != value)
		return "the guest reads an old page";
	value = next_stamp(s, page);
	if (store_own(s, v, page, value))
		return "the guest cannot store";
	if (file_word(s, page, own) != value)
		return "the guest's store does not reach the file";
	if (s->w && *word_at(s->w, page, own) != value)
		return "the guest's store does not reach others";
	value = next_stamp(s, page);
	if (put_word(s, page, own, value, turn + 1) ||
	    guest_load(v, page, own) != value)
		return "others' store does not reach the guest";
	return NULL;
}

/* Pages where mistakes would be made, and some others. */
static uint32_t pick_page(struct vmm *v, unsigned int n)
{
	const uint32_t chunk = CHUNK / PAGE;
	uint32_t covered = (v->first + chunk - 1) / chunk * chunk;

	switch (n % 6) {
	case 0:
		return v->first;
	case 1:
		return covered;
	case 2:
		return covered + chunk - 1;
	case 3:
		return v->end / chunk * chunk - 1;
	case 4:
		return v->end - 1;
	}
	return v->first + n * 97 % (v->end - v->first);
}

/* All that is done before, times all that can happen to a page. */
TEST_F(kvm, each)
{
	struct scene *s = &self->s;
	const struct reduction *r;
	const struct before *b;
	unsigned int n = 0, bad = 0;
	size_t i, j;

	self->conf.program = guest_serve;
	ASSERT_TRUE(vmm_start(&s->v, s->low, &self->conf, 0));
	for (i = 0; i < ARRAY_SIZE(openings) && bad < 5; i++) {
		b = &openings[i];
		for (j = 0; j < ARRAY_SIZE(reductions) && bad < 5; j++) {
			uint32_t page = pick_page(&s->v, n++), was;
			const char *what = "the guest does not work";

			r = &reductions[j];
			/* Slow, and finds its way as migration does. */
			if (r->act == by_reclaim && i % 4)
				continue;
			was = warm_up(s, &s->v, page);
			if (was) {
				ASSERT_EQ(0, b->act(s, page)) TH_LOG("%s", b->name);
				what = look_again(s, &s->v, page, was,
						  r->act(s, page));
				ASSERT_EQ(0, b->undo(s, page)) TH_LOG("%s", b->name);
			}
			if (!what)
				continue;
			EXPECT_EQ(NULL, what)
				TH_LOG("page %u, %s, %s: %s", page, b->name,
				       r->name, what);
			bad++;
		}
	}
	EXPECT_EQ(0, guest_bad(&s->v));
	EXPECT_EQ(0, vmm_end(&s->v));
	if (two_nodes() && !bad)
		EXPECT_LT(0, s->moved);
	if (s->reclaim[0] && !bad)
		EXPECT_LT(0, s->swapped);
}

/* --- permission --- */

/* The VMM may not write any more, so its guest may not either. */
TEST_F(kvm, protect)
{
	struct scene *s = &self->s;
	struct vmm *v = &s->v;
	struct vcpu_ctl *c = &s->low->vcpu[0];
	const size_t lens[] = { PAGE, CHUNK, 0 };
	uint32_t page, was;
	size_t i, len;

	if (s->readonly)
		SKIP(return, "no permission to lose");
	self->conf.program = guest_serve;
	ASSERT_TRUE(vmm_start(v, s->low, &self->conf, 0));
	for (i = 0; i < 2 * ARRAY_SIZE(lens); i++) {
		int prot = i & 1 ? PROT_NONE : PROT_READ;
		uint32_t from;

		page = pick_page(v, 2);
		len = lens[i / 2] ?: len_of(v);
		from = len == PAGE ? page : len == CHUNK ?
		       page - CHUNK / PAGE + 1 : v->first;
		was = warm_up(s, v, page);
		ASSERT_NE(0u, was);
		ASSERT_EQ(0, protect(s, from, len, prot));
		if (prot == PROT_READ)
			EXPECT_EQ(was, guest_load(v, page, OWN(0)));
		EXPECT_EQ(-1, guest_store(v, page, OWN(0), 1));
		EXPECT_EQ((uint32_t)EFAULT, c->error);
		EXPECT_EQ(was, file_word(s, page, OWN(0)));
		/* With permission again, what it is at succeeds. */
		ASSERT_EQ(0, protect(s, from, len, PROT_READ | PROT_WRITE));
		c->error = 0;
		ASSERT_EQ(was, guest_load(v, page, STAMP));
		EXPECT_EQ(1u, file_word(s, page, OWN(0)));
	}
	EXPECT_EQ(0, vmm_end(v));
}

/* --- aging --- */

static uint64_t frame_of(volatile char *p)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;

	(void)*p;
	if (pread(fd, &entry, 8, (uintptr_t)p / PAGE * 8) != 8)
		entry = 0;
	close(fd);
	return entry & ((1ULL << 55) - 1);
}

/* Is a frame idle?  Or make it so. */
static int frame_idle(int fd, uint64_t frame, bool set)
{
	uint64_t bits = 1ULL << frame % 64;

	if (set)
		return pwrite(fd, &bits, 8, frame / 64 * 8) == 8;
	if (pread(fd, &bits, 8, frame / 64 * 8) != 8)
		return -1;
	return bits >> frame % 64 & 1;
}

#define AGED	32

/*
 * Make pages idle and let the guest use every other one.  Others may move or
 * use pages meanwhile, the kernel itself for example: only mostly true.
 */
static bool idle_as_it_should(struct scene *s, struct vmm *v, int fd)
{
	uint32_t first = pick_page(v, 1), i;
	uint64_t frame[AGED];
	int idle = 0, used = 0;

	for (i = 0; i < AGED; i++) {
		guest_load(v, first + i, STAMP);
		frame[i] = frame_of(s->w + (first + i) * PAGE);
	}
	for (i = 0; i < AGED; i++)
		frame_idle(fd, frame[i], true);
	/* Accessed bits are cleared without a flush; this flushes the guest. */
	guest_load(v, v->end - 1, STAMP);
	vmm_call(v, SYS_madvise, hva_of(v, v->end - 1), PAGE, MADV_DONTNEED, 0);
	for (i = 0; i < AGED; i += 2)
		guest_load(v, first + i, STAMP);
	for (i = 0; i < AGED; i += 2) {
		used += frame_idle(fd, frame[i], false) == 0;
		idle += frame_idle(fd, frame[i + 1], false) == 1;
	}
	return used >= AGED / 2 - 2 && idle >= AGED / 2 - 2;
}

/* A page that only the guest uses is in use (see also H24). */
TEST_F(kvm, idle)
{
	int fd = open("/sys/kernel/mm/page_idle/bitmap", O_RDWR | O_CLOEXEC);
	struct scene *s = &self->s;
	bool ok = false;
	int i;

	if (fd < 0)
		SKIP(return, "no idle page tracking");
	self->conf.program = guest_serve;
	ASSERT_TRUE(vmm_start(&s->v, s->low, &self->conf, 0));
	for (i = 0; i < 10 && !ok; i++) {
		/* Pages that wait for a list are not looked at. */
		write_file("/proc/sys/vm/compact_memory", "1");
		ok = idle_as_it_should(s, &s->v, fd);
	}
	EXPECT_TRUE(ok);
	EXPECT_EQ(0, guest_bad(&s->v));
	close(fd);
	EXPECT_EQ(0, vmm_end(&s->v));
}

/* --- storms: guests walk, while pages are taken away --- */

/* For a process that makes holes and fills them. */
struct puncher {
	struct scene *s;
	struct vmm *v[2];	/* whose stores to look for */
	bool truncates;
};

static void set_floors(struct low *low, uint32_t first, uint32_t end,
		       uint32_t what)
{
	uint32_t page;

	for (page = first; page < end; page++)
		low->floor[page] = what ? what | page : 0;
	__sync_synchronize();
}

static void refill(int fd, char *p, uint32_t first, uint32_t end,
		   uint32_t stamp, bool mapped)
{
	uint32_t page, value;

	for (page = first; page < end; page++) {
		value = stamp | page;
		if (mapped)
			*word_at(p, page, STAMP) = value;
		else if (pwrite(fd, &value, 4, page * PAGE + STAMP) != 4)
			_exit(4);
	}
	__sync_synchronize();
}

/* What a vCPU stores from now on must be in the file, soon. */
static bool stores_arrive(struct scene *s, struct vmm *v, uint32_t first,
			  uint32_t end, volatile int *stop)
{
	uint32_t page, want, got;
	int i;

	for (i = 0; v && i < v->nr_vcpus; i++) {
		struct vcpu_ctl *c = &s->low->vcpu[v->id + i];

		if (!(c->flags & WRITES))
			continue;
		want = c->rounds + 2;
		while (c->rounds < want) {
			if (*stop || !vcpu_alive(c))
				return true;	/* seen elsewhere */
			usleep(200);
		}
		for (page = first; page < end; page++) {
			if (page < v->first || page >= v->end)
				continue;
			got = file_word(s, page, c->own);
			if (got >> PAGE_BITS >= want &&
			    got % MAX_PAGES == page)
				continue;
			fprintf(stderr, "# page %u: vCPU %d stored %#x or more, there is %#x\n",
				page, v->id + i, want << PAGE_BITS | page, got);
			return false;
		}
	}
	return true;
}

static int puncher(volatile int *stop, int nr, void *arg)
{
	struct puncher *pu = arg;
	struct scene *s = pu->s;
	char *p = map_at(s->fd, SIZE, 0, PROT_READ | PROT_WRITE);
	uint32_t turn;

	if (p == MAP_FAILED)
		return 2;
	srandom(nr + 1);
	for (turn = 1; !*stop; turn++) {
		uint32_t stamp = turn << PAGE_BITS;
		uint32_t first = random() % NPAGES;
		uint32_t n = random() % (turn & 1 ? 8 : NPAGES);
		uint32_t end = first + n < NPAGES ? first + n + 1 : NPAGES;
		bool cut = pu->truncates && turn % 8 == 7;

		if (cut)
			end = NPAGES;
		set_floors(s->low, first, end, 0);
		if (cut ? ftruncate(s->fd, first * PAGE) || ftruncate(s->fd, SIZE) :
			  punch(s->fd, first * PAGE, (end - first) * PAGE))
			return 3;
		set_floors(s->low, first, end, HOLE | stamp);
		if (turn & 2)
			usleep(500);
		refill(s->fd, p, first, end, stamp, turn & 4);
		set_floors(s->low, first, end, stamp);
		if (turn % 8 < 2 &&
		    (!stores_arrive(s, pu->v[0], first, end, stop) ||
		     !stores_arrive(s, pu->v[1], first, end, stop)))
			return 1;
	}
	return 0;
}

/* The last thing that each vCPU stored must be in each page, for everybody. */
static long last_stores_missing(struct scene *s, struct vmm *v)
{
	uint32_t page, got;
	long bad = 0;
	int i;

	for (i = 0; i < v->nr_vcpus; i++) {
		struct vcpu_ctl *c = &s->low->vcpu[v->id + i];

		for (page = v->first; page < v->end && c->flags & WRITES; page++) {
			got = file_word(s, page, c->own);
			bad += got >> PAGE_BITS < c->rounds ||
			       got >> PAGE_BITS > c->rounds + 1 ||
			       got % MAX_PAGES != page ||
			       *word_at(s->w, page, c->own) != got;
		}
	}
	return bad;
}

/* The same while it goes on storing. */
static long stores_missing(struct scene *s, struct vmm *v)
{
	uint32_t page, got, rounds;
	long bad = 0;
	int i;

	for (i = 0; i < v->nr_vcpus; i++) {
		struct vcpu_ctl *c = &s->low->vcpu[v->id + i];

		rounds = c->rounds;
		for (page = v->first; page < v->end && c->flags & WRITES; page++) {
			got = *word_at(s->w, page, c->own);
			bad += rounds && (got >> PAGE_BITS < rounds ||
					  got % MAX_PAGES != page);
		}
	}
	return bad;
}

static void calm_down(struct __test_metadata *_metadata, struct scene *s,
		      struct vmm *v)
{
	EXPECT_TRUE(guest_rounds(v));
	EXPECT_TRUE(guest_park(v));
	EXPECT_EQ(0, guest_bad(v));
	EXPECT_EQ(0, last_stores_missing(s, v));
	EXPECT_EQ(0, vmm_end(v));
}

TEST_F(kvm, punch_storm)
{
	struct scene *s = &self->s;
	struct puncher pu = { s, { &s->v }, true };
	struct crew crew;

	self->conf.program = guest_walk;
	self->conf.nr_vcpus = 2;
	ASSERT_TRUE(vmm_start(&s->v, s->low, &self->conf,
			      walk_flags(s, VANISH | FAULTS)));
	ASSERT_EQ(0, crew_init(&crew));
	ASSERT_EQ(0, crew_hire(&crew, puncher, &pu));
	usleep(SECONDS * 1e6);
	EXPECT_EQ(0, crew_dismiss(&crew));
	calm_down(_metadata, s, &s->v);
}

/* Somebody who counts in the same pages, by a mapping of its own. */
static int counter(volatile int *stop, int nr, void *arg)
{
	struct scene *s = arg;
	char *p = map_at(s->fd, SIZE, 0, PROT_READ | PROT_WRITE);

	return p == MAP_FAILED ? 3 : crew_count(stop, nr, p + CREW_WORD, SIZE);
}

static void move_all(struct scene *s, int node)
{
	void *pages[NPAGES];
	int nodes[NPAGES], status[NPAGES];
	size_t i;

	/* Only what is mapped here is moved. */
	vmm_populate(s->r, SIZE);
	for (i = 0; i < NPAGES; i++) {
		pages[i] = s->r + i * PAGE;
		nodes[i] = node;
	}
	syscall(SYS_move_pages, 0, NPAGES, pages, nodes, status,
		MPOL_MF_MOVE_ALL);
}

/* No page vanishes, but each moves all the time: no store may be lost. */
static void move_storm(struct __test_metadata *_metadata, struct scene *s,
		       struct vmm_conf *conf, bool reclaim)
{
	const char *event = reclaim ? "pswpout " : "pgmigrate_success ";
	long before = read_key("/proc/vmstat", event), bad = 0;
	double end = now() + SECONDS;
	struct crew crew;
	int n;

	conf->program = guest_walk;
	ASSERT_TRUE(vmm_start(&s->v, s->low, conf, walk_flags(s, 0)));
	ASSERT_EQ(0, crew_init(&crew));
	ASSERT_EQ(0, crew_hire(&crew, counter, s));
	for (n = 0; n < 3 || now() < end; n++) {
		if (reclaim)
			write_file(s->reclaim, "4M");
		else if (two_nodes())
			move_all(s, n & 1);
		else
			write_file("/proc/sys/vm/compact_memory", "1");
		bad += stores_missing(s, &s->v);
	}
	EXPECT_EQ(0, bad);
	EXPECT_EQ(0, crew_dismiss(&crew));
	if (reclaim || two_nodes())
		EXPECT_LT(before, read_key("/proc/vmstat", event));
	calm_down(_metadata, s, &s->v);
}

TEST_F(kvm, reclaim_storm)
{
	if (!self->s.reclaim[0])
		SKIP(return, "no swap, or no memory cgroups");
	move_storm(_metadata, &self->s, &self->conf, true);
}

TEST_F(kvm, migrate_storm)
{
	move_storm(_metadata, &self->s, &self->conf, false);
}

/* One of the things that a VMM may do, anywhere; the guest may notice. */
static long vmm_acts(struct scene *s)
{
	uint32_t page = s->v.first + 1 + random() % (s->v.end - s->v.first - 2);
	size_t len = (1 + random() % (s->v.end - page)) * PAGE;

	switch (random() % 8) {
	case 0:
		return protect(s, page, len, PROT_NONE) ?:
		       protect(s, page, len, usual_prot(s));
	case 1:
		return protect(s, page, PAGE, PROT_READ) ?:
		       protect(s, page, PAGE, usual_prot(s));
	case 2:
		return protect(s, page, len, other_prot(s)) ?:
		       protect(s, page, len, usual_prot(s));
	case 3:
		return vmm_call(&s->v, SYS_madvise, hva_of(&s->v, page), len,
				MADV_DONTNEED, 0);
	case 4:
		return do_leave_and_join(s, page);
	case 5:
		return do_mlock(s, page);
	case 6:
		return do_remap(s, page);
	}
	return do_fork(s, page);
}

TEST_F(kvm, vmm_storm)
{
	struct scene *s = &self->s;
	struct puncher pu = { s, { &s->v }, true };
	double end = now() + SECONDS;
	struct crew crew;

	self->conf.program = guest_walk;
	ASSERT_TRUE(vmm_start(&s->v, s->low, &self->conf,
			      walk_flags(s, VANISH | FAULTS)));
	ASSERT_EQ(0, crew_init(&crew));
	ASSERT_EQ(0, crew_hire(&crew, puncher, &pu));
	while (now() < end) {
		EXPECT_EQ(0, vmm_acts(s));
		/* Most of it makes the guest forget all that it should not know. */
		usleep(random() % 30000);
	}
	EXPECT_EQ(0, crew_dismiss(&crew));
	calm_down(_metadata, s, &s->v);
}

/* --- two VMs, or one that has the file twice --- */

FIXTURE(vms)
{
	struct scene s;
	struct vmm b;
	struct vmm_conf conf[2];
};

FIXTURE_SETUP(vms)
{
	int i;

	if (!have_kvm())
		SKIP(return, "no /dev/kvm");
	ASSERT_TRUE(scene_init(&self->s, false));
	for (i = 0; i < 2; i++)
		self->conf[i] = (struct vmm_conf) {
			.fd = self->s.fd,
			.off = i * MB,
			.len = SIZE - i * MB,
			.late = i,
			.first_id = i,
			.nr_vcpus = 1,
		};
}

FIXTURE_TEARDOWN(vms)
{
	scene_end(&self->s);
}

/*
 * What one VMM takes away is taken from the other's guest: that must neither
 * read nor write the old frame.
 */
TEST_F(vms, each)
{
	struct scene *s = &self->s;
	unsigned int n, bad = 0;
	int i;

	for (i = 0; i < 2; i++) {
		self->conf[i].program = guest_serve;
		ASSERT_TRUE(vmm_start(i ? &self->b : &s->v, s->low,
				      &self->conf[i], 0));
	}
	for (n = 0; n < 3 * ARRAY_SIZE(reductions) && bad < 5; n++) {
		const struct reduction *r = &reductions[n % ARRAY_SIZE(reductions)];
		uint32_t page = pick_page(&self->b, n);
		uint32_t was[2];
		const char *what[2];
		enum fate fate;

		was[0] = warm_up(s, &s->v, page);
		was[1] = warm_up(s, &self->b, page);
		ASSERT_TRUE(was[0] && was[1]);
		fate = r->act(s, page);
		what[1] = look_again(s, &self->b, page, was[1], fate);
		if (fate == GONE)
			fate = r->act(s, page);
		what[0] = look_again(s, &s->v, page, was[0], fate);
		for (i = 0; i < 2; i++) {
			EXPECT_EQ(NULL, what[i])
				TH_LOG("VM %d, page %u, %s: %s", i, page,
				       r->name, what[i]);
			bad += !!what[i];
		}
	}
	EXPECT_EQ(0, vmm_end(&s->v));
	EXPECT_EQ(0, vmm_end(&self->b));
}

TEST_F(vms, storm)
{
	struct scene *s = &self->s;
	struct puncher pu = { s, { &s->v, &self->b }, false };
	double end = now() + SECONDS;
	struct crew crew;
	int i, n = 0;

	for (i = 0; i < 2; i++) {
		self->conf[i].program = guest_walk;
		ASSERT_TRUE(vmm_start(i ? &self->b : &s->v, s->low,
				      &self->conf[i], WRITES | VANISH));
	}
	ASSERT_EQ(0, crew_init(&crew));
	ASSERT_EQ(0, crew_hire(&crew, puncher, &pu));
	while (now() < end) {
		if (two_nodes())
			move_all(s, n++ & 1);
		if (s->reclaim[0])
			write_file(s->reclaim, "1M");
	}
	EXPECT_EQ(0, crew_dismiss(&crew));
	calm_down(_metadata, s, &s->v);
	calm_down(_metadata, s, &self->b);
}

/* A VMM maps the file twice: both mappings are told. */
TEST_F(vms, alias)
{
	struct scene *s = &self->s;
	struct vmm *v = &s->v;
	unsigned int n, bad = 0;

	self->conf[1].program = guest_serve;
	self->conf[1].alias = true;
	ASSERT_TRUE(vmm_start(v, s->low, &self->conf[1], 0));
	for (n = 0; n < 3 * ARRAY_SIZE(reductions) && bad < 5; n++) {
		const struct reduction *r = &reductions[n % ARRAY_SIZE(reductions)];
		uint32_t page = pick_page(v, n), was = warm_up(s, v, page);
		uint32_t at = ALIAS_AT + (page - v->first) * PAGE + OWN(v->id);
		uint32_t seen = 0, want;
		const char *what;

		ASSERT_NE(0u, was);
		ASSERT_EQ(0, guest_do(v, 'l', at, &seen));
		EXPECT_EQ(was, seen);
		what = look_again(s, v, page, was, r->act(s, page));
		want = file_word(s, page, OWN(v->id));
		ASSERT_EQ(0, guest_do(v, 'l', at, &seen));
		EXPECT_EQ(want, seen);
		EXPECT_EQ(NULL, what)
			TH_LOG("page %u, %s: %s", page, r->name, what);
		bad += what || want != seen;
	}
	EXPECT_EQ(0, vmm_end(v));
}

/* --- notifiers come and go --- */

/* Make a VM on a mapping that is in use, let it look at all, end it. */
static int registrar(volatile int *stop, int nr, void *arg)
{
	struct scene *s = arg;
	struct vmm_conf conf = { .fd = s->fd, .len = SIZE };
	struct vcpu_ctl *c = &s->low->vcpu[nr];
	char *p = vmm_map(&conf);
	struct vm vm;
	int n;

	if (p == MAP_FAILED)
		return 2;
	for (n = 0; !*stop || !n; n++) {
		vmm_populate(p, SIZE);
		if (!vm_create(&vm) || !vmm_memory(&vm, &conf, s->low, p, NULL) ||
		    !vm_vcpu(&vm, nr, guest_walk))
			return 3;
		vcpu_init(s->low, nr, 0, NPAGES, WRITES | VANISH | ONCE | FAULTS);
		if (vcpu_run(&vm, 0, c))
			return 4;
		if (c->bad) {
			fprintf(stderr, "# VM %d, page %u: %#x instead of %#x\n",
				n, c->bad_page, c->got, c->want);
			return 1;
		}
		/* With its memory, or without. */
		if ((n & 1) && vm_slot(&vm, 1, 0, RAM_AT, p, 0))
			return 5;
		vm_destroy(&vm);
	}
	return 0;
}

TEST_F(vms, come_and_go)
{
	struct scene *s = &self->s;
	struct puncher pu = { s, {}, true };
	double end = now() + SECONDS;
	struct crew crew;
	int i, n = 0;

	ASSERT_EQ(0, crew_init(&crew));
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, crew_hire(&crew, registrar, s));
	ASSERT_EQ(0, crew_hire(&crew, puncher, &pu));
	while (now() < end) {
		if (two_nodes())
			move_all(s, n++ & 1);
		if (s->reclaim[0])
			write_file(s->reclaim, "1M");
	}
	EXPECT_EQ(0, crew_dismiss(&crew));
}

TEST_HARNESS_MAIN

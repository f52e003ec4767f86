// SPDX-License-Identifier: GPL-2.0
/*
 * Which pages are in use: reclaim, with and without MGLRU, keeps what sharers
 * use, and those who ask for idle pages are told the truth.  A shared table has
 * one accessed bit for all sharers (H24).
 */
#include "pt_system.h"

#include <sys/resource.h>

/* Three chunks and a bit, which has private tables. */
#define HOT	(6 * MB + 16 * PAGE)
#define STREAM	(40 * MB)
#define LAPS	5
#define LIMIT	"24M"
#define READERS	3

#define LRU_GEN	"/sys/kernel/mm/lru_gen/enabled"

/* --- a hot set, and one who streams through other memory --- */

struct hot {
	int fd;
	int prot;
	const char *cgroup;
	struct {
		volatile int ready;
		volatile long majflt, minflt, rounds;
	} *reader;	/* shared, one for each */
};

static long major_faults(void)
{
	struct rusage ru;

	getrusage(RUSAGE_SELF, &ru);
	return ru.ru_majflt;
}

static long minor_faults(void)
{
	struct rusage ru;

	getrusage(RUSAGE_SELF, &ru);
	return ru.ru_minflt;
}

static long load_all(const volatile char *p, size_t len)
{
	long sum = 0;
	size_t i;

	for (i = 0; i < len; i += PAGE)
		sum += p[i];
	return sum;
}

static int hot_reader(volatile int *stop, int nr, void *arg)
{
	struct hot *hot = arg;
	long before, minor;
	char *p;

	if (cgroup_write(hot->cgroup, "cgroup.procs", "0"))
		return 2;
	p = map_at(hot->fd, HOT, 0, hot->prot);
	if (p == MAP_FAILED)
		return 3;
	load_all(p, HOT);
	before = major_faults();
	minor = minor_faults();
	hot->reader[nr].ready = 1;
	while (!*stop) {
		load_all(p, HOT);
		hot->reader[nr].rounds++;
		hot->reader[nr].majflt = major_faults() - before;
		hot->reader[nr].minflt = minor_faults() - minor;
		usleep(5000);
	}
	return 0;
}

static int child_streams(void *arg)
{
	double end = now() + 40;
	struct hot *hot = arg;
	size_t at;
	char *p;

	if (cgroup_write(hot->cgroup, "cgroup.procs", "0"))
		return 2;
	p = mmap(NULL, STREAM, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return 3;
	madvise(p, STREAM, MADV_NOHUGEPAGE);
	for (at = 0; at < LAPS * STREAM && now() < end; at += MB)
		fill(p + at % STREAM, MB, at / MB);
	return check(p + (at - MB) % STREAM, MB, at / MB - 1) >= 0;
}

FIXTURE(hot_set)
{
	struct hot hot;
	char cgroup[96], lru_gen[32];
};

FIXTURE_VARIANT(hot_set)
{
	const char *lru_gen;
	int prot;
};

FIXTURE_VARIANT_ADD(hot_set, classic)
{
	.lru_gen = "0",
	.prot = PROT_READ | PROT_WRITE,
};

FIXTURE_VARIANT_ADD(hot_set, mglru)
{
	.lru_gen = "7",
	.prot = PROT_READ | PROT_WRITE,
};

FIXTURE_VARIANT_ADD(hot_set, classic_readers)
{
	.lru_gen = "0",
	.prot = PROT_READ,
};

FIXTURE_SETUP(hot_set)
{
	struct hot *hot = &self->hot;

	pt_opt_in();
	if (meminfo_kb("SwapTotal") <= 0)
		SKIP(return, "no swap");
	if (read_text(LRU_GEN, self->lru_gen, sizeof(self->lru_gen)) ||
	    write_file(LRU_GEN, variant->lru_gen))
		SKIP(return, "no MGLRU to turn on and off");
	if (!cgroup_make(self->cgroup, sizeof(self->cgroup)))
		SKIP(return, "no memory cgroups");
	hot->cgroup = self->cgroup;
	hot->prot = variant->prot;
	hot->fd = new_memfd(HOT);
	ASSERT_GE(hot->fd, 0);
	hot->reader = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(hot->reader, MAP_FAILED);
	ASSERT_EQ(0, cgroup_write(self->cgroup, "memory.max", LIMIT));
}

FIXTURE_TEARDOWN(hot_set)
{
	close(self->hot.fd);
	cgroup_remove(self->cgroup);
	write_file(LRU_GEN, self->lru_gen);
}

/*
 * Several use shared memory now and then, while another member of their cgroup
 * streams through more than its limit.  What is in use must stay: whoever takes
 * it for unused unmaps it with each lap, and it is faulted in again.  Stock
 * has next to no such faults, with MGLRU up to one for 12 pages that are swapped
 * out; if references are ignored there are two for three.  Guards ptshare_used():
 * an owner is in nobody's cgroup.
 */
TEST_F(hot_set, stays)
{
	struct hot *hot = &self->hot;
	long out = read_key("/proc/vmstat", "pswpout ");
	long majflt = 0, minflt = 0, rounds = 0;
	struct crew crew;
	int i;

	ASSERT_EQ(0, crew_init(&crew));
	for (i = 0; i < READERS; i++) {
		ASSERT_EQ(0, crew_hire(&crew, hot_reader, hot));
		while (!hot->reader[i].ready)
			usleep(1000);
	}
	EXPECT_EQ(0, in_child(child_streams, hot));
	EXPECT_EQ(0, crew_dismiss(&crew));
	for (i = 0; i < READERS; i++) {
		majflt += hot->reader[i].majflt;
		minflt += hot->reader[i].minflt;
		rounds += hot->reader[i].rounds;
	}
	out = read_key("/proc/vmstat", "pswpout ") - out;
	TH_LOG("%ld major and %ld minor faults in %ld rounds of %lu pages",
	       majflt, minflt, rounds, HOT / PAGE);
	TH_LOG("%ld pages swapped out", out);
	/* Was there any pressure? */
	EXPECT_LE((long)(HOT / PAGE), out);
	EXPECT_GE(out / 4, majflt + minflt);
}

/* --- the classic lists: a page is looked at twice --- */

#define LIST_SIZE	(8 * MB)

FIXTURE(lru)
{
	char cgroup[96], lru_gen[32];
	int fd;
};

FIXTURE_SETUP(lru)
{
	pt_opt_in();
	if (meminfo_kb("SwapTotal") <= 0)
		SKIP(return, "no swap");
	if (!read_text(LRU_GEN, self->lru_gen, sizeof(self->lru_gen)))
		write_file(LRU_GEN, "0");
	if (!cgroup_make(self->cgroup, sizeof(self->cgroup)))
		SKIP(return, "no memory cgroups");
	self->fd = new_memfd(LIST_SIZE);
	ASSERT_GE(self->fd, 0);
}

FIXTURE_TEARDOWN(lru)
{
	close(self->fd);
	cgroup_remove(self->cgroup);
	if (self->lru_gen[0])
		write_file(LRU_GEN, self->lru_gen);
}

/* Member 0 uses all of it, the others map it and use a page here and there. */
static int uses(volatile int *stop, int nr, void *arg)
{
	struct tally *t = arg;
	char *p = map_at(t->fd, t->size, 0, PROT_READ | PROT_WRITE);
	size_t i;

	if (cgroup_write(t->cgroup, "cgroup.procs", "0"))
		return 2;
	for (i = 0; i < t->size; i += nr ? MB : PAGE)
		(void)*(volatile char *)(p + i);
	stop[1 + nr] = 1;
	while (!*stop)
		usleep(10000);
	return 0;
}

/*
 * What one process uses is no more in use because others map it: a page is
 * activated when it is found in use by several, or the second time.  Whoever
 * activates all that one streams through has small cgroups run out of memory.
 */
TEST_F(lru, one_of_several)
{
	struct tally t = { self->fd, LIST_SIZE, NULL, self->cgroup };
	struct crew crew;
	long activated;
	int i;

	ASSERT_EQ(0, crew_init(&crew));
	for (i = 0; i < 4; i++) {
		ASSERT_EQ(0, crew_hire(&crew, uses, &t));
		while (!crew.stop[1 + i])
			usleep(1000);
	}
	activated = cgroup_key(self->cgroup, "memory.stat", "pgactivate ");
	EXPECT_EQ(0, cgroup_write(self->cgroup, "memory.reclaim", "1M"));
	activated = cgroup_key(self->cgroup, "memory.stat", "pgactivate ") -
		    activated;
	EXPECT_EQ(0, crew_dismiss(&crew));
	TH_LOG("%ld of %lu activated", activated, LIST_SIZE / PAGE);
	EXPECT_GE((long)(LIST_SIZE / PAGE / 8), activated);
}

/* --- idle pages --- */

#define IDLE_BITMAP	"/sys/kernel/mm/page_idle/bitmap"
#define NR_IDLE		64

static unsigned long pfn_of(const char *p)
{
	unsigned long entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	if (pread(fd, &entry, 8, (uintptr_t)p / PAGE * 8) != 8)
		entry = 0;
	close(fd);
	return entry >> 63 ? entry & ((1UL << 55) - 1) : 0;
}

static bool idle_get(int fd, unsigned long pfn)
{
	uint64_t word = 0;

	if (pread(fd, &word, 8, pfn / 64 * 8) != 8)
		return false;
	return word >> (pfn % 64) & 1;
}

/* A word that is cut by the end of memory is taken, but not counted: 0. */
static int idle_set(int fd, unsigned long pfn)
{
	uint64_t word = 1UL << (pfn % 64);

	return pwrite(fd, &word, 8, pfn / 64 * 8) < 0;
}

/* Unmapping much flushes all of our TLB: the next loads walk page tables. */
static void flush_own_tlb(void)
{
	char *p = mmap(NULL, MB, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	fill(p, MB, 1);
	munmap(p, MB);
}

struct idler {
	char *p;
	volatile int *stage;
};

static size_t idle_at(int i)
{
	/* Some of them are in the tail. */
	return i * (HOT / NR_IDLE / PAGE) * PAGE + 15 * PAGE;
}

/* Stage 1: has them mapped; 3: has touched every other one. */
static int child_touches(volatile int *stop, int nr, void *arg)
{
	struct idler *idler = arg;
	int i;

	load_all(idler->p, HOT);
	*idler->stage = 1;
	while (*idler->stage != 2)
		usleep(1000);
	flush_own_tlb();
	for (i = 0; i < NR_IDLE; i += 2)
		(void)*(volatile char *)(idler->p + idle_at(i));
	*idler->stage = 3;
	while (!*stop)
		usleep(1000);
	return 0;
}

/* What one process touches is idle for nobody; what none touches is idle. */
TEST(idle_pages)
{
	int fd = new_memfd(HOT), bitmap = open(IDLE_BITMAP, O_RDWR | O_CLOEXEC);
	int i, busy = 0, idle = 0, was = 0;
	unsigned long pfn[NR_IDLE];
	struct idler idler = {};
	struct crew crew;

	pt_opt_in();
	ASSERT_GE(fd, 0);
	if (bitmap < 0)
		SKIP(return, "no idle page tracking");
	idler.p = map_at(fd, HOT, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(idler.p, MAP_FAILED);
	fill(idler.p, HOT, 1);
	ASSERT_EQ(0, crew_init(&crew));
	idler.stage = crew.stop + 1;
	ASSERT_EQ(0, crew_hire(&crew, child_touches, &idler));
	while (*idler.stage != 1)
		usleep(1000);
	/* Onto the LRU lists with all that CPUs have kept back. */
	write_file("/proc/sys/vm/drop_caches", "1");
	for (i = 0; i < NR_IDLE; i++) {
		pfn[i] = pfn_of(idler.p + idle_at(i));
		ASSERT_NE(0UL, pfn[i]);
		ASSERT_EQ(0, idle_set(bitmap, pfn[i]))
			TH_LOG("frame %#lx: %s", pfn[i], strerror(errno));
	}
	for (i = 0; i < NR_IDLE; i++)
		was += idle_get(bitmap, pfn[i]);
	*idler.stage = 2;
	while (*idler.stage != 3)
		usleep(1000);
	for (i = 0; i < NR_IDLE; i++) {
		if (i & 1)
			idle += idle_get(bitmap, pfn[i]);
		else
			busy += !idle_get(bitmap, pfn[i]);
	}
	EXPECT_EQ(0, crew_dismiss(&crew));
	TH_LOG("%d idle; of touched ones %d busy, of others %d idle", was, busy,
	       idle);
	EXPECT_EQ(NR_IDLE / 2, busy);
	EXPECT_LE(NR_IDLE * 3 / 4, was);
	EXPECT_LE(NR_IDLE / 2 * 3 / 4, idle);
}

/* --- swap --- */

/* The first swap area and its priority. */
static int swap_area(char *name, size_t len)
{
	char line[256];
	int n = 0;
	FILE *f = fopen("/proc/swaps", "r");

	name[0] = 0;
	while (f && fgets(line, sizeof(line), f)) {
		if (line[0] == '/') {
			if (!n++) {
				line[strcspn(line, " \t")] = 0;
				snprintf(name, len, "%s", line);
			}
		}
	}
	if (f)
		fclose(f);
	return n;
}

/* All of it comes back, under those who count in it. */
TEST(swapoff)
{
	char name[256];
	int fd = new_memfd(HOT), i;
	double end = now() + 3;
	struct tally t = { .fd = fd, .size = HOT };
	struct crew crew;
	char *cold;

	pt_opt_in();
	ASSERT_GE(fd, 0);
	if (swap_area(name, sizeof(name)) != 1)
		SKIP(return, "not one swap area");
	t.inherited = map_at(fd, HOT, 0, PROT_READ | PROT_WRITE);
	cold = map_at(new_memfd(HOT), HOT, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(t.inherited, MAP_FAILED);
	ASSERT_NE(cold, MAP_FAILED);
	fill(cold, HOT, 7);
	ASSERT_EQ(0, tally_hire(&crew, &t, 3));
	for (i = 0; i < 2 || now() < end; i++) {
		madvise(t.inherited, HOT, MADV_PAGEOUT);
		madvise(cold, HOT, MADV_PAGEOUT);
		ASSERT_EQ(0, syscall(SYS_swapoff, name));
		ASSERT_EQ(0, syscall(SYS_swapon, name, 0));
	}
	EXPECT_EQ(-1, check(cold, HOT, 7));
	EXPECT_EQ(0, crew_dismiss(&crew));
	munmap(t.inherited, HOT);
	munmap(cold, HOT);
}

TEST_HARNESS_MAIN

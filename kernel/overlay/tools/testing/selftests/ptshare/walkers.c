// SPDX-License-Identifier: GPL-2.0
/*
 * Those who walk page tables or mappings on their own account: the OOM reaper,
 * khugepaged, KSM, DAMON.  Nobody's data may change, no table may stay behind.
 */
#include "pt_system.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif

/* Four chunks and a bit, which has private tables. */
#define SIZE	(8 * MB + 16 * PAGE)
#define SECONDS	3

FIXTURE(walkers)
{
	struct pt_gauges was;
	struct tally t;
	struct crew crew;
	char *p;
	int fd;
};

FIXTURE_SETUP(walkers)
{
	pt_opt_in();
	pt_catch();
	self->was = pt_gauges();
	self->fd = new_memfd(SIZE);
	ASSERT_GE(self->fd, 0);
	self->p = map_at(self->fd, SIZE, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(self->p, MAP_FAILED);
	self->t = (struct tally) { .fd = self->fd, .size = SIZE,
				   .inherited = self->p };
}

FIXTURE_TEARDOWN(walkers)
{
	munmap(self->p, SIZE);
	close(self->fd);
	EXPECT_STREQ("nothing", pt_left_over(&self->was));
}

/* --- the OOM reaper --- */

/* Reads until it is killed; stop[15] says that what it read was wrong. */
static int child_is_reaped(volatile int *stop, int nr, void *arg)
{
	struct tally *t = arg;
	int fd;
	char path[64], *p;

	/* A file that is open for reading: its mapping is not VM_SHARED. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", t->fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 1;
	p = map_at(fd, SIZE, 0, PROT_READ);
	if (p == MAP_FAILED)
		return 2;
	for (;;) {
		if (check(p, SIZE, 1) >= 0)
			stop[15] = 1;
		stop[1 + nr] = 1;
	}
}

/*
 * process_mrelease() unmaps a dying process as the OOM reaper does, with
 * mmap_lock held for reading: what is not VM_SHARED, private or read-only.  Its
 * tables are detached while it is on its way out, and others go on with them.
 */
TEST_F(walkers, mrelease)
{
	double end = now() + SECONDS;
	int i, pidfd, reaped = 0;
	struct crew crew;

	fill(self->p, SIZE, 1);
	while (now() < end) {
		ASSERT_EQ(0, crew_init(&crew));
		for (i = 0; i < 3; i++)
			ASSERT_EQ(0, crew_hire(&crew, child_is_reaped,
					       &self->t));
		for (i = 0; i < 3; i++)
			while (!crew.stop[1 + i])
				sched_yield();
		for (i = 0; i < 2; i++) {
			pidfd = syscall(SYS_pidfd_open, crew.pid[i], 0);
			ASSERT_LE(0, pidfd);
			kill(crew.pid[i], SIGKILL);
			if (!syscall(SYS_process_mrelease, pidfd, 0))
				reaped++;
			close(pidfd);
		}
		usleep(10000);
		kill(crew.pid[2], SIGKILL);
		for (i = 0; i < 3; i++)
			waitpid(crew.pid[i], NULL, 0);
		EXPECT_EQ(0, crew.stop[15]);
		EXPECT_EQ(-1, check(self->p, SIZE, 1));
		munmap((void *)crew.stop, PAGE);
	}
	TH_LOG("%d processes were reaped", reaped);
}

/* --- huge pages --- */

#define THP	"/sys/kernel/mm/transparent_hugepage/"

static int huge_knob(const char *file, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), THP "%s", file);
	return write_file(path, text);
}

/*
 * MADV_COLLAPSE says the same of a sharer as of others: the range is backed by
 * huge pages; guards the hook in collapse_pte_mapped_thp().
 */
TEST_F(walkers, collapse_result)
{
	long before = meminfo_kb("ShmemHugePages");
	char *q;
	int ret;

	fill(self->p, SIZE, 1);
	ret = madvise(self->p, 2 * CHUNK, MADV_COLLAPSE);
	if (meminfo_kb("ShmemHugePages") <= before)
		SKIP(return, "no huge page to be had");
	EXPECT_EQ(0, ret);
	EXPECT_EQ(0, madvise(self->p, 2 * CHUNK, MADV_COLLAPSE));
	q = map_at(self->fd, SIZE, 0, PROT_READ);
	EXPECT_EQ(0, madvise(q, 2 * CHUNK, MADV_COLLAPSE));
	EXPECT_EQ(-1, check(q, SIZE, 1));
	EXPECT_EQ(0, madvise(q, 2 * CHUNK, MADV_COLLAPSE));
	EXPECT_EQ(-1, check(self->p, SIZE, 1));
	munmap(q, SIZE);
}

/* Sharers, then huge pages for all: khugepaged makes the file's pages huge. */
TEST_F(walkers, khugepaged)
{
	long before = read_key("/proc/vmstat", "thp_collapse_alloc ");
	char enabled[64], *q;
	long huge;

	memset(self->p, 0, SIZE);
	if (huge_knob("shmem_enabled", "always"))
		SKIP(return, "no huge pages in shmem");
	read_text(THP "enabled", enabled, sizeof(enabled));
	huge_knob("enabled", "always");
	huge_knob("khugepaged/scan_sleep_millisecs", "10");
	huge_knob("khugepaged/alloc_sleep_millisecs", "10");
	huge_knob("khugepaged/pages_to_scan", "4096");
	ASSERT_EQ(0, tally_hire(&self->crew, &self->t, 3));
	/* An ordinary mapping brings khugepaged to the file. */
	q = map_at(self->fd, SIZE, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(q, MAP_FAILED);
	madvise(q, SIZE, MADV_HUGEPAGE);
	sleep(SECONDS);
	huge = read_key("/proc/vmstat", "thp_collapse_alloc ") - before;
	/* And back to small ones. */
	madvise(self->p, SIZE, MADV_PAGEOUT);
	usleep(200000);
	huge_knob("shmem_enabled", "never");
	huge_knob("enabled", strstr(enabled, "[always]") ? "always" :
		  strstr(enabled, "[never]") ? "never" : "madvise");
	huge_knob("khugepaged/scan_sleep_millisecs", "10000");
	huge_knob("khugepaged/alloc_sleep_millisecs", "60000");
	EXPECT_EQ(0, crew_dismiss(&self->crew));
	munmap(q, SIZE);
	TH_LOG("%ld huge pages made", huge);
}

/* --- KSM --- */

static long ksm_pages(void)
{
	return read_key("/proc/self/ksm_stat", "ksm_merging_pages ");
}

/* Shared memory is not merged, whoever asks for it, and goes on as it is. */
TEST_F(walkers, ksm)
{
	if (write_file("/sys/kernel/mm/ksm/run", "1"))
		SKIP(return, "no KSM");
	write_file("/sys/kernel/mm/ksm/sleep_millisecs", "1");
	write_file("/sys/kernel/mm/ksm/pages_to_scan", "5000");
	ASSERT_EQ(0, tally_hire(&self->crew, &self->t, 3));
	EXPECT_EQ(0, madvise(self->p, SIZE, MADV_MERGEABLE));
	sleep(SECONDS);
	EXPECT_EQ(0, ksm_pages());
	EXPECT_EQ(0, crew_dismiss(&self->crew));
	EXPECT_EQ(0, madvise(self->p, SIZE, MADV_UNMERGEABLE));
	write_file("/sys/kernel/mm/ksm/run", "2");
	write_file("/sys/kernel/mm/ksm/sleep_millisecs", "20");
	write_file("/sys/kernel/mm/ksm/pages_to_scan", "100");
}

/* --- DAMON --- */

#define DAMON	"/sys/kernel/mm/damon/admin/kdamonds/"
#define CONTEXT	DAMON "0/contexts/0/"
#define SCHEME	CONTEXT "schemes/0/"
#define TARGET	CONTEXT "targets/0/"

static int write_number(const char *path, unsigned long n)
{
	char text[32];

	snprintf(text, sizeof(text), "%lu", n);
	return write_file(path, text);
}

/* The biggest piece of memory. */
static void find_ram(unsigned long *from, unsigned long *to)
{
	FILE *f = fopen("/proc/iomem", "r");
	unsigned long start, end;
	char line[128];

	*from = *to = 0;
	while (f && fgets(line, sizeof(line), f))
		if (strstr(line, "System RAM") &&
		    sscanf(line, "%lx-%lx", &start, &end) == 2 &&
		    end - start > *to - *from) {
			*from = start;
			*to = end + 1;
		}
	if (f)
		fclose(f);
}

static int damon_target(pid_t pid)
{
	unsigned long from, to;

	if (pid)
		return write_number(TARGET "pid_target", pid);
	find_ram(&from, &to);
	return write_file(TARGET "regions/nr_regions", "1") ||
	       write_number(TARGET "regions/0/start", from) ||
	       write_number(TARGET "regions/0/end", to);
}

/* Page out whatever it finds, of a process or of all memory. */
static int damon_start(const char *operations, pid_t pid)
{
	return write_file(DAMON "nr_kdamonds", "1") ||
	       write_file(DAMON "0/contexts/nr_contexts", "1") ||
	       write_file(CONTEXT "operations", operations) ||
	       write_file(CONTEXT "monitoring_attrs/intervals/sample_us",
			  "5000") ||
	       write_file(CONTEXT "monitoring_attrs/intervals/aggr_us",
			  "50000") ||
	       write_file(CONTEXT "monitoring_attrs/intervals/update_us",
			  "200000") ||
	       write_file(CONTEXT "targets/nr_targets", "1") ||
	       damon_target(pid) ||
	       write_file(CONTEXT "schemes/nr_schemes", "1") ||
	       write_file(SCHEME "action", "pageout") ||
	       write_number(SCHEME "access_pattern/sz/max", 1UL << 40) ||
	       write_file(SCHEME "access_pattern/nr_accesses/max", "1000") ||
	       write_file(SCHEME "access_pattern/age/max", "1000000") ||
	       write_file(DAMON "0/state", "on");
}

static long damon_applied(void)
{
	char text[32];

	write_file(DAMON "0/state", "update_schemes_stats");
	read_text(SCHEME "stats/nr_applied", text, sizeof(text));
	return atol(text);
}

static void damon_stop(void)
{
	write_file(DAMON "0/state", "off");
	write_file(DAMON "nr_kdamonds", "0");
}

static void damon_test(struct __test_metadata *_metadata, struct tally *t,
		       bool physical)
{
	struct crew crew;
	int i;

	ASSERT_EQ(0, tally_hire(&crew, t, 3));
	if (damon_start(physical ? "paddr" : "vaddr",
			physical ? 0 : crew.pid[0])) {
		damon_stop();
		crew_dismiss(&crew);
		SKIP(return, "no DAMON");
	}
	sleep(SECONDS);
	/* On a slow kernel it takes its time. */
	for (i = 0; i < 60 && !damon_applied(); i++)
		sleep(1);
	EXPECT_LT(0, damon_applied());
	damon_stop();
	EXPECT_EQ(0, crew_dismiss(&crew));
}

/* Looks at accessed bits through a sharer, and clears them there. */
TEST_F(walkers, damon_vaddr)
{
	damon_test(_metadata, &self->t, false);
}

/* Looks at them through the reverse map. */
TEST_F(walkers, damon_paddr)
{
	damon_test(_metadata, &self->t, true);
}

TEST_HARNESS_MAIN

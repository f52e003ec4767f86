/* SPDX-License-Identifier: GPL-2.0 */
/*
 * For random.c: what the administrator, and the kernel by itself, may do at any
 * time.  Nobody should notice, so none of it is in the model.
 *
 * What concerns one worker or one page is always done.  With --system also what
 * needs a machine that one may play with: some pages are taken out of use.
 */
#ifndef RANDOM_SYSTEM_H
#define RANDOM_SYSTEM_H

#include <linux/mempolicy.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>

#include "random_ops.h"

#ifndef PAGEMAP_SCAN
#define PAGEMAP_SCAN	_IOWR('f', 16, struct pm_scan_arg)
struct page_region { uint64_t start, end, categories; };
struct pm_scan_arg {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask,
		 return_mask;
};
#endif

#define pm_present(entry)	((entry) >> 63)
#define PM_PFN		((1UL << 55) - 1)

static bool put(const char *path, const char *fmt, unsigned long n)
{
	FILE *f = fopen(path, "w");

	if (!f)
		return false;
	fprintf(f, fmt, n);
	return !fclose(f);
}

/* A file of a worker in /proc, or -1: not configured, or not allowed. */
static int open_proc(struct worker *w, const char *name, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", w->pid, name);
	say("# %u: %s %s\n", stepno, flags == O_RDONLY ? "read" : "write to",
	    path);
	return open(path, flags);
}

static void read_all(struct worker *w, const char *name)
{
	int fd = open_proc(w, name, O_RDONLY);
	long len;

	if (fd < 0)
		return;
	do
		len = read(fd, copy_buf, 65536);
	while (len > 0);
	if (len < 0)
		fail("%s: %s", name, strerror(errno));
	close(fd);
}

static void poke_smaps(struct worker *w)
{
	read_all(w, one_in(2) ? "smaps" : "smaps_rollup");
}

static void poke_numa_maps(struct worker *w)
{
	read_all(w, "numa_maps");
}

/* Entries of /proc/PID/pagemap for @n pages of the arena. */
static long read_pagemap(struct worker *w, unsigned int at, unsigned int n,
			 uint64_t *entry)
{
	int fd = open_proc(w, "pagemap", O_RDONLY);
	long len;

	if (fd < 0)
		return -1;
	len = pread(fd, entry, n * 8, va(at) / PAGE * 8);
	close(fd);
	return len < 0 ? len : len / 8;
}

static void poke_pagemap(struct worker *w)
{
	static uint64_t entry[ARENA_PAGES];

	if (read_pagemap(w, 0, ARENA_PAGES, entry) == 0)
		fail("pagemap ends early");
}

static void poke_pagemap_scan(struct worker *w)
{
	static struct page_region found[64];
	struct pm_scan_arg arg = {
		.size = sizeof(arg), .start = va(0), .end = va(ARENA_PAGES),
		.vec = (uintptr_t)found, .vec_len = ARRAY_SIZE(found),
		.category_anyof_mask = 1 << 3 | 1 << 4,	/* present, swapped */
		.return_mask = 0x7f,
	};
	int fd = open_proc(w, "pagemap", O_RDONLY);

	if (fd < 0)
		return;
	if (ioctl(fd, PAGEMAP_SCAN, &arg) < 0 && errno != ENOTTY)
		fail("PAGEMAP_SCAN: %s", strerror(errno));
	close(fd);
}

static void poke_clear_refs(struct worker *w)
{
	bool soft_dirty = one_in(3);
	int fd = open_proc(w, "clear_refs", O_WRONLY);

	if (fd < 0)
		return;
	if (write(fd, soft_dirty ? "4" : "1", 1) < 0 && !soft_dirty)
		fail("clear_refs: %s", strerror(errno));
	close(fd);
}

/* To either node, as often as not against others' will. */
static void poke_move_pages(struct worker *w)
{
	void *pages[128];
	int nodes[128], status[128], n = 1 + rnd(128), to = rnd(2), i;
	unsigned int at = rnd(ARENA_PAGES - n);

	for (i = 0; i < n; i++) {
		pages[i] = (void *)va(at + i);
		nodes[i] = to;
	}
	say("# %u: move_pages %d to node %d\n", stepno, n, to);
	syscall(SYS_move_pages, w->pid, n, pages, nodes, status,
		one_in(3) ? MPOL_MF_MOVE : MPOL_MF_MOVE_ALL);
}

static void poke_migrate_pages(struct worker *w)
{
	unsigned long from = 1 + rnd(2), to = 3 - from;

	say("# %u: migrate_pages\n", stepno);
	syscall(SYS_migrate_pages, w->pid, 3, &from, &to);
}

static void poke_advise(struct worker *w)
{
	static const int advices[] = { MADV_COLD, MADV_PAGEOUT, MADV_WILLNEED };
	int pidfd = syscall(SYS_pidfd_open, w->pid, 0);
	int advice = advices[rnd(ARRAY_SIZE(advices))];
	struct iovec iov;
	unsigned int at, n;

	pick_range(w, &at, &n);
	iov = (struct iovec) { (void *)va(at), n * PAGE };
	say("# %u: process_madvise %d\n", stepno, advice);
	syscall(SYS_process_madvise, pidfd, &iov, 1, advice, 0);
	close(pidfd);
}

static void poke_reclaim(struct worker *w)
{
	char path[128];

	(void)w;
	snprintf(path, sizeof(path), "%s/memory.reclaim", cgroup);
	say("# %u: memory.reclaim\n", stepno);
	if (cgroup[0])
		put(path, "%lu", (1 + rnd(8)) << 20);
}

/* Frames around one of ours are marked idle: reclaim's view, not the workers'. */
static void poke_idle(struct worker *w)
{
	unsigned int at = rnd(ARENA_PAGES);
	uint64_t entry, bits = ~0UL;
	int fd;

	if (read_pagemap(w, at, 1, &entry) != 1 || !pm_present(entry))
		return;
	fd = open("/sys/kernel/mm/page_idle/bitmap", O_RDWR);
	if (fd < 0)
		return;
	entry = (entry & PM_PFN) / 64 * 8;
	if (pwrite(fd, &bits, 8, entry) == 8)
		must(pread(fd, &bits, 8, entry) == 8, "page_idle");
	close(fd);
}

/*
 * A notifier that lives for a while, or as long as its process.  Only what is
 * sent to it matters here: that nothing breaks.
 */
static void poke_notifier(struct worker *w)
{
	static int fds[4] = { -1, -1, -1, -1 };
	int *fd = &fds[rnd(ARRAY_SIZE(fds))];
	char text[32];

	if (*fd >= 0)
		close(*fd);
	*fd = open("/sys/kernel/debug/ptshare/notifier", O_RDWR | O_CLOEXEC);
	if (*fd < 0)
		return;
	snprintf(text, sizeof(text), "%s%d", one_in(3) ? "secondary " : "",
		 w->pid);
	say("# %u: notifier %s\n", stepno, text);
	if (write(*fd, text, strlen(text)) < 0)
		say("# %u: %s\n", stepno, strerror(errno));
}

static void poke_compact(struct worker *w)
{
	(void)w;
	say("# %u: compact_memory\n", stepno);
	put("/proc/sys/vm/compact_memory", "1", 0);
}

/* A page that may fail soon goes out of use; its content stays. */
static void poke_soft_offline(struct worker *w)
{
	static int times;
	uint64_t entry;

	if (++times > 200 ||
	    read_pagemap(w, rnd(ARENA_PAGES), 1, &entry) != 1 ||
	    !pm_present(entry) || !(entry & PM_PFN))
		return;
	say("# %u: soft offline\n", stepno);
	put("/sys/devices/system/memory/soft_offline_page", "%#lx",
	    (entry & PM_PFN) * PAGE);
}

static void poke(void)
{
	static void (*const pokes[])(struct worker *w) = {
		poke_smaps, poke_numa_maps, poke_pagemap, poke_pagemap_scan,
		poke_clear_refs, poke_move_pages, poke_migrate_pages,
		poke_advise, poke_reclaim, poke_idle, poke_notifier,
		/* with --system */
		poke_compact, poke_soft_offline,
	};

	pokes[rnd(ARRAY_SIZE(pokes) - (opt.system ? 0 : 2))](pick_worker());
}

#endif /* RANDOM_SYSTEM_H */

/* SPDX-License-Identifier: GPL-2.0 */
/* ptshare, private to mm/ptshare*.c; see mm/ptshare.c */
#ifndef _MM_PTSHARE_H
#define _MM_PTSHARE_H

#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/ptshare.h>
#include <linux/refcount.h>
#include <linux/task_work.h>
#include <linux/workqueue.h>

/* One window per combination of VM_WRITE and VM_EXEC. */
#define PTSHARE_NR_CLASSES	4

/*
 * Where windows lie in the owner.  Nobody but the fault path computes these
 * addresses; the first GiB stays empty so that none looks like NULL.  A
 * multiple of PUD_SIZE keeps one PMD page of the owner to one GiB of file.
 */
#define PTSHARE_WINDOW_SHIFT	45
#define PTSHARE_WINDOW_SIZE	((1UL << PTSHARE_WINDOW_SHIFT) - 2 * PUD_SIZE)
#define PTSHARE_WINDOW_PAGES	(PTSHARE_WINDOW_SIZE >> PAGE_SHIFT)

#define PTSHARE_PARTIAL_BITS	10

/**
 * struct ptshare - the owner of the shared PTE tables of one file
 * @mm: the hidden address space, whose windows map the file
 * @mapping: the file's
 * @path: keeps inode and superblock, but no mount of a namespace, busy
 * @window: one VMA per class, NULL until needed, then immutable; written
 *	under @mm's mmap_lock, read by whoever holds a sharer's lock
 * @ref: one for each sharer VMA; drops to 0 under i_mmap_rwsem only
 * @sharers: interval tree of the sharer VMAs, under i_mmap_rwsem
 * @nr_sharers: how many VMAs @sharers holds, under i_mmap_rwsem
 * @bucket: one bit, by which all sharers can be flushed at once
 * @nr_partial: sum of @partial
 * @nr_tables: how many PTE tables @mm has
 * @partial: for each hash of a chunk, how many VMA ends cut through such a
 *	chunk; a collision costs a walk of @sharers and nothing else
 * @list: in debugfs
 * @notifier: of @mm, passes on to the notifiers of sharers; @notifier.mm is
 *	NULL until a sharer has any, written under @mm's mmap_lock and
 *	i_mmap_rwsem
 * @twork: for the teardown, in the task that dropped the last reference
 * @work: ditto, for tasks that cannot
 * @walk_lock: held for read, if not @dead, it keeps @mm's page tables; nests
 *	inside PTE locks
 * @dead: page tables are about to go
 * @rwork: frees what readers under RCU may look at
 *
 * Hangs off mapping->i_ptshare from the first sharer to the last.
 */
struct ptshare {
	struct mm_struct *mm;
	struct address_space *mapping;
	struct path path;
	struct vm_area_struct *window[PTSHARE_NR_CLASSES];
	refcount_t ref;
	struct rb_root_cached sharers;
	unsigned long nr_sharers;
	u64 bucket;
	unsigned long nr_partial;
	atomic_long_t nr_tables;
	unsigned int partial[1 << PTSHARE_PARTIAL_BITS];
	struct list_head list;
#ifdef CONFIG_MMU_NOTIFIER
	struct mmu_notifier notifier;
#endif
	union {
		struct callback_head twork;
		struct work_struct work;
	};
	rwlock_t walk_lock;
	bool dead;
	struct rcu_work rwork;
};

/*
 * What there is now, system-wide.  What happened is counted by vm events, and
 * what is attached is the difference of two.
 */
enum ptshare_gauge {
	PTSHARE_OWNERS,
	PTSHARE_SHARERS,
	PTSHARE_TABLES,
	NR_PTSHARE_GAUGES,
};

extern atomic_long_t ptshare_gauges[NR_PTSHARE_GAUGES];

static inline void ptshare_gauge_add(enum ptshare_gauge gauge, long n)
{
	atomic_long_add(n, &ptshare_gauges[gauge]);
}

static inline unsigned int ptshare_class(vm_flags_t flags)
{
	return (flags & VM_WRITE ? 1 : 0) | (flags & VM_EXEC ? 2 : 0);
}

static inline unsigned long ptshare_window_base(unsigned int class)
{
	return PUD_SIZE + ((unsigned long)class << PTSHARE_WINDOW_SHIFT);
}

/* The class whose window an address of an owner is in, or near. */
static inline unsigned int ptshare_class_at(unsigned long addr)
{
	if (addr < PUD_SIZE)
		return 0;
	return min((addr - PUD_SIZE) >> PTSHARE_WINDOW_SHIFT,
		   PTSHARE_NR_CLASSES - 1UL);
}

/* The page of the file that an address in a window maps. */
static inline pgoff_t ptshare_window_pgoff(unsigned long addr)
{
	return ((addr - ptshare_window_base(0)) &
		((1UL << PTSHARE_WINDOW_SHIFT) - 1)) >> PAGE_SHIFT;
}

/* First and last+1 address of the covered chunks of a VMA; equal if none. */
static inline unsigned long ptshare_covered_start(const struct vm_area_struct *vma)
{
	return min(ALIGN(vma->vm_start, PMD_SIZE), vma->vm_end);
}

static inline unsigned long ptshare_covered_end(const struct vm_area_struct *vma)
{
	return max(ALIGN_DOWN(vma->vm_end, PMD_SIZE),
		   ptshare_covered_start(vma));
}

/* Does the chunk around @addr lie wholly inside [@start, @end)? */
static inline bool ptshare_chunk_in(unsigned long addr, unsigned long start,
				    unsigned long end)
{
	unsigned long chunk = addr & PMD_MASK;

	return chunk >= start && end - chunk >= PMD_SIZE && end > chunk;
}

static inline bool ptshare_covers(const struct vm_area_struct *vma,
				  unsigned long addr)
{
	return ptshare_chunk_in(addr, vma->vm_start, vma->vm_end);
}

typedef void (*ptshare_walk_fn)(struct vm_area_struct *vma, unsigned long start,
				unsigned long end, void *arg);

/**
 * ptshare_walk_sharers - what a range of an owner is to its sharers
 * @ps: the owner, i_mmap_rwsem held
 * @start: of a range of @ps->mm, which may reach over several windows
 * @end: its end
 * @fn: called for each sharer that overlaps, whatever its class, with the part
 *	of the sharer that maps pages of the range
 * @arg: handed to @fn
 *
 * Whatever their class: while mprotect() moves a sharer to another class its
 * flags are new already and the old tables still attached.  Inlined, because a
 * lone sharer is not to pay for the generality.
 */
static __always_inline void
ptshare_walk_sharers(struct ptshare *ps, unsigned long start, unsigned long end,
		     ptshare_walk_fn fn, void *arg)
{
	unsigned int class = ptshare_class_at(start);
	struct vm_area_struct *vma;

	for (; class <= ptshare_class_at(end - 1); class++) {
		unsigned long base = ptshare_window_base(class);
		unsigned long from = max(start, base);
		unsigned long to = min(end, base + PTSHARE_WINDOW_SIZE);
		pgoff_t first, last;

		if (from >= to || !READ_ONCE(ps->window[class]))
			continue;
		first = (from - base) >> PAGE_SHIFT;
		last = (to - base - 1) >> PAGE_SHIFT;
		vma_interval_tree_foreach(vma, &ps->sharers, first, last) {
			pgoff_t lo = max(first, vma->vm_pgoff);
			pgoff_t hi = min(last, vma->vm_pgoff + vma_pages(vma) - 1);

			fn(vma, vma->vm_start + ((lo - vma->vm_pgoff) << PAGE_SHIFT),
			   vma->vm_start + ((hi - vma->vm_pgoff + 1) << PAGE_SHIFT),
			   arg);
		}
	}
}

/*
 * How often a table of an owner is attached is counted in its ptdesc: how many
 * PMD entries of sharers point to it.  See mm/ptshare_account.c.
 */
static inline struct ptdesc *ptshare_ptdesc(pmd_t table)
{
	return page_ptdesc(pmd_pgtable(table));
}

static inline int ptshare_table_attached(pmd_t table)
{
	return ptdesc_pmd_pts_count(ptshare_ptdesc(table));
}

/* mm/ptshare_account.c */
void ptshare_check_detached(struct ptshare *ps);

/* mm/ptshare_owner.c */
struct ptshare *ptshare_owner_get(struct vm_area_struct *vma);
bool ptshare_owner_window(struct ptshare *ps, unsigned int class,
			  struct vm_area_struct *sharer);
void ptshare_owner_put(struct ptshare *ps);
void ptshare_join(struct vm_area_struct *vma, struct ptshare *ps);
void ptshare_leave(struct vm_area_struct *vma);

/* mm/ptshare_policy.c */
bool ptshare_wanted(struct vm_area_struct *vma, vm_flags_t flags);

/* mm/ptshare_notify.c */
#ifdef CONFIG_MMU_NOTIFIER
void ptshare_notify_secondary_tlbs(struct ptshare *ps, unsigned long start,
				   unsigned long end);
bool ptshare_notify_prepare(struct ptshare *ps, struct mm_struct *sharer);
void ptshare_notify_stop(struct ptshare *ps);
#else
static inline void ptshare_notify_secondary_tlbs(struct ptshare *ps,
						 unsigned long start,
						 unsigned long end)
{
}

static inline bool ptshare_notify_prepare(struct ptshare *ps,
					  struct mm_struct *sharer)
{
	return true;
}

static inline void ptshare_notify_stop(struct ptshare *ps)
{
}
#endif

/* mm/ptshare_debug.c */
#ifdef CONFIG_DEBUG_FS
void ptshare_debug_add(struct ptshare *ps);
void ptshare_debug_del(struct ptshare *ps);
#else
static inline void ptshare_debug_add(struct ptshare *ps)
{
}

static inline void ptshare_debug_del(struct ptshare *ps)
{
}
#endif

/* mm/ptshare.c */
void ptshare_detach_chunk(struct vm_area_struct *vma, unsigned long addr);

#endif /* _MM_PTSHARE_H */

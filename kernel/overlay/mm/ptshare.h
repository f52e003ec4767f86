/* SPDX-License-Identifier: GPL-2.0 */
/* ptshare, private to mm/ptshare*.c; see mm/ptshare.c */
#ifndef _MM_PTSHARE_H
#define _MM_PTSHARE_H

#include <linux/mm.h>
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
 * @twork: for the teardown, in the task that dropped the last reference
 * @work: ditto, for tasks that cannot
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
	union {
		struct callback_head twork;
		struct work_struct work;
	};
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

/* mm/ptshare_owner.c */
struct ptshare *ptshare_owner_get(struct vm_area_struct *vma);
bool ptshare_owner_window(struct ptshare *ps, unsigned int class,
			  struct vm_area_struct *sharer);
void ptshare_owner_put(struct ptshare *ps);
void ptshare_join(struct vm_area_struct *vma, struct ptshare *ps);
void ptshare_leave(struct vm_area_struct *vma);

/* mm/ptshare_policy.c */
bool ptshare_wanted(struct vm_area_struct *vma, vm_flags_t flags);

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

// SPDX-License-Identifier: GPL-2.0
/*
 * mm/ptshare_tlb.c - flushing the sharers of an owner
 *
 * Nobody runs on an owner: its entries are cached in the TLBs of the CPUs that
 * run its sharers, at the sharers' addresses.  Whoever reduces a shared PTE
 * holds i_mmap_rwsem, so the sharers can be walked and told one by one with
 * the primitives that stock uses for one address space.  One sharer thus
 * costs what stock costs.  Where there are many, the architecture flushes all
 * at once, without a look at any.
 *
 * Deferred flushes (try_to_unmap_flush()) run without the rwsem.  They need no
 * walk: the sharers, or the owner's bucket, were put into the batch when the
 * PTE was cleared.
 */
#include <linux/mm.h>
#include <linux/rmap.h>

#include <asm/ptshare.h>
#include <asm/tlbflush.h>

#include <trace/events/ptshare.h>

#include "ptshare.h"

/* Up to so many sharers are flushed one by one. */
#define PTSHARE_FLUSH_EACH_MAX	8

static void ptshare_assert_walkable(struct ptshare *ps)
{
	/* exit_mmap() of the owner holds nothing, and has no sharers. */
	if (!RB_EMPTY_ROOT(&ps->sharers.rb_root))
		lockdep_assert_held(&ps->mapping->i_mmap_rwsem);
}

static bool ptshare_many(struct ptshare *ps)
{
	return ps->nr_sharers > PTSHARE_FLUSH_EACH_MAX;
}

/* Flush the part of each sharer that maps pages @first to @last. */
static void ptshare_flush_each(struct ptshare *ps, pgoff_t first, pgoff_t last,
			       unsigned int stride_shift, bool freed_tables)
{
	struct vm_area_struct *vma;

	trace_ptshare_flush(ps->mapping, first, last, ps->nr_sharers, false);
	/*
	 * Whatever their class: while mprotect() moves a sharer to another
	 * class its flags are new already and the old tables still attached.
	 */
	vma_interval_tree_foreach(vma, &ps->sharers, first, last) {
		pgoff_t from = max(first, vma->vm_pgoff);
		pgoff_t to = min(last, vma->vm_pgoff + vma_pages(vma) - 1);

		flush_tlb_mm_range(vma->vm_mm, vma->vm_start +
				   ((from - vma->vm_pgoff) << PAGE_SHIFT),
				   vma->vm_start +
				   ((to - vma->vm_pgoff + 1) << PAGE_SHIFT),
				   stride_shift, freed_tables);
		count_vm_event(PTSHARE_FLUSH_EACH);
	}
}

void __ptshare_flush_tlb_range(struct mm_struct *mm, unsigned long start,
			       unsigned long end, unsigned int stride_shift,
			       bool freed_tables)
{
	unsigned int class = ptshare_class_at(start);
	struct ptshare *ps = mm->ptshare;

	ptshare_assert_walkable(ps);
	if (ptshare_many(ps)) {
		trace_ptshare_flush(ps->mapping, 0, ULONG_MAX, ps->nr_sharers,
				    false);
		arch_ptshare_flush(ps->bucket);
		count_vm_event(PTSHARE_FLUSH_ALL);
		return;
	}
	for (; class <= ptshare_class_at(end - 1); class++) {
		unsigned long base = ptshare_window_base(class);
		unsigned long from = max(start, base);
		unsigned long to = min(end, base + PTSHARE_WINDOW_SIZE);

		if (from >= to || !READ_ONCE(ps->window[class]))
			continue;
		ptshare_flush_each(ps, (from - base) >> PAGE_SHIFT,
				   (to - base - 1) >> PAGE_SHIFT, stride_shift,
				   freed_tables);
	}
}

void __ptshare_tlbbatch_add(struct arch_tlbflush_unmap_batch *batch,
			    struct mm_struct *mm, unsigned long addr)
{
	struct ptshare *ps = mm->ptshare;
	pgoff_t pgoff = ((addr - ptshare_window_base(0)) &
			 ((1UL << PTSHARE_WINDOW_SHIFT) - 1)) >> PAGE_SHIFT;
	struct vm_area_struct *vma;

	ptshare_assert_walkable(ps);
	trace_ptshare_flush(ps->mapping, pgoff, pgoff, ps->nr_sharers, true);
	if (ptshare_many(ps)) {
		if (!(batch->ptshare & ps->bucket))
			count_vm_event(PTSHARE_FLUSH_ALL);
		batch->ptshare |= ps->bucket;
		return;
	}
	vma_interval_tree_foreach(vma, &ps->sharers, pgoff, pgoff)
		arch_tlbbatch_add_pending(batch, vma->vm_mm, vma->vm_start +
					  ((pgoff - vma->vm_pgoff) << PAGE_SHIFT));
}

/* Deferring pays as soon as one sharer would have it deferred. */
bool __ptshare_tlbbatch_should_defer(struct mm_struct *mm)
{
	struct ptshare *ps = mm->ptshare;
	struct rb_node *first;

	ptshare_assert_walkable(ps);
	if (ps->nr_sharers > 1)
		return true;
	first = rb_first_cached(&ps->sharers);
	return first &&
	       arch_tlbbatch_should_defer(rb_entry(first, struct vm_area_struct,
						   shared.rb)->vm_mm);
}

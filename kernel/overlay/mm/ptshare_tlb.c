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

struct ptshare_flush {
	unsigned int stride_shift;
	bool freed_tables;
};

static void ptshare_flush_one(struct vm_area_struct *vma, unsigned long start,
			      unsigned long end, void *arg)
{
	struct ptshare_flush *flush = arg;

	flush_tlb_mm_range(vma->vm_mm, start, end, flush->stride_shift,
			   flush->freed_tables);
	count_vm_event(PTSHARE_FLUSH_EACH);
}

void __ptshare_flush_tlb_range(struct mm_struct *mm, unsigned long start,
			       unsigned long end, unsigned int stride_shift,
			       bool freed_tables)
{
	struct ptshare_flush flush = { stride_shift, freed_tables };
	struct ptshare *ps = mm->ptshare;

	ptshare_assert_walkable(ps);
	trace_ptshare_flush(ps->mapping, ptshare_window_pgoff(start),
			    ptshare_window_pgoff(end - 1), ps->nr_sharers,
			    false);
	if (ptshare_many(ps)) {
		arch_ptshare_flush(ps->bucket);
		ptshare_notify_secondary_tlbs(ps, start, end);
		count_vm_event(PTSHARE_FLUSH_ALL);
		return;
	}
	ptshare_walk_sharers(ps, start, end, ptshare_flush_one, &flush);
}

void __ptshare_tlbbatch_add(struct arch_tlbflush_unmap_batch *batch,
			    struct mm_struct *mm, unsigned long addr)
{
	struct ptshare *ps = mm->ptshare;
	pgoff_t pgoff = ptshare_window_pgoff(addr);
	struct vm_area_struct *vma;

	ptshare_assert_walkable(ps);
	trace_ptshare_flush(ps->mapping, pgoff, pgoff, ps->nr_sharers, true);
	if (ptshare_many(ps)) {
		if (!(batch->ptshare & ps->bucket))
			count_vm_event(PTSHARE_FLUSH_ALL);
		batch->ptshare |= ps->bucket;
		ptshare_notify_secondary_tlbs(ps, addr, addr + PAGE_SIZE);
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

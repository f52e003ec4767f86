// SPDX-License-Identifier: GPL-2.0
/*
 * mm/ptshare_reclaim.c - whose references those to a shared table are
 *
 * Reclaim asks who uses a page, and a window answers for all its sharers: its
 * PTE has one accessed bit, which does not tell who set it.  What is known is
 * who could have: the sharers that have the chunk covered, with the window's
 * permission.  They are asked what stock asks each mapping, until one counts.
 *
 * It counts once, where several processes with PTEs of their own would count
 * several times and have the page activated at once, not at the second look.
 * To assume that all sharers have used what one has was tried: whatever one
 * process streams through is activated then, and small cgroups run out of
 * memory.
 */
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>

#include "ptshare.h"

static bool ptshare_uses(struct vm_area_struct *vma, pgoff_t pgoff,
			 unsigned int class, struct mem_cgroup *memcg)
{
	unsigned long addr = vma->vm_start +
			     ((pgoff - vma->vm_pgoff) << PAGE_SHIFT);

	if (!ptshare_covers(vma, addr) ||
	    ptshare_class(vma->vm_flags) != class)
		return false;
	if (!vma_has_recency(vma))
		return false;
	return !memcg || mm_match_cgroup(vma->vm_mm, memcg);
}

bool __ptshare_used(struct vm_area_struct *window, unsigned long address,
		    struct mem_cgroup *memcg)
{
	pgoff_t pgoff = linear_page_index(window, address);
	unsigned int class = ptshare_class(window->vm_flags);
	struct ptshare *ps = window->vm_mm->ptshare;
	struct vm_area_struct *vma;

	lockdep_assert_held(&ps->mapping->i_mmap_rwsem);
	vma_interval_tree_foreach(vma, &ps->sharers, pgoff, pgoff) {
		if (ptshare_uses(vma, pgoff, class, memcg))
			return true;
		cond_resched();
	}
	return false;
}

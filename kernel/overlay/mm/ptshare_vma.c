// SPDX-License-Identifier: GPL-2.0
/*
 * mm/ptshare_vma.c - which VMAs share, and what changes of their shape do
 *
 * A VMA is judged when it is created or its flags change.  Split and merge
 * move its ends: a chunk that stops being covered loses the owner's table, a
 * chunk that becomes covered loses its private one.  Both happen with all VMAs
 * concerned write-locked and before their ends move, so that nobody can fault
 * a table in between.
 */
#include <linux/mm.h>
#include <linux/huge_mm.h>
#include <linux/hugetlb.h>
#include <linux/mmu_notifier.h>
#include <linux/pkeys.h>
#include <linux/shm.h>
#include <linux/shmem_fs.h>
#include <linux/userfaultfd_k.h>

#include <asm/tlb.h>

#include "internal.h"
#include "ptshare.h"

/* --- eligibility --- */

/* What needs PTEs of its own, or must be seen by rmap in the process' VMA. */
#define PTSHARE_BAD_FLAGS	(VM_LOCKED_MASK | __VM_UFFD_FLAGS | VM_PFNMAP | \
				 VM_IO | VM_MIXEDMAP | VM_HUGEPAGE | \
				 VM_DROPPABLE | VM_SHADOW_STACK | VM_HUGETLB)

static bool ptshare_flags_ok(vm_flags_t flags)
{
	/*
	 * FOLL_FORCE reads even what is PROT_NONE: its fault would attach a
	 * table that user mode can read.
	 */
	if (!(flags & VM_READ) || !(flags & VM_MAYSHARE))
		return false;
	if (flags & (PTSHARE_BAD_FLAGS | ARCH_VM_PKEY_FLAGS))
		return false;
	/* Soft-dirty tracking write-protects PTEs for one process. */
	return !IS_ENABLED(CONFIG_MEM_SOFT_DIRTY) || (flags & VM_SOFTDIRTY);
}

/*
 * Only mappings that shmem's own fault handler would serve: a driver may map
 * a shmem file with a handler of its own.
 */
static bool ptshare_file_ok(struct vm_area_struct *vma)
{
	if (!vma->vm_file || !shmem_mapping(vma->vm_file->f_mapping))
		return false;
	return vma_is_shmem(vma) || vma_is_sysv_shm(vma);
}

static bool ptshare_geometry_ok(struct vm_area_struct *vma)
{
	if ((vma->vm_start ^ (vma->vm_pgoff << PAGE_SHIFT)) & ~PMD_MASK)
		return false;
	if (vma->vm_pgoff + vma_pages(vma) > PTSHARE_WINDOW_PAGES)
		return false;
	return ptshare_covered_end(vma) > ptshare_covered_start(vma);
}

/*
 * What only decides about joining cannot change for a sharer, or may: a split
 * leaves pieces without a covered chunk that will be merged again, and huge
 * pages that are enabled later are mapped by PTEs.
 */
static bool ptshare_may_join(struct vm_area_struct *vma, vm_flags_t flags)
{
	return ptshare_flags_ok(flags) && ptshare_file_ok(vma) &&
	       ptshare_geometry_ok(vma) &&
	       !thp_vma_allowable_order(vma, flags, TVA_ENFORCE_SYSFS,
					PMD_ORDER) &&
	       ptshare_wanted(vma, flags);
}

/* All that may lack memory; what was made stays with the owner. */
static bool ptshare_prepare(struct vm_area_struct *vma, struct ptshare *ps,
			    unsigned int class)
{
	return ptshare_owner_window(ps, class, vma) &&
	       (!mm_has_notifiers(vma->vm_mm) ||
		ptshare_notify_prepare(ps, vma->vm_mm));
}

static void ptshare_join_or_leave(struct vm_area_struct *vma, vm_flags_t flags)
{
	unsigned int class = ptshare_class(flags);
	struct ptshare *ps = vma->vm_ptshare;

	if (ps) {
		if (!ptshare_flags_ok(flags) || (flags & VM_NOPTSHARE) ||
		    !ptshare_owner_window(ps, class, vma))
			ptshare_leave(vma);
		return;
	}
	if (!ptshare_may_join(vma, flags))
		return;
	ps = ptshare_owner_get(vma);
	if (!ps)
		return;
	if (ptshare_prepare(vma, ps, class))
		ptshare_join(vma, ps);
	else
		ptshare_owner_put(ps);
}

/*
 * What a sharer has written is known by its VM_SOFTDIRTY alone: a VMA that got
 * it by a merge must not lose it to flags that were made up before.
 */
vm_flags_t __ptshare_judge(struct vm_area_struct *vma, vm_flags_t flags)
{
	mmap_assert_write_locked(vma->vm_mm);
	flags |= vma->vm_flags & VM_SOFTDIRTY;
	ptshare_join_or_leave(vma, flags);
	return flags;
}

/* --- split --- */

void __ptshare_split(struct vm_area_struct *vma, struct vm_area_struct *new,
		     unsigned long addr)
{
	if (!IS_ALIGNED(addr, PMD_SIZE) && ptshare_covers(vma, addr))
		ptshare_detach_chunk(vma, addr);
	refcount_inc(&vma->vm_ptshare->ref);
	new->vm_ptshare = vma->vm_ptshare;
	ptshare_gauge_add(PTSHARE_SHARERS, 1);
}

/* --- merge --- */

static void ptshare_zap(struct vm_area_struct *vma, unsigned long start,
			unsigned long end)
{
	start = max(start, vma->vm_start);
	end = min(end, vma->vm_end);
	if (start < end)
		zap_page_range_single(vma, start, end - start, NULL);
}

/*
 * The chunk around @addr is about to be covered by a sharer: drop what is
 * mapped there privately, by any of the VMAs that meet in it, and the table.
 */
static void ptshare_drop_private(struct mm_struct *mm, unsigned long addr,
				 struct address_space *mapping)
{
	unsigned long start = addr & PMD_MASK, end = start + PMD_SIZE;
	pmd_t *pmd = mm_find_pmd(mm, addr);
	struct vm_area_struct *vma;
	struct mmu_gather tlb;

	if (!pmd || pmd_none(pmdp_get_lockless(pmd)) ||
	    pmd_ptshared(pmdp_get_lockless(pmd)))
		return;
	for (vma = find_vma(mm, start); vma && vma->vm_start < end;
	     vma = find_vma(mm, vma->vm_end))
		ptshare_zap(vma, start, end);

	/* Free the table with no reverse-map walk in it. */
	i_mmap_lock_write(mapping);
	tlb_gather_mmu(&tlb, mm);
	free_pgd_range(&tlb, start, end, start, end);
	tlb_finish_mmu(&tlb);
	i_mmap_unlock_write(mapping);
}

/*
 * @from gives [@start, @end) to @to, which will then cover [@to_start,
 * @to_end).  If one of them shares and the other does not, what is mapped
 * there is of the wrong kind.
 */
static void ptshare_give(struct vm_area_struct *from, struct vm_area_struct *to,
			 unsigned long start, unsigned long end,
			 unsigned long to_start, unsigned long to_end)
{
	unsigned long addr;

	if (from->vm_ptshare == to->vm_ptshare)
		return;
	ptshare_zap(from, start, end);
	if (!to->vm_ptshare)
		return;
	for (addr = start & PMD_MASK; addr < end; addr += PMD_SIZE)
		if (ptshare_chunk_in(addr, to_start, to_end))
			ptshare_drop_private(to->vm_mm, addr,
					     to->vm_file->f_mapping);
}

/* @addr was an end of a VMA and will lie in [@start, @end), given to @to. */
static void ptshare_lose_end(unsigned long addr, struct vm_area_struct *to,
			     unsigned long start, unsigned long end)
{
	if (to->vm_ptshare && !IS_ALIGNED(addr, PMD_SIZE) &&
	    addr > start && addr < end && ptshare_chunk_in(addr, start, end))
		ptshare_drop_private(to->vm_mm, addr, to->vm_file->f_mapping);
}

void __ptshare_merge(struct vm_area_struct *vma, struct vm_area_struct *adjust,
		     struct vm_area_struct *remove,
		     struct vm_area_struct *remove2,
		     unsigned long start, unsigned long end, long adj_start)
{
	struct vm_area_struct *parts[] = { vma, adjust, remove, remove2 };
	struct vm_area_struct *to = vma, *from = adjust;
	unsigned long to_start = start, to_end = end, cut = end;
	int i;

	/* As a sharer's VM_SOFTDIRTY speaks for its PTEs, see __ptshare_judge() */
	vm_flags_set(adj_start < 0 ? adjust : vma, VM_SOFTDIRTY);
	if (adj_start < 0) {
		/* The one case in which @vma shrinks and @adjust grows. */
		to = adjust;
		from = vma;
		cut = adjust->vm_start + adj_start;
		to_start = cut;
		to_end = adjust->vm_end;
	}

	/* What was covered and is cut by the new end is covered no more. */
	if (from && from->vm_ptshare && !IS_ALIGNED(cut, PMD_SIZE) &&
	    ptshare_covers(from, cut))
		ptshare_detach_chunk(from, cut);

	if (from)
		ptshare_give(from, to, max(from->vm_start, to_start),
			     min(from->vm_end, to_end), to_start, to_end);
	if (remove)
		ptshare_give(remove, to, remove->vm_start, remove->vm_end,
			     to_start, to_end);
	if (remove2)
		ptshare_give(remove2, to, remove2->vm_start, remove2->vm_end,
			     to_start, to_end);

	for (i = 0; i < ARRAY_SIZE(parts); i++) {
		if (!parts[i])
			continue;
		ptshare_lose_end(parts[i]->vm_start, to, to_start, to_end);
		ptshare_lose_end(parts[i]->vm_end, to, to_start, to_end);
	}
}

/* --- move --- */

/*
 * PTEs of a shared table are never moved.  What mremap() would move can be
 * faulted in from the file, so drop it, private parts included.
 */
bool __ptshare_drop_move(struct vm_area_struct *vma,
			 struct vm_area_struct *new_vma,
			 unsigned long addr, unsigned long len)
{
	if (len)
		zap_page_range_single(vma, addr, len, NULL);
	return true;
}

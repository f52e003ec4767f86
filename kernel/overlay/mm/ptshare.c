// SPDX-License-Identifier: GPL-2.0
/*
 * mm/ptshare.c - sharing of PTE tables between mappings of one shmem file
 *
 * A page table entry costs 8 bytes per page *per process*.  When thousands of
 * processes map the same shared memory, their page tables outgrow it.  Here
 * the file owns one set of PTE tables and its mappings borrow them:
 *
 *  process A  mm -- VMA (RW, 0x7f00..) --+ PMD entries    owner mm, no task
 *  process B  mm -- VMA (RW, 0x7e40..) --+-----------> RW window -- PTE tables
 *  process C  mm -- VMA (R,  0x7d00..) --+-----------> R  window -- PTE tables
 *                                        |              | in mapping->i_mmap:
 *     in owner->sharers <----------------+              v rmap, truncate,
 *     (who must be flushed)                   reclaim and migration work here
 *
 * Core mm runs on the windows unchanged and meets each page once, however many
 * processes map it.  Processes keep ordinary VMAs with their own addresses,
 * lengths and permissions.  To the owner they are a second TLB.
 *
 * Terms
 *	chunk		a PMD_SIZE aligned range of the file: one PTE table
 *	owner		the file's hidden address space (struct ptshare)
 *	window		a VMA of the owner that maps the whole file with the
 *			permissions of one class
 *	class		(VM_WRITE, VM_EXEC): a shared table has one permission
 *	sharer		a process' VMA that takes part (vma->vm_ptshare)
 *	attach, detach	put the owner's table into, take it out of, a sharer's
 *			PMD entry
 *	covered chunk	one that lies wholly inside a sharer VMA.  It is mapped
 *			by the owner's table of the VMA's class or not at all
 *	partial chunk	the head or tail of a sharer VMA that is no whole
 *			chunk: mapped by a private table or not at all
 *
 * Every reduction of a shared PTE (clear, write-protect, migration entry)
 * happens through a window, under i_mmap_rwsem.  A sharer never edits one; it
 * detaches, which touches no PTE and allocates nothing, so it cannot fail.
 *
 * Locking, outermost first; compare the list in mm/rmap.c
 *	mmap_lock of a sharer		joining, leaving, geometry: for write
 *	  VMA lock of a sharer		attaching: for read
 *	    mmap_lock of the owner	creating a window (nested, for write)
 *	      i_mmap_rwsem		owner->sharers, mapping->i_ptshare,
 *					vma->vm_ptshare of linked VMAs
 *	        PMD lock of a sharer	the PMD entry
 *	          PTE lock		in the table's ptdesc: one for all
 * A fault takes no lock of the owner.  The locked sharer pins the owner, and
 * windows are never split, merged, moved or changed.
 *
 * Lifetime
 * Each sharer holds one reference on the owner, from joining until after its
 * last TLB flush.  Shared tables are freed with the owner and never become
 * anybody's private table.  GUP-fast may walk one that has just been detached:
 * the flush after detaching interrupts each CPU that runs the sharer, or, where
 * a hypervisor flushes instead, tables are freed through RCU.
 *
 * Two orders carry the TLB:
 *	join:  linked into owner->sharers, then attach.  Whoever clears a
 *	       shared PTE finds the sharer or the sharer finds the PTE cleared.
 *	leave: detach, flush, then unlink.  While our TLB may hold an entry,
 *	       whoever clears the PTE still finds us.
 *
 * Not handled: other files than shmem, huge pages, tables above the PTE level,
 * giving tables back before the last sharer goes.  What is not eligible is an
 * ordinary VMA of the same file: both kinds coexist.
 *
 * This file attaches and detaches.  See also ptshare_owner.c (owner, windows,
 * sharers), ptshare_vma.c (who shares; split, merge, move), ptshare_tlb.c,
 * ptshare_notify.c (secondary MMUs), ptshare_account.c (who maps a page),
 * ptshare_reclaim.c (who uses it), ptshare_policy.c, ptshare_debug.c,
 * arch/x86/mm/ptshare.c and Documentation/mm/ptshare.rst.
 */
#include <linux/mmu_notifier.h>
#include <linux/pgalloc.h>

#include <asm/tlb.h>

#define CREATE_TRACE_POINTS
#include <trace/events/ptshare.h>

#include "internal.h"
#include "ptshare.h"

static pmd_t *ptshare_pmd_alloc(struct mm_struct *mm, unsigned long addr)
{
	pgd_t *pgd = pgd_offset(mm, addr);
	p4d_t *p4d = p4d_alloc(mm, pgd, addr);
	pud_t *pud = p4d ? pud_alloc(mm, p4d, addr) : NULL;

	return pud ? pmd_alloc(mm, pud, addr) : NULL;
}

static bool ptshare_table_alloc(struct ptshare *ps, pmd_t *pmd)
{
	pgtable_t table = pte_alloc_one(ps->mm);

	if (!table)
		return false;
	ptdesc_pmd_pts_init(page_ptdesc(table));
	pmd_install(ps->mm, pmd, &table);
	if (table) {
		pte_free(ps->mm, table);	/* somebody was faster */
	} else {
		atomic_long_inc(&ps->nr_tables);
		ptshare_gauge_add(PTSHARE_TABLES, 1);
	}
	return true;
}

/*
 * Attach every table that the owner has between @start and @end, which lie in
 * one PMD page.  Tables that others have filled cost us no fault this way.
 * Tables of an owner go only with it: looking for them takes no lock.
 */
static unsigned long ptshare_attach_range(struct vm_area_struct *vma,
					  pmd_t *pmd, unsigned long start,
					  unsigned long end,
					  unsigned long woffset)
{
	struct mm_struct *owner = vma->vm_ptshare->mm;
	spinlock_t *ptl = pmd_lock(vma->vm_mm, pmd);
	unsigned long addr, n = 0;
	pmd_t *wpmd = NULL, table;

	for (addr = start; addr < end; addr += PMD_SIZE, pmd++) {
		/* Where one PMD page of the owner's ends need not be our end. */
		if (addr == start || IS_ALIGNED(addr + woffset, PUD_SIZE))
			wpmd = mm_find_pmd(owner, addr + woffset);
		else if (wpmd)
			wpmd++;
		if (!wpmd || !pmd_none(*pmd))
			continue;
		table = pmdp_get_lockless(wpmd);
		if (pmd_none(table))
			continue;
		ptdesc_pmd_pts_inc(ptshare_ptdesc(table));
		/*
		 * Whoever follows our entry must see the table as initialised
		 * as we do: pairs with the wmb in pmd_install() of its maker.
		 */
		smp_mb__after_atomic();
		set_pmd(pmd, pmd_mkptshared(table));
		n++;
	}
	spin_unlock(ptl);
	count_vm_events(PTSHARE_ATTACH, n);
	return n;
}

/* Attach what exists around a covered address, as far as one PMD page goes. */
static unsigned long ptshare_attach_around(struct vm_area_struct *vma,
					   pmd_t *pmd, unsigned long addr,
					   unsigned long woffset)
{
	unsigned long start = max(addr & PUD_MASK, ptshare_covered_start(vma));
	unsigned long end = min((addr & PUD_MASK) + PUD_SIZE,
				ptshare_covered_end(vma));

	pmd -= ((addr & PMD_MASK) - start) >> PMD_SHIFT;
	return ptshare_attach_range(vma, pmd, start, end, woffset);
}

/* Add to an address of a sharer to get the same page in its class' window. */
static unsigned long ptshare_window_offset(struct vm_area_struct *vma)
{
	return ptshare_window_base(ptshare_class(vma->vm_flags)) +
	       (vma->vm_pgoff << PAGE_SHIFT) - vma->vm_start;
}

static vm_fault_t ptshare_attach(struct vm_area_struct *vma,
				 unsigned long addr, unsigned long woffset)
{
	struct mm_struct *owner = vma->vm_ptshare->mm;
	pmd_t *pmd, *wpmd, val;
	unsigned long n;

	pmd = ptshare_pmd_alloc(vma->vm_mm, addr);
	if (!pmd)
		return VM_FAULT_OOM;
	val = pmdp_get_lockless(pmd);
	if (likely(pmd_ptshared(val)))
		return 0;
	/* A private table here would hide its pages from rmap. */
	if (WARN_ON_ONCE(!pmd_none(val)))
		return VM_FAULT_SIGBUS;

	wpmd = ptshare_pmd_alloc(owner, addr + woffset);
	if (!wpmd)
		return VM_FAULT_OOM;
	if (pmd_none(pmdp_get_lockless(wpmd)) &&
	    !ptshare_table_alloc(vma->vm_ptshare, wpmd))
		return VM_FAULT_OOM;
	n = ptshare_attach_around(vma, pmd, addr, woffset);
	trace_ptshare_attach(vma, addr, n);
	count_vm_event(PTSHARE_ATTACH_FAULTS);
	if (n > 1)
		count_vm_events(PTSHARE_ATTACH_AROUND, n - 1);
	return 0;
}

/*
 * The table is attached before the fault is handled, not after: a first write
 * to shared memory normally ends in VM_FAULT_COMPLETED, with our lock gone.
 */
vm_fault_t __ptshare_enter_fault(struct vm_area_struct **vmap,
				 unsigned long *address)
{
	struct vm_area_struct *vma = *vmap;
	unsigned long woffset;
	vm_fault_t ret;

	if (!ptshare_covers(vma, *address))
		return 0;
	woffset = ptshare_window_offset(vma);
	ret = ptshare_attach(vma, *address, woffset);
	if (ret)
		return ret;
	*vmap = vma->vm_ptshare->window[ptshare_class(vma->vm_flags)];
	*address += woffset;
	return 0;
}

/*
 * Give the child at once what the parent has attached, but no more than one
 * PMD page: a child that touches nothing must not pay for a huge mapping, and
 * the rest comes with one fault for each PMD page.
 */
void __ptshare_fill_fork(struct vm_area_struct *dst,
			 struct vm_area_struct *src)
{
	unsigned long addr = ptshare_covered_start(src);
	unsigned long end = ptshare_covered_end(src);
	unsigned long n;
	pmd_t *pmd;

	for (; addr < end; addr = (addr & PUD_MASK) + PUD_SIZE) {
		pmd = mm_find_pmd(src->vm_mm, addr);
		if (pmd && pmd_ptshared(pmdp_get_lockless(pmd)))
			break;
	}
	if (addr >= end)
		return;
	pmd = ptshare_pmd_alloc(dst->vm_mm, addr);
	if (!pmd)
		return;		/* the child's faults will try again */
	n = ptshare_attach_around(dst, pmd, addr, ptshare_window_offset(dst));
	trace_ptshare_attach(dst, addr, n);
	count_vm_events(PTSHARE_ATTACH_FORK, n);
}

/*
 * The flush must reach every PTE of the table, and lazy CPUs too: their
 * paging-structure caches may point to the table, which is freed one day
 * without another word to them.
 */
static bool ptshare_clear_pmd(struct mmu_gather *tlb, pmd_t *pmd,
			      unsigned long addr)
{
	spinlock_t *ptl = pmd_lock(tlb->mm, pmd);
	pmd_t table = *pmd;
	bool attached = pmd_ptshared(table);

	if (attached) {
		pmd_clear(pmd);
		/* Orders the two; the owner, and with it the table, is pinned. */
		smp_mb__before_atomic();
		ptdesc_pmd_pts_dec(ptshare_ptdesc(table));
		tlb_flush_pte_range(tlb, addr & PMD_MASK, PMD_SIZE);
		tlb->freed_tables = 1;
		tlb->unshared_tables = 1;
		count_vm_event(PTSHARE_DETACH);
		trace_ptshare_detach(tlb->mm, addr & PMD_MASK);
	}
	spin_unlock(ptl);
	return attached;
}

bool __ptshare_detach(struct mmu_gather *tlb, pmd_t *pmd, unsigned long addr)
{
	return pmd_ptshared(pmdp_get_lockless(pmd)) &&
	       ptshare_clear_pmd(tlb, pmd, addr);
}

bool __ptshare_covered(const struct vm_area_struct *vma, unsigned long addr)
{
	return ptshare_covers(vma, addr);
}

void __ptshare_flush_detached(struct mmu_gather *tlb)
{
	if (tlb->unshared_tables)
		tlb_flush_mmu_tlbonly(tlb);
}

/**
 * ptshare_detach_chunk - detach one chunk, flush, and tell mmu notifiers
 * @vma: a sharer, write-locked
 * @addr: any address in the chunk
 *
 * The chunk is about to be covered no more: what a secondary MMU has of it
 * stems from a table whose reductions are not this VMA's any longer.
 */
void ptshare_detach_chunk(struct vm_area_struct *vma, unsigned long addr)
{
	unsigned long start = addr & PMD_MASK;
	struct mmu_notifier_range range;
	struct mmu_gather tlb;
	pmd_t *pmd = mm_find_pmd(vma->vm_mm, addr);

	if (!pmd)
		return;
	mmu_notifier_range_init(&range, MMU_NOTIFY_UNMAP, 0, vma->vm_mm, start,
				start + PMD_SIZE);
	mmu_notifier_invalidate_range_start(&range);
	tlb_gather_mmu(&tlb, vma->vm_mm);
	ptshare_detach(&tlb, pmd, addr);
	tlb_finish_mmu(&tlb);
	mmu_notifier_invalidate_range_end(&range);
}

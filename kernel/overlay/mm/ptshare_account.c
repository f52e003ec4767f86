// SPDX-License-Identifier: GPL-2.0
/*
 * mm/ptshare_account.c - how many processes map a page
 *
 * A page in an owner's table is mapped once, by the window, whoever has the
 * table attached: its mapcount says 1 where there would be one for each
 * process without sharing.  All who take "mapcount is 1" for "it is mine" ask
 * here.  The table's ptdesc counts the PMD entries of sharers that point to it.
 * A present PTE of a window stands for as many mappings as its table is
 * attached to, which may be none.
 *
 * The answer is a snapshot, as a mapcount is.  The count is raised before an
 * entry is written and lowered after one is cleared: it may be too high for a
 * moment, never too low, so a page that others map does not pass for exclusive
 * by a race of its table with the reader.
 *
 * The count is no reason to keep or to free a table.  Tables go with their
 * owner only.
 *
 * Most of those who ask hold a PTE lock, which nests inside i_mmap_rwsem: they
 * find the owner under RCU, and keep its page tables by a lock of their own.
 * RCU alone would not keep those: x86 frees page tables through RCU only where
 * the hypervisor flushes TLBs; else it relies on the flush's interrupts, which
 * for an owner, whom nobody runs, go to no CPU.
 *
 *   reader				ptshare_owner_put(), ptshare_owner_free()
 *   rcu_read_lock			mapping->i_ptshare = NULL
 *   read mapping->i_ptshare		write_lock
 *   read_lock				  dead = true
 *     unless dead: walk tables	write_unlock
 *   read_unlock			exit_mmap(): tables go
 *   rcu_read_unlock			a grace period; free mm and owner
 */
#include <linux/mm.h>
#include <linux/pagewalk.h>
#include <linux/rcupdate.h>
#include <linux/spinlock.h>

#include <asm/ptshare.h>

#include "internal.h"
#include "ptshare.h"

/* --- mapcounts --- */

/* What the PTEs of one window stand for, beyond the mappings they count as. */
static int ptshare_window_extra(struct ptshare *ps, unsigned int class,
				pgoff_t pgoff, unsigned long pfn,
				unsigned long nr)
{
	unsigned long addr = ptshare_window_base(class) + (pgoff << PAGE_SHIFT);
	pmd_t *pmd = mm_find_pmd(ps->mm, addr);
	pmd_t table = pmd ? pmdp_get_lockless(pmd) : __pmd(0);
	int attached, n = 0;
	pte_t *pte;

	if (!pmd_present(table))
		return 0;
	attached = ptshare_table_attached(table);
	if (attached == 1)
		return 0;
	/* The table stays, and 64-bit kernels need not map it. */
	for (pte = pte_offset_kernel(&table, addr); nr; nr--, pte++, pfn++) {
		pte_t entry = ptep_get_lockless(pte);

		n += pte_present(entry) && pte_pfn(entry) == pfn;
	}
	return n * (attached - 1);
}

static int ptshare_owner_extra(struct ptshare *ps, pgoff_t pgoff,
			       unsigned long pfn, unsigned long nr)
{
	unsigned int class;
	int extra = 0;

	read_lock(&ps->walk_lock);
	for (class = 0; class < PTSHARE_NR_CLASSES && !ps->dead; class++)
		if (READ_ONCE(ps->window[class]))
			extra += ptshare_window_extra(ps, class, pgoff, pfn,
						      nr);
	read_unlock(&ps->walk_lock);
	return extra;
}

/**
 * __ptshare_extra_mappings - what mapcounts lack
 * @folio: not anonymous; cannot be freed, say because the caller holds the PTE
 *	lock of a mapping or a reference
 * @page: one of its pages
 * @nr: how many from @page on
 *
 * Return: the difference between the number of mappings of these pages by
 * processes and the sum of their mapcounts.  Negative where windows map a page
 * and nobody has the table attached.
 */
int __ptshare_extra_mappings(struct folio *folio, struct page *page,
			     unsigned long nr)
{
	pgoff_t pgoff = folio->index + folio_page_idx(folio, page);
	struct address_space *mapping;
	struct ptshare *ps = NULL;
	int extra = 0;

	rcu_read_lock();
	/*
	 * Truncation may set it to NULL, if there is only a reference, and the
	 * inode go, but not before a grace period after that.
	 */
	mapping = READ_ONCE(folio->mapping);
	if (mapping && !((unsigned long)mapping & PAGE_MAPPING_FLAGS))
		/* Pairs with the release in ptshare_owner_get(). */
		ps = READ_ONCE(mapping->i_ptshare);
	if (ps && pgoff + nr <= PTSHARE_WINDOW_PAGES)
		extra = ptshare_owner_extra(ps, pgoff, page_to_pfn(page), nr);
	rcu_read_unlock();
	return extra;
}

/**
 * __ptshare_mapped_shared - folio_likely_mapped_shared() that knows of sharers
 * @folio: mapped, not anonymous, the PTE lock of a mapping is held
 *
 * A folio lies within one chunk.
 *
 * Return: true if it is mapped more than once, to the accuracy of
 * folio_likely_mapped_shared().
 */
bool __ptshare_mapped_shared(struct folio *folio)
{
	struct page *first = folio_page(folio, 0);
	int mapcount = ptshare_folio_mapcount(folio);

	if (!folio_test_large(folio))
		return mapcount > 1;
	if (mapcount <= 1)
		return false;
	if (folio_entire_mapcount(folio) || mapcount > folio_nr_pages(folio))
		return true;
	return atomic_read(&first->_mapcount) + 1 +
	       __ptshare_extra_mappings(folio, first, 1) > 1;
}

/**
 * __ptshare_kpagecount - correct the mapcount of any page
 * @page: a page that may be freed at any time
 * @mapcount: what its mapcount was, not 0
 *
 * Only what looks like a mapped page of a shmem file is touched.
 *
 * Return: @mapcount, corrected if @page is in shared tables.
 */
u64 __ptshare_kpagecount(struct page *page, u64 mapcount)
{
	struct folio *folio = page_folio(page);
	s64 count = mapcount;

	/* A guess: without a reference folio_test_*() may find a tail page. */
	if (!test_bit(PG_swapbacked, &folio->flags) ||
	    ((unsigned long)READ_ONCE(folio->mapping) & PAGE_MAPPING_FLAGS) ||
	    !folio_try_get(folio))
		return mapcount;
	if (page_folio(page) == folio && folio_mapped(folio) &&
	    folio_test_swapbacked(folio) && !folio_test_anon(folio))
		count += __ptshare_extra_mappings(folio, page, 1);
	folio_put(folio);
	return max(count, 0LL);
}

/* --- the OOM killer --- */

/* A sharer's part of what its owner has mapped: pages / sharers. */
static unsigned long ptshare_vma_share(struct vm_area_struct *vma)
{
	struct ptshare *ps = READ_ONCE(vma->vm_ptshare);
	unsigned long start, end, pages, sharers;

	if (!ps)
		return 0;
	start = ALIGN(READ_ONCE(vma->vm_start), PMD_SIZE);
	end = ALIGN_DOWN(READ_ONCE(vma->vm_end), PMD_SIZE);
	pages = end > start ? (end - start) >> PAGE_SHIFT : 0;
	sharers = READ_ONCE(ps->nr_sharers);
	return min(pages, get_mm_rss(ps->mm)) / max(sharers, 1UL);
}

/**
 * __ptshare_oom_pages - what the RSS of an address space lacks
 * @mm: its mm_users cannot drop to 0
 *
 * For the OOM killer, which must not wait for mmap_lock: VMAs are found under
 * RCU, as lock_vma_under_rcu() does, but not locked.  What holds them:
 *
 * - the tree: its nodes are freed through RCU until exit_mmap(), which waits for
 *   mm_users to drop to 0;
 * - a VMA that is removed meanwhile: vm_area_free() uses call_rcu().  Its
 *   vm_start and vm_end, which the rcu_head overlays, may be nonsense then;
 * - the owner: whoever takes the last reference from it has set all pointers of
 *   VMAs to it to NULL before ptshare_owner_free() frees it and its mm after a
 *   grace period.  We read the pointer once; if it is not NULL, our read-side
 *   section began before the end of that grace period.
 *
 * The result is an estimate by intent, and it is bounded: no VMA counts for more
 * than the owner has mapped.
 *
 * Return: for each sharer VMA, the pages that the owner has mapped, at most
 * those that the VMA covers, divided by the number of sharers: that much is
 * freed, as it were, by killing one.  RSS counts the whole in each process,
 * but killing one of them does not free it.
 */
unsigned long __ptshare_oom_pages(struct mm_struct *mm)
{
	MA_STATE(mas, &mm->mm_mt, 0, 0);
	struct vm_area_struct *vma;
	unsigned long pages = 0;

	if (!arch_ptshare_joined(mm))
		return 0;
	rcu_read_lock();
	mas_for_each(&mas, vma, ULONG_MAX)
		pages += ptshare_vma_share(vma);
	rcu_read_unlock();
	return pages;
}

/* --- assertions --- */

static int ptshare_check_table(pmd_t *pmd, unsigned long addr,
			       unsigned long next, struct mm_walk *walk)
{
	WARN_ON_ONCE(ptshare_table_attached(pmdp_get(pmd)));
	return 0;
}

static const struct mm_walk_ops ptshare_check_ops = {
	.pmd_entry = ptshare_check_table,
	.walk_lock = PGWALK_RDLOCK,
};

/**
 * ptshare_check_detached - is no table of an owner attached to anybody?
 * @ps: an owner without sharers, about to be freed
 */
void ptshare_check_detached(struct ptshare *ps)
{
	unsigned int class;

	mmap_read_lock(ps->mm);
	for (class = 0; class < PTSHARE_NR_CLASSES; class++)
		if (ps->window[class])
			walk_page_vma(ps->window[class], &ptshare_check_ops,
				      NULL);
	mmap_read_unlock(ps->mm);
}

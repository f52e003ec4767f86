/* SPDX-License-Identifier: GPL-2.0 */
/*
 * ptshare - processes that map the same shared memory share its PTE tables
 *
 * What the rest of the kernel calls.  Every inline below is a hook: constant
 * without CONFIG_PTSHARE, behind a static key until somebody asks for
 * sharing.  The idea, the terms and the locking are explained in
 * mm/ptshare.c.
 */
#ifndef _LINUX_PTSHARE_H
#define _LINUX_PTSHARE_H

#include <linux/fs.h>
#include <linux/jump_label.h>
#include <linux/mm.h>
#include <linux/pgtable.h>

struct arch_tlbflush_unmap_batch;
struct mem_cgroup;
struct mmu_gather;
struct rmap_walk_control;

/* mm/ptshare.c */
vm_fault_t __ptshare_enter_fault(struct vm_area_struct **vma,
				 unsigned long *address);
void __ptshare_fill_fork(struct vm_area_struct *dst,
			 struct vm_area_struct *src);
bool __ptshare_detach(struct mmu_gather *tlb, pmd_t *pmd, unsigned long addr);
bool __ptshare_covered(const struct vm_area_struct *vma, unsigned long addr);
void __ptshare_flush_detached(struct mmu_gather *tlb);

/* mm/ptshare_account.c */
int __ptshare_extra_mappings(struct folio *folio, struct page *page,
			     unsigned long nr);
bool __ptshare_mapped_shared(struct folio *folio);
u64 __ptshare_kpagecount(struct page *page, u64 mapcount);
unsigned long __ptshare_oom_pages(struct mm_struct *mm);

/* mm/ptshare_owner.c */
struct rb_root_cached *__ptshare_link(struct vm_area_struct *vma);
struct rb_root_cached *__ptshare_unlink(struct vm_area_struct *vma);
void __ptshare_link_fork(struct vm_area_struct *child,
			 struct vm_area_struct *parent,
			 struct address_space *mapping);
void __ptshare_put(struct vm_area_struct *vma);
struct rb_root_cached *__ptshare_sharers(struct address_space *mapping);
bool __ptshare_rmap_walk(struct folio *folio, struct address_space *mapping,
			 struct rmap_walk_control *rwc);
void __ptshare_unmap_mapping(struct address_space *mapping, pgoff_t first,
			     pgoff_t last, struct zap_details *details);

/* mm/ptshare_reclaim.c */
bool __ptshare_used(struct vm_area_struct *window, unsigned long address,
		    struct mem_cgroup *memcg);

/* mm/ptshare_vma.c */
vm_flags_t __ptshare_judge(struct vm_area_struct *vma, vm_flags_t flags);
void __ptshare_split(struct vm_area_struct *vma, struct vm_area_struct *new,
		     unsigned long addr);
void __ptshare_merge(struct vm_area_struct *vma, struct vm_area_struct *adjust,
		     struct vm_area_struct *remove,
		     struct vm_area_struct *remove2,
		     unsigned long start, unsigned long end, long adj_start);
bool __ptshare_drop_move(struct vm_area_struct *vma,
			 struct vm_area_struct *new_vma,
			 unsigned long addr, unsigned long len);

/* mm/ptshare_notify.c */
void __ptshare_notify_mm(struct mm_struct *mm);

/* mm/ptshare_policy.c */
unsigned long __ptshare_alignment(unsigned long len, pgoff_t pgoff,
				  unsigned long flags);
void __ptshare_activate(void);
int __ptshare_prctl(bool set, unsigned long arg2, unsigned long arg3,
		    unsigned long arg4, unsigned long arg5);

/* mm/ptshare_tlb.c */
void __ptshare_flush_tlb_range(struct mm_struct *mm, unsigned long start,
			       unsigned long end, unsigned int stride_shift,
			       bool freed_tables);
void __ptshare_tlbbatch_add(struct arch_tlbflush_unmap_batch *batch,
			    struct mm_struct *mm, unsigned long addr);
bool __ptshare_tlbbatch_should_defer(struct mm_struct *mm);

#ifdef CONFIG_PTSHARE

DECLARE_STATIC_KEY_FALSE(ptshare_key);

/**
 * ptshare_active - has anybody asked for sharing since boot?
 *
 * Return: false as long as no VMA can be a sharer and no owner can exist.
 */
static inline bool ptshare_active(void)
{
	return static_branch_unlikely(&ptshare_key);
}

/**
 * vma_ptshare - is this VMA a sharer?
 * @vma: a VMA that is locked, or was found in a tree under the tree's lock
 *
 * Return: true if covered chunks of @vma are mapped by its owner's tables.
 */
static inline bool vma_ptshare(const struct vm_area_struct *vma)
{
	return ptshare_active() && vma->vm_ptshare;
}

/**
 * mapping_ptshare - does this file have an owner of shared page tables?
 * @mapping: i_mmap_rwsem held
 *
 * Return: true if it has.
 */
static inline bool mapping_ptshare(const struct address_space *mapping)
{
	return ptshare_active() && mapping->i_ptshare;
}

/**
 * mm_ptshare_owner - is this the hidden address space of a file?
 * @mm: any mm
 *
 * Return: true if @mm is an owner: no task runs on it, its sharers do.
 */
static inline bool mm_ptshare_owner(const struct mm_struct *mm)
{
	return ptshare_active() && mm->ptshare;
}

/**
 * ptshare_vma_init - a fresh copy of a VMA shares nothing
 * @vma: the copy
 */
static inline void ptshare_vma_init(struct vm_area_struct *vma)
{
	vma->vm_ptshare = NULL;
}

#else /* !CONFIG_PTSHARE */

static inline bool ptshare_active(void)
{
	return false;
}

static inline bool vma_ptshare(const struct vm_area_struct *vma)
{
	return false;
}

static inline bool mapping_ptshare(const struct address_space *mapping)
{
	return false;
}

static inline bool mm_ptshare_owner(const struct mm_struct *mm)
{
	return false;
}

static inline void ptshare_vma_init(struct vm_area_struct *vma)
{
}

static inline bool pmd_ptshared(pmd_t pmd)
{
	return false;
}

#endif /* CONFIG_PTSHARE */

/* --- policy --- */

/**
 * ptshare_activate - somebody asks for sharing: turn the hooks on
 *
 * Patches code, takes cpus_read_lock(): not under mmap_lock.
 */
static inline void ptshare_activate(void)
{
	if (IS_ENABLED(CONFIG_PTSHARE) && !ptshare_active())
		__ptshare_activate();
}

/**
 * ptshare_alignment - how mmap() should place a mapping of shared memory
 * @len: its length in bytes
 * @pgoff: the file offset in pages
 * @flags: MAP_* flags
 *
 * Return: the power of two modulo which address and file offset should be
 * congruent, 0 if it does not matter.
 */
static inline unsigned long ptshare_alignment(unsigned long len, pgoff_t pgoff,
					      unsigned long flags)
{
	return ptshare_active() ? __ptshare_alignment(len, pgoff, flags) : 0;
}

/**
 * ptshare_prctl - PR_SET_PTSHARE and PR_GET_PTSHARE
 * @set: which of them
 * @arg2: for PR_SET_PTSHARE: PTSHARE_DEFAULT, _ALWAYS or _NEVER; else 0
 * @arg3: 0
 * @arg4: 0
 * @arg5: 0
 *
 * Return: 0 or the policy; -EINVAL for a bad argument or without the feature.
 */
static inline int ptshare_prctl(bool set, unsigned long arg2,
				unsigned long arg3, unsigned long arg4,
				unsigned long arg5)
{
	if (!IS_ENABLED(CONFIG_PTSHARE))
		return -EINVAL;
	return __ptshare_prctl(set, arg2, arg3, arg4, arg5);
}

/* --- faults and page tables --- */

/**
 * ptshare_enter_fault - send a fault on a covered chunk to the owner's window
 * @vma: in: the VMA that took the fault; out: where to handle it
 * @address: in: the faulting address; out: the same page in @vma
 *
 * Return: 0, or VM_FAULT_OOM with nothing changed.
 */
static inline vm_fault_t ptshare_enter_fault(struct vm_area_struct **vma,
					     unsigned long *address)
{
	struct vm_area_struct *window = *vma;
	unsigned long addr = *address;
	vm_fault_t ret;

	if (!vma_ptshare(window))
		return 0;
	/* The caller's variables may stay in registers. */
	ret = __ptshare_enter_fault(&window, &addr);
	*vma = window;
	*address = addr;
	return ret;
}

/**
 * ptshare_fill_fork - attach in the child what the parent has attached
 * @dst: the child's VMA, linked
 * @src: the parent's VMA
 */
static inline void ptshare_fill_fork(struct vm_area_struct *dst,
				     struct vm_area_struct *src)
{
	if (vma_ptshare(dst))
		__ptshare_fill_fork(dst, src);
}

/**
 * ptshare_detach - take the owner's PTE table out of a PMD entry
 * @tlb: gathers the flush
 * @pmd: the entry
 * @addr: any address in the chunk
 *
 * No PTE is touched and nothing is allocated, so this cannot fail.
 *
 * Return: true if @pmd held a shared table; it is none now.
 */
static inline bool ptshare_detach(struct mmu_gather *tlb, pmd_t *pmd,
				  unsigned long addr)
{
	return ptshare_active() && __ptshare_detach(tlb, pmd, addr);
}

/**
 * ptshare_change_pmd - change_protection() meets a PMD entry
 * @tlb: gathers the flush
 * @pmd: the entry
 * @addr: any address in the chunk
 * @numa: for NUMA hinting, which is one process' affair: leave it alone
 *
 * With another permission the chunk is mapped by another table.
 *
 * Return: true if @pmd held a shared table and nothing remains to be done.
 */
static inline bool ptshare_change_pmd(struct mmu_gather *tlb, pmd_t *pmd,
				      unsigned long addr, bool numa)
{
	if (numa)
		return ptshare_active() &&
		       pmd_ptshared(pmdp_get_lockless(pmd));
	return ptshare_detach(tlb, pmd, addr);
}

/**
 * ptshare_flush_detached - flush after detaching, before the VMA is unlinked
 * @tlb: what unmap_vmas() gathered
 *
 * The gather holds no reference on pages of detached tables: once the VMA
 * has left the owner's tree nobody would flush us before they are freed.
 */
static inline void ptshare_flush_detached(struct mmu_gather *tlb)
{
	if (ptshare_active())
		__ptshare_flush_detached(tlb);
}

/**
 * ptshare_covered - may this address be mapped by the owner's table?
 * @vma: a VMA whose mmap_lock or VMA lock is held
 * @addr: an address in @vma
 *
 * Unlike pmd_ptshared() of the entry, which others attach and detach, the
 * answer stays true as long as the lock is held: for those who edit PTEs.
 *
 * Return: true if @addr is in a covered chunk of a sharer.
 */
static inline bool ptshare_covered(const struct vm_area_struct *vma,
				   unsigned long addr)
{
	return vma_ptshare(vma) && __ptshare_covered(vma, addr);
}

/* --- VMAs --- */

/**
 * ptshare_judge - join or leave sharing, as @flags and the policy say
 * @vma: linked; its mmap_lock is held for write
 * @flags: the vm_flags that it has or is about to get
 *
 * Return: @flags, with VM_SOFTDIRTY if a sharer was merged into @vma.
 */
static inline vm_flags_t ptshare_judge(struct vm_area_struct *vma,
				       vm_flags_t flags)
{
	if (ptshare_active() && (vma->vm_flags & VM_MAYSHARE))
		return __ptshare_judge(vma, flags);
	return flags;
}

/**
 * ptshare_split - a VMA is about to be split
 * @vma: the VMA, write-locked, not changed yet
 * @new: its copy, not linked yet
 * @addr: where
 *
 * The chunk around @addr stops being covered; @new becomes a sharer too.
 */
static inline void ptshare_split(struct vm_area_struct *vma,
				 struct vm_area_struct *new,
				 unsigned long addr)
{
	if (vma_ptshare(vma))
		__ptshare_split(vma, new, addr);
}

/**
 * ptshare_merge - commit_merge() is about to move VMA boundaries
 * @vma: as in commit_merge(), all write-locked
 * @adjust: ditto, may be NULL
 * @remove: ditto, may be NULL
 * @remove2: ditto, may be NULL
 * @start: new start of @vma
 * @end: new end of @vma
 * @adj_start: how far the start of @adjust moves, in bytes
 *
 * Chunks that stop or start being covered lose their table.
 */
static inline void ptshare_merge(struct vm_area_struct *vma,
				 struct vm_area_struct *adjust,
				 struct vm_area_struct *remove,
				 struct vm_area_struct *remove2,
				 unsigned long start, unsigned long end,
				 long adj_start)
{
	if (vma_ptshare(vma) || (adjust && vma_ptshare(adjust)) ||
	    (remove && vma_ptshare(remove)) ||
	    (remove2 && vma_ptshare(remove2)))
		__ptshare_merge(vma, adjust, remove, remove2, start, end,
				adj_start);
}

/**
 * ptshare_drop_move - mremap(): drop page tables instead of moving them?
 * @vma: old VMA, write-locked
 * @new_vma: new VMA, maybe merged with neighbours
 * @addr: old address
 * @len: bytes that move
 *
 * Return: true if PTEs were dropped, to be faulted in at the new place; false
 * if neither VMA shares and they are to be moved as ever.
 */
static inline bool ptshare_drop_move(struct vm_area_struct *vma,
				     struct vm_area_struct *new_vma,
				     unsigned long addr, unsigned long len)
{
	if (!vma_ptshare(vma) && !vma_ptshare(new_vma))
		return false;
	return __ptshare_drop_move(vma, new_vma, addr, len);
}

/**
 * ptshare_notify_mm - an address space is about to get an mmu notifier
 * @mm: mmap_lock held for write, mm_take_all_locks() not called yet
 *
 * It must hear what happens to shared PTEs, which belong to owners.
 */
static inline void ptshare_notify_mm(struct mm_struct *mm)
{
	if (ptshare_active())
		__ptshare_notify_mm(mm);
}

/**
 * ptshare_put - a VMA is gone: drop its reference on the owner
 * @vma: unlinked, flushed, about to be freed; i_mmap_rwsem is not held
 */
static inline void ptshare_put(struct vm_area_struct *vma)
{
	if (vma_ptshare(vma))
		__ptshare_put(vma);
}

/* --- the trees of an address_space, under i_mmap_rwsem --- */

/**
 * ptshare_link - which tree a VMA goes to
 * @vma: about to be inserted, i_mmap_rwsem held for write
 * @mapping: of its file
 *
 * Return: i_mmap, or the sharers of the owner.
 */
static inline struct rb_root_cached *ptshare_link(struct vm_area_struct *vma,
						  struct address_space *mapping)
{
	return vma_ptshare(vma) ? __ptshare_link(vma) : &mapping->i_mmap;
}

/**
 * ptshare_unlink - which tree a VMA is in
 * @vma: about to be removed, i_mmap_rwsem held for write
 * @mapping: of its file
 *
 * Return: i_mmap, or the sharers of the owner.
 */
static inline struct rb_root_cached *ptshare_unlink(struct vm_area_struct *vma,
						    struct address_space *mapping)
{
	return vma_ptshare(vma) ? __ptshare_unlink(vma) : &mapping->i_mmap;
}

/**
 * ptshare_link_fork - insert a child's VMA beside its parent's
 * @child: the copy
 * @parent: the original, linked
 * @mapping: of their file, i_mmap_rwsem held for write
 */
static inline void ptshare_link_fork(struct vm_area_struct *child,
				     struct vm_area_struct *parent,
				     struct address_space *mapping)
{
	if (vma_ptshare(parent))
		__ptshare_link_fork(child, parent, mapping);
	else
		vma_interval_tree_insert_after(child, parent, &mapping->i_mmap);
}

/**
 * ptshare_next_tree - for a walk of all VMAs that map a file, of processes and
 * of owners
 * @mapping: of the file, i_mmap_rwsem held
 * @tree: the tree that has been walked, i_mmap first
 *
 * Return: the tree to walk next, NULL after the last.
 */
static inline struct rb_root_cached *
ptshare_next_tree(struct address_space *mapping, struct rb_root_cached *tree)
{
	if (tree != &mapping->i_mmap || !mapping_ptshare(mapping))
		return NULL;
	return __ptshare_sharers(mapping);
}

/**
 * ptshare_rmap_walk - go on with the private tables of sharers
 * @folio: locked
 * @mapping: its mapping, i_mmap_rwsem held
 * @rwc: the walk, which has seen i_mmap
 *
 * Only partial chunks have private tables; all else was met in the windows.
 */
static inline void ptshare_rmap_walk(struct folio *folio,
				     struct address_space *mapping,
				     struct rmap_walk_control *rwc)
{
	if (mapping_ptshare(mapping))
		__ptshare_rmap_walk(folio, mapping, rwc);
}

/**
 * ptshare_used - do references through this VMA count for reclaim?
 * @vma: a VMA that the reverse map found, i_mmap_rwsem held if of a file
 * @address: where it maps the page
 * @memcg: count tasks of this cgroup only, NULL for all
 *
 * Return: true for an ordinary VMA, which has been judged before; for a window
 * if a sharer would count.
 */
static inline bool ptshare_used(struct vm_area_struct *vma,
				unsigned long address,
				struct mem_cgroup *memcg)
{
	return !mm_ptshare_owner(vma->vm_mm) ||
	       __ptshare_used(vma, address, memcg);
}

/**
 * ptshare_unmap_mapping - unmap pages from the private tables of sharers
 * @mapping: i_mmap_rwsem held
 * @first: first page
 * @last: last page
 * @details: as for i_mmap
 */
static inline void ptshare_unmap_mapping(struct address_space *mapping,
					 pgoff_t first, pgoff_t last,
					 struct zap_details *details)
{
	if (mapping_ptshare(mapping))
		__ptshare_unmap_mapping(mapping, first, last, details);
}

/* --- how many map a page: a mapcount has one for each window only --- */

/* May it be in shared page tables?  The folio cannot be freed. */
static inline bool folio_maybe_ptshared(struct folio *folio)
{
	return ptshare_active() && folio_test_swapbacked(folio) &&
	       !folio_test_anon(folio);
}

/**
 * ptshare_extra_mappings - what the mapcount of a page lacks
 * @folio: cannot be freed: a PTE lock of a mapping, or a reference, is held
 * @page: a page of it
 *
 * Return: to be added to the mapcount of @page.  May be negative: a window maps
 * it and no process has the table attached.
 */
static inline int ptshare_extra_mappings(struct folio *folio,
					 struct page *page)
{
	return folio_maybe_ptshared(folio) ?
	       __ptshare_extra_mappings(folio, page, 1) : 0;
}

/**
 * ptshare_folio_mapcount - folio_mapcount() that counts sharers
 * @folio: cannot be freed
 *
 * Return: the number of mappings of pages of @folio by processes.
 */
static inline int ptshare_folio_mapcount(struct folio *folio)
{
	int mapcount = folio_mapcount(folio);

	if (folio_maybe_ptshared(folio))
		mapcount += __ptshare_extra_mappings(folio,
						     folio_page(folio, 0),
						     folio_nr_pages(folio));
	return mapcount;
}

/**
 * ptshare_mapped_shared - folio_likely_mapped_shared() that counts sharers
 * @folio: the PTE lock of a mapping is held
 *
 * Return: true if others than the mapping that the caller looks at map it.
 */
static inline bool ptshare_mapped_shared(struct folio *folio)
{
	return folio_maybe_ptshared(folio) ? __ptshare_mapped_shared(folio) :
					     folio_likely_mapped_shared(folio);
}

/**
 * ptshare_kpagecount - correct the mapcount of any page
 * @page: a page that may be freed at any time
 * @mapcount: what its mapcount was, not 0
 *
 * Return: the number of mappings of @page by processes.
 */
static inline u64 ptshare_kpagecount(struct page *page, u64 mapcount)
{
	return ptshare_active() ? __ptshare_kpagecount(page, mapcount) :
				  mapcount;
}

/**
 * ptshare_oom_pages - what the RSS of an address space lacks
 * @mm: its mm_users cannot drop to 0
 *
 * Return: about how many pages it maps through shared page tables, its share
 * of them.
 */
static inline unsigned long ptshare_oom_pages(struct mm_struct *mm)
{
	return ptshare_active() ? __ptshare_oom_pages(mm) : 0;
}

/* --- TLB: an owner's entries are cached where its sharers run --- */

/**
 * ptshare_flush_tlb_range - flush a range of an owner on behalf of its sharers
 * @mm: any mm
 * @start: as for flush_tlb_mm_range()
 * @end: ditto
 * @stride_shift: ditto
 * @freed_tables: ditto
 *
 * Return: true if @mm is an owner and all sharers have been flushed.
 */
static inline bool ptshare_flush_tlb_range(struct mm_struct *mm,
					   unsigned long start,
					   unsigned long end,
					   unsigned int stride_shift,
					   bool freed_tables)
{
	if (!mm_ptshare_owner(mm))
		return false;
	__ptshare_flush_tlb_range(mm, start, end, stride_shift, freed_tables);
	return true;
}

/**
 * ptshare_tlbbatch_add - add the sharers of an owner to a deferred flush
 * @batch: the batch
 * @mm: any mm
 * @addr: where a PTE of @mm was cleared
 *
 * Return: true if @mm is an owner and its sharers were added.
 */
static inline bool ptshare_tlbbatch_add(struct arch_tlbflush_unmap_batch *batch,
					struct mm_struct *mm,
					unsigned long addr)
{
	if (!mm_ptshare_owner(mm))
		return false;
	__ptshare_tlbbatch_add(batch, mm, addr);
	return true;
}

#endif /* _LINUX_PTSHARE_H */

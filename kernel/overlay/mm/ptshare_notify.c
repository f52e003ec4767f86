// SPDX-License-Identifier: GPL-2.0
/*
 * mm/ptshare_notify.c - secondary MMUs of sharers hear what happens to an owner
 *
 * KVM, RDMA, GPUs and IOMMUs map what a process maps.  mmu notifiers tell them
 * when PTEs of that process go, but a shared PTE goes in the owner's address
 * space.  So the owner gets a notifier like any other, and its callbacks pass
 * on what they hear to the notifiers of each sharer that maps the range, at the
 * sharer's addresses.  Core mm calls it as ever and needs no hook.
 *
 * An owner has its notifier from the time when the first sharer has one:
 * whoever comes first, the mapping or the notifier, see ptshare_notify_mm() and
 * ptshare_notify_prepare().  Without, nothing is walked.
 *
 * All callbacks run under i_mmap_rwsem, because every reduction and every aging
 * of a window's PTE does.  That keeps the sharers where they are between start
 * and end, which is what makes them pair; and a notifier cannot appear in a
 * sharer between them, since mm_take_all_locks() takes the same lock.
 *
 *	callback			context			may sleep
 *	invalidate_range_start, _end	reverse map, truncate	yes
 *	clear_flush_young, clear_young,	reverse map, PTE lock	no
 *	test_young
 *	arch_invalidate_secondary_tlbs	with the TLB flush, see	no
 *					mm/ptshare_tlb.c
 *
 * It is passed on to sharers of every class, attached or not: a sharer that is
 * between two classes, or has just detached, is told once too often.  That
 * walks all sharers of an owner if one of them has a notifier, like the
 * reverse map would without sharing.
 */
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/vmstat.h>

#include "ptshare.h"

/* --- invalidation --- */

static void ptshare_start_one(struct vm_area_struct *vma, unsigned long start,
			      unsigned long end, void *arg)
{
	struct mmu_notifier_range range = *(const struct mmu_notifier_range *)arg;

	if (!mm_has_notifiers(vma->vm_mm))
		return;
	range.mm = vma->vm_mm;
	range.start = start;
	range.end = end;
	mmu_notifier_invalidate_range_start(&range);
	count_vm_event(PTSHARE_NOTIFY);
}

static void ptshare_end_one(struct vm_area_struct *vma, unsigned long start,
			    unsigned long end, void *arg)
{
	struct mmu_notifier_range range = *(const struct mmu_notifier_range *)arg;

	range.mm = vma->vm_mm;
	range.start = start;
	range.end = end;
	mmu_notifier_invalidate_range_end(&range);
}

/*
 * We are called within lockdep's map of all notifiers, and call into it again:
 * of another address space, and no sharer is an owner, so this ends here.
 */
static void ptshare_notify_walk(struct mmu_notifier *notifier,
				const struct mmu_notifier_range *range,
				ptshare_walk_fn fn)
{
	struct ptshare *ps = container_of(notifier, struct ptshare, notifier);

	lock_map_release(&__mmu_notifier_invalidate_range_start_map);
	ptshare_walk_sharers(ps, range->start, range->end, fn, (void *)range);
	lock_map_acquire(&__mmu_notifier_invalidate_range_start_map);
}

static int ptshare_range_start(struct mmu_notifier *notifier,
			       const struct mmu_notifier_range *range)
{
	/* Only the OOM reaper cannot wait, and no owner is its victim. */
	WARN_ON_ONCE(!mmu_notifier_range_blockable(range));
	ptshare_notify_walk(notifier, range, ptshare_start_one);
	return 0;
}

static void ptshare_range_end(struct mmu_notifier *notifier,
			      const struct mmu_notifier_range *range)
{
	ptshare_notify_walk(notifier, range, ptshare_end_one);
}

/* --- aging --- */

static void ptshare_clear_flush_young_one(struct vm_area_struct *vma,
					  unsigned long start,
					  unsigned long end, void *arg)
{
	int *young = arg;

	*young |= mmu_notifier_clear_flush_young(vma->vm_mm, start, end);
}

static void ptshare_clear_young_one(struct vm_area_struct *vma,
				    unsigned long start, unsigned long end,
				    void *arg)
{
	int *young = arg;

	*young |= mmu_notifier_clear_young(vma->vm_mm, start, end);
}

static void ptshare_test_young_one(struct vm_area_struct *vma,
				   unsigned long start, unsigned long end,
				   void *arg)
{
	int *young = arg;

	if (!*young)
		*young = mmu_notifier_test_young(vma->vm_mm, start);
}

static int ptshare_young(struct mmu_notifier *notifier, unsigned long start,
			 unsigned long end, ptshare_walk_fn fn)
{
	struct ptshare *ps = container_of(notifier, struct ptshare, notifier);
	int young = 0;

	ptshare_walk_sharers(ps, start, end, fn, &young);
	return young;
}

static int ptshare_clear_flush_young(struct mmu_notifier *notifier,
				     struct mm_struct *mm, unsigned long start,
				     unsigned long end)
{
	return ptshare_young(notifier, start, end,
			     ptshare_clear_flush_young_one);
}

static int ptshare_clear_young(struct mmu_notifier *notifier,
			       struct mm_struct *mm, unsigned long start,
			       unsigned long end)
{
	return ptshare_young(notifier, start, end, ptshare_clear_young_one);
}

static int ptshare_test_young(struct mmu_notifier *notifier,
			      struct mm_struct *mm, unsigned long address)
{
	return ptshare_young(notifier, address, address + PAGE_SIZE,
			     ptshare_test_young_one);
}

static const struct mmu_notifier_ops ptshare_notifier_ops = {
	.invalidate_range_start	= ptshare_range_start,
	.invalidate_range_end	= ptshare_range_end,
	.clear_flush_young	= ptshare_clear_flush_young,
	.clear_young		= ptshare_clear_young,
	.test_young		= ptshare_test_young,
};

/* --- secondary TLBs --- */

static void ptshare_secondary_one(struct vm_area_struct *vma,
				  unsigned long start, unsigned long end,
				  void *arg)
{
	mmu_notifier_arch_invalidate_secondary_tlbs(vma->vm_mm, start, end);
}

/**
 * ptshare_notify_secondary_tlbs - flush devices that walk sharers' page tables
 * @ps: the owner, i_mmap_rwsem held
 * @start: of a range of PTEs of the owner that were reduced
 * @end: its end
 *
 * For flushes that look at no sharer.  Where sharers are flushed one by one,
 * this is part of each flush.
 */
void ptshare_notify_secondary_tlbs(struct ptshare *ps, unsigned long start,
				   unsigned long end)
{
	if (ps->notifier.mm)
		ptshare_walk_sharers(ps, start, end, ptshare_secondary_one,
				     NULL);
}

/* --- who has a notifier --- */

/**
 * ptshare_notify_prepare - an owner is to pass on what happens to it
 * @ps: the owner, referenced
 * @sharer: an address space with notifiers, or about to have one; its
 *	mmap_lock is held for write
 *
 * Return: false without memory, or when a signal is pending: @sharer must not
 * share then.
 */
bool ptshare_notify_prepare(struct ptshare *ps, struct mm_struct *sharer)
{
	int err = 0;

	mmap_assert_write_locked(sharer);
	mmap_write_lock_nested(ps->mm, SINGLE_DEPTH_NESTING);
	if (!ps->notifier.mm) {
		ps->notifier.ops = &ptshare_notifier_ops;
		err = __mmu_notifier_register(&ps->notifier, ps->mm);
	}
	mmap_write_unlock(ps->mm);
	return !err;
}

/**
 * ptshare_notify_stop - an owner without sharers is about to be freed
 * @ps: the owner; nothing is locked
 */
void ptshare_notify_stop(struct ptshare *ps)
{
	if (ps->notifier.mm)
		mmu_notifier_unregister(&ps->notifier, ps->mm);
}

void __ptshare_notify_mm(struct mm_struct *mm)
{
	VMA_ITERATOR(vmi, mm, 0);
	struct vm_area_struct *vma;

	mmap_assert_write_locked(mm);
	for_each_vma(vmi, vma)
		if (vma->vm_ptshare && !ptshare_notify_prepare(vma->vm_ptshare, mm))
			ptshare_leave(vma);
}

// SPDX-License-Identifier: GPL-2.0
/*
 * mm/ptshare_owner.c - the owner of a file's shared PTE tables
 *
 * An owner is an mm_struct that no task runs on.  It is born when the first
 * VMA of a file joins and dies with the last; its windows, one VMA for each
 * permission class in use, map the whole file and stand in mapping->i_mmap.
 * Here are its life, the tree of its sharers, and what the two walkers of
 * i_mmap must do about sharers' private tables.
 */
#include <linux/cred.h>
#include <linux/file.h>
#include <linux/hash.h>
#include <linux/init_task.h>
#include <linux/mount.h>
#include <linux/rmap.h>
#include <linux/shmem_fs.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/user_namespace.h>

#include <asm/ptshare.h>
#include <asm/tlb.h>

#include <trace/events/ptshare.h>

#include "internal.h"
#include "ptshare.h"
#include "vma.h"

/* --- life and death --- */

/*
 * mm_alloc() makes an mm for current: what it inherited and what ties it to
 * that process must go, or it would outlive it.
 */
static struct mm_struct *ptshare_mm_alloc(struct ptshare *ps)
{
	struct mm_struct *mm = mm_alloc();

	if (!mm)
		return NULL;
#ifdef CONFIG_MEMCG
	mm->owner = NULL;
#endif
	mm->flags = 0;
	mm->def_flags = 0;
	put_user_ns(mm->user_ns);
	mm->user_ns = get_user_ns(&init_user_ns);
	mm->ptshare = ps;
	return mm;
}

static struct ptshare *ptshare_owner_alloc(struct vm_area_struct *vma)
{
	struct ptshare *ps = kzalloc(sizeof(*ps), GFP_KERNEL_ACCOUNT);

	if (!ps)
		return NULL;
	/*
	 * A mount of our own: the sharer's may be wanted for umount while
	 * others, who came by another mount, go on.
	 */
	ps->path.mnt = mnt_clone_internal(&vma->vm_file->f_path);
	if (IS_ERR(ps->path.mnt))
		goto free;
	ps->path.dentry = dget(vma->vm_file->f_path.dentry);
	ps->mm = ptshare_mm_alloc(ps);
	if (!ps->mm)
		goto put_path;
	ps->mapping = vma->vm_file->f_mapping;
	ps->sharers = RB_ROOT_CACHED;
	ps->bucket = BIT_ULL(hash_ptr(ps->mapping, 6));
	refcount_set(&ps->ref, 1);
	rwlock_init(&ps->walk_lock);
	return ps;

put_path:
	path_put(&ps->path);
free:
	kfree(ps);
	return NULL;
}

/* __mmdrop() wants a context in which it may be preempted. */
static void ptshare_free_rcu(struct work_struct *work)
{
	struct ptshare *ps = container_of(to_rcu_work(work), struct ptshare,
					  rwork);

	mmdrop(ps->mm);
	kfree(ps);
}

/*
 * No sharer, no table in use, no lock held.  Who looks for mappings of a page,
 * or for what the OOM killer should count, may still have found us: the mm,
 * empty by then, outlives the windows.  See ptshare_account.c.
 */
static void ptshare_owner_free(struct ptshare *ps)
{
	/* exit_mmap() unlinks the windows, then nobody can find us. */
	WARN_ON_ONCE(atomic_read(&ps->mm->mm_users) != 1);
	ptshare_notify_stop(ps);
	if (IS_ENABLED(CONFIG_DEBUG_VM))
		ptshare_check_detached(ps);
	write_lock(&ps->walk_lock);
	ps->dead = true;
	write_unlock(&ps->walk_lock);
	mmgrab(ps->mm);
	mmput(ps->mm);
	ptshare_gauge_add(PTSHARE_TABLES, -atomic_long_read(&ps->nr_tables));
	path_put(&ps->path);
	INIT_RCU_WORK(&ps->rwork, ptshare_free_rcu);
	queue_rcu_work(system_wq, &ps->rwork);
}

static void ptshare_free_twork(struct callback_head *head)
{
	ptshare_owner_free(container_of(head, struct ptshare, twork));
}

static void ptshare_free_work(struct work_struct *work)
{
	ptshare_owner_free(container_of(work, struct ptshare, work));
}

/*
 * The last sharer went under its mmap_lock, within which we may not take
 * down another address space.  On the way back to user mode (or out of
 * do_exit()) is early enough for an umount right after the munmap.
 */
static void ptshare_owner_schedule_free(struct ptshare *ps)
{
	if (!(current->flags & PF_KTHREAD)) {
		init_task_work(&ps->twork, ptshare_free_twork);
		if (!task_work_add(current, &ps->twork, TWA_RESUME))
			return;
	}
	INIT_WORK(&ps->work, ptshare_free_work);
	schedule_work(&ps->work);
}

/**
 * ptshare_owner_get - find or make the owner of a VMA's file
 * @vma: an eligible VMA, mmap_lock held for write
 *
 * Return: the owner with a reference, NULL without memory.
 */
struct ptshare *ptshare_owner_get(struct vm_area_struct *vma)
{
	struct address_space *mapping = vma->vm_file->f_mapping;
	struct ptshare *new = NULL, *ps;

	if (!READ_ONCE(mapping->i_ptshare)) {
		new = ptshare_owner_alloc(vma);
		if (!new)
			return NULL;
	}
	i_mmap_lock_write(mapping);
	ps = mapping->i_ptshare;
	if (ps)
		refcount_inc(&ps->ref);
	else	/* Pairs with the read in __ptshare_extra_mappings(). */
		smp_store_release(&mapping->i_ptshare, new);
	i_mmap_unlock_write(mapping);
	if (ps) {
		if (new)
			ptshare_owner_schedule_free(new);
		return ps;
	}
	if (new) {
		ptshare_gauge_add(PTSHARE_OWNERS, 1);
		ptshare_debug_add(new);
		trace_ptshare_owner_create(mapping, 0);
	}
	return new;
}

/**
 * ptshare_owner_put - drop a reference on an owner
 * @ps: the owner; i_mmap_rwsem is not held
 */
void ptshare_owner_put(struct ptshare *ps)
{
	bool last;

	if (refcount_dec_not_one(&ps->ref))
		return;
	i_mmap_lock_write(ps->mapping);
	last = refcount_dec_and_test(&ps->ref);
	if (last)
		WRITE_ONCE(ps->mapping->i_ptshare, NULL);
	i_mmap_unlock_write(ps->mapping);
	if (!last)
		return;
	WARN_ON_ONCE(!RB_EMPTY_ROOT(&ps->sharers.rb_root));
	WARN_ON_ONCE(ps->nr_partial);
	ptshare_gauge_add(PTSHARE_OWNERS, -1);
	ptshare_debug_del(ps);
	trace_ptshare_owner_destroy(ps->mapping,
				    atomic_long_read(&ps->nr_tables));
	ptshare_owner_schedule_free(ps);
}

void __ptshare_put(struct vm_area_struct *vma)
{
	struct ptshare *ps = vma->vm_ptshare;

	WRITE_ONCE(vma->vm_ptshare, NULL);
	ptshare_gauge_add(PTSHARE_SHARERS, -1);
	ptshare_owner_put(ps);
}

/* --- windows --- */

/*
 * An O_PATH file opens nothing: it names the inode and counts neither as a
 * reader nor as a writer, so leases, deny_write_access() and seals see only
 * the sharers.  Permissions are the sharers' business as well.
 */
static struct file *ptshare_window_file(struct ptshare *ps)
{
	return dentry_open(&ps->path, O_PATH | O_LARGEFILE, &init_cred);
}

/*
 * No VM_MAYWRITE: a window must not count in i_mmap_writable, which would
 * keep a memfd from being sealed while it is torn down.  VM_SOFTDIRTY: a
 * window without it would want write-notify faults.  Nothing of VM_SPECIAL:
 * MGLRU would not look at the neighbours of a page that it finds in use.
 */
static vm_flags_t ptshare_window_flags(unsigned int class)
{
	return VM_READ | VM_MAYREAD | VM_SHARED | VM_MAYSHARE | VM_DONTDUMP |
	       VM_SOFTDIRTY | (class & 1 ? VM_WRITE : 0) |
	       (class & 2 ? VM_EXEC | VM_MAYEXEC : 0);
}

static struct vm_area_struct *ptshare_window_alloc(struct ptshare *ps,
						   unsigned int class)
{
	unsigned long base = ptshare_window_base(class);
	struct vm_area_struct *vma;
	struct file *file;

	vma = vm_area_alloc(ps->mm);
	if (!vma)
		return NULL;
	file = ptshare_window_file(ps);
	if (IS_ERR(file)) {
		vm_area_free(vma);
		return NULL;
	}
	vma_set_range(vma, base, base + PTSHARE_WINDOW_SIZE, 0);
	vm_flags_init(vma, ptshare_window_flags(class));
	vma->vm_page_prot = vm_get_page_prot(vma->vm_flags);
	vma->vm_file = file;
	vma->vm_ops = ps->mapping->host->i_nlink ? &shmem_vm_ops :
						   &shmem_anon_vm_ops;
	return vma;
}

/**
 * ptshare_owner_window - see to it that a class has its window
 * @ps: the owner, referenced
 * @class: the class
 * @sharer: the VMA that needs it, mmap_lock held for write
 *
 * Return: false without memory.
 */
bool ptshare_owner_window(struct ptshare *ps, unsigned int class,
			  struct vm_area_struct *sharer)
{
	struct vm_area_struct *vma;
	bool ok = true;

	mmap_assert_write_locked(sharer->vm_mm);
	if (READ_ONCE(ps->window[class]))
		return true;

	/* The sharer's mmap_lock is held: always sharer, then owner. */
	mmap_write_lock_nested(ps->mm, SINGLE_DEPTH_NESTING);
	if (ps->window[class])
		goto unlock;
	vma = ptshare_window_alloc(ps, class);
	if (vma && vma_link(ps->mm, vma)) {
		fput(vma->vm_file);
		vm_area_free(vma);
		vma = NULL;
	}
	/* Pairs with the address dependency in the fault path. */
	smp_store_release(&ps->window[class], vma);
	ok = vma;
unlock:
	mmap_write_unlock(ps->mm);
	return ok;
}

/* --- the tree of sharers --- */

static unsigned int *ptshare_partial(struct ptshare *ps, pgoff_t pgoff)
{
	return &ps->partial[hash_long(pgoff >> (PMD_SHIFT - PAGE_SHIFT),
				      PTSHARE_PARTIAL_BITS)];
}

static void ptshare_count_partial(struct ptshare *ps,
				  struct vm_area_struct *vma, int n)
{
	if (!IS_ALIGNED(vma->vm_start, PMD_SIZE)) {
		*ptshare_partial(ps, vma->vm_pgoff) += n;
		ps->nr_partial += n;
	}
	if (!IS_ALIGNED(vma->vm_end, PMD_SIZE)) {
		*ptshare_partial(ps, vma->vm_pgoff + vma_pages(vma) - 1) += n;
		ps->nr_partial += n;
	}
}

struct rb_root_cached *__ptshare_link(struct vm_area_struct *vma)
{
	struct ptshare *ps = vma->vm_ptshare;

	lockdep_assert_held_write(&ps->mapping->i_mmap_rwsem);
	ptshare_count_partial(ps, vma, 1);
	ps->nr_sharers++;
	return &ps->sharers;
}

struct rb_root_cached *__ptshare_unlink(struct vm_area_struct *vma)
{
	struct ptshare *ps = vma->vm_ptshare;

	lockdep_assert_held_write(&ps->mapping->i_mmap_rwsem);
	ptshare_count_partial(ps, vma, -1);
	ps->nr_sharers--;
	return &ps->sharers;
}

/*
 * A child of a sharer shares if the policy lets it; if not it is an ordinary
 * VMA with nothing mapped yet.
 */
void __ptshare_link_fork(struct vm_area_struct *child,
			 struct vm_area_struct *parent,
			 struct address_space *mapping)
{
	struct ptshare *ps = parent->vm_ptshare;

	if (!ptshare_wanted(child, child->vm_flags)) {
		vma_interval_tree_insert(child, &mapping->i_mmap);
		return;
	}
	refcount_inc(&ps->ref);
	arch_ptshare_join(child->vm_mm, ps->bucket);
	child->vm_ptshare = ps;
	ptshare_gauge_add(PTSHARE_SHARERS, 1);
	vma_interval_tree_insert_after(child, parent, __ptshare_link(child));
}

/* Page tables of covered chunks, which hold no PTE any more. */
static void ptshare_free_tables(struct vm_area_struct *vma)
{
	unsigned long start = ptshare_covered_start(vma);
	unsigned long end = ptshare_covered_end(vma);
	struct mmu_gather tlb;

	tlb_gather_mmu(&tlb, vma->vm_mm);
	free_pgd_range(&tlb, start, end, start, end);
	tlb_finish_mmu(&tlb);
}

/**
 * ptshare_join - make a VMA a sharer
 * @vma: eligible, linked in i_mmap, mmap_lock held for write
 * @ps: its file's owner; takes over a reference
 *
 * Covered chunks lose their PTEs, which will be found in the owner's tables
 * when they are touched, and their tables.
 */
void ptshare_join(struct vm_area_struct *vma, struct ptshare *ps)
{
	unsigned long start = ptshare_covered_start(vma);

	/* From here on nobody can fault anything in. */
	vma_start_write(vma);
	zap_page_range_single(vma, start, ptshare_covered_end(vma) - start,
			      NULL);
	arch_ptshare_join(vma->vm_mm, ps->bucket);

	i_mmap_lock_write(ps->mapping);
	vma_interval_tree_remove(vma, &ps->mapping->i_mmap);
	/* Unseen by rmap walks: only now may its page tables be freed. */
	ptshare_free_tables(vma);
	/* ps is known already: see ptshare_vma_share(). */
	smp_store_release(&vma->vm_ptshare, ps);
	vma_interval_tree_insert(vma, __ptshare_link(vma));
	i_mmap_unlock_write(ps->mapping);
	ptshare_gauge_add(PTSHARE_SHARERS, 1);
	count_vm_event(PTSHARE_JOIN);
}

/**
 * ptshare_leave - make a sharer an ordinary VMA
 * @vma: a sharer, mmap_lock held for write
 */
void ptshare_leave(struct vm_area_struct *vma)
{
	struct ptshare *ps = vma->vm_ptshare;
	unsigned long start = ptshare_covered_start(vma);

	vma_start_write(vma);
	/* Detaches and flushes, while the owner still knows us. */
	if (ptshare_covered_end(vma) > start)
		zap_page_range_single(vma, start,
				      ptshare_covered_end(vma) - start, NULL);

	i_mmap_lock_write(ps->mapping);
	vma_interval_tree_remove(vma, __ptshare_unlink(vma));
	WRITE_ONCE(vma->vm_ptshare, NULL);
	vma_interval_tree_insert(vma, &ps->mapping->i_mmap);
	i_mmap_unlock_write(ps->mapping);
	ptshare_gauge_add(PTSHARE_SHARERS, -1);
	count_vm_event(PTSHARE_LEAVE);
	ptshare_owner_put(ps);
}

/* --- walkers of i_mmap --- */

static bool ptshare_may_be_partial(struct ptshare *ps, pgoff_t first,
				   pgoff_t last)
{
	const pgoff_t step = PMD_SIZE >> PAGE_SHIFT;
	pgoff_t pgoff;

	lockdep_assert_held(&ps->mapping->i_mmap_rwsem);
	if (!ps->nr_partial)
		return false;
	if (last - first >= step << PTSHARE_PARTIAL_BITS)
		return true;
	for (pgoff = ALIGN_DOWN(first, step); pgoff <= last; pgoff += step)
		if (*ptshare_partial(ps, pgoff))
			return true;
	return false;
}

struct rb_root_cached *__ptshare_sharers(struct address_space *mapping)
{
	return &mapping->i_ptshare->sharers;
}

/*
 * A folio lies within one chunk, so a sharer maps it by a private table or by
 * the owner's, never by both.
 */
bool __ptshare_rmap_walk(struct folio *folio, struct address_space *mapping,
			 struct rmap_walk_control *rwc)
{
	struct ptshare *ps = mapping->i_ptshare;
	unsigned long nr = folio_nr_pages(folio);
	pgoff_t first = folio_pgoff(folio);
	struct vm_area_struct *vma;

	if (!ptshare_may_be_partial(ps, first, first))
		return true;
	count_vm_event(PTSHARE_RMAP_PARTIAL);
	vma_interval_tree_foreach(vma, &ps->sharers, first, first + nr - 1) {
		unsigned long address = vma_address(vma, first, nr);

		if (ptshare_covers(vma, address))
			continue;
		cond_resched();
		if (rwc->invalid_vma && rwc->invalid_vma(vma, rwc->arg))
			continue;
		if (!rwc->rmap_one(folio, vma, address, rwc->arg))
			return false;
		if (rwc->done && rwc->done(folio))
			return false;
	}
	return true;
}

static void ptshare_unmap_part(struct vm_area_struct *vma, pgoff_t first,
			       pgoff_t last, unsigned long start,
			       unsigned long end, struct zap_details *details)
{
	pgoff_t vba = vma->vm_pgoff;
	pgoff_t vea = vba + vma_pages(vma) - 1;

	start = max(start, ((max(first, vba) - vba) << PAGE_SHIFT) +
			   vma->vm_start);
	end = min(end, ((min(last, vea) - vba + 1) << PAGE_SHIFT) +
		       vma->vm_start);
	if (start < end)
		zap_page_range_single(vma, start, end - start, details);
}

void __ptshare_unmap_mapping(struct address_space *mapping, pgoff_t first,
			     pgoff_t last, struct zap_details *details)
{
	struct ptshare *ps = mapping->i_ptshare;
	struct vm_area_struct *vma;

	if (!ptshare_may_be_partial(ps, first, last))
		return;
	count_vm_event(PTSHARE_RMAP_PARTIAL);
	vma_interval_tree_foreach(vma, &ps->sharers, first, last) {
		/* Head and tail only: the rest is mapped by the windows. */
		ptshare_unmap_part(vma, first, last, vma->vm_start,
				   ptshare_covered_start(vma), details);
		ptshare_unmap_part(vma, first, last, ptshare_covered_end(vma),
				   vma->vm_end, details);
	}
}

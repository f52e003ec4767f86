// SPDX-License-Identifier: GPL-2.0
/*
 * mm/ptshare_debug.c - /sys/kernel/debug/ptshare/owners
 *
 * One line for each file that has an owner.  What is attached is counted when
 * somebody asks, so that nobody else pays for it.
 */
#include <linux/dcache.h>
#include <linux/debugfs.h>
#include <linux/init.h>
#include <linux/kdev_t.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>

#include "internal.h"
#include "ptshare.h"

/* An owner is listed from its first sharer to its last, before it is freed. */
static LIST_HEAD(ptshare_owners);
static DEFINE_MUTEX(ptshare_owners_lock);

/**
 * ptshare_debug_add - list a new owner
 * @ps: the owner, referenced; i_mmap_rwsem is not held
 */
void ptshare_debug_add(struct ptshare *ps)
{
	mutex_lock(&ptshare_owners_lock);
	list_add_tail(&ps->list, &ptshare_owners);
	mutex_unlock(&ptshare_owners_lock);
}

/**
 * ptshare_debug_del - an owner is about to be freed
 * @ps: the owner; i_mmap_rwsem is not held
 */
void ptshare_debug_del(struct ptshare *ps)
{
	mutex_lock(&ptshare_owners_lock);
	list_del(&ps->list);
	mutex_unlock(&ptshare_owners_lock);
}

/*
 * i_mmap_rwsem keeps the upper levels of a linked VMA's page tables, as it
 * does for the reverse map.
 */
static unsigned long ptshare_count_attached(struct vm_area_struct *vma)
{
	unsigned long addr, n = 0;
	pmd_t *pmd;

	for (addr = ptshare_covered_start(vma);
	     addr < ptshare_covered_end(vma); addr += PMD_SIZE) {
		pmd = mm_find_pmd(vma->vm_mm, addr);
		n += pmd && pmd_ptshared(pmdp_get_lockless(pmd));
	}
	return n;
}

static void ptshare_show_owner(struct seq_file *m, struct ptshare *ps)
{
	struct inode *inode = ps->mapping->host;
	struct vm_area_struct *vma;
	unsigned long attached = 0;
	struct name_snapshot name;

	i_mmap_lock_read(ps->mapping);
	vma_interval_tree_foreach(vma, &ps->sharers, 0, ULONG_MAX) {
		if (fatal_signal_pending(current))
			break;
		attached += ptshare_count_attached(vma);
		cond_resched();
	}
	seq_printf(m, "%u:%u %lu sharers=%lu tables=%lu attached=%lu ",
		   MAJOR(inode->i_sb->s_dev), MINOR(inode->i_sb->s_dev),
		   inode->i_ino, ps->nr_sharers,
		   atomic_long_read(&ps->nr_tables), attached);
	i_mmap_unlock_read(ps->mapping);
	take_dentry_name_snapshot(&name, ps->path.dentry);
	seq_escape(m, name.name.name, "\n\\ ");
	release_dentry_name_snapshot(&name);
	seq_putc(m, '\n');
}

static int owners_show(struct seq_file *m, void *v)
{
	struct ptshare *ps;

	mutex_lock(&ptshare_owners_lock);
	list_for_each_entry(ps, &ptshare_owners, list)
		ptshare_show_owner(m, ps);
	mutex_unlock(&ptshare_owners_lock);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(owners);

static int __init ptshare_debug_init(void)
{
	struct dentry *dir = debugfs_create_dir("ptshare", NULL);

	debugfs_create_file("owners", 0400, dir, NULL, &owners_fops);
	return 0;
}
late_initcall(ptshare_debug_init);

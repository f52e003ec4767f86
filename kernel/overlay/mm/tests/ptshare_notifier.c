// SPDX-License-Identifier: GPL-2.0
/*
 * /sys/kernel/debug/ptshare/notifier - what an mmu notifier of a process hears
 *
 * For selftests (CONFIG_PTSHARE_TEST).  Each open file is one notifier, and is
 * unregistered when it is closed:
 *
 *	write "PID"		register on this process
 *	write "secondary PID"	ditto, as the driver of an IOMMU would
 *	write "young 1"		claim from now on that every page was used
 *	write "clear"		forget what was heard
 *	read			a line for each call: KIND START END, in hex
 *
 * KIND is start, end, clear_flush_young, clear_young, test_young, secondary or
 * release.  "lost N" ends the list when more was heard than fits.
 */
#include <linux/debugfs.h>
#include <linux/kstrtox.h>
#include <linux/mmu_notifier.h>
#include <linux/sched/mm.h>
#include <linux/sched/task.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#define PTSHARE_MAX_HEARD	8192

struct ptshare_heard {
	const char *kind;
	unsigned long start, end;
};

/**
 * struct ptshare_listener - one notifier
 * @notifier: registered while @notifier.mm is set
 * @setup: held by writers, who register
 * @lock: of what follows
 * @young: what the aging callbacks return
 * @nr: how many calls were heard
 * @heard: the first of them
 */
struct ptshare_listener {
	struct mmu_notifier notifier;
	struct mutex setup;	/* outside mmap_lock */
	spinlock_t lock;	/* callbacks hold PTE locks: a leaf */
	bool young;
	unsigned long nr;
	struct ptshare_heard heard[PTSHARE_MAX_HEARD];
};

static int ptshare_hear(struct mmu_notifier *notifier, const char *kind,
			unsigned long start, unsigned long end)
{
	struct ptshare_listener *l = container_of(notifier,
						  struct ptshare_listener,
						  notifier);
	unsigned long flags;
	int young;

	spin_lock_irqsave(&l->lock, flags);
	if (l->nr < PTSHARE_MAX_HEARD)
		l->heard[l->nr] = (struct ptshare_heard){ kind, start, end };
	l->nr++;
	young = l->young;
	spin_unlock_irqrestore(&l->lock, flags);
	return young;
}

static int ptshare_hear_start(struct mmu_notifier *notifier,
			      const struct mmu_notifier_range *range)
{
	if (mmu_notifier_range_blockable(range))
		might_sleep();
	ptshare_hear(notifier, "start", range->start, range->end);
	return 0;
}

static void ptshare_hear_end(struct mmu_notifier *notifier,
			     const struct mmu_notifier_range *range)
{
	ptshare_hear(notifier, "end", range->start, range->end);
}

static int ptshare_hear_clear_flush_young(struct mmu_notifier *notifier,
					  struct mm_struct *mm,
					  unsigned long start,
					  unsigned long end)
{
	return ptshare_hear(notifier, "clear_flush_young", start, end);
}

static int ptshare_hear_clear_young(struct mmu_notifier *notifier,
				    struct mm_struct *mm, unsigned long start,
				    unsigned long end)
{
	return ptshare_hear(notifier, "clear_young", start, end);
}

static int ptshare_hear_test_young(struct mmu_notifier *notifier,
				   struct mm_struct *mm, unsigned long address)
{
	return ptshare_hear(notifier, "test_young", address,
			    address + PAGE_SIZE);
}

static void ptshare_hear_secondary(struct mmu_notifier *notifier,
				   struct mm_struct *mm, unsigned long start,
				   unsigned long end)
{
	ptshare_hear(notifier, "secondary", start, end);
}

static void ptshare_hear_release(struct mmu_notifier *notifier,
				 struct mm_struct *mm)
{
	ptshare_hear(notifier, "release", 0, 0);
}

static const struct mmu_notifier_ops ptshare_listener_ops = {
	.invalidate_range_start	= ptshare_hear_start,
	.invalidate_range_end	= ptshare_hear_end,
	.clear_flush_young	= ptshare_hear_clear_flush_young,
	.clear_young		= ptshare_hear_clear_young,
	.test_young		= ptshare_hear_test_young,
	.release		= ptshare_hear_release,
};

/* These exclude start and end, see __mmu_notifier_register(). */
static const struct mmu_notifier_ops ptshare_secondary_ops = {
	.arch_invalidate_secondary_tlbs	= ptshare_hear_secondary,
	.release			= ptshare_hear_release,
};

static int ptshare_listen(struct ptshare_listener *l, const char *pid,
			  const struct mmu_notifier_ops *ops)
{
	struct task_struct *task;
	struct mm_struct *mm;
	int nr, err;

	err = kstrtoint(pid, 10, &nr);
	if (err)
		return err;
	if (l->notifier.mm)
		return -EBUSY;
	task = find_get_task_by_vpid(nr);
	if (!task)
		return -ESRCH;
	mm = get_task_mm(task);
	put_task_struct(task);
	if (!mm)
		return -ESRCH;
	l->notifier.ops = ops;
	err = mmu_notifier_register(&l->notifier, mm);
	mmput(mm);
	return err;
}

static int ptshare_listener_command(struct ptshare_listener *l, char *word)
{
	bool young;
	int err;

	if (!strcmp(word, "clear")) {
		spin_lock_irq(&l->lock);
		l->nr = 0;
		spin_unlock_irq(&l->lock);
		return 0;
	}
	if (str_has_prefix(word, "young ")) {
		err = kstrtobool(word + 6, &young);
		if (err)
			return err;
		spin_lock_irq(&l->lock);
		l->young = young;
		spin_unlock_irq(&l->lock);
		return 0;
	}
	if (str_has_prefix(word, "secondary "))
		return ptshare_listen(l, word + 10, &ptshare_secondary_ops);
	return ptshare_listen(l, word, &ptshare_listener_ops);
}

static ssize_t ptshare_listener_write(struct file *file, const char __user *buf,
				      size_t count, loff_t *pos)
{
	struct ptshare_listener *l =
		((struct seq_file *)file->private_data)->private;
	char word[32];
	int err;

	if (count >= sizeof(word))
		return -EINVAL;
	if (copy_from_user(word, buf, count))
		return -EFAULT;
	word[count] = 0;
	mutex_lock(&l->setup);
	err = ptshare_listener_command(l, strim(word));
	mutex_unlock(&l->setup);
	return err ? : count;
}

static int ptshare_listener_show(struct seq_file *m, void *v)
{
	struct ptshare_listener *l = m->private;
	unsigned long i, nr;

	/* What has been heard stays as it is, but for "clear". */
	spin_lock_irq(&l->lock);
	nr = l->nr;
	spin_unlock_irq(&l->lock);
	for (i = 0; i < min(nr, PTSHARE_MAX_HEARD); i++)
		seq_printf(m, "%s %lx %lx\n", l->heard[i].kind,
			   l->heard[i].start, l->heard[i].end);
	if (nr > PTSHARE_MAX_HEARD)
		seq_printf(m, "lost %lu\n", nr - PTSHARE_MAX_HEARD);
	return 0;
}

static int ptshare_listener_open(struct inode *inode, struct file *file)
{
	struct ptshare_listener *l = kvzalloc(sizeof(*l), GFP_KERNEL);
	int err;

	if (!l)
		return -ENOMEM;
	mutex_init(&l->setup);
	spin_lock_init(&l->lock);
	err = single_open(file, ptshare_listener_show, l);
	if (err)
		kvfree(l);
	return err;
}

static int ptshare_listener_release(struct inode *inode, struct file *file)
{
	struct ptshare_listener *l =
		((struct seq_file *)file->private_data)->private;

	if (l->notifier.mm)
		mmu_notifier_unregister(&l->notifier, l->notifier.mm);
	kvfree(l);
	return single_release(inode, file);
}

static const struct file_operations ptshare_listener_fops = {
	.open		= ptshare_listener_open,
	.read		= seq_read,
	.write		= ptshare_listener_write,
	.llseek		= seq_lseek,
	.release	= ptshare_listener_release,
};

static int __init ptshare_notifier_init(void)
{
	/* The directory of mm/ptshare_debug.c, made before us. */
	struct dentry *dir = debugfs_lookup("ptshare", NULL);

	debugfs_create_file("notifier", 0600, dir, NULL,
			    &ptshare_listener_fops);
	dput(dir);
	return 0;
}
late_initcall_sync(ptshare_notifier_init);

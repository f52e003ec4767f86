// SPDX-License-Identifier: GPL-2.0
/*
 * mm/ptshare_policy.c - who wants page tables to be shared
 *
 * The first that applies wins: `enabled' is never; MADV_NOPTSHARE or the
 * process' PTSHARE_NEVER; MADV_PTSHARE or the process' PTSHARE_ALWAYS; what
 * `enabled' says.  Whether a VMA *can* share is for mm/ptshare_vma.c.
 */
#include <linux/init.h>
#include <linux/kobject.h>
#include <linux/kstrtox.h>
#include <linux/mman.h>
#include <linux/prctl.h>
#include <linux/sched/coredump.h>
#include <linux/string.h>
#include <linux/sysfs.h>
#include <linux/vmstat.h>

#include "ptshare.h"

DEFINE_STATIC_KEY_FALSE(ptshare_key);

enum ptshare_mode {
	PTSHARE_MODE_ALWAYS,
	PTSHARE_MODE_MADVISE,
	PTSHARE_MODE_NEVER,
};

static const char * const ptshare_modes[] = { "always", "madvise", "never" };

static enum ptshare_mode ptshare_mode __read_mostly = PTSHARE_MODE_MADVISE;
static unsigned long ptshare_min_kb __read_mostly = 4096;

atomic_long_t ptshare_gauges[NR_PTSHARE_GAUGES];

void __ptshare_activate(void)
{
	static_branch_enable(&ptshare_key);
}

/**
 * ptshare_wanted - does the policy want this VMA to share?
 * @vma: an eligible VMA
 * @flags: the vm_flags that it has or is about to get
 *
 * Return: true if it should join.
 */
bool ptshare_wanted(struct vm_area_struct *vma, vm_flags_t flags)
{
	unsigned long covered = ptshare_covered_end(vma) -
				ptshare_covered_start(vma);
	unsigned long mm_flags = vma->vm_mm->flags;
	enum ptshare_mode mode = READ_ONCE(ptshare_mode);

	if (mode == PTSHARE_MODE_NEVER || (flags & VM_NOPTSHARE) ||
	    test_bit(MMF_PTSHARE_NEVER, &mm_flags))
		return false;
	if (flags & VM_PTSHARE)
		return true;
	if (covered >> 10 < READ_ONCE(ptshare_min_kb))
		return false;
	return mode == PTSHARE_MODE_ALWAYS ||
	       test_bit(MMF_PTSHARE_ALWAYS, &mm_flags);
}

/*
 * Unrelated processes can share only where address and file offset are
 * congruent modulo PMD_SIZE, by chance one in 512.  PUD_SIZE lets whole PMD
 * pages be attached by one fault.
 */
unsigned long __ptshare_alignment(unsigned long len, pgoff_t pgoff,
				  unsigned long flags)
{
	unsigned long head = -(pgoff << PAGE_SHIFT) & ~PUD_MASK;

	if ((flags & MAP_TYPE) == MAP_PRIVATE || len < PMD_SIZE ||
	    READ_ONCE(ptshare_mode) == PTSHARE_MODE_NEVER ||
	    test_bit(MMF_PTSHARE_NEVER, &current->mm->flags))
		return 0;
	/* Does it contain a whole, aligned GiB of the file? */
	return len >= head + PUD_SIZE ? PUD_SIZE : PMD_SIZE;
}

int __ptshare_prctl(bool set, unsigned long arg2, unsigned long arg3,
		    unsigned long arg4, unsigned long arg5)
{
	struct mm_struct *mm = current->mm;
	unsigned long bits = 0;

	if (arg3 || arg4 || arg5 || (!set && arg2) || arg2 > PTSHARE_NEVER)
		return -EINVAL;
	if (!set) {
		if (test_bit(MMF_PTSHARE_ALWAYS, &mm->flags))
			return PTSHARE_ALWAYS;
		return test_bit(MMF_PTSHARE_NEVER, &mm->flags) ?
			PTSHARE_NEVER : PTSHARE_DEFAULT;
	}
	if (arg2 == PTSHARE_ALWAYS) {
		ptshare_activate();
		bits = 1UL << MMF_PTSHARE_ALWAYS;
	} else if (arg2 == PTSHARE_NEVER) {
		bits = 1UL << MMF_PTSHARE_NEVER;
	}
	if (mmap_write_lock_killable(mm))
		return -EINTR;
	set_mask_bits(&mm->flags, MMF_PTSHARE_MASK, bits);
	mmap_write_unlock(mm);
	return 0;
}

static int __init ptshare_setup(char *str)
{
	int mode = match_string(ptshare_modes, ARRAY_SIZE(ptshare_modes), str);

	if (mode < 0)
		pr_warn("ptshare=%s is none of always, madvise, never\n", str);
	else
		ptshare_mode = mode;
	return 1;
}
__setup("ptshare=", ptshare_setup);

/* --- /sys/kernel/mm/ptshare --- */

static ssize_t enabled_show(struct kobject *kobj, struct kobj_attribute *attr,
			    char *buf)
{
	enum ptshare_mode mode = READ_ONCE(ptshare_mode);
	int i, len = 0;

	for (i = 0; i < ARRAY_SIZE(ptshare_modes); i++)
		len += sysfs_emit_at(buf, len, i == mode ? "%s[%s]" : "%s%s",
				     i ? " " : "", ptshare_modes[i]);
	return len + sysfs_emit_at(buf, len, "\n");
}

static ssize_t enabled_store(struct kobject *kobj, struct kobj_attribute *attr,
			     const char *buf, size_t count)
{
	int mode = sysfs_match_string(ptshare_modes, buf);

	if (mode < 0)
		return -EINVAL;
	if (mode == PTSHARE_MODE_ALWAYS)
		ptshare_activate();
	WRITE_ONCE(ptshare_mode, mode);
	return count;
}

static struct kobj_attribute enabled_attr = __ATTR_RW(enabled);

static ssize_t min_kb_show(struct kobject *kobj, struct kobj_attribute *attr,
			   char *buf)
{
	return sysfs_emit(buf, "%lu\n", READ_ONCE(ptshare_min_kb));
}

static ssize_t min_kb_store(struct kobject *kobj, struct kobj_attribute *attr,
			    const char *buf, size_t count)
{
	unsigned long kb;
	int err = kstrtoul(buf, 10, &kb);

	if (err)
		return err;
	WRITE_ONCE(ptshare_min_kb, kb);
	return count;
}

static struct kobj_attribute min_kb_attr = __ATTR_RW(min_kb);

/* CPUs count on their own; what offline ones counted was given to another. */
static long ptshare_events(enum vm_event_item item)
{
	long sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += per_cpu(vm_event_states, cpu).event[item];
	return sum;
}

static long ptshare_gauge(enum ptshare_gauge gauge)
{
	return atomic_long_read(&ptshare_gauges[gauge]);
}

static long ptshare_attached(void)
{
	return max(ptshare_events(PTSHARE_ATTACH) -
		   ptshare_events(PTSHARE_DETACH), 0L);
}

static long ptshare_saved_kb(void)
{
	long tables = ptshare_attached() - ptshare_gauge(PTSHARE_TABLES);

	return max(tables, 0L) * (PAGE_SIZE >> 10);
}

#define PTSHARE_ATTR(_name, _value)					\
static ssize_t _name##_show(struct kobject *kobj,			\
			    struct kobj_attribute *attr, char *buf)	\
{									\
	return sysfs_emit(buf, "%ld\n", _value);			\
}									\
static struct kobj_attribute _name##_attr = __ATTR_RO(_name)

PTSHARE_ATTR(owners, ptshare_gauge(PTSHARE_OWNERS));
PTSHARE_ATTR(sharers, ptshare_gauge(PTSHARE_SHARERS));
PTSHARE_ATTR(tables, ptshare_gauge(PTSHARE_TABLES));
PTSHARE_ATTR(attached, ptshare_attached());
PTSHARE_ATTR(saved_kb, ptshare_saved_kb());

PTSHARE_ATTR(join, ptshare_events(PTSHARE_JOIN));
PTSHARE_ATTR(leave, ptshare_events(PTSHARE_LEAVE));
PTSHARE_ATTR(attach, ptshare_events(PTSHARE_ATTACH));
PTSHARE_ATTR(attach_faults, ptshare_events(PTSHARE_ATTACH_FAULTS));
PTSHARE_ATTR(attach_around, ptshare_events(PTSHARE_ATTACH_AROUND));
PTSHARE_ATTR(attach_fork, ptshare_events(PTSHARE_ATTACH_FORK));
PTSHARE_ATTR(detach, ptshare_events(PTSHARE_DETACH));
PTSHARE_ATTR(flush_each, ptshare_events(PTSHARE_FLUSH_EACH));
PTSHARE_ATTR(flush_all, ptshare_events(PTSHARE_FLUSH_ALL));
PTSHARE_ATTR(rmap_partial, ptshare_events(PTSHARE_RMAP_PARTIAL));
PTSHARE_ATTR(notify, ptshare_events(PTSHARE_NOTIFY));

static struct attribute *ptshare_attrs[] = {
	&enabled_attr.attr,
	&min_kb_attr.attr,
	&owners_attr.attr,
	&sharers_attr.attr,
	&tables_attr.attr,
	&attached_attr.attr,
	&saved_kb_attr.attr,
	NULL,
};

static const struct attribute_group ptshare_group = {
	.attrs = ptshare_attrs,
};

static struct attribute *ptshare_stats_attrs[] = {
	&join_attr.attr,
	&leave_attr.attr,
	&attach_attr.attr,
	&attach_faults_attr.attr,
	&attach_around_attr.attr,
	&attach_fork_attr.attr,
	&detach_attr.attr,
	&flush_each_attr.attr,
	&flush_all_attr.attr,
	&rmap_partial_attr.attr,
	&notify_attr.attr,
	NULL,
};

static const struct attribute_group ptshare_stats_group = {
	.name = "stats",
	.attrs = ptshare_stats_attrs,
};

static const struct attribute_group *ptshare_groups[] = {
	&ptshare_group,
	&ptshare_stats_group,
	NULL,
};

static int __init ptshare_init(void)
{
	struct kobject *kobj = kobject_create_and_add("ptshare", mm_kobj);
	int err;

	if (!kobj)
		return -ENOMEM;
	err = sysfs_create_groups(kobj, ptshare_groups);
	if (err) {
		kobject_put(kobj);
		return err;
	}
	if (ptshare_mode == PTSHARE_MODE_ALWAYS)
		ptshare_activate();
	return 0;
}
subsys_initcall(ptshare_init);

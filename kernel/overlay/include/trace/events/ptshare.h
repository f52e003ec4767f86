/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM ptshare

#if !defined(_TRACE_PTSHARE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_PTSHARE_H

#include <linux/fs.h>
#include <linux/kdev_t.h>
#include <linux/mm_types.h>
#include <linux/tracepoint.h>

/* The file of an owner, as stat() names it. */
DECLARE_EVENT_CLASS(ptshare_owner_template,

	TP_PROTO(struct address_space *mapping, unsigned long tables),

	TP_ARGS(mapping, tables),

	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(unsigned long, ino)
		__field(unsigned long, tables)
	),

	TP_fast_assign(
		__entry->dev = mapping->host->i_sb->s_dev;
		__entry->ino = mapping->host->i_ino;
		__entry->tables = tables;
	),

	TP_printk("dev=%d:%d ino=%lu tables=%lu",
		  MAJOR(__entry->dev), MINOR(__entry->dev), __entry->ino,
		  __entry->tables)
);

/**
 * ptshare_owner_create - a file gets an owner
 * @mapping: of the file
 * @tables: 0
 */
DEFINE_EVENT(ptshare_owner_template, ptshare_owner_create,

	TP_PROTO(struct address_space *mapping, unsigned long tables),

	TP_ARGS(mapping, tables)
);

/**
 * ptshare_owner_destroy - the last sharer of a file has gone
 * @mapping: of the file
 * @tables: how many PTE tables go with the owner
 */
DEFINE_EVENT(ptshare_owner_template, ptshare_owner_destroy,

	TP_PROTO(struct address_space *mapping, unsigned long tables),

	TP_ARGS(mapping, tables)
);

/**
 * ptshare_attach - a sharer has attached PTE tables of its owner
 * @vma: the sharer
 * @addr: the address that was asked for
 * @attached: how many tables, those around @addr included
 */
TRACE_EVENT(ptshare_attach,

	TP_PROTO(struct vm_area_struct *vma, unsigned long addr,
		 unsigned long attached),

	TP_ARGS(vma, addr, attached),

	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(unsigned long, ino)
		__field(unsigned long, addr)
		__field(unsigned long, pgoff)
		__field(unsigned long, attached)
	),

	TP_fast_assign(
		__entry->dev = file_inode(vma->vm_file)->i_sb->s_dev;
		__entry->ino = file_inode(vma->vm_file)->i_ino;
		__entry->addr = addr;
		__entry->pgoff = vma->vm_pgoff +
				 ((addr - vma->vm_start) >> PAGE_SHIFT);
		__entry->attached = attached;
	),

	TP_printk("dev=%d:%d ino=%lu addr=%#lx pgoff=%lu attached=%lu",
		  MAJOR(__entry->dev), MINOR(__entry->dev), __entry->ino,
		  __entry->addr, __entry->pgoff, __entry->attached)
);

/**
 * ptshare_detach - a shared PTE table was taken out of a PMD entry
 * @mm: the address space; not always current's
 * @addr: of the chunk
 */
TRACE_EVENT(ptshare_detach,

	TP_PROTO(struct mm_struct *mm, unsigned long addr),

	TP_ARGS(mm, addr),

	TP_STRUCT__entry(
		__field(struct mm_struct *, mm)
		__field(unsigned long, addr)
	),

	TP_fast_assign(
		__entry->mm = mm;
		__entry->addr = addr;
	),

	TP_printk("mm=%p addr=%#lx", __entry->mm, __entry->addr)
);

/**
 * ptshare_flush - PTEs of an owner were reduced: flush its sharers
 * @mapping: of the file
 * @first: first page
 * @last: last page
 * @sharers: how many it has
 * @deferred: at the end of a batch, not at once
 */
TRACE_EVENT(ptshare_flush,

	TP_PROTO(struct address_space *mapping, pgoff_t first, pgoff_t last,
		 unsigned long sharers, bool deferred),

	TP_ARGS(mapping, first, last, sharers, deferred),

	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(unsigned long, ino)
		__field(unsigned long, first)
		__field(unsigned long, last)
		__field(unsigned long, sharers)
		__field(bool, deferred)
	),

	TP_fast_assign(
		__entry->dev = mapping->host->i_sb->s_dev;
		__entry->ino = mapping->host->i_ino;
		__entry->first = first;
		__entry->last = last;
		__entry->sharers = sharers;
		__entry->deferred = deferred;
	),

	TP_printk("dev=%d:%d ino=%lu pgoff=%lu-%lu sharers=%lu%s",
		  MAJOR(__entry->dev), MINOR(__entry->dev), __entry->ino,
		  __entry->first, __entry->last, __entry->sharers,
		  __entry->deferred ? " deferred" : "")
);

#endif /* _TRACE_PTSHARE_H */

#include <trace/define_trace.h>

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * ptshare: catching up with owners when an address space is loaded; see
 * arch/x86/mm/ptshare.c
 */
#ifndef _ASM_X86_PTSHARE_H
#define _ASM_X86_PTSHARE_H

#include <linux/ptshare.h>

#include <asm/tlbflush.h>

void arch_ptshare_flush(u64 buckets);
void arch_ptshare_join(struct mm_struct *mm, u64 bucket);

#ifdef CONFIG_PTSHARE

u64 __ptshare_tlb_enter(u64 buckets);

/**
 * arch_ptshare_joined - has an address space, or the one it was forked from,
 * ever had a sharer?
 * @mm: it
 *
 * Return: false if not.
 */
static inline bool arch_ptshare_joined(struct mm_struct *mm)
{
	return READ_ONCE(mm->context.ptshare);
}

/**
 * ptshare_tlb_enter - this CPU is about to use an address space
 * @mm: it; this CPU is in its mm_cpumask(), interrupts are off
 *
 * From here on flushes of owners that @mm may be a sharer of come to us.
 *
 * Return: the generation up to which they may have passed us by; 0 if @mm
 * never shared.
 */
static inline u64 ptshare_tlb_enter(struct mm_struct *mm)
{
	return ptshare_active() ?
	       __ptshare_tlb_enter(READ_ONCE(mm->context.ptshare)) : 0;
}

/**
 * ptshare_tlb_stale - must an ASID be flushed before it is used?
 * @asid: it
 * @gen: what ptshare_tlb_enter() returned
 *
 * Return: true if it may hold entries that an owner has flushed.
 */
static inline bool ptshare_tlb_stale(u16 asid, u64 gen)
{
	return ptshare_active() &&
	       this_cpu_read(cpu_tlbstate.ctxs[asid].ptshare_gen) < gen;
}

/**
 * ptshare_tlb_caught_up - an ASID is being flushed completely
 * @asid: it
 * @gen: what ptshare_tlb_enter() returned before
 */
static inline void ptshare_tlb_caught_up(u16 asid, u64 gen)
{
	if (ptshare_active())
		this_cpu_write(cpu_tlbstate.ctxs[asid].ptshare_gen, gen);
}

/**
 * ptshare_tlbbatch_flush - flush the owners that a batch has collected
 * @batch: it
 */
static inline void ptshare_tlbbatch_flush(struct arch_tlbflush_unmap_batch *batch)
{
	if (ptshare_active() && batch->ptshare) {
		arch_ptshare_flush(batch->ptshare);
		batch->ptshare = 0;
	}
}

#else /* !CONFIG_PTSHARE */

static inline u64 ptshare_tlb_enter(struct mm_struct *mm)
{
	return 0;
}

static inline bool ptshare_tlb_stale(u16 asid, u64 gen)
{
	return false;
}

static inline void ptshare_tlb_caught_up(u16 asid, u64 gen)
{
}

static inline void ptshare_tlbbatch_flush(struct arch_tlbflush_unmap_batch *batch)
{
}

#endif /* CONFIG_PTSHARE */

#endif /* _ASM_X86_PTSHARE_H */

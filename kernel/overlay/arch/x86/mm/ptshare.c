// SPDX-License-Identifier: GPL-2.0
/*
 * arch/x86/mm/ptshare.c - flushing all sharers of an owner at once
 *
 * An owner of shared page tables with many sharers cannot afford to flush
 * each.  Instead it raises a generation, and whoever may hold its entries
 * compares: CPUs that run a sharer are told by one IPI, and the ASIDs of
 * sharers that run nowhere are flushed when they are next loaded.
 *
 *   flusher				CPU that loads a sharer
 *   clear PTE				set our bit in mm_cpumask
 *   raise the bucket's generation	read mm->context.ptshare	(B)
 *   full barrier		(A)	say in `ptshare' what we run
 *   read each CPU's `ptshare'		full barrier			(A)
 *					read generations, flush if behind
 *
 * (A) Either the flusher sees that the CPU runs a sharer, and sends the IPI, or
 *     the CPU sees the new generation, and its flush is after the PTE's clear.
 * (B) An mm that becomes a sharer while it runs: arch_ptshare_join() sets
 *     context.ptshare and then, after a full barrier, reads mm_cpumask.  Either
 *     it finds the CPU there, and tells it, or the CPU finds the bucket.
 *
 * Lazy CPUs get no IPI, like in stock: they compare when they switch back, after
 * the smp_mb() that follows is_lazy = false.
 *
 * Owners are hashed to 64 buckets, so that those that an mm may be a sharer of
 * fit into a word; a collision costs a flush too many.  The generations of all
 * buckets are drawn from one counter.  "Flushed up to g" then is true of all
 * buckets at once: what was drawn up to g was drawn after its PTEs had been
 * cleared, and whoever reads g anywhere flushes after that.  So one number for
 * each ASID will do, and it is written together with a complete flush only.
 *
 * context.ptshare only grows; fork copies it and exec starts from zero.
 */
#include <linux/atomic.h>
#include <linux/bitops.h>
#include <linux/mm.h>
#include <linux/smp.h>

#include <asm/hardirq.h>
#include <asm/ptshare.h>

static atomic64_t ptshare_tlb_last;	/* generation that was drawn last */
static atomic64_t ptshare_tlb_gens[BITS_PER_TYPE(u64)];

/* The newest generation of a set of buckets. */
static u64 ptshare_tlb_latest(u64 buckets)
{
	u64 latest = 0, gen;

	for (; buckets; buckets &= buckets - 1) {
		gen = atomic64_read(&ptshare_tlb_gens[__ffs64(buckets)]);
		latest = max(latest, gen);
	}
	return latest;
}

u64 __ptshare_tlb_enter(u64 buckets)
{
	/* The line is shared: do not write what it says already. */
	if (this_cpu_read(cpu_tlbstate_shared.ptshare) != buckets)
		this_cpu_write(cpu_tlbstate_shared.ptshare, buckets);
	if (!buckets)
		return 0;
	smp_mb();	/* (A), pairs with ptshare_tlb_raise() */
	return ptshare_tlb_latest(buckets);
}

/* A new generation for each of some buckets; returns the first of them. */
static u64 ptshare_tlb_raise(u64 buckets)
{
	u64 gen = atomic64_inc_return(&ptshare_tlb_last);

	for (; buckets; buckets &= buckets - 1) {
		atomic64_t *bucket = &ptshare_tlb_gens[__ffs64(buckets)];
		s64 old = atomic64_read(bucket);

		/* Somebody who drew later may have been faster. */
		while (old < (s64)gen &&
		       !atomic64_try_cmpxchg(bucket, &old, gen))
			;
	}
	smp_mb__after_atomic();	/* (A), pairs with __ptshare_tlb_enter() */
	return gen;
}

/* What a flush is about. */
struct ptshare_tlb_flush {
	u64 buckets;
	u64 gen;
	int initiating_cpu;
};

static bool ptshare_tlb_target(int cpu, void *data)
{
	struct ptshare_tlb_flush *flush = data;

	if (!(per_cpu(cpu_tlbstate_shared.ptshare, cpu) & flush->buckets))
		return false;
	/* switch_mm_irqs_off() writes is_lazy first: read it last. */
	smp_rmb();
	return !per_cpu(cpu_tlbstate_shared.is_lazy, cpu);
}

/*
 * Flush what is loaded, unless it is up to date.  Interrupts are off, so that
 * switch_mm_irqs_off() is not under way.  The generation is read before the
 * flush, which serialises: what is cleared later is drawn later.
 */
static void ptshare_tlb_catch_up(u64 gen)
{
	u16 asid = this_cpu_read(cpu_tlbstate.loaded_mm_asid);

	if (!ptshare_tlb_stale(asid, gen))
		return;
	flush_tlb_local();
	ptshare_tlb_caught_up(asid, gen);
}

static void ptshare_tlb_flush_func(void *data)
{
	u64 buckets = this_cpu_read(cpu_tlbstate_shared.ptshare);
	struct ptshare_tlb_flush *flush = data;

	if (smp_processor_id() != flush->initiating_cpu) {
		inc_irq_stat(irq_tlb_count);
		count_vm_tlb_event(NR_TLB_REMOTE_FLUSH_RECEIVED);
	}
	/* A lazy CPU compares when it switches back. */
	if (!this_cpu_read(cpu_tlbstate_shared.is_lazy))
		ptshare_tlb_catch_up(ptshare_tlb_latest(buckets));
}

/* Has whoever runs a sharer caught up?  A missed flush would go unnoticed. */
static void ptshare_tlb_check_func(void *data)
{
	u16 asid = this_cpu_read(cpu_tlbstate.loaded_mm_asid);
	struct ptshare_tlb_flush *flush = data;

	VM_WARN_ON_ONCE((this_cpu_read(cpu_tlbstate_shared.ptshare) &
			 flush->buckets) &&
			!this_cpu_read(cpu_tlbstate_shared.is_lazy) &&
			ptshare_tlb_stale(asid, flush->gen));
}

/**
 * arch_ptshare_flush - flush all sharers of some owners from all TLBs
 * @buckets: of the owners whose PTEs were reduced
 *
 * Needs no lock and looks at no sharer.  On return nobody can use an entry that
 * was reduced before the call.
 */
void arch_ptshare_flush(u64 buckets)
{
	struct ptshare_tlb_flush flush = {
		.buckets = buckets,
		.gen = ptshare_tlb_raise(buckets),
		.initiating_cpu = get_cpu(),
	};

	count_vm_tlb_event(NR_TLB_REMOTE_FLUSH);
	on_each_cpu_cond(ptshare_tlb_target, ptshare_tlb_flush_func, &flush,
			 true);
	if (IS_ENABLED(CONFIG_DEBUG_VM))
		on_each_cpu(ptshare_tlb_check_func, &flush, true);
	put_cpu();
}

static void ptshare_tlb_join_func(void *data)
{
	struct mm_struct *mm = data;

	/* If we left it meanwhile, loading it again will tell us. */
	if (this_cpu_read(cpu_tlbstate.loaded_mm) == mm)
		ptshare_tlb_catch_up(ptshare_tlb_enter(mm));
}

/**
 * arch_ptshare_join - an address space is about to attach an owner's tables
 * @mm: it; its mmap_lock is held for write, or nobody has seen it yet
 * @bucket: of the owner
 *
 * On return all CPUs that run @mm listen to flushes of @bucket.
 */
void arch_ptshare_join(struct mm_struct *mm, u64 bucket)
{
	if (mm->context.ptshare & bucket)
		return;
	WRITE_ONCE(mm->context.ptshare, mm->context.ptshare | bucket);
	smp_mb();	/* (B), pairs with cpumask_set_cpu() before entering */
	on_each_cpu_mask(mm_cpumask(mm), ptshare_tlb_join_func, mm, true);
}

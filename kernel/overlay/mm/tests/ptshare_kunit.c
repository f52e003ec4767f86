// SPDX-License-Identifier: GPL-2.0
/* The arithmetic of ptshare: chunks, what covers them, and windows. */
#include <kunit/test.h>

#include "../ptshare.h"

static const unsigned long base = 0x7f0000000000UL;	/* PUD aligned */

static struct vm_area_struct *ptshare_vma(struct kunit *test,
					  unsigned long start,
					  unsigned long end)
{
	struct vm_area_struct *vma = kunit_kzalloc(test, sizeof(*vma),
						   GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, vma);
	vma->vm_start = base + start;
	vma->vm_end = base + end;
	return vma;
}

/* What lies wholly inside is covered, to the byte. */
static void ptshare_covers_test(struct kunit *test)
{
	static const struct {
		unsigned long start, end;	/* of the VMA */
		unsigned long from, to;		/* covered part, equal if none */
	} cases[] = {
		{ 0, PMD_SIZE, 0, PMD_SIZE },
		{ 0, PMD_SIZE - PAGE_SIZE, 0, 0 },
		{ PAGE_SIZE, PMD_SIZE, 0, 0 },
		{ PAGE_SIZE, 2 * PMD_SIZE, PMD_SIZE, 2 * PMD_SIZE },
		{ PMD_SIZE - PAGE_SIZE, 3 * PMD_SIZE + PAGE_SIZE,
		  PMD_SIZE, 3 * PMD_SIZE },
		{ PMD_SIZE / 2, PMD_SIZE + PMD_SIZE / 2, 0, 0 },
		{ PAGE_SIZE, 2 * PAGE_SIZE, 0, 0 },
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vm_area_struct *vma = ptshare_vma(test, cases[i].start,
							 cases[i].end);
		unsigned long from = ptshare_covered_start(vma);
		unsigned long to = ptshare_covered_end(vma);
		unsigned long addr;

		KUNIT_EXPECT_EQ(test, to - from, cases[i].to - cases[i].from);
		if (to > from)
			KUNIT_EXPECT_EQ(test, from, base + cases[i].from);
		for (addr = 0; addr < 4 * PMD_SIZE; addr += PMD_SIZE / 2)
			KUNIT_EXPECT_EQ(test, ptshare_covers(vma, base + addr),
					addr >= cases[i].from &&
					addr < cases[i].to);
	}
}

/* The last chunk of the address space must not wrap. */
static void ptshare_chunk_wrap_test(struct kunit *test)
{
	unsigned long last = -PMD_SIZE;

	KUNIT_EXPECT_FALSE(test, ptshare_chunk_in(last, 0, last));
	KUNIT_EXPECT_FALSE(test, ptshare_chunk_in(last, 0, last + PAGE_SIZE));
	KUNIT_EXPECT_FALSE(test, ptshare_chunk_in(0, PAGE_SIZE, PMD_SIZE));
	KUNIT_EXPECT_TRUE(test, ptshare_chunk_in(last - 1, 0, last));
}

/* Windows lie in user space, apart, and keep offsets modulo a PMD page. */
static void ptshare_window_test(struct kunit *test)
{
	unsigned long end = 0;
	unsigned int class;

	for (class = 0; class < PTSHARE_NR_CLASSES; class++) {
		unsigned long start = ptshare_window_base(class);

		KUNIT_EXPECT_GT(test, start, end);
		KUNIT_EXPECT_TRUE(test, IS_ALIGNED(start, PUD_SIZE));
		end = start + PTSHARE_WINDOW_SIZE;
	}
	KUNIT_EXPECT_LE(test, end, TASK_SIZE_MAX);
}

/* A class tells all permissions apart that a table can have. */
static void ptshare_class_test(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, ptshare_class(VM_READ), 0);
	KUNIT_EXPECT_NE(test, ptshare_class(VM_READ),
			ptshare_class(VM_READ | VM_WRITE));
	KUNIT_EXPECT_NE(test, ptshare_class(VM_READ | VM_WRITE),
			ptshare_class(VM_READ | VM_EXEC));
	KUNIT_EXPECT_LT(test, ptshare_class(VM_READ | VM_WRITE | VM_EXEC),
			PTSHARE_NR_CLASSES);
}

static struct kunit_case ptshare_test_cases[] = {
	KUNIT_CASE(ptshare_covers_test),
	KUNIT_CASE(ptshare_chunk_wrap_test),
	KUNIT_CASE(ptshare_window_test),
	KUNIT_CASE(ptshare_class_test),
	{}
};

static struct kunit_suite ptshare_test_suite = {
	.name = "ptshare",
	.test_cases = ptshare_test_cases,
};

kunit_test_suite(ptshare_test_suite);

MODULE_DESCRIPTION("KUnit test of the arithmetic of ptshare");
MODULE_LICENSE("GPL");

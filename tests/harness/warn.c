// SPDX-License-Identifier: GPL-2.0
/*
 * Makes any kernel with CONFIG_GUP_TEST warn, harmlessly: gup_test asks kvmalloc()
 * for as much as it is told to, and that warns of more than INT_MAX bytes.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/ioctl.h>

/* As in the kernel's mm/gup_test.h. */
struct gup_test {
	uint64_t get_delta_usec, put_delta_usec, addr, size;
	uint32_t nr_pages_per_call, gup_flags, test_flags, which_pages[8];
};
#define GUP_FAST_BENCHMARK	_IOWR('g', 1, struct gup_test)

int main(void)
{
	struct gup_test gup = { .size = 1UL << 42, .nr_pages_per_call = 1 };
	int fd = open("/sys/kernel/debug/gup_test", O_RDWR);

	if (fd < 0)
		err(1, "/sys/kernel/debug/gup_test");
	if (!ioctl(fd, GUP_FAST_BENCHMARK, &gup) || errno != ENOMEM)
		err(1, "gup_test did not ask for too much");
	return 0;
}

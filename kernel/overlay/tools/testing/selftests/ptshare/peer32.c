// SPDX-License-Identifier: GPL-2.0
/*
 * A 32-bit process that maps a file and does what mixed.c tells it.
 *
 * Built with nolibc: a 32-bit compiler and C library need not be installed.
 *
 *	peer32 FD SIZE	orders on standard input, answers on standard output
 */
#include "peer32.h"

static char *area;
static unsigned long size;

/* In a child, as it may be killed: 0 or the signal. */
static int store_in_child(struct peer32_order *o)
{
	int status = -1;
	pid_t pid = fork();

	if (!pid) {
		*(volatile char *)(area + o->off) = o->val;
		exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -1;
	return status & 0x7f;
}

static int move(struct peer32_order *o)
{
	long ret = my_syscall4(__NR_mremap, area, size, size + o->len,
			       1 /* MREMAP_MAYMOVE */);

	if ((unsigned long)ret > -4096UL)
		return ret;
	area = (char *)ret;
	size += o->len;
	return 0;
}

static int serve(struct peer32_order *o)
{
	switch (o->what) {
	case PEER32_LOAD:
		o->val = *(volatile char *)(area + o->off);
		return 0;
	case PEER32_STORE:
		*(volatile char *)(area + o->off) = o->val;
		return 0;
	case PEER32_STORE_IN_CHILD:
		return store_in_child(o);
	case PEER32_PROTECT:
		return my_syscall3(__NR_mprotect, area + o->off, o->len, o->val);
	case PEER32_UNMAP:
		return munmap(area + o->off, o->len);
	case PEER32_GROW:
		return move(o);
	}
	return -1;
}

int main(int argc, char *argv[])
{
	struct peer32_order o;

	if (argc != 3)
		return 2;
	size = atol(argv[2]);
	area = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED,
		    atoi(argv[1]), 0);
	if (area == MAP_FAILED)
		return 3;
	while (read(0, &o, sizeof(o)) == sizeof(o)) {
		o.ret = serve(&o);
		if (write(1, &o, sizeof(o)) != sizeof(o))
			return 4;
	}
	return 0;
}

// SPDX-License-Identifier: GPL-2.0
/*
 * Every allocation fails once: each operation is repeated with its first, its
 * second, its third ... allocation refused, until none is left (hazard H29).
 * Whatever it returns, nobody finds anything but the file's bytes.
 */
#include "pt_many.h"

#include <linux/elf.h>
#include <linux/userfaultfd.h>
#include <sys/syscall.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/uio.h>
#include <stddef.h>

#define SIZE	(8 * MB)
#define STEP	(MB / 2 + PAGE)		/* some pages of each chunk */

#define DEBUGFS	"/sys/kernel/debug/"

/* Refuse the @n-th allocation of this task from now on. */
static int fail_nth(int fd, int n)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%d", n);

	return pwrite(fd, text, len, 0) == len ? 0 : -1;
}

/* Has it not come to that? */
static bool fail_pending(int fd)
{
	char text[16] = "";

	if (pread(fd, text, sizeof(text) - 1, 0) < 0)
		return true;
	return atoi(text) > 0;
}

static int inject_open(void)
{
	write_file(DEBUGFS "failslab/verbose", "0");
	write_file(DEBUGFS "fail_page_alloc/verbose", "0");
	write_file(DEBUGFS "fail_page_alloc/min-order", "0");
	/* Users' pages, too. */
	write_file(DEBUGFS "fail_page_alloc/ignore-gfp-highmem", "N");
	if (write_file(DEBUGFS "failslab/ignore-gfp-wait", "N") ||
	    write_file(DEBUGFS "fail_page_alloc/ignore-gfp-wait", "N"))
		return -1;
	return open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
}

static char cgroup[64];		/* ours, if there is memory to reclaim from it */

static void enter_cgroup(void)
{
	char procs[96];

	cgroup[0] = 0;
	if (meminfo_kb("SwapTotal") <= 0 || !make_cgroup(cgroup, sizeof(cgroup)))
		return;
	snprintf(procs, sizeof(procs), "%s/cgroup.procs", cgroup);
	write_file(procs, "0");
}

static void leave_cgroup(void)
{
	write_file(CGROUP "cgroup.procs", "0");
	if (cgroup[0])
		rmdir(cgroup);
}

struct op {
	void (*prepare)(int fd, char *p);	/* with nothing refused */
	void (*fn)(int fd, char *p);
	bool may_fault;		/* may leave less mapped than before */
	bool may_zero;		/* may leave holes in the file */
	bool may_be_none;	/* no allocation at all where tables are shared */
	bool swaps;		/* has no use without */
};

FIXTURE(inject)
{
	int fd, nth;
	char *p, *w;
	struct pt_gauges was;
};

FIXTURE_VARIANT(inject)
{
	struct op op;
};

FIXTURE_SETUP(inject)
{
	pt_opt_in();
	pt_catch();
	self->was = pt_gauges();
	self->nth = inject_open();
	if (self->nth < 0)
		SKIP(return, "no fault injection");
	enter_cgroup();
	self->fd = new_memfd(SIZE);
	ASSERT_GE(self->fd, 0);
	self->w = map_at(self->fd, SIZE, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(self->w, MAP_FAILED);
	fill(self->w, SIZE, 1);
	self->p = map_at(self->fd, SIZE, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(self->p, MAP_FAILED);
}

FIXTURE_TEARDOWN(inject)
{
	if (self->nth < 0)
		return;
	close(self->nth);
	EXPECT_EQ(-1, check(self->w, SIZE, 1));
	munmap(self->p, SIZE);
	munmap(self->w, SIZE);
	close(self->fd);
	leave_cgroup();
	EXPECT_STREQ("nothing", pt_left_over(&self->was));
}

static void touch(char *p)
{
	size_t i;

	for (i = 0; i < SIZE; i += STEP)
		try_load(p + i, NULL);
}

/* Bytes of the file, or nothing at all if that may be. */
static int wrong_or(char *p, bool may_fault, bool may_zero)
{
	size_t i;
	char c;
	int sig;

	for (i = 0; i < SIZE; i += STEP) {
		sig = try_load(p + i, &c);
		if (sig ? sig != SIGSEGV || !may_fault :
		    c != (char)(1 + i / PAGE) && (c || !may_zero))
			return 1;
	}
	return 0;
}

static int wrong(char *p, bool may_fault)
{
	return wrong_or(p, may_fault, false);
}

/* --- what is done with allocations failing; the result does not matter --- */

static void do_map(int fd, char *p)
{
	mmap(p, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
}

static void do_other_class(int fd, char *p)
{
	mmap(p, SIZE, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd, 0);
}

/* Pages and tables that did not exist before, at an address that did not. */
static void do_fault(int fd, char *p)
{
	char *q;
	size_t i;

	if (ftruncate(fd, SIZE + CHUNK))
		return;
	q = mmap(NULL, SIZE + CHUNK, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (q != MAP_FAILED) {
		for (i = 0; i < SIZE + CHUNK; i += STEP)
			try_load(q + i, NULL);
		munmap(q, SIZE + CHUNK);
	}
	ftruncate(fd, SIZE);
}

/* A mapping, and an owner, that did not exist before. */
static void do_new_file(int fd, char *p)
{
	int new = new_memfd(SIZE);
	char *q;

	q = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, new, 0);
	if (q != MAP_FAILED) {
		touch(q);
		munmap(q, SIZE);
	}
	close(new);
}

static void do_mprotect(int fd, char *p)
{
	mprotect(p + 3 * MB, 3 * MB + PAGE, PROT_READ);
	mprotect(p + 3 * MB, 3 * MB + PAGE, PROT_READ | PROT_WRITE);
}

static void do_mprotect_none(int fd, char *p)
{
	mprotect(p + 3 * MB, 3 * MB + PAGE, PROT_NONE);
	mprotect(p + 3 * MB, 2 * MB + PAGE, PROT_READ);
}

static void do_munmap(int fd, char *p)
{
	munmap(p + 3 * MB, 3 * MB + PAGE);
}

static void do_map_over(int fd, char *p)
{
	mmap(p + 3 * MB, 2 * MB + PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, fd,
	     3 * MB);
	mmap(p + 3 * MB, 2 * MB + PAGE, PROT_READ | PROT_WRITE,
	     MAP_SHARED | MAP_FIXED, fd, 3 * MB);
}

static void do_mremap(int fd, char *p)
{
	char *q = mremap(p + 3 * MB, 3 * MB, 4 * MB, MREMAP_MAYMOVE);

	if (q == MAP_FAILED)
		return;
	if (q != p + 3 * MB)
		munmap(q, 4 * MB);
}

static void do_advise(int fd, char *p)
{
	madvise(p + 3 * MB, 3 * MB, MADV_NOPTSHARE);
	touch(p);
	madvise(p, SIZE, MADV_PTSHARE);
}

static void do_mlock(int fd, char *p)
{
	mlock(p + 3 * MB, 3 * MB);
	munlock(p, SIZE);
}

static void do_fork(int fd, char *p)
{
	pid_t pid = fork();
	int status;

	if (!pid)
		_exit(wrong(p, false));
	if (pid > 0 && (waitpid(pid, &status, 0) != pid || status))
		abort();
}

static void do_uffd(int fd, char *p)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)p + 3 * MB, .len = 3 * MB },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	int uffd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK |
			   UFFD_USER_MODE_ONLY);

	if (uffd < 0)
		return;
	if (!ioctl(uffd, UFFDIO_API, &api))
		ioctl(uffd, UFFDIO_REGISTER, &reg);
	close(uffd);
}

static void do_clear_refs(int fd, char *p)
{
	write_file("/proc/self/clear_refs", "4");
	touch(p);
}

/* All classes of tables, in one mapping. */
static void do_classes(int fd, char *p)
{
	static const int prot[] = {
		PROT_READ, PROT_READ | PROT_EXEC, PROT_READ | PROT_WRITE,
		PROT_READ | PROT_WRITE | PROT_EXEC,
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(prot); i++) {
		mprotect(p + i * CHUNK, SIZE - i * CHUNK, prot[i]);
		touch(p);
	}
}

static void do_mremap_shrink_grow(int fd, char *p)
{
	mremap(p, SIZE, SIZE - CHUNK - PAGE, 0);
	mremap(p, SIZE - CHUNK - PAGE, SIZE, 0);
}

static void do_mremap_fixed(int fd, char *p)
{
	char *q = mmap(NULL, 2 * CHUNK, PROT_READ, MAP_SHARED, fd, 0);

	if (q == MAP_FAILED)
		return;
	mremap(p + CHUNK, CHUNK + PAGE, CHUNK + PAGE,
	       MREMAP_MAYMOVE | MREMAP_FIXED, q);
	touch(p);
	munmap(q, 2 * CHUNK);
}

static void do_mremap_dontunmap(int fd, char *p)
{
	char *q = mremap(p, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0);

	if (q == MAP_FAILED)
		return;
	touch(q);
	munmap(q, SIZE);
}

/* A second mapping of the same pages. */
static void do_mremap_twin(int fd, char *p)
{
	char *q = mremap(p, 0, SIZE, MREMAP_MAYMOVE);

	if (q == MAP_FAILED)
		return;
	touch(q);
	munmap(q, SIZE);
}

static void do_advise_pages(int fd, char *p)
{
	static const int advice[] = {
		MADV_DONTNEED, MADV_WILLNEED, MADV_POPULATE_READ, MADV_COLD,
		MADV_POPULATE_WRITE, MADV_DONTFORK, MADV_DOFORK,
		MADV_DONTDUMP, MADV_DODUMP, MADV_HUGEPAGE, MADV_NOHUGEPAGE,
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(advice); i++)
		madvise(p + MB, 5 * MB, advice[i]);
}

static void do_mlock_onfault(int fd, char *p)
{
	mlock2(p + MB, 5 * MB, MLOCK_ONFAULT);
	touch(p);
	munlock(p, SIZE);
	touch(p);
}

static void do_mlockall(int fd, char *p)
{
	mlockall(MCL_CURRENT);
	munlockall();
}

/* The policy of a process counts when a VMA is judged. */
static void do_prctl(int fd, char *p)
{
	prctl(PR_SET_PTSHARE, PTSHARE_NEVER, 0, 0, 0);
	do_map(fd, p);
	touch(p);
	prctl(PR_SET_PTSHARE, PTSHARE_ALWAYS, 0, 0, 0);
	do_map(fd, p);
	touch(p);
}

static void do_uffd_all(int fd, char *p)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)p + 3 * MB, .len = 3 * MB },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};
	struct uffdio_writeprotect wp = {
		.range = { .start = (uintptr_t)p + 4 * MB, .len = MB },
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};
	int uffd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK |
			   UFFD_USER_MODE_ONLY);

	if (uffd < 0)
		return;
	if (!ioctl(uffd, UFFDIO_API, &api) &&
	    !ioctl(uffd, UFFDIO_REGISTER, &reg)) {
		touch(p);
		ioctl(uffd, UFFDIO_WRITEPROTECT, &wp);
		ioctl(uffd, UFFDIO_UNREGISTER, &reg.range);
		touch(p);
	}
	close(uffd);
}

static void do_sysv(int fd, char *p)
{
	int id = shmget(IPC_PRIVATE, SIZE, IPC_CREAT | 0600);
	char *q;

	if (id < 0)
		return;
	q = shmat(id, NULL, 0);
	if (q != (void *)-1) {
		touch(q);
		shmdt(q);
	}
	q = shmat(id, NULL, SHM_RDONLY);
	if (q != (void *)-1) {
		touch(q);
		shmdt(q);
	}
	shmctl(id, IPC_RMID, NULL);
}

static void do_punch(int fd, char *p)
{
	punch(fd, MB, 4 * MB + PAGE);
	touch(p);
}

static void do_truncate(int fd, char *p)
{
	if (!ftruncate(fd, 3 * MB + PAGE))
		touch(p);
	ftruncate(fd, SIZE);
	touch(p);
}

static void do_advise_remove(int fd, char *p)
{
	madvise(p + MB, 4 * MB + PAGE, MADV_REMOVE);
	touch(p);
}

static void swap_out(int fd, char *p)
{
	char path[96];

	snprintf(path, sizeof(path), "%s/memory.reclaim", cgroup);
	write_file(path, "8M");
}

static void do_touch(int fd, char *p)
{
	touch(p);
}

/* The kernel's own accesses, which find nothing mapped. */
static void do_peek(int fd, char *p)
{
	static char buf[PAGE];
	struct iovec to = { .iov_base = buf, .iov_len = sizeof(buf) };
	struct iovec from = { .iov_len = sizeof(buf) };
	size_t i;

	for (i = 0; i < SIZE; i += STEP) {
		from.iov_base = p + i;
		process_vm_readv(getpid(), &to, 1, &from, 1, 0);
	}
}

static void map_afresh(int fd, char *p)
{
	mmap(p, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
}

FIXTURE_VARIANT_ADD(inject, map)
{
	.op = { .fn = do_map, .may_fault = true },
};

FIXTURE_VARIANT_ADD(inject, other_class)
{
	.op = { .fn = do_other_class, .may_fault = true },
};

FIXTURE_VARIANT_ADD(inject, fault)
{
	.op = { .fn = do_fault },
};

FIXTURE_VARIANT_ADD(inject, new_file)
{
	.op = { .fn = do_new_file },
};

FIXTURE_VARIANT_ADD(inject, mprotect)
{
	.op = { .fn = do_mprotect },
};

FIXTURE_VARIANT_ADD(inject, mprotect_none)
{
	.op = { .fn = do_mprotect_none, .may_fault = true },
};

FIXTURE_VARIANT_ADD(inject, classes)
{
	.op = { .fn = do_classes },
};

FIXTURE_VARIANT_ADD(inject, munmap)
{
	.op = { .fn = do_munmap, .may_fault = true },
};

FIXTURE_VARIANT_ADD(inject, map_over)
{
	.op = { .fn = do_map_over, .may_fault = true },
};

FIXTURE_VARIANT_ADD(inject, mremap)
{
	.op = { .fn = do_mremap, .may_fault = true },
};

FIXTURE_VARIANT_ADD(inject, mremap_shrink_grow)
{
	.op = { .fn = do_mremap_shrink_grow, .may_fault = true },
};

FIXTURE_VARIANT_ADD(inject, mremap_fixed)
{
	.op = { .fn = do_mremap_fixed, .may_fault = true },
};

FIXTURE_VARIANT_ADD(inject, mremap_dontunmap)
{
	.op = { .fn = do_mremap_dontunmap },
};

FIXTURE_VARIANT_ADD(inject, mremap_twin)
{
	.op = { .fn = do_mremap_twin },
};

FIXTURE_VARIANT_ADD(inject, advise)
{
	.op = { .fn = do_advise },
};

FIXTURE_VARIANT_ADD(inject, advise_pages)
{
	.op = { .fn = do_advise_pages },
};

FIXTURE_VARIANT_ADD(inject, mlock)
{
	.op = { .fn = do_mlock },
};

FIXTURE_VARIANT_ADD(inject, mlock_onfault)
{
	.op = { .fn = do_mlock_onfault },
};

FIXTURE_VARIANT_ADD(inject, mlockall)
{
	.op = { .fn = do_mlockall },
};

FIXTURE_VARIANT_ADD(inject, prctl)
{
	.op = { .fn = do_prctl, .may_fault = true },
};

FIXTURE_VARIANT_ADD(inject, fork)
{
	.op = { .fn = do_fork },
};

FIXTURE_VARIANT_ADD(inject, uffd)
{
	.op = { .fn = do_uffd },
};

FIXTURE_VARIANT_ADD(inject, uffd_all)
{
	.op = { .fn = do_uffd_all },
};

FIXTURE_VARIANT_ADD(inject, clear_refs)
{
	.op = { .fn = do_clear_refs },
};

FIXTURE_VARIANT_ADD(inject, sysv)
{
	.op = { .fn = do_sysv },
};

FIXTURE_VARIANT_ADD(inject, punch)
{
	.op = { .fn = do_punch, .may_zero = true },
};

FIXTURE_VARIANT_ADD(inject, truncate)
{
	.op = { .fn = do_truncate, .may_zero = true },
};

FIXTURE_VARIANT_ADD(inject, advise_remove)
{
	.op = { .fn = do_advise_remove, .may_zero = true },
};

FIXTURE_VARIANT_ADD(inject, touch)
{
	.op = { .fn = do_touch, .prepare = swap_out, .swaps = true },
};

FIXTURE_VARIANT_ADD(inject, peek)
{
	.op = { .fn = do_peek, .prepare = map_afresh, .may_be_none = true },
};

/* With allocation @n refused; true if it did not come to that. */
static bool refuse(int nth, int n, const struct op *op, int fd, char *p)
{
	bool pending;

	if (fail_nth(nth, n))
		return true;
	op->fn(fd, p);
	pending = fail_pending(nth);
	fail_nth(nth, 0);
	return pending;
}

/* Each of what an operation allocates. */
TEST_F(inject, each)
{
	const struct op *op = &variant->op;
	bool none_left = false;
	int n;

	if (op->swaps && !cgroup[0])
		SKIP(return, "no swap, or no memory cgroups");
	for (n = 1; n < 400 && !none_left; n++) {
		ASSERT_EQ(0, munmap(self->p, SIZE));
		ASSERT_EQ(self->p, mmap(self->p, SIZE, PROT_READ | PROT_WRITE,
					MAP_SHARED | MAP_FIXED, self->fd, 0));
		touch(self->p);
		if (op->prepare)
			op->prepare(self->fd, self->p);
		none_left = refuse(self->nth, n, op, self->fd, self->p);
		ASSERT_EQ(0, wrong_or(self->p, op->may_fault, op->may_zero)) {
			TH_LOG("allocation %d", n);
		}
		ASSERT_EQ(0, wrong_or(self->w, false, op->may_zero));
		if (op->may_zero) {
			ASSERT_EQ(0, ftruncate(self->fd, SIZE));
			fill(self->w, SIZE, 1);
			ASSERT_EQ(0, wrong(self->p, false));
		}
	}
	/* Some allocation was refused, and some n was too many. */
	EXPECT_TRUE((n > 2 || op->may_be_none) && none_left);
	TH_LOG("%d allocations", n - 2);
}

#ifdef __x86_64__

/*
 * A program that does nothing, in a file of its own: whoever refuses allocations
 * to overlayfs while it looks up a program makes it fail for everybody.
 */
static int make_program(void)
{
	static const unsigned char code[] = {
		0xb8, 0x3c, 0, 0, 0,	/* mov $60,%eax: exit */
		0x31, 0xff,		/* xor %edi,%edi */
		0x0f, 0x05,		/* syscall */
	};
	const unsigned long base = 0x400000;
	struct {
		struct elf64_hdr header;
		struct elf64_phdr segment;
		unsigned char code[sizeof(code)];
	} image = {
		.header = {
			.e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3,
				     ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
			.e_type = ET_EXEC,
			.e_machine = EM_X86_64,
			.e_version = EV_CURRENT,
			.e_entry = base + offsetof(typeof(image), code),
			.e_phoff = offsetof(typeof(image), segment),
			.e_ehsize = sizeof(struct elf64_hdr),
			.e_phentsize = sizeof(struct elf64_phdr),
			.e_phnum = 1,
		},
		.segment = {
			.p_type = PT_LOAD,
			.p_flags = PF_R | PF_X,
			.p_vaddr = base,
			.p_filesz = sizeof(image),
			.p_memsz = sizeof(image),
			.p_align = PAGE,
		},
	};
	int fd = memfd_create("program", MFD_CLOEXEC), program;
	char path[32];

	memcpy(image.code, code, sizeof(code));
	if (write(fd, &image, sizeof(image)) != sizeof(image))
		return -1;
	/* Nobody may have it open for writing. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	program = open(path, O_RDONLY | O_CLOEXEC);
	close(fd);
	return program;
}

static void run_program(int program)
{
	syscall(SYS_execveat, program, "", ((char *[]){ "program", NULL }),
		NULL, AT_EMPTY_PATH);
	_exit(2);
}

/*
 * exec(): the new program starts with what the old one had mapped going away.
 * The child's own allocations fail; how many there were is known when it has
 * ended.
 */
static bool exec_refused(int n, char *p, int program)
{
	char path[64], text[16] = "";
	siginfo_t info;
	int fd, nth;
	pid_t pid = fork();

	if (!pid) {
		touch(p);
		nth = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
		if (nth < 0 || fail_nth(nth, n))
			_exit(1);
		run_program(program);
	}
	/* It may well be killed. */
	if (pid < 0 || waitid(P_PID, pid, &info, WEXITED | WNOWAIT))
		abort();
	snprintf(path, sizeof(path), "/proc/%d/fail-nth", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		abort();
	close(fd);
	waitpid(pid, NULL, 0);
	return atoi(text) == 0;
}

TEST(exec)
{
	struct pt_gauges was;
	bool refused = true;
	int nth, fd, program, n, status;
	char *p;

	pt_opt_in();
	was = pt_gauges();
	nth = inject_open();
	if (nth < 0)
		SKIP(return, "no fault injection");
	close(nth);
	program = make_program();
	ASSERT_GE(program, 0);
	if (!fork())
		run_program(program);
	wait(&status);
	ASSERT_EQ(0, status);
	fd = new_memfd(SIZE);
	ASSERT_GE(fd, 0);
	p = map_at(fd, SIZE, 0, PROT_READ | PROT_WRITE);
	ASSERT_NE(p, MAP_FAILED);
	fill(p, SIZE, 1);
	for (n = 1; n < 400 && refused; n += 1 + n / 16) {
		refused = exec_refused(n, p, program);
		ASSERT_EQ(0, wrong(p, false)) {
			TH_LOG("allocation %d", n);
		}
	}
	EXPECT_GT(n, 5);
	TH_LOG("up to allocation %d", n);
	munmap(p, SIZE);
	close(program);
	close(fd);
	EXPECT_STREQ("nothing", pt_left_over(&was));
}

#endif

TEST_HARNESS_MAIN

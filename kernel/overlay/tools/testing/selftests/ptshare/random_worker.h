/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The workers of random.c: processes that do what the director tells them and
 * report what they saw.  They know nothing of the model.
 *
 * A command and its answer travel over a socket; longer lists stand in a
 * mailbox, memory that director and worker share.  It is smaller than a chunk,
 * so that it does not depend on what is tested.
 */
#ifndef RANDOM_WORKER_H
#define RANDOM_WORKER_H

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE		4096UL
#define TAIL		(PAGE - 8)	/* each page is stamped at both ends */
#define MAX_WORKERS	8
#define MAX_ACC		4096		/* accesses in a list */
#define MAX_CHG		1024		/* intermediate results of a spinner */
#define MAX_COPY	64		/* pages copied by one command */

enum { LOAD, STORE, EXEC };

/* One access to memory, and what came of it. */
struct acc {
	uint64_t addr;
	uint64_t val[2];		/* to store: head and tail of the page */
	int kind;
};

struct res {
	int idx;			/* of the access */
	int sig;			/* signal << 8 | si_code, or 0 */
	uint64_t val[2];		/* loaded */
};

#define BAD_SI_ADDR	0x100000	/* in sig: raised for another page */

/*
 * A list of accesses.  A spinner repeats it until @stop and passes once more;
 * @last is what this last pass saw, @chg what differed from it before.
 */
struct lane {
	bool spin;
	int stop, warm;
	int n, nchg;
	struct acc acc[MAX_ACC];
	struct res last[MAX_ACC], chg[MAX_CHG];
};

struct mailbox {
	struct lane main, helper;
	uint64_t in[MAX_COPY][2], out[MAX_COPY][2];
	struct iovec iov[2];
};

enum { DO_SYSCALL, DO_ACCESS, DO_PROCMEM, DO_PIPE, DO_UFFD, DO_FORK, DO_EXIT };

struct cmd {
	int what;
	bool helper;			/* with the helper's lane spinning */
	bool give, take;		/* copy mailbox->in to, ->out from buf */
	long nr;			/* of a system call */
	uint64_t arg[6];
};

static int sockets[MAX_WORKERS][2];	/* director's end, worker's end */
static struct mailbox *mailboxes[MAX_WORKERS];
static char copy_buf[MAX_COPY * PAGE] __attribute__((aligned(4096)));

/* --- accesses --- */

static __thread struct {
	sigjmp_buf env;
	int sig;
	uint64_t addr;
} trap;

static void trap_handler(int sig, siginfo_t *si, void *context)
{
	trap.sig = sig << 8 | (si->si_code & 0xff);
	trap.addr = (uintptr_t)si->si_addr;
	siglongjmp(trap.env, 1);
}

static void trap_signals(void)
{
	struct sigaction sa = {
		.sa_sigaction = trap_handler,
		.sa_flags = SA_SIGINFO | SA_NODEFER,
	};

	sigaction(SIGSEGV, &sa, NULL);
	sigaction(SIGBUS, &sa, NULL);
	sigaction(SIGILL, &sa, NULL);
}

static __attribute__((noinline)) void access_page(const struct acc *a,
						  struct res *r)
{
	volatile uint64_t *head = (void *)(uintptr_t)a->addr;
	volatile uint64_t *tail = (void *)(uintptr_t)(a->addr + TAIL);

	r->sig = 0;
	r->val[0] = 0;
	r->val[1] = 0;
	if (sigsetjmp(trap.env, 0)) {
		r->sig = trap.sig;
		if ((trap.addr & ~(PAGE - 1)) != a->addr)
			r->sig |= BAD_SI_ADDR;
		r->val[0] = 0;
		r->val[1] = 0;
		return;
	}
	switch (a->kind) {
	case LOAD:
		r->val[0] = *head;
		r->val[1] = *tail;
		break;
	case STORE:
		*head = a->val[0];
		*tail = a->val[1];
		break;
	case EXEC:	/* a stamp begins with a return instruction */
		((void (*)(void))(uintptr_t)a->addr)();
		break;
	}
}

static void pass(struct lane *l, bool first)
{
	struct res r;
	int i;

	for (i = 0; i < l->n; i++) {
		access_page(&l->acc[i], &r);
		r.idx = i;
		if (!first && memcmp(&r, &l->last[i], sizeof(r)) &&
		    l->nchg < MAX_CHG)
			l->chg[l->nchg++] = l->last[i];
		l->last[i] = r;
	}
}

static void *run_lane(void *arg)
{
	struct lane *l = arg;
	int stop;

	l->nchg = 0;
	pass(l, true);
	__atomic_store_n(&l->warm, 1, __ATOMIC_RELEASE);
	if (!l->spin)
		return NULL;
	do {
		stop = __atomic_load_n(&l->stop, __ATOMIC_ACQUIRE);
		pass(l, false);
	} while (!stop);
	return NULL;
}

/* --- what is not one system call --- */

static long result(long ret)
{
	return ret < 0 ? -errno : ret;
}

/* arg: pid, address, length, write */
static long do_procmem(const uint64_t *arg)
{
	char path[64];
	long ret;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/mem", (int)arg[0]);
	fd = open(path, O_RDWR);
	if (fd < 0)
		return -errno;
	ret = result(arg[3] ? pwrite(fd, copy_buf, arg[2], arg[1]) :
			      pread(fd, copy_buf, arg[2], arg[1]));
	close(fd);
	return ret;
}

/*
 * arg: address, length (16 pages at most), how: 0 the kernel stores to the
 * mapping, 1 it loads from it, 2 it takes the pages themselves
 */
static long do_pipe(const uint64_t *arg)
{
	struct iovec iov = { (void *)(uintptr_t)arg[0], arg[1] };
	long ret;
	int p[2];

	if (pipe(p))
		return -errno;
	fcntl(p[1], F_SETFL, O_NONBLOCK);
	if (!arg[2]) {
		ret = result(write(p[1], copy_buf, arg[1]));
		if (ret == (long)arg[1])
			ret = result(read(p[0], iov.iov_base, arg[1]));
	} else {
		ret = result(arg[2] == 1 ?
			     write(p[1], iov.iov_base, iov.iov_len) :
			     vmsplice(p[1], &iov, 1, 0));
		if (ret > 0)
			ret = result(read(p[0], copy_buf, ret));
	}
	close(p[0]);
	close(p[1]);
	return ret;
}

/* A range enters userfaultfd's missing mode and leaves it again. */
static long do_uffd(const uint64_t *arg)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { arg[0], arg[1] },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	long ret;
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);

	if (fd < 0)
		return -errno;
	ret = result(ioctl(fd, UFFDIO_API, &api));
	if (!ret)
		ret = result(ioctl(fd, UFFDIO_REGISTER, &reg));
	if (!ret)
		ret = result(ioctl(fd, UFFDIO_UNREGISTER, &reg.range));
	close(fd);
	return ret;
}

/* --- the loop --- */

static void worker_born(pid_t director)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != director)
		_exit(0);
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
}

static long run_cmd(int *self, const struct cmd *c)
{
	struct mailbox *mb = mailboxes[*self];
	pid_t director = getppid();
	long ret = 0;
	int i;

	for (i = 0; c->give && i < MAX_COPY; i++) {
		memcpy(copy_buf + i * PAGE, &mb->in[i][0], 8);
		memcpy(copy_buf + i * PAGE + TAIL, &mb->in[i][1], 8);
	}
	switch (c->what) {
	case DO_SYSCALL:
		ret = result(syscall(c->nr, c->arg[0], c->arg[1], c->arg[2],
				     c->arg[3], c->arg[4], c->arg[5]));
		break;
	case DO_ACCESS:
		run_lane(&mb->main);
		break;
	case DO_PROCMEM:
		ret = do_procmem(c->arg);
		break;
	case DO_PIPE:
		ret = do_pipe(c->arg);
		break;
	case DO_UFFD:
		ret = do_uffd(c->arg);
		break;
	case DO_FORK:
		/* The child is the director's, to be waited for there. */
		ret = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
		if (!ret) {
			*self = c->arg[0];
			worker_born(director);
			return 0;
		}
		break;
	case DO_EXIT:
		_exit(0);
	}
	for (i = 0; c->take && i < MAX_COPY; i++) {
		memcpy(&mb->out[i][0], copy_buf + i * PAGE, 8);
		memcpy(&mb->out[i][1], copy_buf + i * PAGE + TAIL, 8);
	}
	return ret;
}

/* The helper touches memory while its worker changes the mappings of it. */
static long run_with_helper(int *self, const struct cmd *c)
{
	struct lane *l = &mailboxes[*self]->helper;
	pthread_t thread;
	long ret;

	if (pthread_create(&thread, NULL, run_lane, l))
		return -EDOM;
	while (!__atomic_load_n(&l->warm, __ATOMIC_ACQUIRE))
		usleep(50);
	ret = run_cmd(self, c);
	__atomic_store_n(&l->stop, 1, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	return ret;
}

static void __attribute__((noreturn)) worker_main(int self)
{
	struct cmd c;
	long ret;
	int was;

	for (;;) {
		if (recv(sockets[self][1], &c, sizeof(c), 0) != sizeof(c))
			_exit(1);
		was = self;
		ret = c.helper ? run_with_helper(&self, &c) :
				 run_cmd(&self, &c);
		if (was == self &&
		    send(sockets[self][1], &ret, sizeof(ret), 0) !=
		    sizeof(ret))
			_exit(1);
	}
}

#endif /* RANDOM_WORKER_H */

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A small virtual machine on shared memory, by the plain ioctls of /dev/kvm.
 *
 * A process of its own, the VMM, maps part of a file and gives it to its VM as
 * memory.  Its vCPUs run one of two programs, in flat 32-bit mode without
 * paging: one walks over all pages for ever and finds for itself what is wrong,
 * one does what it is told, a load or a store at a time, and never leaves the VM
 * in between: what its TLB has stays there until somebody flushes it.
 *
 * VM, VMM and test talk through struct low, which is memory of all VMs, and no
 * part of the file.
 */
#ifndef KVM_GUEST_H
#define KVM_GUEST_H

#include "pt_many.h"

#include <assert.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stddef.h>

/* Where things are for the guest. */
#define CODE_AT		0x0u
#define VCPU_AT		0x1000u
#define FLOOR_AT	0x2000u
#define RAM_AT		0x400000u
#define ALIAS_AT	0x1000000u

/* Pages that a file may have; what is written tells its page by these bits. */
#define PAGE_BITS	11
#define MAX_PAGES	2048		/* 2 ^ PAGE_BITS */
#define MAX_VCPUS	4

/* Where in a page: the generation, and a word for each vCPU. */
#define STAMP		0
#define OWN(id)		(64 + 4 * (id))

/* @flags of a vCPU. */
#define WRITES		1u	/* counts in its own word of each page */
#define VANISH		2u	/* there are holes: its word may be 0 again */
#define ONCE		4u	/* halts after one round */
#define FAULTS		8u	/* may lose its memory now and then: tries again */

/* In a floor: the page is a hole, or as new as the floor says. */
#define HOLE		0x80000000u

struct vcpu_ctl {
	/* the program that serves */
	volatile uint32_t seq, ack, what, addr, value;
	/* the program that walks */
	volatile uint32_t stop, parked, first, end, bias, flags, own, rounds;
	volatile uint32_t bad, bad_page, want, got;
	/* for the VMM: why KVM_RUN failed, or an exit that was not expected + 1 */
	volatile uint32_t error, exit;
	uint32_t unused[13];
};

struct low {
	char code[0x1000];
	struct vcpu_ctl vcpu[MAX_VCPUS];
	char unused[0x1000 - MAX_VCPUS * sizeof(struct vcpu_ctl)];
	volatile uint32_t floor[MAX_PAGES];
};

static_assert(offsetof(struct low, vcpu) == VCPU_AT, "guest code");
static_assert(offsetof(struct low, floor) == FLOOR_AT, "guest code");
static_assert(offsetof(struct vcpu_ctl, stop) == 20, "guest code");
static_assert(offsetof(struct vcpu_ctl, bad) == 52, "guest code");
static_assert(sizeof(struct vcpu_ctl) == 128, "guest code");

/*
 * Guest code.  %ebx points to the vCPU's struct vcpu_ctl; there is no stack.
 *
 * The walk: a page must be as new as its floor says, unless the floor changes
 * while we look.  The test lowers it to 0 before it makes a hole, sets it to
 * HOLE and the generation to come when the hole is made, and to the generation
 * alone when that is written.  All that is stored has the page's number in the
 * lower bits: a frame that became another page's is found out.
 */
asm("	.pushsection .rodata\n"
	"	.code32\n"
	"	.set .Lseq, 0; .set .Lack, 4; .set .Lwhat, 8; .set .Laddr, 12\n"
	"	.set .Lvalue, 16; .set .Lstop, 20; .set .Lparked, 24\n"
	"	.set .Lfirst, 28; .set .Lend, 32; .set .Lbias, 36; .set .Lflags, 40\n"
	"	.set .Lown, 44; .set .Lrounds, 48; .set .Lbad, 52\n"
	"	.set .Lbad_page, 56; .set .Lwant, 60; .set .Lgot, 64\n"
	"	.set .Lfloor, 0x2000; .set .Lbits, 11\n"
	"guest_code:\n"
	"guest_serve:\n"
	"	mov	.Lseq(%ebx), %eax\n"
	"	cmp	.Lack(%ebx), %eax\n"
	"	je	guest_serve\n"
	"	mov	.Laddr(%ebx), %esi\n"
	"	cmpl	$'s', .Lwhat(%ebx)\n"
	"	je	1f\n"
	"	mov	(%esi), %edx\n"
	"	mov	%edx, .Lvalue(%ebx)\n"
	"	jmp	2f\n"
	"1:	mov	.Lvalue(%ebx), %edx\n"
	"	mov	%edx, (%esi)\n"
	"2:	mov	%eax, .Lack(%ebx)\n"
	"	jmp	guest_serve\n"
	"\n"
	"guest_walk:\n"
	"	xor	%ecx, %ecx\n"			/* the round */
	".Lround:\n"
	"	inc	%ecx\n"
	"	mov	.Lfirst(%ebx), %esi\n"		/* the page */
	".Lpage:\n"
	"	cmpl	$0, .Lstop(%ebx)\n"
	"	jne	.Lpark\n"
	"	mov	%esi, %edx\n"
	"	shl	$12, %edx\n"
	"	add	.Lbias(%ebx), %edx\n"		/* its address */
	"	mov	.Lfloor(,%esi,4), %eax\n"
	"	mov	(%edx), %ebp\n"
	"	cmp	.Lfloor(,%esi,4), %eax\n"
	"	jne	.Lcount\n"
	"	test	%eax, %eax\n"
	"	jz	.Lcount\n"
	"	btr	$31, %eax\n"			/* HOLE */
	"	jnc	1f\n"
	"	test	%ebp, %ebp\n"
	"	jz	.Lcount\n"
	"1:	cmp	%eax, %ebp\n"
	"	jb	.Lwrong\n"
	"	mov	%ebp, %edi\n"
	"	xor	%eax, %edi\n"
	"	test	$(1 << .Lbits) - 1, %edi\n"
	"	jnz	.Lwrong\n"
	".Lcount:\n"
	"	testl	$1, .Lflags(%ebx)\n"		/* WRITES */
	"	jz	.Lnext\n"
	"	add	.Lown(%ebx), %edx\n"
	"	mov	%ecx, %edi\n"
	"	shl	$.Lbits, %edi\n"
	"	or	%esi, %edi\n"			/* what to store */
	"	mov	(%edx), %ebp\n"
	"	cmp	$1, %ecx\n"
	"	je	1f\n"
	"	lea	-(1 << .Lbits)(%edi), %eax\n"	/* what was stored */
	"	cmp	%eax, %ebp\n"
	"	je	1f\n"
	"	test	%ebp, %ebp\n"
	"	jnz	.Lwrong\n"
	"	testl	$2, .Lflags(%ebx)\n"		/* VANISH */
	"	jz	.Lwrong\n"
	"1:	mov	%edi, (%edx)\n"
	".Lnext:\n"
	"	inc	%esi\n"
	"	cmp	.Lend(%ebx), %esi\n"
	"	jb	.Lpage\n"
	"	mov	%ecx, .Lrounds(%ebx)\n"
	"	testl	$4, .Lflags(%ebx)\n"		/* ONCE */
	"	jz	.Lround\n"
	"	hlt\n"
	"	jmp	.Lround\n"
	".Lwrong:\n"
	"	cmpl	$0, .Lbad(%ebx)\n"
	"	jne	1f\n"
	"	mov	%esi, .Lbad_page(%ebx)\n"
	"	mov	%eax, .Lwant(%ebx)\n"
	"	mov	%ebp, .Lgot(%ebx)\n"
	"1:	incl	.Lbad(%ebx)\n"
	"	jmp	.Lnext\n"
	".Lpark:\n"
	"	movl	$1, .Lparked(%ebx)\n"
	"1:	cmpl	$0, .Lstop(%ebx)\n"
	"	jne	1b\n"
	"	movl	$0, .Lparked(%ebx)\n"
	"	jmp	.Lpage\n"
	"guest_code_end:\n"
	"	.code64\n"
	"	.popsection\n");

extern const char guest_code[], guest_serve[], guest_walk[], guest_code_end[];

/* --- making a VM --- */

struct vm {
	int kvm, vm, vcpu[MAX_VCPUS];
	struct kvm_run *run[MAX_VCPUS];
	size_t run_size;
	int nr_vcpus;
};

static inline bool have_kvm(void)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	close(fd);
	return fd >= 0;
}

static inline bool vm_create(struct vm *vm)
{
	uint64_t identity = 0xfffbc000;

	vm->nr_vcpus = 0;
	vm->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	vm->vm = ioctl(vm->kvm, KVM_CREATE_VM, 0);
	if (vm->vm < 0)
		return false;
	/* For old processors of Intel. */
	ioctl(vm->vm, KVM_SET_IDENTITY_MAP_ADDR, &identity);
	ioctl(vm->vm, KVM_SET_TSS_ADDR, 0xfffbd000);
	vm->run_size = ioctl(vm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	return true;
}

/* A size of 0 takes it away again. */
static inline int vm_slot(struct vm *vm, int slot, uint32_t flags, uint32_t at,
			  void *hva, size_t size)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.flags = flags,
		.guest_phys_addr = at,
		.memory_size = size,
		.userspace_addr = (uintptr_t)hva,
	};

	return ioctl(vm->vm, KVM_SET_USER_MEMORY_REGION, &region);
}

static inline int vcpu_flat(int fd)
{
	struct kvm_segment code = {
		.limit = ~0u, .selector = 8, .type = 11, .present = 1, .db = 1,
		.s = 1, .g = 1,
	}, data = code;
	struct kvm_sregs s;

	if (ioctl(fd, KVM_GET_SREGS, &s))
		return -1;
	data.selector = 16;
	data.type = 3;
	s.cs = code;
	s.ds = data;
	s.es = data;
	s.ss = data;
	s.cr0 |= 1;
	return ioctl(fd, KVM_SET_SREGS, &s);
}

/* @id: which struct vcpu_ctl is its own. */
static inline bool vm_vcpu(struct vm *vm, int id, const char *program)
{
	struct kvm_regs regs = {
		.rip = CODE_AT + (program - guest_code),
		.rbx = VCPU_AT + id * sizeof(struct vcpu_ctl),
		.rflags = 2,
	};
	int n = vm->nr_vcpus, fd = ioctl(vm->vm, KVM_CREATE_VCPU, n);

	if (fd < 0)
		return false;
	vm->vcpu[n] = fd;
	vm->run[n] = mmap(NULL, vm->run_size, PROT_READ | PROT_WRITE,
			  MAP_SHARED, fd, 0);
	vm->nr_vcpus++;
	return vm->run[n] != MAP_FAILED && !vcpu_flat(fd) &&
	       !ioctl(fd, KVM_SET_REGS, &regs);
}

static inline void vm_destroy(struct vm *vm)
{
	while (vm->nr_vcpus--) {
		munmap(vm->run[vm->nr_vcpus], vm->run_size);
		close(vm->vcpu[vm->nr_vcpus]);
	}
	close(vm->vm);
	close(vm->kvm);
}

/*
 * Run until the guest halts (0) or something else ends it.  A guest that may
 * lose its memory goes on when it has it again.
 */
static inline int vcpu_run(struct vm *vm, int n, struct vcpu_ctl *c)
{
	for (;;) {
		if (!ioctl(vm->vcpu[n], KVM_RUN, 0)) {
			if (vm->run[n]->exit_reason == KVM_EXIT_HLT)
				return 0;
			if (vm->run[n]->exit_reason == KVM_EXIT_INTR)
				continue;
			c->exit = vm->run[n]->exit_reason + 1;
			return -1;
		}
		if (errno == EINTR || errno == EAGAIN)
			continue;
		if (errno != EFAULT || !(c->flags & FAULTS)) {
			/* Until the test has seen it and wants us to try again. */
			c->error = errno;
			while (c->error)
				usleep(200);
		}
		sched_yield();
	}
}

/* --- the VMM --- */

/* What VMM and VM shall be like. */
struct vmm_conf {
	int fd;
	off_t off;		/* part of the file that is mapped */
	size_t len;
	bool late;		/* the VM is made when the mapping is in use */
	bool readonly;		/* no permission to write, for VMM nor VM */
	bool alias;		/* map it twice; the VM has both */
	int first_id, nr_vcpus;
	const char *program;
};

struct vmm {
	struct low *low;
	pid_t pid;
	int to, from;
	uint32_t first, end;	/* pages of the file */
	uint32_t flags;
	char *hva, *alias;	/* addresses of the VMM */
	int id, nr_vcpus;
};

struct vcpu_thread {
	struct vm *vm;
	struct low *low;
	int n, id;
};

/* A system call for the VMM, and its result. */
struct vmm_call {
	long nr, arg[6], ret;
	int error;
};

static inline void *vcpu_thread(void *arg)
{
	struct vcpu_thread *t = arg;

	while (!vcpu_run(t->vm, t->n, &t->low->vcpu[t->id]))
		;
	return NULL;
}

/* Fill the page tables; the file may be cut short meanwhile. */
static inline void vmm_populate(const volatile char *p, size_t len)
{
	size_t i;

	for (i = 0; i < len; i += PAGE)
		try_load(p + i, NULL);
}

/* Fork, and let the child look at everything. */
static inline int vmm_fork(const char *p, size_t len)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		vmm_populate(p, len);
		_exit(0);
	}
	return waitpid(pid, &status, 0) == pid ? status : -1;
}

static inline void vmm_serve(int in, int out, const char *p, size_t len)
{
	struct vmm_call c;

	while (read(in, &c, sizeof(c)) == sizeof(c) && c.nr != SYS_exit) {
		if (c.nr == SYS_fork)
			c.ret = vmm_fork(p, len);
		else
			c.ret = syscall(c.nr, c.arg[0], c.arg[1], c.arg[2],
					c.arg[3], c.arg[4], c.arg[5]);
		c.error = c.ret < 0 ? errno : 0;
		if (write(out, &c, sizeof(c)) != sizeof(c))
			break;
	}
}

static inline bool vmm_memory(struct vm *vm, const struct vmm_conf *conf,
			      struct low *low, char *p, char *alias)
{
	uint32_t flags = conf->readonly ? KVM_MEM_READONLY : 0;

	return !vm_slot(vm, 0, 0, 0, low, sizeof(*low)) &&
	       !vm_slot(vm, 1, flags, RAM_AT, p, conf->len) &&
	       (!alias || !vm_slot(vm, 2, flags, ALIAS_AT, alias, conf->len));
}

static inline char *vmm_map(const struct vmm_conf *conf)
{
	return map_at(conf->fd, conf->len, conf->off, conf->readonly ?
		      PROT_READ : PROT_READ | PROT_WRITE);
}

/* What the VMM says when it is ready. */
struct vmm_ready {
	char *hva, *alias;
};

static inline int vmm_main(const struct vmm_conf *conf, struct low *low,
			   int in, int out)
{
	struct vcpu_thread threads[MAX_VCPUS];
	struct vmm_ready ready = {};
	struct vm vm;
	pthread_t thread;
	int i;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!conf->late && !vm_create(&vm))
		return 1;
	ready.hva = vmm_map(conf);
	if (conf->alias)
		ready.alias = vmm_map(conf);
	if (ready.hva == MAP_FAILED || ready.alias == MAP_FAILED)
		return 2;
	if (conf->late) {
		vmm_populate(ready.hva, conf->len);
		if (!vm_create(&vm))
			return 1;
	}
	if (!vmm_memory(&vm, conf, low, ready.hva, ready.alias))
		return 3;
	for (i = 0; i < conf->nr_vcpus; i++) {
		threads[i] = (struct vcpu_thread){ &vm, low, i,
						   conf->first_id + i };
		if (!vm_vcpu(&vm, conf->first_id + i, conf->program) ||
		    pthread_create(&thread, NULL, vcpu_thread, &threads[i]))
			return 4;
	}
	if (write(out, &ready, sizeof(ready)) != sizeof(ready))
		return 5;
	vmm_serve(in, out, ready.hva, conf->len);
	return 0;
}

static inline struct low *low_alloc(void)
{
	struct low *low = mmap(NULL, sizeof(*low), PROT_READ | PROT_WRITE,
			       MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (low != MAP_FAILED)
		memcpy(low->code, guest_code, guest_code_end - guest_code);
	return low;
}

/* Tell a vCPU what is its part. */
static inline void vcpu_init(struct low *low, int id, uint32_t first,
			     uint32_t end, uint32_t flags)
{
	struct vcpu_ctl *c = &low->vcpu[id];

	memset(c, 0, sizeof(*c));
	c->first = first;
	c->end = end;
	c->bias = RAM_AT - first * PAGE;
	c->own = OWN(id);
	c->flags = flags;
}

/* @flags: of its vCPUs, if they walk */
static inline bool vmm_start(struct vmm *v, struct low *low,
			     const struct vmm_conf *conf, uint32_t flags)
{
	struct vmm_ready ready;
	int to[2], from[2], i;

	*v = (struct vmm) {
		.low = low,
		.first = conf->off / PAGE,
		.end = (conf->off + conf->len) / PAGE,
		.flags = flags,
		.id = conf->first_id,
		.nr_vcpus = conf->nr_vcpus,
	};
	for (i = 0; i < conf->nr_vcpus; i++)
		vcpu_init(low, v->id + i, v->first, v->end, flags);
	if (pipe2(to, O_CLOEXEC) || pipe2(from, O_CLOEXEC))
		return false;
	v->pid = fork();
	if (!v->pid) {
		close(to[1]);
		close(from[0]);
		_exit(vmm_main(conf, low, to[0], from[1]));
	}
	close(to[0]);
	close(from[1]);
	v->to = to[1];
	v->from = from[0];
	if (v->pid < 0 || read(v->from, &ready, sizeof(ready)) != sizeof(ready))
		return false;
	v->hva = ready.hva;
	v->alias = ready.alias;
	return true;
}

/* Its exit status; 0 when all is well. */
static inline int vmm_end(struct vmm *v)
{
	struct vmm_call call = { SYS_exit };
	int status = -1;

	/* Another VMM may have inherited the pipe: closing it says nothing. */
	if (write(v->to, &call, sizeof(call)) == sizeof(call))
		waitpid(v->pid, &status, 0);
	close(v->to);
	close(v->from);
	return status;
}

/* Let the VMM do a system call. */
static inline long vmm_call6(struct vmm *v, long nr, long a, long b, long c,
			     long d, long e, long f)
{
	struct vmm_call call = { nr, { a, b, c, d, e, f } };

	if (write(v->to, &call, sizeof(call)) != sizeof(call) ||
	    read(v->from, &call, sizeof(call)) != sizeof(call))
		return -1;
	errno = call.error;
	return call.ret;
}

static inline long vmm_call(struct vmm *v, long nr, long a, long b, long c,
			    long d)
{
	return vmm_call6(v, nr, a, b, c, d, 0, 0);
}

/* --- talking to the guest --- */

#define GUEST_PATIENCE	60	/* seconds */

static inline bool vcpu_alive(struct vcpu_ctl *c)
{
	return !c->error && !c->exit;
}

/* A load ('l') or store ('s'); 0, or -1 if the guest could not. */
static inline int guest_do(struct vmm *v, char what, uint32_t addr,
			   uint32_t *value)
{
	struct vcpu_ctl *c = &v->low->vcpu[v->id];
	double end = now() + GUEST_PATIENCE;

	c->what = what;
	c->addr = addr;
	c->value = *value;
	__atomic_store_n(&c->seq, c->seq + 1, __ATOMIC_RELEASE);
	while (__atomic_load_n(&c->ack, __ATOMIC_ACQUIRE) != c->seq) {
		if (!vcpu_alive(c) || now() > end)
			return -1;
		usleep(50);
	}
	*value = c->value;
	return 0;
}

static inline uint32_t guest_addr(struct vmm *v, uint32_t page, int word)
{
	return RAM_AT + (page - v->first) * PAGE + word;
}

/* What a guest reads; ~0 if it cannot. */
static inline uint32_t guest_load(struct vmm *v, uint32_t page, int word)
{
	uint32_t value = 0;

	return guest_do(v, 'l', guest_addr(v, page, word), &value) ? ~0u : value;
}

static inline int guest_store(struct vmm *v, uint32_t page, int word,
			      uint32_t value)
{
	return guest_do(v, 's', guest_addr(v, page, word), &value);
}

/* Let all vCPUs that walk complete a round that begins after now. */
static inline bool guest_rounds(struct vmm *v)
{
	double end = now() + GUEST_PATIENCE;
	int i;

	for (i = 0; i < v->nr_vcpus; i++) {
		struct vcpu_ctl *c = &v->low->vcpu[v->id + i];
		uint32_t want = c->rounds + 2;

		while (c->rounds < want) {
			if (!vcpu_alive(c) || now() > end)
				return false;
			usleep(200);
		}
	}
	return true;
}

/* Stop the vCPUs that walk; they stay in the VM. */
static inline bool guest_park(struct vmm *v)
{
	double end = now() + GUEST_PATIENCE;
	int i;

	for (i = 0; i < v->nr_vcpus; i++)
		v->low->vcpu[v->id + i].stop = 1;
	for (i = 0; i < v->nr_vcpus; i++) {
		struct vcpu_ctl *c = &v->low->vcpu[v->id + i];

		while (!c->parked) {
			if (!vcpu_alive(c) || now() > end)
				return false;
			usleep(200);
		}
	}
	return true;
}

/* How often a guest that walks saw what it must not see. */
static inline int guest_bad(struct vmm *v)
{
	int i, bad = 0;

	for (i = 0; i < v->nr_vcpus; i++) {
		struct vcpu_ctl *c = &v->low->vcpu[v->id + i];

		if (c->bad)
			fprintf(stderr,
				"# vCPU %d, page %u: read %#x instead of %#x\n",
				v->id + i, c->bad_page, c->got, c->want);
		if (!vcpu_alive(c))
			fprintf(stderr, "# vCPU %d: error %u, exit %d\n",
				v->id + i, c->error, (int)c->exit - 1);
		bad += c->bad + !vcpu_alive(c);
	}
	return bad;
}

#endif /* KVM_GUEST_H */

// SPDX-License-Identifier: GPL-2.0
/*
 * PID 1 of the test VM: sets up a root file system, runs one command, hands its
 * stdin, stdout, stderr and exit status through to vm/run, and powers off.
 *
 * What to do stands in /vm/command (written by vm/initramfs.py), a sequence of
 * NUL-terminated KEY=VALUE records, so that any byte but NUL passes:
 *
 *	root=host		the host's files are the root file system, not the initramfs
 *	out=host		/out is a directory of the host, not a tmpfs
 *	keep=DIR		of the host's files, even where a tmpfs of the guest would hide it
 *	cwd=DIR	env=NAME=VALUE	arg=ARGUMENT	(env and arg repeat)
 *	tty=ROWS COLS		run the command on a pseudo terminal
 *	standalone=1		nobody answers on vm.ctl (a pasted --dry-run line)
 *	probe=1			run no command; prove that the CPU runs at speed
 *
 * Four virtio-serial ports lead to vm/run: stdin, stdout and stderr carry bytes
 * and nothing else; ctl carries lines:
 *
 *	to vm/run	"probe done"
 *			"exit N|signal N tainted N stdout BYTES stderr BYTES"
 *	from vm/run	"eof BYTES"	stdin ended after so many bytes
 *			"close stdout|stderr"	nobody reads it any more
 *			"winsize ROWS COLS"	"sysrq KEY"
 *			"bye"		everything arrived: power off
 *
 * The byte counts are what makes the end exact: a port has no end of file of
 * its own, and data written to it just before power-off could be lost.
 *
 * The kernel log is the other channel: every "vm-init:" line there is ours, and
 * "vm-init: FATAL:" is how vm/run learns why no command was run.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))
#define MAX_WORDS	4096
#define P9_OPTIONS	"trans=virtio,version=9p2000.L,msize=512000,access=any"
#define NO_PROGRAMS	(MS_NOSUID | MS_NODEV | MS_NOEXEC)
#define PROBE_LOOPS	100000000UL

static struct {
	const char *cwd, *keep;
	char *argv[MAX_WORDS], *envp[MAX_WORDS];
	int argc, envc;
	bool host_root, host_out, probe, standalone, tty;
	struct winsize size;
} cmd = { .cwd = "/" };

/* One direction of the byte traffic: from @in, through @buf, to @out. */
struct stream {
	int in, out;		/* -1: closed */
	size_t off, len;
	uint64_t total;		/* bytes read from @in */
	char buf[65536];
};

static struct stream streams[3];	/* by the child's fd number */
static uint64_t stdin_end = UINT64_MAX;	/* known once "eof" has arrived */
static int kmsg = -1, ctl = -1, child_signals = -1;
static pid_t child;
static int child_status;
static bool child_ended, bye;

/* Into the kernel log. (dprintf() would not do: it wants to seek first.) */
static void say(const char *fmt, ...)
{
	char line[512] = "<6>vm-init: ";
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line + strlen(line), sizeof(line) - strlen(line), fmt, ap);
	va_end(ap);
	if (write(kmsg, line, strlen(line)) < 0)
		return;		/* nowhere left to complain */
}

static void power_off(void)
{
	sync();
	reboot(RB_POWER_OFF);
	for (;;)		/* should the machine not go off: vm/run kills it */
		pause();
}

static void fatal(const char *what)
{
	say("FATAL: %s: %s", what, strerror(errno));
	power_off();
}

/* ---- file systems ---- */

static int mount_on(const char *type, const char *dir, unsigned long flags,
		    const char *options)
{
	mkdir(dir, 0755);
	if (!mount(type, dir, type, flags, options) || errno == EBUSY)
		return 0;	/* EBUSY: it is there already */
	say("no %s on %s: %s", type, dir, strerror(errno));
	return -1;
}

/* What a running Linux system has, root file system apart. */
static void mount_system(void)
{
	static const struct {
		const char *type, *dir, *options;
		unsigned long flags;
	} table[] = {
		{ "proc", "/proc", "", NO_PROGRAMS },
		{ "sysfs", "/sys", "", NO_PROGRAMS },
		{ "devtmpfs", "/dev", "mode=0755", MS_NOSUID },
		{ "devpts", "/dev/pts", "gid=5,mode=620,ptmxmode=666", MS_NOSUID | MS_NOEXEC },
		{ "tmpfs", "/dev/shm", "mode=1777", MS_NOSUID | MS_NODEV },
		{ "tmpfs", "/run", "mode=0755", MS_NOSUID | MS_NODEV },
		{ "tmpfs", "/tmp", "mode=1777", MS_NOSUID | MS_NODEV },
		{ "cgroup2", "/sys/fs/cgroup", "", NO_PROGRAMS },
		{ "debugfs", "/sys/kernel/debug", "", NO_PROGRAMS },
		{ "tracefs", "/sys/kernel/tracing", "", NO_PROGRAMS },
		{ "hugetlbfs", "/dev/hugepages", "", MS_NOSUID | MS_NODEV },
		{ "mqueue", "/dev/mqueue", "", NO_PROGRAMS },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(table); i++) {
		/* In the initramfs, --add may have put something into /tmp. */
		if (!cmd.host_root && !strcmp(table[i].type, "tmpfs") && !access(table[i].dir, F_OK))
			continue;
		mount_on(table[i].type, table[i].dir, table[i].flags, table[i].options);
	}
	if (symlink("/proc/self/fd", "/dev/fd") || symlink("fd/0", "/dev/stdin") ||
	    symlink("fd/1", "/dev/stdout") || symlink("fd/2", "/dev/stderr"))
		say("no /dev/fd: %s", strerror(errno));
}

/*
 * The project may lie under /tmp: its directory is opened before the guest's
 * own file systems are mounted, and is put back on top of them if it is gone.
 */
static void put_back(int fd, const char *path)
{
	char from[32], dir[4096];
	size_t i;

	if (!access(path, F_OK))
		return;
	for (i = 1; path[i - 1] && i < sizeof(dir); i++) {
		if (path[i] && path[i] != '/')
			continue;
		snprintf(dir, sizeof(dir), "%.*s", (int)i, path);
		mkdir(dir, 0755);
	}
	snprintf(from, sizeof(from), "/proc/self/fd/%d", fd);
	if (mount(from, path, NULL, MS_BIND, NULL))
		say("no %s in the guest: %s", path, strerror(errno));
}

/*
 * The host's files, read-only over 9p, under a tmpfs that takes all writes.
 * cache=loose keeps data and names in the guest's caches without asking the
 * host again: programs start fast, and nobody promises to see a file that the
 * host changes while the VM runs.
 */
static void enter_host_root(void)
{
	mkdir("/lower", 0755);
	mkdir("/new", 0755);
	if (mount("host", "/lower", "9p", MS_RDONLY, P9_OPTIONS ",cache=loose"))
		fatal("cannot mount the host's root over 9p");
	if (mount_on("tmpfs", "/rw", 0, "mode=0755"))
		fatal("cannot mount the tmpfs that takes the writes");
	mkdir("/rw/upper", 0755);
	mkdir("/rw/work", 0755);
	if (mount("overlay", "/new", "overlay", 0,
		  "lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work"))
		fatal("cannot mount the overlay");
	if (chdir("/new") || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
		fatal("cannot enter the overlay");
}

/*
 * Where the command leaves files for the host. cache=mmap: what is closed is on
 * the host (no panic loses it), writes are not slow, and mmap() works.
 */
static void mount_out(void)
{
	mkdir("/out", 0755);
	if (!cmd.host_out)
		mount_on("tmpfs", "/out", 0, "mode=0755");
	else if (mount("out", "/out", "9p", 0, P9_OPTIONS ",cache=mmap"))
		fatal("cannot mount /out over 9p");
}

/* ---- the rest of the set-up ---- */

static void read_command(void)
{
	FILE *f = fopen("/vm/command", "re");
	char *rec = NULL, *value;
	size_t size = 0;

	if (!f)
		fatal("/vm/command");
	while (getdelim(&rec, &size, '\0', f) > 0) {
		value = strchr(rec, '=');
		if (!value || cmd.argc == MAX_WORDS - 1 || cmd.envc == MAX_WORDS - 1) {
			errno = E2BIG;
			fatal("/vm/command");
		}
		*value++ = '\0';
		if (!strcmp(rec, "arg"))
			cmd.argv[cmd.argc++] = value;
		else if (!strcmp(rec, "env"))
			cmd.envp[cmd.envc++] = value;
		else if (!strcmp(rec, "cwd"))
			cmd.cwd = value;
		else if (!strcmp(rec, "keep"))
			cmd.keep = value;
		else if (!strcmp(rec, "tty"))
			cmd.tty = sscanf(value, "%hu %hu", &cmd.size.ws_row,
					 &cmd.size.ws_col) == 2;
		cmd.host_root |= !strcmp(rec, "root");
		cmd.host_out |= !strcmp(rec, "out");
		cmd.probe |= !strcmp(rec, "probe");
		cmd.standalone |= !strcmp(rec, "standalone");
		rec = NULL;	/* it stays, the next one gets its own */
	}
	fclose(f);
}

/* The ports have the numbers that vm/qemu.py gives them. */
static int open_port(int number)
{
	char pattern[32];
	int fd = -1, tries;
	glob_t found;

	snprintf(pattern, sizeof(pattern), "/dev/vport*p%d", number);
	/* The driver adds the ports one by one, after its probe has returned. */
	for (tries = 0; fd < 0 && tries < 6000; tries++) {
		if (tries)
			usleep(5000);
		if (!glob(pattern, 0, NULL, &found))
			fd = open(found.gl_pathv[0], O_RDWR | O_NONBLOCK | O_CLOEXEC);
		globfree(&found);
	}
	if (fd < 0)
		fatal("no virtio-serial ports");
	return fd;
}

static void bring_up_lo(void)
{
	struct ifreq req = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &req))
		say("no interface lo: %s", strerror(errno));
	close(fd);
}

/* A line for vm/run. It goes as a whole, once the host's end is open. */
static void tell(const char *line)
{
	while (write(ctl, line, strlen(line)) < 0)
		usleep(5000);
}

static void probe(void)
{
	unsigned long i;

	for (i = 0; i < PROBE_LOOPS; i++)
		asm volatile("" : "+r"(i));
	tell("probe done\n");
}

/* ---- the command ---- */

static void exec_command(int fds[3])
{
	sigset_t none;
	int i;

	setsid();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	for (i = 0; i < 3; i++)
		dup2(fds[i], i);
	if (cmd.tty)
		ioctl(0, TIOCSCTTY, 0);
	if (chdir(cmd.cwd) && cmd.host_root)
		dprintf(2, "vm/run: no directory %s in the guest, using /\n", cmd.cwd);
	execvpe(cmd.argv[0], cmd.argv, cmd.envp);
	dprintf(2, "vm/run: %s: %s\n", cmd.argv[0],
		errno == ENOENT ? "command not found" : strerror(errno));
	_exit(127);
}

/* Opens the child's end in @fds and ours in the streams. */
static void open_pipes(int fds[3])
{
	int i, p[2];

	for (i = 0; i < 3; i++) {
		if (pipe2(p, O_CLOEXEC))
			fatal("pipe");
		fds[i] = i ? p[1] : p[0];
		*(i ? &streams[i].in : &streams[i].out) = i ? p[0] : p[1];
		fcntl(i ? p[0] : p[1], F_SETFL, O_NONBLOCK);
	}
}

static void open_tty(int fds[3])
{
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);

	if (master < 0 || grantpt(master) || unlockpt(master))
		fatal("no pseudo terminal");
	fds[0] = fds[1] = fds[2] = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (fds[0] < 0)
		fatal("no pseudo terminal");
	ioctl(master, TIOCSWINSZ, &cmd.size);
	streams[0].out = master;
	streams[1].in = fcntl(master, F_DUPFD_CLOEXEC, 3);
	streams[2].in = -1;
}

static void start_command(void)
{
	int fds[3], i;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	child_signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	signal(SIGPIPE, SIG_IGN);
	if (cmd.tty)
		open_tty(fds);
	else
		open_pipes(fds);
	say("command starts");
	child = fork();
	if (child < 0)
		fatal("fork");
	if (!child)
		exec_command(fds);
	for (i = 0; i < (cmd.tty ? 1 : 3); i++)
		close(fds[i]);
}

static void reap(void)
{
	struct signalfd_siginfo info;
	int status;
	pid_t pid;

	while (read(child_signals, &info, sizeof(info)) > 0)
		;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == child) {
			child_status = status;
			child_ended = true;
		}
	}
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* ---- byte traffic ---- */

static void obey(const char *line)
{
	char key;
	int fd;

	sscanf(line, "eof %lu", &stdin_end);
	if (!strcmp(line, "close stdout"))
		close_fd(&streams[1].in);
	if (!strcmp(line, "close stderr"))
		close_fd(&streams[2].in);
	if (sscanf(line, "winsize %hu %hu", &cmd.size.ws_row, &cmd.size.ws_col) == 2)
		ioctl(streams[1].in, TIOCSWINSZ, &cmd.size);
	if (sscanf(line, "sysrq %c", &key) == 1) {
		fd = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);
		if (write(fd, &key, 1) != 1)
			say("no sysrq: %s", strerror(errno));
		close_fd(&fd);
	}
	if (!strcmp(line, "bye"))
		bye = true;
}

static void read_ctl(void)
{
	static char line[128];
	static size_t len;
	char c;

	while (read(ctl, &c, 1) == 1) {
		if (c != '\n' && len < sizeof(line) - 1) {
			line[len++] = c;
			continue;
		}
		line[len] = '\0';
		len = 0;
		obey(line);
	}
}

static void fill(struct stream *s)
{
	ssize_t got = read(s->in, s->buf, sizeof(s->buf));

	if (got > 0) {
		s->total += got;
		s->off = 0;
		s->len = got;
	} else if (s != &streams[0] && !(got < 0 && (errno == EAGAIN || errno == EINTR))) {
		close_fd(&s->in);	/* a port has no end (see "eof"), these have */
	}
}

static void empty(struct stream *s)
{
	ssize_t put = write(s->out, s->buf + s->off, s->len);

	if (put >= 0) {
		s->off += put;
		s->len -= put;
	} else if (errno != EAGAIN && errno != EINTR) {
		close_fd(&s->out);	/* nobody reads it any more */
	}
}

/* Moves bytes once; false when @timeout passed and nothing was to be done. */
static bool pump(int timeout)
{
	struct pollfd pfd[5];
	struct stream *s;
	int i, ready;

	for (i = 0; i < 3; i++) {
		s = &streams[i];
		if (s->len && s->out < 0)
			s->len = 0;
		pfd[i].fd = s->len ? s->out : s->in;
		pfd[i].events = s->len ? POLLOUT : POLLIN;
	}
	pfd[3] = (struct pollfd){ .fd = ctl, .events = POLLIN };
	pfd[4] = (struct pollfd){ .fd = child_signals, .events = POLLIN };
	ready = poll(pfd, 5, timeout);
	if (pfd[4].revents)
		reap();
	if (pfd[3].revents)
		read_ctl();
	for (i = 0; i < 3; i++) {
		s = &streams[i];
		if (!pfd[i].revents || pfd[i].fd != (s->len ? s->out : s->in))
			continue;
		if (s->len)
			empty(s);
		else
			fill(s);
	}
	s = &streams[0];
	if (s->total == stdin_end && !s->len)
		close_fd(&s->out);	/* the command sees end of file */
	return ready != 0;
}

/*
 * The command has ended: nothing that it left behind lives on (so that the exit
 * of every process is over before the kernel log is judged), and what any of
 * them wrote is handed over.
 */
static void finish_command(void)
{
	bool idle = false;
	int tries = 0;
	pid_t pid;

	kill(-1, SIGKILL);
	streams[0].in = -1;
	while ((streams[1].in >= 0 || streams[2].in >= 0 || streams[1].len || streams[2].len) && !idle)
		idle = !pump(60000) && !streams[1].len && !streams[2].len;
	while ((pid = waitpid(-1, NULL, WNOHANG)) >= 0) {
		if (!pid && tries++ == 6000) {
			say("BUG: a process does not die of SIGKILL within a minute");
			break;
		}
		if (!pid)
			usleep(10000);
	}
}

static void report_end(void)
{
	long tainted = -1;
	char line[200];
	FILE *f;

	f = fopen("/proc/sys/kernel/tainted", "re");
	if (f && fscanf(f, "%ld", &tainted) != 1)
		tainted = -1;
	snprintf(line, sizeof(line), "%s %d tainted %ld stdout %lu stderr %lu\n",
		 WIFSIGNALED(child_status) ? "signal" : "exit",
		 WIFSIGNALED(child_status) ? WTERMSIG(child_status) : WEXITSTATUS(child_status),
		 tainted, streams[1].total, streams[2].total);
	say("command ended: %s", line);
	tell(line);
	while (!bye && !cmd.standalone)
		pump(-1);
}

int main(void)
{
	int i, keep = -1;

	umask(022);
	mount_on("devtmpfs", "/dev", MS_NOSUID, "mode=0755");
	kmsg = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	read_command();
	ctl = open_port(4);
	if (cmd.probe) {
		probe();
		power_off();
	}
	for (i = 0; i < 3; i++)
		streams[i].in = streams[i].out = open_port(i + 1);
	if (cmd.host_root)
		enter_host_root();
	if (cmd.keep)
		keep = open(cmd.keep, O_PATH | O_CLOEXEC);
	mount_system();
	if (keep >= 0)
		put_back(keep, cmd.keep);
	mount_out();
	sethostname("vm", 2);
	bring_up_lo();
	start_command();
	while (!child_ended)
		pump(-1);
	finish_command();
	if (cmd.host_out && umount("/out"))
		say("/out is still busy: %s", strerror(errno));
	report_end();
	power_off();
}

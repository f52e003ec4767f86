# SPDX-License-Identifier: GPL-2.0
"""A running VM: its QEMU process, its channels and its console log.

Nothing of a run has a name in a file system: the initramfs is a memfd, the
channels are socket pairs, the console log is an unlinked file unless the user
wants it. And QEMU is killed by the kernel when we die. So nothing can be left
behind, even by kill -9.
"""

import ctypes
import os
import select
import signal
import socket
import subprocess
import tempfile
import threading
import time

import initramfs
import qemu
from common import HarnessError

CHUNK = 65536
ESCAPE = b'\x1d'        # Ctrl-]: ends an interactive VM


def die_with_parent():
    """In the child, before exec: PR_SET_PDEATHSIG."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def write_all(fd, data):
    """Writes everything, also to a descriptor that somebody made non-blocking."""
    while data:
        try:
            data = data[os.write(fd, data):]
        except BlockingIOError:
            select.select([], [fd], [])


class Guest:
    """One VM, from the start of QEMU to its end."""

    def __init__(self, opts, accel, command):
        self.start_time = time.monotonic()
        self.initrd = os.memfd_create('initramfs', os.MFD_CLOEXEC)
        with os.fdopen(os.dup(self.initrd), 'wb') as out:
            initramfs.write(out, command, opts.add, opts.initramfs)
        self.console = open_log(opts.log)
        self.qemu_errors = tempfile.TemporaryFile()
        pairs = [socket.socketpair() for _ in qemu.CHANNELS]
        self.stdin, self.stdout, self.stderr, self.ctl = (ours for ours, _ in pairs)
        self.ctl_lock = threading.Lock()
        self.ctl_text = b''
        self.log = ''
        theirs = [their.fileno() for _, their in pairs]
        argv = qemu.command_line(opts, accel, f'/dev/fd/{self.initrd}', f'/dev/fd/{self.console.fileno()}',
                                 [('socket', f'fd={fd}') for fd in theirs])
        # A session of its own: Ctrl-C is for us, we decide what becomes of QEMU.
        self.process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=self.qemu_errors, stderr=self.qemu_errors,
            pass_fds=[self.initrd, self.console.fileno(), *theirs],
            start_new_session=True, preexec_fn=die_with_parent)
        for _, their in pairs:
            their.close()
        os.close(self.initrd)

    def seconds(self):
        """Since the start."""
        return time.monotonic() - self.start_time

    def send(self, line):
        """A line to init; harmless when QEMU is gone."""
        try:
            with self.ctl_lock:
                self.ctl.sendall(line.encode() + b'\n')
        except OSError:
            pass

    def receive(self, wait):
        """A line from init; '' when none came in time, None when QEMU has gone."""
        if b'\n' not in self.ctl_text and select.select([self.ctl], [], [], wait)[0]:
            try:
                data = self.ctl.recv(CHUNK)
            except ConnectionError:
                data = b''
            if not data:
                return None
            self.ctl_text += data
        line, newline, rest = self.ctl_text.partition(b'\n')
        if not newline:
            return ''
        self.ctl_text = rest
        return line.decode(errors='replace')

    def read_log(self):
        """The console log so far."""
        data = os.pread(self.console.fileno(), 1 << 30, 0)
        self.log = data.decode(errors='replace').replace('\r', '')
        return self.log

    def tail(self, count):
        """The last lines of the console log."""
        return self.read_log().splitlines()[-count:]

    def errors(self):
        """What QEMU itself complained about."""
        self.qemu_errors.seek(0)
        return self.qemu_errors.read().decode(errors='replace').strip()

    def wait(self, limit):
        """True when QEMU ended in time."""
        try:
            self.process.wait(limit)
            return True
        except subprocess.TimeoutExpired:
            return False

    def kill(self):
        """Ends QEMU if it still runs."""
        self.process.kill()
        self.process.wait()


def open_log(path):
    """The console log: a named file, or one without a name."""
    try:
        return open(path, 'w+b', buffering=0) if path else tempfile.TemporaryFile(buffering=0)
    except OSError as err:
        raise HarnessError(f'--log {path}: {err.strerror}') from err


class OutPump(threading.Thread):
    """From a channel of the guest to a descriptor of ours."""

    def __init__(self, guest, sock, fd, name):
        super().__init__(daemon=True)
        self.guest, self.sock, self.fd, self.channel = guest, sock, fd, name
        self.count = 0      # bytes that went through
        self.start()

    def run(self):
        broken = False
        while data := self._receive():
            try:
                if not broken:
                    write_all(self.fd, data)
            except OSError:         # our reader is gone: the guest's writer shall know
                broken = True
                self.guest.send(f'close {self.channel}')
            self.count += len(data)

    def _receive(self):
        try:
            return self.sock.recv(CHUNK)
        except ConnectionError:
            return b''


class InPump(threading.Thread):
    """From our standard input to the guest's."""

    def __init__(self, guest, terminal):
        super().__init__(daemon=True)
        self.guest, self.terminal = guest, terminal
        self.start()

    def run(self):
        total = 0
        while data := self._read():
            if self.terminal and ESCAPE in data:
                os.kill(os.getpid(), signal.SIGINT)
                return
            try:
                self.guest.stdin.sendall(data)
            except OSError:
                return
            total += len(data)
        self.guest.send(f'eof {total}')

    @staticmethod
    def _read():
        try:
            return os.read(0, CHUNK)
        except BlockingIOError:
            select.select([0], [], [])
            return os.read(0, CHUNK)
        except OSError:             # closed, or a terminal that is not ours to read
            return b''

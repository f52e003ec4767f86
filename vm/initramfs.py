# SPDX-License-Identifier: GPL-2.0
"""The guest's initramfs: a newc cpio archive, written anew for every run.

It holds our static init and /vm/command (see vm/init.c for its records); for
--initramfs also busybox with a link per applet and the files given with --add.
Writing it takes a few milliseconds, so nothing but the compiled init is cached.
"""

import os
import shutil
import stat
import subprocess

from common import BUILD, VM, HarnessError

INIT_SOURCE = os.path.join(VM, 'init.c')
INIT = os.path.join(BUILD, 'vm', 'init')


def build_init():
    """Compiles vm/init.c unless the binary is newer; safe when several do it."""
    try:
        if os.stat(INIT).st_mtime > os.stat(INIT_SOURCE).st_mtime:
            return
    except FileNotFoundError:
        pass
    if not shutil.which('gcc'):
        raise HarnessError('no gcc to compile vm/init.c: run "make setup"')
    temporary = f'{INIT}.{os.getpid()}'
    try:
        os.makedirs(os.path.dirname(INIT), exist_ok=True)
        made = subprocess.run(['gcc', '-static', '-O2', '-Wall', '-Wextra', '-o', temporary,
                               INIT_SOURCE], capture_output=True, text=True, check=False)
        if made.returncode:
            lines = made.stderr.strip().splitlines() or ['gcc failed']
            why = next((l for l in lines if 'error' in l or 'cannot find' in l), lines[-1])
            raise HarnessError(f'cannot compile vm/init.c ("make setup" installs gcc and libc6-dev): {why}')
        os.rename(temporary, INIT)
    except OSError as err:
        raise HarnessError(f'cannot write {INIT}: {err.strerror}') from err
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


class Cpio:
    """Writes a newc archive; every parent directory appears by itself."""

    def __init__(self, out):
        self.out = out
        self.known = set()
        self.inode = 0

    def _entry(self, name, mode, data=b'', mtime=0):
        raw = os.fsencode(name) + b'\0'
        self.inode += 1
        fields = (self.inode, mode, 0, 0, 1, mtime, len(data), 0, 0, 0, 0, len(raw), 0)
        header = b'070701' + b''.join(b'%08X' % f for f in fields)
        for part in (header + raw, data):
            self.out.write(part)
            self.out.write(b'\0' * (-self.out.tell() % 4))

    def directory(self, name, mode=0o755):
        """A directory with all of its parents, once."""
        name = name.strip('/')
        if not name or name in self.known:
            return
        self.directory(os.path.dirname(name))
        self.known.add(name)
        self._entry(name, stat.S_IFDIR | mode)

    def file(self, name, data, mode=0o644, mtime=0):
        """A regular file."""
        self.directory(os.path.dirname(name))
        self._entry(name.strip('/'), stat.S_IFREG | mode, data, mtime)

    def link(self, name, target):
        """A symbolic link."""
        self.directory(os.path.dirname(name))
        self._entry(name.strip('/'), stat.S_IFLNK | 0o777, os.fsencode(target))

    def tree(self, source, dest):
        """A file, link or directory of the host, and all that is in it."""
        info = os.lstat(source)
        if stat.S_ISLNK(info.st_mode):
            self.link(dest, os.readlink(source))
        elif stat.S_ISDIR(info.st_mode):
            self.directory(dest, stat.S_IMODE(info.st_mode))
            for name in sorted(os.listdir(source)):
                self.tree(os.path.join(source, name), os.path.join(dest, name))
        elif stat.S_ISREG(info.st_mode):
            with open(source, 'rb') as handle:
                self.file(dest, handle.read(), stat.S_IMODE(info.st_mode), int(info.st_mtime))

    def close(self):
        """The end mark."""
        self._entry('TRAILER!!!', 0)


def add_busybox(cpio):
    """busybox and a link for each of its applets."""
    path = '/bin/busybox'
    if not os.path.exists(path) or b'statically linked' not in file_kind(path):
        raise HarnessError('--initramfs needs a static busybox: run "make setup" (Debian: busybox-static)')
    cpio.tree(os.path.realpath(path), '/bin/busybox')
    applets = subprocess.run([path, '--list'], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        if applet != 'busybox':
            cpio.link('/bin/' + applet, 'busybox')
    for name in ('sbin', 'usr/bin', 'usr/sbin'):
        cpio.directory(os.path.dirname(name))
        cpio.link(name, '/bin')
    cpio.file('/etc/passwd', b'root:x:0:0:root:/root:/bin/sh\n')
    cpio.file('/etc/group', b'root:x:0:\n')
    cpio.directory('/root', 0o700)


def file_kind(path):
    """b"statically linked" or b"dynamically linked", by looking for an ELF interpreter."""
    with open(path, 'rb') as handle:
        head = handle.read(4096)
    return b'dynamically linked' if b'/ld-linux' in head or b'/ld-musl' in head else b'statically linked'


def add_files(cpio, adds):
    """The --add PATH[:DEST] options; DEST is PATH's own place when not given."""
    for spec in adds:
        path, _, dest = spec.partition(':')
        if not os.path.exists(path):
            raise HarnessError(f'--add {spec}: no such file {path}')
        cpio.tree(os.path.realpath(path), dest or os.path.abspath(path))


def records(command):
    """The bytes of /vm/command for a list of (key, value) pairs."""
    return b''.join(os.fsencode(f'{key}={value}') + b'\0' for key, value in command)


def write(out, command, adds=(), busybox=False):
    """Writes the whole archive to the binary file object out."""
    build_init()
    cpio = Cpio(out)
    cpio.directory('/proc')
    cpio.directory('/sys')
    cpio.directory('/dev')
    cpio.tree(INIT, '/init')
    cpio.file('/vm/command', records(command), 0o600)
    if busybox:
        add_busybox(cpio)
    add_files(cpio, adds)
    cpio.close()
    out.flush()

# SPDX-License-Identifier: GPL-2.0
"""KVM or emulation? KVM is used only after a guest has proved that it works.

A /dev/kvm that opens proves nothing: inside some VMs it is there, and every
guest hangs, or crawls. So a VM is booted on it that runs a loop and reports;
it has PROBE_LIMIT seconds for all of that. The verdict is kept in build/vm-accel
for as long as host kernel, CPU and QEMU stay the same.
"""

import argparse
import os
import platform
import subprocess

import guest
import qemu
from common import BUILD, HarnessError, say

CACHE = os.path.join(BUILD, 'vm-accel')
PROBE_LIMIT = 15        # seconds for booting and answering


def machine_key():
    """What the verdict depends on, as one line."""
    version = subprocess.run([qemu.find(), '--version'], capture_output=True, text=True,
                             check=True).stdout.splitlines()[0]
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as info:
            cpu = next((l.split(':', 1)[1].strip() for l in info if l.startswith('model name')), '?')
    except OSError:
        cpu = '?'
    return f'{platform.release()} | {cpu} | {version}'


def cached(key):
    """(accel, reason) of an earlier probe, or None."""
    try:
        with open(CACHE, encoding='utf-8') as handle:
            lines = handle.read().splitlines()
    except OSError:
        return None
    return (lines[0], lines[1]) if len(lines) == 3 and lines[2] == key else None


def remember(key, accel, reason):
    """Keeps a verdict; a build directory of somebody else's just stays as it is."""
    temporary = f'{CACHE}.{os.getpid()}'
    try:
        with open(temporary, 'w', encoding='utf-8') as handle:
            handle.write(f'{accel}\n{reason}\n{key}\n')
        os.rename(temporary, CACHE)
    except OSError:
        pass


def probe(kernel):
    """(accel, reason): boots a VM on KVM that runs a loop and reports."""
    opts = argparse.Namespace(kernel=kernel, cpu=None, icount=False, cpus=1, mem='512M', numa=1,
                              append='', initramfs=True, out=None, disk=[], add=[], log=None)
    vm = guest.Guest(opts, 'kvm', [('probe', '1')])
    try:
        while vm.seconds() < PROBE_LIMIT:
            line = vm.receive(0.2)
            if line is None:
                why = vm.errors().splitlines() or ['the guest crashed']
                return 'tcg', f'KVM does not run guests here: {why[-1]}'
            if line == 'probe done':
                return 'kvm', f'a guest on KVM booted and ran its loop within {vm.seconds():.1f} s'
    finally:
        vm.kill()
    return 'tcg', f'/dev/kvm exists, but a guest on it did not answer within {PROBE_LIMIT} s'


class Choice:
    """The accelerator of this run."""

    def __init__(self, wanted, kernel, icount):
        self.name, self.reason, self.unproved = wanted, 'as told', None
        if wanted == 'auto':
            self._choose(kernel, icount)
        elif wanted == 'kvm' and icount:
            raise HarnessError('--icount counts emulated instructions: it needs --accel tcg')

    def _choose(self, kernel, icount):
        if icount:
            self.name, self.reason = 'tcg', '--icount needs emulation'
        elif not os.access('/dev/kvm', os.R_OK | os.W_OK):
            there = os.path.exists('/dev/kvm')
            self.name, self.reason = 'tcg', 'no access to /dev/kvm' if there else 'no /dev/kvm'
        else:
            key = machine_key()
            verdict = cached(key)
            if not verdict:
                say(f'trying KVM (once, up to {PROBE_LIMIT} s)...')
                verdict = probe(kernel)
                say(f'using {"KVM" if verdict[0] == "kvm" else "TCG emulation"}: {verdict[1]}')
                self.unproved = (key, *verdict)
            self.name, self.reason = verdict

    def booted(self):
        """The kernel works. Only now a failure on KVM is known to be KVM's."""
        if self.unproved:
            remember(*self.unproved)
            self.unproved = None

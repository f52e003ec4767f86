# SPDX-License-Identifier: GPL-2.0
"""The QEMU command line.

The machine is q35 with nothing on it but what is used. It has what the tests
want (ACPI with NUMA and CPU hotplug, PCI), and leaner machines win nothing:
under emulation, firmware and unpacking the kernel take 0.6 s of a boot of 3.5 s,
and pc, or q35 without its SATA and SMBus, or qboot, changed that by less than
the measurements vary. The same goes for nokaslr, mitigations=off and a quiet
console, so the kernel runs as it does for its users, and says all it has to say.
"""

import re
import shutil

from common import HarnessError

QEMU = 'qemu-system-x86_64'
CHANNELS = ('stdin', 'stdout', 'stderr', 'ctl')     # virtio-serial ports 1 to 4

# console=, earlyprintk=: the whole log goes to ttyS0, from the first line on.
# panic=-1, oops=panic: a dead kernel ends the run at once (with -no-reboot).
# ignore_loglevel, printk.devkmsg=on: no command can hide lines from the judge.
KERNEL_ARGS = ('console=ttyS0 earlyprintk=ttyS0,115200 ignore_loglevel printk.devkmsg=on '
               'printk.time=1 panic=-1 oops=panic')
# Emulation is some 20 times slower than the hardware that the kernel's limits
# are made for: slowness must not look like a lockup. And its TSC is the same
# clock on all CPUs, though it does not say so; without it, each look at the
# time is an access to the HPET (14 us instead of 4).
TCG_ARGS = ('watchdog_thresh=60 rcupdate.rcu_cpu_stall_timeout=120 '
            'sysctl.kernel.hung_task_timeout_secs=300 tsc=reliable')


def find():
    """Path of QEMU."""
    path = shutil.which(QEMU)
    if not path:
        raise HarnessError(f'no {QEMU}: run "make setup"')
    return path


def megabytes(size):
    """2G, 512M or a number of megabytes -> megabytes."""
    match = re.fullmatch(r'(\d+)([MmGg]?)', size)
    if not match or not int(match[1]):
        raise HarnessError(f'--mem {size}: give a size like 2G or 512M')
    return int(match[1]) * (1024 if match[2] in ('g', 'G') else 1)


def escape(path):
    """A path inside a comma-separated option."""
    return path.replace(',', ',,')


def share(name, path, readonly):
    """A directory of the host as a 9p device."""
    return ['-fsdev', f'local,id={name},path={escape(path)},security_model=none,multidevs=remap'
            + (',readonly=on' if readonly else ''),
            '-device', f'virtio-9p-pci,fsdev={name},mount_tag={name}']


def numa(nodes, cpus, mem):
    """Memory and CPUs in equal parts on that many nodes."""
    args = []
    for node in range(nodes):
        first, last = node * cpus // nodes, (node + 1) * cpus // nodes - 1
        args += ['-object', f'memory-backend-ram,id=mem{node},size={mem // nodes}M',
                 '-numa', f'node,nodeid={node},memdev=mem{node}'
                 + (f',cpus={first}-{last}' if last >= first else '')]
    return args


def acceleration(opts, accel):
    """Options that depend on what executes the guest's instructions."""
    if accel == 'kvm':
        return ['-accel', 'kvm', '-cpu', opts.cpu or 'host']
    # 5-level page tables are what few machines have, and slower to walk.
    cpu = ['-cpu', opts.cpu or 'max,la57=off']
    # Each instruction takes 1 ns of the guest's time, and waiting takes none of
    # ours: TSC (1 GHz) and CLOCK_MONOTONIC are a count of instructions, user and
    # kernel, plus the time that the CPU was idle. Two runs with --initramfs give
    # the same counts but for some 0.001 %; the 9p files of the host add noise.
    if opts.icount:
        return ['-accel', 'tcg,thread=single', '-icount', 'shift=0,sleep=off',
                '-rtc', 'base=2024-01-01,clock=vm', '-seed', '1'] + cpu
    return ['-accel', 'tcg,thread=multi'] + cpu


def command_line(opts, accel, initrd, console, channels):
    """argv of QEMU. channels: the chardev arguments of stdin, stdout, stderr, ctl."""
    mem = megabytes(opts.mem)
    kernel_args = KERNEL_ARGS + ('' if accel == 'kvm' else ' ' + TCG_ARGS)
    if opts.icount:
        kernel_args += ' nokaslr'
    if opts.append:
        kernel_args += ' ' + opts.append
    args = [find(), '-no-user-config', '-nodefaults', '-display', 'none', '-no-reboot',
            '-machine', 'q35', *acceleration(opts, accel),
            '-smp', f'{opts.cpus},sockets={opts.cpus}', '-m', f'{mem // opts.numa * opts.numa}M',
            '-kernel', opts.kernel, '-initrd', initrd, '-append', kernel_args,
            '-chardev', f'file,id=console,path={escape(console)}', '-serial', 'chardev:console',
            '-device', 'virtio-serial-pci']
    for number, (name, chardev) in enumerate(zip(CHANNELS, channels), 1):
        args += ['-chardev', f'{chardev[0]},id={name},{chardev[1]}',
                 '-device', f'virtserialport,nr={number},chardev={name},name=vm.{name}']
    if opts.numa > 1:
        args += numa(opts.numa, opts.cpus, mem)
    if not opts.initramfs:
        args += share('host', '/', True)
    if opts.out:
        args += share('out', opts.out, False)
    for number, disk in enumerate(opts.disk):
        args += ['-drive', f'file={escape(disk)},id=disk{number},if=none,format=raw',
                 '-device', f'virtio-blk-pci,drive=disk{number}']
    return args

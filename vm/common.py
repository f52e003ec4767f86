# SPDX-License-Identifier: GPL-2.0
"""What the modules of the VM harness share: places, messages, failures."""

import contextlib
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VM = os.path.join(ROOT, 'vm')
BUILD = os.path.join(ROOT, 'build')

# Exit statuses of our own; everything else is the command's.
TIMEOUT, HARNESS, BAD_LOG = 124, 125, 126


class HarnessError(Exception):
    """The run cannot be made: one line that says what to do about it."""


def say(message):
    """A line for the user; standard output belongs to the command."""
    with contextlib.suppress(OSError):          # perhaps nobody is there to read it
        print(f'vm/run: {message}', file=sys.stderr, flush=True)


def show(lines):
    """Lines of the kernel log, for the user."""
    with contextlib.suppress(OSError):
        print(*('    ' + line for line in lines), sep='\n', file=sys.stderr, flush=True)

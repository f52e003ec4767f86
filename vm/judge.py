#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Judge a kernel log: is there anything in it that a healthy kernel never says?

    vm/judge.py [--allow REGEX]... LOG...

Prints each finding with the lines that follow it and exits with 1 if there is
one. A finding whose first line matches an --allow REGEX (for a test that
provokes it on purpose) is printed as allowed and does not count.

A rule matches the start of a message, after the time stamp and at most one
"subsystem: " prefix, so that words in the output of a test ("ok 3 BUG: ...",
"# WARNING: ...") are no findings; only a few texts that no test prints by
chance are looked for anywhere in the line. Test results are not judged here.
"""

import argparse
import re
import sys
from dataclasses import dataclass, field

CONTEXT = 25        # lines shown of one finding

# At the start of a message.
STARTS = (
    ('BUG', r'(\[ )?BUG:?\s'),                  # also lockdep's "[ BUG: ... ]", slub's "BUG kmalloc-8 (...)"
    ('kernel BUG', r'kernel BUG at '),
    ('WARNING', r'WARNING:\s'),                 # WARN*(), lockdep, RCU
    ('Oops', r'Oops(:| -)'),
    ('Oops', r'(general protection fault|invalid opcode|divide error|int3|stack segment'
             r'|double fault|unable to handle)\b'),
    ('Oops', r'PANIC: '),
    ('panic', r'Kernel panic - not syncing'),
    ('UBSAN', r'UBSAN: '),
    ('lockdep', r'INFO: trying to register non-static key'),
    ('hung task', r'INFO: task .* blocked (on \S+ )?for more than '),
    ('RCU stall', r'INFO: rcu\S* (self-)?detected (expedited )?stall'),
    ('RCU stall', r'rcu\S* kthread (starved|timer wakeup didn)'),
    ('kmemleak', r'\d+ new suspected memory leaks'),
    ('slab', r'(Slab corruption|FIX \S+: )'),
    ('page poison', r'(memory corruption|single bit error)\b'),     # with page_poison, pagealloc
)

# Anywhere in a message.
TEXTS = (
    ('page table', r'\bbad (pte|pmd|pud|p4d|pgd)\b'),
    ('page table', r'non-zero pgtables_bytes'),
    ('page', r'\bBad (page|rss-counter)\b'),
    ('page', r'\bstill mapped\b'),
    ('page', r'page dumped because: (VM_BUG_ON|VM_WARN_ON|nonzero|non-NULL|PAGE_FLAGS|corrupted)'),
    ('swap', r'\b(Bad|Unused) swap (file|offset) entry\b'),
    ('refcount', r'\brefcount_t: '),
    ('list', r'\blist_(add|del) corruption\b'),
    ('KASAN', r'\bBUG: (KASAN|KFENCE|KCSAN|KMSAN): '),
    ('lockdep', r'turning off the locking correctness validator'),
    ('lockdep', r'Disabling lock debugging due to kernel taint'),
    ('lockdep', r'possible (circular|recursive) locking|inconsistent lock state|suspicious RCU usage'
                r'|held lock freed|bad unlock balance'),
    ('atomic', r'sleeping function called from invalid context|scheduling while atomic'),
    ('lockup', r'\b(soft|hard) lockup\b|watchdog: .*\bLOCKUP\b'),
)

# Messages that a rule finds in a healthy kernel: each with the reason why it is
# harmless. Keep this short; a message that can be avoided is avoided instead.
HARMLESS = ()

STAMP = re.compile(r'^(?:<\d+>)?\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? ?')
PREFIX = r'(?:[\w./-]+(?: [\w./-]+)?: )?'
RULES = ([(name, re.compile('^' + PREFIX + text)) for name, text in STARTS]
         + [(name, re.compile(text)) for name, text in TEXTS])
NO_RULE = re.compile('|'.join(HARMLESS) or r'(?!)')
# A line of KTAP belongs to a test, whatever its name is.
KTAP = re.compile(r'^\s*(#|ok |not ok |KTAP |TAP |\d+\.\.)')
PHASES = (('vm-init: command starts', 'during the command'),
          ('vm-init: command ended', 'after the command'))
CUT = re.compile(r'-+\[ cut here \]')
END = re.compile(r'---\[ end ')


@dataclass
class Finding:
    """A bad line, what is bad about it, and when it came."""
    kind: str
    phase: str
    head: str
    lines: list = field(default_factory=list)
    allowed: bool = False

    def __str__(self):
        if self.allowed:
            return f'{self.kind}, {self.phase}, allowed: {self.head}'
        return '\n'.join([f'{self.kind}, {self.phase}:'] + ['    ' + l for l in self.lines])


def kind_of(message):
    """Name of the rule that message breaks, or None."""
    if KTAP.match(message) or NO_RULE.search(message):
        return None
    for name, regex in RULES:
        if regex.search(message):
            return name
    return None


def judge(text, allow=()):
    """All findings in a kernel log, in order."""
    allow = [re.compile(a) for a in allow]
    findings = []
    phase = 'at boot'
    current = None      # the finding that takes the following lines
    before = None       # lines since "cut here": the text of a WARN() comes before its head
    for line in text.replace('\r', '').split('\n'):
        message = STAMP.sub('', line)
        for marker, name in PHASES:
            if message.startswith(marker):
                phase, current = name, None
        kind = kind_of(message)
        if kind:
            current = Finding(kind, phase, line, before or [], any(a.search(message) for a in allow))
            findings.append(current)
            before = None
        elif CUT.match(message):
            current, before = None, []
        elif before is not None:
            before.append(line)
        if current and message.strip():
            current.lines.append(line)
            if len(current.lines) > CONTEXT or END.search(message):
                current = None
    return findings


def bad(findings):
    """Those that count."""
    return [f for f in findings if not f.allowed]


def main():
    parser = argparse.ArgumentParser(description='Judge kernel logs.')
    parser.add_argument('--allow', action='append', default=[], metavar='REGEX',
                        help='a finding that is provoked on purpose (may repeat)')
    parser.add_argument('logs', nargs='+', metavar='LOG')
    args = parser.parse_args()
    status = 0
    for name in args.logs:
        with open(name, encoding='utf-8', errors='replace') as log:
            findings = judge(log.read(), args.allow)
        for finding in findings:
            print(f'{name}: {finding}')
        if bad(findings):
            status = 1
    return status


if __name__ == '__main__':
    sys.exit(main())

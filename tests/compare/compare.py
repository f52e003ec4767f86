# SPDX-License-Identifier: GPL-2.0
"""Are the results of a program on two kernels the same, line by line?

What is compared is its exit status and each result that it prints, in order.
Of a program that prints TAP these are its "ok" and "not ok" lines; of another
one, all lines.  Numbers, which drift, do not count.
"""

import difflib
import re
from dataclasses import dataclass

RESULT = re.compile(r"(?:#\s*)*((?:not )?ok) \d+\b(.*)$")
SKIP = re.compile(r"#\s*(SKIP|XFAIL|TODO)\b", re.IGNORECASE)
# Decimal or not: a word of hexadecimal digits, one of which is a decimal one.
NUMBER = re.compile(r"\b(0x)?(?=[a-f]*\d)[0-9a-f]+\b(\.\d+)?|\d+(\.\d+)?", re.IGNORECASE)
DOTS = re.compile(r"\.{3,}")
KSFT_SKIP = 4


@dataclass(frozen=True)
class Program:
    """A line of a list."""
    directory: str
    file: str
    seconds: int
    needs: tuple
    arguments: tuple

    @property
    def name(self):
        """How it is called in reports."""
        return " ".join((f"{self.directory}: {self.file}", *self.arguments))


def read_list(path):
    """The programs of a list that are run."""
    programs = []
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            words = line.split("#")[0].split()
            if words and int(words[2]):
                needs = () if words[3] == "-" else tuple(words[3].split(","))
                programs.append(Program(words[0], words[1], int(words[2]), needs,
                                        tuple(words[4:])))
    return programs


def same_number(text):
    """A text without what drifts: numbers, and how many dots passed the time."""
    return DOTS.sub("...", NUMBER.sub("N", text)).strip()


def tap_results(lines):
    """(test, its status) in order."""
    results = []
    for line in lines:
        if match := RESULT.match(line.strip()):
            status, name = match.groups()
            if skip := SKIP.search(name):
                status = skip.group(1).lower()
                name = name[:skip.start()]
            results.append((same_number(name.lstrip(" -").split(" # ")[0]), status))
    return results


def results(record, loose=False):
    """The results in a record of in-vm; loose: its lines say nothing, if not TAP."""
    lines = record["output"]
    found = tap_results(lines)
    if not found and not loose:
        found = [(same_number(line), "said") for line in lines if line.strip()]
    return found + [("exit status", str(record["exit"]))]


def differences(base, other):
    """What other has and base has not, and the reverse, as lines."""
    return [f"{mark}{status}: {test}" for mark, pairs in edits(base, other)
            for test, status in pairs]


def edits(base, other):
    """The parts of two lists of results that differ."""
    matcher = difflib.SequenceMatcher(None, base, other, autojunk=False)
    for tag, start, end, start_other, end_other in matcher.get_opcodes():
        if tag != "equal":
            yield "-", base[start:end]
            yield "+", other[start_other:end_other]


def unexplained(bases, other):
    """Differences from the nearest of some runs on the base kernel.

    A program may drift on the base kernel itself.  Where all its runs list the
    same tests, a test's result is explained if any of them has it.
    """
    tests = [test for test, _ in other]
    if all([test for test, _ in base] == tests for base in bases):
        return [f"{status}: {test}, always {'/'.join(sorted(set(seen)))} there"
                for (test, status), *seen in zip(other, *([s for _, s in base] for base in bases))
                if status not in seen]
    return min((differences(base, other) for base in bases), key=len)


def summary(found):
    """Counts of results, and the names of those that failed."""
    count = {}
    for test, status in found[:-1]:
        count[status] = count.get(status, 0) + 1
    parts = [f"{number} {status}" for status, number in sorted(count.items())]
    failed = [test for test, status in found[:-1] if status == "not ok"]
    if found[-1][1] not in ("0", str(KSFT_SKIP)):
        failed.append(f"exit status {found[-1][1]}")
    return ", ".join(parts), failed


def skipped(record):
    """Why a program as a whole was skipped, or nothing."""
    if record["exit"] != KSFT_SKIP:
        return None
    said = [line for line in record["output"] if "SKIP" in line.upper()]
    return said[-1].strip("# ") if said else "no reason given"

# SPDX-License-Identifier: GPL-2.0
"""A strict reader of TAP and KTAP.

Test programs print one line per test case:

    TAP version 13
    1..3
    ok 1 - this works
    not ok 2 - that does not
    ok 3 - this was not tried # SKIP no such device

A test may consist of tests.  Their lines come before the line of the whole,
indented (KTAP, as KUnit prints it) or behind "# " (as kselftest prints it), and
have a plan of their own.

    reader = Reader()
    for line in output:
        for case in reader.feed(line):
            print(case)
    rest, problems = reader.close()

A case that consists of others is reported as those others; it is reported
itself only when it failed (or was skipped) although none of them did.  What a reader must never
do is take silence for success: a missing plan, a plan that is not met, tests
out of order and a bail-out are problems, listed by close().
"""

import re
from dataclasses import dataclass, field

PASS, FAIL, SKIP = "pass", "fail", "skip"

LEVEL = re.compile(r"    |  |# ?")
VERSION = re.compile(r"K?TAP version \d+$", re.IGNORECASE)
PLAN = re.compile(r"1\.\.(\d+)(?:\s*#\s*(.*))?$")
RESULT = re.compile(r"(not )?ok\b(?: (\d+))?(?: -)?(?: (.*))?$")
DIRECTIVE = re.compile(r"(?:^|\s)#\s*(?:(SKIP|TODO|XFAIL)\b[:\s]*)?(.*)$", re.IGNORECASE)
BAIL_OUT = re.compile(r"Bail out!\s*(.*)$")


@dataclass
class Case:
    """One finished test case."""
    name: str
    status: str
    reason: str = ""


@dataclass
class Group:
    """Tests of one level that have been seen since their plan."""
    plan: int | None = None
    results: int = 0
    cases: list = field(default_factory=list)
    problems: list = field(default_factory=list)

    def check(self):
        """Compare what came with what was announced."""
        if self.plan is None:
            self.problems.append("no plan")
        elif self.plan != self.results:
            self.problems.append(f"planned {self.plan} tests, saw {self.results}")


def split_level(line):
    """Depth of nesting, and the line without its prefixes."""
    depth = 0
    while match := LEVEL.match(line):
        line = line[match.end():]
        depth += 1
    return depth, line


def parse_result(match):
    """A Case from a result line."""
    failed, number, text = match.groups()
    text = text or ""
    directive = reason = ""
    if found := DIRECTIVE.search(text):
        directive, reason = (found.group(1) or "").upper(), found.group(2).strip()
        text = text[:found.start()]
    name = text.strip() or reason or f"test {number or '?'}"
    if directive == "SKIP" and not failed:
        return Case(name, SKIP, reason or "no reason given")
    # An expected failure is neither a success nor a surprise.
    if directive == "XFAIL" or (directive == "TODO" and failed):
        return Case(name, SKIP, f"expected failure: {reason or 'no reason given'}")
    return Case(name, FAIL if failed else PASS, reason)


class Reader:
    """Reads one stream, line by line; the stream may hold several documents."""

    def __init__(self):
        self.groups = {}	# depth -> Group
        self.problems = []
        self.documents = 0

    def feed(self, line):
        """Take a line; return the test cases that it completes."""
        depth, text = split_level(line.rstrip("\r\n"))
        if VERSION.match(text):
            return self._version(depth)
        if match := PLAN.match(text):
            return self._plan(depth, match)
        if match := RESULT.match(text):
            # Prose behind "# " may begin with "ok"; a nested result has a number.
            if depth == 0 or match.group(2):
                return self._result(depth, match)
        elif (match := BAIL_OUT.match(text)) and depth == 0:
            self.problems.append(f"bail out: {match.group(1) or 'no reason given'}")
        return []

    def close(self):
        """End of the stream: cases that belong to no finished test, and all problems."""
        cases = self._end_document()
        if not self.documents:
            self.problems.append("no TAP at all")
        return cases, self.problems

    def _group(self, depth):
        return self.groups.setdefault(depth, Group())

    def _version(self, depth):
        return self._end_document() if depth == 0 else []

    def _plan(self, depth, match):
        group = self._group(depth)
        if group.plan is not None:
            group.problems.append("a second plan")
        group.plan = int(match.group(1))
        if depth == 0 and group.plan == 0:
            reason = re.sub(r"^SKIP\b[:\s]*", "", match.group(2) or "", flags=re.IGNORECASE)
            return [Case("all", SKIP, reason or "no reason given")]
        return []

    def _result(self, depth, match):
        group = self._group(depth)
        case = parse_result(match)
        group.results += 1
        if match.group(2) and int(match.group(2)) != group.results:
            group.problems.append(f"test {match.group(2)} ({case.name}) came as number {group.results}")
        cases = self._adopt(depth, case, group)
        if depth > 0:
            group.cases += cases
            return []
        return cases

    def _adopt(self, depth, case, group):
        """Put the deeper tests seen so far under their parent."""
        children = []
        for deeper in sorted(d for d in self.groups if d > depth):
            child = self.groups.pop(deeper)
            # Where the whole failed or gave up, that it stopped early is no news.
            # KUnit prints no plan above the cases of a parameterised test.
            if case.status == PASS and child.plan is not None:
                child.check()
            group.problems += [f"{case.name}: {problem}" for problem in child.problems]
            children += [Case(f"{case.name}: {c.name}", c.status, c.reason) for c in child.cases]
        if not children or (case.status != PASS
                            and all(c.status != case.status for c in children)):
            children.append(case)
        return children

    def _end_document(self):
        cases = []
        if 0 in self.groups:
            top = self.groups.pop(0)
            self.documents += 1
            top.check()
            self.problems += top.problems
        for depth in sorted(self.groups):
            orphans = self.groups.pop(depth)
            if orphans.results:
                self.problems.append(f"{orphans.results} nested tests without the line of the whole")
            cases += orphans.cases
        return cases

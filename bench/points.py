# SPDX-License-Identifier: GPL-2.0
"""What benchmarks print, and tables of it.

Lines are "VARIANT SERIES X VALUE UNIT [LOW HIGH]" (bench/in-vm puts the variant
before what bench/bench.h describes), or a remark: "# text", "VARIANT # text".
"""

import dataclasses
import math

VARIANTS = ("stock", "never", "always", "hugetlb", "thp")


class Garbage(Exception):
    """A line that no benchmark should have printed."""


@dataclasses.dataclass(frozen=True)
class Point:
    """One figure: the median, the least and the greatest of the runs."""
    variant: str
    series: str
    x: int
    value: float
    unit: str
    low: float
    high: float

    @property
    def spread(self):
        """How far runs are from each other, as a part of the median."""
        return (self.high - self.low) / self.value if self.value else 0.0


def number(word, line):
    """A number that something can cost."""
    try:
        value = float(word)
    except ValueError:
        raise Garbage(f"{word!r} is no number: {line}") from None
    if not math.isfinite(value) or value < 0:
        raise Garbage(f"{word} cannot be: {line}")
    return value


def remark(line):
    """(variant or nothing, text) of a remark, or None."""
    variant, mark, text = line.strip().partition("#")
    variant = variant.strip()
    return (variant, text.strip()) if mark and variant in ("", *VARIANTS) else None


def parse(line):
    """The Point that a line is."""
    words = line.split()
    if len(words) not in (5, 7):
        raise Garbage(f"not VARIANT SERIES X VALUE UNIT [LOW HIGH]: {line!r}")
    variant, series, x, value, unit = words[:5]
    if variant not in VARIANTS:
        raise Garbage(f"no variant {variant!r}: {line}")
    if not x.isdecimal():
        raise Garbage(f"X is no whole number: {line}")
    value = number(value, line)
    low, high = (number(word, line) for word in words[5:]) if words[5:] else (value, value)
    if not low <= value <= high:
        raise Garbage(f"the value is not between low and high: {line}")
    return Point(variant, series, int(x), value, unit, low, high)


class Points:
    """All figures of one benchmark."""

    def __init__(self):
        self.all = {}           # (variant, series, x) -> Point
        self.units = {}         # series -> unit
        self.remarks = {}       # text -> variants that say so

    def feed(self, line):
        """Take one line."""
        found = remark(line)
        if found:
            variants = self.remarks.setdefault(found[1], [])
            variants += [found[0]] if found[0] not in variants else []
        else:
            self.add(parse(line))

    def add(self, point):
        """Take one figure; each only once, and a series has one unit."""
        key = point.variant, point.series, point.x
        if key in self.all:
            raise Garbage(f"twice: {' '.join(map(str, key))}")
        if self.units.setdefault(point.series, point.unit) != point.unit:
            raise Garbage(f"{point.series}: {point.unit} and {self.units[point.series]}")
        self.all[key] = point

    def get(self, variant, series, x):
        """The figure, or None."""
        return self.all.get((variant, series, x))

    def rows(self):
        """(series, x) in the order in which they came, each series in one piece."""
        seen = dict.fromkeys((series, x) for _, series, x in self.all)
        for series in self.units:
            yield from sorted(row for row in seen if row[0] == series)

    def variants(self):
        """Those that there are, in their order."""
        there = {variant for variant, _, _ in self.all}
        return [variant for variant in VARIANTS if variant in there]

    def ratio(self, over, under, row):
        """How the cost of one variant compares with another's, or None."""
        top, base = self.get(over, *row), self.get(under, *row)
        return top.value / base.value if top and base and base.value else None


def cell(value):
    """A figure with as many digits as it is worth."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"


def wanted_ratios(variants, limits):
    """Which ratios the table has: (over, under)."""
    pairs = [("never", "stock"), ("always", "never"), ("hugetlb", "never"), ("thp", "never")]
    pairs += [(over, under) for over, under, _ in limits if (over, under) not in pairs]
    return [pair for pair in pairs if set(pair) <= set(variants)]


def verdicts(points, limits, row):
    """PASS, or what is over its limit."""
    over = []
    for top, base, most in limits:
        ratio = points.ratio(top, base, row)
        if ratio is None:
            over.append(f"{top}/{base} missing")
        elif ratio > most:
            over.append(f"over: {top} {100 * (ratio - 1):+.2f} % of {100 * (most - 1):.2g} %")
    return "; ".join(over) or "PASS"


def table(points, limits=()):
    """The lines of the table."""
    variants = points.variants()
    ratios = wanted_ratios(variants, limits)
    head = ["series", "unit", "x", *variants, *(f"{a}/{b}" for a, b in ratios), "spread"]
    head += ["verdict"] if limits else []
    lines = [head]
    for row in points.rows():
        found = [points.get(variant, *row) for variant in variants]
        factors = [points.ratio(a, b, row) for a, b in ratios]
        lines.append([
            row[0], points.units[row[0]], str(row[1]),
            *(cell(point and point.value) for point in found),
            *("-" if factor is None else f"{factor:.3f}" for factor in factors),
            f"{100 * max(point.spread for point in found if point):.1f} %"]
            + ([verdicts(points, limits, row)] if limits else []))
    widths = [max(map(len, column)) for column in zip(*lines)]
    for line in lines:
        yield "  ".join(word.ljust(width) if index < 2 or limits and index == len(head) - 1
                        else word.rjust(width)
                        for index, (word, width) in enumerate(zip(line, widths))).rstrip()

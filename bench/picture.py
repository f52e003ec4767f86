# SPDX-License-Identifier: GPL-2.0
"""Pictures of figures, by gnuplot."""

import math
import shutil
import subprocess

COLOURS = {"stock": "#c0c0c0", "never": "#000000", "always": "#d62728",
           "hugetlb": "#1f77b4", "thp": "#2ca02c"}
PANEL = 380, 300        # pixels
# never lies on stock, as it should: both are to be seen.
STYLES = {variant: f"lc rgb '{colour}' lw {3.5 if variant == 'stock' else 1.5}"
          for variant, colour in COLOURS.items()}
SIGNS = {"stock": 4, "never": 6, "always": 7, "hugetlb": 9, "thp": 11}


def missing():
    """What to say when there is no gnuplot, or nothing."""
    if shutil.which("gnuplot"):
        return None
    return "gnuplot is not installed: run 'make setup', or use --no-picture"


def quote(text):
    """A string of gnuplot's, taken literally."""
    return "'" + text.replace("'", "''") + "'"


def panel(number, series, xlabel, points):
    """The gnuplot commands for one series: a line for each variant."""
    curves, data, most, least = [], [], 0.0, math.inf
    xs = set()
    for variant in points.variants():
        found = [points.all[key] for key in sorted(points.all, key=lambda key: key[2])
                 if key[:2] == (variant, series)]
        if not found:
            continue
        block = f"$d{number}_{variant}"
        data.append(f"{block} << EOD")
        data += [f"{p.x} {p.value} {p.low} {p.high}" for p in found]
        data.append("EOD")
        most = max(most, *(p.value for p in found))
        least = min(least, *(p.value for p in found))
        xs.update(p.x for p in found)
        curves.append(f"{block} using 1:2:3:4 with yerrorlines {STYLES[variant]} "
                      f"pt {SIGNS[variant]} ps 0.7")
    far = least > 0 and most / least > 20
    yield from data
    yield f"set title {quote(series)}"
    yield f"set xlabel {quote(xlabel)}"
    yield f"set ylabel {quote(points.units[series])}"
    yield "set logscale x 2" if len(xs) > 1 else "unset logscale x"
    yield f"set xrange [{min(xs) / 1.3}:{max(xs) * 1.3}]"
    yield "set xtics (" + ", ".join(f"'{x}' {x}" for x in sorted(xs)) + ")"
    yield "set logscale y" if far else "unset logscale y"
    yield f"set format y '%.{0 if far else 1}s%c'"
    yield "set yrange [*:*]" if far else "set yrange [0:*]"
    yield "plot " + ", ".join(curves)


def legend(points):
    """The gnuplot commands for a panel that tells which line is which."""
    yield "set key center center samplen 3"
    yield "unset title; unset xlabel; unset ylabel; unset tics; unset border; unset grid"
    yield "unset logscale; set xrange [0:1]; set yrange [0:1]"
    yield "plot " + ", ".join(
        f"NaN with linespoints {STYLES[variant]} pt {SIGNS[variant]} title {quote(variant)}"
        for variant in points.variants())


def bars(points, limits):
    """The gnuplot commands for what each series costs more than a base, in percent."""
    base = limits[0][1]
    over = [variant for variant in points.variants() if variant != base]
    yield "$d << EOD"
    for row in points.rows():
        ratios = [points.ratio(variant, base, row) for variant in over]
        yield " ".join([row[0]] + ["NaN" if ratio is None else f"{100 * (ratio - 1):.4f}"
                                   for ratio in ratios])
    yield "EOD"
    yield "set style data histograms"
    yield "set style fill solid 0.8"
    yield "set xtics rotate by -45 noenhanced"
    yield "set grid ytics"
    yield f"set ylabel {quote('percent more than ' + base)}"
    yield "plot " + ", ".join(
        [f"$d using {column}{':xtic(1)' if column == 2 else ''} title {quote(variant)} "
         f"lc rgb '{COLOURS[variant]}'" for column, variant in enumerate(over, 2)]
        + [f"{100 * (most - 1):.4f} title {quote(f'limit of {top}')} lc rgb '{COLOURS[top]}' dt 2"
           for top, _, most in limits])


def script(bench, title, points, labels, output):
    """All gnuplot commands; labels are the X of series."""
    series = list(points.units)
    panels = len(series) + 1        # and the legend
    columns = min(4, math.ceil(math.sqrt(panels)))
    rows = math.ceil(panels / columns)
    width, height = columns * PANEL[0], rows * PANEL[1] + 40
    if bench.limits:
        width, height = 960, 540
    kind = "pngcairo" if output.endswith(".png") else "svg"
    yield f"set terminal {kind} size {width},{height} noenhanced background rgb 'white'"
    yield f"set output {quote(output)}"
    if bench.limits:
        yield f"set title {quote(title)}"
        yield "set key below"
        yield from bars(points, bench.limits)
        return
    yield "set grid"
    yield "unset key"
    yield f"set multiplot layout {rows},{columns} title {quote(title)}"
    for number, name in enumerate(series):
        yield from panel(number, name, labels[name], points)
    yield from legend(points)
    yield "unset multiplot"


def draw(bench, title, points, labels, stem):
    """Write STEM.png and STEM.svg; the complaint of gnuplot, or nothing."""
    for suffix in (".png", ".svg"):
        text = "\n".join(script(bench, title, points, labels, stem + suffix)) + "\n"
        done = subprocess.run(["gnuplot"], input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"gnuplot: {(done.stderr.strip().splitlines() or ['failed'])[-1]}"
    return None

"""Numbers to inline SVG: the one file that touches matplotlib. Same numbers, same bytes.

Colours are drawn as stand-ins and handed to the page's style sheet, so that one picture serves light and dark; text
stays text, in the page's own font. One point of matplotlib is one pixel of the page. Series differ by marker and dash
as well as by colour. Every picture carries a label that says what it shows and where its numbers stand.
"""

import html
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mptune.comparison.intervals import Interval
from mptune.errors import MissingExtraError

try:
    from matplotlib import rc_context
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
except ImportError:
    raise MissingExtraError("`mptune report`", "report") from None

PIXELS = 72  # matplotlib's points in an inch
INK, MUTED, RULE, PAPER, UP, DOWN = "#010101", "#020202", "#030303", "#040401", "#040101", "#040102"
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ((), (5, 2), (1.5, 1.5), (7, 2, 1.5, 2), (3, 1.5), (9, 3), (5, 1.5, 1.5, 1.5, 1.5, 1.5))
SERIES = tuple(f"#0501{number:02x}" for number in range(len(MARKERS)))
VARIABLES = {
    INK: "currentColor",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    PAPER: "var(--paper)",
    UP: "var(--up)",
    DOWN: "var(--down)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(SERIES)},
}
SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 11.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
}


@dataclass(frozen=True)
class Series:
    """A line with a band: one method over steps or shots."""

    style: int  # which colour, marker and dash
    x: tuple[float, ...]
    y: tuple[Interval | None, ...]


def forest(names: Sequence[str], differences: Sequence[Sequence[Interval]], label: str, axis: str) -> str:
    """Return differences as points with intervals about zero, one name below the other.

    Args:
        differences: per name the same difference with one or two intervals: the first drawn solid, the second hollow.
    """
    with _picture(520, 46 + 30 * len(names), label) as (figure, drawn):
        axes = figure.add_axes(
            (150 / 520, 40 / (46 + 30 * len(names)), 352 / 520, 30 * len(names) / (46 + 30 * len(names)))
        )
        axes.grid(axis="y", visible=False)
        axes.axvline(0, color=INK, linewidth=1)
        for row, intervals in enumerate(differences):
            for which, one in enumerate(intervals):
                at = row + (0.14 if which else -0.14 if len(intervals) > 1 else 0)
                colour = SERIES[0] if one.low > 0 else SERIES[1] if one.high < 0 else MUTED
                axes.plot([one.low, one.high], [at, at], color=colour, linewidth=2, solid_capstyle="butt")
                face = PAPER if which else colour
                axes.plot([one.mean], [at], marker="o", color=colour, markerfacecolor=face, markersize=6)
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(axis="y", labelcolor=INK, pad=8)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(axis)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:+g}".replace("-", "−") if x else "0"))
    return drawn[0]


def scatter(
    points: Sequence[tuple[str, float, Interval]],
    lines: Sequence[tuple[str, float]],
    ours: str,
    label: str,
    cost: str,
) -> str:
    """Return scores against what they cost on a log axis, each point with its interval and its name.

    Args:
        points: name, cost, score.
        lines: name and score of what costs nothing.
        ours: the name of the point that stands out.
        cost: what it is, below its axis.
    """
    width, height = 760, 430
    with _picture(width, height, label) as (figure, drawn):
        axes = figure.add_axes((52 / width, 48 / height, (width - 64) / width, (height - 60) / height))
        axes.set_xscale("log")
        stored = [count for _, count, _ in points]
        axes.set_xlim(min(stored) / 2.2, max(stored) * 9)
        ends = [end for _, _, i in points for end in (i.low, i.high)] + [value for _, value in lines]
        spare = 0.05 * (max(ends) - min(ends) or 10)
        axes.set_ylim(min(ends) - spare, max(ends) + spare)
        for name, value in lines:
            axes.axhline(value, color=MUTED, linewidth=1, dashes=(4, 3))
            axes.annotate(name, (1, value), (-2, 3), xycoords=("axes fraction", "data"), textcoords="offset points",
                          ha="right", va="bottom", color=MUTED, fontsize=11)  # fmt: skip
        for name, count, score in points:
            colour, marker = (SERIES[0], "D") if name == ours else (MUTED, "o")
            axes.plot([count, count], [score.low, score.high], color=colour, linewidth=1.4, zorder=2)
            axes.plot([count], [score.mean], color=colour, marker=marker, markersize=7, zorder=3 + (name == ours))
        _name_points(axes, points)
        axes.set_xlabel(cost)
        axes.set_ylabel("mean score")
        axes.xaxis.set_major_locator(LogLocator(10))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _count(x)))
    return drawn[0]


def curves(panels: Sequence[tuple[str, Sequence[Series]]], label: str, x_label: str, ticks: Sequence[str] = ()) -> str:
    """Return lines with bands, one panel below the other on a common horizontal axis.

    Args:
        panels: the vertical axis' name and its lines.
        ticks: names of x = 0, 1, 2, …; numbers where there are none.
    """
    width, height = 268, 46 + 140 * len(panels)
    with _picture(width, height, label) as (figure, drawn):
        for number, (title, series) in enumerate(panels):
            bottom = 44 + 140 * (len(panels) - 1 - number)
            axes = figure.add_axes((38 / width, bottom / height, (width - 44) / width, 116 / height))
            for one in series:
                _line(axes, one)
            axes.set_title(title, loc="left", fontsize=11, color=MUTED, pad=5)
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.margins(x=0.03)
            if ticks:
                axes.set_xticks(range(len(ticks)), ticks)
                axes.set_xlim(-0.2, len(ticks) - 0.8)
            else:
                axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            if number + 1 < len(panels):
                axes.tick_params(labelbottom=False)
            else:
                axes.set_xlabel(x_label)
    return drawn[0]


def heat(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    label: str,
    show: Callable[[float], str],
    *,
    split: int = 0,
) -> str:
    """Return a matrix as cells whose strength of colour is their size, one hue above zero and another below.

    Args:
        show: how a number is written in its cell.
        split: the row and the column at which a second group begins; 0 where there is one group.
    """
    longest = max((len(show(v)) for row in values for v in row if v is not None), default=0)
    cell_w, cell_h, left, top, space = max(32, 9 + 6 * longest), 26, 80, 66, 6
    width = left + cell_w * len(columns) + (space if split else 0) + 4
    height = top + cell_h * len(rows) + (space if split else 0) + 4
    largest = max((abs(v) for row in values for v in row if v is not None), default=1) or 1
    with _picture(width, height, label) as (figure, drawn):
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        xs = [left + c * cell_w + (space if split and c >= split else 0) for c in range(len(columns))]
        ys = [top + r * cell_h + (space if split and r >= split else 0) for r in range(len(rows))]
        for x, name in zip(xs, columns, strict=True):
            axes.text(
                x + cell_w / 2, top - 6, name, rotation=45, ha="left", va="bottom", rotation_mode="anchor", fontsize=11
            )
        for y, name, row in zip(ys, rows, values, strict=True):
            axes.text(left - 8, y + cell_h / 2, name, ha="right", va="center_baseline", fontsize=11)
            for x, value in zip(xs, row, strict=True):
                if value is None:
                    continue
                colour, strength = (UP if value >= 0 else DOWN), abs(value) / largest
                axes.add_patch(
                    Rectangle((x + 0.5, y + 0.5), cell_w - 1, cell_h - 1, facecolor=colour, alpha=strength, linewidth=0)
                )
                axes.text(x + cell_w / 2, y + cell_h / 2, show(value), ha="center", va="center_baseline", fontsize=10)
    return drawn[0]


def swatch(style: int, legend: str) -> str:
    """Return a short piece of a series' line, for a legend; its name stands beside it.

    Args:
        legend: whose it is; ids must not be equal on one page.
    """
    with _picture(34, 12, "", legend) as (figure, drawn):
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, 34)
        axes.set_ylim(0, 12)
        axes.plot([1, 17, 33], [6, 6, 6], markevery=[1], **_style(style))
    return drawn[0]


def _line(axes: Axes, series: Series) -> None:
    known = [(x, i) for x, i in zip(series.x, series.y, strict=True) if i]
    xs, means = [x for x, _ in known], [i.mean for _, i in known]
    axes.plot(xs, means, **_style(series.style), zorder=3 if series.style == 0 else 2)
    if any(i.high > i.low for _, i in known):
        lows, highs = [i.low for _, i in known], [i.high for _, i in known]
        axes.fill_between(xs, lows, highs, color=SERIES[series.style % len(SERIES)], alpha=0.12, linewidth=0)


def _style(number: int) -> dict[str, Any]:
    which = number % len(SERIES)
    line = {"linestyle": "-"} if not DASHES[which] else {"dashes": DASHES[which]}
    return {"color": SERIES[which], "marker": MARKERS[which], "linewidth": 2.4 if number == 0 else 1.5, **line}


def _name_points(axes: Axes, points: Sequence[tuple[str, float, Interval]]) -> None:
    """Write each point's name at the nearest free place beside it, with a thread where that is not at its side."""
    size, width_of_letter = 11, 6.2

    def pixels(x: float, y: float) -> tuple[float, float]:
        across, up = axes.transData.transform((x, y))
        return float(across), float(up)

    taken = []
    for _, count, score in points:
        (x, low), (_, middle), (_, high) = (pixels(count, y) for y in (score.low, score.mean, score.high))
        taken += [(x - 2, low, x + 2, high), (x - 6, middle - 6, x + 6, middle + 6)]
    for name, count, score in sorted(points, key=lambda p: (-p[2].mean, p[1], p[0])):
        x, y = pixels(count, score.mean)
        width = width_of_letter * len(name)
        for dx, dy in _offsets(width):
            box = (x + dx, y + dy - size / 2, x + dx + width, y + dy + size / 2)
            if not any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
                break
        taken.append(box)
        thread = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 4}
        axes.annotate(
            name, (x, y), (box[0], y + dy), xycoords="figure pixels", textcoords="figure pixels", va="center_baseline",
            fontsize=size, zorder=5, arrowprops=thread if abs(dy) > size else None,
        )  # fmt: skip


def _offsets(width: float) -> Iterator[tuple[float, float]]:
    for step in range(14):
        for dy in (step * 7, -step * 7):
            yield 10 + step * 1.5, dy
            yield -10 - step * 1.5 - width, dy


def _count(number: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:g}{letter}"
    return f"{number:g}"


@contextmanager
def _picture(width: int, height: int, label: str, salt: str = "") -> Iterator[tuple[Figure, list[str]]]:
    """Give a figure to draw on; leave its SVG in the list."""
    drawn: list[str] = []
    settings: Any = {**SETTINGS, "svg.hashsalt": label + salt}  # the salt makes ids the same every time
    with rc_context(settings):
        figure = Figure(figsize=(width / PIXELS, height / PIXELS), dpi=PIXELS)
        figure.patch.set_visible(False)
        yield figure, drawn
        for axes in figure.axes:
            axes.patch.set_visible(False)
        file = io.StringIO()
        FigureCanvasSVG(figure).print_svg(file)  # type: ignore[no-untyped-call]
        drawn.append(_inline(file.getvalue(), width, height, label))


def _inline(svg: str, width: int, height: int, label: str) -> str:
    """Return matplotlib's file as an element of a page: the page's colours and font, no ids but those referred to.

    Its metadata go, too: a date would make other bytes of the same numbers.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style[^>]*>.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    used = set(re.findall(r'(?:xlink:href="|url\()#([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda id_: id_[0] if id_[1] in used else "", svg)
    svg = re.sub(r"<g/>| font-family: [^;]*;", "", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, variable)
    svg = re.sub(r">\s*\n\s*<", "><", svg)
    spoken = f'role="img" aria-label="{html.escape(label)}"' if label else 'aria-hidden="true"'
    head = f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" {spoken}>'
    return re.sub(r"<svg[^>]*>", lambda _: head, svg, count=1).strip()

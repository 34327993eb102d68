"""Charts: curves with intervals, a dot for each seed, bars of memory."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from medsaga_lib.display.names import write
from medsaga_lib.display.style import (
    COLOURS,
    GREY,
    INK,
    LINE_HEIGHT,
    NAME_SIZE,
    POINTS,
    WIDTH,
    colour,
    distinct_colours,
    styled,
)

MOST_TICKS = 8  # up to this number, every x value gets a tick
NARROWEST = 0.05  # smallest part with a number in it, relative to the longest bar
ROW = 0.2  # height in inches of the row of a method
MIB, GIB = 2**20, 2**30


class Curve(NamedTuple):
    """The points of a curve and, if known, the ends of the interval around each point."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


@styled
def curve_with_interval(
    curves: Sequence[Curve],
    x_label: str,
    y_label: str,
    alt: str,
    title: str = "",
    log_x: bool = False,
) -> Figure:
    """Draw curves over the bands of their intervals, with the names at the right ends.

    Args:
        x_label, y_label: axis labels with units.
        alt: what a reader sees and what follows from it.
        log_x: use a logarithmic axis, for example for numbers of labelled images.
    """
    figure = Figure(label=alt)
    axes = figure.add_subplot(xlabel=x_label, ylabel=y_label, title=title)
    axes.set_xscale("log" if log_x else "linear")
    tints = distinct_colours([curve.name for curve in curves])
    for curve, tint in zip(curves, tints, strict=True):
        if curve.low is not None and curve.high is not None:
            axes.fill_between(curve.x, curve.low, curve.high, color=tint, alpha=0.18, linewidth=0)
        axes.plot(curve.x, curve.y, marker="o", color=tint, label=curve.name)
    ticks = sorted({x for curve in curves for x in curve.x})
    if len(ticks) <= MOST_TICKS:
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
    figure.draw_without_rendering()  # fixes the layout, which `_name_ends` reads
    _name_ends(axes, curves, tints)
    return figure


@styled
def dots_of_seeds(
    tasks: Mapping[str, Mapping[str, Sequence[float]]], x_label: str, alt: str, baseline: str = ""
) -> Figure:
    """Draw a panel for each task, a row for each method, a dot for each seed, a line for the mean.

    A row with one value is a dot without a line, in the colour of text.

    Args:
        tasks: task -> method -> the values of the seeds, with the methods in the same order.
        x_label: axis label with units.
        alt: what a reader sees and what follows from it.
        baseline: the method whose mean is a dashed line through each panel.
    """
    methods = list(next(iter(tasks.values())))
    figure = Figure(figsize=(WIDTH, 0.9 + ROW * len(methods)), label=alt)
    panels = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    for axes, (task, values) in zip(panels, tasks.items(), strict=True):
        axes.set_title(task)
        axes.set_xlabel(x_label)
        for row, method in enumerate(methods):
            name = re.split(r" \(|, ", method)[0]  # without its learning rate and its other values
            seeds = values[method]
            tint = colour(name) if name in COLOURS and len(seeds) > 1 else INK
            axes.plot(seeds, [row] * len(seeds), "o", color=tint, markersize=4, alpha=0.6)
            if len(seeds) > 1:
                axes.plot([np.mean(seeds)] * 2, [row - 0.35, row + 0.35], color=tint, linewidth=1.8)
        if baseline:
            axes.axvline(float(np.mean(values[baseline])), color=GREY, linestyle="--", linewidth=1)
    panels[0].set_yticks(range(len(methods)), methods, parse_math=False)
    panels[0].invert_yaxis()  # of all panels, because they share it
    return figure


@styled
def bar_ledger(
    ledgers: Mapping[str, Mapping[str, float]], alt: str, title: str = "", most: float = 0
) -> Figure:
    """Draw the memory of each row as one bar, divided into its parts, in GiB or below 1 GiB in MiB.

    Args:
        ledgers: row -> part -> bytes, with parts such as weights, gradients and states.
        alt: what a reader sees and what follows from it.
        most: bytes of the largest bar that the axis has room for, if none of these rows has it.
    """
    parts = list(dict.fromkeys(part for ledger in ledgers.values() for part in ledger))
    rows = [[float(ledger.get(part, 0)) for part in parts] for ledger in ledgers.values()]
    sizes = np.array(rows)
    most = max(most, sizes.sum(1).max())
    unit, name, number = (GIB, "GiB", gib) if most >= GIB else (MIB, "MiB", mib)
    sizes /= unit
    totals = sizes.sum(1)
    figure = Figure(figsize=(WIDTH, 1.0 + 0.34 * len(ledgers)), label=alt)
    axes = figure.add_subplot(xlabel=f"memory ({name})", title=title)
    axes.set_xlim(0, 1.12 * most / unit)  # with room for the sum at the end of a bar
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_formatter("{x:,g}")
    for index, (part, tint) in enumerate(zip(parts, distinct_colours(parts), strict=True)):
        before = sizes[:, :index].sum(1)
        bars = axes.barh(list(ledgers), sizes[:, index], 0.72, before, color=tint, label=part)
        wide = sizes[:, index] > NARROWEST * most / unit
        numbers = np.where(wide, [number(size) for size in sizes[:, index]], "")
        axes.bar_label(bars, numbers, label_type="center", fontsize=8)
    axes.bar_label(bars, [number(total) for total in totals], padding=4, weight="bold")
    axes.invert_yaxis()
    figure.legend(loc="outside lower left", ncols=len(parts), handlelength=1, handleheight=1)
    return figure


def _name_ends(axes: Axes, curves: Sequence[Curve], tints: Sequence[str]) -> None:
    """Write the name of each curve at its right end, and move names apart that are too close."""
    ends = [(curve.x[-1], curve.y[-1]) for curve in curves]
    heights = axes.transData.transform(ends)[:, 1] / axes.figure.dpi * POINTS
    shifts = _spread(heights, LINE_HEIGHT * NAME_SIZE) - heights
    for curve, end, shift, tint in zip(curves, ends, shifts, tints, strict=True):
        text = axes.annotate("", end, (8, shift), textcoords="offset points", color=tint)
        write(text, curve.name)
        text.set(size=NAME_SIZE, weight="bold", va="center")


def _spread(places: NDArray[np.float64], gap: float) -> NDArray[np.float64]:
    """Move places apart to a distance of at least `gap`, in the same order."""
    order = np.argsort(places, kind="stable")
    steps = gap * np.arange(len(places))
    relative = places[order] - steps
    # Moving all up and moving all down both keep the gap, and so does the mean of the two.
    up = np.maximum.accumulate(relative)
    down = np.minimum.accumulate(relative[::-1])[::-1]
    moved = np.empty(len(places))
    moved[order] = (up + down) / 2 + steps
    return moved


def gib(size: float) -> str:
    return f"{size:.2f}"


def mib(size: float) -> str:
    return f"{size:,.0f}" if size >= 10 else f"{size:.2g}"

"""The main panel of a plot: speed against number of GPUs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import offset_copy

from launcher.results.caption import unit
from launcher.results.marks import Style, efficiency_at_points, needs_strip, style
from launcher.results.points import Line, Point

IDEAL_GREY = "#8A8A8A"
POWERS_FOR_A_LOG_AXIS = 3
MOST_RUNS_SHOWN = 40
MOST_LEGEND_ENTRIES_INSIDE = 4
FARTHEST_BAR = 4.0


def x_name(rows: pd.DataFrame) -> str:
    """What the horizontal axis counts."""
    return "Workers (processes on CPU cores)" if unit(rows) == "worker" else "GPUs"


def scaling(axes: Axes, lines: Sequence[Line], x_label: str) -> None:
    """Images/sec against the number of GPUs, with ideal lines, intervals and, of few lines,
    efficiencies.
    """
    counts = sorted({point.gpus for line in lines for point in line.points})
    _limits(axes, lines, counts)
    _ideal_lines(axes, lines, counts)
    for place, line in enumerate(lines):
        _line(axes, line, style(place))
    axes.set_xlabel(x_label)
    axes.set_ylabel("images/sec")
    axes.grid(visible=True, color="#E4E4E4", linewidth=0.6)
    axes.set_axisbelow(True)
    _legend(axes)
    if not needs_strip(lines):
        efficiency_at_points(axes, lines)


def legend_rows(lines: Sequence[Line]) -> int:
    """How many rows the legend takes above the plot; none where it fits inside."""
    entries = len(lines) + any(line.baseline for line in lines)
    return math.ceil(entries / 2) if entries > MOST_LEGEND_ENTRIES_INSIDE else 0


def _legend(axes: Axes) -> None:
    """Inside, in the corner that a rising curve leaves free; above the plot when it is long."""
    handles, labels = axes.get_legend_handles_labels()
    outside = len(labels) > MOST_LEGEND_ENTRIES_INSIDE
    axes.legend(
        handles,
        labels,
        loc="lower left" if outside else "upper left",
        bbox_to_anchor=(0, 1) if outside else None,
        ncols=2 if outside else 1,
        frameon=False,
        fontsize=8,
        handlelength=3.4,
    )


def _limits(axes: Axes, lines: Sequence[Line], counts: Sequence[int]) -> None:
    """Logarithmic axes where the GPUs are powers of two, so that an ideal line is a straight
    one.
    """
    points = [point for line in lines for point in line.points]
    top = max(_top(point) for point in points)
    for line in lines:
        if line.baseline is not None:
            top = max(top, line.baseline.speed.value * counts[-1])
    powers = [count for count in counts if count & (count - 1) == 0]
    if len(powers) >= POWERS_FOR_A_LOG_AXIS:
        lowest = min(_lowest(point) for point in points)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlim(counts[0] / 1.6, counts[-1] * 1.45)
        axes.set_ylim(lowest / 1.6, top * (top / lowest) ** 0.12 * 1.25)
        axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
        axes.xaxis.set_major_locator(FixedLocator(powers))
    else:
        room = max(0.6, 0.12 * (counts[-1] - counts[0]))
        axes.set_xlim(max(0, counts[0] - room), counts[-1] + room)
        axes.set_ylim(0, top * 1.22)
        axes.xaxis.set_major_locator(FixedLocator(counts) if len(counts) < 12 else MaxNLocator())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def _ideal_lines(axes: Axes, lines: Sequence[Line], counts: Sequence[int]) -> None:
    """One GPU's speed times the number of GPUs, once for each baseline."""
    baselines = list(dict.fromkeys(line.baseline for line in lines if line.baseline is not None))
    ends = np.array([min(1, counts[0]), counts[-1]])
    label = "ideal (one for each baseline)"
    if len(baselines) == 1:
        label = f"ideal ({baselines[0].name.replace('_', ' ')})"
    for place, baseline in enumerate(baselines):
        axes.plot(
            ends,
            ends * baseline.speed.value,
            color=IDEAL_GREY,
            linewidth=1.1,
            linestyle="-.",
            label="_" if place else label,
            zorder=1,
        )


def _line(axes: Axes, line: Line, look: Style) -> None:
    """A line with its points, the interval of each, and the single runs behind it."""
    beside = offset_copy(axes.transData, axes.get_figure(root=True), x=-6, units="points")
    for point in line.points:
        if len(point.runs) > 1:
            speeds = np.sort([run.value for run in point.runs])
            shown = np.linspace(0, len(speeds) - 1, min(len(speeds), MOST_RUNS_SHOWN)).round()
            axes.plot(
                np.full(len(shown), point.gpus),
                speeds[shown.astype(int)],
                look.marker,
                color=look.colour,
                alpha=0.4,
                markersize=3.5,
                markeredgewidth=0,
                transform=beside,
                zorder=2,
            )
    alone = len(line.points) == 1  # an open marker, through which a point of another line is seen
    values = np.array([point.speed.value for point in line.points])
    lows = np.array([_or(point.speed.low, point.speed.value) for point in line.points])
    highs = np.array([_bar_end(point) for point in line.points])
    axes.errorbar(
        [point.gpus for point in line.points],
        values,
        yerr=np.vstack([values - lows, highs - values]),
        color=look.colour,
        marker=look.marker,
        markerfacecolor="none" if alone else look.colour,
        linestyle=look.dashes,
        linewidth=1.6,
        markersize=9 if alone else 6,
        capsize=3.5,
        elinewidth=1.2,
        label=line.label,
        zorder=3,
    )


def _bar_end(point: Point) -> float:
    """The upper end of a bar; noise as large as the mean has none, and the bar ends off the
    point.
    """
    return min(_or(point.speed.high, point.speed.value), FARTHEST_BAR * point.speed.value)


def _top(point: Point) -> float:
    return max(_bar_end(point), *(run.value for run in point.runs))


def _lowest(point: Point) -> float:
    return min(
        _or(point.speed.low, math.inf), *(run.value for run in point.runs), point.speed.value
    )


def _or(value: float, other: float) -> float:
    return other if math.isnan(value) else value

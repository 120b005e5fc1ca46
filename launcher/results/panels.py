"""The main panel of a plot: speed against number of GPUs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from launcher.results.caption import unit
from launcher.results.points import Line, Point

# Okabe and Ito's colours, ordered so that neighbours differ in grey too; so do markers and dashes.
COLOURS = ("#0072B2", "#D55E00", "#000000", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))
IDEAL_GREY = "#8A8A8A"
POWERS_FOR_A_LOG_AXIS = 3
MOST_RUNS_SHOWN = 40
MOST_LINES_WITH_LABELS = 2
STRIP_ROW_INCHES = 0.17
MOST_LEGEND_ENTRIES_INSIDE = 4
LABEL_GROUND = {
    "boxstyle": "square,pad=0.1",
    "facecolor": "white",
    "edgecolor": "none",
    "alpha": 0.8,
}
FARTHEST_BAR = 4.0


@dataclass(frozen=True)
class Style:
    """How a line looks: it can be told from others by any one of the three."""

    colour: str
    marker: str
    dashes: str | tuple[float, tuple[float, ...]]


def style(place: int) -> Style:
    """The style of the line at this place."""
    return Style(
        COLOURS[place % len(COLOURS)],
        MARKERS[place % len(MARKERS)],
        DASHES[place % len(DASHES)],
    )


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
        _efficiency_at_points(axes, lines)


def needs_strip(lines: Sequence[Line]) -> bool:
    """Whether the lines are too many for the efficiencies to stand at the points."""
    return len(_with_efficiency(lines)) > MOST_LINES_WITH_LABELS


def efficiency_strip(axes: Axes, lines: Sequence[Line]) -> None:
    """One row of percentages per line, each under its number of GPUs; `axes` shares its x axis with
    the plot.
    """
    looks = {line.label: style(place) for place, line in enumerate(lines)}
    shown = _with_efficiency(lines)
    for place, line in enumerate(shown):
        look = looks[line.label]
        axes.plot(
            [-0.03],
            [place],
            look.marker,
            color=look.colour,
            markersize=5,
            clip_on=False,
            transform=axes.get_yaxis_transform(),
        )
        for point in line.points:
            axes.text(point.gpus, place, _percent(point), ha="center", va="center", fontsize=8)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_axis_off()
    axes.set_title("measured ÷ ideal", loc="left", fontsize=7.5, style="italic", pad=2)


def strip_inches(lines: Sequence[Line]) -> float:
    """How high the strip is; nothing where there is none."""
    return STRIP_ROW_INCHES * len(_with_efficiency(lines)) if needs_strip(lines) else 0.0


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


def _with_efficiency(lines: Sequence[Line]) -> list[Line]:
    return [line for line in lines if any(point.efficiency for point in line.points)]


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
    for point in line.points:
        if len(point.runs) > 1:
            speeds = np.sort([run.value for run in point.runs])
            shown = np.linspace(0, len(speeds) - 1, min(len(speeds), MOST_RUNS_SHOWN)).round()
            axes.plot(
                np.full(len(shown), point.gpus),
                speeds[shown.astype(int)],
                look.marker,
                color=look.colour,
                alpha=0.3,
                markersize=3.5,
                markeredgewidth=0,
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


def _efficiency_at_points(axes: Axes, lines: Sequence[Line]) -> None:
    """The percentages of the upper line stand above it, those of the lower (or only) one below."""
    highest: dict[int, float] = {}
    shown = _with_efficiency(lines)
    for point in (point for line in shown for point in line.points):
        highest[point.gpus] = max(highest.get(point.gpus, 0), point.speed.value)
    for line in shown:
        for point in line.points:
            above = len(shown) > 1 and point.speed.value == highest[point.gpus]
            axes.annotate(
                _percent(point),
                (point.gpus, point.speed.value),
                fontsize=8,
                zorder=4,
                xytext=(-7, 5) if above else (7, -5),
                textcoords="offset points",
                ha="right" if above else "left",
                va="bottom" if above else "top",
                bbox={
                    "boxstyle": "square,pad=0.1",
                    "facecolor": "white",
                    "edgecolor": "none",
                    "alpha": 0.8,
                },
            )


def _percent(point: Point) -> str:
    return "" if point.efficiency is None else f"{point.efficiency.value:.0%}"


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

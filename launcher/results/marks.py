"""How lines are told apart, and where their efficiencies are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from launcher.results.points import Line, Point

# Okabe and Ito's colours, ordered so that neighbours differ in grey too; so do markers and dashes.
COLOURS = ("#0072B2", "#D55E00", "#000000", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))
LABEL_GROUND = {
    "boxstyle": "square,pad=0.1",
    "facecolor": "white",
    "edgecolor": "none",
    "alpha": 0.8,
}
MOST_LINES_WITH_LABELS = 2
STRIP_ROW_INCHES = 0.17


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


def needs_strip(lines: Sequence[Line]) -> bool:
    """Whether the lines are too many for the efficiencies to stand at the points."""
    return len(_with_efficiency(lines)) > MOST_LINES_WITH_LABELS


def strip_inches(lines: Sequence[Line]) -> float:
    """How high the strip is; nothing where there is none."""
    return STRIP_ROW_INCHES * len(_with_efficiency(lines)) if needs_strip(lines) else 0.0


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


def efficiency_at_points(axes: Axes, lines: Sequence[Line]) -> None:
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


def _with_efficiency(lines: Sequence[Line]) -> list[Line]:
    return [line for line in lines if any(point.efficiency for point in line.points)]


def _percent(point: Point) -> str:
    return "" if point.efficiency is None else f"{point.efficiency.value:.0%}"

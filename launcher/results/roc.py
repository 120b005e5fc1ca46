"""The ROC curve of an evaluation: `roc.csv`, and `roc.svg` drawn from it.

Two panels: the whole curve, and the corner of low false positive rates on a logarithmic axis,
where a search for rare events works. A selection by cuts, where the data has one, is a point.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from launcher.results.files import write_whole
from launcher.results.plot import SVG_STYLE
from perftest.protocol import TEST, RocCurve

if TYPE_CHECKING:
    from launcher.training.course import MetricsRow

_CURVE, _CUT, _CHANCE = "#0072B2", "#D55E00", "#8A8A8A"
# What the corner shows: from here (or the lowest rate that the samples resolve) to a tenth.
_LOWEST_RATE = 1e-5
_CORNER = 0.1


def write_roc(folder: Path, curve: RocCurve, rows: Sequence[MetricsRow]) -> Path:
    """Write roc.csv and roc.svg; returns the path of the drawing. Raises ResultsError."""
    tested = [row for row in rows if row.split == TEST]
    points = list(zip(curve.false_positive_rates, curve.true_positive_rates, strict=True))

    def write(file: TextIO) -> None:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["false_positive_rate", "true_positive_rate", "point"])
        writer.writerows([f"{x:.8g}", f"{y:.8g}", "curve"] for x, y in points)
        if curve.cut:
            writer.writerow([f"{curve.cut[0]:.8g}", f"{curve.cut[1]:.8g}", "psr"])

    write_whole(folder / "roc.csv", write)
    drawing = draw(curve, tested[-1] if tested else None)
    return write_whole(folder / "roc.svg", lambda file: file.write(drawing))


def draw(curve: RocCurve, row: MetricsRow | None) -> str:
    """The SVG of a curve, as text; `row` has the figures that stand above it."""
    with mpl.rc_context(SVG_STYLE):
        figure = Figure(figsize=(9.0, 4.6))
        canvas = FigureCanvasSVG(figure)
        figure.text(0.02, 0.93, "ROC curve", fontsize=12, fontweight="bold")
        figure.text(0.02, 0.875, _words(row), fontsize=8)
        whole, corner = figure.subplots(1, 2)
        figure.subplots_adjust(left=0.075, right=0.98, top=0.8, bottom=0.12, wspace=0.22)
        _whole(whole, curve)
        _corner(corner, curve)
        text = io.StringIO()
        canvas.print_svg(text, metadata={"Date": None, "Creator": None})
    return text.getvalue()


def _words(row: MetricsRow | None) -> str:
    if row is None:
        return ""
    auc = "" if math.isnan(row.auc) else f"area {row.auc:.4f}, "
    return (
        f"{auc}weighted accuracy {row.weighted_accuracy:.4f}, accuracy {row.accuracy:.4f}, "
        f"loss {row.loss:.4f}; {row.samples:,} test samples, each counted by its weight, "
        f"after {row.epoch} epoch{'s' * (row.epoch != 1)}"
    )


def _whole(axes: Axes, curve: RocCurve) -> None:
    axes.plot([0, 1], [0, 1], color=_CHANCE, linewidth=1.0, linestyle="-.", label="chance")
    _plot(axes, curve)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.01)
    axes.legend(loc="lower right", frameon=False, fontsize=8)


def _corner(axes: Axes, curve: RocCurve) -> None:
    """Rates of zero have no place on a logarithmic axis; the curve enters from the left edge. A
    selection by cuts that keeps more background than the corner shows is in the other panel alone.
    """
    rates = np.asarray(curve.false_positive_rates)
    resolved = rates[rates > 0]
    lowest = max(_LOWEST_RATE, float(resolved.min()) if resolved.size else _LOWEST_RATE)
    cut = curve.cut if curve.cut and curve.cut[0] <= _CORNER else ()
    if cut and cut[0] > 0:
        lowest = min(lowest, cut[0])
    lowest = min(lowest / 1.5, _CORNER / 10)
    if cut:  # one that keeps no background is at the edge
        cut = (max(cut[0], lowest), *cut[1:])
    clipped = RocCurve(
        tuple(float(x) for x in np.maximum(rates, lowest)), curve.true_positive_rates, cut
    )
    chance = np.geomspace(lowest, _CORNER, 50)
    axes.plot(chance, chance, color=_CHANCE, linewidth=1.0, linestyle="-.")
    axes.set_xscale("log")
    _plot(axes, clipped)
    axes.set_xlim(lowest, _CORNER)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    inside = np.asarray(curve.true_positive_rates)[rates <= _CORNER]
    top = max([float(inside.max()) if inside.size else 1.0, *cut[1:]])
    axes.set_ylim(0, min(1.01, max(0.05, 1.08 * top)))
    axes.set_title("low false positive rates", fontsize=9, loc="left")


def _plot(axes: Axes, curve: RocCurve) -> None:
    axes.plot(
        curve.false_positive_rates,
        curve.true_positive_rates,
        color=_CURVE,
        linewidth=1.6,
        label="network",
    )
    if curve.cut:
        x, y = curve.cut
        axes.plot([x], [y], "D", color=_CUT, markersize=6, label="cuts (psr)", clip_on=False)
    axes.set_xlabel("false positive rate (background kept)")
    axes.set_ylabel("true positive rate (signal kept)")
    axes.grid(visible=True, color="#E4E4E4", linewidth=0.6)
    axes.set_axisbelow(True)

"""`logs/<model>_b<batch>.svg`, drawn from the CSV log alone; and a panel of step times where a run
left its raw ones.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from launcher.errors import LogsError
from launcher.results import marks, panels, points
from launcher.results.caption import caption, title
from launcher.results.files import results_errors, written_beside
from launcher.results.log_reading import find_logs, read_ideal, read_log
from launcher.results.points import Line
from launcher.results.run_folder import RunFolder
from launcher.results.step_panel import step_times
from launcher.results.steps import read_steps

# Fonts as text; ids that depend on nothing but the drawing, so that it is the same each time.
SVG_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "runtest",
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "path.simplify": False,
}
WIDTH_INCHES = 9.0
PLOT_INCHES = 3.7
X_AXIS_INCHES = 0.55
LINE_INCHES = 0.17


@dataclass(frozen=True)
class Room:
    """Inches of height: above the panels, below them, and of the strip of efficiencies."""

    title: float
    caption: float
    strip: float

    @property
    def height(self) -> float:
        """Of the whole figure."""
        gap = X_AXIS_INCHES + 0.1 if self.strip else 0.0
        return self.title + PLOT_INCHES + gap + self.strip + X_AXIS_INCHES + self.caption


def plot_logs(logs_dir: Path, problems: list[str] | None = None) -> list[Path]:
    """Draw the SVG of each log in a folder (or of one log). What was left out is told in
    `problems`.

    Raises LogsError for a file that is no log, ResultsError where nothing can be written.
    """
    return [plot_log(path, problems) for path in find_logs(logs_dir)]


def plot_log(path: Path, problems: list[str] | None = None) -> Path:
    """Draw one log; returns the path of its SVG, which is beside it."""
    path = Path(path)
    told = [] if problems is None else problems
    rows, left_out = read_log(path)
    told.extend(left_out)
    if rows.empty:
        raise LogsError(f"{path}: there is no run in it", "measure something first")
    svg = path.with_suffix(".svg")
    drawing = draw(rows, read_ideal(path), _newest_steps(path.parent, rows, told))
    with written_beside(svg) as file:
        file.write(drawing)
    return svg


def draw(
    rows: pd.DataFrame,
    ideal: pd.DataFrame | None = None,
    steps: tuple[pd.Series, pd.DataFrame] | None = None,
) -> str:
    """The SVG of a log's rows, as text; `steps` is the newest run's row and its raw steps."""
    lines = points.lines(rows, ideal)
    words = caption(rows, lines)
    room = Room(
        title=0.65 + LINE_INCHES * panels.legend_rows(lines),
        caption=0.15 + LINE_INCHES * (words.count("\n") + 1),
        strip=marks.strip_inches(lines),
    )
    with mpl.rc_context(SVG_STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, room.height))
        canvas = FigureCanvasSVG(figure)
        figure.text(0.02, 1 - 0.3 / room.height, title(rows), fontsize=12, fontweight="bold")
        figure.text(0.02, 0.13 / room.height, words, va="bottom", fontsize=8, linespacing=1.35)
        _panels(figure, room, rows, lines, steps)
        text = io.StringIO()
        canvas.print_svg(text, metadata={"Date": None, "Creator": None})
    return text.getvalue()


def _panels(
    figure: Figure,
    room: Room,
    rows: pd.DataFrame,
    lines: Sequence[Line],
    steps: tuple[pd.Series, pd.DataFrame] | None,
) -> None:
    """Put the panels where title and caption leave room."""
    bottom = (room.caption + X_AXIS_INCHES) / room.height
    top = 1 - room.title / room.height
    widths = (2.6, 1) if steps is not None else (1,)
    grid = figure.add_gridspec(
        1,
        len(widths),
        width_ratios=widths,
        wspace=0.2,
        left=0.1,
        right=0.975,
        top=top,
        bottom=bottom,
    )
    if room.strip:
        heights = (PLOT_INCHES, X_AXIS_INCHES + 0.1, room.strip)
        inner = grid[0].subgridspec(3, 1, height_ratios=heights, hspace=0)
        axes = figure.add_subplot(inner[0])
        panels.scaling(axes, lines, panels.x_name(rows))
        marks.efficiency_strip(figure.add_subplot(inner[2], sharex=axes), lines)
    else:
        panels.scaling(figure.add_subplot(grid[0]), lines, panels.x_name(rows))
    if steps is not None:
        step_times(figure.add_subplot(grid[1]), *steps)


def _newest_steps(
    logs_dir: Path, rows: pd.DataFrame, told: list[str]
) -> tuple[pd.Series, pd.DataFrame] | None:
    """The newest run whose folder is still there, and its raw steps."""
    ordered = rows[rows["run_id"] != ""].sort_values("start_utc", kind="stable")
    for place in reversed(range(len(ordered))):
        row = ordered.iloc[place]
        path = RunFolder(logs_dir, str(row["run_id"])).steps_csv
        with results_errors(path, "look for"):
            if not path.exists():
                continue
        steps = read_steps(path, told)
        if (steps["phase"] == "measured").any():
            return row, steps
    return None

"""`logs/<model>_b<batch>.svg`, drawn from the CSV log alone; and a panel of step times where a run
left its raw ones.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from launcher.errors import LogsError
from launcher.results import panels, points
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
HEIGHT_INCHES = 5.4
LINE_HEIGHT = 0.031  # of a line of the caption, as a part of the figure's height


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
    with mpl.rc_context(SVG_STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES))
        canvas = FigureCanvasSVG(figure)
        words = caption(rows, lines)
        figure.suptitle(title(rows), x=0.02, y=0.965, ha="left", fontsize=12, fontweight="bold")
        figure.text(0.02, 0.025, words, ha="left", va="bottom", fontsize=8, linespacing=1.35)
        _panels(figure, rows, lines, steps, LINE_HEIGHT * (words.count("\n") + 1))
        text = io.StringIO()
        canvas.print_svg(text, metadata={"Date": None, "Creator": None})
    return text.getvalue()


def _panels(
    figure: Figure,
    rows: pd.DataFrame,
    lines: Sequence[Line],
    steps: tuple[pd.Series, pd.DataFrame] | None,
    caption_height: float,
) -> None:
    """Put the panels where title and caption leave room."""
    top = 0.88 - LINE_HEIGHT * panels.legend_rows(lines)
    place = {"left": 0.1, "right": 0.975, "top": top, "bottom": caption_height + 0.13}
    widths = (2.6, 1) if steps is not None else (1,)
    grid = figure.add_gridspec(1, len(widths), width_ratios=widths, wspace=0.2, **place)
    if panels.needs_strip(lines):
        ratios = (1, panels.strip_height(lines))
        inner = grid[0].subgridspec(2, 1, height_ratios=ratios, hspace=0.3)
        axes = figure.add_subplot(inner[0])
        panels.scaling(axes, lines, panels.x_name(rows))
        panels.efficiency_strip(figure.add_subplot(inner[1], sharex=axes), lines)
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

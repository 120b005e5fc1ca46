"""The small panel of a plot: how long each worker's steps took in one run, so that a straggler is
seen.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from launcher.results.points import shape_in_words

COLOUR = "#0072B2"
MOST_WORKERS_NAMED = 16


def worker_times(steps: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Median, 5th and 95th percentile of each worker's measured steps, in seconds, and what was
    timed.

    Where the workers' own compute times are known they are taken: in a synchronous run all wait for
    the slowest, and whole steps look alike.
    """
    measured = steps[steps["phase"] == "measured"]
    own = measured["compute_seconds"].notna().all()
    name = "compute_seconds" if own else "seconds"
    levels = measured.groupby("worker")[name].quantile(np.array([0.05, 0.5, 0.95])).unstack()
    levels.columns = ["low", "median", "high"]
    return levels, "own compute time per step" if own else "step time"


def step_times(axes: Axes, row: pd.Series, steps: pd.DataFrame) -> None:
    """One horizontal bar for each worker, from the 5th to the 95th percentile, with its median."""
    levels, what = worker_times(steps)
    places = np.arange(len(levels))
    milliseconds = levels * 1000
    axes.hlines(
        places, milliseconds["low"], milliseconds["high"], color=COLOUR, linewidth=2, alpha=0.5
    )
    axes.plot(
        milliseconds["median"], places, "o", color=COLOUR, markersize=max(2, 5 - len(levels) / 16)
    )
    axes.set_ylim(len(levels) - 0.4, -0.6)
    axes.set_xlim(0, float(milliseconds["high"].max()) * 1.08)
    axes.set_xlabel(f"{what} [ms]")
    axes.set_ylabel("worker")
    if len(levels) <= MOST_WORKERS_NAMED:
        axes.yaxis.set_major_locator(FixedLocator(places.tolist()))
    names = levels.index.to_list()
    axes.yaxis.set_major_formatter(
        FuncFormatter(
            lambda at, _: str(names[int(at)]) if at == int(at) and 0 <= at < len(names) else ""
        )
    )
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_title(_title(row), fontsize=7.5, loc="left")
    axes.grid(visible=True, axis="x", color="#E4E4E4", linewidth=0.6)
    axes.set_axisbelow(True)


def _title(row: pd.Series) -> str:
    """Which run it was, and how to read a bar."""
    run = f"newest run: {shape_in_words(row['nodes'], row['gpus_per_node'], row['gpus'])}"
    return f"{run}, {row['strategy'].replace('_', ' ')[:24]}\nmedian and 5 to 95 % of steps"

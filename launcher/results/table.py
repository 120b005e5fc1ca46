"""All runs as one table: for notebooks as a CSV with the columns that they know, for people on the
terminal.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Literal

import pandas as pd
from rich.table import Table
from rich.text import Text

from launcher.errors import LogsError
from launcher.jobs.record import job_of
from launcher.results import estimate
from launcher.results.files import is_folder, written_beside
from launcher.results.log import COLUMNS, no_formula
from launcher.results.log_reading import find_logs, named_for, read_log
from launcher.results.points import OLDER_LOG, shape_in_words, text, unusual_computing

# The names that notebooks read, in their order, and where each comes from.
KNOWN = {
    "mean_speed": "mean_speed",
    "Mean_Time_Per_Step": "mean_time",
    "speed_uncertainty": "speed_uncertainty",
    "Speed_Jitter": "speed_jitter",
    "gpu_type": "gpu_type",
    "num_gpu": "gpus",
    "staged_from": "staged_from",
}
OURS = tuple(name for name in COLUMNS if name not in KNOWN.values())
FILE_NAME = "{today:%Y-%m-%d}:TF_PERFORMANCE_RESULTS.csv"
MOST_ROWS_SHOWN = 200
COLUMNS_SHOWN = (
    "when",
    "model",
    "batch",
    "n × g",
    "strategy",
    "images/sec",
    "± 95 %",
    "ms/step",
)
PADDING = (0, 1, 0, 0)
MAY_WRAP = ("model", "strategy")  # where there are but 80 columns
WORDS = ("when", "model", "strategy")
_LOGS_OF_JOBS = "jobs/*/*.csv"


def collect(logs_dir: Path, problems: list[str] | None = None) -> pd.DataFrame:
    """The rows of all logs of a folder (or of one log), oldest first. Raises LogsError."""
    rows = pd.concat(_tables(logs_dir, problems), ignore_index=True)
    return rows.sort_values("start_utc", kind="stable", ignore_index=True)


def write_results_table(
    logs_dir: Path, out: Path, today: date, problems: list[str] | None = None
) -> Path:
    """Write all runs as one CSV and return its path.

    `out` is a folder, where the file is named for `today`, or the file itself (what has no ending
    like `.csv` is a folder). One log is held at a
    time. Raises LogsError and ResultsError.
    """
    out = Path(out)
    is_file = bool(out.suffix) and not is_folder(out)
    path = out if is_file else out / FILE_NAME.format(today=today)
    with written_beside(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["", *KNOWN, *OURS, "job"])
        number = 0
        for rows in _tables(logs_dir, problems):
            for row in _for_notebooks(rows).itertuples(index=False):
                cells = (text(c) if isinstance(c, float) else no_formula(c) for c in row)
                writer.writerow([number, *cells])
                number += 1
    return path


def results_table(rows: pd.DataFrame, most: int = MOST_ROWS_SHOWN) -> Table:
    """The newest `most` rows for a terminal of 80 columns or more."""
    shown = rows.tail(most)
    if "job" not in shown:  # rows of one log, as it was read
        shown = shown.assign(job="")
    hidden = len(rows) - len(shown)
    caption = f"{hidden} older runs are in the CSV alone" if hidden else None
    table = Table(caption=caption, pad_edge=False, box=None, header_style="bold", padding=PADDING)
    for name in COLUMNS_SHOWN:
        justify: Literal["left", "right"] = "left" if name in WORDS else "right"
        may_wrap = name in MAY_WRAP or (name == "when" and any(shown["job"]))
        table.add_column(name, justify=justify, no_wrap=not may_wrap, overflow="fold")
    for _, row in shown.iterrows():
        table.add_row(*(Text(cell) for cell in _cells(row)))
    return table


def _tables(logs_dir: Path, problems: list[str] | None) -> Iterator[pd.DataFrame]:
    for path in _all_logs(logs_dir):
        rows, left_out = read_log(path)
        if problems is not None:
            problems.extend(left_out)
        yield _of_job(rows, path)


def _all_logs(logs_dir: Path) -> list[Path]:
    """The logs of a folder, and those of the matrices that were submitted with it."""
    own: list[Path] = []
    try:
        own = find_logs(logs_dir)
    except LogsError:
        if not is_folder(logs_dir) or not any(Path(logs_dir).glob(_LOGS_OF_JOBS)):
            raise
    of_jobs = Path(logs_dir).glob(_LOGS_OF_JOBS) if is_folder(logs_dir) else ()
    return [*own, *sorted(path for path in of_jobs if named_for(path)[0])]


def _of_job(rows: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The rows with the job that they are from, and with the matrix's name for where it worked,
    where no data was read.
    """
    job = job_of(path)
    if job is None:
        return rows.assign(job="")
    return rows.assign(
        job=job.name,
        staged_from=rows["staged_from"].where(rows["staged_from"] != "", job.staged_from),
    )


def _for_notebooks(rows: pd.DataFrame) -> pd.DataFrame:
    """The known columns under their known names, and ours behind. Without GPUs the type is the
    device.
    """
    filled = rows.assign(
        mean_speed=rows["mean_speed"].fillna(rows["images_per_sec"]),
        gpu_type=rows["gpu_type"].where(rows["gpu_type"] != "", rows["device"]),
    )
    known = filled[list(KNOWN.values())].set_axis(list(KNOWN), axis="columns")
    return pd.concat([known, filled[[*OURS, "job"]]], axis="columns")


def _when(row: pd.Series) -> str:
    """The day; of a job the day in its name, and behind a blank, where a line may end, the rest."""
    job: str = row["job"]
    return f"{job[:10]} {job[11:]}" if job else str(row["start_utc"])[:10]


def _cells(row: pd.Series) -> Iterable[str]:
    speed = estimate.from_row(
        row["images_per_sec"], row["ci_low"], row["ci_high"], row["ci_method"]
    )
    strategy = row["strategy"].replace("_", " ") or OLDER_LOG
    if row["sync"] == "False":
        strategy = f"async {strategy}"
    return (
        _when(row),
        row["model"],
        text(row["batch_per_gpu"]),
        shape_in_words(row["nodes"], row["gpus_per_node"], row["gpus"]),
        ", ".join([strategy, *unusual_computing(row)]),
        f"{speed.value:,.1f}",
        "" if speed.half_width != speed.half_width else f"{speed.half_width:.1%}",
        "" if row["mean_time"] != row["mean_time"] else f"{1000 * row['mean_time']:,.1f}",
    )

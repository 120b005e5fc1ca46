"""What the two things are that a person wants compared: a log, a folder of logs, or a run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from launcher.errors import LogsError
from launcher.results.estimate import Estimate, from_steps
from launcher.results.files import is_file, is_folder
from launcher.results.log_reading import find_logs, read_log
from launcher.results.run_folder import RunFolder
from launcher.results.steps import read_steps
from launcher.results.table import collect
from launcher.results.timeline import run_steps

MEND = "name a CSV log, a folder of logs, or a run id from `runtest table`"


def side(what: str, logs_dir: Path, problems: list[str] | None = None) -> pd.DataFrame:
    """The rows that `what` names: the path of a log or of a folder of logs, a run's folder, or a
    run id.

    A run id is looked for in `logs_dir`; its beginning is enough where only one run has it. Rows
    without an interval get one from the run's raw steps, where these are there. Raises LogsError.
    """
    if not what.strip():
        raise LogsError("nothing was named to be compared", MEND)
    path = Path(what)
    told = [] if problems is None else problems
    if is_file(path):
        rows, left_out = read_log(path)
        told.extend(left_out)
        logs_dir = path.parent
    elif is_file(path / "steps.csv"):
        logs_dir = path.resolve().parents[1]
        rows = _run(path.resolve().name, logs_dir, told)
    elif is_folder(path):
        rows, logs_dir = collect(path, told), path
    else:
        rows = _run(what, logs_dir, told)
    if rows.empty:
        raise LogsError(f"{what}: there is no run in it", "measure something first")
    return _with_intervals(rows, logs_dir, told)


def _run(run_id: str, logs_dir: Path, problems: list[str]) -> pd.DataFrame:
    """The row of one run."""
    nothing = f"{run_id}: there is no such file, folder, or run in {logs_dir}"
    if not is_folder(Path(logs_dir)):
        raise LogsError(nothing, MEND)
    rows = pd.concat([read_log(path)[0] for path in find_logs(logs_dir)], ignore_index=True)
    found = rows[rows["run_id"] == run_id]
    if found.empty:
        found = rows[rows["run_id"].str.startswith(run_id)]
    if found.empty:
        raise LogsError(nothing, MEND)
    if len(found) > 1:
        some = ", ".join(found["run_id"].head(3))
        raise LogsError(f"{run_id} is the beginning of {len(found)} runs ({some} ...)", MEND)
    return found


def _with_intervals(rows: pd.DataFrame, logs_dir: Path, problems: list[str]) -> pd.DataFrame:
    """The rows, with the batch means of raw steps where a row has no interval of its own."""
    without = rows["ci_low"].isna() & (rows["run_id"] != "")
    if not without.any():
        return rows.reset_index(drop=True)
    speeds = [
        _from_raw_steps(row, logs_dir, problems) if missing else None
        for missing, (_, row) in zip(without, rows.iterrows(), strict=True)
    ]
    filled = rows.reset_index(drop=True)
    for column, fact in (("ci_low", "low"), ("ci_high", "high"), ("ci_method", "method")):
        known = filled[column].to_list()
        filled[column] = [
            old if speed is None else getattr(speed, fact)
            for old, speed in zip(known, speeds, strict=True)
        ]
    return filled


def _from_raw_steps(row: pd.Series, logs_dir: Path, problems: list[str]) -> Estimate | None:
    path = RunFolder(logs_dir, str(row["run_id"])).steps_csv
    if not path.exists():
        return None
    steps = read_steps(path, problems)
    backup = row["backup_workers"]
    try:
        run = run_steps(
            steps,
            batch_per_gpu=int(row["batch_per_gpu"]),
            sync=row["sync"] != "False",
            backup_workers=int(backup) if backup > 0 else 0,
        )
    except ValueError as error:
        raise LogsError(f"{path}: {error}", "measure that run again") from error
    return from_steps(run.seconds, run.images_per_step)

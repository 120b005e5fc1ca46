"""`steps.csv`: every step of every worker, as it was timed. All printed numbers can be computed
from it.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

import pandas as pd

from launcher.errors import LogsError
from launcher.results.files import whole_lines
from launcher.results.step_records import (
    COLUMNS,
    FRACTIONS,
    NEEDED,
    WHOLE_NUMBERS,
    Phase,
    cells_of,
)
from launcher.results.step_records import PARTS as PARTS
from launcher.results.step_records import StepRecord as StepRecord
from launcher.results.step_records import write_steps as write_steps
from launcher.text import printable


def frame(records: Iterable[StepRecord]) -> pd.DataFrame:
    """The records as the table that `read_steps` would give of them."""
    table = pd.DataFrame([cells_of(record) for record in records], columns=list(COLUMNS))
    return _typed(table)


def read_steps(path: Path, problems: list[str] | None = None) -> pd.DataFrame:
    """The table of `steps.csv`. A cut-off last line is left out and told in `problems`.

    Raises LogsError, with file and line, for what is no such table.
    """
    try:
        whole, rest = whole_lines(Path(path).read_bytes())
    except OSError as error:
        raise LogsError(f"{path}: {error.strerror}", "name a run that is in the logs") from error
    if rest and problems is not None:
        lines = whole.count(b"\n") + 1
        problems.append(f"{path}, line {lines}: the last line is cut off and was left out")
    try:
        table = pd.read_csv(io.BytesIO(whole), keep_default_na=False, dtype=str)
        if missing := [name for name in NEEDED if name not in table.columns]:
            raise LogsError(f"{path}, line 1: no column {missing[0]}", "name a steps.csv")
        table = _typed(table.reindex(columns=list(COLUMNS), fill_value=""))
    except (ValueError, OverflowError) as error:  # pandas' parser errors are ValueErrors too
        raise LogsError(f"{path}, {_first_bad_line(whole)}", "measure that run again") from error
    return table


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """Columns with their types; ValueError where a cell does not fit."""
    columns: dict[str, pd.Series] = {}
    for name in COLUMNS:
        column = table[name]
        if name in WHOLE_NUMBERS:
            column = column.astype("int64")
        elif name in FRACTIONS:
            column = column.replace("", "nan").astype("float64")
        columns[name] = column
    if not columns["phase"].isin(get_args(Phase)).all():
        raise ValueError("a phase is neither warmup nor measured")
    if not (columns["seconds"] > 0).all() or (columns["seconds"] == math.inf).any():
        raise ValueError("a step took no time")
    return pd.DataFrame(columns)


def _first_bad_line(whole: bytes) -> str:
    """`line N: why` for the first line that is no step. Slow, and only called when there is one."""
    rows = csv.reader(io.StringIO(whole.decode("utf-8", "replace")))
    try:
        header = next(rows, [])
        if len(set(header)) < len(header):
            return "line 1: a column is there twice"
        for cells in rows:
            if problem := _what_is_wrong(header, cells):
                return f"line {rows.line_num}: {problem}"
    except csv.Error as error:
        return f"line {rows.line_num}: {error}"
    return "line 1: this is no table of steps"


def _what_is_wrong(header: list[str], cells: list[str]) -> str:
    if len(cells) != len(header):
        return f"{len(cells)} cells where the header has {len(header)}"
    one = pd.DataFrame([cells], columns=header).reindex(columns=list(COLUMNS), fill_value="")
    try:
        _typed(one)
    except (ValueError, OverflowError) as error:
        return printable(str(error), 200)
    return ""

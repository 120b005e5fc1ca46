"""Reads the logs back: those with a header, and the headerless two-column ones of the older
scripts.
"""

from __future__ import annotations

import csv
import io
import math
import re
import sys
from array import array
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pandas as pd

from launcher.errors import LogsError
from launcher.results.files import is_file, is_folder, whole_lines
from launcher.results.log import COLUMNS, LEGACY_COLUMNS, RunRow, is_header
from launcher.text import plain

_TYPES = {field.name: str(field.type) for field in fields(RunRow)}
NUMBERS = tuple(name for name in COLUMNS if _TYPES[name] in ("int", "float"))
_COUNTS = frozenset(name for name in COLUMNS if _TYPES[name] == "int")
_MOST = 1e15
NEEDED = LEGACY_COLUMNS
SYNC = {
    "true": "True",
    "1": "True",
    "sync": "True",
    "false": "False",
    "0": "False",
    "async": "False",
}
MEND = "mend or remove that line; the other rows are whole"


def read_log(path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The rows of a log as a table with the columns of `RunRow`, and what was left out of them and
    why.

    Numbers are floats, nan where a log has none; everything else is text, empty where a log has
    none. A log without a header has `gpus,images_per_sec` in each line, and its name says model and
    batch size. Raises LogsError, with file and line, for a file that is no log.
    """
    path = Path(path)
    lines, problems = _lines(path)
    rows = csv.reader(lines)
    try:
        first = next(rows, None)
    except csv.Error as error:
        raise LogsError(f"{path}, line 1: {error}", MEND) from error
    header = [cell.strip() for cell in first] if first and is_header(first) else None
    table: dict[str, list[str] | array[float]] = {
        name: array("d") if name in NUMBERS else [] for name in COLUMNS
    }
    if first and header is None:
        _keep(table, _row(path, 1, None, first))
    try:
        for cells in rows:
            if any(cell.strip() for cell in cells):
                _keep(table, _row(path, rows.line_num, header, cells))
    except csv.Error as error:
        raise LogsError(f"{path}, line {rows.line_num}: {error}", MEND) from error
    columns = {
        name: pd.Series(cells, dtype="float64" if name in NUMBERS else "str")
        for name, cells in table.items()
    }
    return _filled(pd.DataFrame(columns), path), problems


def read_ideal(path: Path) -> pd.DataFrame | None:
    """The ideal line that an older script wrote beside the log at `path`, if it did: gpus,
    images_per_sec.
    """
    ideal = Path(path).with_name(Path(path).name + ".ideal")
    if not ideal.exists():
        return None
    table, _ = read_log(ideal)
    return table[list(LEGACY_COLUMNS)].sort_values("gpus", ignore_index=True)


def find_logs(logs_dir: Path) -> list[Path]:
    """The logs of a folder, by name. Raises LogsError when there is no such folder or no log
    in it.
    """
    folder = Path(logs_dir)
    if is_file(folder):
        return [folder]
    if not is_folder(folder):
        raise LogsError(f"{folder}: there is no such folder", "name the folder that holds the logs")
    found = sorted(path for path in folder.glob("*.csv") if named_for(path)[0])
    if not found:
        raise LogsError(f"{folder}: there is no log in it", "measure something first")
    return found


def named_for(path: Path) -> tuple[str, float]:
    """Model and batch size that the name of a log says, or nothing and nan."""
    match = re.match(r"(?P<model>.+)_b(?P<batch>\d+)\.csv(\.ideal)?$", Path(path).name)
    return (match["model"], float(match["batch"])) if match else ("", math.nan)


def _lines(path: Path) -> tuple[Iterator[str], tuple[str, ...]]:
    """The whole lines of a log, and what is to be said of a cut-off one."""
    try:
        whole, rest = whole_lines(path.read_bytes())
        text = whole.decode("utf-8-sig")
    except OSError as error:
        raise LogsError(f"{path}: {error.strerror}", "name a log that is there") from error
    except UnicodeDecodeError as error:
        line = whole[: error.start].count(b"\n") + 1
        raise LogsError(f"{path}, line {line}: this is not text", MEND) from error
    problems: tuple[str, ...] = ()
    if rest.strip():
        line = whole.count(b"\n") + 1
        problems = (
            f"{path}, line {line}: the last line is cut off and was left out "
            "(if it is whole, end it with a line break)",
        )
    return iter(io.StringIO(text, newline="")), problems


def _row(path: Path, line: int, header: list[str] | None, cells: list[str]) -> dict[str, str]:
    names = header or list(LEGACY_COLUMNS)
    if len(cells) != len(names):
        what = (
            f"{len(cells)} cells where the header has {len(names)}"
            if header
            else "neither a header with gpus and images_per_sec nor a line gpus,images_per_sec"
        )
        raise LogsError(f"{path}, line {line}: {what}", MEND)
    row = dict(zip(names, (plain(cell).strip() for cell in cells), strict=True))
    _check(path, line, row)
    return row


def _check(path: Path, line: int, row: dict[str, str]) -> None:
    for name in NUMBERS:
        text = row.get(name, "")
        try:
            number = float(text or "nan")
        except ValueError:
            what = f"{name} is {text[:40]!r}, which is no number"
            raise LogsError(f"{path}, line {line}: {what}", MEND) from None
        if name == "ci_high" and number == math.inf:
            continue  # the noise was as large as the mean
        if abs(number) > _MOST or (name in _COUNTS and not _is_count(number)):
            what = f"{name} is {text[:40]!r}, which cannot be"
            raise LogsError(f"{path}, line {line}: {what}", MEND)
        if name in NEEDED and not 0 < number < math.inf:
            what = f"{name} is {text[:40]!r}, which is no positive number"
            raise LogsError(f"{path}, line {line}: {what}", MEND)


def _is_count(number: float) -> bool:
    return math.isnan(number) or (number == int(number) and number >= 0)


def _keep(table: dict[str, list[str] | array[float]], row: dict[str, str]) -> None:
    for name, column in table.items():
        text = row.get(name, "")
        if isinstance(column, array):
            column.append(float(text or "nan"))
        else:
            column.append(sys.intern(text))  # thousands of rows share a few texts


def _filled(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Model and batch size from the file's name where the rows do not say them."""
    model, batch = named_for(path)
    table["model"] = table["model"].where(table["model"] != "", model)
    table["batch_per_gpu"] = table["batch_per_gpu"].fillna(batch)
    for name in ("cpus_per_worker", "intra_op_threads", "inter_op_threads"):
        table[name] = table[name].fillna(0)
    # What there was before there was a choice.
    for name, usual in (("xla", "off"), ("onednn", "on")):
        table[name] = table[name].where(table[name] != "", usual)
    table["sync"] = table["sync"].str.lower().map(SYNC).fillna("")
    return table

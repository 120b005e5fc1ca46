"""`logs/<model>_b<batch>.csv`: one row per run, appended as soon as the run has ended."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from filelock import FileLock, Timeout

from launcher.errors import ResultsError
from launcher.results.files import results_errors, safe_name, whole_lines, written_beside
from launcher.text import plain

LOCK_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class RunRow:
    """One row. The fields are the columns, in their order; times in seconds, speeds in images per
    second.

    aggregate: `node` where gradients were added up on each node, else empty.  gradient_dtype: what
    they travelled as, empty for fp32.  bottleneck: what held the run up, where it is known.
    communication: ring or nccl where all_reduce was told so, else empty.
    """

    run_id: str
    start_utc: str
    model: str
    batch_per_gpu: int
    nodes: int
    gpus_per_node: int
    gpus: int
    strategy: str
    sync: bool
    parameter_servers: int
    backup_workers: int
    precision: str
    device: str
    gpu_type: str
    machines: int
    data: str
    staged_from: str
    warmup_steps: int
    measured_steps: int
    images_per_sec: float
    mean_time: float
    mean_speed: float
    speed_uncertainty: float
    speed_jitter: float
    p50: float
    p95: float
    max: float
    ci_low: float
    ci_high: float
    ci_method: str
    sweep_id: str = ""
    repeat: int = 0
    cpus_per_worker: int = 0
    binding: str = ""
    xla: str = "off"
    onednn: str = "on"
    intra_op_threads: int = 0
    inter_op_threads: int = 0
    aggregate: str = ""
    gradient_dtype: str = ""
    bottleneck: str = ""
    tensorflow: str = ""
    keras: str = ""
    python: str = ""
    perftest: str = ""
    git_commit: str = ""
    warnings: str = ""
    communication: str = ""


COLUMNS = tuple(field.name for field in fields(RunRow))
LEGACY_COLUMNS = ("gpus", "images_per_sec")


def log_path(logs_dir: Path, model: str, batch_per_gpu: int) -> Path:
    """The log of all runs of a model with a batch size."""
    return Path(logs_dir) / f"{safe_name(model)}_b{batch_per_gpu}.csv"


def append_row(path: Path, row: RunRow) -> tuple[str, ...]:
    """Add a row to the log at `path`, which is made if it is not there; returns what had to be
    mended first.

    A lock keeps other launchers out. The row is one write, on the disk before this returns, and
    taken back when it fails half way. Raises ResultsError.
    """
    path = Path(path)
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=LOCK_TIMEOUT_SECONDS)
    with results_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with lock:
                return _append_locked(path, asdict(row))
        except csv.Error as error:
            raise ResultsError(
                f"{path}: {error}", "move that file away, and measure again"
            ) from error
        except Timeout as error:
            mend = "see whether another runtest hangs"
            raise ResultsError(
                f"{path}: another program has held its lock for a minute", mend
            ) from error


def is_header(cells: Iterable[str]) -> bool:
    """Whether this first line of a log names columns; the older scripts wrote logs without such a
    line.
    """
    names = {cell.strip() for cell in cells}
    return names.issuperset(LEGACY_COLUMNS)


def _append_locked(path: Path, row: Mapping[str, object]) -> tuple[str, ...]:
    mended = _set_aside_cut_off_line(path)
    first = _first_line(path)
    header = list(COLUMNS)
    if first and is_header(first):
        header = first
        if missing := [name for name in COLUMNS if name not in first]:
            header = first + missing
            _widen(path, header, skip=1, old=first)
            mended += (f"{path}: got the columns {', '.join(missing)}, empty in older rows",)
    elif first:
        _widen(path, header, skip=0, old=list(LEGACY_COLUMNS))
        mended += (f"{path}: the rows of an older script got a header, and empty columns",)
    text = _csv_line([row.get(name, "") for name in header])
    _append_bytes(path, (text if first else _csv_line(header) + text).encode())
    return mended


def _set_aside_cut_off_line(path: Path) -> tuple[str, ...]:
    """Move a last line without its line break to `<log>.cut-off`, so that nothing merges with
    it.
    """
    if not path.exists():
        return ()
    whole, rest = whole_lines(path.read_bytes())
    if not rest:
        return ()
    beside = path.with_name(path.name + ".cut-off")
    _append_bytes(beside, rest + b"\n")
    os.truncate(path, len(whole))
    return (f"{path}: its last line was cut off; what there was of it is in {beside.name} now",)


def _first_line(path: Path) -> list[str]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        return next(csv.reader(file), [])


def _widen(path: Path, header: list[str], *, skip: int, old: list[str]) -> None:
    """Write the log again with more columns. The rows stay, in their order, as text."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as before:
        rows = csv.reader(before)
        for _ in range(skip):
            next(rows)
        with written_beside(path) as after:
            after.write(_csv_line(header))
            for cells in rows:
                if not any(cells):
                    continue
                known = dict(zip(old, cells, strict=False))
                after.write(_csv_line([known.get(name, "") for name in header]))


def _append_bytes(path: Path, data: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(file).st_size
        try:
            written = os.write(file, data)
            if written < len(data):
                raise OSError(28, "the disk took only a part of the row, which was taken back")
            os.fsync(file)
        except OSError:
            os.ftruncate(file, size)
            raise
    finally:
        os.close(file)


def _csv_line(cells: Iterable[object]) -> str:
    """One line: what would be a line break inside a cell is a blank, so that a line is always a
    row.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(_one_line(cell) for cell in cells)
    return text.getvalue()


def no_formula(cell: str) -> str:
    """A text that no spreadsheet takes for a formula: nodes say what stands in some cells."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@")) else cell


def _one_line(cell: object) -> object:
    if isinstance(cell, str):
        return no_formula(" ".join(plain(cell).split()))
    return "" if cell is None or cell != cell else cell

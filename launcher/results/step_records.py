"""A step of a worker as it was timed, and `steps.csv`, which has all of them. Needs no pandas."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from launcher.results.files import written_beside

Phase = Literal["warmup", "measured"]

COLUMNS = (
    "worker",
    "node",
    "step",
    "phase",
    "seconds",
    "loss",
    "global_step",
    "compute_seconds",
    "pull_seconds",
    "push_seconds",
    "wait_seconds",
    "cpu_seconds",
)
# Older tables have no more.
NEEDED = COLUMNS[:7]
WHOLE_NUMBERS = ("worker", "step", "global_step")
PARTS = ("pull_seconds", "push_seconds", "wait_seconds")
FRACTIONS = ("seconds", "loss", "compute_seconds", "cpu_seconds", *PARTS)


@dataclass(frozen=True)
class StepRecord:
    """One step of one worker.

    `step` counts from 0 over warm-up and measured steps together. `seconds` is the whole step by
    the worker's monotonic clock, `compute_seconds` the worker's own part of it (nan where it is not
    known), and `global_step` the number of updates that the parameters had had when the step ended.
    The other parts are as in `StepTimes` (nan where not known).
    """

    worker: int
    node: str
    step: int
    phase: Phase
    seconds: float
    compute_seconds: float
    loss: float
    global_step: int
    pull_seconds: float = math.nan
    push_seconds: float = math.nan
    wait_seconds: float = math.nan
    cpu_seconds: float = math.nan


def write_steps(path: Path, records: Iterable[StepRecord]) -> Path:
    """Write `steps.csv`, whole or not at all. Raises ResultsError."""
    with written_beside(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for record in records:
            cells = cells_of(record)
            writer.writerow("" if _is_nan(cell) else cell for cell in cells)
    return path


def cells_of(record: StepRecord) -> tuple[object, ...]:
    """What stands in its line of the table."""
    return tuple(getattr(record, name) for name in COLUMNS)


def _is_nan(cell: object) -> bool:
    return isinstance(cell, float) and math.isnan(cell)

"""The course of a training: what its workers tell, as rows of `metrics.csv` and `progress.csv`.

Both files are written anew at the end of every epoch and after every evaluation, whole or not at
all, so that a launcher that is killed leaves what was known by then.
"""

from __future__ import annotations

import csv
import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TextIO

from launcher.results.files import write_whole
from perftest.protocol import TRAIN, Evaluated, Progress, RocCurve, Saved, TrainingStarts


@dataclass(frozen=True)
class MetricsRow:
    """One pass over a split of the data. What a pass does not have is NaN, or an empty text.

    epoch: epochs trained on when it was over.  loss: mean over its samples (weighted, when
    evaluating).  images_per_sec: of all workers together.  seconds: what it took, by the slowest
    worker's clock.  checkpoint: the one that was saved at its end.
    """

    epoch: int
    split: str
    samples: int
    loss: float
    accuracy: float
    weighted_accuracy: float
    auc: float
    images_per_sec: float
    seconds: float
    checkpoint: str


@dataclass(frozen=True)
class ProgressRow:
    """One report of one worker; `clock` is the launcher's, in seconds since the run began."""

    clock: float
    worker: int
    epoch: int
    step: int
    loss: float
    images: int
    seconds: float


@dataclass
class _Epoch:
    """What the workers have told of the epoch that goes on."""

    images: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    seconds: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    losses: list[tuple[float, int]] = field(default_factory=list)

    def row(self, number: int) -> MetricsRow:
        images, slowest = sum(self.images.values()), max(self.seconds.values())
        counted = sum(count for _, count in self.losses)
        loss = sum(loss * count for loss, count in self.losses) / counted if counted else math.nan
        return MetricsRow(
            epoch=number + 1,
            split=TRAIN,
            samples=images,
            loss=loss,
            accuracy=math.nan,
            weighted_accuracy=math.nan,
            auc=math.nan,
            images_per_sec=images / slowest,
            seconds=slowest,
            checkpoint="",
        )


class Course:
    """Gathers what worker 0, and of their progress all workers, tell.

    Attributes: starts (what lay before them, once known); rows; curve (of the ROC, once known).
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.starts: TrainingStarts | None = None
        self.rows: list[MetricsRow] = []
        self.curve: RocCurve | None = None
        self.metrics_csv = folder / "metrics.csv"
        self._progress_csv = folder / "progress.csv"
        self._clock = clock
        self._began = clock()
        self._progress: list[ProgressRow] = []
        self._epochs: dict[int, _Epoch] = {}
        self._closed: dict[int, int] = {}  # epoch -> the place of its row

    def take(self, message: Any) -> None:
        """News of worker 0. Raises ResultsError when it cannot be written."""
        if isinstance(message, TrainingStarts):
            self.starts = message
        elif isinstance(message, Evaluated):
            self._close_epochs(message.epoch)
            self.rows.append(_evaluation(message))
            self.write()
        elif isinstance(message, Saved):
            self._close_epochs(message.epoch)
            self._note_checkpoint(message)
            self.write()
        elif isinstance(message, RocCurve):
            self.curve = message

    def take_progress(self, worker: int, message: Progress) -> None:
        """A worker's report of some steps."""
        loss = math.nan if message.loss is None else message.loss
        epoch = self._epochs.setdefault(message.epoch, _Epoch())
        epoch.images[worker] += message.images
        epoch.seconds[worker] += message.seconds
        if not math.isnan(loss):
            epoch.losses.append((loss, message.images))
        passed = round(self._clock() - self._began, 3)
        row = ProgressRow(
            passed, worker, message.epoch, message.step, loss, message.images, message.seconds
        )
        self._progress.append(row)
        if (place := self._closed.get(message.epoch)) is not None:
            # Another worker is behind worker 0, which has told of the epoch's end: asynchronous
            # ones go their own ways, and news of two nodes may come in any order.
            late = epoch.row(message.epoch)
            self.rows[place] = replace(late, checkpoint=self.rows[place].checkpoint)

    def end(self) -> None:
        """Count what there is of the last epoch, and write both files. Raises ResultsError."""
        self._close_epochs(1 << 31)
        self.write()

    def write(self) -> None:
        """Write both files. Raises ResultsError."""
        _write(self.metrics_csv, MetricsRow, self.rows)
        _write(self._progress_csv, ProgressRow, self._progress)

    def _close_epochs(self, trained: int) -> None:
        """Make rows of the epochs that are over, in their order."""
        for number in sorted(self._epochs.keys() - self._closed.keys()):
            if number < trained:
                self._closed[number] = len(self.rows)
                self.rows.append(self._epochs[number].row(number))

    def _note_checkpoint(self, saved: Saved) -> None:
        for place in reversed(range(len(self.rows))):
            row = self.rows[place]
            if row.split == TRAIN and row.epoch == saved.epoch:
                self.rows[place] = replace(row, checkpoint=saved.checkpoint)
                return


def _evaluation(message: Evaluated) -> MetricsRow:
    return MetricsRow(
        epoch=message.epoch,
        split=message.split,
        samples=message.samples,
        loss=math.nan if message.loss is None else message.loss,
        accuracy=message.accuracy,
        weighted_accuracy=message.weighted_accuracy,
        auc=math.nan if message.auc is None else message.auc,
        images_per_sec=message.samples / message.seconds if message.seconds > 0 else math.nan,
        seconds=message.seconds,
        checkpoint="",
    )


def _write(path: Path, kind: type, rows: Sequence[Any]) -> None:
    def write(file: TextIO) -> None:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([f.name for f in fields(kind)])
        writer.writerows([[_cell(value) for value in astuple(row)] for row in rows])

    write_whole(path, write)


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.10g}"
    return value

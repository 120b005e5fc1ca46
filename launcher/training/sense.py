"""What of a worker's news of its training no honest worker would send."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from perftest.protocol import (
    TEST,
    TRAIN,
    VALIDATION,
    Evaluated,
    Job,
    Progress,
    RocCurve,
    Saved,
    Staged,
    TrainingStarts,
)

TRAINING_MESSAGES = (Staged, TrainingStarts, Progress, Evaluated, Saved, RocCurve)

_MOST_POINTS = 2_100  # of a curve of 2,000, with its ends


def what_is_wrong(message: Any, job: Job, worker: int) -> str:
    """The reason why this cannot be true of such a job, as "that ...", or nothing."""
    if isinstance(message, Staged):
        return "" if min(message.seconds, message.files, message.bytes) >= 0 else "that is negative"
    training = job.training
    if training is None:
        return "of a training, and this is a measurement"
    if worker != 0 and not isinstance(message, Progress):
        return "that is worker 0's to send"
    check: Callable[[Any, int], str] = _CHECKS[type(message)]
    return check(message, training.epochs)


def _starts(message: TrainingStarts, epochs: int) -> str:
    counts = (message.train_samples, message.validation_samples, message.test_samples)
    if min(*counts, message.steps_per_epoch) < 0:
        return "that is negative"
    return _epoch(message.first_epoch, epochs)


def _progress(message: Progress, epochs: int) -> str:
    if message.images < 0 or message.step < 0 or not message.seconds > 0:
        return "that is negative, or took no time"
    return _epoch(message.epoch, epochs)


def _evaluated(message: Evaluated, epochs: int) -> str:
    if message.split not in (TRAIN, VALIDATION, TEST):
        return "of no known split"
    shares = (message.accuracy, message.weighted_accuracy, message.auc or 0.0)
    if message.samples < 1 or not all(_is_share(share) for share in shares):
        return "with figures that none can have"
    return _epoch(message.epoch, epochs)


def _saved(message: Saved, epochs: int) -> str:
    return _epoch(message.epoch, epochs)


def _curve(message: RocCurve, epochs: int) -> str:
    false, true, cut = message.false_positive_rates, message.true_positive_rates, message.cut
    fits = len(false) == len(true) <= _MOST_POINTS and len(cut) in (0, 2) and len(false) >= 2
    return "" if fits and all(map(_is_share, (*false, *true, *cut))) else "that is no ROC curve"


def _epoch(epoch: int, epochs: int) -> str:
    # A checkpoint may be of a longer training than the one that goes on from it.
    return "" if 0 <= epoch < 1 << 31 else f"of epoch {epoch} of {epochs}"


def _is_share(value: float) -> bool:
    return math.isfinite(value) and -1e-9 <= value <= 1 + 1e-9


_CHECKS: dict[type, Callable[[Any, int], str]] = {
    TrainingStarts: _starts,
    Progress: _progress,
    Evaluated: _evaluated,
    Saved: _saved,
    RocCurve: _curve,
}

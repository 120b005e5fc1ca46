"""From the steps of single workers to the steps of the run: the t_i that every figure is made of.
Pure.

All timelines start at 0, where all workers pass the barrier in front of their first measured step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RunSteps:
    """`seconds[i]` is the time of the run's step i; each step trains `images_per_step` images."""

    seconds: Floats
    images_per_step: float


def run_steps(
    steps: pd.DataFrame, *, batch_per_gpu: int, sync: bool = True, backup_workers: int = 0
) -> RunSteps:
    """The steps of a run from `steps`, the table of `steps.csv`. Raises ValueError when there are
    none.
    """
    measured = steps[steps["phase"] == "measured"]
    workers = measured["worker"].nunique()
    if not workers:
        raise ValueError("there is no measured step")
    if measured.duplicated(["worker", "step"]).any():
        raise ValueError("a worker has two times for one step")
    if not sync:
        return RunSteps(_completions(measured, workers), float(workers * batch_per_gpu))
    if not backup_workers:
        return RunSteps(_slowest(measured), float(workers * batch_per_gpu))
    if backup_workers >= workers:
        raise ValueError(f"{backup_workers} backup workers of {workers} leave none to train")
    seconds = _updates(steps, measured)
    return RunSteps(seconds, float((workers - backup_workers) * batch_per_gpu))


def _slowest(measured: pd.DataFrame) -> Floats:
    """Synchronous: the slowest worker's time, for each step that all workers have ended."""
    wide = measured.pivot(index="step", columns="worker", values="seconds").dropna()
    if wide.empty:
        raise ValueError("no measured step was ended by all workers")
    return wide.max(axis="columns").to_numpy(dtype=float)


def _completions(measured: pd.DataFrame, workers: int) -> Floats:
    """Asynchronous: the time for every N completed steps of N workers, whichever workers they are
    of.

    The window ends where the first worker has no step left, so that all are at work in all of it.
    """
    _, ended_at = _ended_at(measured)
    group_ends = np.sort(ended_at.to_numpy())[workers - 1 :: workers]
    if not len(group_ends):
        raise ValueError("no global batch was ended while all workers were at work")
    return _spread_ties(group_ends)


def _updates(steps: pd.DataFrame, measured: pd.DataFrame) -> Floats:
    """Backup workers: the time between updates, each seen when the first worker sees it."""
    within, ended_at = _ended_at(measured)
    warmup = steps.loc[steps["phase"] == "warmup", "global_step"]
    before = int(warmup.max() if len(warmup) else measured["global_step"].min() - 1)
    seen = pd.DataFrame({"update": within["global_step"], "at": ended_at}).sort_values("at")
    # The newest update that anybody has seen by each moment; a worker may see an older one later.
    newest = seen["update"].cummax().to_numpy()
    # Workers that wait train on, and nobody counts those steps; but there is an end to it.
    if not before < newest[-1] <= before + 1000 + 10 * len(steps):
        raise ValueError("the steps do not say which updates they saw")
    updates = np.arange(before + 1, newest[-1] + 1)
    first_seen = seen["at"].to_numpy()[np.searchsorted(newest, updates)]
    return _spread_ties(first_seen)


def _ended_at(measured: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    """The steps that ended while all workers were at work, and when, in seconds since the
    barrier.
    """
    ordered = measured.sort_values(["worker", "step"])
    ended_at = ordered.groupby("worker")["seconds"].cumsum()
    window = ended_at.groupby(ordered["worker"]).max().min()
    inside = ended_at <= window
    return ordered[inside], ended_at[inside]


def _spread_ties(moments: Floats) -> Floats:
    """Times between moments that rise or stay; those that coincide share the time since the one
    before.
    """
    distinct, counts = np.unique(moments, return_counts=True)
    return np.repeat(np.diff(distinct, prepend=0.0) / counts, counts)

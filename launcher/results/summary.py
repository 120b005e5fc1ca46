"""The figures of one run, from the raw times of its workers. No input, no output, no clock.

Every figure is as `docs/measurement.md` defines it, and can be computed again from `steps.csv`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from launcher.results import estimate
from launcher.results.timeline import Floats, run_steps

NORMAL_DEVIATIONS_IN_A_MEDIAN_ONE = 1.4826


@dataclass(frozen=True)
class Summary:
    """Times in seconds, speeds in images per second. `steps` counts the run's steps, not the
    workers'.
    """

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
    steps: int
    images_per_step: float

    def figures(self) -> dict[str, Any]:
        """What a row of a log has of it, by the names of its columns."""
        cells = asdict(self)
        del cells["steps"], cells["images_per_step"]
        return cells


def summarise(
    steps: pd.DataFrame, *, batch_per_gpu: int, sync: bool = True, backup_workers: int = 0
) -> Summary:
    """The figures of the run whose `steps.csv` is `steps`. Raises ValueError when it has no
    measured step.

    `batch_per_gpu` is in images. `sync=False` is asynchronous training; `backup_workers` is how
    many of the workers' gradients each synchronous update leaves out.
    """
    run = run_steps(steps, batch_per_gpu=batch_per_gpu, sync=sync, backup_workers=backup_workers)
    return summarise_times(run.seconds, run.images_per_step)


def summarise_times(seconds: Floats, images_per_step: float) -> Summary:
    """The figures of a run whose steps took `seconds`."""
    speed = estimate.from_steps(seconds, images_per_step)
    p50, p95 = np.percentile(seconds, [50, 95])
    mean_time = float(np.mean(seconds))
    return Summary(
        images_per_sec=len(seconds) * images_per_step / float(np.sum(seconds)),
        mean_time=mean_time,
        mean_speed=images_per_step / mean_time,
        speed_uncertainty=speed_uncertainty(images_per_step / seconds),
        speed_jitter=speed_jitter(images_per_step / seconds),
        p50=float(p50),
        p95=float(p95),
        max=float(np.max(seconds)),
        ci_low=speed.low,
        ci_high=speed.high,
        ci_method=speed.method,
        steps=len(seconds),
        images_per_step=images_per_step,
    )


def speed_uncertainty(speeds: Floats) -> float:
    """Standard deviation of the per-step speeds ÷ √steps.

    It is the population's deviation (ddof 0), numpy's default, because the programs that filled the
    existing tables took that. For correlated steps it is too small: the confidence interval is the
    figure to trust.
    """
    return float(np.std(speeds) / math.sqrt(len(speeds)))


def speed_jitter(speeds: Floats) -> float:
    """1.4826 × median(abs(speed - median(speed))): the standard deviation, were the speeds
    normal.
    """
    return NORMAL_DEVIATIONS_IN_A_MEDIAN_ONE * float(np.median(np.abs(speeds - np.median(speeds))))

"""A speed with its uncertainty, and the ratio of two such. Pure functions.

All intervals are on the mean time, not on the mean of speeds: an average of speeds overstates. With
mean time m, standard error s and Student's t of the given degrees of freedom, the interval of the
speed is images / (m + t s) to images / (m - t s).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtr, stdtrit

CONFIDENCE = 0.95
BATCHES = 10
FEWEST_BATCHES = 3
STEPS_IN_A_BATCH = 2
FEWEST_REPEATS = 3
TOO_FEW_STEPS = "too few steps"


@dataclass(frozen=True)
class Estimate:
    """A speed in images per second.

    `relative_error` is the standard error of the mean time divided by the mean time, nan where it
    is not known; `degrees` are its degrees of freedom; `method` says in words what it was taken
    over.
    """

    value: float
    relative_error: float
    degrees: float
    method: str

    @property
    def half_width(self) -> float:
        """Half the 95 % interval of the mean time, as a part of the mean time."""
        if math.isnan(self.relative_error):
            return math.nan
        return student(self.degrees) * self.relative_error

    @property
    def low(self) -> float:
        """The slower end of the 95 % interval."""
        return self.value / (1 + self.half_width)

    @property
    def high(self) -> float:
        """The faster end; infinite where the noise is as large as the mean."""
        return self.value / (1 - self.half_width) if not self.half_width >= 1 else math.inf


@dataclass(frozen=True)
class Ratio:
    """One speed divided by another, with its 95 % interval and the two-sided p-value of no
    difference.
    """

    value: float
    low: float
    high: float
    p_value: float


def student(degrees: float, confidence: float = CONFIDENCE) -> float:
    """The two-sided quantile of Student's t; the normal one for infinite degrees of freedom."""
    return float(stdtrit(min(degrees, 1e9), 0.5 + confidence / 2))


def from_steps(step_seconds: ArrayLike, images_per_step: float) -> Estimate:
    """The speed of one run, with batch means for its uncertainty.

    Steps in sequence are cut into 10 batches as equal as can be. Their means are nearly independent
    where the steps themselves are not (Law and Carson, Operations Research 27(5), 1979). Fewer than
    20 steps make fewer batches, of at least 2 steps; fewer than 6 make no interval.
    """
    seconds = np.asarray(step_seconds, dtype=float)
    mean = seconds.mean()
    batches = min(BATCHES, len(seconds) // STEPS_IN_A_BATCH)
    if batches < FEWEST_BATCHES:
        return Estimate(images_per_step / mean, math.nan, math.nan, TOO_FEW_STEPS)
    means = [batch.mean() for batch in np.array_split(seconds, batches)]
    error = np.std(means, ddof=1) / math.sqrt(batches) / mean
    return Estimate(
        float(images_per_step / mean), float(error), batches - 1, f"{batches} batch means"
    )


def from_runs(runs: Sequence[Estimate]) -> Estimate:
    """The speed of one configuration that was measured `len(runs)` times.

    The value is total images over total time of runs of equal size, so the harmonic mean. From
    three runs on the interval is over the runs, else it is what the runs' own intervals say
    together.
    """
    if len(runs) == 1:
        return runs[0]
    seconds = np.array([1 / run.value for run in runs])
    value = float(1 / seconds.mean())
    if len(runs) >= FEWEST_REPEATS:
        error = np.std(seconds, ddof=1) / math.sqrt(len(runs)) / seconds.mean()
        return Estimate(value, float(error), len(runs) - 1, f"{len(runs)} repeats")
    parts = [run.relative_error * second for run, second in zip(runs, seconds, strict=True)]
    error = float(np.hypot.reduce(parts) / seconds.sum())
    degrees = _joint_degrees(parts, [run.degrees for run in runs])
    return Estimate(value, error, degrees, f"{runs[0].method} of {len(runs)} runs")


def from_row(images_per_sec: float, ci_low: float, ci_high: float, ci_method: str) -> Estimate:
    """The estimate that a row of a log was written from."""
    number = re.match(r"(\d+) (batch means|repeats)$", ci_method or "")
    if not number or not 0 < ci_low <= ci_high < math.inf:
        return Estimate(images_per_sec, math.nan, math.nan, ci_method or "not known")
    degrees = int(number[1]) - 1
    half_width = (ci_high - ci_low) / (ci_high + ci_low)
    return Estimate(images_per_sec, half_width / student(degrees), degrees, ci_method)


def ratio(above: Estimate, below: Estimate, times: float = 1) -> Ratio:
    """`above` ÷ (`times` × `below`), with the uncertainty of both carried into it.

    The logarithm of the ratio has the relative errors of both in quadrature; its degrees of freedom
    follow Welch and Satterthwaite.
    """
    value = above.value / (times * below.value)
    parts = (above.relative_error, below.relative_error)
    error = math.hypot(*parts)
    if math.isnan(error):
        return Ratio(value, math.nan, math.nan, math.nan)
    if error == 0:
        return Ratio(value, value, value, 1.0 if value == 1 else 0.0)
    degrees = _joint_degrees(parts, (above.degrees, below.degrees))
    reach = student(degrees) * error
    p_value = 2 * float(stdtr(degrees, -abs(math.log(value)) / error))
    return Ratio(value, value * math.exp(-reach), value * math.exp(min(reach, 700)), p_value)


def _joint_degrees(errors: Sequence[float], degrees: Sequence[float]) -> float:
    """Welch and Satterthwaite's degrees of freedom of a sum with these standard errors."""
    below = sum(error**4 / free for error, free in zip(errors, degrees, strict=True))
    above = sum(error**2 for error in errors) ** 2
    return float(min(above / below, 1e9)) if below > 0 else float(max(degrees))


def with_spread(run: Estimate, spread: float, degrees: float) -> Estimate:
    """The estimate of one run as one of the speeds that runs have: its own error, and the spread of
    runs.

    `spread` is the relative standard deviation between runs, known to `degrees` degrees of freedom.
    """
    if math.isnan(run.relative_error):
        return run
    parts = (run.relative_error, spread)
    joint = _joint_degrees(parts, (run.degrees, degrees))
    return Estimate(run.value, math.hypot(*parts), joint, run.method)

"""Around which values step times gather. Pure."""

from __future__ import annotations

import math

import numpy as np

from launcher.results.timeline import Floats

LEAST_MODE = 0.1
SHALLOWEST_VALLEY = 0.4
FINEST_WIDTH = 1e-3  # a tenth of a per cent: finer than that, peaks are the clock's grain
MOST_VALUES = 1000


def modes_of(seconds: Floats) -> list[float]:
    """The peaks of the step times' density, in seconds; one where there is nothing to tell apart.

    The density is a Gaussian kernel's over the logarithms, with Silverman's bandwidth (Density
    Estimation for Statistics and Data Analysis, 1986, equation 3.31). A peak has at least a tenth
    of the steps, and the density falls to less than two fifths between any two.
    """
    count = min(len(seconds), MOST_VALUES)
    logs = np.log(np.quantile(seconds, np.linspace(0, 1, count)))
    quarter, three_quarters = np.quantile(logs, [0.25, 0.75])
    spread = min(np.std(logs), (three_quarters - quarter) / 1.34)
    width = max(0.9 * spread * len(seconds) ** -0.2, FINEST_WIDTH)
    grid = np.linspace(logs[0] - 3 * width, logs[-1] + 3 * width, 512)
    density = np.exp(-0.5 * ((grid[:, None] - logs[None, :]) / width) ** 2).sum(axis=1)
    return [math.exp(grid[peak]) for peak in _peaks(density)]


def _peaks(density: Floats) -> list[int]:
    """Where the density peaks, of neighbours only the higher unless a deep valley parts them."""
    inner = density[1:-1]
    tops = np.flatnonzero((inner > density[:-2]) & (inner >= density[2:])) + 1
    kept: list[int] = []
    for top in tops:
        if not kept:
            kept.append(int(top))
            continue
        valley = density[kept[-1] : top].min()
        if valley < SHALLOWEST_VALLEY * min(density[kept[-1]], density[top]):
            kept.append(int(top))
        elif density[top] > density[kept[-1]]:
            kept[-1] = int(top)
    return [peak for peak in kept if _mass(density, kept, peak) >= LEAST_MODE]


def _mass(density: Floats, peaks: list[int], peak: int) -> float:
    """The part of the steps between the valleys on either side of a peak."""
    place = peaks.index(peak)
    start = 0 if place == 0 else _valley(density, peaks[place - 1], peak)
    end = len(density) if place == len(peaks) - 1 else _valley(density, peak, peaks[place + 1])
    return float(density[start:end].sum() / density.sum())


def _valley(density: Floats, left: int, right: int) -> int:
    return left + int(np.argmin(density[left:right]))

"""What a person should know before trusting a figure. Warnings are values; nobody is interrupted by
them. Pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
import pandas as pd

from launcher.results.estimate import BATCHES, FEWEST_REPEATS, Ratio
from launcher.results.modes import modes_of
from launcher.results.summary import NORMAL_DEVIATIONS_IN_A_MEDIAN_ONE
from launcher.results.timeline import Floats, run_steps

Kind = Literal[
    "drift",
    "multi-modal",
    "outliers",
    "straggler",
    "over ideal",
    "one machine",
    "few repeats",
    "incomplete steps",
    "shared processors",
    "mixed sweep",
    "skipped updates",
]

FEWEST_STEPS_FOR_DRIFT = 2 * BATCHES
DRIFT_DEVIATIONS = 2.576  # two-sided 1 %, by the normal approximation of Mann and Kendall's S
LEAST_DRIFT = 0.01
FEWEST_STEPS_FOR_MODES = 30
OUTLIER_DEVIATIONS = 5.0
STRAGGLER_DEVIATIONS = 3.0
LEAST_DEVIATION = 0.02
LEAST_DEVIATION_OF_FEW = 0.05


@dataclass(frozen=True)
class RunWarning:
    """`kind` is for programs, `text` for people."""

    kind: Kind
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


def in_one_cell(warnings: Iterable[RunWarning]) -> str:
    """The warnings as the log keeps them."""
    return "; ".join(str(warning) for warning in warnings)


def from_one_cell(cell: str) -> tuple[RunWarning, ...]:
    """The warnings of a row of a log."""
    kinds = "|".join(map(re.escape, get_args(Kind)))
    starts = list(re.finditer(rf"(?:^|; )({kinds}): ", cell))
    ends = [*(found.start() for found in starts[1:]), len(cell)]
    return tuple(
        RunWarning(cast(Kind, found[1]), cell[found.end() : end])
        for found, end in zip(starts, ends, strict=False)  # there is an end more where none starts
    )


def run_warnings(
    steps: pd.DataFrame,
    *,
    sync: bool = True,
    backup_workers: int = 0,
    nodes: int = 1,
    machines: int = 1,
) -> tuple[RunWarning, ...]:
    """All that can be said of one run from its raw steps and of where it ran."""
    run = run_steps(steps, batch_per_gpu=1, sync=sync, backup_workers=backup_workers)
    found = (
        *drift(run.seconds),
        *several_modes(run.seconds),
        *outliers(run.seconds),
        *stragglers(steps, sync=sync),
        *incomplete_steps(steps),
        *one_machine(nodes, machines),
    )
    return tuple(found)


def drift(seconds: Floats) -> list[RunWarning]:
    """Steps that still become faster or slower while they are measured.

    Mann and Kendall's test for a trend, on the medians of 10 batches of steps in sequence, because
    single steps are correlated and the test takes independent values; and only where the change is
    worth a word.
    """
    if len(seconds) < FEWEST_STEPS_FOR_DRIFT:
        return []
    medians = np.array([np.median(batch) for batch in np.array_split(seconds, BATCHES)])
    rises = np.sign(medians[None, :] - medians[:, None])
    score = np.triu(rises).sum()
    deviation = math.sqrt(BATCHES * (BATCHES - 1) * (2 * BATCHES + 5) / 18)
    change = float(np.median(medians[-3:]) / np.median(medians[:3]) - 1)
    if (abs(score) - 1) / deviation < DRIFT_DEVIATIONS or abs(change) < LEAST_DRIFT:
        return []
    way = "longer" if change > 0 else "shorter"
    text = (
        f"steps became {abs(change):.1%} {way} while they were measured; "
        "all of them count, but a longer warm-up may be needed"
    )
    return [RunWarning("drift", text)]


def several_modes(seconds: Floats) -> list[RunWarning]:
    """Step times that gather around more than one value.

    A deep valley lies between any two of them, and each has at least a tenth of the steps.
    """
    if len(seconds) < FEWEST_STEPS_FOR_MODES:
        return []
    modes = modes_of(seconds)
    if len(modes) < 2:
        return []
    places = ", ".join(f"{mode:.4g} s" for mode in modes)
    text = (
        f"step times gather around {len(modes)} values ({places}), so that their mean says little"
    )
    return [RunWarning("multi-modal", text)]


def outliers(seconds: Floats) -> list[RunWarning]:
    """Steps far slower or faster than the rest. They are counted, and none is left out of any
    figure.
    """
    middle = float(np.median(seconds))
    deviation = _robust_deviation(seconds, middle)
    odd = np.flatnonzero(np.abs(seconds - middle) > OUTLIER_DEVIATIONS * deviation)
    if not len(odd):
        return []
    worst = odd[np.argmax(np.abs(seconds[odd] - middle))]
    text = (
        f"{len(odd)} of {len(seconds)} measured steps are more than {OUTLIER_DEVIATIONS:g} robust "
        f"deviations from the median of {middle:.4g} s, the farthest at {seconds[worst]:.4g} s; "
        "none was left out"
    )
    return [RunWarning("outliers", text)]


def stragglers(steps: pd.DataFrame, *, sync: bool = True) -> list[RunWarning]:
    """Workers whose own compute time per step exceeds the median worker's by more than 3 robust
    deviations, and, where the time to its parameters is known, the sum of both times does so too.

    Whoever has its parameters early computes more after the last has come, and is not slower.

    Without compute times nothing can be said of a synchronous run, where all wait for all; in an
    asynchronous one a step's whole time is the worker's own. With an even number of workers the
    median worker is the faster of the middle two. The deviation is taken over the workers, and is
    at least 2 % of the median, so that workers as alike as clocks can tell are not told apart; of
    two or three workers, whose deviations say little, at least 5 %.
    """
    means, late = _own_times(steps, sync)
    middle = _lower_median(means.to_numpy()) if late else math.nan
    return [
        RunWarning(
            "straggler",
            f"worker {worker} on {node} computes {mean:.4g} s a step, "
            f"{mean / middle - 1:.0%} more than the median worker's {middle:.4g} s",
        )
        for (worker, node), mean in zip(means.index.to_list(), means.to_list(), strict=True)
        if worker in late
    ]


def late_workers(steps: pd.DataFrame, *, sync: bool = True) -> set[int]:
    """The workers that `stragglers` names."""
    return _own_times(steps, sync)[1]


def _own_times(steps: pd.DataFrame, sync: bool) -> tuple[pd.Series, set[int]]:
    """The mean own time of each worker's step, by worker and node; and who is a straggler."""
    measured = steps[steps["phase"] == "measured"]
    own = measured["compute_seconds"]
    if own.isna().all() and not sync:
        own = measured["seconds"]
    means = _by_worker(measured, own)
    late = _behind(means)
    to_gradients = _by_worker(measured, own + measured["pull_seconds"])
    if len(to_gradients) == len(means):
        late &= _behind(to_gradients)
    return means, late


def _by_worker(measured: pd.DataFrame, seconds: pd.Series) -> pd.Series:
    """The mean of each worker that has any, by worker and node."""
    return seconds.groupby([measured["worker"], measured["node"]]).mean().dropna()


def _behind(means: pd.Series) -> set[int]:
    """The workers whose mean exceeds the median worker's by more than 3 robust deviations."""
    if len(means) < 2:
        return set()
    middle = _lower_median(means.to_numpy())
    if middle <= 0:  # a busy machine read its clocks too late: nothing is known of how long
        return set()
    deviation = NORMAL_DEVIATIONS_IN_A_MEDIAN_ONE * _lower_median(np.abs(means.to_numpy() - middle))
    least = LEAST_DEVIATION if len(means) >= 4 else LEAST_DEVIATION_OF_FEW
    deviation = max(deviation, least * middle)
    return {
        int(worker)
        for (worker, _), mean in zip(means.index.to_list(), means.to_list(), strict=True)
        if mean - middle > STRAGGLER_DEVIATIONS * deviation
    }


def incomplete_steps(steps: pd.DataFrame) -> list[RunWarning]:
    """Measured steps that some worker has not."""
    counts = steps[steps["phase"] == "measured"].groupby("worker").size()
    if counts.empty or counts.min() == counts.max():
        return []
    text = (
        f"worker {counts.idxmin()} has {counts.min()} measured steps "
        f"where another has {counts.max()}"
    )
    return [RunWarning("incomplete steps", text)]


def over_ideal(efficiency: Ratio, gpus: int, baseline: str) -> list[RunWarning]:
    """An efficiency over 100 %: more often a slow baseline than a miracle."""
    if not efficiency.value > 1:
        return []
    noise = "its 95 % interval reaches below, so noise may be all"
    text = f"{gpus} GPUs reach {efficiency.value:.1%} of ideal; " + (
        noise if efficiency.low <= 1 else f"look at the baseline ({baseline}) first"
    )
    return [RunWarning("over ideal", text)]


def one_machine(nodes: int, machines: int) -> list[RunWarning]:
    """Nodes that share a machine share its cores, memory and network."""
    if not 0 < machines < nodes:
        return []
    where = "one machine" if machines == 1 else f"{machines} machines"
    text = f"the {nodes} nodes are processes on {where}; N processes on one machine are not N nodes"
    return [RunWarning("one machine", text)]


def shared_processors(workers: int, processors: int) -> list[RunWarning]:
    """More workers than processors: what they lose to each other is no cost of scaling."""
    if not 0 < processors < workers:
        return []
    text = f"{workers} workers share {processors} processor{'s' * (processors != 1)}"
    return [RunWarning("shared processors", text)]


def skipped_updates(count: int) -> list[RunWarning]:
    """Updates that were not made: the images of these steps have trained nothing."""
    if count <= 0:
        return []
    text = (
        f"{count} update{'s' * (count != 1)}, warm-up included, would have had gradients that "
        "float16 cannot hold, and did not take place; the steps count as all others"
    )
    return [RunWarning("skipped updates", text)]


def few_repeats(repeats: int) -> list[RunWarning]:
    """Without three repeats nothing is known of how much runs differ from each other."""
    if repeats >= FEWEST_REPEATS:
        return []
    times = "once" if repeats == 1 else f"{repeats} times"
    text = (
        f"measured {times}: from {FEWEST_REPEATS} repeats on, the interval says how far runs differ"
    )
    return [RunWarning("few repeats", text)]


def _robust_deviation(values: Floats, middle: float) -> float:
    deviation = NORMAL_DEVIATIONS_IN_A_MEDIAN_ONE * float(np.median(np.abs(values - middle)))
    return max(deviation, LEAST_DEVIATION * middle)


def _lower_median(values: Floats) -> float:
    """The middle value; of an even number the smaller one of the middle two, so that it is
    somebody's.
    """
    return float(np.sort(values)[(len(values) - 1) // 2])

"""Is B slower than A? Per configuration the ratio B ÷ A, its 95 % interval, and what may be said of
it.

How a verdict comes about (decided here, argued in `compare`): - Where both have two runs or more,
the runs are the sample: Welch's test on the logarithms of their speeds. - Else the newest run of
each is taken with its batch means. These know nothing of how much runs differ, so a run-to-run
spread is added: the one seen in configurations that were repeated; where none were, 2 %, or what
the batches of the run itself differ by when that is more. It is said which. - A verdict needs a
p-value that, corrected for the number of configurations by Holm's method, makes any wrong verdict
on two equals rarer than 2 %. So an interval may just miss 1 and there is still none.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from launcher.results import estimate
from launcher.results.estimate import Estimate, Ratio
from launcher.results.points import (
    COMPUTING,
    OLDER_LOG,
    THREADS,
    fact_in_words,
    run_estimates,
    shape_in_words,
    text,
)

Verdict = Literal["faster", "slower", "no difference seen", "not known", "only in A", "only in B"]

CONFIGURATION = (
    "model",
    "batch_per_gpu",
    "nodes",
    "gpus_per_node",
    "gpus",
    "strategy",
    "sync",
    "parameter_servers",
    "backup_workers",
    *COMPUTING,
    "aggregate",
    "gradient_dtype",
    "communication",
    "device",
    "cpus_per_worker",
    "data",
    "staged_from",
)
FEWEST_RUNS = 2
FAMILY_LEVEL = 0.02
ASSUMED_SPREAD = 0.02
ASSUMED = "assumed, at least"
FEWEST_DEGREES_OF_SPREAD = 3

# What sides may differ in, to see what it makes of the speed; but not one side in itself.
OF_A_SIDE = ("gpu_type", "binding", *THREADS)
DETAILS = (
    *COMPUTING,
    "aggregate",
    "gradient_dtype",
    "communication",
    "device",
    "cpus_per_worker",
    "data",
    "staged_from",
    *OF_A_SIDE,
)

Key = tuple[str, ...]


@dataclass(frozen=True)
class Spread:
    """How much runs of one configuration differ: a relative standard deviation, and where it is
    from.
    """

    value: float
    degrees: float
    source: str


@dataclass(frozen=True)
class Comparison:
    """One configuration. Speeds in images per second, nan where a side has none; `ratio` is B
    ÷ A.
    """

    configuration: Mapping[str, str]
    speed_a: float
    speed_b: float
    ratio: Ratio
    method: str
    verdict: Verdict

    def name(self, besides: Collection[str] = ()) -> str:
        """The configuration in a few words, without the facts in `besides`: `resnet b32, 2 × 4,
        single`.
        """
        facts = self.configuration
        shape = [float(facts[name] or "nan") for name in ("nodes", "gpus_per_node", "gpus")]
        words = [
            f"{facts['model']} b{facts['batch_per_gpu']}",
            shape_in_words(*shape) if facts["nodes"] else f"{facts['gpus']} GPUs",
            facts["strategy"].replace("_", " ") or OLDER_LOG,
            "async" if facts["sync"] == "False" else "",
            *(fact_in_words(name, facts.get(name)) for name in DETAILS if name not in besides),
        ]
        return ", ".join(word for word in words if word)


def compare(a: pd.DataFrame, b: pd.DataFrame) -> tuple[Comparison, ...]:
    """Compare the rows of two logs, run ids or folders, as `sides.side` reads them.

    The type of GPU belongs to the configuration only where a side has several; else two machines
    can be compared. Likewise the binding.
    """
    names = list(CONFIGURATION)
    names += [name for name in OF_A_SIDE if any(rows[name].nunique() > 1 for rows in (a, b))]
    groups_a, groups_b = _groups(a, names), _groups(b, names)
    spread = run_spread([*groups_a.values(), *groups_b.values()])
    found = []
    for key in sorted(groups_a.keys() | groups_b.keys(), key=_in_order):
        rows_a, rows_b = groups_a.get(key, a.iloc[:0]), groups_b.get(key, b.iloc[:0])
        found.append(_compared(dict(zip(names, key, strict=True)), rows_a, rows_b, spread))
    return _with_verdicts(found)


def is_slower(comparison: Comparison, threshold: float) -> bool:
    """Whether B is slower than A by more than `threshold` (0.05 for 5 %), beyond what noise can do.

    The whole interval must lie below 1 - threshold, and the verdict must be `slower`. So B at
    exactly the threshold is flagged in about 2 of 100 tries, and a noisy measurement is never a
    reason to fail.
    """
    return comparison.verdict == "slower" and comparison.ratio.high < 1 - threshold


def run_spread(groups: Sequence[pd.DataFrame]) -> Spread:
    """The pooled deviation of the logarithms of speeds within configurations that were repeated."""
    logs = [np.log(rows["images_per_sec"].to_numpy()) for rows in groups if len(rows) > 1]
    degrees = sum(len(speeds) - 1 for speeds in logs)
    if degrees < FEWEST_DEGREES_OF_SPREAD:
        return Spread(ASSUMED_SPREAD, math.inf, ASSUMED)
    squares = sum(float(((speeds - speeds.mean()) ** 2).sum()) for speeds in logs)
    return Spread(math.sqrt(squares / degrees), degrees, "seen in repeats")


def _compared(
    facts: dict[str, str], a: pd.DataFrame, b: pd.DataFrame, spread: Spread
) -> Comparison:
    if a.empty or b.empty:
        return _alone(facts, a, b)
    if min(len(a), len(b)) >= FEWEST_RUNS:
        left, right = _over_runs(a), _over_runs(b)
        method = f"{len(a)} and {len(b)} runs"
    else:
        left, right = (_newest(rows, spread) for rows in (a, b))
        method = (
            f"newest runs: {left.method}; run-to-run spread {spread.value:.1%} ({spread.source})"
        )
    ratio = estimate.ratio(right, left)
    return Comparison(facts, left.value, right.value, ratio, method, "not known")


def _alone(facts: dict[str, str], a: pd.DataFrame, b: pd.DataFrame) -> Comparison:
    """A configuration that only one side has."""
    unknown = Ratio(math.nan, math.nan, math.nan, math.nan)
    if b.empty:
        speed = estimate.from_runs(run_estimates(a)).value
        return Comparison(facts, speed, math.nan, unknown, "", "only in A")
    speed = estimate.from_runs(run_estimates(b)).value
    return Comparison(facts, math.nan, speed, unknown, "", "only in B")


def _over_runs(rows: pd.DataFrame) -> Estimate:
    """All images over all time of the runs, as in every other table; the error is that of the mean
    of the logarithms of their speeds.
    """
    speeds = rows["images_per_sec"].to_numpy()
    error = float(np.std(np.log(speeds), ddof=1)) / math.sqrt(len(speeds))
    joined = estimate.from_runs(run_estimates(rows)).value
    return Estimate(joined, error, len(speeds) - 1, f"{len(speeds)} runs")


def _newest(rows: pd.DataFrame, spread: Spread) -> Estimate:
    """The newest run, with its own error and the spread between runs.

    On a machine whose speed wanders within a run it wanders at least as far between runs, so an
    assumed spread is never less than what the batches of steps differ by.
    """
    (run,) = run_estimates(rows.sort_values("start_utc", kind="stable").tail(1))
    between_batches = run.relative_error * math.sqrt(run.degrees + 1)
    if spread.source == ASSUMED and between_batches > spread.value:
        return estimate.with_spread(run, between_batches, run.degrees)
    return estimate.with_spread(run, spread.value, spread.degrees)


def _with_verdicts(found: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Holm's method: the smallest p-value is held against level ÷ n, the next against level ÷ (n -
    1) ...
    """
    verdicts: dict[int, Verdict] = {}
    tested = [place for place, one in enumerate(found) if not math.isnan(one.ratio.p_value)]
    tested.sort(key=lambda place: found[place].ratio.p_value)
    differs = True
    for rank, place in enumerate(tested):
        ratio = found[place].ratio
        differs = differs and ratio.p_value <= FAMILY_LEVEL / (len(tested) - rank)
        seen: Verdict = "faster" if ratio.value > 1 else "slower"
        verdicts[place] = seen if differs else "no difference seen"
    return tuple(
        replace(one, verdict=verdicts.get(place, one.verdict)) for place, one in enumerate(found)
    )


def _groups(rows: pd.DataFrame, names: Sequence[str]) -> dict[Key, pd.DataFrame]:
    """The rows of each configuration, by its facts as text (nan is equal to nothing, itself
    included).
    """
    spelled = rows[list(names)].map(lambda fact: text(fact) if isinstance(fact, float) else fact)
    return {
        tuple(map(str, key)): rows.loc[group.index]
        for key, group in spelled.groupby(list(names), sort=False)
    }


def _in_order(key: Key) -> tuple[tuple[float, str], ...]:
    """Numbers by their size, words by the alphabet."""
    return tuple((float(fact), "") if fact.isdigit() else (math.inf, fact) for fact in key)

"""The scaling curve of one sweep: from its rows to points with efficiencies, and to what a person
should know before trusting them. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from launcher.results import estimate, warnings
from launcher.results.caption import unit
from launcher.results.estimate import Estimate, Ratio
from launcher.results.points import run_estimates, shape_in_words
from launcher.results.warnings import RunWarning

# These are said of the whole curve below, and not once for each run.
_SAID_OF_THE_CURVE = {"one machine", "shared processors"}
_MUST_NOT_MIX = {
    "tensorflow": "versions of TensorFlow",
    "git_commit": "versions of runtest",
    "gpu_type": "kinds of hardware",
}


@dataclass(frozen=True)
class CurvePoint:
    """All runs of one number of GPUs. Speeds in images per second.

    ideal: one GPU's speed × GPUs, nan without a baseline.  efficiency: measured ÷ ideal, None for
    the baseline itself and without one.
    """

    gpus: int
    nodes: int
    shape: str
    strategy: str
    run_ids: tuple[str, ...]
    speed: Estimate
    ideal: float
    efficiency: Ratio | None


@dataclass(frozen=True)
class Curve:
    """The points of a sweep. baseline: the strategy of the point of one GPU, or empty."""

    points: tuple[CurvePoint, ...]
    baseline: str
    warnings: tuple[RunWarning, ...]


def curve(rows: pd.DataFrame) -> Curve:
    """The curve of the rows of one sweep of one model. There must be a row at least."""
    by_gpus = {int(group["gpus"].iloc[0]): group for _, group in rows.groupby("gpus", sort=True)}
    one = by_gpus.get(1)
    baseline = None if one is None else estimate.from_runs(run_estimates(one))
    name = "" if one is None else str(one["strategy"].iloc[0])
    points = tuple(_point(gpus, group, baseline) for gpus, group in by_gpus.items())
    return Curve(points, name, tuple(_warnings(rows, points, name)))


def _point(gpus: int, rows: pd.DataFrame, baseline: Estimate | None) -> CurvePoint:
    speed = estimate.from_runs(run_estimates(rows))
    row = rows.iloc[0]
    efficiency = None
    if baseline is not None and gpus > 1:
        efficiency = estimate.ratio(speed, baseline, times=gpus)
    return CurvePoint(
        gpus=gpus,
        nodes=int(row["nodes"]),
        shape=shape_in_words(row["nodes"], row["gpus_per_node"], gpus),
        strategy=str(row["strategy"]),
        run_ids=tuple(rows["run_id"]),
        speed=speed,
        ideal=math.nan if baseline is None else gpus * baseline.value,
        efficiency=efficiency,
    )


def _warnings(
    rows: pd.DataFrame, points: tuple[CurvePoint, ...], baseline: str
) -> Iterator[RunWarning]:
    fewest = min(points, key=lambda point: len(point.run_ids))
    for warning in warnings.few_repeats(len(fewest.run_ids)):
        is_one_of_many = len({len(point.run_ids) for point in points}) > 1
        where = f"{_count(fewest.gpus, rows)} " if is_one_of_many else ""
        yield RunWarning(warning.kind, where + warning.text)
    for point in points:
        if point.efficiency is not None:
            yield from warnings.over_ideal(point.efficiency, point.gpus, baseline)
    most = rows.sort_values("nodes", kind="stable").iloc[-1]
    yield from warnings.one_machine(int(most["nodes"]), int(most["machines"]))
    yield from _crowded(rows)
    yield from _mixed(rows)
    yield from _of_single_runs(rows)


def _crowded(rows: pd.DataFrame) -> Iterator[RunWarning]:
    """The largest point whose workers had to share processors says it for all."""
    for _, row in rows.sort_values("gpus", ascending=False, kind="stable").iterrows():
        for warning in warnings.from_one_cell(row["warnings"]):
            if warning.kind == "shared processors":
                yield warning
                return


def _mixed(rows: pd.DataFrame) -> Iterator[RunWarning]:
    """A sweep that was taken up again may have gone on with something else."""
    for column, what in _MUST_NOT_MIX.items():
        values = sorted(set(rows[column]) - {""})
        if len(values) > 1:
            text = f"the points were measured with different {what}: {', '.join(values)}"
            yield RunWarning("mixed sweep", text)


def _of_single_runs(rows: pd.DataFrame) -> Iterator[RunWarning]:
    """One line for each kind of warning: how many runs have it, and the first of them."""
    found: dict[str, list[tuple[int, RunWarning]]] = {}
    for gpus, cell in zip(rows["gpus"], rows["warnings"], strict=True):
        told: set[str] = set(_SAID_OF_THE_CURVE)
        for warning in warnings.from_one_cell(cell):
            if warning.kind not in told:
                found.setdefault(warning.kind, []).append((int(gpus), warning))
                told.add(warning.kind)
    for seen in found.values():
        gpus, first = max(seen, key=lambda each: each[0])
        share = f"in {len(seen)} of {len(rows)} runs; at {_count(gpus, rows)}: "
        yield RunWarning(first.kind, share + first.text)


def _count(gpus: int, rows: pd.DataFrame) -> str:
    return f"{gpus} {unit(rows)}{'s' * (gpus != 1)}"

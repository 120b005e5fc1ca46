"""From the rows of one log to the lines and points of its plot. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from launcher.results import estimate
from launcher.results.estimate import Estimate, Ratio

# How a worker computes, whatever its strategy.
COMPUTING = ("precision", "xla", "onednn")
THREADS = ("intra_op_threads", "inter_op_threads")
SAME_HARDWARE_AND_DATA = (
    *COMPUTING,
    "device",
    "gpu_type",
    "cpus_per_worker",
    "binding",
    *THREADS,
    "data",
    "staged_from",
)
LINE = (
    "strategy",
    "communication",
    "sync",
    "backup_workers",
    "gradient_dtype",
    *SAME_HARDWARE_AND_DATA,
)
SHAPE = ("gpus", "nodes", "gpus_per_node", "parameter_servers", "aggregate")
OLDER_LOG = "older log"
_SWITCHES = {"xla": "XLA", "onednn": "oneDNN"}
_COUNTS = {
    "cpus_per_worker": ("CPU", " a worker"),
    "intra_op_threads": ("intra-op thread", ""),
    "inter_op_threads": ("inter-op thread", ""),
}
SINGLE = "single"


@dataclass(frozen=True)
class Baseline:
    """What one GPU does, and what that was measured with."""

    name: str
    speed: Estimate


@dataclass(frozen=True)
class Point:
    """All runs of one configuration. `efficiency` is None where there is no baseline, or it is the
    point itself.
    """

    gpus: int
    nodes: int
    speed: Estimate
    runs: tuple[Estimate, ...]
    efficiency: Ratio | None


@dataclass(frozen=True)
class Line:
    """Points that differ in the number of GPUs alone."""

    label: str
    points: tuple[Point, ...]
    baseline: Baseline | None


def lines(rows: pd.DataFrame, ideal: pd.DataFrame | None = None) -> tuple[Line, ...]:
    """The lines of the plot of a log: one for each strategy, precision, hardware and kind of data.

    Where one number of GPUs was measured on several shapes (2 nodes with 2 GPUs, 4 nodes with 1),
    the shapes become lines of their own.
    """
    named = [name for name in LINE if rows[name].nunique(dropna=False) > 1]
    found: list[Line] = []
    for key, group in rows.groupby(list(LINE), dropna=False, sort=True):
        facts = dict(zip(LINE, key, strict=True))
        baseline = _baseline(rows, group, facts)
        if ideal is not None and len(ideal) and not facts["strategy"]:
            baseline = _older_baseline(ideal)
        for rank, shapes in enumerate(_shapes(group)):
            label = _label(facts, named) + (f" ({_spelled(shapes)})" if rank else "")
            points = tuple(_point(shape, baseline, facts) for shape in shapes)
            found.append(Line(label, points, baseline))
    return tuple(found)


def run_estimates(rows: pd.DataFrame) -> tuple[Estimate, ...]:
    """One estimate for each row."""
    names = ["images_per_sec", "ci_low", "ci_high", "ci_method"]
    return tuple(estimate.from_row(*cells) for cells in rows[names].itertuples(index=False))


def text(number: float) -> str:
    """A number to the last digit, but a whole one without its `.0`; nothing for nan."""
    if math.isnan(number):
        return ""
    return repr(float(number)) if number % 1 or math.isinf(number) else f"{number:.0f}"


def _shapes(group: pd.DataFrame) -> list[list[pd.DataFrame]]:
    """The configurations of a line, as one list per rank: in each list a number of GPUs is there
    once.
    """
    ranked: list[list[pd.DataFrame]] = []
    seen: dict[object, int] = {}
    for (gpus, *_), rows in group.groupby(list(SHAPE), dropna=False, sort=True):
        rank = seen.get(gpus, 0)
        seen[gpus] = rank + 1
        if rank == len(ranked):
            ranked.append([])
        ranked[rank].append(rows)
    return ranked


def _point(rows: pd.DataFrame, baseline: Baseline | None, facts: dict[str, object]) -> Point:
    runs = run_estimates(rows)
    speed = estimate.from_runs(runs)
    gpus = int(rows["gpus"].iloc[0])
    nodes = rows["nodes"].iloc[0]
    is_baseline = gpus == 1 and (baseline is None or baseline.name == _strategy(facts))
    efficiency = None
    if baseline is not None and not is_baseline:
        efficiency = estimate.ratio(speed, baseline.speed, times=gpus)
    return Point(gpus, 0 if math.isnan(nodes) else int(nodes), speed, runs, efficiency)


def _baseline(rows: pd.DataFrame, group: pd.DataFrame, facts: dict[str, object]) -> Baseline | None:
    """One GPU of the same kind with the same data: `single` where it was measured, else the line's
    own.
    """
    alike = rows[rows["gpus"] == 1]
    for name in SAME_HARDWARE_AND_DATA:
        alike = alike[alike[name] == facts[name]]
    single = alike[alike["strategy"] == SINGLE]
    own = group[group["gpus"] == 1]
    for name, candidates in ((SINGLE, single), (_strategy(facts), own)):
        if len(candidates):
            return Baseline(name, estimate.from_runs(run_estimates(candidates)))
    return None


def _older_baseline(ideal: pd.DataFrame) -> Baseline:
    """An older script's ideal line is straight, so that its first point says all of it."""
    gpus, speed = ideal.iloc[0]
    return Baseline("older .ideal file", Estimate(speed / gpus, math.nan, math.nan, "not known"))


def _strategy(facts: dict[str, object]) -> str:
    return str(facts["strategy"]) or OLDER_LOG


def _label(facts: dict[str, object], named: Sequence[str]) -> str:
    """The strategy, and of the other facts those in which the lines differ."""
    words = [_strategy(facts).replace("_", " ")]
    if facts["sync"] == "False":
        words.append("asynchronous")
    backup = float(str(facts["backup_workers"]))
    if backup > 0:
        words.append(f"{backup:g} backup")
    others = (name for name in named if name not in ("strategy", "sync", "backup_workers"))
    words += [fact_in_words(name, facts[name]) for name in others]
    return ", ".join(word for word in words if word)


def fact_in_words(name: str, fact: object) -> str:
    """A fact of a configuration as a label has it: `2 CPUs a worker`, `fp32`; none is empty."""
    if name in _SWITCHES:
        return f"{_SWITCHES[name]} {fact}" if fact else ""
    if fact and name == "aggregate":
        return "gradients added up on nodes"
    if fact and name == "gradient_dtype":
        return f"{fact} gradients"
    if name not in _COUNTS or not fact:
        return str(fact or "")
    count = float(str(fact))
    thing, where = _COUNTS[name]
    return f"{count:g} {thing}{'s' * (count != 1)}{where}" if count else ""


_USUAL = {"precision": "fp32", "xla": "off", "onednn": "on"}


def unusual_computing(row: pd.Series) -> list[str]:
    """How a run computed, in words, where that was asked for: often nothing."""
    facts = {name: row[name] for name, usual in _USUAL.items() if row[name] not in ("", usual)}
    return [fact_in_words(name, fact) for name, fact in facts.items()]


def shape_in_words(nodes: float, gpus_per_node: float, gpus: float) -> str:
    """`2 × 4`, nodes and GPUs per node; `2 × 4 + 1` where a last node has fewer; else the GPUs."""
    if math.isnan(nodes) or math.isnan(gpus_per_node) or not gpus_per_node:
        return text(gpus)
    if nodes * gpus_per_node == gpus:
        return f"{text(nodes)} × {text(gpus_per_node)}"
    full, rest = divmod(gpus, gpus_per_node)
    return f"{text(full)} × {text(gpus_per_node)} + {text(rest)}"


def _spelled(shapes: Iterable[pd.DataFrame]) -> str:
    """`4 × 1, 8 × 1`: nodes and GPUs per node, with the parameter servers where they are known."""
    spelled = []
    for rows in shapes:
        nodes, per_node, servers, aggregate = rows[list(SHAPE[1:])].iloc[0]
        gpus = rows["gpus"].iloc[0]
        words = shape_in_words(nodes, per_node, gpus) if nodes == nodes else "other"
        words += f" with {servers:g} PS" if servers > 0 else ""
        spelled.append(words + (", gradients added up on nodes" if aggregate else ""))
    return ", ".join(dict.fromkeys(spelled))

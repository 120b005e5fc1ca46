"""What is printed of a sweep: its plan, the curve of each model as a table, and JSON."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from launcher.computing import in_words
from launcher.report import binding_lines
from launcher.sweep import Failure, Item, Sweep
from launcher.tasks import INPUT_ONLY, RunPlan

if TYPE_CHECKING:  # they bring pandas along
    from launcher.results.curve import Curve, CurvePoint

Plans = Mapping[tuple[Item, int], RunPlan]


def print_plans(console: Console, sweep: Sweep, plans: Plans) -> None:
    """What would be measured, a line for each point."""
    for item in sweep.items:
        first = plans[item, sweep.points[0]]
        console.print(
            f"{escape(item.model)}, {item.batch_size} images per worker and step, "
            f"{first.job.warmup_steps} + {first.job.measured_steps} steps, {_computing(first)}"
            f"on {first.device}, "
            f"{_times(sweep.repeats)}",
        )
        for line in binding_lines(plans[item, sweep.points[-1]]):
            console.print(escape(line), highlight=False, soft_wrap=True)
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column("GPUs", justify="right")
        for name in ("strategy", "parameter servers", "workers"):
            table.add_column(name, overflow="fold")
        for gpus in sweep.points:
            plan = plans[item, gpus]
            strategy = plan.job.strategy.replace("_", " ")
            servers = ", ".join(task.address for task in plan.servers) or "none"
            table.add_row(str(gpus), strategy, escape(servers), escape(_workers(plan)))
        console.print(table)
    console.print("nothing was started")


def plans_json(sweep: Sweep, plans: Plans) -> str:
    """The same for programs."""
    points = [
        {
            "model": item.model,
            "batch_per_gpu": item.batch_size,
            "gpus": gpus,
            "repeats": sweep.repeats,
            "device": plans[item, gpus].device,
            "job": asdict(plans[item, gpus].job),
            "tasks": [asdict(task) for task in plans[item, gpus].tasks],
            "binding": asdict(plans[item, gpus].binding),
        }
        for item in sweep.items
        for gpus in sweep.points
    ]
    return json.dumps({"points": points})


def print_curve(
    console: Console, item: Item, curve: Curve, what: str, computing: Sequence[str] = ()
) -> None:
    """The table of a model and what to know before trusting it. what: `GPU`, or `worker`.

    computing: how the runs computed, where it is worth a word.
    """
    strategies = list(dict.fromkeys(point.strategy for point in reversed(curve.points)))
    console.print(
        f"{escape(item.model)}, batch size {item.batch_size} per {what}, "
        f"{', '.join([strategies[0].replace('_', ' '), *computing])}",
        style="bold",
    )
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for name in (f"{what}s", "n × g", "runs", "images/sec", "± 95 %", "ideal", "efficiency"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("95 %", justify="right", no_wrap=True)
    for point in curve.points:
        table.add_row(*_cells(point, curve.baseline))
    console.print(table)
    methods = sorted({point.speed.method for point in curve.points})
    console.print(f"± and 95 % are taken over {' or '.join(methods)}.", soft_wrap=False)
    if curve.baseline:
        name = curve.baseline.replace("_", " ")
        console.print(f"Ideal is images/sec of one {what} ({name}) × {what}s.")
    else:
        console.print(f"One {what} was not measured, so that there is no efficiency.")
    for warning in curve.warnings:
        console.print(f"[yellow]note:[/] {escape(str(warning))}")


def _cells(point: CurvePoint, baseline: str) -> Sequence[str]:
    speed, efficiency = point.speed, point.efficiency
    if efficiency is None:
        share, interval = ("baseline" if baseline else ""), ""
    else:
        share = f"{efficiency.value:.1%}"
        interval = f"{100 * efficiency.low:.1f} to {100 * efficiency.high:.1f}%"
    return (
        str(point.gpus),
        point.shape,
        str(len(point.run_ids)),
        _speed(speed.value),
        "" if math.isnan(speed.half_width) else f"{speed.half_width:.1%}",
        "" if math.isnan(point.ideal) else _speed(point.ideal),
        share,
        "" if "nan" in interval else interval,
    )


def curve_json(item: Item, curve: Curve, log: Path, plot: Path | None) -> dict[str, Any]:
    """A curve for programs. What is not a number becomes null."""
    return {
        "model": item.model,
        "batch_per_gpu": item.batch_size,
        "baseline": curve.baseline or None,
        "points": [_point_json(point) for point in curve.points],
        "warnings": [asdict(warning) for warning in curve.warnings],
        "log": str(log),
        "plot": None if plot is None else str(plot),
    }


def _point_json(point: CurvePoint) -> dict[str, Any]:
    efficiency = point.efficiency
    facts = {
        "images_per_sec": point.speed.value,
        "ci_low": point.speed.low,
        "ci_high": point.speed.high,
        "ideal": point.ideal,
        "efficiency": math.nan if efficiency is None else efficiency.value,
        "efficiency_low": math.nan if efficiency is None else efficiency.low,
        "efficiency_high": math.nan if efficiency is None else efficiency.high,
    }
    return {
        "gpus": point.gpus,
        "nodes": point.nodes,
        "strategy": point.strategy,
        "run_ids": list(point.run_ids),
        "ci_method": point.speed.method,
        **{name: value if math.isfinite(value) else None for name, value in facts.items()},
    }


def sweep_json(
    sweep_id: str, repeats: int, curves: list[dict[str, Any]], failures: list[dict[str, Any]]
) -> str:
    """A whole sweep for programs."""
    return json.dumps(
        {"sweep_id": sweep_id, "repeats": repeats, "models": curves, "failures": failures}
    )


def print_failures(console: Console, failures: Sequence[Failure]) -> None:
    """The runs that gave no row, each with its reason, and how to make them again."""
    for failure in failures:
        step = failure.step
        count = f"{step.gpus} GPU{'s' * (step.gpus != 1)}"
        where = f"{step.item.model}, {count}, repeat {step.repeat}"
        console.print(f"runtest: {escape(where)}: {escape(failure.reason)}", soft_wrap=True)
    count = f"{len(failures)} point{'s' * (len(failures) != 1)}"
    console.print(f"runtest: {count} failed; the same line with --resume measures them again")


def failure_json(failure: Failure) -> dict[str, Any]:
    """A run that gave no row, for programs."""
    step = failure.step
    return {**asdict(step.item), "gpus": step.gpus, "repeat": step.repeat, "why": failure.reason}


def _workers(plan: RunPlan) -> str:
    """`2 on gpu1, 1 on gpu2`."""
    counts = Counter(plan.nodes[task.node].alias for task in plan.workers)
    return ", ".join(f"{count} on {alias}" for alias, count in counts.items())


def _computing(plan: RunPlan) -> str:
    job = plan.job
    if job.strategy == INPUT_ONLY:
        return ""
    threads = (job.intra_op_threads, job.inter_op_threads)
    return f"{in_words(job.precision, job.xla, job.onednn, threads)}, "


def _times(repeats: int) -> str:
    return "once" if repeats == 1 else f"{repeats} times"


def _speed(images_per_second: float) -> str:
    return f"{images_per_second:,.1f}" if images_per_second >= 10 else f"{images_per_second:.3g}"

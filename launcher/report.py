"""What is printed of plans and results: tables that fit 80 columns, JSON, and the last line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from launcher.binding import Binding
from launcher.computing import in_words
from launcher.data_options import data_label
from launcher.startup import PARTS
from launcher.tasks import ALL_REDUCE, HOROVOD, INPUT_ONLY, RunPlan
from launcher.text import counted

if TYPE_CHECKING:  # they bring pandas along
    from launcher.measurement import Measurement
    from launcher.outcome import Outcome
    from launcher.results.log import RunRow
    from launcher.session import Session


def last_line(row: RunRow) -> str:
    """The line that existing scripts look for."""
    return (
        f"Nodes: {row.nodes}; GPUs per node: {row.gpus_per_node}; "
        f"Images/sec: {row.images_per_sec:.1f}"
    )


def print_measurement(console: Console, measurement: Measurement, plot: Path | None) -> None:
    """The table of a finished run, what to know before trusting it, and where it was written."""
    row = measurement.row
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _rows(row):
        table.add_row(name, escape(value))
    if measurement.bottleneck is not None:
        table.add_row("held up by", escape(str(measurement.bottleneck)))
    console.print(table)
    for warning in measurement.warnings:
        console.print(f"[yellow]note:[/] {escape(str(warning))}", highlight=False)
    for problem in measurement.outcome.problems:
        console.print(f"[yellow]note:[/] {escape(problem)}", highlight=False)
    paths = [("log", measurement.log), ("plot", plot), ("run", measurement.folder.path)]
    paths += [("trace", path.parent) for path in list(measurement.outcome.traces.values())[:1]]
    for name, path in paths:
        if path is not None:
            console.print(f"{name + ':':<5} {escape(str(path))}", highlight=False, soft_wrap=True)
    console.file.write(last_line(row) + "\n")  # whole, however narrow the terminal


def _rows(row: RunRow) -> list[tuple[str, str]]:
    where = f"{row.nodes} node{'s' * (row.nodes != 1)} × {row.gpus_per_node}"
    if row.device == "gpu":
        where += f" GPU{'s' * (row.gpus_per_node != 1)}"
    else:
        where += f" CPU worker{'s' * (row.gpus_per_node != 1)}"
    if row.machines < row.nodes:
        where += f", all processes on {row.machines} machine{'s' * (row.machines != 1)}"
    return [
        ("model", f"{row.model}, {row.batch_per_gpu} images per GPU and step, {row.data}"),
        *([("read from", row.staged_from)] if row.staged_from else []),
        ("where", f"{where} ({row.gpu_type})"),
        ("strategy", _strategy(row)),
        *([] if row.strategy == INPUT_ONLY else [("computing", _computing(row))]),
        ("images/sec", f"{_number(row.images_per_sec)}{_interval(row)}"),
        (
            "step time",
            f"mean {_seconds(row.mean_time)}, median {_seconds(row.p50)}, "
            f"95 % {_seconds(row.p95)}, max {_seconds(row.max)}",
        ),
        (
            "speed",
            f"mean {_number(row.mean_speed)}, uncertainty {_number(row.speed_uncertainty)}, "
            f"jitter {_number(row.speed_jitter)} images/sec",
        ),
        ("steps", f"{row.measured_steps} measured after {row.warmup_steps} of warm-up"),
    ]


def _strategy(row: RunRow) -> str:
    if row.strategy == "single":
        return "single process"
    if row.strategy in (ALL_REDUCE, HOROVOD):
        how = f" by {row.communication}" if row.communication else ""
        return f"{row.strategy}{how}, synchronous, every worker with all parameters"
    if row.strategy == INPUT_ONLY:
        return "none: batches are read, and nothing is trained"
    text = f"{row.strategy}, {'synchronous' if row.sync else 'asynchronous'}"
    text += f", {row.parameter_servers} parameter server{'s' * (row.parameter_servers != 1)}"
    if row.backup_workers:
        text += f", {row.backup_workers} backup worker{'s' * (row.backup_workers != 1)}"
    from launcher.results.points import fact_in_words  # it brings pandas along

    for name in ("aggregate", "gradient_dtype"):
        if fact := getattr(row, name):
            text += f", {fact_in_words(name, fact)}"
    return text


def _computing(row: RunRow) -> str:
    threads = (row.intra_op_threads, row.inter_op_threads)
    return in_words(row.precision, row.xla == "on", row.onednn == "on", threads)


def _interval(row: RunRow) -> str:
    if math.isnan(row.ci_low):
        return f" ({row.ci_method}, so no interval)"
    return f" (95 %: {_number(row.ci_low)} to {_number(row.ci_high)}, {row.ci_method})"


def _number(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 1 else f"{value * 1000:.3g} ms"


def measurement_json(measurement: Measurement, plot: Path | None) -> str:
    """A finished run for programs. What is not a number becomes null."""
    row = {key: _json_value(value) for key, value in asdict(measurement.row).items()}
    held_up_by = measurement.bottleneck
    return json.dumps(
        {
            **row,
            "warnings": [asdict(warning) for warning in measurement.warnings],
            "held_up_by": None if held_up_by is None else asdict(held_up_by),
            "problems": measurement.outcome.problems,
            "traces": [str(path) for path in measurement.outcome.traces.values()],
            "log": str(measurement.log),
            "plot": None if plot is None else str(plot),
            "run_folder": str(measurement.folder.path),
        }
    )


def _json_value(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def show_plan(console: Console, session: Session, plan: RunPlan, as_json: bool) -> None:
    """A plan, as a person or as a program wants it."""
    commands = [session.describe(node) for node in session.nodes]
    if as_json:
        console.file.write(plan_json(plan, commands) + "\n")
    else:
        print_plan(console, plan, commands)


def print_plan(console: Console, plan: RunPlan, commands: list[str]) -> None:
    """A plan for people: what would run where."""
    job = plan.job
    length = f"{job.warmup_steps} + {job.measured_steps} steps"
    if job.training is not None:
        length = counted(job.training.epochs, "epoch")
    console.print(
        f"{escape(job.model)}, {job.batch_size} images per worker and step, {job.strategy}, "
        f"{length}, on {plan.device}",
        highlight=False,
    )
    if job.strategy != INPUT_ONLY:
        computing = in_words(job.precision, job.xla, job.onednn)
        console.print(f"computing: {computing}", highlight=False)
    if job.data.path:
        staged = f", copied to {job.data.stage} first" if job.data.stage else ""
        console.print(
            f"data: {escape(data_label(job.data))} of {escape(job.data.path + staged)}",
            highlight=False,
            soft_wrap=True,
        )
    for line in binding_lines(plan):
        console.print(escape(line), highlight=False, soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("task", "node", "address", "runs on"):
        table.add_column(name, overflow="fold")
    for task in plan.tasks:
        table.add_row(
            task.name,
            escape(plan.nodes[task.node].alias),
            escape(task.address),
            _runs_on(task.place),
        )
    console.print(table)
    console.print("remote command of each node:", highlight=False)
    for command in commands:
        console.print("  " + escape(command), highlight=False, soft_wrap=True)
    console.print("nothing was started", highlight=False)


def binding_lines(plan: RunPlan) -> Iterator[str]:
    """What was asked for of binding and threads, and each worker's variables; often nothing."""
    asked, job = plan.binding, plan.job
    if asked != Binding():
        profile = f"{asked.name}, " if asked.name else ""
        yield f"binding: {profile}--cpu-bind {asked.cpu_bind}"
    if job.intra_op_threads or job.inter_op_threads:
        sizes = (str(size or "?") for size in (job.intra_op_threads, job.inter_op_threads))
        yield f"threads: {' + '.join(sizes)} (in an operation + operations at once)"
    alike: dict[str, list[str]] = {}
    for task in plan.workers:
        variables = " ".join(task.place.environment)
        alike.setdefault(variables, []).append(str(task.place.index))
    for variables, workers in alike.items():
        if variables:
            whose = "each worker" if len(alike) == 1 else f"worker {', '.join(workers)}"
            yield f"environment of {whose}: {variables}"


def _runs_on(place: Any) -> str:
    cpus = f"CPU {', '.join(map(str, place.cpus))}" if place.cpus else ""
    if place.gpu is not None:
        return f"{escape(place.gpu)}{', ' * bool(cpus)}{cpus}"
    return cpus or "any CPU"


def plan_json(plan: RunPlan, commands: list[str]) -> str:
    """A plan for programs."""
    return json.dumps(
        {
            "job": asdict(plan.job),
            "device": plan.device,
            "nodes": [asdict(node) for node in plan.nodes],
            "tasks": [asdict(task) for task in plan.tasks],
            "binding": asdict(plan.binding),
            "commands": commands,
        }
    )


def print_startup(console: Console, outcome: Outcome) -> None:
    """Where the time to the first step went, in parts and for each task."""
    startup = outcome.startup
    console.print(f"from the command to the end of the first step: {startup.seconds:.2f} s")
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("part", "seconds", "what"):
        table.add_column(name, justify="right" if name == "seconds" else "left")
    for name, what in PARTS.items():
        if name in startup.parts:
            table.add_row(name, f"{startup.parts[name]:.2f}", what)
    console.print(table)
    console.print("seconds after its process started at which each task began:")
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("task", "seconds", "began"):
        table.add_column(name, justify="right" if name == "seconds" else "left")
    for phase in outcome.phases:
        table.add_row(
            f"{phase.role} {phase.index}", f"{phase.elapsed_seconds:.2f}", escape(phase.name)
        )
    console.print(table)

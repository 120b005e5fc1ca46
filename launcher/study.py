"""One scaling study from its options to its curves: nodes, runs, record, plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from launcher.cli_options import Where
from launcher.cli_shared import check_logs, draw, find_nodes, opened
from launcher.errors import UsageError
from launcher.nodes import Node
from launcher.plan import greeting, make_plan
from launcher.provenance import new_run_id
from launcher.sweep import Failure, Item, Step, Sweep, SweepRunner, check_sweep, make_plans
from launcher.tasks import RunPlan
from launcher.terminal import console
from launcher.transports.base import Transport

if TYPE_CHECKING:  # they bring pandas along
    import pandas as pd

    from launcher.results.curve import Curve
    from launcher.sweep_record import Record


@dataclass(frozen=True)
class ModelCurve:
    """What a study has measured of one model. rows: of its log.  svg: None where none was drawn."""

    item: Item
    curve: Curve
    rows: pd.DataFrame
    log: Path
    svg: Path | None


@dataclass(frozen=True)
class Scaling:
    """A study that has ended: a curve for each model of which anything was measured."""

    sweep_id: str
    curves: tuple[ModelCurve, ...]
    failures: tuple[Failure, ...]


def run_sweep(
    sweep: Sweep, where: Where, logs_dir: Path, argv: Sequence[str], resume: bool
) -> Scaling:
    """Measure what a sweep asks for, or what the newest one alike still lacks (`resume`)."""
    err = console(stderr=True)
    nodes, transport = nodes_for(sweep, where, err)
    check_logs(logs_dir)
    record, is_complete = _taken_up(sweep, nodes, logs_dir, resume, err)
    failures: Sequence[Failure] = ()
    if not is_complete:
        failures = _measured(sweep, where, record, argv, (nodes, transport), err)
    return Scaling(record.sweep_id, tuple(_curves(sweep, record)), tuple(failures))


def plan_sweep(sweep: Sweep, where: Where) -> dict[tuple[Item, int], RunPlan]:
    """What each point would be; nothing is started."""
    err = console(stderr=True)
    nodes, transport = nodes_for(sweep, where, err)
    with opened(where, nodes, transport, sweep.options, err) as (session, _):
        return make_plans(sweep, session.nodes, session.hellos)


def nodes_for(sweep: Sweep, where: Where, err: Console) -> tuple[list[Node], Transport]:
    """As many nodes as the largest point needs, or as -n says. Raises UsageError."""
    nodes, transport = find_nodes(where, err, sweep.nodes_needed)
    needed = sweep.nodes_needed
    if needed > len(nodes):
        each = sweep.options.gpus_per_node
        given = f"-n {where.count}" if where.count else f"{where.nodes_file} lists {len(nodes)}"
        raise UsageError(
            f"{sweep.points[-1]} GPUs with -g {each} a node need {needed} nodes, but {given}",
            f"-x {len(nodes) * each}, or more nodes",
        )
    check_sweep(sweep)
    return (nodes if where.count else nodes[:needed]), transport


def _taken_up(
    sweep: Sweep, nodes: Sequence[Node], logs_dir: Path, resume: bool, err: Console
) -> tuple[Record, bool]:
    """A new sweep, or the newest one alike, and whether all of it has been measured."""
    from launcher.sweep_record import Record, configuration, newest

    what = configuration(sweep, nodes)
    record = newest(logs_dir, what) if resume else None
    if record is not None:
        done, total = len(record.done(sweep)), len(sweep.all_steps())
        err.print(f"sweep {record.sweep_id}: {done} of {total} points are in the logs")
        return record, done == total
    if resume:
        err.print(f"no sweep of this kind is in {escape(str(logs_dir))}: a new one is begun")
    return Record(logs_dir, new_run_id(datetime.now(timezone.utc))), False


def _measured(
    sweep: Sweep,
    where: Where,
    record: Record,
    argv: Sequence[str],
    reached: tuple[Sequence[Node], Transport],
    err: Console,
) -> Sequence[Failure]:
    """Make the runs that the logs lack, and draw each model's log after its last one."""
    from launcher.measurement import measure
    from launcher.results.log import log_path
    from launcher.run_record import Context
    from launcher.sweep_record import configuration

    nodes, transport = reached
    with opened(where, nodes, transport, sweep.options, err) as (session, display):
        plans = make_plans(sweep, session.nodes, session.hellos)

        def measure_one(step: Step) -> float:
            used = len(plans[step.item, step.gpus].nodes)
            session.greet_again(lambda node: greeting(sweep.options, node, session.id), used)
            asked_here = sweep.options_of(step.item, step.gpus)
            plan = make_plan(asked_here, session.nodes, session.hellos)
            context = Context(record.logs_dir, argv, record.sweep_id, step.repeat)
            return measure(session, plan, context, display).row.images_per_sec

        runner = SweepRunner(plans, measure_one, session.why_closed, display.note)
        with record.held():
            if not record.path.exists():
                record.write(configuration(sweep, nodes), argv)
            done = record.done(sweep)
            try:
                for item in sweep.items:
                    runner.run(sweep, item, done)
                    log = log_path(record.logs_dir, item.model, item.batch_size)
                    if log.exists():
                        draw(log, err)
            except BaseException:
                display.note("cut off; the same line with --resume measures what is left")
                raise
    return runner.failures


def _curves(sweep: Sweep, record: Record) -> list[ModelCurve]:
    """The curve of each model from the rows of the sweep."""
    from launcher.results.curve import curve
    from launcher.results.log import log_path

    found = []
    for item in sweep.items:
        rows = record.rows(item)
        if rows is None or rows.empty:
            continue
        log = log_path(record.logs_dir, item.model, item.batch_size)
        svg = log.with_suffix(".svg")
        found.append(ModelCurve(item, curve(rows), rows, log, svg if svg.exists() else None))
    return found

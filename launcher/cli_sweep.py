"""The commands that measure scaling: `scale` for one model, `all` for several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape

from launcher import cli_options as options
from launcher import sweep_report
from launcher.cli_options import Where
from launcher.cli_shared import check_logs, check_model, draw, find_nodes, opened
from launcher.errors import UsageError
from launcher.nodes import Node
from launcher.plan import greeting, make_plan
from launcher.provenance import new_run_id
from launcher.sweep import (
    BASELINES,
    Failure,
    Item,
    Step,
    Sweep,
    SweepRunner,
    check_sweep,
    make_plans,
    parse_items,
    parse_points,
    points_up_to,
)
from launcher.terminal import console
from launcher.transports.base import Transport

if TYPE_CHECKING:  # they bring pandas along
    from launcher.sweep_record import Record


@dataclass(frozen=True)
class Asked:
    """What was asked for on the command line, besides the sweep itself."""

    where: Where
    logs_dir: Path
    as_json: bool
    dry_run: bool
    resume: bool
    argv: Sequence[str]


@click.command()
@click.option("-m", "--model", required=True, help="Network: resnet50, alexnet, keras:NAME ...")
@options.batch_option
@options.sweep_options
@options.where_options
@options.training_options
@options.compute_options
@options.data_options
@options.logs_option
@options.json_option
@click.pass_obj
def scale(argv: Sequence[str], model: str, batch_size: int, **values: Any) -> int:
    """Measure one model on 1, 2, 4 ... up to MAX GPUs, over one set of connections.

    One node is filled before the next is taken. Without GPUs, workers on CPU cores take their
    place.
    """
    return _measure((Item(model, batch_size),), argv, values)


@click.command(name="all")
@click.option(
    "-m",
    "--models",
    metavar="MODEL:BATCH,...",
    required=True,
    help="Networks, each with its images per GPU and step: resnet:32,alexnet:512",
)
@options.sweep_options
@options.where_options
@options.training_options
@options.compute_options
@options.data_options
@options.logs_option
@options.json_option
@click.pass_obj
def scale_all(argv: Sequence[str], models: str, **values: Any) -> int:
    """Measure the scaling of several models, one after the other, over one set of connections."""
    return _measure(parse_items(models), argv, values)


def make_sweep(items: tuple[Item, ...], values: dict[str, Any]) -> Sweep:
    """The sweep from what Click gives. Raises UsageError."""
    largest, listed = values["max_gpus"], values["points"]
    if (largest is None) == (listed is None):
        raise UsageError("one of -x and --points is needed, and not both", "-x 4")
    return Sweep(
        items=items,
        points=points_up_to(largest) if listed is None else parse_points(listed),
        repeats=values["repeats"],
        baseline=BASELINES[values["baseline"]],
        options=options.make_options(items[0].model, items[0].batch_size, values),
    )


def _measure(items: tuple[Item, ...], argv: Sequence[str], values: dict[str, Any]) -> int:
    """What both commands do. Returns the exit status."""
    for model in dict.fromkeys(item.model for item in items):
        check_model(model)
    sweep = make_sweep(items, values)
    asked = Asked(
        where=options.make_where(values, values["num_nodes"]),
        logs_dir=values["logs_dir"],
        as_json=values["as_json"],
        dry_run=values["dry_run"],
        resume=values["resume"],
        argv=argv,
    )
    err = console(stderr=True)
    nodes, transport = find_nodes(asked.where, err, sweep.nodes_needed)
    nodes = _enough(nodes, sweep, asked.where)
    check_sweep(sweep)
    if asked.dry_run:
        _print_plans(sweep, asked, nodes, transport, err)
        return 0
    check_logs(asked.logs_dir)
    record, is_complete = _taken_up(sweep, asked, nodes, err)
    failures: Sequence[Failure] = ()
    if not is_complete:
        failures = _measured(sweep, asked, record, (nodes, transport), err)
    _print_results(sweep, asked, record, failures, err)
    return 1 if failures else 0


def _enough(nodes: list[Node], sweep: Sweep, where: Where) -> list[Node]:
    """As many of the nodes as the largest point needs, or as -n says. Raises UsageError."""
    needed = sweep.nodes_needed
    if needed > len(nodes):
        each = sweep.options.gpus_per_node
        given = f"-n {where.count}" if where.count else f"{where.nodes_file} lists {len(nodes)}"
        raise UsageError(
            f"{sweep.points[-1]} GPUs with -g {each} a node need {needed} nodes, but {given}",
            f"-x {len(nodes) * each}, or more nodes",
        )
    return nodes if where.count else nodes[:needed]


def _print_plans(
    sweep: Sweep, asked: Asked, nodes: Sequence[Node], transport: Transport, err: Console
) -> None:
    with opened(asked.where, nodes, transport, sweep.options, err) as (session, _):
        plans = make_plans(sweep, session.nodes, session.hellos)
    if asked.as_json:
        click.echo(sweep_report.plans_json(sweep, plans))
    else:
        sweep_report.print_plans(console(), sweep, plans)


def _taken_up(
    sweep: Sweep, asked: Asked, nodes: Sequence[Node], err: Console
) -> tuple[Record, bool]:
    """A new sweep, or the newest one alike, and whether all of it has been measured."""
    from launcher.sweep_record import Record, configuration, newest

    what = configuration(sweep, nodes)
    record = newest(asked.logs_dir, what) if asked.resume else None
    if record is not None:
        done, total = len(record.done(sweep)), len(sweep.all_steps())
        err.print(f"sweep {record.sweep_id}: {done} of {total} points are in the logs")
        return record, done == total
    if asked.resume:
        err.print(f"no sweep of this kind is in {escape(str(asked.logs_dir))}: a new one is begun")
    return Record(asked.logs_dir, new_run_id(datetime.now(timezone.utc))), False


def _measured(
    sweep: Sweep,
    asked: Asked,
    record: Record,
    where: tuple[Sequence[Node], Transport],
    err: Console,
) -> Sequence[Failure]:
    """Make the runs that the logs lack, and draw each model's log after its last one."""
    from launcher.measurement import measure
    from launcher.results.log import log_path
    from launcher.run_record import Context
    from launcher.sweep_record import configuration

    nodes, transport = where
    with opened(asked.where, nodes, transport, sweep.options, err) as (session, display):
        plans = make_plans(sweep, session.nodes, session.hellos)

        def measure_one(step: Step) -> float:
            used = len(plans[step.item, step.gpus].nodes)
            session.greet_again(lambda node: greeting(sweep.options, node, session.id), used)
            asked_here = sweep.options_of(step.item, step.gpus)
            plan = make_plan(asked_here, session.nodes, session.hellos)
            context = Context(asked.logs_dir, asked.argv, record.sweep_id, step.repeat)
            return measure(session, plan, context, display).row.images_per_sec

        runner = SweepRunner(plans, measure_one, session.why_closed, display.note)
        with record.held():
            if not record.path.exists():
                record.write(configuration(sweep, nodes), asked.argv)
            done = record.done(sweep)
            try:
                for item in sweep.items:
                    runner.run(sweep, item, done)
                    log = log_path(asked.logs_dir, item.model, item.batch_size)
                    if log.exists():
                        draw(log, err)
            except BaseException:
                display.note("cut off; the same line with --resume measures what is left")
                raise
    return runner.failures


def _print_results(
    sweep: Sweep, asked: Asked, record: Record, failures: Sequence[Failure], err: Console
) -> None:
    """The curve of each model from the rows of the sweep, the failures, and the paths."""
    from launcher.results.caption import unit
    from launcher.results.curve import curve
    from launcher.results.log import log_path

    out = console()
    curves = []
    for item in sweep.items:
        rows = record.rows(item)
        log = log_path(asked.logs_dir, item.model, item.batch_size)
        if rows is None or rows.empty:
            err.print(f"runtest: nothing was measured of {item.model}, batch {item.batch_size}")
            continue
        found, plot = curve(rows), log.with_suffix(".svg")
        curves.append(sweep_report.curve_json(item, found, log, plot if plot.exists() else None))
        if not asked.as_json:
            sweep_report.print_curve(out, item, found, unit(rows))
            out.print(f"log:  {log}", soft_wrap=True, markup=False)
            if plot.exists():
                out.print(f"plot: {plot}", soft_wrap=True, markup=False)
            out.print()
    if asked.as_json:
        failed = [sweep_report.failure_json(failure) for failure in failures]
        click.echo(
            sweep_report.sweep_json(record.sweep_id, sweep.repeats, curves, failed),
        )
    elif failures:
        sweep_report.print_failures(err, failures)

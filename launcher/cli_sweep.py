"""The commands that measure scaling: `scale` for one model, `all` for several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from launcher import api, sweep_report
from launcher import cli_options as options
from launcher.cli_shared import check_model
from launcher.errors import UsageError
from launcher.study import Scaling, plan_sweep
from launcher.sweep import BASELINES, Item, Sweep, parse_items, parse_points, points_up_to
from launcher.terminal import console


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
    where = options.make_where(values, values["num_nodes"])
    if values["dry_run"]:
        plans = plan_sweep(sweep, where)
        if values["as_json"]:
            click.echo(sweep_report.plans_json(sweep, plans))
        else:
            sweep_report.print_plans(console(), sweep, plans)
        return 0
    scaling = api.scale(sweep, where, values["logs_dir"], argv, values["resume"])
    _print_results(sweep, scaling, values["as_json"])
    return 1 if scaling.failures else 0


def _print_results(sweep: Sweep, scaling: Scaling, as_json: bool) -> None:
    """The curve of each model from the rows of the sweep, the failures, and the paths."""
    from launcher.results.caption import unit
    from launcher.results.points import unusual_computing

    out, err = console(), console(stderr=True)
    measured = {each.item for each in scaling.curves}
    for item in sweep.items:
        if item not in measured:
            err.print(f"runtest: nothing was measured of {item.model}, batch {item.batch_size}")
    if as_json:
        curves = [sweep_report.curve_json(c.item, c.curve, c.log, c.svg) for c in scaling.curves]
        failed = [sweep_report.failure_json(failure) for failure in scaling.failures]
        click.echo(sweep_report.sweep_json(scaling.sweep_id, sweep.repeats, curves, failed))
        return
    for each in scaling.curves:
        computing = unusual_computing(each.rows.iloc[0])
        sweep_report.print_curve(out, each.item, each.curve, unit(each.rows), computing)
        out.print(f"log:  {each.log}", soft_wrap=True, markup=False)
        if each.svg is not None:
            out.print(f"plot: {each.svg}", soft_wrap=True, markup=False)
        out.print()
    if scaling.failures:
        sweep_report.print_failures(err, scaling.failures)

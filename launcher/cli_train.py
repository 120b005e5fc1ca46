"""The commands of real training: train, evaluate."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from launcher import api, report
from launcher import cli_options as options
from launcher.binding_options import OPTIONS as BINDING_OPTIONS
from launcher.binding_options import make_binding
from launcher.cli_shared import print_notes
from launcher.compute_options import make_computing
from launcher.counts import COUNT, GPUS, NODES
from launcher.errors import UsageError
from launcher.tasks import AUTO, DEFAULT_FIRST_PORT
from launcher.terminal import console
from launcher.training.config import TrainConfig
from launcher.training.config_file import read_config

if TYPE_CHECKING:
    from launcher.training.train import Trained

_config_option = click.option(
    "--config",
    "config_path",
    metavar="FILE",
    required=True,
    type=click.Path(path_type=Path),
    help="JSON configuration; configs/ has some.",
)
_folder_options = (
    click.option("--input", "input_dir", metavar="DIR", help="Instead of its inputpath."),
    click.option("--output", "output_dir", metavar="DIR", help="Instead of its outputpath."),
    click.option("--stage", metavar="DIR", default="", help="Copy the data to DIR on each node."),
    click.option("--device", type=click.Choice(["auto", "cpu", "gpu"]), help="Instead of arch."),
    click.option(
        "--port-base",
        type=click.IntRange(1024, 65535 - 256),
        default=DEFAULT_FIRST_PORT,
        show_default=True,
        metavar="PORT",
        help="First TCP port of the parameter servers; workers start 8 above it.",
    ),
    click.option(
        "--stall-timeout",
        type=click.FloatRange(min=1),
        default=60.0,
        show_default=True,
        metavar="SECONDS",
        help="End a run in which no worker gets on for so long, or for five times so long before "
        "its first step and where it reads, saves or validates, or in which a task is stopped "
        "(SIGSTOP) for so long.",
    ),
    click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=1, show_default=True),
    *BINDING_OPTIONS,
)


def _folders(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_folder_options):
        function = option(function)
    return function


@click.command()
@_config_option
@click.option("-n", "--num-nodes", type=NODES, help="How many of the nodes to use.")
@click.option(
    "-g",
    "--gpus-per-node",
    type=GPUS,
    default=1,
    show_default=True,
    help="GPUs (or, without GPUs, workers) on each node.",
)
@click.option("--num-ps", type=COUNT, metavar="N", help="Parameter servers.")
@options.exchange_options
@click.option("--epochs", type=COUNT, help="Instead of its num_epochs.")
@click.option("--restart", is_flag=True, help="Go on from the newest checkpoint in outputpath.")
@click.option("--dummy-data", is_flag=True, help="Train on random images, without files.")
@_folders
@options.compute_options
@options.where_options
@options.logs_option
@click.option("--dry-run", is_flag=True, help="Greet the nodes, print the plan, start nothing.")
@options.json_option
@click.pass_obj
def train(
    argv: Sequence[str],
    config_path: Path,
    num_nodes: int | None,
    gpus_per_node: int,
    epochs: int | None,
    restart: bool,
    dummy_data: bool,
    dry_run: bool,
    **values: Any,
) -> None:
    """Train a network on real data, as a JSON configuration says.

    \b
    runtest make-data hep --size 64 --samples 20000 data/hep_64
    runtest train --config configs/hep_cnn_64.json -g 2
    """
    given: dict[str, Any] = {"restart": True} if restart else {}
    if epochs is not None:
        given["num_epochs"] = epochs
    if dummy_data:
        given["data"] = "synthetic"
    config = _read(config_path, values, given)
    _execute(config, argv, values, num_nodes, gpus_per_node, dry_run)


@click.command()
@_config_option
@click.option(
    "--checkpoint",
    metavar="ID",
    default="",
    help="A name as training prints it, epoch-0003 say, or best: the one of the best validation. "
    "[default: the newest]",
)
@_folders
@options.where_options
@options.logs_option
@options.json_option
@click.pass_obj
def evaluate(argv: Sequence[str], config_path: Path, checkpoint: str, **values: Any) -> None:
    """Test what a training has left: loss, weighted accuracy, AUC, and the ROC curve as SVG.

    One process on the first node, which is where a training keeps its checkpoints.
    """
    if not checkpoint.isprintable() or "/" in checkpoint or len(checkpoint) > 100:
        raise UsageError(
            f"--checkpoint {checkpoint[:60]!a} is no checkpoint's name", "epoch-0001, or best"
        )
    config = _read(config_path, values, {}).with_training(evaluate=True, checkpoint=checkpoint)
    config = config.with_training(evaluation_batch_size=config.test_batch_size)
    config = replace(config, options=replace(config.options, backup_workers=0, synchronous=True))
    _execute(config, argv, {**values, "num_ps": None}, 1, 1, dry_run=False)


def _read(path: Path, values: dict[str, Any], given: dict[str, Any]) -> TrainConfig:
    """The configuration in a file, with what the command line says instead."""
    for key, option in (("inputpath", "input_dir"), ("outputpath", "output_dir")):
        if values[option] is not None:
            given[key] = values[option]
    if values["device"]:
        given["arch"] = values["device"]
    return read_config(path, given, values["stage"], is_local=values["nodes_file"] is None)


def _execute(
    config: TrainConfig,
    argv: Sequence[str],
    values: dict[str, Any],
    num_nodes: int | None,
    gpus_per_node: int,
    dry_run: bool,
) -> None:
    where = options.make_where(values, num_nodes)
    changes = {
        "parameter_servers": values["num_ps"],
        "first_port": values["port_base"],
        "seed": values["seed"],
        "stall_seconds": values["stall_timeout"],
        "binding": make_binding(values),
        "aggregation": values.get("aggregate", AUTO),
        "gradient_dtype": values.get("gradient_dtype", "fp32"),
        **(make_computing(values) if "precision" in values else {}),
    }
    out = console()
    if dry_run:
        with api.planned_training(config, where, gpus_per_node, **changes) as (session, plan, _):
            report.show_plan(out, session, plan, values["as_json"])
        return
    trained = api.train(config, where, values["logs_dir"], argv, gpus_per_node, **changes)
    print_notes(console(stderr=True), trained.problems)
    if values["as_json"]:
        click.echo(_as_json(trained))
    else:
        _print(out, trained)


def _print(out: Console, trained: Trained) -> None:
    """The passes over the data as a table, and where everything is."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("epoch", justify="right")
    table.add_column("split")
    for name in ("loss", "accuracy", "weighted", "AUC", "images/sec"):
        table.add_column(name, justify="right")
    for row in trained.rows:
        figures = (row.loss, row.accuracy, row.weighted_accuracy, row.auc)
        shown = ["" if math.isnan(figure) else f"{figure:.4f}" for figure in figures]
        speed = "" if math.isnan(row.images_per_sec) else f"{row.images_per_sec:,.1f}"
        table.add_row(str(row.epoch), row.split, *shown, speed)
    out.print(table)
    paths = (
        ("metrics", trained.metrics_csv),
        ("ROC", trained.roc_svg),
        ("run", trained.folder.path),
    )
    for name, path in paths:
        if path is not None:
            out.print(f"{name + ':':9}{escape(str(path))}", soft_wrap=True)


def _as_json(trained: Trained) -> str:
    rows = [
        {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(row).items()}
        for row in trained.rows
    ]
    return json.dumps(
        {
            "metrics": rows,
            "metrics_csv": str(trained.metrics_csv),
            "roc_svg": None if trained.roc_svg is None else str(trained.roc_svg),
            "run": str(trained.folder.path),
        },
        indent=2,
    )

"""What the commands do, as functions: for notebooks, and for programs of yours.

    from launcher import api

    done = api.measure(api.Options("deepmnist", batch_size=8))
    scaling = api.scale(api.Sweep((api.Item("deepmnist", 8),), points=(1, 2)))
    scaling.curves[0].svg                       # its plot; .rows has the runs, .curve the figures
    trained = api.train(api.read_config("configs/hep_cnn_64_cpu.json"), gpus_per_node=2)

The commands run, scale, all and train are made of these. Progress goes to standard error. Failures
are the exceptions of launcher/errors.py; none of these functions ends the interpreter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.cli_options import Where
from launcher.cli_shared import check_logs, check_model, find_nodes, opened, print_notes
from launcher.display import Display
from launcher.making import make_data
from launcher.nodes import Node
from launcher.plan import check_options, make_plan
from launcher.result_options import DEFAULT_LOGS
from launcher.session import Session
from launcher.study import Scaling, run_sweep
from launcher.sweep import Item, Sweep, points_up_to
from launcher.tasks import Options, RunPlan
from launcher.terminal import console
from launcher.training.config import TrainConfig
from launcher.training.config_file import read_config
from launcher.training.view import TrainingDisplay

if TYPE_CHECKING:  # they bring pandas along
    from launcher.measurement import Measurement
    from launcher.training.train import Trained

HERE = Where()
LOGS = Path(DEFAULT_LOGS)


def measure(
    asked: Options,
    where: Where = HERE,
    logs_dir: Path = LOGS,
    argv: Sequence[str] = ("api",),
    profile_dir: Path | None = None,
) -> Measurement:
    """One measurement: its row, its figures, its log and its folder. argv: kept in run.json.

    profile_dir: where the traces go that `asked.profile_steps` asks for.
    Raises UsageError for what cannot be, NodeError or NodesFailed for a run that fails.
    """
    from launcher.measurement import measure as measure_once
    from launcher.run_record import Context

    check_logs(logs_dir)
    with planned(asked, where) as (session, plan, display):
        context = Context(logs_dir, argv, profile_dir=profile_dir)
        return measure_once(session, plan, context, display)


@contextmanager
def planned(asked: Options, where: Where = HERE) -> Iterator[tuple[Session, RunPlan, Display]]:
    """Greeted nodes, and what would run on them."""
    err = console(stderr=True)
    check_model(asked.model)
    nodes, transport = find_nodes(where, err)
    check_options(asked, len(nodes))
    with opened(where, nodes, transport, asked, err) as (session, display):
        yield session, make_plan(asked, session.nodes, session.hellos), display


def scale(
    sweep: Sweep,
    where: Where = HERE,
    logs_dir: Path = LOGS,
    argv: Sequence[str] = ("api",),
    resume: bool = False,
) -> Scaling:
    """A scaling study: the curve of each model, and the plots of their logs.

    A point that fails is one of `failures`. Raises UsageError for what cannot be, NodeError where
    the nodes cannot be opened.
    """
    for model in dict.fromkeys(item.model for item in sweep.items):
        check_model(model)
    return run_sweep(sweep, where, logs_dir, argv, resume)


def train(
    config: TrainConfig,
    where: Where = HERE,
    logs_dir: Path = LOGS,
    argv: Sequence[str] = ("api",),
    gpus_per_node: int = 1,
    **changes: Any,
) -> Trained:
    """A training, or the evaluation that a configuration asks for.

    changes: fields of Options that no configuration has (parameter_servers, seed, binding ...).
    Raises ConfigError and other UsageErrors for what cannot be, NodeError for a run that fails.
    """
    from launcher.run_record import Context
    from launcher.training.train import train as train_once

    check_logs(logs_dir)
    with planned_training(config, where, gpus_per_node, **changes) as (session, plan, display):
        return train_once(session, plan, Context(logs_dir, argv), display)


@contextmanager
def planned_training(
    config: TrainConfig, where: Where = HERE, gpus_per_node: int = 1, **changes: Any
) -> Iterator[tuple[Session, RunPlan, Display]]:
    """Greeted nodes, and the training that would run on them."""
    err = console(stderr=True)
    check_model(config.options.model)
    print_notes(err, config.notes)
    nodes, transport = find_nodes(where, err)
    asked = _options_of(config, nodes, gpus_per_node, changes)
    check_options(asked, len(nodes))
    if asked.backup_workers < config.options.backup_workers or (
        asked.synchronous and not config.options.synchronous
    ):
        print_notes(err, ("one worker alone: num_hot_spares and mode async have no part",))
    with opened(where, nodes, transport, asked, err, TrainingDisplay) as (session, display):
        yield session, make_plan(asked, session.nodes, session.hellos), display


def _options_of(
    config: TrainConfig, nodes: Sequence[Node], gpus_per_node: int, changes: dict[str, Any]
) -> Options:
    # How many servers there are decides whether one worker alone needs any.
    servers = changes.get("parameter_servers")
    with_servers = replace(config, options=replace(config.options, parameter_servers=servers))
    return replace(with_servers.for_workers(len(nodes), gpus_per_node), **changes)


__all__ = [
    "HERE",
    "Item",
    "Options",
    "Scaling",
    "Sweep",
    "TrainConfig",
    "Where",
    "make_data",
    "measure",
    "planned",
    "planned_training",
    "points_up_to",
    "read_config",
    "scale",
    "train",
]

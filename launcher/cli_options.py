"""The options that several commands share, as Click decorators, and what they stand for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from launcher.binding_options import OPTIONS as BINDING_OPTIONS
from launcher.binding_options import make_binding
from launcher.compute_options import OPTIONS as COMPUTE_OPTIONS
from launcher.compute_options import make_computing
from launcher.counts import COUNT, COUNT_OR_NONE, GPUS, NODES
from launcher.data_options import OPTIONS as DATA_OPTIONS
from launcher.data_options import make_data, make_strategy
from launcher.exchange_options import OPTIONS as EXCHANGE_OPTIONS
from launcher.result_options import LOGS, PROFILE
from launcher.tasks import DEFAULT_FIRST_PORT, Options

F = TypeVar("F", bound=Callable[..., Any])

# What -h says instead of a file.
SLURM = Path("slurm")
DEFAULT_BATCH = 32


@dataclass(frozen=True)
class Where:
    """Which nodes, and how they are reached.

    nodes_file: None for this machine, SLURM for the nodes of the Slurm allocation that we are in.
    first_port: as the command line says, for commands that start servers.
    """

    nodes_file: Path | None = None
    count: int | None = None
    remote_dir: str = ""
    ssh_config: Path | None = None
    python: str | None = None
    first_port: int = DEFAULT_FIRST_PORT


def _together(*options: Callable[[Any], Any]) -> Callable[[F], F]:
    def add(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return add


where_options = _together(
    click.option(
        "-h",
        "--nodes",
        "nodes_file",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Nodes file, a `hostname alias` a line; `slurm`: the nodes of the Slurm allocation "
        "that this is called in. [default: this machine, without ssh]",
    ),
    click.option(
        "-r",
        "--remote-dir",
        metavar="DIR",
        default="",
        help="Directory on the nodes to work in. [default: the node's temporary directory]",
    ),
    click.option(
        "--ssh-config",
        metavar="FILE",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="ssh_config to read. [default: what ssh itself reads]",
    ),
    click.option(
        "--python",
        metavar="PATH",
        help="Interpreter on the nodes that has TensorFlow. "
        "[default: python3; on this machine the one that runs runtest]",
    ),
)

batch_option = click.option(
    "-b",
    "--batch-size",
    type=COUNT,
    default=DEFAULT_BATCH,
    show_default=True,
    help="Images per GPU (per worker) and step.",
)

sweep_options = _together(
    click.option(
        "-x",
        "--max-gpus",
        metavar="MAX",
        type=click.IntRange(1, 65536),
        help="Measure 1, 2, 4 ... up to MAX GPUs, and MAX itself.",
    ),
    click.option("--points", metavar="1,3,6", help="Numbers of GPUs to measure, instead of -x."),
    click.option(
        "-n",
        "--num-nodes",
        type=NODES,
        help="How many of the nodes to use. [default: as many as the largest point needs]",
    ),
    click.option(
        "--repeats",
        type=COUNT,
        default=1,
        show_default=True,
        help="How often to measure every point: all of them once, then all again. From 3 on, the "
        "intervals say how far runs differ.",
    ),
    click.option(
        "--baseline",
        type=click.Choice(["single", "ps"]),
        default="single",
        show_default=True,
        help="What one GPU is measured with, and so what efficiency means: one process, or a "
        "worker with a parameter server.",
    ),
    click.option(
        "--resume",
        is_flag=True,
        help="Go on with the newest sweep of the same options, and measure only what its logs "
        "lack.",
    ),
    click.option(
        "--dry-run", is_flag=True, help="Greet the nodes, print the plans, start nothing."
    ),
)

exchange_options = _together(*EXCHANGE_OPTIONS)

training_options = _together(
    click.option(
        "-g",
        "--gpus-per-node",
        type=GPUS,
        default=1,
        show_default=True,
        help="GPUs (or, without GPUs, workers) on each node.",
    ),
    click.option(
        "--strategy",
        type=click.Choice(["parameter_server", "all_reduce", "horovod", "single"]),
        default="parameter_server",
        show_default=True,
        help="Where parameters live and how gradients meet.",
    ),
    click.option(
        "--communication",
        type=click.Choice(["auto", "ring", "nccl"]),
        default="auto",
        show_default=True,
        help="How all_reduce adds up gradients. auto: NCCL between GPUs, else a ring over gRPC.",
    ),
    click.option(
        "--sync/--async",
        "synchronous",
        default=True,
        show_default=True,
        help="Update once for all workers' gradients, or for each as it comes.",
    ),
    click.option(
        "--num-ps",
        type=COUNT,
        metavar="N",
        help="Parameter servers. [default: one a node]",
    ),
    *EXCHANGE_OPTIONS,
    click.option(
        "--backup-workers",
        type=COUNT_OR_NONE,
        default=0,
        show_default=True,
        metavar="K",
        help="Update with the first N−K of N workers' gradients.",
    ),
    click.option(
        "--steps",
        type=COUNT,
        default=100,
        show_default=True,
        help="Measured steps.",
    ),
    click.option(
        "--warmup",
        type=COUNT_OR_NONE,
        default=10,
        show_default=True,
        help="Steps before them, which do not count.",
    ),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "gpu"]),
        default="auto",
        show_default=True,
        help="What the workers compute on. auto: GPUs, if the nodes have any.",
    ),
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
        help="End a run in which a worker does not get on for so long, or for five times so long "
        "before its first step, or in which a task is stopped (SIGSTOP) for so long.",
    ),
    click.option(
        "--learning-rate",
        type=click.FloatRange(min=0, min_open=True),
        default=0.01,
        show_default=True,
        help="Of plain gradient descent; it does not change the speed.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(0, 2**31 - 1),
        default=1,
        show_default=True,
        help="Of initial parameters and synthetic images.",
    ),
    *BINDING_OPTIONS,
)

compute_options = _together(*COMPUTE_OPTIONS)

data_options = _together(*DATA_OPTIONS)

logs_option = _together(LOGS)
profile_option = _together(PROFILE)

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as one JSON object."
)


def make_options(model: str, batch_size: int, values: dict[str, Any]) -> Options:
    """The options of a run from what Click gives for `training_options` and `data_options`.

    A command that does not take the latter (check) asks for synthetic images.
    """
    values = {"data": "", "dummy_data": False, "stage": "", "input_only": False, **values}
    return Options(
        model=model,
        batch_size=batch_size,
        gpus_per_node=values["gpus_per_node"],
        strategy=make_strategy(values),
        communication=values["communication"],
        synchronous=values["synchronous"],
        parameter_servers=values["num_ps"],
        backup_workers=values["backup_workers"],
        warmup_steps=values["warmup"],
        measured_steps=values["steps"],
        device=values["device"],
        first_port=values["port_base"],
        learning_rate=values["learning_rate"],
        seed=values["seed"],
        stall_seconds=values["stall_timeout"],
        aggregation=values["aggregate"],
        gradient_dtype=values["gradient_dtype"],
        data=make_data(values),
        binding=make_binding(values),
        **make_computing(values),
    )


def make_where(values: dict[str, Any], count: int | None) -> Where:
    """Where to run from what Click gives for `where_options`."""
    return Where(
        nodes_file=values["nodes_file"],
        count=count,
        remote_dir=values["remote_dir"],
        ssh_config=values["ssh_config"],
        python=values["python"],
        first_port=values.get("port_base", DEFAULT_FIRST_PORT),
    )

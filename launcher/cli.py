"""The command `runtest`. Reads argv, environment and clock, and decides the exit code."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

import launcher
from launcher import cli_options as options
from launcher import payload, report
from launcher.cli_options import Where
from launcher.display import Display
from launcher.errors import NodesFailed, RunTestError, TaskFailed, UsageError
from launcher.nodes import Node, read_nodes, take_nodes
from launcher.plan import Options, check_options, greeting, make_plan
from launcher.provenance import new_run_id
from launcher.session import NodeOptions, Session
from launcher.transports.base import Transport
from launcher.transports.local import LocalTransport

# pandas, matplotlib and Fabric take a second to import: they are imported where they are needed,
# so that help, mistakes and the greeting of the nodes do not wait for them.
_INTERRUPTED = 130
_MODEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,80}\Z")


class DefaultGroup(click.Group):
    """A group whose command is `run` when none is named, so that old command lines still work."""

    default = "run"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default command in front of arguments that name none."""
        if args and args[0] not in self.commands and args[0] not in ("--help", "--version"):
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options of the default command belong to the help of the group."""
        super().format_options(ctx, formatter)
        run = self.commands[self.default]
        records = [record for p in run.get_params(ctx) if (record := p.get_help_record(ctx))]
        with formatter.section("Options of run, the default command"):
            formatter.write_dl([record for record in records if "--help" not in record[0]])


@click.group(cls=DefaultGroup, invoke_without_command=False, no_args_is_help=True)
@click.version_option(launcher.__version__, prog_name="runtest")
def main_group() -> None:
    """Measure how many images per second TensorFlow trains on n machines with g GPUs each.

    \b
    runtest -m deepmnist                          on this machine
    runtest -m resnet -h nodes -n 2 -g 2 -b 32    on two machines of a nodes file
    """


@main_group.command()
@click.option("-m", "--model", required=True, help="Network: resnet50, alexnet, keras:NAME ...")
@click.option(
    "-n",
    "--num-nodes",
    type=click.IntRange(min=1),
    help="How many of the nodes to use. [default: all of the file; 1 on this machine]",
)
@click.option(
    "-b",
    "--batch-size",
    type=click.IntRange(min=1),
    default=options.DEFAULT_BATCH,
    show_default=True,
    help="Images per GPU (per worker) and step.",
)
@options.where_options
@options.training_options
@options.logs_option
@options.json_option
@click.option("--dry-run", is_flag=True, help="Greet the nodes, print the plan, start nothing.")
@click.option(
    "-v", "--verbose", is_flag=True, help="Also say where the time to the first step went."
)
def run(
    model: str,
    num_nodes: int | None,
    batch_size: int,
    logs_dir: Path,
    as_json: bool,
    dry_run: bool,
    verbose: bool,
    **values: Any,
) -> None:
    """Measure one model once (the default command)."""
    check_model(model)
    asked = options.make_options(model, batch_size, values)
    where = options.make_where(values, num_nodes)
    out, err = Console(highlight=False), Console(stderr=True, highlight=False)
    with opened(where, asked, err) as (session, display):
        plan = make_plan(asked, session.nodes, session.hellos)
        if dry_run:
            commands = [session.describe(node) for node in session.nodes]
            if as_json:
                click.echo(report.plan_json(plan, commands))
            else:
                report.print_plan(out, plan, commands)
            return
        from launcher.measurement import Context, measure

        measurement = measure(session, plan, Context(logs_dir, sys.argv), display)
    plot = draw(measurement.log, err)
    if as_json:
        click.echo(report.measurement_json(measurement, plot))
    else:
        if verbose:
            report.print_startup(out, measurement.outcome)
        report.print_measurement(out, measurement, plot)


@main_group.command()
@click.argument(
    "logs_dir", metavar="[LOGS]", type=click.Path(path_type=Path), default=options.DEFAULT_LOGS
)
def plot(logs_dir: Path) -> None:
    """Draw every plot again from the CSV logs in LOGS, with no node and no TensorFlow."""
    from launcher.results.plot import plot_logs

    err = Console(stderr=True, highlight=False)
    problems: list[str] = []
    drawn = plot_logs(logs_dir, problems)
    for problem in problems:
        err.print(f"note: {escape(problem)}", soft_wrap=True)
    for path in drawn:
        click.echo(path)


# --- what the commands share -----------------------------------------------------------------


def check_model(name: str) -> None:
    """Raises UsageError for a name that is no model here, before any node is asked."""
    if not _MODEL.match(name):
        raise UsageError(f"-m {name[:80]!r} is not the name of a model", "runtest run --help")
    if name.startswith("keras:"):
        return  # the nodes know which networks their Keras has
    # In a process of its own: the launcher never imports what runs on the nodes.
    done = subprocess.run(
        [sys.executable, "-m", "models", name],
        capture_output=True,
        text=True,
        check=False,
        cwd=payload.source_folder("models"),  # and not a folder "models" of the user's
    )
    if done.returncode:
        raise UsageError(
            done.stderr.strip().splitlines()[-1] if done.stderr else f"no model {name}"
        )


@contextmanager
def opened(where: Where, asked: Options, err: Console) -> Iterator[tuple[Session, Display]]:
    """Greeted nodes and the display that shows what they do; closed at the end."""
    nodes, transport = find_nodes(where, err)
    check_options(asked, len(nodes))
    default_python = sys.executable if where.nodes_file is None else "python3"
    node_options = NodeOptions(where.remote_dir, where.python or default_python)
    session_id = new_run_id(datetime.now(timezone.utc))
    with (
        Display(err, nodes, live=err.is_terminal) as display,
        Session(nodes, transport, node_options, session_id) as session,
    ):
        display.opening()
        session.open(lambda node: greeting(asked, node, session_id), display)
        yield session, display


def find_nodes(where: Where, err: Console) -> tuple[list[Node], Transport]:
    """The nodes to use, and the way to reach them."""
    if where.nodes_file is None:
        count = where.count or 1
        return [Node("127.0.0.1", f"local{i}") for i in range(count)], LocalTransport()
    nodes = take_nodes(read_nodes(where.nodes_file), where.count, str(where.nodes_file))
    from launcher.transports.ssh import SshTransport  # Fabric takes a while to import

    def warn(text: str) -> None:
        err.print(f"note: {escape(text)}", soft_wrap=True)

    return nodes, SshTransport(ssh_config=where.ssh_config, warn=warn)


def draw(log: Path, err: Console) -> Path | None:
    """The plot of a log; one that cannot be drawn is a note, because the row is safe already."""
    from launcher.results.plot import plot_log

    problems: list[str] = []
    try:
        path: Path | None = plot_log(log, problems)
    except RunTestError as error:
        path = None
        problems.append(str(error))
    for problem in problems:
        err.print(f"note: {escape(problem)}", soft_wrap=True)
    return path


def main() -> None:
    """The console script."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    err = Console(stderr=True, highlight=False)
    try:
        status = main_group.main(standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        err.print("runtest: interrupted")
        status = _INTERRUPTED
    except RunTestError as error:
        _print_error(err, error)
        status = error.exit_status
    sys.exit(status)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _print_error(err: Console, error: RunTestError) -> None:
    each = error.failures if isinstance(error, NodesFailed) else (error,)
    for one in each:
        err.print(f"runtest: {escape(str(one))}", soft_wrap=True)
    if isinstance(error, TaskFailed) and error.log_tail:
        err.print("the end of its log:")
        for line in error.log_tail:
            printable = "".join(c if c.isprintable() else " " for c in line)
            err.print(f"  | {escape(printable)}", soft_wrap=True)


if __name__ == "__main__":
    main()

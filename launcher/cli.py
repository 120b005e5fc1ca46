"""The command `runtest`. Reads argv, environment and clock, and decides the exit code."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

import launcher
from launcher import api, report
from launcher import cli_options as options
from launcher.cli_check import check
from launcher.cli_clean import clean
from launcher.cli_group import DefaultGroup
from launcher.cli_make_data import make_data
from launcher.cli_results import compare, plot, table
from launcher.cli_shared import check_logs, draw
from launcher.cli_status import status
from launcher.cli_submit import make_submit
from launcher.cli_sweep import scale, scale_all
from launcher.cli_train import evaluate, train
from launcher.counts import NODES
from launcher.errors import NodesFailed, ResultsError, RunTestError, TaskFailed
from launcher.jobs.record import write_end
from launcher.jobs.script import RECORD_VARIABLE
from launcher.tasks import PROFILE_STEPS
from launcher.terminal import console, write_anything
from launcher.text import plain, printable

# pandas, matplotlib and Fabric take a second to import: they are imported where they are needed,
# so that help, mistakes and the greeting of the nodes do not wait for them.
_INTERRUPTED = 130
_LONGEST_MESSAGE = 4000


@click.group(cls=DefaultGroup, invoke_without_command=False, no_args_is_help=True)
@click.version_option(launcher.__version__, prog_name="runtest")
def main_group() -> None:
    """Measure how many images per second TensorFlow trains on n machines with g GPUs each.

    \b
    runtest -m deepmnist                          on this machine
    runtest -m resnet -h nodes -n 2 -g 2 -b 32    on two machines of a nodes file
    runtest check -m resnet -h nodes              what would stop or limit that
    runtest scale -m resnet -h nodes -g 2 -x 4    on 1, 2 and 4 of their GPUs
    """


@main_group.command()
@click.option("-m", "--model", required=True, help="Network: resnet50, alexnet, keras:NAME ...")
@click.option(
    "-n",
    "--num-nodes",
    type=NODES,
    help="How many of the nodes to use. [default: all of the file; 1 on this machine]",
)
@options.batch_option
@options.where_options
@options.training_options
@options.compute_options
@options.data_options
@options.logs_option
@options.json_option
@options.profile_option
@click.option("--dry-run", is_flag=True, help="Greet the nodes, print the plan, start nothing.")
@click.option(
    "-v", "--verbose", is_flag=True, help="Also say where the time to the first step went."
)
@click.pass_obj
def run(
    argv: Sequence[str],
    model: str,
    num_nodes: int | None,
    batch_size: int,
    logs_dir: Path,
    as_json: bool,
    profile_dir: Path | None,
    dry_run: bool,
    verbose: bool,
    **values: Any,
) -> None:
    """Measure one model once (the default command)."""
    asked = options.make_options(model, batch_size, values)
    if profile_dir is not None:
        asked = replace(asked, profile_steps=PROFILE_STEPS)
    where = options.make_where(values, num_nodes)
    out = console()
    if dry_run:
        with api.planned(asked, where) as (session, plan, _):
            report.show_plan(out, session, plan, as_json)
        return
    if profile_dir is not None:
        check_logs(profile_dir, "--profile")
    measurement = api.measure(asked, where, logs_dir, argv, profile_dir)
    plot = draw(measurement.log, console(stderr=True))
    if as_json:
        click.echo(report.measurement_json(measurement, plot))
    else:
        if verbose:
            report.print_startup(out, measurement.outcome)
        report.print_measurement(out, measurement, plot)


for command in (
    *(scale, scale_all, check, clean, plot, table, compare),
    *(train, evaluate, make_data),
    *(make_submit(run, scale), status),
):
    main_group.add_command(command)


def main() -> None:
    """The console script."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup means it
            signal.signal(number, _interrupt)
    write_anything()
    err = console(stderr=True)
    said = ""
    try:
        status = main_group.main(standalone_mode=False, obj=tuple(sys.argv)) or 0
    except click.ClickException as error:
        _show(error)
        status, said = error.exit_code, error.format_message()
    except (click.Abort, KeyboardInterrupt):
        with suppress(OSError):  # the terminal may be gone, and that be the reason
            err.print("runtest: interrupted")
        status, said = _INTERRUPTED, "interrupted"
    except RunTestError as error:
        _print_error(err, error)
        status, said = error.exit_status, str(error)
    except OSError as error:
        with suppress(OSError):  # what cannot be written to may be the terminal
            _print_error(err, _refused(error))
        status, said = _refused(error).exit_status, str(_refused(error))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Nothing is left to be ended in order: one more signal gives no traceback.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    if record := os.environ.get(RECORD_VARIABLE):  # we are in a job of `runtest submit`
        with suppress(ResultsError):
            write_end(Path(record), status, said)
    sys.exit(status)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _print_error(err: Console, error: RunTestError) -> None:
    each = error.failures if isinstance(error, NodesFailed) else (error,)
    for one in each:
        err.print(f"runtest: {escape(printable(str(one), _LONGEST_MESSAGE))}", soft_wrap=True)
    if isinstance(error, TaskFailed) and error.log_tail:
        err.print("the end of its log:")
        for line in error.log_tail:
            err.print(f"  | {escape(line)}", soft_wrap=True)


def _show(error: click.ClickException) -> None:
    """What Click says of a mistake, which repeats what was typed."""
    said = io.StringIO()
    error.show(said)
    for line in plain(said.getvalue()).splitlines():
        click.echo(printable(line), err=True)


def _refused(error: OSError) -> RunTestError:
    """What the operating system would not do, where nothing else has foreseen it."""
    name = f" {str(error.filename)[:80]!r}" if error.filename else ""
    return RunTestError(f"the system refused{name}: {error.strerror or type(error).__name__}")


if __name__ == "__main__":
    main()

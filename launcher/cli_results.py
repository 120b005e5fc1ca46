"""The commands that read the logs alone, with no node and no TensorFlow: plot, table, compare."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import click

from launcher import cli_options as options
from launcher.cli_shared import print_notes
from launcher.cli_status import unfinished
from launcher.result_options import DEFAULT_LOGS
from launcher.terminal import console
from launcher.text import plain

# pandas and matplotlib take a second to import, and only these commands need them at once.

logs_argument = click.argument(
    "logs_dir", metavar="[LOGS]", type=click.Path(path_type=Path), default=DEFAULT_LOGS
)


class Percent(click.ParamType):
    """`5%` or `5` as 0.05."""

    name = "percent"

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The part of one that the text says, from 0 to below 1."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"\s*(\d{1,2}(?:\.\d+)?)\s*%?\s*", value)
        if match is None:
            self.fail(f"{value!r} is no percentage from 0 % to below 100 %.", param, ctx)
        return float(match[1]) / 100


@click.command()
@logs_argument
def plot(logs_dir: Path) -> None:
    """Draw every plot again from the CSV logs in LOGS, with no node and no TensorFlow."""
    from launcher.results.plot import plot_logs

    problems: list[str] = []
    drawn = plot_logs(logs_dir, problems)
    print_notes(console(stderr=True), problems)
    for path in drawn:
        click.echo(plain(str(path)))


@click.command()
@logs_argument
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The CSV to write, or a folder for it. "
    "[default: <date>:TF_PERFORMANCE_RESULTS.csv beside the logs]",
)
def table(logs_dir: Path, output: Path | None) -> None:
    """Collect all runs in LOGS into one table: printed, and written as a CSV for notebooks.

    Of jobs that were submitted with LOGS, it also has the results of matrices, and says which jobs
    have not finished.
    """
    from launcher.results.files import is_file
    from launcher.results.table import collect, results_table, write_results_table

    problems: list[str] = []
    print_notes(console(stderr=True), unfinished(logs_dir))
    rows = collect(logs_dir, problems)
    beside = logs_dir.parent if is_file(logs_dir) else logs_dir
    today = datetime.now().astimezone().date()
    path = write_results_table(logs_dir, output or beside, today)
    print_notes(console(stderr=True), problems)
    console().print(results_table(rows))
    click.echo(plain(f"table: {path}"))


@click.command()
@click.argument("a")
@click.argument("b")
@options.logs_option
@click.option(
    "--fail-if-slower",
    "threshold",
    type=Percent(),
    metavar="PERCENT",
    help="Exit with status 1 where B is slower than A by more than this, beyond noise.",
)
@options.json_option
def compare(a: str, b: str, logs_dir: Path, threshold: float | None, as_json: bool) -> int:
    """Is B slower than A? Each is a CSV log, a folder of logs, a run's folder, or a run id.

    A run id is looked for in the folder of --logs; its beginning is enough.
    """
    from launcher.results.compare import compare as compare_rows
    from launcher.results.compare import is_slower
    from launcher.results.comparison_table import comparison_json, comparison_table
    from launcher.results.sides import side

    problems: list[str] = []
    found = compare_rows(side(a, logs_dir, problems), side(b, logs_dir, problems))
    slower = [] if threshold is None else [one for one in found if is_slower(one, threshold)]
    err = console(stderr=True)
    print_notes(err, dict.fromkeys(problems))
    if as_json:
        click.echo(comparison_json(found, slower))
    else:
        console().print(comparison_table(found))
    if slower and threshold is not None:
        names = "; ".join(one.name() for one in slower)
        err.print(
            f"runtest: B is slower than A by more than {100 * threshold:g} %: {names}",
            soft_wrap=True,
        )
    return 1 if slower else 0

"""`runtest status`: how the jobs stand that `runtest submit` has submitted."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from launcher import cli_options as options
from launcher.cli_shared import print_notes
from launcher.jobs.record import all_jobs
from launcher.jobs.states import FINISHED, standings
from launcher.result_options import DEFAULT_LOGS
from launcher.terminal import console


def unfinished(logs_dir: Path) -> Iterator[str]:
    """What is to be said of each job whose results are not, or not all, in the logs."""
    problems: list[str] = []
    jobs = all_jobs(logs_dir)
    found = standings(jobs, os.environ, problems)
    yield from problems
    for (_, job), how in zip(jobs, found, strict=True):
        if how.state != FINISHED:
            yield f"job {job.id}, {job.name}, has not finished: {how}"


@click.command()
@click.argument("logs_dir", metavar="[LOGS]", type=click.Path(path_type=Path), default=DEFAULT_LOGS)
@options.json_option
def status(logs_dir: Path, as_json: bool) -> None:
    """Show how each job stands that was submitted with LOGS.

    pending, running, finished, failed, cancelled, out of time, or unknown where Slurm has forgotten
    a job that was killed before it could say anything.
    """
    jobs = all_jobs(logs_dir)
    problems: list[str] = []
    found = standings(jobs, os.environ, problems)
    print_notes(console(stderr=True), problems)
    if as_json:
        shown = [
            {
                "job": job.id,
                "name": job.name,
                "state": how.state,
                "why": how.why,
                "folder": str(folder.path),
            }
            for (folder, job), how in zip(jobs, found, strict=True)
        ]
        click.echo(json.dumps({"jobs": shown}, indent=2))
        return
    if not jobs:
        click.echo("no job was submitted with these logs")
        return
    table = Table(pad_edge=False, box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("job", "state", "name", "why"):
        table.add_column(name, overflow="fold", no_wrap=name in ("job", "state"))
    for (_, job), how in zip(jobs, found, strict=True):
        table.add_row(*(Text(cell) for cell in (job.id, how.state, job.name, how.why)))
    console().print(table)

"""The options that say where on this machine a run's results go."""

from __future__ import annotations

from pathlib import Path

import click

DEFAULT_LOGS = "logs"

LOGS = click.option(
    "--logs",
    "logs_dir",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_LOGS,
    show_default=True,
    help="Where CSV logs, plots and the runs' folders are kept.",
)

PROFILE = click.option(
    "--profile",
    "profile_dir",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Trace a few steps of every worker, after those that count, into DIR for TensorBoard.",
)

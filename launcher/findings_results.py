"""Findings about this machine: whether what a run would write here can be written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from launcher.checked import FAILURE, OK, Finding
from launcher.cli_shared import check_logs
from launcher.errors import RunTestError
from launcher.placement import workers_of_nodes
from launcher.results.log import log_path
from launcher.results.room import check_room
from launcher.tasks import Options

_IN_ORDER = "the logs of a run can be written"


def result_findings(
    asked: Options, nodes: int, logs_dir: Path, profile_dir: Path | None
) -> Iterator[Finding]:
    """What a run with so many nodes would stop at for its logs and traces; else that all is well.

    Writes a little in the folders that are there, and takes it away again.
    """
    problem = _problem(asked, nodes, logs_dir)
    if problem is not None:
        yield Finding((), FAILURE, "logs", problem.message, problem.mend)
    else:
        yield Finding((), OK, "logs", _IN_ORDER)
    if profile_dir is not None:
        try:
            check_logs(profile_dir, "--profile")
        except RunTestError as error:
            yield Finding((), FAILURE, "profile", error.message, error.mend)


def _problem(asked: Options, nodes: int, logs_dir: Path) -> RunTestError | None:
    """What api.measure and measurement.measure would raise."""
    workers = sum(workers_of_nodes(asked, nodes))
    log = log_path(logs_dir, asked.model, asked.batch_size)
    try:
        check_logs(logs_dir)
        check_room(log, workers * (asked.warmup_steps + asked.measured_steps))
    except RunTestError as error:
        return error
    return None

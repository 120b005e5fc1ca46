"""Submits jobs that have been prepared: each gets its folder, and its id."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from launcher.errors import NotSubmitted, ResultsError, RunTestError, UsageError
from launcher.jobs.record import Job, JobFolder, archive
from launcher.jobs.sbatch import sbatch
from launcher.jobs.states import UNKNOWN, standings


@dataclass(frozen=True)
class Prepared:
    """A job that may be submitted: its record without an id, its folder-to-be, and its script."""

    job: Job
    folder: JobFolder
    script: str


def check_names(prepared: Sequence[Prepared], environment: Mapping[str, str]) -> None:
    """Raises UsageError where a job of the same name has not ended: its folder is in use."""
    there = [(one.folder, job) for one in prepared if (job := one.folder.job())]
    problems: list[str] = []
    for (_, job), how in zip(there, standings(there, environment, problems), strict=True):
        if not how.is_over or (problems and how.state == UNKNOWN):
            raise UsageError(
                f"job {job.id} is called {job.name} too, and is {how.state}",
                f"wait for it, scancel {job.id}, or --logs with another folder",
            )


def submit(
    prepared: Sequence[Prepared],
    logs_dir: Path,
    environment: Mapping[str, str],
    *,
    serial: bool,
    told: Callable[[Job, JobFolder, Path | None], None],
) -> None:
    """Submit the jobs in their order; `told` hears of each, and of where the results went that an
    earlier one of its name had.

    Raises UsageError, JobRefused or NotSubmitted where nothing was submitted, and NotSubmitted
    where not everything was.
    """
    done: list[str] = []
    for one in prepared:
        try:
            job, moved = _submit_one(
                one, logs_dir, done[-1] if serial and done else "", environment
            )
        except RunTestError as error:
            if not done:
                raise
            raise NotSubmitted(
                f"{one.job.name} and all after it were not submitted: {error.message}",
                f"scancel {' '.join(done)} ends those that were; {error.mend}",
            ) from error
        done.append(job.id)
        told(job, one.folder, moved)


def _submit_one(
    one: Prepared, logs_dir: Path, after: str, environment: Mapping[str, str]
) -> tuple[Job, Path | None]:
    moved = archive(logs_dir, one.folder)
    try:
        one.folder.create(one.script)
        job = replace(one.job, id=sbatch(one.folder.script, after, environment))
    except BaseException:
        # As it was: there is no such job.
        shutil.rmtree(one.folder.path, ignore_errors=True)
        if moved:
            moved.rename(one.folder.path)
        with suppress(OSError):  # it is not empty
            one.folder.path.parent.rmdir()
        raise
    try:
        one.folder.write(job)
    except ResultsError as error:
        error.message += f" (job {job.id} is submitted all the same)"
        raise
    return job, moved

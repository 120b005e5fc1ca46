"""What is kept of each submitted job: `logs/jobs/<name>/`, and in it how it ended."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from launcher.jobs.script import OUTPUT_NAME
from launcher.results.files import results_errors, write_whole
from launcher.text import printable

_MOST_BYTES = 1 << 20
_LONGEST_TEXT = 500


@dataclass(frozen=True)
class Job:
    """A job as it was submitted.

    id: Slurm's, or empty before it has one.  submitted: UTC, ISO 8601.  gpu_type, staged_from:
    what a matrix calls them.  is_matrix: its results are in its own folder.
    """

    id: str
    name: str
    submitted: str
    argv: tuple[str, ...]
    is_matrix: bool = False
    gpu_type: str = ""
    staged_from: str = ""


@dataclass(frozen=True)
class End:
    """How the job ended, as it says itself: its exit status, and its last message."""

    status: int
    said: str


@dataclass(frozen=True)
class JobFolder:
    """The folder of one job."""

    path: Path

    @property
    def script(self) -> Path:
        """What was given to sbatch."""
        return self.path / "job.sh"

    @property
    def output(self) -> Path:
        """What the job has printed, and Slurm besides."""
        return self.path / OUTPUT_NAME

    def create(self, script: str) -> None:
        """Make the folder with its script. Raises ResultsError."""
        with results_errors(self.path, "make"):
            self.path.mkdir(parents=True)
            self.script.touch(0o700)
            self.script.write_text(script, encoding="utf-8", errors="surrogateescape")

    def write(self, job: Job) -> None:
        """Keep what was submitted. Raises ResultsError."""
        text = json.dumps(asdict(job), indent=2) + "\n"
        write_whole(self.path / "job.json", lambda file: file.write(text))

    def job(self) -> Job | None:
        """What was submitted; None where the folder does not say it."""
        found = _read(self.path / "job.json")
        known = {field.name: found[field.name] for field in fields(Job) if field.name in found}
        try:
            made = Job(**{**known, "argv": tuple(known["argv"])})
        except (KeyError, TypeError):
            return None
        texts = (made.id, made.name, made.submitted, made.gpu_type, made.staged_from)
        return made if all(isinstance(text, str) for text in texts) else None

    def end(self) -> End | None:
        """How it ended; None while it has not, or where it was killed before it could say so."""
        found = _read(self.path / "ended.json")
        status, said = found.get("status"), found.get("said", "")
        if not isinstance(status, int) or not isinstance(said, str):
            return None
        return End(status, printable(said, _LONGEST_TEXT))


def jobs_folder(logs_dir: Path) -> Path:
    """Where the folders of all jobs are."""
    return Path(logs_dir) / "jobs"


def all_jobs(logs_dir: Path) -> list[tuple[JobFolder, Job]]:
    """The jobs that were submitted with these logs, oldest first."""
    folders = [JobFolder(path.parent) for path in jobs_folder(logs_dir).glob("*/job.json")]
    found = [(folder, job) for folder in folders if (job := folder.job())]
    return sorted(found, key=lambda each: (each[1].submitted, each[1].id.zfill(10)))


def job_of(log: Path) -> Job | None:
    """The job of a matrix whose own log this is; None for all other logs."""
    folder = Path(log).absolute().parent
    return JobFolder(folder).job() if folder.parent.name == "jobs" else None


def archive(logs_dir: Path, folder: JobFolder) -> Path | None:
    """Move what is there of an earlier job of the same name to `logs/archive/`.

    Returns where it is now, or None where there was nothing. Raises ResultsError.
    """
    with results_errors(folder.path, "move"):
        if not folder.path.exists():
            return None
        place = Path(logs_dir) / "archive"
        place.mkdir(parents=True, exist_ok=True)
        number, name = 1, folder.path.name
        while (new := place / (name if number == 1 else f"{name}.{number}")).exists():
            number += 1
        folder.path.rename(new)
        return new


def write_end(path: Path, status: int, said: str) -> None:
    """What runtest, in a job, says at its end. Raises ResultsError."""
    text = json.dumps({"status": status, "said": printable(said, _LONGEST_TEXT)}) + "\n"
    write_whole(path, lambda file: file.write(text))


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            found = json.loads(file.read(_MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}

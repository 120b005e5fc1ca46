"""`logs/runs/<run_id>/`: what one run left, `steps.csv`, `run.json` and a log per task."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import ResultsError
from launcher.results import step_records
from launcher.results.files import results_errors, safe_name, written_beside
from launcher.results.step_records import StepRecord


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run. Nothing is written before one of the methods is called."""

    logs_dir: Path
    run_id: str

    @property
    def path(self) -> Path:
        """The folder itself."""
        return Path(self.logs_dir) / "runs" / safe_name(self.run_id)

    @property
    def steps_csv(self) -> Path:
        """The raw step times."""
        return self.path / "steps.csv"

    @property
    def run_json(self) -> Path:
        """What was run, on what, with which versions."""
        return self.path / "run.json"

    def create(self) -> RunFolder:
        """Make the folder. A run id that was used before is refused. Raises ResultsError."""
        with results_errors(self.path, "make"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self.path.mkdir()
            except FileExistsError as error:
                raise ResultsError(
                    f"{self.path} is there already", "start the run again"
                ) from error
        return self

    def write_steps(self, records: Iterable[StepRecord]) -> Path:
        """Write `steps.csv`, whole or not at all. Raises ResultsError."""
        return step_records.write_steps(self.steps_csv, records)

    def write_run_json(self, facts: Mapping[str, object]) -> Path:
        """Write `run.json`, whole or not at all; what JSON does not know is written as its text."""
        with written_beside(self.run_json) as file:
            json.dump(facts, file, indent=2, sort_keys=True, default=str)
            file.write("\n")
        return self.run_json

    def log_path(self, name: str) -> Path:
        """Where a task's log goes, whatever name the node gave it."""
        return self.path / (safe_name(name.removesuffix(".log")) + ".log")

    def write_log(self, name: str, data: bytes) -> Path:
        """Add to a task's log. Raises ResultsError."""
        path = self.log_path(name)
        with results_errors(path):
            self.path.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.write(data)
        return path

"""`logs/sweeps/<sweep id>.json`: what a sweep is to measure, so that one that was cut off can be
taken up again. What it has measured is in the logs alone, by the id in their rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from launcher.errors import UsageError
from launcher.nodes import Node
from launcher.results.files import results_errors, safe_name, written_beside
from launcher.results.log import log_path
from launcher.results.log_reading import read_log
from launcher.sweep import Item, Step, Sweep

# Options of a single point, and such as change nothing about the figures.
_SWEEP_ID = re.compile(r"[A-Za-z0-9._-]{1,80}")
_NOT_WHAT_IS_MEASURED = ("model", "batch_size", "workers", "first_port", "stall_seconds")


@dataclass(frozen=True)
class Record:
    """A sweep that was begun: its id, and where it is written down."""

    logs_dir: Path
    sweep_id: str

    @property
    def path(self) -> Path:
        """The file of the record."""
        return _folder(self.logs_dir) / f"{safe_name(self.sweep_id)}.json"

    def write(self, what: dict[str, Any], argv: Sequence[str]) -> None:
        """Write down what the sweep is to measure. Raises ResultsError."""
        with written_beside(self.path) as file:
            json.dump({"argv": list(argv), "configuration": what}, file, indent=2, sort_keys=True)
            file.write("\n")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other launchers from measuring the same sweep meanwhile. Raises UsageError."""
        lock = FileLock(self.path.with_suffix(".lock"), timeout=0)
        with results_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire()
            except Timeout as error:
                raise UsageError(
                    f"sweep {self.sweep_id} is being measured by another runtest",
                    "wait for it, or leave out --resume",
                ) from error
        try:
            yield
        finally:
            lock.release()
            self.path.with_suffix(".lock").unlink(missing_ok=True)

    def rows(self, item: Item) -> pd.DataFrame | None:
        """The rows that the log of an item has of this sweep; None where there is no log."""
        log = log_path(self.logs_dir, item.model, item.batch_size)
        if not log.exists():
            return None
        rows, _ = read_log(log)
        return rows[(rows["sweep_id"] == self.sweep_id) & (rows["model"] == item.model)]

    def done(self, sweep: Sweep) -> set[Step]:
        """The runs whose rows are in the logs."""
        found = set()
        for item in sweep.items:
            rows = self.rows(item)
            if rows is not None:
                pairs = zip(rows["gpus"], rows["repeat"], strict=True)
                found |= {Step(item, int(gpus), int(repeat)) for gpus, repeat in pairs}
        return found


def configuration(sweep: Sweep, nodes: Sequence[Node]) -> dict[str, Any]:
    """All that makes two sweeps the same one, as JSON has it."""
    facts = {
        **asdict(sweep),
        "nodes": [[node.hostname, node.alias, node.gpus] for node in nodes],
    }
    for name in _NOT_WHAT_IS_MEASURED:
        del facts["options"][name]
    same: dict[str, Any] = json.loads(json.dumps(facts))
    return same


def newest(logs_dir: Path, what: dict[str, Any]) -> Record | None:
    """The newest sweep of this configuration, by its id, which begins with its time."""
    for path in sorted(_folder(logs_dir).glob("*.json"), reverse=True):
        if not _SWEEP_ID.fullmatch(path.stem):
            continue
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue  # nothing that this program has written whole
        if isinstance(facts, dict) and facts.get("configuration") == what:
            return Record(logs_dir, path.stem)
    return None


def _folder(logs_dir: Path) -> Path:
    return Path(logs_dir) / "sweeps"

"""What a run gives as it goes: steps, phases, logs, and whoever is told of them."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from launcher.errors import ResultsError
from launcher.results.step_records import StepRecord
from launcher.servers import Servers
from launcher.startup import Startup
from launcher.tasks import RunPlan
from perftest.protocol import Finished, Log, Staged, StepTimes

# What a node may send, whatever it says: an agent of ours sends less.
_MOST_LOG_BYTES = 24 << 20


class RunObserver(Protocol):
    """Is told how a run goes, from one thread."""

    def run_started(self, plan: RunPlan) -> None:
        """The tasks are being started."""

    def phase(self, role: str, index: int, name: str) -> None:
        """A task says what it does next."""

    def steps(self, worker: int, first_step: int, times: StepTimes) -> None:
        """A worker has made some steps."""

    def training(self, worker: int, message: Any) -> None:
        """A worker has news of its training: one of the messages of perftest.protocol.training."""

    def interrupted(self) -> None:
        """A person (or the system) wants this to end now."""

    def run_ending(self) -> None:
        """All workers have finished, or one task has failed."""


LogSink = Callable[[str, bytes], object]


@dataclass(frozen=True)
class StartupPhase:
    """When a task began something, in seconds after its process started."""

    role: str
    index: int
    name: str
    elapsed_seconds: float


@dataclass
class Outcome:
    """What a run gave, as far as it got."""

    records: list[StepRecord] = field(default_factory=list)
    finished: dict[int, Finished] = field(default_factory=dict)
    phases: list[StartupPhase] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    reachability_seconds: float | None = None
    first_step_seconds: float | None = None
    startup: Startup = field(default_factory=lambda: Startup(time.monotonic()))
    staged: dict[int, Staged] = field(default_factory=dict)
    traces: dict[int, Path] = field(default_factory=dict)
    servers: Servers = field(default_factory=Servers)


class Logs:
    """Passes the tasks' logs on to where they are kept, in pieces and within bounds."""

    def __init__(self, sink: LogSink, outcome: Outcome) -> None:
        self._sink = sink
        self._outcome = outcome
        self._bytes: dict[str, int] = defaultdict(int)

    def keep(self, piece: Log) -> None:
        """Write a piece of a task's log; one that cannot be written must not end a good run."""
        name = f"{piece.role}-{piece.index}"
        note = f"\n[{piece.omitted_bytes} bytes left out here]\n" if piece.omitted_bytes else ""
        data = (note + piece.text).encode("utf-8", "replace")
        self._bytes[name] += len(data)
        if self._bytes[name] > _MOST_LOG_BYTES:
            return
        try:
            self._sink(name, data)
        except ResultsError as error:
            if str(error) not in self._outcome.problems:
                self._outcome.problems.append(str(error))


_PARTS = (
    *("compute_seconds", "pull_seconds", "push_seconds", "wait_seconds"),
    "cpu_seconds",
)


def step_records(worker: int, alias: str, times: StepTimes) -> list[StepRecord]:
    """One record for each step that a worker on that node has made."""
    unknown = (None,) * len(times.seconds)
    parts = zip(*(getattr(times, name) or unknown for name in _PARTS), strict=True)
    lists = (times.seconds, times.losses, times.global_steps, parts)
    return [
        StepRecord(
            worker=worker,
            node=alias,
            step=times.first_step + i,
            phase="measured" if times.measured else "warmup",
            seconds=seconds,
            loss=_number(loss),
            global_step=global_step,
            **dict(zip(_PARTS, map(_number, own), strict=True)),
        )
        for i, (seconds, loss, global_step, own) in enumerate(zip(*lists, strict=True))
    ]


def _number(value: float | None) -> float:
    return math.nan if value is None else value

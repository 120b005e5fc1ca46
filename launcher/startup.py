"""Where the time goes from the command to the first training step, part after part.

Every moment is taken by the clock of this machine: a part ends when its news is here. The parts
follow on each other, so that together they are the whole time. Those of a worker are of the one
whose first step was the first to be told.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

# What the phases of a worker are parts of; the rest is "other".
_PART_OF_PHASE = {
    "copying the data": "stage",
    "importing TensorFlow": "import",
    "building the model": "build",
    "reading the data": "build",
    "meeting the other workers": "initialise",
    "waiting for the parameter servers": "initialise",
    "initialising": "initialise",
    "first step": "first step",
    "warming up": "first step",
    "measuring": "first step",
}
# In their order, each with what it is, for people.
PARTS = {
    "start": "this command itself, until it opens the nodes",
    "connect": "until the last node was connected",
    "copy": "until the program was there and its agent ran",
    "greet": "until every node had said what it has",
    "plan": "until it was decided what runs where",
    "reach": "until the nodes had reached each other",
    "spawn": "until the worker's process ran",
    "stage": "the data copied to the node's disk",
    "import": "TensorFlow imported",
    "build": "the network built, the data opened",
    "initialise": "all workers and servers met, the parameters set",
    "other": "anything else",
    "first step": "the graph made, optimised and run once",
}


class Startup:
    """The parts so far, in seconds. `began`, and all moments, are of time.monotonic().

    is_over: the first step is made.
    """

    def __init__(self, began: float) -> None:
        self.parts: dict[str, float] = {}
        self.is_over = False
        self._until = began

    def end_part(self, name: str, at: float) -> None:
        """What has passed since the part before was this one. Several of a name are one part."""
        at = max(at, self._until)
        self.parts[name] = self.parts.get(name, 0.0) + at - self._until
        self._until = at

    @property
    def seconds(self) -> float:
        """All parts together."""
        return sum(self.parts.values())


class WorkerPhases:
    """When each worker's news of its phases came, until the first step is made."""

    def __init__(self, startup: Startup, clock: Callable[[], float] = time.monotonic) -> None:
        self._startup = startup
        self._clock = clock
        self._phases: dict[int, list[tuple[str, float]]] = {}

    def phase(self, worker: int, name: str) -> None:
        """A worker goes on to something else."""
        if name == "training":  # it goes on from its first step, and does not tell its time
            self.first_step(worker, 0.0)
        elif not self._startup.is_over:
            self._phases.setdefault(worker, []).append((name, self._clock()))

    def first_step(self, worker: int, ago: float) -> None:
        """The first step of all was this worker's, and was made so many seconds ago."""
        if self._startup.is_over:
            return
        self._startup.is_over = True
        part = "spawn"
        for name, at in self._phases.get(worker, ()):
            self._startup.end_part(part, at)
            part = _PART_OF_PHASE.get(name, "other")
        self._startup.end_part(part, self._clock() - ago)


def process_began() -> float:
    """When this process was started, as time.monotonic() would have said; now, where not known."""
    now = time.monotonic()
    try:
        # Its name may have anything in it, but the fields after it begin with the third.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, IndexError, ValueError):
        return now
    return now - max(0.0, age)

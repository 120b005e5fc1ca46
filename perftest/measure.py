"""The timed loop, given a step function and a clock."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from perftest.protocol import StepTimes

# Progress is told this often: seldom enough to cost nothing, often enough to be looked at.
_REPORT_SECONDS = 0.5
# Parts of a step that some strategies have.
_PARTS = ("pull_seconds", "push_seconds", "wait_seconds")


@dataclass(frozen=True)
class StepResult:
    """What one step gives, all of it fetched to the host and so the proof that it is done.

    loss: of this worker's own batch, before the update.  global_step: updates made so far.
    The rest are parts of the step, or NaN if not known: `StepTimes` says which.
    """

    loss: float
    global_step: int
    compute_seconds: float = math.nan
    pull_seconds: float = math.nan
    push_seconds: float = math.nan
    wait_seconds: float = math.nan


@dataclass
class _Batch:
    """Steps that were timed and not yet told of."""

    first_step: int
    measured: bool
    seconds: list[float] = field(default_factory=list)
    results: list[StepResult] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)

    def message(self) -> StepTimes:
        return StepTimes(
            first_step=self.first_step,
            measured=self.measured,
            seconds=tuple(self.seconds),
            compute_seconds=tuple(result.compute_seconds for result in self.results),
            losses=tuple(result.loss for result in self.results),
            global_steps=tuple(result.global_step for result in self.results),
            cpu_seconds=tuple(self.cpu_seconds),
            **{part: self._all(part) for part in _PARTS},
        )

    def _all(self, part: str) -> tuple[float, ...]:
        """That part of every step; nothing where none is known."""
        found = tuple(getattr(result, part) for result in self.results)
        return () if all(map(math.isnan, found)) else found


def measure(
    step: Callable[[], StepResult],
    count: int,
    first_step: int,
    measured: bool,
    report: Callable[[StepTimes], None],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Run `step` `count` times and report how long each took.

    A step's time runs from the end of the step before it to its own end, so that the sum of the
    times is the time that passed: nothing that this loop does itself is left out. `clock` gives
    seconds and must be monotonic. Steps are numbered from `first_step`; `measured` is passed on.
    """
    batch = _Batch(first_step, measured)
    ended = reported = clock()
    used = time.process_time()
    for number in range(first_step, first_step + count):
        result = step()
        started, ended = ended, clock()
        batch.seconds.append(ended - started)
        batch.results.append(result)
        used_before, used = used, time.process_time()
        batch.cpu_seconds.append(used - used_before)
        if ended - reported >= _REPORT_SECONDS:
            report(batch.message())
            batch = _Batch(number + 1, measured)
            reported = ended
    if batch.seconds:
        report(batch.message())

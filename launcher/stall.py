"""What tells a run that goes well from one that does not: who stands still, who sends nonsense."""

from __future__ import annotations

import time
from collections.abc import Callable, Set
from dataclasses import dataclass

from launcher.tasks import PlannedTask, RunPlan
from perftest.protocol import WORKER, Job, StepTimes

# Where a worker computes or reads before its first step, it may take this much longer than the
# limit for a stall; and a step may take this much longer than the slowest before it.
_LONG_FACTOR = 5
_LONGEST_STEP_SECONDS = 1e6
_MOST_UPDATES = 1 << 40
# What a task may say again and again while it is at it, as a sign that it gets on.
TOLD_AGAIN = ("copying the data", "validating", "testing")
_LONG_PHASES = {
    *("starting", "importing TensorFlow", "building the model", "first step"),
    *("reading the data", "restoring", "saving", "profiling"),
    *TOLD_AGAIN,
}


@dataclass
class _Worker:
    moved: float
    phase: str = "starting"
    steps: int = 0


class StallWatch:
    """Knows when each worker last got on. `clock` gives seconds and is monotonic."""

    def __init__(self, plan: RunPlan, clock: Callable[[], float] = time.monotonic) -> None:
        self._plan = plan
        self._clock = clock
        self._began = clock()
        self._slowest_step = 0.0
        self._workers = {task.place.index: _Worker(clock()) for task in plan.workers}
        self._paused: dict[tuple[str, int], float] = {}

    def phase(self, worker: int, name: str) -> None:
        """A worker goes on to something else."""
        state = self._workers[worker]
        state.phase, state.moved = name, self._clock()

    def steps(self, worker: int, made: int, slowest_seconds: float) -> None:
        """A worker has made `made` steps by now; the slowest of the new ones took so long."""
        state = self._workers[worker]
        state.steps, state.moved = made, self._clock()
        # No worker can have taken longer than the run has; some steps may come in one message.
        longest = self._clock() - self._began + self._plan.stall_seconds
        self._slowest_step = max(self._slowest_step, min(slowest_seconds, longest))

    def paused(self, role: str, index: int, stopped: bool) -> None:
        """Somebody has stopped a task, or lets it go on again."""
        if stopped:
            self._paused.setdefault((role, index), self._clock())
        else:
            self._paused.pop((role, index), None)

    def find_paused(self, finished: Set[int]) -> tuple[PlannedTask, str] | None:
        """Once a task has been stopped for the limit, whatever the workers are at: it, if it is a
        worker, or the worker that may wait for it longest; and that in words. Nobody waits for
        workers that have finished.
        """
        limit = self._clock() - self._plan.stall_seconds
        for (role, index), since in self._paused.items():
            if since < limit and not (role == WORKER and index in finished):
                chosen = {index} if role == WORKER else self._workers.keys() - finished
                if chosen:
                    last = min(chosen, key=lambda worker: self._workers[worker].moved)
                    return self._told(last, self._clock() - self._workers[last].moved)
        return None

    def find(self, excused: Set[int]) -> tuple[PlannedTask, str] | None:
        """The worker that is farthest behind and stands still, and the reason in words.

        `excused` are the workers that rightly wait: for the others, or for the end.
        """
        now = self._clock()
        stuck = [
            task
            for task in self._plan.workers
            if task.place.index not in excused
            and now - self._workers[task.place.index].moved > self._limit(task.place.index)
        ]
        if not stuck or (self._plan.job.training and len(stuck) < self._at_work(excused)):
            return None  # one that trains may wait for another, as for its validation
        task = min(stuck, key=lambda task: self._workers[task.place.index].steps)
        return self._told(task.place.index, self._limit(task.place.index))

    def _told(self, worker: int, seconds: float) -> tuple[PlannedTask, str]:
        task = next(task for task in self._plan.workers if task.place.index == worker)
        state = self._workers[worker]
        return task, (
            f"{task.name} has not got on for {seconds:.0f} s "
            f"({state.phase}, {state.steps} steps done)"
        )

    def _at_work(self, excused: Set[int]) -> int:
        return len(self._workers.keys() - excused)

    def _limit(self, worker: int) -> float:
        """How long a worker may take, in seconds: longer where it computes than where it waits."""
        seconds = self._plan.stall_seconds
        state = self._workers[worker]
        # With a warm-up of one step or none, the first step comes under another name.
        first_step = state.steps == 0 and state.phase in ("warming up", "measuring", "training")
        if first_step or state.phase in _LONG_PHASES:
            return _LONG_FACTOR * seconds
        return max(seconds, _LONG_FACTOR * self._slowest_step)


def what_is_wrong(times: StepTimes, made: int, job: Job) -> str:
    """What of these steps no honest worker would send that has made `made` so far; or nothing."""
    lists = [times.seconds, times.compute_seconds, times.losses, times.global_steps]
    lists += [each for each in _parts(times) if each]
    end = times.first_step + len(times.seconds)
    if len({len(each) for each in lists}) != 1 or times.first_step != made:
        return "do not follow on each other"
    if not times.seconds or min(times.seconds) <= 0:
        return "took no time"
    if not _are_possible(times):
        return "no worker can have made"
    first, last = (job.warmup_steps, job.measured_steps) if times.measured else (0, 0)
    if not first <= times.first_step or end > job.warmup_steps + last:
        return "were not asked for"
    return ""


def _are_possible(times: StepTimes) -> bool:
    """Whether these are numbers that can be computed with: sums of them must stay finite."""
    parts = (times.compute_seconds, *_parts(times))
    known = [seconds for part in parts for seconds in part if seconds is not None]
    return (
        max(times.seconds) <= _LONGEST_STEP_SECONDS
        and all(0 <= seconds <= _LONGEST_STEP_SECONDS for seconds in known)
        and all(0 <= update <= _MOST_UPDATES for update in times.global_steps)
    )


def _parts(times: StepTimes) -> tuple[tuple[float | None, ...], ...]:
    """Lists that not every strategy has."""
    return times.pull_seconds, times.push_seconds, times.wait_seconds, times.cpu_seconds

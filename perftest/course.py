"""The course of real training on one worker: epochs of steps, and what comes between them.

Synchronous workers all stop at the same updates: where an epoch ends, and where worker 0 validates
in the middle of one. They wait there until worker 0 has looked at the parameters, which nobody
changes meanwhile, and kept them. With backup workers an epoch is as many updates as it has steps,
whoever's gradients were in time for them. Asynchronous workers make their steps each by itself and
wait for nobody; worker 0 waits at the very end for all of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Protocol

from perftest.checkpoints import Values, name_of
from perftest.inputs import Input
from perftest.keeper import Keeper, TrainingDiverged
from perftest.measure import StepResult
from perftest.protocol import TRAIN, Job, Progress, Training
from perftest.task import AgentLink

_POLL_SECONDS = 0.05
# However far apart the reports of progress are asked to be, this often a worker says that it lives.
_MOST_SECONDS = 10.0


class Engine(Protocol):
    """One worker's part of a training: what a strategy gives to the loops."""

    def step(self) -> StepResult:
        """Train on the next batch. global_step: updates since the run began."""

    def values(self) -> Values:
        """All that has been learnt, as it is now: worker 0 alone."""

    def release(self, step: int) -> None:
        """Let the others train on from this step: worker 0 alone."""

    def released(self) -> int:
        """The step up to which the workers may train."""

    def leave(self) -> None:
        """This worker has made its last step."""

    def left(self) -> int:
        """How many workers have."""


class Course:
    """The training of one worker. `keeper` is worker 0's. Steps are counted over all epochs."""

    def __init__(
        self, job: Job, link: AgentLink, engine: Engine, batches: Input, keeper: Keeper | None
    ) -> None:
        assert job.training is not None  # noqa: S101 - for the types
        self._job = job
        self._training: Training = job.training
        self._link = link
        self._engine = engine
        self._batches = batches
        self._keeper = keeper
        self._workers = len(job.cluster.worker)
        self._steps = steps_per_epoch(job, batches)
        self._first_epoch = 0
        self._report = _Report(batches)

    def run(self, first_epoch: int) -> None:
        """Train from this epoch on to the last. Raises TrainingDiverged."""
        self._first_epoch = first_epoch
        self._link.phase("first step")
        for epoch in range(first_epoch, self._training.epochs):
            try:
                self._epoch(epoch)
            except TrainingDiverged as error:
                raise self._diverged(error, epoch) from None

    def _epoch(self, epoch: int) -> None:
        position = made = 0
        while position < self._steps:
            before = position
            result = self._engine.step()
            made += 1
            position = self._position(epoch, made, result)
            self._note(epoch, position, result)
            if mark := self._validation_between(before, position):
                step = epoch * self._steps + mark
                self._pause(step, lambda step=step: self._validate(epoch, step))  # type: ignore[misc]
        self._tell(epoch, position)
        if not self._job.synchronous and epoch + 1 == self._training.epochs:
            self._wait_for_all()
        self._pause((epoch + 1) * self._steps, lambda: self._end(epoch + 1))

    def _position(self, epoch: int, made: int, result: StepResult) -> int:
        """How far into the epoch: in updates, or asynchronously in this worker's own steps."""
        if not self._job.synchronous:
            return made
        return result.global_step - (epoch - self._first_epoch) * self._steps

    def _validation_between(self, before: int, position: int) -> int:
        """The step of the epoch, if any, that was just reached and that a validation follows."""
        interval = self._training.validation_interval
        mark = position // interval * interval if interval else 0
        return mark if before < mark < self._steps else 0

    # Progress.

    def _note(self, epoch: int, position: int, result: StepResult) -> None:
        if not math.isfinite(result.loss):
            raise TrainingDiverged(f"the loss of step {position} is {result.loss}")
        self._report.add(result.loss)
        if self._report.steps == 1 and not self._report.told:
            self._link.phase("training")
        late = self._report.seconds() > _MOST_SECONDS
        if position % self._training.display_interval == 0 or late:
            self._tell(epoch, position)

    def _tell(self, epoch: int, position: int) -> None:
        """Report progress, unless nothing has been done since the last report."""
        if not self._report.steps:
            return
        images, loss, seconds = self._report.take()
        self._link.tell(Progress(epoch, position, loss, images, seconds))
        if self._keeper is not None:
            speed = images * self._workers / seconds
            self._keeper.progress(epoch * self._steps + position, loss, speed)

    # Between the steps.

    def _pause(self, step: int, look: Callable[[], None]) -> None:
        """Worker 0 looks at the parameters; synchronous workers wait for it."""
        if self._keeper is not None:
            look()
            if self._job.synchronous:
                self._engine.release(step)
        elif self._job.synchronous:
            self._link.phase("waiting for worker 0")
            while self._engine.released() < step:
                time.sleep(_POLL_SECONDS)
        if step < self._training.epochs * self._steps:
            self._link.phase("training")
        self._report.restart()

    def _wait_for_all(self) -> None:
        self._engine.leave()
        if self._keeper is not None:
            self._link.phase("waiting for the others")
            while self._engine.left() < self._workers:
                time.sleep(_POLL_SECONDS)

    def _validate(self, epoch: int, step: int) -> None:
        if self._keeper is not None:
            self._keeper.validate(epoch, step, self._engine.values())

    def _end(self, epoch: int) -> None:
        """What follows an epoch. epoch: epochs trained on so far."""
        if self._keeper is None:
            return
        values = self._engine.values()
        found = self._keeper.validate(epoch, epoch * self._steps, values)
        if epoch % self._training.save_interval == 0 or epoch == self._training.epochs:
            self._keeper.save(epoch, values, found)

    def _diverged(self, error: TrainingDiverged, epoch: int) -> TrainingDiverged:
        return TrainingDiverged(
            f"epoch {epoch + 1}: {error}; {self._kept(epoch)}. Try: a smaller learning rate than "
            f"{self._job.learning_rate:g}"
        )

    def _kept(self, epoch: int) -> str:
        """What is there to go on from, in this worker's epoch. Worker 0 alone saves, after its own
        epochs, and an asynchronous worker does not know how far it is.
        """
        if self._keeper is None and not self._job.synchronous:
            return "what worker 0 has saved so far is kept"
        saved = max(self._first_epoch, epoch - epoch % self._training.save_interval)
        return f"the last checkpoint is {name_of(saved)}" if saved else "there is no checkpoint yet"


class _Report:
    """What has been done since the last report of progress."""

    def __init__(self, batches: Input) -> None:
        self._batches = batches
        self.told = False
        self.restart()

    def restart(self) -> None:
        """Begin to count."""
        self.steps = 0
        self._loss = 0.0
        self._images = self._seen = self._batches.images
        self._started = time.monotonic()

    def add(self, loss: float) -> None:
        """A step more. A batch of nothing but padding has no loss."""
        images = self._batches.images - self._seen
        self._seen = self._batches.images
        self._loss += loss * images
        self.steps += 1

    def seconds(self) -> float:
        """Since the last report."""
        return time.monotonic() - self._started

    def take(self) -> tuple[int, float | None, float]:
        """Images, their mean loss, seconds; and begin to count anew."""
        images, seconds = self._seen - self._images, self.seconds()
        loss = self._loss / images if images else None
        self.restart()
        self.told = True
        return images, loss, seconds


def steps_per_epoch(job: Job, batches: Input) -> int:
    """Steps of each worker and epoch."""
    return batches.source.steps(TRAIN, job.batch_size, len(job.cluster.worker))

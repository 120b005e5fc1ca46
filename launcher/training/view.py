"""What a person sees of a training: epochs, loss, speed, and every validation as it comes."""

from __future__ import annotations

import time
from typing import Any

from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table

from launcher.display import Display
from launcher.text import counted
from perftest.protocol import Evaluated, Progress, Saved, TrainingStarts

_LINE_SECONDS = 5.0


class TrainingDisplay(Display):
    """A Display that knows of epochs."""

    _starts: TrainingStarts | None = None
    _newest: Progress | None = None
    _epochs = 0
    _restarts = _evaluates = False
    _line_at = 0.0

    def training(self, worker: int, message: Any) -> None:
        """News of a worker: of one that leads, and from all of them how fast they are."""
        super().training(worker, message)
        with self._lock:
            if self._plan is not None and self._plan.job.training is not None:
                self._epochs = self._plan.job.training.epochs
                self._restarts = self._plan.job.training.restart
                self._evaluates = self._plan.job.training.evaluate
            if isinstance(message, Progress):
                self._take_progress(worker, message)
            elif isinstance(message, TrainingStarts):
                self._starts = message
                self.note(self._start_text(message))
            elif isinstance(message, Evaluated):
                self.note(_evaluation_text(message))
            elif isinstance(message, Saved):
                self.note(f"epoch {message.epoch}: saved as {message.checkpoint}")

    def _take_progress(self, worker: int, message: Progress) -> None:
        state = self._workers[worker]
        state.steps = message.epoch * self._steps_per_epoch() + message.step
        if message.images and self._plan is not None:
            # The time of one batch, as the table of workers counts.
            batch = self._plan.job.batch_size
            state.recent.append(message.seconds * batch / message.images)
        if worker == 0:
            self._newest = message
            if not self._is_live and time.monotonic() - self._line_at >= _LINE_SECONDS:
                self._line_at = time.monotonic()
                self.note(self._training_text())

    def _steps_per_epoch(self) -> int:
        return self._starts.steps_per_epoch if self._starts else 0

    def _training_text(self) -> str:
        """`epoch 3 of 10, step 120 of 450, loss 0.4121, 310.2 images/sec`."""
        newest = self._newest
        if newest is None:
            return "no step yet"
        steps = f" of {self._starts.steps_per_epoch}" if self._starts else ""
        loss = "" if newest.loss is None else f", loss {newest.loss:.4f}"
        speed = f", {self._speed()}" if self._speed() else ""
        return f"epoch {newest.epoch + 1} of {self._epochs}, step {newest.step}{steps}{loss}{speed}"

    def _start_text(self, starts: TrainingStarts) -> str:
        if self._evaluates:
            return f"testing {starts.checkpoint} on {starts.test_samples:,} samples"
        data = (
            f"{starts.train_samples:,} samples to train on, "
            f"{starts.validation_samples:,} to validate"
        )
        length = f"{counted(self._epochs, 'epoch')} of {counted(starts.steps_per_epoch, 'step')}"
        begins = "; no checkpoint yet: from the beginning" if self._restarts else ""
        if starts.checkpoint:
            begins = f"; going on from {starts.checkpoint}"
            if starts.first_epoch >= self._epochs:
                begins += ", which has them all: nothing to train"
        return f"{data}; {length}{begins}"

    def _header(self) -> RenderableType:
        if self._newest is None or self._starts is None:
            return ""
        done = self._newest.epoch * self._steps_per_epoch() + self._newest.step
        total = max(1, self._epochs * self._steps_per_epoch())
        grid = Table.grid(padding=(0, 1), expand=False)
        grid.add_row(ProgressBar(total=total, completed=min(done, total), width=20))
        grid.add_row(self._training_text())
        return grid


def _evaluation_text(found: Evaluated) -> str:
    """`epoch 3: validation loss 0.3120, accuracy 0.8712 (weighted 0.9034), AUC 0.9215`."""
    loss = "" if found.loss is None else f" loss {found.loss:.4f},"
    auc = "" if found.auc is None else f", AUC {found.auc:.4f}"
    return (
        f"epoch {found.epoch}: {found.split}{loss} accuracy {found.accuracy:.4f} "
        f"(weighted {found.weighted_accuracy:.4f}){auc}"
    )

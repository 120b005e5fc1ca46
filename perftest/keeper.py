"""What worker 0 does beside training: validate, keep checkpoints, write summaries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from perftest import training
from perftest.checkpoints import (
    About,
    Checkpoint,
    CheckpointError,
    Checkpoints,
    Values,
    check,
)
from perftest.data import Source
from perftest.evaluation import Evaluator, Predictions
from perftest.protocol import (
    TEST,
    TRAIN,
    VALIDATION,
    Evaluated,
    Finished,
    Job,
    Place,
    Saved,
    Training,
    TrainingStarts,
)
from perftest.summaries import Summaries
from perftest.task import AgentLink
from perftest.worker import device_name


class TrainingDiverged(Exception):
    """The loss, or something that has been learnt, is no longer a number."""


class Keeper:
    """Looks after one training on behalf of all its workers.

    `make_model` builds a copy of the network of its own, outside every graph.
    """

    def __init__(
        self, job: Job, place: Place, link: AgentLink, source: Source, make_model: Callable[[], Any]
    ) -> None:
        assert job.training is not None  # noqa: S101 - for the types
        self._job = job
        self._training: Training = job.training
        self._link = link
        self._source = source
        self._evaluator = Evaluator(
            make_model, source, self._training.evaluation_batch_size, device_name(place)
        )
        self._checkpoints = Checkpoints(self._training.output)
        self._summaries: Summaries | None = None

    def resume(self, like: Values) -> Checkpoint | None:
        """The checkpoint to go on from, if so asked and there is one; it fits `like`.

        Raises CheckpointError.
        """
        self._checkpoints.prepare(self._training.restart)
        if not self._training.restart or not self._checkpoints.names():
            return None
        self._link.phase("restoring")
        checkpoint = self._checkpoints.load(self._checkpoints.find(""))
        check(checkpoint, self._job.model, self._job.optimizer.name, like)
        return checkpoint

    def starts(self, steps_per_epoch: int, checkpoint: Checkpoint | None) -> None:
        """Say what lies before the workers."""
        if self._training.summaries and not self._training.evaluate:
            self._summaries = Summaries(self._training.output)
        self._link.tell(
            TrainingStarts(
                train_samples=self._source.samples(TRAIN),
                validation_samples=self._source.samples(VALIDATION),
                test_samples=self._source.samples(TEST),
                steps_per_epoch=steps_per_epoch,
                first_epoch=checkpoint.about.epoch if checkpoint else 0,
                checkpoint=checkpoint.name if checkpoint else "",
            )
        )

    def progress(self, step: int, loss: float | None, images_per_second: float) -> None:
        """Note how the training goes. step: of all epochs."""
        if self._summaries is not None:
            self._summaries.write(
                step,
                {
                    "train/loss": loss,
                    "train/learning_rate": self._job.learning_rate,
                    "train/images_per_second": images_per_second,
                },
            )

    def validate(self, epoch: int, step: int, values: Values) -> Evaluated | None:
        """Evaluate the validation split, if there is one. epoch: epochs trained on so far.

        Raises TrainingDiverged.
        """
        if not self._source.samples(VALIDATION):
            return None
        predictions, found = self._evaluate(VALIDATION, epoch, values)
        self._link.tell(found)
        if not np.isfinite(predictions.entropies).all():
            raise TrainingDiverged("the loss of the validation is no number")
        if self._summaries is not None:
            self._summaries.write(
                step,
                {
                    "validation/loss": found.loss,
                    "validation/accuracy": found.accuracy,
                    "validation/weighted_accuracy": found.weighted_accuracy,
                    "validation/auc": found.auc,
                },
            )
        return found

    def save(self, epoch: int, values: Values, found: Evaluated | None) -> None:
        """Keep a checkpoint. Raises TrainingDiverged and CheckpointError."""
        if spoiled := values.spoiled():
            raise TrainingDiverged(f"{spoiled} is no number")
        score = None
        if found is not None:
            score = found.auc if found.auc is not None else found.weighted_accuracy
        self._link.phase("saving")
        job = self._job
        about = About(epoch, values.updates, job.model, job.optimizer.name, job.seed, score)
        self._link.tell(Saved(epoch, self._checkpoints.save(values, about)))

    def evaluate_test(self, like: Values) -> Values:
        """Evaluate the test split with the checkpoint that the job names; its values.

        Raises CheckpointError.
        """
        name = self._checkpoints.find(self._training.checkpoint)
        checkpoint = self._checkpoints.load(name)
        check(checkpoint, self._job.model, None, like)
        if not self._source.samples(TEST):
            raise CheckpointError(f"{self._job.data.path or 'the data'} has no test samples")
        self.starts(0, checkpoint)
        predictions, found = self._evaluate(TEST, checkpoint.about.epoch, checkpoint.values)
        self._link.tell(found)
        curve = predictions.curve(self._source.has_cut) if self._evaluator.binary else None
        if curve is not None:
            self._link.tell(curve)
        return checkpoint.values

    def _evaluate(self, split: str, epoch: int, values: Values) -> tuple[Predictions, Evaluated]:
        name = "validating" if split == VALIDATION else "testing"
        self._link.phase(name)
        predictions, seconds = self._evaluator.run(
            split, values, self._job.seed, lambda: self._link.phase(name)
        )
        found = predictions.figures(split, epoch, self._evaluator.binary, seconds)
        return predictions, found


def evaluate(job: Job, place: Place, link: AgentLink) -> None:
    """Train nothing: worker 0 evaluates a checkpoint, the others have nothing to do."""
    from perftest.inputs import Input

    device = device_name(place)
    if place.index:
        link.finished(Finished(0, None, device))
        return
    link.phase("building the model")
    model = training.build_model(job)
    link.phase("reading the data")
    keeper = Keeper(job, place, link, Input(job, place, model).source, lambda: model)
    values = keeper.evaluate_test(values_like(model))
    squares = sum(float(np.sum(np.square(p, dtype=np.float64))) for p in values.parameters)
    link.finished(Finished(sum(p.size for p in values.parameters), squares**0.5, device))


def values_like(model: Any) -> Values:
    """A model's variables, for their shapes."""
    return Values(list(model.trainable_variables), {}, list(model.non_trainable_variables))

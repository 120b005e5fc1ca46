"""One pass over a split with the parameters as they are, and the figures of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from perftest import figures, training
from perftest.checkpoints import Values
from perftest.data import Source
from perftest.protocol import Evaluated, RocCurve

_SIGN_OF_LIFE_SECONDS = 10.0


@dataclass(frozen=True)
class Predictions:
    """What the network made of each sample of a split; all of shape (samples,).

    entropies: cross entropy of the sample.  correct: whether its class has the largest logit.
    scores: logit of class 1 less that of class 0, in networks with two classes.
    """

    entropies: np.ndarray
    correct: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    train_weights: np.ndarray
    weights: np.ndarray
    cut: np.ndarray

    def figures(self, split: str, epoch: int, binary: bool, seconds: float) -> Evaluated:
        """The figures of the whole split."""
        curve = figures.roc(self.scores, self.labels, self.weights) if binary else None
        loss = _mean(self.entropies, self.train_weights)
        return Evaluated(
            split=split,
            epoch=epoch,
            samples=len(self.labels),
            loss=loss if math.isfinite(loss) else None,
            accuracy=_mean(self.correct, np.ones(len(self.correct))),
            weighted_accuracy=_mean(self.correct, self.weights),
            auc=figures.area(curve) if curve is not None else None,
            seconds=seconds,
        )

    def curve(self, has_cut: bool) -> RocCurve | None:
        """The thinned ROC curve of a network with two classes, if there is one."""
        curve = figures.roc(self.scores, self.labels, self.weights)
        if curve is None:
            return None
        thin = figures.thinned(curve)
        return RocCurve(
            tuple(float(rate) for rate in thin.false_positive_rates),
            tuple(float(rate) for rate in thin.true_positive_rates),
            figures.cut_point(self.cut, self.labels, self.weights) if has_cut else (),
        )


class Evaluator:
    """Evaluates a network on this process's own device, outside every other graph.

    `make_model` builds it; dropout is off, and batch normalisation takes its moving averages. The
    function is traced once, whatever the number of evaluations.
    """

    def __init__(
        self, make_model: Callable[[], Any], source: Source, batch_size: int, device: str
    ) -> None:
        self.source = source
        self.binary = source.classes == 2
        self._batch_size = batch_size
        self._device = device
        with tf.init_scope(), tf.device(device):
            self._model = make_model()
        self._function = tf.function(self._evaluate_batch, autograph=False)

    def run(
        self, split: str, values: Values, seed: int, alive: Callable[[], None]
    ) -> tuple[Predictions, float]:
        """What the network makes of all samples of a split, and the seconds that this took.

        `alive` is called now and then.
        """
        started = told = time.monotonic()
        with tf.device(self._device):
            parameters = [tf.constant(value) for value in values.parameters]
            state = [tf.constant(value) for value in values.state]
        found: list[list[np.ndarray]] = []
        for batch in self.source.dataset(
            split, self._batch_size, 0, 1, seed, shuffle=False, first_epoch=0, epochs=1
        ):
            results = self._function(parameters, state, batch.images, batch.labels)
            columns = [*results, *batch[1:]]
            valid = batch.valid.numpy() > 0
            found.append([np.asarray(column)[valid] for column in columns])
            if time.monotonic() - told > _SIGN_OF_LIFE_SECONDS:
                alive()
                told = time.monotonic()
        columns = [np.concatenate(column) for column in zip(*found, strict=True)]
        entropies, correct, scores, labels, train_weights, weights, _, cut = columns
        made = Predictions(entropies, correct, scores, labels, train_weights, weights, cut)
        return made, time.monotonic() - started

    def _evaluate_batch(self, parameters: Any, state: Any, images: Any, labels: Any) -> Any:
        if self.source.channels_first:
            images = training.channels_last(images)
        logits, _ = self._model.stateless_call(parameters, state, images, training=False)
        logits = tf.cast(logits, tf.float32)
        entropies = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        correct = tf.cast(tf.equal(tf.argmax(logits, axis=-1), labels), tf.float32)
        scores = logits[:, 1] - logits[:, 0] if self.binary else tf.zeros_like(correct)
        return entropies, correct, scores


def _mean(values: np.ndarray, weights: np.ndarray) -> float:
    """Weighted mean in float64, and 0 where nothing has any weight."""
    total = float(np.sum(weights, dtype=np.float64))
    return float(np.sum(values.astype(np.float64) * weights)) / total if total else 0.0

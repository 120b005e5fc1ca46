"""Optimizers: Keras' formulas, and the same training on servers as in one process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from trainings import Told, job, run_here, running, training

from perftest import optimizers
from perftest import training as pure
from perftest.protocol import Data, Optimizer

pytestmark = pytest.mark.tensorflow

KERAS = {
    "sgd": lambda rate: keras.optimizers.SGD(rate),
    "momentum": lambda rate: keras.optimizers.SGD(rate, momentum=0.8),
    "adam": lambda rate: keras.optimizers.Adam(rate),
    "rmsprop": lambda rate: keras.optimizers.RMSprop(rate, momentum=0.8),
    "adagrad": lambda rate: keras.optimizers.Adagrad(rate),
    "adadelta": lambda rate: keras.optimizers.Adadelta(rate),
}
SIX_STEPS = Data(train_samples=96, validation_samples=32, test_samples=32)


def gradients(steps: int) -> list[np.ndarray]:
    randoms = np.random.default_rng(5)
    return [randoms.normal(0, 0.1, (4, 3)).astype(np.float32) for _ in range(steps)]


@pytest.mark.parametrize("name", optimizers.names())
def test_an_optimizer_follows_keras_formula(name: str) -> None:
    rule = optimizers.load(Optimizer(name, momentum=0.8), learning_rate=0.05)
    start = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
    mine, theirs = tf.Variable(start), keras.Variable(start)
    slots = [tf.Variable(tf.fill((4, 3), value)) for value in rule.slots.values()]
    optimizer = KERAS[name](0.05)
    for updates, gradient in enumerate(gradients(20)):
        rule.apply(mine, slots, tf.constant(gradient), tf.constant(updates, tf.int64))
        optimizer.apply([tf.constant(gradient)], [theirs])
    assert np.abs(mine.numpy() - start).max() > 1e-4
    np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=2e-4, atol=1e-5)


def test_an_unknown_optimizer_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="no optimizer 'adamw'; there are sgd, momentum, adam"):
        optimizers.load(Optimizer("adamw"), 0.1)


def test_weight_decay_is_of_kernels_alone() -> None:
    kernel, bias = tf.constant([[2.0, -4.0]]), tf.constant([8.0])
    found = pure.decayed([tf.ones((1, 2)), tf.ones(1)], [kernel, bias], 0.5)
    assert found[0].numpy().tolist() == [[2.0, -1.0]]
    assert found[1].numpy().tolist() == [1.0]


def test_padding_and_weights_count_in_the_loss_as_they_should() -> None:
    entropies = tf.constant([1.0, 2.0, 99.0])
    assert float(pure._mean(entropies, tf.constant([1.0, 3.0, 0.0]))) == pytest.approx(1.75)
    assert float(pure._mean(entropies, tf.zeros(3))) == 0.0
    assert float(pure._mean(entropies, None)) == pytest.approx(34.0)


def synthetic(tmp_path: Path, name: str, workers: int, optimizer: Optimizer, **changes: Any) -> Any:
    """A training of six steps on one global batch, whatever the number of workers."""
    return job(
        output=tmp_path / name,
        workers=workers,
        data=SIX_STEPS,
        optimizer=optimizer,
        training=training(tmp_path / name, epochs=1),
        **changes,
    )


def test_two_workers_with_two_servers_train_as_one_process_with_the_double_batch(
    tmp_path: Path,
) -> None:
    optimizer, rate = Optimizer("adam", weight_decay=0.01), 0.005
    alone = run_here(synthetic(tmp_path, "one", 1, optimizer, learning_rate=rate), tmp_path)
    asked = synthetic(tmp_path, "two", 2, optimizer, learning_rate=rate)
    with running(asked, tmp_path / "agent", servers=2) as processes:
        together = processes.finish()
    assert together.failures == []
    curve = list(alone.losses().values())
    assert len(curve) == 6
    assert curve[0] - curve[-1] > 0.01
    np.testing.assert_allclose(list(together.losses(2).values()), curve, rtol=1e-5)
    assert together.norm == pytest.approx(alone.norm, rel=1e-6)
    _check_validations(alone, together)


def _check_validations(alone: Told, together: Told) -> None:
    (mine,), (theirs,) = alone.validations, together.validations
    assert mine.loss is not None
    assert theirs.loss == pytest.approx(mine.loss, rel=1e-5)
    assert replace(mine, loss=0, seconds=0) == replace(theirs, loss=0, seconds=0)


def test_weight_decay_makes_the_parameters_smaller(tmp_path: Path) -> None:
    norms = [
        run_here(synthetic(tmp_path, f"d{d}", 1, Optimizer("sgd", 0, d)), tmp_path).norm
        for d in (0.0, 0.5)
    ]
    assert norms[1] < 0.99 * norms[0]

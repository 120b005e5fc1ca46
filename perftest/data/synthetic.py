"""Synthetic images: random, made once, and kept on the worker's device.

Reading them costs nothing, so that a run measures training and not input. Every worker's batch is
a slice of one global batch that the seed alone determines: N workers with batches of b see exactly
what one process with a batch of N·b sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perftest.data import Batch, order, pipeline
from perftest.protocol import TEST, TRAIN, VALIDATION, Data

# Samples of the splits where nobody says how many.
_SAMPLES = {TRAIN: 10_000, VALIDATION: 1_000, TEST: 1_000}


def batch(
    image_shape: tuple[int, ...], classes: int, batch_size: int, seed: int, worker: int
) -> tuple[np.ndarray, np.ndarray]:
    """One worker's batch.

    Returns images, float32 of shape (batch_size, *image_shape), uniform in [0, 1), and labels,
    int64 of shape (batch_size,), uniform in [0, classes).
    """
    images = np.empty((batch_size, *image_shape), np.float32)
    labels = np.empty(batch_size, np.int64)  # TensorFlow keeps int32 in the host's memory
    for i in range(batch_size):
        # A stream of its own for each image of the global batch, whoever makes it.
        generator = np.random.default_rng((seed, worker * batch_size + i))
        images[i] = generator.random(image_shape, np.float32)
        labels[i] = generator.integers(classes)
    return images, labels


def files(path: str) -> list[Path]:
    """There are none."""
    return []


def load(data: Data, image_shape: tuple[int, int, int], classes: int, seed: int) -> Synthetic:
    """Random images, as many as `data` says, or 10,000 with 1,000 more of either other split."""
    asked = {
        TRAIN: data.train_samples,
        VALIDATION: data.validation_samples,
        TEST: data.test_samples,
    }
    counts = {split: count or _SAMPLES[split] for split, count in asked.items()}
    return Synthetic(image_shape, classes, seed, counts)


@dataclass(frozen=True)
class Synthetic:
    """As many samples as are asked for, which are one batch again and again."""

    image_shape: tuple[int, int, int]
    classes: int
    image_seed: int
    counts: dict[str, int]
    has_cut: bool = False
    channels_first: bool = False

    def samples(self, split: str) -> int:
        """As asked for."""
        return self.counts[split]

    def steps(self, split: str, batch_size: int, workers: int) -> int:
        """Batches per worker and epoch."""
        return order.steps(self.counts[split], batch_size, workers)

    def dataset(
        self,
        split: str,
        batch_size: int,
        worker: int,
        workers: int,
        seed: int,
        shuffle: bool,
        first_epoch: int = 0,
        epochs: int | None = None,
    ) -> Any:
        """The worker's one batch, again and again, the last ones of an epoch padded."""
        import tensorflow as tf

        total = self.counts[split]
        order.check_workers(total, workers, f"synthetic data, {split}")
        first, last = order.share(total, worker, workers)
        mine = last - first
        images, labels = batch(self.image_shape, self.classes, batch_size, self.image_seed, worker)
        images, labels = tf.constant(images), tf.constant(labels)

        def one(step: Any) -> Batch:
            left = tf.cast(mine, tf.int64) - step * batch_size
            valid = tf.cast(tf.range(batch_size, dtype=tf.int64) < left, tf.float32)
            return Batch(images, labels, valid, valid, valid, tf.zeros_like(valid))

        count = self.steps(split, batch_size, workers)
        made = pipeline.mapped(tf.data.Dataset.range(count), one)
        return made.repeat(-1 if epochs is None else epochs)

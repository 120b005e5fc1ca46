"""Synthetic images: random, made once, and kept on the worker's device.

Reading them costs nothing, so that a run measures training and not input. Every worker's batch is
a slice of one global batch that the seed alone determines: N workers with batches of b see exactly
what one process with a batch of N·b sees.
"""

from __future__ import annotations

import numpy as np


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

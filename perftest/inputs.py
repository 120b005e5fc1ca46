"""The batches that a worker trains on, one for each step, from whatever source."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from perftest import data, training
from perftest.data import Batch, Source, order
from perftest.data.errors import at
from perftest.protocol import SYNTHETIC, TRAIN, Job, Place


class Input:
    """The training batches of one worker.

    A measurement with synthetic images has one batch, which the strategy puts on its device once:
    `fixed`, images and labels. Anything else comes from tf.data, which reads ahead while a step
    computes, and goes into each step from outside: then `fixed` is None.

    images: how many have been handed out so far, without padding.
    """

    def __init__(self, job: Job, place: Place, model: Any) -> None:
        """Open the data. Raises DataError."""
        self.images = 0
        self._job = job
        self._place = place
        self._batches: Iterator[Batch] = iter(())
        height, width, channels = (int(size) for size in model.input_shape[1:])
        classes = int(model.output_shape[-1])
        self.source: Source = data.load(job.data, (height, width, channels), classes, job.seed)
        self.fixed: tuple[np.ndarray, np.ndarray] | None = None
        if job.training is None and job.data.kind == SYNTHETIC and not job.data.input_only:
            self.fixed = training.make_batch(job, model, place.index)
        elif job.training is None or not job.training.evaluate:
            self._check_samples()

    def _check_samples(self) -> None:
        """Raises DataError where there is nothing to train on: steps are counted before any batch
        is asked for.
        """
        where = at(self._job.data.path or "synthetic data", TRAIN)
        workers = len(self._job.cluster.worker)
        order.check_workers(self.source.samples(TRAIN), workers, where)

    @property
    def batch_shapes(self) -> tuple[tf.TensorSpec, tf.TensorSpec, tf.TensorSpec]:
        """Images, labels and weights of the loss, as a step is given them."""
        size = self._job.batch_size
        height, width, channels = self.source.image_shape
        image_shape = (height, width, channels)
        if self.source.channels_first:
            image_shape = (channels, height, width)
        return (
            tf.TensorSpec((size, *image_shape), tf.float32),
            tf.TensorSpec((size,), tf.int64),
            tf.TensorSpec((size,), tf.float32),
        )

    def start(self, device: str | None = None, first_epoch: int = 0) -> None:
        """Begin to read; epoch after epoch, without end. device: where the batches are to be."""
        workers = len(self._job.cluster.worker)
        batches = self.source.dataset(
            TRAIN,
            self._job.batch_size,
            self._place.index,
            workers,
            self._job.seed,
            shuffle=True,
            first_epoch=first_epoch,
        )
        if device is not None and "GPU" in device:
            # Copied there while the step before is computing.
            batches = batches.apply(tf.data.experimental.prefetch_to_device(device, 2))
        self._batches = iter(batches)

    def next(self) -> Batch:
        """The next batch, when it is there."""
        batch = next(self._batches)
        self.images += int(np.sum(batch.valid))
        return batch


def on_host(tensor: Any) -> np.ndarray:
    """The values of an eager tensor on the processor, which are not copied."""
    return np.asarray(memoryview(tensor))

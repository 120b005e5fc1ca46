"""Where images come from. One file per kind of source, named as the option; one contract for all.

A file `KIND.py` is a source if it has `load(data, image_shape, classes, seed) -> Source`, and
`files(path)`, the files of a directory that belong to it. This file needs the standard library
alone, so that programs which only make data need not wait for TensorFlow.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from perftest.data.errors import DataError as DataError
from perftest.protocol import Data

KINDS = ("hdf5", "mnist", "synthetic", "tfrecord")


class Batch(NamedTuple):
    """One element of a source's tf.data pipeline; all of static shape (batch, ...).

    images: float32 (batch, height, width, channels), or (batch, channels, height, width) where the
    source says so; a training step turns them, on its own device.  labels: int64 (batch,), from 0.
    train_weights: float32, factor of each sample's loss in training; 0 for padding.
    weights: float32, the samples' weight in metrics; 0 for padding.
    valid: float32, 1, and 0 for padding.  cut: float32, `psr`, 1 where a selection by hand takes
    the sample; 0 where the data has none.
    A batch may be nothing but padding, where there are more batches than samples to fill them.
    """

    images: Any
    labels: Any
    train_weights: Any
    weights: Any
    valid: Any
    cut: Any


class Source(Protocol):
    """Samples in splits (protocol.TRAIN, VALIDATION, TEST), as pipelines of batches.

    image_shape: (height, width, channels).  channels_first: whether batches have these in another
    order, channels first.  has_cut: whether the data has a selection by hand.
    """

    image_shape: tuple[int, int, int]
    channels_first: bool
    classes: int
    has_cut: bool

    def samples(self, split: str) -> int:
        """Samples of a split that are used; 0 where there is no such split."""

    def steps(self, split: str, batch_size: int, workers: int) -> int:
        """Batches per worker and epoch: the same for all workers, the last ones padded."""

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
        """A tf.data.Dataset of this worker's Batches, epoch after epoch (`epochs` None: forever).

        In every epoch each sample of the split is in exactly one batch of one worker. Their order
        is determined by `seed` and the number of the epoch, and without `shuffle` it is that of
        the files. Raises DataError where there are fewer samples than workers.
        """


def load(data: Data, image_shape: tuple[int, int, int], classes: int, seed: int) -> Source:
    """The source that `data` names, for a model with such an input and so many classes.

    All that can be known without reading every image is checked. Raises DataError.
    """
    source: Source = _module(data.kind).load(data, image_shape, classes, seed)
    return source


def files(data: Data) -> list[Path]:
    """The files that the source reads, sorted. Raises DataError where there are none."""
    found: list[Path] = _module(data.kind).files(data.path)
    return found


def _module(kind: str) -> Any:
    if kind not in KINDS:
        raise DataError(f"there is no data of kind {kind!r}", f"one of {', '.join(KINDS)}")
    return importlib.import_module(f"{__name__}.{kind}")

"""MNIST's own format: four idx files, gzipped or not, after Yann LeCun's description.

`train-images-idx3-ubyte` and its labels are for training, but for their last twelfth (5,000 of
60,000), which is for validation; `t10k-...` are for testing. A header is two zero bytes, the type
(8: unsigned bytes), the number of dimensions and each of them as four bytes, the highest first.
Pixels become float32 from 0 to 1.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perftest.data import Batch, order, pipeline
from perftest.data.errors import DataError
from perftest.protocol import TEST, TRAIN, VALIDATION, Data

IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
TRAIN_NAME, TEST_NAME = "train", "t10k"
_VALIDATION_PART = 12
_UNSIGNED_BYTES = 8
# Images, 28 × 28, are read whole: so many of them can be no MNIST.
_MOST_BYTES = 1 << 30


def files(path: str) -> list[Path]:
    """The four files, gzipped or not. Raises DataError for one that is not there."""
    folder = Path(path).expanduser()
    return [
        _found(folder, f"{part}-{what}")
        for part in (TEST_NAME, TRAIN_NAME)
        for what in (IMAGES, LABELS)
    ]


def load(data: Data, image_shape: tuple[int, int, int], classes: int, seed: int) -> Mnist:
    """Read all four files. Raises DataError."""
    test_images, test_labels, images, labels = files(data.path)
    train = _read_pair(images, labels, image_shape, classes)
    cut = len(train) - len(train) // _VALIDATION_PART
    splits = {
        TRAIN: train.part(0, min(cut, data.train_samples or cut)),
        VALIDATION: train.part(cut, cut + (data.validation_samples or len(train))),
        TEST: _read_pair(test_images, test_labels, image_shape, classes).part(
            0, data.test_samples or None
        ),
    }
    return Mnist(image_shape, classes, data.path, splits)


@dataclass(frozen=True)
class Digits:
    """images: uint8 (N, H, W, 1).  labels: int64 (N,)."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, start: int, stop: int | None) -> Digits:
        """From one sample to another, not included."""
        return Digits(self.images[start:stop], self.labels[start:stop])


@dataclass(frozen=True)
class Mnist:
    """All of it in memory, a byte a pixel."""

    image_shape: tuple[int, int, int]
    classes: int
    path: str
    splits: dict[str, Digits]
    has_cut: bool = False
    channels_first: bool = False

    def samples(self, split: str) -> int:
        """Of the split."""
        return len(self.splits[split])

    def steps(self, split: str, batch_size: int, workers: int) -> int:
        """Batches per worker and epoch."""
        return order.steps(self.samples(split), batch_size, workers)

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
        """All samples of an epoch in one random order."""
        import tensorflow as tf

        digits = self.splits[split]
        total = len(digits)
        order.check_workers(total, workers, f"{self.path}, {split}")
        first, last = order.share(total, worker, workers)
        padded = self.steps(split, batch_size, workers) * batch_size

        def batches() -> Iterator[tuple[np.ndarray, ...]]:
            epoch = first_epoch
            while epochs is None or epoch < first_epoch + epochs:
                sequence = np.arange(total)
                if shuffle:
                    sequence = order.generator(seed, epoch).permutation(total)
                mine = np.zeros(padded, np.int64)
                mine[: last - first] = sequence[first:last]
                for start in range(0, padded, batch_size):
                    chosen = mine[start : start + batch_size]
                    valid = np.arange(start, start + batch_size) < last - first
                    yield digits.images[chosen], digits.labels[chosen], valid.astype(np.float32)
                epoch += 1

        def scaled(images: Any, labels: Any, valid: Any) -> Batch:
            images = tf.cast(images, tf.float32) / 255
            return Batch(images, labels, valid, valid, valid, tf.zeros_like(valid))

        signature = (
            tf.TensorSpec((batch_size, *self.image_shape), tf.uint8),
            tf.TensorSpec((batch_size,), tf.int64),
            tf.TensorSpec((batch_size,), tf.float32),
        )
        made = pipeline.generated(batches, signature, epochs and epochs * padded // batch_size)
        return pipeline.mapped(made, scaled, 2).prefetch(2)


def _found(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(
        f"{folder / name}: no such file, gzipped or not",
        "the directory of the four files (--data mnist:DIR, or --input DIR)",
    )


def _read_pair(
    images: Path, labels: Path, image_shape: tuple[int, int, int], classes: int
) -> Digits:
    """One split's images and labels. Raises DataError where they do not fit each other."""
    pixels, digits = read_idx(images, 3), read_idx(labels, 1).astype(np.int64)
    if (*pixels.shape[1:], 1) != image_shape:
        found = " × ".join(map(str, pixels.shape[1:]))
        wanted = " × ".join(map(str, image_shape))
        raise DataError(
            f"{images}: images of {found}, but the model takes {wanted}",
            "a model for such images: deepmnist",
        )
    if len(pixels) != len(digits):
        raise DataError(f"{labels}: {len(digits)} labels for {len(pixels)} images")
    if not len(digits):
        raise DataError(f"{images}: no samples")
    wrong = np.flatnonzero(digits >= classes)
    if len(wrong):
        raise DataError(
            f"{labels}: sample {wrong[0]} has the label {digits[wrong[0]]}, "
            f"and the model knows 0 to {classes - 1}"
        )
    return Digits(pixels[..., np.newaxis], digits)


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """An idx file of unsigned bytes. Raises DataError for a wrong header or length."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    header = 4 + 4 * dimensions
    if data[:4] != bytes((0, 0, _UNSIGNED_BYTES, dimensions)) or len(data) < header:
        raise DataError(
            f"{path}: no idx file of unsigned bytes in {dimensions} "
            f"dimension{'s' * (dimensions > 1)}: it begins with {data[:4].hex() or 'nothing'}"
        )
    shape = struct.unpack(f">{dimensions}I", data[4:header])
    if len(data) - header != math.prod(shape):
        raise DataError(
            f"{path}: {len(data) - header} bytes follow the header, which announces "
            f"{math.prod(shape)}"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)

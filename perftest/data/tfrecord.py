"""TFRecord files of ImageNet's usual examples, with `train`, `val` or `test` in their names.

A record is a tf.train.Example with `image/encoded`, a JPEG, and `image/class/label`, from 1. For
training, a random part of the picture is cut out (as large as a twelfth of it or all of it, not
much longer than wide or the other way) and half of them are flipped; for evaluation, seven
eighths in the middle. Pixels become float32 from 0 to 1.

A TFRecord file has no list of its records. Their lengths stand in front of each, and are read once
at the start, so that any worker can read any record: so each sample is seen once, with fewer files
than workers as with more.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from perftest.data import Batch, order, pipeline, splits
from perftest.data.errors import DataError, at
from perftest.data.order import Run
from perftest.protocol import TEST, TRAIN, VALIDATION, Data

_HEADER, _FOOTER = 12, 4  # length and its checksum before a record, a checksum after it
_INDEXED_AT_ONCE = 16
_BLOCK = 64  # records that are read in one go; JPEGs of ImageNet are 110 KB
_WINDOW = 16 * _BLOCK
_MIDDLE = 0.875
ENCODED, LABEL = "image/encoded", "image/class/label"


def files(path: str) -> list[Path]:
    """All files of the three splits. Raises DataError where there are none."""
    return sorted(file for split in splits.find(path, "tfrecord").values() for file in split)


def load(data: Data, image_shape: tuple[int, int, int], classes: int, seed: int) -> TFRecords:
    """Find the records of all files. Raises DataError for one that is cut off."""
    found = splits.find(data.path, "tfrecord")
    most = {
        TRAIN: data.train_samples,
        VALIDATION: data.validation_samples,
        TEST: data.test_samples,
    }
    with ThreadPoolExecutor(_INDEXED_AT_ONCE) as threads:
        indexed = {
            split: _first(list(threads.map(index, paths)), most[split])
            for split, paths in found.items()
        }
    return TFRecords(image_shape, classes, data.path, indexed)


@dataclass(frozen=True)
class RecordFile:
    """One file. starts: where each record begins, and the end of the file, (samples + 1,)."""

    path: Path
    starts: np.ndarray

    @property
    def samples(self) -> int:
        """Records of the file that are used."""
        return len(self.starts) - 1

    def read(self, start: int, stop: int) -> list[bytes]:
        """Some records in a row. Raises DataError."""
        first, last = int(self.starts[start]), int(self.starts[stop])
        with self.path.open("rb", buffering=0) as file:
            data = os.pread(file.fileno(), last - first, first)
        if len(data) < last - first:
            raise DataError(f"{self.path}: the file ends before its record {stop}")
        places = (self.starts[start : stop + 1] - first).tolist()
        return [data[here + _HEADER : there - _FOOTER] for here, there in pairwise(places)]


def index(path: Path) -> RecordFile:
    """Where the records of a file begin. Raises DataError for one that is cut off, or no TFRecord
    file.
    """
    starts = [0]
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            while starts[-1] < size:
                header = os.pread(file.fileno(), 8, starts[-1])
                length = struct.unpack("<Q", header)[0] if len(header) == 8 else size
                starts.append(starts[-1] + _HEADER + length + _FOOTER)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    if starts[-1] != size:
        number = len(starts) - 2
        raise DataError(f"{path}: cut off in its record {number}, or no TFRecord file")
    if not size:
        raise DataError(f"{path}: no samples")
    return RecordFile(path, np.array(starts))


def _first(found: Sequence[RecordFile], most: int) -> tuple[RecordFile, ...]:
    """The files with no more than `most` records in all (0: all of them)."""
    kept = []
    left = most or sum(file.samples for file in found)
    for file in found:
        kept.append(RecordFile(file.path, file.starts[: min(left, file.samples) + 1]))
        left -= kept[-1].samples
    return tuple(file for file in kept if file.samples)


@dataclass(frozen=True)
class TFRecords:
    """The splits of a directory of TFRecord files."""

    image_shape: tuple[int, int, int]
    classes: int
    path: str
    splits: dict[str, tuple[RecordFile, ...]]
    has_cut: bool = False
    channels_first: bool = False

    def samples(self, split: str) -> int:
        """Of all files of the split."""
        return sum(file.samples for file in self.splits[split])

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
        """Blocks of records in random order, mixed within windows, decoded by all processors."""
        import tensorflow as tf

        total = self.samples(split)
        order.check_workers(total, workers, f"{self.path}, {split}")
        share = pipeline.Share(batch_size, worker, workers, seed, shuffle, first_epoch, epochs)
        batches = _Batches(self.splits[split], share)
        signature = (
            tf.TensorSpec((batch_size,), tf.string),
            tf.TensorSpec((batch_size, 3), tf.int64),
            tf.TensorSpec((batch_size,), tf.float32),
        )
        steps = self.steps(split, batch_size, workers)
        made = pipeline.generated(batches.all, signature, epochs and epochs * steps)
        decoder = _Decoder(self.image_shape, self.classes, self.splits[split], seed, split == TRAIN)
        return pipeline.mapped(made, decoder.batch, 2).prefetch(2)


@dataclass(frozen=True)
class _Batches:
    """A worker's records, batch by batch: bytes, file and number and epoch, 1 or 0 for padding."""

    files: tuple[RecordFile, ...]
    share: pipeline.Share

    def all(self) -> Iterator[tuple[np.ndarray, ...]]:
        """Epoch after epoch; a thread reads ahead."""
        share = self.share
        epoch = share.first_epoch
        with ThreadPoolExecutor(1, "read") as thread:
            while share.epochs is None or epoch < share.first_epoch + share.epochs:
                yield from self._epoch(epoch, thread)
                epoch += 1

    def _epoch(self, epoch: int, thread: ThreadPoolExecutor) -> Iterator[tuple[np.ndarray, ...]]:
        counts = [file.samples for file in self.files]
        parts = order.blocks(counts, [_BLOCK] * len(counts))
        share, total, randoms = self.share, sum(counts), None
        if share.shuffle:
            sequence = order.generator(share.seed, epoch).permutation(len(parts))
            parts = [parts[i] for i in sequence]
            randoms = order.generator(share.seed, epoch, share.worker)
        first, last = order.share(total, share.worker, share.workers)
        size = max(1, _WINDOW // share.batch_size) * share.batch_size
        made = 0
        pending = None
        for window in order.windows(parts, first, last, size, randoms):
            reading = thread.submit(self._read, window, epoch)
            if pending is not None:
                for batch in pending.result():
                    made += 1
                    yield batch
            pending = reading
        if pending is not None:
            for batch in pending.result():
                made += 1
                yield batch
        for _ in range(made, order.steps(total, share.batch_size, share.workers)):
            yield self._padded([], [])

    def _read(self, window: order.Window, epoch: int) -> list[tuple[np.ndarray, ...]]:
        records: list[bytes] = [b""] * len(window.places)
        names = [(0, 0, 0)] * len(window.places)
        places = iter(window.places.tolist())
        for run in window.runs:
            for number, record in enumerate(self._of(run), run.start):
                place = next(places)
                records[place], names[place] = record, (run.file, number, epoch)
        size = self.share.batch_size
        return [
            self._padded(records[start : start + size], names[start : start + size])
            for start in range(0, len(records), size)
        ]

    def _of(self, run: Run) -> list[bytes]:
        return self.files[run.file].read(run.start, run.stop)

    def _padded(
        self, records: list[bytes], names: list[tuple[int, int, int]]
    ) -> tuple[np.ndarray, ...]:
        missing = self.share.batch_size - len(records)
        valid = np.array([1.0] * len(records) + [0.0] * missing, np.float32)
        named = np.array(names + [(0, 0, 0)] * missing, np.int64)
        return np.array(records + [b""] * missing, object), named, valid


@dataclass(frozen=True)
class _Decoder:
    """TensorFlow's operations from records to a Batch."""

    image_shape: tuple[int, int, int]
    classes: int
    files: tuple[RecordFile, ...]
    seed: int
    training: bool

    @cached_property
    def _features(self) -> dict[str, Any]:
        import tensorflow as tf

        return {
            ENCODED: tf.io.FixedLenFeature((), tf.string, ""),
            LABEL: tf.io.FixedLenFeature((), tf.int64, -1),
        }

    def batch(self, records: Any, names: Any, valid: Any) -> Batch:
        """All images of a batch, side by side."""
        import tensorflow as tf

        images, labels = tf.map_fn(
            self._sample,
            (records, names, valid),
            fn_output_signature=(
                tf.TensorSpec(self.image_shape, tf.float32),
                tf.TensorSpec((), tf.int64),
            ),
            parallel_iterations=16,
        )
        return Batch(images, labels, valid, valid, valid, tf.zeros_like(valid))

    def _sample(self, given: tuple[Any, Any, Any]) -> tuple[Any, Any]:
        import tensorflow as tf

        record, name, valid = given
        return tf.cond(
            valid > 0,
            lambda: self._decoded(record, name),
            lambda: (tf.zeros(self.image_shape), tf.zeros((), tf.int64)),
        )

    def _decoded(self, record: Any, name: Any) -> tuple[Any, Any]:
        import tensorflow as tf

        example = tf.io.parse_single_example(record, self._features)
        label = example[LABEL] - 1
        checked = tf.numpy_function(self._check, [name, label, example[ENCODED]], tf.string)
        # The same sample is cut in the same way after a restart, and in another one next epoch.
        seed = tf.stack([self.seed + (name[2] * (1 << 32)), name[1] + (name[0] * (1 << 40))])
        image = self._cropped(tf.ensure_shape(checked, ()), seed)
        image = tf.image.resize(image, self.image_shape[:2])
        if self.training:
            image = tf.image.stateless_random_flip_left_right(image, seed)
        return tf.ensure_shape(image / 255, self.image_shape), label

    def _check(self, name: np.ndarray, label: np.int64, encoded: bytes) -> bytes:
        """Raises DataError for a record that is no picture of a class."""
        where = f"record {name[1]}"
        path = self.files[name[0]].path
        if not encoded.startswith(b"\xff\xd8\xff"):
            raise DataError(f"{at(path, ENCODED)}: {where} has no JPEG")
        if not 0 <= label < self.classes:
            raise DataError(
                f"{at(path, LABEL)}: {where} has the label {label + 1}, and the model knows 1 to "
                f"{self.classes}"
            )
        return encoded

    def _cropped(self, encoded: Any, seed: Any) -> Any:
        """The part of the JPEG that is used, decoded alone."""
        import tensorflow as tf

        shape = tf.image.extract_jpeg_shape(encoded)
        if self.training:
            whole = tf.constant([0.0, 0.0, 1.0, 1.0], shape=[1, 1, 4])
            begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
                shape,
                whole,
                seed,
                min_object_covered=0.0,
                aspect_ratio_range=(3 / 4, 4 / 3),
                area_range=(1 / 12, 1.0),
                use_image_if_no_bounding_boxes=True,
            )
            window = tf.concat([begin[:2], size[:2]], axis=0)
        else:
            side = tf.cast(tf.reduce_min(shape[:2]), tf.float32) * _MIDDLE
            side = tf.maximum(tf.cast(side, tf.int32), 1)
            window = tf.stack([(shape[0] - side) // 2, (shape[1] - side) // 2, side, side])
        channels = self.image_shape[2]
        return tf.image.decode_and_crop_jpeg(encoded, window, channels=channels)

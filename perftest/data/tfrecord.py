"""TFRecord files of ImageNet's usual examples, with `train`, `val` or `test` in their names.

A record is a tf.train.Example with `image/encoded`, a JPEG, and `image/class/label`, from 1
(examples.py); jpegs.py makes images of them.

The lengths of all records are read once at the start (tfrecord_files.py), so that any worker can
read any record: so each sample is seen once, with fewer files than workers as with more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perftest.data import order, pipeline, splits
from perftest.data.examples import picture
from perftest.data.jpegs import Decoder
from perftest.data.tfrecord_files import RecordFile, index
from perftest.protocol import TEST, TRAIN, VALIDATION, Data

_INDEXED_AT_ONCE = 16
_BLOCK = 64  # records that are read in one go; JPEGs of ImageNet are 110 KB
_WINDOW = 16 * _BLOCK

_Sample = tuple[bytes, int, tuple[int, int, int]]
_PADDING: _Sample = (b"", 0, (0, 0, 0))


def files(path: str) -> list[Path]:
    """All files of the three splits. Raises DataError where there are none."""
    return sorted(file for split in splits.find(path, "tfrecord").values() for file in split)


def load(data: Data, image_shape: tuple[int, int, int], classes: int, seed: int) -> TFRecords:
    """Find the records of all files. Raises DataError for one that is cut off or damaged."""
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
        batches = _Batches(self.splits[split], self.classes, share)
        signature = (
            tf.TensorSpec((batch_size,), tf.string),
            tf.TensorSpec((batch_size,), tf.int64),
            tf.TensorSpec((batch_size, 3), tf.int64),
            tf.TensorSpec((batch_size,), tf.float32),
        )
        steps = self.steps(split, batch_size, workers)
        made = pipeline.generated(batches.all, signature, epochs and epochs * steps)
        paths = tuple(file.path for file in self.splits[split])
        decoder = Decoder(self.image_shape, paths, seed, split == TRAIN)
        return pipeline.mapped(made, decoder.batch, 2).prefetch(2)


@dataclass(frozen=True)
class _Batches:
    """A worker's samples, batch by batch: JPEG, label, file and number and epoch, 1 or 0 for
    padding.
    """

    files: tuple[RecordFile, ...]
    classes: int
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
            yield self._padded([])

    def _read(self, window: order.Window, epoch: int) -> list[tuple[np.ndarray, ...]]:
        samples: list[_Sample] = [_PADDING] * len(window.places)
        places = iter(window.places.tolist())
        for run in window.runs:
            file = self.files[run.file]
            for number, record in enumerate(file.read(run.start, run.stop), run.start):
                encoded, label = picture(record, file.path, number, self.classes)
                samples[next(places)] = encoded, label, (run.file, number, epoch)
        size = self.share.batch_size
        return [
            self._padded(samples[start : start + size]) for start in range(0, len(samples), size)
        ]

    def _padded(self, samples: list[_Sample]) -> tuple[np.ndarray, ...]:
        missing = self.share.batch_size - len(samples)
        valid = np.array([1.0] * len(samples) + [0.0] * missing, np.float32)
        encoded, labels, names = zip(*samples, *[_PADDING] * missing, strict=True)
        return np.array(encoded, object), np.array(labels), np.array(names), valid

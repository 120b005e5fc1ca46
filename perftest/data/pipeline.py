"""From samples that are read by runs to a tf.data pipeline of batches.

Several threads read ahead, each a run at a time, straight into its samples' places in the window:
the mixing costs no copy of its own, and a batch is a piece of its window. One window is used while
the next is read; with the few batches that tf.data fetches ahead, three are in memory at most.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from perftest.data import Batch, order
from perftest.data.memory import Pool
from perftest.data.order import Run

# What is read in a row, and what is mixed, in bytes of images. A system reads ahead of who reads in
# a row, and in large pages: of a disk that gave 4 GB/s in blocks of 32 MiB, threads that jumped
# about in the file for 2 MiB each got 2.0 to 2.9.
BLOCK_BYTES = 1 << 25
WINDOW_BYTES = 3 * BLOCK_BYTES
_PREFETCHED_BATCHES = 2
_PATIENCE_SECONDS = 1e-4
_ENDLESS = 1 << 60
# What travels in one array, because each array that enters tf.data takes time.
_NUMBERS = ("train_weights", "weights", "valid", "cut")
# Several streams, so that a block that waits for its disk or network does not hold up the next.
_THREADS = 3


class Reader(Protocol):
    """What a kind of files must be able to do.

    counts: samples of each file.  blocks: how many of a file's samples are best read in one go.
    image_shape: of an image as batches have it, (channels, height, width), say.
    """

    @property
    def counts(self) -> Sequence[int]: ...

    @property
    def blocks(self) -> Sequence[int]: ...

    @property
    def image_shape(self) -> Sequence[int]: ...

    def read(self, run: Run, images: np.ndarray, places: np.ndarray) -> None:
        """Read the images of a run, the ith into images[places[i]]. Several threads do at once."""

    def columns(self, run: Run) -> dict[str, np.ndarray]:
        """Of each sample of a run: the fields of Batch but `images` and `valid`."""


def _batches_of_window(reader: Reader, share: Share) -> int:
    return max(1, samples_of(reader.image_shape, WINDOW_BYTES) // share.batch_size)


@dataclass(frozen=True)
class Share:
    """What one worker is to see of a split, and how: as Source.dataset has it."""

    batch_size: int
    worker: int
    workers: int
    seed: int
    shuffle: bool
    first_epoch: int
    epochs: int | None


def samples_of(image_shape: Sequence[int], size: int) -> int:
    """How many images make up `size` bytes; at least one."""
    return max(1, size // (4 * int(np.prod(image_shape))))


def dataset(reader: Reader, share: Share) -> Any:
    """The tf.data.Dataset of a worker's batches."""

    def batches() -> Iterator[tuple[np.ndarray, ...]]:
        last = math.inf if share.epochs is None else share.first_epoch + share.epochs
        memory = Pool((_batches_of_window(reader, share), share.batch_size, *reader.image_shape))
        epoch = share.first_epoch
        with ThreadPoolExecutor(_THREADS, "read") as threads:
            while epoch < last:
                yield from _Epoch(reader, share, epoch, memory, threads).batches()
                epoch += 1

    import tensorflow as tf

    size = share.batch_size
    signature = (
        tf.TensorSpec((size, *reader.image_shape), tf.float32),
        tf.TensorSpec((size,), tf.int64),
        tf.TensorSpec((len(_NUMBERS), size), tf.float32),
    )

    def finish(images: Any, labels: Any, numbers: Any) -> Batch:
        named = dict(zip(_NUMBERS, tf.unstack(numbers), strict=True))
        return Batch(images=images, labels=labels, **named)

    # A reading thread lets go of the interpreter's lock and takes it again for every few samples:
    # the thread that hands over batches would get it only at the end of its patience, 5 ms.
    sys.setswitchinterval(min(sys.getswitchinterval(), _PATIENCE_SECONDS))
    total = None
    if share.epochs is not None:
        steps = order.steps(sum(reader.counts), share.batch_size, share.workers)
        total = steps * share.epochs
    return generated(batches, signature, total, finish).prefetch(_PREFETCHED_BATCHES)


def generated(
    batches: Callable[[], Iterator[tuple[np.ndarray, ...]]],
    signature: Sequence[Any],
    total: int | None,
    finish: Callable[..., Any] = lambda *values: values,
) -> Any:
    """A tf.data.Dataset of the first `total` values of a generator (None: it never ends), each as
    `finish`, a function of tensors, makes it.

    `Dataset.from_generator` would do, but it has the C library give back memory at once
    (M_TRIM_THRESHOLD, for the whole process), and makes reading and training slower by page faults.
    """
    import tensorflow as tf

    running: dict[int, Iterator[tuple[np.ndarray, ...]]] = {}
    tokens = itertools.count()

    def begin() -> np.int64:
        token = next(tokens)
        running[token] = batches()
        return np.int64(token)

    def following(token: np.int64, number: np.int64) -> tuple[np.ndarray, ...]:
        values = next(running[int(token)])
        if total is not None and number == total - 1:
            running.pop(int(token)).close()  # type: ignore[attr-defined]
        return values

    def pass_of(_: Any) -> Any:
        token = tf.ensure_shape(tf.numpy_function(begin, [], tf.int64), [])

        def one(number: Any) -> tuple[Any, ...]:
            types = [spec.dtype for spec in signature]
            values = tf.numpy_function(following, [token, number], types)
            for value, spec in zip(values, signature, strict=True):
                value.set_shape(spec.shape)
            return finish(*values)

        return mapped(tf.data.Dataset.range(_ENDLESS if total is None else total), one)

    return tf.data.Dataset.from_tensors(0).flat_map(
        tf.autograph.experimental.do_not_convert(pass_of)
    )


def mapped(dataset: Any, function: Callable[..., Any], parallel: int | None = None) -> Any:
    """`dataset.map` of a function that has no control flow of Python's over tensors.

    TensorFlow would rewrite it all the same, which takes time, into a file that it leaves in the
    temporary directory when the process is killed.
    """
    import tensorflow as tf

    plain = tf.autograph.experimental.do_not_convert(function)
    return dataset.map(plain, num_parallel_calls=parallel)


@dataclass(frozen=True)
class _Epoch:
    """One worker's pass over a split."""

    reader: Reader
    share: Share
    number: int
    memory: Pool
    threads: ThreadPoolExecutor

    def batches(self) -> Iterator[tuple[np.ndarray, ...]]:
        """Images, labels and numbers of each batch. The next window is read while one is used."""
        share, samples = self.share, sum(self.reader.counts)
        pending: _Window | None = None
        made = 0
        for window in self._windows():
            reading = self._read(window)
            made += len(reading.images)
            if pending is not None:
                yield from pending.batches()
            pending = reading
        if pending is not None:
            yield from pending.batches()
        for _ in range(made, order.steps(samples, share.batch_size, share.workers)):
            yield self._padding()

    def _windows(self) -> Iterator[order.Window]:
        share = self.share
        parts = order.blocks(self.reader.counts, self.reader.blocks)
        randoms = None
        if share.shuffle:
            sequence = order.generator(share.seed, self.number).permutation(len(parts))
            parts = [parts[i] for i in sequence]
            randoms = order.generator(share.seed, self.number, share.worker)
        first, last = order.share(sum(self.reader.counts), share.worker, share.workers)
        size = _batches_of_window(self.reader, share) * share.batch_size
        return order.windows(parts, first, last, size, randoms)

    def _read(self, window: order.Window) -> _Window:
        """Have the threads read a window."""
        size, shape = self.share.batch_size, tuple(self.reader.image_shape)
        count = len(window.places)
        images = self.memory.take()[: math.ceil(count / size)]
        rows = images.reshape(-1, *shape)
        rows[count:] = 0
        labels, numbers = _placed(self.reader, window, len(rows))
        futures = []
        done = 0
        for run in window.runs:
            places = window.places[done : done + len(run)]
            futures.append(self.threads.submit(self.reader.read, run, rows, places))
            done += len(run)
        return _Window(images, labels, numbers, futures)

    def _padding(self) -> tuple[np.ndarray, ...]:
        size = self.share.batch_size
        images = self.memory.take()[0]
        images[:] = 0
        return images, np.zeros(size, np.int64), np.zeros((len(_NUMBERS), size), np.float32)


def _placed(reader: Reader, window: order.Window, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels (size,) and numbers (4, size) of a window, each at its place; 0 for padding."""
    pieces = [reader.columns(run) for run in window.runs]
    labels = np.zeros(size, np.int64)
    labels[window.places] = np.concatenate([piece["labels"] for piece in pieces])
    numbers = np.zeros((len(_NUMBERS), size), np.float32)
    for row, name in enumerate(_NUMBERS):
        values = 1 if name == "valid" else np.concatenate([piece[name] for piece in pieces])
        numbers[row, window.places] = values
    return labels, numbers


@dataclass
class _Window:
    """A window that is being read: images (batches, batch, ...), labels, numbers, and what to wait
    for."""

    images: np.ndarray
    labels: np.ndarray
    numbers: np.ndarray
    futures: list[Future[None]]

    def batches(self) -> Iterator[tuple[np.ndarray, ...]]:
        """The batches, once all is read."""
        for future in self.futures:
            future.result()
        self.futures.clear()  # they hold the images
        batches, size = self.images.shape[:2]
        for number in range(batches):
            rows = slice(number * size, (number + 1) * size)
            yield self.images[number], self.labels[rows], self.numbers[:, rows]

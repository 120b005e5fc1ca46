"""From samples that are read by runs to a tf.data pipeline of batches.

Several threads read ahead, each a run at a time, straight into its samples' places in the batches:
the mixing of a window costs no copy of its own. At most two windows are in memory, and the few
batches that tf.data fetches ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from perftest.data import Batch, order
from perftest.data.order import Run

# What is read in one go, and what is mixed, in bytes of images.
BLOCK_BYTES = 2 << 20
WINDOW_BYTES = 64 << 20
_PREFETCHED_BATCHES = 2
# Reading waits for disks and networks, so that more threads than processors are of use.
_THREADS = 4
_ALIGNMENT = 64  # TensorFlow takes over what is so aligned, and copies anything else


class Reader(Protocol):
    """What a kind of files must be able to do.

    counts: samples of each file.  blocks: how many of a file's samples are best read in one go.
    """

    @property
    def counts(self) -> Sequence[int]: ...

    @property
    def blocks(self) -> Sequence[int]: ...

    def read(self, run: Run, images: Sequence[np.ndarray]) -> None:
        """Read the images of a run, the ith into images[i], (height, width, channels) float32.

        Called from several threads at once.
        """

    def columns(self, run: Run) -> dict[str, np.ndarray]:
        """Of each sample of a run: the fields of Batch but `images` and `valid`."""


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


def dataset(reader: Reader, image_shape: tuple[int, int, int], share: Share) -> Any:
    """The tf.data.Dataset of a worker's batches."""

    def batches() -> Iterator[Batch]:
        epoch = share.first_epoch
        with ThreadPoolExecutor(_THREADS, "read") as pool:
            while share.epochs is None or epoch < share.first_epoch + share.epochs:
                yield from _epoch(reader, image_shape, share, epoch, pool)
                epoch += 1

    return from_batches(batches, image_shape, share.batch_size)


def from_batches(
    batches: Callable[[], Iterator[Batch]], image_shape: tuple[int, int, int], batch_size: int
) -> Any:
    """A tf.data.Dataset of what a generator yields."""
    import tensorflow as tf

    one = tf.TensorSpec((batch_size,), tf.float32)
    signature = Batch(
        images=tf.TensorSpec((batch_size, *image_shape), tf.float32),
        labels=tf.TensorSpec((batch_size,), tf.int64),
        train_weights=one,
        weights=one,
        valid=one,
        cut=one,
    )
    made = tf.data.Dataset.from_generator(batches, output_signature=signature)
    return made.prefetch(_PREFETCHED_BATCHES)


def padding(image_shape: Sequence[int], batch_size: int) -> Batch:
    """A batch of nothing but padding."""
    zeros = np.zeros(batch_size, np.float32)
    images = aligned((batch_size, *image_shape))
    images[:] = 0
    return Batch(images, np.zeros(batch_size, np.int64), zeros, zeros, zeros, zeros)


def aligned(shape: tuple[int, ...]) -> np.ndarray:
    """An array of float32 that TensorFlow need not copy; it holds anything."""
    size = 4 * int(np.prod(shape))
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(np.float32).reshape(shape)


def _epoch(
    reader: Reader,
    image_shape: tuple[int, int, int],
    share: Share,
    epoch: int,
    pool: ThreadPoolExecutor,
) -> Iterator[Batch]:
    """A worker's batches of one epoch; while one window is used, the next one is read."""
    parts = order.blocks(reader.counts, reader.blocks)
    if share.shuffle:
        sequence = order.generator(share.seed, epoch).permutation(len(parts))
        parts = [parts[i] for i in sequence]
    randoms = order.generator(share.seed, epoch, share.worker) if share.shuffle else None
    total = sum(reader.counts)
    first, last = order.share(total, share.worker, share.workers)
    wanted = samples_of(image_shape, WINDOW_BYTES) // share.batch_size
    size = max(1, wanted) * share.batch_size
    pending: _Filling | None = None
    made = 0
    for window in order.windows(parts, first, last, size, randoms):
        filling = _Filling(reader, image_shape, share.batch_size, window, pool)
        if pending is not None:
            yield from pending.batches()
        made += len(filling)
        pending = filling
    if pending is not None:
        yield from pending.batches()
    for _ in range(made, order.steps(total, share.batch_size, share.workers)):
        yield padding(image_shape, share.batch_size)


class _Filling:
    """A window whose batches are being filled by the threads of a pool."""

    def __init__(
        self,
        reader: Reader,
        image_shape: tuple[int, int, int],
        batch_size: int,
        window: order.Window,
        pool: ThreadPoolExecutor,
    ) -> None:
        count = len(window.places)
        self._size = batch_size
        self._images = [aligned((batch_size, *image_shape)) for _ in range(-(-count // batch_size))]
        self._images[-1][count - batch_size * (len(self._images) - 1) :] = 0
        self._columns = self._placed(reader, window)
        self._futures: list[Future[None]] = []
        done = 0
        for run in window.runs:
            places = window.places[done : done + len(run)]
            images = [self._images[place // batch_size][place % batch_size] for place in places]
            self._futures.append(pool.submit(reader.read, run, images))
            done += len(run)

    def __len__(self) -> int:
        return len(self._images)

    def _placed(self, reader: Reader, window: order.Window) -> dict[str, np.ndarray]:
        """All columns of the window, each value at its sample's place, zeros for padding."""
        pieces = [reader.columns(run) for run in window.runs]
        whole = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
        whole["valid"] = np.ones(len(window.places), np.float32)
        placed = {}
        for name, values in whole.items():
            placed[name] = np.zeros(len(self._images) * self._size, values.dtype)
            placed[name][window.places] = values
        return placed

    def batches(self) -> Iterator[Batch]:
        """The batches, once the window is read; each is let go as it is given away."""
        for future in self._futures:
            future.result()
        self._futures.clear()
        for number in range(len(self._images)):
            rows = slice(number * self._size, (number + 1) * self._size)
            columns = {name: values[rows] for name, values in self._columns.items()}
            images, self._images[number] = self._images[number], np.empty(0)
            yield Batch(images=images, **columns)

"""HDF5 files of images, with `train`, `val` or `test` in their names.

Each has `data` (N, C, H, W) float32, `label` (N,), `normweight` (N,), `weight` (N,) and, if there
was a selection by hand, `psr` (N,): 1 where it took the sample. Labels and weights are read at the
start; of the images never more than two windows are in memory.

h5py holds one lock for the whole library. Images that lie in one piece in their file, as they do
unless they were compressed or chunked, are therefore read past it, from their offset, by several
threads at once.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from perftest.data import order, pipeline, splits
from perftest.data.errors import DataError, at
from perftest.data.hdf5_files import DATA, ImageFile, examine
from perftest.data.order import Run
from perftest.protocol import TEST, TRAIN, VALIDATION, Data

_SUFFIXES = (".h5", ".hdf5", ".hdf")
# Read at once and turned while it is still in the processor's cache.
_PIECE_BYTES = 512 << 10
# Of the library, for a chunk that it has unpacked and that is wanted piece by piece.
_CHUNK_CACHE_BYTES = 64 << 20


def files(path: str) -> list[Path]:
    """All files of the three splits. Raises DataError where there are none."""
    return sorted(file for split in splits.find(path, "hdf5", _SUFFIXES).values() for file in split)


def load(data: Data, image_shape: tuple[int, int, int], classes: int, seed: int) -> HDF5:
    """Examine every file: datasets, shapes, lengths, labels, weights. Raises DataError."""
    most = {
        TRAIN: data.train_samples,
        VALIDATION: data.validation_samples,
        TEST: data.test_samples,
    }
    found = splits.find(data.path, "hdf5", _SUFFIXES)
    readers = {
        split: Reader(
            first_samples(
                [examine(path, image_shape, classes, data.normweight) for path in paths],
                most[split],
            ),
            image_shape,
        )
        for split, paths in found.items()
    }
    return HDF5(image_shape, classes, data.path, readers)


def first_samples(found: Sequence[ImageFile], most: int) -> list[ImageFile]:
    """The files with no more than `most` samples in all (0: all of them)."""
    kept: list[ImageFile] = []
    left = most or sum(file.samples for file in found)
    for file in found:
        kept.append(file.first(min(left, file.samples)))
        left -= kept[-1].samples
    return [file for file in kept if file.samples]


@dataclass(frozen=True)
class HDF5:
    """The splits of a directory of HDF5 files."""

    image_shape: tuple[int, int, int]
    classes: int
    path: str
    readers: dict[str, Reader]

    @property
    def has_cut(self) -> bool:
        """Whether every file of the test split (or of any) has `psr`."""
        judged = self.readers[TEST].files or [f for r in self.readers.values() for f in r.files]
        return all(file.has_cut for file in judged)

    def samples(self, split: str) -> int:
        """Of all files of the split."""
        return sum(file.samples for file in self.readers[split].files)

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
        """Blocks of the files in random order, mixed within windows."""
        order.check_workers(self.samples(split), workers, f"{self.path}, {split}")
        share = pipeline.Share(batch_size, worker, workers, seed, shuffle, first_epoch, epochs)
        return pipeline.dataset(self.readers[split], self.image_shape, share)


class Reader:
    """Reads the images of one split's files."""

    def __init__(self, files: Sequence[ImageFile], image_shape: tuple[int, int, int]) -> None:
        self.files = tuple(files)
        self.counts = tuple(file.samples for file in files)
        size = pipeline.samples_of(image_shape, pipeline.BLOCK_BYTES)
        # A compressed chunk is unpacked as a whole, whatever is wanted of it.
        self.blocks = tuple(math.ceil(size / file.chunk) * file.chunk for file in files)
        height, width, channels = image_shape
        self._shape = (channels, height, width)
        self._at_once = pipeline.samples_of(image_shape, _PIECE_BYTES)
        self._own = threading.local()

    def columns(self, run: Run) -> dict[str, np.ndarray]:
        """Labels and weights of a run."""
        every = self.files[run.file].columns
        return {name: values[run.start : run.stop] for name, values in every.items()}

    def read(self, run: Run, images: Sequence[np.ndarray]) -> None:
        """Read and turn the images of a run. Raises DataError for what is no picture."""
        file = self.files[run.file]
        try:
            with self._pieces(file) as fill:
                for start in range(0, len(run), self._at_once):
                    part = run.part(start, start + self._at_once)
                    planes = self._scratch()[: len(part)]
                    fill(part.start, planes)
                    _check_finite(file.path, part.start, planes)
                    _turn(planes, images[start:])
        except OSError as error:
            raise DataError(f"{at(file.path, DATA)}: cannot be read: {error}") from error

    @contextmanager
    def _pieces(self, file: ImageFile) -> Iterator[Callable[[int, np.ndarray], None]]:
        """How to fill an array with the images from one on."""
        if file.offset is None:
            with h5py.File(file.path, "r", rdcc_nbytes=_CHUNK_CACHE_BYTES) as library:
                yield partial(_through_library, library)
            return
        with file.path.open("rb", buffering=0) as opened:
            yield partial(_from_offset, file, opened.fileno())

    def _scratch(self) -> np.ndarray:
        """This thread's memory for a piece."""
        if not hasattr(self._own, "planes"):
            self._own.planes = np.empty((self._at_once, *self._shape), np.float32)
        planes: np.ndarray = self._own.planes
        return planes


def _through_library(opened: Any, start: int, planes: np.ndarray) -> None:
    where = np.s_[start : start + len(planes)]
    opened[DATA].read_direct(planes, where, np.s_[: len(planes)])


def _from_offset(file: ImageFile, descriptor: int, start: int, planes: np.ndarray) -> None:
    """Raises DataError where the file ends too soon."""
    assert file.offset is not None  # noqa: S101 # nobody else calls this
    memory = memoryview(planes.data).cast("B")
    offset = file.offset + start * planes[0].nbytes
    done = 0
    while done < len(memory):
        count = os.preadv(descriptor, [memory[done:]], offset + done)
        if count == 0:
            number = start + done // planes[0].nbytes
            raise DataError(f"{at(file.path, DATA)}: the file ends before its sample {number}")
        done += count


def _turn(planes: np.ndarray, images: Sequence[np.ndarray]) -> None:
    """(N, C, H, W) into N images of (H, W, C). A channel at a time: twice as fast as at once."""
    for image, channels in zip(images, planes, strict=False):
        for channel in range(len(channels)):
            image[..., channel] = channels[channel]


def _check_finite(path: Path, start: int, planes: np.ndarray) -> None:
    if np.isfinite(planes).all():
        return
    for number, image in enumerate(planes, start):
        if not np.isfinite(image).all():
            raise DataError(f"{at(path, DATA)}: sample {number} has a pixel that is not a number")

"""HDF5 files of images, with `train`, `val` or `test` in their names.

Each has `data` (N, C, H, W) float32, `label` (N,), `normweight` (N,), `weight` (N,) and, if there
was a selection by hand, `psr` (N,): 1 where it took the sample. Labels and weights are read at the
start; of the images never more than three windows (pipeline.py) are in memory.

h5py holds one lock for the whole library. Images that lie in one piece in their file, as they do
unless they were compressed or chunked, are therefore read past it, from their offset, by several
threads at once.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
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
_PIECE_BYTES = 1 << 20
_OF_THREAD = threading.local()


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
    channels_first: bool = True

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
        return pipeline.dataset(self.readers[split], share)


class Reader:
    """Reads the images of one split's files."""

    def __init__(self, files: Sequence[ImageFile], image_shape: tuple[int, int, int]) -> None:
        height, width, channels = image_shape
        self.image_shape = (channels, height, width)
        self.files = tuple(files)
        self.counts = tuple(file.samples for file in files)
        size = pipeline.samples_of(image_shape, pipeline.BLOCK_BYTES)
        # A compressed chunk is unpacked as a whole, whatever is wanted of it.
        self.blocks = tuple(math.ceil(size / file.chunk) * file.chunk for file in files)

    def columns(self, run: Run) -> dict[str, np.ndarray]:
        """Labels and weights of a run."""
        every = self.files[run.file].columns
        return {name: values[run.start : run.stop] for name, values in every.items()}

    def read(self, run: Run, images: np.ndarray, places: np.ndarray) -> None:
        """Read the images of a run. Raises DataError for what cannot be read."""
        file = self.files[run.file]
        try:
            if file.offset is None:
                _through_library(file, run, images, places)
            else:
                _from_offset(file, file.offset, run, images, places)
        except (OSError, RuntimeError, KeyError) as error:
            raise DataError(f"{at(file.path, DATA)}: cannot be read: {error}") from error


def _through_library(file: ImageFile, run: Run, images: np.ndarray, places: np.ndarray) -> None:
    with h5py.File(file.path, "r") as opened:
        stored = np.ascontiguousarray(opened[DATA][run.start : run.stop], np.float32)
    _check(file.path, run.start, stored)
    images[places] = stored


def _from_offset(
    file: ImageFile, offset: int, run: Run, images: np.ndarray, places: np.ndarray
) -> None:
    """Read past the library, a piece at a time into this thread's own memory: the processor still
    has it at hand when the images are looked at and taken from there.

    Raises DataError where the file ends too soon.
    """
    size = images[0].nbytes
    each = max(1, _PIECE_BYTES // size)
    memory = _own_memory((min(each, len(run)), *images.shape[1:]))
    with file.path.open("rb", buffering=0) as opened:
        for first in range(0, len(run), each):
            some = places[first : first + each]
            stored = memory[: len(some)]
            left, start = memoryview(stored.data).cast("B"), run.start + first
            place = offset + start * size
            while left:
                count = os.preadv(opened.fileno(), [left], place)
                if count == 0:
                    number = start + len(some) - math.ceil(len(left) / size)
                    where = at(file.path, DATA)
                    raise DataError(f"{where}: the file ends before its sample {number}")
                left, place = left[count:], place + count
            _check(file.path, start, stored)
            images[some] = stored


def _check(path: Path, start: int, stored: np.ndarray) -> None:
    """Raises DataError for a pixel that is no number. stored: images from number `start` on.

    Few calls for many images, because each takes the interpreter's lock.
    """
    if not math.isfinite(stored.max()) or not math.isfinite(stored.min()):  # NaN is both
        wrong = np.flatnonzero(~np.isfinite(stored).all(axis=(1, 2, 3)))
        sample = start + int(wrong[0])
        raise DataError(f"{at(path, DATA)}: sample {sample} has a pixel that is not a number")


def _own_memory(shape: tuple[int, ...]) -> np.ndarray:
    """Memory of this thread, which holds anything; as much of it as was ever needed at once."""
    size = math.prod(shape)
    kept: np.ndarray | None = getattr(_OF_THREAD, "memory", None)
    if kept is None or kept.size < size:
        kept = _OF_THREAD.memory = np.empty(size, np.float32)
    return kept[:size].reshape(shape)

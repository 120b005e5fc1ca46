"""Which worker sees which samples, and in which order. Pure.

A split is cut into blocks: consecutive samples of one file, as many as are read in one go. An
epoch puts the blocks into an order that its number and the seed determine. The samples one after
the other in that order are dealt out to the workers in equal, consecutive shares: so every sample
is seen once, whatever the number of workers, and no two shares differ by more than one sample. A
worker reads its share window by window, and the samples within a window are mixed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from perftest.data.errors import DataError


@dataclass(frozen=True)
class Run:
    """Samples `start` to `stop` (not included) of a file, an index."""

    file: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def part(self, start: int, stop: int) -> Run:
        """From the `start`th to the `stop`th sample of this run; what lies outside is left out."""
        return Run(self.file, self.start + max(0, start), min(self.stop, self.start + stop))


@dataclass(frozen=True)
class Window:
    """Runs that are read together, and the place of each of their samples: places[i] of the ith."""

    runs: tuple[Run, ...]
    places: np.ndarray


def share(samples: int, worker: int, workers: int) -> tuple[int, int]:
    """First and last (not included) position of a worker's samples."""
    return samples * worker // workers, samples * (worker + 1) // workers


def steps(samples: int, batch_size: int, workers: int) -> int:
    """Batches that hold the largest share."""
    return math.ceil(math.ceil(samples / workers) / batch_size)


def check_workers(samples: int, workers: int, what: str) -> None:
    """Raises DataError where a worker would have nothing to do."""
    if samples == 0:
        raise DataError(f"{what}: no samples", "files whose names have the word of that split")
    if samples < workers:
        raise DataError(
            f"{what}: {samples} samples are fewer than {workers} workers",
            f"{samples} workers or fewer, or more data",
        )


def blocks(counts: Sequence[int], sizes: Sequence[int]) -> list[Run]:
    """Files with so many samples each, cut into blocks of each file's size; the last of a file is
    smaller.
    """
    return [
        Run(file, start, min(start + size, count))
        for file, (count, size) in enumerate(zip(counts, sizes, strict=True))
        for start in range(0, count, size)
    ]


def generator(seed: int, epoch: int, *more: int) -> np.random.Generator:
    """Random numbers for one purpose of one epoch."""
    return np.random.default_rng((seed, epoch, *more))


def windows(
    parts: Sequence[Run], first: int, last: int, size: int, randoms: np.random.Generator | None
) -> Iterator[Window]:
    """Positions `first` to `last` of the samples of `parts`, in windows of `size`.

    Without `randoms`, samples keep their order.
    """
    ends = np.cumsum([len(part) for part in parts])
    for start in range(first, last, size):
        stop = min(start + size, last)
        count = stop - start
        places = np.arange(count) if randoms is None else randoms.permutation(count)
        yield Window(tuple(_between(parts, ends, start, stop)), places)


def _between(parts: Sequence[Run], ends: np.ndarray, start: int, stop: int) -> Iterator[Run]:
    """What of `parts` lies between two positions; `ends` are the positions where they end."""
    at = int(np.searchsorted(ends, start, side="right"))
    while at < len(parts) and (begin := int(ends[at]) - len(parts[at])) < stop:
        yield parts[at].part(start - begin, stop - begin)
        at += 1

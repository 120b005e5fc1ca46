"""Does the HDF5 pipeline deliver what the disk gives? Against a bare sequential read with h5py.

    python benchmarks/input_speed.py [--samples 100000] [--rounds 7]

Both read the same file of 64 × 64 images, all of its bytes, in turns: round after round, one first
and then the other, the order turned each time. The page cache is cold (the file's pages are given
up before each pass; what a virtual machine's host keeps is beyond that) or warm (the pass before
has left them there), and both are reported. The bare read takes 64 images at a time, as large as a
batch, and does nothing with them; the pipeline shuffles, looks for NaN, and hands over batches of
64 as TensorFlow's tensors. (Channels come first in both: the training step turns them, on its
device.) The ratio is that of the medians, its interval the 2.5 and 97.5 per cent of 10,000
bootstrap samples of the rounds.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

SIZE, BATCH = 64, 64
LEAST = 0.80


def write(path: Path, samples: int) -> None:
    """Random images, so that no layer below can make them small."""
    randoms = np.random.default_rng(1)
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", (samples, 3, SIZE, SIZE), "f4")
        for start in range(0, samples, 500):
            count = min(500, samples - start)
            data[start : start + count] = randoms.random((count, 3, SIZE, SIZE), np.float32)
        for name in ("label", "normweight", "weight"):
            file[name] = np.ones(samples, "f4")


def bare(path: Path, samples: int) -> None:
    """What h5py alone gives."""
    with h5py.File(path, "r") as file:
        data = file["data"]
        for start in range(0, samples, BATCH):
            data[start : start + BATCH]


def give_up_pages(path: Path) -> None:
    """Have the kernel forget the file's pages."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def seconds(read: Callable[[], None], path: Path, cold: bool) -> float:
    """One pass."""
    if cold:
        give_up_pages(path)
    started = time.perf_counter()
    read()
    return time.perf_counter() - started


def report(name: str, pairs: np.ndarray, size: int) -> float:
    """Print one state of the page cache; returns the ratio. pairs: (rounds, 2), bare and ours."""
    chosen = np.random.default_rng(1).integers(len(pairs), size=(10_000, len(pairs)))
    medians = np.median(pairs[chosen], axis=1)
    low, high = np.quantile(medians[:, 0] / medians[:, 1], [0.025, 0.975])
    theirs, ours = np.median(pairs, axis=0)
    ratio = float(theirs / ours)
    print(
        f"{name}: h5py {size / theirs / 1e9:.2f} GB/s, pipeline {size / ours / 1e9:.2f} GB/s, "
        f"ratio {ratio:.2f} (95 %: {low:.2f} to {high:.2f}), {len(pairs)} rounds"
    )
    return ratio


def main() -> None:
    """Measure; the exit status is 1 where the cold ratio is too low."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", help="on the disk to measure", default="/var/tmp")
    asked = parser.parse_args()
    from perftest import data as sources
    from perftest.protocol import Data

    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        path = Path(folder) / "train.h5"
        write(path, asked.samples)
        source = sources.load(Data("hdf5", folder), (SIZE, SIZE, 3), 2, seed=1)

        def ours() -> None:
            for _ in source.dataset("train", BATCH, 0, 1, 1, True, 0, 1):
                pass

        def theirs() -> None:
            bare(path, asked.samples)

        ours()  # TensorFlow's first pass is not about reading
        ratios = {}
        for name, cold in (("cold", True), ("warm", False)):
            pairs = np.zeros((asked.rounds, 2))
            for number in range(asked.rounds):
                for which in (0, 1) if number % 2 else (1, 0):
                    pairs[number, which] = seconds((theirs, ours)[which], path, cold)
            ratios[name] = report(name, pairs, asked.samples * 3 * SIZE * SIZE * 4)
    if ratios["cold"] < LEAST:
        raise SystemExit(f"less than {LEAST} of what the disk gives")


if __name__ == "__main__":
    main()

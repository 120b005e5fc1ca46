"""Images of a calorimeter in HDF5 files. Runs as `python -m perftest.data.make_hep`.

An event is a number of jets: sprays of particles that hit the cylinder around the collision. Its
image is the unrolled cylinder, height × width = azimuth φ (all around) × pseudorapidity η (-2.5 to
2.5); its channels are the energy in each cell, the electromagnetic part of that energy, and the
number of tracks. Background events are of two to a few hard jets; signal events (heavy particles
that decay into quarks) of more and softer ones, as in the search that arXiv:1708.05256 describes.
The distributions are chosen to look alike and to overlap; they are no simulation.

Every channel is divided by its largest value in the training sample. Background is far more
frequent than signal in nature: `weight` is each sample's part of the expected events, in each
split; `normweight` is that of the training sample divided by its mean there, one number for each
class in all splits; `psr` is a selection by hand: enough jets, and enough transverse momentum in
them.

The same seed, size and number of samples give the same files. Another number of samples gives the
same events in whole blocks of 256, but divided by the largest values of another training sample,
and with other weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from perftest.data.making import Progress, output_folder, written_beside

SPLITS = {"train": 0.8, "val": 0.1, "test": 0.1}
_CHUNK = 256
_PIXELS = 1 << 20  # of as many images at a time, which takes some 100 MB
_HALF_LENGTH = 2.5  # in pseudorapidity
_MOST_JETS, _PARTICLES = 14, 32

# Expected events of each class in the same running time: signal is rare.
EVENTS = {0: 10_000.0, 1: 100.0}
# The selection by hand: jets above so many GeV, and their sum.
_CUT_JET_GEV, _CUT_JETS, _CUT_SUM_GEV = 45.0, 6, 450.0


@dataclass(frozen=True)
class Kind:
    """How the events of a class come out. Momenta in GeV.

    jets: mean number beyond two.  total: median of the summed momentum, and its spread as a
    factor's logarithm.  evenness: of the sharing among jets; small: one or two take most.
    """

    jets: float
    total: float
    spread: float
    evenness: float


KINDS = {0: Kind(2.4, 540.0, 0.32, 1.3), 1: Kind(5.8, 640.0, 0.28, 2.8)}


@dataclass(frozen=True)
class Particles:
    """Those of some events. Everything is of shape (N, jets, particles of a jet).

    where: pseudorapidity and azimuth.  energy in GeV.  electromagnetic: part of the energy.
    tracks: whether it leaves one.
    """

    where: tuple[np.ndarray, np.ndarray]
    energy: np.ndarray
    electromagnetic: np.ndarray
    tracks: np.ndarray

    def images(self, size: int, randoms: np.random.Generator) -> Iterator[tuple[slice, np.ndarray]]:
        """Some events after the other, with their images, float32 (n, 3, size, size), not yet
        divided by anything. How many at a time makes no difference to them.
        """
        count, each = len(self.energy), images_at_once(size)
        for first in range(0, count, each):
            some = slice(first, min(first + each, count))
            energy = self.energy[some]
            values = (energy, energy * self.electromagnetic[some], self.tracks[some])
            images = _binned((self.where[0][some], self.where[1][some]), values, size)
            noise = randoms.normal(0, 0.15, (len(energy), size, size))
            images[:, 0] += np.maximum(noise, 0) * (64 / size) ** 2
            images[:, 1] /= np.maximum(images[:, 0], 1e-6)
            yield some, images.astype(np.float32)


def images_at_once(size: int) -> int:
    """How many images of this size are in memory at a time."""
    return max(1, min(_CHUNK, _PIXELS // size**2))


def _particles(
    momenta: np.ndarray, eta: np.ndarray, phi: np.ndarray, randoms: np.random.Generator
) -> Particles:
    """What jets consist of."""
    shape = (*momenta.shape, _PARTICLES)
    share = randoms.exponential(1.0, shape) ** 2
    share /= share.sum(axis=2, keepdims=True)
    # Softer jets are wider.
    width = 0.08 + 2.0 / np.maximum(momenta, 10.0)
    near = randoms.exponential(1.0, shape) * width[..., None]
    around = randoms.uniform(0, 2 * np.pi, shape)
    energy = momenta[..., None] * share
    electromagnetic = randoms.beta(0.6, 1.2, shape)
    tracks = (randoms.random(shape) < 0.6) & (energy > 0.7)
    where = (eta[..., None] + near * np.cos(around), phi[..., None] + near * np.sin(around))
    return Particles(where, energy, electromagnetic, tracks)


def _selected(momenta: np.ndarray, eta: np.ndarray, randoms: np.random.Generator) -> np.ndarray:
    """The selection by hand of each event, 1 or 0: float32 (N,)."""
    seen = (momenta * randoms.normal(1, 0.1, momenta.shape)) * (np.abs(eta) < _HALF_LENGTH)
    hard = seen > _CUT_JET_GEV
    chosen = (hard.sum(axis=1) >= _CUT_JETS) & ((seen * hard).sum(axis=1) > _CUT_SUM_GEV)
    return chosen.astype(np.float32)


def _jets(
    labels: np.ndarray, randoms: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Transverse momentum (0: no such jet), pseudorapidity and azimuth: each (N, _MOST_JETS)."""
    kinds = [KINDS[int(label)] for label in labels]
    count = len(labels)
    jets = 2 + randoms.poisson([kind.jets for kind in kinds])
    there = np.arange(_MOST_JETS) < np.minimum(jets, _MOST_JETS)[:, None]
    total = np.exp(
        np.log([kind.total for kind in kinds])
        + np.array([kind.spread for kind in kinds]) * randoms.normal(size=count)
    )
    evenness = np.array([kind.evenness for kind in kinds])[:, None]
    shares = randoms.gamma(evenness, 1.0, (count, _MOST_JETS)) * there
    momenta = total[:, None] * shares / shares.sum(axis=1, keepdims=True)
    eta = randoms.normal(0, 1.1, (count, _MOST_JETS))
    phi = randoms.uniform(0, 2 * np.pi, (count, _MOST_JETS))
    # The first two recoil from each other.
    phi[:, 1] = phi[:, 0] + np.pi + randoms.normal(0, 0.3, count)
    return momenta, eta, phi


def _binned(
    where: tuple[np.ndarray, np.ndarray], values: tuple[np.ndarray, ...], size: int
) -> np.ndarray:
    """Sums of each value in each cell: (N, len(values), size, size); the cylinder closes in φ."""
    eta, phi = where
    count = len(eta)
    column = np.floor((eta + _HALF_LENGTH) / (2 * _HALF_LENGTH) * size).astype(np.int64)
    row = np.floor(phi / (2 * np.pi) * size).astype(np.int64) % size
    inside = (column >= 0) & (column < size)
    event = np.broadcast_to(np.arange(count)[:, None, None], eta.shape)
    cell = ((event * size + row) * size + column)[inside]
    cells = count * size * size
    sums = [np.bincount(cell, value[inside], cells) for value in values]
    return np.stack([total.reshape(count, size, size) for total in sums], axis=1)


def make(folder: Path, size: int, samples: int, seed: int, progress: Progress) -> None:
    """Write hep_train_SIZE.h5, hep_val_SIZE.h5 and hep_test_SIZE.h5."""
    counts = split_counts(samples)
    largest = np.zeros(3, np.float32)
    with _files(folder, size, counts) as files:
        for number, (split, file) in enumerate(files.items()):
            for start in range(0, counts[split], _CHUNK):
                randoms = np.random.default_rng((seed, number, start))
                stop = min(start + _CHUNK, counts[split])
                found = _write(file, start, stop, size, randoms, progress)
                if split == "train":
                    largest = np.maximum(largest, found)
        trained_on = files["train"]["label"][()]
        norms = _class_weights(trained_on)
        norms /= norms[trained_on].mean()
        for file in files.values():
            _finish(file, largest, norms)


def _write(
    file: Any, start: int, stop: int, size: int, randoms: np.random.Generator, progress: Progress
) -> np.ndarray:
    """Make some events. Returns the largest values of their channels, float32 (3,)."""
    labels = (np.arange(start, stop) % 2).astype(np.int64)
    randoms.shuffle(labels)
    momenta, eta, phi = _jets(labels, randoms)
    largest = np.zeros(3, np.float32)
    for some, images in _particles(momenta, eta, phi, randoms).images(size, randoms):
        largest = np.maximum(largest, images.max(axis=(0, 2, 3)))
        file["data"][start + some.start : start + some.stop] = images
        progress.add(len(images))
    file["label"][start:stop] = labels
    file["psr"][start:stop] = _selected(momenta, eta, randoms)
    return largest


def split_counts(samples: int) -> dict[str, int]:
    """How many samples each split has: a tenth for validation, a tenth for testing."""
    tenth = {split: max(2, int(samples * part)) for split, part in SPLITS.items()}
    return {**tenth, "train": samples - tenth["val"] - tenth["test"]}


def _class_weights(labels: np.ndarray) -> np.ndarray:
    """The weight of a sample of each class, float64 (classes,)."""
    counts = np.bincount(labels, minlength=len(EVENTS))
    return np.array([EVENTS[label] for label in sorted(EVENTS)]) / np.maximum(counts, 1)


def _finish(file: Any, largest: np.ndarray, norms: np.ndarray) -> None:
    """Divide the images by the largest values, and write the weights. norms: of each class."""
    scale = np.reciprocal(np.maximum(largest, 1e-6)).astype(np.float32)[:, None, None]
    data, labels = file["data"], file["label"][()]
    each = images_at_once(data.shape[-1])
    for start in range(0, len(data), each):
        data[start : start + each] = data[start : start + each] * scale
    file["weight"][()] = _class_weights(labels)[labels]
    file["normweight"][()] = norms[labels]


@contextmanager
def _files(folder: Path, size: int, counts: dict[str, int]) -> Iterator[dict[str, Any]]:
    """The files, open; all take their names at the end, or none."""
    paths = {split: folder / f"hep_{split}_{size}.h5" for split in counts}
    with (
        written_beside(paths["train"]) as train,
        written_beside(paths["val"]) as val,
        written_beside(paths["test"]) as test,
    ):
        opened = {}
        try:
            for split, beside in (("train", train), ("val", val), ("test", test)):
                opened[split] = file = h5py.File(beside, "w")
                count = counts[split]
                file.create_dataset("data", (count, 3, size, size), "f4")
                file.create_dataset("label", (count,), "i8")
                for name in ("normweight", "weight", "psr"):
                    file.create_dataset(name, (count,), "f4")
            yield opened
        finally:
            for file in opened.values():
                file.close()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="runtest make-data hep")
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with output_folder(asked.out) as folder:
        progress = Progress("events", asked.samples)
        make(folder, asked.size, asked.samples, asked.seed, progress)


if __name__ == "__main__":
    main()

"""Made events are what the documents say of them, as one who looks for jets in the images finds."""

from __future__ import annotations

import numpy as np
import pytest

from perftest.data import make_hep

SIZE = 64
# Half the side of a jet in cells, the least momentum of one in GeV, and more than an event has.
REACH, LEAST_GEV, MOST = 4, 30.0, 12


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    """0: background, 1: signal."""
    return np.arange(1000) % 2


@pytest.fixture(scope="module")
def images(labels: np.ndarray) -> np.ndarray:
    """In GeV: those of the files are divided by their largest values."""
    randoms = np.random.default_rng(1)
    particles = make_hep._particles(*make_hep._jets(labels, randoms), randoms)
    return np.concatenate([images for _, images in particles.images(SIZE, randoms)])


def jets(energy: np.ndarray) -> np.ndarray:
    """The momenta of each event's jets, hardest first, (N, MOST); 0 where there are no more.

    The square with most energy is a jet, and then the next one of what is left. Rows close.
    """
    left = energy.astype(float)
    count, _, size = left.shape
    near = np.arange(-REACH, REACH + 1)
    found = np.zeros((count, MOST))
    for number in range(MOST):
        rows = sum(np.roll(left, shift, axis=1) for shift in near)
        padded = np.pad(rows, ((0, 0), (0, 0), (REACH, REACH)))
        squares = sum(padded[:, :, start : start + size] for start in range(2 * REACH + 1))
        places = squares.reshape(count, -1).argmax(axis=1)
        found[:, number] = squares.reshape(count, -1).max(axis=1)
        row, column = np.divmod(places, size)
        across = np.clip(column[:, None] + near, 0, size - 1)
        around = (row[:, None] + near) % size
        left[np.arange(count)[:, None, None], around[:, :, None], across[:, None, :]] = 0
    return np.where(found > LEAST_GEV, found, 0)


def test_signal_has_more_and_softer_jets_than_background(
    images: np.ndarray, labels: np.ndarray
) -> None:
    momenta = jets(images[:400, 0])
    background, signal = (momenta[labels[:400] == label] for label in (0, 1))
    number = [(kind > 0).sum(axis=1).mean() for kind in (background, signal)]
    assert 3 < number[0] < 4
    assert 5 < number[1] < 7
    momentum = [kind[kind > 0].mean() for kind in (background, signal)]
    assert momentum[1] < 0.8 * momentum[0]
    hardest = [kind[:, 0].mean() for kind in (background, signal)]
    assert hardest[1] < 0.85 * hardest[0]


def test_the_cylinder_closes_in_azimuth(images: np.ndarray) -> None:
    """A jet is wider than a row: the tracks of neighbouring rows go together, also of the first
    and the last.
    """
    tracks = images[:, 2].sum(axis=2)
    alike = np.corrcoef(tracks.T)
    neighbours = [alike[row, row + 1] for row in range(SIZE - 1)]
    assert min(neighbours) > 0.3 > 5 * abs(alike[0, SIZE // 4])
    assert alike[0, SIZE - 1] > 0.3
    # Nor is anything heaped up at the ends.
    mean = tracks.mean(axis=0)
    assert mean == pytest.approx(np.full(SIZE, mean.mean()), rel=0.25)


def test_pseudorapidity_does_not_close(images: np.ndarray) -> None:
    columns = images[:, 2].sum(axis=1)
    alike = np.corrcoef(columns.T)
    assert alike[0, 1] > 0.2
    assert abs(alike[0, SIZE - 1]) < 0.1

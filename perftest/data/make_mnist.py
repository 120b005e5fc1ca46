"""Drawn digits in MNIST's own format. Runs as `python -m perftest.data.make_mnist`.

Each digit is a few strokes of a pen, lines and arcs of our own. A sample turns, shears, scales and
shifts them, bends them by a smooth field, draws them with a pen of some width, and adds noise. The
same seed gives the same files, byte by byte.
"""

from __future__ import annotations

import argparse
import gzip
import struct
from pathlib import Path

import numpy as np

from perftest.data.making import Progress, output_folder, written_beside
from perftest.data.mnist import IMAGES, LABELS, TEST_NAME, TRAIN_NAME

SIZE = 28
_CHUNK = 500
_POINTS = 24  # of each digit, where its strokes are straight in between

# Centre, radii, and from which angle to which, in turns; x to the right and y down, in [-1, 1].
_Arc = tuple[float, float, float, float, float, float]
_Line = tuple[float, float, float, float]
_STROKES: dict[int, tuple[_Arc | _Line, ...]] = {
    0: ((0.0, 0.0, 0.55, 0.9, 0.0, 1.0),),
    1: ((-0.25, -0.6, 0.05, -0.9), (0.05, -0.9, 0.05, 0.9)),
    2: ((0.0, -0.4, 0.5, 0.5, 0.5, 1.05), (0.45, -0.2, -0.5, 0.9), (-0.5, 0.9, 0.55, 0.9)),
    3: ((0.0, -0.45, 0.45, 0.45, 0.55, 1.25), (0.0, 0.45, 0.5, 0.45, 0.75, 1.45)),
    4: ((0.15, -0.9, -0.6, 0.3), (-0.6, 0.3, 0.6, 0.3), (0.3, -0.3, 0.3, 0.9)),
    5: ((0.45, -0.9, -0.4, -0.9), (-0.4, -0.9, -0.45, -0.1), (-0.05, 0.35, 0.5, 0.52, 0.62, 1.4)),
    6: ((0.4, 0.1, 0.85, 1.0, 0.5, 0.72), (0.0, 0.42, 0.45, 0.46, 0.0, 1.0)),
    7: ((-0.5, -0.9, 0.5, -0.9), (0.5, -0.9, -0.15, 0.9)),
    8: ((0.0, -0.45, 0.4, 0.42, 0.0, 1.0), (0.0, 0.45, 0.5, 0.46, 0.0, 1.0)),
    9: ((0.0, -0.4, 0.45, 0.48, 0.0, 1.0), (0.45, -0.4, 0.25, 0.9)),
}


def segments(digit: int) -> np.ndarray:
    """The straight pieces of a digit: (_POINTS, 2, 2), start and end, x and y."""
    strokes = _STROKES[digit]
    pieces = []
    for number, stroke in enumerate(strokes):
        count = _POINTS * (number + 1) // len(strokes) - _POINTS * number // len(strokes)
        steps = np.linspace(0, 1, count + 1)[:, None]
        if len(stroke) == 4:
            x0, y0, x1, y1 = stroke
            points = (1 - steps) * (x0, y0) + steps * (x1, y1)
        else:
            x, y, across, down, first, last = stroke
            turn = 2 * np.pi * (first + steps * (last - first))
            points = np.hstack([x + across * np.cos(turn), y + down * np.sin(turn)])
        pieces.append(np.stack([points[:-1], points[1:]], axis=1))
    return np.concatenate(pieces)


def draw(labels: np.ndarray, randoms: np.random.Generator) -> np.ndarray:
    """A picture of each label: uint8 (N, 28, 28), the pen white on black."""
    every = np.stack([segments(digit) for digit in range(10)]).astype(np.float32)
    ends = _moved(every[labels], randoms)
    middle = (SIZE - 1) / 2
    ends = middle + ends * 9.5  # pixels: the digit fills 19 of 28, as MNIST's fill 20
    width = randoms.uniform(0.7, 1.5, (len(labels), 1, 1)).astype(np.float32)
    ink = np.clip(width + 0.5 - np.sqrt(_distance_squared(ends)), 0, 1)
    ink *= randoms.uniform(0.75, 1.0, (len(labels), 1, 1))
    ink += randoms.normal(0, 0.06, ink.shape) * (randoms.random((len(labels), 1, 1)) < 0.5)
    pixels: np.ndarray = (np.clip(ink, 0, 1) * 255).astype(np.uint8)
    return pixels


def _moved(ends: np.ndarray, randoms: np.random.Generator) -> np.ndarray:
    """Each sample's strokes, (N, P, 2, 2), bent by a smooth field and then by an affine map."""
    count = len(ends)
    waves = randoms.normal(0, 0.09, (count, 3, 2, 1, 1))
    phases = randoms.uniform(0, 2 * np.pi, (count, 3, 2, 1, 1))
    bent = ends.copy()
    for number in range(3):
        for axis in range(2):
            along = ends[..., 1 - axis] * (1.2 + number) + phases[:, number, axis]
            bent[..., axis] += waves[:, number, axis] * np.sin(along)
    turn, shear = randoms.normal(0, 0.14, count), randoms.normal(0, 0.18, count)
    across, down = randoms.uniform(0.75, 1.1, (2, count))
    cosine, sine = np.cos(turn), np.sin(turn)
    matrix = np.empty((count, 2, 2))
    matrix[:, 0] = np.stack([across * cosine, across * (shear * cosine - sine)], axis=1)
    matrix[:, 1] = np.stack([down * sine, down * (shear * sine + cosine)], axis=1)
    shift = randoms.normal(0, 0.1, (count, 1, 1, 2))
    moved: np.ndarray = np.einsum("nij,npej->npei", matrix, bent) + shift
    return moved.astype(np.float32)


def _distance_squared(ends: np.ndarray) -> np.ndarray:
    """Of each pixel from the nearest stroke, in pixels: (N, 28, 28) from (N, P, 2, 2)."""
    grid = np.arange(SIZE, dtype=np.float32)
    nearest = np.full((len(ends), SIZE, SIZE), np.inf, np.float32)
    for piece in range(ends.shape[1]):
        start, end = ends[:, piece, 0], ends[:, piece, 1]
        way = end - start
        length = np.maximum((way**2).sum(axis=1), 1e-6)[:, None, None]
        x = grid[None, None, :] - start[:, 0, None, None]
        y = grid[None, :, None] - start[:, 1, None, None]
        way_x, way_y = way[:, 0, None, None], way[:, 1, None, None]
        part = np.clip((x * way_x + y * way_y) / length, 0, 1)
        np.minimum(nearest, (x - part * way_x) ** 2 + (y - part * way_y) ** 2, out=nearest)
    return nearest


def make(folder: Path, samples: int, seed: int, progress: Progress) -> None:
    """Write the four files; a seventh of the samples are for testing."""
    test = max(1, samples // 7)
    for number, (part, count) in enumerate(((TRAIN_NAME, samples - test), (TEST_NAME, test))):
        images = np.empty((count, SIZE, SIZE), np.uint8)
        labels = np.empty(count, np.uint8)
        for start in range(0, count, _CHUNK):
            randoms = np.random.default_rng((seed, number, start))
            stop = min(start + _CHUNK, count)
            labels[start:stop] = randoms.integers(0, 10, stop - start)
            images[start:stop] = draw(labels[start:stop], randoms)
            progress.add(stop - start)
        _write_idx(folder / f"{part}-{IMAGES}.gz", images)
        _write_idx(folder / f"{part}-{LABELS}.gz", labels)


def _write_idx(path: Path, values: np.ndarray) -> None:
    header = bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
    with (
        written_beside(path) as beside,
        beside.open("wb") as file,
        # No name and no time in the file, so that it is the same whenever it is made.
        gzip.GzipFile("", "wb", 6, file, mtime=0) as packed,
    ):
        packed.write(header + values.tobytes())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="runtest make-data mnist")
    parser.add_argument("out", type=Path)
    parser.add_argument("--samples", type=int, default=70_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with output_folder(asked.out) as folder:
        make(folder, asked.samples, asked.seed, Progress("digits", asked.samples))


if __name__ == "__main__":
    main()

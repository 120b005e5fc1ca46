"""What becomes of a JPEG: which part of it a network sees, and which way round.

The picture is 80 × 64 pixels, redder to the right and greener downwards, three steps a pixel, so
that the colours at the edges of what is seen say where it was cut out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from datasets import write_tfrecords

from perftest import data as sources
from perftest.protocol import TRAIN, VALIDATION, Data

pytestmark = pytest.mark.tensorflow

WIDTH, HEIGHT, SAMPLES, SEEN = 80, 64, 200, 16


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("pictures")
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[..., 0] = 3 * np.arange(WIDTH)
    picture[..., 1] = 3 * np.arange(HEIGHT)[:, None]
    for split in ("train", "validation"):
        write_tfrecords(folder / f"{split}-00000-of-00001", SAMPLES, label=1, picture=picture)
    return sources.load(Data("tfrecord", str(folder)), (SEEN, SEEN, 3), 2, seed=1)


def images(source: Any, split: str, seed: int = 1, first_epoch: int = 0) -> np.ndarray:
    """One epoch, in the files' order: (SAMPLES, SEEN, SEEN, 3), from 0 to 1."""
    made = source.dataset(split, 50, 0, 1, seed, False, first_epoch, 1)
    return np.concatenate([batch.images.numpy() for batch in made])


def cuts(seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Left edge, top edge, width and height in pixels, (4, samples); and whether flipped."""
    columns, rows = seen[..., 0].mean(axis=1) * 255 / 3, seen[..., 1].mean(axis=2) * 255 / 3
    flipped = columns[:, 0] > columns[:, -1]
    columns[flipped] = columns[flipped, ::-1]
    # The outermost pixels are what lies half a pixel of theirs from the edge.
    width, height = ((each[:, -1] - each[:, 0]) * SEEN / (SEEN - 1) for each in (columns, rows))
    left, top = columns[:, 0] - width / SEEN / 2, rows[:, 0] - height / SEEN / 2
    return np.stack([left + 0.5, top + 0.5, width, height]), flipped


def test_training_sees_random_parts_half_of_them_flipped_whatever_the_part(source: Any) -> None:
    made, flipped = cuts(images(source, TRAIN))
    left, top, width, height = made
    assert (left > -1).all()
    assert (top > -1).all()
    assert (left + width < WIDTH + 1).all()
    assert (top + height < HEIGHT + 1).all()
    area, shape = width * height / (WIDTH * HEIGHT), width / height
    assert 0.07 < area.min() < 0.15 < 0.85 < area.max()
    assert 0.7 < shape.min() < 0.8 < 1.25 < shape.max() < 1.42
    assert len(np.unique(made.round(), axis=1).T) > 0.95 * SAMPLES
    # Five standard deviations of what 200 throws of a coin have in common with anything else.
    assert flipped.mean() == pytest.approx(0.5, abs=2.5 / SAMPLES**0.5)
    for of_the_cut in (left, top, width, height, area, shape):
        assert abs(np.corrcoef(of_the_cut, flipped)[0, 1]) < 5 / SAMPLES**0.5


def test_seed_and_epoch_determine_the_part_of_each_sample(source: Any) -> None:
    once = images(source, TRAIN, first_epoch=1)
    np.testing.assert_array_equal(images(source, TRAIN, first_epoch=1), once)
    made, flipped = cuts(once)
    for other in (images(source, TRAIN), images(source, TRAIN, seed=2, first_epoch=1)):
        others, others_flipped = cuts(other)
        assert (abs(others - made).max(axis=0) > 1).mean() > 0.9
        assert 0.3 < (others_flipped == flipped).mean() < 0.7


def test_validation_sees_the_middle_the_right_way_round(source: Any) -> None:
    seen = images(source, VALIDATION)
    np.testing.assert_array_equal(seen, np.broadcast_to(seen[:1], seen.shape))
    ((left,), (top,), (width,), (height,)), (flipped,) = cuts(seen[:1])
    assert not flipped
    side = HEIGHT * 7 / 8
    expected = [(WIDTH - side) / 2, (HEIGHT - side) / 2, side, side]
    assert [left, top, width, height] == pytest.approx(expected, abs=1)
    np.testing.assert_array_equal(images(source, VALIDATION, seed=2, first_epoch=3), seen)

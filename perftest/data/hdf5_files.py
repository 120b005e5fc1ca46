"""What an HDF5 file of images holds, examined before anything is made of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from perftest.data.errors import DataError, at

DATA, LABEL, NORMWEIGHT, WEIGHT, CUT = "data", "label", "normweight", "weight", "psr"
_REQUIRED = (DATA, LABEL, NORMWEIGHT, WEIGHT)


@dataclass(frozen=True)
class ImageFile:
    """One file. offset: of its images in the file, in bytes; None where they lie in pieces.

    chunk: how many images make up such a piece (1 where there are none).
    columns: the fields of Batch but `images` and `valid`, a value for each sample.
    """

    path: Path
    samples: int
    offset: int | None
    chunk: int
    columns: dict[str, np.ndarray]
    has_cut: bool

    def first(self, count: int) -> ImageFile:
        """The same with its first samples alone."""
        columns = {name: values[:count] for name, values in self.columns.items()}
        return replace(self, samples=count, columns=columns)


def examine(
    path: Path, image_shape: tuple[int, int, int], classes: int, normweight: bool
) -> ImageFile:
    """Look at all but the images. `normweight`: samples train with that weight, and not with 1.

    Raises DataError that names file and dataset.
    """
    try:
        with h5py.File(path, "r") as file:
            return _examined(path, file, image_shape, classes, normweight)
    # h5py says the first of anything that is no HDF5 file, or cut off; the others of damaged ones.
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise DataError(f"{path}: not a whole HDF5 file: {error}", "making it again") from error


def _examined(
    path: Path,
    file: Any,
    image_shape: tuple[int, int, int],
    classes: int,
    normweight: bool,
) -> ImageFile:
    found = {name: _dataset(path, file, name) for name in _REQUIRED}
    data = found[DATA]
    samples = _check_images(path, data, image_shape)
    labels = _labels(path, found[LABEL], samples, classes)
    ones = np.ones(samples, np.float32)
    weight, norm = (_weights(path, found[name], samples) for name in (WEIGHT, NORMWEIGHT))
    has_cut = CUT in file
    cut = np.zeros(samples, np.float32)
    if has_cut:
        cut = _cut(path, _dataset(path, file, CUT), samples)
    columns = {
        "labels": labels,
        "train_weights": norm if normweight else ones,
        "weights": weight,
        "cut": cut,
    }
    chunk = data.chunks[0] if data.chunks else 1
    return ImageFile(path, samples, _offset(path, data), chunk, columns, has_cut)


def _dataset(path: Path, file: Any, name: str) -> Any:
    """A dataset with values. Raises DataError for anything else of that name."""
    names = sorted(map(str, file))  # one that is no UTF-8 comes as bytes
    if name not in names:
        held = ", ".join(names) or "nothing"
        raise DataError(f"{at(path, name)}: no such dataset; the file has {held}")
    try:
        found = file.get(name)
    except RuntimeError:  # links that lead round in a circle
        found = None
    if not isinstance(found, h5py.Dataset):
        raise DataError(
            f"{at(path, name)}: no dataset, but a group, or a link that leads nowhere, or damaged"
        )
    if found.shape is None:  # h5py.Empty
        raise DataError(f"{at(path, name)}: a dataset without values")
    return found


def _check_images(path: Path, data: Any, image_shape: tuple[int, int, int]) -> int:
    """The number of samples."""
    height, width, channels = image_shape
    if data.ndim != 4 or data.shape[1:] != (channels, height, width):
        found = " × ".join(map(str, data.shape)) or "a single value"
        raise DataError(
            f"{at(path, DATA)}: {found}, but the model takes N × {channels} × {height} × {width}",
            "a model of the size of the images, or images of the model's",
        )
    if data.dtype != np.float32:
        raise DataError(f"{at(path, DATA)}: {data.dtype} numbers, not float32")
    if not len(data):
        raise DataError(f"{at(path, DATA)}: no samples")
    return len(data)


def _labels(path: Path, dataset: Any, samples: int, classes: int) -> np.ndarray:
    values = _column(path, dataset, samples)
    with np.errstate(invalid="ignore"):  # what is no whole number is refused below
        labels: np.ndarray = values.astype(np.int64)
    wrong = np.flatnonzero((labels != values) | (labels < 0) | (labels >= classes))
    if len(wrong):
        raise DataError(
            f"{at(path, LABEL)}: sample {wrong[0]} has the label {values[wrong[0]]}, "
            f"and the model knows 0 to {classes - 1}",
            "a model of more classes, or mending the labels",
        )
    return labels


def _weights(path: Path, dataset: Any, samples: int) -> np.ndarray:
    """Below 0, a rate or the area under its curve would no longer lie between 0 and 1."""
    stored = _column(path, dataset, samples)
    with np.errstate(over="ignore"):  # what float32 cannot hold is refused below
        values: np.ndarray = stored.astype(np.float32)
    wrong = ~np.isfinite(values) | (values < 0)
    _refuse(path, dataset, stored, wrong, "no weight: a number from 0")
    return values


def _cut(path: Path, dataset: Any, samples: int) -> np.ndarray:
    """A selection that says -1 for "no", for one, would seem to take every sample."""
    stored = _column(path, dataset, samples)
    _refuse(path, dataset, stored, (stored != 0) & (stored != 1), "neither 1 (selected) nor 0")
    values: np.ndarray = stored.astype(np.float32)
    return values


def _refuse(path: Path, dataset: Any, stored: np.ndarray, wrong: np.ndarray, why: str) -> None:
    """Raises DataError for the first sample that is wrong."""
    if wrong.any():
        number = int(np.argmax(wrong))
        name = dataset.name.strip("/")
        raise DataError(f"{at(path, name)}: sample {number} has {stored[number]}, {why}")


def _column(path: Path, dataset: Any, samples: int) -> np.ndarray:
    """A number for each sample."""
    name = dataset.name.strip("/")
    if dataset.shape != (samples,):
        found = " × ".join(map(str, dataset.shape)) or "a single value"
        raise DataError(f"{at(path, name)}: {found} values for {samples} samples")
    if dataset.dtype.kind not in "biuf":
        raise DataError(f"{at(path, name)}: {dataset.dtype} values, not numbers")
    values: np.ndarray = dataset[()]
    return values


def _offset(path: Path, data: Any) -> int | None:
    """Where the images begin, if they lie in the file in one piece and as this machine has them."""
    offset: int | None = data.id.get_offset()
    if offset is None or data.external or data.is_virtual or data.dtype.byteorder == ">":
        return None
    if not os.path.samefile(data.file.filename, path):  # a link to a dataset of another file
        return None
    if offset + data.size * data.dtype.itemsize > os.path.getsize(path):
        raise DataError(f"{at(path, DATA)}: the file is cut off", "making it again")
    return offset

"""Small files of the real formats, whose samples say which one they are."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np


def write_hdf5(
    path: Path, samples: int, first: int = 0, size: int = 8, classes: int = 5, **layout: Any
) -> None:
    """Sample n: channel c is n + c/4 everywhere, label n mod classes, weights by n, psr n mod 2."""
    numbers = np.arange(first, first + samples)
    images = numbers[:, None, None, None] + np.array([0, 0.25, 0.5])[None, :, None, None]
    shape = (samples, 3, size, size)
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=np.broadcast_to(images, shape).astype("f4"), **layout)
        file["label"] = numbers % classes
        file["weight"] = (numbers + 1).astype("f4")
        file["normweight"] = (numbers + 0.5).astype("f4")
        file["psr"] = (numbers % 2).astype("f4")


def write_mnist(folder: Path, train: int = 120, test: int = 12) -> None:
    """The four files, gzipped; sample n has its number in its first two pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", train), ("t10k", test)):
        images = np.zeros((count, 28, 28), np.uint8)
        images[:, 0, 0], images[:, 0, 1] = np.arange(count) % 256, np.arange(count) // 256
        for name, values in (
            ("images-idx3-ubyte", images),
            ("labels-idx1-ubyte", (np.arange(count) % 10).astype(np.uint8)),
        ):
            header = bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
            (folder / f"{part}-{name}.gz").write_bytes(gzip.compress(header + values.tobytes()))


def write_tfrecords(
    path: Path,
    samples: int,
    label: int | None = None,
    picture: np.ndarray | None = None,
    change: Callable[[int, bytes], bytes] = lambda number, encoded: encoded,
) -> None:
    """The same picture again and again, or JPEGs of 20 × 16 pixels, each of one grey; labels 1 to
    5, or one. `change` makes of a number and its JPEG what is written.
    """
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for number in range(samples):
            pixels = picture
            if pixels is None:
                pixels = np.full((20, 16, 3), number * 5 + len(path.name) % 5, np.uint8)
            value = number % 5 + 1 if label is None else label
            encoded = change(number, tf.io.encode_jpeg(pixels, quality=100).numpy())
            features = {
                "image/encoded": _bytes(encoded),
                "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[value])),
            }
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())


def _bytes(value: bytes) -> Any:
    import tensorflow as tf

    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

"""What a record of ImageNet's usual examples holds: a JPEG, and its class.

TensorFlow's own operation that parses examples ends the process at some that are none; protobuf
says so.
"""

from __future__ import annotations

from pathlib import Path

from perftest.data.errors import DataError, at

ENCODED, LABEL = "image/encoded", "image/class/label"
_JPEG = b"\xff\xd8\xff"


def picture(record: bytes, path: Path, number: int, classes: int) -> tuple[bytes, int]:
    """The JPEG, and the class from 0. Raises DataError for a record that is no picture of one."""
    import tensorflow as tf

    where = f"record {number}"
    try:
        features = tf.train.Example.FromString(record).features.feature
    except Exception as error:  # protobuf's own, for which TensorFlow has no name
        raise DataError(f"{path}: {where} is no example with {ENCODED} and {LABEL}") from error
    pictures, labels = features[ENCODED].bytes_list.value, features[LABEL].int64_list.value
    if len(pictures) != 1 or not pictures[0].startswith(_JPEG):
        raise DataError(f"{at(path, ENCODED)}: {where} has no JPEG")
    if len(labels) != 1:
        raise DataError(f"{at(path, LABEL)}: {where} has no label, a whole number")
    if not 1 <= labels[0] <= classes:
        raise DataError(
            f"{at(path, LABEL)}: {where} has the label {labels[0]}, and the model knows 1 to "
            f"{classes}"
        )
    return pictures[0], labels[0] - 1

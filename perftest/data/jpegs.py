"""From examples with a JPEG to images of the model's size: TensorFlow's operations.

For training, a random part of the picture is cut out (as large as a twelfth of it or all of it, not
much longer than wide or the other way) and half of them are flipped, whatever the part; for
evaluation, seven eighths in the middle. Pixels become float32 from 0 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from perftest.data import Batch, pipeline
from perftest.data.errors import DataError, at

_MIDDLE = 0.875
ENCODED, LABEL = "image/encoded", "image/class/label"


@dataclass(frozen=True)
class Decoder:
    """What becomes of the records of some files. training: whether by chance, as `seed` has it."""

    image_shape: tuple[int, int, int]
    classes: int
    files: tuple[Path, ...]
    seed: int
    training: bool

    @cached_property
    def _features(self) -> dict[str, Any]:
        import tensorflow as tf

        return {
            ENCODED: tf.io.FixedLenFeature((), tf.string, ""),
            LABEL: tf.io.FixedLenFeature((), tf.int64, -1),
        }

    def batch(self, records: Any, names: Any, valid: Any) -> Batch:
        """All images of a batch, side by side.

        records: strings (batch,).  names: int64 (batch, 3), file, number in it and epoch.
        valid: float32 (batch,), 0 for padding.

        Where TensorFlow's operations fail, they do not say at which record: then it is found out by
        going through the batch singly.
        """
        import tensorflow as tf

        given = tf.data.Dataset.from_tensors((records, names, valid))
        decoded = pipeline.mapped(given, self._batch).ignore_errors()
        otherwise = pipeline.mapped(given, self._singly)
        return decoded.concatenate(otherwise).take(1).get_single_element()

    def _batch(self, records: Any, names: Any, valid: Any) -> Batch:
        import tensorflow as tf

        images, labels = tf.map_fn(
            self._sample,
            (records, names, valid),
            fn_output_signature=(
                tf.TensorSpec(self.image_shape, tf.float32),
                tf.TensorSpec((), tf.int64),
            ),
            parallel_iterations=16,
        )
        return Batch(images, labels, valid, valid, valid, tf.zeros_like(valid))

    def _sample(self, given: tuple[Any, Any, Any]) -> tuple[Any, Any]:
        import tensorflow as tf

        record, name, valid = given
        return tf.cond(
            valid > 0,
            lambda: self._decoded(record, name),
            lambda: (tf.zeros(self.image_shape), tf.zeros((), tf.int64)),
        )

    def _decoded(self, record: Any, name: Any) -> tuple[Any, Any]:
        import tensorflow as tf

        encoded, label = self._parsed(record)
        known = tf.debugging.Assert((label >= 0) & (label < self.classes), [label])
        with tf.control_dependencies([known]):
            return self._image(encoded, name), tf.identity(label)

    def _parsed(self, record: Any) -> tuple[Any, Any]:
        """The JPEG, and the class from 0."""
        import tensorflow as tf

        example = tf.io.parse_single_example(record, self._features)
        return example[ENCODED], example[LABEL] - 1

    def _image(self, encoded: Any, name: Any) -> Any:
        import tensorflow as tf

        # The same sample is cut in the same way after a restart, and in another one next epoch.
        seed = tf.stack([self.seed + (name[2] * (1 << 32)), name[1] + (name[0] * (1 << 40))])
        image = self._cropped(encoded, seed)
        image = tf.image.resize(image, self.image_shape[:2])
        if self.training:
            # Of the same seed, the cut's shape would say whether it is flipped.
            own_seed = tf.random.experimental.stateless_fold_in(seed, 1)
            image = tf.image.stateless_random_flip_left_right(image, own_seed)
        return tf.ensure_shape(image / 255, self.image_shape)

    def _singly(self, records: Any, names: Any, valid: Any) -> Batch:
        """The same one after the other, in Python."""
        import tensorflow as tf

        types = [tf.float32, tf.int64]
        images, labels = tf.numpy_function(self._all, [records, names, valid], types)
        images = tf.ensure_shape(images, (*records.shape, *self.image_shape))
        labels = tf.ensure_shape(labels, records.shape)
        return Batch(images, labels, valid, valid, valid, tf.zeros_like(valid))

    def _all(
        self, records: np.ndarray, names: np.ndarray, valid: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels. Raises DataError for the first record that is no picture of a class.

        With no such record, what failed before was something else, and may not fail again.
        """
        import tensorflow as tf

        images = np.zeros((len(records), *self.image_shape), np.float32)
        labels = np.zeros(len(records), np.int64)
        with tf.device("/device:CPU:0"):
            for number in np.flatnonzero(valid):
                images[number], labels[number] = self._one(records[number], names[number])
        return images, labels

    def _one(self, record: bytes, name: np.ndarray) -> tuple[np.ndarray, int]:
        import tensorflow as tf

        path, where = self.files[name[0]], f"record {name[1]}"
        try:
            encoded, label = (value.numpy() for value in self._parsed(record))
        except tf.errors.InvalidArgumentError as error:
            raise DataError(f"{path}: {where} is no example with {ENCODED} and {LABEL}") from error
        if not encoded.startswith(b"\xff\xd8\xff"):
            raise DataError(f"{at(path, ENCODED)}: {where} has no JPEG")
        if not 0 <= label < self.classes:
            raise DataError(
                f"{at(path, LABEL)}: {where} has the label {label + 1}, and the model knows 1 to "
                f"{self.classes}"
            )
        try:
            return self._image(encoded, name).numpy(), int(label)
        except tf.errors.InvalidArgumentError as error:
            raise DataError(
                f"{at(path, ENCODED)}: {where} has a JPEG that cannot be decoded"
            ) from error

    def _cropped(self, encoded: Any, seed: Any) -> Any:
        """The part of the JPEG that is used, decoded alone."""
        import tensorflow as tf

        shape = tf.image.extract_jpeg_shape(encoded)
        if self.training:
            whole = tf.constant([0.0, 0.0, 1.0, 1.0], shape=[1, 1, 4])
            begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
                shape,
                whole,
                seed,
                min_object_covered=0.0,
                aspect_ratio_range=(3 / 4, 4 / 3),
                area_range=(1 / 12, 1.0),
                use_image_if_no_bounding_boxes=True,
            )
            window = tf.concat([begin[:2], size[:2]], axis=0)
        else:
            side = tf.cast(tf.reduce_min(shape[:2]), tf.float32) * _MIDDLE
            side = tf.maximum(tf.cast(side, tf.int32), 1)
            window = tf.stack([(shape[0] - side) // 2, (shape[1] - side) // 2, side, side])
        channels = self.image_shape[2]
        return tf.image.decode_and_crop_jpeg(encoded, window, channels=channels)

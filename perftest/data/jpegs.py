"""From JPEGs to images of the model's size: TensorFlow's operations.

For training, a random part of the picture is cut out (as large as a twelfth of it or all of it, not
much longer than wide or the other way) and half of them are flipped, whatever the part; for
evaluation, seven eighths in the middle. Pixels become float32 from 0 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perftest.data import Batch, pipeline
from perftest.data.errors import DataError, at
from perftest.data.examples import ENCODED

_MIDDLE = 0.875


@dataclass(frozen=True)
class Decoder:
    """What becomes of the JPEGs of some files. training: whether by chance, as `seed` has it."""

    image_shape: tuple[int, int, int]
    files: tuple[Path, ...]
    seed: int
    training: bool

    def batch(self, encoded: Any, labels: Any, names: Any, valid: Any) -> Batch:
        """All images of a batch, side by side.

        encoded: strings (batch,).  labels: int64 (batch,).  names: int64 (batch, 3), file, number
        in it and epoch.  valid: float32 (batch,), 0 for padding.

        Where TensorFlow's operations fail, they do not say at which record: then it is found out by
        going through the batch singly.
        """
        import tensorflow as tf

        given = tf.data.Dataset.from_tensors((encoded, names, valid))
        decoded = pipeline.mapped(given, self._images).ignore_errors()
        otherwise = pipeline.mapped(given, self._singly)
        images = decoded.concatenate(otherwise).take(1).get_single_element()
        return Batch(images, labels, valid, valid, valid, tf.zeros_like(valid))

    def _images(self, encoded: Any, names: Any, valid: Any) -> Any:
        import tensorflow as tf

        return tf.map_fn(
            self._sample,
            (encoded, names, valid),
            fn_output_signature=tf.TensorSpec(self.image_shape, tf.float32),
            parallel_iterations=16,
        )

    def _sample(self, given: tuple[Any, Any, Any]) -> Any:
        import tensorflow as tf

        encoded, name, valid = given
        return tf.cond(
            valid > 0, lambda: self._image(encoded, name), lambda: tf.zeros(self.image_shape)
        )

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

    def _singly(self, encoded: Any, names: Any, valid: Any) -> Any:
        """The same one after the other, in Python."""
        import tensorflow as tf

        images = tf.numpy_function(self._all, [encoded, names, valid], tf.float32)
        return tf.ensure_shape(images, (*encoded.shape, *self.image_shape))

    def _all(self, encoded: np.ndarray, names: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """All images. Raises DataError for the first that cannot be decoded.

        With none, what failed before was something else, and may not fail again.
        """
        import tensorflow as tf

        images = np.zeros((len(encoded), *self.image_shape), np.float32)
        for number in np.flatnonzero(valid):
            name = names[number]
            try:
                with tf.device("/device:CPU:0"):
                    images[number] = self._image(encoded[number], name).numpy()
            except tf.errors.InvalidArgumentError as error:
                raise DataError(
                    f"{at(self.files[name[0]], ENCODED)}: record {name[1]} has a JPEG that cannot "
                    "be decoded"
                ) from error
        return images

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

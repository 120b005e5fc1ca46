"""Networks as tf_cnn_benchmarks has them where ours differ.

peers.py puts this into a copy of the program as `models/peer_networks.py`; limits.py, which runs in
one process with ours, calls `make_known`.

Its AlexNet takes 227 × 227 images, begins with a VALID convolution, does not normalise, and has 384
channels in its fourth convolution (the paper's layers in one tower, as
`models/alexnet_model.py` there).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import models
from models import ModelSpec

if TYPE_CHECKING:
    import keras


def build(image_shape: tuple[int, int, int], num_classes: int) -> keras.Model:
    """(N, 227, 227, 3) to (N, num_classes)."""
    import keras
    from keras import layers

    from models.products import FullyConnected

    x = inputs = keras.Input(image_shape)
    x = layers.Conv2D(64, 11, 4, activation="relu")(x)
    x = layers.MaxPooling2D(3, 2)(x)
    x = layers.Conv2D(192, 5, padding="same", activation="relu")(x)
    x = layers.MaxPooling2D(3, 2)(x)
    for filters in (384, 384, 256):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
    x = layers.MaxPooling2D(3, 2)(x)
    x = layers.Flatten()(x)
    for _ in range(2):
        x = FullyConnected(4096, activation="relu")(x)
        x = layers.Dropout(0.5)(x)
    return keras.Model(inputs, FullyConnected(num_classes)(x), name="alexnet_tf_cnn")


MODELS = (ModelSpec("alexnet_tf_cnn", build, (227, 227, 3), 1000),)


def make_known() -> None:
    """Let this process's `models` find them beside its own."""
    own = models._specs
    models._specs = lambda: {**own(), **{spec.name: spec for spec in MODELS}}

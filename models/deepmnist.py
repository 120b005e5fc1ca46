"""The network of TensorFlow's tutorial "Deep MNIST for Experts".

(N, 28, 28, 1) to (N, 10): two convolutions of 5×5 with 32 and 64 filters, each with 2×2 max
pooling, a fully connected layer of 1024 with dropout of one half, and the classifier. 3,274,634
parameters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from models import ModelSpec

if TYPE_CHECKING:
    import keras


def build(image_shape: tuple[int, int, int], num_classes: int, dropout: float) -> keras.Model:
    """The network; `dropout` is the share of units left out."""
    import keras
    from keras import layers

    from models.layers import float32_logits
    from models.products import FullyConnected

    inputs = keras.Input(image_shape)
    x = inputs
    for number, filters in enumerate((32, 64), start=1):
        x = layers.Conv2D(filters, 5, padding="same", activation="relu", name=f"conv{number}")(x)
        x = layers.MaxPooling2D(2, padding="same", name=f"pool{number}")(x)
    x = layers.Flatten()(x)
    x = FullyConnected(1024, activation="relu", name="fc1")(x)
    x = layers.Dropout(dropout, name="dropout")(x)
    outputs = float32_logits(FullyConnected(num_classes, name="fc2")(x))
    return keras.Model(inputs, outputs, name="deepmnist")


MODELS = (ModelSpec("deepmnist", build, (28, 28, 1), 10, {"dropout": 0.5}),)

"""AlexNet, the one-tower variant that TensorFlow's old benchmark measured, with its classifier.

(N, 224, 224, 3) to (N, 1000): 61,100,840 parameters. The convolutions, the padding (SAME for
convolutions, VALID for pooling: 224 -> 56 -> 27 -> 13 -> 6 pixels) and the local response
normalisation are those of `tutorials/image/alexnet/alexnet_benchmark.py` in the tensorflow/models
repository. That program stopped after the last pooling; the three fully connected layers, and
dropout of one half on the first two, are those of the paper. Weights start as Glorot's, not with
the benchmark's standard deviation of 0.1: this has no bearing on speed, and behind the classifier
such weights would make the first loss enormous.
Sources: Krizhevsky, Sutskever and Hinton 2012; for one tower, Krizhevsky 2014, arXiv:1404.5997.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from models import ModelSpec

if TYPE_CHECKING:
    import keras


def build(image_shape: tuple[int, int, int], num_classes: int, dropout: float) -> keras.Model:
    """The network, for images of at least 57×57; `dropout` is the share of units left out."""
    import keras
    from keras import layers

    from models.layers import LocalResponseNormalization, float32_logits
    from models.products import FullyConnected

    inputs = keras.Input(image_shape)
    x = layers.Conv2D(64, 11, 4, padding="same", activation="relu", name="conv1")(inputs)
    x = LocalResponseNormalization(5, bias=2.0, alpha=1e-4, beta=0.75, name="lrn1")(x)
    x = layers.MaxPooling2D(3, 2, name="pool1")(x)
    x = layers.Conv2D(192, 5, padding="same", activation="relu", name="conv2")(x)
    x = LocalResponseNormalization(5, bias=2.0, alpha=1e-4, beta=0.75, name="lrn2")(x)
    x = layers.MaxPooling2D(3, 2, name="pool2")(x)
    x = layers.Conv2D(384, 3, padding="same", activation="relu", name="conv3")(x)
    x = layers.Conv2D(256, 3, padding="same", activation="relu", name="conv4")(x)
    x = layers.Conv2D(256, 3, padding="same", activation="relu", name="conv5")(x)
    x = layers.MaxPooling2D(3, 2, name="pool5")(x)
    x = layers.Flatten()(x)
    for name in ("fc6", "fc7"):
        x = FullyConnected(4096, activation="relu", name=name)(x)
        x = layers.Dropout(dropout, name=f"dropout_{name}")(x)
    outputs = float32_logits(FullyConnected(num_classes, name="fc8")(x))
    return keras.Model(inputs, outputs, name="alexnet")


MODELS = (ModelSpec("alexnet", build, (224, 224, 3), 1000, {"dropout": 0.5}),)

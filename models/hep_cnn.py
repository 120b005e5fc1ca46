"""HEP-CNN: tells signal from background in images of a particle detector.

A unit is a 3×3 convolution, ReLU, 2×2 max pooling and dropout.
- `hep_cnn_224`, (N, 224, 224, 3) to (N, 2): four units, a fifth convolution with global average
  pooling, and the classifier. 594,178 parameters, 2.3 MiB.
- `hep_cnn_64`, (N, 64, 64, 3) to (N, 2): three units, a fully connected layer of 512, and the
  classifier.
Source: Kurth et al. 2017, "Deep Learning at 15PF", arXiv:1708.05256.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from models import ModelSpec

if TYPE_CHECKING:
    import keras


def build(
    image_shape: tuple[int, int, int],
    num_classes: int,
    num_layers: int,
    fc_units: int,
    filters: int = 128,
    dropout: float = 0.5,
    batch_norm: bool = False,
    kernel_size: int = 3,
    padding: str = "same",
    initializer: str = "glorot_uniform",
) -> keras.Model:
    """The network of `num_layers` units.

    `fc_units` 0 ends in one more convolution and global average pooling, any other number in a
    fully connected layer of so many units. `batch_norm` puts a batch normalisation between each
    convolution and its ReLU. `padding` is "same" or "valid"; `initializer` is Keras' name of what
    the kernels begin with ("he_normal": He et al. 2015, arXiv:1502.01852).
    """
    import keras
    from keras import layers

    from models.layers import float32_logits
    from models.products import FullyConnected

    unit = _Unit(filters, kernel_size, padding, initializer, batch_norm)
    inputs = keras.Input(image_shape)
    x = inputs
    for number in range(1, num_layers + 1):
        x = unit.convolution(x, f"conv{number}")
        x = layers.MaxPooling2D(2, name=f"pool{number}")(x)
        x = layers.Dropout(dropout, name=f"dropout{number}")(x)
    if fc_units:
        x = layers.Flatten()(x)
        connected = FullyConnected(
            fc_units, activation="relu", kernel_initializer=initializer, name="fc1"
        )
        x = connected(x)
        x = layers.Dropout(dropout, name="dropout_fc1")(x)
    else:
        x = unit.convolution(x, f"conv{num_layers + 1}")
        x = layers.GlobalAveragePooling2D(name="global_pool")(x)
    outputs = float32_logits(FullyConnected(num_classes, name="classifier")(x))
    return keras.Model(inputs, outputs, name="hep_cnn")


@dataclass(frozen=True)
class _Unit:
    """What all convolutions of one network have in common."""

    filters: int
    kernel_size: int
    padding: str
    initializer: str
    batch_norm: bool

    def convolution(self, x: Any, name: str) -> Any:
        """Convolution and ReLU, with a batch normalisation in between if wanted."""
        from keras import layers

        from models.layers import FusedBatchNormalization

        x = layers.Conv2D(
            self.filters,
            self.kernel_size,
            padding=self.padding,
            use_bias=not self.batch_norm,
            kernel_initializer=self.initializer,
            name=name,
        )(x)
        if self.batch_norm:
            x = FusedBatchNormalization(name=f"{name}_bn")(x)
        return layers.ReLU(name=f"{name}_relu")(x)


MODELS = (
    ModelSpec("hep_cnn_224", build, (224, 224, 3), 2, {"num_layers": 4, "fc_units": 0}),
    ModelSpec("hep_cnn_64", build, (64, 64, 3), 2, {"num_layers": 3, "fc_units": 512}),
)

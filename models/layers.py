"""The layers that the networks share: fused batch normalisation and local response normalisation.

Keras 3 spells batch normalisation out as a dozen operations. `fuse_batch_normalization` puts
TensorFlow's one fused kernel in their place, with which ResNet-50 trains 1.4 times as fast on a
processor.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from models.products import FullyConnected, PointwiseConv2D, is_pointwise

# The fused kernel silently raises any smaller epsilon to this, which is what cuDNN needs.
SMALLEST_FUSED_EPSILON = 1.001e-5

_BIASED = (
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
)


@contextmanager
def channels_last() -> Iterator[None]:
    """Layers made inside are channels-last, whatever the user's Keras configuration says."""
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_last")
    try:
        yield
    finally:
        keras.config.set_image_data_format(before)


def float32_logits(outputs: Any) -> Any:
    """Casts a network's last tensor to float32, so that the loss is exact under mixed precision."""
    return keras.layers.Activation("linear", dtype="float32", name="float32_logits")(outputs)


@keras.saving.register_keras_serializable(package="models")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation over the last axis of (N, H, W, C) in TensorFlow's one fused kernel.

    Parameters, configuration and inference are those of `keras.layers.BatchNormalization`. In
    training one thing differs, as it did in Keras 2: the variance that enters `moving_variance` has
    Bessel's correction, n / (n - 1) with n = N·H·W, while the batch itself is normalised by the
    uncorrected one. Scale, offset and statistics are float32 under every dtype policy, and the
    images are not converted. Without `scale` (or `center`) a constant takes gamma's (beta's) place:
    there is no parameter.
    Source: Ioffe and Szegedy 2015, arXiv:1502.03167.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if not _is_fusable(self, len(input_shape)):
            raise ValueError(
                f"{self.name}: the fused kernel takes (N, H, W, C), the last axis, an epsilon of "
                f"at least {SMALLEST_FUSED_EPSILON}, and neither renorm nor synchronized"
            )
        super().build(input_shape)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if mask is not None:
            raise ValueError(f"{self.name}: the fused kernel takes no mask")
        update = bool(training) and self.trainable
        # Read as tensors here, so that stateless_call can put others in the variables' place.
        mean = tf.convert_to_tensor(self.moving_mean)
        variance = tf.convert_to_tensor(self.moving_variance)
        scale = tf.convert_to_tensor(self.gamma) if self.scale else tf.ones_like(mean)
        offset = tf.convert_to_tensor(self.beta) if self.center else tf.zeros_like(mean)
        outputs, new_mean, new_variance = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            scale,
            offset,
            mean,
            variance,
            epsilon=self.epsilon,
            is_training=update,
            exponential_avg_factor=1.0 - self.momentum if update else 1.0,
        )
        if update:
            # The running statistics are state, not part of the loss: they pass no gradient on.
            self.moving_mean.assign(tf.stop_gradient(new_mean))
            self.moving_variance.assign(tf.stop_gradient(new_variance))
        return outputs


@keras.saving.register_keras_serializable(package="models")
class LocalResponseNormalization(keras.layers.Layer):
    """x / (bias + alpha · Σ x²)^beta, the sum running over `depth_radius` channels to either side.

    (N, H, W, C) to the same; computed in float32 whatever the dtype policy. The result is
    `tf.nn.local_response_normalization`'s. The sum is a product with a band matrix here, because
    that operation has no bfloat16 kernel and is less than half as fast on a processor.
    Source: Krizhevsky, Sutskever and Hinton 2012, section 3.3.
    """

    def __init__(
        self, depth_radius: int, bias: float, alpha: float, beta: float, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.depth_radius = depth_radius
        self.bias = bias
        self.alpha = alpha
        self.beta = beta

    def call(self, inputs: Any) -> Any:
        index = np.arange(inputs.shape[-1])
        near = np.abs(index[:, None] - index[None, :]) <= self.depth_radius
        x = tf.cast(inputs, tf.float32)
        squares = tf.reshape(x * x, [-1, len(index)])
        sums = tf.reshape(tf.matmul(squares, near.astype(np.float32)), tf.shape(x))
        return tf.cast(x * self._power(self.bias + self.alpha * sums), inputs.dtype)

    def _power(self, values: Any) -> Any:
        """values^-beta. Two roots, for the paper's 3/4, are a fraction of a power's work."""
        if self.beta == 0.75:
            return tf.math.rsqrt(values * tf.sqrt(values))
        return tf.pow(values, -self.beta)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        own = ("depth_radius", "bias", "alpha", "beta")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


def fuse_batch_normalization(model: keras.Model) -> keras.Model:
    """A new functional model like `model`, with fresh weights and every 4-D normalisation fused.

    A convolution that feeds one fused normalisation and nothing else loses its bias: the mean that
    is subtracted next takes it out again, so it costs time and never learns. What the kernel cannot
    do (another axis, a smaller epsilon, renorm, synchronized) stays as it was. A `Normalization` of
    the input keeps tensors of the graph that it was built in, and so cannot be called in another:
    it becomes the multiplication that it stands for. Fully connected layers and convolutions of
    1×1 get other gradients (products.py). The logits are cast to float32.
    """
    fused = {
        layer.name
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
        and _is_fusable(layer, len(layer.input.shape))
    }
    consumers = _consumers(model)

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if layer.name in fused:
            return FusedBatchNormalization.from_config(config)
        if isinstance(layer, keras.layers.Normalization):
            return _rescaling(layer)
        if isinstance(layer, _BIASED) and config["activation"] == "linear":
            after = consumers.get(layer.name, [])
            if len(after) == 1 and after[0] in fused:
                config["use_bias"] = False
        if type(layer) is keras.layers.Conv2D and is_pointwise(layer):
            return PointwiseConv2D.from_config(config)
        if type(layer) is keras.layers.Dense:
            return FullyConnected.from_config(config)
        return layer.__class__.from_config(config)

    copy = keras.models.clone_model(model, clone_function=clone)
    return keras.Model(copy.inputs, float32_logits(copy.outputs[0]), name=model.name)


def _rescaling(layer: keras.layers.Normalization) -> keras.layers.Layer:
    """What a `Normalization` over the last axis computes; never adapted, it changes nothing."""
    if layer.input_mean is None:
        return keras.layers.Identity(name=layer.name)
    mean = np.asarray(layer.input_mean, np.float64)
    deviation = np.maximum(np.sqrt(layer.input_variance), keras.config.epsilon())
    scale, offset = (1.0 / deviation).tolist(), (-mean / deviation).tolist()
    return keras.layers.Rescaling(scale, offset, dtype=layer.dtype_policy, name=layer.name)


def _is_fusable(layer: keras.layers.BatchNormalization, ndim: int) -> bool:
    return (
        ndim == 4
        and layer.axis in (-1, 3)
        and layer.epsilon >= SMALLEST_FUSED_EPSILON
        and not getattr(layer, "renorm", False)  # Keras 3.12 does not know it
        and not layer.synchronized
    )


def _consumers(model: keras.Model) -> dict[str, list[str]]:
    """Layer name -> the names of the layers that read it; "" stands for the model's own output."""
    config = model.get_config()
    consumers: dict[str, list[str]] = {}
    for layer in config["layers"]:
        for source in _sources(layer["inbound_nodes"]):
            consumers.setdefault(source, []).append(layer["config"]["name"])
    for operation in (tensor._keras_history.operation for tensor in model.outputs):
        consumers.setdefault(operation.name, []).append("")
    return consumers


def _sources(node: Any) -> Iterator[str]:
    """The layers named in the `inbound_nodes` of a serialised functional model."""
    if isinstance(node, dict):
        if node.get("class_name") == "__keras_tensor__":
            yield node["config"]["keras_history"][0]
            return
        node = list(node.values())
    if isinstance(node, list | tuple):
        for part in node:
            yield from _sources(part)

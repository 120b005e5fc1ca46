"""Layers that are products of matrices, with the gradients that take a processor least time.

A fully connected layer and a convolution of 1×1 are the same product, images · kernel, and so are
their gradients: gradient · kernelᵀ and imagesᵀ · gradient. TensorFlow has more than one kernel for
each and does not choose the fastest on processors (docs/decisions/0024-products.md):

- For gradient · kernelᵀ oneDNN's matrix product takes up to five times as long as its product of
  batches of matrices, which is asked for one batch here; but of 1 to 3 rows it takes half as long.
- imagesᵀ · gradient over all pixels takes less time as a product than as the gradient of a
  convolution's kernel.

Outputs and parameters are those of Keras' own layers; gradients differ in the order of rounding.
Where TensorFlow sees a GPU these are Keras' layers throughout: cuDNN and cuBLAS choose for
themselves.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

# From so many rows on, gradient · kernelᵀ is asked for as a batch of one product.
ROWS_OF_A_BATCH = 4


@keras.saving.register_keras_serializable(package="models")
class FullyConnected(keras.layers.Dense):
    """`keras.layers.Dense` whose gradients of (N, C) inputs go another way: above."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if len(inputs.shape) != 2 or tf.config.get_visible_devices("GPU"):
            return super().call(inputs, training=training)
        outputs = _product(tf.convert_to_tensor(inputs), _tensor(self.kernel))
        if self.bias is not None:
            outputs = tf.nn.bias_add(outputs, _tensor(self.bias))
        return outputs if self.activation is None else self.activation(outputs)


@keras.saving.register_keras_serializable(package="models")
class PointwiseConv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` of 1×1, whose gradients go another way: above.

    (N, H, W, C) to (N, H, W, filters), stride 1. Raises ValueError, when it is built, for a
    convolution that is no such product.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if not is_pointwise(self):
            raise ValueError(
                f"{self.name}: only a channels-last convolution of 1×1 with stride 1, no dilation "
                "and one group is a product of matrices"
            )
        super().build(input_shape)

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        if tf.config.get_visible_devices("GPU"):
            return super().convolution_op(inputs, kernel)
        return _convolved(tf.convert_to_tensor(inputs), _tensor(kernel))


def is_pointwise(layer: keras.layers.Conv2D) -> bool:
    """Whether a convolution is the same product of matrices at every pixel."""
    return (
        layer.data_format == "channels_last"
        and set(layer.kernel_size) == set(layer.strides) == set(layer.dilation_rate) == {1}
        and layer.groups == 1
    )


@tf.custom_gradient
def _product(rows: Any, kernel: Any) -> Any:
    """(N, C) and (C, units) to (N, units)."""
    scope = _backward_scope()

    def gradients(back: Any) -> tuple[Any, Any]:
        with tf.name_scope(scope):
            return _gradients(rows, kernel, back)

    return tf.matmul(rows, kernel), gradients


@tf.custom_gradient
def _convolved(images: Any, kernel: Any) -> Any:
    """(N, H, W, C) and (1, 1, C, filters) to (N, H, W, filters)."""
    scope = _backward_scope()

    def gradients(back: Any) -> tuple[Any, Any]:
        with tf.name_scope(scope):
            of_rows, of_kernel = _gradients(
                tf.reshape(images, (-1, kernel.shape[2])),
                tf.reshape(kernel, kernel.shape[2:]),
                tf.reshape(back, (-1, kernel.shape[3])),
            )
            return tf.reshape(of_rows, tf.shape(images)), tf.reshape(of_kernel, kernel.shape)

    return tf.nn.conv2d(images, kernel, 1, "VALID"), gradients


def _gradients(rows: Any, kernel: Any, back: Any) -> tuple[Any, Any]:
    """Of the rows and of the kernel. rows: (N, C); kernel: (C, units); back: (N, units)."""
    of_kernel = tf.matmul(rows, back, transpose_a=True)
    if back.shape[0] is not None and back.shape[0] < ROWS_OF_A_BATCH:
        return tf.matmul(back, kernel, transpose_b=True), of_kernel
    of_rows = tf.matmul(tf.expand_dims(back, 0), tf.expand_dims(kernel, 0), transpose_b=True)
    return tf.squeeze(of_rows, 0), of_kernel


def _tensor(variable: Any) -> Any:
    """A tensor of the layer's compute type, and no variable, which would be watched by itself."""
    return tf.convert_to_tensor(keras.ops.convert_to_tensor(variable))


def _backward_scope() -> str:
    """Where TensorFlow names the gradients of what is called now, for whoever reads a trace."""
    return f"gradient_tape/{tf.get_current_name_scope()}/"

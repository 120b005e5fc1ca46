"""Layers with other gradients on processors compute what Keras' own do."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_models_layers import outputs_and_gradients

import models
from models.layers import fuse_batch_normalization
from models.products import FullyConnected, PointwiseConv2D

pytestmark = pytest.mark.tensorflow

LAYERS = {
    "1×1": (keras.layers.Conv2D, PointwiseConv2D, {"filters": 6, "kernel_size": 1}, (3, 4, 5, 7)),
    "connected": (keras.layers.Dense, FullyConnected, {"units": 6}, (9, 7)),
    "of few rows": (keras.layers.Dense, FullyConnected, {"units": 6}, (2, 7)),
    "of rows of rows": (keras.layers.Dense, FullyConnected, {"units": 6}, (3, 4, 7)),
}
# What a rounding may be off by. Gradients may by 8 of it, of the largest of them, because sums of
# few bits round each time; a wrong one is off by all of it.
UNITS = {"float32": 1e-5, "mixed_bfloat16": 2.0**-7, "mixed_float16": 2.0**-10}


def pair(kind: str, **options: Any) -> tuple[Any, Any, Any]:
    """Keras' layer and ours with the same configuration and weights, and what they are given."""
    plain_class, own_class, sizes, shape = LAYERS[kind]
    plain = plain_class(**sizes, **options)
    own = own_class.from_config(plain.get_config())
    plain.build(shape)
    own.build(shape)
    rng = np.random.default_rng(1)
    weights = [rng.uniform(-1.0, 1.0, var.shape) for var in plain.weights]
    plain.set_weights(weights)
    own.set_weights(weights)
    return plain, own, tf.constant(rng.normal(size=shape), tf.float32)


@pytest.mark.parametrize(
    ("options", "policy", "compiled"),
    [
        ({}, "float32", None),
        ({"use_bias": False}, "float32", False),
        *(({"activation": "relu"}, policy, False) for policy in UNITS),
        ({"activation": "relu"}, "float32", True),
        ({"activation": "relu"}, "mixed_bfloat16", True),
    ],
    ids=["eager", "unbiased", *UNITS, "XLA", "XLA bfloat16"],
)
@pytest.mark.parametrize("kind", LAYERS)
def test_outputs_and_gradients_are_kerass(
    kind: str, options: dict[str, Any], policy: str, compiled: bool | None
) -> None:
    plain, own, images = pair(kind, dtype=policy, **options)
    run: Any = outputs_and_gradients
    if compiled is not None:
        run = tf.function(run, autograph=False, jit_compile=compiled)

    wanted, wanted_gradients = run(plain, images, True)
    outputs, gradients = run(own, images, True)

    unit = UNITS[policy]
    assert outputs.dtype == plain.compute_dtype
    as_float = tf.cast(wanted, tf.float32)
    np.testing.assert_allclose(tf.cast(outputs, tf.float32), as_float, rtol=unit, atol=unit)
    assert len(gradients) == len(wanted_gradients) == 1 + len(plain.weights)
    for gradient, like in zip(gradients, wanted_gradients, strict=True):
        assert gradient.dtype == like.dtype
        off = float(tf.reduce_max(tf.abs(gradient - like)))
        assert off <= 8 * unit * float(tf.reduce_max(tf.abs(like)))


def kinds_of_operations(layer: Any, images: Any) -> set[str]:
    run = tf.function(outputs_and_gradients, autograph=False)
    return {each.type for each in run.get_concrete_function(layer, images, True).graph.operations}


@pytest.mark.skipif(
    bool(tf.config.list_physical_devices("GPU")), reason="beside a GPU the layers are Keras' own"
)
def test_gradients_go_another_way_and_what_goes_forward_does_not() -> None:
    plain, own, images = pair("1×1")
    slow = {"Conv2DBackpropFilter", "Conv2DBackpropInput"}
    assert slow <= kinds_of_operations(plain, images)
    assert not slow & kinds_of_operations(own, images)
    assert {"Conv2D", "BatchMatMulV2", "MatMul"} <= kinds_of_operations(own, images)

    plain, own, images = pair("connected")
    assert "BatchMatMulV2" not in kinds_of_operations(plain, images)
    assert "BatchMatMulV2" in kinds_of_operations(own, images)

    _, own, images = pair("of few rows")
    assert "BatchMatMulV2" not in kinds_of_operations(own, images)


@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_of_gradients_are_kerass(kind: str) -> None:
    plain, own, images = pair(kind)
    found = []
    for layer in (plain, own):
        with tf.GradientTape() as outer:
            _, (of_images, *_) = outputs_and_gradients(layer, images, True)
            length = tf.reduce_sum(of_images**2)
        found.append(outer.gradient(length, layer.kernel.value))

    np.testing.assert_allclose(found[1], found[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", LAYERS)
def test_layer_comes_back_from_its_configuration(kind: str) -> None:
    _, own, _ = pair(kind, activation="relu")

    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(own))

    assert type(again) is type(own)
    assert again.get_config() == own.get_config()


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": (1, 3)},
        {"kernel_size": 1, "strides": 2},
        {"kernel_size": 1, "groups": 2},
        {"kernel_size": 1, "data_format": "channels_first"},
    ],
)
def test_what_is_no_product_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="only a channels-last convolution of 1×1"):
        PointwiseConv2D(4, **options).build((2, 8, 8, 8))


def test_fusing_takes_products_for_what_is_one_and_nothing_else() -> None:
    layers = keras.layers
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(4, 1, name="product")(inputs)
    x = layers.Conv2D(4, 1, strides=2, name="strided")(x)
    x = layers.Conv2D(4, 3, name="wide")(x)
    x = layers.DepthwiseConv2D(1, name="of_depth")(x)
    x = layers.Dense(5, activation="tanh", name="connected")(layers.Flatten()(x))
    original = keras.Model(inputs, x)

    copy = fuse_batch_normalization(original)

    kinds = {layer.name: type(layer) for layer in copy.layers}
    assert kinds["product"] is PointwiseConv2D
    assert kinds["connected"] is FullyConnected
    assert kinds["strided"] is kinds["wide"] is keras.layers.Conv2D
    assert kinds["of_depth"] is keras.layers.DepthwiseConv2D
    for name in ("product", "connected"):
        assert copy.get_layer(name).get_config() == original.get_layer(name).get_config()


@pytest.mark.parametrize("name", ["alexnet", "deepmnist", "hep_cnn_64"])
def test_every_network_of_ours_connects_fully_by_them(name: str) -> None:
    connected = [
        layer for layer in models.load(name).layers if isinstance(layer, keras.layers.Dense)
    ]

    assert len(connected) >= 2
    assert {type(layer) for layer in connected} == {FullyConnected}

"""The fused layers compute what the plain ones do, and fusing leaves all else as it was."""

from __future__ import annotations

import inspect
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.layers import (
    FusedBatchNormalization,
    LocalResponseNormalization,
    fuse_batch_normalization,
)

pytestmark = pytest.mark.tensorflow

SHAPE = (4, 5, 6, 7)  # images, height, width, channels
ROWS = 4 * 5 * 6  # values per channel
OPTIONS = [
    {},
    {"scale": False},
    {"center": False},
    {"scale": False, "center": False},
    {"epsilon": 0.3, "momentum": 0.6},
]


def random_images(seed: int = 0) -> Any:
    return tf.constant(np.random.default_rng(seed).normal(1.0, 2.0, SHAPE), tf.float32)


def pair(options: dict[str, Any]) -> tuple[Any, Any]:
    """A plain and a fused layer of the same configuration and the same (random) weights."""
    plain = keras.layers.BatchNormalization(**options)
    fused = FusedBatchNormalization.from_config(plain.get_config())
    plain.build(SHAPE)
    fused.build(SHAPE)
    rng = np.random.default_rng(1)
    weights = [rng.uniform(0.5, 1.5, var.shape) for var in plain.weights]
    plain.set_weights(weights)
    fused.set_weights(weights)
    return plain, fused


def outputs_and_gradients(layer: Any, images: Any, training: bool) -> tuple[Any, list[Any]]:
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = layer(images, training=training)
        loss = tf.reduce_sum(tf.sin(tf.cast(outputs, tf.float32)))
    return outputs, tape.gradient(loss, [images, *(var.value for var in layer.trainable_variables)])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", OPTIONS)
def test_fused_normalisation_gives_kerass_outputs_and_gradients(
    options: dict[str, Any], training: bool
) -> None:
    plain, fused = pair(options)

    wanted, wanted_gradients = outputs_and_gradients(plain, random_images(), training)
    outputs, gradients = outputs_and_gradients(fused, random_images(), training)

    np.testing.assert_allclose(outputs, wanted, rtol=1e-4, atol=1e-5)
    assert len(gradients) == len(wanted_gradients) == 1 + len(plain.trainable_variables)
    for gradient, wanted_gradient in zip(gradients, wanted_gradients, strict=True):
        np.testing.assert_allclose(gradient, wanted_gradient, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("options", OPTIONS)
def test_moving_statistics_are_kerass_but_for_bessels_correction(options: dict[str, Any]) -> None:
    plain, fused = pair(options)
    before = plain.moving_variance.numpy()

    plain(random_images(), training=True)
    fused(random_images(), training=True)

    np.testing.assert_allclose(fused.moving_mean, plain.moving_mean, rtol=1e-5)
    correction = ROWS / (ROWS - 1)
    new_part = plain.moving_variance.numpy() - plain.momentum * before
    wanted = plain.momentum * before + correction * new_part
    np.testing.assert_allclose(fused.moving_variance, wanted, rtol=1e-5)


def test_inference_and_a_frozen_layer_leave_the_moving_statistics_alone() -> None:
    _, fused = pair({})
    before = fused.get_weights()

    fused(random_images(), training=False)
    inference = fused(random_images(), training=False)
    fused.trainable = False
    frozen = fused(random_images(), training=True)

    np.testing.assert_array_equal(frozen, inference)
    fused.trainable = True
    for old, new in zip(before, fused.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_fused_normalisation_keeps_float32_statistics_under_mixed_precision(dtype: str) -> None:
    exact = FusedBatchNormalization()
    mixed = FusedBatchNormalization(dtype=f"mixed_{dtype}")
    images = random_images()

    wanted, wanted_gradients = outputs_and_gradients(exact, images, training=True)
    outputs, gradients = outputs_and_gradients(mixed, images, training=True)

    assert outputs.dtype == dtype
    assert {var.dtype for var in mixed.weights} == {"float32"}
    np.testing.assert_allclose(tf.cast(outputs, tf.float32), wanted, atol=0.05)
    for gradient, wanted_gradient in zip(gradients, wanted_gradients, strict=True):
        np.testing.assert_allclose(gradient, wanted_gradient, atol=0.02 * ROWS)
    np.testing.assert_allclose(mixed.moving_variance, exact.moving_variance, rtol=1e-3)


def test_fused_normalisation_is_a_pure_function_under_stateless_call() -> None:
    _, fused = pair({})
    _, reference = pair({})
    before = fused.get_weights()
    parameters = [tf.constant(var) for var in fused.trainable_variables]
    state = [tf.constant(var) for var in fused.non_trainable_variables]

    @tf.function
    def call(images: Any) -> Any:
        return fused.stateless_call(parameters, state, images, training=True)

    outputs, new_state = call(random_images())

    np.testing.assert_allclose(outputs, reference(random_images(), training=True), rtol=1e-5)
    for new, var in zip(new_state, reference.non_trainable_variables, strict=True):
        np.testing.assert_allclose(new, var, rtol=1e-6)
    for old, new in zip(before, fused.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    "options", [{"axis": 1}, {"epsilon": 1e-6}, {"renorm": True}, {"synchronized": True}]
)
def test_fused_normalisation_refuses_what_the_kernel_cannot_do(options: dict[str, Any]) -> None:
    known = inspect.signature(keras.layers.BatchNormalization).parameters
    if not options.keys() <= known.keys():
        pytest.skip(f"this Keras has no {', '.join(options)}")
    with pytest.raises(ValueError, match="the fused kernel takes"):
        FusedBatchNormalization(**options).build(SHAPE)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_local_response_normalisation_gives_tensorflows_values_and_gradients(dtype: str) -> None:
    settings = {"depth_radius": 2, "bias": 2.0, "alpha": 0.01, "beta": 0.75}
    layer = LocalResponseNormalization(**settings, dtype=dtype)
    images = random_images()

    tensorflows = keras.layers.Lambda(lambda x: tf.nn.local_response_normalization(x, **settings))

    outputs, (gradient,) = outputs_and_gradients(layer, images, training=True)
    wanted, (wanted_gradient,) = outputs_and_gradients(tensorflows, images, training=True)

    atol = 1e-5 if dtype == "float32" else 0.03
    assert outputs.dtype == layer.compute_dtype
    np.testing.assert_allclose(tf.cast(outputs, tf.float32), wanted, atol=atol)
    np.testing.assert_allclose(gradient, wanted_gradient, atol=atol)


@pytest.mark.parametrize(
    "layer",
    [
        FusedBatchNormalization(scale=False, momentum=0.9),
        LocalResponseNormalization(3, bias=1.0, alpha=0.1, beta=0.5),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layer_comes_back_from_its_configuration(layer: Any) -> None:
    serialised = keras.saving.serialize_keras_object(layer)

    again = keras.saving.deserialize_keras_object(serialised)

    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()


def branching_model() -> keras.Model:
    """Convolutions whose biases matter (b, c, d), and one, two and three whose biases do not."""
    layers = keras.layers
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(4, 3, padding="same", name="one")(inputs)
    x = layers.BatchNormalization(name="bn_one", momentum=0.7, epsilon=0.01)(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="two")(x)
    x = layers.BatchNormalization(name="bn_two", scale=False)(x)
    x = layers.SeparableConv2D(4, 3, padding="same", name="three")(x)
    x = layers.BatchNormalization(name="bn_three", center=False)(x)
    shared = layers.Conv2D(4, 3, padding="same", name="b")(x)
    x = layers.Add()([shared, layers.BatchNormalization(name="bn_b")(shared)])
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="c")(x)
    x = layers.BatchNormalization(name="bn_c")(x)
    x = layers.Conv2D(4, 3, padding="same", name="d")(x)
    x = layers.BatchNormalization(name="unfusable", axis=1)(x)
    x = layers.Normalization(name="never_adapted")(x)
    x = layers.Dense(3)(layers.Flatten()(x))
    return keras.Model(inputs, layers.BatchNormalization(name="of_vectors")(x))


def test_fusing_swaps_every_4d_normalisation_with_its_settings_and_nothing_else() -> None:
    original = branching_model()
    fused = fuse_batch_normalization(original)
    kinds = {layer.name: type(layer) for layer in fused.layers}

    swapped = {name for name, kind in kinds.items() if kind is FusedBatchNormalization}
    assert swapped == {"bn_one", "bn_two", "bn_three", "bn_b", "bn_c"}
    assert kinds["unfusable"] is kinds["of_vectors"] is keras.layers.BatchNormalization
    assert kinds["never_adapted"] is keras.layers.Identity
    for name in swapped:
        assert fused.get_layer(name).get_config() == original.get_layer(name).get_config()


def test_fusing_drops_only_the_biases_that_normalisation_takes_out_again() -> None:
    fused = fuse_batch_normalization(branching_model())

    convolutions = (layer for layer in fused.layers if not isinstance(layer, keras.layers.Dense))
    biased = {layer.name for layer in convolutions if getattr(layer, "use_bias", False)}
    assert biased == {"b", "c", "d"}


def test_fused_network_computes_what_the_original_does() -> None:
    """With random weights, and biases of zero where the copy has none.

    Inference comes first: training moves the statistics, by Bessel's correction apart.
    """
    original = branching_model()
    fused = fuse_batch_normalization(original)
    rng = np.random.default_rng(2)
    for layer in original.layers:
        if not layer.weights or layer.name == "never_adapted":
            continue
        weights = [rng.uniform(0.1, 0.4, var.shape) for var in layer.weights]
        twin = fused.get_layer(layer.name)
        if len(twin.weights) < len(weights):
            weights[-1][:] = 0.0
        layer.set_weights(weights)
        twin.set_weights(weights[: len(twin.weights)])
    images = tf.constant(rng.normal(size=(4, 8, 8, 4)), tf.float32)

    for training in (False, True):
        wanted = original(images, training=training)
        np.testing.assert_allclose(fused(images, training=training), wanted, rtol=1e-4, atol=1e-4)


def test_normalisation_with_given_statistics_can_be_called_in_another_graph() -> None:
    inputs = keras.Input((8, 8, 3))
    mean, variance = [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]
    normalised = keras.layers.Normalization(mean=mean, variance=variance)(inputs)
    with tf.Graph().as_default():
        fused = fuse_batch_normalization(keras.Model(inputs, normalised))
    images = np.random.default_rng(3).normal(size=(2, 8, 8, 3)).astype(np.float32)

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        outputs, _ = fused.stateless_call([], [], tf.constant(images), training=True)
        np.testing.assert_allclose(
            session.run(outputs), (images - mean) / np.sqrt(variance), rtol=1e-4, atol=1e-5
        )

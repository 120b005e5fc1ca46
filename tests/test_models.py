"""Every network passes the same conformance tests: shapes, types, gradients, a loss that falls.

They are built and trained as the strategies do it: built in a scratch graph, then called as a pure
function, with plain tensors for parameters and state, in another graph.

The training checks use the smallest images that a network takes (and the networks' own class
counts), because what they look for (a parameter without a gradient, a state that is not updated, a
type that is lost) does not depend on the image size, and ResNet-152 at 224 pixels takes seconds a
step on a processor.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import models

pytestmark = pytest.mark.tensorflow
v1 = tf.compat.v1

# Optimising the graph of ResNet-152 takes longer than the steps that these tests make of it.
UNOPTIMISED = v1.ConfigProto()
UNOPTIMISED.graph_options.rewrite_options.disable_meta_optimizer = True

BATCH = 4
STEPS = 5
SMALLEST_IMAGES = {
    "alexnet": (57, 57, 3),
    "deepmnist": (28, 28, 1),
    "hep_cnn_224": (32, 32, 3),
    "hep_cnn_64": (16, 16, 3),
    "inceptionv3": (75, 75, 3),
}
DEFAULT_LEARNING_RATE = 0.003
LEARNING_RATES = {"alexnet": 0.1, "deepmnist": 0.01, "hep_cnn_224": 0.01}
# `resnet` is resnet152 under another name (tested below), so only one of them is built.
DISTINCT = [name for name in models.names() if name != "resnet"]
# Two of the rest of keras.applications: depthwise convolutions; preprocessing inside the network.
CONFORMING = [*DISTINCT, "keras:MobileNetV2", "keras:EfficientNetB0"]
DROPPING = {"alexnet", "deepmnist", "hep_cnn_224", "hep_cnn_64", "keras:EfficientNetB0"}


@dataclass(frozen=True)
class Training:
    """What a few steps of gradient descent on one batch of BATCH images showed.

    `gradients`: variable path -> was it finite in the first step, or None if there was no gradient.
    `state_changed`: variable path -> did the first step return another value than it was given.
    """

    logits_shape: tuple[int, ...]
    losses: list[float]
    gradients: dict[str, bool | None]
    state_changed: dict[str, bool]


@pytest.fixture(autouse=True)
def _same_policy_after_each_test() -> Iterator[None]:
    keras.utils.set_random_seed(1)
    yield
    keras.config.set_dtype_policy("float32")


def small(name: str) -> keras.Model:
    """The network for small images, built in the current graph (or eagerly, outside of any)."""
    return models.load(name, image_shape=SMALLEST_IMAGES.get(name, (32, 32, 3)))


def build_in_scratch_graph(name: str) -> tuple[keras.Model, list[Any]]:
    """The small network and the initial values of `model.variables`."""
    with tf.Graph().as_default():
        model = small(name)
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            return model, session.run([variable.value for variable in model.variables])


def train(name: str) -> Training:
    """Trains the small network in a second graph, through `stateless_call` alone."""
    model, values = build_in_scratch_graph(name)
    value_of = {id(var): value for var, value in zip(model.variables, values, strict=True)}
    with tf.Graph().as_default():
        starts = [v1.placeholder(var.dtype, var.shape) for var in model.trainable_variables]
        start_of = {
            x: value_of[id(v)] for x, v in zip(starts, model.trainable_variables, strict=True)
        }
        parameters = [tf.Variable(start) for start in starts]
        # The state stays the first one, so that every step drops the same units: the loss is then
        # one function of the parameters, and going down its gradient must lower it.
        state = [tf.constant(value_of[id(var)]) for var in model.non_trainable_variables]
        logits, fetches = pure_step(
            model, parameters, state, LEARNING_RATES.get(name, DEFAULT_LEARNING_RATE)
        )
        with v1.Session(config=UNOPTIMISED) as session:
            session.run(v1.global_variables_initializer(), start_of)
            steps = [session.run(fetches) for _ in range(STEPS)]
    paths = [var.path for var in model.trainable_variables]
    return Training(
        logits_shape=tuple(logits.shape),
        losses=[float(step["loss"]) for step in steps],
        gradients={path: steps[0]["finite"].get(path) for path in paths},
        state_changed=steps[0]["changed"],
    )


def pure_step(
    model: keras.Model, parameters: list[Any], state: list[Any], rate: float
) -> tuple[Any, dict[str, Any]]:
    """The logits, and what to fetch for a step of gradient descent at this learning rate."""
    rng = np.random.default_rng(0)
    images = tf.constant(rng.normal(size=(BATCH, *model.input_shape[1:])), tf.float32)
    labels = tf.constant(np.arange(BATCH) % model.output_shape[-1])
    tensors = [tf.convert_to_tensor(parameter) for parameter in parameters]
    logits, new_state = model.stateless_call(tensors, state, images, training=True)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    loss = tf.reduce_mean(losses)
    finite, updates = {}, []
    gradients = v1.gradients(loss, tensors)
    with tf.control_dependencies([x for x in (loss, *gradients) if x is not None]):
        for var, parameter, gradient in zip(
            model.trainable_variables, parameters, gradients, strict=True
        ):
            if gradient is not None:
                finite[var.path] = tf.reduce_all(tf.math.is_finite(gradient))
                updates.append(parameter.assign_sub(rate * gradient))
    changed = {
        var.path: tf.reduce_any(tf.not_equal(old, new))
        for var, old, new in zip(model.non_trainable_variables, state, new_state, strict=True)
    }
    update = tf.group(updates)
    return logits, {"loss": loss, "finite": finite, "changed": changed, "update": update}


@pytest.mark.parametrize("name", CONFORMING)
def test_trains_as_a_pure_function_in_another_graph_than_it_was_built_in(name: str) -> None:
    training = train(name)

    assert training.logits_shape == (BATCH, models.find(name).num_classes)
    assert np.all(np.isfinite(training.losses)), training.losses
    assert training.losses[-1] < training.losses[0], training.losses
    missing = [path for path, gradient in training.gradients.items() if gradient is None]
    assert not missing, f"no gradient for {missing}"
    infinite = [path for path, finite in training.gradients.items() if not finite]
    assert not infinite, f"not a finite gradient for {infinite}"
    unchanged = [path for path, changed in training.state_changed.items() if not changed]
    assert not unchanged, f"the new state equals the old one in {unchanged}"
    has_seeds = any("seed" in path for path in training.state_changed)
    assert has_seeds == (name in DROPPING)


@pytest.mark.parametrize("name", CONFORMING)
def test_computes_in_bfloat16_with_variables_and_logits_in_float32(name: str) -> None:
    check_mixed_precision(name, "mixed_bfloat16")


@pytest.mark.parametrize("name", ["alexnet", "deepmnist", "hep_cnn_64", "resnet50"])
def test_computes_in_float16_with_variables_and_logits_in_float32(name: str) -> None:
    check_mixed_precision(name, "mixed_float16")


def check_mixed_precision(name: str, policy: str) -> None:
    """Symbolic: the graph is built, not run; the layers' numbers are in test_models_layers.py."""
    keras.config.set_dtype_policy(policy)
    with tf.Graph().as_default():
        model = small(name)
        convolutions = [x for x in model.layers if isinstance(x, keras.layers.Conv2D)]
        assert convolutions
        assert {x.compute_dtype for x in convolutions} == {policy.removeprefix("mixed_")}
        assert {var.dtype for var in model.trainable_variables} == {"float32"}
        assert model(tf.zeros([2, *model.input_shape[1:]]), training=True).dtype == tf.float32


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("name", ["alexnet", "deepmnist", "hep_cnn_64"])
def test_loss_falls_under_mixed_precision(name: str, policy: str) -> None:
    """The small networks only: a processor's float16 kernels are slow, and the layers the same."""
    keras.config.set_dtype_policy(policy)

    losses = train(name).losses

    assert np.all(np.isfinite(losses))
    assert losses[-1] < losses[0], losses


@pytest.mark.parametrize(
    "name",
    ["alexnet", "deepmnist", "hep_cnn_224", "keras:MobileNetV3Small"],  # has a layer named logits
)
def test_builds_and_runs_eagerly_too(name: str) -> None:
    model = small(name)
    images = tf.ones([2, *model.input_shape[1:]])

    for training in (True, False):
        logits = model(images, training=training)
        assert logits.shape == (2, models.find(name).num_classes)
        assert np.all(np.isfinite(logits))


def test_hep_cnn_can_be_given_another_shape() -> None:
    with tf.Graph().as_default():
        model = models.load(
            "hep_cnn_64", num_layers=2, filters=8, fc_units=16, dropout=0.0, batch_norm=True
        )
    kinds = [type(layer).__name__ for layer in model.layers]

    assert kinds.count("Conv2D") == kinds.count("FusedBatchNormalization") == 2
    # Two convolutions without bias, two normalisations, 16·16 pixels × 8 filters into 16, then 2.
    assert parameters_of(model) == 9 * 8 * (3 + 8) + 2 * 16 + (16 * 16 * 8 + 1) * 16 + 17 * 2


def test_layout_is_channels_last_whatever_the_keras_configuration_says() -> None:
    keras.config.set_image_data_format("channels_first")
    try:
        with tf.Graph().as_default():
            shapes = [models.load(x).input_shape for x in ("deepmnist", "keras:MobileNetV2")]
        assert keras.config.image_data_format() == "channels_first"
    finally:
        keras.config.set_image_data_format("channels_last")

    assert shapes == [(None, 28, 28, 1), (None, 224, 224, 3)]


def test_building_leaves_only_the_networks_own_variables_in_the_callers_graph() -> None:
    """The network that is copied from must not end up on a parameter server."""
    with tf.Graph().as_default():
        model = small("resnet50")
        assert len(v1.global_variables()) == len(model.variables)


def parameters_of(model: keras.Model) -> int:
    return sum(var.shape.num_elements() for var in model.trainable_variables)


def biases_in_front_of_normalisation(blocks: tuple[int, int, int, int]) -> int:
    """How many biases `keras.applications.ResNetN` has in its convolutions, one per filter.

    Stem: 64. A stage of n blocks with f filters: n × (f + f + 4·f), and 4·f for its shortcut.
    """
    stages = zip(blocks, (64, 128, 256, 512), strict=True)
    return 64 + sum(number * 6 * filters + 4 * filters for number, filters in stages)


# With biases: the published counts of keras.applications (total less 2 × normalised channels).
PUBLISHED_PARAMETERS = {
    "resnet50": 25_583_592 - biases_in_front_of_normalisation((3, 4, 6, 3)),
    "resnet101": 44_601_832 - biases_in_front_of_normalisation((3, 4, 23, 3)),
    "resnet152": 60_268_520 - biases_in_front_of_normalisation((3, 8, 36, 3)),
    "inceptionv3": 23_817_352,
    # (kernel² × channels in + 1) × channels out per convolution; 6·6 pixels are left before fc6.
    "alexnet": sum(
        (inputs + 1) * outputs
        for inputs, outputs in (
            (11 * 11 * 3, 64),
            (5 * 5 * 64, 192),
            (3 * 3 * 192, 384),
            (3 * 3 * 384, 256),
            (3 * 3 * 256, 256),
            (6 * 6 * 256, 4096),
            (4096, 4096),
            (4096, 1000),
        )
    ),
    "deepmnist": 3_274_634,
    "hep_cnn_224": (9 * 3 + 1) * 128 + 4 * (9 * 128 + 1) * 128 + 129 * 2,
    "hep_cnn_64": (9 * 3 + 1) * 128 + 2 * (9 * 128 + 1) * 128 + (8 * 8 * 128 + 1) * 512 + 513 * 2,
}


@pytest.mark.parametrize("name", DISTINCT)
def test_full_size_network_has_the_published_shape_and_number_of_parameters(name: str) -> None:
    spec = models.find(name)
    assert spec.image_shape is not None
    with tf.Graph().as_default():
        model = models.load(name)

    assert model.input_shape == (None, *spec.image_shape)
    assert model.output_shape == (None, spec.num_classes)
    assert model.output.dtype == "float32"
    assert parameters_of(model) == PUBLISHED_PARAMETERS[name]


def test_resnet_is_resnet152() -> None:
    resnet, resnet152 = models.find("resnet"), models.find("resnet152")

    assert (resnet.build, resnet.options) == (resnet152.build, resnet152.options)


def test_parameter_counts_agree_with_those_in_the_literature() -> None:
    assert PUBLISHED_PARAMETERS["resnet50"] == 25_557_032
    assert PUBLISHED_PARAMETERS["resnet101"] == 44_549_160
    assert PUBLISHED_PARAMETERS["resnet152"] == 60_192_808
    assert PUBLISHED_PARAMETERS["alexnet"] == 61_100_840
    assert PUBLISHED_PARAMETERS["hep_cnn_224"] * 4 / 2**20 == pytest.approx(2.3, abs=0.05)  # MiB


def test_names_are_listed_without_importing_tensorflow_or_keras() -> None:
    code = (
        "import sys, models; models.names(); models.find('resnet50');"
        "sys.exit(bool({'tensorflow', 'keras', 'numpy'} & set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("resnet51", "resnet50"),
        ("AlexNet", "alexnet"),
        ("inception", "inceptionv3"),
        ("keras:mobilenet2", "MobileNetV2"),
    ],
)
def test_unknown_name_is_answered_with_the_nearest_and_the_known_ones(
    typed: str, meant: str
) -> None:
    with pytest.raises(
        models.UnknownModelError, match=f"Did you mean {meant}\\? Known: "
    ) as caught:
        models.load(typed)

    assert typed.removeprefix("keras:") in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "name",
    ["", "layers", "applications", "__init__", "os", "../models/alexnet", "keras:", "keras:os"],
)
def test_name_that_is_no_network_is_never_imported(name: str) -> None:
    with pytest.raises(models.UnknownModelError):
        models.find(name)


def test_unknown_option_is_answered_with_the_known_ones() -> None:
    with pytest.raises(models.ModelOptionError, match="no option drop; it takes dropout, image_sh"):
        models.load("deepmnist", drop=0.1)


def test_keras_network_that_takes_any_size_is_built_for_the_published_one() -> None:
    with tf.Graph().as_default():
        assert models.load("keras:MobileNetV3Small").input_shape == (None, 224, 224, 3)


def test_keras_network_is_found_whatever_the_case_of_its_name() -> None:
    assert models.find("keras:mobilenetv2").name == "keras:MobileNetV2"

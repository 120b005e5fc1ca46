"""Networks of `keras.applications`: no weights to download, logits, fused batch normalisation."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import keras
import tensorflow as tf

from models.layers import fuse_batch_normalization

ImageShape = tuple[int, int, int]

# Left alone, Keras builds these for images of any size; this is the size they were published for.
_UNSIZED = {"MobileNetV3Large": (224, 224, 3), "MobileNetV3Small": (224, 224, 3)}


def names() -> list[str]:
    """The networks of `keras.applications`, as it spells them (ResNet50V2, MobileNetV2, ...)."""
    return sorted(
        name
        for name, member in vars(keras.applications).items()
        if inspect.isfunction(member)
        and "classifier_activation" in inspect.signature(member).parameters
    )


def builder(name: str) -> Callable[..., keras.Model]:
    """The builder of one of `names()`."""

    def build(image_shape: ImageShape | None, num_classes: int) -> keras.Model:
        return application(name, image_shape, num_classes)

    return build


def application(name: str, image_shape: ImageShape | None, num_classes: int) -> keras.Model:
    """`keras.applications.NAME` with fused normalisation; `image_shape` None: the network's own."""
    # Only the layers' configurations are wanted of the original. In a graph of its own its
    # variables are neither filled with values nor left behind in the caller's graph.
    with tf.Graph().as_default():
        original = getattr(keras.applications, name)(
            weights=None,
            input_shape=image_shape or _UNSIZED.get(name),
            classes=num_classes,
            classifier_activation=None,
        )
    return fuse_batch_normalization(original)

"""Inception-v3.

(N, 299, 299, 3) to (N, 1000). From `keras.applications`, whose convolutions have no bias and whose
batch normalisation has no gamma; it is fused here. 23,817,352 trainable parameters.
Source: Szegedy, Vanhoucke, Ioffe, Shlens and Wojna 2015, arXiv:1512.00567.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from models import ModelSpec

if TYPE_CHECKING:
    import keras


def build(image_shape: tuple[int, int, int], num_classes: int) -> keras.Model:
    """The network, for images of at least 75×75."""
    from models.applications import application

    return application("InceptionV3", image_shape, num_classes)


MODELS = (ModelSpec("inceptionv3", build, (299, 299, 3), 1000),)

"""ResNet-50, -101 and -152, version 1: the stride is in the first 1×1 convolution of a block.

(N, 224, 224, 3) to (N, 1000). `resnet` is ResNet-152, as it always was here. From
`keras.applications`, with fused batch normalisation and without the convolution biases, which
leaves 25,557,032, 44,549,160 and 60,192,808 trainable parameters: the numbers of the paper's own
networks, which have no such biases either.
Source: He, Zhang, Ren and Sun 2015, arXiv:1512.03385.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from models import ModelSpec

if TYPE_CHECKING:
    import keras


def build(image_shape: tuple[int, int, int], num_classes: int, depth: int) -> keras.Model:
    """The network of `depth` 50, 101 or 152 layers."""
    from models.applications import application

    return application(f"ResNet{depth}", image_shape, num_classes)


MODELS = tuple(
    ModelSpec(name, build, (224, 224, 3), 1000, {"depth": depth})
    for name, depth in (("resnet", 152), ("resnet152", 152), ("resnet101", 101), ("resnet50", 50))
)

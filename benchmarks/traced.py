"""What TensorFlow's own trace says of kernels. A part of limits.py."""

from __future__ import annotations

import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

NORMALISATION = "local response normalisation"
REST = "rest"
# What operations belong to each group: by their kind (without oneDNN's prefix), and of what other
# kind they may be in which layers.
KINDS = {
    "convolutions": r"Conv",
    "batch normalisation": r"BatchNorm",
    "ReLU and additions": r"Relu|^AddN$",
    "fully connected": r"MatMul",
    NORMALISATION: r"^LRN",
    "pooling": r"Pool",
    "updates": r"^ResourceApply|^Assign",
}
LAYERS = {
    "convolutions": r"Conv",
    "batch normalisation": r"BatchNorm",
    "ReLU and additions": r"ReLU|^Activation$|^Add$",
    "fully connected": r"^(Dense|FullyConnected)$",
    NORMALISATION: r"^LocalResponseNormalization$",
    "pooling": r"Pooling",
}


def events(run: Callable[[], Any]) -> Iterator[tuple[str, str, float]]:
    """Each time that a kernel ran: the operation's name with its scopes, its kind, seconds."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            run()
        for path in Path(folder).rglob("*.xplane.pb"):
            space.MergeFromString(path.read_bytes())
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name, colon, kind = plane.event_metadata[event.metadata_id].name.rpartition(":")
                if colon and not name.endswith(":") and kind.isidentifier():
                    yield name, kind, event.duration_ps / 1e12


def grouped(model: Any, step: Callable[[], Any], steps: int) -> dict[str, Counter[str]]:
    """Seconds of a step that kernels ran, on all threads together: group -> kind -> seconds."""

    def run() -> None:
        for _ in range(steps):
            step()

    layers = {layer.name: type(layer).__name__ for layer in model.layers}
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for name, kind, seconds in events(run):
        found[group(kind, layer_of(name, layers))][kind] += seconds / steps
    return found


def layer_of(name: str, layers: dict[str, str]) -> str:
    """The class of the layer that an operation is of, or nothing.

    Its scope is `LAYER_1` forward and `gradient_tape/LAYER_1` backward: Keras numbers the second
    use of a layer, the first being that which built it. layers: name -> class.
    """
    scope = name.removeprefix("gradient_tape/").partition("/")[0]
    return layers.get(re.sub(r"_\d+$", "", scope)) or layers.get(scope, "")


def group(kind: str, layer: str) -> str:
    """The group of an operation. Its kind decides, and the layer's class where the kind does not.

    Our local response normalisation multiplies matrices as fully connected layers do, so that all
    that it does is found by its layer, and so are the products that some convolutions are.
    """
    if re.search(LAYERS[NORMALISATION], layer):
        return NORMALISATION
    if "MatMul" in kind and re.search(LAYERS["convolutions"], layer):
        return "convolutions"
    kind = kind.removeprefix("_Mkl").removeprefix("Native")
    for patterns, name in ((KINDS, kind), (LAYERS, layer)):
        for found, pattern in patterns.items():
            if re.search(pattern, name):
                return found
    return REST

"""The networks that can be measured: name -> model, found by file name.

A file of this folder that assigns `MODELS`, a tuple of `ModelSpec`, is a model file: adding a
network is adding one. A file may hold several names (`resnet.py`: resnet, resnet152, resnet101,
resnet50), and `keras:NAME` stands for any other network of `keras.applications`.

Listing names must stay cheap, so a model file imports TensorFlow and Keras inside its builder and
not at its top. A name comes from a user: it is compared with the names found here and never
imported as such.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

KERAS_PREFIX = "keras:"
_FOLDER = Path(__file__).parent
_ASSIGNS_MODELS = re.compile(r"^MODELS\b", re.MULTILINE)


class UnknownModelError(ValueError):
    """No network has this name; the message lists those there are and the nearest one."""


class ModelOptionError(ValueError):
    """The network exists, but not with such an option; the message lists those it takes."""


@dataclass(frozen=True)
class ModelSpec:
    """One name that `-m` takes.

    `build(image_shape=..., num_classes=..., **options)` returns the network; `options` are this
    name's own defaults. `image_shape` is (height, width, channels) in pixels, and None where only
    the built model knows it (`keras:NAME`): `model.input_shape` says it for all of them.
    """

    name: str
    build: Callable[..., keras.Model]
    image_shape: tuple[int, int, int] | None
    num_classes: int
    options: Mapping[str, Any] = field(default_factory=dict)


def names() -> list[str]:
    """Every name but the `keras:` ones, sorted. Imports neither TensorFlow nor Keras."""
    return sorted(_specs())


def find(name: str) -> ModelSpec:
    """The entry of `name`. Raises UnknownModelError."""
    if name.startswith(KERAS_PREFIX):
        return _application_spec(name)
    specs = _specs()
    if name not in specs:
        raise UnknownModelError(_unknown(name, sorted(specs), "a model"))
    return specs[name]


def load(name: str, **options: Any) -> keras.Model:
    """Builds `name`: images (N, H, W, C) -> logits (N, num_classes) in float32, no softmax.

    Every network takes `image_shape` and `num_classes`; what else it takes are its builder's
    keywords. The layout is channels-last whatever the user's Keras configuration says, and the
    layers follow the global dtype policy, with variables and logits in float32 always. Works
    eagerly and inside `tf.Graph()`. Raises UnknownModelError and ModelOptionError.
    """
    spec = find(name)
    known = sorted(inspect.signature(spec.build).parameters)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ModelOptionError(
            f"{name} has no option {', '.join(unknown)}; it takes {', '.join(known)}"
        )
    defaults = {"image_shape": spec.image_shape, "num_classes": spec.num_classes}
    from models.layers import channels_last

    with channels_last():
        return spec.build(**{**defaults, **spec.options, **options})


def _specs() -> dict[str, ModelSpec]:
    specs: dict[str, ModelSpec] = {}
    for path in sorted(_FOLDER.glob("*.py")):
        if not _ASSIGNS_MODELS.search(path.read_text(encoding="utf-8")):
            continue
        for spec in importlib.import_module(f"{__name__}.{path.stem}").MODELS:
            if spec.name in specs:
                raise RuntimeError(f"{path.name}: another file has a model {spec.name} already")
            specs[spec.name] = spec
    return specs


def _application_spec(name: str) -> ModelSpec:
    from models import applications

    wanted = name.removeprefix(KERAS_PREFIX)
    known = applications.names()
    for candidate in known:
        if candidate.lower() == wanted.lower():
            build = applications.builder(candidate)
            return ModelSpec(KERAS_PREFIX + candidate, build, image_shape=None, num_classes=1000)
    raise UnknownModelError(_unknown(wanted, known, "a network of keras.applications"))


def _unknown(name: str, known: list[str], kind: str) -> str:
    lowered = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.4)
    guess = f" Did you mean {lowered[near[0]]}?" if near else ""
    return f"{name!r} is not {kind}.{guess} Known: {', '.join(known)}, and keras:NAME"

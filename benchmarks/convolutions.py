"""How long each convolution of a network takes by itself. A part of limits.py."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from traced import events

FORWARD, IMAGES, KERNEL = "forward", "images", "kernel"
PARTS = (FORWARD, IMAGES, KERNEL)
PRODUCT = "_product"


@dataclass(frozen=True)
class Convolution:
    """One shape of convolution. Sizes are (height, width) in pixels; padding is SAME or VALID.

    first: it is the network's first, which needs no gradient of its images.
    """

    images: tuple[int, int]
    made: tuple[int, int]
    channels: int
    filters: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: str
    first: bool

    @property
    def is_product(self) -> bool:
        """Whether it is a product of matrices as it stands."""
        return self.kernel == (1, 1) and self.strides == (1, 1)

    def __str__(self) -> str:
        stride = f" / {self.strides[0]}" if self.strides != (1, 1) else ""
        return (
            f"{times(self.kernel)}{stride}, {self.channels} to {self.filters} channels on "
            f"{times(self.images)}"
        )

    def operations(self, batch: int) -> float:
        """Floating-point operations of its forward pass, and of each of its gradients."""
        sizes = (*self.made, *self.kernel, self.channels, self.filters)
        total = 2.0 * batch
        for size in sizes:
            total *= size
        return total


def times(size: tuple[int, int]) -> str:
    """A size as people write it."""
    return f"{size[0]} × {size[1]}"


def of(model: Any) -> Counter[Convolution]:
    """The different convolutions of a Keras model, and how often it has each.

    Grouped and dilated ones are left out.
    """
    found: Counter[Convolution] = Counter()
    for layer in model.layers:
        if not isinstance(layer, keras.layers.Conv2D):
            continue
        if layer.groups != 1 or tuple(layer.dilation_rate) != (1, 1):
            continue
        (_, *images, channels), (_, *made, filters) = layer.input.shape, layer.output.shape
        convolution = Convolution(
            tuple(images),
            tuple(made),
            channels,
            filters,
            tuple(layer.kernel_size),
            tuple(layer.strides),
            layer.padding.upper(),
            first=not found,
        )
        found[convolution] += 1
    return found


def measured(convolution: Convolution, batch: int, calls: int) -> dict[str, float]:
    """Seconds of each of PARTS, and with PRODUCT behind the name of the same as a product.

    Each is the shortest of so many calls after the first, in the graph of a function, because there
    the kernels are those of a training step; they run one after the other, never side by side.
    """
    operations = _operations(convolution, batch)

    @tf.function(autograph=False)
    def run() -> list[Any]:
        made: list[Any] = []
        for name, operation in operations.items():
            with tf.control_dependencies(made[-1:]):
                made.append(operation(name))
        return made

    def repeat() -> None:
        for _ in range(calls):
            run()

    run()
    found: dict[str, list[float]] = defaultdict(list)
    for name, _, seconds in events(repeat):
        if name in operations:
            found[name].append(seconds)
    return {name: min(found[name]) for name in operations}


def _operations(convolution: Convolution, batch: int) -> dict[str, Callable[[str], Any]]:
    """Each kernel by the name that its operation is to have."""
    c = convolution
    images = tf.random.normal((batch, *c.images, c.channels))
    kernel = tf.random.normal((*c.kernel, c.channels, c.filters))
    back = tf.random.normal((batch, *c.made, c.filters))
    how = {"strides": [1, *c.strides, 1], "padding": c.padding}
    found: dict[str, Callable[[str], Any]] = {
        FORWARD: lambda name: tf.nn.conv2d(images, kernel, name=name, **how),
        IMAGES: lambda name: tf.raw_ops.Conv2DBackpropInput(
            input_sizes=images.shape, filter=kernel, out_backprop=back, name=name, **how
        ),
        KERNEL: lambda name: tf.raw_ops.Conv2DBackpropFilter(
            input=images, filter_sizes=kernel.shape, out_backprop=back, name=name, **how
        ),
    }
    if c.is_product:
        rows, columns = tf.reshape(images, (-1, c.channels)), tf.reshape(back, (-1, c.filters))
        matrix = tf.reshape(kernel, (c.channels, c.filters))
        found |= {
            FORWARD + PRODUCT: lambda name: tf.matmul(rows, matrix, name=name),
            # A batch of one product, as in models/products.py.
            IMAGES + PRODUCT: lambda name: tf.matmul(
                columns[None], matrix[None], transpose_b=True, name=name
            ),
            KERNEL + PRODUCT: lambda name: tf.matmul(rows, columns, transpose_a=True, name=name),
        }
    if c.first:
        del found[IMAGES]
        found.pop(IMAGES + PRODUCT, None)
    return found


@dataclass(frozen=True)
class Rate:
    """Floating-point operations a second, and of what."""

    rate: float
    what: str

    def __str__(self) -> str:
        return f"{self.rate / 1e9:.0f} GFLOP/s ({self.what})"


def measure(model: Any, batch: int, calls: int) -> tuple[list[Rate], float]:
    """Print all convolutions of a network; their rates, and the seconds that products would save.

    The second figure is of a step: the faster of convolution and product taken each time.
    """
    print(f"Each convolution by itself, batch {batch}, the shortest of {calls}: ms (GFLOP/s)")
    rates: list[Rate] = []
    by_kernel: dict[tuple[int, int], list[Rate]] = defaultdict(list)
    sums, faster = Counter[str](), Counter[str]()
    for convolution, count in of(model).items():
        operations = convolution.operations(batch)
        found = measured(convolution, batch, calls)
        print(f"  {count:2} of {convolution}: {operations / 1e9:.2f} GFLOP")
        print(f"     {_row(found, operations, '')}")
        if convolution.is_product:
            print(f"     as products: {_row(found, operations, PRODUCT)}")
        for name, seconds in found.items():
            rate = Rate(operations / seconds, f"{name.replace('_', ' as a ')}: {convolution}")
            rates.append(rate)
            if name in PARTS:
                by_kernel[convolution.kernel].append(rate)
                sums[name] += count * seconds
                faster[name] += count * min(seconds, found.get(name + PRODUCT, seconds))
    for kernel, those in sorted(by_kernel.items()):
        low, high = (pick(those, key=lambda each: each.rate) for pick in (min, max))
        print(f"  {times(kernel)}: {low.rate / 1e9:.0f} to {high.rate / 1e9:.0f} GFLOP/s,")
        print(f"     slowest {low.what}")
    print(f"  all that a step has: {_sums(sums)}")
    print(f"  the faster of convolution and product each time: {_sums(faster)}")
    return rates, sums.total() - faster.total()


def _row(found: Mapping[str, float], operations: float, suffix: str) -> str:
    return ", ".join(
        f"{name} {found[name + suffix] * 1e3:.2f} ({operations / found[name + suffix] / 1e9:.0f})"
        for name in PARTS
        if name + suffix in found
    )


def _sums(seconds: Counter[str]) -> str:
    parts = ", ".join(f"{name} {seconds[name]:.4f} s" for name in PARTS)
    return f"{parts}, together {seconds.total():.4f} s"

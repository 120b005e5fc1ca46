"""What does a training step's time go into, and what could this machine do at best?

    python benchmarks/limits.py [--model resnet50] [--batch 16] [--steps 5] [--kernels [7]]
        [--faster 1.15]
    python benchmarks/limits.py --side-by-side 2 [--model resnet50] [--batch 8] [--steps 10]

What "What bounds a step" in docs/performance.md says of this machine and of our step is printed
here; what it says of another program is from peers.py and peers_cluster.py. MODEL is a name that
`runtest -m` takes, or `alexnet_tf_cnn`, which is tf_cnn_benchmarks' AlexNet (peer_networks.py).

Three rates of the machine are measured: the product of two matrices of 2048 × 2048 in fp32, a 3 × 3
convolution of 256 channels on 14 × 14 pixels, and reading and writing 256 MB. Then a step of
`--strategy single` is timed, and traced: the seconds that kernels ran, of which several run side by
side, in groups by the kind of operation, or else by its layer (traced.py). A convolution's bias and
ReLU, and a normalisation's ReLU, are mostly part of its kernel; sums of gradients that meet are
additions. What must be left out to make a step `--faster` times as fast is told as a share of all
that is no convolution.

`--kernels` measures every different convolution of the network by itself, the shortest of 7 calls:
forward, the gradients of its images and of its kernel, and for 1 × 1 ones of stride 1 the same as
products of matrices; and adds up what the network has of them, as they are and with the faster of
both. The times are those of the trace: of the kernel without the call.

The arithmetic of the step is two floating-point operations for each multiplication and addition of
convolutions and fully connected layers, forward and twice as many backward, but for the gradient of
the images. Divided by the machine's rate it is a bound below which no program comes that multiplies
in the ordinary way with no faster kernels. The rate is that of the fastest kernel of this run: of
all convolutions and products of `--kernels`, forward and backward, and of the two above. Without
`--kernels` it is these two's alone, and others may be faster.

The weights of fully connected layers are read or written six times a step: forward, for the
gradient of what came in, as their own gradient, and in the update that, the old and the new. The
seconds are those at the memory's rate.

`--side-by-side N` measures something else: N such trainings without any exchange, each process on
its own share of the processors with as many threads, as workers on one machine are, begun together.
The images/sec of all, in the time that all ran, are the most that N workers here could come to.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

sys.path.insert(0, str(Path(__file__).parent.parent))

import convolutions
import peer_networks
import side_by_side
from convolutions import Rate
from precision import engine
from traced import KINDS, REST, grouped

MATRIX = 2048
COPIED_BYTES = 1 << 28
# How often a step reads or writes the weights of a fully connected layer, or as many numbers.
TIMES_OF_WEIGHTS = 6
SHOWN = 3


def best(call: Callable[[], Any], times: int = 7) -> float:
    """The shortest of so many calls after the first, in seconds."""
    call()
    found = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return min(found)


def matrix_rate() -> Rate:
    """Of a matrix product."""
    values = tf.random.normal((MATRIX, MATRIX))
    product = tf.function(lambda: tf.matmul(values, values), autograph=False)
    return Rate(2 * MATRIX**3 / best(product), f"product of matrices, {MATRIX} × {MATRIX}")


def convolution_rate(batch: int) -> Rate:
    """Of a convolution that suits the kernels."""
    images, kernel = tf.random.normal((batch, 14, 14, 256)), tf.random.normal((3, 3, 256, 256))
    convolved = tf.function(lambda: tf.nn.conv2d(images, kernel, 1, "SAME"), autograph=False)
    operations = 2 * batch * 14 * 14 * 9 * 256 * 256
    return Rate(operations / best(convolved), "3 × 3, 256 channels on 14 × 14")


def memory_rate() -> float:
    """Bytes a second, read and written together."""
    values = tf.zeros(COPIED_BYTES // 4)
    return 2 * COPIED_BYTES / best(tf.function(lambda: values + 1.0, autograph=False))


def arithmetic(model: Any, batch: int) -> float:
    """Floating-point operations of a training step of a Keras model."""
    total, first = 0.0, True
    for layer in model.layers:
        kernel = getattr(layer, "kernel", None)
        if kernel is None:
            continue
        pixels = 1
        for size in layer.output.shape[1:-1]:
            pixels *= int(size)
        forward = 2.0 * batch * pixels * kernel.shape.num_elements()
        total += forward * (2 if first else 3)
        first = False
    return total


def print_groups(groups: Mapping[str, Counter[str]]) -> float:
    """The table; the convolutions' share of it."""
    whole = sum(kinds.total() for kinds in groups.values())
    for name in (*KINDS, REST):
        kinds = groups.get(name, Counter[str]())
        most = ", ".join(f"{kind} {spent:.4f}" for kind, spent in kinds.most_common(SHOWN))
        print(f"  {name:28} {kinds.total():8.4f} s  {kinds.total() / whole:6.1%}  {most}".rstrip())
    return groups.get("convolutions", Counter[str]()).total() / whole


def print_weights(model: Any, memory: float) -> None:
    """The fully connected layers' weights, and what reading and writing them takes."""
    dense = (layer for layer in model.layers if isinstance(layer, keras.layers.Dense))
    size = sum(4 * layer.kernel.shape.num_elements() for layer in dense)
    print(
        f"fully connected layers have {size / 1e9:.3f} GB of weights: {TIMES_OF_WEIGHTS} times, "
        f"{TIMES_OF_WEIGHTS * size / memory:.3f} s at the memory's rate"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--kernels", type=int, nargs="?", const=7, default=0)
    parser.add_argument("--faster", type=float, default=1.15)
    parser.add_argument("--side-by-side", type=int, default=0)
    asked = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)
    peer_networks.make_known()
    if asked.side_by_side:
        side_by_side.measure(asked.side_by_side, asked.model, asked.batch, asked.steps)
    else:
        limits(asked)


def limits(asked: argparse.Namespace) -> None:
    """All but `--side-by-side`."""
    rates, memory = [matrix_rate(), convolution_rate(asked.batch)], memory_rate()
    for rate in rates:
        print(rate)
    print(f"memory {memory / 1e9:.1f} GB/s read and written")
    trained = engine(asked.model, asked.batch, "fp32")
    used = time.process_time()
    seconds = best(trained.step, asked.steps)
    used = (time.process_time() - used) / (asked.steps + 1)
    print(
        f"{asked.model}, batch {asked.batch}: {seconds:.4f} s a step (the shortest of "
        f"{asked.steps}; {asked.batch / seconds:.2f} images/sec), {used:.3f} CPU seconds"
    )
    share = print_groups(grouped(trained.model, trained.step, asked.steps))
    less = 1 - 1 / asked.faster
    print(
        f"{asked.faster:g} times as fast: {less:.1%} of a step less, which is "
        f"{less / (1 - share):.0%} of all that is no convolution"
    )
    print_weights(trained.model, memory)
    if asked.kernels:
        found, saved = convolutions.measure(trained.model, asked.batch, asked.kernels)
        rates += found
        print(f"  products where they are faster: {saved / seconds:.1%} of a step less")
    print_bound(arithmetic(trained.model, asked.batch), rates, seconds)


def print_bound(operations: float, rates: list[Rate], seconds: float) -> None:
    """How near a step is to what the fastest kernel would make of its arithmetic."""
    fastest = max(rates, key=lambda each: each.rate)
    bound = operations / fastest.rate
    print(f"the fastest of {len(rates)} kernels seen: {fastest}")
    print(
        f"at its rate {operations / 1e9:.0f} GFLOP take {bound:.3f} s at least: "
        f"{bound / seconds:.0%} of a step"
    )


if __name__ == "__main__":
    main()

"""What does a training step's time go into, and what could this machine do at best?

    python benchmarks/limits.py [--model resnet50] [--batch 16] [--steps 5]

Three rates of the machine are measured: the product of two matrices of 2048 × 2048 in fp32, a 3 × 3
convolution of 256 channels on 14 × 14 pixels (oneDNN's kernels for it are the fastest here), and
reading and writing 256 MB. Then a step of `--strategy single` is timed, and traced: for each kind
of operation the seconds that its kernels ran, of which several run side by side. The arithmetic of
the step (two floating-point operations for each multiplication and addition of convolutions and
fully connected layers, forward and twice as many backward, but for the gradient of the images)
divided by the better of both rates is a bound below which no program comes that multiplies in the
ordinary way; how near a step is to it is printed last.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

sys.path.insert(0, str(Path(__file__).parent.parent))

from precision import engine

MATRIX = 2048
COPIED_BYTES = 1 << 28
SHOWN = 10


def best(call: Callable[[], Any], times: int = 7) -> float:
    """The shortest of so many calls after the first, in seconds."""
    call()
    found = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return min(found)


def matrix_rate() -> float:
    """Floating-point operations a second of a matrix product."""
    values = tf.random.normal((MATRIX, MATRIX))
    product = tf.function(lambda: tf.matmul(values, values), autograph=False)
    return 2 * MATRIX**3 / best(product)


def convolution_rate(batch: int) -> float:
    """The same of a convolution that suits the kernels."""
    images, kernel = tf.random.normal((batch, 14, 14, 256)), tf.random.normal((3, 3, 256, 256))
    convolved = tf.function(lambda: tf.nn.conv2d(images, kernel, 1, "SAME"), autograph=False)
    return 2 * batch * 14 * 14 * 9 * 256 * 256 / best(convolved)


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


def traced(step: Callable[[], Any], steps: int) -> Counter[str]:
    """Seconds of a step that kernels of each kind ran, on all threads together."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            for _ in range(steps):
                step()
        for path in Path(folder).rglob("*.xplane.pb"):
            space.MergeFromString(path.read_bytes())
    found: Counter[str] = Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name, colon, kind = plane.event_metadata[event.metadata_id].name.rpartition(":")
                if colon and not name.endswith(":") and kind.isidentifier():
                    found[kind] += event.duration_ps / 1e12 / steps
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=5)
    asked = parser.parse_args()
    matrices, convolutions = matrix_rate(), convolution_rate(asked.batch)
    print(f"matrices {matrices / 1e9:.0f} GFLOP/s, convolutions {convolutions / 1e9:.0f} GFLOP/s,")
    print(f"memory {memory_rate() / 1e9:.1f} GB/s read and written")
    trained = engine(asked.model, asked.batch, "fp32")
    used = time.process_time()
    seconds = best(trained.step, asked.steps)
    used = (time.process_time() - used) / (asked.steps + 1)
    kinds = traced(trained.step, asked.steps)
    operations = arithmetic(trained.model, asked.batch)
    print(f"{asked.model}, batch {asked.batch}: {seconds:.3f} s a step, {used:.2f} CPU seconds")
    whole = sum(kinds.values())
    for kind, spent in kinds.most_common(SHOWN):
        print(f"  {kind:32} {spent:7.3f} s  {spent / whole:6.1%}")
    bound = operations / max(matrices, convolutions)
    print(
        f"{operations / 1e9:.0f} GFLOP take {bound:.3f} s at least: {bound / seconds:.0%} of a step"
    )


if __name__ == "__main__":
    main()

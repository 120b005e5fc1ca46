"""What do gradients as other products of matrices make of a training step? (models/products.py)

    python benchmarks/products.py [--model alexnet] [--batch 16] [--rounds 20] [--precision fp32]

One process holds two trainings of the network, with our layers and with Keras' own in their place,
and makes a step of each in every round, in turns. Seconds of a step are medians; the ratios are the
medians of the rounds' ratios, with the 2.5 and 97.5 per cent of 10,000 bootstrap samples of the
rounds. Then every fully connected layer's gradient of its inputs by itself, the shortest of 15
calls: as one product of matrices, which is what TensorFlow does, and as a batch of one product.
MODEL is a name that `runtest -m` takes, or `alexnet_tf_cnn` (peer_networks.py).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

sys.path.insert(0, str(Path(__file__).parent.parent))

import peer_networks
from limits import best
from precision import engine, in_turns

from models.products import FullyConnected, PointwiseConv2D

WAYS = ("Keras' layers", "ours")


@contextmanager
def keras_gradients() -> Iterator[None]:
    """Our layers do what Keras' do while a graph is made inside."""
    call, convolution = FullyConnected.call, PointwiseConv2D.convolution_op
    FullyConnected.call = keras.layers.Dense.call
    PointwiseConv2D.convolution_op = keras.layers.Conv2D.convolution_op
    try:
        yield
    finally:
        FullyConnected.call, PointwiseConv2D.convolution_op = call, convolution


def print_connected(model: Any, batch: int) -> None:
    """The gradients of the inputs of all fully connected layers."""
    for layer in model.layers:
        if not isinstance(layer, keras.layers.Dense):
            continue
        kernel = tf.random.normal(layer.kernel.shape)
        back = tf.random.normal((batch, layer.units))
        one = tf.function(lambda b, k: tf.matmul(b, k, transpose_b=True), autograph=False)
        found = [
            best(lambda one=one, b=back, k=kernel: one(b, k), 15),
            best(lambda one=one, b=back[None], k=kernel[None]: one(b, k), 15),
        ]
        shape = " × ".join(map(str, kernel.shape))
        print(
            f"  {layer.name}, {shape}: a product {found[0] * 1e3:.2f} ms, a batch of one "
            f"{found[1] * 1e3:.2f} ms ({found[0] / found[1]:.1f} times)"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="alexnet")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--precision", default="fp32")
    asked = parser.parse_args()
    peer_networks.make_known()
    with keras_gradients():
        plain = engine(asked.model, asked.batch, asked.precision)
    own = engine(asked.model, asked.batch, asked.precision)
    found = in_turns([plain, own], asked.rounds)
    print(f"{asked.model}, batch {asked.batch}, {asked.precision}, {asked.rounds} rounds")
    for way, (wall, processor) in zip(WAYS, np.median(found, axis=0), strict=True):
        print(f"{way:14} {wall:.4f} s a step, {processor:.4f} s of processor time")
    ratios = found[:, 0] / found[:, 1]
    chosen = np.random.default_rng(1).integers(asked.rounds, size=(10_000, asked.rounds))
    low, high = np.quantile(np.median(ratios[chosen], axis=1), [0.025, 0.975], axis=0)
    middle = np.median(ratios, axis=0)
    for place, of in enumerate(("steps", "processor time")):
        print(f"{of}: {middle[place]:.3f} (95 %: {low[place]:.3f} to {high[place]:.3f})")
    print_connected(own.model, asked.batch)


if __name__ == "__main__":
    main()

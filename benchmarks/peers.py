"""How fast do we train on one device, beside others' programs on the same machine?

    python benchmarks/peers.py --tf-cnn-benchmarks DIR [--tf-cnn-python PATH]
        [--model resnet50|inceptionv3] [--batch 16] [--steps 10] [--rounds 5]

Each round runs one after the other, the order turned each time: `runtest --strategy single`, a
plain Keras `fit` of the network in keras.applications, and, where DIR is given, tf_cnn_benchmarks
(the folder scripts/tf_cnn_benchmarks of the public repository tensorflow/benchmarks, which we never
copy; with Keras 3 it wants an interpreter that has `tf_keras`). All train fp32 on synthetic images
in NHWC with the same batch, and report images/sec of their steps after the warm-up themselves. CPU
seconds are those of the whole command, its start included, over the images of all its steps.
Ratios are those of the medians; their intervals are the 2.5 and 97.5 per cent of 10,000 bootstrap
samples of the rounds. Exit status 1 where a bar of ours is not reached.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

WARMUP = 3
RUNTEST = str(Path(sys.executable).parent / "runtest")
OURS, KERAS, PEER = "runtest", "keras fit", "tf_cnn_benchmarks"
# The peer's name of each network, keras.applications' name and its pixels, and our bars.
NAMES = {
    "resnet50": ("resnet50", "ResNet50", 224, {KERAS: 1.6, PEER: 1.15}),
    "inceptionv3": ("inception3", "InceptionV3", 299, {PEER: 1.1}),
}
FIT = """
import sys, time
import keras, numpy as np, tensorflow as tf
name, size, batch, warmup, steps = sys.argv[1], *map(int, sys.argv[2:])
model = getattr(keras.applications, name)(weights=None)
model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "sparse_categorical_crossentropy")
images = np.random.default_rng(1).random((batch, size, size, 3), np.float32)
labels = np.random.default_rng(2).integers(1000, size=batch)
data = tf.data.Dataset.from_tensors((images, labels)).repeat(warmup + steps).prefetch(2)
ends = []
class Clock(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        ends.append(time.perf_counter())
model.fit(data, epochs=1, verbose=0, callbacks=[Clock()])
print("images/sec", batch * steps / (ends[-1] - ends[warmup - 1]))
"""


@dataclass(frozen=True)
class Asked:
    """What is run: `model` is our name of it."""

    model: str
    batch: int
    steps: int
    tf_cnn: Path | None
    tf_cnn_python: str


def child(argv: list[str], cwd: str, **environment: str) -> tuple[str, float]:
    """Standard output and errors of a command, and the CPU seconds that it took."""
    before = os.times()
    done = subprocess.run(
        argv,
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    after = os.times()
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)[:200]} failed:\n{done.stderr[-2000:]}")
    used = after.children_user + after.children_system
    return done.stdout, used - before.children_user - before.children_system


def ours(asked: Asked, folder: str) -> tuple[float, float]:
    """Images/sec and CPU seconds."""
    counts = ["-b", str(asked.batch), "--steps", str(asked.steps), "--warmup", str(WARMUP)]
    argv = [RUNTEST, "-m", asked.model, "--strategy", "single", "--device", "cpu", *counts]
    said, used = child([*argv, "--json"], folder)
    return float(json.loads(said)["images_per_sec"]), used


def keras_fit(asked: Asked, folder: str) -> tuple[float, float]:
    """Images/sec and CPU seconds."""
    _, name, size, _ = NAMES[asked.model]
    numbers = map(str, (size, asked.batch, WARMUP, asked.steps))
    said, used = child([sys.executable, "-c", FIT, name, *numbers], folder)
    return float(said.split()[-1]), used


def tf_cnn(asked: Asked, folder: str) -> tuple[float, float]:
    """Images/sec and CPU seconds."""
    assert asked.tf_cnn is not None
    options = {
        "model": NAMES[asked.model][0],
        "device": "cpu",
        "data_format": "NHWC",
        "batch_size": asked.batch,
        "num_batches": asked.steps,
        "num_warmup_batches": WARMUP,
        "display_every": asked.steps,
        "optimizer": "momentum",
    }
    argv = [asked.tf_cnn_python, str(asked.tf_cnn / "tf_cnn_benchmarks.py")]
    argv += [f"--{name}={value}" for name, value in options.items()]
    said, used = child(argv, folder, TF_USE_LEGACY_KERAS="1")
    found = re.search(r"total images/sec: ([\d.]+)", said)
    if found is None:
        raise SystemExit(f"tf_cnn_benchmarks said no speed:\n{said[-2000:]}")
    return float(found[1]), used


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=sorted(NAMES), default="resnet50")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tf-cnn-benchmarks", type=Path)
    parser.add_argument("--tf-cnn-python", default=sys.executable)
    given = parser.parse_args()
    path = given.tf_cnn_benchmarks
    asked = Asked(
        given.model, given.batch, given.steps, path and path.absolute(), given.tf_cnn_python
    )
    programs: dict[str, Callable[[Asked, str], tuple[float, float]]] = {OURS: ours}
    programs[KERAS] = keras_fit
    if asked.tf_cnn is not None:
        programs[PEER] = tf_cnn
    else:
        print("tf_cnn_benchmarks: not compared, because --tf-cnn-benchmarks does not say where")
    names = list(programs)
    found = np.zeros((given.rounds, len(names), 2))
    with tempfile.TemporaryDirectory() as folder:
        for number in range(given.rounds):
            for place in range(len(names)) if number % 2 else reversed(range(len(names))):
                found[number, place] = programs[names[place]](asked, folder)
    if not report(asked, names, found):
        raise SystemExit(1)


def report(asked: Asked, names: list[str], found: np.ndarray) -> bool:
    """Print a table; returns whether all bars are reached. found: (rounds, programs, 2)."""
    rounds = len(found)
    images = asked.batch * (asked.steps + WARMUP)
    print(f"{asked.model}, batch {asked.batch}, {asked.steps} steps, {rounds} rounds")
    for place, name in enumerate(names):
        speeds, used = found[:, place, 0], np.median(found[:, place, 1])
        print(
            f"{name:18} {np.median(speeds):8.2f} images/sec ({speeds.min():.2f} to "
            f"{speeds.max():.2f}), {used / images:.3f} CPU seconds an image"
        )
    chosen = np.random.default_rng(1).integers(rounds, size=(10_000, rounds))
    medians = np.median(found[chosen][..., 0], axis=1)
    enough = True
    for place, name in enumerate(names[1:], 1):
        ratio = float(np.median(found[:, 0, 0]) / np.median(found[:, place, 0]))
        low, high = np.quantile(medians[:, 0] / medians[:, place], [0.025, 0.975])
        bar = NAMES[asked.model][3].get(name)
        aim = f", at least {bar} is asked for" if bar else ""
        print(f"{OURS} against {name}: {ratio:.2f} times ({low:.2f} to {high:.2f}){aim}")
        enough = enough and (bar is None or ratio >= bar)
    return enough


if __name__ == "__main__":
    main()

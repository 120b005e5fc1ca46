"""How fast do we train on one device, beside others' programs on the same machine?

    python benchmarks/peers.py --tf-cnn-benchmarks DIR [--tf-cnn-python PATH]
        [--model resnet50|inceptionv3|alexnet] [--batch 16] [--steps 10] [--rounds 5]

Each round runs one after the other, the order turned each time: `runtest --strategy single`, a
plain Keras `fit` of the network in keras.applications, and, where DIR is given, tf_cnn_benchmarks
(the folder scripts/tf_cnn_benchmarks of the public repository tensorflow/benchmarks, which we never
copy; with Keras 3 it wants an interpreter that has `tf_keras`). All train fp32 on synthetic images
in NHWC with the same batch by gradient descent without weight decay, and report images/sec of their
steps after the warm-up themselves. CPU seconds are those of the whole command, its start included,
over the images of all its steps. `alexnet` is here the network that tf_cnn_benchmarks calls so
(peer_networks.py), in a copy of our program that knows it; Keras has none.
Ratios are those of the medians; their intervals are the 2.5 and 97.5 per cent of 10,000 bootstrap
samples of the rounds. Exit status 1 where a bar of ours is not reached.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

WARMUP = 3
ROOT = Path(__file__).parent.parent
OURS, KERAS, PEER = "runtest", "keras fit", "tf_cnn_benchmarks"
TF_CNN_ENVIRONMENT = {"TF_USE_LEGACY_KERAS": "1"}
# Our name of each network, the peer's, keras.applications' and its pixels, and our bars.
NAMES = {
    "resnet50": ("resnet50", "resnet50", "ResNet50", 224, {KERAS: 1.6, PEER: 1.15}),
    "inceptionv3": ("inceptionv3", "inception3", "InceptionV3", 299, {PEER: 1.1}),
    "alexnet": ("alexnet_tf_cnn", "alexnet", "", 227, {PEER: 1.1}),
}
FIT = """
import sys, time
import keras, numpy as np, tensorflow as tf
name, size, batch, warmup, steps = sys.argv[1], *map(int, sys.argv[2:])
model = getattr(keras.applications, name)(weights=None)
model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
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


def make_program(folder: str) -> None:
    """A copy of our program that knows the peer's networks, too, and is found from this folder."""
    for package in ("launcher", "perftest", "models"):
        ignored = shutil.ignore_patterns("*.pyc")
        shutil.copytree(ROOT / package, Path(folder) / package, ignore=ignored)
    shutil.copy(Path(__file__).with_name("peer_networks.py"), Path(folder) / "models")


def runtest(asked: Asked, folder: str, *options: object) -> tuple[dict[str, Any], float]:
    """The row of a run of our program, and its CPU seconds."""
    program = [sys.executable, "-c", "from launcher.cli import main; main()"]
    counts = ["-b", asked.batch, "--steps", asked.steps, "--warmup", WARMUP]
    argv = [*program, "-m", NAMES[asked.model][0], "--device", "cpu", *counts, *options, "--json"]
    said, used = child([*map(str, argv)], folder)
    return json.loads(said), used


def ours(asked: Asked, folder: str) -> tuple[float, float]:
    """Images/sec and CPU seconds."""
    row, used = runtest(asked, folder, "--strategy", "single")
    return float(row["images_per_sec"]), used


def keras_fit(asked: Asked, folder: str) -> tuple[float, float]:
    """Images/sec and CPU seconds."""
    _, _, name, size, _ = NAMES[asked.model]
    numbers = map(str, (size, asked.batch, WARMUP, asked.steps))
    said, used = child([sys.executable, "-c", FIT, name, *numbers], folder)
    return float(said.split()[-1]), used


def tf_cnn(asked: Asked, folder: str) -> tuple[float, float]:
    """Images/sec and CPU seconds."""
    said, used = child(tf_cnn_command(asked), folder, **TF_CNN_ENVIRONMENT)
    return tf_cnn_speed(said), used


def tf_cnn_command(asked: Asked, **more: object) -> list[str]:
    """tf_cnn_benchmarks with the same network, batch and optimizer, and with more options."""
    assert asked.tf_cnn is not None
    options = {
        "model": NAMES[asked.model][1],
        "device": "cpu",
        "data_format": "NHWC",
        "batch_size": asked.batch,
        "num_batches": asked.steps,
        "num_warmup_batches": WARMUP,
        "display_every": asked.steps,
        "optimizer": "sgd",
        "weight_decay": 0,
        **more,
    }
    script = str(asked.tf_cnn / "tf_cnn_benchmarks.py")
    return [asked.tf_cnn_python, script, *(f"--{name}={value}" for name, value in options.items())]


def tf_cnn_speed(said: str) -> float:
    """Images/sec of all its workers, from what one of them printed."""
    found = re.search(r"total images/sec: ([\d.]+)", said)
    if found is None:
        raise SystemExit(f"tf_cnn_benchmarks said no speed:\n{said[-2000:]}")
    return float(found[1])


def arguments(models: Sequence[str]) -> argparse.ArgumentParser:
    """What this and peers_cluster.py are told."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=models, default="resnet50")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tf-cnn-benchmarks", type=Path)
    parser.add_argument("--tf-cnn-python", default=sys.executable)
    return parser


def asked_for(given: argparse.Namespace) -> Asked:
    """The same for one run."""
    path = given.tf_cnn_benchmarks
    tf_cnn = path and path.absolute()
    return Asked(given.model, given.batch, given.steps, tf_cnn, given.tf_cnn_python)


def in_turns(
    programs: Mapping[str, Callable[[Asked, str], tuple[float, float]]], asked: Asked, rounds: int
) -> np.ndarray:
    """(rounds, programs, 2): what each program gave in each round, the order turned each time."""
    names = list(programs)
    found = np.zeros((rounds, len(names), 2))
    with tempfile.TemporaryDirectory() as folder:
        make_program(folder)
        for number in range(rounds):
            for place in range(len(names)) if number % 2 else reversed(range(len(names))):
                found[number, place] = programs[names[place]](asked, folder)
    return found


def main() -> None:
    """Measure and print."""
    given = arguments(sorted(NAMES)).parse_args()
    asked = asked_for(given)
    programs: dict[str, Callable[[Asked, str], tuple[float, float]]] = {OURS: ours}
    if NAMES[asked.model][2]:
        programs[KERAS] = keras_fit
    if asked.tf_cnn is not None:
        programs[PEER] = tf_cnn
    else:
        print("tf_cnn_benchmarks: not compared, because --tf-cnn-benchmarks does not say where")
    found = in_turns(programs, asked, given.rounds)
    print(f"{asked.model}, batch {asked.batch}, {asked.steps} steps, {given.rounds} rounds")
    images = asked.batch * (asked.steps + WARMUP)
    for place, name in enumerate(programs):
        speeds, used = found[:, place, 0], np.median(found[:, place, 1])
        print(
            f"{name:18} {np.median(speeds):8.2f} images/sec ({speeds.min():.2f} to "
            f"{speeds.max():.2f}), {used / images:.3f} CPU seconds an image"
        )
    if not compare(list(programs), found[..., 0], NAMES[asked.model][4]):
        raise SystemExit(1)


def compare(names: list[str], found: np.ndarray, bars: Mapping[str, float]) -> bool:
    """Print the first program's speed as a multiple of each other's; returns whether all bars are
    reached. found: (rounds, programs).
    """
    chosen = np.random.default_rng(1).integers(len(found), size=(10_000, len(found)))
    medians = np.median(found[chosen], axis=1)
    enough = True
    for place, name in enumerate(names[1:], 1):
        ratio = float(np.median(found[:, 0]) / np.median(found[:, place]))
        low, high = np.quantile(medians[:, 0] / medians[:, place], [0.025, 0.975])
        bar = bars.get(name)
        aim = f", at least {bar} is asked for" if bar else ""
        print(f"{names[0]} against {name}: {ratio:.2f} times ({low:.2f} to {high:.2f}){aim}")
        enough = enough and (bar is None or ratio >= bar)
    return enough


if __name__ == "__main__":
    main()

"""What do fewer bits, and XLA, make of a training step's processor time?

    python benchmarks/precision.py [--model resnet50] [--batch 16] [--rounds 8] [--ways fp32,bf16]

One process holds a training for each way (`bf16`, `fp32+xla` ...) and makes a step of each in
every round, in turns. Processor and wall seconds of a step are medians; the ratios to the first
way are those of processor time, because other programs take from wall time, with the 2.5 and 97.5
per cent of 10,000 bootstrap samples of the rounds. What a processor has for fewer bits decides:
its flags are printed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from perftest import training
from perftest.inputs import Input
from perftest.protocol import Cluster, Job, Place
from perftest.strategies.single import Single

FLAGS = ("avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_fp16")


def engine(model: str, batch: int, way: str) -> Single:
    """A training that has made its first two steps."""
    precision, _, xla = way.partition("+")
    job = Job(
        model=model,
        strategy="single",
        batch_size=batch,
        warmup_steps=0,
        measured_steps=0,
        synchronous=True,
        aggregate=1,
        precision=precision,
        learning_rate=0.01,
        seed=1,
        cluster=Cluster((), ("127.0.0.1:1",)),
        xla=xla == "xla",
    )
    network = training.build_model(job)
    batches = Input(job, Place("worker", 0, (), None), network)
    made = Single(job, network, batches, "/device:CPU:0")
    made.step()
    made.step()
    return made


def in_turns(engines: Sequence[Single], rounds: int) -> np.ndarray:
    """(rounds, engines, 2): wall and processor seconds of a step, the order turned each time."""
    found = np.zeros((rounds, len(engines), 2))
    for number in range(rounds):
        for place in range(len(engines)) if number % 2 else reversed(range(len(engines))):
            wall, processor = time.perf_counter(), time.process_time()
            engines[place].step()
            found[number, place] = time.perf_counter() - wall, time.process_time() - processor
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--ways", default="fp32,bf16")
    asked = parser.parse_args()
    ways = asked.ways.split(",")
    engines = [engine(asked.model, asked.batch, way) for way in ways]
    found = in_turns(engines, asked.rounds)
    has = Path("/proc/cpuinfo").read_text().split()
    print(f"{asked.model}, batch {asked.batch}; {', '.join(f for f in FLAGS if f in has)}")
    chosen = np.random.default_rng(1).integers(asked.rounds, size=(10_000, asked.rounds))
    middle, spread = np.median(found, axis=0), np.median(found[chosen], axis=1)
    for place, way in enumerate(ways):
        ratio = middle[0, 1] / middle[place, 1]
        low, high = np.quantile(spread[:, 0, 1] / spread[:, place, 1], [0.025, 0.975])
        print(
            f"{way}: {middle[place, 1]:.2f} s of processor time, {middle[place, 0]:.2f} s of wall "
            f"a step; {ratio:.2f} × {ways[0]} (95 %: {low:.2f} to {high:.2f})"
        )


if __name__ == "__main__":
    main()

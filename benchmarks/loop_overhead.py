"""What does the timed loop cost? The measured step beside the same step in a bare loop.

    python benchmarks/loop_overhead.py [--model deepmnist] [--batch 32] [--steps 40] [--rounds 60]

One process makes the steps of one training in turns: `--steps` of them in the loop that measures
(times, processor seconds, losses; messages to another process through a pipe, as an agent's), then
as many in `for _ in range(steps): float(update())`. The ratio is the median of the rounds' ratios
of wall time, its interval the 2.5 and 97.5 per cent of 10,000 bootstrap samples of the rounds.
Because what is looked for is less than what a shared machine varies by, the loop is also run with
steps that do nothing: its microseconds, as a share of the step. Exit status 1 above 1 %.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from precision import engine

from perftest.measure import StepResult, measure
from perftest.task import AgentLink

MOST = 0.01
EMPTY_STEPS = 20_000


def seconds(run: Callable[[], None]) -> float:
    """Wall time."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="deepmnist")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=60)
    asked = parser.parse_args()
    trained = engine(asked.model, asked.batch, "fp32")
    update = trained._update  # what `step` wraps
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as listener:
        assert listener.stdin is not None
        link = AgentLink(io.BytesIO(), listener.stdin.fileno())

        def timed() -> None:
            measure(trained.step, asked.steps, 0, True, link.steps)

        def bare() -> None:
            for _ in range(asked.steps):
                float(update())

        def empty() -> None:
            nothing = StepResult(0.0, 0)
            measure(lambda: nothing, EMPTY_STEPS, 0, True, link.steps)

        found = np.zeros((asked.rounds, 2))
        for number in range(asked.rounds):
            for place in (0, 1) if number % 2 else (1, 0):
                found[number, place] = seconds((bare, timed)[place])
        alone = min(seconds(empty) for _ in range(5)) / EMPTY_STEPS
        listener.stdin.close()
    ratios = found[:, 1] / found[:, 0]
    chosen = np.random.default_rng(1).integers(len(ratios), size=(10_000, len(ratios)))
    low, high = np.quantile(np.median(ratios[chosen], axis=1), [0.025, 0.975])
    step = float(np.median(found[:, 0])) / asked.steps
    ratio = float(np.median(ratios))
    print(f"{asked.model}, batch {asked.batch}: {asked.rounds} rounds of {asked.steps} steps")
    print(f"bare {step * 1e3:.3f} ms a step; measured ÷ bare {ratio:.4f} ({low:.4f} to {high:.4f})")
    print(f"the loop alone: {alone * 1e6:.2f} µs a step, {alone / step:.3%} of it")
    if max(ratio - 1, alone / step) > MOST:
        raise SystemExit(f"more than {MOST:.0%} of the step")


if __name__ == "__main__":
    main()

"""How much sooner is TensorFlow imported without what a task never uses of it?

    python benchmarks/quick_import.py [--rounds 7]

Each round starts a process for each of three imports, in turns, the order turned each time: the
whole of it (`import tensorflow`), a worker's, and a parameter server's (perftest/quick_import.py).
Seconds of wall and of processor time, medians; the ratios' intervals are the 2.5 and 97.5 per cent
of 10,000 bootstrap samples of the rounds. Where neither scikit-learn nor pandas is installed, a
worker's import is the whole one: what is there is printed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
IMPORTS = {
    "whole": "import tensorflow",
    "worker": (
        "from perftest.quick_import import FOR_A_WORKER, without\n"
        "with without(FOR_A_WORKER):\n    import tensorflow"
    ),
    "server": (
        "from perftest.quick_import import FOR_A_SERVER, without\n"
        "with without(FOR_A_SERVER):\n    import tensorflow"
    ),
}


def once(code: str) -> tuple[float, float]:
    """Wall and processor seconds of a process that runs this."""
    before, began = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    after = os.times()
    used = after.children_user + after.children_system
    return time.perf_counter() - began, used - before.children_user - before.children_system


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    there = [n for n in ("sklearn", "pandas", "keras") if importlib.util.find_spec(n)]
    print(f"installed: {', '.join(there)}")
    names = list(IMPORTS)
    found = np.zeros((rounds, len(names), 2))
    once(IMPORTS["whole"])  # the files are in memory from here on
    for number in range(rounds):
        for place in range(len(names)) if number % 2 else reversed(range(len(names))):
            found[number, place] = once(IMPORTS[names[place]])
    chosen = np.random.default_rng(1).integers(rounds, size=(10_000, rounds))
    middle, spread = np.median(found, axis=0), np.median(found[chosen], axis=1)
    for place, name in enumerate(names):
        low, high = np.quantile(spread[:, place, 1] / spread[:, 0, 1], [0.025, 0.975])
        ratio = middle[place, 1] / middle[0, 1]
        print(
            f"{name}: {middle[place, 0]:.2f} s, {middle[place, 1]:.2f} s of processor time, "
            f"{ratio:.2f} of the whole (95 %: {low:.2f} to {high:.2f})"
        )


if __name__ == "__main__":
    main()

"""Does reading hold up training? HEP-CNN 64 from HDF5 files against synthetic images.

    python benchmarks/input_training.py [--rounds 4] [--steps 20] [--batch 32]

Makes the events, then runs `runtest --strategy single` with the one and the other in turns, the
order turned each time, and compares the images per second that the runs themselves report. The
ratio is that of the medians; all rounds are printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

LEAST = 0.90
RUNTEST = str(Path(sys.executable).parent / "runtest")


def speed(folder: str, steps: int, batch: int, data: list[str]) -> float:
    """Images per second of one run."""
    argv = ["-m", "hep_cnn_64", "--strategy", "single", "-b", str(batch), "--steps", str(steps)]
    done = subprocess.run(
        [RUNTEST, *argv, "--warmup", "3", "--device", "cpu", "--json", *data],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(json.loads(done.stdout)["images_per_sec"])


def main() -> None:
    """Measure; the exit status is 1 where the ratio is too low."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=32)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = [RUNTEST, "make-data", "hep", "--samples", "4000", "events"]
        subprocess.run(made, cwd=folder, check=True)
        found: dict[str, list[float]] = {"hdf5": [], "synthetic": []}
        options = {"hdf5": ["--data", "hdf5:events"], "synthetic": []}
        for number in range(asked.rounds):
            for name in sorted(found, reverse=bool(number % 2)):
                found[name].append(speed(folder, asked.steps, asked.batch, options[name]))
    for name, speeds in found.items():
        each = ", ".join(f"{value:.1f}" for value in speeds)
        print(f"{name}: median {statistics.median(speeds):.1f} images/sec ({each})")
    ratio = statistics.median(found["hdf5"]) / statistics.median(found["synthetic"])
    print(f"ratio {ratio:.3f}, at least {LEAST} is asked for")
    if ratio < LEAST:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

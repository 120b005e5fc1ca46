"""Does reading hold up training? HEP-CNN 64 from HDF5 files against synthetic images.

    python benchmarks/input_training.py [--rounds 5]

Makes 4,000 events, 3,200 of them to train on, then runs `runtest --strategy single` with the one
and the other in turns, the order turned each time, and compares the images per second that the
runs themselves report. The ratio is that of the medians; all rounds are printed. 5 rounds take
about 5 minutes on two cores that train 250 images/sec.

What is read while it is measured: a window is 2,048 images (96 MiB), and before the first batch two
are asked for, here those of a whole epoch of 100 steps (2,048 and 1,152 images). Nothing is kept of
an epoch: each reads all files again (perftest/data/pipeline.py), and asks for its first two windows
when the one before hands out its last batches. So a run from files warms up for 90 steps, which use
up most of what was read beforehand, and counts the next 200: the reading of two epochs, four
windows, falls into them, as many images as they train on. A run on synthetic images reads nothing,
and needs no such warm-up.

The files were just written and are read again and again: they come from the page cache. How fast a
disk gives them is for benchmarks/input_speed.py; 250 images/sec are 12 MB/s.
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
SAMPLES, BATCH = 4000, 32
# Warm-up and measured steps: an epoch of the files is 100.
STEPS = {"hdf5": (90, 200), "synthetic": (10, 100)}
DATA = {"hdf5": ["--data", "hdf5:events"], "synthetic": []}
RUNTEST = str(Path(sys.executable).parent / "runtest")


def speed(folder: str, name: str) -> float:
    """Images per second of one run."""
    warmup, steps = STEPS[name]
    argv = ["-m", "hep_cnn_64", "--strategy", "single", "-b", str(BATCH), "--device", "cpu"]
    done = subprocess.run(
        [RUNTEST, *argv, "--warmup", str(warmup), "--steps", str(steps), "--json", *DATA[name]],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(json.loads(done.stdout)["images_per_sec"])


def main() -> None:
    """Measure; the exit status is 1 where the ratio is too low."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = [RUNTEST, "make-data", "hep", "--samples", str(SAMPLES), "events"]
        subprocess.run(made, cwd=folder, check=True)
        found: dict[str, list[float]] = {"hdf5": [], "synthetic": []}
        for number in range(asked.rounds):
            for name in sorted(found, reverse=bool(number % 2)):
                found[name].append(speed(folder, name))
    for name, speeds in found.items():
        each = ", ".join(f"{value:.1f}" for value in speeds)
        print(f"{name}: median {statistics.median(speeds):.1f} images/sec ({each})")
    ratio = statistics.median(found["hdf5"]) / statistics.median(found["synthetic"])
    print(f"ratio {ratio:.3f}, at least {LEAST} is asked for")
    if ratio < LEAST:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

"""Do the shipped configurations learn, from made data, on this machine?

    python benchmarks/learning.py [hep] [mnist]

`hep`: `runtest make-data hep` with 20,000 images of 64 × 64, three epochs of `runtest train` by
configs/hep_cnn_64_cpu.json with two workers, `runtest evaluate`: the area under the ROC curve on
the test files is to be over 0.8, and below 0.99, because data that is told apart without a mistake
teaches nothing. `mnist`: `make-data mnist` with 70,000 digits, five epochs by
configs/deepmnist.json, and an accuracy of 0.99 on the test files. Minutes are those of making,
training and testing together. Exit status 1 where one is not reached.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
RUNTEST = str(Path(sys.executable).parent / "runtest")
# What makes the data, the configuration, options of training; the figure that is looked at, and
# what lies between which bounds.
CASES = {
    "hep": (
        ("hep", "--size", "64", "--samples", "20000", "data/hep_64"),
        "hep_cnn_64_cpu.json",
        ("-g", "2", "--epochs", "3"),
        ("auc", 0.80, 0.99),
    ),
    "mnist": (("mnist", "data/mnist"), "deepmnist.json", (), ("accuracy", 0.99, 1.0)),
}


def runtest(folder: str, *words: str) -> str:
    """Standard output of a command of ours."""
    done = subprocess.run(
        [RUNTEST, *words], cwd=folder, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"runtest {' '.join(words)} ended with {done.returncode}")
    return done.stdout


def learn(name: str) -> bool:
    """Make data, train and test; print what came of it. Whether it is enough."""
    make, config, options, (column, least, most) = CASES[name]
    path = str(ROOT / "configs" / config)
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        runtest(folder, "make-data", *make)
        runtest(folder, "train", "--config", path, *options)
        said = json.loads(runtest(folder, "evaluate", "--config", path, "--json"))
        seconds = time.monotonic() - began
    (row,) = said["metrics"]
    found = float(row[column])
    print(
        f"{name}: {column} {found:.4f} on {row['samples']} test samples after epoch "
        f"{row['epoch']}, weighted accuracy {row['weighted_accuracy']:.4f}, "
        f"{seconds / 60:.1f} minutes; {least} to {most} is asked for"
    )
    return least <= found <= most


def main() -> None:
    """Learn, and judge."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="*", metavar="hep|mnist", help="[default: both]")
    asked = parser.parse_args()
    enough = {name: learn(name) for name in asked.what or CASES}
    if not all(enough.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

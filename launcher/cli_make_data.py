"""`runtest make-data`: data of the real formats, for those who have none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click

from launcher import payload
from launcher.errors import RunTestError, UsageError

_python = click.option(
    "--python",
    metavar="PATH",
    default=sys.executable,
    help="Interpreter of this machine that has NumPy (and h5py for hep). [default: runtest's own]",
)
_seed = click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=1,
    show_default=True,
    help="The same seed makes the same data.",
)
_out = click.argument("out", type=click.Path(path_type=Path, file_okay=False))


@click.group(name="make-data")
def make_data() -> None:
    """Make data of the real formats, for those who have none.

    \b
    runtest make-data hep --size 64 --samples 20000 data/hep_64
    runtest make-data mnist data/mnist
    """


@make_data.command()
@_out
@click.option(
    "--size",
    type=click.IntRange(8, 1024),
    default=64,
    show_default=True,
    help="Pixels of each side: 64 for hep_cnn_64, 224 for hep_cnn_224.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=20),
    default=20_000,
    show_default=True,
    help="Events in all; a tenth each is for validation and testing.",
)
@_seed
@_python
def hep(out: Path, size: int, samples: int, seed: int, python: str) -> None:
    """HDF5 files of images of a calorimeter, signal and background."""
    _make("make_hep", out, python, f"--size={size}", f"--samples={samples}", f"--seed={seed}")


@make_data.command()
@_out
@click.option(
    "--samples",
    type=click.IntRange(min=100),
    default=70_000,
    show_default=True,
    help="Digits in all; a seventh is for testing.",
)
@_seed
@_python
def mnist(out: Path, samples: int, seed: int, python: str) -> None:
    """The four idx files of MNIST, of drawn digits."""
    _make("make_mnist", out, python, f"--samples={samples}", f"--seed={seed}")


def _make(program: str, out: Path, python: str, *options: str) -> None:
    """Run one of the node's programs here: the launcher itself imports nothing that makes data."""
    _make_folder(out)
    command = [python, "-m", f"perftest.data.{program}", *options, "--", str(out.absolute())]
    try:
        done = subprocess.run(
            command,
            check=False,
            cwd=payload.source_folder("perftest"),  # and not a folder "perftest" of the user's
            stdin=subprocess.DEVNULL,
        )
    except OSError as error:
        raise UsageError(f"--python {python}: {error.strerror}", "--python PATH") from error
    if done.returncode:
        raise RunTestError(
            f"no data was made (exit status {done.returncode})",
            "the reason above; --python PATH of an interpreter with NumPy and h5py",
        )


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"no data can be made in {out}: {error.strerror}", "another folder"
        ) from None
    if not os.access(out, os.W_OK | os.X_OK):
        raise UsageError(f"no data can be made in {out}: Permission denied", "another folder")

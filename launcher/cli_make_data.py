"""`runtest make-data`: data of the real formats, for those who have none."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from launcher import making

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
    making.make_data("hep", out, python, size=size, samples=samples, seed=seed)


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
    making.make_data("mnist", out, python, samples=samples, seed=seed)

"""The options that say where the images come from, and what they become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from launcher.errors import UsageError
from launcher.tasks import INPUT_ONLY, PARAMETER_SERVER_STRATEGY
from perftest.protocol import SYNTHETIC, Data

# The files of perftest/data that read a directory; tests/test_data_command.py holds them equal.
KINDS = ("hdf5", "mnist", "tfrecord")

OPTIONS = (
    click.option(
        "--data",
        "data",
        metavar="KIND:DIR",
        default="",
        help="Train on real images: hdf5:DIR, mnist:DIR or tfrecord:DIR, a directory that every "
        "node has. [default: synthetic images]",
    ),
    click.option(
        "--dummy-data", is_flag=True, help="Synthetic images, whatever else; the default."
    ),
    click.option(
        "--stage",
        metavar="DIR",
        default="",
        help="Copy the data to DIR, a fast disk of each node, and read it from there.",
    ),
    click.option(
        "--input-only", is_flag=True, help="Measure how fast batches are read, and train on none."
    ),
)


def make_data(values: dict[str, Any]) -> Data:
    """The data that was asked for. Raises UsageError."""
    text, stage, input_only = values["data"], values["stage"], values["input_only"]
    if values["dummy_data"] and text:
        raise UsageError("--dummy-data and --data are two answers to one question", "one of them")
    if not text:
        if stage:
            raise UsageError("--stage has nothing to copy without --data", "--data hdf5:DIR")
        return Data(input_only=input_only)
    kind, colon, path = text.partition(":")
    if not colon or not path or kind not in KINDS:
        raise UsageError(
            f"--data {text[:80]!a} is not KIND:DIR with one of {', '.join(KINDS)}",
            "--data hdf5:/data/hep",
        )
    is_local = values["nodes_file"] is None
    return Data(
        kind=kind,
        path=located("--data", path, is_local),
        stage=located("--stage", stage, is_local) if stage else "",
        input_only=input_only,
    )


def located(option: str, path: str, is_local: bool) -> str:
    """An absolute path: on this machine, a relative one is so to where the command runs.

    Raises UsageError.
    """
    if not path.isprintable():
        raise UsageError(f"{option} {path[:80]!a} has characters that do not print")
    if is_local:
        return absolute(option, path)
    if path.startswith(("/", "~/")):
        return path
    raise UsageError(
        f"{option} {path[:80]!a} is relative, and a node knows no folder that it could be "
        "relative to",
        "a path that begins with / or ~/",
    )


def absolute(name: str, path: str) -> str:
    """The path on this machine; `name` is what messages call it. Raises UsageError."""
    try:
        return str(Path(path).expanduser().absolute())
    except RuntimeError as error:
        raise UsageError(
            f"{name} {path[:80]!a} begins with the name of a user without a home here",
            "a path that begins with / or ~/",
        ) from error


def make_strategy(values: dict[str, Any]) -> str:
    """The strategy that was asked for; reading alone is one of its own. Raises UsageError."""
    strategy: str = values["strategy"]
    if not values["input_only"]:
        return strategy
    if strategy != PARAMETER_SERVER_STRATEGY:
        raise UsageError(
            f"--input-only trains nothing, and --strategy {strategy} says how to train",
            "one of them",
        )
    return INPUT_ONLY


def data_label(data: Data) -> str:
    """What the column `data` of a log says; reading alone is never one line with training."""
    label = data.kind or SYNTHETIC
    return f"{label} (input only)" if data.input_only else label


def staged_from(data: Data) -> str:
    """What the column `staged_from` says: the directory that the workers read from."""
    return data.stage or data.path

"""Which files of a directory belong to which split, by their names."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from perftest.data.errors import DataError
from perftest.protocol import TEST, TRAIN, VALIDATION

_WORDS = {"train": TRAIN, "val": VALIDATION, "test": TEST}


def listed(path: str, kind: str) -> list[Path]:
    """The files of a data directory, sorted. Raises DataError where it cannot be read."""
    folder = Path(path).expanduser()
    try:
        return sorted(Path(entry.path) for entry in os.scandir(folder) if entry.is_file())
    except OSError as error:
        raise DataError(
            f"{folder}: {error.strerror or error}",
            f"{kind} data in a directory that every node has (--data {kind}:DIR, or --input DIR)",
        ) from error


def find(path: str, kind: str, suffixes: Sequence[str] = ()) -> dict[str, list[Path]]:
    """The files of each split, sorted: those with `train`, `val` or `test` in their names.

    Other files are left alone. Raises DataError where there is none, or a name says two things.
    """
    found: dict[str, list[Path]] = {TRAIN: [], VALIDATION: [], TEST: []}
    for file in listed(path, kind):
        if suffixes and file.suffix.lower() not in suffixes:
            continue
        splits = split_of(file.name)
        if len(splits) > 1:
            raise DataError(
                f"{file}: its name says {' and '.join(splits)}", "a name with one of them"
            )
        for split in splits:
            found[split].append(file)
    if not any(found.values()):
        what = f" ({', '.join(suffixes)})" if suffixes else ""
        raise DataError(
            f"{Path(path).expanduser()}: no {kind} files{what} with train, val or test "
            "in their names",
            f"--data {kind}:DIR, or --input DIR, with the directory of such files",
        )
    return found


def split_of(name: str) -> list[str]:
    """What a file's name says. A word that begins with `train`, `val` or `test` says more than
    one that has it inside: `latest_train.h5` is for training.
    """
    words = re.findall("[a-z]+", name.lower())
    for matches in (str.startswith, str.__contains__):
        if said := [s for part, s in _WORDS.items() if any(matches(word, part) for word in words)]:
            return said
    return []

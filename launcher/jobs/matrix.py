"""The combinations of a matrix of jobs, and what each of them is called. Opens nothing."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TypeVar

from launcher.errors import UsageError

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,39}\Z")
_COUNT = re.compile(r"[1-9][0-9]{0,3}\Z")
_MOST_JOBS = 1000


@dataclass(frozen=True)
class Place:
    """A directory of the nodes, and what it is called.

    directory: its path; empty where an environment variable of the job says it.
    """

    name: str
    directory: str = ""

    @property
    def variable(self) -> str:
        """scratch is $SCRATCH, and local $LOCAL, as clusters call them."""
        return re.sub(r"[^A-Z0-9_]", "_", self.name.upper())


@dataclass(frozen=True)
class Combination:
    """One job of a matrix; what was not asked for is empty, or 0."""

    gpu_type: str = ""
    gpus: int = 0
    place: Place | None = None

    def name(self, today: date, device: str, gpus: int) -> str:
        """`YYYY-MM-DD-<gpu type>:<gpus>:<staged from>`.

        device, gpus: what stands there for the type, and the number of each node, where the matrix
        does not say them.
        """
        staged = self.place.name if self.place else "none"
        return f"{today:%Y-%m-%d}-{self.gpu_type or device}:{self.gpus or gpus}:{staged}"


def make_matrix(gpu_types: str, gpus: str, places: str) -> tuple[Combination, ...]:
    """Each combination once, the last list turning fastest. Raises UsageError."""
    types = _each(gpu_types, _gpu_type) or [""]
    counts = _each(gpus, _gpus) or [0]
    staged: Sequence[Place | None] = _each(places, _place) or [None]
    total = len(types) * len(counts) * len(staged)
    if total > _MOST_JOBS:
        raise UsageError(f"a matrix of {total:,} jobs", f"at most {_MOST_JOBS:,} in one")
    found = tuple(Combination(*each) for each in itertools.product(types, counts, staged))
    names = {(c.gpu_type, c.gpus, c.place.name if c.place else "") for c in found}
    if len(names) < len(found):
        raise UsageError(f"--staged-from {places[:80]!a} has one name for two directories")
    return found


def _each(text: str, parse: Callable[[str], T]) -> list[T]:
    """What a list says, each once, in its order."""
    words = [word.strip() for word in text.split(",")] if text else []
    return list(dict.fromkeys(parse(word) for word in words))


def _gpu_type(word: str) -> str:
    if not _NAME.match(word):
        raise UsageError(f"--gpu-type: {word[:60]!a} is not the name of a type", "sinfo -o '%G %f'")
    return word


def _gpus(word: str) -> int:
    if not _COUNT.match(word):
        raise UsageError(f"--gpus: {word[:60]!a} is no number of GPUs of a node", "--gpus 1,2,4")
    return int(word)


def _place(word: str) -> Place:
    name, equals, directory = word.partition("=")
    if not _NAME.match(name) or name[0].isdigit():
        raise UsageError(
            f"--staged-from: {word[:60]!a} is neither NAME nor NAME=DIR", "--staged-from scratch"
        )
    if equals and not (directory.startswith("/") and directory.isprintable()):
        raise UsageError(
            f"--staged-from: {directory[:60]!a} is no path that means the same on all nodes",
            "one that begins with /",
        )
    return Place(name, directory)

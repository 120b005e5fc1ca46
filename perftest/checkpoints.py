"""What a training has learnt, on disk, to be taken up again or evaluated.

A checkpoint is one file `epoch-0003.npz` of NumPy's format: every array as it is in memory, and
`about`, a line of JSON. It knows nothing of workers or servers, so that any number of them can go
on from it. It is written beside its place, forced to the disk and renamed, so that whoever is
killed at any moment leaves either the whole file or none. ZIP's check sums tell a damaged one.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 1
BEST = "best"
_KEPT = 3
_NAME = re.compile(r"epoch-\d{4,}")
_PARTIAL = ".partial"
_OTHER_FOLDER = "--output with a folder that you may write in on that node"


class CheckpointError(Exception):
    """A checkpoint that cannot be written, or read, or is another network's; in one line."""


@dataclass(frozen=True)
class Values:
    """All that a training has learnt: of each variable its value, in the model's order.

    slots: what the optimizer keeps, name -> of each parameter.  state: what is not trained.
    updates: how many have been made.
    """

    parameters: list[Any]
    slots: dict[str, list[Any]]
    state: list[Any]
    updates: int = 0

    def spoiled(self) -> str:
        """Which of them are no numbers, in a few words; "" where all are some."""
        kinds = {"a parameter": self.parameters}
        kinds |= {f"{name!r} of the optimizer": arrays for name, arrays in self.slots.items()}
        kinds["a moving average"] = self.state
        # Whole numbers, as states of random numbers are, always pass.
        bad = (kind for kind, arrays in kinds.items() if not all(map(_is_finite, arrays)))
        return next(bad, "")


@dataclass(frozen=True)
class About:
    """What else a checkpoint says. epoch: epochs trained on.  score: the higher, the better."""

    epoch: int
    updates: int
    model: str
    optimizer: str
    seed: int
    score: float | None
    format: int = FORMAT


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has been read."""

    name: str
    about: About
    values: Values


def name_of(epoch: int) -> str:
    """The name of the checkpoint after so many epochs."""
    return f"epoch-{epoch:04d}"


class Checkpoints:
    """The checkpoints of one training, in `<output>/checkpoints`."""

    def __init__(self, output: str) -> None:
        self.folder = Path(output).expanduser() / "checkpoints"

    def names(self) -> list[str]:
        """All there are, oldest first."""
        found = {path.stem for path in self.folder.glob("epoch-*.npz")}
        return sorted((n for n in found if _NAME.fullmatch(n)), key=lambda n: int(n[6:]))

    def prepare(self, restart: bool) -> None:
        """Make the folder. Raises CheckpointError where it cannot be, or holds another training."""
        with _explained(self.folder, "cannot be made", mend=_OTHER_FOLDER):
            self.folder.mkdir(parents=True, exist_ok=True)
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise CheckpointError(f"{self.folder} cannot be written to. Try: {_OTHER_FOLDER}")
        if not restart and (names := self.names()):
            raise CheckpointError(
                f"{self.folder} holds {names[-1]} of an earlier training. Try: --restart to go on "
                "from it, or --output with another folder"
            )

    def save(self, values: Values, about: About) -> str:
        """Write a checkpoint and remove those that are no longer needed: all but the last three
        and the best. Returns its name. Raises CheckpointError.
        """
        name = name_of(about.epoch)
        path = self._path(name)
        partial = path.with_name(f".{name}{_PARTIAL}")
        about_line: Any = np.array(json.dumps(asdict(about)))
        arrays: dict[str, Any] = {**_arrays(values), "about": about_line}
        with _explained(path, "cannot be written"):
            with partial.open("wb") as file:
                np.savez(file, **arrays)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
            folder = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        self._prune()
        return name

    def find(self, name: str) -> str:
        """What `name` stands for: "" the newest, "best" the best. Raises CheckpointError."""
        names = self.names()
        if not names:
            raise CheckpointError(
                f"there is no checkpoint in {self.folder}. Try: runtest train first, or --output "
                "with the folder of a training"
            )
        if name == BEST:
            return self._best() or names[-1]
        if name and name not in names:
            raise CheckpointError(
                f"there is no checkpoint {name!r} in {self.folder}. Try: {BEST}, {', '.join(names)}"
            )
        return name or names[-1]

    def load(self, name: str) -> Checkpoint:
        """Read a checkpoint. Raises CheckpointError where it is damaged."""
        with _read(self._path(name)) as file:
            about = _about(file)
            return Checkpoint(name, about, _values(file, about.updates))

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npz"

    def _best(self) -> str | None:
        scores: dict[str, float] = {}
        for name in self.names():
            # One that is damaged is nobody's best, and is found out when it is asked for.
            with suppress(CheckpointError):
                with _read(self._path(name)) as file:
                    score = _about(file).score
                if score is not None:
                    scores[name] = score
        return max(scores, key=lambda name: scores[name]) if scores else None

    def _prune(self) -> None:
        kept = {*self.names()[-_KEPT:], self._best()}
        for name in self.names():
            if name not in kept:
                self._path(name).unlink(missing_ok=True)
        for path in self.folder.glob(f".*{_PARTIAL}"):
            path.unlink(missing_ok=True)


def check(checkpoint: Checkpoint, model: str, optimizer: str | None, like: Values) -> None:
    """Raises CheckpointError where a checkpoint does not fit a network with values `like` these.

    optimizer: that of the training which goes on from it, or None if none does.
    """
    about = checkpoint.about
    if about.model != model:
        raise CheckpointError(f"{checkpoint.name} is a checkpoint of {about.model}, not of {model}")
    pairs = [(checkpoint.values.parameters, like.parameters), (checkpoint.values.state, like.state)]
    for found, wanted in pairs:
        shapes = [tuple(value.shape) for value in found], [tuple(value.shape) for value in wanted]
        if shapes[0] != shapes[1]:
            raise CheckpointError(
                f"{checkpoint.name} is a checkpoint of {model} with other options: "
                f"{_difference(*shapes)}"
            )
    if optimizer is not None and about.optimizer != optimizer:
        raise CheckpointError(
            f"{checkpoint.name} was trained with {about.optimizer}, and cannot go on with "
            f"{optimizer}"
        )


def _is_finite(array: Any) -> bool:
    return bool(np.isfinite(array).all())


def _difference(found: list[tuple[int, ...]], wanted: list[tuple[int, ...]]) -> str:
    for number, (one, other) in enumerate(zip(found, wanted, strict=False)):
        if one != other:
            return f"its variable {number} has the shape {one}, the network's {other}"
    return f"it has {len(found)} variables, the network {len(wanted)}"


def _arrays(values: Values) -> dict[str, np.ndarray]:
    named = {"parameter": values.parameters, "state": values.state}
    named |= {f"slot/{name}": arrays for name, arrays in values.slots.items()}
    return {
        f"{name}/{i}": array for name, arrays in named.items() for i, array in enumerate(arrays)
    }


def _about(file: Any) -> About:
    about = About(**json.loads(str(file["about"])))
    if about.format != FORMAT:
        raise ValueError(f"format {about.format}, and not {FORMAT}")
    return about


def _values(file: Any, updates: int) -> Values:
    found: dict[str, dict[int, np.ndarray]] = {}
    for key in file.files:
        if key != "about":
            name, _, number = key.rpartition("/")
            found.setdefault(name, {})[int(number)] = file[key]
    ordered = {name: [arrays[i] for i in range(len(arrays))] for name, arrays in found.items()}
    slots = {n.partition("/")[2]: a for n, a in ordered.items() if n.startswith("slot/")}
    return Values(ordered["parameter"], slots, ordered.get("state", []), updates)


@contextmanager
def _explained(
    path: Path, what: str, kinds: type[Exception] = OSError, mend: str = ""
) -> Iterator[None]:
    """Whatever of these goes wrong with a file becomes a CheckpointError that names it."""
    try:
        yield
    except kinds as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        what = f"{path} {what}: {reason or type(error).__name__}"
        raise CheckpointError(f"{what}. Try: {mend}" if mend else what) from error


@contextmanager
def _read(path: Path) -> Iterator[Any]:
    """The open file of a checkpoint. A damaged one can make its readers raise anything."""
    mend = "--checkpoint with another, or remove the file: --restart then takes the one before"
    with (
        _explained(path, "cannot be read", Exception, mend),
        np.load(path, allow_pickle=False) as file,
    ):
        yield file

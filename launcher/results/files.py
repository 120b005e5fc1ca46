"""Files that are either whole or not there: written beside their place, then renamed into it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from launcher.errors import ResultsError

LONGEST_NAME = 120


def safe_name(name: str) -> str:
    """`name` as one component of a path, whoever sent it.

    Letters, digits, dot, underscore and hyphen stay, everything else becomes a hyphen, and leading
    dots and hyphens go, so that neither `../../etc/passwd` nor `-rf` nor a hidden file can come of
    it.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip(".-")
    return plain[:LONGEST_NAME] or "unnamed"


@contextmanager
def results_errors(path: Path, doing: str = "write") -> Iterator[None]:
    """What the operating system refuses becomes a ResultsError that names the file and what
    to try.
    """
    try:
        yield
    except OSError as error:
        mend = "free some space, or name another folder for the logs"
        raise ResultsError(f"cannot {doing} {path}: {error.strerror or error}", mend) from error


@contextmanager
def written_beside(path: Path) -> Iterator[TextIO]:
    """A text file that takes the place of `path` when the block ends well, and leaves no trace when
    not.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    with results_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("w", encoding="utf-8", newline="") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except BaseException:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            raise


def write_whole(path: Path, write: Callable[[TextIO], object]) -> Path:
    """Let `write` fill the file at `path`, whole or not at all."""
    with written_beside(path) as file:
        write(file)
    return path


def whole_lines(data: bytes) -> tuple[bytes, bytes]:
    """`data` as its lines that end in a line break, and what stands after the last of them."""
    end = data.rfind(b"\n") + 1
    return data[:end], data[end:]


def is_file(path: Path) -> bool:
    """Whether there is such a file. A name that no file can have (too long) is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether there is such a folder, as is_file."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False

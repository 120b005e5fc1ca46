"""What programs that make data share: a folder, files that appear whole, a line of progress."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SECONDS_BETWEEN = 1.0


@contextmanager
def output_folder(path: Path) -> Iterator[Path]:
    """The folder, made if it is not there; what cannot be written ends the program in one line."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        yield path
    except OSError as error:
        sys.exit(f"{error.filename or path}: {error.strerror or error}")
    print(f"data: {path}", file=sys.stderr)


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """A name beside the file, which takes its place at the end; nobody sees half a file."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


class Progress:
    """Says on standard error how far the making is: one line that is written over on a terminal."""

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._done = 0
        self._started = self._said = time.monotonic()

    def add(self, count: int) -> None:
        """So many more are made."""
        self._done += count
        now = time.monotonic()
        if self._done < self._total and now - self._said < _SECONDS_BETWEEN:
            return
        self._said = now
        line = f"{self._done} of {self._total} {self._what}, {now - self._started:.0f} s"
        on_terminal = sys.stderr.isatty()
        end = "\n" if self._done >= self._total or not on_terminal else ""
        print(f"\r{line}" if on_terminal else line, end=end, file=sys.stderr, flush=True)

"""What is wrong with data, for a person to mend."""

from __future__ import annotations

from pathlib import Path


class DataError(Exception):
    """One line: the file, what in it, what is wrong; and what to try."""

    def __init__(self, message: str, mend: str = "") -> None:
        super().__init__(f"{message}. Try: {mend}" if mend else message)


def at(path: Path | str, dataset: str = "") -> str:
    """How messages name a place: `file, dataset`."""
    return f"{path}, {dataset}" if dataset else str(path)

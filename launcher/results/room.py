"""Whether what a run will write can be written, as far as that can be known before it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from launcher.errors import ResultsError
from launcher.results.files import results_errors

# A line of steps.csv with all its digits; and what run.json, the row and the plot take besides.
_STEP_BYTES = 210
_SPARE_BYTES = 256 << 10


def existing_part(path: Path) -> Path:
    """The nearest folder on the way to `path` that is there already."""
    place = path.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return place


def try_to_write(folder: Path) -> None:
    """Write a little in a folder, and take it away. Raises OSError where the system refuses."""
    with tempfile.TemporaryFile(prefix=".runtest-", dir=folder) as file:
        file.write(bytes(_SPARE_BYTES))
        file.flush()
        os.fsync(file.fileno())


def check_room(log: Path, steps: int) -> None:
    """Raises ResultsError where the log cannot be added to, or the disk beside it has no room for
    so many raw steps.
    """
    with results_errors(log):
        if log.exists():
            os.close(os.open(log, os.O_WRONLY | os.O_APPEND))
        place = existing_part(log.parent)
        free = shutil.disk_usage(place).free
    needed = steps * _STEP_BYTES + _SPARE_BYTES
    if free < needed:
        raise ResultsError(
            f"{place} has {_mib(free)} MiB free, and what this run writes takes {_mib(needed)} MiB",
            "free some space, name another folder with --logs, or fewer --steps",
        )


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f}"

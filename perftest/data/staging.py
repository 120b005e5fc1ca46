"""Copying the data to the node's fast disk first, once for all tasks of the node.

The copy lies in `DIR/perftest-data-UID/NAME-HASH`, the name and hash being those of the directory
that it is of. It belongs to no session: the next run finds it, and copies what has another size or
another time of change. The directory is 0700, and the user's own. One task copies, under a lock,
while the others wait for it; a file appears under its name when all of it is on the disk.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from perftest import data as sources
from perftest.data.errors import DataError
from perftest.protocol import Data, Staged

if TYPE_CHECKING:
    from perftest.task import AgentLink

_LOCK = ".lock"
_COPIED_AT_ONCE = 16 << 20
# Whoever watches is told this often that it goes on.
_REPORT_SECONDS = 10.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class _Copy:
    """One file that is to be copied: its size in bytes and its time of change in nanoseconds."""

    source: Path
    target: Path
    size: int
    changed: int


def prepare(data: Data, link: AgentLink) -> Data:
    """The data as it is to be read: the copy on the node's fast disk, if one is asked for.

    Tells the launcher what it copied. Raises DataError.
    """
    if not data.stage:
        return data
    link.phase("copying the data")
    staged, done = stage(data, lambda: link.phase("copying the data"))
    link.tell(done)
    return staged


def stage(data: Data, report: Callable[[], None] = lambda: None) -> tuple[Data, Staged]:
    """Copy what is not there yet, or wait until another task has. Raises DataError.

    `report` is called now and then while it lasts. Returns where the data is now, and how long it
    took with what was copied by this task: nothing, where all was there.
    """
    started = time.monotonic()
    files = sources.files(data)
    target = _own_directory(data)
    try:
        with _locked(target / _LOCK, report):
            copies = _needed(files, target)
            _check_space(copies, target, data.stage)
            _copy_all(copies, report)
            _remove_others(files, target)
    except OSError as error:
        raise DataError(
            f"--stage {data.stage}: {error.filename or target}: {error.strerror or error}",
            "another directory of the node, or no --stage",
        ) from error
    staged = Staged(
        seconds=time.monotonic() - started,
        files=len(copies),
        bytes=sum(copy.size for copy in copies),
    )
    return replace(data, path=str(target), stage=""), staged


def _own_directory(data: Data) -> Path:
    """Made if need be. Raises DataError where it is somebody else's, or cannot be made."""
    source = os.path.realpath(os.path.expanduser(data.path))
    mark = hashlib.sha256(f"{data.kind}:{source}".encode()).hexdigest()[:12]
    above = Path(data.stage).expanduser() / f"perftest-data-{os.getuid()}"
    target = above / f"{Path(source).name[:60]}-{mark}"
    try:
        for folder in (above, target):
            folder.mkdir(mode=0o700, parents=folder is above, exist_ok=True)
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                raise DataError(f"{folder} was made by somebody else", "another --stage")
            folder.chmod(0o700)
    except OSError as error:
        raise DataError(
            f"--stage {data.stage}: cannot make {target}: {error.strerror or error}",
            "a directory that exists on every node and that you may write in",
        ) from error
    return target


@contextmanager
def _locked(path: Path, report: Callable[[], None]) -> Iterator[None]:
    """While another task copies, wait. A lock goes with the process that holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        said = time.monotonic()
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(_POLL_SECONDS)
            if time.monotonic() - said > _REPORT_SECONDS:
                said = time.monotonic()
                report()
        yield
    finally:
        os.close(descriptor)


def _needed(files: Sequence[Path], target: Path) -> list[_Copy]:
    """What is not there with the size and the time of change that it should have."""
    needed = []
    for source in files:
        found, there = source.stat(), target / source.name
        copy = _Copy(source, there, found.st_size, found.st_mtime_ns)
        try:
            held = there.stat()
        except FileNotFoundError:
            needed.append(copy)
            continue
        if (held.st_size, held.st_mtime_ns) != (copy.size, copy.changed):
            needed.append(copy)
    return needed


def _check_space(copies: Sequence[_Copy], target: Path, stage: str) -> None:
    needed = sum(copy.size for copy in copies)
    free = shutil.disk_usage(target).free
    if needed > free:
        raise DataError(
            f"--stage {stage}: {needed / 1e9:.1f} GB are to be copied, and {free / 1e9:.1f} GB "
            "are free",
            "another directory, less data, or no --stage",
        )


def _copy_all(copies: Sequence[_Copy], report: Callable[[], None]) -> None:
    said = time.monotonic()
    for copy in copies:
        beside = copy.target.with_name(f".{copy.target.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            with copy.source.open("rb") as source, beside.open("wb") as target:
                while data := source.read(_COPIED_AT_ONCE):
                    target.write(data)
                    if time.monotonic() - said > _REPORT_SECONDS:
                        said = time.monotonic()
                        report()
                target.flush()
                os.fsync(target.fileno())
            os.utime(beside, ns=(copy.changed, copy.changed))
            beside.replace(copy.target)
        finally:
            beside.unlink(missing_ok=True)


def _remove_others(files: Sequence[Path], target: Path) -> None:
    """What an earlier copy had and the data no longer has; and what a killed one left."""
    names = {_LOCK, *(file.name for file in files)}
    for path in target.iterdir():
        if path.name not in names:
            path.unlink(missing_ok=True)

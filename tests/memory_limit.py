"""A control group that lets its processes have no more than so much memory, for tests as root."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_ROOT = Path("/sys/fs/cgroup")


@contextmanager
def memory_limit(limit_bytes: int) -> Iterator[Callable[[int], None]]:
    """Gives a function that puts a process under the limit: the kernel kills it past that.

    Skips the test where there are no control groups for memory, or none can be made.
    """
    old = (_ROOT / "memory").is_dir()
    group = (_ROOT / "memory" if old else _ROOT) / f"runtest-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        limit = group / ("memory.limit_in_bytes" if old else "memory.max")
        if not limit.exists():
            pytest.skip("control groups have no memory controller here")
        limit.write_text(str(limit_bytes))
        yield lambda pid: _put(group, pid)
    finally:
        _remove(group)


def _put(group: Path, pid: int) -> None:
    (group / "cgroup.procs").write_text(str(pid))


def _remove(group: Path) -> None:
    """Once its processes are gone, which takes the kernel a moment after they have ended."""
    deadline = time.monotonic() + 5.0
    while True:
        try:
            return group.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)

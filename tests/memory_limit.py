"""A control group that lets its processes have no more than so much memory, for tests as root."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

_ROOT = Path("/sys/fs/cgroup")
_SECONDS = 5.0


@dataclass(frozen=True)
class MemoryGroup:
    """A control group, and the files of it that hold its limit and what it uses, in bytes."""

    folder: Path
    limit: Path
    used: Path

    def put_in(self, pid: int) -> None:
        """Have a process in it: what it takes from now on counts."""
        (self.folder / "cgroup.procs").write_text(str(pid))

    def leave_no_more_than(self, size: int) -> None:
        """Return once so much is left to the processes, or the kernel has killed one for it.

        An old kernel takes no limit that is less than what is in use, and kills whoever wants more:
        there the limit goes down as far as it can, time and again.
        """
        deadline = time.monotonic() + _SECONDS
        before = self._processes()
        while self._processes() == before:
            for wanted in (str(size), self.used.read_text().strip()):
                with suppress(OSError):
                    self.limit.write_text(wanted)
                    if wanted == str(size):
                        return
            assert time.monotonic() < deadline, "the kernel finds nothing wrong with that"

    def remove(self) -> None:
        """Once its processes are gone, which takes the kernel a moment after they have ended."""
        deadline = time.monotonic() + _SECONDS
        while True:
            try:
                return self.folder.rmdir()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _processes(self) -> str:
        return (self.folder / "cgroup.procs").read_text()


@contextmanager
def memory_group() -> Iterator[MemoryGroup]:
    """A group of processes whose memory can be limited.

    Skips the test where there are no control groups for memory, or none can be made.
    """
    old = (_ROOT / "memory").is_dir()
    folder = (_ROOT / "memory" if old else _ROOT) / f"runtest-{os.getpid()}"
    limit, used = folder / "memory.max", folder / "memory.current"
    if old:
        limit, used = folder / "memory.limit_in_bytes", folder / "memory.usage_in_bytes"
    group = MemoryGroup(folder, limit, used)
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        if not limit.exists():
            pytest.skip("control groups have no memory controller here")
        yield group
    finally:
        group.remove()

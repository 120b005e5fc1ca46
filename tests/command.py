"""The command `runtest` as tests call it: a process of its own, as a person's shell starts it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from agents import alive

RUNTEST = str(Path(sys.executable).parent / "runtest")


def runtest(
    *argv: object, cwd: Path, seconds: float = 180.0, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [RUNTEST, *map(str, argv)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=seconds,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **(environment or {})},
    )


class Running:
    """The command while it runs; killed when the block ends, if it is still there.

    inside: the words in front of it that start it elsewhere (`hosts.enter`).
    """

    def __init__(
        self,
        *argv: object,
        cwd: Path,
        ignoring: signal.Signals | None = None,
        inside: Sequence[str] = (),
    ) -> None:
        self.process = subprocess.Popen(
            [*inside, RUNTEST, *map(str, argv)],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=lambda: _heed_all_but(ignoring),
        )
        self.said = ""

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def wait_for(self, text: str, seconds: float = 60.0) -> None:
        """Read its progress until `text` is in it."""
        assert self.process.stderr is not None
        deadline = time.monotonic() + seconds
        while text not in self.said:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.process.stderr], [], [], left)[0]:
                raise AssertionError(f"{text!r} was not said in {seconds} s, but:\n{self.said}")
            data = os.read(self.process.stderr.fileno(), 1 << 16)
            if not data:
                raise AssertionError(f"{text!r} was not said, but:\n{self.said}")
            self.said += data.decode()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self, seconds: float) -> int:
        """Its exit status; `said` then has all of its standard error."""
        _, errors = self.process.communicate(timeout=seconds)
        self.said += errors.decode()
        return self.process.returncode


def _heed_all_but(ignored: signal.Signals | None) -> None:
    """Signals as a terminal's shell leaves them, whatever the tests themselves were started by: a
    script's `&` and nohup have some ignored, and children inherit that. One may be ignored."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN if number == ignored else signal.SIG_DFL)


def tasks_here(marker: str) -> list[int]:
    """Agents and tasks on this machine whose working directory lies below `marker`."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            inside = str((entry / "cwd").readlink()).startswith(marker)
        except OSError:
            continue
        if inside and alive(int(entry.name)):
            found.append(int(entry.name))
    return found

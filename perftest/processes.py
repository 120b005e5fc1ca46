"""The processes of all sessions on this node, by the mark in their environment.

Needs the standard library alone. The script that receives the program sets PERFTEST_SESSION, and
all that comes of it inherits that: the shell, the agent, its tasks and what they start.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path

SESSION_VARIABLE = "PERFTEST_SESSION"
RUN_VARIABLE = "PERFTEST_RUN"

_NAME = re.compile(rb"[A-Za-z0-9._-]{1,100}\Z")


@dataclass(frozen=True)
class Marked:
    """A process of a session.

    started: in clock ticks after boot; with the pid it names a process for good.  run: empty for
    the agent and its shell.
    """

    pid: int
    started: int
    session: str
    run: str
    argv: tuple[str, ...]

    @property
    def age_seconds(self) -> float:
        """How long ago it started."""
        ticks = os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - self.started / ticks)

    @property
    def kind(self) -> str:
        """What it is called in a table."""
        for module, kind in (("perftest.agent", "agent"), ("perftest.task", "task")):
            if self.argv[1:3] == ("-m", module):
                return kind
        is_shell = self.argv[:2] == ("sh", "-c") and not self.run
        return "shell" if is_shell else "process"


def marked_processes() -> list[Marked]:
    """All processes of this user, in this namespace of processes, that carry the mark."""
    here = os.readlink("/proc/self/ns/pid")
    found = (_read(int(name), here) for name in os.listdir("/proc") if name.isdigit())
    return [process for process in found if process is not None]


def send(process: Marked, number: signal.Signals) -> None:
    """Send a signal to this process and to no other that has its number by now.

    A stopped process acts on most signals only once it goes on, so it is also told to.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        try:
            handle = os.pidfd_open(process.pid)
        except OSError as error:
            if isinstance(error, ProcessLookupError):
                return
            handle = -1  # a kernel before 5.3 has none
        try:
            # Looked at after the handle was taken: it is of the process that started then.
            if _started(process.pid) != process.started:
                return
            for each in (number, signal.SIGCONT):
                if handle >= 0:
                    signal.pidfd_send_signal(handle, each)
                else:
                    os.kill(process.pid, each)
        finally:
            if handle >= 0:
                os.close(handle)


def _read(pid: int, namespace: str) -> Marked | None:
    """The process of that number, if it is one of ours."""
    entry = Path(f"/proc/{pid}")
    started = _started(pid)
    try:
        # The cheapest first: most processes of a node are none of ours.
        variables = _variables((entry / "environ").read_bytes())
        argv = (entry / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        uids = re.search(r"^Uid:(.*)$", (entry / "status").read_text(), re.MULTILINE)
        inside = os.readlink(entry / "ns" / "pid")
    except OSError:
        return None  # somebody else's, or it has just ended
    session = variables.get(SESSION_VARIABLE, b"")
    is_mine = uids is not None and set(uids[1].split()) == {str(os.getuid())}
    if not _NAME.match(session) or not is_mine or inside != namespace:
        return None
    if started is None or _started(pid) != started:
        return None
    run = variables.get(RUN_VARIABLE, b"").decode("utf-8", "replace")
    words = tuple(word.decode("utf-8", "replace") for word in argv)
    return Marked(pid, started, session.decode(), run, words)


def _variables(environment: bytes) -> dict[str, bytes]:
    """Those of our variables that are set."""
    found = {}
    if SESSION_VARIABLE.encode() in environment:
        for entry in environment.split(b"\0"):
            name, _, value = entry.partition(b"=")
            if name in (SESSION_VARIABLE.encode(), RUN_VARIABLE.encode()):
                found[name.decode()] = value
    return found


def _started(pid: int) -> int | None:
    """When the process of that number started; None when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[19])

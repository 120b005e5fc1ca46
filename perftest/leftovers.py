"""What other sessions left on this node: found, and ended. Needs the standard library alone.

Ours is a process with the mark in its environment (perftest/processes.py), and a directory of a
session in `perftest-<uid>`, which the script that started this agent has looked at. A session is in
use while it has an agent, or the shell of one, that has heard of its launcher lately.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from perftest import protocol
from perftest.processes import SESSION_VARIABLE, Marked, marked_processes, send
from perftest.protocol import AgentFailed, Clean, Cleaned, FindLeftovers, Leftover, Leftovers

# Each session's directory has a file of this name, with the time at which its agent last heard of
# its launcher. An agent that hears nothing ends itself after 30 seconds, and takes up to 10 for it.
MARK = ".perftest-session"
_IN_USE_SECONDS = protocol.HEARTBEAT_LIMIT_SECONDS + 10.0

_SESSION = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}\.[0-9]+\Z")
_TERM_SECONDS = 5.0
_KILL_SECONDS = 5.0
_MOST_TOLD = 5000
_MOST_FILES = 100_000
_TEXT = 300


@dataclass(frozen=True)
class Directory:
    """The directory of a session, and the runs that it has something of."""

    path: Path
    runs: tuple[str, ...]

    @property
    def session(self) -> str:
        """The session's name."""
        return self.path.name


class Cleaner:
    """Answers for the agent that works in `directory`, whose own session is never a leftover."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._own = _without_node(os.environ.get(SESSION_VARIABLE, directory.name))
        self._chosen: set[str] = set()

    def answer(self, message: object) -> Leftovers | Cleaned | AgentFailed | None:
        """The answer to FindLeftovers or Clean; None to every other message."""
        try:
            if isinstance(message, FindLeftovers):
                return self._find(message.run)
            if isinstance(message, Clean):
                return self._clean()
        except OSError as error:
            return AgentFailed(f"cannot look for what is left: {error}")
        return None

    def _find(self, asked: str) -> Leftovers:
        # Directories first: one that is there now has its processes when these are looked at.
        directories, strange = self._directories()
        processes = [p for p in marked_processes() if _without_node(p.session) != self._own]
        names = {
            session
            for session, runs in _runs(directories, processes).items()
            if not asked or asked in {session, _without_node(session), *runs}
        }
        in_use = {name for name in names if _is_in_use(name, processes)}
        self._chosen = names if asked else names - in_use
        found = [_told_process(p, p.session in in_use) for p in processes if p.session in names]
        found += [
            _told_directory(d, d.session in in_use) for d in directories if d.session in names
        ]
        found.sort(key=lambda one: (one.session, one.pid is None, one.pid))
        omitted = max(0, len(found) - _MOST_TOLD)
        return Leftovers(tuple(found[:_MOST_TOLD]), omitted, strange[:_MOST_TOLD])

    def _clean(self) -> Cleaned:
        directories = [d for d in self._directories()[0] if d.session in self._chosen]
        ended, left = end_sessions(self._chosen)
        problems = [f"{p.kind} {p.pid} of {p.session} could not be killed" for p in left]
        alive = {process.session for process in left}
        removed = 0
        for directory in directories:  # an agent that could end in order has removed its own
            if directory.session not in alive:
                problem = _remove(directory.path)
                problems += [problem] if problem else []
                removed += not problem
        return Cleaned(ended, removed, tuple(problems))

    def _directories(self) -> tuple[list[Directory], tuple[str, ...]]:
        """Other sessions' directories, and what there is that is none."""
        folder = self._directory.parent
        if folder.name != f"perftest-{os.getuid()}" or not _is_own_directory(folder.lstat()):
            return [], (f"{folder} is not the directory of runtest",)
        found, strange = [], []
        for path in sorted(folder.iterdir()):
            if _without_node(path.name) == self._own:
                continue
            try:
                problem = _what_is_strange(path)
            except FileNotFoundError:
                continue  # it has just ended
            if problem:
                strange.append(f"{path} {problem}")
            else:
                found.append(Directory(path, _runs_in(path)))
        return found, tuple(strange)


def sign_of_life(directory: Path) -> None:
    """Note in the session's directory that its launcher was heard just now."""
    with suppress(OSError):
        os.utime(directory / MARK, follow_symlinks=False)


def remove_session(directory: Path) -> None:
    """Remove this agent's own directory, if it is one: it holds the mark of a session."""
    if (directory / MARK).is_file():
        os.chdir("/")
        shutil.rmtree(directory, ignore_errors=True)


def end_sessions(sessions: set[str]) -> tuple[int, list[Marked]]:
    """End all processes of these sessions, and those that they start meanwhile.

    TERM, 5 seconds, KILL, 5 seconds: how many ended, and those that did not.
    """
    seen: set[Marked] = set()
    left: list[Marked] = []
    for number, seconds in ((signal.SIGTERM, _TERM_SECONDS), (signal.SIGKILL, _KILL_SECONDS)):
        told: set[Marked] = set()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            left = [process for process in marked_processes() if process.session in sessions]
            seen.update(left)
            if not left:
                return len(seen), []
            for process in set(left) - told:
                send(process, number)
                told.add(process)
            time.sleep(0.05)
    return len(seen) - len(left), left


def _without_node(session: str) -> str:
    """A session's name as its launcher has it: each node's agent has a number behind it."""
    return session.rpartition(".")[0] or session


def _runs(directories: list[Directory], processes: list[Marked]) -> dict[str, set[str]]:
    """All sessions, each with the runs that something is left of."""
    found: dict[str, set[str]] = {
        directory.session: set(directory.runs) for directory in directories
    }
    for process in processes:
        found.setdefault(process.session, set()).update({process.run} - {""})
    return found


def _is_in_use(session: str, processes: list[Marked]) -> bool:
    agents = [p for p in processes if p.session == session and not p.run]
    heard = [age for p in agents if (age := _heard_seconds(Path(f"/proc/{p.pid}/cwd"))) is not None]
    # One that has no mark yet has just been started.
    return min(heard or [p.age_seconds for p in agents], default=_IN_USE_SECONDS) < _IN_USE_SECONDS


def _heard_seconds(directory: Path) -> float | None:
    """How long ago the agent there heard of its launcher; None where there is no mark."""
    try:
        return time.time() - (directory / MARK).lstat().st_mtime
    except OSError:
        return None


def _what_is_strange(path: Path) -> str:
    """Why something in our directory is not a session of ours, or nothing."""
    facts = path.lstat()
    if not stat.S_ISDIR(facts.st_mode):
        return "is a link" if stat.S_ISLNK(facts.st_mode) else "is no directory"
    if facts.st_uid != os.getuid():
        return "belongs to somebody else"
    if not _SESSION.match(path.name) and not os.path.lexists(path / MARK):
        return "is not the directory of a session"
    return ""


def _is_own_directory(facts: os.stat_result) -> bool:
    private = not facts.st_mode & 0o077
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid() and private


def _runs_in(directory: Path) -> tuple[str, ...]:
    with suppress(OSError):
        return tuple(sorted(os.listdir(directory / "runs")))
    return ()


def _told_process(process: Marked, in_use: bool) -> Leftover:
    # The shell's command is the whole script, the same for everybody.
    words = process.argv[:1] if process.kind == "shell" else process.argv
    return Leftover(
        kind=process.kind,
        session=process.session,
        run=process.run,
        pid=process.pid,
        age_seconds=process.age_seconds,
        size_bytes=None,
        text=" ".join(words)[:_TEXT],
        in_use=in_use,
    )


def _told_directory(directory: Directory, in_use: bool) -> Leftover:
    heard = _heard_seconds(directory.path)
    if heard is None:
        with suppress(OSError):
            heard = time.time() - directory.path.lstat().st_mtime
    return Leftover(
        kind="directory",
        session=directory.session,
        run=directory.runs[-1] if directory.runs else "",
        pid=None,
        age_seconds=max(0.0, heard or 0.0),
        size_bytes=sum(_sizes(directory.path)),
        text=str(directory.path),
        in_use=in_use,
    )


def _sizes(directory: Path) -> Iterator[int]:
    """The bytes of each file in it, of the first hundred thousand."""
    count = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            count += 1
            if count > _MOST_FILES:
                return
            with suppress(OSError):
                yield Path(folder, name).lstat().st_size


def _remove(path: Path) -> str:
    """Remove a session's directory, following no link; the problem, if there is one."""
    try:
        shutil.rmtree(path)
    except OSError as error:
        if os.path.lexists(path):
            return f"the directory {path} could not be removed: {error.strerror or error}"
    return ""

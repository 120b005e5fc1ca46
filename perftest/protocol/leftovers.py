"""The messages of `runtest clean`: what earlier sessions left on a node, and its end."""

from __future__ import annotations

from perftest.record import record


@record(frozen=True)
class FindLeftovers:
    """Ask for what other sessions left. run: a run or session id, or empty for all of them."""

    run: str


@record(frozen=True)
class Leftover:
    """One process or directory of another session.

    kind: agent, shell, task, process (whatever else these started) or directory.  run: its run,
    where it has one.  pid: None for a directory.  age_seconds: since a process started, or since
    a directory's session last heard of its launcher.  size_bytes: None for a process.  text: the
    command line or the path.  in_use: its session has a launcher at this moment.
    """

    kind: str
    session: str
    run: str
    pid: int | None
    age_seconds: float
    size_bytes: int | None
    text: str
    in_use: bool


@record(frozen=True)
class Leftovers:
    """What was found. omitted: how many more there are.  strange: what is there but not ours."""

    found: tuple[Leftover, ...]
    omitted: int
    strange: tuple[str, ...]


@record(frozen=True)
class Clean:
    """End and remove what the last answer to FindLeftovers told.

    What was in use stays, unless it was asked for by its name.
    """


@record(frozen=True)
class Cleaned:
    """How many processes ended and directories went, and what would not."""

    processes: int
    directories: int
    problems: tuple[str, ...]

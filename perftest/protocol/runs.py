"""The course of a run: what the launcher orders, and what an agent tells of its tasks."""

from __future__ import annotations

from perftest.protocol.jobs import Job, Place
from perftest.protocol.tasks import TaskMessage
from perftest.record import record


@record(frozen=True)
class Start:
    """Start these tasks of a run on this node."""

    run_id: str
    job: Job
    places: tuple[Place, ...]


@record(frozen=True)
class Go:
    """All workers are ready: go on to the measured steps."""

    run_id: str


@record(frozen=True)
class Finish:
    """End the run's tasks, send their logs, say RunEnded."""

    run_id: str


@record(frozen=True)
class Heartbeat:
    """Whoever sends it is alive. Launcher and agent both send it."""


@record(frozen=True)
class Stop:
    """End everything, clean up, leave."""


@record(frozen=True)
class FromTask:
    """A message of one task, passed on by its agent."""

    run_id: str
    role: str
    index: int
    message: TaskMessage


@record(frozen=True)
class Exited:
    """A task's process ended. Of exit_code and signal, one is None."""

    run_id: str
    role: str
    index: int
    exit_code: int | None
    signal: int | None
    log_tail: tuple[str, ...]


@record(frozen=True)
class Paused:
    """A task's process `pid` was stopped (SIGSTOP, or a debugger), or goes on again."""

    run_id: str
    role: str
    index: int
    pid: int
    stopped: bool


@record(frozen=True)
class Log:
    """A piece of a task's log, in order. `omitted_bytes` were left out just before it."""

    run_id: str
    role: str
    index: int
    text: str
    omitted_bytes: int


@record(frozen=True)
class RunEnded:
    """All tasks of the run are gone, except those that `problems` names."""

    run_id: str
    problems: tuple[str, ...]


@record(frozen=True)
class AgentFailed:
    """The agent itself could not do what it was asked."""

    error: str

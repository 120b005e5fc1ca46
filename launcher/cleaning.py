"""What earlier runs left on the nodes: asked of all nodes at once, and ended there."""

from __future__ import annotations

import queue
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from launcher.errors import (
    ConnectionLost,
    NodeError,
    NotCleaned,
    ProtocolError,
    RemoteDirectoryError,
    TensorFlowMissing,
)
from launcher.nodes import Node
from launcher.session import Session
from launcher.text import cleaned, printable
from perftest.protocol import (
    VERSION,
    AgentFailed,
    Clean,
    Cleaned,
    FindLeftovers,
    Greet,
    Hello,
    Leftovers,
)

# A scan of all processes and directories; and of these TERM, KILL, and removing directories.
_FINDING_SECONDS = 30.0
_CLEANING_SECONDS = 60.0

T = TypeVar("T")


class _Nobody:
    """Watches how a session opens, and says nothing."""

    def node_greeted(self, node: int, hello: Hello) -> None:
        """A node is ready."""


@dataclass(frozen=True)
class Answers:
    """What each node (by its place in the session) found or did, and why others could not."""

    found: dict[int, Leftovers]
    done: dict[int, Cleaned]
    failures: list[NodeError]


class Cleaning:
    """The leftovers of `run` (or of all) on the nodes of a session that is not yet open."""

    def __init__(self, session: Session, run: str) -> None:
        self._session = session
        self._run = run
        self.answers = Answers({}, {}, [])

    def find(self) -> Answers:
        """Reach all nodes and ask them; one that cannot be reached keeps no other waiting."""
        session = self._session
        _, failures = session.try_to_open(lambda node: Greet(VERSION, session.id, ()), _Nobody())
        # What runs no test can be cleaned all the same.
        unusable = {
            node: _told(failure)
            for node, failure in sorted(failures.items())
            if not isinstance(failure, TensorFlowMissing)
        }
        asked = {node: FindLeftovers(self._run) for node in range(len(session.nodes))}
        for node in unusable:
            del asked[node]
        found, lost = _ask(session, asked, Leftovers, _FINDING_SECONDS)
        self.answers = Answers(found, {}, [*unusable.values(), *lost])
        return self.answers

    def clean(self) -> Answers:
        """End and remove what was found, but for what is in use and was not asked for by name."""
        asked = {
            node: Clean()
            for node, leftovers in self.answers.found.items()
            if any(self._run or not one.in_use for one in leftovers.found)
        }
        done, lost = _ask(self._session, asked, Cleaned, _CLEANING_SECONDS)
        failures = [*self.answers.failures, *lost]
        for node, cleaned_there in sorted(done.items()):
            failures += _problems(self._session.nodes[node], cleaned_there.problems)
        self.answers = Answers(self.answers.found, done, failures)
        return self.answers


def _told(failure: NodeError) -> NodeError:
    """A node's failure with what to try, where that is not what helps a run."""
    if isinstance(failure, RemoteDirectoryError) and failure.reason.startswith(
        ("cannot write in", "cannot unpack")
    ):
        mend = (
            "free some space there by hand, clean itself needs a megabyte; or -r with a directory "
            "on another disk, such as /dev/shm: processes are found from there too"
        )
        return RemoteDirectoryError(failure.node, failure.reason, mend)
    return failure


def _problems(node: Node, problems: tuple[str, ...]) -> list[NodeError]:
    mend = (
        f"look at it by hand on {node.alias}: a process in state D waits for its device or file "
        "server; a directory may hold what somebody else put there"
    )
    return [NotCleaned(node.label, printable(problem), mend) for problem in problems[:20]]


def _ask(
    session: Session, asked: Mapping[int, object], kind: type[T], seconds: float
) -> tuple[dict[int, T], list[NodeError]]:
    """Send each node its message and gather the answers, of type `kind`."""
    for node, message in asked.items():
        session.send(node, message)
    answers: dict[int, T] = {}
    failures = {node: lost for node in asked if (lost := session.why_closed(node)) is not None}
    deadline = time.monotonic() + seconds
    while waiting := asked.keys() - answers.keys() - failures.keys():
        try:
            event = session.events.get(max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            failures.update((node, _silent(session.nodes[node], seconds)) for node in waiting)
            break
        if event.node not in waiting:
            continue
        if isinstance(event.what, kind):
            answers[event.node] = cleaned(event.what)
        elif isinstance(event.what, NodeError):
            failures[event.node] = event.what
        elif isinstance(event.what, AgentFailed):
            reason = printable(event.what.error)
            failures[event.node] = ProtocolError(session.nodes[event.node].label, reason)
    return answers, [failures[node] for node in sorted(failures)]


def _silent(node: Node, seconds: float) -> NodeError:
    reason = f"no answer within {seconds:.0f} s"
    return ConnectionLost(node.label, reason, f"look at {node.alias} by hand")

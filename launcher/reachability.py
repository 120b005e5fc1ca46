"""Whether the nodes of a run reach each other where TensorFlow will have to, before it starts.

The agents listen on the very ports of the plan and try each other's; nothing is connected to from
here. What they answer is checked: a node that lies can spoil its own results and no others.
"""

from __future__ import annotations

import queue
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence

from launcher.errors import NodesFailed
from launcher.pairs import NO_ANSWER, NOT_LISTENING, PORT_TAKEN, failures, needed_pairs
from launcher.pairs import PairResult as PairResult
from launcher.pairs import Target as Target
from launcher.session import Session
from launcher.tasks import RunPlan
from launcher.text import printable
from perftest.protocol import (
    MOST_TRANSFER_SECONDS,
    EndProbe,
    Listen,
    Listening,
    Probe,
    Probed,
    ProbeResult,
    ProbeTarget,
)

DEFAULT_SECONDS = 5.0
# What an outage of 3 s swallows, TCP says again after 6.2 s at the latest.
_LISTENING_SECONDS = 7.0
# An agent may try many addresses in two waves; and the network in between takes its time.
_WAVES = 2
_SLACK_SECONDS = 1.0


def probe(
    session: Session,
    targets: Mapping[int, Sequence[Target]],
    seconds: float = DEFAULT_SECONDS,
    *,
    bandwidth_bytes: int = 0,
) -> list[PairResult]:
    """Have each node (an index in the session) try its targets; the results in the same order.

    Each address has `seconds`. With bandwidth_bytes, a node also sends so many bytes (for at most a
    second) to each of its targets, one after the other: let two of them not share a link then.
    Raises nothing for what does not work; a node that is lost is an outcome.
    """
    asked = {node: tuple(some) for node, some in targets.items() if some}
    check = _Check(session, asked)
    try:
        check.listen(_LISTENING_SECONDS + _time_of_probe(asked, seconds, bandwidth_bytes))
        check.try_all(
            lambda some: Probe(check.name, some, seconds, bandwidth_bytes),
            _time_of_probe(asked, seconds, bandwidth_bytes),
        )
    finally:
        check.end()
    return check.results()


def check_reachability(session: Session, plan: RunPlan, seconds: float = DEFAULT_SECONDS) -> float:
    """See that all that TensorFlow will connect to in a run can be; returns the seconds it took.

    What has been reached before in this session is not tried again; each address has `seconds` to
    answer. Raises a NodeError, or
    NodesFailed with all of them: PairUnreachable, PortTaken, or what a node was lost by.
    """
    began = time.monotonic()
    targets = {
        node: [target for target in some if (node, target) not in session.reached]
        for node, some in needed_pairs(plan).items()
    }
    results = probe(session, targets, seconds)
    for node in range(len(plan.nodes)):
        if lost := session.why_closed(node):
            raise lost
    found = failures(results, session.nodes, seconds)
    if found:
        raise found[0] if len(found) == 1 else NodesFailed(found)
    session.reached.update((result.source, result.target) for result in results)
    return time.monotonic() - began


def _time_of_probe(
    asked: Mapping[int, Sequence[Target]], seconds: float, bandwidth_bytes: int
) -> float:
    """How long the slowest node may take, in seconds."""
    if not bandwidth_bytes:
        return _WAVES * seconds + _SLACK_SECONDS
    longest = max(map(len, asked.values()), default=0)
    one = seconds + MOST_TRANSFER_SECONDS + 1.0
    return max(longest, _WAVES) * one + _SLACK_SECONDS


class _Check:
    """One round: who listens, who has answered what."""

    def __init__(self, session: Session, asked: Mapping[int, tuple[Target, ...]]) -> None:
        self.name = secrets.token_hex(8)
        self._session = session
        self._asked = asked
        self._ports: dict[int, set[int]] = defaultdict(set)
        for target in (target for some in asked.values() for target in some):
            self._ports[target.node].add(target.port)
        self._secrets = {node: secrets.token_hex(16) for node in self._ports}
        self._taken: dict[tuple[int, int], str] = {}
        self._listening: set[int] = set()
        self._sent: dict[int, tuple[Target, ...]] = {}
        self._found: dict[int, tuple[ProbeResult, ...]] = {}

    def listen(self, seconds: float) -> None:
        """Have the targets' nodes listen, and wait until they do."""
        for node, ports in self._ports.items():
            ask = Listen(self.name, self._secrets[node], tuple(sorted(ports)), min(seconds, 60.0))
            self._session.send(node, ask)
        self._wait(_LISTENING_SECONDS, set(self._ports), self._listening)

    def try_all(self, ask: Callable[[tuple[ProbeTarget, ...]], Probe], seconds: float) -> None:
        """Have all nodes try those of their targets where somebody listens."""
        silent = self._ports.keys() - self._listening  # whoever was lost meanwhile, or hangs
        for node in self._asked.keys() - silent:
            if tried := self._tried(node):
                self._sent[node] = tried
                some = (ProbeTarget(t.host, t.port, self._secrets[t.node]) for t in tried)
                self._session.send(node, ask(tuple(some)))
        self._wait(seconds, set(self._sent), self._found.keys())

    def end(self) -> None:
        """Have all let go of the ports. Who is told to start next has done so before it does."""
        for node in self._ports.keys() | self._asked.keys():
            self._session.send(node, EndProbe(self.name))

    def results(self) -> list[PairResult]:
        """One for each that was asked for, node by node, in the order of its targets."""
        return [
            result for node, some in self._asked.items() for result in self._of_node(node, some)
        ]

    def _of_node(self, node: int, some: Sequence[Target]) -> list[PairResult]:
        found = dict(zip(self._sent.get(node, ()), self._found.get(node, ()), strict=False))
        return [self._pair(node, target, found.get(target)) for target in some]

    def _pair(self, node: int, target: Target, found: ProbeResult | None) -> PairResult:
        if found is not None:
            detail = printable(found.detail)
            return PairResult(
                node, target, found.outcome, found.latency_seconds, found.bytes_per_second, detail
            )
        taken = self._taken.get((target.node, target.port))
        if taken is not None:
            return PairResult(node, target, PORT_TAKEN, None, None, taken)
        silent, outcome = (
            (node, NO_ANSWER) if target.node in self._listening else (target.node, NOT_LISTENING)
        )
        return PairResult(node, target, outcome, None, None, self._why_silent(silent))

    def _why_silent(self, node: int) -> str:
        lost = self._session.why_closed(node)
        return lost.reason if lost else "its agent does not answer"

    def _tried(self, node: int) -> tuple[Target, ...]:
        """The node's targets where somebody listens, each once."""
        return tuple(
            target
            for target in dict.fromkeys(self._asked[node])
            if target.node in self._listening and (target.node, target.port) not in self._taken
        )

    def _wait(self, seconds: float, asked: Collection[int], answered: Collection[int]) -> None:
        """Take answers until all nodes that still can have answered, or the time is up."""
        deadline = time.monotonic() + seconds
        while any(node not in answered and self._session.is_open(node) for node in asked):
            try:
                event = self._session.events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return
            self._take(event.node, event.what)

    def _take(self, node: int, what: object) -> None:
        """An answer of a node, the first of its kind; anything else is left over from before."""
        if not isinstance(what, (Listening, Probed)) or what.probe != self.name:
            return
        if isinstance(what, Probed):
            if node not in self._found and len(what.results) == len(self._sent.get(node, ())):
                self._found[node] = what.results
        elif node in self._ports and node not in self._listening and not self._sent:
            self._listening.add(node)
            for problem in what.problems:
                if problem.port in self._ports[node]:
                    self._taken[node, problem.port] = printable(problem.reason)

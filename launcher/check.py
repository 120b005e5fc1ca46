"""`runtest check`: ask all nodes what can be known before a run, and never stop at the first fault.

Greeting, clocks, state, links, and the bytes of the network's parameters, in that order: what loads
a machine comes after what is disturbed by load.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from launcher.checked import Checked, ClockOffset, Link, NodeState
from launcher.errors import NodeError, PlanError, TensorFlowMissing
from launcher.nodes import Node
from launcher.placement import WORKER_PORT_OFFSET
from launcher.plan import greeting, make_plan
from launcher.reachability import PairResult, Target, probe
from launcher.session import Session, SessionObserver
from launcher.tasks import OVER_THE_NETWORK, PARAMETER_SERVER_STRATEGY, Options
from launcher.text import cleaned
from perftest.protocol import (
    REACHED,
    ClockQuery,
    ClockReading,
    CountParameters,
    ErrandFailed,
    Hello,
    Inspect,
    Inspection,
    ParameterCount,
)

_CLOCK_ROUNDS = 8
_CLOCK_SECONDS = 3.0
_INSPECT_SECONDS = 25.0
_COUNT_SECONDS = 95.0
_TRANSFER_BYTES = 64 << 20
_MOST_LATENCY_SECONDS = 60.0
_MOST_BYTES_PER_SECOND = 1e13
# Each with each of 1000 nodes would be two million connections.
_MOST_OTHERS = 128


class Observer(SessionObserver, Protocol):
    """Is told how the check goes on."""

    def note(self, text: str) -> None:
        """What is done next."""


def check(session: Session, asked: Options, observer: Observer) -> Checked:
    """Open the session as far as its nodes let it, and find out all that can be found out."""
    hellos, failures = session.try_to_open(lambda node: greeting(asked, node, session.id), observer)
    conversation = _Conversation(session, hellos, failures)
    answering = conversation.answering()
    observer.note("asking for clocks and state")
    clocks = conversation.clocks(answering)
    seen = conversation.ask(
        {i: Inspect(_names(session.nodes, i)) for i in answering}, Inspection, _INSPECT_SECONDS
    )
    observer.note("trying the links")
    links = _links(session, asked, hellos, conversation.answering())
    conversation.look_for_lost()
    count, counted_by = None, ""
    able = [i for i in conversation.answering() if i not in failures]
    if asked.model and able:
        observer.note(f"counting the parameters of {asked.model}")
        count = conversation.count(able[0], asked.model)
        counted_by = session.nodes[able[0]].alias
    states = tuple(
        NodeState(
            node=node,
            hello=hellos.get(i),
            failure=failures.get(i),
            inspection=seen.get(i),
            inspection_problem=conversation.problems.get(i, ""),
            clock=clocks.get(i),
        )
        for i, node in enumerate(session.nodes)
    )
    return Checked(asked, states, links, count, counted_by, _plan_problem(states, asked))


class _Conversation:
    """Questions to many nodes at once; one that is lost meanwhile becomes a failure."""

    def __init__(
        self, session: Session, hellos: Mapping[int, Hello], failures: dict[int, NodeError]
    ) -> None:
        self._session = session
        self._hellos = hellos
        self._failures = failures
        self.problems: dict[int, str] = {}

    def answering(self) -> list[int]:
        """The nodes that can still be asked something; TensorFlow is not needed for that."""
        usable = [
            i
            for i in self._hellos
            if isinstance(self._failures.get(i), (TensorFlowMissing, type(None)))
        ]
        return sorted(i for i in usable if self._session.is_open(i))

    def ask(
        self, questions: Mapping[int, object], kind: type[Any], seconds: float
    ) -> dict[int, Any]:
        """The answers of this kind, by node. Why there is none is in `problems`."""
        answers: dict[int, Any] = {}
        for node, question in questions.items():
            self._session.send(node, question)
        left = set(questions)
        deadline = time.monotonic() + seconds
        while left and (event := self._next(deadline)) is not None:
            node, what = event
            if isinstance(what, kind) and node in left:
                answers[node] = cleaned(what)
                left.discard(node)
            elif isinstance(what, (ErrandFailed, NodeError)):
                if isinstance(what, ErrandFailed):
                    self.problems[node] = cleaned(what).error
                left.discard(node)
        for node in left:
            self.problems[node] = f"no answer within {seconds:.0f} s"
        return answers

    def clocks(self, nodes: Collection[int]) -> dict[int, ClockOffset]:
        """Each node's clock, as NTP does it: of several readings the one with the shortest way."""
        best: dict[int, ClockOffset] = {}
        left = set(nodes)
        for _ in range(_CLOCK_ROUNDS):
            for node in left:
                self._session.send(node, ClockQuery(time.time()))
            waiting, heard = set(left), set()
            deadline = time.monotonic() + _CLOCK_SECONDS
            while waiting and (event := self._next(deadline)) is not None:
                node, what = event
                now = time.time()
                if isinstance(what, ClockReading) and 0 <= now - what.asked <= _CLOCK_SECONDS:
                    heard.add(node)
                    half = (now - what.asked) / 2
                    if node not in best or half < best[node].uncertainty_seconds:
                        best[node] = ClockOffset(what.clock - what.asked - half, half)
                waiting.discard(node)
            left &= heard
        return best

    def count(self, node: int, model: str) -> ParameterCount | None:
        """Bytes of the network's parameters, as this node counts them."""
        answers = self.ask({node: CountParameters(model)}, ParameterCount, _COUNT_SECONDS)
        count: ParameterCount | None = answers.get(node)
        return count

    def look_for_lost(self) -> None:
        """Take note of nodes that were lost while others listened to the events."""
        for node in self._hellos:
            if lost := self._session.why_closed(node):
                self._failures.setdefault(node, lost)

    def _next(self, deadline: float) -> tuple[int, object] | None:
        """The next thing that a node says, or None when the time is up."""
        try:
            event = self._session.events.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return None
        if isinstance(event.what, NodeError):
            self._failures.setdefault(event.node, event.what)
        return event.node, event.what


def _links(
    session: Session, asked: Options, hellos: Mapping[int, Hello], nodes: Sequence[int]
) -> tuple[Link, ...]:
    """Every node to every other's ports, and then the speed from each to its neighbour."""
    if len(nodes) < 2 or asked.strategy not in OVER_THE_NETWORK:
        return ()
    targets = {
        source: [
            Target(target, session.nodes[target].hostname, port)
            for target in _others(nodes, place)
            for port in _ports(asked, session.nodes[target], hellos[target])
        ]
        for place, source in enumerate(nodes)
    }
    tried = probe(session, targets)
    reached = {
        (each.source, each.target.node): each.target for each in tried if each.outcome == REACHED
    }
    measured: dict[tuple[int, Target], PairResult] = {}
    for turn in _turns(nodes):
        ring = {pair[0]: [reached[pair]] for pair in turn if pair in reached}
        found = probe(session, ring, bandwidth_bytes=_TRANSFER_BYTES) if ring else []
        measured.update({(each.source, each.target): each for each in found})
    return tuple(_link(measured.get((each.source, each.target), each)) for each in tried)


def _others(nodes: Sequence[int], place: int) -> Sequence[int]:
    """All other nodes; of very many those that follow in the list, as if it were a ring."""
    return [*nodes[place + 1 :], *nodes[:place]][:_MOST_OTHERS]


def _names(nodes: Sequence[Node], index: int) -> tuple[str, ...]:
    """The data addresses that a node looks up: its own, and those of the others that it tries."""
    others = _others(range(len(nodes)), index)
    return tuple(dict.fromkeys(nodes[i].hostname for i in (index, *others)))


def _turns(nodes: Sequence[int]) -> list[list[tuple[int, int]]]:
    """Each node and its neighbour, in turns in which no node has a part in two transfers."""
    ring = list(zip(nodes, [*nodes[1:], nodes[0]], strict=True))
    last = [ring.pop()] if len(ring) % 2 else []
    return [turn for turn in (ring[::2], ring[1::2], last) if turn]


def _link(result: PairResult) -> Link:
    reached = result.outcome == REACHED
    why = f"{result.outcome} ({result.detail})" if result.detail else result.outcome
    return Link(
        source=result.source,
        target=result.target.node,
        port=result.target.port,
        reachable=reached,
        latency_seconds=_sane(result.latency_seconds, _MOST_LATENCY_SECONDS),
        bytes_per_second=_sane(result.bytes_per_second, _MOST_BYTES_PER_SECOND),
        detail=result.detail if reached else why,
    )


def _sane(value: float | None, most: float) -> float | None:
    """A measured number, or None for one that no honest node measures."""
    return value if value is not None and 0 < value <= most else None


def _ports(asked: Options, node: Node, hello: Hello) -> list[int]:
    """The ports of one parameter server, if there are any, and one worker of a node."""
    first = node.first_port or asked.first_port
    servers = [port for port in hello.free_ports if port < first + WORKER_PORT_OFFSET]
    workers = [port for port in hello.free_ports if port >= first + WORKER_PORT_OFFSET]
    has_servers = asked.strategy == PARAMETER_SERVER_STRATEGY
    return [*servers[: int(has_servers)], *workers[:1]]


def _plan_problem(states: tuple[NodeState, ...], asked: Options) -> str:
    """Why the nodes that can be used make no run, if so."""
    usable = [state for state in states if state.hello is not None and state.failure is None]
    if not usable:
        return ""
    try:
        make_plan(
            asked,
            [state.node for state in usable],
            [state.hello for state in usable if state.hello is not None],
        )
    except PlanError as error:
        return str(error)
    return ""

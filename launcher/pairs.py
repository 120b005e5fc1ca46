"""Which node has to reach which address in a run, and what to say of those that do not. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from launcher.errors import ConnectionLost, NodeError, PairUnreachable, PortTaken
from launcher.nodes import Node
from launcher.tasks import INPUT_ONLY, SINGLE, PlannedTask, RunPlan
from perftest.protocol import (
    NAME_UNKNOWN,
    NO_ROUTE,
    OUTCOMES,
    PARAMETER_SERVER,
    REACHED,
    REFUSED,
    STRANGER,
    TIMED_OUT,
)

# What the nodes themselves cannot say of an address.
PORT_TAKEN = "port taken"
NO_ANSWER = "its node does not answer"
NOT_LISTENING = "the other node does not answer"

# Tries of all nodes together, and the fewest that one makes all the same.
_MOST_TRIES = 1 << 16
_FEWEST_TRIES = 16
_MOST_PORTS_SHOWN = 6
_MOST_LABELS_SHOWN = 3


@dataclass(frozen=True)
class Target:
    """An address, and the node (its index in the session) that is to listen there."""

    node: int
    host: str
    port: int


@dataclass(frozen=True)
class PairResult:
    """What came of one node's try of one address.

    outcome: one of protocol.OUTCOMES, PORT_TAKEN (the target's own agent cannot listen there),
    NO_ANSWER (the source's agent does not answer the launcher) or NOT_LISTENING (the target's does
    not).  latency_seconds: of a round trip.
    bytes_per_second: where a transfer was asked for.  Both are None where they are not known.
    """

    source: int
    target: Target
    outcome: str
    latency_seconds: float | None
    bytes_per_second: float | None
    detail: str


def needed_pairs(plan: RunPlan) -> dict[int, tuple[Target, ...]]:
    """The addresses that each node must reach, by node.

    A worker calls every parameter server, to run its part of the graph. Each side fetches the
    tensors that it needs from where they are made: a worker parameters, a server gradients from
    every worker, and the sign that an update is complete from every other server. Workers call each
    other only where there are no servers, and the one of their node that adds up their gradients.
    Nodes that share one network stack are one caller. In a run of very many nodes each tries an
    even share of its addresses, and together they try all.
    """
    if plan.job.strategy in (SINGLE, INPUT_ONLY):
        return {}
    first: dict[tuple[str, str], int] = {}
    callers = [first.setdefault((h.machine, h.network), i) for i, h in enumerate(plan.hellos)]
    tasks_of: dict[int, list[PlannedTask]] = defaultdict(list)
    for task in plan.tasks:
        tasks_of[callers[task.node]].append(task)
    targets = {task: _target(task) for task in plan.tasks}
    most = max(_FEWEST_TRIES, _MOST_TRIES // len(tasks_of))
    return {
        node: tuple(targets[task] for task in _share(_called_by(own, plan), most, rank))
        for rank, (node, own) in enumerate(sorted(tasks_of.items()))
    }


def _target(task: PlannedTask) -> Target:
    host, _, port = task.address.rpartition(":")
    return Target(task.node, host.strip("[]"), int(port))


def _called_by(own: Sequence[PlannedTask], plan: RunPlan) -> list[PlannedTask]:
    """Whom the tasks of one caller call; a task does not call itself."""
    serves = any(task.place.role == PARAMETER_SERVER for task in own)
    called = plan.tasks if serves or not plan.servers else (*plan.servers, *_adders(own, plan))
    return [task for task in called if len(own) > 1 or task != own[0]]


def _adders(own: Sequence[PlannedTask], plan: RunPlan) -> list[PlannedTask]:
    """The workers that add up the gradients of others of these."""
    adders, workers = plan.job.adders, plan.workers
    indices = [task.place.index for task in own] if adders else []
    return [workers[i] for i in sorted({adders[j] for j in indices if adders[j] != j})]


def _share(tasks: list[PlannedTask], most: int, rank: int) -> list[PlannedTask]:
    """At most `most` of them, spread evenly, and others for the next rank."""
    count = len(tasks)
    if count <= most:
        return tasks
    return [tasks[(rank + i * count // most) % count] for i in range(most)]


def failures(
    results: Sequence[PairResult], nodes: Sequence[Node], seconds: float
) -> list[NodeError]:
    """One error for each thing that is wrong: with a node, with ports of it, or on the way to it.

    Those who fail at the same ports of the same node in the same way share one.
    nodes: of the session.  seconds: how long each address was tried.
    """
    failed = [result for result in results if result.outcome != REACHED]
    return [*_silent(failed, nodes), *_taken(failed, nodes), *_cut_off(failed, nodes, seconds)]


def _silent(failed: Sequence[PairResult], nodes: Sequence[Node]) -> list[NodeError]:
    silent = {
        **{r.source: r.detail for r in failed if r.outcome == NO_ANSWER},
        **{r.target.node: r.detail for r in failed if r.outcome == NOT_LISTENING},
    }
    return [
        ConnectionLost(
            nodes[i].label, detail, f"look at {nodes[i].alias} by hand, and run it again"
        )
        for i, detail in sorted(silent.items())
    ]


def _taken(failed: Sequence[PairResult], nodes: Sequence[Node]) -> list[NodeError]:
    taken: dict[tuple[int, str], set[int]] = defaultdict(set)
    for result in failed:
        if result.outcome == PORT_TAKEN:
            taken[result.target.node, result.detail].add(result.target.port)
    return [
        PortTaken(
            nodes[node].label,
            f"{_ports(ports)} of it cannot be listened on, and could a moment ago: {detail}",
            "run it again, because another program has taken the port meanwhile; "
            "--port-base with another first port, if it stays there",
        )
        for (node, detail), ports in sorted(taken.items())
    ]


def _cut_off(
    failed: Sequence[PairResult], nodes: Sequence[Node], seconds: float
) -> list[NodeError]:
    ports_of: dict[tuple[_Way, int], set[int]] = defaultdict(set)
    for result in failed:
        if result.outcome in OUTCOMES:
            target = result.target
            way = _Way(target.node, target.host, result.outcome, result.detail)
            ports_of[way, result.source].add(result.target.port)
    alike: dict[tuple[_Way, tuple[int, ...]], list[int]] = defaultdict(list)
    for (way, source), ports in ports_of.items():
        alike[way, tuple(sorted(ports))].append(source)
    return [
        PairUnreachable(
            _labels([nodes[source] for source in sources]),
            f"no way to {nodes[way.node].label} at {way.host}, {_ports(ports)}: "
            f"{way.reason(seconds)}",
            way.mend(nodes[way.node]),
        )
        for (way, ports), sources in alike.items()
    ]


@dataclass(frozen=True)
class _Way:
    """In which way a node is not reached."""

    node: int
    host: str
    outcome: str
    detail: str

    def reason(self, seconds: float) -> str:
        """What came of it, in words."""
        words = {
            REFUSED: "connection refused, although its agent listens there",
            TIMED_OUT: f"no answer within {seconds:.0f} s",
            NO_ROUTE: "the network does not go there",
            NAME_UNKNOWN: "the host name is not known there",
            STRANGER: "somebody else answered",
        }[self.outcome]
        return f"{words} ({self.detail})" if self.detail else words

    def mend(self, node: Node) -> str:
        """What to do about it."""
        place = node.where or "the nodes file"
        if self.outcome == NAME_UNKNOWN:
            return f"an address, or a name that all nodes know, in the first column of {place}"
        if self.outcome == STRANGER:
            return (
                f"see that {self.host}, the first column of {place}, is {node.alias} itself for "
                "the other nodes; --port-base, if something else is to have these ports"
            )
        return (
            "open these ports to the other nodes in the firewall, or name open ones with "
            f"--port-base; the first column of {place} must be an address of {node.alias} that "
            "the other nodes can use"
        )


def _ports(ports: Iterable[int]) -> str:
    """`ports 2222 and 2230`."""
    shown = [str(port) for port in sorted(ports)]
    if len(shown) == 1:
        return f"port {shown[0]}"
    if len(shown) > _MOST_PORTS_SHOWN:
        return f"ports {', '.join(shown[:_MOST_PORTS_SHOWN])} ... ({len(shown)} of them)"
    return f"ports {', '.join(shown[:-1])} and {shown[-1]}"


def _labels(nodes: Sequence[Node]) -> str:
    """All of some nodes; where they were read from too, if they are few."""
    few = len(nodes) <= _MOST_LABELS_SHOWN
    return ", ".join(node.label if few else node.alias for node in nodes)

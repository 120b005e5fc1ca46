"""What `runtest check` has found out, and what it makes of it. Values alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from launcher.errors import NodeError
from launcher.nodes import Node
from launcher.tasks import Options
from perftest.protocol import Hello, Inspection, ParameterCount

OK = "ok"
WARNING = "warning"
FAILURE = "failure"
# The worst first.
MARKS = (FAILURE, WARNING, OK)
# Codes of findings about the machine that runtest itself is on.
HERE = ("logs", "profile")


@dataclass(frozen=True)
class Finding:
    """One thing that a person should know.

    nodes: aliases of those that it is about; empty for the test as a whole.
    mark: FAILURE (a run would fail), WARNING (it would not, but look at it) or OK.
    code: a word that stays the same, for programs.  mend: what to do; empty where nothing is.
    """

    nodes: tuple[str, ...]
    mark: str
    code: str
    text: str
    mend: str = ""


@dataclass(frozen=True)
class ClockOffset:
    """A node's clock less the launcher's, in seconds; half of the round trip is its uncertainty."""

    seconds: float
    uncertainty_seconds: float


@dataclass(frozen=True)
class NodeState:
    """One node: what it said, and why it cannot be used, if so. A node may have both."""

    node: Node
    hello: Hello | None = None
    failure: NodeError | None = None
    inspection: Inspection | None = None
    inspection_problem: str = ""
    clock: ClockOffset | None = None


@dataclass(frozen=True)
class Link:
    """The way from one node to a port of another; nodes by their indices.

    latency_seconds: a round trip.  bytes_per_second: of our own transfer, where one was made.
    detail: why it cannot be used, where it cannot, or what else is wrong with it.
    """

    source: int
    target: int
    port: int
    reachable: bool
    latency_seconds: float | None = None
    bytes_per_second: float | None = None
    detail: str = ""


@dataclass(frozen=True)
class Checked:
    """All that was found out. count: None where no model was named, or nobody could be asked.

    plan_problem: why no plan of a run can be made with the nodes that answered, if so.
    """

    asked: Options
    nodes: tuple[NodeState, ...]
    links: tuple[Link, ...] = ()
    count: ParameterCount | None = None
    counted_by: str = ""
    plan_problem: str = ""

    @cached_property
    def meanings(self) -> dict[str, list[str]]:
        """Every data address by its name in the nodes file: what it means to any of the nodes."""
        found: dict[str, dict[str, None]] = {}
        for state in self.nodes:
            for answer in state.inspection.resolved if state.inspection else ():
                found.setdefault(answer.name, {}).update(dict.fromkeys(answer.addresses))
        return {name: list(addresses) for name, addresses in found.items()}

    @cached_property
    def probed(self) -> frozenset[int]:
        """The nodes that have tried others' ports."""
        return frozenset(link.source for link in self.links)


def worst(findings: Sequence[Finding]) -> str:
    """The worst mark of all; OK for none."""
    marks = {finding.mark for finding in findings}
    return next((mark for mark in MARKS if mark in marks), OK)


def merge(findings: list[Finding]) -> list[Finding]:
    """The same finding about several nodes as one, the worst first."""
    nodes: dict[tuple[str, str, str, str], dict[str, None]] = {}
    for one in findings:
        key = (one.mark, one.code, one.text, one.mend)
        nodes.setdefault(key, {}).update(dict.fromkeys(one.nodes))
    merged = [Finding(tuple(found), *key) for key, found in nodes.items()]
    return sorted(merged, key=lambda one: MARKS.index(one.mark))


def groups(states: Sequence[NodeState], of: Callable[[Hello], str]) -> dict[str, list[str]]:
    """Aliases of the nodes that answered, by what `of` says of each."""
    found: dict[str, list[str]] = defaultdict(list)
    for state in states:
        if state.hello is not None:
            found[of(state.hello)].append(state.node.alias)
    return found


def listed(aliases: dict[str, list[str]]) -> str:
    """`2.20 on a, b; 2.21 on c`, with no more than six names each."""
    parts = []
    for what, some in sorted(aliases.items()):
        more = f" and {len(some) - 6} more" if len(some) > 6 else ""
        parts.append(f"{what} on {', '.join(some[:6])}{more}")
    return "; ".join(parts)

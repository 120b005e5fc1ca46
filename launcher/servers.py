"""What parameter servers hold, how busy they are, and what every link carries in a step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from launcher.results.bottleneck import Load
from launcher.tasks import GRADIENT_BYTES, RunPlan
from perftest.protocol import PARAMETER_SERVER, ServerHolds, ServerLoad, ServersHold

# What a task may say of sizes and times that can be true: sums of them must stay finite.
_MOST_BYTES = 1 << 50
_MOST_SECONDS = 1e6


@dataclass
class Servers:
    """What is known of a run's servers. loads: of each, processor seconds and seconds measured."""

    holds: tuple[ServerHolds, ...] = ()
    loads: dict[int, tuple[float, float]] = field(default_factory=dict)

    def take(
        self, message: ServersHold | ServerLoad, role: str, index: int, plan: RunPlan, busy: bool
    ) -> str:
        """Keep what a task said; what is wrong with it, or nothing.

        busy: whether all workers train, so that the load is that of measured steps.
        """
        if isinstance(message, ServerLoad):
            return self._take_load(message, role, index, busy)
        if role == PARAMETER_SERVER or index or len(message.servers) != len(plan.servers):
            return "says what servers hold that are not its own"
        for each in message.servers:
            if not all(0 <= n <= _MOST_BYTES for n in (each.bytes, each.variables, each.pieces)):
                return "says that servers hold what cannot be"
        self.holds = message.servers
        return ""

    def _take_load(self, load: ServerLoad, role: str, index: int, busy: bool) -> str:
        if role != PARAMETER_SERVER:
            return "tells a load like a parameter server"
        if not (0 <= load.cpu_seconds <= _MOST_SECONDS and 0 < load.seconds <= _MOST_SECONDS):
            return "tells a load that cannot be"
        if busy:
            cpu, seconds = self.loads.get(index, (0.0, 0.0))
            self.loads[index] = (cpu + load.cpu_seconds, seconds + load.seconds)
        return ""

    def busy(self, index: int) -> float:
        """Processor seconds a second of a server; 0 where that is not known."""
        cpu, seconds = self.loads.get(index, (0.0, 1.0))
        return cpu / seconds


@dataclass(frozen=True)
class Link:
    """What one node sends another in a step; to itself, between processes of the node."""

    source: int
    target: int
    bytes: int


def traffic(plan: RunPlan, holds: Sequence[ServerHolds]) -> tuple[Link, ...]:
    """What every link carries for one step of every worker, the widest first.

    Every worker fetches all parameters from the servers, and sends each the gradients of what it
    holds; where nodes add up, those of servers elsewhere come and go between it and the adder.
    """
    bytes_: dict[tuple[int, int], int] = defaultdict(int)
    wire = GRADIENT_BYTES[plan.job.gradient_dtype]
    adders = plan.job.adders or tuple(task.place.index for task in plan.workers)
    for task, adder in zip(plan.workers, adders, strict=True):
        for server, held in zip(plan.servers, holds, strict=True):
            if task.place.index == adder or server.node == task.node:
                bytes_[server.node, task.node] += held.bytes
                bytes_[task.node, server.node] += held.bytes * wire // 4
            else:
                bytes_[task.node, task.node] += 2 * held.bytes
    links = (Link(*pair, count) for pair, count in bytes_.items())
    return tuple(sorted(links, key=lambda link: (-link.bytes, link.source, link.target)))


def in_json(plan: RunPlan, servers: Servers) -> dict[str, object]:
    """What `run.json` says of them; nothing where there are no servers."""
    if not servers.holds:
        return {}
    alias = [node.alias for node in plan.nodes]
    return {
        "servers": [
            {
                "index": task.place.index,
                "node": alias[task.node],
                "variables": held.variables,
                "pieces": held.pieces,
                "bytes": held.bytes,
                "processors_used": _busy(servers, task.place.index),
            }
            for task, held in zip(plan.servers, servers.holds, strict=True)
        ],
        "bytes_per_step": [
            {"from": alias[link.source], "to": alias[link.target], "bytes": link.bytes}
            for link in traffic(plan, servers.holds)
        ],
    }


def _busy(servers: Servers, index: int) -> float | None:
    return round(servers.busy(index), 3) if index in servers.loads else None


def machine_load(
    plan: RunPlan, servers: Servers, worker: int, workers: Mapping[int, float]
) -> Load:
    """How busy the machine of a worker is, with all that the run has there.

    workers: processor seconds a second of each worker.
    """
    home = plan.hellos[plan.workers[worker].node].machine
    here = [task for task in plan.tasks if plan.hellos[task.node].machine == home]
    of_servers = [servers.busy(task.place.index) for task in plan.servers if task in here]
    nodes = {task.node for task in here}
    return Load(
        workers=sum(workers.get(task.place.index, 0.0) for task in plan.workers if task in here),
        servers=sum(of_servers),
        processors=len({cpu for node in nodes for cpu in plan.hellos[node].cpus}),
        server=max((servers.busy(task.place.index) for task in plan.servers), default=0.0),
    )

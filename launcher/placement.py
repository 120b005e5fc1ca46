"""Which process goes where: ports, GPUs and processors of the nodes, given out. Opens nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from launcher.errors import PlanError
from launcher.nodes import Node
from launcher.tasks import PARAMETER_SERVER_STRATEGY, Options, PlannedTask
from perftest.protocol import PARAMETER_SERVER, WORKER, Gpu, Hello, Place

# Parameter servers from the first port, workers from the eighth after it: 2222 and 2230.
WORKER_PORT_OFFSET = 8
# How far above them an agent looks for free ones; as perftest/ports.py has it.
_PORT_SPAN = 256


def workers_of_nodes(options: Options, nodes: int) -> list[int]:
    """How many workers each node has: one node is filled before the next is taken."""
    each = options.gpus_per_node
    total = nodes * each if options.workers is None else min(options.workers, nodes * each)
    return [max(0, min(each, total - node * each)) for node in range(nodes)]


def usable_gpus(nodes: Sequence[Node], hellos: Sequence[Hello]) -> list[list[Gpu]]:
    """The GPUs of each node; nodes on one machine get different ones."""
    taken: dict[str, int] = defaultdict(int)
    sharers: dict[str, int] = defaultdict(int)
    for hello in hellos:
        sharers[hello.machine] += 1
    usable: list[list[Gpu]] = []
    for node, hello in zip(nodes, hellos, strict=True):
        count = len(hello.gpus) // sharers[hello.machine] if node.gpus is None else node.gpus
        first = taken[hello.machine]
        usable.append(list(hello.gpus[first : first + count]))
        taken[hello.machine] += count
    return usable


class Ports:
    """Gives out free ports, so that nodes that share one set of ports get different ones."""

    def __init__(self, options: Options, nodes: Sequence[Node], hellos: Sequence[Hello]) -> None:
        self._nodes = nodes
        self._hellos = hellos
        self._first = [node.first_port or options.first_port for node in nodes]
        self._taken: set[tuple[str, str, int]] = set()

    def address(self, node: int, role: str) -> str:
        """A `host:port` for one more task of `role` on a node."""
        hello = self._hellos[node]
        offset = WORKER_PORT_OFFSET if role == WORKER else 0
        for port in hello.free_ports:
            key = (hello.machine, hello.network, port)
            if port >= self._first[node] + offset and key not in self._taken:
                self._taken.add(key)
                host = self._nodes[node].hostname
                return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        first = self._first[node] + offset
        raise PlanError(
            f"{self._nodes[node].label}: no free port from {first} "
            f"to {self._first[node] + _PORT_SPAN - 1}",
            "--port-base with another first port, or port= for this node",
        )


def place_servers(options: Options, nodes: Sequence[Node], ports: Ports) -> tuple[PlannedTask, ...]:
    """The parameter servers, dealt out to the nodes in turn."""
    if options.strategy != PARAMETER_SERVER_STRATEGY:
        return ()
    count = options.parameter_servers if options.parameter_servers is not None else len(nodes)
    return tuple(
        PlannedTask(
            node=index % len(nodes),
            place=Place(PARAMETER_SERVER, index, cpus=(), gpu=None),
            address=ports.address(index % len(nodes), PARAMETER_SERVER),
        )
        for index in range(count)
    )


def place_workers(
    device: str, options: Options, nodes: Sequence[Node], hellos: Sequence[Hello], ports: Ports
) -> tuple[PlannedTask, ...]:
    """The workers, each with a GPU or a set of processors of its own."""
    place = _place_gpu_workers if device == "gpu" else _place_cpu_workers
    return place(options, nodes, hellos, ports)


def _place_gpu_workers(
    options: Options, nodes: Sequence[Node], hellos: Sequence[Hello], ports: Ports
) -> tuple[PlannedTask, ...]:
    tasks: list[PlannedTask] = []
    counts = workers_of_nodes(options, len(nodes))
    for node, gpus in enumerate(usable_gpus(nodes, hellos)):
        for gpu in gpus[: counts[node]]:
            place = Place(WORKER, len(tasks), cpus=(), gpu=gpu.uuid)
            tasks.append(PlannedTask(node, place, ports.address(node, WORKER), gpu.name))
    return tuple(tasks)


def _place_cpu_workers(
    options: Options, nodes: Sequence[Node], hellos: Sequence[Hello], ports: Ports
) -> tuple[PlannedTask, ...]:
    shares = split_cpus(dict(enumerate(hellos)), options.gpus_per_node)
    tasks: list[PlannedTask] = []
    for node, count in enumerate(workers_of_nodes(options, len(nodes))):
        for cpus in shares[node][:count]:
            place = Place(WORKER, len(tasks), cpus=cpus, gpu=None)
            tasks.append(PlannedTask(node, place, ports.address(node, WORKER)))
    return tuple(tasks)


def split_cpus(
    hellos: Mapping[int, Hello], workers_per_node: int
) -> dict[int, list[tuple[int, ...]]]:
    """The processors of each worker, by node: equal shares, apart from each other.

    Nodes that have the same processors of one machine share them out among all their workers. Where
    workers outnumber processors, several get the same one.
    """
    shares: dict[int, list[tuple[int, ...]]] = {node: [] for node in hellos}
    sharing: dict[tuple[str, frozenset[int]], list[int]] = defaultdict(list)
    for node, hello in hellos.items():
        sharing[hello.machine, frozenset(hello.cpus)].append(node)
    for members in sharing.values():
        cpus = hellos[members[0]].cpus  # threads of one core stand next to each other
        workers = [node for node in members for _ in range(workers_per_node)]
        each = max(1, len(cpus) // len(workers))
        for number, node in enumerate(workers):
            first = number * each % len(cpus)
            shares[node].append(tuple(cpus[first : first + each]))
    return shares

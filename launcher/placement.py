"""Which process goes where: ports, GPUs and processors of the nodes, given out. Opens nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from launcher.binding import environment, is_bound, share_out, threads
from launcher.errors import PlanError
from launcher.nodes import Node
from launcher.tasks import NOWHERE, ON_NODE, PARAMETER_SERVER_STRATEGY, Options, PlannedTask
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


def place_adders(
    options: Options, workers: Sequence[PlannedTask], servers: Sequence[PlannedTask]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """For each worker the one that adds up the gradients of its node, the first there; and the same
    for each server, -1 where its node has none. None where all gradients travel by themselves.
    """
    first: dict[int, int] = {}
    adders = tuple(first.setdefault(task.node, task.place.index) for task in workers)
    if not adds_up(options, list(Counter(adders).values())):
        return (), ()
    return adders, tuple(first.get(task.node, -1) for task in servers)


def adds_up(options: Options, workers: Sequence[int]) -> bool:
    """Whether nodes with so many workers add up their gradients before they travel.

    Where it is left to us: if some node has two workers or more, and there are several nodes, so
    that anything is saved.
    """
    if options.aggregation == NOWHERE or not may_aggregate(options) or max(workers) < 2:
        return False
    return options.aggregation == ON_NODE or sum(count > 0 for count in workers) > 1


def may_aggregate(options: Options) -> bool:
    """Whether an update takes the gradients of all workers, so that sums of some will do."""
    return (
        options.strategy == PARAMETER_SERVER_STRATEGY
        and options.synchronous
        and not options.backup_workers
    )


@dataclass(frozen=True)
class BoundWorkers:
    """Processors and variables of each node's workers, and the pools of threads of all of them.

    of_nodes: as many as each node has workers; processors are empty where a worker is not bound.
    """

    intra_op_threads: int
    inter_op_threads: int
    of_nodes: list[list[tuple[tuple[int, ...], tuple[str, ...]]]]


def bind_workers(device: str, options: Options, hellos: Sequence[Hello]) -> BoundWorkers:
    """What each worker may use of its node. Raises PlanError."""
    binding = options.binding
    shares = share_out(binding.cpu_bind, dict(enumerate(hellos)), options.gpus_per_node)
    counts = workers_of_nodes(options, len(hellos))
    of_nodes = [shares[node][:count] for node, count in enumerate(counts)]
    every = [share for each in of_nodes for share in each]
    bound = is_bound(binding.cpu_bind, device)
    intra = min(threads(binding.intra_op_threads or options.intra_op_threads, s) for s in every)
    inter = min(threads(binding.inter_op_threads or options.inter_op_threads, s) for s in every)
    if bound:  # more threads than processors would only wait for each other
        intra = min(intra, *(len(share.cpus) for share in every))
    return BoundWorkers(
        intra,
        inter,
        [
            [(s.cpus if bound else (), environment(binding, s, intra)) for s in each]
            for each in of_nodes
        ],
    )


def place_workers(
    device: str, bound: BoundWorkers, nodes: Sequence[Node], hellos: Sequence[Hello], ports: Ports
) -> tuple[PlannedTask, ...]:
    """The workers, each with what it is bound to and, where there are GPUs, one of them."""
    gpus = usable_gpus(nodes, hellos) if device == "gpu" else None
    tasks: list[PlannedTask] = []
    for node, workers in enumerate(bound.of_nodes):
        for number, (cpus, variables) in enumerate(workers):
            gpu = gpus[node][number] if gpus is not None else None
            uuid, name = (gpu.uuid, gpu.name) if gpu is not None else (None, "")
            place = Place(WORKER, len(tasks), cpus=cpus, gpu=uuid, environment=variables)
            tasks.append(PlannedTask(node, place, ports.address(node, WORKER), name))
    return tuple(tasks)

"""Nodes, what each said of itself, and options -> a frozen plan of one run. Opens nothing."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from launcher.errors import PlanError
from launcher.nodes import Node
from perftest.protocol import (
    PARAMETER_SERVER,
    VERSION,
    WORKER,
    Cluster,
    Gpu,
    Greet,
    Hello,
    Job,
    Place,
    PortRequest,
)

DEFAULT_FIRST_PORT = 2222
# Parameter servers from the first port, workers from the eighth after it: 2222 and 2230.
_WORKER_PORT_OFFSET = 8
# How far above them an agent looks for free ones; as perftest/ports.py has it.
_PORT_SPAN = 256

SINGLE = "single"
PARAMETER_SERVER_STRATEGY = "parameter_server"


@dataclass(frozen=True)
class Options:
    """What a person asked for. batch_size: images per GPU (per worker) and step.

    parameter_servers: how many, or None for one a node.  device: auto, cpu or gpu.
    workers: how many at most, one node filled before the next is taken; None for all that fit.
    stall_seconds: how long a run may go without any worker making a step or going on to another
    phase.
    """

    model: str
    batch_size: int = 32
    gpus_per_node: int = 1
    workers: int | None = None
    strategy: str = PARAMETER_SERVER_STRATEGY
    synchronous: bool = True
    parameter_servers: int | None = None
    backup_workers: int = 0
    warmup_steps: int = 10
    measured_steps: int = 100
    device: str = "auto"
    first_port: int = DEFAULT_FIRST_PORT
    learning_rate: float = 0.01
    seed: int = 1
    stall_seconds: float = 60.0


@dataclass(frozen=True)
class PlannedTask:
    """One process of the run: on which node (an index), at which `host:port`, with what."""

    node: int
    place: Place
    address: str
    gpu_name: str = ""

    @property
    def name(self) -> str:
        """`worker 3`, as people say it."""
        return f"{self.place.role} {self.place.index}"


@dataclass(frozen=True)
class RunPlan:
    """One run: which process runs where, and what all of them have in common.

    gpus_per_node: of a full node; the last one has fewer where the workers come out uneven.
    """

    nodes: tuple[Node, ...]
    hellos: tuple[Hello, ...]
    gpus_per_node: int
    device: str
    job: Job
    tasks: tuple[PlannedTask, ...]
    machines: int
    stall_seconds: float

    @property
    def workers(self) -> tuple[PlannedTask, ...]:
        """The workers, in the order of their indices."""
        return tuple(task for task in self.tasks if task.place.role == WORKER)

    @property
    def servers(self) -> tuple[PlannedTask, ...]:
        """The parameter servers, in the order of their indices."""
        return tuple(task for task in self.tasks if task.place.role == PARAMETER_SERVER)

    @property
    def gpu_type(self) -> str:
        """The GPUs' (or the processors') model, or several with commas between."""
        if self.device == "gpu":
            found = {task.gpu_name for task in self.workers}
        else:
            found = {self.hellos[task.node].cpu_model or "cpu" for task in self.workers}
        return ", ".join(sorted(found))

    def places(self, node: int) -> tuple[Place, ...]:
        """What one node starts."""
        return tuple(task.place for task in self.tasks if task.node == node)


def check_options(options: Options, nodes: int) -> None:
    """Raises PlanError for options that contradict each other, before any node is asked."""
    workers = sum(_workers_of_nodes(options, nodes))
    if options.strategy == SINGLE and workers > 1:
        asked = workers if options.workers else f"{nodes} × {options.gpus_per_node}"
        raise PlanError(
            f"--strategy single is one process, not {asked}",
            "-n 1 -g 1, or --strategy parameter_server",
        )
    if options.strategy != PARAMETER_SERVER_STRATEGY:
        given = {
            "--async": not options.synchronous,
            "--num-ps": options.parameter_servers is not None,
            "--backup-workers": options.backup_workers > 0,
        }
        for option, is_given in given.items():
            if is_given:
                raise PlanError(
                    f"{option} has no meaning with --strategy {options.strategy}",
                    f"leave out {option}, or --strategy parameter_server",
                )
    if options.backup_workers >= workers:
        raise PlanError(
            f"--backup-workers {options.backup_workers} leaves none of {workers} to wait for",
            f"--backup-workers {workers - 1} or less",
        )
    in_lockstep = options.synchronous and not options.backup_workers
    if not in_lockstep and options.measured_steps < workers:
        raise PlanError(
            f"--steps {options.measured_steps} is too few for {workers} workers that do not step "
            "together",
            f"--steps {workers} or more",
        )
    if not math.isfinite(options.learning_rate):
        raise PlanError(f"--learning-rate {options.learning_rate} is not a number", "0.01")
    if options.backup_workers and not options.synchronous:
        raise PlanError("--backup-workers has no meaning with --async", "leave out one of the two")


def greeting(options: Options, node: Node, session: str) -> Greet:
    """What a node is asked when it is greeted: enough ports for any plan with these options."""
    first = node.first_port or options.first_port
    servers = PortRequest(first, options.parameter_servers or 1)
    workers = PortRequest(first + _WORKER_PORT_OFFSET, options.gpus_per_node)
    return Greet(VERSION, session, (servers, workers))


def make_plan(options: Options, nodes: Sequence[Node], hellos: Sequence[Hello]) -> RunPlan:
    """Decide which process runs where. `hellos` are in the order of `nodes`.

    Where `options.workers` need fewer nodes than there are, the rest has no part in the run; but
    processors are shared out as if all did, so that a worker is the same at each size of a sweep.
    Raises PlanError when the nodes do not have what the options ask for.
    """
    check_options(options, len(nodes))
    _check_versions(nodes, hellos)
    device = _device(options, nodes, hellos)
    ports = _Ports(options, nodes, hellos)
    per_node = [count for count in _workers_of_nodes(options, len(nodes)) if count]
    used = len(per_node)
    servers = _place_servers(options, nodes[:used], ports)
    if device == "gpu":
        workers = _place_gpu_workers(options, nodes, hellos, ports)
    else:
        workers = _place_cpu_workers(options, nodes, hellos, ports)
    job = Job(
        model=options.model,
        strategy=options.strategy,
        batch_size=options.batch_size,
        warmup_steps=options.warmup_steps,
        measured_steps=options.measured_steps,
        synchronous=options.synchronous,
        aggregate=len(workers) - options.backup_workers,
        precision="fp32",
        learning_rate=options.learning_rate,
        seed=options.seed,
        cluster=Cluster(
            ps=tuple(task.address for task in servers),
            worker=tuple(task.address for task in workers),
        ),
    )
    return RunPlan(
        nodes=tuple(nodes[:used]),
        hellos=tuple(hellos[:used]),
        gpus_per_node=per_node[0],
        device=device,
        job=job,
        tasks=(*servers, *workers),
        machines=len({hello.machine for hello in hellos[:used]}),
        stall_seconds=options.stall_seconds,
    )


def _workers_of_nodes(options: Options, nodes: int) -> list[int]:
    """How many workers each node has: one node is filled before the next is taken."""
    each = options.gpus_per_node
    total = nodes * each if options.workers is None else min(options.workers, nodes * each)
    return [max(0, min(each, total - node * each)) for node in range(nodes)]


def _check_versions(nodes: Sequence[Node], hellos: Sequence[Hello]) -> None:
    for name, what in (("tensorflow", "TensorFlow"), ("keras", "Keras")):
        by_version: dict[str, list[str]] = defaultdict(list)
        for node, hello in zip(nodes, hellos, strict=True):
            by_version[getattr(hello.versions, name)].append(node.alias)
        if len(by_version) > 1:
            found = "; ".join(f"{v} on {', '.join(on)}" for v, on in sorted(by_version.items()))
            raise PlanError(
                f"the nodes have different versions of {what}: {found}",
                "install one version on all, or name an interpreter with python= in the nodes file",
            )


def _device(options: Options, nodes: Sequence[Node], hellos: Sequence[Hello]) -> str:
    """cpu or gpu; with GPUs, every node must have enough of them."""
    if options.device == "cpu":
        return "cpu"
    usable = _usable_gpus(nodes, hellos)
    if options.device == "auto" and not any(usable):
        _check_drivers(nodes, hellos)
        return "cpu"
    needed = _workers_of_nodes(options, len(nodes))
    if all(len(gpus) >= count for gpus, count in zip(usable, needed, strict=True)):
        return "gpu"
    counts = ", ".join(
        f"{node.label} has {len(gpus)}{f' ({hello.gpu_problem})' if hello.gpu_problem else ''}"
        for node, hello, gpus in zip(nodes, hellos, usable, strict=True)
    )
    fewest = min(len(gpus) for gpus in usable)
    mend = f"-g {fewest}, or --device cpu" if fewest else "--device cpu, or leave those nodes out"
    raise PlanError(f"-g {options.gpus_per_node} GPUs are asked for on each node: {counts}", mend)


def _check_drivers(nodes: Sequence[Node], hellos: Sequence[Hello]) -> None:
    """A broken driver must not make a GPU node pass for one without GPUs."""
    for node, hello in zip(nodes, hellos, strict=True):
        if hello.gpu_problem:
            raise PlanError(
                f"{node.label}: {hello.gpu_problem}",
                "mend the driver of that node, or --device cpu to measure its processors",
            )


def _usable_gpus(nodes: Sequence[Node], hellos: Sequence[Hello]) -> list[list[Gpu]]:
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


class _Ports:
    """Gives out free ports, so that nodes that share one set of ports get different ones."""

    def __init__(self, options: Options, nodes: Sequence[Node], hellos: Sequence[Hello]) -> None:
        self._nodes = nodes
        self._hellos = hellos
        self._first = [node.first_port or options.first_port for node in nodes]
        self._taken: set[tuple[str, str, int]] = set()

    def address(self, node: int, role: str) -> str:
        """A `host:port` for one more task of `role` on a node."""
        hello = self._hellos[node]
        offset = _WORKER_PORT_OFFSET if role == WORKER else 0
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


def _place_servers(
    options: Options, nodes: Sequence[Node], ports: _Ports
) -> tuple[PlannedTask, ...]:
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


def _place_gpu_workers(
    options: Options, nodes: Sequence[Node], hellos: Sequence[Hello], ports: _Ports
) -> tuple[PlannedTask, ...]:
    tasks: list[PlannedTask] = []
    counts = _workers_of_nodes(options, len(nodes))
    for node, gpus in enumerate(_usable_gpus(nodes, hellos)):
        for gpu in gpus[: counts[node]]:
            place = Place(WORKER, len(tasks), cpus=(), gpu=gpu.uuid)
            tasks.append(PlannedTask(node, place, ports.address(node, WORKER), gpu.name))
    return tuple(tasks)


def _place_cpu_workers(
    options: Options, nodes: Sequence[Node], hellos: Sequence[Hello], ports: _Ports
) -> tuple[PlannedTask, ...]:
    shares = split_cpus(dict(enumerate(hellos)), options.gpus_per_node)
    tasks: list[PlannedTask] = []
    for node, count in enumerate(_workers_of_nodes(options, len(nodes))):
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

"""Nodes, what each said of itself, and options -> a frozen plan of one run. Opens nothing."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from launcher.computing import check_computing, check_device, uses_xla
from launcher.errors import PlanError
from launcher.nodes import Node
from launcher.placement import (
    WORKER_PORT_OFFSET,
    Ports,
    bind_workers,
    may_aggregate,
    place_adders,
    place_servers,
    place_workers,
    usable_gpus,
    workers_of_nodes,
)
from launcher.tasks import (
    ALL_REDUCE,
    AUTO,
    GET_HOROVOD,
    HOROVOD,
    INPUT_ONLY,
    ON_NODE,
    PARAMETER_SERVER_STRATEGY,
    SINGLE,
    Options,
    RunPlan,
)
from perftest.protocol import VERSION, Cluster, Greet, Hello, Job, PortRequest

# What a training has instead of an option.
_KEYS_OF_TRAININGS = {"--backup-workers": "num_hot_spares", "--async": "mode async"}


def check_options(options: Options, nodes: int) -> None:
    """Raises PlanError for options that contradict each other, before any node is asked."""
    workers = sum(workers_of_nodes(options, nodes))
    if options.strategy == SINGLE and workers > 1:
        asked = workers if options.workers else f"{nodes} × {options.gpus_per_node}"
        raise PlanError(
            f"--strategy single is one process, not {asked}",
            "-n 1 -g 1, or another --strategy",
        )
    _check_strategy(options)
    _check_updates(options, workers)
    in_lockstep = options.synchronous and not options.backup_workers
    is_measurement = options.training is None
    if is_measurement and not in_lockstep and options.measured_steps < workers:
        raise PlanError(
            f"--steps {options.measured_steps} is too few for {workers} workers that do not step "
            "together",
            f"--steps {workers} or more",
        )
    check_computing(options)
    if math.isnan(options.stall_seconds):
        raise PlanError(f"--stall-timeout {options.stall_seconds} is not a number", "60")
    if not math.isfinite(options.learning_rate):
        raise PlanError(f"--learning-rate {options.learning_rate} is not a number", "0.01")


def _check_updates(options: Options, workers: int) -> None:
    """Raises PlanError for contradictions in whose gradients an update waits for."""
    spares, asynchronous = _called(options, "--backup-workers"), _called(options, "--async")
    if options.backup_workers >= workers:
        raise PlanError(
            f"{spares} {options.backup_workers} leaves none of {workers} to wait for",
            f"{spares} {workers - 1}{' or less' if workers > 1 else ''}",
        )
    if options.backup_workers and not options.synchronous:
        raise PlanError(f"{spares} has no meaning with {asynchronous}", "leave out one of the two")
    if options.aggregation == ON_NODE and not may_aggregate(options):
        other = spares if options.backup_workers else asynchronous
        raise PlanError(
            f"--aggregate node has no meaning with {other}, where every worker's gradients count "
            "by themselves",
            "leave out one of the two",
        )


def _check_strategy(options: Options) -> None:
    """Raises PlanError for options that mean nothing to the strategy."""
    if options.strategy != PARAMETER_SERVER_STRATEGY:
        given = {
            "--async": not options.synchronous,
            "--num-ps": options.parameter_servers is not None,
            "--backup-workers": options.backup_workers > 0,
            "--aggregate": options.aggregation != AUTO,
            "--gradient-dtype": options.gradient_dtype != "fp32",
        }
        for option, is_given in given.items():
            if is_given and options.training is not None and options.strategy == SINGLE:
                raise PlanError(
                    f"{option} has no meaning with one worker alone, which trains in one process",
                    f"leave out {option}, or -g 2 for two workers",
                )
            if is_given:
                raise PlanError(
                    f"{option} has no meaning with {_how(options.strategy)}",
                    f"leave out {option}, or --strategy parameter_server",
                )
    if options.strategy != ALL_REDUCE and options.communication != "auto":
        raise PlanError(
            f"--communication has no meaning with {_how(options.strategy)}",
            "leave out --communication, or --strategy all_reduce",
        )


def _called(options: Options, option: str) -> str:
    """What the person who asked calls an option: for some, a training has a key."""
    return option if options.training is None else _KEYS_OF_TRAININGS[option]


def _how(strategy: str) -> str:
    """The option that chose a strategy."""
    return "--input-only" if strategy == INPUT_ONLY else f"--strategy {strategy}"


def greeting(options: Options, node: Node, session: str) -> Greet:
    """What a node is asked when it is greeted: enough ports for any plan with these options."""
    first = node.first_port or options.first_port
    servers = PortRequest(first, options.parameter_servers or 1)
    workers = PortRequest(first + WORKER_PORT_OFFSET, options.gpus_per_node)
    return Greet(VERSION, session, (servers, workers))


def make_plan(options: Options, nodes: Sequence[Node], hellos: Sequence[Hello]) -> RunPlan:
    """Decide which process runs where. `hellos` are in the order of `nodes`.

    Where `options.workers` need fewer nodes than there are, the rest has no part in the run; but
    processors are shared out as if all did, so that a worker is the same at each size of a sweep.
    Raises PlanError when the nodes do not have what the options ask for.
    """
    check_options(options, len(nodes))
    _check_versions(options, nodes, hellos)
    device = _device(options, nodes, hellos)
    check_device(options, device)
    ports = Ports(options, nodes, hellos)
    per_node = [count for count in workers_of_nodes(options, len(nodes)) if count]
    used = len(per_node)
    servers = place_servers(options, nodes[:used], ports)
    bound = bind_workers(device, options, hellos)
    workers = place_workers(device, bound, nodes, hellos, ports)
    adders, server_adders = place_adders(options, workers, servers)
    job = Job(
        model=options.model,
        strategy=options.strategy,
        batch_size=options.batch_size,
        warmup_steps=options.warmup_steps,
        measured_steps=options.measured_steps,
        synchronous=options.synchronous,
        aggregate=len(workers) - options.backup_workers,
        precision=options.precision,
        learning_rate=options.learning_rate,
        seed=options.seed,
        cluster=Cluster(
            ps=tuple(task.address for task in servers),
            worker=tuple(task.address for task in workers),
        ),
        model_options=dict(options.model_options),
        image_shape=options.image_shape,
        communication=options.communication,
        data=options.data,
        optimizer=options.optimizer,
        training=options.training,
        intra_op_threads=bound.intra_op_threads,
        inter_op_threads=bound.inter_op_threads,
        xla=uses_xla(options, device),
        onednn=options.onednn,
        profile_steps=options.profile_steps,
        adders=adders,
        server_adders=server_adders,
        gradient_dtype=options.gradient_dtype,
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
        binding=options.binding,
    )


def _check_versions(options: Options, nodes: Sequence[Node], hellos: Sequence[Hello]) -> None:
    compared = [("tensorflow", "TensorFlow"), ("keras", "Keras")]
    if options.strategy == HOROVOD:
        compared.append(("horovod", "Horovod"))
        without = [n.alias for n, h in zip(nodes, hellos, strict=True) if not h.versions.horovod]
        if without:
            raise PlanError(f"--strategy horovod: no Horovod on {', '.join(without)}", GET_HOROVOD)
    for name, what in compared:
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
    usable = usable_gpus(nodes, hellos)
    if options.device == "auto" and not any(usable):
        _check_drivers(nodes, hellos)
        return "cpu"
    needed = workers_of_nodes(options, len(nodes))
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

"""Findings about the machines themselves: devices, and what would disturb a measurement."""

from __future__ import annotations

from collections.abc import Iterator

from launcher.checked import (
    FAILURE,
    OK,
    WARNING,
    Checked,
    Finding,
    NodeState,
    groups,
    listed,
)
from launcher.placement import usable_gpus, workers_of_nodes
from perftest.protocol import Gpu, GpuUse, Hello, Inspection

_GIB = 1 << 30
_LEAST_DISK = 1 * _GIB
# What a process with TensorFlow needs before it holds any network.
_LEAST_MEMORY_PER_TASK = 1 * _GIB
_LEAST_FILES = 1024
_MOST_SWAP_SHARE = 1 / 16
# A GPU that nobody uses shows some MiB of the driver's own.
_BUSY_MEMORY_SHARE = 0.1
_BUSY_PERCENT = 10


def device_findings(checked: Checked) -> Iterator[Finding]:
    """Drivers, numbers and kinds of GPUs, and who else uses them."""
    states = [state for state in checked.nodes if state.hello is not None]
    hellos = [state.hello for state in states if state.hello is not None]
    if checked.asked.device != "cpu":
        yield from _drivers(states)
        yield from _numbers_of_gpus(checked, states, hellos)
    for state in states:
        if state.hello is not None:
            yield from _gpus_of(state, state.hello)
    kind = "GPUs" if any(hello.gpus for hello in hellos) else "processors"
    kinds = groups(states, _kind_of_gpus if kind == "GPUs" else lambda hello: hello.cpu_model)
    if len(kinds) > 1:
        everyone = tuple(state.node.alias for state in states)
        text = f"the nodes have different {kind}: {listed(kinds)}; the slowest sets the pace"
        mend = "a nodes file for each kind, and a run for each"
        yield Finding(everyone, WARNING, "hardware_differs", text, mend)


def _drivers(states: list[NodeState]) -> Iterator[Finding]:
    for state in states:
        if state.hello is not None and state.hello.gpu_problem:
            mend = "mend the driver (nvidia-smi there), or --device cpu to measure its processors"
            yield Finding((state.node.alias,), FAILURE, "gpu_driver", state.hello.gpu_problem, mend)


def _numbers_of_gpus(
    checked: Checked, states: list[NodeState], hellos: list[Hello]
) -> Iterator[Finding]:
    usable = usable_gpus([state.node for state in states], hellos)
    if not any(usable) and checked.asked.device != "gpu":
        return
    needed = workers_of_nodes(checked.asked, len(states))
    for state, gpus, count in zip(states, usable, needed, strict=True):
        if len(gpus) < count and not (state.hello and state.hello.gpu_problem):
            text = f"{len(gpus)} GPUs, but -g {count} are asked for"
            mend = "a smaller -g, --device cpu, or leave that node out"
            yield Finding((state.node.alias,), FAILURE, "too_few_gpus", text, mend)


def _gpus_of(state: NodeState, hello: Hello) -> Iterator[Finding]:
    alias = (state.node.alias,)
    if any(gpu.uuid.startswith("MIG-") for gpu in hello.gpus):
        text = "a GPU is divided (MIG): each slice counts as one GPU, and is as slow as a slice"
        yield Finding(alias, WARNING, "gpu_divided", text, "nvidia-smi -mig 0 there, as root")
    use = {each.uuid: each for each in state.inspection.gpu_use} if state.inspection else {}
    busy = [gpu for gpu in hello.gpus if gpu.uuid in use and _is_busy(gpu, use[gpu.uuid])]
    if busy:
        text = "in use already: " + "; ".join(
            f"{gpu.uuid[:12]} ({_use(use[gpu.uuid])})" for gpu in busy[:8]
        )
        mend = "wait until it is free, or choose others with gpus= or CUDA_VISIBLE_DEVICES"
        yield Finding(alias, WARNING, "gpu_in_use", text, mend)


def _is_busy(gpu: Gpu, use: GpuUse) -> bool:
    return (
        use.processes > 0
        or (use.utilization_percent or 0) >= _BUSY_PERCENT
        or (gpu.memory_mib > 0 and use.used_mib > _BUSY_MEMORY_SHARE * gpu.memory_mib)
    )


def _use(use: GpuUse) -> str:
    busy = "" if use.utilization_percent is None else f", {use.utilization_percent} % busy"
    plural = "" if use.processes == 1 else "es"
    return f"{use.processes} process{plural}, {use.used_mib} MiB{busy}"


def _kind_of_gpus(hello: Hello) -> str:
    return ", ".join(sorted({gpu.name for gpu in hello.gpus})) or "none"


def machine_findings(checked: Checked) -> Iterator[Finding]:
    """What would disturb a measurement, or end it: load, memory, disk, settings."""
    for state in checked.nodes:
        if state.hello is not None and state.inspection is not None:
            yield from _room(state.node.alias, state.hello, state.inspection, checked)
            yield from _settings(state.node.alias, state.inspection)
    for machine in groups(checked.nodes, lambda hello: hello.machine).values():
        if len(machine) > 1:
            text = (
                f"{', '.join(machine[:6])} are one machine: N processes on one machine are not "
                "N nodes"
            )
            mend = "list each machine once, with -g for several workers on it"
            yield Finding(tuple(machine), WARNING, "same_machine", text, mend)


def _room(alias: str, hello: Hello, seen: Inspection, checked: Checked) -> Iterator[Finding]:
    if seen.load > len(hello.cpus) / 2:
        text = f"busy: {seen.load:.1f} processes want one of its {len(hello.cpus)} processors"
        mend = "look at top there; a measurement would be disturbed"
        yield Finding((alias,), WARNING, "busy", text, mend)
    tasks = checked.asked.gpus_per_node + 1
    if 0 < seen.memory_available_bytes < tasks * _LEAST_MEMORY_PER_TASK:
        text = (
            f"{seen.memory_available_bytes / _GIB:.1f} GiB of memory are free for {tasks} "
            "processes of TensorFlow"
        )
        yield Finding((alias,), WARNING, "memory_low", text, "end what else runs there, or -g 1")
    if seen.swap_used_bytes > _MOST_SWAP_SHARE * hello.memory_bytes:
        text = f"{seen.swap_used_bytes / _GIB:.1f} GiB are swapped out"
        yield Finding((alias,), WARNING, "swapping", text, "end what fills the memory there")
    if hello.disk_free_bytes < _LEAST_DISK:
        text = f"{hello.disk_free_bytes >> 20} MiB are free in the remote directory"
        yield Finding((alias,), WARNING, "disk_low", text, "another directory with -r")


def _settings(alias: str, seen: Inspection) -> Iterator[Finding]:
    if seen.governor == "powersave":
        text = f"the processors' frequency governor is powersave ({seen.governor_driver})"
        mend = "cpupower frequency-set -g performance there"
        yield Finding((alias,), WARNING, "powersave", text, mend)
    if seen.open_files < _LEAST_FILES:
        text = f"a process may open {seen.open_files} files"
        yield Finding((alias,), WARNING, "open_files", text, "a larger ulimit -n there")
    if seen.noexec:
        text = "the remote directory is mounted noexec; runtest executes no file in it"
        yield Finding((alias,), OK, "noexec", text)
    if seen.proxies:
        text = (
            f"{', '.join(seen.proxies[:6])} set: TensorFlow would send its traffic there, and is "
            "started without"
        )
        yield Finding((alias,), OK, "proxy", text)

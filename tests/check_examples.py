"""Facts of nodes for tests of findings: one good node, and what differs from it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from launcher.checked import Checked, ClockOffset, Finding, Link, NodeState
from launcher.findings import find
from launcher.nodes import Node
from launcher.tasks import Options
from perftest.protocol import (
    Gpu,
    Hello,
    Inspection,
    NetworkInterface,
    ParameterCount,
    ResolvedName,
    Versions,
)

GIB = 1 << 30
H100 = Gpu("GPU-5c89852c-d268", "NVIDIA H100 80GB HBM3", 81559, "580.159.04")


def hello(number: int, **changes: Any) -> Hello:
    """What node `number` says of itself; all of them are alike."""
    good = Hello(
        version=1,
        host=f"node{number}",
        user="ana",
        directory=f"/tmp/perftest-1000/s.{number}",
        executable="/usr/bin/python3",
        versions=Versions("3.11.2", "2.21.0", "3.15.1", "3.14.0"),
        gpus=(),
        gpu_problem="",
        cpus=tuple(range(16)),
        cpu_model="AMD EPYC 9354",
        memory_bytes=64 * GIB,
        disk_free_bytes=100 * GIB,
        addresses=("127.0.0.1", f"10.0.0.{number + 1}"),
        machine=f"machine{number}",
        network=f"net:[{number}]",
        free_ports=(2222, 2230),
    )
    return replace(good, **changes)


def inspection(number: int, count: int, **changes: Any) -> Inspection:
    """What node `number` of `count` says of its state."""
    good = Inspection(
        instruction_sets=("avx2", "avx512f"),
        load=0.3,
        memory_available_bytes=60 * GIB,
        swap_used_bytes=0,
        governor="performance",
        governor_driver="acpi-cpufreq",
        huge_pages="madvise",
        open_files=65536,
        noexec=False,
        proxies=(),
        interfaces=(NetworkInterface("eth0", (f"10.0.0.{number + 1}",), 10_000, 1500, False),),
        resolved=tuple(
            ResolvedName(f"10.0.0.{i + 1}", (f"10.0.0.{i + 1}",), "") for i in range(count)
        ),
        gpu_use=(),
    )
    return replace(good, **changes)


def state(number: int, count: int = 2, **changes: Any) -> NodeState:
    """Node `number` of `count`, with nothing wrong."""
    good = NodeState(
        node=Node(f"10.0.0.{number + 1}", f"n{number}", f"nodes, line {number + 1}"),
        hello=hello(number),
        inspection=inspection(number, count),
        clock=ClockOffset(0.0002, 0.0005),
    )
    return replace(good, **changes)


def checked(*states: NodeState, **changes: Any) -> Checked:
    """A check of these nodes, all of which reach each other with 1 GB/s."""
    links = tuple(
        Link(source, target, port, True, 0.0002, 1e9 if port == 2222 else None)
        for source in range(len(states))
        for target in range(len(states))
        for port in (2222, 2230)
        if source != target
    )
    made = Checked(asked=Options("resnet50"), nodes=states, links=links)
    return replace(made, **changes)


def told(facts: Checked, code: str) -> Finding:
    """The one finding with this code."""
    found = [one for one in find(facts) if one.code == code]
    assert len(found) == 1, [(one.mark, one.code, one.text) for one in find(facts)]
    return found[0]


COUNT = ParameterCount("resnet50", (60, 40, 30, 20), "")

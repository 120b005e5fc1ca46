"""Targets about nodes: what they are sent first, and what a check makes of what they say."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable

from fuzz.bounds import refusing
from launcher import payload
from launcher.check import _plan_problem
from launcher.check_json import check_json
from launcher.check_report import print_check
from launcher.check_verdict import judge
from launcher.checked import Checked, ClockOffset, Link, NodeState
from launcher.errors import AllocationError, UsageError
from launcher.hostlist import expand
from launcher.nodes import Node
from launcher.session import check_hello
from launcher.tasks import Options
from launcher.terminal import console
from launcher.text import cleaned
from perftest import protocol
from perftest.protocol import Gpu, GpuUse, Hello, Inspection, NetworkInterface, ParameterCount

_PROGRAM = payload.Payload(b"program", "")


def preamble(data: bytes) -> None:
    """A directory, a session and an interpreter are a line each, or refused."""
    words = [*data.decode(errors="surrogateescape").split("\f"), "", ""][:3]
    with refusing(UsageError):
        made = payload.preamble(words[0], words[1], words[2], _PROGRAM)
        lines = made.removesuffix(b"program").decode().split("\n")
        assert lines == [*words, "7", ""]
        assert all(line.isprintable() for line in lines)


def hostlist(data: bytes) -> None:
    """A list of nodes becomes names that no command takes for an option, or AllocationError."""
    with refusing(AllocationError):
        names = expand(data.decode(errors="surrogateescape"))
        assert 0 < len(names) <= 65536
        assert all(name.isascii() and name.isprintable() for name in names)
        assert not any(name.startswith("-") or set(name) & set(" ;$`'\"") for name in names)


def check(data: bytes) -> None:
    """Whatever two nodes say of themselves is judged and told, and no terminal obeys it."""
    said: list[object] = []
    for line in data.split(b"\n"):
        with contextlib.suppress(protocol.MessageError):
            said.append(cleaned(protocol.decode(line)))
    states = (_state(0, said), _state(1, list(reversed(said))))
    count = next((each for each in said if isinstance(each, ParameterCount)), None)
    links = (
        Link(0, 1, 2222, True, 1e-4, 1e9, str(said[:1])[:99]),
        Link(1, 0, 2222, False, detail="\x1b[2J"),
    )
    for strategy in ("parameter_server", "all_reduce"):
        asked = Options("resnet50", strategy=strategy)
        facts = Checked(asked, states, links, count, "n0", _plan_problem(states, asked))
        verdict = judge(facts)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            print_check(console(), verdict)
        assert not [c for c in out.getvalue() if not c.isprintable() and c != "\n"]
        assert check_json(verdict).isascii()
        assert len(json.loads(check_json(verdict))["nodes"]) == 2


def _state(number: int, said: list[object]) -> NodeState:
    """A node that has said this, in the order in which it counts."""
    node = Node(f"10.0.0.{number + 1}", f"n{number}", f"nodes, line {number + 1}")
    hello = next((each for each in said if isinstance(each, Hello)), None)
    seen = next((each for each in said if isinstance(each, Inspection)), None)
    failure = check_hello(node, hello) if hello is not None else None
    return NodeState(node, hello, failure, seen, "", ClockOffset(1e9 * number, 0.5))


TARGETS: tuple[Callable[[bytes], None], ...] = (preamble, hostlist, check)

HELLO = {
    "version": 1,
    "host": "h",
    "user": "u",
    "directory": "/tmp/x",
    "executable": "python3",
    "versions": protocol.Versions("3.11.2", "2.21.0", "3.15.1", ""),
    "gpus": (),
    "gpu_problem": "",
    "cpus": (0,),
    "cpu_model": "",
    "memory_bytes": 1,
    "disk_free_bytes": 1,
    "addresses": (),
    "machine": "m",
    "network": "n",
    "free_ports": (2222,),
}
_INSPECTION = Inspection(
    instruction_sets=("avx2",),
    load=0.3,
    memory_available_bytes=60 << 30,
    swap_used_bytes=0,
    governor="performance",
    governor_driver="acpi-cpufreq",
    huge_pages="madvise",
    open_files=65536,
    noexec=True,
    proxies=("http_proxy",),
    interfaces=(NetworkInterface("eth0", ("10.0.0.1",), 10_000, 1500, False),),
    resolved=(protocol.ResolvedName("10.0.0.1", ("10.0.0.1",), ""),),
    gpu_use=(GpuUse("GPU-1", 73113, 98, 2),),
)
_GPU = Gpu("GPU-1", "NVIDIA H100", 81559, "580.1")
SAID = (
    Hello(**{**HELLO, "gpus": (_GPU,)}),  # type: ignore[arg-type]
    Hello(**{**HELLO, "cpu_model": "[red]\x1b[2J", "machine": "other"}),  # type: ignore[arg-type]
    _INSPECTION,
    ParameterCount("resnet50", (60, 40, 0), ""),
)

SEEDS: dict[str, tuple[bytes, ...]] = {
    "preamble": (
        b"/scratch/me\f20261121-120000-abcdef.0\f/opt/venv/bin/python3",
        b"/x; touch /tmp/x $(id) `id` '\"\f../..\f-rf",
        b"/x\ny\f\x1b[2J\f\xff",
        "/x\u2028y\f\u202e\f\0".encode(),
    ),
    "hostlist": (
        b"gpu[01-03,7],login",
        b"[0-65535][0-65535]",
        b"a[" + b"0-65535," * 1000 + b"1]",
        b"-w,x",
        b"a$(id),b c,d\x1b[2J",
    ),
    "check": (
        b"\n".join(protocol.encode(each).strip() for each in SAID),
        protocol.encode(_INSPECTION) + protocol.encode(SAID[0]),
        protocol.encode(SAID[0])
        + protocol.encode(ParameterCount("resnet50", (), "[/red]\x1b]0;x\x07")),
    ),
}

"""Record what replay_1000_nodes.py plays: every message of one node of a real run.

The run is DeepMNIST on two nodes, network namespaces of this machine with an sshd each (root), a
parameter server and a worker on the first, which is recorded, and a worker on the other. Of what
comes again and again (steps, the load of the server) the first is kept; of names and paths of
this machine nothing.

    .venv/bin/python benchmarks/record_replay.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launcher.nodes import Node
from launcher.outcome import Outcome
from launcher.plan import greeting, make_plan
from launcher.run import execute
from launcher.session import NodeOptions, Session
from launcher.tasks import Options
from launcher.transports.base import Connection
from launcher.transports.ssh import SshTransport
from perftest import protocol

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from hosts import NamespaceHosts

RECORDING = Path(__file__).with_name("replay_recording.json")
ASKED = Options("deepmnist", 4, warmup_steps=2, measured_steps=100, parameter_servers=1)
HERE = {
    "host": "vm",
    "user": "user",
    "directory": "/tmp/perftest-0/rec.0",
    "executable": "/usr/bin/python3",
    "addresses": ["10.0.0.1"],
}


class RecordingTransport(SshTransport):
    """Keeps all bytes that the first node sends."""

    def __init__(self, hosts: NamespaceHosts, recorded: str) -> None:
        super().__init__(hosts.ssh_config)
        self.heard = bytearray()
        self._recorded = recorded

    def open(self, node: Node, script: str) -> Connection:
        connection = super().open(node, script)
        if node.alias == self._recorded:
            receive = connection.receive

            def kept() -> bytes:
                data = receive()
                self.heard.extend(data)
                return data

            connection.receive = kept  # type: ignore[method-assign]
        return connection


class Quiet:
    """Observes nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


def run(hosts: NamespaceHosts) -> list[dict[str, Any]]:
    """Make the run; every message of the first node, in order."""
    nodes = [Node(host.address, host.name) for host in hosts.hosts]
    transport = RecordingTransport(hosts, nodes[0].alias)
    quiet: Any = Quiet()
    outcome = Outcome()
    with Session(nodes, transport, NodeOptions("/tmp", sys.executable), "rec") as session:
        session.open(lambda node: greeting(ASKED, node, "rec"), quiet)
        plan = make_plan(ASKED, session.nodes, session.hellos)
        execute(session, plan, "r", quiet, lambda *_: None, outcome)
    assert len(outcome.finished) == 2
    _, _, said = bytes(transport.heard).partition(protocol.MARKER.encode() + b"\n")
    return [json.loads(line) for line in said.splitlines()]


def sort(messages: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The messages by when they are played."""
    found: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("hello", "before go", "steps", "load", "finished", "at the end")
    }
    for message in messages:
        kind = message["type"]
        inner = message.get("message", {})
        if kind == "hello":
            found["hello"].append({**message, **HERE})
        elif kind in ("log", "run_ended"):
            found["at the end"].append(message)
        elif inner.get("type") == "server_load":
            found["load"].append(message)
        elif inner.get("type") == "finished":
            found["finished"].append(message)
        elif inner.get("type") == "step_times" and inner["measured"]:
            found["steps"].append(message)
        elif kind == "from_task":
            found["before go"].append(message)
    return {**found, "steps": found["steps"][:1], "load": found["load"][:1]}


def main() -> None:
    """Write the recording."""
    with NamespaceHosts(2) as hosts:
        found = sort(run(hosts))
    assert all(found.values()), {name: len(some) for name, some in found.items()}
    RECORDING.write_text(json.dumps(found, indent=1) + "\n")
    print(*(f"{name}: {len(some)}" for name, some in found.items()), sep="\n")


if __name__ == "__main__":
    main()

"""Nodes that say what a test wants them to say: late, wrong, or in another node's name.

No real agent can be made to lie, so that a thread of the test plays the node, over the same
contract that the real transports keep.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from launcher.errors import ConnectionLost
from launcher.nodes import Node
from launcher.payload import SHELL_MARKER
from launcher.transports.base import Connection, Transport
from perftest import protocol
from perftest.protocol import (
    REACHED,
    Greet,
    Hello,
    Listen,
    Listening,
    Probe,
    Probed,
    ProbeResult,
    Versions,
)

HEAD = f"\n{SHELL_MARKER}\n\n{protocol.MARKER}\n".encode()
HELLO = Hello(
    version=protocol.VERSION,
    host="h",
    user="u",
    directory="/tmp/x",
    executable="/usr/bin/python3",
    versions=Versions("3.11.2", "2.21.0", "3.15.1", ""),
    gpus=(),
    gpu_problem="",
    cpus=(0, 1),
    cpu_model="EPYC",
    memory_bytes=1,
    disk_free_bytes=1,
    addresses=(),
    machine="m0",
    network="n0",
    free_ports=tuple(range(2222, 2478)),
)


class Played(Connection):
    """The launcher's end of a node that is played."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._to_launcher: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._to_node: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._buffer = b""
        self._over = threading.Event()
        self.status: int | None = 0
        self.errors = b""
        self._errors_read = False

    def send(self, data: bytes) -> None:
        if self._over.is_set():
            raise ConnectionLost(self.node.label, "gone")
        self._to_node.put(data)

    def receive(self) -> bytes:
        return b"" if self._over.is_set() and self._to_launcher.empty() else self._to_launcher.get()

    def receive_errors(self) -> bytes:
        self._over.wait()
        data, self.errors = self.errors, b""
        return data

    def close_input(self) -> None:
        self._to_node.put(b"")

    def wait(self, timeout_seconds: float) -> int | None:
        return self.status

    def close(self) -> None:
        self._to_node.put(b"")
        self.leave()

    # The node's end.

    def leave(self, status: int | None = 0, errors: bytes = b"") -> None:
        if not self._over.is_set():
            self.status, self.errors = status, errors
            self._over.set()
            self._to_launcher.put(b"")

    def write(self, data: bytes) -> None:
        self._to_launcher.put(data)

    def say(self, message: object) -> None:
        self.write(protocol.encode(message))

    def flood(self, data: bytes) -> int:
        """Write this without end, as fast as it is read; returns how often, once all is over."""
        written = 0
        while not self._over.is_set():
            if self._to_launcher.qsize() < 4:
                self.write(data)
                written += 1
            else:
                self._over.wait(0.001)
        return written

    def hear(self, *kinds: type) -> object:
        """The launcher's next message of these kinds; None at the end of input.

        Of what it is not asked about, a node answers only that it reaches all others.
        """
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if newline:
                self._buffer = rest
                message = protocol.decode(line)
                if isinstance(message, kinds):
                    return message
                self._reach(message)
                continue
            data = self._to_node.get()
            if not data:
                return None
            self._buffer += data

    def _reach(self, message: object) -> None:
        if isinstance(message, Listen):
            self.say(Listening(message.probe, ()))
        elif isinstance(message, Probe):
            reached = ProbeResult(REACHED, 0.001, None, "")
            self.say(Probed(message.probe, (reached,) * len(message.targets)))

    def take_preamble(self) -> None:
        """Pass over four lines and the program, whose size the fourth of them says."""
        while self._buffer.count(b"\n") < 4:
            self._buffer += self._to_node.get()
        *_, size, rest = self._buffer.split(b"\n", 4)
        while len(rest) < int(size):
            rest += self._to_node.get()
        self._buffer = rest[int(size) :]

    def greet(self, hello: Hello = HELLO) -> None:
        self.take_preamble()
        self.hear(Greet)
        self.write(HEAD)
        self.say(hello)


class ScriptedTransport(Transport):
    """Each node runs `scripts[alias]`, or `script`, in a thread."""

    name = "scripted"

    def __init__(
        self, script: Callable[[Played], None], **scripts: Callable[[Played], None]
    ) -> None:
        self._script = script
        self._scripts = scripts
        self.opened: list[str] = []

    def open(self, node: Node, script: str) -> Connection:
        self.opened.append(node.alias)
        played = Played(node)
        target = self._scripts.get(node.alias, self._script)
        threading.Thread(target=target, args=(played,), daemon=True).start()
        return played

    def describe(self, node: Node, script: str) -> str:
        return f"scripted {node.alias}"

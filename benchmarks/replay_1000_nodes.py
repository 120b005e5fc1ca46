"""How the launcher bears 1,000 nodes: memory, idle CPU, and how many messages it takes a second.

A process of its own plays the nodes, from messages that were recorded of a real one
(replay_recording.json, made by record_replay.py: DeepMNIST, two nodes); each is a socket on this
machine. In the first run every worker tells of its steps each 0.5 s, as real ones do; in the second
as fast as it is heard. Exit status 1 where the launcher's memory comes to 500 MB, or it takes fewer
messages a second in the second run than come in the first.

    .venv/bin/python benchmarks/replay_1000_nodes.py [--nodes 1000] [--json]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import selectors
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher import payload
from launcher.errors import ConnectionLost
from launcher.nodes import Node
from launcher.outcome import Outcome
from launcher.plan import greeting, make_plan
from launcher.run import execute
from launcher.session import NodeOptions, Session
from launcher.tasks import Options
from launcher.transports.base import Connection, Transport
from perftest import protocol

RECORDING = Path(__file__).with_name("replay_recording.json")
WARMUP, STEPS = 2, 100
STEP_SECONDS = 0.05
BATCH_STEPS = 10  # so that a message comes each 0.5 s
IDLE_SECONDS = 10.0
MOST_BYTES = 500e6
# What is told of a run once, by the first worker.
OF_THE_FIRST = ("servers_hold",)


class SocketConnection(Connection):
    """A node that is played at the other end of a socket."""

    def __init__(self, link: socket.socket, label: str) -> None:
        self._link = link
        self._label = label
        self._over = threading.Event()

    def send(self, data: bytes) -> None:
        try:
            self._link.sendall(data)
        except OSError as error:
            raise ConnectionLost(self._label, str(error)) from error

    def receive(self) -> bytes:
        try:
            return self._link.recv(1 << 16)
        except OSError:
            return b""

    def receive_errors(self) -> bytes:
        self._over.wait()
        return b""

    def close_input(self) -> None:
        self._link.shutdown(socket.SHUT_WR)

    def wait(self, timeout_seconds: float) -> int | None:
        return 0

    def close(self) -> None:
        if not self._over.is_set():
            self._over.set()
            with suppress(OSError):
                self._link.shutdown(socket.SHUT_RDWR)
            self._link.close()


class SocketTransport(Transport):
    """Connects to the process that plays the nodes."""

    name = "replay"

    def __init__(self, address: str) -> None:
        self._address = address

    def open(self, node: Node, script: str) -> Connection:
        link = socket.socket(socket.AF_UNIX)
        link.connect(self._address)
        link.sendall(f"{node.alias}\n".encode())
        return SocketConnection(link, node.label)

    def describe(self, node: Node, script: str) -> str:
        return f"replay {node.alias}"


# --- the nodes -------------------------------------------------------------------------------


@dataclass
class PlayedNode:
    """One node, as the recording has it; `number` is its own, and that of its worker."""

    link: socket.socket
    recorded: dict[str, list[dict[str, Any]]]
    number: int = -1
    run_id: str = ""
    interval: float = 0.0
    buffer: bytes = b""
    skip: int = 0
    pending: bytes = b""
    due: deque[tuple[float, bytes]] = field(default_factory=deque)

    def hear(self, data: bytes) -> None:
        """Bytes of the launcher: the node's name, four lines, the program, then messages."""
        self.buffer += data
        while True:
            if self.skip:
                taken = min(self.skip, len(self.buffer))
                self.buffer, self.skip = self.buffer[taken:], self.skip - taken
            line, newline, rest = self.buffer.partition(b"\n")
            if not newline or self.skip:
                return
            self.buffer = rest
            self._line(line)

    def _line(self, line: bytes) -> None:
        if self.number < 0:
            self.number = int(line.removeprefix(b"node"))
            self.pending += b"\n" + payload.SHELL_MARKER.encode() + b"\n"
        elif line.isdigit():
            self.skip = int(line)
        else:
            self._message(line)

    def _message(self, line: bytes) -> None:
        if line.startswith(b'{"type":"greet"'):
            self.pending += b"\n" + protocol.MARKER.encode() + b"\n"
            for hello in self.recorded["hello"]:
                names = {"host": f"host{self.number}", "machine": f"m{self.number}"}
                self._say({**hello, **names})
        elif line.startswith(b'{"type":"start"'):
            # The rest of the line is the same for all nodes, and long.
            self.run_id = line[:200].split(b'"run_id":"')[1].split(b'"')[0].decode()
            self.interval = float(self.run_id.rpartition("-")[2])
            for message in self.recorded["before go"]:
                self._say(message)
        elif line.startswith(b'{"type":"go"'):
            self._train()
        elif line.startswith(b'{"type":"finish"'):
            for message in self.recorded["at the end"]:
                self._say(message)
        elif line.startswith(b'{"type":"stop"'):
            self.due.append((0.0, b""))

    def _say(self, message: dict[str, Any], after: float = 0.0) -> None:
        changed = {**message}
        if "run_id" in changed:
            changed["run_id"] = self.run_id
        if changed.get("role") == "worker":
            changed["index"] = self.number
        of_the_first = message.get("message", {}).get("type") in OF_THE_FIRST
        if self.number and (of_the_first or message.get("role") == "ps"):
            return  # there is one parameter server, on the first node
        data = json.dumps(changed, separators=(",", ":")).encode() + b"\n"
        if after:
            self.due.append((time.monotonic() + after, data))
        else:
            self.pending += data

    def _train(self) -> None:
        """The measured steps, in messages at the interval that the run's name says."""
        (like,) = (m for m in self.recorded["steps"])
        later = (self.number % 100) / 100 * self.interval + 1e-6
        for number in range(STEPS // BATCH_STEPS):
            after = later + (number + 1) * self.interval
            first = WARMUP + number * BATCH_STEPS
            times = {**like["message"], "first_step": first, "measured": True}
            for name, values in like["message"].items():
                if isinstance(values, list):
                    times[name] = (values * BATCH_STEPS)[:BATCH_STEPS]
            times["global_steps"] = list(range(first + 1, first + 1 + BATCH_STEPS))
            self._say({**like, "message": times}, after)
            for message in self.recorded["load"]:
                self._say(message, after)
        for message in self.recorded["finished"]:
            self._say(message, later + STEPS // BATCH_STEPS * self.interval + 2e-6)


def play(listener: socket.socket, said: Any) -> None:
    """Play all nodes until the last has left."""
    recorded = json.loads(RECORDING.read_text())
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ, None)
    beat = protocol.encode(protocol.Heartbeat())
    next_beat = time.monotonic() + protocol.HEARTBEAT_SECONDS
    known: dict[int, PlayedNode] = {}
    while True:
        for key, _ in selector.select(0.02):
            if key.data is None:
                link, _ = listener.accept()
                node = PlayedNode(link, recorded)
                known[id(node)] = node
                selector.register(link, selectors.EVENT_READ, node)
                continue
            data = key.data.link.recv(1 << 18)
            if data:
                key.data.hear(data)
            else:
                forget(selector, known, key.data)
        now = time.monotonic()
        if now > next_beat:
            next_beat += protocol.HEARTBEAT_SECONDS
            for node in known.values():
                node.pending += beat
        for node in list(known.values()):
            if not say_what_is_due(node, now):
                forget(selector, known, node)
        if said.value and not known:
            return


def say_what_is_due(node: PlayedNode, now: float) -> bool:
    """Send what it is time for; False for a node that is to leave."""
    while node.due and node.due[0][0] <= now:
        _, data = node.due.popleft()
        if not data:
            return False
        node.pending += data
    flush(node)
    return True


def flush(node: PlayedNode) -> None:
    if node.pending and node.link.fileno() >= 0:
        try:
            sent = node.link.send(node.pending, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            node.pending = b""
            return
        node.pending = node.pending[sent:]


def forget(
    selector: selectors.BaseSelector, known: dict[int, PlayedNode], node: PlayedNode
) -> None:
    if known.pop(id(node), None) is not None:
        selector.unregister(node.link)
        node.link.close()


# --- the launcher ----------------------------------------------------------------------------


class Quiet:
    """Observes nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


def memory_mib() -> float:
    """The most memory that this program has held; ru_maxrss has what started it in it, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU seconds of some work."""
    wall, cpu = time.monotonic(), cpu_seconds()
    work()
    return time.monotonic() - wall, cpu_seconds() - cpu


def messages_of_a_node() -> int:
    """What a node sends in a run, but the first, which has more to say."""
    recorded = json.loads(RECORDING.read_text())
    told = [m for name in ("before go", "finished", "at the end") for m in recorded[name]]
    first = [m for m in told if m.get("message", {}).get("type") in OF_THE_FIRST]
    servers = [m for m in told if m.get("role") == "ps"]
    return len(told) - len(first) - len(servers) + STEPS // BATCH_STEPS


def measure(count: int, address: str, idle_seconds: float) -> dict[str, float]:
    """Greet, idle, two runs, leave."""
    asked = Options("deepmnist", 4, warmup_steps=WARMUP, measured_steps=STEPS, parameter_servers=1)
    nodes = [Node(f"10.0.{i // 250}.{i % 250}", f"node{i}") for i in range(count)]
    found: dict[str, float] = {"nodes": count, "start_mib": memory_mib()}
    with Session(nodes, SocketTransport(address), NodeOptions("", "python3"), "s") as session:
        quiet: Any = Quiet()
        found["greeting_seconds"], found["greeting_cpu_seconds"] = timed(
            lambda: session.open(lambda node: greeting(asked, node, "s"), quiet)
        )
        found["greeted_mib"] = memory_mib()
        _, idle = timed(lambda: time.sleep(idle_seconds))
        found["idle_cpu_percent_per_node"] = 100 * idle / idle_seconds / count
        plan = make_plan(asked, session.nodes, session.hellos)
        for name, interval in (("paced", STEP_SECONDS * BATCH_STEPS), ("flat_out", 0.0)):
            outcome = Outcome()
            wall, cpu = timed(
                lambda interval=interval, outcome=outcome: execute(  # type: ignore[misc]
                    session, plan, f"r-{interval}", quiet, lambda *_: None, outcome
                )
            )
            assert len(outcome.records) == count * (WARMUP + STEPS)
            assert len(outcome.finished) == count
            found[f"{name}_seconds"], found[f"{name}_cpu_seconds"] = wall, cpu
        found["messages_per_second"] = count * messages_of_a_node() / found["flat_out_seconds"]
        found["needed_per_second"] = count / (STEP_SECONDS * BATCH_STEPS)
    found["peak_mib"] = memory_mib()
    found["mib_per_node"] = (found["peak_mib"] - found["start_mib"]) / count
    return found


def failures(found: Mapping[str, float]) -> Iterator[str]:
    """What the launcher does not bear."""
    if found["peak_mib"] * (1 << 20) >= MOST_BYTES:
        yield f"{found['peak_mib']:.0f} MiB are held, and {MOST_BYTES / 1e6:.0f} MB are the most"
    if found["messages_per_second"] < found["needed_per_second"]:
        yield (
            f"{found['messages_per_second']:.0f} messages a second are taken, and "
            f"{found['needed_per_second']:.0f} come"
        )


def main() -> None:
    """Print the figures, a line each, or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--idle", type=float, default=IDLE_SECONDS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    needed = options.nodes + 200
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(needed, hard)), hard))
    address = f"\0runtest-replay-{os.getpid()}"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(options.nodes)
    fork = multiprocessing.get_context("fork")
    over = fork.Value("b", 0)
    player = fork.Process(target=play, args=(listener, over), daemon=True)
    player.start()
    listener.close()
    found = measure(options.nodes, address, options.idle)
    over.value = 1
    player.join(5)
    player.kill()
    if options.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:28}{value:12,.3f}")
    sys.exit("; ".join(failures(found)) or 0)


if __name__ == "__main__":
    main()

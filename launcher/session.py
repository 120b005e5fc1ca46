"""Open connections to the nodes of a test: connect, copy, greet, keep alive, let go.

All nodes are opened at once (as many in the same moment as the transport takes), and every failure
is reported. One or many runs then go over the same connections.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from launcher import payload
from launcher.channel import AgentChannel
from launcher.errors import (
    ConnectionLost,
    NodeError,
    NodesFailed,
    ProtocolError,
    TensorFlowMissing,
)
from launcher.inbox import ONE_WAIT_SECONDS, Event, Inbox
from launcher.nodes import Node
from launcher.pairs import Target
from launcher.parallel import for_each
from launcher.startup import Startup
from launcher.text import cleaned, printable
from launcher.transports.base import Transport
from perftest import protocol
from perftest.protocol import AgentFailed, Greet, Heartbeat, Hello, Stop

_GREETING_SECONDS = 30.0
_CLOSING_SECONDS = 12.0
# Saying goodbye on a dead link takes a second each.
_MOST_CLOSING_AT_ONCE = 64
_LETTING_GO_SECONDS = 3.0


@dataclass(frozen=True)
class NodeOptions:
    """How the agents are started. python: the interpreter, where the node has none of its own."""

    remote_dir: str
    python: str


class SessionObserver(Protocol):
    """Is told how the opening goes; called from several threads."""

    def node_greeted(self, node: int, hello: Hello) -> None:
        """A node is ready."""


class Session:
    """The open, greeted nodes of a test. Use as a context manager."""

    def __init__(
        self,
        nodes: Sequence[Node],
        transport: Transport,
        options: NodeOptions,
        session_id: str,
        began: float | None = None,
    ) -> None:
        """began: when the command was given, by time.monotonic(). [default: now]"""
        self.id = session_id
        self._startup: Startup | None = Startup(time.monotonic() if began is None else began)
        # Every node knows its interpreter from here on: messages and records name it.
        self.nodes = tuple(replace(node, python=node.python or options.python) for node in nodes)
        self.hellos: tuple[Hello, ...] = ()
        self.events = Inbox(len(nodes))
        # Which node has reached what; what it has is not tried again before the next run.
        self.reached: set[tuple[int, Target]] = set()
        self._transport = transport
        self._options = options
        self._channels = [AgentChannel(i, node, self.events) for i, node in enumerate(self.nodes)]
        self._over = threading.Event()
        self._interrupt: KeyboardInterrupt | None = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: object, error: BaseException | None, *_: object) -> None:
        if isinstance(error, KeyboardInterrupt):
            self.interrupted(error)
        self.close()

    def open(self, greet: Callable[[Node], Greet], observer: SessionObserver) -> None:
        """Open and greet all nodes.

        Raises UsageError for a directory or interpreter that cannot be sent, and NodesFailed (or
        the one NodeError) with every failure, once all have answered or their time is up.
        """
        hellos, failures = self.try_to_open(greet, observer)
        if failures:
            each = tuple(failures.values())
            raise each[0] if len(each) == 1 else NodesFailed(each)
        self.hellos = tuple(hellos[i] for i in range(len(self.nodes)))

    def try_to_open(
        self, greet: Callable[[Node], Greet], observer: SessionObserver
    ) -> tuple[dict[int, Hello], dict[int, NodeError]]:
        """As open, but a node's failure is returned, and the others stay open.

        By the node's index: what it said, and why it cannot be used. A node may have both.
        """
        first = [self._first_input(channel, greet(channel.node)) for channel in self._channels]
        began = time.monotonic()
        for_each(
            zip(self._channels, first, strict=True),
            lambda each: self._open_one(*each),
            self._transport.most_opening_at_once,
        )
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        found = self._gather_hellos(observer)
        self._note_opening(began)
        return found

    def _note_opening(self, began: float) -> None:
        startup = self._startup
        assert startup is not None  # noqa: S101 - no run has taken it yet
        startup.end_part("start", began)
        startup.end_part("connect", max(channel.connected_at for channel in self._channels))
        startup.end_part("copy", max(channel.spoke_at for channel in self._channels))
        startup.end_part("greet", time.monotonic())

    def take_startup(self) -> Startup:
        """The way to the first step of the run that is made next, as far as it has come.

        The first run's began with the command; a later one's begins when it is greeted, or now.
        """
        startup, self._startup = self._startup or Startup(time.monotonic()), None
        return startup

    def greet_again(self, greet: Callable[[Node], Greet], count: int) -> None:
        """Ask the first `count` nodes anew between two runs: their free ports may be others by now.

        One that stays silent keeps what it said before. Raises NodeError for one that is lost.
        """
        self._startup = startup = self.take_startup()
        startup.end_part("plan", time.monotonic())
        asked = {node for node in range(count) if self.is_open(node)}
        for node in asked:
            self.send(node, greet(self.nodes[node]))
        hellos = list(self.hellos)
        deadline = time.monotonic() + _GREETING_SECONDS
        for event in self.events.until(deadline) if asked else ():
            if isinstance(event.what, Hello):
                hellos[event.node] = cleaned(event.what)
                asked.discard(event.node)
            elif isinstance(event.what, NodeError):
                asked.discard(event.node)
            if not asked:
                break
        self.hellos = tuple(hellos)
        startup.end_part("greet", time.monotonic())
        for node in range(count):
            if lost := self.why_closed(node):
                raise lost

    def send(self, node: int, message: object) -> None:
        """Send a message to one node's agent."""
        self._channels[node].send(protocol.encode(message))

    def broadcast(self, message: object) -> None:
        """Send a message to all agents."""
        line = protocol.encode(message)
        for channel in self._channels:
            channel.send(line)

    def is_open(self, node: int) -> bool:
        """Whether the node's connection still stands."""
        return not self._channels[node].ended.is_set()

    def why_closed(self, node: int) -> NodeError | None:
        """What ended the node's connection, if anything has."""
        return self._channels[node].error

    def close(self) -> None:
        """Tell all agents to stop, wait a bounded time until they have, and let go."""
        if self.is_over:
            return
        try:
            self.events.close()  # a node that still talks must come to its end, too
            self.broadcast(Stop())
            deadline = time.monotonic() + _CLOSING_SECONDS
            for channel in self._channels:
                if channel.has_agent and not _ends_by(channel, deadline):
                    channel.kill()
        finally:
            self.abandon()

    def give_up_silent(self) -> dict[int, NodeError]:
        """Give up nodes that have missed two heartbeats, where their loss would explain what others
        say. Why, by the node's index.
        """
        seconds = 2 * protocol.HEARTBEAT_SECONDS
        found = {each.index: each.give_up_if_silent(seconds) for each in self._channels}
        return {index: error for index, error in found.items() if error is not None}

    def kill(self, node: int) -> None:
        """End an agent that does not do what it is told; its tasks die with it."""
        self._channels[node].kill()

    @property
    def is_over(self) -> bool:
        """Whether all connections were let go of."""
        return self._over.is_set()

    def interrupted(self, error: KeyboardInterrupt) -> None:
        """Somebody wants to leave. The same exception may come by here again on its way out;
        another one says so once more, wherever it came from: then all nodes are let go of at once.
        """
        if self._interrupt is None:
            self._interrupt = error
        elif error is not self._interrupt:
            self.abandon()

    @contextmanager
    def leaving_on_interrupt(self) -> Iterator[None]:
        """Around what is done once somebody wants to leave: where they say so again, all of it is
        given up at once.
        """
        try:
            yield
        except KeyboardInterrupt:
            self.abandon()
            raise

    def abandon(self) -> None:
        """Let go of all connections at once; the agents see the end of their input."""
        self._over.set()
        self.events.close()
        close = AgentChannel.close
        for_each(self._channels, close, _MOST_CLOSING_AT_ONCE, _LETTING_GO_SECONDS)
        self._transport.close()

    def describe(self, node: Node) -> str:
        """The command that is run for a node, for --dry-run."""
        return self._transport.describe(node, payload.script())

    def _first_input(self, channel: AgentChannel, greet: Greet) -> bytes:
        preamble = payload.preamble(
            self._options.remote_dir,
            f"{self.id}.{channel.index}",
            channel.node.python or self._options.python,
            payload.make_payload(),
        )
        return preamble + protocol.encode(greet)

    def _open_one(self, channel: AgentChannel, first: bytes) -> None:
        if self.is_over:
            return
        try:
            channel.open(self._transport, payload.script(), first)
        except NodeError as error:
            self._give_up(channel, error)
        except Exception as error:  # a thread's error must not be lost
            self._give_up(
                channel,
                NodeError(channel.node.label, printable(f"{type(error).__name__}: {error}")),
            )

    def _give_up(self, channel: AgentChannel, error: NodeError) -> None:
        channel.ended.set()
        self.events.put(Event(channel.index, error))

    def _gather_hellos(
        self, observer: SessionObserver
    ) -> tuple[dict[int, Hello], dict[int, NodeError]]:
        deadline = time.monotonic() + _GREETING_SECONDS
        hellos: dict[int, Hello] = {}
        failures: dict[int, NodeError] = {}
        for event in self.events.until(deadline):
            node = self.nodes[event.node]
            error: NodeError | None
            if isinstance(event.what, Hello) and event.node not in hellos:
                hello = cleaned(event.what)
                error = check_hello(node, hello)
                hellos[event.node] = hello
                observer.node_greeted(event.node, hello)
            elif isinstance(event.what, NodeError):
                error = event.what
            else:
                error = ProtocolError(node.label, f"sent {_shown(event.what)} as its greeting")
            if error is not None:
                failures.setdefault(event.node, error)
            if len(hellos.keys() | failures.keys()) == len(self.nodes):
                break
        for i, node in enumerate(self.nodes):
            if i not in hellos and i not in failures:
                reason = f"no greeting within {_GREETING_SECONDS:.0f} s"
                failures[i] = ConnectionLost(node.label, reason, f"look at {node.alias} by hand")
        return hellos, {i: failures[i] for i in sorted(failures)}

    def _beat(self) -> None:
        line = protocol.encode(Heartbeat())
        told = time.monotonic()
        while not self._over.wait(min(1.0, protocol.HEARTBEAT_SECONDS)):
            is_time = time.monotonic() - told >= protocol.HEARTBEAT_SECONDS
            told = time.monotonic() if is_time else told
            for channel in self._channels:
                if is_time:
                    channel.beat(line)
                channel.check_silence()


def _ends_by(channel: AgentChannel, deadline: float) -> bool:
    while (left := deadline - time.monotonic()) > 0 and not channel.ended.is_set():
        channel.ended.wait(min(left, ONE_WAIT_SECONDS))
    return channel.ended.is_set()


def check_hello(node: Node, hello: Hello) -> NodeError | None:
    """What makes a greeted node unusable, if anything does."""
    if hello.version != protocol.VERSION:
        return ProtocolError(node.label, f"speaks version {hello.version} of the protocol")
    if not hello.cpus or any(not 0 < port < 65536 for port in hello.free_ports):
        return ProtocolError(node.label, "has no processors, or ports that are none")
    if any(len(each) not in (0, len(hello.cpus)) for each in _placed(hello)):
        return ProtocolError(node.label, "knows the places of some of its processors alone")
    if not hello.versions.tensorflow:
        return TensorFlowMissing(
            node.label,
            f"{hello.executable} has no TensorFlow",
            f"on {node.alias}: {hello.executable} -m pip install tensorflow, "
            "or --python PATH of an interpreter that has it",
        )
    return None


def _placed(hello: Hello) -> tuple[tuple[int, ...], ...]:
    return hello.cores, hello.sockets, hello.domains


def _shown(message: object) -> str:
    if isinstance(message, AgentFailed):
        return f"{printable(message.error, 300)!r}"
    return type(message).__name__

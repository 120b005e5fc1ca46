"""One node's connection, as a source of events: its agent's messages, and how it ended."""

from __future__ import annotations

import math
import queue
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from launcher import payload
from launcher.errors import ConnectionLost, NodeError, ProtocolError
from launcher.nodes import Node
from launcher.text import printable
from launcher.transports.base import Connection, Transport
from perftest import protocol
from perftest.protocol import Heartbeat, MessageError

# What a node's shell may print before the agent's first line.
_MAX_BANNER_BYTES = 1 << 20
_KEPT_ERROR_BYTES = 8 << 10


@dataclass(frozen=True)
class Event:
    """Something that came from a node: a message, or the error that ended its connection."""

    node: int
    what: object


class AgentChannel:
    """One node: its connection, and the threads that read from it into a queue of events."""

    def __init__(self, index: int, node: Node, events: queue.SimpleQueue[Event]) -> None:
        self.index = index
        self.node = node
        self._events = events
        self._connection: Connection | None = None
        self._errors = bytearray()
        self._error_reader: threading.Thread | None = None
        self._heard = math.inf
        self._silent = False
        self._closed = False
        # Several threads send; and the first input is the program, before any message.
        self._sending = threading.Lock()
        self.error: NodeError | None = None
        self.ended = threading.Event()

    def open(self, transport: Transport, script: str, first: bytes) -> None:
        """Connect, start the script and send it its first input. Raises NodeError."""
        connection = transport.open(self.node, script)
        with self._sending:
            self._connection = connection
            self._error_reader = self._thread(self._read_errors, "errors")
            self._thread(self._read, "messages")
            if self._closed:  # while it was being opened
                connection.close()
            connection.send(first)

    def send(self, message: object) -> None:
        """Send a message. A lost connection is told by the reader, not here."""
        if self.is_connected and not self.ended.is_set():
            with self._sending, suppress(NodeError):
                assert self._connection is not None  # noqa: S101 - it never goes back to None
                self._connection.send(protocol.encode(message))

    @property
    def is_connected(self) -> bool:
        """Whether there is, or was, a connection."""
        return self._connection is not None

    def check_silence(self) -> None:
        """Give up an agent that has not said anything for too long, whatever its link says."""
        limit = protocol.HEARTBEAT_LIMIT_SECONDS
        if not self.ended.is_set() and time.monotonic() - self._heard > limit:
            self._silent = True
            self.kill()
            self.close()

    def kill(self) -> None:
        """Kill the agent, where its node can be reached; its tasks die with it."""
        if self._connection is not None:
            self._connection.kill()

    def close(self) -> None:
        """Let go of the connection; the agent sees the end of its input."""
        self._closed = True
        if self._connection is not None:
            self._connection.close()

    @property
    def _by_hand(self) -> str:
        return f"look at {self.node.alias} by hand, and run it again"

    def _thread(self, target: Callable[[], None], name: str) -> threading.Thread:
        thread = threading.Thread(target=target, name=f"{self.node.alias} {name}", daemon=True)
        thread.start()
        return thread

    def _read(self) -> None:
        assert self._connection is not None  # noqa: S101 - open() has set it
        try:
            self._read_messages(self._connection)
            error = self._why_ended(self._connection)
        except MessageError as problem:
            error = ProtocolError(self.node.label, str(problem), self._by_hand)
        except NodeError as problem:
            error = problem
        self.error = error
        self.ended.set()
        self._events.put(Event(self.index, error))
        self._connection.close()

    def _read_messages(self, connection: Connection) -> None:
        marker = b"\n" + protocol.MARKER.encode() + b"\n"
        buffer = b"\n"
        greeted = False
        while data := connection.receive():
            self._heard = time.monotonic()
            buffer += data
            if not greeted:
                _, found, rest = buffer.partition(marker)
                if not found:
                    if len(buffer) > _MAX_BANNER_BYTES:
                        raise MessageError("over 1 MiB of text came before the agent's first line")
                    continue
                greeted, buffer = True, rest
            *lines, buffer = buffer.split(b"\n")
            for message in map(protocol.decode, lines):
                if not isinstance(message, Heartbeat):
                    self._events.put(Event(self.index, message))
            if len(buffer) > protocol.MAX_LINE_BYTES:
                raise MessageError(f"a line of more than {protocol.MAX_LINE_BYTES >> 20} MiB")

    def _read_errors(self) -> None:
        assert self._connection is not None  # noqa: S101 - open() has set it
        while data := self._connection.receive_errors():
            self._errors += data
            del self._errors[:-_KEPT_ERROR_BYTES]

    def _why_ended(self, connection: Connection) -> NodeError:
        status = connection.wait(2.0)
        if self._error_reader is not None:
            self._error_reader.join(1.0)
        lines = self._errors.decode("utf-8", "replace").splitlines()
        said = "\n".join(printable(line) for line in lines)
        known = payload.bootstrap_error(self.node.label, status, said)
        if known is not None:
            return known
        last = [line.strip() for line in said.splitlines() if line.strip()][-1:]
        if self._silent:
            limit = protocol.HEARTBEAT_LIMIT_SECONDS
            reason = f"the agent has not been heard of for {limit:.0f} s"
            return ConnectionLost(self.node.label, reason, self._by_hand)
        if status in (None, -1):
            mend = f"see whether {self.node.alias} is on and its network up, and run it again"
            return ConnectionLost(self.node.label, "the connection to the agent was lost", mend)
        text = _how_it_ended(status) + (f": {last[0][:300]}" if last else "")
        return ConnectionLost(self.node.label, text, self._by_hand)


def _how_it_ended(status: int) -> str:
    """An agent's end in words: a shell says 128 + n where signal n ended the program."""
    number = -status if status < 0 else status - 128
    if number == signal.SIGKILL:
        return "the agent ended with signal 9 (killed, or out of memory)"
    if number > 0:
        return f"the agent ended with signal {number}"
    return f"the connection to the agent ended (status {status})"

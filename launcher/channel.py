"""One node's connection, as a source of events: its agent's messages, and how it ended."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable

from launcher import payload
from launcher.errors import ConnectionLost, NodeError, ProtocolError
from launcher.inbox import Event, Inbox
from launcher.line_buffer import LineBuffer
from launcher.nodes import Node
from launcher.outbox import Outbox
from launcher.text import printable
from launcher.transports.base import Connection, Transport
from perftest import protocol
from perftest.protocol import Heartbeat, Hello, MessageError

# What a node's shell may print before the agent's first line.
_MAX_BANNER_BYTES = 1 << 20
_KEPT_ERROR_BYTES = 8 << 10
# What the node's shell says of an agent that signal 9 has ended: nothing new.
_OF_THE_SHELL = "Killed"


class AgentChannel:
    """One node: its connection, and the threads that read from it into the inbox.

    Nothing here waits for the node but its own threads: what is sent to it lies in an outbox.
    """

    def __init__(self, index: int, node: Node, events: Inbox) -> None:
        self.index = index
        self.node = node
        self._events = events
        self._connection: Connection | None = None
        self._outbox = Outbox(node.alias)
        self._errors = bytearray()
        self._error_reader: threading.Thread | None = None
        # Infinite before the first word, and while it is we who keep the node from being heard.
        self._heard = math.inf
        self._given_up = ""
        self._pid = 0
        self._closed = False
        self.error: NodeError | None = None
        self.ended = threading.Event()

    def open(self, transport: Transport, script: str, first: bytes) -> None:
        """Connect, start the script and have its first input sent to it. Raises NodeError."""
        connection = transport.open(self.node, script)
        self._connection = connection
        self._error_reader = self._thread(self._read_errors, "errors")
        self._thread(self._read, "messages")
        if self._closed:  # while it was being opened
            connection.close()
        self._outbox.open(connection.send, first)

    def send(self, line: bytes) -> None:
        """Have an encoded message sent. A lost connection is told by the reader, not here."""
        if not self.ended.is_set() and not self._outbox.put(line):
            self._give_up("the agent does not take its input")

    def beat(self, line: bytes) -> None:
        """Send a heartbeat, unless something else is on its way that will do as well."""
        if self._outbox.is_empty:
            self.send(line)

    @property
    def is_connected(self) -> bool:
        """Whether there is, or was, a connection."""
        return self._connection is not None

    def check_silence(self) -> None:
        """Give up an agent that has not said, or taken, anything for too long, whatever its link
        says."""
        limit = protocol.HEARTBEAT_LIMIT_SECONDS
        if self.ended.is_set():
            return
        if time.monotonic() - self._heard > limit:
            self._give_up(f"the agent has not been heard of for {limit:.0f} s")
        elif self._outbox.stuck_seconds > limit:
            self._give_up(f"the agent has taken no input for {limit:.0f} s")

    def kill(self) -> None:
        """Kill the agent, where its node can be reached; its tasks die with it."""
        if self._connection is not None and self._pid > 1:  # not all processes, whatever it said
            self._connection.kill(self._pid)

    def close(self) -> None:
        """Let go of the connection; the agent sees the end of its input. May take a second."""
        self._closed = True
        if self._connection is not None:
            self._connection.close()

    def _give_up(self, reason: str) -> None:
        if not self._given_up:
            self._given_up = reason
            self._thread(self._end, "closing")  # others must not wait for a dead link's goodbye

    def _end(self) -> None:
        self.kill()
        self.close()

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
        except Exception as problem:  # a thread's error must not be lost
            text = printable(f"{type(problem).__name__}: {problem}")
            error = ProtocolError(self.node.label, text, self._by_hand)
        self.error = error
        self.ended.set()
        self._events.put(Event(self.index, error))
        self._connection.close()

    def _read_messages(self, connection: Connection) -> None:
        marker = b"\n" + protocol.MARKER.encode() + b"\n"
        buffer = LineBuffer()
        buffer.add(b"\n")
        greeted = False
        while data := connection.receive():
            buffer.add(data)
            if not greeted:
                greeted = buffer.skip_past(marker)
                if not greeted and len(buffer) > _MAX_BANNER_BYTES:
                    raise MessageError("over 1 MiB of text came before the agent's first line")
            if greeted:
                self._take(buffer)
            self._heard = time.monotonic()

    def _take(self, buffer: LineBuffer) -> None:
        """Put what whole lines there are into the inbox, as it has room."""
        self._heard = math.inf
        for line in buffer.lines():
            reserved = self._events.reserve(self.index, len(line))
            try:
                message = protocol.decode(line)
            except BaseException:
                self._events.let_go(self.index, reserved)
                raise
            if isinstance(message, Hello):
                self._pid = message.pid
            if isinstance(message, Heartbeat):
                self._events.let_go(self.index, reserved)
            else:
                self._events.put(Event(self.index, message), reserved)
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
        lines = [line.strip() for line in said.splitlines()]
        last = [line for line in lines if line and line != _OF_THE_SHELL][-1:]
        if self._given_up:
            return ConnectionLost(self.node.label, self._given_up, self._by_hand)
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

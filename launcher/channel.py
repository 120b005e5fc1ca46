"""One node's connection, as a source of events: its agent's messages, and how it ended."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from launcher import payload
from launcher.endings import SHELL_SECONDS, Stage, shell_hangs, silent, why_ended
from launcher.errors import NodeError, ProtocolError, ShellError
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
_MARKERS = {
    Stage.LOGIN_SHELL: b"\n" + payload.SHELL_MARKER.encode() + b"\n",
    Stage.SCRIPT: b"\n" + protocol.MARKER.encode() + b"\n",
}


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
        self._stage = Stage.LOGIN_SHELL
        self._opened = math.inf
        self._printed = b""  # by the login shell, at last
        self._errors = bytearray()
        self._error_reader: threading.Thread | None = None
        # Infinite before the first word, and while it is we who keep the node from being heard.
        self._heard = math.inf
        self._given_up: NodeError | None = None
        # When it was connected, and when its agent first spoke; 0 as long as they have not.
        self.connected_at = self.spoke_at = 0.0
        self._pid = 0
        self._closed = False
        self.error: NodeError | None = None
        self.ended = threading.Event()

    def open(self, transport: Transport, script: str, first: bytes) -> None:
        """Connect, start the script and have its first input sent to it. Raises NodeError."""
        connection = transport.open(self.node, script)
        self.connected_at = time.monotonic()
        self._connection = connection
        self._error_reader = self._thread(self._read_errors, "errors")
        self._thread(self._read, "messages")
        if self._closed:  # while it was being opened
            connection.close()
        self._outbox.open(connection.send, first)
        self._opened = time.monotonic()

    def send(self, line: bytes) -> None:
        """Have an encoded message sent. A lost connection is told by the reader, not here."""
        if not self.ended.is_set() and not self._outbox.put(line):
            self._give_up(silent(self.node, "does not take its input"))

    def beat(self, line: bytes) -> None:
        """Send a heartbeat, unless something else is on its way that will do as well."""
        if self._outbox.is_empty:
            self.send(line)

    @property
    def has_agent(self) -> bool:
        """Whether an agent has spoken, which can be told to stop."""
        return self._stage == Stage.AGENT

    def check_silence(self) -> None:
        """Give up a node that has not said, or taken, anything for too long, whatever its link
        says."""
        limit = protocol.HEARTBEAT_LIMIT_SECONDS
        if self.ended.is_set():
            return
        now = time.monotonic()
        if self._stage == Stage.LOGIN_SHELL and now - self._opened > SHELL_SECONDS:
            self._give_up(shell_hangs(self.node))  # what it prints does not count
        elif now - self._heard > limit:
            self._give_up(silent(self.node, f"has not been heard of for {limit:.0f} s"))
        elif self._outbox.stuck_seconds > limit:
            self._give_up(silent(self.node, f"has taken no input for {limit:.0f} s"))

    def give_up_if_silent(self, seconds: float) -> NodeError | None:
        """Give up an agent that has not been heard of for so long already; why, if so."""
        if self.ended.is_set() or time.monotonic() - self._heard < seconds:
            return None
        error = silent(self.node, f"has not been heard of for {seconds:.0f} s")
        self._give_up(error)
        return error

    def kill(self) -> None:
        """Kill the agent, where its node can be reached; its tasks die with it."""
        if self._connection is not None and self._pid > 1:  # not all processes, whatever it said
            self._connection.kill(self._pid)

    def close(self) -> None:
        """Let go of the connection; the agent sees the end of its input. May take a second."""
        self._closed = True
        if self._connection is not None:
            self._connection.close()

    def _give_up(self, error: NodeError) -> None:
        if self._given_up is None:
            self._given_up = error
            self._thread(self._end, "closing")  # others must not wait for a dead link's goodbye

    def _end(self) -> None:
        self.kill()
        self.close()

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
            error = self._nonsense(str(problem))
        except NodeError as problem:
            error = problem
        except Exception as problem:  # a thread's error must not be lost
            error = self._nonsense(printable(f"{type(problem).__name__}: {problem}"))
        self.error = error
        self.ended.set()
        self._events.put(Event(self.index, error))
        self._connection.close()

    def _nonsense(self, problem: str) -> NodeError:
        alias = self.node.alias
        if self._stage == Stage.AGENT:
            mend = f"look at {alias} by hand, and run it again"
            return ProtocolError(self.node.label, problem, mend)
        mend = f"see what `ssh {alias} true` prints, and ~/.bashrc there"
        return ShellError(self.node.label, problem, mend)

    def _read_messages(self, connection: Connection) -> None:
        buffer = LineBuffer()
        buffer.add(b"\n")
        while data := connection.receive():
            buffer.add(data)
            if self._stage != Stage.AGENT:
                self._pass_markers(buffer, data)
            if self._stage == Stage.AGENT:
                self._take(buffer)
            self._heard = time.monotonic()

    def _pass_markers(self, buffer: LineBuffer, data: bytes) -> None:
        """See how far the script has come, past what a login shell prints."""
        if self._stage == Stage.LOGIN_SHELL:
            self._printed = (self._printed + data)[-_KEPT_ERROR_BYTES:]
        while (marker := _MARKERS.get(self._stage)) and buffer.skip_past(marker):
            self._stage = Stage(self._stage + 1)
            if self._stage == Stage.AGENT:
                self.spoke_at = time.monotonic()
        if self._stage != Stage.AGENT and len(buffer) > _MAX_BANNER_BYTES:
            raise MessageError("over 1 MiB of text came before the agent's first line")

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
        if self._given_up is not None:
            return connection.explain() or self._given_up
        status = connection.wait(2.0)
        if self._error_reader is not None:
            self._error_reader.join(1.0)
        if (known := connection.explain()) is not None:
            return known
        shell = self._printed if self._stage == Stage.LOGIN_SHELL else b""
        said = (shell + b"\n" + self._errors).decode("utf-8", "replace")
        return why_ended(self.node, self._stage, status, said)

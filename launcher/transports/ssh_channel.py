"""One exec channel of an open SSH connection, as the contract's Connection."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import paramiko
from paramiko.common import MSG_CHANNEL_REQUEST

from launcher.errors import ConnectionLost
from launcher.transports.base import Connection
from launcher.transports.ssh_errors import printable

_CHUNK = 1 << 16
_CLOSE_SECONDS = 1.0
_KILL_SECONDS = 2.0
# What paramiko may hold for us of each stream while we read slowly.
_WINDOW = 1 << 20
_PACKET = 1 << 15
_GONE = (OSError, EOFError, paramiko.SSHException)


def _note_exit_signal(channel: paramiko.Channel, message: paramiko.Message) -> None:
    """Handle a channel request as paramiko does, having looked at it first."""
    if message.get_text() == "exit-signal":
        message.get_boolean()
        number = getattr(signal, f"SIG{message.get_text()}", None)
        if isinstance(number, signal.Signals):
            channel.exit_status = -number
            channel.status_event.set()
    message.rewind()
    message.get_int()  # the channel's number, which the transport had read already
    channel._handle_request(message)  # type: ignore[attr-defined]


class SignalTransport(paramiko.Transport):
    """A paramiko transport that keeps the signal that ended a remote process.

    paramiko drops `exit-signal`, so that a killed process looks like a lost connection. The
    table is not public, but there is no other place to hear of it.
    """

    _channel_handler_table = {  # noqa: RUF012 - as in the parent class
        **paramiko.Transport._channel_handler_table,  # type: ignore[attr-defined]
        MSG_CHANNEL_REQUEST: _note_exit_signal,
    }


class SshConnection(Connection):
    """The streams of a command on an exec channel.

    release: lets go of the connection under the channel; called once, by close().
    """

    def __init__(
        self, channel: paramiko.Channel, label: str, mend: str, release: Callable[[], None]
    ) -> None:
        self._channel = channel
        self._label = label
        self._mend = mend
        self._release = release
        self._lock = threading.Lock()
        self._closed = False

    def send(self, data: bytes) -> None:
        # sshd tells of the command's end before it closes the channel, which takes until then.
        if self._channel.status_event.is_set():
            raise ConnectionLost(self._label, self._lost_reason(EOFError()), self._mend)
        view = memoryview(data)
        try:
            for start in range(0, len(view), _CHUNK):
                self._channel.sendall(view[start : start + _CHUNK].tobytes())
        except _GONE as error:
            raise ConnectionLost(self._label, self._lost_reason(error), self._mend) from error

    def _lost_reason(self, error: Exception) -> str:
        if self._closed:
            return "the connection was closed"
        transport = self._channel.get_transport()
        under = transport.get_exception() if transport is not None else None
        if transport is not None and transport.is_active():
            return "the remote command has ended"
        return f"the connection was lost ({printable(under or error)})"

    def receive(self) -> bytes:
        return self._receive(self._channel.recv)

    def receive_errors(self) -> bytes:
        return self._receive(self._channel.recv_stderr)

    def _receive(self, receive: Callable[[int], bytes]) -> bytes:
        try:
            return receive(_CHUNK)
        except _GONE:
            return b""

    def close_input(self) -> None:
        with suppress(*_GONE):
            self._channel.shutdown_write()

    def wait(self, timeout_seconds: float) -> int | None:
        if not self._channel.status_event.wait(timeout_seconds):
            return None
        return self._channel.exit_status

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        # On a dead link saying goodbye would wait as long as the link's own timeout.
        goodbye = threading.Thread(target=self._say_goodbye, name="ssh goodbye", daemon=True)
        goodbye.start()
        goodbye.join(_CLOSE_SECONDS)
        self._release()

    def kill(self, pid: int) -> None:
        # On a dead link even this much would wait.
        killing = threading.Thread(target=self._kill, args=(pid,), name="ssh kill", daemon=True)
        killing.start()
        killing.join(_KILL_SECONDS)

    def _kill(self, pid: int) -> None:
        # A second channel: sshd passes no signal on to what runs as root (it would have to be
        # another process that does).
        transport = self._channel.get_transport()
        with suppress(*_GONE):
            if transport is not None:
                open_channel(transport, f"kill -9 {pid}", _KILL_SECONDS).recv_exit_status()

    def _say_goodbye(self) -> None:
        with suppress(*_GONE):
            self._channel.close()


def open_channel(transport: paramiko.Transport, command: str, seconds: float) -> paramiko.Channel:
    """Start `command` on a channel of its own.

    Raises paramiko.SSHException when the server will not.
    """
    channel = transport.open_session(_WINDOW, _PACKET, timeout=seconds)
    channel.exec_command(command)
    return channel


def shut(pipe: Any) -> None:
    """End all waiting on a socket or on the channel that stands for one."""
    with suppress(*_GONE):
        pipe.shutdown(socket.SHUT_RDWR)
    with suppress(*_GONE):
        pipe.close()

"""The `local` transport: the script is a child process on this machine."""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
import threading
from contextlib import suppress
from typing import IO, cast

from launcher.errors import ConnectionLost, Unreachable
from launcher.nodes import Node
from launcher.transports.base import Connection, Transport

_CHUNK = 1 << 16


class LocalTransport(Transport):
    """Runs scripts on this machine, each in a session of its own.

    The script inherits our environment; a Ctrl-C at the terminal does not reach it.
    """

    name = "local"

    def open(self, node: Node, script: str) -> Connection:
        try:
            process = subprocess.Popen(
                ["sh", "-c", script],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise Unreachable(node.label, f"no shell could be started here: {error}") from error
        return LocalConnection(process, node.label)

    def describe(self, node: Node, script: str) -> str:
        return shlex.join(["sh", "-c", script])


class LocalConnection(Connection):
    """The pipes of a child process.

    close() never kills the child: it sees the end of its input, as over ssh, and one that
    ignores that lives on. It is reaped in the background whenever it ends.
    """

    def __init__(self, process: subprocess.Popen[bytes], label: str) -> None:
        self._process = process
        self._label = label
        self._input = _Pipe(cast(IO[bytes], process.stdin))
        self._output = _Pipe(cast(IO[bytes], process.stdout))
        self._errors = _Pipe(cast(IO[bytes], process.stderr))

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                written = self._input.write(view[:_CHUNK])
            except OSError as error:
                reason = f"the process {self._process.pid} takes no more input"
                raise ConnectionLost(self._label, reason) from error
            view = view[written:]

    def receive(self) -> bytes:
        return self._output.read()

    def receive_errors(self) -> bytes:
        return self._errors.read()

    def close_input(self) -> None:
        self._input.close()

    def wait(self, timeout_seconds: float) -> int | None:
        try:
            return self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        for pipe in (self._input, self._output, self._errors):
            pipe.close()
        if self._process.poll() is None:
            threading.Thread(target=self._process.wait, name="reaper", daemon=True).start()

    def kill(self, pid: int) -> None:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


class _Pipe:
    """One end of a pipe, which can be closed while another thread waits on it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._closing = threading.Event()
        self._close_once = threading.Lock()
        self._in_use = threading.Lock()
        self._woken, self._waker = os.pipe()
        os.set_blocking(file.fileno(), False)

    def read(self) -> bytes:
        """Wait for bytes; b"" at the end or once closed."""
        with self._in_use:
            while self._ready(select.POLLIN):
                with suppress(BlockingIOError):
                    return os.read(self._file.fileno(), _CHUNK)
        return b""

    def write(self, data: memoryview) -> int:
        """Wait for room and write some of `data`. Raises OSError at the end or once closed."""
        with self._in_use:
            while self._ready(select.POLLOUT):
                with suppress(BlockingIOError):
                    return os.write(self._file.fileno(), data)
        raise BrokenPipeError

    def _ready(self, event: int) -> bool:
        """Wait until the pipe is ready; False once closed."""
        if self._closing.is_set():
            return False
        poll = select.poll()
        poll.register(self._file.fileno(), event)
        poll.register(self._woken, select.POLLIN)
        poll.poll()
        return not self._closing.is_set()

    def close(self) -> None:
        """Wake whoever waits, then close. Safe to call again."""
        with self._close_once:
            if self._closing.is_set():
                return
            self._closing.set()
        os.write(self._waker, b"x")
        with self._in_use:  # nobody polls any more, so the descriptors can go
            self._file.close()
            os.close(self._woken)
            os.close(self._waker)

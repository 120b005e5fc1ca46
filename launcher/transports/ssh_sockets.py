"""The byte pipe under an SSH connection: a TCP socket, or the process of a ProxyCommand."""

from __future__ import annotations

import queue
import select
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

# A 3 s outage is survived; a cut cable shows after KEEPALIVE + USER_TIMEOUT = 11 s.
KEEPALIVE_SECONDS = 3
USER_TIMEOUT_SECONDS = 8


class Deadline:
    """A point in time by which something must have happened."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def passed(self) -> bool:
        return self.passed_after(0)

    def passed_after(self, seconds: float) -> bool:
        """Whether it will have passed in so many seconds."""
        return time.monotonic() + seconds >= self._end

    def prolong(self, seconds: float) -> None:
        """Give it so much more time."""
        self._end += seconds

    def left(self) -> float:
        """Seconds that are left. Raises TimeoutError when none are."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"not done within {self.seconds:.0f} s")
        return left


def connect_tcp(host: str, port: int, deadline: Deadline) -> socket.socket:
    """Connect to the first of the host's addresses that answers.

    Raises OSError: of the addresses' errors the one that says most.
    """
    addresses = _addresses(host, port, deadline)
    errors: list[OSError] = []
    for index, (family, kind, protocol, _, address) in enumerate(addresses):
        link = socket.socket(family, kind, protocol)
        try:
            # Each address has its share of the time, so that a dead one leaves some to the others.
            link.settimeout(deadline.left() / (len(addresses) - index))
            link.connect(address)
            link.settimeout(None)
            _set_options(link)
            return link
        except OSError as error:
            link.close()
            errors.append(error)
    refused = [error for error in errors if isinstance(error, ConnectionRefusedError)]
    raise (refused or errors)[0]


def await_greeting(link: socket.socket, deadline: Deadline) -> None:
    """Wait until the other end says its first word, or hangs up: ssh servers speak first.

    Raises TimeoutError.
    """
    readable = select.poll()  # select() takes no descriptor above 1023
    readable.register(link, select.POLLIN)
    if not readable.poll(1000 * deadline.left()):
        raise TimeoutError


class Places:
    """How many connections may be made at the same time, of those that have found somebody."""

    def __init__(self, number: int) -> None:
        self._places = threading.Semaphore(number)

    @contextmanager
    def one(self, deadline: Deadline | None = None) -> Iterator[None]:
        """A place; the time until there is one does not count for the deadline."""
        asked = time.monotonic()
        with self._places:
            if deadline is not None:
                deadline.prolong(time.monotonic() - asked)
            yield


def _addresses(host: str, port: int, deadline: Deadline) -> list[Any]:
    """getaddrinfo within the deadline: a dead name server may hold it up for much longer."""
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answers.put(error)

    threading.Thread(target=ask, name=f"name of {host}", daemon=True).start()
    try:
        answer = answers.get(timeout=deadline.left())
    except queue.Empty:
        raise socket.gaierror(socket.EAI_AGAIN, "the name server does not answer") from None
    if isinstance(answer, UnicodeError):
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from answer
    if isinstance(answer, OSError):
        raise answer
    return list(answer)


def _set_options(link: socket.socket) -> None:
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Not every system has all of these (macOS: no TCP_USER_TIMEOUT); each helps alone.
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_SECONDS),
        ("TCP_KEEPINTVL", KEEPALIVE_SECONDS),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", USER_TIMEOUT_SECONDS * 1000),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            with suppress(OSError):
                link.setsockopt(socket.IPPROTO_TCP, option, value)


class ProxySocket:
    """A socket whose other end is the standard input and output of a ProxyCommand.

    paramiko's own ProxyCommand neither sees the end of the process nor reaps it.
    """

    def __init__(self, command: str) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                ["sh", "-c", f"exec {command}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._socket = ours

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def close(self) -> None:
        """Close the socket, end the process and reap it."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

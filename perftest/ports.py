"""Free TCP ports, kept from other agents until this one ends. Standard library alone.

TensorFlow's servers listen only some seconds after the plan has named their ports. Another program
may take one meanwhile, and that cannot be helped; another runtest must not. So an agent marks each
port that it offers with a socket in Linux' abstract namespace: all users of a network namespace
share it, as they share ports, and a mark is gone as soon as its process is, however that ends.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from pathlib import Path

from perftest.protocol import PortRequest

# How far above the first port one is looked for.
SPAN = 256


class Ports:
    """The ports that this agent keeps."""

    def __init__(self) -> None:
        self._marks: dict[int, socket.socket] = {}

    def keep(self, requests: Iterable[PortRequest]) -> tuple[int, ...]:
        """Ports for all requests, sorted; fewer where there are no more.

        Those kept before are used again while they are free; the rest are let go.
        """
        chosen: list[int] = []
        for request in requests:
            left = request.count
            for port in range(request.first, min(request.first + SPAN, 65536)):
                if not left:
                    break
                if port not in chosen and is_free(port) and self._mark(port):
                    chosen.append(port)
                    left -= 1
        for port in set(self._marks) - set(chosen):
            self._marks.pop(port).close()
        return tuple(sorted(chosen))

    def close(self) -> None:
        """Let go of all."""
        for mark in self._marks.values():
            mark.close()
        self._marks.clear()

    def _mark(self, port: int) -> bool:
        """Whether this agent has the port's mark."""
        if port in self._marks:
            return True
        mark = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            mark.bind(f"\0perftest-port-{port}")
        except OSError:
            mark.close()
            return False
        self._marks[port] = mark
        return True


def is_free(port: int) -> bool:
    """Whether a server could listen on this TCP port now."""
    try:
        _bound_socket(port).close()
    except OSError:
        return False
    return True


def listening_socket(port: int) -> socket.socket:
    """A server on this TCP port, on all addresses, as TensorFlow's will be. Raises OSError."""
    made = _bound_socket(port)
    try:
        made.listen(4096)
    except OSError:
        made.close()
        raise
    made.setblocking(False)
    return made


def _bound_socket(port: int) -> socket.socket:
    # As gRPC binds: on all addresses, and past connections that are merely closing.
    family = socket.AF_INET6 if Path("/proc/net/if_inet6").exists() else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            with contextlib.suppress(OSError):
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))  # noqa: S104
    except OSError:
        made.close()
        raise
    return made

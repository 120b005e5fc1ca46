"""Addresses of host names, looked up without making anybody wait. Standard library alone."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable
from typing import Any

Address = tuple[int, Any]  # a family, and what connect() takes, but for the port

# The library's own lookup waits, for as long as the name server makes it: threads do it.
_THREADS = 16
_MOST_ADDRESSES = 4


class Names:
    """What is known of host names. `wake` is called from a thread when more is known."""

    def __init__(self, wake: Callable[[], object]) -> None:
        self._wake = wake
        self._asked: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._known: dict[str, list[Address] | str | None] = {}
        self._threads = 0

    def look_up(self, host: str) -> list[Address] | str | None:
        """Its addresses, or why there are none in words; None while it is being looked up."""
        if host not in self._known:
            try:
                self._known[host] = _addresses(host, socket.AI_NUMERICHOST)
            except (OSError, ValueError):
                self._known[host] = None
                self._asked.put(host)
                if self._threads < _THREADS:
                    self._threads += 1
                    threading.Thread(target=self._work, name="names", daemon=True).start()
        return self._known[host]

    def close(self) -> None:
        """Let the threads end when they have done what they are at."""
        for _ in range(self._threads):
            self._asked.put(None)

    def _work(self) -> None:
        while (host := self._asked.get()) is not None:
            try:
                self._known[host] = _addresses(host, 0)
            except OSError as error:
                self._known[host] = error.strerror or type(error).__name__
            except ValueError:  # a name that cannot be written as one
                self._known[host] = "not a host name"
            self._wake()


def _addresses(host: str, flags: int) -> list[Address]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=flags)
    return [(int(family), address) for family, _, _, _, address in found][:_MOST_ADDRESSES]

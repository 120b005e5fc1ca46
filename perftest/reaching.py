"""Waiting for TensorFlow's servers in other tasks, which all start at the same time as this one."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable

_POLL_SECONDS = 0.02
_TRY_SECONDS = 1.0


def wait_until_listening(addresses: Iterable[str]) -> None:
    """Return when something listens at each `host:port`.

    TensorFlow's own connections come back a second after they were refused, and later each time
    where tasks look for their leader: a worker that is early would lose that second. It waits for
    as long as it takes, because who watches over the run gives it up, and says what is missing.
    """
    for address in addresses:
        host, _, port = address.rpartition(":")
        while not _listens(host.strip("[]"), int(port)):
            time.sleep(_POLL_SECONDS)


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=_TRY_SECONDS).close()
    except OSError:
        return False
    return True

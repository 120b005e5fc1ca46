"""What two agents say to each other over a port that their tasks will use: both sides of it.

Needs the standard library alone. Each proves to the other that it knows the secret, which itself
never travels; so that a stranger's service is told from an agent, and a stranger from a caller:

    caller   -> listener   16 bytes of greeting, 16 random bytes
    listener -> caller     16 random bytes, HMAC-SHA256 of "listener" and both
    caller   -> listener   HMAC-SHA256 of "caller" and both; then any number of
                           `p`, which is answered by `p`
                           `t` and a number of bytes, then as many bytes, which are answered by
                           what came and in which time
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import struct
from collections.abc import Callable, Generator
from selectors import EVENT_READ, EVENT_WRITE
from socket import socket

from perftest.protocol import MOST_TRANSFER_BYTES, MOST_TRANSFER_SECONDS
from perftest.talks import Talk

_GREETING = b"runtest-probe 1\n"
_RANDOM_BYTES = 16
_PROOF_BYTES = 32
_PING, _TRANSFER = b"p", b"t"
_ROUND_TRIPS = 3
_PIECE = os.urandom(1 << 20)  # random, so that no link makes it smaller
_SIZE = struct.Struct("!Q")
# Bytes that came, those of them that came first, nanoseconds between these and the last.
_REPORT = struct.Struct("!QQQ")

Clock = Callable[[], float]


class StrangerError(OSError):
    """Whoever answers does not know the secret. `reply` is what was said."""

    def __init__(self, reply: bytes, nonce: bytes) -> None:
        super().__init__("an answer that no agent of this test gives")
        self.reply = reply
        self.nonce = nonce

    def is_from(self, secret: str) -> bool:
        """Whether the answer comes from an agent that knows this other secret."""
        return _is_proof(self.reply, secret, b"listener", self.nonce)


def prove(link: socket, secret: str) -> Talk:
    """The caller's side until both know each other. Raises StrangerError, or OSError."""
    nonce = os.urandom(_RANDOM_BYTES)
    yield from _send(link, _GREETING + nonce)
    reply = yield from _receive(link, _RANDOM_BYTES + _PROOF_BYTES)
    if not _is_proof(reply, secret, b"listener", nonce):
        raise StrangerError(reply, nonce)
    yield from _send(link, _proof(secret, b"caller", nonce + reply[:_RANDOM_BYTES]))


def round_trip(link: socket, clock: Clock) -> Generator[int, None, float]:
    """Seconds for a byte to the listener and back, the median of a few."""
    seconds = []
    for _ in range(_ROUND_TRIPS):
        began = clock()
        yield from _send(link, _PING)
        yield from _receive(link, len(_PING))
        seconds.append(clock() - began)
    return sorted(seconds)[_ROUND_TRIPS // 2]


def transfer(link: socket, size: int, clock: Clock) -> Generator[int, None, float]:
    """Bytes/second of at most `size` bytes that are sent to the listener, as it saw them come.

    The first bytes do not count, nor the time until they came: the listener's clock alone is asked.
    """
    began = clock()
    yield from _send(link, _TRANSFER + _SIZE.pack(size))
    report = b""
    while len(report) < _REPORT.size:
        yield EVENT_READ | EVENT_WRITE if size else EVENT_READ
        if size:
            with contextlib.suppress(BlockingIOError):
                size -= link.send(memoryview(_PIECE)[:size])
        try:
            data = link.recv(_REPORT.size - len(report))
        except BlockingIOError:
            continue
        if not data:
            raise ConnectionResetError("hung up in a transfer")
        report += data  # it may come before all is sent: then the time was up
    came, first, nanoseconds = _REPORT.unpack(report)
    if came > first and nanoseconds:
        return float((came - first) / (nanoseconds * 1e-9))
    return float(came / max(clock() - began, 1e-9))


def answer(link: socket, secret: str, clock: Clock) -> Talk:
    """The listener's side, until the caller hangs up. A caller without the secret is left alone."""
    greeting = yield from _receive(link, len(_GREETING) + _RANDOM_BYTES)
    if not greeting.startswith(_GREETING):
        return
    both = greeting[len(_GREETING) :] + os.urandom(_RANDOM_BYTES)
    yield from _send(link, both[_RANDOM_BYTES:] + _proof(secret, b"listener", both))
    proof = yield from _receive(link, _PROOF_BYTES)
    if not hmac.compare_digest(proof, _proof(secret, b"caller", both)):
        return
    while True:
        order = yield from _receive(link, 1)
        if order == _PING:
            yield from _send(link, _PING)
        elif order == _TRANSFER:
            (size,) = _SIZE.unpack((yield from _receive(link, _SIZE.size)))
            if not (yield from _take(link, min(size, MOST_TRANSFER_BYTES), clock)):
                yield from _drain(link)
        else:
            return


def _take(link: socket, size: int, clock: Clock) -> Generator[int, None, bool]:
    """Take a transfer, and say what came in which time; returns whether all came."""
    buffer = bytearray(min(size, len(_PIECE)))
    came = first = 0
    began = now = clock()
    while came < size and now - began < MOST_TRANSFER_SECONDS:
        yield EVENT_READ
        count = link.recv_into(buffer, min(len(buffer), size - came))
        if not count:
            raise ConnectionResetError("hung up in a transfer")
        now = clock()
        if not came:
            first, began = count, now
        came += count
    yield from _send(link, _REPORT.pack(came, first, round((now - began) * 1e9)))
    return came == size


def _drain(link: socket) -> Talk:
    """Take what is still on its way until the caller hangs up. Hanging up first would reset the
    connection, and the caller might see that before the report."""
    while True:
        yield EVENT_READ
        if not link.recv(len(_PIECE)):
            return


def _send(link: socket, data: bytes) -> Talk:
    while data:
        try:
            data = data[link.send(data) :]
        except BlockingIOError:
            yield EVENT_WRITE


def _receive(link: socket, size: int) -> Generator[int, None, bytes]:
    """Exactly `size` bytes. Raises ConnectionResetError at the end of the connection."""
    data = b""
    while len(data) < size:
        yield EVENT_READ
        piece = link.recv(size - len(data))
        if not piece:
            raise ConnectionResetError("hung up")
        data += piece
    return data


def _proof(secret: str, who: bytes, both: bytes) -> bytes:
    return hmac.digest(bytes.fromhex(secret), who + both, hashlib.sha256)


def _is_proof(reply: bytes, secret: str, who: bytes, nonce: bytes) -> bool:
    """Whether a reply (random bytes, proof) is of one who knows the secret."""
    expected = _proof(secret, who, nonce + reply[:_RANDOM_BYTES])
    return hmac.compare_digest(reply[_RANDOM_BYTES:], expected)

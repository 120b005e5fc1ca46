"""What paramiko and the socket layer raise, as our own exceptions: one table."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from launcher.errors import AuthenticationFailed, NodeError, Unreachable

_NO_ROUTE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN)
_BANNER = "Error reading SSH protocol banner"


def printable(thing: object, limit: int = 200) -> str:
    """`thing` as one short line without control characters, whatever a server put in it."""
    text = "".join(c if c.isprintable() else " " for c in str(thing))
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


class NoGreeting(Exception):
    """The other side hung up before it said anything, as sshd does past MaxStartups."""


def is_no_greeting(error: Exception, transport: paramiko.Transport | None) -> bool:
    """Whether `error` is such a hanging up, as paramiko tells it in its several ways."""
    if transport is None or transport.remote_version:
        return False
    return isinstance(error, (EOFError, OSError)) or str(error).startswith(_BANNER)


def translate(error: Exception, label: str, place: str, mend: str, seconds: float) -> NodeError:
    """The NodeError for what went wrong while opening a connection to `place` (host and port).

    seconds: how long it was tried.
    A NodeError, raised by our own checks, stays what it is, with `label` as its node.
    """
    if isinstance(error, NodeError):
        return type(error)(label, error.reason, error.mend)
    if isinstance(error, TimeoutError):
        return Unreachable(label, f"no answer from {place} within {seconds:.0f} s", mend)
    for kinds, result, reason in _TABLE:
        if isinstance(error, kinds):
            return result(label, reason(error, place), mend)
    kind = type(error).__name__
    return Unreachable(label, f"{place}: {kind}: {printable(error)}".rstrip(": "), mend)


def _os_reason(error: Exception, place: str) -> str:
    number = getattr(error, "errno", None)
    if number in _NO_ROUTE:
        return f"no route to {place}"
    return f"{place}: {printable(getattr(error, 'strerror', None) or error)}"


def _ssh_reason(error: Exception, place: str) -> str:
    text = str(error)
    if "protocol version" in text or "SSH banner" in text:
        return f"{place} is no ssh server: {printable(text)}"
    if text in ("No existing session", "Negotiation failed."):
        return f"{place} did not finish the ssh handshake"
    return f"{place}: {printable(text)}"


def _lost_reason(error: Exception, place: str) -> str:
    return f"{place} closed the connection during the ssh handshake"


Reason = Callable[[Exception, str], str]

# The first row that fits is taken, so a subclass stands above its parent.
_TABLE: tuple[tuple[type[Exception], type[NodeError], Reason], ...] = (
    (
        NoGreeting,
        Unreachable,
        lambda _, place: f"{place} hung up before the ssh greeting: no sshd, or an overloaded one",
    ),
    (socket.gaierror, Unreachable, lambda _, place: f"no address is known for {place}"),
    (ConnectionRefusedError, Unreachable, lambda _, place: f"connection refused by {place}"),
    (ConnectionError, Unreachable, _lost_reason),
    (OSError, Unreachable, _os_reason),
    (EOFError, Unreachable, _lost_reason),
    (
        paramiko.AuthenticationException,
        AuthenticationFailed,
        lambda error, place: f"{place} accepted no key: {printable(error)}",
    ),
    (
        IncompatiblePeer,
        Unreachable,
        lambda error, place: f"{place} and paramiko share no algorithm: {printable(error)}",
    ),
    (
        paramiko.ChannelException,
        Unreachable,
        lambda error, place: f"{place} was refused by the ssh server: {printable(error)}",
    ),
    (paramiko.SSHException, Unreachable, _ssh_reason),
)

"""The `ssh` transport: one Fabric connection and one exec channel per node.

ssh_config is read by ssh itself (ssh_config.py), host keys are checked by OpenSSH's rules
(known_hosts.py), and nothing ever asks anybody for anything (ssh_keys.py).
"""

from __future__ import annotations

import itertools
import logging
import random
import shlex
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fabric
import paramiko

from launcher.errors import AuthenticationFailed, ConnectionLost, NodeError
from launcher.nodes import Node
from launcher.transports.base import Connection, Transport
from launcher.transports.known_hosts import HostKeyCheck, preferred_kinds
from launcher.transports.ssh_channel import SignalTransport, SshConnection, open_channel, shut
from launcher.transports.ssh_config import SshTarget, resolve
from launcher.transports.ssh_errors import NoGreeting, is_no_greeting, translate
from launcher.transports.ssh_keys import KeyAuthentication
from launcher.transports.ssh_sockets import (
    KEEPALIVE_SECONDS,
    Deadline,
    Places,
    ProxySocket,
    await_greeting,
    connect_tcp,
)

_log = logging.getLogger(__name__)
# paramiko tells of every refused key; without a handler Python prints that on stderr.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

# TCP asks after 0, 1 and 3 s, and then only after 7: time enough for the answer to the third.
CONNECT_TIMEOUT_SECONDS = 6.0
# Logging in takes processor time of ours. Waiting for a node that says nothing takes none, and many
# dark ones do not wait for each other.
_MOST_LOGGING_IN_AT_ONCE = 32
_MOST_OPENING_AT_ONCE = 256
_OVERLOAD_TRIES = 6
_BEGIN = ": runtest; "
_INPUT_WAS_READ = "a start-up file of the shell reads what was sent to the program"


@dataclass(frozen=True)
class _Link:
    """An open SSH connection and the pipe under it."""

    fabric: Any
    pipe: Any

    @property
    def transport(self) -> paramiko.Transport:
        transport: paramiko.Transport = self.fabric.transport
        return transport

    def close(self) -> None:
        # Shutting the pipe first wakes paramiko's thread, which else sleeps for 0.1 s.
        shut(self.pipe)
        with suppress(OSError, EOFError, paramiko.SSHException):
            self.fabric.client.close()


class SshTransport(Transport):
    """Reaches nodes by ssh.

    ssh_config: the file to read instead of ssh's own, or None.
    connect_timeout_seconds: how long opening one connection may take in all, its jump hosts
        included, where ssh_config says no ConnectTimeout.
    warn: is given each line that a person should read although the connection was made.
    """

    name = "ssh"
    most_opening_at_once = _MOST_OPENING_AT_ONCE

    def __init__(
        self,
        ssh_config: Path | None = None,
        connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
        warn: Callable[[str], None] = _log.warning,
    ) -> None:
        self._ssh_config = ssh_config
        self._seconds = connect_timeout_seconds
        self._warn = warn
        self._lock = threading.Lock()
        self._gateways: dict[SshTarget, Future[_Link]] = {}
        self._places = Places(_MOST_LOGGING_IN_AT_ONCE)

    def describe(self, node: Node, script: str) -> str:
        where = ["-F", str(self._ssh_config)] if self._ssh_config is not None else []
        return shlex.join(["ssh", *where, node.alias, shlex.join(["exec", "sh", "-c", script])])

    def open(self, node: Node, script: str) -> Connection:
        with self._places.one():
            target = resolve(node.alias, self._ssh_config, node.label, self._seconds)
        deadline = Deadline(target.connect_timeout_seconds or self._seconds)
        link = self._connect(target, node.label, deadline)
        try:
            with _Alarm(deadline, link.pipe):
                return _start(link, script, target, node.label, deadline)
        except BaseException as error:
            link.close()
            if isinstance(error, Exception):
                raise _translated(error, target, node.label, deadline) from error
            raise

    def close(self) -> None:
        with self._lock:
            futures, self._gateways = list(self._gateways.values()), {}
        for future in futures:
            if future.done() and future.exception() is None:
                future.result().close()

    def _connect(self, target: SshTarget, label: str, deadline: Deadline) -> _Link:
        """Connect and log in. Raises NodeError, whatever went wrong."""
        for tries in itertools.count(1):
            # Past MaxStartups sshd hangs up at random: come back, but not all at once.
            pause = random.uniform(0.05, 0.15) * 2**tries  # noqa: S311 - no secret
            try:
                return self._connect_once(target, label, deadline)
            except Exception as error:
                last = tries == _OVERLOAD_TRIES or deadline.passed_after(pause)
                if last or not isinstance(error, NoGreeting):
                    raise _translated(error, target, label, deadline) from error
            time.sleep(pause)
        raise AssertionError  # for mypy: the last try returns or raises

    def _connect_once(self, target: SshTarget, label: str, deadline: Deadline) -> _Link:
        with ExitStack() as place:
            if target.proxy_command is not None:  # which computes as much as we do
                place.enter_context(self._places.one(deadline))
            pipe = self._pipe(target, label, deadline)
            if target.proxy_command is None:
                place.enter_context(self._places.one(deadline))
            return self._log_in(pipe, target, label, deadline)

    def _log_in(self, pipe: Any, target: SshTarget, label: str, deadline: Deadline) -> _Link:
        connection = _fabric_connection(target, label, deadline, self._warn)
        link = _Link(connection, pipe)
        try:
            connection.connect_kwargs["sock"] = link.pipe
            with _Alarm(deadline, link.pipe):
                connection.open()
            link.transport.set_keepalive(KEEPALIVE_SECONDS)
        except BaseException as error:
            silent = isinstance(error, Exception) and is_no_greeting(
                error, connection.client.get_transport()
            )
            link.close()
            if silent:
                raise NoGreeting from error
            raise
        return link

    def _pipe(self, target: SshTarget, label: str, deadline: Deadline) -> Any:
        if target.via is not None:
            gateway = self._gateway(target.via, label, deadline)
            # Fabric's own way to do this waits up to an hour for the answer.
            return gateway.transport.open_channel(
                "direct-tcpip", (target.hostname, target.port), ("", 0), timeout=deadline.left()
            )
        if target.proxy_command is not None:
            return ProxySocket(target.proxy_command)
        link = connect_tcp(target.hostname, target.port, deadline)
        try:
            await_greeting(link, deadline)
        except BaseException:
            link.close()
            raise
        return link

    def _gateway(self, target: SshTarget, label: str, deadline: Deadline) -> _Link:
        """The connection to a jump host, which all nodes behind it share.

        One thread opens it and the others wait for what comes of it; none waits under the lock.
        """
        with self._lock:
            future = self._gateways.get(target)
            mine = future is None or _is_dead(future)
            if mine:
                future = self._gateways[target] = Future()
        assert future is not None  # noqa: S101 - for mypy
        if not mine:
            try:
                return future.result(deadline.left())
            except FutureTimeoutError:
                raise TimeoutError from None
        try:
            link = self._connect(target, label, deadline)
        except BaseException as error:
            with self._lock:
                self._gateways.pop(target, None)
            future.set_exception(error)
            raise
        future.set_result(link)
        return link


def _is_dead(future: Future[_Link]) -> bool:
    return future.done() and (
        future.exception() is not None or not future.result().transport.is_active()
    )


def _fabric_connection(
    target: SshTarget, label: str, deadline: Deadline, warn: Callable[[str], None]
) -> Any:
    """A Fabric connection, not yet open, that takes nothing from anywhere but `target`."""
    check = HostKeyCheck(target, label, warn)

    def make_transport(sock: Any, **options: Any) -> paramiko.Transport:
        transport = SignalTransport(sock, **options)
        security = transport.get_security_options()
        security.key_types = preferred_kinds(check.known, tuple(security.key_types))
        return transport

    patience = deadline.left() + 1  # the alarm comes first
    connection = fabric.Connection(
        host=target.hostname,
        user=target.user,
        port=target.port,
        config=fabric.Config(lazy=True, ssh_config=paramiko.SSHConfig()),
        forward_agent=False,
        connect_kwargs={
            "timeout": patience,
            "banner_timeout": patience,
            "auth_timeout": patience,
            "channel_timeout": patience,
            "transport_factory": make_transport,
            "auth_strategy": KeyAuthentication(target, label),
        },
    )
    connection.client.set_missing_host_key_policy(check)
    return connection


def _start(
    link: _Link, script: str, target: SshTarget, label: str, deadline: Deadline
) -> Connection:
    """Start `script` on the connection.

    The script goes ahead of the input, not in the command line: that is then one constant line
    which every login shell (csh and fish, too) reads alike, and `ps` on the node shows nothing.
    Should a start-up file of that shell have read of the input, nothing is evaluated.
    """
    data = _BEGIN.encode() + script.encode()
    command = (
        f'exec sh -c \'s=$(head -c {len(data)}); case $s in "{_BEGIN}"*) eval "$s"; exit;; esac; '
        f'echo "{_INPUT_WAS_READ}" >&2; exit 79\''
    )
    channel = open_channel(link.transport, command, deadline.left())
    connection = SshConnection(channel, label, target.command, link.close)
    with suppress(ConnectionLost):  # a shell that has ended already: its reader says why
        connection.send(data)
    return connection


class _Alarm:
    """Shuts `pipe` when the deadline passes, which ends whatever waits inside paramiko."""

    def __init__(self, deadline: Deadline, pipe: Any) -> None:
        self._timer = threading.Timer(deadline.left(), shut, [pipe])
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *exc: object) -> None:
        self._timer.cancel()


def _translated(error: Exception, target: SshTarget, label: str, deadline: Deadline) -> NodeError:
    # What the alarm cut short looks like a hang-up, or like a login that was refused.
    ours = isinstance(error, NodeError) and not isinstance(error, AuthenticationFailed)
    if deadline.passed and not ours:
        error = TimeoutError()
    place = target.place
    if isinstance(error, paramiko.ChannelException) and target.via is not None:
        place = f"{place} from {target.via.place}"
    return translate(error, label, place, target.command, deadline.seconds)

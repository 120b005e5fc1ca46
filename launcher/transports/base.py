"""The contract that every transport keeps: one two-way byte stream to each node.

A transport starts one POSIX shell script on a node and gives back its standard streams. All that
runtest does on a node (copying, starting, talking, fetching logs) goes through that one stream.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from launcher.errors import NodeError
from launcher.nodes import Node


class Connection(ABC):
    """The standard streams of the script that runs on one node.

    `send`, `receive` and `receive_errors` are each called by one thread at a time, but by
    different threads at once; `close` may come from any thread, and ends the calls that wait.
    """

    @abstractmethod
    def send(self, data: bytes) -> None:
        """Write all of `data` to the script's standard input.

        Raises ConnectionLost when the other end is gone.
        """

    @abstractmethod
    def receive(self) -> bytes:
        """Wait for output and return up to 64 KiB; b"" at its end or when the link is gone."""

    @abstractmethod
    def receive_errors(self) -> bytes:
        """As `receive`, for standard error."""

    @abstractmethod
    def close_input(self) -> None:
        """End the script's standard input; its output can still be received."""

    @abstractmethod
    def wait(self, timeout_seconds: float) -> int | None:
        """Return the script's exit status, or None when it has not ended in time.

        A negative number −n says that signal n ended it, or that the link was lost (−1).
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the stream. The script sees the end of its input. Safe to call again."""

    def explain(self) -> NodeError | None:
        """What the transport itself knows of why the connection ended, if anything."""
        return None

    def kill(self, pid: int) -> None:  # noqa: B027 - not every transport can
        """Kill process `pid` of the node (SIGKILL) by another way than the script, which does not
        react. Bounded in time; raises nothing.
        """


class Transport(ABC):
    """A way to reach nodes."""

    name: str
    # How many `open` are called at the same time.
    most_opening_at_once = 32

    @abstractmethod
    def open(self, node: Node, script: str) -> Connection:
        """Start `script` with the node's POSIX shell. Called by many threads at once.

        Raises a NodeError that says what to mend: Unreachable, HostKeyUnknown, HostKeyChanged,
        AuthenticationFailed, SshConfigError.
        """

    @abstractmethod
    def describe(self, node: Node, script: str) -> str:
        """The command line that `open` amounts to, for --dry-run."""

    def close(self) -> None:  # noqa: B027 - most transports hold nothing between connections
        """Let go of what the transport itself holds (shared gateways, for example)."""

"""Why a node's connection ended: told from how far its script had come, its status, its words."""

from __future__ import annotations

import signal
from enum import IntEnum

from launcher import payload
from launcher.errors import ConnectionLost, NodeError, PythonMissing, ShellError
from launcher.nodes import Node
from launcher.text import printable

# What the node's shell says of an agent that signal 9 has ended: nothing new.
_OF_THE_SHELL = "Killed"
# What a login shell may take for its start-up files.
SHELL_SECONDS = 10.0


class Stage(IntEnum):
    """How far the script of a node has come."""

    LOGIN_SHELL = 0  # not even started: the login shell reads its start-up files
    SCRIPT = 1  # it runs, and copies the program or starts the interpreter
    AGENT = 2  # the agent has spoken


def shell_hangs(node: Node) -> NodeError:
    """Its shell has printed what it likes, but not started the script."""
    reason = f"its login shell has not started the program within {SHELL_SECONDS:.0f} s"
    return ShellError(node.label, reason, _look_at_shell(node))


def silent(node: Node, what: str) -> NodeError:
    """Its agent does nothing: it `has not been heard of for 30 s`, say."""
    return ConnectionLost(node.label, f"the agent {what}", _by_hand(node))


def why_ended(node: Node, stage: Stage, status: int | None, said: str) -> NodeError:
    """The failure that the end of a connection stands for which we did not end.

    status: of the script; None when it has not ended, −n for signal n, −1 also for a lost link.
    said: its standard error.
    """
    lines = [printable(line).strip() for line in said.splitlines()]
    last = next(
        (f": {line[:300]}" for line in reversed(lines) if line not in ("", _OF_THE_SHELL)), ""
    )
    known = payload.bootstrap_error(node.label, status, "\n".join(lines))
    if known is not None:
        return known
    if status in (None, -1):
        mend = f"see whether {node.alias} is on and its network up, and run it again"
        return ConnectionLost(node.label, "the connection to the agent was lost", mend)
    how = _how_it_ended(status)
    if stage == Stage.LOGIN_SHELL:
        reason = f"its login shell ended ({how}) before it started the program{last}"
        return ShellError(node.label, reason, _look_at_shell(node))
    if stage == Stage.SCRIPT:
        reason = f"{node.python or 'the interpreter'} did not start the agent ({how}){last}"
        return PythonMissing(node.label, reason, "--python PATH, or python=PATH in the nodes file")
    if how.startswith("signal"):
        return ConnectionLost(node.label, f"the agent ended with {how}{last}", _by_hand(node))
    reason = f"the connection to the agent ended ({how}){last}"
    return ConnectionLost(node.label, reason, _by_hand(node))


def _how_it_ended(status: int | None) -> str:
    """An end in words: a shell says 128 + n where signal n ended the program."""
    number = 0 if status is None else -status if status < 0 else status - 128
    if number == signal.SIGKILL:
        return "signal 9 (killed, or out of memory)"
    return f"signal {number}" if number > 0 else f"status {status}"


def _by_hand(node: Node) -> str:
    return f"look at {node.alias} by hand, and run it again"


def _look_at_shell(node: Node) -> str:
    return f"`ssh {node.alias} true`, and look at the start-up files there (~/.bashrc, say)"

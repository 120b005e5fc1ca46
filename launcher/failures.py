"""Why a run failed: which of several failures explains the others, in which words, what to try."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from launcher.errors import NodeError, ProtocolError, TaskFailed
from launcher.nodes import Node
from launcher.tasks import PlannedTask, RunPlan
from launcher.text import printable
from perftest.protocol import AgentFailed, Exited

# How much a failure explains: the end of a process or a link; what a task says of itself; and what
# only follows from another failure.
CAUSE, COMPLAINT, ECHO = range(3)
# For so long after the first failure, news may come that explains it better. The end of a process
# is told at once; a cut link shows only when the launcher's own link to that node is given up,
# which takes KEEPALIVE_SECONDS + USER_TIMEOUT_SECONDS (transports/ssh_sockets.py).
_PATIENCE_SECONDS = {CAUSE: 0.0, COMPLAINT: 1.0, ECHO: 12.0}
_ECHOES = {"UnavailableError", "AbortedError", "CancelledError"}

_OUT_OF_MEMORY = (
    *("bad_alloc", "MemoryError", "ResourceExhaustedError", "out of memory", "OOM when allocating"),
    *("Cannot allocate memory", "failed to map segment from shared object"),
    "Resource temporarily unavailable",  # for one more thread
)
_SIGABRT, _SIGKILL = 6, 9
_MOST_TAIL_LINES = 20
_MOST_NAMES = 4
_MOST_FAILURES = 200


class Failures:
    """The failures of a run so far. `clock` gives seconds and is monotonic."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._found: list[tuple[int, NodeError]] = []
        self._since = 0.0

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, rank: int, error: NodeError) -> None:
        """One more failure: CAUSE, COMPLAINT or ECHO."""
        if not self._found:
            self._since = self._clock()
        if len(self._found) < _MOST_FAILURES or rank < min(each for each, _ in self._found):
            self._found.append((rank, error))

    def has_word_of(self, task: str) -> bool:
        """Whether a task (`worker 3`) has said already why it fails."""
        return any(error.reason.startswith(f"{task} ") for _, error in self._found)

    @property
    def first(self) -> NodeError:
        """The failure that explains most, and of several the one that came first."""
        return min(self._found, key=lambda failure: failure[0])[1]

    @property
    def are_echoes(self) -> bool:
        """Whether all of them only follow from something that has not been told."""
        return min(rank for rank, _ in self._found) == ECHO

    @property
    def patience_seconds(self) -> float:
        """How much longer to wait for a better explanation; 0 or less where there is one."""
        rank = min(rank for rank, _ in self._found)
        return self._since + _PATIENCE_SECONDS[rank] - self._clock()


def lost(error: NodeError, tasks: Sequence[PlannedTask]) -> NodeError:
    """What ended a node's connection, with the tasks that ran there."""
    names = [task.name for task in tasks]
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    ran = f"; {', '.join(names[:_MOST_NAMES])}{more} ran there" if names else ""
    return type(error)(error.node, f"{error.reason}{ran}", error.mend)


def refused(node: Node, what: AgentFailed) -> NodeError:
    """What an agent could not do that it was asked to."""
    mend = f"look at the disk, the memory and the limits (`ulimit -a`) of {node.alias}"
    return ProtocolError(node.label, printable(what.error), mend)


def exited(plan: RunPlan, node: Node, what: Exited) -> tuple[int, TaskFailed]:
    """The end of a task's process in the middle of a run, and how much it explains."""
    how = f"signal {what.signal}" if what.signal is not None else f"exit code {what.exit_code}"
    reason = f"{what.role} {what.index} ended with {how} in the middle of the run"
    mend = _where_to_look(what.role, what.index)
    if what.signal == _SIGKILL:
        reason += " (killed, or out of memory)"
        dmesg = f"`dmesg` on {node.alias}: where it names an out-of-memory kill"
        mend = f"{dmesg}, {_less_memory(plan)}; {mend}"
    elif what.signal == _SIGABRT and _is_out_of_memory("\n".join(what.log_tail)):
        reason += " (out of memory)"
        mend = f"{_less_memory(plan)}; {mend}"
    error = TaskFailed(node.label, reason, mend)
    error.log_tail = tuple(printable(line) for line in what.log_tail[-_MOST_TAIL_LINES:])
    return (CAUSE if what.signal is not None else COMPLAINT), error


def complained(
    plan: RunPlan, node: Node, role: str, index: int, text: str
) -> tuple[int, TaskFailed]:
    """What a task says of its own failure, and how much it explains."""
    if text.split(":")[0] in _ECHOES:
        reason = f"{role} {index} lost its connection to another task: {printable(text)}"
        mend = f"{_reach(plan)}; {_where_to_look(role, index)}"
        return ECHO, TaskFailed(node.label, reason, mend)
    what, _, known_mend = printable(text).partition(". Try: ")
    reason = f"{role} {index} failed: {what}"
    mend = known_mend or _where_to_look(role, index)
    if _is_out_of_memory(text):
        reason += " (out of memory)"
        mend = f"{_less_memory(plan)}; {mend}"
    return COMPLAINT, TaskFailed(node.label, reason, mend)


def stalled(
    plan: RunPlan, task: PlannedTask, reason: str, paused: Mapping[tuple[str, int], int]
) -> TaskFailed:
    """A task that does not get on, or the stopped one that the others may well wait for.

    paused: process id by role and index, or 0 for one that goes on again.
    """
    mend = f"{_reach(plan)}; --stall-timeout with more seconds, if a step may take so long"
    for other in plan.tasks:
        if pid := paused.get((other.place.role, other.place.index)):
            alias = plan.nodes[other.node].alias
            reason = f"{other.name} is stopped (SIGSTOP, or a debugger), and {reason}"
            mend = f"on {alias}, `kill -CONT {pid}` lets it go on; see who stops it there"
            return TaskFailed(plan.nodes[other.node].label, reason, mend)
    return TaskFailed(plan.nodes[task.node].label, reason, mend)


def _reach(plan: RunPlan) -> str:
    addresses = [task.address for task in plan.tasks]
    more = " ..." if len(addresses) > _MOST_NAMES else ""
    return f"see that the nodes reach each other at {', '.join(addresses[:_MOST_NAMES])}{more}"


def _is_out_of_memory(text: str) -> bool:
    return any(sign in text for sign in _OUT_OF_MEMORY)


def _less_memory(plan: RunPlan) -> str:
    training, batch = plan.job.training, plan.job.batch_size
    if training is None:
        return f"a smaller batch than -b {batch}"
    if training.evaluate:
        return f"a smaller test_batch_size than {training.evaluation_batch_size}"
    return f"a smaller train_batch_size: each worker has {batch} images a step"


def _where_to_look(role: str, index: int) -> str:
    return f"read the end of {role}-{index}.log in the folder of the run"

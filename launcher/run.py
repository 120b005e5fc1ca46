"""One run over an open session: start, gather, stop. The first failure stops all."""

from __future__ import annotations

import math
import queue
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from launcher.channel import Event
from launcher.errors import NodeError, ProtocolError, ResultsError, TaskFailed
from launcher.results.steps import StepRecord
from launcher.session import Session
from launcher.stall import StallWatch, what_is_wrong
from launcher.tasks import RunPlan
from launcher.text import cleaned, printable
from perftest.protocol import (
    WORKER,
    AgentFailed,
    Exited,
    Failed,
    Finish,
    Finished,
    FromTask,
    Go,
    Log,
    Phase,
    Ready,
    RunEnded,
    Start,
    StepTimes,
)

# A task that dies makes others fail; for this long, the news of it may still overtake theirs.
_CAUSE_SECONDS = 1.0
# TERM, then KILL, then logs: what an agent may take to end a run.
_ENDING_SECONDS = 20.0
# What a node may send of each, whatever it says: an agent of ours sends less.
_MOST_LOG_BYTES = 24 << 20
_MOST_PHASES = 20
_MOST_PROBLEMS = 20
_MOST_TAIL_LINES = 20


class RunObserver(Protocol):
    """Is told how a run goes, from one thread."""

    def run_started(self, plan: RunPlan) -> None:
        """The tasks are being started."""

    def phase(self, role: str, index: int, name: str) -> None:
        """A task says what it does next."""

    def steps(self, worker: int, first_step: int, times: StepTimes) -> None:
        """A worker has made some steps."""

    def run_ending(self) -> None:
        """All workers have finished, or one task has failed."""


LogSink = Callable[[str, bytes], object]


@dataclass(frozen=True)
class StartupPhase:
    """When a task began something, in seconds after its process started."""

    role: str
    index: int
    name: str
    elapsed_seconds: float


@dataclass
class Outcome:
    """What a run gave, as far as it got."""

    records: list[StepRecord] = field(default_factory=list)
    finished: dict[int, Finished] = field(default_factory=dict)
    phases: list[StartupPhase] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    first_step_seconds: float | None = None


def execute(
    session: Session,
    plan: RunPlan,
    run_id: str,
    observer: RunObserver,
    log: LogSink,
    outcome: Outcome,
) -> None:
    """Make one run. `outcome` is filled as the run goes, so that a failed one keeps what it had.

    `log(name, data)` is given the tasks' logs in pieces. Raises TaskFailed or another NodeError
    for the first failure, after everything that can be reached has been stopped.
    """
    run = _Run(session, plan, run_id, observer, log, outcome)
    observer.run_started(plan)
    try:
        run.start()
        run.train()
    finally:
        observer.run_ending()
        run.end()


class _Run:
    """The state of one run."""

    def __init__(
        self,
        session: Session,
        plan: RunPlan,
        run_id: str,
        observer: RunObserver,
        log: LogSink,
        outcome: Outcome,
    ) -> None:
        self._session = session
        self._plan = plan
        self._id = run_id
        self._observer = observer
        self._log = log
        self._outcome = outcome
        self._started = time.monotonic()
        self._ready: set[int] = set()
        self._ended: set[int] = set()
        self._started_nodes: set[int] = set()
        self._failures: list[tuple[int, NodeError]] = []
        self._ending = False
        self._counts: dict[int, int] = defaultdict(int)
        self._watch = StallWatch(plan)
        self._log_bytes: dict[str, int] = defaultdict(int)

    def start(self) -> None:
        """Start all tasks on all nodes."""
        for node in range(len(self._plan.nodes)):
            if places := self._plan.places(node):
                self._started_nodes.add(node)
                self._session.send(node, Start(self._id, self._plan.job, places))

    def train(self) -> None:
        """Gather until all workers have finished. Raises the failure that came first."""
        while len(self._outcome.finished) < len(self._plan.workers):
            with suppress(queue.Empty):
                self._handle(self._session.events.get(timeout=1.0))
            self._check_progress()
            if self._failures:
                self._gather_causes()
                raise min(self._failures, key=lambda failure: failure[0])[1]

    def end(self) -> None:
        """Have all agents end the run, and take the logs. Bounded in time; raises nothing new."""
        self._ending = True
        for node in self._started_nodes:
            self._session.send(node, Finish(self._id))
        deadline = time.monotonic() + _ENDING_SECONDS
        while any(n not in self._ended and self._session.is_open(n) for n in self._started_nodes):
            try:
                event = self._session.events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                self._outcome.problems.append("some nodes did not say that the run has ended")
                return
            self._handle(event)

    def _gather_causes(self) -> None:
        """Wait a moment for a failure that explains the first one better."""
        deadline = time.monotonic() + _CAUSE_SECONDS
        while (left := deadline - time.monotonic()) > 0 and all(rank for rank, _ in self._failures):
            try:
                self._handle(self._session.events.get(timeout=left))
            except queue.Empty:
                return

    def _check_progress(self) -> None:
        """A run in which a worker does not get on has failed, whatever keeps it."""
        waiting = self._ready if len(self._ready) < len(self._plan.workers) else set()
        stall = self._watch.find(waiting | self._outcome.finished.keys())
        if stall is None or self._failures:
            return
        task, reason = stall
        addresses = [task.address for task in self._plan.tasks]
        mend = (
            f"see that the nodes reach each other at {', '.join(addresses[:4])}"
            f"{' ...' if len(addresses) > 4 else ''}; "
            "--stall-timeout with more seconds, if a step may take so long"
        )
        self._fail(1, TaskFailed(self._label(task.node), reason, mend))

    # What comes from the nodes.

    def _handle(self, event: Event) -> None:
        what = event.what
        if event.node not in self._started_nodes:
            return  # a node of the session that has no part in this run
        if isinstance(what, NodeError):
            self._ended.add(event.node)
            self._fail(0, what)
        elif isinstance(what, AgentFailed):
            self._fail(0, ProtocolError(self._label(event.node), printable(what.error)))
        elif isinstance(what, (FromTask, Exited, Log, RunEnded)) and what.run_id == self._id:
            if isinstance(what, RunEnded):
                self._ended.add(event.node)
                label = self._label(event.node)
                self._outcome.problems += [
                    f"{label}: {printable(problem)}" for problem in what.problems[:_MOST_PROBLEMS]
                ]
            elif self._owns(event.node, what.role, what.index):
                self._handle_task(event.node, what)

    def _handle_task(self, node: int, what: FromTask | Exited | Log) -> None:
        if isinstance(what, FromTask):
            self._handle_message(node, what)
        elif isinstance(what, Exited):
            self._handle_exit(node, what)
        else:
            self._keep_log(what)

    def _keep_log(self, piece: Log) -> None:
        """Write a piece of a task's log; one that cannot be written must not end a good run."""
        name = f"{piece.role}-{piece.index}"
        note = f"\n[{piece.omitted_bytes} bytes left out here]\n" if piece.omitted_bytes else ""
        data = (note + piece.text).encode("utf-8", "replace")
        self._log_bytes[name] += len(data)
        if self._log_bytes[name] > _MOST_LOG_BYTES:
            return
        try:
            self._log(name, data)
        except ResultsError as error:
            if str(error) not in self._outcome.problems:
                self._outcome.problems.append(str(error))

    def _handle_message(self, node: int, what: FromTask) -> None:
        message = what.message
        if isinstance(message, Phase):
            if len(self._outcome.phases) >= _MOST_PHASES * len(self._plan.tasks):
                return
            name = printable(message.name, 60)
            self._outcome.phases.append(
                StartupPhase(what.role, what.index, name, message.elapsed_seconds)
            )
            if what.role == WORKER:
                self._watch.phase(what.index, name)
            self._observer.phase(what.role, what.index, name)
        elif isinstance(message, Failed):
            self._fail(
                2 if _is_an_echo(message.error) else 1, self._task_error(node, what, message.error)
            )
        elif what.role != WORKER:
            self._fail(1, ProtocolError(self._label(node), f"{what.role} {what.index} trains"))
        elif isinstance(message, Ready):
            self._ready.add(what.index)
            if len(self._ready) == len(self._plan.workers):
                self._session.broadcast(Go(self._id))
        elif isinstance(message, StepTimes):
            self._keep_steps(node, what.index, message)
        elif isinstance(message, Finished):
            self._keep_finished(node, what.index, message)

    def _keep_finished(self, node: int, worker: int, message: Finished) -> None:
        made = self._counts[worker]
        asked = self._plan.job.warmup_steps + self._plan.job.measured_steps
        if made != asked:
            error = f"worker {worker} has finished after {made} steps of {asked}"
            self._fail(1, ProtocolError(self._label(node), error))
        self._outcome.finished[worker] = cleaned(message)

    def _keep_steps(self, node: int, worker: int, times: StepTimes) -> None:
        lists = (times.seconds, times.compute_seconds, times.losses, times.global_steps)
        if problem := what_is_wrong(times, self._counts[worker], self._plan.job):
            error = f"worker {worker} sent steps that {problem}"
            self._fail(1, ProtocolError(self._label(node), error))
            return
        if self._outcome.first_step_seconds is None:
            self._outcome.first_step_seconds = time.monotonic() - self._started
        for i, (seconds, compute, loss, global_step) in enumerate(zip(*lists, strict=True)):
            self._outcome.records.append(
                StepRecord(
                    worker=worker,
                    node=self._plan.nodes[node].alias,
                    step=times.first_step + i,
                    phase="measured" if times.measured else "warmup",
                    seconds=seconds,
                    compute_seconds=math.nan if compute is None else compute,
                    loss=math.nan if loss is None else loss,
                    global_step=global_step,
                )
            )
        self._counts[worker] += len(times.seconds)
        self._watch.steps(worker, self._counts[worker], max(times.seconds))
        self._observer.steps(worker, times.first_step, times)

    def _handle_exit(self, node: int, what: Exited) -> None:
        if self._ending:
            return
        how = f"signal {what.signal}" if what.signal is not None else f"exit code {what.exit_code}"
        reason = f"{what.role} {what.index} ended with {how} in the middle of the run"
        if what.signal == 9:
            reason += " (killed, or out of memory)"
        if any(
            error.reason.startswith(f"{what.role} {what.index} ") for _, error in self._failures
        ):
            return  # it has said why before it ended
        error = TaskFailed(self._label(node), reason, self._where_to_look(what.role, what.index))
        error.log_tail = tuple(printable(line) for line in what.log_tail[-_MOST_TAIL_LINES:])
        self._fail(0 if what.signal is not None else 1, error)

    def _task_error(self, node: int, what: FromTask, text: str) -> TaskFailed:
        reason = f"{what.role} {what.index} failed: {printable(text)}"
        return TaskFailed(self._label(node), reason, self._where_to_look(what.role, what.index))

    def _where_to_look(self, role: str, index: int) -> str:
        return f"read the end of {role}-{index}.log in the folder of the run"

    def _fail(self, rank: int, error: NodeError) -> None:
        if not self._ending:
            self._failures.append((rank, error))

    def _label(self, node: int) -> str:
        return self._plan.nodes[node].label

    def _owns(self, node: int, role: str, index: int) -> bool:
        """Whether this task is this node's: no node can speak, or write logs, for another."""
        return any(
            task.node == node and (task.place.role, task.place.index) == (role, index)
            for task in self._plan.tasks
        )


def _is_an_echo(error: str) -> bool:
    """Whether a task failed because another one was gone."""
    return error.split(":")[0] in {"UnavailableError", "AbortedError", "CancelledError"}

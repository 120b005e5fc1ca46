"""One run over an open session: start, gather, stop. The first failure stops all."""

from __future__ import annotations

import queue
import time
from collections import defaultdict
from contextlib import suppress
from typing import Any

from launcher.errors import NodeError, ProtocolError
from launcher.failures import (
    CAUSE,
    COMPLAINT,
    Failures,
    complained,
    exited,
    lost,
    refused,
    stalled,
)
from launcher.inbox import Event
from launcher.outcome import Logs, LogSink, Outcome, RunObserver, StartupPhase, step_records
from launcher.session import Session
from launcher.stall import TOLD_AGAIN, StallWatch, what_is_wrong
from launcher.startup import WorkerPhases
from launcher.tasks import RunPlan
from launcher.text import cleaned, printable
from launcher.traces import Traces
from launcher.training.sense import TRAINING_MESSAGES
from launcher.training.sense import what_is_wrong as senseless
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
    Paused,
    Phase,
    Progress,
    Ready,
    RunEnded,
    ServerLoad,
    ServersHold,
    Staged,
    Start,
    StepTimes,
    TracePiece,
)

# How often the run is searched for a worker that stands still.
_LOOK_SECONDS = 0.25
# TERM, then KILL, then logs: what an agent may take to end a run.
_ENDING_SECONDS = 20.0
# What a node may send of each, whatever it says: an agent of ours sends less.
_MOST_PHASES = 20
_MOST_PROBLEMS = 20
_OF_A_RUN = (FromTask, Exited, Log, Paused, RunEnded)


def execute(
    session: Session,
    plan: RunPlan,
    run_id: str,
    observer: RunObserver,
    log: LogSink,
    outcome: Outcome,
    traces: Traces | None = None,
) -> None:
    """Make one run. `outcome` is filled as the run goes, so that a failed one keeps what it had.

    `log(name, data)` is given the tasks' logs in pieces, `traces` those of the traces that the plan
    asks for. Raises TaskFailed or another NodeError
    for the first failure, after everything that can be reached has been stopped. A second
    KeyboardInterrupt, while it is being stopped, lets go of all nodes at once.
    """
    run = _Run(session, plan, run_id, observer, log, outcome, traces)
    observer.run_started(plan)
    try:
        run.start()
        run.train()
    except KeyboardInterrupt as error:
        session.interrupted(error)
        with session.leaving_on_interrupt():
            observer.interrupted()
            run.end()
        raise
    finally:
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
        traces: Traces | None,
    ) -> None:
        self._session = session
        self._plan = plan
        self._id = run_id
        self._observer = observer
        self._outcome = outcome
        self._workers = len(plan.workers)
        self._owned = {(task.node, task.place.role, task.place.index) for task in plan.tasks}
        self._started = time.monotonic()
        self._ready: set[int] = set()
        self._ended: set[int] = set()
        self._started_nodes: set[int] = set()
        self._failures = Failures()
        self._paused: dict[tuple[str, int], int] = {}
        self._ending = False
        self._counts: dict[int, int] = defaultdict(int)
        self._watch = StallWatch(plan)
        self._logs = Logs(log, outcome)
        self._traces = traces
        self._phases: dict[tuple[str, int], int] = defaultdict(int)
        self._last_phase: dict[tuple[str, int], str] = {}
        self._way = WorkerPhases(outcome.startup)
        self._next_look = 0.0
        self._is_measuring = False

    def start(self) -> None:
        """Start all tasks on all nodes."""
        for node in range(len(self._plan.nodes)):
            if places := self._plan.places(node):
                self._started_nodes.add(node)
                self._session.send(node, Start(self._id, self._plan.job, places))

    def train(self) -> None:
        """Gather until all workers have finished. Raises the failure that came first."""
        while len(self._outcome.finished) < self._workers:
            with suppress(queue.Empty):
                self._handle(self._session.events.get(timeout=1.0))
            self._check_progress()
            if self._failures:
                self._gather_causes()
                raise self._failures.first

    def end(self) -> None:
        """Have all agents end the run, and take the logs. Bounded in time; raises nothing new.

        Where not even that is waited for (KeyboardInterrupt), all nodes are let go of. Once is
        enough.
        """
        if self._ending or self._session.is_over:
            return
        self._ending = True
        with self._session.leaving_on_interrupt():
            self._observer.run_ending()
            for node in self._started_nodes:
                self._session.send(node, Finish(self._id))
            self._await_ends(time.monotonic() + _ENDING_SECONDS)

    def _await_ends(self, deadline: float) -> None:
        for node in self._started_nodes - self._ended:
            if error := self._session.why_closed(node):  # the news of it is still on its way
                self._lose(node, error)
        if self._ended == self._started_nodes:
            return
        for event in self._session.events.until(deadline):
            self._handle(event)
            if self._ended == self._started_nodes:
                return
        for node in sorted(self._started_nodes - self._ended):
            late = f"did not say within {_ENDING_SECONDS:.0f} s that the run has ended"
            self._outcome.problems.append(f"{self._label(node)}: the agent {late}; it was killed")
            self._session.kill(node)

    def _gather_causes(self) -> None:
        """Wait for a failure that explains the first one better."""
        while (left := self._failures.patience_seconds) > 0:
            with suppress(queue.Empty):
                self._handle(self._session.events.get(timeout=left))
        silent = self._session.give_up_silent() if self._failures.are_echoes else {}
        for node, error in silent.items():  # not every link tells of its end in that time
            self._lose(node, error)

    def _check_progress(self) -> None:
        """A run in which a worker does not get on has failed, whatever keeps it."""
        if (now := time.monotonic()) < self._next_look:
            return
        self._next_look = now + _LOOK_SECONDS
        waiting = self._ready if len(self._ready) < self._workers else set()
        finished = self._outcome.finished.keys()
        stall = self._watch.find_paused(finished) or self._watch.find(waiting | finished)
        if stall is not None and not self._failures:
            self._fail(COMPLAINT, stalled(self._plan, *stall, self._paused))

    def _handle(self, event: Event) -> None:
        what = event.what
        if event.node not in self._started_nodes:
            return  # a node of the session that has no part in this run
        if isinstance(what, NodeError):
            self._lose(event.node, what)
        elif isinstance(what, AgentFailed):
            self._fail(CAUSE, refused(self._plan.nodes[event.node], what))
        elif isinstance(what, _OF_A_RUN) and what.run_id == self._id:
            if isinstance(what, RunEnded):
                if event.node in self._ended:
                    return
                self._ended.add(event.node)
                problems = map(printable, what.problems[:_MOST_PROBLEMS])
                label = self._label(event.node)
                self._outcome.problems += [f"{label}: {problem}" for problem in problems]
            elif (event.node, what.role, what.index) in self._owned:
                # No node can speak, or write logs, for another.
                self._handle_task(event.node, what)

    def _lose(self, node: int, error: NodeError) -> None:
        if self._ending and node in self._ended:
            return  # all that was to come from it has come
        self._ended.add(node)
        if self._ending:
            self._outcome.problems.append(f"{error}: logs of this node may be missing")
        else:
            self._fail(CAUSE, lost(error, [t for t in self._plan.tasks if t.node == node]))

    def _handle_task(self, node: int, what: FromTask | Exited | Log | Paused) -> None:
        if isinstance(what, FromTask):
            self._handle_message(node, what)
        elif isinstance(what, Exited):
            self._handle_exit(node, what)
        elif isinstance(what, Paused):
            self._paused[what.role, what.index] = what.pid if what.stopped else 0
            self._watch.paused(what.role, what.index, what.stopped)
        else:
            self._logs.keep(what)

    def _handle_message(self, node: int, what: FromTask) -> None:
        message = what.message
        if isinstance(message, Phase):
            self._keep_phase(what.role, what.index, message)
        elif isinstance(message, Failed):
            where = self._plan.nodes[node]
            self._fail(*complained(self._plan, where, what.role, what.index, message.error))
        elif isinstance(message, ServersHold | ServerLoad):
            self._take_news(node, what.role, what.index, message)
        elif what.role != WORKER:
            error = f"{what.role} {what.index} trains"
            self._fail(COMPLAINT, ProtocolError(self._label(node), error))
        elif isinstance(message, Ready):
            self._take_ready(what.index)
        elif isinstance(message, StepTimes):
            self._keep_steps(node, what.index, message)
        elif isinstance(message, TracePiece):
            self._take_trace(node, what.index, message)
        elif isinstance(message, TRAINING_MESSAGES):
            self._take_training(node, what.index, cleaned(message))
        elif isinstance(message, Finished):
            self._keep_finished(node, what.index, message)

    def _take_news(self, node: int, role: str, index: int, message: Any) -> None:
        steps = self._plan.job.warmup_steps + self._plan.job.measured_steps
        # What comes after the last step (traces, the norm of the parameters) is in no figure.
        busy = self._is_measuring and max(self._counts.values()) < steps
        if problem := self._outcome.servers.take(message, role, index, self._plan, busy):
            error = ProtocolError(self._label(node), f"{role} {index} {problem}")
            self._fail(COMPLAINT, error)

    def _keep_phase(self, role: str, index: int, phase: Phase) -> None:
        name = printable(phase.name, 60)
        if name == self._last_phase.get((role, index)):
            if role == WORKER and name in TOLD_AGAIN:
                self._watch.phase(index, name)
            return
        self._last_phase[role, index] = name
        if role == WORKER:
            self._way.phase(index, name)
        self._phases[role, index] += 1
        if self._phases[role, index] <= _MOST_PHASES:
            self._outcome.phases.append(StartupPhase(role, index, name, phase.elapsed_seconds))
        elif self._plan.job.training is None:
            return  # a training goes from one to another and back in every epoch
        if role == WORKER:
            self._watch.phase(index, name)
        self._observer.phase(role, index, name)

    def _take_ready(self, worker: int) -> None:
        is_new = worker not in self._ready
        self._ready.add(worker)
        if is_new and len(self._ready) == self._workers:
            self._session.broadcast(Go(self._id))

    def _keep_finished(self, node: int, worker: int, message: Finished) -> None:
        made = self._counts[worker]
        asked = self._plan.job.warmup_steps + self._plan.job.measured_steps
        if made != asked and self._plan.job.training is None:
            error = f"worker {worker} has finished after {made} steps of {asked}"
            self._fail(COMPLAINT, ProtocolError(self._label(node), error))
        self._outcome.finished[worker] = cleaned(message)

    def _keep_steps(self, node: int, worker: int, times: StepTimes) -> None:
        if problem := what_is_wrong(times, self._counts[worker], self._plan.job):
            error = f"worker {worker} sent steps that {problem}"
            self._fail(COMPLAINT, ProtocolError(self._label(node), error))
            return
        if self._outcome.first_step_seconds is None:
            since = sum(times.seconds[1:])
            self._outcome.first_step_seconds = time.monotonic() - since - self._started
            self._way.first_step(worker, since)
        self._outcome.records += step_records(worker, self._plan.nodes[node].alias, times)
        self._is_measuring |= times.measured
        self._counts[worker] += len(times.seconds)
        self._watch.steps(worker, self._counts[worker], max(times.seconds))
        self._observer.steps(worker, times.first_step, times)

    def _take_trace(self, node: int, worker: int, piece: TracePiece) -> None:
        where = self._plan.nodes[node]
        problem = "that nobody has asked for"
        if self._traces is not None and self._plan.job.profile_steps:
            problem = self._traces.take(worker, where.alias, piece)
        if problem:
            error = f"worker {worker} sent a piece of a trace {problem}"
            self._fail(COMPLAINT, ProtocolError(where.label, error))
        self._watch.phase(worker, "sending the trace")

    def _take_training(self, node: int, worker: int, message: Any) -> None:
        if problem := senseless(message, self._plan.job, worker):
            error = f"worker {worker} sent {type(message).__name__} {problem}"
            self._fail(COMPLAINT, ProtocolError(self._label(node), error))
            return
        if isinstance(message, Progress):
            self._counts[worker] += 1
            self._watch.steps(worker, self._counts[worker], message.seconds)
        if isinstance(message, Staged):
            self._outcome.staged[worker] = message
        self._observer.training(worker, message)

    def _handle_exit(self, node: int, what: Exited) -> None:
        if not self._failures.has_word_of(f"{what.role} {what.index}"):
            self._fail(*exited(self._plan, self._plan.nodes[node], what))

    def _fail(self, rank: int, error: NodeError) -> None:
        if not self._ending:
            self._failures.add(rank, error)

    def _label(self, node: int) -> str:
        return self._plan.nodes[node].label

"""Sessions and runs with nodes that are late, wrong, or lie."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from scripted import HEAD, HELLO, Played, ScriptedTransport
from test_strategies import Quiet

from launcher import failures
from launcher.errors import (
    ConnectionLost,
    NodeError,
    NodesFailed,
    ProtocolError,
    PythonMissing,
    RemoteDirectoryError,
    ResultsError,
    ShellError,
    TaskFailed,
    TensorFlowMissing,
    UsageError,
)
from launcher.nodes import Node
from launcher.outcome import Outcome
from launcher.plan import greeting, make_plan
from launcher.run import execute
from launcher.session import NodeOptions, Session
from launcher.stall import StallWatch
from launcher.tasks import Options
from launcher.transports.base import Connection
from perftest import protocol
from perftest.protocol import (
    AgentFailed,
    Exited,
    Failed,
    Finish,
    Finished,
    FromTask,
    Go,
    Heartbeat,
    Hello,
    Log,
    Paused,
    Phase,
    Ready,
    RunEnded,
    ServerLoad,
    Start,
    StepTimes,
    Stop,
    TracePiece,
    Training,
)

NODES = [Node(f"host{i}", f"node{i}", f"nodes, line {i + 1}") for i in range(2)]
Script = Callable[[Played], None]


def steps(first: int, count: int, measured: bool) -> StepTimes:
    ones = (0.5,) * count
    return StepTimes(first, measured, ones, ones, ones, tuple(range(first + 1, first + count + 1)))


def good(node: Played) -> None:
    """A node that does all that it should, with 1 + 2 steps."""
    node.greet()
    start = node.hear(Start, Stop)
    if not isinstance(start, Start):
        node.leave(0)
        return
    workers = [place.index for place in start.places if place.role == "worker"]
    for index in workers:
        node.say(FromTask("r", "worker", index, steps(0, 1, False)))
        node.say(FromTask("r", "worker", index, Ready()))
    if isinstance(node.hear(Go, Finish), Go):
        for index in workers:
            node.say(FromTask("r", "worker", index, steps(1, 2, True)))
            node.say(FromTask("r", "worker", index, Finished(10, None, "CPU")))
        node.hear(Finish)
    say_ended(node)


def end(node: Played) -> None:
    if node.hear(Finish) is not None:
        say_ended(node)


def say_ended(node: Played) -> None:
    node.say(Log("r", "worker", 0, "hello\n", 0))
    node.say(RunEnded("r", ()))
    node.hear(Stop)
    node.leave(0)


def starting_then(say: Callable[[Played], None]) -> Script:
    """A node that greets, is told to start, says something, and ends in order."""

    def script(node: Played) -> None:
        node.greet()
        node.hear(Start)
        say(node)
        end(node)

    return script


def play(
    transport: ScriptedTransport,
    logs: dict[str, bytes] | None = None,
    log: Callable[[str, bytes], None] | None = None,
    observer: Quiet | None = None,
    nodes: Sequence[Node] = NODES,
    **changes: Any,
) -> Outcome:
    """One run of 1 + 2 steps on nodes with one worker each."""
    asked = Options(model="deepmnist", warmup_steps=1, measured_steps=2, **changes)
    outcome = Outcome()
    kept = logs if logs is not None else {}

    def keep(name: str, data: bytes) -> None:
        kept[name] = kept.get(name, b"") + data

    with Session(nodes, transport, NodeOptions("", "python3"), "s") as session:
        session.open(lambda node: greeting(asked, node, "s"), Quiet())
        plan = make_plan(asked, session.nodes, session.hellos)
        execute(session, plan, "r", observer or Quiet(), log or keep, outcome)
    return outcome


class Impatient(Quiet):
    """A person who interrupts a run, and once more so many lines of the launcher later.

    lines: of its own code, from the confirmation of the first interrupt on.
    """

    def __init__(self, lines: int) -> None:
        self._lines = lines

    def phase(self, *_: object) -> None:
        raise KeyboardInterrupt

    def interrupted(self, *_: object) -> None:
        if not self._lines:
            raise KeyboardInterrupt
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            frame.f_trace = self._trace
            frame = frame.f_back
        sys.settrace(self._trace)

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if Path(frame.f_code.co_filename).parent != Path(failures.__file__).parent:
            return None
        self._lines -= event == "line"
        if self._lines > 0:
            return self._trace
        sys.settrace(None)
        raise KeyboardInterrupt


def test_a_servers_load_is_that_of_measured_steps_and_not_of_what_comes_after_them() -> None:
    def script(node: Played) -> None:
        node.greet()
        node.hear(Start)
        load = FromTask("r", "ps", 0, ServerLoad(9.0, 1.0))
        node.say(FromTask("r", "worker", 0, steps(0, 1, False)))
        node.say(load)
        node.say(FromTask("r", "worker", 0, Ready()))
        node.hear(Go)
        node.say(FromTask("r", "worker", 0, steps(1, 1, True)))
        node.say(FromTask("r", "ps", 0, ServerLoad(0.5, 1.0)))
        node.say(FromTask("r", "worker", 0, steps(2, 1, True)))
        node.say(load)
        node.say(FromTask("r", "worker", 0, Finished(10, None, "CPU")))
        end(node)

    outcome = play(ScriptedTransport(script), nodes=NODES[:1])
    assert outcome.servers.loads == {0: (0.5, 1.0)}


@pytest.mark.parametrize("lines", [*range(40), 60, 90])
def test_a_second_interrupt_is_heard_wherever_it_comes(lines: int) -> None:
    def never_ends(node: Played) -> None:
        node.greet()
        node.hear(Start)
        node.say(FromTask("r", "worker", 0, Phase("importing TensorFlow", 0.1)))
        while node.hear() is not None:
            pass  # until the connection ends

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        play(ScriptedTransport(never_ends), observer=Impatient(lines))
    assert time.monotonic() - began < 5.0, "an agent has 20 s to end its tasks, where one waits"


class Hangs(ScriptedTransport):
    """A transport that loses a connection while it opens it, before anybody reads from it."""

    def open(self, node: Node, script: str) -> Connection:
        if node.alias == "node1":
            raise ConnectionLost(node.label, "hung up at once", "look at it")
        return super().open(node, script)


def test_a_connection_that_is_lost_while_it_opens_is_told_at_once() -> None:
    began = time.monotonic()
    with (
        Session(NODES, Hangs(good), NodeOptions("", "python3"), "s") as session,
        pytest.raises(ConnectionLost, match="hung up at once"),
    ):
        session.open(lambda node: greeting(Options("deepmnist"), node, "s"), Quiet())
    assert time.monotonic() - began < 5


def test_a_good_run_has_all_steps_of_all_workers_and_their_logs() -> None:
    logs: dict[str, bytes] = {}
    outcome = play(ScriptedTransport(good), logs)
    assert sorted((r.worker, r.step, r.phase) for r in outcome.records) == [
        (worker, step, "warmup" if step == 0 else "measured")
        for worker in (0, 1)
        for step in (0, 1, 2)
    ]
    assert {record.node for record in outcome.records} == {"node0", "node1"}
    assert logs == {"worker-0": b"hello\n"}, "node1 may write no log of node0's worker"


def test_what_a_login_shell_prints_is_passed_over() -> None:
    def chatty(node: Played) -> None:
        node.write(b"Welcome to node0!\n\x1b[31mThe disk is full.\n{not json}")
        good(node)

    assert len(play(ScriptedTransport(chatty)).finished) == 2


def opening_error(transport: ScriptedTransport) -> Exception:
    with pytest.raises((NodeError, NodesFailed)) as caught:
        play(transport)
    return caught.value


def test_all_nodes_failures_are_reported_together() -> None:
    def broken(node: Played) -> None:
        node.leave(81, b"perftest: cannot make the directory /x\n")

    error = opening_error(ScriptedTransport(broken))
    assert isinstance(error, NodesFailed)
    assert [failure.node for failure in error.failures] == [
        "node0 (nodes, line 1)",
        "node1 (nodes, line 2)",
    ]
    assert all(isinstance(failure, RemoteDirectoryError) for failure in error.failures)


def greets_with(hello: Hello) -> Script:
    """A node that greets so and then does as it is told."""

    def script(node: Played) -> None:
        node.greet(hello)
        node.hear(Stop)
        node.leave(0)

    return script


NOT_READY: dict[str, tuple[Script, type[NodeError], str]] = {
    "no TensorFlow": (
        greets_with(
            dataclasses.replace(HELLO, versions=dataclasses.replace(HELLO.versions, tensorflow=""))
        ),
        TensorFlowMissing,
        "/usr/bin/python3 has no TensorFlow",
    ),
    "old Python": (
        lambda node: node.leave(
            76, b"perftest: Python 3.10 or newer is needed, and python3 is Python 3.8\n"
        ),
        PythonMissing,
        "Python 3.10 or newer is needed, and python3 is Python 3.8",
    ),
    "another protocol": (
        greets_with(dataclasses.replace(HELLO, version=99)),
        ProtocolError,
        "speaks version 99",
    ),
    "a crash": (
        lambda node: node.leave(1, b"Traceback\nImportError: \x1b[31mno module\n"),
        ShellError,
        "ended (status 1) before it started the program: ImportError: [31mno module",
    ),
    "a lost link": (lambda node: node.leave(-1), ConnectionLost, "was lost"),
    "an interpreter that crashes": (
        lambda node: (node.write(b"\nperftest-script\n"), node.leave(-6, b"Aborted\n")),
        PythonMissing,
        "python3 did not start the agent (signal 6): Aborted",
    ),
    "endless noise": (
        lambda node: node.write(b"x" * (2 << 20)),
        ShellError,
        "over 1 MiB of text came before",
    ),
    "garbage": (
        lambda node: node.write(HEAD + b"\x1b]0;owned\x07 not json\n"),
        ProtocolError,
        "not a message",
    ),
}


@pytest.mark.parametrize("case", NOT_READY.values(), ids=NOT_READY.keys())
def test_a_node_that_cannot_be_used_is_named_with_the_reason(
    case: tuple[Script, type[NodeError], str],
) -> None:
    script, kind, says = case
    error = opening_error(ScriptedTransport(good, node1=script))
    assert isinstance(error, kind)
    assert str(error).startswith("node1 (nodes, line 2): ")
    assert says in " ".join(str(error).split())
    assert str(error).isprintable()


def failure(script: Script, other: Script = good) -> NodeError:
    with pytest.raises(NodeError) as caught:
        play(ScriptedTransport(other, node1=script))
    return caught.value


def test_a_killed_task_is_named_with_role_index_and_signal() -> None:
    error = failure(
        starting_then(lambda node: node.say(Exited("r", "worker", 1, None, 9, ("last",))))
    )
    assert isinstance(error, TaskFailed)
    assert error.reason.startswith("worker 1 ended with signal 9 in the middle of the run")
    assert error.log_tail == ("last",)


def test_the_cause_is_reported_and_not_its_echo() -> None:
    def say(node: Played) -> None:
        node.say(FromTask("r", "worker", 1, Failed("UnavailableError: Socket closed")))
        time.sleep(0.3)
        node.say(Exited("r", "ps", 1, None, 9, ()))

    assert "ps 1 ended with signal 9" in str(failure(starting_then(say)))


def test_a_link_that_is_given_up_seconds_later_explains_what_a_worker_says() -> None:
    def say(node: Played) -> None:
        node.say(FromTask("r", "worker", 1, Failed("UnavailableError: Socket closed")))
        node.say(Exited("r", "worker", 1, 1, None, ()))

    def cut(node: Played) -> None:
        node.greet()
        node.hear(Start)
        time.sleep(2.0)  # what TCP takes to give up a silent link, if far less
        node.leave(-1)

    error = failure(starting_then(say), cut)
    assert str(error).startswith(
        "node0 (nodes, line 1): the connection to the agent was lost; ps 0,"
    )


def test_an_echo_that_nothing_explains_is_told_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(failures._PATIENCE_SECONDS, failures.ECHO, 0.5)
    text = Failed("UnavailableError: Socket closed")
    error = failure(starting_then(lambda node: node.say(FromTask("r", "worker", 1, text))))
    assert error.reason.startswith("worker 1 lost its connection to another task: Unavailable")
    assert "reach each other at host0:2222, host1:2223" in error.mend


@pytest.mark.parametrize(
    "what",
    [
        FromTask("r", "worker", 1, Failed("ResourceExhaustedError: OOM when allocating tensor")),
        FromTask("r", "worker", 1, Failed("MemoryError")),
        Exited("r", "worker", 1, None, 6, ("what(): std::bad_alloc",)),
        Exited("r", "worker", 1, None, 9, ()),
    ],
)
def test_what_is_or_may_be_want_of_memory_is_called_that(what: object) -> None:
    error = failure(starting_then(lambda node: node.say(what)))
    assert "out of memory)" in error.reason
    assert "a smaller batch than -b 32" in error.mend


@pytest.mark.parametrize(
    ("is_evaluation", "words"),
    [
        (False, "a smaller train_batch_size: each worker has 32 images a step"),
        (True, "a smaller test_batch_size than 8"),
    ],
)
def test_a_training_that_wants_memory_is_told_the_key_of_its_batch(
    is_evaluation: bool, words: str
) -> None:
    training = Training(1, 1, 1, 0, 8, "/out", False, False, is_evaluation, "")
    script = starting_then(lambda node: node.say(Exited("r", "worker", 1, None, 9, ())))
    with pytest.raises(NodeError) as caught:
        play(ScriptedTransport(good, node1=script), training=training)
    assert words in caught.value.mend


def test_a_stopped_task_is_named_when_another_does_not_get_on() -> None:
    def script(node: Played) -> None:
        node.say(Paused("r", "ps", 1, 77, True))
        node.say(Paused("r", "worker", 1, 78, True))
        node.say(Paused("r", "worker", 1, 78, False))

    with pytest.raises(TaskFailed) as caught:
        play(ScriptedTransport(good, node1=starting_then(script)), stall_seconds=0.5)
    assert caught.value.reason.startswith("ps 1 is stopped (SIGSTOP, or a debugger), and worker 1")
    assert "on node1, `kill -CONT 77`" in caught.value.mend


def test_a_node_that_is_lost_while_a_good_run_is_ended_is_a_problem_and_no_failure() -> None:
    def script(node: Played) -> None:
        node.greet()
        node.hear(Start)
        node.say(FromTask("r", "worker", 1, steps(0, 1, False)))
        node.say(FromTask("r", "worker", 1, Ready()))
        node.hear(Go)
        node.say(FromTask("r", "worker", 1, steps(1, 2, True)))
        node.say(FromTask("r", "worker", 1, Finished(10, None, "CPU")))
        node.hear(Finish)
        node.leave(-1)

    outcome = play(ScriptedTransport(good, node1=script))
    assert len(outcome.finished) == 2
    (problem,) = outcome.problems
    assert problem.startswith("node1 (nodes, line 2): the connection to the agent was lost")


def test_a_task_that_says_why_it_fails_is_believed() -> None:
    def say(node: Played) -> None:
        node.say(FromTask("r", "worker", 1, Failed("ValueError: no such thing \x1b[2J")))
        node.say(Exited("r", "worker", 1, 1, None, ()))

    error = failure(starting_then(say))
    assert "worker 1 failed: ValueError: no such thing" in str(error)
    assert str(error).isprintable()


def test_an_agent_that_vanishes_ends_the_run() -> None:
    error = failure(starting_then(lambda node: node.leave(-1)))
    assert isinstance(error, ConnectionLost)


def test_an_agent_that_cannot_start_its_tasks_ends_the_run() -> None:
    error = failure(starting_then(lambda node: node.say(AgentFailed("no space left"))))
    assert "no space left" in str(error)


def test_steps_that_leave_a_gap_are_refused() -> None:
    error = failure(
        starting_then(lambda node: node.say(FromTask("r", "worker", 1, steps(5, 1, False))))
    )
    assert "do not follow on each other" in str(error)


def test_a_node_cannot_speak_for_another() -> None:
    def script(node: Played) -> None:
        node.greet()
        node.hear(Start)
        node.say(FromTask("r", "worker", 0, Failed("I am worker 0")))
        node.say(FromTask("other", "worker", 1, Failed("of another run")))
        node.say(Log("r", "../../etc/cron.d/x", 1, "owned", 0))
        node.say(FromTask("r", "worker", 1, steps(0, 1, False)))
        node.say(FromTask("r", "worker", 1, Ready()))
        node.hear(Go)
        node.say(FromTask("r", "worker", 1, steps(1, 2, True)))
        node.say(FromTask("r", "worker", 1, Finished(10, None, "CPU")))
        end(node)

    logs: dict[str, bytes] = {}
    outcome = play(ScriptedTransport(good, node1=script), logs)
    assert len(outcome.finished) == 2
    assert list(logs) == ["worker-0"]


def test_a_run_in_which_nothing_moves_is_ended_with_the_worker_that_is_behind() -> None:
    def script(node: Played) -> None:
        node.greet()
        node.hear(Start)
        node.say(FromTask("r", "worker", 1, Phase("waiting for the parameter servers", 1.0)))
        end(node)

    with pytest.raises(TaskFailed) as caught:
        play(ScriptedTransport(good, node1=script), stall_seconds=1.0)
    text = str(caught.value)
    assert text.startswith("node1 (nodes, line 2): worker 1 has not got on for 2 s (")
    assert "waiting for the parameter servers, 0 steps done" in text
    assert "host0:2222, host1:2223, host0:2230, host1:2231" in text


def test_an_agent_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(protocol, "HEARTBEAT_LIMIT_SECONDS", 0.5)

    def beating(node: Played) -> None:
        node.greet()
        for _ in range(20):
            node.say(Heartbeat())
            time.sleep(0.1)
        node.leave(0)

    def silent(node: Played) -> None:
        node.greet()
        node.hear(Stop)

    error = failure(silent, beating)
    assert isinstance(error, ConnectionLost)
    assert str(error).startswith("node1 (nodes, line 2): the agent has not been heard of for")


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (steps(0, 2, False), "were not asked for"),
        (steps(0, 1, True), "were not asked for"),
        (StepTimes(0, False, (0.0,), (None,), (1.0,), (1,)), "took no time"),
        (StepTimes(0, False, (), (), (), ()), "took no time"),
        (TracePiece("AAEC", True), "sent a piece of a trace that nobody has asked for"),
        (StepTimes(0, False, (1.0, 1.0), (1.0,), (1.0,), (1,)), "do not follow on each other"),
        (Finished(1, None, "CPU"), "has finished after 0 steps of 3"),
    ],
)
def test_steps_that_no_honest_worker_sends_are_refused(message: object, says: str) -> None:
    error = failure(starting_then(lambda node: node.say(FromTask("r", "worker", 1, message))))
    assert isinstance(error, ProtocolError)
    assert says in str(error)


def test_the_first_step_may_take_longer_whatever_it_is_called() -> None:
    now = [0.0]
    hellos = [dataclasses.replace(HELLO)] * 2
    asked = Options(model="deepmnist", warmup_steps=0, measured_steps=2, stall_seconds=60.0)
    watch = StallWatch(make_plan(asked, NODES, hellos), clock=lambda: now[0])
    for worker in (0, 1):
        watch.phase(worker, "measuring")
    now[0] = 299.0
    assert watch.find(set()) is None
    watch.steps(0, 1, 4.0)
    now[0] = 301.0
    found = watch.find(set())
    assert found is not None
    assert found[1] == "worker 1 has not got on for 300 s (measuring, 0 steps done)"
    assert watch.find({1}) is None
    now[0] = 360.0
    assert watch.find({1}) is not None, "after its first step the limit is 60 s again"


def test_a_task_that_is_stopped_for_the_limit_ends_the_run_whatever_it_is_at() -> None:
    now = [0.0]
    asked = Options(model="deepmnist", stall_seconds=60.0)
    watch = StallWatch(make_plan(asked, NODES, [HELLO] * 2), clock=lambda: now[0])
    for worker, at in ((0, 10.0), (1, 20.0)):
        now[0] = at
        watch.phase(worker, "importing TensorFlow")
    watch.paused("worker", 1, True)
    now[0] = 70.0
    watch.paused("worker", 1, True)  # which says nothing new
    assert watch.find_paused(set()) is None
    now[0] = 81.0
    assert watch.find(set()) is None, "for an import this is no long time"
    found = watch.find_paused(set())
    assert found is not None
    assert found[1] == "worker 1 has not got on for 61 s (importing TensorFlow, 0 steps done)"
    assert watch.find_paused({1}) is None, "it has finished"
    watch.paused("worker", 1, False)
    assert watch.find_paused(set()) is None
    watch.paused("ps", 0, True)
    now[0] = 142.0
    found = watch.find_paused({0})
    assert found is not None
    assert found[1].startswith("worker 1 has not got on for 122 s")


def test_an_endless_log_is_cut() -> None:
    def script(node: Played) -> None:
        node.greet()
        node.hear(Start)
        node.say(FromTask("r", "worker", 1, Failed("x")))
        node.hear(Finish)
        for _ in range(40):
            node.say(Log("r", "worker", 1, "x" * (1 << 20), 0))
        node.say(RunEnded("r", ()))
        node.hear(Stop)
        node.leave(0)

    logs: dict[str, bytes] = {}
    with pytest.raises(TaskFailed):
        play(ScriptedTransport(good, node1=script), logs)
    assert len(logs["worker-1"]) == 24 << 20


def test_a_log_that_cannot_be_written_does_not_end_a_good_run() -> None:
    outcome = play(ScriptedTransport(good), log=full_disk)
    assert len(outcome.finished) == 2
    assert outcome.problems == ["cannot write x: no space. Try: free some space"]


def full_disk(name: str, data: bytes) -> None:
    raise ResultsError("cannot write x: no space", "free some space")


def test_closing_does_not_wait_for_nodes_that_were_never_reached() -> None:
    began = time.monotonic()
    with (
        Session(NODES, ScriptedTransport(good), NodeOptions("a\nb", "python3"), "s") as session,
        pytest.raises(UsageError),
    ):
        session.open(lambda node: greeting(Options("deepmnist"), node, "s"), Quiet())
    assert time.monotonic() - began < 1.0


def test_go_comes_only_when_all_workers_are_ready() -> None:
    heard: list[float] = []

    def late(node: Played) -> None:
        time.sleep(0.5)
        heard.append(time.monotonic())
        good(node)

    def early(node: Played) -> None:
        node.greet()
        node.hear(Start)
        node.say(FromTask("r", "worker", 0, steps(0, 1, False)))
        node.say(FromTask("r", "worker", 0, Ready()))
        node.hear(Go)
        heard.append(time.monotonic())
        node.say(FromTask("r", "worker", 0, steps(1, 2, True)))
        node.say(FromTask("r", "worker", 0, Finished(10, None, "CPU")))
        end(node)

    play(ScriptedTransport(early, node1=late))
    assert heard == sorted(heard)
    assert len(heard) == 2

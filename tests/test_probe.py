"""Agents that listen on ports and try each other's; strangers, liars, and what is left behind."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from agents import AgentProcess
from scripted import Played, ScriptedTransport
from test_strategies import Quiet

from launcher.nodes import Node
from launcher.pairs import NO_ANSWER, NOT_LISTENING
from launcher.plan import greeting
from launcher.reachability import PairResult, Target, probe
from launcher.session import NodeOptions, Session
from launcher.tasks import Options
from perftest import protocol
from perftest.protocol import (
    REACHED,
    STRANGER,
    ClockQuery,
    ClockReading,
    EndProbe,
    Listen,
    Listening,
    MessageError,
    PortProblem,
    Probe,
    Probed,
    ProbeResult,
    ProbeTarget,
    Stop,
)

SECRET, OTHER = "0f" * 16, "f0" * 16
PORT = 23480
HERE = ProbeTarget("127.0.0.1", PORT, SECRET)


def listen(agent: AgentProcess, seconds: float = 30.0, secret: str = SECRET) -> Listening:
    agent.send(Listen("p", secret, (PORT,), seconds))
    answer = agent.next(Listening)
    assert isinstance(answer, Listening)
    return answer


def tried(agent: AgentProcess, *targets: ProbeTarget, seconds: float = 5.0) -> list[ProbeResult]:
    agent.send(Probe("p", targets, seconds, 0))
    return list(agent.next(Probed, seconds=2 * seconds + 5.0).results)


def may_be_listened_on(port: int) -> bool:
    """Whether a server may have the port that does not even say that it would share it."""
    with socket.socket() as server:
        try:
            server.bind(("", port))
        except OSError:
            return False
        return True


# --- agents ----------------------------------------------------------------------------------


def test_a_port_is_free_for_anybody_as_soon_as_the_probe_is_over(tmp_path: Path) -> None:
    with AgentProcess(tmp_path / "a") as one, AgentProcess(tmp_path / "b") as other:
        assert listen(one).problems == ()
        assert not may_be_listened_on(PORT)
        assert [result.outcome for result in tried(other, HERE, HERE)] == [REACHED, REACHED]
        one.send(EndProbe("p"))
        one.greet()  # by when it has done the other
        assert may_be_listened_on(PORT), "no connection may linger on the port"


def test_a_listener_that_is_forgotten_ends_by_itself(tmp_path: Path) -> None:
    with AgentProcess(tmp_path) as agent:
        listen(agent, seconds=0.5)
        deadline = time.monotonic() + 5.0
        while not may_be_listened_on(PORT):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_tasks_find_the_ports_free_even_if_no_end_was_said(tmp_path: Path) -> None:
    task = (
        "import socket\n"
        f"s = socket.socket(); s.bind(('', {PORT}))\n"
        "say(protocol.Ready()); time.sleep(60)\n"
    )
    with AgentProcess(tmp_path, task) as agent:
        listen(agent)
        agent.start()
        assert agent.next(protocol.FromTask).message == protocol.Ready()


def test_whoever_does_not_know_the_secret_is_told_nothing_by_the_listener(tmp_path: Path) -> None:
    with AgentProcess(tmp_path) as agent:
        listen(agent)
        for said in (b"GET / HTTP/1.0\r\n\r\n" + b"x" * 100, b"\0" * 32):
            with socket.create_connection(("127.0.0.1", PORT), timeout=5.0) as link:
                link.sendall(said)
                with suppress(ConnectionResetError):
                    assert link.recv(100) == b""
        with socket.create_connection(("127.0.0.1", PORT), timeout=5.0) as link:
            link.sendall(b"runtest-probe 1\n" + b"n" * 16)
            assert len(link.recv(100)) == 48
            link.sendall(b"wrong proof".ljust(32))
            with pytest.raises(ConnectionResetError):
                link.recv(100)


def test_silent_strangers_cannot_keep_the_listener_from_a_caller(tmp_path: Path) -> None:
    with (
        AgentProcess(tmp_path / "a") as one,
        AgentProcess(tmp_path / "b") as other,
        ExitStack() as idle,
    ):
        listen(one)
        for _ in range(300):  # more than it talks to at once
            idle.enter_context(socket.create_connection(("127.0.0.1", PORT), timeout=5.0))
        (result,) = tried(other, HERE, seconds=10.0)
        assert result.outcome == REACHED
        files = len(list(Path(f"/proc/{one.process.pid}/fd").iterdir()))
        assert files < 300, "strangers must not use up its files"


def test_an_agent_with_another_secret_is_told_from_the_right_one(tmp_path: Path) -> None:
    with AgentProcess(tmp_path / "a") as one, AgentProcess(tmp_path / "b") as other:
        listen(one, secret=OTHER)
        first, second = tried(other, HERE, ProbeTarget("127.0.0.1", PORT, OTHER))
        assert (first.outcome, second.outcome) == (STRANGER, REACHED)
        assert first.detail == "the agent of another node of this test answered"


def test_an_agent_goes_on_with_its_work_while_a_probe_waits(tmp_path: Path) -> None:
    # A host name that takes long to be looked up, and a server that takes calls and says nothing.
    slow = (
        "import socket, sys, time\n"
        "look_up = socket.getaddrinfo\n"
        "def slow(host, *rest, flags=0, **more):\n"
        "    if host == 'slow' and not flags: time.sleep(60)\n"
        "    return look_up(host, *rest, flags=flags, **more)\n"
        "socket.getaddrinfo = slow\n"
        "from perftest import agent; sys.exit(agent.main())"
    )
    with (
        AgentProcess(tmp_path, agent=slow) as agent,
        socket.create_server(("127.0.0.1", PORT + 1)),
    ):
        targets = (ProbeTarget("slow", PORT, SECRET), ProbeTarget("127.0.0.1", PORT + 1, SECRET))
        began = time.monotonic()
        agent.send(Probe("p", targets, 2.0, 0))
        agent.send(ClockQuery(1.0))
        agent.next(ClockReading)
        assert time.monotonic() - began < 1.0
        named, silent = agent.next(Probed, seconds=5.0).results
        assert 1.9 < time.monotonic() - began < 4.0
        assert (named.outcome, named.detail) == ("name unknown", "the look-up took too long")
        assert silent.outcome == STRANGER
        assert "says nothing" in silent.detail
        agent.send(Stop())
        assert agent.process.wait(timeout=5.0) == 0


@pytest.mark.parametrize("host", ["", " ", "a" * 300, "a\0b", "\ud800", "-x", "1.2.3.4.5", "[::1]"])
def test_what_is_no_host_name_is_an_outcome_and_no_end_of_the_agent(
    tmp_path: Path, host: str
) -> None:
    with AgentProcess(tmp_path) as agent:
        (result,) = tried(agent, ProbeTarget(host, PORT, SECRET), seconds=2.0)
        assert result.outcome != REACHED
        agent.greet()


# --- messages --------------------------------------------------------------------------------

LISTEN = {"type": "listen", "probe": "p", "secret": SECRET, "ports": [1], "seconds": 1.0}
PROBE = {"type": "probe", "probe": "p", "targets": [], "seconds": 1.0, "transfer_bytes": 0}
TARGET = {"host": "h", "port": 1, "secret": SECRET}
RESULT = {"outcome": REACHED, "latency_seconds": 1.0, "bytes_per_second": 1.0, "detail": ""}
HOSTILE = {
    "a port below all": {**LISTEN, "ports": [-1]},
    "a port above all": {**LISTEN, "ports": [65536]},
    "too many ports": {**LISTEN, "ports": [1] * 513},
    "a secret that is none": {**LISTEN, "secret": "../../etc/passwd"},
    "a negative time": {**LISTEN, "seconds": -1.0},
    "a time of a week": {**PROBE, "seconds": 6e5},
    "a transfer of all there is": {**PROBE, "transfer_bytes": 1 << 40},
    "a million targets": {**PROBE, "targets": [TARGET] * (1 << 18)},
    "a long name": {**PROBE, "targets": [{**TARGET, "host": "x" * 1000}]},
    "port nought": {**PROBE, "targets": [{**TARGET, "port": 0}]},
    "an outcome of its own": {
        "type": "probed",
        "probe": "p",
        "results": [{**RESULT, "outcome": "x"}],
    },
    "a negative latency": {
        **{"type": "probed", "probe": "p"},
        "results": [{**RESULT, "latency_seconds": -1.0}],
    },
    "a page of detail": {
        **{"type": "probed", "probe": "p"},
        "results": [{**RESULT, "detail": "x" * 1000}],
    },
    "a problem with no port": {
        **{"type": "listening", "probe": "p"},
        "problems": [{"port": 70000, "reason": ""}],
    },
}


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_no_honest_sender_says_is_refused(value: dict[str, object]) -> None:
    with pytest.raises(MessageError) as caught:
        protocol.decode(json.dumps(value).encode())
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_and_cannot_be_made_either() -> None:
    for port, seconds in ((0, 1.0), (1, float("nan")), (1, float("inf"))):
        with pytest.raises(MessageError):
            Listen("p", SECRET, (port,), seconds)


# --- nodes that lie --------------------------------------------------------------------------

NODES = [Node(f"host{i}", f"node{i}", f"nodes, line {i + 1}") for i in range(2)]
FINE = ProbeResult(REACHED, 0.001, None, "")


def lying(answer: Callable[[Played, object], None]) -> Callable[[Played], None]:
    """A node that answers so to whatever a probe asks of it."""

    def script(node: Played) -> None:
        node.greet()
        while (asked := node.hear(Listen, Probe, Stop)) is not None:
            if isinstance(asked, Stop):
                break
            answer(node, asked)
        node.leave(0)

    return script


def honest(node: Played, asked: object) -> None:
    if isinstance(asked, Listen):
        node.say(Listening(asked.probe, ()))
    elif isinstance(asked, Probe):
        node.say(Probed(asked.probe, (FINE,) * len(asked.targets)))


def too_many(node: Played, asked: object) -> None:
    if isinstance(asked, Probe):
        node.say(Probed(asked.probe, (FINE,) * 1000))
    else:
        honest(node, asked)


def another_probe(node: Played, asked: object) -> None:
    if isinstance(asked, Probe):
        node.say(Probed("another", (FINE,) * len(asked.targets)))
    else:
        honest(node, asked)


def nothing(node: Played, asked: object) -> None:
    pass


def garbage(node: Played, asked: object) -> None:
    node.write(b'{"type": "probed", "probe": "p", "results": [{"outcome": "\x1b[2J"}]}\n')


def all_ports_of_all(node: Played, asked: object) -> None:
    if isinstance(asked, Listen):
        others = tuple(PortProblem(port, "\x1b]0;owned\x07") for port in range(1, 500))
        node.say(Listening(asked.probe, others))
    else:
        honest(node, asked)


def of_both(script: Callable[[Played, object], None]) -> list[PairResult]:
    """What is known when node1 lies so."""
    transport = ScriptedTransport(lying(honest), node1=lying(script))
    targets = [Target(0, "host0", 2222), Target(1, "host1", 2222)]
    asked = Options(model="deepmnist")
    with Session(NODES, transport, NodeOptions("", "python3"), "s") as session:
        session.open(lambda node: greeting(asked, node, "s"), Quiet())
        return probe(session, {0: targets, 1: targets}, seconds=0.2)


@pytest.mark.parametrize(
    ("lie", "outcomes"),
    [
        (honest, [REACHED] * 4),
        (too_many, [REACHED, REACHED, NO_ANSWER, NO_ANSWER]),
        (another_probe, [REACHED, REACHED, NO_ANSWER, NO_ANSWER]),
        (garbage, [REACHED, NOT_LISTENING, NO_ANSWER, NOT_LISTENING]),
        (all_ports_of_all, [REACHED] * 4),
    ],
)
def test_a_node_that_lies_spoils_its_own_results_alone(
    lie: Callable[[Played, object], None], outcomes: list[str]
) -> None:
    results = of_both(lie)
    assert [(result.source, result.target.node) for result in results] == [
        *((0, 0), (0, 1), (1, 0), (1, 1))
    ]
    assert [result.outcome for result in results] == outcomes
    assert all(result.detail.isprintable() for result in results)


def test_a_node_that_says_nothing_is_named_in_bounded_time() -> None:
    began = time.monotonic()
    results = of_both(nothing)
    assert time.monotonic() - began < 15.0
    assert [result.outcome for result in results] == [
        *(REACHED, NOT_LISTENING, NO_ANSWER, NOT_LISTENING)
    ]
    assert "does not answer" in results[1].detail

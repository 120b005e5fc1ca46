"""Nobody on the way to the first step looks less often than every 0.1 s for what it waits for."""

from __future__ import annotations

import ast
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from agents import AgentProcess
from imports import Sources, parse, read_sources

from perftest.protocol import (
    REACHED,
    EndProbe,
    Exited,
    Finish,
    Listen,
    Listening,
    Probe,
    Probed,
    ProbeTarget,
    RunEnded,
)

MOST_SECONDS = 0.1
# What else sleeps, and keeps nobody waiting.
NOBODY_WAITS = {
    "launcher/transports/ssh.py: sleep(pause)",  # for an sshd that has said that it is overloaded
    "perftest/serving.py: sleep(_REPORT_SECONDS)",  # between words about its load
    "perftest/task.py: sleep(3600)",  # until the agent ends it
}


def long_sleeps(sources: Sources) -> Iterator[str]:
    """All sleeps and polls that take longer, or for as long as no constant of their module says."""
    for file, text in sources.items():
        tree = parse(text)
        seconds = {ast.unparse(key): value for key, value in _constants(tree)}
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            name = ast.unparse(call.func).rpartition(".")[2]
            if name in ("sleep", "serve_forever"):
                words = ", ".join(map(ast.unparse, call.args))
                known = seconds.get(words, call.args[0] if call.args else None)
                value = known.value if isinstance(known, ast.Constant) else None
                if not isinstance(value, int | float) or value > MOST_SECONDS:
                    yield f"{file}: {name}({words})"


def _constants(tree: ast.Module) -> Iterator[tuple[ast.expr, ast.expr]]:
    for node in tree.body:
        if isinstance(node, ast.Assign):
            yield node.targets[0], node.value


def test_no_loop_sleeps_longer_than_a_tenth_of_a_second_between_two_looks() -> None:
    assert set(long_sleeps(read_sources())) == NOBODY_WAITS


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ("_A = 0.1\ntime.sleep(_A)\nserver.serve_forever(0.05)", []),
        ("_A = 0.5\ntime.sleep(_A)", ["x.py: sleep(_A)"]),
        ("def f(a: float) -> None:\n    sleep(min(a, 0.1))", ["x.py: sleep(min(a, 0.1))"]),
        ("server.serve_forever()", ["x.py: serve_forever()"]),
    ],
)
def test_a_longer_sleep_would_be_found(planted: str, found: list[str]) -> None:
    assert list(long_sleeps({"x.py": planted})) == found


# An agent that looks by itself every minute, where names take a while to be looked up; and a task
# that ends after its last word.
RARE = """
import socket, sys, time
from perftest import agent
look_up = socket.getaddrinfo
def slow(*names, flags=0, **more):
    if not flags:
        time.sleep(0.2)
    return look_up(*names, flags=flags, **more)
socket.getaddrinfo = slow
agent._POLL_SECONDS = 60.0
sys.exit(agent.main())
"""
LINGERS = "os.close(messages); time.sleep(0.2)"


def test_an_agent_waits_for_what_happens_and_not_for_its_next_look(tmp_path: Path) -> None:
    """Each answer may take 10 s."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with AgentProcess(tmp_path, LINGERS, agent=RARE) as agent:
        agent.greet()
        agent.send(Listen("p", "0f" * 16, (port,), 30.0))
        assert agent.next(Listening).problems == ()
        agent.send(Probe("p", (ProbeTarget("localhost", port, "0f" * 16),), 5.0, 0))
        assert [each.outcome for each in agent.next(Probed).results] == [REACHED]
        agent.send(EndProbe("p"))
        agent.start()
        assert agent.next(Exited).exit_code == 0
        agent.send(Finish("r1"))
        assert agent.next(RunEnded).problems == ()

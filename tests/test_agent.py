"""The agent: what it starts it ends, whoever goes away first, and it never waits for anybody."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from agents import JOB, AgentProcess, alive, wait_until_gone

from perftest import protocol
from perftest.protocol import (
    AgentFailed,
    Exited,
    Failed,
    Finish,
    FromTask,
    Go,
    Heartbeat,
    Log,
    Paused,
    Phase,
    Place,
    PortRequest,
    Ready,
    RunEnded,
    Start,
    Stop,
)

# A task that says its process id as the name of a phase, and stays.
STAYS = "say(protocol.Phase(str(os.getpid()), 0.0))\nwhile True: time.sleep(60)\n"
IGNORES_TERM = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + STAYS
HAS_A_CHILD = """
child = subprocess.Popen(["sleep", "600"])
say(protocol.Phase(str(child.pid), 0.0))
while True: time.sleep(60)
"""


def pids_said(agent: AgentProcess, count: int) -> list[int]:
    """The process ids that `count` tasks said."""
    return [int(agent.next(FromTask).message.name) for _ in range(count)]


def test_agent_says_its_marker_line_before_anything_else(tmp_path: Path) -> None:
    with AgentProcess(tmp_path) as agent:
        hello = agent.greet()
        assert agent.banner == protocol.MARKER.encode()
        assert hello.executable == sys.executable
        assert hello.cpus == tuple(sorted(os.sched_getaffinity(0)))


def test_agent_ends_its_tasks_when_its_input_ends(tmp_path: Path) -> None:
    with AgentProcess(tmp_path, STAYS) as agent:
        agent.start(workers=3)
        pids = pids_said(agent, 3)
        agent.close_input()
        assert wait_until_gone(pids, 2.0) == []
        assert agent.process.wait(timeout=2.0) == 1


def test_agent_stops_in_order_when_told_to(tmp_path: Path) -> None:
    with AgentProcess(tmp_path, STAYS) as agent:
        agent.start()
        pids = pids_said(agent, 1)
        agent.send(Stop())
        assert agent.process.wait(timeout=5.0) == 0
        assert not alive(pids[0])
        assert not agent.directory.exists()


def test_agent_removes_no_directory_that_is_not_its_payload(tmp_path: Path) -> None:
    with AgentProcess(tmp_path) as agent:
        agent.greet()
        (agent.directory / ".perftest-session").unlink()
        agent.send(Stop())
        assert agent.process.wait(timeout=5.0) == 0
        assert (agent.directory / "perftest" / "agent.py").exists()


def test_tasks_do_not_survive_kill_9_of_their_agent(tmp_path: Path) -> None:
    with AgentProcess(tmp_path, IGNORES_TERM) as agent:
        agent.start(workers=2)
        pids = pids_said(agent, 2)
        agent.process.kill()
        assert wait_until_gone(pids, 2.0) == []


def test_agent_stops_when_no_heartbeat_comes(tmp_path: Path) -> None:
    short = (
        "import sys; from perftest import protocol; protocol.HEARTBEAT_LIMIT_SECONDS = 1.0; "
        "from perftest import agent; sys.exit(agent.main())"
    )
    with AgentProcess(tmp_path, STAYS, agent=short) as agent:
        agent.start()
        pids = pids_said(agent, 1)
        for _ in range(4):  # heartbeats keep it alive past the limit
            time.sleep(0.5)
            agent.send(Heartbeat())
        assert agent.process.poll() is None
        assert agent.process.wait(timeout=5.0) == 1
        assert not alive(pids[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_agent_ends_its_tasks(tmp_path: Path, number: signal.Signals) -> None:
    with AgentProcess(tmp_path, STAYS) as agent:
        agent.start()
        pids = pids_said(agent, 1)
        agent.process.send_signal(number)
        assert agent.process.wait(timeout=5.0) == 1
        assert not alive(pids[0])


def test_a_task_that_ignores_term_is_killed_after_five_seconds(tmp_path: Path) -> None:
    with AgentProcess(tmp_path, IGNORES_TERM) as agent:
        agent.start()
        pids = pids_said(agent, 1)
        began = time.monotonic()
        agent.send(Finish("r1"))
        ended = agent.next(RunEnded, seconds=12.0)
        assert 4.5 < time.monotonic() - began < 8.0
        assert ended.problems == ()
        assert not alive(pids[0])


def test_a_stopped_task_is_ended_too(tmp_path: Path) -> None:
    with AgentProcess(tmp_path, STAYS) as agent:
        agent.start()
        pids = pids_said(agent, 1)
        os.kill(pids[0], signal.SIGSTOP)
        agent.send(Finish("r1"))
        assert agent.next(RunEnded, seconds=3.0).problems == ()
        assert not alive(pids[0])


def test_a_task_that_is_stopped_and_goes_on_is_told(tmp_path: Path) -> None:
    with AgentProcess(tmp_path, STAYS) as agent:
        agent.start()
        pid = pids_said(agent, 1)[0]
        for number, stopped in ((signal.SIGSTOP, True), (signal.SIGCONT, False)):
            os.kill(pid, number)
            assert agent.next(Paused, seconds=3.0) == Paused("r1", "worker", 0, pid, stopped)


@pytest.mark.parametrize(("onednn", "says"), [(True, "1"), (False, "0")])
def test_a_task_is_told_whether_to_use_onednn_whatever_its_node_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, onednn: bool, says: str
) -> None:
    name = "TF_ENABLE_ONEDNN_OPTS"
    tells = f"say(protocol.Phase(os.environ.get({name!r}, 'nothing'), 0.0))\n"
    monkeypatch.setenv(name, "0" if onednn else "1")
    with AgentProcess(tmp_path, tells) as agent:
        place = Place("worker", 0, (), None)
        agent.send(Start("r1", replace(JOB, onednn=onednn), (place,)))
        assert agent.next(FromTask).message == Phase(says, 0.0)


def test_what_a_task_started_is_ended_with_it(tmp_path: Path) -> None:
    with AgentProcess(tmp_path, HAS_A_CHILD) as agent:
        agent.start()
        children = pids_said(agent, 1)
        agent.send(Finish("r1"))
        agent.next(RunEnded)
        assert not alive(children[0])


def test_a_second_run_can_follow_the_first_over_one_agent(tmp_path: Path) -> None:
    with AgentProcess(tmp_path, STAYS) as agent:
        for run_id in ("r1", "r2", "r3"):
            agent.start(run_id)
            message = agent.next(FromTask)
            assert message.run_id == run_id
            agent.send(Finish(run_id))
            assert agent.next(RunEnded).run_id == run_id
        descriptors = list(Path(f"/proc/{agent.process.pid}/fd").iterdir())
        assert len(descriptors) < 15, "an agent must not gather open files"


def test_the_end_of_a_task_is_told_with_its_code_and_its_last_lines(tmp_path: Path) -> None:
    task = "say(protocol.Ready())\nprint('one'); print('two', file=sys.stderr); sys.exit(7)\n"
    with AgentProcess(tmp_path, task) as agent:
        agent.start()
        messages = agent.messages_until(Exited)
        assert [type(m) for m in messages] == [FromTask, Exited], "its last words come first"
        exited = messages[-1]
        assert (exited.exit_code, exited.signal) == (7, None)
        assert sorted(exited.log_tail) == ["one", "two"]


def test_the_end_of_a_killed_task_names_the_signal(tmp_path: Path) -> None:
    with AgentProcess(tmp_path, STAYS) as agent:
        agent.start()
        os.kill(pids_said(agent, 1)[0], signal.SIGKILL)
        exited = agent.next(Exited, seconds=2.0)
        assert (exited.exit_code, exited.signal) == (None, 9)


def test_go_reaches_the_tasks(tmp_path: Path) -> None:
    task = (
        "say(protocol.Ready())\n"
        "go = protocol.decode(sys.stdin.buffer.readline())\n"
        "say(protocol.Phase('got ' + go.run_id, 0.0))\ntime.sleep(60)\n"
    )
    with AgentProcess(tmp_path, task) as agent:
        agent.start()
        assert agent.next(FromTask).message == Ready()
        agent.send(Go("r1"))
        assert agent.next(FromTask).message == Phase("got r1", 0.0)


def test_garbage_from_a_task_is_a_failure_of_that_task(tmp_path: Path) -> None:
    task = "os.write(messages, b'\\x1b[2J not a message\\n')\ntime.sleep(60)\n"
    with AgentProcess(tmp_path, task) as agent:
        agent.start()
        message = agent.next(FromTask).message
        assert isinstance(message, Failed)
        assert message.error.isprintable()
        agent.send(Finish("r1"))
        assert agent.next(RunEnded).problems == ()


def test_garbage_from_the_launcher_ends_the_agent_and_its_tasks(tmp_path: Path) -> None:
    with AgentProcess(tmp_path, STAYS) as agent:
        agent.start()
        pids = pids_said(agent, 1)
        agent.write(b"rm -rf /\n")
        assert "no message" in agent.next(AgentFailed).error
        assert agent.process.wait(timeout=5.0) == 1
        assert not alive(pids[0])


def test_an_agent_whose_launcher_does_not_read_still_stops(tmp_path: Path) -> None:
    flood = "while True: say(protocol.Phase('x' * 10000, 0.0))\n"
    with AgentProcess(tmp_path, flood) as agent:
        agent.start()
        time.sleep(1.5)  # by now its output pipe has long been full
        size = int(Path(f"/proc/{agent.process.pid}/statm").read_text().split()[1]) * os.sysconf(
            "SC_PAGE_SIZE"
        )
        assert size < 200 << 20, "what cannot be sent must not pile up"
        agent.close_input()
        assert agent.process.wait(timeout=15.0) == 1


def test_a_large_log_comes_home_as_its_beginning_and_its_end(tmp_path: Path) -> None:
    task = (
        "for i in range(800_000): print(f'line {i:06d}')\n"
        "sys.stdout.flush()\nsay(protocol.Ready())\ntime.sleep(60)\n"
    )
    with AgentProcess(tmp_path, task) as agent:
        agent.start()
        agent.next(FromTask)
        agent.send(Finish("r1"))
        pieces = [m for m in agent.messages_until(RunEnded) if isinstance(m, Log)]
        text = "".join(piece.text for piece in pieces)
        omitted = [piece.omitted_bytes for piece in pieces if piece.omitted_bytes]
        assert text.startswith("line 000000\n")
        assert text.endswith("line 799999\n")
        assert len(text) == 5 << 20
        assert omitted == [800_000 * 12 - (5 << 20)]


def test_no_option_or_path_of_a_user_shows_in_the_command_line_of_a_task(tmp_path: Path) -> None:
    with AgentProcess(tmp_path, STAYS) as agent:
        agent.start()
        pid = pids_said(agent, 1)[0]
        line = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        assert line == [Path(sys.executable).name.encode(), b"-m", b"perftest.task", b""]
        assert Path(f"/proc/{pid}/exe").samefile(sys.executable)


def test_an_agent_needs_nothing_but_the_standard_library(tmp_path: Path) -> None:
    with AgentProcess(tmp_path) as agent:
        bare = subprocess.run(
            [
                sys.executable,
                "-I",
                "-S",
                "-c",
                "import sys; sys.path.insert(0, '.'); "
                "from perftest import agent; sys.exit(agent.main())",
            ],
            cwd=agent.directory,
            input=protocol.encode(protocol.Greet(1, "s", ())) + protocol.encode(Stop()),
            capture_output=True,
            timeout=20,
        )
    lines = [line for line in bare.stdout.splitlines() if line]
    hello = protocol.decode(lines[1])
    assert hello.versions.tensorflow == "", "without site-packages there is no TensorFlow"
    assert bare.returncode == 0


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.9"])
def test_an_old_python_is_told_so_in_one_line(tmp_path: Path, version: str) -> None:
    # No old interpreter is at hand, so that this one says that it is one.
    major, minor = version.split(".")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; sys.version_info = ({major}, {minor}, 0); import perftest.agent",
        ],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    assert done.returncode == 76
    assert done.stderr.splitlines() == [
        f"perftest: Python 3.10 or newer is needed, and {sys.executable} is Python {version}"
    ]


def test_the_first_file_compiles_on_any_python() -> None:
    import ast

    source = (Path(__file__).parent.parent / "perftest" / "__init__.py").read_text()
    tree = ast.parse(source)
    newer = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.Match, ast.AsyncFunctionDef)
    assert not [node for node in ast.walk(tree) if isinstance(node, newer)]


def test_two_agents_of_one_network_are_never_offered_the_same_port(tmp_path: Path) -> None:
    wanted = (PortRequest(23450, 2), PortRequest(23458, 3))
    with AgentProcess(tmp_path / "a") as first, AgentProcess(tmp_path / "b") as second:
        one, other = first.greet(*wanted).free_ports, second.greet(*wanted).free_ports
        assert one == (23450, 23451, 23458, 23459, 23460)
        assert other == (23452, 23453, 23461, 23462, 23463)
        assert first.greet(*wanted).free_ports == one, "it keeps what it has"
        first.process.kill()
        first.process.wait()
        assert second.greet(*wanted).free_ports == one, "marks die with their agent"


def test_a_port_on_which_somebody_listens_is_not_offered(tmp_path: Path) -> None:
    with AgentProcess(tmp_path) as agent, socket.create_server(("127.0.0.1", 23470)):
        assert agent.greet(PortRequest(23470, 2)).free_ports == (23471, 23472)

"""`runtest clean`: ends what earlier runs left, and touches nothing that they did not start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from agents import alive, wait_until_gone
from command import RUNTEST, Running, runtest
from faults import SMALL, reach
from hosts import NamespaceHosts

from launcher.nodes import Node
from launcher.session import NodeOptions, Session
from launcher.transports.ssh import SshTransport
from perftest import protocol
from perftest.leftovers import end_sessions
from perftest.processes import Marked, marked_processes, send
from perftest.protocol import Greet

REMOTE = "/tmp/clean"
OLD = "20200101-000000-abcdef.0"
STUCK = "20200101-000000-bbbbbb.0"
SLEEPS = ["sh", "-c", "while true; do sleep 600; done"]
IGNORES_TERM = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)",
]


class Nobody:
    """Watches a session without a word."""

    def node_greeted(self, node: int, hello: object) -> None:
        pass


@pytest.fixture
def start(hosts: NamespaceHosts) -> Iterator[Callable[..., int]]:
    """Starts a process on node0 with these variables; its pid as this machine knows it."""
    started: list[int] = []

    def begin(argv: list[str], user: int = 0, **environment: str) -> int:
        before = {process.pid for process in hosts.processes(0)}
        words = [f"{name}={value}" for name, value in environment.items()]
        drop = ["setpriv", f"--reuid={user}", "--clear-groups"] if user else []
        script = '"$@" </dev/null >/dev/null 2>&1 &'
        hosts.run(0, ["sh", "-c", script, "sh", *drop, "env", *words, *argv])
        deadline = time.monotonic() + 5.0
        while time.monotonic() < deadline:
            for process in hosts.processes(0):
                if process.pid not in before and process.argv == tuple(argv):
                    started.append(process.pid)
                    return process.pid
        raise AssertionError(f"{argv} did not start")

    yield begin
    for pid in started:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def folder(hosts: NamespaceHosts) -> Iterator[Path]:
    """The directory of runtest on node0, made and removed by the test."""
    own = hosts.path(0, REMOTE) / f"perftest-{os.getuid()}"
    own.mkdir(parents=True, mode=0o700)
    yield own
    hosts.run(0, ["rm", "-rf", REMOTE])


def leave_directory(folder: Path, session: str, run: str = "") -> Path:
    """What a session whose agent and shell were both killed leaves."""
    directory = folder / session
    (directory / "runs" / run).mkdir(parents=True)
    (directory / ".perftest-session").touch()
    (directory / "worker-0.log").write_text("x" * 5000)
    return directory


def clean(
    hosts: NamespaceHosts, tmp_path: Path, *argv: object, remote: str = REMOTE
) -> subprocess.CompletedProcess[str]:
    return runtest("clean", *reach(hosts, 0, remote=remote), *argv, cwd=tmp_path, seconds=60.0)


def state_of(hosts: NamespaceHosts, folder: Path) -> tuple[set[int], set[str]]:
    """Processes and files, the file that a living agent touches by its name alone."""
    return {p.pid for p in hosts.processes(0)}, {str(p) for p in folder.rglob("*")}


def open_session(hosts: NamespaceHosts, session_id: str) -> Session:
    """A living launcher, with an agent on node0."""
    node = Node(hosts.hosts[0].address, "node0")
    options = NodeOptions(REMOTE, sys.executable)
    session = Session([node], SshTransport(ssh_config=hosts.ssh_config), options, session_id)
    session.open(lambda _: Greet(protocol.VERSION, session_id, ()), Nobody())
    return session


@pytest.mark.network
@pytest.mark.tensorflow
def test_all_that_a_frozen_run_left_goes_and_nothing_else(
    hosts: NamespaceHosts, tmp_path: Path, folder: Path, start: Callable[..., int]
) -> None:
    """Launcher killed while agent, shell and tasks are stopped: nothing of it ends by itself."""
    with Running(
        *SMALL[:-4], "--steps", 1_000_000, *reach(hosts, 0, remote=REMOTE), cwd=tmp_path
    ) as running:
        running.wait_for("importing")
        frozen = {process.pid for process in hosts.processes(0)}
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        running.process.kill()
    assert len(frozen) == 4, "shell, agent, parameter server, worker"
    (session,) = (path.name for path in folder.iterdir())
    (run,) = (path.name for path in (tmp_path / "logs" / "runs").iterdir())

    fresh = clean(hosts, tmp_path, "--dry-run")
    assert fresh.stdout.count("in use") == 5, "its launcher may only be slow"
    long_ago = time.time() - 41
    os.utime(folder / session / ".perftest-session", (long_ago, long_ago))

    leave_directory(folder, OLD)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    (folder / "20200101-000000-cccccc.0").symlink_to(precious)
    (folder / "mine").mkdir()
    os.mkfifo(folder / "pipe")
    bystanders = {
        start(["sleep", "601"]),
        start([sys.executable, "-c", "import time; time.sleep(600)", "-m", "perftest.agent"]),
        start(["sleep", "602"], user=65534, PERFTEST_SESSION=OLD),
        start(["sleep", "603"], PERFTEST_SESSION="not a name"),
    }
    stubborn = start(IGNORES_TERM, PERFTEST_SESSION=OLD, PERFTEST_RUN="r1")
    with open_session(hosts, "20261121-000000-123456") as living:
        in_use = {p.pid for p in hosts.processes(0)} - frozen - bystanders - {stubborn}
        assert len(in_use) == 2
        before = state_of(hosts, folder)

        shown = clean(hosts, tmp_path, "--dry-run")
        assert shown.returncode == 0, shown.stderr
        assert state_of(hosts, folder) == before
        table = shown.stdout
        assert table.splitlines()[-1] == "dry run: nothing was ended or removed"
        for words in (
            "agent",
            "shell",
            "task",
            "process",
            "directory",
            session,
            OLD,
            run,
            "5.0 kB",
        ):
            assert words in table
        assert table.count("left") == 4 + 1 + 2
        assert table.count("in use") == 3
        for name in ("cccccc.0 is a link", "mine is not the directory", "pipe is no directory"):
            assert name in " ".join(shown.stderr.split())

        done = clean(hosts, tmp_path)
        assert done.returncode == 0, done.stderr
        assert "ended 5 processes and removed 2 directories on 1 node" in done.stdout
        assert {p.pid for p in hosts.processes(0)} == in_use | bystanders
        assert {path.name for path in folder.iterdir()} == {
            "20261121-000000-123456.0",
            "20200101-000000-cccccc.0",
            "mine",
            "pipe",
        }
        assert (precious / "file").exists()
        assert living.is_open(0)

        named = clean(hosts, tmp_path, "20261121-000000-123456")
        assert named.returncode == 0, named.stderr
        assert {p.pid for p in hosts.processes(0)} == bystanders
        assert not (folder / "20261121-000000-123456.0").exists()


@pytest.mark.network
def test_a_run_is_found_by_its_own_name_and_no_other_is_touched(
    hosts: NamespaceHosts, tmp_path: Path, folder: Path, start: Callable[..., int]
) -> None:
    wanted = start(SLEEPS, PERFTEST_SESSION=OLD, PERFTEST_RUN="20200101-000001-111111")
    other = start(["sleep", "604"], PERFTEST_SESSION=STUCK, PERFTEST_RUN="20200101-000002-222222")
    leave_directory(folder, OLD, "20200101-000001-111111")
    leave_directory(folder, STUCK, "20200101-000002-222222")

    nothing = clean(hosts, tmp_path, "20200101-000009-999999")
    assert (nothing.returncode, nothing.stdout) == (0, "nothing found on 1 node\n")

    done = clean(hosts, tmp_path, "20200101-000001-111111")
    assert done.returncode == 0, done.stderr
    assert not alive(wanted)
    assert alive(other)
    assert [path.name for path in folder.iterdir()] == [STUCK]


@pytest.mark.network
def test_a_node_that_cannot_be_reached_is_reported_and_the_others_are_cleaned(
    hosts: NamespaceHosts, tmp_path: Path, folder: Path
) -> None:
    leave_directory(folder, OLD)
    nodes = tmp_path / "nodes"
    nodes.write_text(f"{hosts.hosts[0].address} node0\n{hosts.free_address} gone.invalid\n")
    where = ["-h", nodes, "-r", REMOTE, "--ssh-config", hosts.ssh_config]
    done = runtest("clean", *where, "--python", sys.executable, cwd=tmp_path)
    assert done.returncode == 1
    assert "removed 1 directory on 1 node" in done.stdout
    assert done.stderr.count("runtest: ") == 1
    assert "gone.invalid (" in done.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.network
def test_a_node_needs_no_tensorflow_to_be_cleaned(
    hosts: NamespaceHosts, tmp_path: Path, folder: Path
) -> None:
    leave_directory(folder, OLD)
    bare = hosts.folder / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    done = clean(hosts, tmp_path, "--python", bare / "bin" / "python")
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.network
def test_a_directory_that_somebody_else_planted_is_refused(
    hosts: NamespaceHosts, tmp_path: Path, folder: Path
) -> None:
    precious = leave_directory(folder, OLD)
    os.chown(folder, 65534, 65534)
    done = clean(hosts, tmp_path)
    assert done.returncode == 1
    assert "was made by somebody else" in done.stderr
    assert (precious / "worker-0.log").exists()


@pytest.mark.network
def test_a_full_disk_is_told_with_what_helps(
    hosts: NamespaceHosts, tmp_path: Path, start: Callable[..., int]
) -> None:
    left = start(SLEEPS, PERFTEST_SESSION=OLD, PERFTEST_RUN="r1")
    hosts.run(0, ["mkdir", "/tmp/full"])
    hosts.run(0, ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/tmp/full"])
    try:
        done = clean(hosts, tmp_path, remote="/tmp/full")
        assert done.returncode == 1
        assert "free some space there by hand" in " ".join(done.stderr.split())
    finally:
        hosts.run(0, ["umount", "/tmp/full"])
    assert alive(left)
    done = clean(hosts, tmp_path, remote="/dev/shm")
    assert done.returncode == 0, done.stderr
    assert not alive(left), "a process is found from any directory"


@pytest.mark.network
def test_what_cannot_be_removed_is_told_and_the_rest_goes(
    hosts: NamespaceHosts, tmp_path: Path, folder: Path
) -> None:
    leave_directory(folder, OLD)
    leave_directory(folder, STUCK)
    mounted = f"{REMOTE}/{folder.name}/{STUCK}/runs"
    hosts.run(0, ["mount", "-t", "tmpfs", "tmpfs", mounted])
    try:
        done = clean(hosts, tmp_path)
    finally:
        hosts.run(0, ["umount", mounted])
    assert done.returncode == 1
    assert "removed 1 directory" in done.stdout
    assert f"{STUCK} could not be removed: " in " ".join(done.stderr.split())
    assert [path.name for path in folder.iterdir()] == [STUCK]


@pytest.mark.network
def test_this_machine_is_cleaned_without_ssh(
    hosts: NamespaceHosts, tmp_path: Path, folder: Path, start: Callable[..., int]
) -> None:
    """Inside a host, whose processes are its own: this machine has other people's tests."""
    leave_directory(folder, OLD)
    left = start(["sleep", "606"], PERFTEST_SESSION=OLD, PERFTEST_RUN="r1")
    done = hosts.run(0, [RUNTEST, "clean", "-r", REMOTE])
    assert "ended 1 process and removed 1 directory on 1 node" in done.stdout
    assert not alive(left)


def test_what_is_no_id_is_a_mistake(tmp_path: Path) -> None:
    done = runtest("clean", "../../etc\x1b[2J", cwd=tmp_path)
    assert done.returncode == 2
    assert "is not the id of a run" in done.stderr
    assert "\x1b" not in done.stderr


# The agent's side alone.


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "PERFTEST_SESSION": f"test-{os.getpid()}.0"}
    process = subprocess.Popen(["sleep", "605"], env=environment)
    yield process
    process.kill()
    process.wait()


def marked(pid: int) -> Marked:
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:  # until it has become `sleep`
        found = [p for p in marked_processes() if p.pid == pid and p.argv[:1] == ("sleep",)]
        if found:
            return found[0]
    raise AssertionError("it was not found")


def test_a_process_that_has_the_number_of_another_by_now_is_not_hit(
    sleeper: subprocess.Popen[bytes],
) -> None:
    process = marked(sleeper.pid)
    earlier = Marked(process.pid, process.started - 1, process.session, "", process.argv)
    send(earlier, signal.SIGKILL)
    send(process, signal.SIGSTOP)  # goes on at once: so it has been handled when this returns
    assert sleeper.poll() is None
    send(process, signal.SIGKILL)
    assert wait_until_gone([sleeper.pid], 2.0) == []


def test_it_is_not_hit_either_where_the_kernel_has_no_handles_of_processes(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    process = marked(sleeper.pid)
    send(Marked(process.pid, process.started - 1, process.session, "", ()), signal.SIGKILL)
    with pytest.raises(subprocess.TimeoutExpired):
        sleeper.wait(0.2)
    ended, left = end_sessions({process.session})
    assert (ended, left) == (1, [])
    assert sleeper.wait(2.0) == -signal.SIGTERM

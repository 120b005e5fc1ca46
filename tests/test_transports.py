"""The contract of launcher/transports/base.py, kept by each transport that is listed here."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from hosts import NamespaceHosts
from slurm import Job, SlurmCluster
from waiting import eventually

from launcher.errors import ConnectionLost
from launcher.nodes import Node
from launcher.transports.base import Connection, Transport
from launcher.transports.local import LocalTransport
from launcher.transports.slurm import SlurmTransport
from launcher.transports.ssh import SshTransport


@dataclass
class Reached:
    """A transport with a node that it reaches, and a folder that both sides see."""

    transport: Transport
    node: Node
    folder: Path

    def open(self, script: str) -> Connection:
        return self.transport.open(self.node, script)


@pytest.fixture(scope="module")
def allocated(slurm: SlurmCluster) -> Iterator[Job]:
    """A Slurm allocation of one node."""
    with slurm.job(1) as job:
        yield job


@pytest.fixture(
    params=[
        "local",
        pytest.param("ssh", marks=pytest.mark.network),
        pytest.param("slurm", marks=pytest.mark.slurm),
    ]
)
def reached(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Reached]:
    if request.param == "local":
        transport: Transport = LocalTransport()
        node, folder = Node("localhost", "localhost"), tmp_path
    elif request.param == "slurm":
        job: Job = request.getfixturevalue("allocated")
        monkeypatch.setenv("SLURM_CONF", job.inside["SLURM_CONF"])
        transport = SlurmTransport(job.id, os.environ)
        node, folder = Node("node0", "node0", f"Slurm job {job.id}"), job.cluster.folder
    else:
        hosts: NamespaceHosts = request.getfixturevalue("hosts")
        transport = SshTransport(hosts.ssh_config)
        node = Node(hosts.hosts[0].address, "node0", "nodes, line 1")
        folder = hosts.folder
    yield Reached(transport, node, folder)
    transport.close()


def all_of(receive: Callable[[], bytes]) -> bytes:
    return b"".join(iter(receive, b""))


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def zombies() -> list[str]:
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    states = {pid: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2] for pid in children}
    return [pid for pid, state in states.items() if state.split()[0] == "Z"]


def test_every_byte_travels_both_ways(reached: Reached) -> None:
    data = os.urandom(5_000_000)
    connection = reached.open("cat")

    def send() -> None:
        connection.send(data)
        connection.close_input()

    sender = in_thread(send)
    assert hashlib.sha256(all_of(connection.receive)).digest() == hashlib.sha256(data).digest()
    assert all_of(connection.receive_errors) == b""
    assert connection.wait(5) == 0
    sender.join(5)
    connection.close()


def test_output_and_errors_are_separate_and_run_at_once(reached: Reached) -> None:
    each = 3_000_000
    connection = reached.open(f"head -c {each} /dev/zero >&2 & head -c {each} /dev/zero; wait")
    errors: list[bytes] = []
    reader = in_thread(lambda: errors.append(all_of(connection.receive_errors)))
    output = all_of(connection.receive)
    reader.join(10)
    assert (len(output), len(errors[0])) == (each, each)
    connection.close()


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("exit 0", 0),
        ("exit 3", 3),
        ("exit 255", 255),
        ("kill -TERM $$", -15),
        ("kill -KILL $$", -9),
        ("no-such-command 2>/dev/null", 127),
    ],
)
def test_exit_status_is_kept(reached: Reached, script: str, status: int) -> None:
    connection = reached.open(script)
    assert connection.wait(5) == status
    assert connection.wait(0) == status
    connection.close()


def test_wait_says_none_while_the_script_runs(reached: Reached) -> None:
    connection = reached.open("cat")
    assert connection.wait(0.05) is None
    connection.close_input()
    assert connection.wait(5) == 0
    connection.close()


def test_script_sees_the_end_of_its_input_when_that_is_closed(reached: Reached) -> None:
    connection = reached.open("cat; echo ended; exec cat >&2")
    connection.send(b"one\n")
    connection.close_input()
    connection.close_input()
    assert all_of(connection.receive) == b"one\nended\n"
    connection.close()


def test_script_sees_the_end_of_its_input_when_all_is_closed(reached: Reached) -> None:
    mark = reached.folder / "mark"
    connection = reached.open(f"echo up; cat; echo ended >{mark}")
    assert connection.receive() == b"up\n"
    connection.close()
    assert eventually(lambda: mark.exists() and mark.read_text() == "ended\n")


def test_close_ends_a_receive_that_waits(reached: Reached) -> None:
    connection = reached.open("cat")
    got: list[bytes] = []
    readers = [
        in_thread(lambda: got.append(connection.receive())),
        in_thread(lambda: got.append(connection.receive_errors())),
    ]
    time.sleep(0.05)
    connection.close()
    for reader in readers:
        reader.join(2)
    assert got == [b"", b""]
    connection.close()
    assert connection.receive() == b""


def test_close_ends_a_send_that_waits(reached: Reached) -> None:
    connection = reached.open("sleep 3")
    failures: list[Exception] = []

    def send() -> None:
        try:
            connection.send(bytes(50_000_000))
        except ConnectionLost as error:
            failures.append(error)

    sender = in_thread(send)
    time.sleep(0.2)
    assert sender.is_alive()
    connection.close()
    sender.join(3)
    assert len(failures) == 1


@pytest.mark.parametrize("closed", [True, False], ids=["after close", "after the script ended"])
def test_send_after_the_end_raises_connection_lost(reached: Reached, closed: bool) -> None:
    connection = reached.open("exit 0")
    assert connection.wait(5) == 0
    assert all_of(connection.receive) == b""
    if closed:
        connection.close()
    with pytest.raises(ConnectionLost) as caught:
        connection.send(b"too late\n")
    assert str(caught.value).startswith(reached.node.label)
    connection.close()


AWKWARD = r"""printf '%s\n' "it's" 'a "b"' $((1 + 1)) \; '*' '$HOME' "`echo tick`"
# a comment; exit 9
printf '%s|' 'back\slash' 'a\\b' '%d' '!' 'é	tab'
printf '%s' "last
line"
"""


def test_script_runs_as_it_is_written(reached: Reached) -> None:
    connection = reached.open(AWKWARD)
    assert all_of(connection.receive).decode() == (
        'it\'s\na "b"\n2\n;\n*\n$HOME\ntick\nback\\slash|a\\\\b|%d|!|é\ttab|last\nline'
    )
    assert all_of(connection.receive_errors) == b""
    connection.close()


def test_description_is_a_line_that_runs_the_script(reached: Reached) -> None:
    line = reached.transport.describe(reached.node, AWKWARD)
    described = LocalTransport().open(Node("here", "here"), line)
    connection = reached.open(AWKWARD)
    assert all_of(described.receive) == all_of(connection.receive)
    described.close()
    connection.close()


def test_forty_open_at_once(reached: Reached) -> None:
    with ThreadPoolExecutor(32) as pool:
        connections = list(pool.map(reached.open, [f"echo {n}; cat" for n in range(40)]))
    assert [connection.receive() for connection in connections] == [
        f"{n}\n".encode() for n in range(40)
    ]
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda connection: connection.close(), connections))


def test_nothing_is_left_after_close(reached: Reached) -> None:
    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    def use() -> None:
        connection = reached.open("echo up; cat")
        assert connection.receive() == b"up\n"
        connection.close()

    use()  # the first use loads what stays loaded
    time.sleep(0.3)
    before = held()
    for _ in range(10):
        use()
    assert eventually(lambda: held() <= before), (before, held())
    assert eventually(lambda: not zombies()), zombies()


def test_local_script_is_out_of_reach_of_the_terminal() -> None:
    connection = LocalTransport().open(Node("here", "here"), "ps -o sid= -p $$; echo $$")
    session, process = all_of(connection.receive).split()
    assert session == process
    connection.close()


@pytest.mark.network
def test_nothing_of_the_script_shows_on_the_node(hosts: NamespaceHosts) -> None:
    transport = SshTransport(hosts.ssh_config)
    connection = transport.open(Node("x", "node0"), "secret=1; echo up; read line; exit 0")
    connection.receive()
    shown = [" ".join(process.argv) for process in hosts.processes(0)]
    assert any(line.startswith("sh -c") for line in shown)
    assert not [line for line in shown if "secret" in line]
    connection.close()
    transport.close()

"""Nodes that send too much or nonsense, and disks that fill up, from end to end."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Running
from faults import (
    SMALL,
    SMALL_LOG,
    Ended,
    assert_nothing_left,
    assert_plain,
    ended,
    nodes_and_config,
    rows_intact,
    run_to_end,
    said_of,
)
from hosts import NamespaceHosts
from results_examples import row

from launcher.results.log import append_row
from perftest import protocol

pytestmark = pytest.mark.network

MIB = 1 << 20
# It holds 69 MiB where nodes send nonsense; with a whole line of 100 MB it would be 164.
MOST_REFUSING_BYTES = 128 * MIB
# 148 MiB, with the ends of all logs.
MOST_LAUNCHER_BYTES, MOST_AGENT_BYTES = 250 * MIB, 200 * MIB
# Long enough that a test can act in the middle of it.
LONGER = ("-m", "deepmnist", "-b", 4, "--steps", 400, "--warmup", 1)


@pytest.fixture(scope="module")
def many() -> Iterator[NamespaceHosts]:
    """Enough hosts for one fault each."""
    with NamespaceHosts(8) as made:
        yield made


def program(hosts: NamespaceHosts, index: int, name: str, text: str) -> str:
    """An executable script in a host's own /tmp; returns its path there."""
    path = hosts.path(index, f"/tmp/{name}")
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return f"/tmp/{name}"


def agent_that_prints(hosts: NamespaceHosts, index: int, text: str) -> str:
    """What passes for an interpreter on that host, and is one but for the agent: asked for that, it
    greets as an agent does, and then prints.
    """
    head = rf"printf '\n%s\n' '{protocol.MARKER}'"
    script = f'case "$*" in *perftest.agent*) {head}; {text} ;;'
    script += f' *) exec {sys.executable} "$@" ;; esac'
    return f"python={program(hosts, index, 'printer', script)}"


def python_with(hosts: NamespaceHosts, index: int, start_up: str) -> str:
    """A real interpreter that runs these lines at its start, as some sites have it do."""
    folder = hosts.path(index, "/tmp/site")
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(start_up)
    line = f'PYTHONPATH=/tmp/site exec {sys.executable} "$@"'
    return f"python={program(hosts, index, 'python', line)}"


class AgentWatch:
    """The most memory that any agent on these hosts has held, looked at again and again."""

    def __init__(self, hosts: NamespaceHosts) -> None:
        self.peak_bytes = 0
        self._hosts = hosts
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> AgentWatch:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            for index in range(2):
                for process in self._hosts.processes(index):
                    if "perftest.agent" in process.argv:
                        self.peak_bytes = max(self.peak_bytes, peak_of(process.pid))


def peak_of(pid: int) -> int:
    """The high-water mark of a process's memory, in bytes; 0 for one that has gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s*(\d+) kB", text)
    return int(found[1]) << 10 if found else 0


# Nodes that say too much, or nonsense.


def test_nodes_that_send_nonsense_are_all_named(many: NamespaceHosts, tmp_path: Path) -> None:
    deep = "head -c 3000000 /dev/zero | tr '\\0' '['; echo"
    texts = {
        1: "head -c 100000000 /dev/zero | tr '\\0' x; echo",
        2: "head -c 1000000 /dev/urandom; echo",
        3: 'printf \'{"type": "hel\'',
        4: "head -c 1000000 /dev/zero; echo",
        5: "yes 'no line break' | tr -d '\\n'",
        6: deep,
        7: r"""printf '\033]0;owned\007{"type": "go", "run_id": "\033[2J"}\n'""",
    }
    keys = {index: agent_that_prints(many, index, text) for index, text in texts.items()}
    where = nodes_and_config(many, tmp_path, 7, keys=keys)
    with rows_intact(tmp_path / "logs"):
        done = run_to_end(*SMALL, *where, cwd=tmp_path, within=10)
    said_of(
        done,
        node1="a line of more than 4 MiB",
        node2="not a message",
        node3="the connection to the agent ended (status 0)",
        node4="not a message",
        node5="a line of more than 4 MiB",
        node6="not a message",
        node7="not a message",
    )
    assert done.peak_bytes < MOST_REFUSING_BYTES
    assert_nothing_left(many)


GOES_MAD = """
import os, sys, threading, time
from pathlib import Path

def talk(descriptor):
    while not any(b"Started server" in log.read_bytes() for log in Path("runs").glob("*/*.log")):
        time.sleep(0.02)
    while True:
        os.write(descriptor, os.urandom(1 << 16))

if "perftest.agent" in sys.orig_argv:
    threading.Thread(target=talk, args=[os.dup(1)], daemon=True).start()
"""


@pytest.mark.tensorflow
def test_an_agent_that_goes_mad_in_the_middle_of_a_run_ends_it(
    many: NamespaceHosts, tmp_path: Path
) -> None:
    where = nodes_and_config(many, tmp_path, 1, keys={1: python_with(many, 1, GOES_MAD)})
    with rows_intact(tmp_path / "logs"):
        done = run_to_end(*LONGER, *where, cwd=tmp_path, within=60)
    said_of(done, node1="not a message")
    assert done.peak_bytes < MOST_REFUSING_BYTES
    assert_nothing_left(many)


FLOODS = """
import os, sys

if "perftest.task" in sys.orig_argv:
    piece = b"a line of sixty-four characters, with which a log is flooded...\\n" * (1 << 14)
    try:
        for _ in range(1000):
            data = piece
            while data:
                data = data[os.write(1, data) :]
    except OSError:
        pass  # the disk is full
"""


@pytest.mark.tensorflow
def test_tasks_that_flood_their_logs_with_a_gigabyte_do_not_end_a_run(
    many: NamespaceHosts, tmp_path: Path
) -> None:
    """On node0 there is room for it; on node1 it fills the disk of the remote directory."""
    for index, size in {0: "2100m", 1: "300m"}.items():
        script = f"mkdir -p /mnt/big; mount -t tmpfs -o mode=700,size={size} tmpfs /mnt/big"
        many.run(index, ["sh", "-ec", script])
    keys = {index: python_with(many, index, FLOODS) for index in (0, 1)}
    where = nodes_and_config(many, tmp_path, 1, keys=keys)
    with rows_intact(tmp_path / "logs", added=1), AgentWatch(many) as agents:
        done = run_to_end(*SMALL, *where, "-r", "/mnt/big", cwd=tmp_path, within=120)
        assert done.status == 0, done.stderr
    assert_plain(done)
    assert done.peak_bytes < MOST_LAUNCHER_BYTES
    assert 0 < agents.peak_bytes < MOST_AGENT_BYTES
    (folder,) = (tmp_path / "logs" / "runs").iterdir()
    for log in folder.glob("*.log"):
        text = log.read_text()
        assert "bytes left out here]" in text
        assert len(text) < 6 * MIB
    assert_nothing_left(many, remote="/mnt/big")
    for index in (0, 1):
        many.run(index, ["umount", "/mnt/big"])


# Disks of this machine.


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[Path]:
    """`logs/` on a small disk of its own."""
    folder = tmp_path / "logs"
    mount(folder, "size=1m")
    yield folder
    subprocess.run(["umount", "--recursive", str(folder)], check=True)


def mount(folder: Path, options: str) -> None:
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    subprocess.run(words, check=True)


def fill(folder: Path) -> None:
    """Take all that is free on the disk of a folder."""
    with (folder / "large").open("ab", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return


def test_a_full_or_read_only_disk_of_the_logs_is_told_before_anything_is_measured(
    many: NamespaceHosts, tmp_path: Path, logs: Path
) -> None:
    where = nodes_and_config(many, tmp_path, 1)
    with rows_intact(logs):
        large = run_to_end(*SMALL, *where, "--steps", 100_000, cwd=tmp_path, within=10)
        fill(logs)
        full = run_to_end(*SMALL, *where, cwd=tmp_path, within=10)
        (logs / "large").unlink()
        subprocess.run(["mount", "-o", "remount,ro", str(logs)], check=True)
        read_only = run_to_end(*SMALL, *where, cwd=tmp_path, within=10)
        checked = run_to_end("check", *where, "--json", cwd=tmp_path, within=20)
        subprocess.run(["mount", "-o", "remount,rw", str(logs)], check=True)
    for done, status, words in (
        (large, 1, "MiB free, and what this run writes takes 40."),
        (full, 2, f"nothing can be written in {logs}: No space left on device"),
        (read_only, 2, f"nothing can be written in {logs}: Read-only file system"),
    ):
        assert done.status == status, done.stderr
        (message,) = done.messages
        assert words in message
        assert ". Try: " in message
        assert_plain(done)
        assert "starting" not in done.stderr, "a task was started"
    assert checked.status == 1, checked.stdout
    assert f"nothing can be written in {logs}: Read-only file system" in checked.stdout
    assert_nothing_left(many)


@pytest.mark.tensorflow
def test_a_disk_that_fills_up_before_the_raw_steps_are_written_leaves_no_row(
    many: NamespaceHosts, tmp_path: Path, logs: Path
) -> None:
    where = nodes_and_config(many, tmp_path, 0)
    with rows_intact(logs):
        with Running(*LONGER, *where, "--strategy", "single", cwd=tmp_path) as running:
            running.wait_for("measuring")
            fill(logs)
            done = ended(running, 30)
        check_unwritten(done, "steps.csv: No space left on device")
    assert not list(logs.rglob("*.part")), "half a file"
    assert_nothing_left(many)


@pytest.mark.tensorflow
def test_a_disk_that_takes_only_a_part_of_the_row_keeps_none_of_it(
    many: NamespaceHosts, tmp_path: Path, logs: Path
) -> None:
    """The raw steps are on another disk. The log's last block has room for less than a row."""
    mount(logs / "runs", "size=8m")
    log = logs / SMALL_LOG
    while not log.exists() or log.stat().st_size % 4096 < 4096 - 200:
        append_row(log, row(model="deepmnist", batch_per_gpu=4, warnings="x" * 60))
    where = nodes_and_config(many, tmp_path, 0)
    before = log.read_bytes()
    with Running(*LONGER, *where, "--strategy", "single", cwd=tmp_path) as running:
        running.wait_for("measuring")
        fill(logs)
        done = ended(running, 30)
    check_unwritten(done, f"cannot write {logs.name}/{SMALL_LOG}: the disk took only a part")
    assert log.read_bytes() == before
    assert len(list(logs.glob("runs/*/steps.csv"))) == 1, "the raw steps are there"
    assert_nothing_left(many)


def check_unwritten(done: Ended, words: str) -> None:
    """The run was made, its figure is told, and that it could not be written."""
    assert done.status == 1, done.stderr
    assert_plain(done)
    (message,) = done.messages
    assert words in message
    assert re.search(r"\(the run gave [0-9.]+ images/sec\)\. Try: free some space", message)

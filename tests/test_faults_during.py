"""What goes wrong during a run, from end to end: real sshds, real TensorFlow, a real fault.

Each run ends by itself in time, says one thing that names the node and the task, keeps what there
was, and leaves nothing behind. docs/troubleshooting.md has the messages.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from agents import wait_until_gone
from command import Running
from faults import (
    SMALL_LOG,
    Ended,
    assert_nothing_left,
    assert_plain,
    ended,
    reach,
    rows_intact,
    run_to_end,
    said_of,
)
from hosts import NamespaceHosts
from memory_limit import memory_group

pytestmark = [pytest.mark.network, pytest.mark.tensorflow]

# node0: ps 0 and worker 0.  node1: worker 1.
CLUSTER = ("-m", "deepmnist", "-n", 2, "-g", 1, "-b", 4, "--num-ps", 1)
ENDLESS = (*CLUSTER, "--steps", 1_000_000)
# node0: worker 0.  node1: worker 1.
ADDING_UP = (*CLUSTER[:-2], "--steps", 1_000_000, "--strategy", "all_reduce")
NODE_OF = {"ps-0": 0, "worker-0": 0, "worker-1": 1}
# How far a run has come: its tasks have been started; load TensorFlow; have written to their logs.
STARTING, IMPORTING, LOGGING, MEASURING = "starting", "importing", "logging", "measuring"


@contextmanager
def run_on(
    hosts: NamespaceHosts,
    cwd: Path,
    *options: object,
    until: str = MEASURING,
    of: tuple[object, ...] = ENDLESS,
) -> Iterator[Running]:
    """A run without end that has come so far; an earlier row of its log stays as it is."""
    argv = (*of, *options, *reach(hosts, 0, 1))
    with rows_intact(cwd / "logs"), Running(*argv, cwd=cwd) as running:
        if until == MEASURING:
            running.wait_for("all workers: measuring")
        else:
            running.wait_for("starting deepmnist")
            for name in NODE_OF:
                come_so_far(task(hosts, name), until)
        yield running


def come_so_far(pid: int, until: str) -> None:
    """Wait until a task, as the kernel sees it, has come so far."""
    process = Path(f"/proc/{pid}")
    if until == IMPORTING:
        found(lambda: [pid] if "libtensorflow" in (process / "maps").read_text() else [])
    elif until == LOGGING:
        found(lambda: [pid] if (process / "fd/1").stat().st_size else [])


def task(hosts: NamespaceHosts, name: str) -> int:
    """The process of a task (`worker-1`), as soon as it is there: what its log is tells it."""
    return found(lambda: [pid for pid, log in logs_of(hosts, NODE_OF[name]) if log == name])


def agent(hosts: NamespaceHosts, index: int) -> int:
    """The process of a node's agent."""
    return found(lambda: [pid for pid, log in logs_of(hosts, index, "perftest.agent") if not log])


def logs_of(hosts: NamespaceHosts, index: int, program: str = "") -> list[tuple[int, str]]:
    """Process and name of the log of all that runs on a host; no name for what is no task."""
    pairs = []
    for process in hosts.processes(index):
        try:
            target = Path(f"/proc/{process.pid}/fd/1").readlink()
        except OSError:
            continue  # it has just ended
        if not program or program in process.argv:
            pairs.append((process.pid, target.stem if target.suffix == ".log" else ""))
    return pairs


def found(look: Callable[[], list[int]], seconds: float = 10.0) -> int:
    deadline = time.monotonic() + seconds
    while not (pids := look()):
        assert time.monotonic() < deadline, "no such process"
        time.sleep(0.01)
    return pids[0]


def record_of(cwd: Path) -> tuple[dict[str, object], set[str]]:
    """run.json of the only run, and the names of the logs that came home."""
    (record,) = (cwd / "logs" / "runs").glob("*/run.json")
    return json.loads(record.read_text()), {log.stem for log in record.parent.glob("*.log")}


# Killed.

VICTIMS = {
    "worker": (
        "worker-1",
        "node1",
        "worker 1 ended with signal 9 in the middle of the run (killed, or out of memory)",
    ),
    "parameter server": (
        "ps-0",
        "node0",
        "ps 0 ended with signal 9 in the middle of the run (killed, or out of memory)",
    ),
    "agent": ("", "node0", "the agent ended with signal 9 (killed, or out of memory); ps 0"),
}


@pytest.mark.parametrize("until", [STARTING, IMPORTING, MEASURING])
@pytest.mark.parametrize("victim", VICTIMS)
def test_whoever_is_killed_is_named_within_5_s(
    hosts: NamespaceHosts, tmp_path: Path, victim: str, until: str
) -> None:
    name, alias, words = VICTIMS[victim]
    with run_on(hosts, tmp_path, until=until) as running:
        os.kill(task(hosts, name) if name else agent(hosts, 0), signal.SIGKILL)
        done = ended(running, 5.0)
    assert done.status == 1
    said_of(done, **{alias: words})
    assert_nothing_left(hosts)
    record, logs = record_of(tmp_path)
    assert record["status"] == "failed"
    assert words in str(record["error"])
    if until == MEASURING:
        assert logs == ({"worker-1"} if victim == "agent" else set(NODE_OF))


@pytest.mark.parametrize("victim", ["worker-0", "worker-1"])
def test_a_killed_worker_that_added_up_is_the_cause_though_another_that_misses_it_speaks_first(
    hosts: NamespaceHosts, tmp_path: Path, victim: str
) -> None:
    with run_on(hosts, tmp_path, of=ADDING_UP) as running:
        (other,) = {"worker-0", "worker-1"} - {victim}
        misses_it, silent = task(hosts, other), agent(hosts, NODE_OF[victim])
        os.kill(silent, signal.SIGSTOP)
        try:
            os.kill(task(hosts, victim), signal.SIGKILL)
            assert wait_until_gone([misses_it], 5.0) == []
        finally:
            os.kill(silent, signal.SIGCONT)
        done = ended(running, 5.0)
    assert done.status == 1
    words = f"{victim.replace('-', ' ')} ended with signal 9 in the middle of the run (killed,"
    said_of(done, **{f"node{NODE_OF[victim]}": words})
    assert_nothing_left(hosts)
    assert record_of(tmp_path)[1] == {"worker-0", "worker-1"}


@pytest.mark.parametrize(("victim", "until"), [("worker-1", IMPORTING), ("ps-0", MEASURING)])
def test_a_task_that_the_kernel_kills_for_want_of_memory_is_named_within_5_s(
    hosts: NamespaceHosts, tmp_path: Path, victim: str, until: str
) -> None:
    with (
        memory_group() as memory,
        run_on(hosts, tmp_path, until=STARTING) as running,
    ):
        pid = task(hosts, victim)
        memory.put_in(pid)
        if until == MEASURING:
            running.wait_for("all workers: measuring")
        else:
            come_so_far(pid, until)
        memory.leave_no_more_than(16 << 20)
        done = ended(running, 5.0)
    assert done.status == 1
    says = f"{victim.replace('-', ' ')} ended with signal 9"
    words = (says, "out of memory", "smaller batch than -b 4")
    said_of(done, **{f"node{NODE_OF[victim]}": words})
    assert_nothing_left(hosts)


def test_a_task_that_gets_no_memory_says_so(hosts: NamespaceHosts, tmp_path: Path) -> None:
    limited = hosts.folder / "limited-python"
    limited.write_text(f'#!/bin/sh\nulimit -v 10000000\nexec {sys.executable} "$@"\n')
    limited.chmod(0o755)
    where = reach(hosts, 0, keys=f"python={limited}")
    with rows_intact(tmp_path / "logs"):
        done = run_to_end(*CLUSTER, "-n", 1, "-b", 4_000_000, *where, cwd=tmp_path, within=30.0)
    assert done.status == 1
    said_of(done, node0=("worker 0 failed: ", "(out of memory)", "smaller batch than -b 4000000"))
    assert_nothing_left(hosts)


# Stopped.


@pytest.mark.parametrize(("victim", "until"), [("worker-1", IMPORTING), ("ps-0", MEASURING)])
def test_a_stopped_task_is_named_at_the_limit_for_a_stall(
    hosts: NamespaceHosts, tmp_path: Path, victim: str, until: str
) -> None:
    # Tasks that import TensorFlow have five times as long, but not those that are stopped at it.
    with run_on(hosts, tmp_path, "--stall-timeout", 6, until=until) as running:
        pid = task(hosts, victim)
        os.kill(pid, signal.SIGSTOP)
        done = ended(running, 6.0 + 5.0)
    assert done.status == 1
    assert done.seconds > 5.5, "not before its time"
    alias = f"node{NODE_OF[victim]}"
    says = f"{victim.replace('-', ' ')} is stopped (SIGSTOP, or a debugger), and worker "
    said_of(done, **{alias: (says, "has not got on for", "kill -CONT")})
    assert_nothing_left(hosts)
    if until == MEASURING:
        assert record_of(tmp_path)[1] == set(NODE_OF)


# The network, and the power.


def test_an_outage_of_three_seconds_is_survived(hosts: NamespaceHosts, tmp_path: Path) -> None:
    argv = (*CLUSTER, "--steps", 100, *reach(hosts, 0, 1))
    with rows_intact(tmp_path / "logs", added=1), Running(*argv, cwd=tmp_path) as running:
        running.wait_for(MEASURING)
        hosts.link_down(1)
        try:
            time.sleep(3.0)
        finally:
            hosts.link_up(1)
        assert running.end(60.0) == 0, running.said
    row = pd.read_csv(tmp_path / "logs" / SMALL_LOG).iloc[-1]
    assert row["max"] > 2.5, "the outage came before or after the measured steps"
    assert row["measured_steps"] == 100
    assert_nothing_left(hosts)


def test_a_node_of_a_parameter_server_that_goes_off_is_the_cause_and_not_what_workers_say(
    hosts: NamespaceHosts, tmp_path: Path
) -> None:
    with run_on(hosts, tmp_path) as running:
        hosts.power_off(0, silent=True)
        try:
            done = ended(running, 15.0)
            assert_nothing_left(hosts, 1)
        finally:
            hosts.start(0)
    assert done.status == 1
    words = (
        "the connection to the agent was lost; ps 0, worker 0 ran there",
        "whether node0 is on",
    )
    said_of(done, node0=words)
    assert_nothing_left(hosts)
    assert record_of(tmp_path)[1] == {"worker-1"}


def test_a_node_of_a_worker_whose_cable_is_cut_is_named_and_clean_once_it_is_mended(
    hosts: NamespaceHosts, tmp_path: Path
) -> None:
    with run_on(hosts, tmp_path, until=LOGGING) as running:
        hosts.link_down(1)
        try:
            done = ended(running, 15.0)
            assert_nothing_left(hosts, 0)
        finally:
            hosts.link_up(1)
            hosts.forget_outage(1)
    assert done.status == 1
    said_of(done, node1="the connection to the agent was lost; worker 1 ran there")
    assert_nothing_left(hosts, within=30.0)
    assert record_of(tmp_path)[1] == {"ps-0", "worker-0"}


# Interrupted.


@pytest.mark.parametrize(
    ("number", "until"),
    [(signal.SIGINT, MEASURING), (signal.SIGTERM, IMPORTING), (signal.SIGHUP, IMPORTING)],
)
def test_an_interrupt_is_answered_at_once_and_leaves_nothing(
    hosts: NamespaceHosts, tmp_path: Path, number: signal.Signals, until: str
) -> None:
    with run_on(hosts, tmp_path, until=until) as running:
        running.send(number)
        running.wait_for("interrupted: ending everything", seconds=1.0)
        done = ended(running, 10.0)
    assert_interrupted(done)
    assert_nothing_left(hosts)
    record, logs = record_of(tmp_path)
    assert record["status"] == "failed"
    if until == MEASURING:
        assert logs == set(NODE_OF), "logs come home all the same"


def test_a_second_interrupt_waits_for_nobody(hosts: NamespaceHosts, tmp_path: Path) -> None:
    with run_on(hosts, tmp_path, until=IMPORTING) as running:
        stopped = agent(hosts, 1)
        os.kill(stopped, signal.SIGSTOP)
        try:
            running.send(signal.SIGINT)
            running.wait_for("once more to leave at once", seconds=1.0)
            running.send(signal.SIGINT)
            done = ended(running, 2.0)
        finally:
            os.kill(stopped, signal.SIGCONT)
    assert_interrupted(done)
    assert_nothing_left(hosts, within=10.0)


def assert_interrupted(done: Ended) -> None:
    assert done.status == 130, done.stderr
    assert done.messages == ["interrupted"]
    assert_plain(done)


def test_kill_9_of_the_launcher_leaves_nothing(hosts: NamespaceHosts, tmp_path: Path) -> None:
    with run_on(hosts, tmp_path) as running:
        assert len(hosts.processes(0)) >= 3
        running.process.kill()
        assert_nothing_left(hosts, within=10.0)


# While everything is being ended.


def test_a_node_that_is_lost_while_logs_are_fetched_does_not_hide_the_cause(
    hosts: NamespaceHosts, tmp_path: Path
) -> None:
    with run_on(hosts, tmp_path, until=LOGGING) as running:
        stopped = agent(hosts, 1)
        os.kill(stopped, signal.SIGSTOP)
        os.kill(task(hosts, "worker-0"), signal.SIGKILL)
        deadline = time.monotonic() + 10.0
        while any(log for _, log in logs_of(hosts, 0)):  # then node0 sends its logs
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(stopped, signal.SIGKILL)
        done = ended(running, 5.0)
    assert done.status == 1
    said_of(done, node0="worker 0 ended with signal 9")
    assert_nothing_left(hosts)
    record, logs = record_of(tmp_path)
    assert logs == {"ps-0", "worker-0"}
    (problem,) = record["problems"]  # type: ignore[misc]
    assert problem.startswith("node1 (")
    assert "logs of this node may be missing" in problem


# Silence: nothing says that somebody is gone.


def test_silent_agents_and_silent_launchers_are_given_up(
    hosts: NamespaceHosts, tmp_path: Path
) -> None:
    """Two runs at once, as each takes half a minute: in one the agent of node1 is stopped; the
    launcher of the other is on a machine that goes off without a word.
    """
    with NamespaceHosts(3) as others:
        argv = (*ENDLESS, "--logs", others.folder / "logs", *reach(others, 0, 1))
        with (
            Running(*argv, cwd=tmp_path, inside=others.enter(2)) as far,
            run_on(hosts, tmp_path) as near,
        ):
            far.wait_for(MEASURING)
            stopped = agent(hosts, 1)
            os.kill(stopped, signal.SIGSTOP)
            others.power_off(2, silent=True)
            vanished = time.monotonic()
            done = ended(near, 40.0)
            assert_nothing_left(others, 0, 1, within=40.0 - (time.monotonic() - vanished))
    assert done.status == 1
    assert done.seconds > 25.0, "not before its time"
    said_of(done, node1="the agent has not been heard of for 30 s; worker 1 ran there")
    assert record_of(tmp_path)[1] == {"ps-0", "worker-0"}
    assert_nothing_left(hosts, within=5.0)

"""runtest inside a Slurm allocation: real slurmctld, slurmd on three hosts, real TensorFlow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import RUNTEST, Running, runtest
from faults import SMALL, Ended, assert_plain, ended
from slurm import Job, SlurmCluster

from launcher.hostlist import expand
from launcher.nodes import Node
from launcher.session import NodeOptions, Session
from launcher.transports.slurm import SlurmTransport
from perftest.protocol import VERSION, Greet, Hello

pytestmark = pytest.mark.slurm

ENDLESS = ("-m", "deepmnist", "-b", 4, "--steps", 1_000_000, "--strategy", "all_reduce")
NAMES = ("node0", "node1", "node2")


@pytest.fixture
def job(slurm: SlurmCluster) -> Iterator[Job]:
    """An allocation of all three nodes."""
    with slurm.job(3) as job:
        yield job


def running(job: Job, cwd: Path, *options: object) -> Running:
    """runtest as the shell of an allocation starts it."""
    inside = ["env", *(f"{name}={value}" for name, value in job.inside.items())]
    return Running(*ENDLESS, "-h", "slurm", "-r", "/tmp/x", *options, cwd=cwd, inside=inside)


def left_on(slurm: SlurmCluster) -> list[object]:
    """Processes and session directories on all nodes that are on, but for Slurm's own daemons."""
    found: list[object] = []
    for index, host in enumerate(slurm.hosts.hosts):
        if host.init is not None:
            found += [
                process
                for process in slurm.hosts.processes(index)
                if not process.argv[0].startswith(("slurmd", "slurmstepd"))
            ]
            found += slurm.hosts.path(index, "/tmp/x").glob("perftest-*/*")
    return found


def assert_nothing_left(slurm: SlurmCluster) -> None:
    slurm.wait_for("nothing is left", lambda: not left_on(slurm) and not sruns_of(slurm))


def sruns_of(slurm: SlurmCluster) -> list[Path]:
    config = slurm.environment["SLURM_CONF"]
    entries = [entry for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [entry for entry in entries if is_our_srun(entry, config)]


def is_our_srun(process: Path, config: str) -> bool:
    try:
        if not (process / "cmdline").read_bytes().startswith(b"srun\0"):
            return False
        return config.encode() in (process / "environ").read_bytes()
    except OSError:
        return False


def failed(done: Ended, *words: str) -> None:
    """It ended by itself with one plain message that has these words, and says what to try."""
    assert done.status == 1, done.stderr
    assert_plain(done)
    (message,) = done.messages
    assert ". Try: " in message
    for word in words:
        assert word in message, message


HOSTLISTS = [
    *("gpu1", "gpu1,gpu2", "n[1-3]", "n[01-12]", "n[8-11]", "n[1,3,5-7]", "n[001,5]"),
    *("rack[0-1]n[08-10]", "a[1-2],b,c[3]", "n[099-101]"),
]


@pytest.mark.parametrize("hostlist", HOSTLISTS)
def test_a_list_of_nodes_is_written_out_as_scontrol_does(
    slurm: SlurmCluster, hostlist: str
) -> None:
    assert expand(hostlist) == slurm.run("scontrol", "show", "hostnames", hostlist).stdout.split()


@pytest.mark.tensorflow
def test_three_nodes_measure_with_parameter_servers_in_a_submitted_job(
    slurm: SlurmCluster, tmp_path: Path
) -> None:
    # All of it lies in a folder that all nodes share; /tmp they do not.
    shared = slurm.folder / "shared"
    shared.mkdir()
    # What the job asks for its own steps must not keep ours from starting.
    asked = [f"--sbatch-option=--{o}" for o in ("mem-per-cpu=100", "cpus-per-task=2", "gpus=3")]
    where = ("-n", 3, "--device", "cpu", "-r", shared / "x")
    environment = slurm.environment
    done = runtest("submit", *SMALL, *where, *asked, cwd=shared, environment=environment)
    job = Job(slurm, done.stdout.split("submitted job ")[1].split(":")[0])
    slurm.wait_for("the batch job has ended", lambda: job.is_over, 90)
    (output,) = (shared / "logs" / "jobs").glob("*/output")
    said = output.read_text()
    assert job.state == "COMPLETED", said
    assert "Nodes: 3; GPUs per node: 1; Images/sec: " in said
    (record,) = (shared / "logs" / "runs").glob("*/run.json")
    tasks = json.loads(record.read_text())["plan"]["tasks"]
    addresses = [task["address"].split(":") for task in tasks]
    # Addresses are Slurm's, and no job begins at the port of another.
    assert {host for host, _ in addresses} == {host.address for host in slurm.hosts.hosts}
    assert all(int(port) >= 2222 + 32 * int(job.id) for _, port in addresses)
    assert not list((shared / "x").glob("perftest-*/*"))


@pytest.mark.tensorflow
def test_three_nodes_measure_with_all_reduce_in_an_allocation(
    slurm: SlurmCluster, tmp_path: Path
) -> None:
    words = [RUNTEST, *map(str, SMALL), "--strategy", "all_reduce", "-h", "slurm", "-r", "/tmp/x"]
    salloc = ("salloc", "-N3", "--gres=gpu:1", f"--chdir={tmp_path}")
    done = slurm.run(*salloc, *words, "--logs", str(tmp_path / "logs"), seconds=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("Nodes: 3; GPUs per node: 1; Images/sec: ")
    assert_nothing_left(slurm)


@pytest.mark.tensorflow
def test_a_job_that_is_cancelled_in_the_middle_leaves_nothing_and_says_so(
    slurm: SlurmCluster, job: Job, tmp_path: Path
) -> None:
    with running(job, tmp_path, "-n", 2) as command:
        command.wait_for("all workers: measuring")
        slurm.run("scancel", job.id)
        done = ended(command, within=15)
    failed(done, f"Slurm cancelled job {job.id}")
    assert_nothing_left(slurm)


@pytest.mark.tensorflow
def test_a_node_that_dies_in_the_middle_is_noticed_long_before_slurm_does(
    slurm: SlurmCluster, job: Job, tmp_path: Path
) -> None:
    with running(job, tmp_path) as command:
        command.wait_for("all workers: measuring")
        slurm.hosts.power_off(1)
        done = ended(command, within=30)
    assert job.state == "RUNNING"
    assert_nothing_left(slurm)
    slurm.revive(1)
    failed(done, "node1 (Slurm job", "has not been heard of", "worker 1 ran there")


@pytest.mark.tensorflow
def test_a_launcher_that_is_killed_leaves_nothing(
    slurm: SlurmCluster, job: Job, tmp_path: Path
) -> None:
    with running(job, tmp_path) as command:
        command.wait_for("all workers: importing")
        command.send(signal.SIGKILL)
        command.end(5)
        assert_nothing_left(slurm)


class _Quiet:
    def node_greeted(self, node: int, hello: Hello) -> None:
        """Nothing to be shown."""


def test_time_limits_are_told_and_an_srun_whose_node_went_silent_is_killed(
    slurm: SlurmCluster, job: Job
) -> None:
    # Both take half a minute, so they wait together: Slurm looks for limits that often, and an
    # agent is given up after that long.
    with slurm.job(1, "--time=1") as short:
        environment = {**slurm.environment, **job.inside}
        options = NodeOptions("/tmp/x", sys.executable)
        alone = [Node("node0", "node0", "Slurm job")]
        both = [Node(name, name, "Slurm job") for name in NAMES[1:]]
        with (
            Session(alone, SlurmTransport(short.id, environment), options, "s1") as limited,
            Session(both, SlurmTransport(job.id, environment), options, "s2") as silent,
        ):
            for session in (limited, silent):
                session.open(lambda _: Greet(VERSION, "s", ()), _Quiet())
            slurm.run("scontrol", "update", f"JobId={short.id}", "EndTime=now")
            slurm.hosts.link_down(2)
            start = time.monotonic()
            slurm.wait_for("both are over", lambda: over(limited, 0) and over(silent, 1), 50)
            assert time.monotonic() - start < 45
            assert silent.is_open(0)
        why, lost = limited.why_closed(0), silent.why_closed(1)
    slurm.hosts.link_up(2)
    assert f"Slurm cancelled job {short.id} (time limit)" in str(why)
    assert "--time" in str(why)
    assert "node2" in str(lost)
    assert "30 s" in str(lost)
    assert_nothing_left(slurm)


def over(session: Session, node: int) -> bool:
    return session.why_closed(node) is not None


def test_an_agent_sees_the_gpus_of_its_step_alone(slurm: SlurmCluster) -> None:
    # No GPU is here: nvidia-smi is a script that lists four. Which are ours is Slurm's word.
    lines = "".join(f"GPU-{i}, Pretended, 1000, 1.0\\n" for i in range(4))
    program = slurm.folder / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n[ $1 = -L ] || printf '{lines}'\n")
    program.chmod(0o755)
    options = NodeOptions("/tmp/x", sys.executable)
    seen = []
    with slurm.job(1, "--gres=gpu:1") as first, slurm.job(1, "--gres=gpu:2") as second:
        for job in (first, second):
            environment = {**slurm.environment, **job.inside}
            environment["PATH"] = f"{program.parent}:{environment['PATH']}"
            nodes = [Node("node0", "node0")]
            with Session(nodes, SlurmTransport(job.id, environment), options, "s") as session:
                session.open(lambda _: Greet(VERSION, "s", ()), _Quiet())
                seen.append([gpu.uuid for gpu in session.hellos[0].gpus])
    assert [len(gpus) for gpus in seen] == [1, 2]
    assert not set(seen[0]) & set(seen[1])


def test_outside_of_an_allocation_it_says_how_to_get_one(tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    words = [RUNTEST, "-m", "deepmnist", "-h", "slurm"]
    done = subprocess.run(words, cwd=tmp_path, env=clean, capture_output=True, text=True)
    assert done.returncode == 2
    assert "not inside a Slurm allocation" in done.stderr
    assert "salloc" in done.stderr


def test_more_nodes_than_the_allocation_has_are_refused(job: Job, tmp_path: Path) -> None:
    asked = ("-m", "deepmnist", "-h", "slurm", "-n", 4)
    done = runtest(*asked, cwd=tmp_path, environment=job.inside)
    assert done.returncode == 2
    assert f"Slurm job {job.id} has 3 nodes, but -n asks for 4. Try: -n 3" in done.stderr


def test_a_missing_srun_is_told(job: Job, tmp_path: Path) -> None:
    asked = ("-m", "deepmnist", "-h", "slurm")
    done = runtest(*asked, cwd=tmp_path, environment={**job.inside, "PATH": "/nowhere"})
    assert done.returncode == 2
    assert "no srun on PATH" in done.stderr


def test_a_job_that_is_over_is_told_as_srun_says_it(
    slurm: SlurmCluster, job: Job, tmp_path: Path
) -> None:
    environment = job.inside
    slurm.run("scancel", job.id)
    slurm.wait_for("it is over", lambda: job.is_over)
    asked = ("-m", "deepmnist", "-h", "slurm", "-n", 1)
    done = runtest(*asked, cwd=tmp_path, environment=environment)
    assert done.returncode == 1
    assert f"srun starts nothing there: Slurm job {job.id} has expired" in done.stderr

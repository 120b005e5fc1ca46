"""`--profile DIR`: a trace of every worker comes home, and nothing else changes or gets in."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from agents import JOB
from command import runtest
from hosts import NamespaceHosts
from test_runtest import over_ssh

from launcher.traces import Traces
from perftest.measure import StepResult
from perftest.profiling import profile
from perftest.protocol import MOST_TRACE_BYTES, TRACE_PIECE_BYTES, Job, Phase, TracePiece

FULL = base64.b64encode(bytes(TRACE_PIECE_BYTES)).decode()


def steps_traced(path: Path) -> int:
    """How many steps a trace has, as TensorBoard counts them."""
    return events(path).count("step")


def events(path: Path) -> list[str]:
    """The names of all events of a trace: an operation is `<its name>:<its type>`."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    space.ParseFromString(path.read_bytes())
    return [
        plane.event_metadata[event.metadata_id].name
        for plane in space.planes
        for line in plane.lines
        for event in line.events
    ]


@pytest.mark.network
@pytest.mark.tensorflow
def test_the_traces_of_two_hosts_come_home_and_what_is_measured_stays_the_same(
    hosts: NamespaceHosts, tmp_path: Path
) -> None:
    argv = ("-m", "deepmnist", "-b", 4, "--steps", 6, "--warmup", 2, "--json")
    done = runtest(*argv, "--profile", "traces", *over_ssh(hosts), cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    run = tmp_path / result["run_folder"]
    folder = tmp_path / "traces" / "plugins" / "profile" / run.name
    names = [f"{alias}-worker-{i}.xplane.pb" for i, alias in enumerate(("node0", "node1"))]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert [steps_traced(folder / name) for name in names] == [5, 5]
    assert [tmp_path / path for path in result["traces"]] == [folder / name for name in names]

    steps = pd.read_csv(run / "steps.csv")
    assert steps.groupby(["worker", "phase"]).size().to_dict() == {
        (worker, phase): count
        for worker in (0, 1)
        for phase, count in (("measured", 6), ("warmup", 2))
    }
    record = json.loads((run / "run.json").read_text())
    began = [each["name"] for each in record["startup"] if each["role"] == "worker"]
    assert began.index("measuring") < began.index("profiling")
    assert set(record["traces"]) == {"0", "1"}
    for host in range(2):
        assert hosts.processes(host) == []


def test_a_folder_that_cannot_be_written_is_told_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = runtest("-m", "deepmnist", "--profile", "file/traces", cwd=tmp_path)
    assert done.returncode == 2
    assert "--profile file/traces: nothing can be written in" in done.stderr
    assert "Not a directory" in done.stderr
    assert not (tmp_path / "logs").exists()


class Told:
    """An agent's link that keeps what is said."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    def phase(self, name: str) -> None:
        self.messages.append(Phase(name, 0.0))

    def tell(self, message: object) -> None:
        self.messages.append(message)


def traced(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, list[Any]]:
    """How many steps are made for it, and what is told."""
    monkeypatch.chdir(tmp_path)
    told, made = Told(), []

    def step() -> StepResult:
        made.append(1)
        return StepResult(math.nan, len(made))

    profile(job, told, step)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
    return len(made), told.messages


@pytest.mark.tensorflow
def test_the_steps_are_made_even_if_the_profiler_cannot_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import tensorflow as tf

    job = type(JOB)(**{**vars(JOB), "profile_steps": 3})
    tf.profiler.experimental.start(str(tmp_path_factory.mktemp("another")))
    try:
        made, told = traced(job, tmp_path, monkeypatch)
    finally:
        tf.profiler.experimental.stop()

    assert made == 3
    (piece,) = [each for each in told if isinstance(each, TracePiece)]
    assert (piece.data, piece.last) == ("", True)
    assert "profiler" in piece.problem.lower()


def test_without_being_asked_nothing_is_traced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert traced(JOB, tmp_path, monkeypatch) == (0, [])


# What comes home is written as ours alone says.


def test_pieces_become_one_file_in_the_folder_of_the_run_whatever_the_node_is_called(
    tmp_path: Path,
) -> None:
    traces = Traces(tmp_path / "traces", "run")
    assert not traces.take(3, "../../etc/x", TracePiece(FULL, last=False))
    assert not traces.take(3, "../../etc/x", TracePiece("AAEC", last=True))
    traces.end()

    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert found == [traces.folder / "etc-x-worker-3.xplane.pb"]
    assert traces.written == {3: found[0]}
    assert found[0].read_bytes() == bytes(TRACE_PIECE_BYTES) + b"\0\1\2"


@pytest.mark.parametrize(
    ("pieces", "says"),
    [
        ([TracePiece("no base64!", True)], "that is no base64"),
        ([TracePiece("ä", True)], "that is no base64"),
        ([TracePiece("AAEC", False)], "that is cut short"),
        ([TracePiece("", False)], "that is cut short"),
        ([TracePiece("AAEC", True), TracePiece("AAEC", True)], "after its last piece"),
        ([TracePiece(FULL + "AAEC", False)], "of more than 64 MiB"),
    ],
)
def test_pieces_that_no_honest_worker_sends_are_refused(
    pieces: list[TracePiece], says: str, tmp_path: Path
) -> None:
    traces = Traces(tmp_path, "run")
    *before, last = pieces
    assert [traces.take(0, "node0", each) for each in before] == [""] * len(before)
    assert traces.take(0, "node0", last) == says


def test_a_trace_without_end_is_cut_off_and_nothing_of_it_stays(tmp_path: Path) -> None:
    traces = Traces(tmp_path, "run")
    most = MOST_TRACE_BYTES // TRACE_PIECE_BYTES
    said = [traces.take(0, "node0", TracePiece(FULL, last=False)) for _ in range(most + 1)]
    assert said == [""] * most + ["of more than 64 MiB"]
    traces.end()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_worker_that_has_no_trace_is_told_and_one_that_cannot_be_kept(tmp_path: Path) -> None:
    traces = Traces(tmp_path, "run")
    assert not traces.take(1, "node0", TracePiece("", True, "no \x1b[31mCUPTI"))
    traces.folder.parent.mkdir(parents=True)
    traces.folder.touch()
    assert not traces.take(0, "node0", TracePiece("AAEC", True))

    assert traces.written == {}
    nothing, cannot = traces.problems
    assert nothing.startswith("worker 1: there is no trace of it: no ")
    assert nothing.isprintable()
    assert cannot.startswith("cannot write ")

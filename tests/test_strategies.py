"""Training itself: what N workers compute together is what one process computes alone.

Real agents, real TensorFlow servers, DeepMNIST without its dropout (a mask of its own for each
worker would make the comparison meaningless).
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from agents import JOB
from test_profile import events, steps_traced

from launcher.nodes import Node
from launcher.outcome import Outcome
from launcher.plan import greeting, make_plan
from launcher.results.steps import frame
from launcher.run import execute
from launcher.session import NodeOptions, Session
from launcher.tasks import Options
from launcher.traces import Traces
from launcher.transports.local import LocalTransport
from perftest.strategies import all_reduce, load, names

pytestmark = pytest.mark.tensorflow


class Quiet:
    """Observes nothing."""

    def node_greeted(self, *_: object) -> None: ...
    def run_started(self, *_: object) -> None: ...
    def phase(self, *_: object) -> None: ...
    def steps(self, *_: object) -> None: ...
    def interrupted(self, *_: object) -> None: ...
    def run_ending(self, *_: object) -> None: ...


def train(
    tmp_path: Path, name: str, nodes: int = 1, python: str = sys.executable, **changes: Any
) -> Outcome:
    """Run 2 + 4 steps of DeepMNIST without dropout on this machine; traces go to `tmp_path`."""
    asked = Options(model="deepmnist", warmup_steps=2, measured_steps=4, **changes)
    where = [Node("127.0.0.1", f"local{i}") for i in range(nodes)]
    options = NodeOptions(str(tmp_path), python)
    outcome = Outcome()
    logs: list[bytes] = []
    with Session(where, LocalTransport(), options, name) as session:
        session.open(lambda node: greeting(asked, node, name), Quiet())
        plan = make_plan(asked, session.nodes, session.hellos)
        plan = replace(plan, job=replace(plan.job, model_options={"dropout": 0.0}))
        traces = Traces(tmp_path, name)
        told = (Quiet(), lambda _, data: logs.append(data), outcome, traces)
        try:
            execute(session, plan, name, *told)
        except Exception:
            print(b"".join(logs).decode())
            raise
    outcome.traces = traces.written
    return outcome


def losses(outcome: Outcome) -> np.ndarray:
    """The loss of each step over the global batch: the mean over its workers."""
    table = frame(outcome.records)
    return table.groupby("step")["loss"].mean().to_numpy()


def steps(outcome: Outcome) -> pd.DataFrame:
    return frame(outcome.records)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """One process with a batch of 32."""
    way = {"strategy": "single", "profile_steps": 2}
    return train(tmp_path_factory.mktemp("alone"), "alone", batch_size=32, **way)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Four synchronous workers on two nodes with batches of 8, and two parameter servers, which
    each of them sends its own gradients to.
    """
    folder = tmp_path_factory.mktemp("together")
    return train(folder, "sync", 2, batch_size=8, gpus_per_node=2, aggregation="none")


@pytest.fixture(scope="module")
def by_node(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Four workers with batches of 8, three on one node and one on another, with three servers;
    the gradients of a node are added up there.
    """
    folder = tmp_path_factory.mktemp("node")
    return train(folder, "node", 2, batch_size=8, gpus_per_node=3, workers=4, parameter_servers=3)


@pytest.fixture(scope="module")
def adding_up(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Four workers on two nodes with batches of 8 that add up their gradients among themselves.

    `ring` is asked for; what TensorFlow chooses by itself is in the runs in fewer bits.
    """
    folder = tmp_path_factory.mktemp("reduce")
    way = {"strategy": "all_reduce", "communication": "ring", "profile_steps": 2}
    return train(folder, "reduce", 2, batch_size=8, gpus_per_node=2, **way)


@pytest.fixture(scope="module")
def each_by_itself(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The same four workers, asynchronous."""
    folder = tmp_path_factory.mktemp("async")
    return train(folder, "async", 2, batch_size=8, gpus_per_node=2, synchronous=False)


def test_four_synchronous_workers_train_as_one_process_with_four_times_the_batch(
    alone: Outcome, together: Outcome
) -> None:
    assert len(losses(alone)) == 6
    np.testing.assert_allclose(losses(together), losses(alone), rtol=2e-6)
    assert together.finished[0].parameter_norm == pytest.approx(
        alone.finished[0].parameter_norm, rel=1e-6
    )


def test_workers_whose_gradients_are_added_up_on_uneven_nodes_train_as_one_process(
    alone: Outcome, by_node: Outcome
) -> None:
    np.testing.assert_allclose(losses(by_node), losses(alone), rtol=2e-6)
    assert by_node.finished[0].parameter_norm == pytest.approx(
        alone.finished[0].parameter_norm, rel=1e-6
    )


def test_gradients_of_16_bits_train_nearly_as_well(tmp_path: Path, alone: Outcome) -> None:
    """That they have 16 bits shows in test_precision.py, and on the links in test_runtest.py."""
    sent = train(tmp_path, "bf16", 2, batch_size=16, gradient_dtype="bf16")
    np.testing.assert_allclose(losses(sent), losses(alone), rtol=1e-4)


def test_four_workers_that_add_up_gradients_train_as_one_process_with_four_times_the_batch(
    alone: Outcome, adding_up: Outcome
) -> None:
    np.testing.assert_allclose(losses(adding_up), losses(alone), rtol=2e-6)
    assert adding_up.finished[0].parameter_norm == pytest.approx(
        alone.finished[0].parameter_norm, rel=1e-6
    )


@pytest.mark.parametrize("communication", ["auto", "ring", "nccl"])
def test_tensorflow_is_told_how_gradients_are_to_be_added_up(communication: str) -> None:
    options = all_reduce.communication_of(replace(JOB, communication=communication))
    assert options.implementation.name == communication.upper()
    assert options.bytes_per_pack > 0, "the first gradients travel while the rest is computed"


def test_the_gradients_of_all_parameters_are_added_up_by_one_operation_a_step(
    adding_up: Outcome,
) -> None:
    for path in adding_up.traces.values():
        made = events(path)
        # DeepMNIST has 8 parameters, each of which is read in every step.
        assert sum("ReadVariableOp:" in each for each in made) >= 8 * 2
        assert [each for each in made if each.endswith(":CollectiveReduceV2")] == [
            "CollectiveReduceV2:CollectiveReduceV2"
        ] * 2


@pytest.mark.parametrize(
    ("strategy", "way"),
    [
        ("parameter_server", {"precision": "fp16"}),
        ("parameter_server", {"precision": "bf16", "xla": "on"}),
        ("all_reduce", {"precision": "fp16", "xla": "on"}),
    ],
    ids=str,
)
def test_two_workers_that_compute_in_fewer_bits_train_as_one_process_but_for_these(
    tmp_path: Path, alone: Outcome, strategy: str, way: dict[str, Any]
) -> None:
    way = {"strategy": strategy, "profile_steps": 1, **way}
    outcome = train(tmp_path, "bits", batch_size=16, gpus_per_node=2, **way)
    # The mean of 32 losses: each of 11 or 8 bits, and six updates that differ by as little.
    off = np.abs(losses(outcome) / losses(alone) - 1)
    assert off.max() < 1e-3
    assert off.max() > 2e-6, "these are float32"
    assert outcome.finished[0].skipped_updates == 0
    assert set(outcome.traces) == {0, 1}
    compiles = way.get("xla") == "on"
    assert [is_compiled(path) for path in outcome.traces.values()] == [compiles] * 2


def is_compiled(trace: Path) -> bool:
    """Whether XLA has the convolutions of a traced step; else each is an operation of its own."""
    kinds = {each.partition(":")[2] for each in events(trace)}
    assert "ReadVariableOp" in kinds, "operations are traced"
    return not any("Conv2D" in kind for kind in kinds)  # oneDNN has other names for its own


def test_a_worker_that_adds_up_knows_the_time_of_its_own_part(adding_up: Outcome) -> None:
    table = steps(adding_up)
    measured = table[table["phase"] == "measured"]
    assert (measured["compute_seconds"] > 0).all()
    assert (measured["compute_seconds"] < measured["seconds"] * 1.05).all()


def test_a_process_by_itself_is_traced_if_asked(alone: Outcome) -> None:
    assert set(alone.traces) == {0}
    assert steps_traced(alone.traces[0]) == 2
    assert not is_compiled(alone.traces[0])
    assert len(alone.records) == 6, "and these steps are in no figure"


def test_every_worker_that_adds_up_is_traced_if_asked(adding_up: Outcome) -> None:
    assert set(adding_up.traces) == {0, 1, 2, 3}
    assert {steps_traced(path) for path in adding_up.traces.values()} == {2}
    assert len(adding_up.records) == 4 * 6, "and these steps are in no figure"


def test_the_loss_falls_so_that_the_comparison_means_something(alone: Outcome) -> None:
    fall = losses(alone)[0] - losses(alone)[-1]
    assert fall > 0.02


def test_asynchronous_workers_do_not_pass_for_synchronous_ones(
    alone: Outcome, each_by_itself: Outcome
) -> None:
    difference = np.abs(losses(each_by_itself)[1:] / losses(alone)[1:] - 1)
    assert difference.max() > 1e-3


def test_a_synchronous_step_is_one_update_with_the_gradients_of_all(together: Outcome) -> None:
    table = steps(together)
    for worker in range(4):
        mine = table[table["worker"] == worker]
        assert mine["global_step"].tolist() == [1, 2, 3, 4, 5, 6]


def test_asynchronous_workers_make_an_update_each(each_by_itself: Outcome) -> None:
    table = steps(each_by_itself)
    assert len(table) == 24
    assert table["global_step"].max() >= 24


@pytest.mark.parametrize("run", ["together", "by_node", "each_by_itself"])
def test_the_parts_of_a_step_are_the_whole_of_it(run: str, request: pytest.FixtureRequest) -> None:
    table = steps(request.getfixturevalue(run))
    measured = table[table["phase"] == "measured"]
    parts = measured[["pull_seconds", "compute_seconds", "push_seconds", "wait_seconds"]]
    assert (parts >= 0).all(axis=None)
    rest = measured["seconds"] - parts.sum(axis=1)
    assert (rest > -1e-3).all()  # two clocks
    assert rest.median() < 0.1 * measured["seconds"].median()


@pytest.mark.parametrize("run", ["together", "by_node"])
def test_what_servers_hold_is_told_and_balanced(run: str, request: pytest.FixtureRequest) -> None:
    outcome: Outcome = request.getfixturevalue(run)
    held = [each.bytes for each in outcome.servers.holds]
    assert sum(held) == 4 * outcome.finished[0].parameters
    assert max(held) < 1.01 * min(held)
    assert sum(each.pieces for each in outcome.servers.holds) == len(held)


def test_updates_need_not_wait_for_backup_workers(tmp_path: Path, alone: Outcome) -> None:
    outcome = train(tmp_path, "backup", batch_size=8, gpus_per_node=3, backup_workers=1)
    table = steps(outcome)
    assert set(table["worker"]) == {0, 1, 2}
    # An update gives 3 tokens, and 3 workers × 6 steps take 18. While a worker waits for the others
    # at the barrier it trains on, uncounted, so that there may be any number of updates more.
    assert table["global_step"].max() >= 6
    for _, mine in table.groupby("worker"):
        assert mine.sort_values("step")["global_step"].is_monotonic_increasing
    assert np.isfinite(table["loss"]).all()


def test_every_strategy_is_found_by_its_file_name() -> None:
    assert {"all_reduce", "parameter_server", "single"} <= set(names())
    assert callable(load("single"))
    with pytest.raises(ValueError, match="no strategy 'os'"):
        load("os")

"""Sweeps: which points, in which order, what one failure does to the rest, what --resume lacks."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from results_examples import log_frame, row
from scripted import HELLO, Played, ScriptedTransport
from test_run import steps
from test_strategies import Quiet

from launcher.errors import ConnectionLost, NodeError, ResultsError, TaskFailed, UsageError
from launcher.measurement import measure
from launcher.nodes import Node
from launcher.plan import greeting, make_plan
from launcher.results.curve import curve
from launcher.results.log import append_row, log_path
from launcher.results.log_reading import read_log
from launcher.run_record import Context
from launcher.session import NodeOptions, Session
from launcher.sweep import (
    Item,
    Step,
    Sweep,
    SweepRunner,
    check_sweep,
    make_plans,
    parse_items,
    parse_points,
    points_up_to,
)
from launcher.sweep_record import Record, configuration, newest
from launcher.tasks import Options, RunPlan
from perftest.protocol import Finish, Finished, FromTask, Go, Greet, Ready, RunEnded, Start, Stop

NODES = [Node(f"host{i}", f"node{i}", f"nodes, line {i + 1}") for i in range(2)]
ITEM = Item("deepmnist", 8)


def sweep(
    *points: int,
    items: Iterable[Item] = (ITEM,),
    repeats: int = 1,
    per_node: int = 1,
    baseline: str = "single",
    **changes: object,
) -> Sweep:
    asked = Options("deepmnist", gpus_per_node=per_node, warmup_steps=1, measured_steps=2)
    return Sweep(tuple(items), points or (1, 2), repeats, baseline, replace(asked, **changes))  # type: ignore[arg-type]


# Which points.


@pytest.mark.parametrize(
    ("largest", "points"),
    [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (8, (1, 2, 4, 8)), (12, (1, 2, 4, 8, 12))],
)
def test_points_double_up_to_the_largest_and_end_with_it(
    largest: int, points: tuple[int, ...]
) -> None:
    assert points_up_to(largest) == points


def test_other_points_are_sorted_and_taken_once() -> None:
    assert parse_points("6, 1,3,3") == (1, 3, 6)


@pytest.mark.parametrize("text", ["", "1,,2", "0,1", "-1", "1.5", "two", "99999999", "1;2", "٣"])
def test_a_point_that_is_no_number_of_gpus_is_named(text: str) -> None:
    with pytest.raises(UsageError, match=r"--points: '.*' is no number of GPUs"):
        parse_points(text)


def test_items_are_models_with_batch_sizes() -> None:
    assert parse_items("inceptionv3:32, alexnet:512,keras:VGG16:8") == (
        Item("inceptionv3", 32),
        Item("alexnet", 512),
        Item("keras:VGG16", 8),
    )


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("resnet", "'resnet' is not MODEL:BATCH"),
        ("resnet:32,", "'' is not MODEL:BATCH"),
        ("resnet:0", "'resnet:0' is not MODEL:BATCH"),
        ("resnet:32,alexnet:many", "'alexnet:many' is not MODEL:BATCH"),
        (":32", "':32' is not MODEL:BATCH"),
        ("resnet:32,resnet:32", "'resnet:32' is there twice"),
    ],
)
def test_a_bad_item_is_named(text: str, bad: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_items(text)
    assert bad in str(caught.value)


# What each point is.


def plans(asked: Sweep) -> dict[tuple[Item, int], RunPlan]:
    hellos = [replace(HELLO, cpus=(0, 1, 2, 3))] * 2
    return make_plans(asked, NODES, hellos)


def test_one_node_is_filled_before_the_next_is_taken() -> None:
    made = plans(sweep(1, 2, 3, 4, per_node=2))
    on = {gpus: [task.node for task in made[ITEM, gpus].workers] for gpus in (1, 2, 3, 4)}
    assert on == {1: [0], 2: [0, 0], 3: [0, 0, 1], 4: [0, 0, 1, 1]}
    assert [len(made[ITEM, gpus].nodes) for gpus in (1, 2, 3, 4)] == [1, 1, 2, 2]
    assert [made[ITEM, gpus].gpus_per_node for gpus in (1, 2, 3, 4)] == [1, 2, 2, 2]
    assert [len(made[ITEM, gpus].servers) for gpus in (1, 2, 3, 4)] == [0, 1, 2, 2]


def test_a_worker_has_the_same_processors_at_every_point() -> None:
    made = plans(sweep(1, 2, 4, per_node=2))
    assert {task.place.cpus for plan in made.values() for task in plan.workers[:1]} == {(0,)}
    assert [task.place.cpus for task in made[ITEM, 4].workers] == [(0,), (1,), (2,), (3,)]


def test_one_gpu_is_measured_as_the_baseline_says() -> None:
    options = {"synchronous": False, "parameter_servers": 2, "gradient_dtype": "bf16"}
    assert plans(sweep(aggregation="none"))[ITEM, 1].job.strategy == "single"
    alone = plans(sweep(**options))[ITEM, 1]
    assert (alone.job.strategy, alone.job.synchronous, alone.servers) == ("single", True, ())
    summed = plans(sweep(strategy="all_reduce", communication="ring"))
    assert [summed[ITEM, gpus].job.communication for gpus in (1, 2)] == ["auto", "ring"]
    served = plans(sweep(baseline="parameter_server", **options))[ITEM, 1]
    assert (served.job.strategy, served.job.synchronous) == ("parameter_server", False)
    assert len(served.servers) == 2


def test_backup_workers_leave_one_gpu_alone_but_no_other_point_without_any() -> None:
    check_sweep(sweep(1, 2, baseline="parameter_server", backup_workers=1))
    with pytest.raises(UsageError, match="--backup-workers 2 leaves none of 2"):
        check_sweep(sweep(1, 2, backup_workers=2))


# The order, and what a failure does to the rest.


def run(
    asked: Sweep,
    fails: Callable[[Step], Exception | None] = lambda _: None,
    closed: Callable[[int], NodeError | None] = lambda _: None,
    done: Iterable[Step] = (),
) -> tuple[list[Step], SweepRunner, list[str]]:
    made: list[Step] = []
    said: list[str] = []

    def measure_one(step: Step) -> float:
        made.append(step)
        if error := fails(step):
            raise error
        return 100.0 * step.gpus

    runner = SweepRunner(plans(asked), measure_one, closed, said.append)
    for item in asked.items:
        runner.run(asked, item, set(done))
    return made, runner, said


def test_repeats_are_interleaved_and_models_one_after_the_other() -> None:
    items = [ITEM, Item("deepmnist", 16)]
    made, _, said = run(sweep(1, 2, items=items, repeats=2))
    assert [(step.item.batch_size, step.repeat, step.gpus) for step in made] == [
        (batch, repeat, gpus) for batch in (8, 16) for repeat in (1, 2) for gpus in (1, 2)
    ]
    assert said[:2] == [
        "point 1 of 8: deepmnist, 1 worker, repeat 1 of 2",
        "point 1 of 8: 100.0 images/sec",
    ]


def test_only_what_is_not_done_is_measured() -> None:
    asked = sweep(1, 2, repeats=2)
    made, _, said = run(asked, done=[Step(ITEM, 1, 1), Step(ITEM, 2, 2)])
    assert made == [Step(ITEM, 2, 1), Step(ITEM, 1, 2)]
    assert said[0] == "point 2 of 4: 2 workers, repeat 1 of 2"


def test_a_point_that_fails_is_told_and_the_rest_is_measured() -> None:
    def fails(step: Step) -> Exception | None:
        return TaskFailed("node1", "worker 1 failed") if step.gpus == 2 else None

    made, runner, said = run(sweep(1, 2, repeats=2), fails)
    assert len(made) == 4
    assert [failure.step for failure in runner.failures] == [Step(ITEM, 2, 1), Step(ITEM, 2, 2)]
    assert "point 2 of 4 (2 workers, repeat 1 of 2) failed: node1: worker 1 failed" in said


def test_points_that_need_a_lost_node_fail_at_once_with_its_reason() -> None:
    lost = ConnectionLost("node1", "the connection was lost")
    made, runner, _ = run(sweep(1, 2, repeats=2), closed=lambda node: lost if node == 1 else None)
    assert made == [Step(ITEM, 1, 1), Step(ITEM, 1, 2)]
    assert {failure.reason for failure in runner.failures} == {"node1: the connection was lost"}


def test_a_sweep_whose_rows_cannot_be_written_ends() -> None:
    with pytest.raises(ResultsError):
        run(sweep(1, 2), fails=lambda _: ResultsError("no space left"))


def test_an_interrupt_ends_a_sweep() -> None:
    with pytest.raises(KeyboardInterrupt):
        run(sweep(1, 2), fails=lambda step: KeyboardInterrupt() if step.gpus == 2 else None)  # type: ignore[arg-type,return-value]


# Over real sessions, with nodes that are played.


def serve(node: Played, runs: int = 99) -> None:
    """A node that serves that many runs well, and then leaves without a word.

    Its first port is taken by somebody else after the first run.
    """
    node.greet()
    served = 0
    while served < runs:
        start = node.hear(Start, Stop, Greet)
        if isinstance(start, Greet):
            node.say(replace(HELLO, free_ports=HELLO.free_ports[min(served, 1) :]))
            continue
        if not isinstance(start, Start):
            break
        PORTS.append(start.job.cluster.ps)
        served += 1
        workers = [place.index for place in start.places if place.role == "worker"]
        for index in workers:
            node.say(FromTask(start.run_id, "worker", index, steps(0, 1, False)))
            node.say(FromTask(start.run_id, "worker", index, Ready()))
        if isinstance(node.hear(Go, Finish), Go):
            for index in workers:
                node.say(FromTask(start.run_id, "worker", index, steps(1, 2, True)))
                node.say(FromTask(start.run_id, "worker", index, Finished(10, None, "CPU")))
            node.hear(Finish)
        node.say(RunEnded(start.run_id, ()))
    node.leave(-1 if runs < 99 else 0)


PORTS: list[tuple[str, ...]] = []


def play(transport: ScriptedTransport, asked: Sweep, logs: Path) -> SweepRunner:
    with Session(NODES, transport, NodeOptions("", "python3"), "s") as session:
        session.open(lambda node: greeting(asked.options, node, "s"), Quiet())

        def measure_one(step: Step) -> float:
            session.greet_again(lambda node: greeting(asked.options, node, "s"), step.gpus)
            point = asked.options_of(step.item, step.gpus)
            plan = make_plan(point, session.nodes, session.hellos)
            context = Context(logs, [], "the sweep", step.repeat)
            return measure(session, plan, context, Quiet()).row.images_per_sec

        made = make_plans(asked, session.nodes, session.hellos)
        runner = SweepRunner(made, measure_one, session.why_closed, print)
        runner.run(asked, ITEM, Record(logs, "the sweep").done(asked))
    return runner


def in_log(logs: Path) -> list[tuple[int, int]]:
    rows, _ = read_log(log_path(logs, "deepmnist", 8))
    return [(int(gpus), int(n)) for gpus, n in zip(rows["gpus"], rows["repeat"], strict=True)]


def test_all_runs_go_over_one_set_of_connections_and_each_row_is_kept(tmp_path: Path) -> None:
    transport = ScriptedTransport(serve)
    runner = play(transport, sweep(1, 2, repeats=2), tmp_path)
    assert runner.failures == []
    assert sorted(transport.opened) == ["node0", "node1"]
    assert in_log(tmp_path) == [(1, 1), (2, 1), (1, 2), (2, 2)]


def test_every_run_asks_anew_for_ports_that_are_free(tmp_path: Path) -> None:
    PORTS.clear()
    play(ScriptedTransport(serve), sweep(1, baseline="parameter_server", repeats=2), tmp_path)
    assert PORTS == [("host0:2222",), ("host0:2223",)]


def test_a_node_that_is_lost_takes_only_its_points_with_it(tmp_path: Path) -> None:
    transport = ScriptedTransport(serve, node1=lambda node: serve(node, runs=1))
    runner = play(transport, sweep(1, 2, repeats=3), tmp_path)
    assert in_log(tmp_path) == [(1, 1), (2, 1), (1, 2), (1, 3)]
    assert len(runner.failures) == 2
    assert all("node1 (nodes, line 2): the connection" in f.reason for f in runner.failures)


def test_a_cut_off_sweep_is_taken_up_where_its_log_ends(tmp_path: Path) -> None:
    transport = ScriptedTransport(serve, node1=lambda node: serve(node, runs=1))
    asked = sweep(1, 2, repeats=2)
    play(transport, asked, tmp_path)
    assert in_log(tmp_path) == [(1, 1), (2, 1), (1, 2)]
    assert play(ScriptedTransport(serve), asked, tmp_path).failures == []
    assert in_log(tmp_path) == [(1, 1), (2, 1), (1, 2), (2, 2)]


# Which sweep is taken up.


def begun(logs: Path, sweep_id: str, asked: Sweep) -> Record:
    record = Record(logs, sweep_id)
    record.write(configuration(asked, NODES), ["runtest", "scale"])
    return record


def test_the_newest_sweep_of_the_same_kind_is_found(tmp_path: Path) -> None:
    asked = sweep(1, 2, repeats=3)
    for sweep_id, each in (
        ("20260101-000000-a", asked),
        ("20260102-000000-b", asked),
        ("20260103-000000-c", replace(asked, repeats=2)),
        ("20260104-000000-d", sweep(1, 2, repeats=3, measured_steps=5)),
    ):
        begun(tmp_path, sweep_id, each)
    (tmp_path / "sweeps" / "20260105-000000-e.json").write_text('{"configuration": ')
    (tmp_path / "sweeps" / "20260106-000000-f.json").write_text("[]")
    found = newest(tmp_path, configuration(asked, NODES))
    assert found is not None
    assert found.sweep_id == "20260102-000000-b"
    assert newest(tmp_path, configuration(asked, NODES[:1])) is None, "other nodes, other sweep"
    elsewhere = sweep(1, 2, repeats=3, first_port=4000, stall_seconds=5.0)
    assert newest(tmp_path, configuration(elsewhere, NODES)) == found, "ports change no figure"
    assert newest(tmp_path / "nowhere", {}) is None


def test_rows_of_other_sweeps_models_and_batch_sizes_do_not_count_as_done(tmp_path: Path) -> None:
    record = Record(tmp_path, "mine")
    for changes in (
        {"sweep_id": "mine", "gpus": 1, "repeat": 1},
        {"sweep_id": "other", "gpus": 2, "repeat": 1},
        {"sweep_id": "", "gpus": 2, "repeat": 0},
        {"sweep_id": "mine", "gpus": 2, "repeat": 1, "batch_per_gpu": 16},
    ):
        facts = {"model": "deepmnist", "batch_per_gpu": 8, **changes}
        done = row(**facts)
        append_row(log_path(tmp_path, done.model, done.batch_per_gpu), done)
    assert record.done(sweep(1, 2)) == {Step(ITEM, 1, 1)}


def test_two_launchers_do_not_measure_one_sweep_at_once(tmp_path: Path) -> None:
    record = begun(tmp_path, "one", sweep())
    refused: list[str] = []

    def other() -> None:
        try:
            with Record(tmp_path, "one").held():
                refused.append("nothing was refused")
        except UsageError as error:
            refused.append(str(error))

    with record.held():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert refused == [
        "sweep one is being measured by another runtest. Try: wait for it, or leave out --resume"
    ]
    with record.held():
        pass
    assert [path.name for path in (tmp_path / "sweeps").iterdir()] == ["one.json"]


def test_a_record_says_what_was_typed(tmp_path: Path) -> None:
    facts = json.loads(begun(tmp_path, "one", sweep()).path.read_text())
    assert facts["argv"] == ["runtest", "scale"]
    assert facts["configuration"]["points"] == [1, 2]


# The curve.


def rows(*facts: dict[str, object]) -> pd.DataFrame:
    usual = {"sweep_id": "s", "device": "cpu", "machines": 1}
    return log_frame([row(**(usual | each)) for each in facts])


def speeds(gpus: int, *images_per_sec: float, **facts: object) -> list[dict[str, object]]:
    return [
        {
            "run_id": f"r{gpus}-{place}",
            "gpus": gpus,
            "nodes": -(-gpus // 2),
            "gpus_per_node": min(gpus, 2),
            "strategy": "single" if gpus == 1 else "parameter_server",
            "images_per_sec": speed,
            "ci_low": 0.98 * speed,
            "ci_high": 1.02 * speed,
            **facts,
        }
        for place, speed in enumerate(images_per_sec)
    ]


def test_efficiency_is_measured_over_ideal_with_the_noise_of_both() -> None:
    one, three = (99.0, 100.0, 101.0), (267.0, 270.0, 273.0)
    found = curve(rows(*speeds(1, *one), *speeds(3, *three)))
    mean_one = 3 / sum(1 / speed for speed in one)
    mean_three = 3 / sum(1 / speed for speed in three)
    assert found.baseline == "single"
    alone, largest = found.points
    assert alone.efficiency is None
    assert alone.speed.value == pytest.approx(mean_one)
    assert largest.ideal == pytest.approx(3 * mean_one)
    assert largest.shape == "1 × 2 + 1"
    assert largest.run_ids == ("r3-0", "r3-1", "r3-2")
    assert largest.efficiency is not None
    assert largest.efficiency.value == pytest.approx(mean_three / (3 * mean_one))
    assert largest.efficiency.low < 0.9 < largest.efficiency.high
    assert largest.speed.method == "3 repeats"
    # Both relative errors in quadrature; as equal as they are, Welch's degrees of freedom are 4.
    error = math.hypot(*(point.speed.relative_error for point in found.points))
    reach = math.log(largest.efficiency.high / largest.efficiency.value)
    assert reach == pytest.approx(2.776 * error, rel=1e-2)


def test_without_a_point_of_one_gpu_there_is_no_efficiency() -> None:
    found = curve(rows(*speeds(2, 100.0)))
    assert found.baseline == ""
    assert found.points[0].efficiency is None
    assert found.points[0].ideal != found.points[0].ideal


def kinds(found: pd.DataFrame) -> list[str]:
    return [warning.kind for warning in curve(found).warnings]


def test_the_curve_says_what_to_know_before_trusting_it() -> None:
    good = [*speeds(1, 100.0, 100.0, 101.0), *speeds(2, 190.0, 190.0, 191.0)]
    assert kinds(rows(*good)) == []
    assert kinds(rows(*good[:-1])) == ["few repeats"]
    assert kinds(rows(*speeds(1, *[100.0] * 3), *speeds(2, *[210.0] * 3))) == ["over ideal"]
    assert kinds(rows(*good, *speeds(4, 300.0, 300.0, 300.0))) == ["one machine"]
    other = speeds(4, 300.0, 300.0, 300.0, machines=2, tensorflow="2.30.0")
    assert kinds(rows(*good, *other)) == ["mixed sweep"]


def test_warnings_of_runs_are_counted_and_one_of_each_kind_is_told() -> None:
    slow = "straggler: worker 1 on node0 computes 2 s a step; much; drift: steps became longer"
    crowded = "shared processors: 3 workers share 2 processors"
    found = curve(
        rows(
            *speeds(1, *[100.0] * 3),
            *speeds(2, *[190.0] * 3, warnings=slow),
            *speeds(3, *[270.0] * 3, warnings=f"{slow}; {crowded}", machines=2),
        )
    )
    assert [str(warning) for warning in found.warnings] == [
        "shared processors: 3 workers share 2 processors",
        "straggler: in 6 of 9 runs; at 3 workers: worker 1 on node0 computes 2 s a step; much",
        "drift: in 6 of 9 runs; at 3 workers: steps became longer",
    ]

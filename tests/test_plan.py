"""The plan: which process runs where. Nothing is opened, so every case is data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from launcher.errors import PlanError
from launcher.nodes import Node
from launcher.plan import make_plan
from launcher.tasks import Options, RunPlan
from perftest.protocol import Gpu, Hello, Training, Versions

HELLO = Hello(
    version=1,
    host="h",
    user="u",
    directory="/tmp/x",
    executable="/usr/bin/python3",
    versions=Versions("3.11.2", "2.21.0", "3.15.1", ""),
    gpus=(),
    gpu_problem="",
    cpus=(0, 1, 2, 3),
    cpu_model="EPYC",
    memory_bytes=1,
    disk_free_bytes=1,
    addresses=(),
    machine="m0",
    network="n0",
    free_ports=tuple(range(2222, 2222 + 256)),
)


TRAINING = Training(1, 1, 1, 0, 8, "/out", False, False, False, "")


def gpus(count: int, machine: str = "m0") -> tuple[Gpu, ...]:
    return tuple(Gpu(f"GPU-{machine}-{i}", "H100", 80000, "580") for i in range(count))


def hello(machine: int = 0, **changes: Any) -> Hello:
    return replace(HELLO, **{"machine": f"m{machine}", "network": f"n{machine}", **changes})


def nodes(count: int) -> list[Node]:
    return [Node(f"host{i}", f"node{i}", f"nodes, line {i + 1}") for i in range(count)]


def plan(hellos: list[Hello], where: list[Node] | None = None, **changes: Any) -> RunPlan:
    asked = Options(model="deepmnist", **changes)
    return make_plan(asked, where or nodes(len(hellos)), hellos)


def addresses(made: RunPlan) -> list[str]:
    return [task.address for task in made.tasks]


def test_two_nodes_with_two_workers_have_a_parameter_server_each() -> None:
    made = plan([hello(0), hello(1)], gpus_per_node=2)
    assert made.job.cluster.ps == ("host0:2222", "host1:2222")
    assert made.job.cluster.worker == ("host0:2230", "host0:2231", "host1:2230", "host1:2231")
    assert [task.node for task in made.workers] == [0, 0, 1, 1]
    assert [task.place.index for task in made.workers] == [0, 1, 2, 3]


def test_a_busy_port_is_skipped() -> None:
    free = tuple(port for port in HELLO.free_ports if port not in (2222, 2230, 2231))
    assert addresses(plan([hello(free_ports=free)])) == ["host0:2223", "host0:2232"]


def test_nodes_that_share_their_ports_get_different_ones() -> None:
    made = plan([hello(0), hello(0)], gpus_per_node=2)
    assert len({address.split(":")[1] for address in addresses(made)}) == 6


def test_nodes_with_networks_of_their_own_get_the_same_ports() -> None:
    made = plan([hello(0, network="a"), hello(0, network="b")])
    assert addresses(made) == ["host0:2222", "host1:2222", "host0:2230", "host1:2230"]


def test_more_servers_than_fit_below_the_workers_ports_stay_apart_from_them() -> None:
    made = plan([hello()], parameter_servers=12, gpus_per_node=4)
    assert len(set(addresses(made))) == 16


def test_no_free_port_is_an_error_that_names_node_and_range() -> None:
    with pytest.raises(PlanError, match=r"node0 \(nodes, line 1\): no free port from 2222 to 2477"):
        plan([hello(free_ports=())])


def test_a_node_s_own_first_port_is_used() -> None:
    where = [replace(nodes(1)[0], first_port=2300)]
    assert addresses(plan([hello()], where)) == ["host0:2300", "host0:2308"]


def test_an_ipv6_address_is_put_in_brackets() -> None:
    made = plan([hello()], [Node("fd00::1", "six")])
    assert made.job.cluster.ps == ("[fd00::1]:2222",)


@pytest.mark.parametrize(("servers", "on"), [(None, [0, 1]), (1, [0]), (3, [0, 1, 0])])
def test_parameter_servers_are_dealt_out_in_turn(servers: int | None, on: list[int]) -> None:
    made = plan([hello(0), hello(1)], parameter_servers=servers)
    assert [task.node for task in made.servers] == on


# Processors.


def cpus(made: RunPlan) -> list[tuple[int, ...]]:
    return [task.place.cpus for task in made.workers]


def test_the_workers_of_a_node_share_its_processors_out() -> None:
    assert cpus(plan([hello()], gpus_per_node=2)) == [(0, 1), (2, 3)]


def test_nodes_on_one_machine_share_its_processors_out_among_them() -> None:
    assert cpus(plan([hello(0), hello(0)], gpus_per_node=2)) == [(0,), (1,), (2,), (3,)]


def test_nodes_on_different_machines_have_all_of_their_own() -> None:
    assert cpus(plan([hello(0), hello(1)])) == [(0, 1, 2, 3), (0, 1, 2, 3)]


def test_more_workers_than_processors_share_them_evenly() -> None:
    made = plan([hello(cpus=(4, 6))], gpus_per_node=4)
    assert cpus(made) == [(4,), (6,), (4,), (6,)]


def test_threads_of_one_core_stay_together() -> None:
    # The agent names them so: siblings next to each other.
    made = plan([hello(cpus=(0, 4, 1, 5))], gpus_per_node=2)
    assert cpus(made) == [(0, 4), (1, 5)]


def test_containers_of_one_machine_keep_to_their_own_processors() -> None:
    made = plan([hello(0, cpus=(4, 5, 6, 7)), hello(0, cpus=(0, 1, 2, 3))])
    assert cpus(made) == [(4, 5, 6, 7), (0, 1, 2, 3)]


def test_parameter_servers_are_not_pinned_and_see_no_gpu() -> None:
    made = plan([hello(gpus=gpus(2))], gpus_per_node=2)
    assert [(task.place.cpus, task.place.gpu) for task in made.servers] == [((), None)]


# GPUs.


def test_each_worker_gets_exactly_one_gpu_by_its_uuid() -> None:
    made = plan([hello(0, gpus=gpus(4)), hello(1, gpus=gpus(2, "m1"))], gpus_per_node=2)
    assert made.device == "gpu"
    assert [task.place.gpu for task in made.workers] == [
        "GPU-m0-0",
        "GPU-m0-1",
        "GPU-m1-0",
        "GPU-m1-1",
    ]
    assert made.gpu_type == "H100"


def test_nodes_on_one_machine_get_different_gpus() -> None:
    both = hello(0, gpus=gpus(4))
    made = plan([both, both], gpus_per_node=2)
    assert len({task.place.gpu for task in made.workers}) == 4


def test_fewer_gpus_than_asked_for_is_an_error_that_says_which_node_has_how_many() -> None:
    with pytest.raises(PlanError) as caught:
        plan([hello(0, gpus=gpus(4)), hello(1, gpus=gpus(1))], gpus_per_node=2)
    text = str(caught.value)
    assert "node0 (nodes, line 1) has 4, node1 (nodes, line 2) has 1" in text
    assert "-g 1, or --device cpu" in text
    assert caught.value.exit_status == 2


def test_a_driver_error_is_told_where_its_gpus_are_missed() -> None:
    broken = hello(1, gpu_problem="nvidia-smi failed: no driver")
    with pytest.raises(PlanError, match=r"has 0 \(nvidia-smi failed: no driver\)"):
        plan([hello(0, gpus=gpus(1)), broken])


def test_a_broken_driver_does_not_pass_for_a_node_without_gpus() -> None:
    broken = hello(0, gpu_problem="nvidia-smi failed: mismatch")
    with pytest.raises(PlanError, match=r"node0 \(nodes, line 1\): nvidia-smi failed: mismatch"):
        plan([broken])
    assert plan([broken], device="cpu").device == "cpu"


def test_no_gpu_anywhere_means_processors() -> None:
    assert plan([hello(0), hello(1)]).device == "cpu"
    assert plan([hello(0)]).gpu_type == "EPYC"


def test_device_cpu_leaves_gpus_alone() -> None:
    made = plan([hello(gpus=gpus(2))], device="cpu")
    assert made.device == "cpu"
    assert made.workers[0].place.gpu is None


def test_device_gpu_without_gpus_is_an_error() -> None:
    with pytest.raises(PlanError, match="has 0"):
        plan([hello()], device="gpu")


def test_the_nodes_file_can_limit_a_node_s_gpus() -> None:
    where = [replace(nodes(1)[0], gpus=1)]
    with pytest.raises(PlanError, match="has 1"):
        plan([hello(gpus=gpus(8))], where, gpus_per_node=2)
    where = [replace(nodes(1)[0], gpus=0)]
    assert plan([hello(gpus=gpus(8))], where).device == "cpu"


# What contradicts itself. A training is told the keys that it has, and not what `run` calls them.

OF_TRAININGS: list[tuple[dict[str, Any], int, str]] = [
    (
        {"backup_workers": 2},
        2,
        "num_hot_spares 2 leaves none of 2 to wait for. Try: num_hot_spares",
    ),
    (
        {"backup_workers": 1},
        1,
        "num_hot_spares 1 leaves none of 1 to wait for. Try: num_hot_spares 0",
    ),
    (
        {"backup_workers": 1, "synchronous": False},
        2,
        "num_hot_spares has no meaning with mode async",
    ),
    (
        {"aggregation": "node", "synchronous": False},
        2,
        "--aggregate node has no meaning with mode async",
    ),
    (
        {"aggregation": "node", "backup_workers": 1},
        2,
        "--aggregate node has no meaning with num_hot_spares",
    ),
    (
        {"aggregation": "node", "strategy": "single"},
        1,
        "--aggregate has no meaning with one worker alone, which trains in one process. "
        "Try: leave out --aggregate, or -g 2 for two workers",
    ),
    ({"gradient_dtype": "bf16", "strategy": "single"}, 1, "dtype has no meaning with one worker"),
]


@pytest.mark.parametrize(
    ("changes", "count", "says"),
    [
        ({"strategy": "single"}, 2, "single is one process, not 2 × 1"),
        ({"strategy": "single", "synchronous": False}, 1, "--async has no meaning"),
        ({"strategy": "single", "parameter_servers": 1}, 1, "--num-ps has no meaning"),
        ({"backup_workers": 2}, 2, "--backup-workers 2 leaves none of 2"),
        ({"backup_workers": 1, "synchronous": False}, 2, "no meaning with --async"),
        (
            {"aggregation": "node", "synchronous": False},
            2,
            "--aggregate node has no meaning with --async",
        ),
        (
            {"aggregation": "node", "backup_workers": 1},
            2,
            "--aggregate node has no meaning with --back",
        ),
        ({"aggregation": "none", "strategy": "all_reduce"}, 2, "--aggregate has no meaning"),
        ({"gradient_dtype": "bf16", "strategy": "all_reduce"}, 2, "--gradient-dtype has no"),
        ({"synchronous": False, "measured_steps": 1}, 2, "--steps 1 is too few for 2 workers"),
        ({"backup_workers": 1, "measured_steps": 2}, 3, "--steps 2 is too few for 3 workers"),
        ({"learning_rate": float("nan")}, 1, "--learning-rate nan is not a number"),
        (
            {"precision": "fp16", "gradient_dtype": "fp16"},
            2,
            "--gradient-dtype fp16 would undo the loss scale",
        ),
        ({"precision": "tf32"}, 1, "--precision tf32 is a way of GPUs to multiply"),
        (
            {"strategy": "all_reduce", "communication": "nccl"},
            2,
            "--communication nccl is a way between GPUs",
        ),
        ({"strategy": "input_only", "precision": "bf16"}, 1, "--precision has no meaning with"),
        ({"strategy": "input_only", "xla": "on"}, 1, "--xla on has no meaning with --input-only"),
        ({"training": TRAINING, "precision": "fp16"}, 1, "--precision fp16 is for measurements"),
        *(
            (({"training": TRAINING, **changes}), count, says)
            for changes, count, says in OF_TRAININGS
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    changes: dict[str, Any], count: int, says: str
) -> None:
    with pytest.raises(PlanError) as caught:
        plan([hello(i) for i in range(count)], **changes)
    assert says in str(caught.value)


# How the workers compute.


@pytest.mark.parametrize(
    ("asked", "on_processors", "on_gpus"),
    [("auto", False, True), ("on", True, True), ("off", False, False)],
)
def test_xla_compiles_where_it_was_asked_for_and_by_itself_on_gpus(
    asked: str, on_processors: bool, on_gpus: bool
) -> None:
    assert plan([hello()], xla=asked).job.xla == on_processors
    assert plan([hello(gpus=gpus(1))], xla=asked).job.xla == on_gpus


def test_precision_onednn_and_threads_are_those_of_every_task() -> None:
    wanted = {"onednn": False, "intra_op_threads": 2, "inter_op_threads": 3}
    job = plan([hello(gpus=gpus(1))], precision="tf32", **wanted).job
    assert job.precision == "tf32"
    assert {name: getattr(job, name) for name in wanted} == wanted


def test_nccl_is_taken_between_gpus() -> None:
    nodes = [hello(i, gpus=gpus(1)) for i in range(2)]
    assert plan(nodes, strategy="all_reduce", communication="nccl").job.communication == "nccl"


def test_different_versions_of_tensorflow_are_refused_with_the_nodes_that_have_them() -> None:
    other = hello(1, versions=Versions("3.11.2", "2.20.0", "3.15.1", ""))
    with pytest.raises(PlanError, match=r"2\.20\.0 on node1; 2\.21\.0 on node0"):
        plan([hello(0), other])


def test_backup_workers_are_left_out_of_what_an_update_waits_for() -> None:
    made = plan([hello(0), hello(1)], gpus_per_node=2, backup_workers=1)
    assert (len(made.workers), made.job.aggregate) == (4, 3)


def test_the_single_strategy_has_no_parameter_server() -> None:
    made = plan([hello()], strategy="single")
    assert [task.name for task in made.tasks] == ["worker 0"]


def test_processes_on_one_machine_are_counted_as_one_machine() -> None:
    assert plan([hello(0, network="a"), hello(0, network="b")]).machines == 1
    assert plan([hello(0), hello(1)]).machines == 2


@pytest.mark.parametrize(
    ("nodes", "options", "adders"),
    [
        (2, {"gpus_per_node": 2}, (0, 0, 2, 2)),
        (2, {"gpus_per_node": 2, "workers": 3}, (0, 0, 2)),
        (2, {"gpus_per_node": 1}, ()),
        (1, {"gpus_per_node": 2}, ()),
        (1, {"gpus_per_node": 2, "aggregation": "node"}, (0, 0)),
        (2, {"gpus_per_node": 1, "aggregation": "node"}, ()),
        (2, {"gpus_per_node": 2, "aggregation": "none"}, ()),
        (2, {"gpus_per_node": 2, "synchronous": False}, ()),
        (2, {"gpus_per_node": 2, "backup_workers": 1}, ()),
        (2, {"gpus_per_node": 2, "strategy": "all_reduce"}, ()),
    ],
)
def test_the_first_worker_of_a_node_adds_up_where_that_saves_something(
    nodes: int, options: dict[str, Any], adders: tuple[int, ...]
) -> None:
    assert plan([hello(i) for i in range(nodes)], **options).job.adders == adders

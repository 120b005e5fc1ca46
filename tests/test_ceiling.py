"""The ceiling that the network sets: worked out by hand for small cases."""

from __future__ import annotations

from dataclasses import replace

import pytest
from check_examples import H100, checked, hello, state

from launcher.ceiling import Share, ceiling, ceiling_without_servers, shares
from launcher.check_report import ceiling_lines
from launcher.check_verdict import judge, network_ceiling
from launcher.checked import Link
from launcher.tasks import Options
from perftest.protocol import ParameterCount

BYTES = 100_000_000
FAST = {(0, 1): 1e9, (1, 0): 1e9}


def test_variables_are_dealt_out_as_the_strategy_deals_them() -> None:
    """The largest first, each to the emptiest: 60 | 40, then 30 to the second, 20 to the first."""
    assert shares((30, 60, 20, 40), (0, 1), (1, 1)) == [Share(1, 80, 1), Share(1, 70, 1)]


def test_several_servers_on_a_node_are_added_up() -> None:
    assert shares((10, 10, 10), (0, 1, 0), (2, 2)) == [Share(2, 20, 2), Share(2, 10, 2)]


def test_two_nodes_with_a_server_each_send_all_parameters_once_each_way() -> None:
    """Node 0 sends its half to worker 1 and worker 0's gradients of the other half: 100 MB."""
    half = Share(1, BYTES // 2, 1)
    found = ceiling((half, half), 2, 32, 0, FAST)
    assert [link.bytes_each_way for link in found.links] == [BYTES, BYTES]
    assert found.seconds_per_step == pytest.approx(0.1)
    assert found.images_per_second == pytest.approx(2 * 32 / 0.1)


def test_with_one_server_nobody_pushes_before_it_has_pulled() -> None:
    """100 MB to the only worker elsewhere, then 100 MB back: 0.2 s, though each way has but 0.1."""
    found = ceiling((Share(1, BYTES, 1), Share(1, 0, 1)), 1, 32, 0, FAST)
    assert found.seconds_per_step == pytest.approx(0.2)


def test_more_workers_on_a_node_pull_for_themselves() -> None:
    half = Share(4, BYTES // 2, 4)
    found = ceiling((half, half), 2, 32, 0, FAST)
    assert [link.bytes_each_way for link in found.links] == [4 * BYTES, 4 * BYTES]


def test_nodes_that_add_up_pull_and_push_once_whatever_their_workers() -> None:
    assert shares((10, 10), (0, 1), (4, 4), add_up=True) == [Share(4, 10, 1), Share(4, 10, 1)]
    half = Share(4, BYTES // 2, 1)
    found = ceiling((half, half), 2, 32, 0, FAST)
    assert [link.bytes_each_way for link in found.links] == [BYTES, BYTES]
    assert found.images_per_second == pytest.approx(8 * 32 / 0.1)


def test_gradients_of_16_bits_are_half_of_what_goes_back() -> None:
    """50 MB of parameters out and 25 MB of gradients; as much in."""
    half = Share(1, BYTES // 2, 1)
    found = ceiling((half, half), 2, 32, 0, FAST, gradient_bytes=2)
    assert [link.bytes_each_way for link in found.links] == [3 * BYTES // 4] * 2
    assert found.seconds_per_step == pytest.approx(0.075)


def test_the_slowest_link_sets_the_pace() -> None:
    half = Share(1, BYTES // 2, 1)
    slow = {(0, 1): 1e9, (1, 0): 1e7}
    found = ceiling((half, half), 2, 32, 0, slow)
    assert found.seconds_per_step == pytest.approx(10.0)


def test_a_link_that_was_not_measured_is_left_out() -> None:
    third = Share(1, BYTES // 4, 1)
    speeds = {(0, 1): 1e9, (1, 0): 1e9}
    found = ceiling((third, third, Share(1, BYTES // 2, 1)), 3, 32, 0, speeds)
    assert found.links[2].seconds is None
    assert found.seconds_per_step == pytest.approx(found.links[0].seconds)
    none = ceiling((third, third), 2, 32, 0, {})
    assert (none.seconds_per_step, none.images_per_second) == (None, None)


def test_one_node_has_no_network_and_no_ceiling() -> None:
    found = ceiling((Share(2, BYTES, 2),), 1, 32, 0, {})
    assert found.links[0].bytes_each_way == 0
    assert found.images_per_second is None


def test_backup_workers_may_be_those_behind_a_link_and_add_no_images() -> None:
    facts = checked(
        *(state(i, 4) for i in range(4)),
        count=ParameterCount("resnet50", (BYTES,), ""),
        asked=Options("resnet50", backup_workers=1, parameter_servers=1),
    )
    facts = replace(
        facts, links=tuple(Link(i, (i + 1) % 4, 2222, True, 0.001, 1e9) for i in range(4))
    )
    found = network_ceiling(facts)
    assert found is not None
    assert found.seconds_per_step == pytest.approx(0.2 + 0.1)  # pulls of 2 of 3 out, one push back
    assert found.images_per_second == pytest.approx(3 * 32 / 0.3)


def test_in_a_ring_each_of_four_workers_passes_on_one_and_a_half_times_all_bytes() -> None:
    """Three quarters until somebody has each sum, three quarters until all have them all."""
    speeds = {(i, (i + 1) % 4): 1e9 for i in range(4)}
    found = ceiling_without_servers(BYTES, (1, 1, 1, 1), True, 32, speeds)
    assert [link.bytes_each_way for link in found.links] == [BYTES * 3 // 2] * 4
    assert found.seconds_per_step == pytest.approx(0.15)
    assert found.images_per_second == pytest.approx(4 * 32 / 0.15)
    assert (found.workers, found.servers, found.parameter_bytes) == (4, 0, BYTES)


def test_workers_of_one_node_pass_to_each_other_without_its_link() -> None:
    """The ring of all eight goes through each link once; one of nodes, if so, is shorter."""
    ring = ceiling_without_servers(BYTES, (4, 4), True, 32, FAST)
    assert [link.bytes_each_way for link in ring.links] == [BYTES * 7 // 4] * 2
    free = ceiling_without_servers(BYTES, (4, 4), False, 32, FAST)
    assert [link.bytes_each_way for link in free.links] == [BYTES] * 2
    assert free.images_per_second == pytest.approx(8 * 32 / 0.1)


def test_the_slowest_way_of_a_ring_sets_its_pace_and_what_was_not_measured_none() -> None:
    slow = ceiling_without_servers(BYTES, (1, 1), True, 32, {(0, 1): 1e9, (1, 0): 1e7})
    assert slow.seconds_per_step == pytest.approx(10.0)
    unknown = ceiling_without_servers(BYTES, (1, 1), True, 32, {(0, 1): 1e9})
    assert (unknown.seconds_per_step, unknown.images_per_second) == (None, None)


@pytest.mark.parametrize("workers", [(1,), (4,)])
def test_one_node_s_ring_crosses_no_network(workers: tuple[int, ...]) -> None:
    found = ceiling_without_servers(BYTES, workers, True, 32, {})
    assert found.links[0].bytes_each_way == 0
    assert found.seconds_per_step is None


@pytest.mark.parametrize(
    ("asked", "gpus", "times"),
    [
        (Options("resnet50", strategy="all_reduce", gpus_per_node=2), False, 1.5),
        (Options("resnet50", strategy="horovod", gpus_per_node=2), False, 1.5),
        (Options("resnet50", strategy="horovod", gpus_per_node=2), True, 1.0),
        (Options("resnet50", strategy="all_reduce", gpus_per_node=2, device="cpu"), True, 1.5),
        (
            Options("resnet50", strategy="all_reduce", gpus_per_node=2, communication="ring"),
            True,
            1.5,
        ),
    ],
)
def test_a_check_knows_where_there_is_a_ring(asked: Options, gpus: bool, times: float) -> None:
    """Two nodes with two workers each: 2 × 3/4 of the bytes in a ring, and at least 2 × 1/2."""
    facts = checked(
        *(state(i, hello=hello(i, gpus=(H100, H100) if gpus else ())) for i in range(2)),
        asked=asked,
        count=ParameterCount("resnet50", (BYTES // 4, BYTES * 3 // 4), ""),
    )
    found = network_ceiling(facts)
    assert found is not None
    assert [link.bytes_each_way for link in found.links] == [round(times * BYTES)] * 2
    (first, *_) = ceiling_lines(judge(facts))
    assert "4 workers, batch 32" in first


def test_without_parameters_a_network_or_waiting_there_is_none() -> None:
    facts = checked(state(0), state(1))
    assert network_ceiling(facts) is None
    counted = replace(facts, count=ParameterCount("resnet50", (BYTES,), ""))
    assert network_ceiling(counted) is not None
    for asked in (Options("resnet50", strategy="single"), Options("resnet50", synchronous=False)):
        assert network_ceiling(replace(counted, asked=asked)) is None

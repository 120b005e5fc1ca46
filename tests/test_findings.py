"""What a check makes of facts: nodes that differ in one thing each from good ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from check_examples import GIB, H100, checked, hello, inspection, state, told

from launcher.checked import FAILURE, OK, WARNING, ClockOffset, Finding, Link, merge, worst
from launcher.errors import HostKeyChanged, NodeError, TensorFlowMissing, Unreachable
from launcher.findings import find
from launcher.nodes import Node
from launcher.tasks import Options
from perftest.protocol import GpuUse, NetworkInterface, ParameterCount, ResolvedName, Versions


def first_says(**changes: Any) -> Any:
    """Two nodes, of which the first says something else of itself."""
    return checked(state(0, hello=hello(0, **changes)), state(1))


def first_has(**changes: Any) -> Any:
    """Two nodes, of which the first is in another state."""
    return checked(state(0, inspection=inspection(0, 2, **changes)), state(1))


def test_two_good_nodes_give_nothing_but_ok_and_each_area_once() -> None:
    found = find(checked(state(0), state(1)))
    assert worst(found) == OK
    assert [one.code for one in found] == [
        *("connection", "versions", "devices", "machine", "ports", "clock", "names", "links")
    ]
    assert all(one.nodes == ("n0", "n1") for one in found)


def test_one_node_alone_is_not_compared_with_others() -> None:
    codes = {one.code for one in find(checked(state(0, count=1)))}
    assert codes.isdisjoint({"versions", "names", "links"})


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unreachable("n0", "connection refused", "ssh n0"), "unreachable"),
        (HostKeyChanged("n0", "is not the key", "ssh-keygen -R"), "host_key_changed"),
        (NodeError("n0", "something new"), "node"),
    ],
)
def test_a_node_that_cannot_be_opened_fails_and_hides_nothing_of_the_other(
    error: NodeError, code: str
) -> None:
    lost = state(0, hello=None, inspection=None, clock=None, failure=error)
    busy = state(1, inspection=inspection(1, 2, load=9.0))
    facts = checked(lost, busy, links=())
    failure = told(facts, code)
    assert (failure.mark, failure.nodes, failure.text) == (FAILURE, ("n0",), error.reason)
    assert failure.mend == error.mend
    assert told(facts, "busy").nodes == ("n1",)
    assert told(facts, "connection").nodes == ("n1",)


def test_a_node_without_tensorflow_is_looked_at_all_the_same() -> None:
    without = state(
        0,
        hello=hello(0, versions=Versions("3.11.2", "", "", ""), disk_free_bytes=5 << 20),
        failure=TensorFlowMissing("n0", "has no TensorFlow", "pip install tensorflow"),
    )
    facts = checked(without, state(1))
    assert told(facts, "tensorflow_missing").mark == FAILURE
    assert told(facts, "disk_low").text == "5 MiB are free in the remote directory"
    assert not [one for one in find(facts) if one.code == "tensorflow_differs"]


@pytest.mark.parametrize(
    ("versions", "code", "mark"),
    [
        (Versions("3.11.2", "2.20.0", "3.15.1", "3.14.0"), "tensorflow_differs", FAILURE),
        (Versions("3.11.2", "2.21.0", "3.12.0", "3.14.0"), "keras_differs", FAILURE),
        (Versions("3.12.1", "2.21.0", "3.15.1", "3.14.0"), "python_differs", WARNING),
        (Versions("3.11.2", "2.21.0", "3.15.1", ""), "h5py_differs", WARNING),
    ],
)
def test_versions_that_differ(versions: Versions, code: str, mark: str) -> None:
    finding = told(first_says(versions=versions), code)
    assert (finding.mark, finding.nodes) == (mark, ("n0", "n1"))


def test_a_patch_of_python_is_no_difference() -> None:
    versions = Versions("3.11.9", "2.21.0", "3.15.1", "3.14.0")
    assert worst(find(first_says(versions=versions))) == OK


# Devices.


def test_a_broken_driver_fails_unless_processors_are_asked_for() -> None:
    facts = first_says(gpu_problem="nvidia-smi failed: couldn't communicate with the driver")
    assert told(facts, "gpu_driver").mark == FAILURE
    on_cpus = replace(facts, asked=Options("resnet50", device="cpu"))
    assert worst(find(on_cpus)) == OK


def test_too_few_gpus_fail_and_name_the_node() -> None:
    facts = checked(state(0, hello=hello(0, gpus=(H100,))), state(1))
    finding = told(facts, "too_few_gpus")
    assert (finding.mark, finding.nodes) == (FAILURE, ("n1",))
    assert finding.text == "0 GPUs, but -g 1 are asked for"


def test_a_gpu_that_somebody_else_uses_is_a_warning() -> None:
    use = (GpuUse(H100.uuid, 73113, 98, 2),)
    facts = checked(
        state(0, hello=hello(0, gpus=(H100,)), inspection=inspection(0, 2, gpu_use=use)),
        state(1, hello=hello(1, gpus=(replace(H100, uuid="GPU-other"),))),
    )
    finding = told(facts, "gpu_in_use")
    assert (finding.mark, finding.nodes) == (WARNING, ("n0",))
    assert "2 processes, 73113 MiB, 98 % busy" in finding.text


def test_a_gpu_with_the_driver_s_own_memory_alone_is_idle() -> None:
    use = (GpuUse(H100.uuid, 4, 0, 0),)
    facts = checked(
        state(0, 1, hello=hello(0, gpus=(H100,)), inspection=inspection(0, 1, gpu_use=use))
    )
    assert worst(find(facts)) == OK


def test_a_divided_gpu_is_a_warning() -> None:
    slice_ = replace(H100, uuid="MIG-c6d4", name="NVIDIA H100 MIG 3g.40gb")
    assert told(checked(state(0, 1, hello=hello(0, gpus=(slice_,)))), "gpu_divided").mark == WARNING


def test_different_hardware_is_a_warning_with_both_kinds() -> None:
    finding = told(first_says(cpu_model="Xeon"), "hardware_differs")
    assert finding.text == (
        "the nodes have different processors: AMD EPYC 9354 on n1; Xeon on n0; "
        "the slowest sets the pace"
    )


# Machines.


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"load": 8.1}, "busy", "8.1 processes want one of its 16 processors"),
        ({"memory_available_bytes": GIB}, "memory_low", "1.0 GiB of memory are free"),
        ({"swap_used_bytes": 5 * GIB}, "swapping", "5.0 GiB are swapped out"),
        ({"governor": "powersave"}, "powersave", "powersave (acpi-cpufreq)"),
        ({"open_files": 256}, "open_files", "256 files"),
    ],
)
def test_what_would_disturb_a_measurement_is_a_warning(
    changes: dict[str, Any], code: str, words: str
) -> None:
    finding = told(first_has(**changes), code)
    assert (finding.mark, finding.nodes) == (WARNING, ("n0",))
    assert words in finding.text


@pytest.mark.parametrize(
    ("changes", "code"), [({"noexec": True}, "noexec"), ({"proxies": ("http_proxy",)}, "proxy")]
)
def test_what_does_no_harm_is_told_and_is_in_order(changes: dict[str, Any], code: str) -> None:
    assert told(first_has(**changes), code).mark == OK


def test_one_machine_that_is_listed_twice_is_a_warning() -> None:
    twin = state(1, hello=hello(1, machine="machine0"))
    assert told(checked(state(0), twin), "same_machine").text.startswith("n0, n1 are one machine")


# Ports and clocks.


def test_no_free_port_fails() -> None:
    finding = told(first_says(free_ports=(2230,)), "no_free_port")
    assert (finding.mark, finding.nodes) == (FAILURE, ("n0",))


def test_a_port_that_is_taken_is_a_warning_with_those_that_firewalls_must_open() -> None:
    finding = told(first_says(free_ports=(2223, 2230)), "port_taken")
    assert finding.mark == WARNING
    assert finding.text.startswith("port 2222 is taken; a run would use 2223, 2230")


def test_nodes_that_share_one_set_of_ports_take_turns_without_a_warning() -> None:
    shared = {"machine": "m", "network": "net:[1]", "addresses": ("10.0.0.1", "10.0.0.2")}
    facts = checked(
        state(0, hello=hello(0, **shared)),
        state(1, hello=hello(1, free_ports=(2223, 2231), **shared)),
    )
    assert not [one for one in find(facts) if one.code == "port_taken"]


@pytest.mark.parametrize(
    ("seconds", "doubt", "mark"),
    [(0.9, 0.0, OK), (-2.5, 0.1, WARNING), (2.5, 0.1, WARNING), (1.5, 1.0, OK)],
)
def test_a_clock_is_off_only_if_it_is_certainly_so(seconds: float, doubt: float, mark: str) -> None:
    facts = checked(state(0, 1, clock=ClockOffset(seconds, doubt)))
    assert worst(find(facts)) == mark


def test_a_clock_that_is_behind_is_called_so() -> None:
    facts = checked(state(0, 1, clock=ClockOffset(-2.5, 0.1)))
    assert "2.5 s behind this machine's" in told(facts, "clock_offset").text


# Names.


def named(name: str, own: str, other: str, problem: str = "") -> Any:
    """Two nodes; the first is called `name`, which means `own` to itself and `other` to n1."""
    seen = ResolvedName("10.0.0.2", ("10.0.0.2",), "")
    answers = [
        (ResolvedName(name, (address,) if address else (), problem), seen)
        for address in (own, other)
    ]
    return checked(
        state(0, node=Node(name, "n0"), inspection=inspection(0, 2, resolved=answers[0])),
        state(1, inspection=inspection(1, 2, resolved=answers[1])),
    )


def test_a_name_that_means_nothing_on_a_node_fails_there() -> None:
    finding = told(named("gpu1", "10.0.0.1", "", "Name or service not known"), "name_unknown")
    assert (finding.mark, finding.nodes) == (FAILURE, ("n1",))
    assert "gpu1, the data address of n0, means nothing there: Name or service" in finding.text


def test_localhost_as_a_data_address_of_several_nodes_fails() -> None:
    found = find(named("localhost", "127.0.0.1", "127.0.0.1"))
    assert [(one.mark, one.code, one.nodes) for one in found if one.mark != OK] == [
        (FAILURE, "name_loopback", ("n1",))
    ]


def test_localhost_is_right_where_all_nodes_are_this_machine() -> None:
    node = Node("127.0.0.1", "local0")
    seen = (ResolvedName("127.0.0.1", ("127.0.0.1",), ""),)
    facts = checked(state(0, 1, node=node, inspection=inspection(0, 1, resolved=seen)))
    assert worst(find(facts)) == OK


def test_a_name_that_debian_points_at_loopback_is_a_warning_on_its_own_node() -> None:
    finding = told(named("gpu1", "127.0.1.1", "10.0.0.1"), "name_own_loopback")
    assert (finding.mark, finding.nodes) == (WARNING, ("n0",))
    assert finding.mend == "take gpu1 off the line of 127.0.1.1 in /etc/hosts there"


def test_an_address_that_the_node_does_not_have_is_a_warning() -> None:
    finding = told(named("gpu1", "10.0.0.1", "10.9.9.9"), "address_elsewhere")
    assert (finding.mark, finding.nodes) == (WARNING, ("n1",))


@pytest.mark.parametrize("address", ["8.8.8.8", "2001:4860:4860::8888"])
def test_a_public_data_address_is_a_warning(address: str) -> None:
    facts = named("gpu1", address, address)
    finding = told(facts, "public_address")
    assert (finding.mark, finding.nodes) == (WARNING, ("n0",))
    assert "authenticate nobody" in finding.text


@pytest.mark.parametrize("address", ["10.0.0.1", "192.168.1.1", "100.64.0.1", "fd00::1"])
def test_a_private_data_address_is_in_order(address: str) -> None:
    codes = {one.code for one in find(named("gpu1", address, address))}
    assert "public_address" not in codes


def test_a_public_address_is_told_even_of_a_node_that_does_not_answer() -> None:
    lost = state(
        0, node=Node("8.8.8.8", "n0"), hello=None, inspection=None, failure=Unreachable("n0", "no")
    )
    assert told(checked(lost, state(1), links=()), "public_address").nodes == ("n0",)


# Links.


def test_a_link_that_does_not_work_fails_at_its_source() -> None:
    links = (
        Link(0, 1, 2222, False, detail="timed out"),
        Link(1, 0, 2222, True, 0.001),
    )
    finding = told(checked(state(0), state(1), links=links), "link")
    assert (finding.mark, finding.nodes) == (FAILURE, ("n0",))
    assert finding.text == "does not reach n1 at 10.0.0.2 port 2222: timed out"


def test_a_link_far_below_its_interfaces_is_a_warning() -> None:
    links = (Link(0, 1, 2222, True, 0.001, 11e6), Link(1, 0, 2222, True, 0.001, 1.1e9))
    finding = told(checked(state(0), state(1), links=links), "slow_link")
    assert finding.text == "88 Mbit/s to n1, over interfaces of 10000 Mbit/s"
    assert finding.nodes == ("n0",)


def test_a_link_that_lets_small_messages_through_and_no_large_ones_is_a_warning() -> None:
    links = (Link(0, 1, 2222, True, 0.001, None, "a transfer of many bytes did not get through"),)
    finding = told(checked(state(0), state(1), links=links), "transfer")
    assert (finding.mark, finding.nodes) == (WARNING, ("n0",))
    assert "MTU" in finding.mend


def test_an_interface_of_the_last_century_is_a_warning() -> None:
    slow = (NetworkInterface("eth0", ("10.0.0.1",), 100, 1500, False),)
    finding = told(first_has(interfaces=slow), "slow_interface")
    assert finding.text == "eth0, which has its data address, does 100 Mbit/s"


# All of it.


def test_a_network_that_cannot_be_built_fails() -> None:
    count = ParameterCount("resnet50", (), "ValueError: no such layer")
    finding = told(checked(state(0), state(1), count=count, counted_by="n0"), "model")
    assert (finding.mark, finding.nodes) == (FAILURE, ("n0",))


def test_a_plan_that_cannot_be_made_fails_even_if_nothing_else_says_why() -> None:
    finding = told(checked(state(0), state(1), plan_problem="cannot be"), "plan")
    assert (finding.mark, finding.nodes) == (FAILURE, ())


def test_findings_that_are_alike_become_one_and_the_worst_comes_first() -> None:
    found = merge(
        [
            Finding(("a",), OK, "x", "fine"),
            Finding(("a",), WARNING, "y", "odd"),
            Finding(("b",), OK, "x", "fine"),
            Finding(("c",), FAILURE, "z", "bad"),
        ]
    )
    assert [(one.mark, one.nodes) for one in found] == [
        (FAILURE, ("c",)),
        (WARNING, ("a",)),
        (OK, ("a", "b")),
    ]

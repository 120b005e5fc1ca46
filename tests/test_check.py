"""`runtest check` against real sshds in network namespaces: what it finds, tells, and leaves."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import runtest, tasks_here
from hosts import NamespaceHosts, make_key

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs" / "check.md").read_text()


def check(
    hosts: NamespaceHosts, nodes: Path, cwd: Path, *options: object, status: int = 0
) -> dict[str, Any]:
    """What `check --json` prints; its exit status must be this one."""
    done = runtest(
        *("check", "-h", nodes, "--ssh-config", hosts.ssh_config, "--python", sys.executable),
        *("--json", *options),
        cwd=cwd,
    )
    assert done.returncode == status, done.stdout + done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["would_fail"] == (status == 1)
    return said


def found(said: dict[str, Any], code: str) -> dict[str, Any]:
    """The one finding with this code."""
    (finding,) = [one for one in said["findings"] if one["code"] == code]
    result: dict[str, Any] = finding
    return result


def speeds(said: dict[str, Any]) -> dict[tuple[str, str], float]:
    return {
        (link["source"], link["target"]): link["bytes_per_second"]
        for link in said["links"]
        if link["bytes_per_second"]
    }


@pytest.fixture(scope="module")
def good(hosts: NamespaceHosts, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two good hosts and a network."""
    folder = tmp_path_factory.mktemp("good")
    return check(hosts, hosts.nodes_file(), folder, "-m", "deepmnist", "-b", 8)


# Good hosts.


@pytest.mark.network
@pytest.mark.tensorflow
def test_good_hosts_give_no_failure_and_all_areas_are_looked_at(good: dict[str, Any]) -> None:
    assert [one for one in good["findings"] if one["mark"] == "failure"] == []
    codes = {one["code"] for one in good["findings"] if one["mark"] == "ok"}
    assert codes >= {"connection", "versions", "devices", "ports", "clock", "names", "links"}
    # They are namespaces of one machine, and say so.
    assert found(good, "same_machine")["nodes"] == ["node0", "node1"]


@pytest.mark.network
@pytest.mark.tensorflow
def test_facts_of_a_host_are_its_own(hosts: NamespaceHosts, good: dict[str, Any]) -> None:
    for index, node in enumerate(good["nodes"]):
        facts = node["facts"]
        assert facts["host"] == hosts.hosts[index].name
        assert facts["data_addresses"] == [hosts.hosts[index].address]
        assert (facts["data_interface"]["name"], facts["data_interface"]["speed_mbit"]) == (
            "eth0",
            None,  # a veth says 10000, which means nothing
        )
        assert facts["free_ports"] == [2222, 2230]
        clock = facts["clock"]
        assert abs(clock["seconds"]) <= clock["uncertainty_seconds"] + 0.001  # one clock for all
        assert 0 < clock["uncertainty_seconds"] < 0.5


@pytest.mark.network
@pytest.mark.tensorflow
def test_the_ceiling_is_the_bytes_of_a_step_over_the_bandwidth(good: dict[str, Any]) -> None:
    ceiling = good["ceiling"]
    assert ceiling["parameter_bytes"] == 4 * 3_274_634
    assert [link["bytes_each_way"] for link in ceiling["links"]] == [ceiling["parameter_bytes"]] * 2
    slowest = min(speeds(good).values())
    assert ceiling["seconds_per_step"] >= ceiling["parameter_bytes"] / slowest
    assert ceiling["images_per_second"] == pytest.approx(2 * 8 / ceiling["seconds_per_step"])


def paths(value: Any, path: str = "") -> Iterator[str]:
    """`nodes[].facts.host` and so on, for all that is no object or list."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from paths(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for item in value:
            yield from paths(item, f"{path}[]")
    else:
        yield path


@pytest.mark.network
@pytest.mark.tensorflow
def test_the_json_holds_what_the_document_says_and_nothing_else(good: dict[str, Any]) -> None:
    table = DOCUMENT[DOCUMENT.index("| key | what |") :]
    first_columns = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    documented = set(re.findall(r"`([^`]+)`", " ".join(first_columns)))
    held = set(paths(good))
    may_be_empty = {name for name in documented if ".gpus[]" in name or name.endswith("proxies[]")}
    assert held <= documented
    assert documented - held <= may_be_empty


@pytest.mark.network
def test_the_table_fits_eighty_columns_and_says_what_ports_are_worth(
    hosts: NamespaceHosts, tmp_path: Path
) -> None:
    done = runtest(
        *("check", "-h", hosts.nodes_file(), "--ssh-config", hosts.ssh_config),
        *("--python", sys.executable),
        cwd=tmp_path,
        environment={"COLUMNS": "80"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "TensorFlow's ports authenticate nobody" in done.stdout
    assert re.search(r"node0 → node1 +\d+\.\d\d ms +\d+\.\d+ [MG]bit/s", done.stdout)
    assert re.match(r"check: 2 nodes, 0 failures, \d warnings?: a run can start$", lines[-1])
    assert tasks_here(str(hosts.folder)) == []
    assert hosts.processes(0) == hosts.processes(1) == []


# Faults.


@pytest.mark.network
def test_bad_hosts_hide_nothing_of_what_is_found_of_the_good_one(
    hosts: NamespaceHosts, tmp_path: Path
) -> None:
    """One is off, one has another host key than is known; a third one is looked at."""
    make_key(tmp_path / "other")
    other = " ".join((tmp_path / "other.pub").read_text().split()[:2])
    (tmp_path / "known").write_text(
        f"{hosts.hosts[0].address} {hosts.host_key(0)}\n{hosts.hosts[1].address} {other}\n"
    )
    config = hosts.ssh_config.read_text().replace(str(hosts.known_hosts), str(tmp_path / "known"))
    (tmp_path / "config").write_text(f"Host off\n  HostName {hosts.free_address}\n{config}")
    nodes = tmp_path / "nodes"
    nodes.write_text(
        f"{hosts.free_address} off\n{hosts.hosts[0].address} node0\n"
        f"{hosts.hosts[1].address} node1\n"
    )
    said = check(hosts, nodes, tmp_path, "--ssh-config", tmp_path / "config", status=1)
    assert found(said, "unreachable")["nodes"] == ["off"]
    changed = found(said, "host_key_changed")
    assert changed["nodes"] == ["node1"]
    assert "ssh-keygen -R" in changed["mend"]
    marks = {node["alias"]: node["mark"] for node in said["nodes"]}
    assert (marks["off"], marks["node1"]) == ("failure", "failure")
    assert marks["node0"] != "failure"
    (node0,) = [node for node in said["nodes"] if node["alias"] == "node0"]
    assert node0["facts"]["versions"]["tensorflow"]
    assert node0["facts"]["clock"] is not None


@pytest.mark.network
def test_a_port_that_a_firewall_closes_between_two_nodes_is_a_failure(
    hosts: NamespaceHosts, tmp_path: Path
) -> None:
    rule = ["to", hosts.hosts[1].address, "ipproto", "tcp", "dport", "2222", "prohibit"]
    hosts.run(0, ["ip", "rule", "add", *rule])
    try:
        said = check(hosts, hosts.nodes_file(), tmp_path, status=1)
    finally:
        hosts.run(0, ["ip", "rule", "del", *rule])
    finding = found(said, "link")
    assert (finding["mark"], finding["nodes"]) == ("failure", ["node0"])
    assert f"node1 at {hosts.hosts[1].address} port 2222" in finding["text"]
    reached = {(link["source"], link["port"]): link["reachable"] for link in said["links"]}
    assert reached == {
        ("node0", 2222): False,
        ("node0", 2230): True,
        ("node1", 2222): True,
        ("node1", 2230): True,
    }


@pytest.mark.network
def test_a_port_that_is_taken_and_localhost_as_a_data_address(
    hosts: NamespaceHosts, tmp_path: Path
) -> None:
    nodes = tmp_path / "nodes"
    nodes.write_text(f"{hosts.hosts[0].address} node0\nlocalhost node1\n")
    hosts.serve(0, 2222)
    try:
        said = check(hosts, nodes, tmp_path, status=1)
    finally:
        hosts.power_off(0)
        hosts.start(0)
    assert "would use 2223, 2230" in found(said, "port_taken")["text"]
    loopback = found(said, "name_loopback")
    assert (loopback["mark"], loopback["nodes"]) == ("failure", ["node0"])
    sources = {tuple(one["nodes"]) for one in said["findings"] if one["code"] == "link"}
    assert sources == {("node0",)}


@pytest.mark.network
@pytest.mark.tensorflow
def test_slower_links_give_a_lower_ceiling_and_a_run_comes_up_to_it_and_not_over(
    hosts: NamespaceHosts, good: dict[str, Any], tmp_path: Path
) -> None:
    """600 Mbit/s towards each node."""
    shape = ["tbf", "rate", "600mbit", "burst", "256k", "latency", "100ms"]
    links = [["dev", host.link, "root"] for host in hosts.hosts]
    for link in links:
        subprocess.run(["tc", "qdisc", "add", *link, *shape], check=True)
    try:
        said = check(hosts, hosts.nodes_file(), tmp_path, "-m", "deepmnist", "-b", 8)
        done = runtest(
            *("-h", hosts.nodes_file(), "--ssh-config", hosts.ssh_config, "-m", "deepmnist"),
            *("-b", 8, "--python", sys.executable, "--steps", 4, "--warmup", 1),
            cwd=tmp_path,
        )
    finally:
        for link in links:
            subprocess.run(["tc", "qdisc", "del", *link], check=True)
    assert all(40e6 < speed < 85e6 for speed in speeds(said).values())
    top = said["ceiling"]["images_per_second"]
    assert top < good["ceiling"]["images_per_second"] / 2
    match = re.search(r"Images/sec: ([\d.]+)", done.stdout)
    assert match is not None, done.stderr
    assert 0.5 * top < float(match[1]) < 1.05 * top


@pytest.mark.network
def test_the_links_between_workers_without_servers_are_tried_too(
    hosts: NamespaceHosts, tmp_path: Path
) -> None:
    done = runtest(
        *("check", "-h", hosts.nodes_file(), "--ssh-config", hosts.ssh_config),
        *("--python", sys.executable, "--strategy", "all_reduce", "--json"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    links = json.loads(done.stdout)["links"]
    assert [(link["source"], link["port"]) for link in links] == [("node0", 2230), ("node1", 2230)]
    assert all(link["reachable"] for link in links)


# Without nodes, and with mistakes.


def test_this_machine_is_checked_without_a_nodes_file(tmp_path: Path) -> None:
    done = runtest("check", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "check: 1 node, 0 failures" in done.stdout
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-h", "none"), "nodes file none: No such file"),
        (("-m", "resnet5"), "'resnet5' is not a model"),
        (("--strategy", "single", "-n", "2"), "--strategy single is one process"),
    ],
)
def test_a_mistake_in_what_was_typed_is_status_2_and_no_json(
    options: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    done = runtest("check", "--json", *options, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


def test_every_code_of_a_finding_is_documented() -> None:
    source = "".join(path.read_text() for path in (ROOT / "launcher").glob("findings*.py"))
    codes = set(re.findall(r'\b(?:FAILURE|WARNING|OK),\s*"(\w+)"', source))
    codes |= set(re.findall(r'errors\.\w+: "(\w+)"', source))
    codes |= set(re.findall(r'Area\(\s*"(\w+)"', source))
    codes |= {f"{what.lower()}_differs" for what in ("TensorFlow", "Keras", "Python", "h5py")}
    assert len(codes) > 35
    assert codes <= set(re.findall(r"`(\w+)`", DOCUMENT))

"""Horovod as a strategy: what ranks are told of each other, and, where it is installed, real runs.

`make test-horovod` makes an interpreter with Horovod and names it in HOROVOD_PYTHON; without that
the tests that train are skipped.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command import Running, runtest, tasks_here
from hosts import NamespaceHosts
from test_plan import hello, plan
from test_strategies import losses, train

from launcher.errors import PlanError
from perftest import ranks
from perftest.protocol import Versions

PYTHON = os.environ.get("HOROVOD_PYTHON", "")
with_horovod = pytest.mark.skipif(not PYTHON, reason="make test-horovod names an interpreter")
FOUR = ("a:2230", "a:2231", "b:2230", "b:2231")


def numbers(addresses: tuple[str, ...], rank: int) -> list[int]:
    """Rank and size among all, on its host, and across hosts."""
    found = ranks.variables(addresses, rank)
    names = ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE", "CROSS_RANK", "CROSS_SIZE")
    return [int(found[f"HOROVOD_{name}"]) for name in names]


def test_each_rank_knows_its_place_among_all_on_its_host_and_across_hosts() -> None:
    assert [numbers(FOUR, rank) for rank in range(4)] == [
        [0, 4, 0, 2, 0, 2],
        [1, 4, 1, 2, 0, 2],
        [2, 4, 0, 2, 1, 2],
        [3, 4, 1, 2, 1, 2],
    ]
    assert numbers(("a:1", "a:2", "b:1"), 1) == [1, 3, 1, 2, 0, 1]


def test_the_rendezvous_is_at_the_address_of_rank_0() -> None:
    found = ranks.variables(("[fd00::1]:2230", "[fd00::2]:2230"), 1)
    assert found["HOROVOD_GLOO_RENDEZVOUS_ADDR"] == "fd00::1"
    assert found["HOROVOD_GLOO_RENDEZVOUS_PORT"] == "2230"
    assert found["HOROVOD_HOSTNAME"] == "fd00::2"


def test_the_interface_is_the_one_that_has_the_address() -> None:
    assert ranks.interface_of("127.0.0.1") == "lo"
    assert ranks.interface_of("no-such-host.invalid") == ""


def test_a_node_without_horovod_is_told_with_what_to_install() -> None:
    has_it = hello(0, versions=Versions("3.11.2", "2.18.1", "3.15.1", "", "0.28.1"))
    lacks_it = hello(1, versions=Versions("3.11.2", "2.18.1", "3.15.1", ""))
    assert plan([has_it], strategy="horovod").job.strategy == "horovod"
    with pytest.raises(PlanError, match=r"no Horovod on node1\. Try: HOROVOD_WITH_TENSORFLOW=1"):
        plan([has_it, lacks_it], strategy="horovod")
    other = hello(1, versions=Versions("3.11.2", "2.18.1", "3.15.1", "", "0.27.0"))
    with pytest.raises(PlanError, match=r"versions of Horovod: 0\.27\.0 on node1"):
        plan([has_it, other], strategy="horovod")


def test_nothing_starts_where_a_node_has_no_horovod(tmp_path: Path) -> None:
    done = runtest("-m", "deepmnist", "--strategy", "horovod", cwd=tmp_path)
    assert done.returncode == 2
    assert "--strategy horovod: no Horovod on local0" in done.stderr
    assert not (tmp_path / "logs").exists()
    looked = runtest("check", "--strategy", "horovod", "--json", cwd=tmp_path)
    assert looked.returncode == 1
    assert '"horovod_missing"' in looked.stdout


# With Horovod.


@with_horovod
@pytest.mark.tensorflow
def test_four_ranks_train_as_one_process_with_four_times_the_batch(tmp_path: Path) -> None:
    alone = train(tmp_path, "alone", batch_size=32, strategy="single", python=PYTHON)
    four = train(
        tmp_path, "four", 2, batch_size=8, gpus_per_node=2, strategy="horovod", python=PYTHON
    )
    np.testing.assert_allclose(losses(four), losses(alone), rtol=2e-6)
    norm = alone.finished[0].parameter_norm
    assert four.finished[0].parameter_norm == pytest.approx(norm, rel=1e-6)
    assert losses(alone)[0] - losses(alone)[-1] > 0.02
    computed = [r.compute_seconds for r in four.records if r.phase == "measured"]
    assert min(computed) > 0


@with_horovod
@pytest.mark.network
@pytest.mark.tensorflow
@pytest.mark.parametrize("killed", [None, 0, 1])
def test_ranks_on_two_hosts_measure_and_name_the_one_that_was_killed(
    hosts: NamespaceHosts, tmp_path: Path, killed: int | None
) -> None:
    where = ("-h", hosts.nodes_file(0, 1), "-r", tmp_path / "remote", "--python", PYTHON)
    steps = 20 if killed is None else 1_000_000
    run = ("-m", "deepmnist", "-b", 4, "--steps", steps, "--strategy", "horovod")
    with Running(*run, *where, "--ssh-config", hosts.ssh_config, cwd=tmp_path) as running:
        if killed is not None:
            running.wait_for("measuring")
            os.kill(rank_on(tmp_path, killed), signal.SIGKILL)
        status = running.end(120)
    assert tasks_here(str(tmp_path)) == []
    if killed is not None:
        assert status == 1
        assert f"worker {killed} ended with signal 9" in running.said
        return
    assert status == 0, running.said
    (row,) = pd.read_csv(tmp_path / "logs" / "deepmnist_b4.csv").to_dict("records")
    assert (row["strategy"], row["gpus"], row["parameter_servers"]) == ("horovod", 2, 0)


def rank_on(folder: Path, rank: int) -> int:
    """The process of a rank, by what it was started with."""
    for pid in tasks_here(str(folder)):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        log = Path(f"/proc/{pid}/fd/1").readlink().name
        if b"perftest.task" in words and log == f"worker-{rank}.log":
            return pid
    raise AssertionError(f"no process of rank {rank}")

"""What holds a run up: judged from parts that are worked out by hand, and of a run itself."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from command import runtest
from hosts import NamespaceHosts
from test_runtest import over_ssh

from launcher.results.bottleneck import Load, Parts, bottleneck, pacemaker
from launcher.results.steps import StepRecord, frame

IDLE = Load(workers=0.5, servers=0.2, processors=8, server=0.2)
HALF = Parts(0, "a", 1.0, input=0.0, pull=0.2, compute=0.5, push=0.2, wait=0.1, lost=0.0)
SLOW_LINK = replace(HALF, pull=0.4, compute=0.2, push=0.3)


@pytest.mark.parametrize(
    ("parts", "late", "load", "kind"),
    [
        (HALF, set(), IDLE, "compute"),
        (SLOW_LINK, set(), IDLE, "link"),
        (replace(HALF, input=0.6, compute=0.1), set(), IDLE, "input"),
        (replace(HALF, lost=0.2), {0}, IDLE, "straggler"),
        (replace(HALF, lost=0.2), {1}, IDLE, "compute"),
        (replace(HALF, lost=0.05), {0}, IDLE, "compute"),
        # One server that computes for as long as the exchange lasts, on a machine that could more.
        (SLOW_LINK, set(), replace(IDLE, server=0.7), "parameter server CPU"),
        # A machine without a processor to spare is no link's fault, whoever takes them.
        (SLOW_LINK, set(), Load(1.5, 0.4, 2, 0.4), "compute"),
        (SLOW_LINK, set(), Load(0.5, 1.4, 2, 0.4), "parameter server CPU"),
        (SLOW_LINK, set(), Load(1.0, 0.5, 2, 0.4), "link"),
    ],
)
def test_the_largest_part_is_named_and_whoever_it_is_due_to(
    parts: Parts, late: set[int], load: Load, kind: str
) -> None:
    found = bottleneck(parts, late, load)
    assert found.kind == kind
    assert "of a step's 1 s" in found.text


def record(worker: int, wait: float, phase: str = "measured", step: int = 1) -> StepRecord:
    """A step of 1 s whose parts leave 0.1 s to input."""
    return StepRecord(
        worker=worker,
        node=f"n{worker}",
        step=step,
        phase=phase,  # type: ignore[arg-type]
        seconds=1.0,
        compute_seconds=0.5 - wait,
        loss=1.0,
        global_step=step,
        pull_seconds=0.2,
        push_seconds=0.2,
        wait_seconds=wait,
        cpu_seconds=0.7,
    )


def test_the_pacemaker_waits_least_and_the_others_lose_what_they_wait_longer() -> None:
    table = frame([record(0, 0.3), record(1, 0.05), record(2, 0.4), record(0, 9.0, "warmup", 0)])
    parts = pacemaker(table)
    assert parts is not None
    assert (parts.worker, parts.node) == (1, "n1")
    assert parts.lost == pytest.approx(0.3)
    assert parts.input == pytest.approx(0.1)
    assert parts.exchange == pytest.approx(0.45)


def test_without_parts_nothing_is_judged() -> None:
    unknown = replace(record(0, 0.1), pull_seconds=math.nan)
    assert pacemaker(frame([unknown])) is None
    assert pacemaker(frame([record(0, 0.1, "warmup")])) is None
    alone = pacemaker(frame([record(0, 0.1), replace(unknown, step=2)]))
    assert alone is not None
    assert alone.lost == 0.0


MBIT = 200


@pytest.fixture
def slow(hosts: NamespaceHosts) -> Iterator[NamespaceHosts]:
    """The hosts, with links of 200 Mbit/s."""
    with ExitStack() as links:
        try:
            links.enter_context(hosts.shaped(MBIT))
        except RuntimeError as error:
            pytest.skip(f"links cannot be made slow here: {error}")
        yield hosts


@pytest.mark.network
@pytest.mark.tensorflow
def test_a_run_over_slow_links_is_held_up_by_them_and_says_so(
    slow: NamespaceHosts, tmp_path: Path
) -> None:
    argv = ("-m", "deepmnist", "-n", 2, "-b", 4, "--steps", 3, "--warmup", 1)
    done = runtest(*argv, *over_ssh(slow), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    row = pd.read_csv(tmp_path / "logs" / "deepmnist_b4.csv").iloc[-1]
    facts = json.loads((tmp_path / "logs" / "runs" / row["run_id"] / "run.json").read_text())

    carried = max(each["bytes"] for each in facts["bytes_per_step"] if each["from"] != each["to"])
    least = carried / (MBIT * 1e6 / 8)
    assert least > 0.4
    for parts in facts["step_parts"].values():
        exchange = parts["pull"] + parts["push"] + parts["wait"]
        assert exchange > 0.8 * least, "but for what a link may carry at once after a rest"
        assert parts["compute"] < exchange
    assert row["bottleneck"] == facts["bottleneck"]["kind"] == "link"
    assert "held up by  link: " in done.stdout

"""What a person sees while a run goes, on a terminal of 80 columns and in a file."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console
from test_plan import hello, plan

from launcher.display import Display
from launcher.nodes import Node
from launcher.tasks import RunPlan
from perftest.protocol import StepTimes

LONG = "a-machine-with-a-very-long-name.rack-12.example.com"


def times(first: int, count: int) -> StepTimes:
    row = (0.5,) * count
    return StepTimes(first, first > 0, row, row, row, tuple(range(count)))


def big_plan(workers: int) -> RunPlan:
    where = [Node(LONG, LONG)]
    return plan([hello(cpus=tuple(range(64)))], where, gpus_per_node=workers)


def drawn(made: RunPlan, width: int = 80) -> list[str]:
    """The lines of the live view in the middle of a run."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    display = Display(console, made.nodes, live=True)
    display.run_started(made)
    for task in made.workers:
        display.phase("worker", task.place.index, "measuring")
        display.steps(task.place.index, 0, times(0, 10))
        display.steps(task.place.index, 10, times(10, 10))
    with console.capture() as capture:
        console.print(display._render())
    return capture.get().splitlines()


@pytest.mark.parametrize("workers", [1, 16, 17, 64])
def test_the_live_view_fits_a_terminal_of_80_by_24(workers: int) -> None:
    lines = drawn(big_plan(workers))
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 24


def test_the_live_view_shows_each_worker_with_step_and_speed() -> None:
    lines = drawn(big_plan(2))
    rows = [line.split() for line in lines if "measuring" in line]
    assert [(row[0], row[-2], row[-1]) for row in rows] == [
        ("0", "20", "64.0"),
        ("1", "20", "64.0"),
    ]
    assert any("20/110 steps" in line and "128.0 images/sec" in line for line in lines)


def test_many_workers_are_counted_by_phase() -> None:
    assert any("64 measuring" in line for line in drawn(big_plan(64)))


def plain(made: RunPlan) -> Display:
    return Display(Console(file=io.StringIO(), width=80), made.nodes, live=False)


def said(display: Display) -> list[str]:
    file = display._console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue().splitlines()


def test_elsewhere_plain_lines_with_the_time_are_written() -> None:
    made = big_plan(2)
    display = plain(made)
    with display:
        display.opening()
        display.node_greeted(0, made.hellos[0])
        display.run_started(made)
        for index in range(2):
            display.phase("worker", index, "building the model")
    lines = said(display)
    assert len(lines) == 4
    assert all(line[2] == ":" and line[5] == ":" for line in lines)
    assert "\x1b" not in "".join(lines)
    assert lines[-1].endswith("all workers: building the model")


def test_a_phase_is_told_once_and_only_when_all_are_in_it() -> None:
    made = big_plan(3)
    display = plain(made)
    display.run_started(made)
    for index in (0, 1, 1, 2, 2):
        display.phase("worker", index, "measuring")
    assert [line.endswith("all workers: measuring") for line in said(display)] == [False, True]


def test_what_a_node_says_cannot_draw_on_the_terminal() -> None:
    made = big_plan(1)
    display = plain(made)
    bad = replace(made.hellos[0], versions=replace(made.hellos[0].versions, tensorflow="2\x1b[2J"))
    display.node_greeted(0, bad)
    display.run_started(made)
    display.phase("worker", 0, "\x1b]0;owned\x07[bold]x")
    assert "\x1b" not in "\n".join(said(display))
    assert "\x07" not in "\n".join(said(display))

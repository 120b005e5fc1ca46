"""The timed loop, by a clock that the test holds."""

from __future__ import annotations

from collections.abc import Callable

from perftest.measure import StepResult, measure
from perftest.protocol import StepTimes


class Clock:
    """A clock that moves only when somebody takes time."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run(durations: list[float], report_takes: float = 0.0) -> list[StepTimes]:
    """The reports of a loop whose steps take `durations`."""
    clock = Clock()
    reports: list[StepTimes] = []
    left = list(durations)

    def step() -> StepResult:
        clock.now += left.pop(0)
        return StepResult(loss=1.5, global_step=len(durations) - len(left))

    def report(times: StepTimes) -> None:
        clock.now += report_takes
        reports.append(times)

    measure(step, len(durations), 7, True, report, clock)
    return reports


def seconds(reports: list[StepTimes]) -> list[float]:
    return [time for report in reports for time in report.seconds]


def test_each_step_has_the_time_that_it_took() -> None:
    assert seconds(run([0.25, 0.5, 2.0])) == [0.25, 0.5, 2.0]


def test_what_the_loop_does_between_steps_counts_to_the_next_step() -> None:
    times = seconds(run([1.0, 1.0, 1.0], report_takes=0.125))
    assert times == [1.0, 1.125, 1.125]


def test_reports_follow_on_each_other_and_come_at_most_twice_a_second() -> None:
    reports = run([0.125] * 20)
    assert [report.first_step for report in reports] == [7, 11, 15, 19, 23]
    assert [step for report in reports for step in report.global_steps] == list(range(1, 21))
    assert all(report.measured for report in reports)


def test_no_step_gives_no_report() -> None:
    assert run([]) == []


def test_losses_and_times_run_in_step() -> None:
    for report in run([0.2] * 9):
        lengths = {len(report.seconds), len(report.losses), len(report.compute_seconds)}
        assert lengths == {len(report.global_steps)}


def test_the_step_is_called_exactly_as_often_as_asked() -> None:
    calls: list[int] = []

    def step() -> StepResult:
        calls.append(1)
        return StepResult(0.0, len(calls))

    ignore: Callable[[StepTimes], None] = lambda times: None  # noqa: E731
    measure(step, 12, 0, False, ignore)
    assert len(calls) == 12

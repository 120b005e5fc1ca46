"""Warnings come when there is reason, and seldom when there is none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from results_examples import raw_steps

from launcher.results import warnings
from launcher.results.estimate import Ratio
from launcher.results.steps import frame

TRIES = 300


def steady(rng: np.random.Generator, steps: int) -> np.ndarray:
    return rng.normal(0.1, 0.004, steps)


def skewed(rng: np.random.Generator, steps: int) -> np.ndarray:
    return 0.1 + rng.exponential(0.01, steps)


def correlated(rng: np.random.Generator, steps: int) -> np.ndarray:
    noise = rng.standard_normal(steps)
    for step in range(1, steps):
        noise[step] = 0.5 * noise[step - 1] + math.sqrt(0.75) * noise[step]
    return 0.1 * (1 + 0.05 * noise)


@pytest.mark.parametrize("steps", [20, 50, 200])
@pytest.mark.parametrize("machine", [steady, skewed, correlated])
@pytest.mark.parametrize("check", [warnings.drift, warnings.several_modes])
def test_a_steady_machine_is_seldom_accused(check, machine, steps):
    rng = np.random.default_rng(5)
    false = sum(bool(check(machine(rng, steps))) for _ in range(TRIES))
    assert false / TRIES <= 0.04


def test_steps_that_become_slower_while_they_are_measured_are_called_drift():
    rng = np.random.default_rng(6)
    (warning,) = warnings.drift(steady(rng, 100) * np.linspace(1, 1.2, 100))
    assert warning.kind == "drift"
    assert "longer" in warning.text
    (warning,) = warnings.drift(steady(rng, 100) * np.linspace(1.2, 1, 100))
    assert "shorter" in warning.text


def test_two_speeds_of_one_run_are_told_apart():
    rng = np.random.default_rng(7)
    seconds = steady(rng, 100) * rng.choice([1, 1.5], 100)
    (warning,) = warnings.several_modes(seconds)
    assert warning.kind == "multi-modal"
    assert "2 values" in warning.text


def test_outliers_are_counted_and_the_farthest_is_named():
    seconds = steady(np.random.default_rng(8), 100)
    seconds[[3, 40]] = 0.5, 0.9
    (warning,) = warnings.outliers(seconds)
    assert warning.text.startswith("2 of 100 measured steps")
    assert "0.9 s" in warning.text
    assert "none was left out" in warning.text


def test_a_straggler_is_named_with_its_node_and_by_how_much():
    steps = frame(raw_steps(np.random.default_rng(9), workers=8, slow={5: 1.5}))
    (warning,) = warnings.stragglers(steps)
    assert warning.kind == "straggler"
    assert warning.text.startswith("worker 5 on node2")
    assert "50% more" in warning.text


def test_a_worker_that_only_has_its_parameters_earlier_is_no_straggler():
    """It computes more of its forward pass after the last of them, and not before."""
    steps = frame(raw_steps(np.random.default_rng(9), workers=4))
    steps["pull_seconds"] = 0.05
    early = steps["worker"] == 2
    steps.loc[~early, "compute_seconds"] -= 0.03
    steps.loc[early, "pull_seconds"] -= 0.03
    assert warnings.stragglers(steps) == []
    steps.loc[early, "compute_seconds"] += 0.03
    (warning,) = warnings.stragglers(steps)
    assert warning.text.startswith("worker 2 ")


def test_a_machine_that_reads_its_clocks_too_late_accuses_nobody():
    """Where the parameters seem to come no sooner than the gradients, computing takes no time."""
    steps = frame(raw_steps(np.random.default_rng(9), workers=2))
    steps.loc[steps["worker"] == 0, "compute_seconds"] = 0.0
    assert warnings.stragglers(steps) == []
    assert warnings.late_workers(steps) == set()


@pytest.mark.parametrize("workers", [1, 2, 3, 8, 64])
def test_workers_that_are_alike_are_not_told_apart(workers):
    for seed in range(20):
        steps = frame(raw_steps(np.random.default_rng(seed), workers=workers, measured=40))
        assert warnings.stragglers(steps) == []


def test_without_compute_times_a_synchronous_run_accuses_nobody_but_an_asynchronous_one_does():
    steps = frame(raw_steps(np.random.default_rng(10), workers=4))
    steps.loc[steps["worker"] == 1, "seconds"] *= 2
    steps["compute_seconds"] = math.nan
    assert warnings.stragglers(steps) == []
    (warning,) = warnings.stragglers(steps, sync=False)
    assert warning.text.startswith("worker 1 ")


def test_a_worker_without_all_steps_is_named():
    steps = frame(raw_steps(np.random.default_rng(11), workers=2, measured=10))
    (warning,) = warnings.incomplete_steps(steps.iloc[:-3])
    assert warning.text == "worker 1 has 7 measured steps where another has 10"


def test_an_efficiency_over_100_percent_blames_noise_or_the_baseline():
    (noise,) = warnings.over_ideal(Ratio(1.02, 0.97, 1.07, 0.4), 4, "single")
    (baseline,) = warnings.over_ideal(Ratio(1.2, 1.1, 1.3, 0.001), 4, "single")
    assert "noise" in noise.text
    assert "baseline (single)" in baseline.text
    assert warnings.over_ideal(Ratio(0.99, 0.9, 1.08, 0.8), 4, "single") == []


@pytest.mark.parametrize(
    ("nodes", "machines", "warned"), [(2, 1, 1), (4, 2, 1), (2, 2, 0), (1, 1, 0)]
)
def test_nodes_that_share_a_machine_are_called_processes(nodes, machines, warned):
    found = warnings.one_machine(nodes, machines)
    assert len(found) == warned
    assert all("not N nodes" in warning.text for warning in found)


@pytest.mark.parametrize(("repeats", "warned"), [(1, 1), (2, 1), (3, 0)])
def test_fewer_than_three_repeats_are_mentioned(repeats, warned):
    assert len(warnings.few_repeats(repeats)) == warned


def test_all_warnings_of_a_run_fit_one_cell():
    steps = frame(raw_steps(np.random.default_rng(12), workers=4, slow={0: 2}))
    found = warnings.run_warnings(steps, nodes=2, machines=1)
    assert [warning.kind for warning in found] == ["straggler", "one machine"]
    cell = warnings.in_one_cell(found)
    assert cell.startswith("straggler: worker 0")
    assert "\n" not in cell

"""The formulas of the statistics, each against its definition."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.results import estimate
from launcher.results.estimate import Estimate
from launcher.results.steps import StepRecord, frame
from launcher.results.summary import summarise, summarise_times
from launcher.results.timeline import run_steps

seconds = st.floats(1e-4, 100)
times = st.lists(seconds, min_size=1, max_size=60).map(np.array)
grids = st.integers(1, 5).flatmap(
    lambda workers: st.lists(
        st.lists(seconds, min_size=workers, max_size=workers), min_size=1, max_size=25
    )
)


def steps_of(grid: list[list[float]], warmup: int = 0, global_steps: object = None) -> pd.DataFrame:
    """Steps from `grid[step][worker]`."""
    return frame(
        StepRecord(
            worker=worker,
            node="n",
            step=step,
            phase="warmup" if step < warmup else "measured",
            seconds=value,
            compute_seconds=math.nan,
            loss=1.0,
            global_step=global_steps[step][worker] if isinstance(global_steps, list) else step + 1,
        )
        for step, line in enumerate(grid)
        for worker, value in enumerate(line)
    )


@given(grids, st.integers(1, 512))
def test_a_synchronous_step_lasts_as_long_as_its_slowest_worker(grid, batch):
    run = run_steps(steps_of(grid), batch_per_gpu=batch)
    assert run.seconds.tolist() == [max(line) for line in grid]
    assert run.images_per_step == batch * len(grid[0])


@given(times, st.integers(1, 4096))
def test_images_per_second_are_all_images_over_all_time(seconds, images):
    summary = summarise_times(seconds, images)
    assert summary.images_per_sec == pytest.approx(len(seconds) * images / seconds.sum())
    assert summary.mean_time == pytest.approx(seconds.mean())
    assert summary.mean_speed == pytest.approx(images / seconds.mean())


@given(times, st.integers(1, 4096))
def test_an_average_of_rates_would_never_be_smaller(seconds, images):
    assert summarise_times(seconds, images).images_per_sec <= np.mean(images / seconds) * (1 + 1e-9)


@given(times, st.integers(1, 4096))
def test_uncertainty_and_jitter_are_those_of_the_existing_tables(seconds, images):
    speeds = images / seconds
    summary = summarise_times(seconds, images)
    assert summary.speed_uncertainty == pytest.approx(np.std(speeds) / len(speeds) ** 0.5)
    median = np.median(speeds)
    assert summary.speed_jitter == pytest.approx(1.4826 * np.median(np.abs(speeds - median)))


@given(times)
def test_percentiles_are_in_order_and_among_the_steps(seconds):
    summary = summarise_times(seconds, 1)
    assert seconds.min() <= summary.p50 <= summary.p95 <= summary.max == seconds.max()


@given(times, st.floats(0.01, 100))
def test_slower_clocks_change_no_relative_figure(seconds, factor):
    one, other = summarise_times(seconds, 8), summarise_times(seconds * factor, 8)
    assert other.images_per_sec * factor == pytest.approx(one.images_per_sec)
    assert other.speed_jitter * factor == pytest.approx(one.speed_jitter, abs=1e-6)


@given(times)
def test_the_interval_holds_the_speed_or_says_that_there_are_too_few_steps(seconds):
    summary = summarise_times(seconds, 8)
    if len(seconds) < 6:
        assert math.isnan(summary.ci_low)
        assert math.isnan(summary.ci_high)
        assert summary.ci_method == "too few steps"
    else:
        assert summary.ci_low <= summary.images_per_sec * (1 + 1e-9)
        assert summary.ci_high >= summary.images_per_sec * (1 - 1e-9)
        assert summary.ci_method == f"{min(10, len(seconds) // 2)} batch means"


def test_the_interval_is_students_over_ten_batch_means():
    seconds = np.random.default_rng(1).gamma(50, 0.002, 100)
    means = seconds.reshape(10, 10).mean(axis=1)
    reach = 2.262157 * means.std(ddof=1) / 10**0.5  # Student's t for 9 degrees of freedom, 97.5 %
    summary = summarise_times(seconds, 64)
    assert summary.ci_low == pytest.approx(64 / (means.mean() + reach))
    assert summary.ci_high == pytest.approx(64 / (means.mean() - reach))


@given(grids)
def test_asynchronous_workers_in_lock_step_are_as_fast_as_synchronous_ones(grid):
    equal = [[line[0]] * len(line) for line in grid]
    steps = steps_of(equal)
    one, other = (summarise(steps, batch_per_gpu=4, sync=sync) for sync in (True, False))
    assert one.images_per_sec == pytest.approx(other.images_per_sec)


def test_an_asynchronous_run_counts_a_global_batch_for_every_n_completions():
    # Worker 0 ends steps at 1, 2, 3, 4 and worker 1 at 2, 4 (and 6, 8, when worker 0 is gone).
    run = run_steps(steps_of([[1.0, 2.0]] * 4), batch_per_gpu=10, sync=False)
    assert run.seconds.tolist() == [2.0, 1.0, 1.0]  # completions 1 2|2 3|4 4 end at 2, 3 and 4
    assert run.images_per_step == 20


@given(grids)
def test_no_asynchronous_time_is_counted_twice_or_left_out(grid):
    slowest_start = min(sum(line[worker] for line in grid) for worker in range(len(grid[0])))
    try:
        run = run_steps(steps_of(grid), batch_per_gpu=1, sync=False)
    except ValueError:
        return  # the first worker was gone before the others had ended a global batch
    assert (run.seconds > 0).all()
    assert run.seconds.sum() <= slowest_start * (1 + 1e-9)


def test_with_backup_workers_a_step_is_from_update_to_update():
    # Three workers, one backup: worker 2 is slow and sees updates late.
    grid = [[9.0, 9.0, 9.0]] + [[1.0, 1.1, 2.5]] * 4
    seen = [[1, 1, 1], [2, 2, 3], [3, 3, 5], [4, 4, 5], [5, 5, 5]]
    run = run_steps(steps_of(grid, 1, seen), batch_per_gpu=10, backup_workers=1)
    assert run.seconds == pytest.approx([1.0, 1.0, 1.0, 1.0])
    assert run.images_per_step == 20


def test_updates_that_are_seen_at_one_moment_share_the_time_since_the_one_before():
    grid = [[1.0, 1.0], [2.0, 2.0]]
    run = run_steps(steps_of(grid, 1, [[1, 1], [3, 3]]), batch_per_gpu=1, backup_workers=1)
    assert run.seconds == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize(
    ("steps", "options", "words"),
    [
        (steps_of([[1.0, 1.0]], warmup=1), {}, "no measured step"),
        (steps_of([[1.0, 1.0]]), {"backup_workers": 2}, "leave none"),
        (pd.concat([steps_of([[1.0]]), steps_of([[1.0]])]), {}, "two times for one step"),
    ],
)
def test_what_is_no_run_is_refused_with_a_reason(steps, options, words):
    with pytest.raises(ValueError, match=words):
        summarise(steps, batch_per_gpu=1, **options)


def autocorrelated(rng: np.random.Generator, runs: int, steps: int, phi: float) -> np.ndarray:
    """Step times of mean 1 and deviation 0.1, each with `phi` of the one before in it."""
    noise = rng.standard_normal((runs, steps))
    noise[:, 1:] *= math.sqrt(1 - phi**2)
    for step in range(1, steps):
        noise[:, step] += phi * noise[:, step - 1]
    return 1 + 0.1 * noise


def coverage(runs: np.ndarray) -> tuple[float, float]:
    """How often the true speed, 1, is in our interval, and in that of independent steps."""
    ours = naive = 0
    for seconds in runs:
        speed = estimate.from_steps(seconds, 1)
        ours += speed.low <= 1 <= speed.high
        reach = 1.96 * seconds.std(ddof=1) / math.sqrt(len(seconds))
        naive += abs(seconds.mean() - 1) <= reach
    return ours / len(runs), naive / len(runs)


@pytest.mark.parametrize("steps", [20, 100, 237])
def test_the_interval_covers_the_truth_in_90_to_98_of_100_independent_runs(steps):
    ours, _ = coverage(autocorrelated(np.random.default_rng(2), 1500, steps, 0.0))
    assert 0.90 <= ours <= 0.98


def test_the_interval_is_clearly_better_than_the_naive_one_on_correlated_steps():
    ours, naive = coverage(autocorrelated(np.random.default_rng(3), 1500, 300, 0.7))
    assert naive < 0.70
    assert ours > 0.88


def test_three_repeats_give_their_own_interval_and_all_images_over_all_time():
    runs = [Estimate(speed, 0.001, 9, "10 batch means") for speed in (90.0, 100.0, 120.0)]
    joint = estimate.from_runs(runs)
    seconds = np.array([1 / 90, 1 / 100, 1 / 120])
    reach = 4.302653 * seconds.std(ddof=1) / 3**0.5  # Student's t for 2 degrees of freedom, 97.5 %
    assert joint.method == "3 repeats"
    assert joint.value == pytest.approx(3 / seconds.sum())
    assert joint.low == pytest.approx(1 / (seconds.mean() + reach))
    assert joint.high == pytest.approx(1 / (seconds.mean() - reach))


def test_two_repeats_keep_to_the_batch_means():
    runs = [Estimate(100.0, 0.02, 9, "10 batch means")] * 2
    joint = estimate.from_runs(runs)
    assert joint.relative_error == pytest.approx(0.02 / 2**0.5)
    assert joint.degrees == pytest.approx(18)
    assert joint.method == "10 batch means of 2 runs"


@given(st.floats(1, 1e6), st.floats(1e-4, 0.3), st.integers(3, 10))
def test_an_estimate_comes_back_whole_from_a_row(value, error, batches):
    one = Estimate(value, error, batches - 1, f"{batches} batch means")
    if one.high < math.inf:
        back = estimate.from_row(one.value, one.low, one.high, one.method)
        assert back.relative_error == pytest.approx(error)
        assert back.degrees == one.degrees


@given(st.floats(1, 1e4), st.floats(1, 1e4), st.floats(1e-4, 0.2), st.floats(1e-4, 0.2))
def test_a_ratio_carries_the_noise_of_both_and_is_the_inverse_of_its_inverse(
    a, b, noise_a, noise_b
):
    above, below = (Estimate(v, e, 9, "") for v, e in ((a, noise_a), (b, noise_b)))
    one, other = estimate.ratio(above, below), estimate.ratio(below, above)
    assert one.low < one.value < one.high
    assert one.low == pytest.approx(1 / other.high)
    assert one.p_value == pytest.approx(other.p_value)
    alone = math.exp(estimate.student(9) * max(noise_a, noise_b))
    wider = math.exp(estimate.student(18) * math.hypot(noise_a, noise_b))
    assert wider * (1 - 1e-9) <= one.high / one.value
    assert one.high / one.value <= alone ** (2**0.5) * (1 + 1e-9)


def test_the_interval_of_an_efficiency_covers_the_truth():
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(1000):
        one = estimate.from_steps(rng.normal(1.0, 0.1, 100), 32)
        eight = estimate.from_steps(rng.normal(1.25, 0.2, 100), 256)
        efficiency = estimate.ratio(eight, one, times=8)
        hits += efficiency.low <= 0.8 <= efficiency.high
    assert 0.92 <= hits / 1000 <= 0.98


def test_without_an_interval_on_one_side_a_ratio_has_none():
    known, unknown = Estimate(8.0, 0.1, 9, ""), Estimate(4.0, math.nan, math.nan, "")
    ratio = estimate.ratio(known, unknown)
    assert ratio.value == 2
    assert math.isnan(ratio.low)
    assert math.isnan(ratio.p_value)

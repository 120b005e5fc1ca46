"""Comparisons: equals are not told apart, what is slower is, and noise is no reason to fail."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from results_examples import add_run, log_frame, raw_steps, row
from rich.console import Console

from launcher.errors import LogsError
from launcher.results.compare import compare, is_slower
from launcher.results.comparison_table import comparison_table
from launcher.results.log import RunRow, append_row, log_path
from launcher.results.sides import side
from launcher.results.summary import summarise_times

# Times of 4 × 300 steps of deepmnist, 2 workers on 2 cores that had other work too: a machine as
# noisy as any, whose steps have autocorrelations of 0.5 to 0.8.
REAL = pd.read_csv(Path(__file__).with_name("test_compare_steps.csv"))["seconds"].to_numpy()
BLOCK = 30


def resampled(rng: np.random.Generator, steps: int = 120, times: float = 1.0) -> np.ndarray:
    """A run as the real machine might have given it: real steps in sequence, in random blocks."""
    starts = rng.integers(0, len(REAL) - BLOCK, steps // BLOCK)
    return times * np.concatenate([REAL[start : start + BLOCK] for start in starts])


def runs(rng: np.random.Generator, repeats: int, times: float = 1.0) -> pd.DataFrame:
    """A log of `repeats` runs of each of two configurations."""
    rows: list[RunRow] = []
    for number in range(repeats):
        for gpus in (1, 2):
            figures = summarise_times(resampled(rng, times=times), 32.0 * gpus).figures()
            rows.append(row(run_id=f"{number}-{gpus}", gpus=gpus, **figures))
    return log_frame(rows)


@pytest.mark.parametrize("repeats", [1, 2, 3, 5])
def test_two_sets_of_one_machine_get_no_verdict_of_difference_in_95_of_100_tries(repeats):
    rng = np.random.default_rng(20 + repeats)
    tries = 200
    told_apart = 0
    for _ in range(tries):
        found = compare(runs(rng, repeats), runs(rng, repeats))
        told_apart += any(one.verdict != "no difference seen" for one in found)
    assert told_apart / tries <= 0.05


@pytest.mark.parametrize(("times", "verdict"), [(1.6, "slower"), (1 / 1.6, "faster")])
def test_a_large_difference_is_seen_through_the_same_noise(times, verdict):
    rng = np.random.default_rng(30)
    verdicts = [
        one.verdict for _ in range(20) for one in compare(runs(rng, 5), runs(rng, 5, times))
    ]
    assert verdicts.count(verdict) >= 36


def steady(speed: float, noise: float, repeats: int = 5, **facts: object) -> pd.DataFrame:
    """Runs whose speeds spread by `noise` around `speed`."""
    spread = np.linspace(-1, 1, repeats) if repeats > 1 else [0.0]
    changes = [speed * math.exp(noise * place) for place in spread]
    return log_frame([row(images_per_sec=value, **facts) for value in changes])


def test_the_ratio_is_b_over_a_with_welchs_interval():
    a, b = steady(100, 0.01), steady(110, 0.02)
    (found,) = compare(a, b)
    deviation = np.std(np.linspace(-1, 1, 5), ddof=1) / 5**0.5
    errors = 0.01 * deviation, 0.02 * deviation
    degrees = sum(e**2 for e in errors) ** 2 / sum(e**4 / 4 for e in errors)
    assert degrees == pytest.approx(5.882, abs=0.01)
    reach = 2.4592 * math.hypot(*errors)  # Student's t for these degrees of freedom, 97.5 %
    centre = found.speed_b / found.speed_a
    assert found.ratio.value == pytest.approx(centre)
    assert centre == pytest.approx(1.1, rel=1e-3)
    assert found.ratio.low == pytest.approx(centre * math.exp(-reach), rel=1e-4)
    assert found.ratio.high == pytest.approx(centre * math.exp(reach), rel=1e-4)
    assert found.method == "5 and 5 runs"
    assert found.verdict == "faster"


@pytest.mark.parametrize(
    ("speed", "noise", "fails"),
    [
        (90, 0.002, True),
        (96, 0.002, False),
        (94.9, 0.01, False),
        (80, 0.3, False),
        (120, 0.002, False),
    ],
)
def test_only_what_is_surely_slower_by_more_than_the_threshold_fails(speed, noise, fails):
    (found,) = compare(steady(100, noise), steady(speed, noise))
    assert is_slower(found, 0.05) is fails


def test_single_runs_are_compared_by_batch_means_and_an_assumed_spread_that_is_told():
    (near,) = compare(steady(100, 0, 1), steady(104, 0, 1))
    (far,) = compare(steady(100, 0, 1), steady(150, 0, 1))
    assert near.verdict == "no difference seen"
    assert far.verdict == "faster"
    assert "10 batch means" in near.method
    assert "2.0% (assumed" in near.method


def test_the_spread_of_repeated_configurations_is_used_for_single_runs_beside_them():
    a = pd.concat([steady(100, 0.2, 5), steady(300, 0, 1, gpus=4)], ignore_index=True)
    b = pd.concat([steady(100, 0.2, 5), steady(400, 0, 1, gpus=4)], ignore_index=True)
    single = compare(a, b)[1]
    assert "seen in repeats" in single.method
    assert single.verdict == "no difference seen"


def test_configurations_of_one_side_alone_are_listed():
    a = pd.concat([steady(100, 0.01), steady(200, 0.01, gpus=2)], ignore_index=True)
    b = pd.concat([steady(100, 0.01), steady(400, 0.01, gpus=4)], ignore_index=True)
    found = compare(a, b)
    assert [(one.configuration["gpus"], one.verdict) for one in found] == [
        ("1", "no difference seen"),
        ("2", "only in A"),
        ("4", "only in B"),
    ]
    assert not any(is_slower(one, 0.0) for one in found)


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "mixed"},
        {"xla": "on"},
        {"onednn": "off"},
        {"aggregate": "node"},
        {"gradient_dtype": "bf16"},
        {"communication": "nccl"},
        {"sync": False},
        {"data": "mnist"},
        {"batch_per_gpu": 64},
    ],
)
def test_what_was_measured_differently_is_not_compared(change):
    found = compare(steady(100, 0.01), steady(100, 0.01, **change))
    assert sorted(one.verdict for one in found) == ["only in A", "only in B"]


def test_other_hardware_is_compared_where_each_side_has_one_kind():
    (found,) = compare(steady(100, 0.01), steady(200, 0.01, gpu_type="H100"))
    assert found.verdict == "faster"
    mixed = pd.concat([steady(100, 0.01), steady(200, 0.01, gpu_type="H100")], ignore_index=True)
    assert len(compare(mixed, mixed)) == 2


def test_older_logs_without_intervals_get_a_ratio_and_no_verdict(tmp_path):
    for name, speed in (("a", 90), ("b", 50)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "resnet_b32.csv").write_text(f"1,{speed}\n")
    sides = (side(str(tmp_path / name), tmp_path) for name in ("a", "b"))
    (found,) = compare(*sides)
    assert found.ratio.value == pytest.approx(50 / 90)
    assert found.verdict == "not known"


def test_a_side_is_a_log_a_folder_a_run_folder_a_run_id_or_its_beginning(tmp_path):
    rng = np.random.default_rng(40)
    add_run(tmp_path, raw_steps(rng), run_id="20260301-aa", gpus=4)
    add_run(tmp_path, raw_steps(rng), run_id="20260302-bb", gpus=4)
    log = log_path(tmp_path, "resnet", 32)
    ids = {
        str(log): 2,
        str(tmp_path): 2,
        str(tmp_path / "runs" / "20260302-bb"): 1,
        "20260301-aa": 1,
        "20260302": 1,
    }
    assert {what: len(side(what, tmp_path)) for what in ids} == ids


@pytest.mark.parametrize("what", ["nothing", "", "2026030"])
def test_a_side_that_is_nothing_or_several_runs_is_an_error_that_says_so(tmp_path, what):
    for name in ("20260301", "20260302"):
        append_row(log_path(tmp_path, "resnet", 32), row(run_id=name))
    with pytest.raises(LogsError, match=what or "nothing was named"):
        side(what, tmp_path)


def test_a_row_without_an_interval_gets_it_from_raw_steps(tmp_path):
    done = add_run(tmp_path, raw_steps(np.random.default_rng(41)), run_id="a", gpus=4)
    log = log_path(tmp_path, "resnet", 32)
    text = log.read_text()
    for cell in (str(done.ci_low), str(done.ci_high), "10 batch means"):
        text = text.replace(cell, "")
    log.write_text(text)
    (found,) = side(str(log), tmp_path).to_dict("records")
    assert found["ci_low"] == pytest.approx(done.ci_low)
    assert found["ci_high"] == pytest.approx(done.ci_high)
    assert found["ci_method"] == done.ci_method


def test_a_comparison_fits_80_columns_and_loses_no_figure():
    a = pd.concat([steady(100, 0.01), steady(12345.6, 1e-6, gpus=64, nodes=16, gpus_per_node=4)])
    b = pd.concat([steady(80, 0.01), steady(12345.6, 1e-6, gpus=64, nodes=16, gpus_per_node=4)])
    frames = (table.reset_index(drop=True) for table in (a, b))
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(comparison_table(compare(*frames)))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    for figure in ("100.0", "80.0", "0.800", "12,345.6", "1.000", "slower", "16 × 4"):
        assert figure in text


def test_the_speed_of_a_side_is_all_images_over_all_time_as_in_every_table() -> None:
    three = log_frame([row(images_per_sec=speed) for speed in (50.0, 100.0, 100.0)])
    (found,) = compare(three, three)
    assert found.speed_a == pytest.approx(3 / (1 / 50 + 1 / 100 + 1 / 100))

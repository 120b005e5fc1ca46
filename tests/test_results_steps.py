"""Raw steps: written whole, read back exactly, and all figures follow from them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from results_examples import add_run, raw_steps

from launcher.errors import LogsError, ResultsError
from launcher.results.log import log_path
from launcher.results.log_reading import read_log
from launcher.results.run_folder import RunFolder
from launcher.results.steps import frame, read_steps, write_steps


def test_steps_come_back_to_the_last_bit(tmp_path):
    records = raw_steps(np.random.default_rng(1), workers=3)
    path = write_steps(tmp_path / "steps.csv", records)
    pd.testing.assert_frame_equal(read_steps(path), frame(records), check_exact=True)
    assert path.read_text().startswith("worker,node,step,phase,seconds,loss,global_step")
    assert [file.name for file in tmp_path.iterdir()] == ["steps.csv"]


def test_an_unknown_compute_time_is_an_empty_cell_and_nan_again(tmp_path):
    path = tmp_path / "steps.csv"
    path.write_text("worker,node,step,phase,seconds,loss,global_step,compute_seconds\n"
                    "0,a,0,measured,0.5,2.5,1,\n")  # fmt: skip
    assert math.isnan(read_steps(path)["compute_seconds"][0])


def test_steps_without_the_column_of_compute_times_are_read(tmp_path):
    path = tmp_path / "steps.csv"
    path.write_text("worker,node,step,phase,seconds,loss,global_step\n0,a,0,measured,0.5,2.5,1\n")
    assert read_steps(path)["seconds"].tolist() == [0.5]


@pytest.mark.parametrize("cut", [1, 4, 30])
def test_a_cut_off_last_step_is_reported_and_left_out(tmp_path, cut):
    records = raw_steps(np.random.default_rng(2), workers=1, measured=5, warmup=0)
    path = write_steps(tmp_path / "steps.csv", records)
    path.write_bytes(path.read_bytes()[:-cut])
    problems: list[str] = []
    assert len(read_steps(path, problems)) == 4
    assert problems == [f"{path}, line 6: the last line is cut off and was left out"]


HEADER = "worker,node,step,phase,seconds,loss,global_step,compute_seconds\n"
GOOD = "0,a,0,measured,0.5,2.5,1,0.4\n"


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (HEADER + GOOD + "0,a,1,measured,fast,2.5,1,0.4\n", "line 3"),
        (HEADER + GOOD + "0,a,1,cooldown,0.5,2.5,1,0.4\n", "line 3: a phase"),
        (HEADER + GOOD + "0,a,1,measured,-0.5,2.5,1,0.4\n", "line 3: a step took no time"),
        (HEADER + "0,a,1,measured\n" + GOOD, "line 2: 4 cells"),
        (HEADER + GOOD + "0,a,1,measured,0.5,2.5,1,0.4,9,9\n", "line 3: 10 cells"),
        ("gpus,images_per_sec\n1,2\n", "line 1: no column worker"),
        ("", "line 1"),
    ],
)
def test_what_is_no_step_is_an_error_that_names_file_and_line(tmp_path, content, where):
    path = tmp_path / "steps.csv"
    path.write_text(content)
    with pytest.raises(LogsError) as error:
        read_steps(path)
    assert f"{path}, {where}" in str(error.value)


def test_a_file_that_is_not_there_is_an_error_that_names_it(tmp_path):
    with pytest.raises(LogsError, match=r"steps\.csv"):
        read_steps(tmp_path / "steps.csv")


def test_a_failure_half_way_leaves_what_was_there_before(tmp_path):
    records = raw_steps(np.random.default_rng(3), workers=1, measured=3)
    path = write_steps(tmp_path / "steps.csv", records)
    before = path.read_bytes()

    def breaks_off():
        yield records[0]
        raise ResultsError("the power went")

    with pytest.raises(ResultsError, match="power"):
        write_steps(path, breaks_off())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_every_figure_of_a_row_follows_from_raw_steps_with_a_few_lines_of_pandas(tmp_path):
    add_run(tmp_path, raw_steps(np.random.default_rng(4), workers=4), run_id="a", gpus=4)
    (row,) = read_log(log_path(tmp_path, "resnet", 32))[0].to_dict("records")

    steps = pd.read_csv(tmp_path / "runs" / "a" / "steps.csv")
    t = steps[steps.phase == "measured"].groupby("step").seconds.max()
    images = row["batch_per_gpu"] * steps.worker.nunique()
    speeds = images / t
    means = t.groupby(np.arange(len(t)) * 10 // len(t)).mean()
    reach = 2.2621571628 * means.std() / 10**0.5

    assert row["images_per_sec"] == pytest.approx(len(t) * images / t.sum(), rel=1e-12)
    assert row["mean_time"] == pytest.approx(t.mean(), rel=1e-12)
    assert row["mean_speed"] == pytest.approx(images / t.mean(), rel=1e-12)
    assert row["speed_uncertainty"] == pytest.approx(speeds.std(ddof=0) / len(t) ** 0.5)
    assert row["speed_jitter"] == pytest.approx(1.4826 * (speeds - speeds.median()).abs().median())
    assert [row["p50"], row["p95"], row["max"]] == pytest.approx(
        t.quantile([0.5, 0.95, 1]).tolist()
    )
    assert row["ci_low"] == pytest.approx(images / (t.mean() + reach))
    assert row["ci_high"] == pytest.approx(images / (t.mean() - reach))


def test_a_run_folder_keeps_facts_and_logs_in_it_whatever_a_node_calls_them(tmp_path):
    folder = RunFolder(tmp_path, "20260301-1").create()
    folder.write_run_json({"argv": ["runtest"], "where": Path("/x"), "speed": 1.5})
    assert json.loads(folder.run_json.read_text())["where"] == "/x"
    path = folder.write_log("../../../etc/pass wd", b"one\n")
    folder.write_log("../../../etc/pass wd", b"two\n")
    assert path.parent == folder.path
    assert path.read_bytes() == b"one\ntwo\n"
    assert sorted(tmp_path.rglob("*.*")) == [path, folder.run_json]


def test_a_run_id_is_used_once(tmp_path):
    RunFolder(tmp_path, "a").create()
    with pytest.raises(ResultsError, match="there already"):
        RunFolder(tmp_path, "a").create()

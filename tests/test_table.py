"""The table of all runs: the columns that notebooks know, and a terminal of 80 columns."""

from __future__ import annotations

import io
import tracemalloc
from datetime import date

import numpy as np
import pandas as pd
import pytest
from results_examples import add_curve, raw_steps, row
from rich.console import Console

from launcher.errors import LogsError, ResultsError
from launcher.jobs.record import Job, JobFolder
from launcher.results.log import append_row, log_path
from launcher.results.plot import plot_logs
from launcher.results.run_folder import RunFolder
from launcher.results.table import collect, results_table, write_results_table

TODAY = date(2026, 3, 4)
KNOWN = [
    "mean_speed",
    "Mean_Time_Per_Step",
    "speed_uncertainty",
    "Speed_Jitter",
    "gpu_type",
    "num_gpu",
    "staged_from",
]


def shown(rows: pd.DataFrame, width: int = 80) -> list[str]:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(results_table(rows))
    return console.export_text().splitlines()


def test_the_first_columns_are_those_that_notebooks_read(tmp_path):
    append_row(log_path(tmp_path, "resnet", 32), row(gpus=4, staged_from="$SCRATCH"))
    append_row(log_path(tmp_path, "alexnet", 512), row(model="alexnet", batch_per_gpu=512))
    path = write_results_table(tmp_path, tmp_path, TODAY)
    assert path == tmp_path / "2026-03-04:TF_PERFORMANCE_RESULTS.csv"
    assert path.read_text().startswith("," + ",".join(KNOWN) + ",run_id,start_utc,model,")
    table = pd.read_csv(path, index_col=0)
    assert list(table.columns[:7]) == KNOWN
    assert table.index.tolist() == [0, 1]
    assert table["num_gpu"].tolist() == [1, 4]
    assert table["model"].tolist() == ["alexnet", "resnet"]
    assert table["staged_from"].tolist() == ["memory", "$SCRATCH"]
    assert "4" in path.read_text().splitlines()[2].split(",")  # not 4.0


def test_no_digit_is_lost_between_log_and_table(tmp_path):
    values = {"mean_speed": 1 / 3, "mean_time": 2 / 3, "speed_jitter": 1e-9, "p95": 1e6 / 7}
    append_row(log_path(tmp_path, "resnet", 32), row(**values))
    table = pd.read_csv(write_results_table(tmp_path, tmp_path / "out.csv", TODAY))
    assert table["mean_speed"][0] == 1 / 3
    assert table["Mean_Time_Per_Step"][0] == 2 / 3
    assert table["Speed_Jitter"][0] == 1e-9
    assert table["p95"][0] == 1e6 / 7


def test_older_logs_and_machines_without_gpus_have_rows_too(tmp_path):
    (tmp_path / "inceptionv3_b32.csv").write_text("1,90.5\n2,171\n")
    append_row(log_path(tmp_path, "resnet", 32), row(device="cpu", gpu_type=""))
    table = pd.read_csv(write_results_table(tmp_path, tmp_path, TODAY), index_col=0)
    assert table["mean_speed"].tolist() == [90.5, 171, 320]
    assert table["num_gpu"].tolist() == [1, 2, 1]
    assert table["gpu_type"].tolist()[2] == "cpu"


def test_the_table_is_not_taken_for_a_log_when_it_is_made_again(tmp_path):
    append_row(log_path(tmp_path, "resnet", 32), row())
    first = write_results_table(tmp_path, tmp_path, TODAY).read_text()
    assert write_results_table(tmp_path, tmp_path, TODAY).read_text() == first


def test_rows_are_told_oldest_first(tmp_path):
    append_row(log_path(tmp_path, "a", 1), row(model="a", start_utc="2026-02-01T00:00:00Z"))
    append_row(log_path(tmp_path, "b", 1), row(model="b", start_utc="2026-01-01T00:00:00Z"))
    assert collect(tmp_path)["model"].tolist() == ["b", "a"]


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_on_the_terminal_fits_and_keeps_its_figures(tmp_path, width):
    facts = {"model": "keras:InceptionResNetV2", "sync": False, "gpus_per_node": 8, "nodes": 16}
    append_row(log_path(tmp_path, "x", 1), row(**facts, images_per_sec=1234567.8, gpus=128))
    lines = shown(collect(tmp_path), width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for figure in ("1,234,567.8", "16 × 8", "2026-03-01", "100.0", "async", "1.6%"):
        assert figure in text


def test_names_are_shown_as_they_are_and_not_as_markup(tmp_path):
    append_row(log_path(tmp_path, "x", 1), row(model="[red]x[/]"))
    assert "[red]x[/]" in "\n".join(shown(collect(tmp_path), 120))


def test_rows_of_a_matrix_have_its_names_in_the_table_whatever_its_width(tmp_path):
    name = "2026-03-01-k80:1:local"
    folder = JobFolder(tmp_path / "jobs" / name)
    folder.create("")
    folder.write(Job("7", name, "2026-03-01T00:00:00Z", (), True, "k80", "local"))
    append_row(log_path(folder.path, "resnet50", 32), row(staged_from=""))
    append_row(log_path(tmp_path, "resnet50", 32), row(staged_from="/data"))
    rows = collect(tmp_path)
    assert sorted(zip(rows["job"], rows["staged_from"], strict=True)) == [
        ("", "/data"),
        (name, "local"),
    ]
    for width in (80, 120):
        text = "\n".join(shown(rows, width))
        assert "2026-03-01 " in text
        assert "k80:1:local" in text
        assert max(map(len, text.splitlines())) <= width


def test_of_many_runs_the_terminal_shows_the_newest_and_says_so(tmp_path):
    for number in range(3):
        append_row(log_path(tmp_path, "x", 1), row(images_per_sec=501.0 + number))
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(results_table(collect(tmp_path), most=2))
    text = console.export_text()
    assert "501.0" not in text
    assert "502.0" in text
    assert "503.0" in text
    assert "1 older runs are in the CSV alone" in text


def test_what_was_left_out_is_told_and_what_cannot_be_read_or_written_is_an_error(tmp_path):
    (tmp_path / "a_b1.csv").write_text("1,90\n2,17")
    problems: list[str] = []
    write_results_table(tmp_path, tmp_path / "out.csv", TODAY, problems)
    assert len(problems) == 1
    with pytest.raises(ResultsError, match=r"a_b1\.csv"):
        write_results_table(tmp_path, tmp_path / "a_b1.csv" / "x.csv", TODAY)
    (tmp_path / "b_b1.csv").write_text("garbage\n")
    with pytest.raises(LogsError, match=r"b_b1\.csv, line 1"):
        write_results_table(tmp_path, tmp_path / "other.csv", TODAY)
    assert not (tmp_path / "other.csv").exists()


def test_a_run_that_computed_in_its_own_way_is_told_apart_in_the_table(tmp_path):
    path = log_path(tmp_path, "resnet", 32)
    for changes in ({}, {"precision": "bf16", "xla": "on"}, {"onednn": "off"}):
        append_row(path, row(**{"precision": "fp32", "strategy": "single", **changes}))
    lines = shown(collect(tmp_path), width=120)[1:]
    assert [line.split("single")[1].split("  ")[0] for line in lines if "single" in line] == [
        "",
        ", bf16, XLA on",
        ", oneDNN off",
    ]


def test_ten_thousand_rows_and_a_thousand_runs_need_no_more_memory_than_one_log(tmp_path):
    folder = RunFolder(tmp_path, "c0-0-1").create()
    folder.write_steps(raw_steps(np.random.default_rng(1), workers=4))
    add_curve(tmp_path, [1])
    log = log_path(tmp_path, "resnet", 32)
    header, line = log.read_text().splitlines()
    steps = folder.steps_csv.read_bytes()
    for number in range(1000):
        path = tmp_path / "runs" / f"r{number}"
        path.mkdir()
        (path / "steps.csv").write_bytes(steps)
    lines = [line.replace("c0-0-1", f"r{number % 1000}") for number in range(1000)]
    for number in range(10):
        (tmp_path / f"m{number}_b32.csv").write_text("\n".join([header, *lines]) + "\n")
    log.unlink()
    plot_logs(tmp_path / "m0_b32.csv")  # what matplotlib loads once is not what is asked for
    tracemalloc.start()
    drawn = plot_logs(tmp_path)
    table = write_results_table(tmp_path, tmp_path, TODAY)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(drawn) == 10
    assert sum(1 for _ in table.open()) == 10_001
    assert peak < 24 * 2**20

"""The SVG of a log: what is in it, that it is drawn the same each time, and what it refuses."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from results_examples import add_curve, add_run, raw_steps, row

from launcher.errors import LogsError, ResultsError
from launcher.results import points
from launcher.results.log import append_row, log_path
from launcher.results.log_reading import read_log
from launcher.results.marks import style
from launcher.results.plot import plot_log, plot_logs
from launcher.results.step_panel import worker_times
from launcher.results.steps import frame

ROOT = Path(__file__).resolve().parents[1]


def words(svg: Path) -> list[str]:
    """All texts of a drawing, as text."""
    tree = ElementTree.parse(svg)  # noqa: S314 - our own file
    return ["".join(element.itertext()) for element in tree.iter() if element.tag.endswith("}text")]


def lines_of(logs: Path) -> dict[str, points.Line]:
    rows, _ = read_log(log_path(logs, "resnet", 32))
    return {line.label: line for line in points.lines(rows)}


def test_efficiency_is_written_at_each_point_and_its_baseline_is_named(tmp_path):
    for gpus, speed in ((1, 100.0), (2, 180.0), (4, 300.0)):
        append_row(log_path(tmp_path, "resnet", 32), row(gpus=gpus, images_per_sec=speed))
    (svg,) = plot_logs(tmp_path)
    texts = words(svg)
    assert {"90%", "75%"} <= set(texts)
    assert "ideal (parameter server)" in texts
    assert {"1", "2", "4"} <= set(texts)
    assert "resnet, batch size 32 per GPU" in texts


def test_a_drawing_is_the_same_to_the_byte_when_it_is_drawn_again_by_another_process(tmp_path):
    add_curve(tmp_path, [1, 2, 4, 8], repeats=3)
    add_curve(tmp_path, [1, 2, 4, 8], strategy="all_reduce", seed=1)
    add_run(tmp_path, raw_steps(np.random.default_rng(1)), run_id="a", gpus=4)
    (svg,) = plot_logs(tmp_path)
    first = svg.read_bytes()
    assert plot_logs(tmp_path) == [svg]
    assert svg.read_bytes() == first
    svg.unlink()
    program = "import sys, launcher.results.plot as p; p.plot_logs(sys.argv[1])"
    command = [sys.executable, "-c", program, str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60, env={"PYTHONHASHSEED": "7"})
    assert svg.read_bytes() == first


def test_the_drawing_says_where_and_when_and_that_processes_are_not_nodes(tmp_path):
    records = raw_steps(np.random.default_rng(2))
    add_run(tmp_path, records, run_id="a", gpus=4, nodes=2, machines=1, device="cpu", gpu_type="")
    (svg,) = plot_logs(tmp_path)
    caption = " ".join(words(svg))
    assert "2 processes on one machine are not 2 nodes" in caption
    assert "2026-03-01" in caption
    assert "TensorFlow 2.21.0" in caption
    assert "synthetic data" in caption
    assert "Workers (processes on CPU cores)" in caption
    assert "own compute time per step [ms]" in caption


def test_nodes_that_are_machines_are_called_nothing_else(tmp_path):
    append_row(log_path(tmp_path, "resnet", 32), row(nodes=2, machines=2, gpus=2))
    (svg,) = plot_logs(tmp_path)
    assert "processes on" not in " ".join(words(svg))


def test_strategies_precisions_and_data_are_lines_of_their_own(tmp_path):
    for changes in (
        {},
        {"strategy": "all_reduce"},
        {"precision": "mixed_float16"},
        {"data": "mnist"},
        {"sync": False},
    ):
        add_curve(tmp_path, [1, 2], **changes)
    assert set(lines_of(tmp_path)) == {
        "parameter server, float32, synthetic",
        "all reduce, float32, synthetic",
        "parameter server, mixed_float16, synthetic",
        "parameter server, float32, mnist",
        "parameter server, asynchronous, float32, synthetic",
    }
    (svg,) = plot_logs(tmp_path)
    assert set(lines_of(tmp_path)) <= set(words(svg))


def test_ways_of_computing_are_lines_of_their_own_with_baselines_of_their_own(tmp_path):
    for changes in ({}, {"xla": "on"}, {"onednn": "off"}, {"intra_op_threads": 4}):
        add_curve(tmp_path, [1, 2], **changes)
    found = lines_of(tmp_path)
    assert set(found) == {
        "parameter server, XLA off, oneDNN on",
        "parameter server, XLA on, oneDNN on",
        "parameter server, XLA off, oneDNN off",
        "parameter server, XLA off, oneDNN on, 4 intra-op threads",
    }
    assert all(len(line.points) == 2 and line.baseline is not None for line in found.values())


def test_sums_on_nodes_are_points_and_smaller_gradients_lines_of_their_own(tmp_path):
    """A sweep that adds up from two nodes on is one line; the same points without are another."""
    add_curve(tmp_path, [1, 4])
    add_curve(tmp_path, [8, 16], aggregate="node")
    (line,) = lines_of(tmp_path).values()
    assert [point.gpus for point in line.points] == [1, 4, 8, 16]
    add_curve(tmp_path, [16])
    add_curve(tmp_path, [4, 8], gradient_dtype="bf16")
    found = lines_of(tmp_path)
    assert [[point.gpus for point in line.points] for line in found.values()] == [
        [1, 4, 8, 16],
        [16],
        [4, 8],
    ]
    assert [len(point.runs) for line in found.values() for point in line.points] == [1] * 7
    names = list(found)
    assert "gradients added up on nodes" in names[1]
    assert "bf16 gradients" in names[2]


def test_each_way_of_adding_up_is_a_line_of_its_own(tmp_path):
    for way in ("ring", "nccl"):
        add_curve(tmp_path, [2, 4], strategy="all_reduce", communication=way)
    assert [name.split(", ")[:2] for name in lines_of(tmp_path)] == [
        ["all reduce", "nccl"],
        ["all reduce", "ring"],
    ]


def test_a_log_without_these_columns_is_one_line_with_what_is_measured_as_it_was(tmp_path):
    path = log_path(tmp_path, "resnet", 32)
    append_row(path, row())
    lines = [line.split(",") for line in path.read_text().splitlines()]
    new = {"xla", "onednn", "intra_op_threads", "inter_op_threads"}
    kept = [place for place, name in enumerate(lines[0]) if name not in new]
    path.write_text("".join(",".join(line[place] for place in kept) + "\n" for line in lines))
    append_row(path, row(images_per_sec=330.0))
    (line,) = lines_of(tmp_path).values()
    assert [len(point.runs) for point in line.points] == [2]


def test_the_same_number_of_gpus_on_other_nodes_is_another_line(tmp_path):
    path = log_path(tmp_path, "resnet", 32)
    append_row(path, row(gpus=4, nodes=2, gpus_per_node=2, images_per_sec=1000.0))
    append_row(path, row(gpus=4, nodes=4, gpus_per_node=1, images_per_sec=900.0))
    found = lines_of(tmp_path)
    assert [line.points[0].speed.value for line in found.values()] == [1000, 900]
    assert "parameter server (4 × 1 with 1 PS)" in found


def test_repeats_are_one_point_with_their_interval(tmp_path):
    for speed in (90.0, 100.0, 120.0):
        append_row(log_path(tmp_path, "resnet", 32), row(images_per_sec=speed))
    (line,) = lines_of(tmp_path).values()
    (point,) = line.points
    assert point.speed.value == pytest.approx(3 / (1 / 90 + 1 / 100 + 1 / 120))
    assert point.speed.method == "3 repeats"
    assert len(point.runs) == 3


def test_a_single_process_is_the_baseline_where_it_was_measured(tmp_path):
    path = log_path(tmp_path, "resnet", 32)
    append_row(path, row(strategy="single", images_per_sec=125.0))
    append_row(path, row(images_per_sec=100.0))
    append_row(path, row(gpus=2, images_per_sec=200.0))
    append_row(path, row(gpus=2, images_per_sec=300.0, precision="mixed_float16"))
    found = lines_of(tmp_path)
    slower, twice = found["parameter server, float32"].points
    assert slower.efficiency is not None
    assert slower.efficiency.value == pytest.approx(0.8)
    assert twice.efficiency is not None
    assert twice.efficiency.value == pytest.approx(0.8)
    assert found["single, float32"].points[0].efficiency is None
    assert found["parameter server, mixed_float16"].baseline is None


def test_an_older_log_is_drawn_with_the_ideal_line_that_was_written_beside_it(tmp_path):
    log = tmp_path / "inceptionv3_b32.csv"
    log.write_text("1,80\n2,150\n4,280\n")
    log.with_name(log.name + ".ideal").write_text("1,100\n2,200\n4,400\n")
    (svg,) = plot_logs(tmp_path)
    texts = words(svg)
    assert svg.name == "inceptionv3_b32.svg"
    assert {"80%", "75%", "70%", "older log", "ideal (older .ideal file)"} <= set(texts)
    log.with_name(log.name + ".ideal").unlink()
    plot_log(log)
    assert {"94%", "88%"} <= set(words(svg))


def test_fonts_are_text_and_names_cannot_break_the_drawing(tmp_path):
    hostile = "a$b$<script>&\x01_^{"
    append_row(log_path(tmp_path, "resnet", 32), row(model=hostile, gpu_type="$SCRATCH $x$"))
    (svg,) = plot_logs(tmp_path)
    texts = " ".join(words(svg))
    assert "a$b$<script>& _^{" in texts
    assert "$SCRATCH $x$" in texts
    assert "<script>" not in svg.read_text()
    assert "Date" not in svg.read_text()


def test_lines_differ_in_colour_marker_and_dashes(tmp_path):
    looks = [style(place) for place in range(5)]
    for fact in ("colour", "marker", "dashes"):
        assert len({getattr(look, fact) for look in looks}) == 5


def test_the_panel_shows_the_newest_run_that_still_has_its_raw_steps(tmp_path):
    rng = np.random.default_rng(3)
    old = {"run_id": "old", "start_utc": "2026-01-01T00:00:00Z", "gpus": 2}
    new = {"run_id": "new", "start_utc": "2026-02-01T00:00:00Z", "gpus": 3}
    add_run(tmp_path, raw_steps(rng, workers=2), **old, nodes=1, gpus_per_node=2)
    add_run(tmp_path, raw_steps(rng, workers=3), **new, nodes=3, gpus_per_node=1)
    (svg,) = plot_logs(tmp_path)
    assert any(text.startswith("newest run: 3 × 1") for text in words(svg))
    (tmp_path / "runs" / "new" / "steps.csv").unlink()
    plot_logs(tmp_path)
    assert any(text.startswith("newest run: 1 × 2") for text in words(svg))


def test_a_straggler_stands_out_in_the_panel():
    levels, what = worker_times(frame(raw_steps(np.random.default_rng(4), slow={2: 1.5})))
    assert what == "own compute time per step"
    assert levels["median"].idxmax() == 2
    assert levels["median"][2] > 1.4 * levels["median"][0]
    assert (levels["low"] < levels["median"]).all()


@pytest.mark.parametrize("gpus", [[1], [3], [1, 2, 4], [1, 3, 6], [2**n for n in range(11)]])
def test_no_text_leaves_the_drawing(tmp_path, gpus):
    add_curve(tmp_path, gpus, repeats=2)
    (svg,) = plot_logs(tmp_path)
    width, height = map(float, re.search(r'viewBox="0 0 (\S+) (\S+)"', svg.read_text()).groups())
    places = re.findall(r'<text [^>]*x="([\d.-]+)" y="([\d.-]+)"', svg.read_text())
    assert places
    assert all(0 <= float(x) <= width and 0 <= float(y) <= height for x, y in places)


def test_a_log_without_runs_is_an_error_and_leaves_no_drawing(tmp_path):
    (tmp_path / "resnet_b32.csv").write_text("gpus,images_per_sec\n")
    with pytest.raises(LogsError, match=r"resnet_b32\.csv: there is no run in it"):
        plot_logs(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["resnet_b32.csv"]


def test_a_drawing_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    append_row(log_path(tmp_path, "resnet", 32), row())
    (tmp_path / "resnet_b32.svg").mkdir()
    with pytest.raises(ResultsError, match=r"resnet_b32\.svg"):
        plot_logs(tmp_path)


def test_what_was_left_out_is_told(tmp_path):
    (tmp_path / "resnet_b32.csv").write_text("1,90\n2,17")
    problems: list[str] = []
    plot_logs(tmp_path, problems)
    assert len(problems) == 1
    assert "line 2" in problems[0]

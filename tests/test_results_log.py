"""The log of runs: nothing is lost, whatever was in the file, and whoever writes to it."""

from __future__ import annotations

import math
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from results_examples import ROW, row

from launcher.errors import LogsError, ResultsError
from launcher.results.files import safe_name
from launcher.results.log import COLUMNS, append_row, log_path
from launcher.results.log_reading import find_logs, read_ideal, read_log

LIMIT = Path(__file__).resolve().parents[1]


def test_a_row_comes_back_as_it_was_written(tmp_path):
    path = log_path(tmp_path, "resnet", 32)
    warned = row(warnings='drift: "a, b"\nand more', images_per_sec=1 / 3, sync=False)
    assert append_row(path, warned) == ()
    table, problems = read_log(path)
    assert problems == ()
    (back,) = table.to_dict("records")
    assert back["images_per_sec"] == 1 / 3
    assert back["warnings"] == 'drift: "a, b" and more'
    assert back["sync"] == "False"
    assert list(table.columns) == list(COLUMNS)
    assert path.read_text().splitlines()[0] == ",".join(COLUMNS)


def test_a_row_whose_interval_has_no_upper_end_can_be_read(tmp_path):
    path = log_path(tmp_path, "resnet", 32)
    append_row(path, row(ci_low=1.0, ci_high=math.inf))
    table, problems = read_log(path)
    assert problems == ()
    assert table["ci_high"].iloc[0] == math.inf


def test_the_header_is_written_once(tmp_path):
    path = log_path(tmp_path, "resnet", 32)
    for number in range(5):
        append_row(path, row(run_id=str(number)))
    assert len(path.read_text().splitlines()) == 6
    assert read_log(path)[0]["run_id"].tolist() == ["0", "1", "2", "3", "4"]


def test_launchers_at_once_lose_no_row(tmp_path):
    path = log_path(tmp_path, "resnet", 32)
    program = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from results_examples import row\n"
        "from launcher.results.log import append_row\n"
        "from pathlib import Path\n"
        "for n in range(25): append_row(Path(sys.argv[1]), row(run_id=f'{sys.argv[2]}-{n}'))\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(path), str(name)], cwd=LIMIT)
        for name in range(4)
    ]
    assert [writer.wait(50) for writer in writers] == [0] * 4
    found = read_log(path)[0]["run_id"]
    assert sorted(found) == sorted(f"{name}-{n}" for name in range(4) for n in range(25))


@pytest.mark.parametrize("cut", [1, 5, 60])
def test_nothing_merges_with_a_line_that_was_cut_off(tmp_path, cut):
    path = log_path(tmp_path, "resnet", 32)
    append_row(path, row(run_id="whole"))
    append_row(path, row(run_id="cut"))
    left = path.read_text()[:-cut]
    path.write_text(left)
    (told,) = append_row(path, row(run_id="next"))
    assert "cut off" in told
    assert read_log(path)[0]["run_id"].tolist() == ["whole", "next"]
    assert left.endswith((tmp_path / "resnet_b32.csv.cut-off").read_text().strip())


def test_a_log_with_other_columns_keeps_all_it_has(tmp_path):
    path = log_path(tmp_path, "resnet", 32)
    path.write_text("gpus,images_per_sec,fan_speed,model\n4,99.5,high,resnet\n\n8,180,low,resnet\n")
    (told,) = append_row(path, row(run_id="new"))
    assert "run_id" in told
    header, *rows = path.read_text().splitlines()
    assert header.startswith("gpus,images_per_sec,fan_speed,model,run_id")
    assert [line.split(",")[2] for line in rows] == ["high", "low", ""]
    assert read_log(path)[0]["images_per_sec"].tolist() == [99.5, 180, 320]


def test_a_log_of_an_older_script_gets_a_header_and_keeps_its_rows(tmp_path):
    path = log_path(tmp_path, "resnet", 32)
    path.write_text("1,90.5\n2,171\n")
    append_row(path, row(run_id="new"))
    table, _ = read_log(path)
    assert table["gpus"].tolist() == [1, 2, 1]
    assert table["images_per_sec"].tolist() == [90.5, 171, 320]
    assert table["run_id"].tolist() == ["", "", "new"]


def test_a_disk_that_takes_half_a_row_leaves_none(tmp_path):
    path = log_path(tmp_path, "resnet", 32)
    append_row(path, row(run_id="whole"))
    before = path.read_bytes()
    program = (
        "import resource, sys; sys.path.insert(0, 'tests')\n"
        "from results_examples import row\n"
        "from launcher.results.log import append_row\n"
        "from launcher.errors import ResultsError\n"
        "from pathlib import Path\n"
        "path = Path(sys.argv[1])\n"
        "size = path.stat().st_size + 40\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))\n"
        "try: append_row(path, row())\n"
        "except ResultsError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        cwd=LIMIT, capture_output=True, text=True, timeout=50, check=True,
    )  # fmt: skip
    assert str(path) in done.stdout
    assert path.read_bytes() == before
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != len(before) + 40


def test_a_folder_that_cannot_be_is_an_error_that_names_it(tmp_path):
    (tmp_path / "logs").write_text("a file")
    with pytest.raises(ResultsError, match="logs"):
        append_row(log_path(tmp_path / "logs", "resnet", 32), ROW)


def test_older_logs_are_read_with_model_and_batch_of_their_name(tmp_path):
    path = tmp_path / "inceptionv3_b32.csv"
    path.write_text("1,90.1\n2,171.3\r\n\n4,330\n")
    (tmp_path / "inceptionv3_b32.csv.ideal").write_text("2,180.2\n1,90.1\n")
    table, problems = read_log(path)
    assert problems == ()
    assert table["gpus"].tolist() == [1, 2, 4]
    assert table["images_per_sec"].tolist() == [90.1, 171.3, 330]
    assert set(table["model"]) == {"inceptionv3"}
    assert set(table["batch_per_gpu"]) == {32}
    ideal = read_ideal(path)
    assert ideal is not None
    assert ideal.to_numpy().tolist() == [[1, 90.1], [2, 180.2]]


def test_a_cut_off_last_line_is_reported_and_left_out(tmp_path):
    path = tmp_path / "resnet_b32.csv"
    path.write_text("1,90.1\n2,17")
    table, (problem,) = read_log(path)
    assert table["gpus"].tolist() == [1]
    assert f"{path}, line 2" in problem


GARBAGE = {
    b"hello\n": "line 1",
    b"1,2\n3,4,5\n": "line 2",
    b"1,2\n3,fast\n": "line 2: images_per_sec is 'fast'",
    b"1,2\n\n3,-1\n": "line 3",
    b"1,nan\n": "line 1",
    b"gpus,images_per_sec\n1,2\n7\n": "line 3: 1 cells where the header has 2",
    b"gpus,images_per_sec,mean_time\n1,2,slow\n": "line 2: mean_time is 'slow'",
    b"1,2\n\xff\xfe\x00,2\n": "line 2: this is not text",
    b"\x89PNG\r\n\x1a\n\x00\n": "line 1",
}


@pytest.mark.parametrize("content", GARBAGE, ids=[str(content) for content in GARBAGE])
def test_garbage_is_an_error_that_names_file_and_line(tmp_path, content):
    path = tmp_path / "resnet_b32.csv"
    path.write_bytes(content)
    with pytest.raises(LogsError) as error:
        read_log(path)
    assert str(error.value).startswith(f"{path}, {GARBAGE[content]}")


@given(content=st.binary(max_size=300))
def test_no_content_at_all_is_more_than_an_error_of_ours(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("logs") / "resnet_b32.csv"
    path.write_bytes(content)
    told = str(path)
    speeds: list[float] = []
    try:
        speeds = read_log(path)[0]["images_per_sec"].to_list()
    except LogsError as error:
        told = str(error)
    assert str(path) in told
    assert all(speed > 0 for speed in speeds)


def test_a_folder_without_logs_is_an_error(tmp_path):
    with pytest.raises(LogsError, match="no log"):
        find_logs(tmp_path)
    with pytest.raises(LogsError, match="no such folder"):
        find_logs(tmp_path / "nowhere")


def test_logs_are_found_by_name_and_other_tables_are_not_logs(tmp_path):
    for name in ("resnet_b32.csv", "a_b2_b8.csv", "2026-01-01:TF_PERFORMANCE_RESULTS.csv"):
        (tmp_path / name).write_text("1,2\n")
    assert [path.name for path in find_logs(tmp_path)] == ["a_b2_b8.csv", "resnet_b32.csv"]


def test_the_name_of_a_keras_model_is_a_file_name(tmp_path):
    path = log_path(tmp_path, "keras:MobileNetV2", 8)
    assert path == tmp_path / "keras-MobileNetV2_b8.csv"
    append_row(path, row(model="keras:MobileNetV2", batch_per_gpu=8))
    assert read_log(path)[0]["model"].tolist() == ["keras:MobileNetV2"]


@given(st.text())
def test_no_name_leaves_its_folder(name):
    safe = safe_name(name)
    assert safe not in ("", ".", "..")
    assert "/" not in safe
    assert "\0" not in safe
    assert not safe.startswith((".", "-"))
    assert len(safe.encode()) <= 255
    assert Path("logs", safe).resolve().parent == Path("logs").resolve()


def test_a_missing_number_is_an_empty_cell(tmp_path):
    path = log_path(tmp_path, "resnet", 32)
    append_row(path, row(ci_low=math.nan, ci_high=math.nan, ci_method="too few steps"))
    assert "nan" not in path.read_text()
    assert math.isnan(read_log(path)[0]["ci_low"][0])

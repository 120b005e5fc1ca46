"""Real data from end to end: made, read, staged and measured by the command."""

from __future__ import annotations

import json
import math
import shutil
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command import runtest
from datasets import write_hdf5, write_mnist, write_tfrecords
from hosts import NamespaceHosts

from launcher import data_options
from perftest import data as sources
from perftest.data import DataError, make_hep
from perftest.data.making import Progress
from perftest.task import describe

SHORT = ("-m", "deepmnist", "-b", 4, "--steps", 60, "--warmup", 1, "--device", "cpu", "--json")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    write_mnist(folder)
    return folder


def measured(*argv: Any, cwd: Path) -> dict[str, Any]:
    """The row of a run; nor did it leave a temporary file."""
    temporary = cwd / "temporary"
    temporary.mkdir(exist_ok=True)
    done = runtest(*SHORT, *argv, cwd=cwd, environment={"TMPDIR": str(temporary)})
    assert done.returncode == 0, done.stderr
    assert [path for path in temporary.rglob("*") if not path.is_dir()] == []
    row: dict[str, Any] = json.loads(done.stdout)
    return row


def test_the_launcher_knows_the_kinds_of_data_that_the_nodes_read() -> None:
    assert {*data_options.KINDS, "synthetic"} == set(sources.KINDS)
    for kind in sources.KINDS:
        assert (Path(sources.__file__).parent / f"{kind}.py").is_file()


@pytest.mark.parametrize("kind", ["hep", "mnist"])
def test_made_data_is_the_same_for_the_same_seed(tmp_path: Path, kind: str) -> None:
    made: list[dict[str, bytes]] = []
    size = ("--size", 16) if kind == "hep" else ()
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        done = runtest(
            "make-data", kind, folder, *size, "--samples", 700, "--seed", seed, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        assert "700 of 700" in done.stderr
        made.append({path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()})
    assert len(made[0]) == (3 if kind == "hep" else 4)
    assert made[0] == made[1]
    assert made[0].keys() == made[2].keys()
    assert made[0] != made[2]


def test_made_events_are_of_the_documented_format(tmp_path: Path) -> None:
    import h5py
    import numpy as np

    done = runtest("make-data", "hep", "--size", 32, "--samples", 2010, tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with h5py.File(tmp_path / "hep_train_32.h5") as file:
        assert file["data"].shape == (1608, 3, 32, 32)
        assert file["data"].dtype == np.float32
        images, labels, weight = file["data"][()], file["label"][()], file["weight"][()]
        assert images.max(axis=(0, 2, 3)) == pytest.approx([1, 1, 1])
        assert images.min() == 0
        assert labels.mean() == pytest.approx(0.5, abs=0.01)
        # Background is a hundred times as frequent.
        assert weight[labels == 0].sum() == pytest.approx(100 * weight[labels == 1].sum(), rel=1e-4)
        norm = file["normweight"][()]
        assert norm.mean() == pytest.approx(1, rel=1e-4)
        chosen = file["psr"][()]
        assert chosen[labels == 1].mean() > 3 * chosen[labels == 0].mean() > 0
        # More jets, so more cells that were hit.
        hit = (images[:, 2] > 0).sum(axis=(1, 2))
        assert hit[labels == 1].mean() > 1.2 * hit[labels == 0].mean()
    with h5py.File(tmp_path / "hep_test_32.h5") as file:
        # Normalised over the training samples: the same numbers here, where one class has more.
        for label in (0, 1):
            (found,) = set(file["normweight"][()][file["label"][()] == label])
            assert found == norm[labels == label][0]


def test_large_images_are_the_same_however_few_of_them_are_in_memory_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [tmp_path / "few", tmp_path / "many"]
    for folder, pixels in zip(made, (7 * 64**2, 256 * 64**2), strict=True):
        folder.mkdir()
        monkeypatch.setattr(make_hep, "_PIXELS", pixels)
        make_hep.make(folder, 64, 340, 1, Progress("events", 340))
    few, many = ({path.name: path.read_bytes() for path in each.iterdir()} for each in made)
    assert len(few) == 3
    assert few == many


def test_making_large_images_takes_no_more_memory_than_small_ones(tmp_path: Path) -> None:
    """Of all 32 for training at once, the sums of the energy alone take 64 MiB."""
    tracemalloc.start()
    try:
        make_hep.make(tmp_path, 512, 40, 1, Progress("events", 40))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 110 << 20


def test_what_cannot_be_made_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = runtest("make-data", "hep", "--samples", 100, "file/below", cwd=tmp_path)
    assert done.returncode == 2
    assert "no data can be made in file/below: Not a directory" in done.stderr
    assert "Traceback" not in done.stderr
    done = runtest("make-data", "mnist", "out", "--python", "nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert "--python nowhere: No such file" in done.stderr


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--data", "hdf5"], "--data 'hdf5' is not KIND:DIR with one of hdf5, mnist, tfrecord"),
        (["--data", "csv:/x"], "is not KIND:DIR"),
        (["--stage", "/x"], "--stage has nothing to copy without --data"),
        (["--data", "hdf5:x", "--dummy-data"], "are two answers to one question"),
        (["--input-only", "--strategy", "single"], "--input-only trains nothing"),
        (["--input-only", "--num-ps", "2"], "--num-ps has no meaning with --input-only"),
    ],
)
def test_options_of_data_that_make_no_sense_are_refused(
    tmp_path: Path, argv: list[str], message: str
) -> None:
    done = runtest(*SHORT, *argv, cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    assert message in done.stderr


@pytest.mark.tensorflow
def test_training_on_real_data_is_another_row_than_reading_it(tmp_path: Path, digits: Path) -> None:
    """Paths may be relative on this machine; the second run finds the copy of the first."""
    (tmp_path / "digits").symlink_to(digits)
    plain = measured("--strategy", "single", "--data", "mnist:digits", cwd=tmp_path)
    _check_seven_columns(tmp_path, plain)
    assert (plain["data"], plain["staged_from"]) == ("mnist", str(tmp_path / "digits"))
    argv = ("--data", "mnist:digits", "--stage", "disk", "--input-only", "-n", 2)
    first = measured(*argv, cwd=tmp_path)
    assert first["data"] == "mnist (input only)"
    assert first["staged_from"] == str(tmp_path / "disk")
    assert (first["strategy"], first["parameter_servers"], first["gpus"]) == ("input_only", 0, 2)
    assert first["images_per_sec"] > 0
    copied = [_copied(run, tmp_path) for run in (first, measured(*argv, cwd=tmp_path))]
    assert copied == [[0, 4], [0, 0]]
    rows = pd.read_csv(tmp_path / "logs" / "deepmnist_b4.csv")
    assert rows["data"].tolist() == ["mnist", "mnist (input only)", "mnist (input only)"]


def _check_seven_columns(folder: Path, run: dict[str, Any]) -> None:
    """Those of the older results file, by what its program computed of the steps of 4 images."""
    done = runtest("table", cwd=folder)
    assert done.returncode == 0, done.stderr
    (path,) = (folder / "logs").glob("*:TF_PERFORMANCE_RESULTS.csv")
    seven = pd.read_csv(path, index_col=0).iloc[0, :7]
    steps = pd.read_csv(folder / run["run_folder"] / "steps.csv")
    seconds = steps[steps["phase"] == "measured"]["seconds"].to_numpy()
    speeds = 4 / seconds
    assert len(seconds) == 60
    assert seven.to_dict() == {
        "mean_speed": pytest.approx(4 / seconds.mean(), rel=1e-6),
        "Mean_Time_Per_Step": pytest.approx(seconds.mean(), rel=1e-6),
        "speed_uncertainty": pytest.approx(speeds.std() / math.sqrt(60), rel=1e-6),
        "Speed_Jitter": pytest.approx(
            1.4826 * np.median(abs(speeds - np.median(speeds))), rel=1e-6
        ),
        "gpu_type": run["gpu_type"],
        "num_gpu": 1,
        "staged_from": str(folder / "digits"),
    }
    assert run["gpu_type"], "without GPUs, the processor"


def _copied(run: dict[str, Any], folder: Path) -> list[int]:
    """How many files each worker copied."""
    record = json.loads((folder / run["run_folder"] / "run.json").read_text())
    return sorted(staged["files"] for staged in record["staged"].values())


@pytest.mark.tensorflow
@pytest.mark.parametrize("kind", ["hdf5", "tfrecord"])
def test_a_measurement_trains_on_files_of_the_other_kinds(tmp_path: Path, kind: str) -> None:
    """With fewer samples than it takes: it begins again."""
    folder = tmp_path / "files"
    folder.mkdir()
    if kind == "hdf5":
        write_hdf5(folder / "train.h5", 9, size=64, classes=2)
    else:
        write_tfrecords(folder / "train-00000-of-00001", 9, label=2)
    small = ("-m", "hep_cnn_64", "-b", 2, "--steps", 10)
    row = measured(*small, "--data", f"{kind}:{folder}", cwd=tmp_path)
    assert (row["model"], row["batch_per_gpu"]) == ("hep_cnn_64", 2)
    assert (row["data"], row["staged_from"]) == (kind, str(folder))
    assert row["images_per_sec"] > 0


@pytest.mark.tensorflow
def test_a_sweep_of_reading_has_one_strategy(tmp_path: Path, digits: Path) -> None:
    argv = ("-x", 2, "--data", f"mnist:{digits}", "--input-only")
    done = runtest("scale", *SHORT, *argv, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = pd.read_csv(tmp_path / "logs" / "deepmnist_b4.csv")
    assert rows["gpus"].tolist() == [1, 2]
    assert set(rows["strategy"]) == {"input_only"}


@pytest.mark.tensorflow
def test_bad_data_ends_the_run_before_training(tmp_path: Path) -> None:
    done = runtest(*SHORT, "--data", f"mnist:{tmp_path}", cwd=tmp_path)
    assert done.returncode == 1
    assert f"worker 0 failed: {tmp_path}/t10k-images-idx3-ubyte: no such" in done.stderr
    assert not list((tmp_path / "logs").glob("*.csv"))


def test_what_reading_finds_is_told_without_the_words_of_tensorflow() -> None:
    said = (
        "UnknownError: {{node x}} Error in user-defined function: DataError: /d/train.h5, data: no"
    )
    assert describe(RuntimeError(said)) == "/d/train.h5, data: no"
    assert describe(DataError("/d/train.h5: cut off")) == "/d/train.h5: cut off"


def test_the_plan_says_what_data_is_read_and_where_it_is_copied(tmp_path: Path) -> None:
    done = runtest(
        *SHORT[:-1], "--data", "mnist:/d/digits", "--stage", "/fast", "--dry-run", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "data: mnist of /d/digits, copied to /fast first" in done.stdout


@pytest.mark.network
@pytest.mark.tensorflow
def test_nodes_read_their_own_copy_of_the_data(
    hosts: NamespaceHosts, tmp_path: Path, digits: Path
) -> None:
    where = (
        *("-h", hosts.nodes_file(0, 1), "--ssh-config", hosts.ssh_config),
        *("--python", sys.executable, "-r", hosts.folder),
    )
    refused = runtest(*SHORT, *where, "--data", "mnist:digits", cwd=tmp_path)
    assert refused.returncode == 2
    assert "is relative, and a node knows no folder" in refused.stderr
    shared = hosts.folder / "digits"  # as from a file server; /tmp is each host's own
    shutil.copytree(digits, shared, dirs_exist_ok=True)
    stage = "/tmp/fast-disk"
    row = measured(*where, "--data", f"mnist:{shared}", "--stage", stage, cwd=tmp_path)
    assert (row["nodes"], row["data"], row["staged_from"]) == (2, "mnist", stage)
    assert _copied(row, tmp_path) == [4, 4]

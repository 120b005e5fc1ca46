"""Real training by the command: data made, trained on two hosts, killed, taken up again, tested."""

from __future__ import annotations

import json
import math
import re
import signal
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command import Running, runtest
from faults import assert_nothing_left, reach
from hosts import NamespaceHosts

CONFIG: dict[str, Any] = {
    "input_shape": [3, 32, 32],
    "mode": "sync",
    "learning_rate": 0.002,
    "dropout_p": 0.0,
    "optimizer": "ADAM",
    "num_epochs": 3,
    "train_batch_size": 32,
    "validation_batch_size": 64,
    "num_layers": 2,
    "num_fc_units": 16,
    "conv_params": {"num_filters": 8},
    "display_interval": 4,
    "save_interval": 1,
    "arch": "cpu",
}


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """800 events of 32 × 32 pixels: 640 to train on."""
    folder = tmp_path_factory.mktemp("events")
    done = runtest("make-data", "hep", "--size", 32, "--samples", 800, "data", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "data"


@pytest.fixture
def place(hosts: NamespaceHosts, events: Path) -> Iterator[Path]:
    """A folder that both hosts see, with the data."""
    folder = hosts.folder / "training"
    folder.mkdir()
    (folder / "data").mkdir()
    for path in events.iterdir():
        (folder / "data" / path.name).write_bytes(path.read_bytes())
    yield folder
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def write_config(folder: Path, **changes: Any) -> Path:
    path = folder / "config.json"
    folders = {"inputpath": str(folder / "data"), "outputpath": str(folder / "out")}
    path.write_text(json.dumps({**CONFIG, **folders, **changes}))
    return path


def metrics_of(stdout: str) -> pd.DataFrame:
    return pd.DataFrame(json.loads(stdout)["metrics"])


@pytest.mark.network
@pytest.mark.tensorflow
def test_two_hosts_train_are_killed_go_on_and_are_tested(
    hosts: NamespaceHosts, place: Path, tmp_path: Path
) -> None:
    config = write_config(place, num_epochs=500)
    argv = ("train", "--config", config, "-n", 2, "-g", 1, *reach(hosts))
    with Running(*argv, cwd=tmp_path) as running:
        running.wait_for("epoch 2: saved as epoch-0002")
        running.send(signal.SIGKILL)
    assert_nothing_left(hosts, within=40.0)
    (folder,) = (tmp_path / "logs" / "runs").iterdir()
    killed = pd.read_csv(folder / "metrics.csv")
    assert list(killed[killed["split"] == "train"]["epoch"])[:2] == [1, 2]

    refused = runtest(*argv, cwd=tmp_path)
    assert refused.returncode == 1
    assert "of an earlier training" in refused.stderr
    assert "--restart to go on from it" in refused.stderr

    saved = max(int(path.stem.split("-")[1]) for path in (place / "out").rglob("epoch-*.npz"))
    stage = ("--stage", "/tmp/fast-disk-of-trainings")  # each host has a /tmp of its own
    done = runtest(*argv, *stage, "--restart", "--epochs", saved + 2, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"going on from epoch-{saved:04}" in done.stderr
    went_on = metrics_of(done.stdout)
    record = json.loads(Path(tmp_path, json.loads(done.stdout)["run"], "run.json").read_text())
    assert [each["node"] for each in record["servers"]] == ["node0", "node1"]
    assert {worker: each["files"] for worker, each in record["staged"].items()} == {"0": 3, "1": 3}
    train = went_on[went_on["split"] == "train"]
    assert list(train["epoch"]) == [saved + 1, saved + 2]
    assert list(train["samples"]) == [640, 640], "each sample once, by the two workers together"
    # It is the trained network that goes on: a new one has a loss of ln 2.
    last = killed[(killed["split"] == "train") & (killed["epoch"] <= saved)]["loss"].iloc[-1]
    assert train["loss"].iloc[0] == pytest.approx(last, abs=0.1)
    assert train["checkpoint"].iloc[-1] == f"epoch-{saved + 2:04}"
    assert list((place / "out" / "summaries").iterdir())

    tested = runtest("evaluate", "--config", config, *reach(hosts), *stage, "--json", cwd=tmp_path)
    assert tested.returncode == 0, tested.stderr
    found = json.loads(tested.stdout)
    record = json.loads(Path(tmp_path, found["run"], "run.json").read_text())
    assert record["staged"]["0"]["files"] == 0, "the copy of the training is there"
    (row,) = found["metrics"]
    assert (row["split"], row["samples"], row["epoch"]) == ("test", 80, saved + 2)
    assert 0.5 < row["auc"] <= 1.0
    svg = (tmp_path / found["roc_svg"]).read_text()
    assert f"area {row['auc']:.4f}" in "".join(ET.fromstring(svg).itertext())  # noqa: S314
    assert_nothing_left(hosts)


@pytest.mark.tensorflow
def test_this_machine_trains_on_what_make_data_made(events: Path, tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(events)
    config = write_config(tmp_path, inputpath="data", outputpath="out")
    done = runtest("train", "--config", config, "--epochs", 2, "--stage", "disk", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "640 samples to train on, 80 to validate; 2 epochs of 20 steps" in done.stderr
    (folder,) = (tmp_path / "logs" / "runs").iterdir()
    metrics = pd.read_csv(folder / "metrics.csv")
    assert list(metrics["split"]) == ["train", "validation"] * 2
    assert not math.isnan(metrics["auc"].iloc[-1])
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "finished"
    data = record["plan"]["job"]["data"]
    paths = (str(tmp_path / "data"), str(tmp_path / "disk"))
    assert (data["kind"], data["path"], data["stage"]) == ("hdf5", *paths)
    assert (record["staged"]["0"]["files"], record["staged"]["0"]["seconds"] > 0) == (3, True)
    assert max(map(len, done.stdout.splitlines()[:5])) <= 80

    again = runtest("train", "--config", config, "--epochs", 2, "--restart", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "going on from epoch-0002, which has them all: nothing to train" in again.stderr
    _check_an_older_checkpoint(tmp_path)
    _check_numbers_that_are_lost(tmp_path)


def _check_an_older_checkpoint(folder: Path) -> None:
    """The one that is asked for is tested, with the batch of tests, and not the newest."""
    config = write_config(folder, inputpath="data", outputpath="out", test_batch_size=40)
    argv = ("evaluate", "--config", config, "--checkpoint", "epoch-0001", "--json")
    done = runtest(*argv, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "testing epoch-0001 on 80 samples" in done.stderr
    found = json.loads(done.stdout)
    (row,) = found["metrics"]
    assert (row["split"], row["samples"], row["epoch"]) == ("test", 80, 1)
    record = json.loads((folder / found["run"] / "run.json").read_text())
    assert record["plan"]["job"]["training"]["evaluation_batch_size"] == 40


def _check_numbers_that_are_lost(folder: Path) -> None:
    """A loss of a server's parameters that is no number ends it; the checkpoint before stays."""
    kept = folder / "out" / "checkpoints" / "epoch-0002.npz"
    before = kept.read_bytes()
    wild = write_config(folder, inputpath="data", outputpath="out", learning_rate=1e38)
    argv = ("train", "--config", wild, "--num-ps", 1, "--epochs", 4, "--restart")
    done = runtest(*argv, cwd=folder)
    assert done.returncode == 1
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("runtest: ")]
    lost = r"epoch 3: the loss of step \d+ is (nan|inf); the last checkpoint is epoch-0002"
    assert re.search(lost, said)
    assert said.endswith(". Try: a smaller learning rate than 1e+38")
    assert kept.read_bytes() == before
    assert sorted(path.name for path in kept.parent.iterdir())[-1] == kept.name
    record = max((folder / "logs" / "runs").iterdir()) / "run.json"
    assert json.loads(record.read_text())["status"] == "failed"


@pytest.mark.tensorflow
def test_dummy_data_needs_no_files(tmp_path: Path) -> None:
    config = write_config(tmp_path, inputpath="nowhere", trainsamples=128)
    argv = ("train", "--config", config, "--dummy-data", "--epochs", 1, "--restart")
    planned = runtest(*argv, "--dry-run", cwd=tmp_path)
    assert "single, 1 epoch, on cpu" in planned.stdout, planned.stderr
    done = runtest(*argv, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "no checkpoint yet: from the beginning" in done.stderr
    assert list(metrics_of(done.stdout)["split"]) == ["train", "validation"]


@pytest.mark.tensorflow
def test_data_that_is_not_there_is_told_by_its_folder(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    done = runtest("train", "--config", config, cwd=tmp_path)
    assert done.returncode == 1
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("runtest: ")]
    assert str(tmp_path / "data") in said
    assert ". Try: " in said
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--config", "nothing.json"), "nothing.json: No such file"),
        (("--config", "bad.json"), "unknown key 'learning_rat'"),
        (("--config", "good.json", "-g", 3), "train_batch_size 32 cannot be shared out evenly"),
        (("--config", "good.json", "-h", "nodes"), "good.json: inputpath 'data' is relative"),
        (
            ("--config", "good.json", "-h", "nodes", "--input", "x"),
            "runtest: --input 'x' is relative",
        ),
        (("--config", "spares.json", "-g", 2), "num_hot_spares 2 leaves none of 2 to wait for"),
        (("--config", "good.json", "--aggregate", "node"), "no meaning with one worker alone"),
        (("--config", "good.json", "--gradient-dtype", "bf16"), "-g 2 for two workers"),
        (("--config", "good.json", "--dummy-data", "--stage", "fast"), "--stage has no meaning"),
        (("--config", "good.json", "--dummy-data", "--input", "data"), "--input has no meaning"),
    ],
)
def test_a_mistake_is_told_before_any_node_is_asked(
    argv: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    write_config(tmp_path, inputpath="data").rename(tmp_path / "good.json")
    write_config(tmp_path, learning_rat=1).rename(tmp_path / "bad.json")
    write_config(tmp_path, num_hot_spares=2).rename(tmp_path / "spares.json")
    (tmp_path / "nodes").write_text("a a\n")
    done = runtest("train", *argv, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    for option in ("--backup-workers", "--strategy", "--async"):
        assert option not in done.stderr, "train has no such option"


def test_the_help_of_evaluate_says_what_a_checkpoint_is_called(tmp_path: Path) -> None:
    said = " ".join(runtest("evaluate", "--help", cwd=tmp_path).stdout.split())
    assert "--checkpoint ID A name as training prints it, epoch-0003 say, or best:" in said

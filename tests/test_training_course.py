"""The course of a training: what workers tell becomes rows, files and a drawing."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_plan import hello, nodes

from launcher.errors import ResultsError
from launcher.plan import make_plan
from launcher.results.roc import _CUT, write_roc
from launcher.stall import StallWatch
from launcher.tasks import Options
from launcher.training.course import Course
from launcher.training.sense import what_is_wrong
from launcher.training.view import TrainingDisplay
from perftest.protocol import (
    Cluster,
    Evaluated,
    Job,
    Progress,
    RocCurve,
    Saved,
    Staged,
    Training,
    TrainingStarts,
)

TRAINING = Training(
    epochs=2,
    display_interval=1,
    save_interval=1,
    validation_interval=0,
    evaluation_batch_size=8,
    output="/out",
    summaries=False,
    restart=False,
    evaluate=False,
    checkpoint="",
)
JOB = Job(
    model="deepmnist",
    strategy="single",
    batch_size=8,
    warmup_steps=0,
    measured_steps=0,
    synchronous=True,
    aggregate=1,
    precision="fp32",
    learning_rate=0.1,
    seed=1,
    cluster=Cluster((), ()),
    training=TRAINING,
)
VALIDATED = Evaluated("validation", 1, 100, 0.5, 0.8, 0.9, 0.95, 2.0)


def told(folder: Path) -> Course:
    """Two workers' first epoch, its validation and checkpoint, and the beginning of the next."""
    course = Course(folder)
    course.take(TrainingStarts(64, 100, 0, 4, 0, ""))
    course.take_progress(0, Progress(0, 2, 1.0, 16, 2.0))
    course.take_progress(1, Progress(0, 2, 3.0, 16, 4.0))
    course.take_progress(0, Progress(0, 4, 2.0, 16, 2.0))
    course.take_progress(1, Progress(0, 4, None, 16, 4.0))
    course.take(VALIDATED)
    course.take(Saved(1, "epoch-0001"))
    course.take_progress(0, Progress(1, 1, 0.5, 8, 1.0))
    return course


def test_an_epoch_is_a_row_with_all_workers_images_in_the_time_of_the_slowest(
    tmp_path: Path,
) -> None:
    train, validation = told(tmp_path).rows
    assert (train.epoch, train.split, train.samples) == (1, "train", 64)
    assert train.images_per_sec == 64 / 8.0
    assert train.loss == (1.0 + 3.0 + 2.0) / 3
    assert (validation.split, validation.auc, validation.images_per_sec) == ("validation", 0.95, 50)


def test_a_checkpoint_stands_beside_the_epoch_that_it_is_of(tmp_path: Path) -> None:
    assert [row.checkpoint for row in told(tmp_path).rows] == ["epoch-0001", ""]


def test_what_a_slower_worker_tells_of_an_epoch_that_is_over_goes_into_its_row(
    tmp_path: Path,
) -> None:
    course = told(tmp_path)
    course.take_progress(1, Progress(0, 6, 2.0, 16, 4.0))
    course.end()
    first, _, second = course.rows
    assert (first.epoch, first.samples, first.images_per_sec) == (1, 80, 80 / 12.0)
    assert (first.checkpoint, second.epoch) == ("epoch-0001", 2)


def test_the_files_are_whole_after_every_evaluation_and_at_the_end(tmp_path: Path) -> None:
    course = told(tmp_path)
    assert list(pd.read_csv(course.metrics_csv)["split"]) == ["train", "validation"]
    course.end()
    metrics = pd.read_csv(course.metrics_csv)
    assert list(metrics["split"]) == ["train", "validation", "train"]
    assert metrics["images_per_sec"][2] == 8.0
    assert len(pd.read_csv(tmp_path / "progress.csv")) == 5


def test_a_folder_that_is_gone_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match=r"metrics\.csv"):
        Course(tmp_path / "file").end()


@pytest.mark.parametrize(
    ("message", "wrong"),
    [
        (Progress(0, 1, 0.1, 8, 0.5), ""),
        (Progress(0, 1, 0.1, 8, 0.0), "took no time"),
        (Progress(-1, 1, 0.1, 8, 1.0), "epoch -1"),
        (VALIDATED, ""),
        (replace(VALIDATED, auc=1.5), "figures"),
        (replace(VALIDATED, split="../x"), "split"),
        (TrainingStarts(-1, 0, 0, 0, 0, ""), "negative"),
        (RocCurve((0.0, 1.0), (0.0, 1.0), (0.1, 0.7)), ""),
        (RocCurve((0.0, 1.0), (0.0,), ()), "no ROC curve"),
        (RocCurve((0.0,) * 5000, (0.0,) * 5000, ()), "no ROC curve"),
        (Staged(-1.0, 1, 1), "negative"),
    ],
)
def test_news_that_cannot_be_true_is_told_apart(message: object, wrong: str) -> None:
    found = what_is_wrong(message, JOB, 0)
    assert wrong in found
    assert bool(wrong) == bool(found)


def test_only_worker_0_tells_of_validations_and_only_of_a_training() -> None:
    assert "worker 0" in what_is_wrong(VALIDATED, JOB, 1)
    assert "measurement" in what_is_wrong(VALIDATED, replace(JOB, training=None), 0)


def test_a_worker_that_waits_for_anothers_validation_does_not_stall() -> None:
    now = [0.0]
    options = Options("deepmnist", gpus_per_node=2, training=TRAINING, stall_seconds=10)
    plan = make_plan(options, nodes(1), [hello()])
    watch = StallWatch(plan, clock=lambda: now[0])
    for worker in (0, 1):
        watch.steps(worker, 1, 0.1)
    watch.phase(0, "validating")
    watch.phase(1, "training")
    now[0] = 30.0
    assert watch.find(set()) is None
    now[0] = 51.0
    found = watch.find(set())
    assert found is not None


def parsed(svg: Path) -> ET.Element:
    return ET.fromstring(svg.read_text())  # noqa: S314 - it is ours


def curve(points: int = 2000) -> RocCurve:
    rates = np.linspace(0, 1, points) ** 3
    return RocCurve(tuple(rates), tuple(rates**0.2), (1e-3, 0.35))


def test_the_roc_curve_is_a_table_and_a_drawing_of_two_panels(tmp_path: Path) -> None:
    course = told(tmp_path)
    row = replace(course.rows[1], split="test")
    svg = write_roc(tmp_path, curve(), [row])
    text = "".join(parsed(svg).itertext())
    for words in ("area 0.9500", "low false positive rates", "cuts (psr)", "100 test samples"):
        assert words in text
    table = pd.read_csv(tmp_path / "roc.csv")
    assert len(table) == 2001
    assert table["point"].iloc[-1] == "psr"


@pytest.mark.parametrize(
    "few",
    [
        RocCurve((0.0, 1.0), (0.0, 1.0), ()),
        RocCurve((0.0, 0.0, 1.0), (0.0, 1.0, 1.0), ()),
        RocCurve((0.0, 0.5, 1.0), (0.0, 0.5, 1.0), (0.0, 0.2)),
    ],
)
def test_a_curve_of_few_points_can_be_drawn(few: RocCurve, tmp_path: Path) -> None:
    svg = write_roc(tmp_path, few, [])
    assert parsed(svg).tag.endswith("svg")
    assert not math.isnan(pd.read_csv(tmp_path / "roc.csv")["true_positive_rate"].sum())


def cut_points(folder: Path, cut: tuple[float, ...]) -> int:
    """How many marks of the selection by cuts a drawing has: one is in its legend."""
    svg = write_roc(folder, replace(curve(), cut=cut), []).read_text()
    return len(re.findall(f"<use [^>]*{_CUT}", svg, re.IGNORECASE))


def test_a_selection_outside_of_the_corner_is_drawn_in_the_other_panel_alone(
    tmp_path: Path,
) -> None:
    assert cut_points(tmp_path, (0.1, 0.6)) == 3
    assert cut_points(tmp_path, (0.11, 0.6)) == 2


def test_progress_is_told_in_lines_that_fit_a_terminal(tmp_path: Path) -> None:
    from rich.console import Console

    with (tmp_path / "said").open("w") as file:
        console = Console(file=file, width=80)
        options = Options("deepmnist", batch_size=8, training=TRAINING, strategy="single")
        plan = make_plan(options, nodes(1), [hello()])
        with TrainingDisplay(console, nodes(1), live=False) as display:
            display.run_started(plan)
            display.training(0, TrainingStarts(64, 100, 0, 8, 0, ""))
            display.training(0, Progress(0, 4, 1.25, 32, 2.0))
            display.training(0, VALIDATED)
            display.training(0, Saved(1, "epoch-0001"))
    said = (tmp_path / "said").read_text()
    assert "epoch 1 of 2, step 4 of 8, loss 1.2500, 16.0 images/sec" in said
    assert "validation loss 0.5000, accuracy 0.8000 (weighted 0.9000), AUC 0.9500" in said
    assert "saved as epoch-0001" in said
    assert "64 samples to train on, 100 to validate; 2 epochs of 8 steps" in said
    assert max(map(len, said.splitlines())) <= 95

"""The course of real training: what is learnt, what is lost by kill -9, what ends it."""

from __future__ import annotations

import os
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from trainings import OPTIONS, Told, job, run_here, running, training, write_data

from perftest.checkpoints import CheckpointError, Checkpoints
from perftest.course import Course
from perftest.data import DataError, make_mnist, making
from perftest.inputs import Input
from perftest.keeper import TrainingDiverged
from perftest.measure import StepResult
from perftest.protocol import (
    Data,
    Job,
    Optimizer,
    Phase,
    Place,
    Progress,
    RocCurve,
    ServersHold,
    TrainingStarts,
)
from perftest.task import AgentLink
from perftest.training import build_model, make_batch, step_of

pytestmark = pytest.mark.tensorflow

# With what would show a restart that forgets something: dropout's seeds, moving averages, slots.
RICH: dict[str, Any] = {**OPTIONS, "dropout": 0.3, "batch_norm": True}


@pytest.fixture(scope="module")
def hep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 images that a small network tells apart within a few epochs, but not at once."""
    return write_data(tmp_path_factory.mktemp("hep"), noise=1.1)


@pytest.fixture(scope="module")
def trained(hep: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Told, Path]:
    """Four epochs without interruption, and its output."""
    folder = tmp_path_factory.mktemp("trained")
    asked = training(folder, epochs=4, summaries=True)
    return run_here(job(hep, model_options=RICH, training=asked), folder), folder


def test_a_training_learns(hep: Path, tmp_path: Path) -> None:
    told = run_here(job(hep, training=training(tmp_path / "out", epochs=6)), tmp_path)
    losses = [found.loss for found in told.validations]
    assert [found.epoch for found in told.validations] == [1, 2, 3, 4, 5, 6]
    assert told.saved == [f"epoch-000{epoch}" for epoch in range(1, 7)]
    assert losses[-1] < 0.8 * losses[0]
    assert told.validations[0].auc < told.validations[-1].auc
    assert 0.9 < told.validations[-1].auc < 1
    assert told.validations[-1].samples == 60


@pytest.mark.parametrize("xla", [False, True])
def test_a_step_takes_images_with_channels_first_for_what_they_are(xla: bool) -> None:
    asked = replace(job(), image_shape=(16, 24, 3), xla=xla)
    model = build_model(asked)
    images, labels = make_batch(asked, model, 0)
    values = [variable.value for variable in model.trainable_variables]
    turned = np.ascontiguousarray(np.moveaxis(images, 3, 1))
    plain = step_of(asked, model, False)(values, [], images, labels)
    made = step_of(asked, model, True)(values, [], turned, labels)
    assert turned.shape == (16, 3, 16, 24)
    assert float(made.loss) == float(plain.loss)
    for one, other in zip(made.gradients, plain.gradients, strict=True):
        np.testing.assert_array_equal(one, other)


def test_progress_counts_every_image_once(trained: tuple[Told, Path]) -> None:
    told, _ = trained
    (starts,) = told.of(TrainingStarts)
    assert starts == TrainingStarts(100, 60, 60, 7, 0, "")
    for epoch in range(4):
        reports = [report for report in told.of(Progress) if report.epoch == epoch]
        assert [report.step for report in reports] == [1, 2, 3, 4, 5, 6, 7]
        assert sum(report.images for report in reports) == 100


def test_a_training_that_goes_on_is_as_if_it_had_never_stopped(
    hep: Path, trained: tuple[Told, Path], tmp_path: Path
) -> None:
    asked = job(hep, model_options=RICH, training=training(tmp_path / "out", epochs=2))
    run_here(asked, tmp_path)
    again = training(tmp_path / "out", epochs=4, restart=True)
    told = run_here(replace(asked, training=again), tmp_path)
    whole, _ = trained
    assert told.of(TrainingStarts)[0].first_epoch == 2
    assert told.of(TrainingStarts)[0].checkpoint == "epoch-0002"
    expected = {step: loss for step, loss in whole.losses().items() if step[0] >= 2}
    assert told.losses() == pytest.approx(expected, rel=1e-4)
    assert told.norm == pytest.approx(whole.norm, rel=1e-5)
    assert told.validations[-1].auc == pytest.approx(whole.validations[-1].auc, abs=1e-3)


def test_a_restart_with_no_checkpoint_begins_at_the_beginning(hep: Path, tmp_path: Path) -> None:
    asked = training(tmp_path / "out", epochs=1, restart=True)
    told = run_here(job(hep, training=asked), tmp_path)
    assert told.of(TrainingStarts)[0].first_epoch == 0
    assert told.saved == ["epoch-0001"]


def test_kill_9_loses_no_more_than_the_epochs_since_the_last_checkpoint(tmp_path: Path) -> None:
    """Two synchronous workers; the data is large enough that the blow hits an epoch."""
    data = write_data(tmp_path / "data", noise=1.5, train=2000)
    epochs = 6
    asked = job(
        data,
        workers=2,
        model_options=RICH,
        training=training(tmp_path / "whole", epochs=epochs, display_interval=25),
    )
    with running(asked, tmp_path / "a", servers=2) as processes:
        whole = processes.finish()
    cut = training(tmp_path / "cut", epochs=1000, display_interval=25)
    with running(replace(asked, training=cut), tmp_path / "b", servers=2) as processes:
        processes.until_saved(2)
        processes.kill()
    names = Checkpoints(str(tmp_path / "cut")).names()
    first = int(names[-1].removeprefix("epoch-"))
    assert 2 <= first < epochs, "this machine was too slow to kill in time"
    again = replace(cut, epochs=epochs, restart=True)
    with running(replace(asked, training=again), tmp_path / "c", servers=1) as processes:
        told = processes.finish()
    assert (whole.failures, told.failures) == ([], [])
    assert told.of(TrainingStarts)[0].checkpoint == names[-1]
    _check_same_curve(told, whole, first, epochs)
    _check_phases(whole, epochs)


def test_a_parameter_that_servers_have_in_pieces_is_whole_in_a_checkpoint(
    hep: Path, tmp_path: Path
) -> None:
    """One worker and two servers, then three; and all of it in one process."""
    wide = {**OPTIONS, "fc_units": 8192}  # 4 MiB
    asked = job(hep, strategy="parameter_server", model_options=wide)
    for epochs, servers in ((1, 2), (2, 3)):
        now = training(tmp_path / "out", epochs=epochs, restart=epochs > 1)
        with running(replace(asked, training=now), tmp_path / f"{servers}", servers) as processes:
            told = processes.finish()
        (held,) = told.of(ServersHold)
        assert [each.pieces for each in held.servers] == [1] * servers
    whole = training(tmp_path / "whole", epochs=2)
    alone = run_here(job(hep, model_options=wide, training=whole), tmp_path)
    assert told.failures == []
    assert told.norm == pytest.approx(alone.norm, rel=1e-5)
    assert told.validations[-1].loss == pytest.approx(alone.validations[-1].loss, rel=1e-3)


def _check_phases(told: Told, epochs: int) -> None:
    first = [phase.name for phase in told.of(Phase)]
    other = [phase.name for phase in told.of(Phase, 1)]
    assert first.count("validating") == first.count("saving") == epochs
    assert other.count("waiting for worker 0") == epochs
    assert "validating" not in other


def _check_same_curve(told: Told, whole: Told, first: int, epochs: int) -> None:
    """Within what the order of floating-point sums may do to it over some hundred updates."""
    expected = {step: loss for step, loss in whole.losses(2).items() if step[0] >= first}
    assert len(expected) == 5 * (epochs - first)
    assert told.losses(2) == pytest.approx(expected, rel=0.02, abs=2e-3)
    one, other = told.validations[-1], whole.validations[-1]
    assert one.epoch == other.epoch == epochs
    assert one.auc == pytest.approx(other.auc, abs=2e-3)
    assert one.loss == pytest.approx(other.loss, rel=0.02)


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_checkpoint(
    hep: Path, tmp_path: Path
) -> None:
    asked = job(hep, training=training(tmp_path / "out", epochs=2), optimizer=Optimizer("sgd"))
    run_here(asked, tmp_path)
    wild = replace(
        asked,
        learning_rate=1e30,
        training=training(tmp_path / "out", epochs=4, restart=True),
    )
    with pytest.raises(TrainingDiverged, match=r"^epoch 3: .*; the last checkpoint is epoch-0002"):
        run_here(wild, tmp_path)
    checkpoints = Checkpoints(str(tmp_path / "out"))
    assert checkpoints.find("") == "epoch-0002"
    for value in checkpoints.load("epoch-0002").values.parameters:
        assert np.isfinite(value).all()


def test_a_parameter_that_is_no_number_after_the_last_step_is_not_kept(
    hep: Path, tmp_path: Path
) -> None:
    """One step an epoch: its loss is of the parameters before the update that spoils them."""
    asked = job(
        hep,
        batch_size=100,
        data=Data("hdf5", str(hep), validation_samples=0),
        learning_rate=float("inf"),
        optimizer=Optimizer("sgd"),
        training=training(tmp_path / "out", epochs=2),
    )
    with pytest.raises(TrainingDiverged, match=r"no number; there is no checkpoint yet"):
        run_here(asked, tmp_path)
    assert Checkpoints(str(tmp_path / "out")).names() == []


def test_an_optimizer_that_keeps_no_numbers_is_not_kept(tmp_path: Path) -> None:
    """One step an epoch: the squares of its gradients are infinite, and the next step's parameters
    would be no numbers.
    """
    data = write_data(tmp_path / "data", noise=1e25)
    asked = training(tmp_path / "out", epochs=2)
    with pytest.raises(TrainingDiverged, match=r"'v' of the optimizer is no number; there is no"):
        run_here(job(data, batch_size=100, training=asked), tmp_path)
    assert Checkpoints(str(tmp_path / "out")).names() == []


def test_the_test_split_is_evaluated_with_any_checkpoint(
    hep: Path, trained: tuple[Told, Path], tmp_path: Path
) -> None:
    whole, folder = trained
    told = evaluate(hep, folder, tmp_path)
    (found,) = told.validations
    assert (found.split, found.epoch, found.samples) == ("test", 4, 60)
    assert found.auc == pytest.approx(whole.validations[-1].auc, abs=0.1)
    assert told.norm == pytest.approx(whole.norm, rel=1e-6)
    curve = told.curve
    assert curve.false_positive_rates[0] == curve.true_positive_rates[0] == 0
    assert curve.false_positive_rates[-1] == curve.true_positive_rates[-1] == 1
    assert curve.cut[0] < 0.4 < 0.6 < curve.cut[1]
    early = evaluate(hep, folder, tmp_path, checkpoint="epoch-0002").validations[0]
    assert early.epoch == 2
    assert early.loss != found.loss
    assert evaluate(hep, folder, tmp_path).validations[0].loss == found.loss


def evaluate(hep: Path, folder: Path, tmp_path: Path, checkpoint: str = "", **changes: Any) -> Told:
    asked = training(folder, evaluate=True, checkpoint=checkpoint)
    return run_here(job(hep, model_options=RICH, training=asked, **changes), tmp_path)


def test_digits_are_learnt_and_tested(tmp_path: Path) -> None:
    """Ten classes, so that there is no ROC curve; benchmarks/learning.py has the whole of it."""
    (tmp_path / "digits").mkdir()
    make_mnist.make(tmp_path / "digits", 2800, 1, making.Progress("digits", 2800))
    data = Data("mnist", str(tmp_path / "digits"))
    asked = job(model="deepmnist", data=data, batch_size=50, image_shape=(), learning_rate=0.001)
    asked = replace(asked, model_options={})
    run_here(replace(asked, training=training(tmp_path / "out", epochs=2)), tmp_path)
    again = training(tmp_path / "out", evaluate=True)
    told = run_here(replace(asked, training=again), tmp_path)
    (found,) = told.validations
    assert (found.split, found.epoch, found.samples) == ("test", 2, 400)
    assert found.auc is None
    assert 0.9 < found.accuracy <= 1.0
    assert told.of(RocCurve) == []


def test_a_checkpoint_that_is_missing_or_foreign_is_named(
    hep: Path, trained: tuple[Told, Path], tmp_path: Path
) -> None:
    _, folder = trained
    with pytest.raises(CheckpointError, match=r"no checkpoint 'epoch-0077'"):
        evaluate(hep, folder, tmp_path, checkpoint="epoch-0077")
    with pytest.raises(CheckpointError, match=r"no checkpoint in .*/nowhere/checkpoints"):
        evaluate(hep, tmp_path / "nowhere", tmp_path)
    other = training(folder, evaluate=True)
    with pytest.raises(CheckpointError, match=r"of hep_cnn_64 with other options: its variable"):
        run_here(job(hep, training=other, model_options={**RICH, "filters": 16}), tmp_path)


def test_tensorboard_reads_what_is_written(trained: tuple[Told, Path]) -> None:
    _, folder = trained
    (path,) = (folder / "summaries").iterdir()
    seen: dict[str, list[int]] = {}
    for event in tf.compat.v1.train.summary_iterator(str(path)):
        for value in event.summary.value:
            assert value.metadata.plugin_data.plugin_name in ("scalars", "")
            assert np.isfinite(tf.make_ndarray(value.tensor))
            seen.setdefault(value.tag, []).append(event.step)
    assert seen["validation/auc"] == [7, 14, 21, 28]
    assert seen["train/loss"] == seen["train/images_per_second"] == list(range(1, 29))
    assert {"train/learning_rate", "validation/loss", "validation/accuracy"} < seen.keys()


def test_a_validation_in_the_middle_of_an_epoch_changes_nothing_but_its_number(
    hep: Path, trained: tuple[Told, Path], tmp_path: Path
) -> None:
    asked = training(tmp_path / "out", epochs=2, validation_interval=3, save_interval=5)
    told = run_here(job(hep, model_options=RICH, training=asked), tmp_path)
    assert [found.epoch for found in told.validations] == [0, 0, 1, 1, 1, 2]
    assert told.saved == ["epoch-0002"]
    whole, _ = trained
    expected = {step: loss for step, loss in whole.losses().items() if step[0] < 2}
    assert told.losses() == pytest.approx(expected, rel=1e-4)


def test_with_backup_workers_an_epoch_is_so_many_updates(hep: Path, tmp_path: Path) -> None:
    asked = training(tmp_path / "out", epochs=2, validation_interval=2, display_interval=4)
    with running(
        job(hep, workers=3, batch_size=5, aggregate=2, training=asked), tmp_path / "agent"
    ) as processes:
        told = processes.finish()
    assert told.failures == []
    assert told.saved == ["epoch-0001", "epoch-0002"]
    assert told.of(TrainingStarts)[0].steps_per_epoch == 7
    assert Checkpoints(asked.output).load("epoch-0002").values.updates == 14
    assert len(told.validations) == 8


def test_asynchronous_workers_make_their_own_steps_and_all_of_them_count(
    hep: Path, tmp_path: Path
) -> None:
    asked = training(tmp_path / "out", epochs=2)
    with running(
        job(hep, workers=2, synchronous=False, training=asked), tmp_path / "agent"
    ) as processes:
        told = processes.finish()
    assert told.failures == []
    assert told.saved == ["epoch-0001", "epoch-0002"]
    assert Checkpoints(asked.output).load("epoch-0002").values.updates == 2 * 2 * 7
    for worker in (0, 1):
        assert sum(report.images for report in told.of(Progress, worker)) == 100


def test_bad_data_is_said_before_training(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothere"):
        run_here(job(tmp_path / "nothere", tmp_path / "out"), tmp_path)


def inputs(asked: Job, worker: int = 0) -> Input:
    return Input(asked, Place("worker", worker, (), None), build_model(asked))


@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_to_train_on_is_said_before_anybody_counts_steps(
    tmp_path: Path, workers: int
) -> None:
    data = write_data(tmp_path / "data")
    (data / "train_1.h5").unlink()
    asked = training(tmp_path / "out")
    with pytest.raises(DataError, match=f"^{data}, train: no samples"):
        inputs(job(data, workers=workers, training=asked))
    again = replace(asked, evaluate=True)
    assert inputs(job(data, workers=workers, training=again)).source.samples("test") == 60


class Wild:
    """An engine whose loss is no number from the second epoch on."""

    steps = 0

    def step(self) -> StepResult:
        self.steps += 1
        return StepResult(0.5 if self.steps <= 7 else float("nan"), 2 * self.steps)


def test_an_asynchronous_worker_names_no_checkpoint_that_may_not_be_there(
    hep: Path, tmp_path: Path
) -> None:
    """Worker 0, which saves, may still be in its first epoch."""
    asked = job(hep, workers=2, synchronous=False, training=training(tmp_path / "out"))
    link = AgentLink(BytesIO(), os.open(os.devnull, os.O_WRONLY))
    course = Course(asked, link, Wild(), inputs(asked, 1), None)  # type: ignore[arg-type]
    with pytest.raises(TrainingDiverged, match=r"^epoch 2: .* is nan; what worker 0 has saved so"):
        course.run(0)

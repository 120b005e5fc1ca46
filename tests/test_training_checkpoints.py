"""Checkpoints on disk: whole or not there, kept and found, and refused where they do not fit."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from perftest.checkpoints import (
    About,
    Checkpoint,
    CheckpointError,
    Checkpoints,
    Values,
    check,
)

ROOT = Path(__file__).parent.parent


def values(number: float = 1.0) -> Values:
    kernel, bias = np.full((3, 2), number, np.float32), np.full(2, -number, np.float32)
    slots = {"m": [kernel / 2, bias / 2], "v": [kernel * 2, bias * 2]}
    return Values([kernel, bias], slots, [np.array([1, 2], np.uint32)], updates=7)


def about(epoch: int = 1, score: float | None = None) -> About:
    return About(epoch, 7, "hep_cnn_64", "adam", 1, score)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    made = Checkpoints(str(tmp_path))
    made.prepare(restart=False)
    return made


def test_what_is_read_is_what_was_written(checkpoints: Checkpoints) -> None:
    name = checkpoints.save(values(), about(3, score=0.9))
    found = checkpoints.load(name)
    assert (found.name, found.about) == ("epoch-0003", about(3, score=0.9))
    assert found.values.updates == 7
    assert list(found.values.slots) == ["m", "v"]
    for mine, theirs in (
        (found.values.parameters, values().parameters),
        (found.values.slots["v"], values().slots["v"]),
        (found.values.state, values().state),
    ):
        for one, other in zip(mine, theirs, strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_found_wherever_it_is(number: float) -> None:
    good = values()
    assert good.spoiled() == ""
    bad = np.array([1, number], np.float32)
    kernel = good.parameters[0]
    assert replace(good, parameters=[kernel, bad]).spoiled() == "a parameter"
    slots = {"m": good.slots["m"], "v": [kernel, bad]}
    assert replace(good, slots=slots).spoiled() == "'v' of the optimizer"
    assert replace(good, state=[*good.state, bad]).spoiled() == "a moving average"


def test_the_last_three_are_kept_and_the_best(checkpoints: Checkpoints) -> None:
    for epoch, score in enumerate([0.5, 0.9, 0.7, 0.8, 0.6, 0.6], start=1):
        checkpoints.save(values(), about(epoch, score))
    assert checkpoints.names() == ["epoch-0002", "epoch-0004", "epoch-0005", "epoch-0006"]
    assert checkpoints.find("") == "epoch-0006"
    assert checkpoints.find("best") == "epoch-0002"
    assert checkpoints.find("epoch-0004") == "epoch-0004"


def test_the_newest_has_the_highest_number_and_not_the_last_name(checkpoints: Checkpoints) -> None:
    checkpoints.save(values(), about(9_999))
    checkpoints.save(values(), about(10_000))
    assert checkpoints.find("") == "epoch-10000"


def test_one_that_is_not_there_is_told_with_those_that_are(checkpoints: Checkpoints) -> None:
    with pytest.raises(CheckpointError, match=r"there is no checkpoint in .*/checkpoints"):
        checkpoints.find("")
    checkpoints.save(values(), about(1))
    with pytest.raises(CheckpointError, match=r"no checkpoint '../x' in .*Try: best, epoch-0001"):
        checkpoints.find("../x")


def test_an_earlier_training_is_not_written_over(checkpoints: Checkpoints) -> None:
    checkpoints.save(values(), about(1))
    with pytest.raises(CheckpointError, match=r"holds epoch-0001 .*Try: --restart"):
        checkpoints.prepare(restart=False)
    checkpoints.prepare(restart=True)


def test_a_damaged_checkpoint_is_named_wherever_the_damage_is(checkpoints: Checkpoints) -> None:
    path = checkpoints.folder / f"{checkpoints.save(values(), about())}.npz"
    whole = path.read_bytes()
    told = 0
    for length in range(0, len(whole), 61):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"epoch-0001\.npz cannot be read: "):
            checkpoints.load("epoch-0001")
    for place in range(0, len(whole), 23):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            found = checkpoints.load("epoch-0001")
        except CheckpointError as error:
            assert "epoch-0001.npz cannot be read: " in str(error)  # noqa: PT017
            told += 1
        else:  # a byte that nobody reads
            np.testing.assert_array_equal(found.values.parameters[0], values().parameters[0])
    assert told > 50


def test_a_checkpoint_of_something_else_is_refused_with_the_difference() -> None:
    one = Checkpoint("epoch-0001", about(), values())
    check(one, "hep_cnn_64", "adam", values())
    with pytest.raises(CheckpointError, match="is a checkpoint of hep_cnn_64, not of deepmnist"):
        check(one, "deepmnist", "adam", values())
    with pytest.raises(CheckpointError, match="trained with adam, and cannot go on with sgd"):
        check(one, "hep_cnn_64", "sgd", values())
    check(one, "hep_cnn_64", None, values())
    wider = replace(values(), parameters=[np.zeros((3, 4)), np.zeros(4)])
    with pytest.raises(CheckpointError, match=r"variable 0 has the shape \(3, 2\), .* \(3, 4\)"):
        check(one, "hep_cnn_64", "adam", wider)
    fewer = replace(values(), parameters=values().parameters[:1])
    with pytest.raises(CheckpointError, match="it has 2 variables, the network 1"):
        check(one, "hep_cnn_64", "adam", fewer)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"file/checkpoints cannot be made: Not a directory"):
        Checkpoints(str(tmp_path / "file")).prepare(restart=False)


def test_a_disk_that_is_full_is_told_and_earlier_checkpoints_stay(checkpoints: Checkpoints) -> None:
    checkpoints.save(values(), about(1))
    (checkpoints.folder / ".epoch-0002.partial").symlink_to("/dev/full")
    with pytest.raises(CheckpointError, match=r"epoch-0002\.npz cannot be written: No space left"):
        checkpoints.save(values(), about(2))
    assert checkpoints.names() == ["epoch-0001"]
    checkpoints.load("epoch-0001")


WRITER = """
import sys, numpy as np
from perftest.checkpoints import About, Checkpoints, Values
checkpoints, epoch = Checkpoints(sys.argv[1]), int(sys.argv[2])
while True:
    epoch += 1
    values = Values([np.full(1 << 20, epoch, np.float32)], {}, [])
    checkpoints.save(values, About(epoch, 0, "hep_cnn_64", "sgd", 1, None))
    print(epoch, flush=True)
"""


def test_kill_9_at_any_moment_leaves_whole_checkpoints(checkpoints: Checkpoints) -> None:
    randoms = np.random.default_rng(1)
    epoch = 0
    for _ in range(12):
        output = str(checkpoints.folder.parent)
        command = [sys.executable, "-c", WRITER, output, str(epoch)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            told = int(process.stdout.readline())
            try:
                process.wait(randoms.uniform(0, 0.03))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
            told = max([told, *map(int, process.stdout.read().split())])
        newest = checkpoints.load(checkpoints.find(""))
        assert newest.about.epoch in (told, told + 1)
        assert (newest.values.parameters[0] == newest.about.epoch).all()
        epoch = newest.about.epoch
    assert len(checkpoints.names()) == 3

"""Sources of data on real files: every sample once an epoch, in an order of its own, and no more
memory than three windows.
"""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from datasets import write_hdf5, write_mnist, write_tfrecords

from perftest import data as sources
from perftest.data import DataError, order
from perftest.protocol import TEST, TRAIN, VALIDATION, Data

pytestmark = pytest.mark.tensorflow

SHAPE = (8, 8, 3)


def load(kind: str, folder: Path, **more: Any) -> Any:
    shape, classes = ((28, 28, 1), 10) if kind == "mnist" else (SHAPE, 5)
    return sources.load(Data(kind, str(folder), **more), shape, classes, seed=1)


@pytest.fixture(scope="module", params=["hdf5", "chunked", "mnist", "tfrecord"])
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A source with three splits, whose labels and pixels say which sample one is."""
    folder = tmp_path_factory.mktemp(request.param)
    kind = request.param
    if kind == "mnist":
        write_mnist(folder)
    elif kind == "tfrecord":
        write_tfrecords(folder / "train-00000-of-00002", 29)
        write_tfrecords(folder / "train-00001-of-00002", 12)
        write_tfrecords(folder / "validation-00000-of-00001", 7)
        write_tfrecords(folder / "test-00000-of-00001", 9)
    else:
        kind = "hdf5"
        more = {"chunks": (4, 3, 8, 8), "compression": "gzip"} if request.param == "chunked" else {}
        write_hdf5(folder / "a_train.h5", 29, **more)
        write_hdf5(folder / "b_train.h5", 12, first=29, **more)
        write_hdf5(folder / "a_val.h5", 7, **more)
        write_hdf5(folder / "a_test.h5", 9, **more)
    return load(kind, folder)


def epoch(source: Any, split: str, batch: int, workers: int, **more: Any) -> list[list[bytes]]:
    """The samples that each worker sees, by their pixels, without padding."""
    seen = []
    asked = {"seed": 3, "shuffle": True, "first_epoch": 0, "epochs": 1, **more}
    for worker in range(workers):
        mine, count = [], 0
        for made in source.dataset(split, batch, worker, workers, **asked):
            valid = made.valid.numpy() > 0
            mine += [image.tobytes() for image in made.images.numpy()[valid]]
            assert (made.weights.numpy()[~valid] == 0).all()
            assert (made.train_weights.numpy()[~valid] == 0).all()
            count += 1
        assert count == source.steps(split, batch, workers) * (asked["epochs"] or 0)
        seen.append(mine)
    return seen


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_every_sample_is_seen_once_an_epoch_whatever_the_number_of_workers(
    files: Any, workers: int
) -> None:
    # Unmixed and evaluated, so that a random cut of a picture does not hide which one it is.
    split = VALIDATION
    shares = epoch(files, split, 2, workers, shuffle=False)
    seen = [sample for share in shares for sample in share]
    assert len(seen) == len(set(seen)) == files.samples(split)
    mixed = [sample for share in epoch(files, split, 2, workers) for sample in share]
    assert sorted(mixed) == sorted(seen)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_order_is_that_of_the_seed_and_the_epoch(files: Any) -> None:
    once, again = epoch(files, TRAIN, 4, 1), epoch(files, TRAIN, 4, 1)
    other = epoch(files, TRAIN, 4, 1, seed=4)
    assert once == again
    assert once != other
    both = epoch(files, TRAIN, 4, 1, epochs=2)[0]
    second = epoch(files, TRAIN, 4, 1, first_epoch=1)[0]
    assert both == once[0] + second  # so that a restart goes on where it was
    assert second != once[0]


def test_labels_and_weights_stay_with_their_images(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "train.h5", 300)
    source = load("hdf5", tmp_path, normweight=True)
    for batch in source.dataset(TRAIN, 32, 0, 1, 5, True, 0, 1):
        valid = batch.valid.numpy() > 0
        number = batch.images.numpy()[valid][:, 0, 0, 0].astype(int)
        assert (batch.labels.numpy()[valid] == number % 5).all()
        assert (batch.weights.numpy()[valid] == number + 1).all()
        assert (batch.train_weights.numpy()[valid] == number + 0.5).all()
        assert (batch.cut.numpy()[valid] == number % 2).all()
        # Channels come first, as in the file; the channel is the second digit.
        assert source.channels_first
        assert (batch.images.numpy()[valid][:, 1, 0, 0] == number + 0.25).all()
    assert source.has_cut
    plain = load("hdf5", tmp_path)
    assert {
        float(value)
        for batch in plain.dataset(TRAIN, 30, 0, 1, 5, True, 0, 1)
        for value in batch.train_weights.numpy()
    } == {1.0}


def test_images_that_are_a_link_to_those_of_another_file_are_read_from_there(
    tmp_path: Path,
) -> None:
    write_hdf5(tmp_path / "train.h5", 9)
    write_hdf5(tmp_path / "elsewhere.h5", 9, first=100)
    with h5py.File(tmp_path / "train.h5", "r+") as file:
        del file["data"]
        file["data"] = h5py.ExternalLink("elsewhere.h5", "data")
    (batch,) = load("hdf5", tmp_path).dataset(TRAIN, 9, 0, 1, 1, False, 0, 1)
    assert batch.images.numpy()[:, 0, 0, 0].tolist() == list(range(100, 109))


def test_no_more_samples_are_used_than_asked_for(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a_train.h5", 20)
    write_hdf5(tmp_path / "b_train.h5", 20, first=20)
    source = load("hdf5", tmp_path, train_samples=25)
    assert source.samples(TRAIN) == 25
    assert len(set(epoch(source, TRAIN, 4, 2)[0]) | set(epoch(source, TRAIN, 4, 2)[1])) == 25
    assert source.samples(TEST) == 0


def test_of_any_split_no_more_samples_are_used_than_asked_for(files: Any) -> None:
    kind = type(files).__module__.rpartition(".")[2]
    few = {TRAIN: 35, VALIDATION: 3, TEST: 2}
    limits = {f"{split}_samples": most for split, most in few.items()}
    source = load(kind, Path(files.path), **limits)
    for split, most in few.items():
        assert files.samples(split) > most, "otherwise this could not fail"
        assert len(epoch(source, split, 8, 1)[0]) == source.samples(split) == most


def test_mnist_may_be_gzipped_or_not(tmp_path: Path) -> None:
    for name in ("packed", "plain"):
        write_mnist(tmp_path / name)
    for path in (tmp_path / "plain").glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    packed, plain = (load("mnist", tmp_path / name) for name in ("packed", "plain"))
    assert epoch(packed, TEST, 5, 1) == epoch(plain, TEST, 5, 1)
    assert packed.samples(TRAIN) + packed.samples(VALIDATION) == 120
    assert packed.samples(VALIDATION) == 10


def test_synthetic_images_keep_the_same_promises() -> None:
    source = sources.load(Data(train_samples=10), SHAPE, 5, 1)
    counts = [
        sum(
            float(batch.valid.numpy().sum())
            for batch in source.dataset(TRAIN, 4, w, 3, 1, True, 0, 1)
        )
        for w in range(3)
    ]
    assert counts == [3, 3, 4]
    assert source.steps(TRAIN, 4, 3) == 1


def test_a_file_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    """590 MB of images through a process that may have 400 MB more than it starts with."""
    with h5py.File(tmp_path / "train.h5", "w") as file:
        file.create_dataset("data", (12_000, 3, 64, 64), "f4")[:1] = 1
        for name in ("label", "normweight", "weight"):
            file[name] = np.zeros(12_000, "f4")
        file["data"][-1] = 1  # so that the file has its whole length
    program = (
        "import sys\n"
        "import tensorflow as tf\n"
        "from perftest import data\n"
        "from perftest.protocol import Data\n"
        "source = data.load(Data('hdf5', sys.argv[1]), (64, 64, 3), 2, 1)\n"
        # ru_maxrss would have the memory of this process in it, which started it.
        "most = lambda: int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
        "before = most()\n"
        "count = sum(1 for _ in source.dataset('train', 64, 0, 1, 1, True, 0, 1))\n"
        "print(count, most() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    batches, kibibytes = map(int, done.stdout.split())
    assert batches == 188
    assert kibibytes < 400 << 10


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("samples", [5, 17, 64])
def test_shares_cover_all_samples_and_differ_by_one_at_most(samples: int, workers: int) -> None:
    shares = [order.share(samples, worker, workers) for worker in range(workers)]
    assert shares[0][0] == 0
    assert shares[-1][1] == samples
    assert all(shares[i][1] == shares[i + 1][0] for i in range(workers - 1))
    sizes = [last - first for first, last in shares]
    assert max(sizes) - min(sizes) <= 1
    assert order.steps(samples, 4, workers) == -(-max(sizes) // 4)


def test_fewer_samples_than_workers_is_told_before_anything_is_read(files: Any) -> None:
    with pytest.raises(DataError, match="are fewer than 1000 workers"):
        files.dataset(TRAIN, 4, 0, 1000, 1, True)

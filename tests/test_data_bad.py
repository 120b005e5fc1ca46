"""Bad data: an error of one line that names the file and the dataset."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from datasets import write_hdf5, write_mnist, write_tfrecords

from perftest import data as sources
from perftest.data import DataError
from perftest.data.tfrecord_files import index
from perftest.protocol import TRAIN, Data
from perftest.task import describe

pytestmark = pytest.mark.tensorflow


def load(kind: str, folder: Path) -> Any:
    shape = (28, 28, 1) if kind == "mnist" else (8, 8, 3)
    return sources.load(Data(kind, str(folder)), shape, 5 if kind != "mnist" else 10, seed=1)


def replaced(name: str, values: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            del file[name]
            if values is not None:
                file[name] = values

    return change


def of_groups(name: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            del file[name]
            file.create_group(name)

    return change


def without_its_names(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"HEAP", b"HAEP"))


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (replaced("data", None), "train.h5, data: no such dataset; the file has label, normw"),
        (replaced("label", None), "train.h5, label: no such dataset"),
        (replaced("normweight", None), "train.h5, normweight: no such dataset"),
        (replaced("weight", None), "train.h5, weight: no such dataset"),
        (replaced("data", np.zeros((9, 3, 8, 9), "f4")), "train.h5, data: 9 × 3 × 8 × 9, but"),
        (replaced("data", np.zeros((9, 8, 8, 3), "f4")), "takes N × 3 × 8 × 8"),
        (replaced("data", np.zeros((9, 3, 8, 8))), "train.h5, data: float64 numbers, not float32"),
        (replaced("data", np.zeros((0, 3, 8, 8), "f4")), "train.h5, data: no samples"),
        (replaced("label", np.arange(9)), "train.h5, label: sample 5 has the label 5, and"),
        (replaced("label", np.full(9, -1)), "train.h5, label: sample 0 has the label -1"),
        (replaced("label", np.full(9, 0.5)), "train.h5, label: sample 0 has the label 0.5"),
        (replaced("label", np.zeros(8)), "train.h5, label: 8 values for 9 samples"),
        (replaced("label", ["a"] * 9), "train.h5, label: object values, not numbers"),
        (replaced("weight", np.full(9, np.nan)), "train.h5, weight: sample 0 has nan"),
        (replaced("weight", np.arange(9) % 4 * -0.5), "train.h5, weight: sample 1 has -0.5, no w"),
        (replaced("normweight", np.full(9, -1)), "train.h5, normweight: sample 0 has -1, no weig"),
        (replaced("weight", np.full(9, 1e39)), "train.h5, weight: sample 0 has 1e+39, no weight"),
        (replaced("psr", np.arange(9) % 2 * 2 - 1), "train.h5, psr: sample 0 has -1, neither 1 "),
        (replaced("psr", np.full(9, np.nan)), "train.h5, psr: sample 0 has nan, neither 1 "),
        *(
            (replaced(name, h5py.Empty("f4")), f"train.h5, {name}: a dataset without values")
            for name in ("data", "label", "psr")
        ),
        (replaced("psr", h5py.SoftLink("/nowhere")), "train.h5, psr: no dataset, but a group, or"),
        (replaced("weight", h5py.ExternalLink("no.h5", "/x")), "train.h5, weight: no dataset, but"),
        (replaced("label", h5py.SoftLink("/label")), "train.h5, label: no dataset, but"),
        (of_groups("psr"), "train.h5, psr: no dataset, but a group"),
        (replaced("label", np.full(9, np.nan)), "train.h5, label: sample 0 has the label nan"),
        (without_its_names, "train.h5: not a whole HDF5 file"),
        (cut_off, "train.h5: not a whole HDF5 file"),
        (lambda path: path.write_bytes(b"no HDF5"), "train.h5: not a whole HDF5 file"),
    ],
)
def test_what_is_wrong_with_an_hdf5_file_is_told_before_training(
    tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    write_hdf5(tmp_path / "train.h5", 9)
    load("hdf5", tmp_path)
    spoil(tmp_path / "train.h5")
    with pytest.raises(DataError) as error:
        load("hdf5", tmp_path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def read(source: Any) -> None:
    for _ in source.dataset(TRAIN, 4, 0, 1, 1, True, 0, 1):
        pass


def test_a_pixel_that_is_no_number_is_found_when_it_is_read(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "train.h5", 9)
    with h5py.File(tmp_path / "train.h5", "r+") as file:
        file["data"][6, 2, 3, 3] = np.nan
    with pytest.raises(Exception, match=r"train\.h5, data: sample 6 has a pixel that is not"):
        read(load("hdf5", tmp_path))


def test_a_file_that_is_cut_off_while_it_is_read_is_named(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "train.h5", 300)
    source = load("hdf5", tmp_path)
    cut_off(tmp_path / "train.h5")
    with pytest.raises(Exception, match=r"train\.h5, data: the file ends before its sample"):
        read(source)


@pytest.mark.parametrize("kind", ["hdf5", "tfrecord", "mnist"])
def test_a_directory_without_data_is_named(tmp_path: Path, kind: str) -> None:
    with pytest.raises(DataError, match=str(tmp_path)):
        load(kind, tmp_path)
    with pytest.raises(DataError, match="nowhere"):
        load(kind, tmp_path / "nowhere")


def test_a_name_that_says_two_things_is_refused(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "train_test.h5", 9)
    with pytest.raises(DataError, match="its name says train and test"):
        load("hdf5", tmp_path)
    (tmp_path / "train_test.h5").rename(tmp_path / "latest_train.h5")
    assert load("hdf5", tmp_path).samples(TRAIN) == 9


def rewritten(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def rewrite(path: Path) -> None:
        path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()))))

    return rewrite


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("train-images-idx3-ubyte", Path.unlink, "no such file, gzipped or not"),
        ("train-images-idx3-ubyte", rewritten(lambda d: b"\1" + d[1:]), "it begins with 01000803"),
        ("train-images-idx3-ubyte", rewritten(lambda d: d[:-1]), "bytes follow the header, which"),
        ("train-images-idx3-ubyte", cut_off, "cannot be read"),
        ("train-images-idx3-ubyte", rewritten(lambda d: b""), "it begins with nothing"),
        (
            "t10k-labels-idx1-ubyte",
            rewritten(lambda d: d[:-1] + b"\x0a"),
            "sample 11 has the label",
        ),
        (
            "t10k-labels-idx1-ubyte",
            rewritten(lambda d: d[:4] + b"\0\0\0\x0b" + d[8:-1]),
            "11 labels for 12 images",
        ),
    ],
)
def test_what_is_wrong_with_an_idx_file_is_told(
    tmp_path: Path, name: str, spoil: Callable[[Path], None], message: str
) -> None:
    write_mnist(tmp_path)
    spoil(tmp_path / f"{name}.gz")
    with pytest.raises(DataError) as error:
        load("mnist", tmp_path)
    assert message in str(error.value)
    assert name in str(error.value)


def test_what_is_wrong_with_a_tfrecord_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "train-00000-of-00001"
    write_tfrecords(path, 9, label=6)
    with pytest.raises(Exception, match="the label 6, and the model knows 1 to 5"):
        read(load("tfrecord", tmp_path))
    cut_off(path)
    with pytest.raises(DataError, match="00001: cut off in its record"):
        load("tfrecord", tmp_path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="00001: no samples"):
        load("tfrecord", tmp_path)


def flipped(path: Path, place: int) -> None:
    """One bit of a file is another."""
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("offset", [12, 200, -1])
def test_a_record_with_a_bit_that_flipped_is_named(tmp_path: Path, offset: int) -> None:
    """Its first byte, one within the JPEG, one of its checksum: TensorFlow would decode them all
    but for the first.
    """
    path = tmp_path / "train-00000-of-00001"
    write_tfrecords(path, 9)
    start, end = index(path).starts[4:6].tolist()
    flipped(path, end + offset if offset < 0 else start + offset)
    with pytest.raises(Exception, match="does not fit") as error:
        read(load("tfrecord", tmp_path))
    said = f"{path}: record 4 is damaged: it does not fit its checksum. Try: copying it again"
    assert describe(error.value) == said


def test_a_length_of_a_record_that_is_damaged_is_told_before_training(tmp_path: Path) -> None:
    path = tmp_path / "train-00000-of-00001"
    write_tfrecords(path, 9)
    flipped(path, index(path).starts[3])
    with pytest.raises(DataError, match=r"1: damaged in the length of its record 3, or no TFRec"):
        load("tfrecord", tmp_path)
    path.write_bytes(bytes(1000))
    with pytest.raises(DataError, match=r"1: damaged in the length of its record 0, or no TFRec"):
        load("tfrecord", tmp_path)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda encoded: encoded[: len(encoded) // 2], "has a JPEG that cannot be decoded"),
        (lambda encoded: b"\x89PNG" + encoded, "has no JPEG"),
        (lambda encoded: b"", "has no JPEG"),
    ],
)
def test_a_record_whose_jpeg_is_none_or_cut_off_is_named(
    tmp_path: Path, bad: Callable[[bytes], bytes], message: str
) -> None:
    path = tmp_path / "train-00000-of-00001"
    write_tfrecords(path, 9, change=lambda number, data: bad(data) if number == 7 else data)
    with pytest.raises(Exception, match="record 7") as error:
        read(load("tfrecord", tmp_path))
    assert describe(error.value) == f"{path}, image/encoded: record 7 {message}"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b"something else", "0-of-1: record 0 is no example with image/encoded and image/class/"),
        # An Example whose JPEG is said to be longer than all of it: not for TensorFlow's parser.
        (
            b"\x0a\x19\x0a\x17\x0a\x0dimage/encoded\x12\x06\x0a\x7f\x0a\x7f\xff\xd8",
            "0-of-1: record 0 is no exa",
        ),
        (b"", "0-of-1, image/encoded: record 0 has no JPEG"),
    ],
)
def test_a_record_of_something_else_is_named(tmp_path: Path, record: bytes, message: str) -> None:
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(tmp_path / "train-0-of-1")) as writer:
        writer.write(record)
    with pytest.raises(Exception, match=message):
        read(load("tfrecord", tmp_path))


def test_records_that_are_others_than_at_the_start_are_told(tmp_path: Path) -> None:
    path = tmp_path / "train-00000-of-00001"
    write_tfrecords(path, 9)
    source = load("tfrecord", tmp_path)
    before = path.stat().st_size
    write_tfrecords(path, 20, change=lambda number, data: data + b"longer")
    with pytest.raises(Exception, match=r"00001: changed since its records were counted"):
        read(source)
    path.write_bytes(path.read_bytes()[: before // 2])
    with pytest.raises(Exception, match=r"00001: the file ends before its record 9"):
        read(source)
    path.unlink()
    with pytest.raises(Exception, match=r"00001: cannot be read: No such file"):
        read(source)


def test_images_of_another_size_than_the_model_takes_are_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    with pytest.raises(DataError, match="but the model takes 8 × 8 × 3"):
        sources.load(Data("mnist", str(tmp_path)), (8, 8, 3), 10, 1)

"""Staging: copied once for all tasks of a node, found again, and only what is whole has a name."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest
from datasets import write_hdf5

from perftest.data import DataError, staging
from perftest.protocol import Data, Staged


@pytest.fixture
def data(tmp_path: Path) -> Data:
    (tmp_path / "source").mkdir()
    (tmp_path / "disk").mkdir()
    for name in ("train", "val", "test"):
        write_hdf5(tmp_path / "source" / f"hep_{name}.h5", 9)
    (tmp_path / "source" / "notes.txt").write_text("of no split")
    return Data("hdf5", str(tmp_path / "source"), stage=str(tmp_path / "disk"))


def total(data: Data) -> int:
    return sum(path.stat().st_size for path in Path(data.path).glob("*.h5"))


def test_the_files_of_the_data_are_copied_with_their_times(data: Data) -> None:
    staged, done = staging.stage(data)
    assert (done.files, done.bytes) == (3, total(data))
    assert done.seconds > 0
    assert staged.stage == ""
    copied = {path.name for path in Path(staged.path).iterdir()}
    assert copied == {".lock", "hep_train.h5", "hep_val.h5", "hep_test.h5"}
    for path in Path(data.path).glob("*.h5"):
        copy = Path(staged.path) / path.name
        assert copy.read_bytes() == path.read_bytes()
        assert copy.stat().st_mtime_ns == path.stat().st_mtime_ns


def test_a_copy_is_used_again_and_only_what_changed_is_copied(data: Data) -> None:
    staging.stage(data)
    assert staging.stage(data)[1].files == 0
    write_hdf5(Path(data.path) / "hep_val.h5", 12)
    (Path(data.path) / "hep_test.h5").unlink()
    staged, done = staging.stage(data)
    assert done.files == 1
    assert sorted(path.name for path in Path(staged.path).glob("*.h5")) == [
        "hep_train.h5",
        "hep_val.h5",
    ]


def test_the_copy_is_for_its_user_alone(data: Data) -> None:
    staged, _ = staging.stage(data)
    for folder in (Path(staged.path), Path(staged.path).parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert folder.stat().st_uid == os.getuid()


def test_one_task_copies_and_the_others_wait_for_it(data: Data) -> None:
    done: list[Staged] = []
    threads = [
        threading.Thread(target=lambda: done.append(staging.stage(data)[1])) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.files for each in done) == [0, 0, 0, 3]


def test_what_a_killed_copy_left_goes(data: Data) -> None:
    staged, _ = staging.stage(data)
    left = Path(staged.path) / ".hep_train.h5.123.456"
    left.write_bytes(b"half")
    staging.stage(data)
    assert not left.exists()


def test_a_directory_of_somebody_else_is_refused(data: Data) -> None:
    planted = Path(data.stage) / f"perftest-data-{os.getuid()}"
    planted.symlink_to("/tmp")
    with pytest.raises(DataError, match="was made by somebody else"):
        staging.stage(data)


def test_a_disk_without_room_is_told_before_anything_is_copied(data: Data) -> None:
    with (Path(data.path) / "hep_train.h5").open("r+b") as file:
        file.truncate(1 << 43)  # sparse: no disk here has room for it
    with pytest.raises(DataError, match=r"8796\.1 GB are to be copied, and"):
        staging.stage(data)


def test_a_directory_that_cannot_be_made_is_named(data: Data, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"--stage .*file: cannot make"):
        staging.stage(Data("hdf5", data.path, stage=str(tmp_path / "file")))

"""GPUs as nvidia-smi lists them: recorded answers, and a program of that name that gives them."""

from __future__ import annotations

from pathlib import Path

import pytest

from perftest.gpus import find_gpus, parse_gpus, visible_gpus

ONE = "GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f, NVIDIA H100 80GB HBM3, 81559, 580.159.04\n"
EIGHT = "".join(
    f"GPU-{i}c89852c-d268-c3f3-1b07-005d5ae1dc3f, NVIDIA A100-SXM4-40GB, 40960, 535.54.03\n"
    for i in range(8)
)
EIGHT_LIST = "".join(
    f"GPU {i}: NVIDIA A100-SXM4-40GB (UUID: GPU-{i}c89852c-d268-c3f3-1b07-005d5ae1dc3f)\n"
    for i in range(8)
)
MIG_QUERY = (
    "GPU-0c89852c-d268-c3f3-1b07-005d5ae1dc3f, NVIDIA A100-SXM4-40GB, 40960, 535.54.03\n"
    "GPU-1c89852c-d268-c3f3-1b07-005d5ae1dc3f, NVIDIA A100-SXM4-40GB, 40960, 535.54.03\n"
)
MIG_LIST = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-0c89852c-d268-c3f3-1b07-005d5ae1dc3f)
  MIG 3g.20gb     Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 1g.5gb      Device  1: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-1c89852c-d268-c3f3-1b07-005d5ae1dc3f)
"""
NO_DRIVER = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running.\n"
)


def fake_nvidia_smi(folder: Path, query: str, listing: str = "", status: int = 0) -> None:
    """A program that answers as nvidia-smi did where the answers were recorded."""
    (folder / "query").write_text(query)
    (folder / "list").write_text(listing)
    program = folder / "nvidia-smi"
    program.write_text(
        f'#!/bin/sh\ncase $1 in -L) cat "{folder}/list" ;; *) cat "{folder}/query" ;; esac\n'
        f"exit {status}\n"
    )
    program.chmod(0o755)


def test_one_gpu_is_found_with_its_name_memory_and_driver() -> None:
    (gpu,) = parse_gpus(ONE, "")
    assert gpu.uuid == "GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f"
    assert (gpu.name, gpu.memory_mib, gpu.driver) == ("NVIDIA H100 80GB HBM3", 81559, "580.159.04")


def test_eight_gpus_are_found_in_their_order() -> None:
    assert [gpu.uuid[4] for gpu in parse_gpus(EIGHT, EIGHT_LIST)] == list("01234567")


def test_a_divided_gpu_is_replaced_by_its_slices() -> None:
    gpus = parse_gpus(MIG_QUERY, MIG_LIST)
    assert [gpu.uuid[:5] for gpu in gpus] == ["MIG-c", "MIG-c", "GPU-1"]
    assert [gpu.memory_mib for gpu in gpus] == [20480, 5120, 40960]
    assert gpus[0].name == "NVIDIA A100-SXM4-40GB MIG 3g.20gb"


def test_a_memory_that_nvidia_smi_does_not_know_is_no_error() -> None:
    (gpu,) = parse_gpus(ONE.replace("81559", "[N/A]"), "")
    assert gpu.memory_mib == 0


@pytest.mark.parametrize(
    ("visible", "left"),
    [
        ("0", "0"),
        ("3,1", "31"),
        ("GPU-4c89", "4"),
        ("", ""),
        ("-1", ""),
        ("1,-1,2", "1"),
        ("9", ""),
        ("GPU-", ""),
    ],
)
def test_cuda_visible_devices_narrows_the_list_as_cuda_would(visible: str, left: str) -> None:
    gpus = visible_gpus(parse_gpus(EIGHT, EIGHT_LIST), visible)
    assert "".join(gpu.uuid[4] for gpu in gpus) == left


def test_a_machine_without_nvidia_smi_has_no_gpu_and_no_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_gpus({}) == ((), "")


@pytest.mark.parametrize(
    ("answer", "status", "gpus", "problem"),
    [
        (ONE, 0, 1, ""),
        (EIGHT, 0, 8, ""),
        ("No devices were found\n", 6, 0, ""),
        (NO_DRIVER, 9, 0, "nvidia-smi failed: NVIDIA-SMI has failed because it couldn't"),
        ("", 127, 0, "nvidia-smi failed: exit 127"),
    ],
    ids=["one", "eight", "none", "driver error", "silent failure"],
)
def test_the_answers_of_the_program_are_told_apart(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    status: int,
    gpus: int,
    problem: str,
) -> None:
    fake_nvidia_smi(tmp_path, answer, status=status)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found, why = find_gpus({})
    assert len(found) == gpus
    assert why.startswith(problem)
    assert bool(why) == bool(problem)

"""What a check says of the folders that a run would write to, on this machine."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from check_examples import checked, state
from rich.console import Console

from launcher.check_report import print_check
from launcher.check_verdict import judge
from launcher.checked import FAILURE, OK
from launcher.findings_results import result_findings
from launcher.tasks import Options

ASKED = Options("resnet50")


def test_folders_that_can_be_written_are_in_order_and_nothing_is_left_in_them(
    tmp_path: Path,
) -> None:
    (found,) = result_findings(ASKED, 2, tmp_path / "logs", tmp_path / "traces")
    assert (found.mark, found.code, found.nodes) == (OK, "logs", ())
    assert list(tmp_path.iterdir()) == []


def test_folders_that_cannot_be_made_are_a_failure_each_in_the_words_of_a_run(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    logs, traces = result_findings(ASKED, 2, tmp_path / "file/logs", tmp_path / "file/traces")
    assert (logs.mark, logs.code) == (FAILURE, "logs")
    assert f"nothing can be written in {tmp_path}/file: Not a directory" in logs.text
    assert (traces.mark, traces.code) == (FAILURE, "profile")
    assert traces.text.startswith("--profile ")
    assert logs.mend
    assert traces.mend


def test_a_log_that_cannot_be_added_to_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "resnet50_b32.csv").mkdir()
    (found,) = result_findings(ASKED, 2, tmp_path, None)
    assert (found.mark, found.code) == (FAILURE, "logs")
    assert "cannot write" in found.text


@pytest.mark.parametrize("model", ["", "resnet50"])
def test_raw_steps_that_the_disk_has_no_room_for_are_a_failure(tmp_path: Path, model: str) -> None:
    many = replace(ASKED, model=model, measured_steps=10**12)
    (found,) = result_findings(many, 2, tmp_path, None)
    assert found.mark == FAILURE
    assert "MiB free, and what this run writes takes" in found.text


def test_what_is_found_here_fails_the_check_and_is_told_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    here = tuple(result_findings(ASKED, 2, tmp_path / "file" / "logs", None))
    verdict = judge(checked(state(0), state(1)), here)
    assert verdict.would_fail
    assert verdict.findings[0] == here[0]
    said = io.StringIO()
    print_check(Console(file=said, width=80), verdict)
    assert "failure  this machine  --logs" in said.getvalue()

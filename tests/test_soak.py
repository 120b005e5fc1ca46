"""Runs in a row leave nothing over on either side: the short version of benchmarks/soak.py."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "soak.py"


def test_children_are_counted_while_threads_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    soak = importlib.import_module("soak")
    before, done = soak._children(), threading.Event()

    def come_and_go() -> None:
        while not done.is_set():
            threads = [threading.Thread(target=int) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    churn = threading.Thread(target=come_and_go)
    churn.start()
    try:
        with subprocess.Popen(["sleep", "60"]) as child:
            try:
                assert {soak._children() for _ in range(3000)} == {before + 1}
            finally:
                child.kill()
    finally:
        done.set()
        churn.join()


@pytest.mark.network
def test_runs_in_a_row_leave_nothing_over_and_give_the_same_losses() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--runs", "5", "--real", "0"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing leaks, and all runs of a kind have the same losses" in done.stdout


@pytest.mark.network
def test_a_leak_of_either_side_is_found() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--runs", "4", "--real", "0", "--leak"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    for what in ("launcher descriptors", "host files", "host processes"):
        assert f"LEAK OR DIFFERENCE: {what}: " in done.stdout

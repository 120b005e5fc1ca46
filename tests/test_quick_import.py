"""TensorFlow without what a task never uses: quick, and as good as whole."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from perftest.quick_import import without

ROOT = Path(__file__).parent.parent


def test_what_is_unwanted_can_be_imported_again_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unwanted.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with without(["unwanted"]), pytest.raises(ImportError):
        importlib.import_module("unwanted")
    importlib.import_module("unwanted")


def test_what_is_there_already_stays() -> None:
    with without(["pytest"]):
        assert importlib.import_module("pytest") is pytest
    assert sys.modules["pytest"] is pytest


def test_an_error_in_between_blocks_nothing() -> None:
    with pytest.raises(KeyError), without(["no_such_module"]):
        raise KeyError
    assert "no_such_module" not in sys.modules


@pytest.mark.tensorflow
def test_a_server_needs_no_keras_and_a_worker_no_pandas() -> None:
    code = (
        "import sys\n"
        "from perftest.quick_import import FOR_A_SERVER, FOR_A_WORKER, without\n"
        "with without(FOR_A_SERVER):\n"
        "    import perftest.serving\n"
        "assert not {'keras', 'pandas', 'sklearn'} & sys.modules.keys()\n"
        "with without(FOR_A_WORKER):\n"
        "    import perftest.strategies.parameter_server\n"
        "assert not {'pandas', 'sklearn'} & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

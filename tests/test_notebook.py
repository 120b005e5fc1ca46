"""The notebook is executed as it stands, by nbconvert; only its sizes are smaller."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "notebooks" / "hep_cnn.ipynb"
PARAMETERS = f"""
CONFIG = {str(ROOT / "configs" / "hep_cnn_64_cpu.json")!r}
NODES = None
DATA, TRAINED, LOGS = "data", "trained", "logs"
SIZE, SAMPLES = 16, 400
EPOCHS, WORKERS = 1, 1
BATCH, POINTS, STEPS, REPEATS = 4, (1, 2), 20, 1
"""


def small() -> Any:
    """The notebook with other values in its cell of parameters, which all have to be there."""
    import nbformat

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", ())]
    names = re.findall(r"^([A-Z, ]+) =", cell.source, re.MULTILINE)
    assert names == re.findall(r"^([A-Z, ]+) =", PARAMETERS, re.MULTILINE)
    cell.source = PARAMETERS
    return notebook


def texts(notebook: Any) -> str:
    """All that its cells have printed and shown."""
    return json.dumps([cell.get("outputs", []) for cell in notebook.cells], ensure_ascii=False)


@pytest.mark.tensorflow
def test_the_notebook_trains_and_plots_how_it_scales(tmp_path: Path) -> None:
    from nbconvert.preprocessors import ExecutePreprocessor

    notebook = small()
    ExecutePreprocessor(timeout=120).preprocess(notebook, {"metadata": {"path": str(tmp_path)}})
    shown = texts(notebook)
    assert "epoch 1: validation loss" in shown
    assert "image/svg+xml" in shown
    assert "note: few repeats: measured once" in shown
    (metrics,) = (tmp_path / "logs" / "runs").glob("*/metrics.csv")
    assert list(pd.read_csv(metrics)["split"]) == ["train", "validation"]
    log = pd.read_csv(tmp_path / "logs" / "hep_cnn_64_b4.csv")
    assert list(log["gpus"]) == [1, 2]
    assert list(log["strategy"]) == ["single", "all_reduce"]


def test_the_notebook_is_kept_without_what_an_execution_leaves() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    left = [c for c in cells if c["cell_type"] == "code" and (c["outputs"] or c["execution_count"])]
    assert left == []

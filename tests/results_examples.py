"""Rows and raw steps like those of real runs, for the tests of `launcher.results`."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from launcher.results.log import RunRow, append_row, log_path
from launcher.results.log_reading import NUMBERS
from launcher.results.run_folder import RunFolder
from launcher.results.steps import StepRecord, frame
from launcher.results.summary import summarise

ROW = RunRow(
    run_id="r0",
    start_utc="2026-03-01T10:00:00Z",
    model="resnet",
    batch_per_gpu=32,
    nodes=1,
    gpus_per_node=1,
    gpus=1,
    strategy="parameter_server",
    sync=True,
    parameter_servers=1,
    backup_workers=0,
    precision="float32",
    device="gpu",
    gpu_type="Tesla V100",
    machines=1,
    data="synthetic",
    staged_from="memory",
    warmup_steps=10,
    measured_steps=100,
    images_per_sec=320.0,
    mean_time=0.1,
    mean_speed=320.0,
    speed_uncertainty=0.5,
    speed_jitter=4.0,
    p50=0.1,
    p95=0.11,
    max=0.12,
    ci_low=315.0,
    ci_high=325.2,
    ci_method="10 batch means",
    tensorflow="2.21.0",
)


def row(**changes: Any) -> RunRow:
    """A row that differs from the usual one in `changes`."""
    return replace(ROW, **changes)


def raw_steps(
    rng: np.random.Generator,
    *,
    workers: int = 4,
    warmup: int = 10,
    measured: int = 100,
    mean: float = 0.1,
    noise: float = 0.03,
    slow: dict[int, float] | None = None,
) -> list[StepRecord]:
    """Steps of a synchronous run; `slow` maps a worker to how many times longer it computes."""
    own = mean * 0.8 * (1 + noise * rng.standard_normal((measured + warmup, workers)))
    for worker, times in (slow or {}).items():
        own[:, worker] *= times
    whole = own.max(axis=1) + 0.2 * mean
    return [
        StepRecord(
            worker=worker,
            node=f"node{worker // 2}",
            step=step,
            phase="warmup" if step < warmup else "measured",
            seconds=float(whole[step] + 1e-6 * rng.random()),
            compute_seconds=float(own[step, worker]),
            loss=float(6.9 - 0.01 * step),
            global_step=step + 1,
        )
        for worker in range(workers)
        for step in range(warmup + measured)
    ]


def add_run(logs: Path, records: list[StepRecord], **facts: Any) -> RunRow:
    """A run with its folder and its row, as the launcher leaves them."""
    batch = facts.get("batch_per_gpu", ROW.batch_per_gpu)
    summary = summarise(frame(records), batch_per_gpu=batch)
    done = row(**facts, **summary.figures(), measured_steps=summary.steps)
    RunFolder(logs, done.run_id).create().write_steps(records)
    append_row(log_path(logs, done.model, done.batch_per_gpu), done)
    return done


def add_curve(
    logs: Path,
    gpus: list[int],
    *,
    efficiency: float = 0.95,
    repeats: int = 1,
    seed: int = 0,
    per_node: int = 4,
    **facts: Any,
) -> None:
    """Rows, without folders, of a scaling curve that loses a little with each doubling."""
    rng = np.random.default_rng(seed)
    for repeat in range(repeats):
        for n in gpus:
            speed = 320 * n * efficiency ** np.log2(n) * (1 + 0.01 * rng.standard_normal())
            nodes = max(1, n // per_node)
            changes = {
                "run_id": f"c{seed}-{repeat}-{n}",
                "gpus": n,
                "nodes": nodes,
                "machines": nodes,
                "gpus_per_node": min(n, per_node),
                "parameter_servers": nodes,
                "images_per_sec": float(speed),
                "mean_speed": float(speed),
                "mean_time": 32 * n / float(speed),
                "ci_low": float(speed) * 0.97,
                "ci_high": float(speed) / 0.97,
                "repeat": repeat,
            }
            done = row(**changes | facts)
            append_row(log_path(logs, done.model, done.batch_per_gpu), done)


def log_frame(rows: list[RunRow]) -> pd.DataFrame:
    """Rows as `read_log` gives them, without a file."""
    table = pd.DataFrame([asdict(one) for one in rows])
    table["sync"] = table["sync"].map(str)
    return table.astype(dict.fromkeys(NUMBERS, "float64"))

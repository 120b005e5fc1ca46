"""How the readers of the logs bear 10,000 rows and 1,000 runs' raw steps.

Each time is divided by that of Python's csv module passing over the same bytes on the same machine,
so that the figures can be compared between machines; memory is the peak of a process with all of it
divided by that of one with a tenth.

    .venv/bin/python benchmarks/logs_scale.py
"""

from __future__ import annotations

import csv
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from pathlib import Path

import numpy as np

from launcher.results.log import COLUMNS, RunRow
from launcher.results.plot import plot_logs
from launcher.results.steps import StepRecord, read_steps, write_steps
from launcher.results.summary import summarise
from launcher.results.table import collect, results_table, write_results_table

ROWS = 10_000
RUNS = 1_000
WORKERS = 4
STEPS = 110
ROWS_IN_A_LOG = 500
BATCH = 32


def row(number: int, speed: float, gpus: int) -> RunRow:
    """A row like those of real runs."""
    seconds = BATCH * gpus / speed
    return RunRow(
        **{name: "" for name in COLUMNS if name in RunRow.__annotations__}
        | {
            "run_id": f"r{number}",
            "start_utc": f"2026-03-01T10:{number // 60 % 60:02}:{number % 60:02}Z",
            "model": "resnet",
            "batch_per_gpu": BATCH,
            "nodes": max(1, gpus // 4),
            "gpus_per_node": min(4, gpus),
            "gpus": gpus,
            "strategy": "parameter_server",
            "sync": True,
            "parameter_servers": 1,
            "backup_workers": 0,
            "machines": max(1, gpus // 4),
            "warmup_steps": 10,
            "measured_steps": 100,
            "images_per_sec": speed,
            "mean_time": seconds,
            "mean_speed": speed,
            "ci_low": 0.98 * speed,
            "ci_high": 1.02 * speed,
            "ci_method": "10 batch means",
            "repeat": 1,
        }  # type: ignore[arg-type]
    )


def fill_logs(folder: Path, rows: int) -> None:
    """Logs of several models, with `rows` rows in all."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for first in range(0, rows, ROWS_IN_A_LOG):
        with (folder / f"model{first}_b{BATCH}.csv").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for number in range(first, min(first + ROWS_IN_A_LOG, rows)):
                gpus = 2 ** (number % 5)
                one = row(number, 320 * gpus * float(rng.normal(0.95, 0.01)), gpus)
                writer.writerow(asdict(one).values())


def fill_runs(folder: Path, runs: int) -> None:
    """Folders with the raw steps of `runs` runs."""
    rng = np.random.default_rng(1)
    for number in range(runs):
        seconds = rng.gamma(400, 0.1 / 400, (STEPS, WORKERS))
        records = [
            StepRecord(
                worker=worker,
                node=f"node{worker}",
                step=step,
                phase="warmup" if step < STEPS // 11 else "measured",
                seconds=float(seconds[step, worker]),
                compute_seconds=float(0.8 * seconds[step, worker]),
                loss=6.9,
                global_step=step + 1,
            )
            for worker in range(WORKERS)
            for step in range(STEPS)
        ]
        write_steps(folder / f"r{number}" / "steps.csv", records)


def pass_over(folder: Path) -> None:
    """What every reader must do at least: split every line of every CSV into cells."""
    for path in sorted(folder.rglob("*.csv")):
        with path.open(newline="") as file:
            for _ in csv.reader(file):
                pass


def table(folder: Path) -> None:
    """What `runtest table` writes and prints."""
    write_results_table(folder, folder / "out", date(2026, 3, 1))
    results_table(collect(folder))


def summaries(folder: Path) -> None:
    """The figures of every run from its raw steps."""
    for path in folder.rglob("steps.csv"):
        summarise(read_steps(path), batch_per_gpu=BATCH)


def seconds_of(work: Callable[[Path], object], folder: Path) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work(folder)
    return time.perf_counter() - started


def peak_kib(work: Callable[[Path], object], folder: Path) -> int:
    """The peak of the resident memory of a fresh process that does it."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (work, folder))


def _peak(work: Callable[[Path], object], folder: Path) -> int:
    work(folder)  # and not ru_maxrss, which has what started this process in it, too
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])


def main() -> None:
    """Print a line for each reader."""
    with tempfile.TemporaryDirectory() as name:
        logs, few_logs = Path(name, "logs"), Path(name, "few-logs")
        runs, few_runs = Path(name, "runs"), Path(name, "few-runs")
        for folder, rows in ((logs, ROWS), (few_logs, ROWS // 10)):
            fill_logs(folder, rows)
        for folder, count in ((runs, RUNS), (few_runs, RUNS // 10)):
            fill_runs(folder, count)
        cases = (
            ("table", f"{ROWS} rows", table, logs, few_logs),
            ("plot", f"{ROWS} rows", plot_logs, logs, few_logs),
            ("raw steps", f"{RUNS} runs", summaries, runs, few_runs),
        )
        for what, size, work, folder, few in cases:
            passing = seconds_of(pass_over, folder)
            seconds = seconds_of(work, folder)
            memory = peak_kib(work, folder) / peak_kib(work, few)
            print(
                f"{what} of {size}: {seconds:.2f} s, {seconds / passing:.1f} × a pass over the "
                f"same bytes; memory {memory:.2f} × that of a tenth"
            )


if __name__ == "__main__":
    main()

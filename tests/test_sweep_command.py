"""The commands from a sweep to a verdict, with real TensorFlow: scale, all, table, compare."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command import Running, runtest, tasks_here
from hosts import NamespaceHosts
from scipy import stats
from test_runtest import nothing_left, over_ssh

MODELS = {"deepmnist": 8, "hep_cnn_64": 2}
POINTS = (1, 2, 3)
ALL = (
    *("all", "-m", ",".join(f"{model}:{batch}" for model, batch in MODELS.items())),
    *("-g", 2, "-x", 3, "--num-ps", 1, "--repeats", 2, "--steps", 20, "--warmup", 2),
    *("--port-base", 24000),  # apart from whatever else is measured on this machine just now
)
TABLE_LINE = re.compile(
    r" +(?P<workers>\d+) +(?P<shape>\d × \d(?: \+ \d)?) +(?P<runs>\d+) +(?P<speed>[\d.,]+) +"
    r"(?P<reach>[\d.]+)% +(?P<ideal>[\d.,]+) +"
    r"(?:baseline|(?P<share>[\d.]+)% +(?P<low>[\d.]+) to (?P<high>[\d.]+)%) *"
)

Command = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Swept:
    """A sweep that was interrupted, taken up again and ended, and what its second part printed."""

    folder: Path
    rows_when_interrupted: int
    resumed: Command

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def rows(self, model: str) -> pd.DataFrame:
        return pd.read_csv(self.logs / f"{model}_b{MODELS[model]}.csv")

    def step_seconds(self, run_id: str) -> pd.Series:
        """The t_i of a run: the slowest worker's time for each step."""
        steps = pd.read_csv(self.logs / "runs" / run_id / "steps.csv")
        return steps[steps["phase"] == "measured"].groupby("step")["seconds"].max()


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swept]:
    """Two models × three points × two repeats on this machine, cut off after two points."""
    folder = tmp_path_factory.mktemp("sweep")
    argv = [*ALL, "-r", folder / "remote"]
    with Running(*argv, cwd=folder) as running:
        running.wait_for("point 3 of 12: deepmnist, 3 workers, repeat 1 of 2")
        running.send(signal.SIGINT)
        assert running.end(15.0) == 130, running.said
    assert "the same line with --resume measures what is left" in running.said
    assert "Traceback" not in running.said
    kept = len(pd.read_csv(folder / "logs" / "deepmnist_b8.csv"))
    resumed = runtest(*argv, "--resume", cwd=folder, environment={"COLUMNS": "80"})
    assert resumed.returncode == 0, resumed.stderr
    yield Swept(folder, kept, resumed)
    assert tasks_here(str(folder)) == []


pytestmark = pytest.mark.tensorflow


def test_an_interrupted_sweep_keeps_its_rows_and_is_taken_up_where_it_was(swept: Swept) -> None:
    assert swept.rows_when_interrupted == 2
    assert "2 of 12 points are in the logs" in swept.resumed.stderr
    done = swept.rows("deepmnist")
    assert list(zip(done["gpus"], done["repeat"], strict=True)) == [
        (gpus, repeat) for repeat in (1, 2) for gpus in POINTS
    ]
    assert done["sweep_id"].nunique() == 1
    assert set(done["sweep_id"]) == set(swept.rows("hep_cnn_64")["sweep_id"])


def test_only_the_first_run_of_a_sweep_pays_for_connections_and_copies(swept: Swept) -> None:
    # Of twelve runs the first two were one command's, the others another's.
    ids = sorted([*swept.rows("deepmnist")["run_id"], *swept.rows("hep_cnn_64")["run_id"]])
    parts = [
        json.loads((swept.folder / "logs" / "runs" / each / "run.json").read_text())[
            "startup_parts"
        ]
        for each in ids
    ]
    once = {"start", "connect", "copy"}
    assert [place for place, found in enumerate(parts) if once & found.keys()] == [0, 2]
    for found in parts:
        assert {"greet", "plan", "reach", "spawn", "import", "build", "first step"} <= found.keys()


def test_what_is_complete_is_not_measured_again(swept: Swept) -> None:
    again = runtest(*ALL, "--resume", "--json", cwd=swept.folder, seconds=30)
    assert again.returncode == 0, again.stderr
    assert "12 of 12 points are in the logs" in again.stderr
    told = json.loads(again.stdout)
    assert [len(each["points"]) for each in told["models"]] == [3, 3]
    assert told["failures"] == []
    assert len(swept.rows("deepmnist")) == 6


def test_one_worker_is_the_baseline_and_the_last_node_is_uneven(swept: Swept) -> None:
    done = swept.rows("hep_cnn_64").head(3)
    assert done["strategy"].tolist() == ["single", "parameter_server", "parameter_server"]
    assert done["nodes"].tolist() == [1, 1, 2]
    assert done["gpus_per_node"].tolist() == [1, 2, 2]
    assert done["cpus_per_worker"].nunique() == 1, "a worker is the same at every point"


def relative_error(seconds: pd.Series) -> float:
    """Of the mean of a run's step times, by 10 batch means."""
    means = [batch.mean() for batch in np.array_split(seconds.to_numpy(), 10)]
    return float(np.std(means, ddof=1) / np.sqrt(10) / np.mean(seconds))


def test_every_printed_number_of_a_curve_follows_from_the_raw_steps(swept: Swept) -> None:
    lines = [m for line in swept.resumed.stdout.splitlines() if (m := TABLE_LINE.fullmatch(line))]
    assert len(lines) == 6, swept.resumed.stdout
    for place, line in enumerate(lines):
        model = list(MODELS)[place // 3]
        batch = MODELS[model]
        workers = int(line["workers"])
        done = swept.rows(model)
        by_gpus = {}
        for gpus in (1, workers):
            times = [swept.step_seconds(run) for run in done[done["gpus"] == gpus]["run_id"]]
            each = np.array([t.mean() / (gpus * batch) for t in times])  # seconds an image
            errors = np.array([relative_error(t) for t in times]) * each
            degrees = (errors**2).sum() ** 2 / (errors**4 / 9).sum()
            error = np.hypot(*errors) / each.sum()
            by_gpus[gpus] = (1 / each.mean(), error, degrees)
        (one, one_error, one_degrees), (speed, error, degrees) = by_gpus[1], by_gpus[workers]
        assert int(line["runs"]) == 2
        assert printed(line["speed"]) == pytest.approx(speed, abs=0.051, rel=0.005)
        assert printed(line["ideal"]) == pytest.approx(workers * one, abs=0.051, rel=0.005)
        reach = stats.t.ppf(0.975, degrees) * error
        assert printed(line["reach"]) == pytest.approx(100 * reach, abs=0.06)
        if workers > 1:
            share = 100 * speed / (workers * one)
            both = np.hypot(error, one_error)
            free = both**4 / (error**4 / degrees + one_error**4 / one_degrees)
            factor = np.exp(stats.t.ppf(0.975, free) * both)
            assert printed(line["share"]) == pytest.approx(share, abs=0.06)
            assert printed(line["low"]) == pytest.approx(share / factor, abs=0.06)
            assert printed(line["high"]) == pytest.approx(share * factor, abs=0.06)


def printed(text: str) -> float:
    return float(text.replace(",", ""))


def test_what_is_printed_fits_80_columns_and_names_its_files(swept: Swept) -> None:
    lines = swept.resumed.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "log:  logs/deepmnist_b8.csv" in lines
    assert "plot: logs/hep_cnn_64_b2.svg" in lines
    assert "Ideal is images/sec of one worker (single) × workers." in lines
    text = " ".join(swept.resumed.stdout.split())
    for note in ("few repeats: measured 2 times", "processes on one machine"):
        assert note in text
    if len(os.sched_getaffinity(0)) == 2:
        assert "shared processors: 3 workers share 2 processors" in text
    assert "point 12 of 12: hep_cnn_64, 3 workers, repeat 2 of 2" in swept.resumed.stderr


def test_the_table_of_all_runs_follows_from_the_raw_steps(swept: Swept) -> None:
    done = runtest(
        "table", "-o", "t.csv", cwd=swept.folder, seconds=30, environment={"COLUMNS": "80"}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "table: t.csv"
    assert max(map(len, done.stdout.splitlines())) <= 80
    table = pd.read_csv(swept.folder / "t.csv")
    assert len(table) == 12
    for _, row in table.iterrows():
        seconds = swept.step_seconds(row["run_id"])
        speeds = row["num_gpu"] * MODELS[row["model"]] / seconds
        assert row["Mean_Time_Per_Step"] == pytest.approx(seconds.mean())
        assert row["mean_speed"] == pytest.approx(
            row["num_gpu"] * MODELS[row["model"]] / seconds.mean()
        )
        assert row["speed_uncertainty"] == pytest.approx(speeds.std(ddof=0) / len(seconds) ** 0.5)
        jitter = 1.4826 * (speeds - speeds.median()).abs().median()
        assert row["Speed_Jitter"] == pytest.approx(jitter)
        strategy = str(row["strategy"]).replace("_", " ")
        reach = stats.t.ppf(0.975, 9) * relative_error(seconds)
        cells = (
            f"{strategy} +{row['mean_speed']:,.1f} +{reach:.1%} +"
            f"{1000 * row['Mean_Time_Per_Step']:,.1f}"
        )
        assert re.search(cells, done.stdout), cells


def test_a_comparison_follows_from_the_raw_steps(swept: Swept) -> None:
    done = runtest("compare", "logs", "logs", "--json", cwd=swept.folder, seconds=30)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert len(told) == 6
    for one in told:
        facts = one["configuration"]
        rows = swept.rows(facts["model"])
        images = int(facts["gpus"]) * MODELS[facts["model"]]
        runs = rows[rows["gpus"] == int(facts["gpus"])]["run_id"]
        logs = np.log([images / swept.step_seconds(run).mean() for run in runs])
        error = np.hypot(*[logs.std(ddof=1) / np.sqrt(2)] * 2)
        joined = 1 / np.exp(-logs).mean()  # all images over all time
        assert one["images_per_sec_a"] == pytest.approx(joined)
        assert one["ratio"]["value"] == pytest.approx(1)
        assert one["ratio"]["high"] == pytest.approx(np.exp(stats.t.ppf(0.975, 2) * error))
        assert one["verdict"] == "no difference seen"


def test_what_is_slower_fails_where_it_is_asked_to(swept: Swept) -> None:
    slower = swept.folder / "slower"
    slower.mkdir()
    for path in swept.logs.glob("*.csv"):
        table = pd.read_csv(path)
        table[["images_per_sec", "ci_low", "ci_high"]] /= 1e6
        table.to_csv(slower / path.name, index=False)

    def compare(*argv: object) -> Command:
        return runtest("compare", *argv, cwd=swept.folder, seconds=30)

    failed = compare("logs", "slower", "--fail-if-slower", "5%")
    assert failed.returncode == 1
    assert failed.stdout.count("slower") == 6
    assert "B is slower than A by more than 5 %: deepmnist b8, 1 × 1" in failed.stderr
    assert compare("logs", "slower").returncode == 0
    assert compare("slower", "logs", "--fail-if-slower", "5").returncode == 0
    runs = swept.rows("deepmnist")["run_id"].tolist()
    one = compare(runs[0], runs[3], "--fail-if-slower", "0%")
    assert "newest runs: 10 batch means" in " ".join(one.stdout.split())
    unknown = compare("logs", "nothing")
    assert unknown.returncode == 2
    assert "runtest: nothing: there is no such file, folder, or run in logs" in unknown.stderr


@pytest.mark.network
def test_a_sweep_over_ssh_fills_one_host_and_then_the_next(
    hosts: NamespaceHosts, tmp_path: Path
) -> None:
    done = runtest(
        *("scale", "-m", "deepmnist", "-b", 8, "-x", 2, "--baseline", "ps", "--json"),
        *("--steps", 10, "--warmup", 2, *over_ssh(hosts)),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    (told,) = json.loads(done.stdout)["models"]
    assert told["baseline"] == "parameter_server"
    assert [(point["gpus"], point["nodes"]) for point in told["points"]] == [(1, 1), (2, 2)]
    assert 0 < told["points"][1]["efficiency"] < 2
    assert done.stderr.count("opening node0, node1") == 1
    assert nothing_left(hosts, 2.0)


def test_a_point_that_fails_makes_the_exit_status_1(tmp_path: Path) -> None:
    """keras:NAME is looked up on the nodes, so that the launcher cannot refuse it."""
    done = runtest(
        *("scale", "-m", "keras:NoSuchNet", "-x", 1, "--repeats", 2), cwd=tmp_path, seconds=60
    )
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("runtest: ")]
    assert errors[0].endswith("nothing was measured of keras:NoSuchNet, batch 32")
    assert [line.partition(": ")[2][:35] for line in errors[1:3]] == [
        "keras:NoSuchNet, 1 GPU, repeat 1: l",
        "keras:NoSuchNet, 1 GPU, repeat 2: l",
    ]
    assert "2 points failed; the same line with --resume measures them again" in errors[3]
    folder = re.search(r"worker-0.log in (logs/runs/\S+)", errors[1])
    assert folder is not None
    assert (tmp_path / folder[1] / "worker-0.log").exists()


def test_a_dry_run_prints_each_point_and_leaves_nothing(tmp_path: Path) -> None:
    done = runtest(*ALL, "--dry-run", cwd=tmp_path, seconds=30)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "hep_cnn_64, 2 images per worker and step, 2 + 20 steps, fp32, on cpu, 2 times" in text
    assert re.search(r"3 parameter server 127.0.0.1:24\d{3} 2 on local0, 1 on local1", text)
    assert "2 on local0, 1 on local1" in text
    assert "nothing was started" in text
    assert list(tmp_path.iterdir()) == []
    told = json.loads(runtest(*ALL, "--dry-run", "--json", cwd=tmp_path).stdout)
    assert [point["gpus"] for point in told["points"]] == [1, 2, 3, 1, 2, 3]


MISTAKES = {
    "neither -x nor points": (["scale", "-m", "resnet"], "one of -x and --points is needed"),
    "both": (["scale", "-m", "resnet", "-x", "2", "--points", "1"], "one of -x and --points"),
    "a bad point": (["scale", "-m", "resnet", "--points", "1,x"], "--points: 'x' is no number"),
    "a bad item": (["all", "-m", "resnet:32,alexnet", "-x", "2"], "-m: 'alexnet' is not MODEL:"),
    "no such model": (["all", "-m", "resnet:32,alexnot:1", "-x", "2"], "'alexnot' is not a model"),
    "too few nodes": (
        ["scale", "-m", "resnet", "-h", "nodes", "-g", "2", "-x", "6"],
        "6 GPUs with -g 2 a node need 3 nodes, but nodes lists 2. Try: -x 4, or more nodes",
    ),
    "-n too small": (["scale", "-m", "resnet", "-n", "1", "-x", "2"], "need 2 nodes, but -n 1"),
    "single": (
        ["scale", "-m", "resnet", "--strategy", "single", "-x", "2"],
        "--strategy single is one process, not 2",
    ),
    "no logs": (["table", "nowhere"], "nowhere: there is no such folder"),
    "nothing to compare": (["compare", "a", "b"], "a: there is no such file, folder, or run"),
}


@pytest.mark.parametrize("case", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_told_before_anything_starts(
    tmp_path: Path, case: tuple[list[str], str]
) -> None:
    argv, says = case
    (tmp_path / "nodes").write_text("a.example.com a\nb.example.com b\n")
    done = runtest(*argv, cwd=tmp_path, seconds=30)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"runtest: {says}") or says in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert os.listdir(tmp_path) == ["nodes"]


def test_a_log_of_older_scripts_can_be_tabled_and_compared(tmp_path: Path) -> None:
    for name, speeds in (("a", (100, 190)), ("b", (100, 195))):
        (tmp_path / name).mkdir()
        lines = (f"{gpus},{speed}\n" for gpus, speed in zip((1, 2), speeds, strict=True))
        (tmp_path / name / "resnet_b32.csv").write_text("".join(lines))
    for argv in (["table", "a"], ["compare", "a", "b"]):
        done = runtest(*argv, cwd=tmp_path, seconds=30)
        assert done.returncode == 0, done.stderr
        assert "resnet" in done.stdout
    assert len(list((tmp_path / "a").glob("*:TF_PERFORMANCE_RESULTS.csv"))) == 1


def test_help_of_every_command_fits_80_columns(tmp_path: Path) -> None:
    for command in ("scale", "all", "plot", "table", "compare"):
        done = runtest(command, "--help", cwd=tmp_path, seconds=30)
        assert done.returncode == 0
        assert max(map(len, done.stdout.splitlines())) <= 80

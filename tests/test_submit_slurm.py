"""`runtest submit`, `status` and `table` with a real Slurm of three nodes, and real TensorFlow."""

from __future__ import annotations

import csv
import json
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from command import runtest
from faults import SMALL
from slurm import SlurmCluster
from test_slurm import assert_nothing_left

pytestmark = pytest.mark.slurm

HOSTILE = "a 'b' \"c\" $(touch made);%j #é"


@pytest.fixture
def folder(slurm: SlurmCluster, tmp_path: Path) -> Iterator[Path]:
    """A folder that all nodes see, where the jobs' logs go; the jobs are over at the end."""
    made = slurm.folder / tmp_path.name
    made.mkdir()
    yield made
    slurm.run("scancel", "--user=root")
    slurm.wait_for("no job is left", lambda: not slurm.run("squeue", "-h").stdout)


class Submitter:
    """runtest on the login node."""

    def __init__(self, slurm: SlurmCluster, folder: Path) -> None:
        self.slurm, self.folder = slurm, folder

    def __call__(self, *argv: object) -> subprocess.CompletedProcess[str]:
        done = runtest(*argv, cwd=self.folder, environment=self.slurm.environment)
        assert "Traceback" not in done.stderr
        return done

    def submit(self, *argv: object) -> list[str]:
        """The ids of the jobs that it says it has submitted."""
        done = self("submit", "-m", "deepmnist", *argv)
        assert done.returncode == 0, done.stderr
        return [line.split()[2].rstrip(":") for line in done.stdout.splitlines()]

    def states(self, *logs: object) -> dict[str, str]:
        """State and reason of each job, by its id."""
        said = json.loads(self("status", *logs, "--json").stdout)
        return {job["job"]: f"{job['state']}: {job['why']}" for job in said["jobs"]}

    def wait_until_over(self, seconds: float = 30.0) -> None:
        live = ["squeue", "-h"]
        self.slurm.wait_for("all are over", lambda: not self.slurm.run(*live).stdout, seconds)


@pytest.fixture
def command(slurm: SlurmCluster, folder: Path) -> Submitter:
    return Submitter(slurm, folder)


@pytest.mark.tensorflow
def test_a_matrix_of_two_by_two_ends_in_one_table(command: Submitter, folder: Path) -> None:
    (folder / "lines").write_text("export SAID=from-the-prologue\necho $SAID\n")
    matrix = ("--gpu-type", "k80,p100", "--gpus", "1,2", "--staged-from", "local=/tmp/x")
    options = (*SMALL[2:], "--strategy", "all_reduce", "--device", "cpu")
    ids = command.submit(*options, *matrix, "--time", 5, "--prologue", "lines")
    assert len(set(ids)) == 4
    command.wait_until_over(120)
    assert command.states() == dict.fromkeys(ids, "finished: ")
    done = command("table")
    assert "has not finished" not in done.stderr
    (path,) = (folder / "logs").glob("*:TF_PERFORMANCE_RESULTS.csv")
    with path.open() as file:
        rows = {row["job"]: row for row in csv.DictReader(file)}
    today = datetime.now().astimezone().date()
    names = [f"{today}-{kind}:{gpus}:local" for kind in ("k80", "p100") for gpus in (1, 2)]
    assert sorted(rows) == names
    for name, row in rows.items():
        assert name.split(":")[1:] == [row["num_gpu"], row["staged_from"]]
        job = folder / "logs" / "jobs" / name
        assert "from-the-prologue" in (job / "output").read_text()
        (record,) = (job / "runs").glob("*/run.json")
        (node,) = json.loads(record.read_text())["plan"]["nodes"]
        # Without GPUs the type is a feature of the nodes.
        assert (node["alias"] == "node0") == ("k80" in name)
        assert stat.S_IMODE((job / "job.sh").stat().st_mode) == 0o700
    assert_nothing_left(command.slurm)


@pytest.mark.tensorflow
def test_a_job_that_is_cancelled_in_mid_run_leaves_nothing_and_the_table_says_so(
    command: Submitter, folder: Path, slurm: SlurmCluster
) -> None:
    endless = ("-b", 4, "--steps", 1_000_000, "--strategy", "all_reduce", "--device", "cpu")
    (job,) = command.submit(*endless, "-n", 2, "-r", "/tmp/x")
    (output,) = [folder / "logs" / "jobs" / p.name for p in (folder / "logs" / "jobs").iterdir()]
    measuring = "all workers: measuring"
    said = output / "output"
    slurm.wait_for(measuring, lambda: said.exists() and measuring in said.read_text(), 120)
    assert command.states()[job].startswith("running")
    slurm.run("scancel", job)
    command.wait_until_over()
    assert_nothing_left(slurm)
    assert command.states()[job] == "cancelled: "
    table = command("table")
    assert f"job {job}, {output.name}, has not finished: cancelled" in table.stderr
    assert table.returncode == 2  # there is no log at all
    assert "Traceback" not in said.read_text()


def test_jobs_wait_for_each_other_and_earlier_results_of_their_name_are_archived(
    command: Submitter, folder: Path, slurm: SlurmCluster
) -> None:
    matrix = ("--gpus", "1,2", "--device", "cpu", "--serial", "--sbatch-option=--hold")
    first, second = command.submit(*matrix)
    assert f"afterany:{first}" in slurm.run("scontrol", "show", "job", second).stdout
    assert {state.split(":")[0] for state in command.states().values()} == {"pending"}
    again = command("submit", "-m", "deepmnist", *matrix)
    assert again.returncode == 2
    assert f"job {first} is called" in again.stderr
    slurm.run("scancel", first, second)
    command.wait_until_over()
    assert set(command.states().values()) == {"cancelled: "}
    jobs = folder / "logs" / "jobs"
    before = {path.name: (path / "job.json").read_bytes() for path in jobs.iterdir()}
    refused = command("submit", "-m", "deepmnist", *matrix, "--partition", "nowhere")
    assert refused.returncode == 2
    assert "sbatch refuses the job: invalid partition specified: nowhere" in refused.stderr
    assert ". Try: one that sinfo lists" in refused.stderr
    assert {path.name: (path / "job.json").read_bytes() for path in jobs.iterdir()} == before
    assert len(command.submit(*matrix)) == 2
    archive = folder / "logs" / "archive"
    assert {path.name: (path / "job.json").read_bytes() for path in archive.iterdir()} == before
    assert len(command.states()) == 2


def test_a_job_that_fails_says_why_also_when_slurm_has_forgotten_it(
    command: Submitter, folder: Path, slurm: SlurmCluster
) -> None:
    # Slurm counts GPUs on these nodes, and a driver there is none: Slurm takes the job, we do not.
    logs = folder / HOSTILE
    asked = ("--logs", logs, "--gpu-type", "k80", f"--sbatch-option=--comment={HOSTILE}")
    (job,) = command.submit(*asked, "--gpus", 3, "--time", "0:05:00")
    shown = slurm.run("scontrol", "show", "job", job).stdout
    assert f"Comment={HOSTILE}" in shown
    assert "gres:gpu:k80:3" in shown.replace("gres/", "gres:")
    command.wait_until_over(60)
    why = "failed: -g 3 GPUs are asked for on each node: node0 (Slurm job"
    assert command.states(logs)[job].startswith(why)
    nowhere = {**slurm.environment, "PATH": "/nowhere"}
    table = runtest("table", logs, cwd=folder, environment=nowhere)
    assert why in table.stderr
    assert "there is no squeue on PATH" in table.stderr
    assert [path.name for path in folder.iterdir()] == [HOSTILE]


def test_logs_that_the_nodes_do_not_see_are_told(command: Submitter) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as logs:  # which is each node's own
        (job,) = command.submit("--device", "cpu", "--logs", logs)
        command.wait_until_over(60)
        (folder,) = Path(logs, "jobs").iterdir()
        why = f"failed: JobLaunchFailure; nothing was written: do the nodes see {folder}?"
        assert command.states(logs)[job] == why


def test_what_slurm_cannot_give_is_refused_before_anything_is_kept(
    command: Submitter, folder: Path, slurm: SlurmCluster
) -> None:
    for asked, words in (
        (("--gpu-type", "v100"), "Requested node configuration is not available"),
        (("--device", "cpu", "--constraint", "none"), "Invalid feature specification"),
        (("--sbatch-option=--bogus",), "unrecognized option '--bogus'"),
    ):
        done = command("submit", "-m", "deepmnist", *asked)
        assert done.returncode == 2, done.stderr
        assert f"sbatch refuses the job: {words}" in done.stderr
    # The first of a matrix is submitted when the second is refused.
    done = command("submit", "-m", "deepmnist", "--gpu-type", "k80,v100")
    assert done.returncode == 1
    assert "v100:1:none and all after it were not submitted" in done.stderr
    (job,) = command.states()
    assert f"scancel {job} ends those that were" in done.stderr

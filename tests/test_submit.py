"""`runtest submit` as far as it goes without Slurm: names, scripts, what is refused, states."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import click
import pytest
from command import runtest

from launcher.cli import run
from launcher.cli_submit import make_submit
from launcher.cli_sweep import scale
from launcher.cli_typed import as_typed
from launcher.errors import UsageError
from launcher.jobs.matrix import Place, make_matrix
from launcher.jobs.record import Job, JobFolder, write_end
from launcher.jobs.request import Request, check_request, with_devices
from launcher.jobs.script import Script, check_prologue, in_place, quoted
from launcher.jobs.states import Heard, standing

SUBMIT = make_submit(run, scale)
HOSTILE = ["a b", "$(touch made)", "`touch made`", "';touch made;'", '"', "\\", "*", "~", "#x", "é"]


# --- names -------------------------------------------------------------------------------------


def test_outputs_are_named_as_the_older_scripts_named_them() -> None:
    matrix = make_matrix("k80,p100", "1,2,4", "scratch,local")
    names = [each.name(date(2018, 6, 4), "gpu", 1) for each in matrix]
    assert len(set(names)) == len(names) == 12
    assert names[0] == "2018-06-04-k80:1:scratch"
    assert "2018-06-04-k80:1:local" in names
    assert names[-1] == "2018-06-04-p100:4:local"


def test_what_is_listed_twice_is_submitted_once() -> None:
    assert len(make_matrix("k80,k80", "2, 2", "")) == 1


def test_what_a_matrix_leaves_open_has_a_name_too() -> None:
    (one,) = make_matrix("", "2", "")
    assert one.name(date(2026, 1, 2), "cpu", 7) == "2026-01-02-cpu:2:none"


WRONG_LISTS = {
    "a type with a blank": ("k 80", "", "", "is not the name of a type"),
    "a type that is a path": ("../x", "", "", "is not the name of a type"),
    "an empty word": ("k80,", "", "", "is not the name of a type"),
    "no GPU": ("", "1,0", "", "is no number of GPUs"),
    "a number of marks": ("", "1;2", "", "is no number of GPUs"),
    "a name of marks": ("", "", "$x", "is neither NAME nor NAME=DIR"),
    "a relative directory": ("", "", "x=y/z", "is no path that means the same"),
    "one name twice": ("", "", "x=/a,x=/b", "has one name for two directories"),
    "too many": ("", ",".join(map(str, range(1, 1002))), "", "a matrix of 1,001 jobs"),
}


@pytest.mark.parametrize("lists", WRONG_LISTS.values(), ids=WRONG_LISTS)
def test_a_list_that_is_none_is_refused(lists: tuple[str, str, str, str]) -> None:
    *given, words = lists
    with pytest.raises(UsageError, match=words):
        make_matrix(*given)


# --- the script --------------------------------------------------------------------------------


def script(tmp_path: Path, *command: str, prologue: str = "", name: str = "job") -> Script:
    folder = tmp_path / name
    folder.mkdir()
    words = ("runtest", "submit", *HOSTILE, "\n touch made")
    return Script("name", folder, folder, Request(1), prologue, command, words)


def run_script(script: Script, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash"],
        input=script.text(),
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("name", HOSTILE)
def test_what_was_typed_is_data_to_the_shell(tmp_path: Path, name: str) -> None:
    made = script(tmp_path, quoted("printf", "%s\n", *HOSTILE), name=f"job {name}")
    done = run_script(made, tmp_path)
    assert done.stdout.splitlines() == HOSTILE, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [f"job {name}"]


def test_the_prologue_runs_before_the_command_and_sets_its_environment(tmp_path: Path) -> None:
    made = script(tmp_path, quoted("printenv", "HERE"), prologue="HERE=there; export HERE\n")
    assert run_script(made, tmp_path).stdout == "there\n"


ENDS_EARLY = {
    "the prologue leaves": ("exit 7\n", "true", 7),
    "the command is not there": ("", "/nowhere/runtest", 127),
    "$LOCAL is not set": ("", f"true {in_place('-r', Place('local'))}", 1),
}


@pytest.mark.parametrize("case", ENDS_EARLY.values(), ids=ENDS_EARLY)
def test_a_job_that_never_comes_to_runtest_says_so(
    tmp_path: Path, case: tuple[str, str, int]
) -> None:
    prologue, command, status = case
    made = script(tmp_path, command, prologue=prologue)
    assert run_script(made, tmp_path).returncode == status
    end = JobFolder(made.folder).end()
    assert end is not None
    assert end.status == status


def test_a_directory_that_only_the_job_knows_is_one_word_whatever_it_is(tmp_path: Path) -> None:
    words = f"printf '%s\\n' {in_place('-r', Place('local'))}"
    done = run_script(script(tmp_path, words), tmp_path, LOCAL="/a b;touch made")
    assert done.stdout.splitlines() == ["-r", "/a b;touch made"]


def test_lines_of_a_prologue_that_would_not_do_what_they_say_are_refused() -> None:
    with pytest.raises(UsageError, match="as on Windows"):
        check_prologue("module load x\r\n")
    with pytest.raises(UsageError, match="lines with #SBATCH"):
        check_prologue("module load x\n#SBATCH --mem=3\n")


WRONG_OPTIONS = ["--array=1-3", "--arr=1-3", "-a1-3", "-o", "--output=x", "-Jx", "mem=3", "--a=\n"]


@pytest.mark.parametrize("option", WRONG_OPTIONS)
def test_options_of_sbatch_that_would_hide_the_job_are_refused(option: str) -> None:
    with pytest.raises(UsageError):
        check_request(Request(1, extra=(option,)))
    check_request(Request(1, extra=("--mem=3", "-xnode7", "--exclusive", "--acctg-freq=0")))


def test_gpus_are_asked_for_by_type_and_nodes_without_them_by_their_feature() -> None:
    assert with_devices(Request(1), "gpu", "k80", 2).options() == ["--nodes=1", "--gres=gpu:k80:2"]
    cpu = with_devices(Request(1, constraint="ib"), "cpu", "haswell", 2).options()
    assert cpu == ["--nodes=1", "--constraint=ib&haswell", "--cpus-per-task=2"]
    own = with_devices(Request(1, extra=("--gpus=3",)), "auto", "", 2).options()
    assert own == ["--nodes=1", "--gpus=3"]
    with pytest.raises(UsageError, match="two answers"):
        with_devices(Request(1, extra=("--gpus=3",)), "auto", "k80", 2)


# --- options -----------------------------------------------------------------------------------


def other_than_default(option: click.Option) -> list[str]:
    """Words that give the option a value that it does not have by itself."""
    if option.is_flag:
        return [(option.secondary_opts or option.opts)[-1]]
    if isinstance(option.type, click.Choice):
        (*_, last) = (each for each in option.type.choices if each != option.default)
        return [option.opts[-1], last]
    if isinstance(option.type, (click.IntRange, click.FloatRange)):
        return [option.opts[-1], "2000"]
    return [option.opts[-1], "/a path/of $HOME"]


def options_of(command: click.Command) -> Iterator[click.Option]:
    left_out = ("nodes_file", "dry_run")
    for option in command.params:
        if isinstance(option, click.Option) and option.name not in left_out:
            yield option


@pytest.mark.parametrize("command", [run, scale], ids=lambda command: command.name)
def test_every_option_of_the_command_reaches_it_in_the_job(
    command: click.Command, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for option in options_of(command):
        words = other_than_default(option)
        if option.name == "ssh_config":
            words[1] = str(tmp_path / "file")
        needed = [] if option.name == "model" else ["-m", "deepmnist"]
        with SUBMIT.commands[command.name or ""].make_context("x", [*words, *needed]) as ctx:
            passed = [word for each in as_typed(ctx, command, set()) for word in each]
            with command.make_context("y", passed) as there:
                assert there.params[option.name or ""] == ctx.params[option.name or ""]
                assert there.params[option.name or ""] != option.get_default(ctx), option.name


# --- the command -------------------------------------------------------------------------------

WRONG = {
    "no model": (["-m", "resnet5"], "'resnet5' is not a model"),
    "two answers": (["--gpus", "1", "-g", "2"], "--gpus and -g are two answers"),
    "fewer nodes than used": (["-n", "3", "--nodes", "2"], "--nodes 2 are fewer than are used, 3"),
    "a contradiction": (["--gpus", "2", "--strategy", "single"], "is one process, not 1 × 2"),
    "relative data": (["--data", "mnist:x"], "is relative"),
    "a folder with a backslash": (["--logs", "a\\b"], "Slurm writes nothing below"),
    "no lines of bash": (["--prologue", "open"], "bash cannot read it: bash: line"),
    "no sbatch": ([], "there is no sbatch on PATH"),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_a_mistake_is_told_and_leaves_nothing(tmp_path: Path, case: tuple[list[str], str]) -> None:
    argv, words = case
    (tmp_path / "open").write_text("if true; then\n")
    path = {"PATH": "/bin" if "--prologue" in argv else "/nowhere"}
    done = runtest("submit", "-m", "deepmnist", *argv, cwd=tmp_path, environment=path)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert words in line
    assert [path.name for path in tmp_path.iterdir() if path.name != "logs"] == ["open"]
    assert not list(tmp_path.glob("logs/*"))


def test_dry_run_prints_the_scripts_and_needs_no_slurm(tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("module load cuda\n")
    matrix = ("--gpu-type", "k80,p100", "--gpus", "1,2", "--staged-from", "local")
    job = ("--partition", "gpu", "--account", "me", "--time", "30", "--prologue", "lines")
    argv = ("submit", "scale", "-m", "deepmnist", "-x", "4", *matrix, *job, "--dry-run")
    done = runtest(*argv, cwd=tmp_path, environment={"PATH": "/nowhere"})
    assert done.returncode == 0, done.stderr
    *_, last = done.stdout.split("#!/bin/bash\n")
    assert done.stdout.count("#!/bin/bash\n") == 4
    for line in (
        "#SBATCH --partition=gpu",
        "#SBATCH --account=me",
        "#SBATCH --time=30",
        "#SBATCH --nodes=2",
        "#SBATCH --gres=gpu:p100:2",
        "module load cuda",
        "    -x 4 \\",
    ):
        assert f"\n{line}\n" in last
    assert '"${LOCAL:?' in last
    assert [path.name for path in tmp_path.iterdir()] == ["lines"]


# --- states ------------------------------------------------------------------------------------

SLURM_SAID = "slurmstepd-n0: error: *** JOB 7 ON n0 CANCELLED AT 2026-01-01T00:00:00{} ***\n"
STATES = [
    (Heard("PENDING", "Dependency"), None, "", "pending: Dependency"),
    (Heard("RUNNING", "None"), None, "", "running"),
    (Heard("COMPLETED"), (0, ""), "", "finished"),
    (Heard("CANCELLED"), (130, "interrupted"), "", "cancelled"),
    (Heard("TIMEOUT"), (130, "interrupted"), "", "out of time: more --time"),
    (Heard("FAILED"), (1, "a: why. Try: b"), "", "failed: a: why. Try: b"),
    (Heard("FAILED"), (3, ""), "", "failed: exit status 3; "),
    (Heard("NODE_FAIL"), None, "", "failed: a node failed"),
    (Heard("OUT_OF_MEMORY"), None, "", "failed: its memory is used up"),
    (Heard("NEWSTATE"), None, "", "unknown: Slurm calls it NEWSTATE"),
    (None, (0, ""), "", "finished"),
    (None, (1, "why"), "", "failed: why"),
    (None, (130, "interrupted"), SLURM_SAID.format(""), "cancelled"),
    (None, (130, "interrupted"), SLURM_SAID.format(" DUE TO TIME LIMIT"), "out of time"),
    (None, None, SLURM_SAID.format(" DUE TO PREEMPTION"), "cancelled: preemption"),
    (None, None, "", "unknown: Slurm does not know it any more"),
]


@pytest.mark.parametrize(("heard", "end", "output", "expected"), STATES)
def test_a_job_stands_as_slurm_says_and_else_as_it_says_itself(
    tmp_path: Path, heard: Heard | None, end: tuple[int, str] | None, output: str, expected: str
) -> None:
    folder = JobFolder(tmp_path)
    folder.output.write_text(output)
    if end:
        write_end(tmp_path / "ended.json", *end)
    assert str(standing(heard, folder)).startswith(expected)


def test_what_squeue_has_forgotten_is_asked_of_the_database(tmp_path: Path) -> None:
    for number, name in enumerate(("mine", "of-somebody-else")):
        folder = JobFolder(tmp_path / "logs" / "jobs" / name)
        folder.create("")
        folder.write(Job(str(number), name, "2026-01-01T00:00:00Z", ()))
    # No database is here: what its program would print, and squeue once it has forgotten both.
    for program, does in (
        ("squeue", "echo slurm_load_jobs error: Invalid job id specified >&2; exit 1"),
        ("sacct", "echo '0|CANCELLED by 0|0:0|mine'; echo '1|COMPLETED|0:0|other'"),
    ):
        (tmp_path / program).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / program).chmod(0o755)
    done = runtest("status", "--json", cwd=tmp_path, environment={"PATH": str(tmp_path)})
    assert done.stderr == ""
    states = [job["state"] for job in json.loads(done.stdout)["jobs"]]
    assert states == ["cancelled", "unknown"]


BROKEN = ["", "[]", '{"id": 3}', '{"argv": "x", "id": 1, "name": 2, "submitted": 3}', "[" * 9999]


@pytest.mark.parametrize("text", BROKEN)
def test_a_record_that_is_none_is_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "jobs" / "x").mkdir(parents=True)
    for name in ("job.json", "ended.json"):
        (tmp_path / "jobs" / "x" / name).write_text(text)
    assert JobFolder(tmp_path / "jobs" / "x").end() is None
    done = runtest("status", tmp_path, "--json", cwd=tmp_path)
    assert json.loads(done.stdout) == {"jobs": []}

"""What a person types wrong gets one clear line, exit status 2, and starts nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from command import runtest

NODES = "a.example.com a\nb.example.com b\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nodes").write_text(NODES)
    (tmp_path / "twice").write_text("a.example.com a\na.example.com b\n")
    (tmp_path / "alias").write_text("# machines\na.example.com\n")
    (tmp_path / "key").write_text("a.example.com a cores=3\n")
    (tmp_path / "config").write_text("Host *\n")
    return tmp_path


WRONG = {
    "fewer nodes than asked for": (
        ["-m", "resnet", "-h", "nodes", "-n", "3"],
        "runtest: nodes file nodes: lists 2 machines, the last in nodes, line 2, but -n asks for 3"
        ". Try: -n 2, or add machines",
    ),
    "a host twice": (
        ["-m", "resnet", "-h", "twice"],
        "runtest: twice, line 2: hostname 'a.example.com' is listed twice (first on line 1)",
    ),
    "no alias": (
        ["-m", "resnet", "-h", "alias"],
        "runtest: alias, line 2: no ssh alias after 'a.example.com'",
    ),
    "an unknown key": (
        ["-m", "resnet", "-h", "key"],
        "runtest: key, line 1: unknown key 'cores=3'",
    ),
    "no such file": (["-m", "resnet", "-h", "none"], "runtest: nodes file none: No such file"),
    "a model that is none": (["-m", "resnet5"], "runtest: 'resnet5' is not a model. Did you mean"),
    "a model that is a path": (["-m", "../../etc/passwd"], "runtest: -m '../../etc/passwd' is not"),
    "a model with escapes": (
        ["-m", "\x1b[2J"],
        "runtest: -m '\\x1b[2J' is not the name of a model",
    ),
    "a keras network that is none": (["-m", "keras:;id"], "runtest: -m 'keras:;id' is not"),
    "single with several": (
        ["-m", "resnet50", "--strategy", "single", "-g", "2"],
        "runtest: --strategy single is one process, not 1 × 2. Try: -n 1 -g 1, or another",
    ),
    "a directory with a line break": (
        ["-m", "resnet", "-r", "/tmp/a\nb"],
        "runtest: -r '/tmp/a\\nb' has characters that do not print",
    ),
    "logs that cannot be": (
        ["-m", "resnet50", "--logs", "nodes/logs"],
        "runtest: --logs nodes/logs: nothing can be written in ",
    ),
    "logs of a sweep that cannot be": (
        ["scale", "-m", "resnet50", "-x", "2", "--logs", "nodes/logs"],
        "runtest: --logs nodes/logs: nothing can be written in ",
    ),
    "no learning rate": (
        ["-m", "resnet50", "--learning-rate", "nan"],
        "runtest: --learning-rate nan is not a number. Try: 0.01",
    ),
    "fewer steps than workers": (
        ["-m", "resnet50", "-g", "4", "--async", "--steps", "3"],
        "runtest: --steps 3 is too few for 4 workers that do not step together",
    ),
    "GPUs that are not here": (
        ["-m", "resnet", "--device", "gpu", "-g", "2"],
        "runtest: -g 2 GPUs are asked for on each node: local0 has 0. Try: --device cpu",
    ),
    "data of nobody": (
        ["-m", "deepmnist", "--data", "mnist:~no-such-user/mnist"],
        "runtest: --data '~no-such-user/mnist' begins with the name of a user without a home here",
    ),
    "a command that is none": (
        ["trian", "--config", "c.json"],
        "runtest: 'trian' is not a command. Try: runtest train",
    ),
    "logs that are not there": (["plot", "nowhere"], "runtest: nowhere: "),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG.keys())
def test_a_mistake_gets_one_line_and_exit_status_2(
    folder: Path, case: tuple[list[str], str]
) -> None:
    argv, says = case
    before = sorted(os.listdir(folder))
    done = runtest(*argv, cwd=folder, environment={"PATH": os.environ["PATH"]}, seconds=30)
    errors = [line for line in done.stderr.splitlines() if not re.match(r"\d\d:\d\d:\d\d ", line)]
    assert done.returncode == 2, done.stderr
    assert len(errors) == 1, errors
    assert errors[0].startswith(says), errors[0]
    assert errors[0].isprintable()
    assert done.stdout == ""
    assert sorted(os.listdir(folder)) == before


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["-m"],
        ["-m", "resnet", "-n", "0"],
        ["-m", "resnet", "-b", "many"],
        ["-m", "resnet", "--strategy", "magic"],
        ["-m", "resnet", "--port-base", "80"],
        ["-m", "resnet", "--no-such-option"],
        ["-m", "resnet", "--ssh-config", "no-such-file"],
    ],
    ids=" ".join,
)
def test_wrong_options_exit_with_2_and_a_hint(folder: Path, argv: list[str]) -> None:
    done = runtest(*argv, cwd=folder, seconds=30)
    assert done.returncode == 2
    assert re.search("^(Error|Usage): ", done.stderr, re.MULTILINE)
    assert "Traceback" not in done.stderr


def test_help_shows_every_option_with_its_default(folder: Path) -> None:
    for argv in (["--help"], ["run", "--help"]):
        done = runtest(*argv, cwd=folder, seconds=30)
        assert done.returncode == 0
        text = " ".join(done.stdout.split())
        for option in (
            "-m, --model",
            "-h, --nodes",
            "-r, --remote-dir",
            "-n, --num-nodes",
            "-g, --gpus-per-node",
            "-b, --batch-size",
            "--ssh-config",
            "--python",
            "--num-ps",
            "--backup-workers",
            "--async",
            "--steps",
            "--warmup",
            "--device",
            "--port-base",
            "--dry-run",
            "--json",
        ):
            assert option in text
        assert text.count("default:") >= 14
        assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_version_is_told(folder: Path) -> None:
    assert runtest("--version", cwd=folder, seconds=30).stdout.startswith("runtest, version ")

"""A target about what is typed: options become those of a run, or are refused in words."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from unittest.mock import patch

import click

from fuzz.bounds import refusing
from launcher import cli_options
from launcher.cli import run
from launcher.cli_check import check
from launcher.cli_shared import check_model
from launcher.errors import UsageError
from launcher.plan import check_options

_PATHS = ("--binding-file", "--ssh-config")


def options(data: bytes) -> None:
    """Words become the options of `run` and of `check`, as far as that opens nothing."""
    words = [os.fsdecode(word) for word in data.replace(b"\0", b"").split(b"\f")]
    if any(word.startswith(_PATHS) for word in words):
        return  # a file is read, /dev/stdin if that is typed
    for command in (run, check):
        with contextlib.suppress(click.ClickException, click.exceptions.Exit):
            with contextlib.redirect_stdout(io.StringIO()):
                values = dict(command.make_context("runtest", list(words)).params)
            with refusing(UsageError):
                asked = cli_options.make_options(
                    values.pop("model"), values.pop("batch_size"), values
                )
                check_options(asked, values["num_nodes"] or 1)
                assert asked.stall_seconds >= 1
                cli_options.make_where(values, values["num_nodes"])


def model(data: bytes) -> None:
    """A name of a model is asked for in a process of its own as one word, or refused."""
    name = os.fsdecode(data.replace(b"\0", b""))
    asked: list[list[str]] = []

    def no_process(argv: list[str], **_: object) -> object:
        asked.append(argv)
        raise UsageError("asked")

    with patch("subprocess.run", no_process), refusing(UsageError):
        check_model(name)
    for argv in asked:
        assert argv[-1] == name
        assert name.isascii()
        assert not set(name) & set(" /\\;&|$`'\"<>()*?~\n")
        assert not name.startswith("-")


TARGETS: tuple[Callable[[bytes], None], ...] = (options, model)

SEEDS: dict[str, tuple[bytes, ...]] = {
    "options": (
        b"-m\fresnet50\f-b\f32\f-g\f2\f--num-ps\f2\f--steps\f10\f--data\fhdf5:/data\f-n\f4",
        b"-m\fx\f--strategy\fall_reduce\f--communication\fring\f--binding\fknl\f--device\fcpu",
        b"-m\fx\f--stall-timeout\fnan\f--learning-rate\f1e-3\f--backup-workers\f1\f--seed\f5",
        b"-m\fx\f-b\f" + b"9" * 400,
        b"-m\fx\f-g\f100000000\f-n\f100000000",
        b"-m\fx\f-r\f$(id)\x1b[2J\f--python\f;id\f--cpu-bind\fmap_cpu:0,1\f--logs\f\xff",
        b"-m\fx\f--data\fmnist:~nobody/x\f--stage\f/s\f--input-only\f--precision\fbf16",
    ),
    "model": (
        b"resnet50",
        b"keras:ResNet50",
        b"x; touch pwned",
        b"../../etc/passwd",
        b"-m",
        b"a\n",
    ),
}

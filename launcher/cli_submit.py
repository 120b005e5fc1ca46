"""`runtest submit`: measurements as batch jobs of Slurm."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

from launcher import cli_options as options
from launcher.cli_group import DefaultGroup
from launcher.cli_shared import check_logs, check_model, print_notes
from launcher.cli_sweep import make_sweep
from launcher.cli_typed import as_typed
from launcher.errors import UsageError
from launcher.jobs.matrix import Combination, make_matrix
from launcher.jobs.record import Job, JobFolder, jobs_folder
from launcher.jobs.request import Request, check_request, with_devices
from launcher.jobs.sbatch import check_bash
from launcher.jobs.script import Script, check_folder, check_prologue, in_place, quoted
from launcher.jobs.submission import Prepared, check_names, submit
from launcher.plan import check_options
from launcher.provenance import new_run_id
from launcher.results.files import safe_name
from launcher.submit_options import DRY_RUN, NODES, NUM_NODES, OPTIONS
from launcher.sweep import Item, check_sweep
from launcher.terminal import console
from launcher.text import plain

_MOST_PROLOGUE_BYTES = 1 << 16


@dataclass(frozen=True)
class _Asked:
    """What was typed: the command that the jobs run, its context, and all values."""

    command: click.Command
    ctx: click.Context
    values: dict[str, Any]

    @property
    def logs_dir(self) -> Path:
        """Where all jobs keep what they leave, wherever they run."""
        path: Path = self.values["logs_dir"]
        return path.absolute()

    @property
    def is_matrix(self) -> bool:
        """Whether several jobs may have been asked for, which then have names."""
        return any(self.values[name] for name in ("gpu_type", "gpus", "staged_from"))


def make_submit(*commands: click.Command) -> click.Group:
    """The group `submit`, which has a command for each of these; its first one is the default."""
    group = DefaultGroup(
        "submit",
        no_args_is_help=True,
        help="""Submit a measurement to Slurm, as a batch job or a matrix of them.

        Takes all options of run, or with `submit scale` of scale, and those of the job.

        \b
        runtest submit -m resnet50 -n 2 -g 4 --time 30
        runtest submit scale -m resnet50 -g 4 -x 16 --partition gpu
        runtest submit -m resnet50 --gpu-type k80,p100 --gpus 1,2,4 --staged-from scratch,local
        """,
    )
    for command in commands:
        group.add_command(_submitting(command))
    return group


def _submitting(command: click.Command) -> click.Command:
    theirs = {"nodes_file": NODES, "num_nodes": NUM_NODES, "dry_run": DRY_RUN}

    @click.pass_context
    def callback(ctx: click.Context, **values: Any) -> None:
        _submit(_Asked(command, ctx, {**values, "nodes_file": options.SLURM}))

    return click.Command(
        command.name,
        callback=callback,
        params=[*(theirs.get(p.name or "", p) for p in command.params), *OPTIONS],
        help=f"Submit `runtest {command.name}` as a batch job.",
    )


def _submit(asked: _Asked) -> None:
    prepared = _prepare(asked)
    if asked.values["dry_run"]:
        click.echo(plain("\n".join(one.script for one in prepared)), nl=False)
        return
    check_logs(asked.logs_dir)
    check_names(prepared, os.environ)
    err = console(stderr=True)

    def told(job: Job, folder: JobFolder, moved: Path | None) -> None:
        if moved:
            print_notes(err, [f"earlier results of {job.name} are in {moved} now"])
        click.echo(plain(f"submitted job {job.id}: {folder.path}"))

    submit(prepared, asked.logs_dir, os.environ, serial=asked.values["serial"], told=told)


def _prepare(asked: _Asked) -> list[Prepared]:
    """All jobs, looked at as far as that can be done before they run. Raises UsageError."""
    values = asked.values
    check_folder(asked.logs_dir)
    check_model(values["model"])
    matrix = make_matrix(values["gpu_type"], values["gpus"], values["staged_from"])
    _check_answers(values)
    prologue = _read_prologue(values["prologue"])
    now = datetime.now(timezone.utc)
    prepared = [_prepare_one(asked, combination, prologue, now) for combination in matrix]
    if prologue:
        check_bash(prepared[0].script, f"--prologue {values['prologue']}")
    return prepared


def _prepare_one(asked: _Asked, combination: Combination, prologue: str, now: datetime) -> Prepared:
    values = _values_of(asked.values, combination)
    request = _request(asked, combination, values)
    if asked.is_matrix:
        device = "cpu" if values["device"] == "cpu" else "gpu"
        name = combination.name(now.astimezone().date(), device, values["gpus_per_node"])
    else:
        name = safe_name(f"{values['model']}-{new_run_id(now)}")
    folder = JobFolder(jobs_folder(asked.logs_dir) / name)
    results = folder.path if asked.is_matrix else asked.logs_dir
    typed: Sequence[str] = asked.ctx.obj
    job = Job(
        id="",
        name=name,
        submitted=f"{now:%Y-%m-%dT%H:%M:%SZ}",
        argv=tuple(typed),
        is_matrix=asked.is_matrix,
        gpu_type=combination.gpu_type,
        staged_from=combination.place.name if combination.place else "",
    )
    script = Script(
        name=name,
        folder=folder.path,
        results=results,
        request=request,
        prologue=prologue,
        command=_command(asked, combination, results),
        typed=("runtest", *typed[1:]),
    )
    return Prepared(job, folder, script.text())


def _values_of(values: dict[str, Any], combination: Combination) -> dict[str, Any]:
    """The values with which the job of this combination calls its command."""
    mine = dict(values)
    if combination.gpus:
        mine["gpus_per_node"] = combination.gpus
    if place := combination.place:
        option = "stage" if values["data"] else "remote_dir"
        mine[option] = place.directory or f"/{place.variable}"  # the job knows where that is
    return mine


def _request(asked: _Asked, combination: Combination, values: dict[str, Any]) -> Request:
    """What Slurm is asked for, which is at least what the command needs. Raises UsageError."""
    needed = _nodes_needed(asked.command, values)
    nodes = values["job_nodes"] or needed
    if nodes < needed:
        raise UsageError(f"--nodes {nodes} are fewer than are used, {needed}", f"--nodes {needed}")
    request = Request(
        nodes=nodes,
        partition=values["partition"],
        constraint=values["constraint"],
        time=values["time"],
        account=values["account"],
        extra=tuple(values["sbatch_option"]),
    )
    check_request(request)
    gpus = values["gpus_per_node"]
    return with_devices(request, values["device"], combination.gpu_type, gpus)


def _nodes_needed(command: click.Command, values: dict[str, Any]) -> int:
    """How many nodes the command uses; what it would refuse is refused now. Raises UsageError."""
    given: int = values["num_nodes"] or 0
    model, batch_size = values["model"], values["batch_size"]
    if command.name == "scale":
        sweep = make_sweep((Item(model, batch_size),), values)
        check_sweep(sweep)
        if given and given < sweep.nodes_needed:
            raise UsageError(
                f"the largest point needs {sweep.nodes_needed} nodes, but -n says {given}",
                f"-n {sweep.nodes_needed}, or a smaller -x",
            )
        return given or sweep.nodes_needed
    nodes = given or values["job_nodes"] or 1
    check_options(options.make_options(model, batch_size, values), nodes)
    return int(nodes)


def _command(asked: _Asked, combination: Combination, results: Path) -> tuple[str, ...]:
    """The command line of the job, an option a line."""
    without = {"nodes_file", "logs_dir", "dry_run"}
    last = [quoted("-h", str(options.SLURM), "--logs", str(results))]
    if combination.gpus:
        without.add("gpus_per_node")
        last.append(quoted("-g", str(combination.gpus)))
    if asked.values["device"] == "auto":  # a job that has lost its GPUs is none of a CPU
        without.add("device")
        last.append(quoted("--device", "gpu"))
    if combination.place:
        last.append(in_place("--stage" if asked.values["data"] else "-r", combination.place))
    program = Path(sys.executable).with_name("runtest")
    words = [str(program)] if program.exists() else [sys.executable, "-m", "launcher.cli"]
    typed = as_typed(asked.ctx, asked.command, without)
    return (quoted(*words, asked.command.name or ""), *(quoted(*each) for each in typed), *last)


def _check_answers(values: dict[str, Any]) -> None:
    """Raises UsageError for lists of a matrix beside the options that they stand for."""
    pairs = [
        ("--gpus", "gpus", "-g", values["gpus_per_node"] != 1),
        ("--staged-from", "staged_from", "--stage", values["stage"]),
        ("--staged-from", "staged_from", "-r", values["remote_dir"] and not values["data"]),
    ]
    for option, name, other, is_given in pairs:
        if values[name] and is_given:
            raise UsageError(f"{option} and {other} are two answers to one question", "one of them")


def _read_prologue(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_PROLOGUE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"--prologue {path}: {error.strerror}", "another file") from error
    if len(data) > _MOST_PROLOGUE_BYTES:
        raise UsageError(f"--prologue {path}: larger than 64 KiB", "a file that it sources")
    text = data.decode(errors="surrogateescape")
    check_prologue(text)
    return text

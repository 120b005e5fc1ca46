"""Hands a script to Slurm, and looks whether bash would understand it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from launcher.errors import JobRefused, NotSubmitted, UsageError
from launcher.text import printable

_SECONDS = 60.0
_ID = re.compile(r"([0-9]{1,10})(;\S+)?\Z")
_WITHOUT = re.compile(r"^sbatch: (error: )?(Batch job submission failed: )?")
_MENDS = {
    "account": "another --account; `sacctmgr show associations user=$USER`",
    "partition": "one that sinfo lists",
    "feature": "another --constraint (or, with --device cpu, --gpu-type); `sinfo -o '%P %f'`",
    "node configuration": "other --nodes, -g, --gpus or --gpu-type, `sinfo -o '%P %D %c %G'`; "
    "--device cpu where nodes have no GPUs",
    "gres": "--device cpu where nodes have no GPUs; `sinfo -o '%P %G'`",
    "time": "--time 30 (minutes), or 2:00:00",
}
# What says that nothing is wrong with the job, but that Slurm does not answer.
_SILENT = ("contact", "Socket timed out", "fatal:", "Connection", "Munge", "authentication")


def sbatch(script: Path, after: str, environment: Mapping[str, str]) -> str:
    """Submit a script, which begins once the job `after`, if any, is over; returns the job's id.

    Raises UsageError where there is no sbatch, JobRefused, and NotSubmitted where Slurm fails.
    """
    dependency = [f"--dependency=afterany:{after}"] if after else []
    try:
        done = subprocess.run(
            ["sbatch", "--parsable", *dependency, str(script)],
            env=dict(environment),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except FileNotFoundError as error:
        raise UsageError(
            "there is no sbatch on PATH",
            "submit on a login node of a Slurm cluster; --dry-run shows the script anywhere",
        ) from error
    except (OSError, ValueError) as error:
        raise NotSubmitted(f"sbatch could not be started: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise NotSubmitted(
            f"sbatch has not answered within {_SECONDS:.0f} s, and may have submitted the job",
            "squeue --me; scontrol ping",
        ) from error
    said = _said(done.stderr)
    if done.returncode:
        raise _refusal(said or f"exit status {done.returncode}")
    found = _ID.match(done.stdout.strip().rpartition("\n")[2])
    if found is None:
        raise NotSubmitted(f"sbatch gave no job: {said or printable(done.stdout)!r}", "squeue --me")
    return found[1]


def check_bash(script: str, whose: str) -> None:
    """Raises UsageError for a script that bash cannot read; where there is no bash, it is not
    looked at.
    """
    try:
        done = subprocess.run(
            ["bash", "-n"],
            input=script.encode(errors="surrogateescape"),
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return
    if done.returncode:
        said = printable(done.stderr.decode(errors="replace").strip().partition("\n")[0])
        raise UsageError(f"{whose}: bash cannot read it: {said}", f"bash -n {whose}")


def _said(stderr: str) -> str:
    """What sbatch says, on one line without its name in front of each."""
    lines = [line for line in stderr.splitlines() if not line.startswith('Try "sbatch')]
    return printable("; ".join(_WITHOUT.sub("", line) for line in lines))


def _refusal(said: str) -> JobRefused | NotSubmitted:
    if any(word in said for word in _SILENT):
        return NotSubmitted(f"Slurm does not answer: {said}", "scontrol ping; later again")
    mends = [mend for word, mend in _MENDS.items() if word in said.lower()]
    return JobRefused(
        f"sbatch refuses the job: {said}",
        mends[0] if mends else "--dry-run, which shows the script",
    )

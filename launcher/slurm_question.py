"""A question to a command of Slurm."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

from launcher.text import printable


def ask_slurm(
    argv: Sequence[str], environment: Mapping[str, str], seconds: float
) -> tuple[str, str]:
    """What the command prints, and what is wrong where it is missing, fails or does not answer."""
    try:
        done = subprocess.run(
            argv,
            env=dict(environment),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except FileNotFoundError:
        return "", f"there is no {argv[0]} on PATH"
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return "", printable(str(error))
    said = done.stderr.strip().rpartition("\n")[2] or f"exit status {done.returncode}"
    return done.stdout, printable(said) if done.returncode else ""

"""What tells runs apart: their names, and the program that made them."""

from __future__ import annotations

import importlib.metadata
import platform
import secrets
import subprocess
from datetime import datetime
from functools import cache
from pathlib import Path

import launcher

_LIBRARIES = ("click", "fabric", "matplotlib", "numpy", "pandas", "paramiko", "rich", "scipy")


def new_run_id(now: datetime) -> str:
    """A name for a run that no other has: `20261121-143000-9f3a1c`, in UTC."""
    return f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def version() -> str:
    """The version of this program."""
    return launcher.__version__


@cache
def git_commit() -> str:
    """The commit that this program was checked out from, with `+` behind it if files were changed.

    Empty for a program that is not in a git checkout of its own.
    """
    folder = Path(launcher.__file__).parent.parent
    if not (folder / ".git").exists():
        return ""
    commit = _git(folder, "rev-parse", "--short=12", "HEAD")
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return commit + ("+" if commit and changed else "")


@cache
def launcher_versions() -> dict[str, str]:
    """Python and libraries on the operator's machine."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""

"""Data of the real formats, made by the node's own programs on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from launcher import payload
from launcher.errors import RunTestError, UsageError


def make_data(kind: str, out: Path, python: str = sys.executable, **options: int) -> None:
    """Make data of a kind (hep, mnist) in a folder; the options are those of `runtest make-data`.

    The launcher itself imports nothing that makes data: `python` does. Raises UsageError for what
    cannot be, RunTestError when it fails.
    """
    out = Path(out)
    _make_folder(out)
    words = [f"--{name}={value}" for name, value in options.items()]
    module = f"perftest.data.make_{kind}"
    command = [python, "-m", module, *words, "--", str(out.absolute())]
    try:
        done = subprocess.run(
            command,
            check=False,
            cwd=payload.source_folder("perftest"),  # and not a folder "perftest" of the user's
            stdin=subprocess.DEVNULL,
        )
    except OSError as error:
        raise UsageError(f"--python {python}: {error.strerror}", "--python PATH") from error
    if done.returncode:
        raise RunTestError(
            f"no data was made (exit status {done.returncode})",
            "the reason above; --python PATH of an interpreter with NumPy and h5py",
        )


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"no data can be made in {out}: {error.strerror}", "another folder"
        ) from None
    if not os.access(out, os.W_OK | os.X_OK):
        raise UsageError(f"no data can be made in {out}: Permission denied", "another folder")

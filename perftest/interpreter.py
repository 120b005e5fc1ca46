"""How a program of ours is started on a node without a word of the user's in its command line.

Needs the standard library alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping


def command(module: str) -> list[str]:
    """The arguments of this interpreter running `module`, for Popen's `executable=sys.executable`.

    Of the interpreter's path they have the file's name alone; Python then finds itself, and with
    it its virtual environment, on the PATH of `with_path`. No directory with a colon can stand
    there: such a path is given in full.
    """
    folder, name = os.path.split(sys.executable)
    return [sys.executable if ":" in folder else name, "-m", module]


def with_path(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` with this interpreter's directory first on the PATH."""
    folder = os.path.dirname(sys.executable)
    folders = environment.get("PATH", os.defpath).split(":")
    return {**environment, "PATH": ":".join([folder, *(f for f in folders if f != folder)])}

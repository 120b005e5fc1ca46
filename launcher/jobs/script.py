"""The batch script of a job: readable, complete, and safe whatever was typed. Opens nothing."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import UsageError
from launcher.jobs.matrix import Place
from launcher.jobs.request import Request
from launcher.text import printable

# Where runtest, and before it the script, writes down how the job ended: launcher/jobs/record.py.
RECORD_VARIABLE = "RUNTEST_RECORD"
OUTPUT_NAME = "output"
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./-]+\Z")

_FORM = """\
#!/bin/bash
# Written by: {typed}
# The results go to {results}
{directives}

# How the job ended is written down here, by runtest or by this script, for `runtest status`.
export {variable}={record}
rm -f -- "${variable}"
trap 'printf "{{\\"status\\": %d, \\"said\\": \\"\\"}}\\n" $? >"${variable}"' EXIT
{prologue}
# exec: what Slurm sends to end the job reaches runtest itself, which then leaves nothing behind.
shopt -s execfail
exec {command}
exit
"""


@dataclass(frozen=True)
class Script:
    """A job as a script.

    typed: the command line that submitted it.  folder: the job's own.  results: the folder of the
    logs.  command: words for the shell, each quoted already.
    """

    name: str
    folder: Path
    results: Path
    request: Request
    prologue: str
    command: tuple[str, ...]
    typed: tuple[str, ...]

    def text(self) -> str:
        """All of it."""
        output = str(self.folder / OUTPUT_NAME).replace("%", "%%")
        options = [
            f"--job-name={self.name}",
            f"--output={output}",
            "--no-requeue",
            *self.request.options(),
        ]
        prologue = f"\n# From --prologue:\n{self.prologue.rstrip()}\n" if self.prologue else ""
        return _FORM.format(
            typed=printable(shlex.join(self.typed), 4000),
            results=printable(str(self.results), 4000),
            directives="\n".join(f"#SBATCH {_for_sbatch(option)}" for option in options),
            variable=RECORD_VARIABLE,
            record=shlex.quote(str(self.folder / "ended.json")),
            prologue=prologue,
            command=" \\\n    ".join(self.command),
        )


def quoted(*words: str) -> str:
    """Words for the shell, on one line of the script."""
    return shlex.join(words)


def in_place(option: str, place: Place) -> str:
    """An option whose value is a directory of the nodes, which only the job may know."""
    if place.directory:
        return quoted(option, place.directory)
    why = f"is not set here, and --staged-from {place.name} means it"
    return f'{option} "${{{place.variable}:?{why}}}"'


def check_prologue(text: str) -> None:
    """Raises UsageError for lines that would not do what they say."""
    if "\r" in text or "\0" in text:
        raise UsageError(
            "--prologue: these are no lines of bash: they end as on Windows, or are no text",
            "dos2unix FILE",
        )
    if re.search(r"(?m)^#SBATCH", text):
        raise UsageError(
            "--prologue: lines with #SBATCH are not read there",
            "--sbatch-option=..., or --partition, --time and the like",
        )


def check_folder(folder: Path) -> None:
    """Raises UsageError for a folder in which Slurm would not write."""
    if "\\" in str(folder) or not str(folder).isprintable():
        raise UsageError(
            f"--logs {str(folder)[:80]!a}: Slurm writes nothing below a name with a backslash or "
            "a control character",
            "another folder",
        )


def _for_sbatch(option: str) -> str:
    """As sbatch reads its own lines: a backslash in front of what would end the quotes."""
    if _PLAIN.match(option):
        return option
    return '"' + option.replace("\\", "\\\\").replace('"', '\\"') + '"'

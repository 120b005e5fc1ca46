"""How submitted jobs stand: by Slurm's word, and where it has forgotten them by their own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.jobs.record import End, Job, JobFolder
from launcher.slurm_question import ask_slurm
from launcher.text import printable

PENDING, RUNNING, FINISHED = "pending", "running", "finished"
FAILED, CANCELLED, OUT_OF_TIME, UNKNOWN = "failed", "cancelled", "out of time", "unknown"
_SECONDS = 30.0
_INTERRUPTED = 130
_LONGEST_END = 1 << 16
_WORDS = {
    **dict.fromkeys(("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT"), PENDING),
    **dict.fromkeys(("RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED"), RUNNING),
    **dict.fromkeys(("SIGNALING", "STAGE_OUT", "RESIZING"), RUNNING),
    **dict.fromkeys(("CANCELLED", "PREEMPTED", "REVOKED"), CANCELLED),
    **dict.fromkeys(("TIMEOUT", "DEADLINE"), OUT_OF_TIME),
    **dict.fromkeys(("FAILED", "BOOT_FAIL", "NODE_FAIL", "OUT_OF_MEMORY"), FAILED),
    "COMPLETED": FINISHED,
}
_WHY = {
    "PREEMPTED": "preempted by another job",
    "DEADLINE": "its deadline has come",
    "BOOT_FAIL": "a node did not boot",
    "NODE_FAIL": "a node failed",
    "OUT_OF_MEMORY": "its memory is used up: more --sbatch-option=--mem=..., or a smaller batch",
    "TIMEOUT": "more --time, or fewer --steps",
    "SUSPENDED": "suspended",
    "COMPLETING": "ending",
}
_ENDED_BY_SLURM = re.compile(
    r"slurmstepd\S*: error: .* CANCELLED AT \S+(?: DUE TO ([A-Z ]+[A-Z]))?"
)


@dataclass(frozen=True)
class Standing:
    """How a job stands, and why."""

    state: str
    why: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it; so too where nobody knows of it any more."""
        return self.state not in (PENDING, RUNNING)

    def __str__(self) -> str:
        return f"{self.state}: {self.why}" if self.why else self.state


@dataclass(frozen=True)
class Heard:
    """Slurm's word for the state of a job, and its reason."""

    word: str
    reason: str = ""


def standings(
    jobs: Sequence[tuple[JobFolder, Job]], environment: Mapping[str, str], problems: list[str]
) -> list[Standing]:
    """How each of the jobs stands; `problems` gets what keeps Slurm from telling it."""
    open_ones = [job for folder, job in jobs if _needs_slurm(folder)]
    heard = ask(open_ones, environment, problems)
    silent = "" if not problems else "Slurm does not answer"
    return [standing(heard.get(job.id), folder, silent) for folder, job in jobs]


def standing(heard: Heard | None, folder: JobFolder, silent: str = "") -> Standing:
    """How one job stands. Slurm forgets jobs that are over, some minutes later: then their own
    word counts, and the end of their output.

    silent: why nothing can be heard of any job, if so.
    """
    end = folder.end()
    if heard is None:
        return _by_itself(end, folder.output, silent)
    state = _WORDS.get(heard.word, UNKNOWN)
    why = _WHY.get(heard.word, "")
    if state == PENDING:
        why = heard.reason if heard.reason not in ("", "None") else ""
    elif state == FAILED and not why:
        why = _own_words(end, folder.output, heard.reason)
    elif state == UNKNOWN:
        why = f"Slurm calls it {heard.word}"
    return Standing(state, why)


def ask(
    jobs: Sequence[Job], environment: Mapping[str, str], problems: list[str]
) -> dict[str, Heard]:
    """What squeue knows of the jobs, and sacct of the others, by id."""
    if not jobs:
        return {}
    names = {job.id: job.name for job in jobs}
    ids = ",".join(names)
    form = "%i|%T|%r|%j"
    said, problem = ask_slurm(
        ["squeue", "--noheader", "--states=all", f"--jobs={ids}", f"--format={form}"],
        environment,
        _SECONDS,
    )
    if problem and "Invalid job id" not in problem:
        problems.append(f"squeue does not say how the jobs stand: {problem}")
    heard = _parse(said, names)
    if missing := [each for each in names if each not in heard]:
        since = min(job.submitted for job in jobs)[:10]
        words = ["--noheader", "--parsable2", "--allocations", f"--jobs={','.join(missing)}"]
        # Without a database sacct fails, as on many clusters: the jobs' own word is left. Not every
        # version knows reasons; the exit code stands in their place.
        said, _ = ask_slurm(
            ["sacct", *words, f"--starttime={since}", "--format=JobIDRaw,State,ExitCode,JobName"],
            environment,
            _SECONDS,
        )
        heard.update(_parse(said, {each: names[each] for each in missing}))
    return heard


def _parse(said: str, names: Mapping[str, str]) -> dict[str, Heard]:
    """By id; a job of another name is somebody else's, with a number that came round again."""
    found = {}
    for line in said.splitlines():
        number, word, reason, name = (*line.split("|", 3), "", "", "", "")[:4]
        if word and names.get(number) == name:
            found[number] = Heard(word.split()[0].rstrip("+"), printable(reason, 100))
    return found


def _needs_slurm(folder: JobFolder) -> bool:
    """A job that has ended well by its own word needs nobody else's."""
    end = folder.end()
    return end is None or end.status != 0


def _by_itself(end: End | None, output: Path, silent: str) -> Standing:
    if end is not None and end.status == 0:
        return Standing(FINISHED)
    ended = _ENDED_BY_SLURM.search(_tail(output))
    if ended and (end is None or end.status == _INTERRUPTED):
        if ended[1] == "TIME LIMIT":
            return Standing(OUT_OF_TIME, _WHY["TIMEOUT"])
        return Standing(CANCELLED, (ended[1] or "").lower())
    if end is not None:
        return Standing(FAILED, _own_words(end, output))
    why = silent or "Slurm does not know it any more"
    return Standing(UNKNOWN, f"{why}, and it has not said how it ended; {output}")


def _own_words(end: End | None, output: Path, reason: str = "") -> str:
    if end is None and not output.exists():
        return f"{reason or 'no reason'}; nothing was written: do the nodes see {output.parent}?"
    if end is None:
        return f"{reason or 'no reason'}; it has not said why; {output}"
    return end.said or f"exit status {end.status}; {output}"


def _tail(output: Path) -> str:
    try:
        with output.open("rb") as file:
            file.seek(max(0, output.stat().st_size - _LONGEST_END))
            return file.read().decode(errors="replace")
    except OSError:
        return ""

"""What srun and slurmstepd say on standard error, kept apart from what the script says there."""

from __future__ import annotations

import re

from launcher.errors import ConnectionLost, JobEnded, NodeError, Unreachable
from launcher.text import printable

_SLURM = (b"srun: ", b"slurmstepd")
_LONGEST_LINE = 1 << 14
_MOST_KEPT = 100
_CANCELLED = re.compile(r"CANCELLED AT \S+(?: DUE TO ([A-Z ]+[A-Z]))?")
_LOST = (
    "step_launch_notify_io_failure",
    "error reading header",
    "Timed out waiting for job step",
    "Node failure on",
)
_REFUSED = ("Unable to", "has expired", "Invalid", "temporarily")
_MENDS = {
    "TIME LIMIT": "a job with more --time, or fewer steps or epochs",
    "NODE FAILURE": "the same again without that node (--exclude of sbatch and salloc)",
    "PREEMPTION": "the same again, in a partition whose jobs are not preempted",
}


class SlurmWords:
    """Takes Slurm's lines out of a stream of bytes."""

    def __init__(self) -> None:
        self._rest = b""
        self._lines: list[str] = []

    def take(self, data: bytes) -> bytes:
        """Keep the lines that are Slurm's; the rest, at once but for what may become one."""
        lines = (self._rest + data).splitlines(keepends=True)
        self._rest = lines.pop() if lines and _may_become_ours(lines[-1]) else b""
        return b"".join(line for line in lines if not self._keep(line))

    def end(self) -> bytes:
        """What was held back, at the end of the stream."""
        left, self._rest = self._rest, b""
        return b"" if self._keep(left) else left

    def _keep(self, line: bytes) -> bool:
        if not line.startswith(_SLURM):
            return False
        self._lines.append(printable(line.decode(errors="replace").strip(), 300))
        del self._lines[:-_MOST_KEPT]
        return True

    @property
    def tell_of_loss(self) -> bool:
        """Whether srun has lost the node; it may still wait for minutes before it ends."""
        return any(word in line for line in self._lines for word in _LOST)

    def error(self, label: str, job: str) -> NodeError | None:
        """What Slurm's own words say of why the connection ended, if anything."""
        text = "\n".join(self._lines)
        if found := _CANCELLED.search(text):
            why = found[1] or ""
            mend = _MENDS.get(why, "the same again; squeue and sacct say who ended it")
            shown = f" ({why.lower()})" if why else ""
            return JobEnded(label, f"Slurm cancelled job {job}{shown}", mend)
        if "oom-kill" in text or "oom_kill" in text:
            mend = "a job with more --mem, a smaller batch, or fewer workers a node"
            return JobEnded(label, f"Slurm killed a process of job {job} for its memory", mend)
        if self.tell_of_loss:
            return ConnectionLost(
                label,
                "srun has lost its connection to the node",
                "sinfo -R, which says what Slurm knows of it, and the same again without it",
            )
        refusals = [line for line in self._lines if any(word in line for word in _REFUSED)]
        if refusals:
            said = refusals[0].removeprefix("srun: ").removeprefix("error: ")
            return Unreachable(label, f"srun starts nothing there: {said}", f"squeue -j {job}")
        return None


def _may_become_ours(line: bytes) -> bool:
    """Whether an unfinished line is, or may turn out to be, one of Slurm's."""
    if line.endswith(b"\n") or len(line) > _LONGEST_LINE:
        return False
    return any(line.startswith(mark) or mark.startswith(line) for mark in _SLURM)

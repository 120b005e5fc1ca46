"""What holds a run up, judged by the measured parts of its steps. Pure.

`docs/measurement.md` says how, in words; nothing is judged where parts are not known.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Literal

from launcher.results.step_records import PARTS

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["compute", "input", "link", "parameter server CPU", "straggler"]

# The part of its processors that a machine must be busy with to be what holds its workers up, and
# the part of the exchange for which one server has to keep a processor busy to be that.
BUSY = 0.8
# The part of a step that others must lose to a straggler for it to be what holds them up.
LEAST_LOSS = 0.1


@dataclass(frozen=True)
class Parts:
    """The mean parts of the pacemaker's measured steps, in seconds: that of the worker which waits
    least, because the others wait for it.

    lost: by how much longer the median of the other workers waits.
    """

    worker: int
    node: str
    step: float
    input: float
    pull: float
    compute: float
    push: float
    wait: float
    lost: float

    @property
    def exchange(self) -> float:
        """All that goes between this worker and the servers."""
        return self.pull + self.push + self.wait


@dataclass(frozen=True)
class Load:
    """Processor seconds a second. workers, servers: of all on the pacemaker's machine.  processors:
    how many it has.  server: of the busiest server of the run.
    """

    workers: float
    servers: float
    processors: int
    server: float


@dataclass(frozen=True)
class Bottleneck:
    """`kind` is for programs, `text` for people."""

    kind: Kind
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


def step_parts(steps: pd.DataFrame) -> pd.DataFrame | None:
    """The mean parts of each worker's measured steps, in seconds, by worker; None where they are
    not known. Columns: node, seconds, input, pull, compute, push, wait, and cpu, processor time.
    """
    measured = steps[steps["phase"] == "measured"].dropna(subset=["compute_seconds", *PARTS])
    if measured.empty:
        return None
    means = measured.groupby("worker")[["seconds", "compute_seconds", "cpu_seconds", *PARTS]].mean()
    means = means.rename(columns=lambda name: name.removesuffix("_seconds"))
    known = means[["pull", "compute", "push", "wait"]].sum(axis=1)
    means["input"] = (means["seconds"] - known).clip(lower=0)
    means["node"] = measured.groupby("worker")["node"].first()
    return means


def pacemaker(steps: pd.DataFrame) -> Parts | None:
    """The parts of the worker that all others wait for; None where they are not known."""
    means = step_parts(steps)
    if means is None:
        return None
    rows = {int(str(worker)): row for worker, row in means.to_dict("index").items()}
    worker = min(rows, key=lambda each: (rows[each]["wait"], each))
    own = rows.pop(worker)
    lost = median(row["wait"] for row in rows.values()) - own["wait"] if rows else 0.0
    return Parts(
        worker=worker,
        node=str(own["node"]),
        step=own["seconds"],
        lost=lost,
        **{name: own[name] for name in ("input", "pull", "compute", "push", "wait")},
    )


def bottleneck(parts: Parts, stragglers: Collection[int], load: Load) -> Bottleneck:
    """What a run's images/sec would rise with. stragglers: the workers that were found to be."""
    if parts.worker in stragglers and parts.lost >= LEAST_LOSS * parts.step:
        text = f"worker {parts.worker} on {parts.node}, for which the others wait "
        return Bottleneck("straggler", text + _part(parts.lost, parts))
    if parts.input >= max(parts.compute, parts.exchange):
        return Bottleneck("input", f"{_part(parts.input, parts)} goes into getting batches")
    if parts.compute >= parts.exchange:
        return Bottleneck("compute", f"{_part(parts.compute, parts)} is the workers' computing")
    text = (
        f"{_part(parts.exchange, parts)} is exchange with the servers (pull {parts.pull:.3g} s, "
        f"push {parts.push:.3g} s, wait {parts.wait:.3g} s)"
    )
    return _of_exchange(text, parts, load)


def _of_exchange(text: str, parts: Parts, load: Load) -> Bottleneck:
    """Who holds up the exchange: the processors at both its ends, or what lies between."""
    used = load.workers + load.servers
    if used >= BUSY * load.processors:
        text += f", but {used:.2g} of the {load.processors} processors there are busy all the time"
        mostly_servers = load.servers > load.workers
        return Bottleneck("parameter server CPU" if mostly_servers else "compute", text)
    busy = load.server * parts.step
    if busy >= BUSY * parts.exchange:
        return Bottleneck("parameter server CPU", f"{text}, and a server computes for {busy:.3g} s")
    return Bottleneck("link", text)


def _part(seconds: float, parts: Parts) -> str:
    return f"{seconds:.3g} s of a step's {parts.step:.3g} s"

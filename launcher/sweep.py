"""Many runs over the same open nodes: every point of a scaling study, several times over.

The order is interleaved: all points once, then all again, so that a machine that slows down in the
course of the day does not look like scaling.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from launcher.errors import NodeError, ResultsError, RunTestError, UsageError
from launcher.nodes import Node
from launcher.plan import check_options, make_plan
from launcher.tasks import AUTO, INPUT_ONLY, PARAMETER_SERVER_STRATEGY, SINGLE, Options, RunPlan
from perftest.protocol import Hello

MOST_GPUS = 65536
BASELINES = {"single": SINGLE, "ps": PARAMETER_SERVER_STRATEGY}
_ITEM = re.compile(r"(?P<model>.+):(?P<batch>[0-9]{1,9})\Z")


@dataclass(frozen=True)
class Item:
    """A model with its images per GPU and step."""

    model: str
    batch_size: int


@dataclass(frozen=True)
class Step:
    """One run of a sweep. repeat counts from 1."""

    item: Item
    gpus: int
    repeat: int


@dataclass(frozen=True)
class Sweep:
    """What is to be measured: every number of GPUs in `points`, for every item, `repeats` times.

    points: in rising order.  baseline: the strategy of the point of one GPU.  options: what all
    runs have in common; their model, batch size and number of workers are those of each run.
    """

    items: tuple[Item, ...]
    points: tuple[int, ...]
    repeats: int = 1
    baseline: str = SINGLE
    options: Options = field(default_factory=lambda: Options(model=""))

    @property
    def nodes_needed(self) -> int:
        """How many nodes the largest point takes."""
        return -(-self.points[-1] // self.options.gpus_per_node)

    def steps(self, item: Item) -> Iterator[Step]:
        """The runs of an item, in their order: all points once, then all again."""
        for repeat in range(1, self.repeats + 1):
            for gpus in self.points:
                yield Step(item, gpus, repeat)

    def all_steps(self) -> list[Step]:
        """The runs of all items, one item after the other."""
        return [step for item in self.items for step in self.steps(item)]

    def options_of(self, item: Item, gpus: int) -> Options:
        """What is asked for at one point; one GPU is measured the way of the baseline."""
        asked = replace(self.options, model=item.model, batch_size=item.batch_size, workers=gpus)
        if gpus > 1 or asked.strategy == INPUT_ONLY:
            return asked
        asked = replace(asked, strategy=self.baseline, backup_workers=0)
        if self.baseline == PARAMETER_SERVER_STRATEGY:
            return asked
        alone = replace(asked, synchronous=True, parameter_servers=None)
        return replace(alone, aggregation=AUTO, gradient_dtype="fp32", communication=AUTO)


@dataclass(frozen=True)
class Failure:
    """A run that gave no row, and why."""

    step: Step
    reason: str


def points_up_to(largest: int) -> tuple[int, ...]:
    """1, 2, 4 ... up to `largest`, and `largest` itself."""
    powers = [1 << exponent for exponent in range(largest.bit_length())]
    return tuple(dict.fromkeys([*powers, largest]))


def parse_points(text: str) -> tuple[int, ...]:
    """`1,3,6` as numbers of GPUs, in rising order. Raises UsageError that names the bad one."""
    found = set()
    for word in (word.strip() for word in text.split(",")):
        if not re.fullmatch(r"[0-9]{1,6}", word) or not 0 < int(word) <= MOST_GPUS:
            raise UsageError(f"--points: {word[:40]!r} is no number of GPUs", "1,3,6")
        found.add(int(word))
    return tuple(sorted(found))


def parse_items(text: str) -> tuple[Item, ...]:
    """`alexnet:512,keras:VGG16:32` as items. Raises UsageError that names the bad one."""
    items: list[Item] = []
    for word in (word.strip() for word in text.split(",")):
        match = _ITEM.match(word)
        if match is None or int(match["batch"]) < 1:
            raise UsageError(
                f"-m: {word[:80]!r} is not MODEL:BATCH", "-m inceptionv3:32,alexnet:512"
            )
        item = Item(match["model"], int(match["batch"]))
        if item in items:
            raise UsageError(f"-m: {word[:80]!r} is there twice", "each of them once")
        items.append(item)
    return tuple(items)


def check_sweep(sweep: Sweep) -> None:
    """Raises PlanError for options that contradict each other at any point."""
    for item in sweep.items:
        for gpus in sweep.points:
            check_options(sweep.options_of(item, gpus), sweep.nodes_needed)


def make_plans(
    sweep: Sweep, nodes: Sequence[Node], hellos: Sequence[Hello]
) -> dict[tuple[Item, int], RunPlan]:
    """The plan of every point, so that what does not fit is known before anything starts.

    Raises PlanError.
    """
    return {
        (item, gpus): make_plan(sweep.options_of(item, gpus), nodes, hellos)
        for item in sweep.items
        for gpus in reversed(sweep.points)  # the largest first: it has most that may not fit
    }


class SweepRunner:
    """Makes the runs that are still to be made.

    plans: of every point, as it was planned before the first run.
    measure: makes one run and writes its row; returns images/sec, or raises RunTestError.
    why_closed: what ended the connection of a node, if anything has.
    tell: says a line to the person who waits.
    """

    def __init__(
        self,
        plans: Mapping[tuple[Item, int], RunPlan],
        measure: Callable[[Step], float],
        why_closed: Callable[[int], NodeError | None],
        tell: Callable[[str], None],
    ) -> None:
        self._plans = plans
        self._measure = measure
        self._why_closed = why_closed
        self._tell = tell
        self.failures: list[Failure] = []

    def run(self, sweep: Sweep, item: Item, done: Collection[Step]) -> None:
        """Make the runs of one item that are not among those done.

        A run that fails is told and kept in `failures`, and the next one is made all the same.
        Raises ResultsError where nothing can be written, because then no run can be kept.
        """
        steps = sweep.all_steps()
        for number, step in enumerate(steps, start=1):
            if step.item == item and step not in done:
                place = f"point {number} of {len(steps)}"
                self._run_one(step, place, self._described(sweep, step))

    def _run_one(self, step: Step, place: str, words: str) -> None:
        plan = self._plans[step.item, step.gpus]
        for node in range(len(plan.nodes)):
            if lost := self._why_closed(node):
                self._fail(step, place, words, lost)
                return
        self._tell(f"{place}: {words}")
        try:
            speed = self._measure(step)
        except ResultsError:
            raise
        except RunTestError as error:
            self._fail(step, place, words, error)
        else:
            self._tell(f"{place}: {speed:,.1f} images/sec")

    def _fail(self, step: Step, place: str, words: str, error: RunTestError) -> None:
        self.failures.append(Failure(step, str(error)))
        self._tell(f"{place} ({words}) failed: {error}")

    def _described(self, sweep: Sweep, step: Step) -> str:
        """`resnet, 4 GPUs, repeat 1 of 3`."""
        model = f"{step.item.model}, " if len(sweep.items) > 1 else ""
        what = "worker" if self._plans[step.item, step.gpus].device == "cpu" else "GPU"
        count = f"{step.gpus} {what}{'s' * (step.gpus != 1)}"
        return f"{model}{count}, repeat {step.repeat} of {sweep.repeats}"

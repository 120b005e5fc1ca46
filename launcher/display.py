"""What a person sees while nodes are greeted and a run goes: a live view on a terminal, plain
timestamped lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from launcher.nodes import Node
from launcher.tasks import RunPlan
from launcher.text import printable
from perftest.protocol import WORKER, Hello, Staged, StepTimes

# A live view of more workers than this would not fit a terminal: it counts them by phase instead.
_MOST_ROWS = 16
_LINE_SECONDS = 5.0
_RECENT_STEPS = 20


@dataclass
class _WorkerState:
    phase: str = "starting"
    steps: int = 0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT_STEPS))

    def images_per_second(self, batch_size: int) -> float | None:
        """Speed over the newest steps, for looking at; results are computed from all of them."""
        total = sum(self.recent)
        return batch_size * len(self.recent) / total if total > 0 else None


class Display:
    """Observes a session and its runs. `live` draws on the terminal of `console`."""

    def __init__(self, console: Console, nodes: Sequence[Node], live: bool) -> None:
        self._console = console
        self._nodes = nodes
        self._is_live = live
        self._lock = threading.RLock()
        self._greeted = 0
        self._plan: RunPlan | None = None
        self._workers: dict[int, _WorkerState] = {}
        self._title = ""
        self._last_line = 0.0
        self._said_phase = ""
        self._live: Live | None = None
        self._was_interrupted = False

    def __enter__(self) -> Display:
        if self._is_live:
            self._live = Live(
                get_renderable=self._render,
                console=self._console,
                transient=True,
                refresh_per_second=4,
            )
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def note(self, text: str) -> None:
        """One line that stays."""
        text = escape(printable(text))
        if not self._is_live:
            text = f"{time.strftime('%H:%M:%S')} {text}"
        with suppress(OSError):  # the terminal may be gone, and the run be ended for just that
            self._console.print(text, highlight=False, soft_wrap=True)

    # A session.

    def opening(self) -> None:
        """The nodes are about to be opened."""
        names = ", ".join(node.alias for node in self._nodes[:6])
        more = f" and {len(self._nodes) - 6} more" if len(self._nodes) > 6 else ""
        self.note(f"opening {names}{more}")

    def node_greeted(self, node: int, hello: Hello) -> None:
        """A node is ready."""
        with self._lock:
            self._greeted += 1
            if not self._is_live:
                gpus = f"{len(hello.gpus)} × {hello.gpus[0].name}" if hello.gpus else "no GPU"
                self.note(
                    f"{self._nodes[node].alias}: TensorFlow {hello.versions.tensorflow}, {gpus}, "
                    f"{len(hello.cpus)} CPUs"
                )

    # A run.

    def run_started(self, plan: RunPlan) -> None:
        """The tasks are being started."""
        with self._lock:
            self._plan = plan
            self._workers = {task.place.index: _WorkerState() for task in plan.workers}
            self._said_phase = ""
            job = plan.job
            self._title = (
                f"{job.model}, batch {job.batch_size}, {_count(len(plan.workers), 'worker')}, "
                f"{_count(len(plan.servers), 'parameter server')}, {plan.device}"
            )
            if not self._is_live:
                self.note(f"starting {self._title}")

    def phase(self, role: str, index: int, name: str) -> None:
        """A task says what it does next."""
        with self._lock:
            if role != WORKER or index not in self._workers:
                return
            self._workers[index].phase = name
            if not self._is_live and name != self._said_phase and self._all_in(name):
                self._said_phase = name
                self._last_line = time.monotonic()
                self.note(f"all workers: {name}" if len(self._workers) > 1 else f"worker: {name}")

    def steps(self, worker: int, first_step: int, times: StepTimes) -> None:
        """A worker has made some steps."""
        with self._lock:
            state = self._workers[worker]
            state.steps = first_step + len(times.seconds)
            if first_step:
                state.recent.extend(times.seconds)
            if self._is_live or time.monotonic() - self._last_line < _LINE_SECONDS:
                return
            self._last_line = time.monotonic()
            self.note(self._progress_text())

    def training(self, worker: int, message: Any) -> None:
        """A worker has news of its training."""
        if isinstance(message, Staged):
            gib = message.bytes / 2**30
            self.note(
                f"worker {worker}: copied {message.files} files, {gib:.2f} GiB, in "
                f"{message.seconds:.1f} s"
            )

    def interrupted(self) -> None:
        """The person wants this to end: say that it does, once."""
        with self._lock:
            if not self._was_interrupted:
                self._was_interrupted = True
                self.note("interrupted: ending everything; once more to leave at once")

    def run_ending(self) -> None:
        """All workers have finished, or one task has failed."""
        with self._lock:
            for state in self._workers.values():
                state.phase = "ending"

    # Drawing.

    def _all_in(self, phase: str) -> bool:
        return all(state.phase == phase for state in self._workers.values())

    def _total_steps(self) -> int:
        if self._plan is None:
            return 0
        return self._plan.job.warmup_steps + self._plan.job.measured_steps

    def _speed(self) -> str:
        if self._plan is None:
            return ""
        batch = self._plan.job.batch_size
        speeds = [state.images_per_second(batch) for state in self._workers.values()]
        known = [speed for speed in speeds if speed is not None]
        return f"{sum(known):.1f} images/sec" if known and len(known) == len(speeds) else ""

    def _progress_text(self) -> str:
        done = min((state.steps for state in self._workers.values()), default=0)
        speed = self._speed()
        return f"step {done} of {self._total_steps()}" + (f", {speed}" if speed else "")

    def _render(self) -> RenderableType:
        with self._lock:
            if self._plan is None:
                return f"greeted {self._greeted} of {_count(len(self._nodes), 'node')}"
            body = self._rows() if len(self._workers) <= _MOST_ROWS else self._phases()
            return Group(escape(self._title), self._header(), body)

    def _header(self) -> RenderableType:
        header = Table.grid(padding=(0, 1), expand=False)
        done = min((state.steps for state in self._workers.values()), default=0)
        header.add_row(
            ProgressBar(total=max(1, self._total_steps()), completed=done, width=30),
            f"{done}/{self._total_steps()} steps",
            self._speed(),
        )
        return header

    def _rows(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for name in ("worker", "node"):
            table.add_column(name, no_wrap=True, max_width=24)
        table.add_column("phase", no_wrap=True, min_width=20, max_width=28)
        table.add_column("step", justify="right", no_wrap=True)
        table.add_column("images/sec", justify="right", no_wrap=True)
        assert self._plan is not None  # noqa: S101 - _render has looked
        for task in self._plan.workers:
            state = self._workers[task.place.index]
            speed = state.images_per_second(self._plan.job.batch_size)
            table.add_row(
                str(task.place.index),
                escape(self._plan.nodes[task.node].alias),
                escape(state.phase),
                str(state.steps),
                f"{speed:.1f}" if speed is not None else "",
            )
        return table

    def _phases(self) -> str:
        counts = Counter(state.phase for state in self._workers.values())
        return escape(", ".join(f"{count} {phase}" for phase, count in counts.most_common()))


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"

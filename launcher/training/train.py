"""One training, or one evaluation of what it left: run, course, files."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from launcher import provenance
from launcher.errors import NodeError, ResultsError
from launcher.outcome import Outcome, RunObserver
from launcher.reachability import check_reachability
from launcher.results.run_folder import RunFolder
from launcher.run import execute
from launcher.run_record import Context, facts, results
from launcher.servers import in_json
from launcher.session import Session
from launcher.tasks import RunPlan
from launcher.training.course import Course, MetricsRow
from perftest.protocol import Progress, StepTimes


@dataclass(frozen=True)
class Trained:
    """A training that has ended well, and where its files are. roc_svg: of an evaluation."""

    rows: tuple[MetricsRow, ...]
    folder: RunFolder
    metrics_csv: Path
    roc_svg: Path | None
    problems: tuple[str, ...]


class _Observer:
    """Tells a display and the course what a run tells."""

    def __init__(self, display: RunObserver, course: Course) -> None:
        self.run_started: Callable[[RunPlan], None] = display.run_started
        self.phase: Callable[[str, int, str], None] = display.phase
        self.steps: Callable[[int, int, StepTimes], None] = display.steps
        self.interrupted: Callable[[], None] = display.interrupted
        self.run_ending: Callable[[], None] = display.run_ending
        self._display = display
        self._course = course

    def training(self, worker: int, message: Any) -> None:
        """News of a worker."""
        if isinstance(message, Progress):
            self._course.take_progress(worker, message)
        else:
            self._course.take(message)
        self._display.training(worker, message)


def train(session: Session, plan: RunPlan, context: Context, display: RunObserver) -> Trained:
    """Make one run whose job is a training (or an evaluation), and write down its course.

    The folder of the run gets metrics.csv, progress.csv, run.json, the tasks' logs, and of an
    evaluation roc.csv and roc.svg. Raises NodeError when the run fails, and ResultsError when
    something cannot be written; what was known by then is in the folder.
    """
    start = datetime.now(timezone.utc)
    run_id = provenance.new_run_id(start)
    folder = RunFolder(context.logs_dir, run_id).create()
    record = facts(run_id, start, plan, context)
    folder.write_run_json({**record, "status": "running"})
    outcome = Outcome(startup=session.take_startup())
    course = Course(folder.path)
    try:
        outcome.startup.end_part("plan", time.monotonic())
        outcome.reachability_seconds = check_reachability(session, plan)
        outcome.startup.end_part("reach", time.monotonic())
        execute(session, plan, run_id, _Observer(display, course), folder.write_log, outcome)
    except BaseException as error:
        if isinstance(error, NodeError):
            error.mend = error.mend.replace("the folder of the run", str(folder.path))
        reason = str(error) or type(error).__name__
        with suppress(ResultsError):  # what ended the run is the news, and not the full disk
            course.end()
            folder.write_run_json(
                {**record, **_ended(plan, outcome, course), "status": "failed", "error": reason}
            )
        raise
    course.end()
    from launcher.results.roc import write_roc  # it brings matplotlib along

    roc_svg = write_roc(folder.path, course.curve, course.rows) if course.curve else None
    folder.write_run_json({**record, **_ended(plan, outcome, course), "status": "finished"})
    return Trained(tuple(course.rows), folder, course.metrics_csv, roc_svg, tuple(outcome.problems))


def _ended(plan: RunPlan, outcome: Outcome, course: Course) -> dict[str, object]:
    starts = None if course.starts is None else asdict(course.starts)
    return {**results(outcome), **in_json(plan, outcome.servers), "training": starts}

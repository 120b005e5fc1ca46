"""One measurement: a run, its figures, and everything that is kept of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from launcher import provenance
from launcher.computing import ON_OR_OFF
from launcher.data_options import data_label, staged_from
from launcher.errors import NodeError, ResultsError, RunTestError
from launcher.outcome import Outcome, RunObserver
from launcher.reachability import check_reachability
from launcher.results.bottleneck import Bottleneck, bottleneck, pacemaker, step_parts
from launcher.results.log import RunRow, append_row, log_path
from launcher.results.room import check_room
from launcher.results.run_folder import RunFolder
from launcher.run import execute
from launcher.run_record import Context, facts, results
from launcher.servers import in_json, machine_load
from launcher.session import Session
from launcher.tasks import AUTO, ON_NODE, RunPlan
from launcher.traces import Traces

if TYPE_CHECKING:  # they bring pandas along, which takes half a second: not before the first step
    from launcher.results.summary import Summary
    from launcher.results.warnings import RunWarning


@dataclass(frozen=True)
class Measurement:
    """A finished run and where it was written."""

    row: RunRow
    summary: Summary
    warnings: tuple[RunWarning, ...]
    log: Path
    folder: RunFolder
    outcome: Outcome
    bottleneck: Bottleneck | None


def measure(
    session: Session, plan: RunPlan, context: Context, observer: RunObserver
) -> Measurement:
    """Make one run and write its raw steps, its logs, run.json, and its row of the CSV log.

    Raises NodeError (or NodesFailed, where nodes do not reach each other) when the run fails and
    RunTestError when it was too short to say anything (the folder then holds what there is, and no
    row is written), ResultsError when something cannot be written.
    """
    start = datetime.now(timezone.utc)
    run_id = provenance.new_run_id(start)
    job = plan.job
    log = log_path(context.logs_dir, job.model, job.batch_size)
    check_room(log, len(plan.workers) * (job.warmup_steps + job.measured_steps))
    folder = RunFolder(context.logs_dir, run_id).create()
    record = facts(run_id, start, plan, context)
    folder.write_run_json({**record, "status": "running"})
    outcome = Outcome(startup=session.take_startup())
    try:
        outcome.startup.end_part("plan", time.monotonic())
        outcome.reachability_seconds = check_reachability(session, plan)
        outcome.startup.end_part("reach", time.monotonic())
        with _traces(context, run_id, outcome) as traces:
            execute(session, plan, run_id, observer, folder.write_log, outcome, traces)
        summary, warnings = _figures(plan, outcome, folder)
        bottleneck, parts = _parts(plan, outcome)
    except BaseException as error:
        if isinstance(error, NodeError):
            error.mend = error.mend.replace("the folder of the run", str(folder.path))
        _keep_failure(folder, outcome, record, error)
        raise
    row = _row(run_id, start, plan, context, summary, warnings, bottleneck)
    measurement = Measurement(row, summary, warnings, log, folder, outcome, bottleneck)
    try:
        _keep(measurement, {**record, **in_json(plan, outcome.servers), **parts})
    except ResultsError as error:
        _keep_failure(folder, outcome, record, error)
        error.message += f" (the run gave {row.images_per_sec:.1f} images/sec)"
        raise
    return measurement


@contextmanager
def _traces(context: Context, run_id: str, outcome: Outcome) -> Iterator[Traces | None]:
    """Where the workers' traces go, if anywhere; what there is of them is in `outcome` then."""
    traces = Traces(context.profile_dir, run_id) if context.profile_dir is not None else None
    try:
        yield traces
    finally:
        if traces is not None:
            traces.end()
            outcome.traces = dict(sorted(traces.written.items()))
            outcome.problems += traces.problems


def _keep_failure(
    folder: RunFolder, outcome: Outcome, record: dict[str, object], error: BaseException
) -> None:
    """Write what there is of a run that has no row."""
    reason = str(error) or type(error).__name__
    with suppress(ResultsError):  # what ended the run is the news, and not the full disk
        folder.write_steps(outcome.records)
    with suppress(ResultsError):
        folder.write_run_json({**record, **results(outcome), "status": "failed", "error": reason})


def _keep(measurement: Measurement, record: dict[str, object]) -> None:
    """Write the raw steps, then the row, then run.json. Raises ResultsError for the first two."""
    folder, outcome = measurement.folder, measurement.outcome
    folder.write_steps(outcome.records)
    outcome.problems += append_row(measurement.log, measurement.row)
    finished = {
        **record,
        **results(outcome),
        "status": "finished",
        "summary": measurement.summary.figures(),
        "warnings": [str(warning) for warning in measurement.warnings],
    }
    try:
        folder.write_run_json(finished)
    except ResultsError as error:  # the row is safe, and the figures should be seen
        outcome.problems.append(str(error))


def _figures(
    plan: RunPlan, outcome: Outcome, folder: RunFolder
) -> tuple[Summary, tuple[RunWarning, ...]]:
    """The figures of a run and what to know of them. Raises RunTestError where there are none."""
    from launcher.results.steps import frame
    from launcher.results.summary import summarise
    from launcher.results.warnings import run_warnings, shared_processors, skipped_updates

    job = plan.job
    steps = frame(outcome.records)
    backup = len(plan.workers) - job.aggregate
    try:
        summary = summarise(
            steps, batch_per_gpu=job.batch_size, sync=job.synchronous, backup_workers=backup
        )
        warnings = run_warnings(
            steps,
            sync=job.synchronous,
            backup_workers=backup,
            nodes=len(plan.nodes),
            machines=plan.machines,
        )
    except ValueError as error:
        raise RunTestError(
            f"the run was too short to be measured: {error}; its raw steps are in {folder.path}",
            f"more --steps than {job.measured_steps}",
        ) from error
    skipped = max((each.skipped_updates for each in outcome.finished.values()), default=0)
    return summary, (
        *warnings,
        *shared_processors(len(plan.workers), _processors(plan)),
        *skipped_updates(skipped),
    )


def _parts(plan: RunPlan, outcome: Outcome) -> tuple[Bottleneck | None, dict[str, object]]:
    """What holds the run up, and the parts of a step that say so; nothing where none are known."""
    from launcher.results.steps import frame
    from launcher.results.warnings import late_workers, shared_processors

    steps = frame(outcome.records)
    pace, parts = pacemaker(steps), step_parts(steps)
    if pace is None or parts is None:
        return None, {}
    late = late_workers(steps, sync=plan.job.synchronous)
    if shared_processors(len(plan.workers), _processors(plan)):
        late = set()  # who computes longest is who came when the processor was another's
    busy = dict(parts["cpu"] / parts["seconds"])
    load = machine_load(plan, outcome.servers, pace.worker, busy)
    found = bottleneck(pace, late, load)
    by_worker = {str(worker): row for worker, row in parts.round(6).to_dict("index").items()}
    return found, {"bottleneck": asdict(found), "step_parts": by_worker}


def _processors(plan: RunPlan) -> int:
    """How many different processors the workers are pinned to."""
    return len({(plan.hellos[w.node].machine, cpu) for w in plan.workers for cpu in w.place.cpus})


def _row(
    run_id: str,
    start: datetime,
    plan: RunPlan,
    context: Context,
    summary: Summary,
    warnings: tuple[RunWarning, ...],
    bottleneck: Bottleneck | None,
) -> RunRow:
    from launcher.results.warnings import in_one_cell

    job = plan.job
    versions = plan.hellos[0].versions
    return RunRow(
        run_id=run_id,
        start_utc=f"{start:%Y-%m-%dT%H:%M:%SZ}",
        model=job.model,
        batch_per_gpu=job.batch_size,
        nodes=len(plan.nodes),
        gpus_per_node=plan.gpus_per_node,
        gpus=len(plan.workers),
        strategy=job.strategy,
        sync=job.synchronous,
        parameter_servers=len(plan.servers),
        backup_workers=len(plan.workers) - job.aggregate,
        precision=job.precision,
        device=plan.device,
        gpu_type=plan.gpu_type,
        machines=plan.machines,
        data=data_label(job.data),
        staged_from=staged_from(job.data),
        warmup_steps=job.warmup_steps,
        measured_steps=job.measured_steps,
        **summary.figures(),
        sweep_id=context.sweep_id,
        repeat=context.repeat,
        cpus_per_worker=min(len(task.place.cpus) for task in plan.workers),
        binding=plan.binding.label,
        xla=ON_OR_OFF[job.xla],
        onednn=ON_OR_OFF[job.onednn],
        intra_op_threads=job.intra_op_threads,
        inter_op_threads=job.inter_op_threads,
        aggregate=ON_NODE if job.adders else "",
        gradient_dtype=job.gradient_dtype if job.gradient_dtype != "fp32" else "",
        bottleneck=bottleneck.kind if bottleneck is not None else "",
        tensorflow=versions.tensorflow,
        keras=versions.keras,
        python=versions.python,
        perftest=provenance.version(),
        git_commit=provenance.git_commit(),
        warnings=in_one_cell(warnings),
        communication=job.communication if job.communication != AUTO else "",
    )

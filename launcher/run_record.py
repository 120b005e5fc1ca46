"""What `run.json` says of a run: everything that its figures depend on, and how it went."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import perftest.protocol as protocol
from launcher import provenance
from launcher.outcome import Outcome
from launcher.payload import make_payload
from launcher.tasks import RunPlan


@dataclass(frozen=True)
class Context:
    """What a run needs to know that is not in its plan.

    argv: the command line, for run.json.  sweep_id, repeat: its place in a scaling study.
    profile_dir: where the workers' traces go, if the plan asks for any.
    """

    logs_dir: Path
    argv: Sequence[str]
    sweep_id: str = ""
    repeat: int = 0
    profile_dir: Path | None = None


def facts(run_id: str, start: datetime, plan: RunPlan, context: Context) -> dict[str, object]:
    """What is known when a run begins."""
    return {
        "run_id": run_id,
        "start_utc": f"{start:%Y-%m-%dT%H:%M:%SZ}",
        "argv": list(context.argv),
        "sweep_id": context.sweep_id,
        "repeat": context.repeat,
        "perftest": provenance.version(),
        "git_commit": provenance.git_commit(),
        "launcher": provenance.launcher_versions(),
        "payload_sha256": make_payload().sha256,
        "protocol": protocol.VERSION,
        "plan": {
            "job": asdict(plan.job),
            "device": plan.device,
            "machines": plan.machines,
            "nodes": [asdict(node) for node in plan.nodes],
            "tasks": [asdict(task) for task in plan.tasks],
            "binding": asdict(plan.binding),
        },
        "hellos": [asdict(hello) for hello in plan.hellos],
    }


def results(outcome: Outcome) -> dict[str, object]:
    """What the run gave, as far as it got; the raw steps are in their own file."""
    return {
        "finished": {
            str(worker): asdict(message) for worker, message in sorted(outcome.finished.items())
        },
        "startup": [asdict(phase) for phase in outcome.phases],
        "staged": {
            str(worker): asdict(message) for worker, message in sorted(outcome.staged.items())
        },
        "startup_parts": {name: _rounded(s) for name, s in outcome.startup.parts.items()},
        "seconds_command_to_first_step": (
            _rounded(outcome.startup.seconds) if outcome.startup.is_over else None
        ),
        "seconds_reachability": _rounded(outcome.reachability_seconds),
        "seconds_to_first_step": _rounded(outcome.first_step_seconds),
        "steps_by_phase": Counter(record.phase for record in outcome.records),
        "traces": {str(worker): str(path) for worker, path in outcome.traces.items()},
        "problems": outcome.problems,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None or math.isnan(seconds) else round(seconds, 3)

"""The words of a plot: what was measured, where and when, and what a reader must not take it for.
Pure.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import pandas as pd

from launcher.results.points import Line, fact_in_words, text

LETTERS_IN_A_LINE = 142


def title(rows: pd.DataFrame) -> str:
    """`resnet, batch size 32 per GPU`."""
    model = _values(rows, "model") or "model not known"
    batch = _values(rows, "batch_per_gpu")
    return f"{model}, batch size {batch} per {unit(rows)}" if batch else model


def unit(rows: pd.DataFrame) -> str:
    """What one worker runs on."""
    devices = set(rows["device"]) - {""}
    return "worker" if devices == {"cpu"} else "GPU"


def caption(rows: pd.DataFrame, lines: Sequence[Line]) -> str:
    """The lines under the plot."""
    sentences = [_what(rows), _where(rows), _when(rows), _reading(rows, lines), _one_machine(rows)]
    wrapped = textwrap.wrap(" ".join(filter(None, sentences)), LETTERS_IN_A_LINE)
    return "\n".join(wrapped)


def _what(rows: pd.DataFrame) -> str:
    data = _values(rows, "data")
    of = f" on {data} data" if data else ""
    precision = _values(rows, "precision")
    steps = _span(rows["measured_steps"])
    warmup = _span(rows["warmup_steps"])
    ran = f", {steps} steps after {warmup} of warm-up" if steps and warmup else ""
    compiled = " with XLA" if set(rows["xla"]) == {"on"} else ""
    kernels = " without oneDNN" if set(rows["onednn"]) == {"off"} else ""
    how = f" in {precision}{compiled}{kernels}" if precision else ""
    return f"Training throughput{of}{how}{ran}."


def _where(rows: pd.DataFrame) -> str:
    hardware = _values(rows, "gpu_type") or _values(rows, "device")
    machines = rows["machines"].max()
    on = ""
    if machines > 0:
        on = " on one machine" if machines == 1 else f" on up to {machines:g} machines"
    versions = _values(rows, "tensorflow")
    shares = sorted(set(rows["cpus_per_worker"]) - {0.0})
    each = " or ".join(fact_in_words("cpus_per_worker", share) for share in shares)
    words = f"{hardware}{on}" + "".join(
        f", {fact}" for fact in (each, versions and f"TensorFlow {versions}") if fact
    )
    return f"Measured with: {words.strip(' ,')}." if words.strip() else ""


def _when(rows: pd.DataFrame) -> str:
    days = sorted({when[:10] for when in rows["start_utc"] if when})
    if not days:
        return "When is not in the log (an older script wrote it)."
    return f"On {days[0]}." if len(days) == 1 else f"From {days[0]} to {days[-1]}."


def _reading(rows: pd.DataFrame, lines: Sequence[Line]) -> str:
    methods = {point.speed.method for line in lines for point in line.points}
    kinds = sorted(
        {
            "repeats" if "repeats" in method else "batch means"
            for method in methods
            if "repeats" in method or "batch means" in method
        }
    )
    bars = f"Bars: 95 % interval ({' or '.join(kinds)}). " if kinds else ""
    names = sorted({line.baseline.name.replace("_", " ") for line in lines if line.baseline})
    if not names:
        return bars.strip()
    one = f"one {unit(rows)} ({' or '.join(names)})"
    return f"{bars}Ideal: images/sec of {one} × {unit(rows)}s; percentages: measured ÷ ideal."


def _one_machine(rows: pd.DataFrame) -> str:
    shared = rows[(rows["machines"] > 0) & (rows["machines"] < rows["nodes"])]
    if shared.empty:
        return ""
    return f"{text(shared['nodes'].max())} processes on one machine are not " + (
        f"{text(shared['nodes'].max())} nodes."
    )


def _span(numbers: pd.Series) -> str:
    """`100`, or `30 to 100`, or nothing."""
    ends = dict.fromkeys(text(number) for number in (numbers.min(), numbers.max()))
    return " to ".join(ends)


def _values(rows: pd.DataFrame, column: str) -> str:
    """The distinct values of a column, at most three of them."""
    found = [text(value) if isinstance(value, float) else str(value) for value in rows[column]]
    distinct = sorted(dict.fromkeys(word for word in found if word))
    more = f" and {len(distinct) - 3} more" if len(distinct) > 3 else ""
    joined = ", ".join(distinct[:3]) + more
    return "".join(letter for letter in joined if letter.isprintable())

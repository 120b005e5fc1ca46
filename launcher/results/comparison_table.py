"""A comparison for the terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from dataclasses import asdict

from rich.table import Table
from rich.text import Text

from launcher.results.compare import DETAILS, Comparison
from launcher.results.table import PADDING

COLOURS = {"faster": "green", "slower": "red"}


def comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """One row per configuration, within 80 columns; under it what each ratio was taken over."""
    shared = {
        fact for fact in DETAILS if len({one.configuration.get(fact) for one in comparisons}) == 1
    }
    methods = sorted({one.method for one in comparisons if one.method})
    table = Table(
        box=None, pad_edge=False, padding=PADDING, header_style="bold", caption_justify="left"
    )
    table.caption = "B ÷ A over " + "; ".join(methods) if methods else None
    table.add_column("configuration", overflow="fold", min_width=20)
    for name in ("A", "B", "B ÷ A", "95 %"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", overflow="fold", min_width=8)
    for one in comparisons:
        ratio = one.ratio
        known = ratio.value == ratio.value
        bounded = ratio.low == ratio.low
        table.add_row(
            Text(one.name(besides=shared)),
            _speed(one.speed_a),
            _speed(one.speed_b),
            f"{ratio.value:.3f}" if known else "",
            f"{ratio.low:.3f}–{ratio.high:.3f}" if bounded else "",
            Text(one.verdict, style=COLOURS.get(one.verdict, "")),
        )
    return table


def comparison_json(comparisons: Sequence[Comparison], slower: Collection[Comparison]) -> str:
    """The same for programs, with those called out that are slower than is allowed. What is not a
    number becomes null.
    """
    return json.dumps(
        [
            {
                "configuration": dict(one.configuration),
                "images_per_sec_a": _finite(one.speed_a),
                "images_per_sec_b": _finite(one.speed_b),
                "ratio": {name: _finite(value) for name, value in asdict(one.ratio).items()},
                "method": one.method,
                "verdict": one.verdict,
                "too_slow": one in slower,
            }
            for one in comparisons
        ]
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _speed(images_per_sec: float) -> str:
    return "" if images_per_sec != images_per_sec else f"{images_per_sec:,.1f}"

"""What a person sees of a training: the live view, and where things are in a drawn ROC curve."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from test_plan import hello, nodes
from test_training_course import TRAINING, VALIDATED, curve, parsed

from launcher.plan import make_plan
from launcher.results.roc import write_roc
from launcher.tasks import Options
from launcher.training.view import TrainingDisplay
from perftest.protocol import Progress, RocCurve, TrainingStarts


def seen_live(*told: tuple[int, object]) -> list[str]:
    """The lines of the last picture of two workers' training, on a terminal of 80 columns."""
    # Without colours, the part of the bar that is not done is blank.
    file = io.StringIO()
    console = Console(file=file, width=80, height=24, force_terminal=True, no_color=True)
    options = Options("deepmnist", batch_size=8, gpus_per_node=2, training=TRAINING)
    with TrainingDisplay(console, nodes(1), live=True) as display:
        display.run_started(make_plan(options, nodes(1), [hello()]))
        for worker, message in told:
            display.training(worker, message)
    text = re.sub(r"\x1b\[(?:[0-9;]*m|\?25[hl])", "", file.getvalue())
    drawn = re.split(r"(?:\r|\x1b\[(?:1A|2K))+", text)  # each is wiped off before the next
    last = [picture for picture in drawn if "2 workers" in picture][-1]
    return [line.rstrip() for line in last.splitlines()]


def test_the_live_view_shows_how_far_all_epochs_are_with_loss_and_speed() -> None:
    lines = seen_live(
        (0, TrainingStarts(64, 100, 0, 8, 0, "")),
        (0, VALIDATED),
        (0, Progress(1, 4, 1.25, 32, 2.0)),
        (1, Progress(1, 4, None, 32, 4.0)),
    )
    assert "epoch 2 of 2, step 4 of 8, loss 1.2500, 24.0 images/sec" in lines
    (bar,) = [line for line in lines if line and set(line) == {"━"}]
    assert len(bar) == 15, "12 of 16 steps, of 20 columns"
    rows = [line.split() for line in lines if line.startswith(("0 ", "1 "))]
    assert [(row[0], row[-2], row[-1]) for row in rows] == [("0", "12", "16.0"), ("1", "12", "8.0")]
    assert max(map(len, lines)) <= 80


def test_the_live_view_of_a_training_that_has_not_begun_has_no_bar() -> None:
    lines = seen_live((0, TrainingStarts(64, 100, 0, 8, 0, "")))
    assert "━" not in "".join(lines)
    assert len([line for line in lines if line.startswith(("0 ", "1 "))]) == 2


PSR = "#d55e00"
SVG = "{http://www.w3.org/2000/svg}"


class Panel:
    """One of the two, as its SVG has it: what it shows, by the labels of its axes."""

    def __init__(self, svg: Path, number: int, is_logarithmic: bool = False) -> None:
        (self._group,) = parsed(svg).findall(f".//{SVG}g[@id='axes_{number}']")
        self._is_logarithmic = is_logarithmic
        frame = self._group[0].find(f"{SVG}path")
        assert frame is not None
        corners = np.array(re.findall(r"[-\d.]+", frame.get("d", "")), float).reshape(-1, 2)
        self.left, _ = self._values(corners[:, 0].min(), 0)
        self.right, self.top = self._values(corners[:, 0].max(), corners[:, 1].min())

    def _values(self, x: float, y: float) -> tuple[float, float]:
        """What is at a place of the drawing."""
        across, up = np.polyval(self._scale("x"), x), np.polyval(self._scale("y"), y)
        return float(10**across if self._is_logarithmic else across), float(up)

    def _scale(self, axis: str) -> np.ndarray:
        """Place -> value (its logarithm in x, where it is_logarithmic) as a line through ticks."""
        places, values = [], []
        for tick in self._group.iter(f"{SVG}g"):
            label = tick.find(f".//{SVG}text")
            if tick.get("id", "").startswith(f"{axis}tick") and label is not None:
                mark = tick.find(f".//{SVG}use")
                assert mark is not None
                places.append(float(mark.get(axis, "")))
                values.append(float(label.text or ""))
        along = np.log10(values) if self._is_logarithmic and axis == "x" else np.array(values)
        return np.polyfit(places, along, 1)

    def points(self) -> list[tuple[float, float]]:
        """Where the selections by cuts are; not those in the legend."""
        marks = self._group.findall(f"{SVG}g/{SVG}g/{SVG}use")
        return [self._at(mark) for mark in marks if PSR in mark.get("style", "")]

    def _at(self, mark: ET.Element) -> tuple[float, float]:
        return self._values(float(mark.get("x", "")), float(mark.get("y", "")))


def test_the_selection_by_cuts_is_a_point_at_its_rates_in_both_panels(tmp_path: Path) -> None:
    svg = write_roc(tmp_path, curve(), [])
    whole, corner = Panel(svg, 1), Panel(svg, 2, is_logarithmic=True)
    assert (whole.left, whole.right, whole.top) == pytest.approx((0, 1, 1.01), abs=1e-4)
    for panel in (whole, corner):
        (point,) = panel.points()
        assert point == pytest.approx((1e-3, 0.35), rel=1e-3)
        assert panel.left < point[0] < panel.right
        assert point[1] < panel.top


def test_a_selection_that_keeps_no_background_is_at_the_edge_of_the_corner(tmp_path: Path) -> None:
    rates = (0.0, 0.01, 0.1, 1.0)
    asked = RocCurve(rates, tuple(rate**0.2 for rate in rates), (0.0, 0.3))
    corner = Panel(write_roc(tmp_path, asked, []), 2, is_logarithmic=True)
    (at,) = corner.points()
    assert at == pytest.approx((corner.left, 0.3), rel=1e-2)


@pytest.mark.parametrize(
    ("lowest", "cut", "left"),
    [
        (1e-10, (1e-3, 0.35), 1e-5 / 1.5),  # no search looks for rarer events
        (2e-3, (), 2e-3 / 1.5),
        (2e-3, (5e-4, 0.1), 5e-4 / 1.5),
        (5e-2, (), 1e-2),
    ],
    ids=["rare", "what the samples resolve", "the selection by cuts", "a decade at least"],
)
def test_the_corner_of_low_rates_goes_from_the_lowest_that_is_known_to_a_tenth(
    lowest: float, cut: tuple[float, ...], left: float, tmp_path: Path
) -> None:
    rates = (0.0, *np.geomspace(lowest, 1, 200))
    asked = RocCurve(rates, tuple(rate**0.2 for rate in rates), cut)
    corner = Panel(write_roc(tmp_path, asked, []), 2, is_logarithmic=True)
    assert (corner.left, corner.right) == pytest.approx((left, 0.1), rel=1e-3)
    inside = max(rate**0.2 for rate in rates if rate <= 0.1)
    assert corner.top == pytest.approx(1.08 * inside, rel=1e-3), "the curve fills it"

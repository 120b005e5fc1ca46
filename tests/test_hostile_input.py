"""Whatever is read, whoever wrote it: understood, or refused in words; and never obeyed."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from agents import JOB
from fuzz.node_targets import SAID
from fuzz.targets import SEEDS, TARGETS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from results_examples import row

from launcher.errors import ResultsError
from launcher.results.log import append_row
from launcher.results.steps import StepRecord, frame
from launcher.results.timeline import run_steps
from launcher.stall import what_is_wrong
from perftest import protocol
from perftest.protocol import MessageError, StepTimes

# The same examples each time, so that a build fails for what was changed and for nothing else.
BOUNDED = settings(
    derandomize=True,
    max_examples=60,
    deadline=timedelta(seconds=5),
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
NASTY = (
    *(b"\x00", b"\x1b[2J", b"\x9b", b"\n", b"\r", b"\xff", b"\xed\xa0\x80", b"'", b'"', b"\\"),
    *(
        b"$(touch /tmp/x)",
        b"`id`",
        b"; rm -rf /",
        b"../../",
        b"-",
        b"=1+1",
        b"%n",
        b"NaN",
        b"1e999",
    ),
    *(b"9" * 50, b"-1", b"[" * 2000, b'{"a":' * 500, b"\xc2\xb2", b"\xef\xbf\xbe", b"\xe2\x80\xae"),
    *(b",", b":", b"#", b"@", b"x" * 9999),
)


def test_all_that_is_printed_goes_through_the_one_console_that_lets_nothing_be_obeyed() -> None:
    made = re.compile(r"(?<![\w.])Console\(")
    launcher = Path(__file__).parent.parent / "launcher"
    where = {path.name for path in launcher.rglob("*.py") if made.search(path.read_text())}
    assert where == {"terminal.py"}, "launcher.terminal.console() makes them"


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_right_or_was_wrong_once_is_borne(name: str) -> None:
    for seed in SEEDS[name]:
        TARGETS[name](seed)


@st.composite
def changed(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """A seed with pieces of it cut out, doubled, or replaced by something nasty."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 20)))
        piece = draw(st.sampled_from(NASTY) | st.binary(max_size=12) | st.just(data[start:end] * 2))
        data = data[:start] + piece + data[end:]
    return data


def fuzz(name: str, target: Callable[[bytes], None]) -> None:
    @BOUNDED
    @given(changed(SEEDS[name]) | st.binary(max_size=200))
    def run(data: bytes) -> None:
        target(data)

    run()


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_does_more_than_be_understood_or_refused(name: str) -> None:
    fuzz(name, TARGETS[name])


@pytest.mark.parametrize("name", TARGETS)
def test_ten_megabytes_in_one_line_are_borne(name: str) -> None:
    for line in (b"x" * 10_000_000, b'"' * 10_000_000, b"1," * 5_000_000):
        TARGETS[name](line)


WORDS = (*(word.decode(errors="replace") for word in NASTY), "[red]", "[/]", "\ud800")


def hostile(draw: st.DrawFn, value: Any) -> Any:
    """A message with every text, and some numbers and lists, replaced by something nasty."""
    if isinstance(value, str):
        return draw(st.sampled_from(WORDS))
    if isinstance(value, tuple):
        return tuple(hostile(draw, each) for each in value) * draw(st.integers(0, 2))
    if isinstance(value, (int, float)):
        return draw(st.sampled_from((value, value, 0, -1, 2**62)))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        with contextlib.suppress(MessageError):  # its class refuses that
            changes = {name: hostile(draw, getattr(value, name)) for name in names}
            return dataclasses.replace(value, **changes)
    return value


@st.composite
def what_nodes_say(draw: st.DrawFn) -> bytes:
    """All that check is told of a node, as lines."""
    said = (hostile(draw, each) for each in SAID)
    return b"".join(protocol.encode(each) for each in said)


def test_whatever_nodes_say_is_judged_and_told_and_no_terminal_obeys_it() -> None:
    seen = set()

    @BOUNDED
    @given(what_nodes_say())
    def run(data: bytes) -> None:
        for line in data.splitlines():
            with contextlib.suppress(MessageError):
                seen.add(type(protocol.decode(line)))
        TARGETS["check"](data)

    run()
    assert seen == set(map(type, SAID)), "all of them are refused before they are looked at"


def test_a_row_is_not_added_to_a_file_that_no_reader_takes(tmp_path: Path) -> None:
    log = tmp_path / "resnet_b32.csv"
    log.write_text('"' + "x" * 200_000 + '"\n')
    with pytest.raises(ResultsError, match="larger than field limit"):
        append_row(log, row())


def test_a_number_of_updates_that_nobody_made_is_no_table_of_that_length() -> None:
    steps = frame(
        StepRecord(worker, "n", i, "measured", 0.5, 0.4, 1.0, 1 + 2**62 * i)
        for worker in range(2)
        for i in range(2)
    )
    with pytest.raises(ValueError, match="do not say which updates"):
        run_steps(steps, batch_per_gpu=1, backup_workers=1)


@pytest.mark.parametrize(
    "times",
    [
        StepTimes(0, False, (1e308,), (1.0,), (1.0,), (1,)),
        StepTimes(0, False, (1.0,), (-1.0,), (1.0,), (1,)),
        StepTimes(0, False, (1.0,), (1e308,), (1.0,), (1,)),
        StepTimes(0, False, (1.0,), (1.0,), (1.0,), (2**62,)),
    ],
)
def test_steps_that_cannot_be_computed_with_are_refused(times: StepTimes) -> None:
    assert what_is_wrong(times, 0, JOB) == "no worker can have made"

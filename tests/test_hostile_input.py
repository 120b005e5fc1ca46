"""Whatever is read, whoever wrote it: understood, or refused in words; and never obeyed."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from fuzz.targets import SEEDS, TARGETS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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

"""Where everything is printed: no terminal obeys what a node, a file or an argument says."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import TextIO

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.segment import Segment

from launcher.text import plain


def write_anything() -> None:
    """Let both streams take every text: a file name may hold bytes that are no text at all."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError, OSError):
            text: TextIO = stream
            text.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]


def console(stderr: bool = False) -> Console:
    """Where everything is printed. Of what is printed nothing but rich's own styles is obeyed."""
    # Text in a notebook, too.
    made = Console(stderr=stderr, highlight=False, emoji=False, force_jupyter=False)
    made.push_render_hook(_Plainly())
    return made


class _Plainly(RenderHook):
    """Wraps all that is printed."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Plain(each) for each in renderables]


class _Plain:
    """Something to print, with its control characters left out."""

    def __init__(self, inner: ConsoleRenderable) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self._segments(console, options)

    def _segments(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self._inner, options):
            if segment.control:
                yield segment
            else:
                yield Segment(plain(segment.text), segment.style)

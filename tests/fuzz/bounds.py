"""What a target lets a parser do: refuse in its own words, and read a file that goes away."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from launcher.errors import RunTestError

_LONGEST = 4000
_SCRATCH = Path(tempfile.gettempdir())


@contextlib.contextmanager
def refusing(*kinds: type[RunTestError]) -> Iterator[None]:
    """What a parser may raise; its message must be fit to print as it stands."""
    said = ""
    try:
        yield
    except kinds as error:
        said = str(error)
    assert len(said) <= _LONGEST, said[:200]


@contextlib.contextmanager
def scratch(name: str, data: bytes) -> Iterator[Path]:
    """A file with these bytes, in a folder that goes away."""
    with tempfile.TemporaryDirectory(dir=_SCRATCH) as folder:
        path = Path(folder) / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        yield path

"""Slurm's short way of writing many names, `gpu[01-03,7],login`, written out. Opens nothing."""

from __future__ import annotations

import re

from launcher.errors import AllocationError

_MOST_NAMES = 65536
_PIECE = re.compile(r"(?P<text>[A-Za-z0-9_.:-]+)|\[(?P<ranges>[^\[\]]*)\]|(?P<comma>,)")
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?\Z")


def expand(hostlist: str) -> list[str]:
    """The names in order, as `scontrol show hostnames` prints them, one a line.

    A number keeps the leading zeros that the first one of its range has. Raises AllocationError.
    """
    names: list[str] = []
    for word in _words(hostlist):
        found = [""]
        for part in word:
            if len(names) + len(found) * len(part) > _MOST_NAMES:
                raise _too_long()
            found = [name + each for name in found for each in part]
        names += found
    if not names:
        raise _not_a_list(hostlist)
    return names


def _words(hostlist: str) -> list[list[list[str]]]:
    """Each name of the list as its parts, and each part as all that may stand there."""
    words: list[list[list[str]]] = [[]]
    end = 0
    for piece in _PIECE.finditer(hostlist):
        if piece.start() != end:
            raise _not_a_list(hostlist)
        end = piece.end()
        if piece["comma"]:
            words.append([])
            if len(words) > _MOST_NAMES:
                raise _too_long()
        elif piece["text"]:
            words[-1].append([piece["text"]])
        else:
            words[-1].append(_numbers(piece["ranges"], hostlist))
    starts = [word[0][0] for word in words if word]
    if end != len(hostlist) or len(starts) < len(words) or any(s[0] == "-" for s in starts):
        raise _not_a_list(hostlist)
    return words


def _numbers(ranges: str, hostlist: str) -> list[str]:
    """`01-03,7` as 01, 02, 03, 7."""
    found: list[str] = []
    for text in ranges.split(","):
        match = _RANGE.match(text)
        if match is None:
            raise _not_a_list(hostlist)
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < first + _MOST_NAMES:
            raise _not_a_list(hostlist)
        if len(found) > _MOST_NAMES:
            raise _too_long()
        found += [str(number).zfill(len(match[1])) for number in range(first, last + 1)]
    return found


def _too_long() -> AllocationError:
    return AllocationError(f"a list of more than {_MOST_NAMES:,} nodes")


def _not_a_list(hostlist: str) -> AllocationError:
    shown = repr(hostlist if len(hostlist) <= 60 else hostlist[:57] + "...")
    return AllocationError(f"{shown} is not a list of nodes as Slurm writes it")

"""Which parameter server holds what: decided alike by the workers and by whoever predicts them."""

from __future__ import annotations

import math
from collections.abc import Sequence

# A smaller variable is never cut: another server's round trip costs more than its bytes. Nor is
# what is left of a larger one, below the second of these.
LEAST_CUT_BYTES = 4 << 20
_LEAST_REST_BYTES = 1 << 20
# How much of its fair share a server may hold beyond it before a variable is cut.
_SLACK = 0.02

# A piece of a variable: its server, its first row, and the row behind its last.
Piece = tuple[int, int, int]


def place_variables(variables: Sequence[tuple[int, int]], servers: int) -> list[list[Piece]]:
    """The pieces of each variable, in the order of its rows; most have one.

    variables: number of rows (of the first axis) and bytes of a row of each. The largest first,
    each goes to the server that holds the fewest bytes so far. One that would give that server
    more than a fair share of all bytes is cut there, between two rows, and its rest goes on
    likewise.
    """
    held = [0] * servers
    share = sum(rows * row_bytes for rows, row_bytes in variables) / servers
    found: list[list[Piece]] = [[] for _ in variables]
    by_size = sorted(range(len(variables)), key=lambda i: (-variables[i][0] * variables[i][1], i))
    for i in by_size:
        rows, row_bytes = variables[i]
        least = _LEAST_REST_BYTES if rows * row_bytes >= LEAST_CUT_BYTES else math.inf
        begin = 0
        while begin < rows or not found[i]:
            server = min(range(servers), key=lambda s: (held[s], s))
            left = (rows - begin) * row_bytes
            end = rows
            if left > share - held[server] + _SLACK * share and left >= least:
                end = begin + min(rows - begin, max(1, round((share - held[server]) / row_bytes)))
            found[i].append((server, begin, end))
            held[server] += (end - begin) * row_bytes
            begin = end
    return found

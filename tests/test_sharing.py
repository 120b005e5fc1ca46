"""Which server holds what: balanced by bytes, and no variable cut that need not be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perftest.protocol import LEAST_CUT_BYTES, place_variables

MIB = 1 << 20
# Rows and bytes of a row of AlexNet's largest: fc6, fc7, fc8, conv3; and its small ones as one.
ALEXNET = [(9216, 16384), (4096, 16384), (4096, 4000), (3, 884736), (1, 7_000_000)]


def held(variables: list[tuple[int, int]], servers: int) -> list[int]:
    """The bytes of each server."""
    found = [0] * servers
    for (_, row_bytes), pieces in zip(variables, place_variables(variables, servers), strict=True):
        for server, begin, end in pieces:
            found[server] += (end - begin) * row_bytes
    return found


@pytest.mark.parametrize(
    ("sizes", "servers", "chosen"),
    [
        ([10, 1, 1, 8], 2, [0, 1, 1, 1]),
        ([4, 4, 4, 4], 2, [0, 1, 0, 1]),
        ([5], 3, [0]),
        ([], 2, []),
        ([1, 2, 3], 1, [0, 0, 0]),
    ],
)
def test_small_variables_go_whole_to_the_server_that_holds_least(
    sizes: list[int], servers: int, chosen: list[int]
) -> None:
    placed = place_variables([(1, size) for size in sizes], servers)
    assert placed == [[(server, 0, 1)] for server in chosen]


@pytest.mark.parametrize("servers", [2, 3, 4, 8])
def test_a_variable_larger_than_a_fair_share_is_cut_between_rows(servers: int) -> None:
    share = sum(rows * row_bytes for rows, row_bytes in ALEXNET) / servers
    assert ALEXNET[0][0] * ALEXNET[0][1] > share
    assert max(held(ALEXNET, servers)) < 1.06 * share


@given(
    st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 1 << 16)), max_size=30),
    st.integers(1, 9),
)
def test_every_row_is_somewhere_once_and_no_server_has_much_more_than_its_share(
    variables: list[tuple[int, int]], servers: int
) -> None:
    placed = place_variables(variables, servers)
    for (rows, row_bytes), pieces in zip(variables, placed, strict=True):
        assert [begin for _, begin, _ in pieces] == [0, *(end for *_, end in pieces[:-1])]
        assert pieces[-1][2] == rows
        assert len(pieces) == 1 or rows * row_bytes >= LEAST_CUT_BYTES
    found = held(variables, servers)
    assert max(found) <= 1.02 * sum(found) / servers + LEAST_CUT_BYTES + (1 << 16)


@given(st.integers(0, 3), st.integers(1, 4))
def test_variables_without_bytes_are_somewhere_too(count: int, servers: int) -> None:
    assert place_variables([(0, 4)] * count, servers) == [[(0, 0, 0)]] * count

"""What all tests share: the throwaway hosts, started by the first test that needs them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hosts import NamespaceHosts, why_not


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs throwaway hosts where there can be none, and say why."""
    network = [item for item in items if item.get_closest_marker("network")]
    reason = why_not() if network else ""
    if reason:
        for item in network:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def hosts() -> Iterator[NamespaceHosts]:
    """Two hosts, shared by all tests; whoever breaks one mends it. For tests marked `network`."""
    if why_not():
        pytest.skip(why_not())
    with NamespaceHosts(2) as made:
        yield made

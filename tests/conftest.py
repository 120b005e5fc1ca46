"""What all tests share: the throwaway hosts, started by the first test that needs them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hosts import NamespaceHosts, why_not
from hypothesis import settings
from slurm import SlurmCluster, why_no_slurm

# How long an example may take says more of the machine than of the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs throwaway hosts, or Slurm, where there can be none, and say why."""
    for mark, why in (("network", why_not), ("slurm", why_no_slurm)):
        marked = [item for item in items if item.get_closest_marker(mark)]
        if marked and (reason := why()):
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def hosts() -> Iterator[NamespaceHosts]:
    """Two hosts, shared by all tests; whoever breaks one mends it. For tests marked `network`."""
    if why_not():
        pytest.skip(why_not())
    with NamespaceHosts(2) as made:
        yield made


@pytest.fixture(scope="session")
def slurm() -> Iterator[SlurmCluster]:
    """Three hosts as a cluster, for tests marked `slurm`; whoever breaks one mends it."""
    with NamespaceHosts(3) as made, SlurmCluster(made) as cluster:
        yield cluster

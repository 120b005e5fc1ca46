"""What the processors of a node belong to: cores, sockets, NUMA nodes. Standard library alone."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

_SYSTEM = Path("/sys/devices/system")


@dataclass(frozen=True)
class Processors:
    """Some processors, and in step with them what each belongs to. Cores count through sockets."""

    cpus: tuple[int, ...]
    cores: tuple[int, ...]
    sockets: tuple[int, ...]
    domains: tuple[int, ...]


def find_processors(cpus: Collection[int], system: Path = _SYSTEM) -> Processors:
    """These processors, those of one core (and of one socket) next to each other.

    What the kernel does not tell is taken as one socket, one domain, and a core for each.
    """
    places = {cpu: _socket_and_core(cpu, system) for cpu in cpus}
    ordered = tuple(sorted(cpus, key=lambda cpu: (*places[cpu], cpu)))
    numbers = {place: number for number, place in enumerate(sorted(set(places.values())))}
    domain_of = _domains(system)
    return Processors(
        cpus=ordered,
        cores=tuple(numbers[places[cpu]] for cpu in ordered),
        sockets=tuple(places[cpu][0] for cpu in ordered),
        domains=tuple(domain_of.get(cpu, 0) for cpu in ordered),
    )


def _socket_and_core(cpu: int, system: Path) -> tuple[int, int]:
    folder = system / "cpu" / f"cpu{cpu}" / "topology"
    try:
        package = int((folder / "physical_package_id").read_text())
        return package, int((folder / "core_id").read_text())
    except (OSError, ValueError):
        return 0, cpu


def _domains(system: Path) -> dict[int, int]:
    """The NUMA node of each processor, as far as the kernel has any."""
    found = {}
    for folder in system.glob("node/node*"):
        try:
            listed = (folder / "cpulist").read_text()
        except OSError:
            continue
        for first, last in re.findall(r"([0-9]+)(?:-([0-9]+))?", listed):
            for cpu in range(int(first), int(last or first) + 1):
                found[cpu] = int(folder.name.removeprefix("node"))
    return found

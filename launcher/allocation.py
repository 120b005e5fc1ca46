"""The Slurm allocation that runtest was started in, as nodes: `-h slurm`."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from launcher.errors import AllocationError
from launcher.hostlist import expand
from launcher.nodes import Node
from launcher.slurm_question import ask_slurm
from launcher.tasks import DEFAULT_FIRST_PORT

_JOB = re.compile(r"[0-9]{1,10}\Z")
_SECONDS = 15.0
# Each job has a stretch of its own, which comes round again after so many jobs. The last one ends
# below the ports that Linux gives to those who ask for any (32768).
_PORTS_OF_A_JOB = 32
_STRETCHES = 900


@dataclass(frozen=True)
class Allocation:
    """A job's id, and its nodes."""

    job: str
    nodes: tuple[Node, ...]


def find_allocation(environment: Mapping[str, str]) -> Allocation:
    """What Slurm has given to the shell that we were started by.

    Raises AllocationError outside of an allocation, and where srun is missing.
    """
    job = environment.get("SLURM_JOB_ID", "")
    listed = environment.get("SLURM_JOB_NODELIST", "")
    if not _JOB.match(job) or not listed:
        raise AllocationError(
            "-h slurm: this is not inside a Slurm allocation (no SLURM_JOB_ID, or no nodes)",
            "salloc -N2 runtest -h slurm ..., the same line in a script for sbatch, "
            "or -h with a nodes file",
        )
    if shutil.which("srun", path=environment.get("PATH")) is None:
        raise AllocationError(
            f"-h slurm: job {job} is one of Slurm's, but there is no srun on PATH",
            "PATH as it is where you call salloc or sbatch",
        )
    names = _names(listed, environment)
    addresses = _addresses(names, environment)
    where = f"Slurm job {job}"
    return Allocation(job, tuple(Node(addresses.get(n, n), n, where) for n in names))


def take_nodes(allocation: Allocation, count: int | None) -> list[Node]:
    """The first `count` nodes, or all for None. Raises AllocationError when there are fewer."""
    has = len(allocation.nodes)
    if count is not None and count > has:
        raise AllocationError(
            f"Slurm job {allocation.job} has {has} node{'s' * (has != 1)}, but -n asks for {count}",
            f"-n {has}, or an allocation with -N{count}",
        )
    return list(allocation.nodes[:count])


def with_ports(nodes: Sequence[Node], job: str, first_port: int) -> list[Node]:
    """The nodes with first ports that other jobs on them do not begin with.

    A first port that a person has chosen is kept: 2222 is what nobody has to choose.
    """
    if first_port != DEFAULT_FIRST_PORT:
        return list(nodes)
    own = first_port + _PORTS_OF_A_JOB * (int(job) % _STRETCHES)
    return [replace(node, first_port=own) for node in nodes]


def _names(listed: str, environment: Mapping[str, str]) -> list[str]:
    """Slurm writes out its own lists; where scontrol is missing or fails, we do."""
    said = _ask(["scontrol", "show", "hostnames", listed], environment)
    return said.split() or expand(listed)


def _addresses(names: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """The address by which nodes know each other, for each name of which Slurm tells it."""
    said = _ask(["scontrol", "--oneliner", "show", "node", ",".join(names)], environment)
    return parse_addresses(said)


def parse_addresses(said: str) -> dict[str, str]:
    """NodeAddr by NodeName, out of what `scontrol --oneliner show node` says."""
    found = re.findall(r"(?m)^NodeName=(\S+).*? NodeAddr=([A-Za-z0-9_.:-]+)", said)
    return dict(found)


def _ask(argv: Sequence[str], environment: Mapping[str, str]) -> str:
    """What a command of Slurm prints; nothing where it is missing, fails or does not answer."""
    said, problem = ask_slurm(argv, environment, _SECONDS)
    return "" if problem else said

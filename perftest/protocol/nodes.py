"""What a node is asked when it is greeted, and what it says of itself."""

from __future__ import annotations

from perftest.record import record


@record(frozen=True)
class Gpu:
    """One GPU, or one MIG slice of one. `memory_mib` is in MiB."""

    uuid: str
    name: str
    memory_mib: int
    driver: str


@record(frozen=True)
class Versions:
    """Versions of what is installed on a node; an empty string is "not installed"."""

    python: str
    tensorflow: str
    keras: str
    h5py: str
    horovod: str = ""


@record(frozen=True)
class PortRequest:
    """`count` TCP ports are wanted, the lowest that are free from `first` on."""

    first: int
    count: int


@record(frozen=True)
class Greet:
    """Ask for Hello, and for ports that no other runtest on the node will take meanwhile."""

    version: int
    session: str
    ports: tuple[PortRequest, ...]


@record(frozen=True)
class Hello:
    """What the node says of itself.

    machine: same for all agents of one machine (boot id).  network: same for all agents that share
    one set of ports.  cpus: processors that the agent may use,
    threads of one core next to each other.  cores, sockets, domains: numbers of what each of `cpus`
    belongs to, in step with it; empty where that is not known.  free_ports: kept for this session.
    pid: the agent's process, for the case that it does not react any more.
    """

    version: int
    host: str
    user: str
    directory: str
    executable: str
    versions: Versions
    gpus: tuple[Gpu, ...]
    gpu_problem: str
    cpus: tuple[int, ...]
    cpu_model: str
    memory_bytes: int
    disk_free_bytes: int
    addresses: tuple[str, ...]
    machine: str
    network: str
    free_ports: tuple[int, ...]
    pid: int = 0
    cores: tuple[int, ...] = ()
    sockets: tuple[int, ...] = ()
    domains: tuple[int, ...] = ()

"""What a node says of itself in Hello. Needs the standard library alone."""

from __future__ import annotations

import getpass
import importlib.util
import os
import re
import shutil
import socket
import sys
from functools import cache
from pathlib import Path

from perftest import protocol
from perftest.gpus import find_gpus
from perftest.ports import Ports
from perftest.protocol import Gpu, Greet, Hello, Versions
from perftest.topology import find_processors

_TENSORFLOW_DISTRIBUTIONS = (
    "tensorflow",
    "tensorflow-cpu",
    "tensorflow-gpu",
    "tensorflow-intel",
    "tensorflow-rocm",
    "tensorflow-cpu-aws",
    "tf-nightly",
)


def gather(greet: Greet, directory: Path, ports: Ports) -> Hello:
    """All facts of this node that a plan needs."""
    gpus, gpu_problem = _gpus()
    processors = find_processors(os.sched_getaffinity(0))
    return Hello(
        version=protocol.VERSION,
        host=socket.gethostname(),
        user=_user(),
        directory=str(directory),
        executable=sys.executable,
        versions=_versions(),
        gpus=gpus,
        gpu_problem=gpu_problem,
        cpus=processors.cpus,
        cpu_model=_cpu_model(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        disk_free_bytes=shutil.disk_usage(directory).free,
        addresses=_addresses(),
        machine=_first_line(Path("/proc/sys/kernel/random/boot_id")),
        network=os.readlink("/proc/self/ns/net"),
        free_ports=ports.keep(greet.ports),
        pid=os.getpid(),
        cores=processors.cores,
        sockets=processors.sockets,
        domains=processors.domains,
    )


# A sweep greets its nodes before every run, for the sake of the ports: what does not change between
# two runs is looked up once. nvidia-smi alone may take seconds.


@cache
def _gpus() -> tuple[tuple[Gpu, ...], str]:
    return find_gpus(os.environ)


@cache
def _versions() -> Versions:
    return Versions(
        python=".".join(map(str, sys.version_info[:3])),
        tensorflow=_version("tensorflow", _TENSORFLOW_DISTRIBUTIONS),
        keras=_version("keras", ("keras", "keras-nightly")),
        h5py=_version("h5py", ("h5py",)),
        horovod=_version("horovod", ("horovod",)),
    )


def safe_name(text: str) -> str:
    """`text` as the name of one file: letters, digits, `-`, `_` and inner dots only."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", text)[:100].lstrip(".") or "_"


def _version(module: str, distributions: tuple[str, ...]) -> str:
    """The installed version; "unknown" for a module that no known distribution brought."""
    if importlib.util.find_spec(module) is None:
        return ""
    for name in distributions:
        for folder in sys.path:
            if version := _wheels(folder).get(name):
                return version
    return _version_by_metadata(distributions)


@cache
def _wheels(folder: str) -> dict[str, str]:
    """Versions by name of what was installed there, as the names of the folders say it."""
    try:
        entries = os.listdir(folder or ".")
    except OSError:
        return {}
    found = (re.fullmatch(r"([^-]+)-([^-]+)\.dist-info", entry) for entry in entries)
    return {match[1].lower().replace("_", "-"): match[2] for match in found if match}


def _version_by_metadata(distributions: tuple[str, ...]) -> str:
    """As Python's own way has it, which knows every format and takes longer than all else here."""
    import importlib.metadata

    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return ""
    match = re.search(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    return match[1].strip() if match else ""


def _addresses() -> tuple[str, ...]:
    """The addresses of this node's interfaces, from the kernel's own tables."""
    found: set[str] = set()
    try:
        table = Path("/proc/net/fib_trie").read_text()
        found.update(re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", table))
    except OSError:
        pass
    try:
        for line in Path("/proc/net/if_inet6").read_text().splitlines():
            found.add(socket.inet_ntop(socket.AF_INET6, bytes.fromhex(line.split()[0])))
    except OSError:
        pass
    return tuple(sorted(found))


def _first_line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return socket.gethostname()

"""What a node says of its state in Inspection. Needs the standard library alone.

Runs as a process of its own (`python -m perftest.inspection`), because looking up names and
asking drivers may take many seconds on a node where something is wrong.
"""

from __future__ import annotations

import os
import re
import resource
import sys
from pathlib import Path

from perftest import errands
from perftest.gpus import find_gpu_use
from perftest.networks import find_interfaces, resolve_all
from perftest.protocol import Inspect, Inspection

# What oneDNN and Eigen choose their kernels by.
INSTRUCTION_SETS = (
    *("avx", "avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16", "amx_fp16", "asimd", "sve", "sve2", "bf16", "i8mm"),
)
# Those that gRPC obeys.
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
_CPU = Path("/sys/devices/system/cpu/cpu0/cpufreq")


def inspect(question: Inspect) -> Inspection:
    """Look at everything. What cannot be found out is empty, zero or None."""
    memory = _memory(_read(Path("/proc/meminfo")))
    return Inspection(
        instruction_sets=instruction_sets(_read(Path("/proc/cpuinfo"))),
        load=os.getloadavg()[0],
        memory_available_bytes=memory.get("MemAvailable", 0),
        swap_used_bytes=memory.get("SwapTotal", 0) - memory.get("SwapFree", 0),
        governor=_read(_CPU / "scaling_governor").strip(),
        governor_driver=_read(_CPU / "scaling_driver").strip(),
        huge_pages=chosen(_read(Path("/sys/kernel/mm/transparent_hugepage/enabled"))),
        open_files=_open_files(),
        noexec=bool(os.statvfs(".").f_flag & os.ST_NOEXEC),
        proxies=tuple(name for name in _PROXIES if os.environ.get(name, "").strip()),
        interfaces=find_interfaces(),
        resolved=resolve_all(question.names),
        gpu_use=find_gpu_use(),
    )


def instruction_sets(cpuinfo: str) -> tuple[str, ...]:
    """Those of INSTRUCTION_SETS that the text of /proc/cpuinfo has."""
    match = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    flags = set(match[1].split()) if match else set()
    return tuple(name for name in INSTRUCTION_SETS if name in flags)


def chosen(setting: str) -> str:
    """The word in brackets: `always [madvise] never` -> `madvise`."""
    match = re.search(r"\[(\w+)\]", setting)
    return match[1] if match else ""


def _memory(meminfo: str) -> dict[str, int]:
    """Bytes by name."""
    found = re.findall(r"^(\w+):\s+(\d+) kB", meminfo, re.MULTILINE)
    return {name: int(number) * 1024 for name, number in found}


def _open_files() -> int:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return limit if limit != resource.RLIM_INFINITY else 1 << 30


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(errands.serve(inspect))

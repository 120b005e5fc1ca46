"""The GPUs of a node, as nvidia-smi lists them.

Needs the standard library alone. TensorFlow is not asked, because it would take seconds and hold
memory on every GPU.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping

from perftest.protocol import Gpu, GpuUse

_TIMEOUT_SECONDS = 8
_QUERY = [
    "nvidia-smi",
    "--query-gpu=uuid,name,memory.total,driver_version",
    "--format=csv,noheader,nounits",
]
_USE = [
    "nvidia-smi",
    "--query-gpu=uuid,memory.used,utilization.gpu",
    "--format=csv,noheader,nounits",
]
_PROCESSES = ["nvidia-smi", "--query-compute-apps=gpu_uuid,pid", "--format=csv,noheader"]
_LIST = ["nvidia-smi", "-L"]
_SLICE = re.compile(
    r"\s+MIG\s+(?P<profile>\S+)\s+Device\s+\d+:\s+\(UUID:\s+(?P<uuid>MIG-[^)\s]+)\)"
)
_BOARD = re.compile(r"GPU\s+\d+:.*\(UUID:\s+(?P<uuid>GPU-[^)\s]+)\)")
_PROFILE_GB = re.compile(r"\.([0-9]{1,6})gb")


def find_gpus(environment: Mapping[str, str]) -> tuple[tuple[Gpu, ...], str]:
    """The GPUs that may be used, and in words why none can be told, if so.

    CUDA_VISIBLE_DEVICES in `environment`, with indices or UUIDs, narrows the list as CUDA would.
    """
    answer, problem = _ask(_QUERY)
    if not answer:
        return (), problem
    listing, _ = _ask(_LIST)
    gpus = parse_gpus(answer, listing)
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    return (gpus if visible is None else visible_gpus(gpus, visible)), ""


def find_gpu_use() -> tuple[GpuUse, ...]:
    """What each board does now; nothing where nvidia-smi does not tell."""
    use, _ = _ask(_USE)
    processes, _ = _ask(_PROCESSES) if use else ("", "")
    return parse_gpu_use(use, processes)


def parse_gpu_use(use: str, processes: str) -> tuple[GpuUse, ...]:
    """Out of the answers of `nvidia-smi --query-gpu=...` and `--query-compute-apps=...`."""
    running = [line.split(",")[0].strip() for line in processes.splitlines()]
    found: list[GpuUse] = []
    for line in use.splitlines():
        values = [value.strip() for value in line.split(",")]
        if len(values) == 3 and values[0].startswith("GPU-"):
            uuid, memory, busy = values
            found.append(
                GpuUse(
                    uuid=uuid,
                    used_mib=_number(memory),
                    utilization_percent=int(busy) if re.fullmatch("[0-9]{1,3}", busy) else None,
                    processes=running.count(uuid),
                )
            )
    return tuple(found)


def parse_gpus(query: str, listing: str) -> tuple[Gpu, ...]:
    """GPUs out of the answers of `nvidia-smi --query-gpu=...` and `nvidia-smi -L`.

    A GPU that is divided (MIG) is replaced by its slices, because a process can use only one.
    """
    slices = _slices_by_board(listing)
    gpus: list[Gpu] = []
    for line in query.splitlines():
        values = [value.strip() for value in line.split(",")]
        if len(values) != 4 or not values[0].startswith("GPU-"):
            continue
        uuid, name, memory, driver = values
        board = Gpu(uuid, name, _number(memory), driver)
        gpus += [_slice_of(board, *each) for each in slices.get(uuid, [])] or [board]
    return tuple(gpus)


def visible_gpus(gpus: tuple[Gpu, ...], visible: str) -> tuple[Gpu, ...]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves.

    As in CUDA, the first entry that names no GPU ends the list.
    """
    chosen: list[Gpu] = []
    for entry in (entry.strip() for entry in visible.split(",")):
        if re.fullmatch("[0-9]{1,9}", entry):
            matching = list(gpus[int(entry) : int(entry) + 1])
        else:
            matching = [gpu for gpu in gpus if entry and gpu.uuid.startswith(entry)]
        if len(matching) != 1:
            break
        chosen += matching
    return tuple(chosen)


def _number(text: str) -> int:
    """A number of MiB; 0 for what is none (`[N/A]`)."""
    return int(text) if re.fullmatch("[0-9]{1,12}", text) else 0


def _slices_by_board(listing: str) -> dict[str, list[tuple[str, str]]]:
    slices: dict[str, list[tuple[str, str]]] = {}
    board = ""
    for line in listing.splitlines():
        if match := _BOARD.match(line):
            board = match["uuid"]
        elif match := _SLICE.match(line):
            slices.setdefault(board, []).append((match["profile"], match["uuid"]))
    return slices


def _slice_of(board: Gpu, profile: str, uuid: str) -> Gpu:
    size = _PROFILE_GB.search(profile)
    memory = int(size[1]) * 1024 if size else 0
    return Gpu(uuid, f"{board.name} MIG {profile}", memory, board.driver)


def _ask(command: list[str]) -> tuple[str, str]:
    """The command's output, or the reason that there is none."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except FileNotFoundError:
        return "", ""
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"nvidia-smi did not answer: {type(error).__name__}"
    if "No devices were found" in done.stdout + done.stderr:
        return "", ""
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip().splitlines()
        return "", f"nvidia-smi failed: {said[0] if said else f'exit {done.returncode}'}"[:300]
    return done.stdout, ""

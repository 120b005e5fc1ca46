"""How workers are bound to processors, and with what threads and environment. Opens nothing.

The words of --cpu-bind are those of Slurm's srun where it has one for the same thing.
"""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from launcher.errors import PlanError, UsageError
from perftest.protocol import Hello

AUTO = "auto"
NONE = "none"
# Workers get equal shares of these: a core's threads, or a socket's cores, stay together.
UNITS = ("threads", "cores", "sockets", "ldoms")
_LISTS = ("map_cpu:", "mask_cpu:")
_WORDS = (AUTO, NONE, *UNITS)
_MOST_PROCESSORS = 1 << 16
# In place of a number of threads: as many as a worker has processors, or cores.
PER_WORKER = ("cpus", "cores")


@dataclass(frozen=True)
class Binding:
    """What was asked for. name: the profile's, or nothing.

    cpu_bind: auto (each worker its own share of the processors, where there are no GPUs), none,
    shares of threads, cores, sockets or ldoms (NUMA nodes), map_cpu:LIST, mask_cpu:LIST.
    threads: of TensorFlow's pools, a number or one of PER_WORKER; 0 leaves it to TensorFlow.
    environment: variables of the workers; {cpus}, {cores} and {threads} stand for a worker's own.
    """

    name: str = ""
    cpu_bind: str = AUTO
    intra_op_threads: int | str = 0
    inter_op_threads: int | str = 0
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """As the column `binding` of a log has it: nothing where nothing was asked for."""
        return ", ".join(filter(None, (self.name, self.cpu_bind * (self.cpu_bind != AUTO))))


@dataclass(frozen=True)
class Share:
    """What of its node one worker may use, or would if it were bound."""

    cpus: tuple[int, ...]
    cores: int


def check_cpu_bind(text: str, where: str = "--cpu-bind") -> str:
    """`text` itself. Raises UsageError, with the nearest word, if it is none of ours."""
    if text in _WORDS:
        return text
    head, colon, _ = text.partition(":")
    if colon and head + colon in _LISTS:
        sets_of(text, where)
        return text
    near = difflib.get_close_matches(text, _WORDS, n=1)
    raise UsageError(
        f"{where} {text[:60]!a} is none of {', '.join((*_WORDS, *(f'{w}LIST' for w in _LISTS)))}",
        near[0] if near else "cores",
    )


def sets_of(text: str, where: str = "--cpu-bind") -> list[tuple[int, ...]]:
    """The sets of processors that map_cpu: or mask_cpu: lists, one a worker. Raises UsageError."""
    kind, _, rest = text.partition(":")
    sets: list[tuple[int, ...]] = []
    for word in rest.split(","):
        number = _number(word.strip(), 10 if kind == "map_cpu" else 16)
        if kind == "map_cpu" and number is not None and number < _MOST_PROCESSORS:
            sets.append((number,))
        elif kind == "mask_cpu" and number:
            sets.append(tuple(bit for bit in range(number.bit_length()) if number >> bit & 1))
        else:
            what = "the number of a processor" if kind == "map_cpu" else "a mask of processors"
            raise UsageError(
                f"{where} {kind}: {word[:40]!a} is not {what}",
                "map_cpu:0,1" if kind == "map_cpu" else "mask_cpu:0x3,0xc",
            )
    return sets


def _number(word: str, base: int) -> int | None:
    """A number as srun reads it: masks are hexadecimal with 0x and without."""
    if re.fullmatch(r"0x[0-9a-fA-F]{1,4096}", word):
        return int(word, 16)
    digits = r"[0-9]{1,6}" if base == 10 else r"[0-9a-fA-F]{1,4096}"
    return int(word, base) if re.fullmatch(digits, word) else None


def share_out(
    cpu_bind: str, hellos: Mapping[int, Hello], workers_per_node: int
) -> dict[int, list[Share]]:
    """The share of each worker, by node: equal ones, apart from each other.

    Nodes that have the same processors of one machine share them out among all their workers. Where
    workers outnumber what is shared out, several get the same. Raises PlanError for a list with
    processors that a node does not have.
    """
    shares: dict[int, list[Share]] = {node: [] for node in hellos}
    sharing: dict[tuple[str, frozenset[int]], list[int]] = defaultdict(list)
    for node, hello in hellos.items():
        sharing[hello.machine, frozenset(hello.cpus)].append(node)
    for members in sharing.values():
        hello = hellos[members[0]]
        workers = [node for node in members for _ in range(workers_per_node)]
        cores = dict(zip(hello.cpus, hello.cores or hello.cpus, strict=True))
        for node, cpus in zip(workers, _sets(cpu_bind, hello, len(workers)), strict=True):
            shares[node].append(Share(cpus, len({cores[cpu] for cpu in cpus})))
    return shares


def _sets(cpu_bind: str, hello: Hello, workers: int) -> list[tuple[int, ...]]:
    """The processors of each of the workers that share one node's."""
    if cpu_bind.startswith(_LISTS):
        listed = sets_of(cpu_bind)
        for cpu in (cpu for each in listed for cpu in each):
            if cpu not in hello.cpus:
                raise PlanError(
                    f"--cpu-bind {cpu_bind[:60]}: {hello.host} has no processor {cpu} for us, but "
                    f"{ranges(hello.cpus)}",
                    "numbers of these, or --cpu-bind cores",
                )
        return [listed[number % len(listed)] for number in range(workers)]
    units = _units(cpu_bind, hello)
    each = max(1, len(units) // workers)
    sets = []
    for number in range(workers):
        first = number * each % len(units)
        sets.append(tuple(cpu for unit in units[first : first + each] for cpu in unit))
    return sets


def _units(cpu_bind: str, hello: Hello) -> list[tuple[int, ...]]:
    """What is not divided among workers; processors whose place is not known stand for themselves.

    Threads of one core stand next to each other in `hello.cpus`.
    """
    places: Sequence[int] = {
        "cores": hello.cores,
        "sockets": hello.sockets,
        "ldoms": hello.domains,
    }.get(cpu_bind, ())
    found: dict[int, list[int]] = defaultdict(list)
    for cpu, place in zip(hello.cpus, places or hello.cpus, strict=True):
        found[place].append(cpu)
    return [tuple(unit) for unit in found.values()]


def is_bound(cpu_bind: str, device: str) -> bool:
    """Whether workers keep to their shares."""
    return device != "gpu" if cpu_bind == AUTO else cpu_bind != NONE


def threads(asked: int | str, share: Share) -> int:
    """The size of a pool for one worker; 0 for TensorFlow's own choice."""
    if isinstance(asked, str):
        return share.cores if asked == "cores" else len(share.cpus)
    return asked


def environment(binding: Binding, share: Share, intra_op_threads: int) -> tuple[str, ...]:
    """The variables of one worker, each as NAME=value, with its own numbers in them."""
    numbers = {
        "{cpus}": len(share.cpus),
        "{cores}": share.cores,
        "{threads}": intra_op_threads or len(share.cpus),
    }
    filled = []
    for name, value in binding.environment.items():
        for placeholder, number in numbers.items():
            value = value.replace(placeholder, str(number))
        filled.append(f"{name}={value}")
    return tuple(filled)


def ranges(numbers: Sequence[int]) -> str:
    """`0-3,8` for 0, 1, 2, 3 and 8."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in found)

"""The options that bind workers to processors, and what they become."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from launcher import binding_profiles
from launcher.binding import Binding, check_cpu_bind
from launcher.errors import UsageError

OPTIONS = (
    click.option(
        "--cpu-bind",
        metavar="HOW",
        default="",
        help="Bind each worker to a share of its node: threads, cores, sockets, ldoms (NUMA "
        "nodes), none, map_cpu:LIST or mask_cpu:LIST, as srun has them. "
        "[default: auto, threads where there are no GPUs]",
    ),
    click.option(
        "--binding",
        metavar="NAME",
        default="",
        help="A profile of threads and variables: intel, haswell, knl, amd, arm, gpu, unbound, or "
        "one of --binding-file.",
    ),
    click.option(
        "--binding-file",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="More profiles, in a file like launcher/bindings.ini.",
    ),
    click.option(
        "--intra-op-threads",
        type=click.IntRange(1, 4096),
        metavar="N",
        help="Threads that share one operation. [default: the profile's, or TensorFlow's choice]",
    ),
    click.option(
        "--inter-op-threads",
        type=click.IntRange(1, 4096),
        metavar="N",
        help="Operations that run side by side. [default: likewise]",
    ),
)


def make_binding(values: dict[str, Any]) -> Binding:
    """The binding that was asked for; single options go before the profile. Raises UsageError."""
    name, file, cpu_bind = values["binding"], values["binding_file"], values["cpu_bind"]
    if file is not None and not name:
        raise UsageError("--binding-file has no meaning without --binding", "--binding NAME")
    found = binding_profiles.find(name, file) if name else Binding()
    if cpu_bind:
        found = replace(found, cpu_bind=check_cpu_bind(cpu_bind))
    threads = {each: values[each] for each in ("intra_op_threads", "inter_op_threads")}
    return replace(found, **{each: count for each, count in threads.items() if count})

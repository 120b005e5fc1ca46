"""What several commands do alike: look at a model's name, find and open the nodes, draw a log."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape

from launcher import allocation, payload
from launcher.cli_options import SLURM, Where
from launcher.display import Display
from launcher.errors import RunTestError, UsageError
from launcher.nodes import Node, read_nodes, take_nodes
from launcher.plan import greeting
from launcher.provenance import new_run_id
from launcher.results.room import existing_part, try_to_write
from launcher.session import NodeOptions, Session
from launcher.startup import process_began
from launcher.tasks import Options
from launcher.transports.base import Transport
from launcher.transports.local import LocalTransport
from launcher.transports.slurm import SlurmTransport

_MODEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,80}\Z")


def check_model(name: str) -> None:
    """Raises UsageError for a name that is no model here, before any node is asked."""
    if not _MODEL.match(name):
        raise UsageError(f"-m {name[:80]!r} is not the name of a model", "runtest run --help")
    if name.startswith("keras:"):
        return  # the nodes know which networks their Keras has
    # In a process of its own: the launcher never imports what runs on the nodes.
    done = subprocess.run(
        [sys.executable, "-m", "models", name],
        capture_output=True,
        text=True,
        check=False,
        cwd=payload.source_folder("models"),  # and not a folder "models" of the user's
    )
    if done.returncode:
        raise UsageError(
            done.stderr.strip().splitlines()[-1] if done.stderr else f"no model {name}"
        )


def check_logs(logs_dir: Path, option: str = "--logs") -> None:
    """Raises UsageError where nothing could be written, before anything is measured for it."""
    try:
        place = existing_part(logs_dir)
    except OSError as error:  # a name that is too long
        said = f"{str(logs_dir)[:80]!r}: {error.strerror}"
        raise UsageError(f"{option} {said}", "another folder") from error
    try:
        try_to_write(place)
    except OSError as error:
        raise UsageError(
            f"{option} {logs_dir}: nothing can be written in {place}: {error.strerror or error}",
            "free some space, or name another folder",
        ) from error


def find_nodes(where: Where, err: Console, needed: int = 1) -> tuple[list[Node], Transport]:
    """The nodes to use, and the way to reach them; `needed` of this machine where no -n says."""
    if where.nodes_file is None:
        count = where.count or needed
        return [Node("127.0.0.1", f"local{i}") for i in range(count)], LocalTransport()
    if where.nodes_file == SLURM:
        found = allocation.find_allocation(os.environ)
        mine = allocation.take_nodes(found, where.count)
        mine = allocation.with_ports(mine, found.job, where.first_port)
        return mine, SlurmTransport(found.job, os.environ)
    nodes = take_nodes(read_nodes(where.nodes_file), where.count, str(where.nodes_file))
    from launcher.transports.ssh import SshTransport  # Fabric takes a while to import

    def warn(text: str) -> None:
        err.print(f"note: {escape(text)}", soft_wrap=True)

    return nodes, SshTransport(ssh_config=where.ssh_config, warn=warn)


def node_options(where: Where) -> NodeOptions:
    """How the agents are started."""
    # Slurm's nodes see the files, and the environment, of the one that we are on.
    is_here = where.nodes_file in (None, SLURM)
    default_python = sys.executable if is_here else "python3"
    return NodeOptions(where.remote_dir, where.python or default_python)


@contextmanager
def opened(
    where: Where,
    nodes: Sequence[Node],
    transport: Transport,
    asked: Options,
    err: Console,
    view: type[Display] = Display,
) -> Iterator[tuple[Session, Display]]:
    """Greeted nodes and the display that shows what they do; closed at the end."""
    with prepared(where, nodes, transport, err, view) as (session, display):
        session.open(lambda node: greeting(asked, node, session.id), display)
        yield session, display


@contextmanager
def prepared(
    where: Where,
    nodes: Sequence[Node],
    transport: Transport,
    err: Console,
    view: type[Display] = Display,
) -> Iterator[tuple[Session, Display]]:
    """A session that is not open yet, and the display that shows what its nodes do."""
    session_id = new_run_id(datetime.now(timezone.utc))
    # A command begins with its process, a function called from elsewhere does not.
    began = process_began() if click.get_current_context(silent=True) is not None else None
    with (
        view(err, nodes, live=err.is_terminal and not err.is_dumb_terminal) as display,
        Session(nodes, transport, node_options(where), session_id, began) as session,
    ):
        try:
            display.opening()
            yield session, display
        except KeyboardInterrupt as error:
            session.interrupted(error)
            with session.leaving_on_interrupt():
                display.interrupted()
            raise


def draw(log: Path, err: Console) -> Path | None:
    """The plot of a log; one that cannot be drawn is a note, because the row is safe already."""
    from launcher.results.plot import plot_log

    problems: list[str] = []
    try:
        path: Path | None = plot_log(log, problems)
    except RunTestError as error:
        path = None
        problems.append(str(error))
    print_notes(err, problems)
    return path


def print_notes(err: Console, notes: Iterable[str]) -> None:
    """Things to know, one a line."""
    for note in notes:
        err.print(f"note: {escape(note)}", soft_wrap=True)

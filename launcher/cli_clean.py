"""`runtest clean`: what earlier runs left on the nodes, shown, ended and removed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from typing import Any

import click
from rich.console import Console

from launcher import cli_options as options
from launcher.cleaning import Answers, Cleaning
from launcher.cli_shared import find_nodes, node_options, print_notes
from launcher.errors import NodesFailed, UsageError
from launcher.nodes import Node
from launcher.provenance import new_run_id
from launcher.session import Session
from launcher.terminal import console
from perftest.protocol import Leftover

_RUN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}\Z")
_HEAD = ("node", "what", "state", "pid", "age", "size", "session", "run", "command or path")


@click.command()
@click.argument("run", metavar="[RUN]", default="")
@options.where_options
@click.option("--dry-run", is_flag=True, help="Only show what there is.")
def clean(run: str, dry_run: bool, **values: Any) -> None:
    """End and remove what earlier runs left on the nodes, or only what is left of RUN.

    RUN is the id of a run or, as the table shows it, of a session. What a runtest that runs at
    this moment uses is only shown, and ended only when it is named.
    """
    if run and not _RUN.match(run):
        raise UsageError(
            f"{run[:80]!r} is not the id of a run", "an id as `runtest clean` shows it"
        )
    where = options.make_where(values, None)
    err = console(stderr=True)
    nodes, transport = find_nodes(where, err)
    session_id = new_run_id(datetime.now(timezone.utc))
    with Session(nodes, transport, node_options(where), session_id) as session:
        cleaning = Cleaning(session, run)
        answers = cleaning.find()
        _show(nodes, answers, run, err)
        if not dry_run:
            answers = cleaning.clean()
    _sum_up(answers, dry_run)
    if answers.failures:
        raise NodesFailed(answers.failures)


def _show(nodes: Sequence[Node], answers: Answers, run: str, err: Console) -> None:
    rows = [
        _row(nodes[node].alias, one)
        for node, leftovers in sorted(answers.found.items())
        for one in leftovers.found
    ]
    for line in _aligned([_HEAD, *rows]) if rows else ():
        click.echo(line)
    print_notes(err, _notes(nodes, answers, run))


def _sum_up(answers: Answers, dry_run: bool) -> None:
    reached = _count(len(answers.found), "node")
    found = [one for leftovers in answers.found.values() for one in leftovers.found]
    if not found:
        click.echo(f"nothing found on {reached}")
    elif dry_run:
        click.echo("dry run: nothing was ended or removed")
    else:
        processes = sum(done.processes for done in answers.done.values())
        directories = sum(done.directories for done in answers.done.values())
        ended = _count(processes, "process", "processes")
        removed = _count(directories, "directory", "directories")
        click.echo(f"ended {ended} and removed {removed} on {reached}")


def _notes(nodes: Sequence[Node], answers: Answers, run: str) -> Iterator[str]:
    found = [one for leftovers in answers.found.values() for one in leftovers.found]
    sessions = sorted({one.session.rpartition(".")[0] for one in found if one.in_use})
    if sessions and not run:
        yield (
            f"a runtest that runs now uses {', '.join(sessions)}: left alone unless named, as in "
            f"`runtest clean ... {sessions[0]}`"
        )
    for node, leftovers in sorted(answers.found.items()):
        if leftovers.omitted:
            yield f"{nodes[node].alias}: {leftovers.omitted} more are not shown"
        for text in leftovers.strange[:20]:
            yield f"{nodes[node].alias}: {text}; it is left alone"


def _row(alias: str, one: Leftover) -> tuple[str, ...]:
    return (
        alias,
        one.kind,
        "in use" if one.in_use else "left",
        "" if one.pid is None else str(one.pid),
        _age(one.age_seconds),
        "" if one.size_bytes is None else _size(one.size_bytes),
        one.session,
        one.run or "-",
        one.text,
    )


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """The rows as lines in columns; a terminal may wrap them, but nothing is cut off."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        yield "  ".join(cells).rstrip()


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _size(size: int) -> str:
    for unit, power in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= power:
            return f"{size / power:.1f} {unit}"
    return f"{size} B"


def _count(number: int, one: str, more: str = "") -> str:
    return f"{number} {one if number == 1 else more or one + 's'}"

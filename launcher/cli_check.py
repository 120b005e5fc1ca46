"""The command `runtest check`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from launcher import cli_options as options
from launcher.cli_shared import check_model, find_nodes, prepared
from launcher.counts import NODES
from launcher.plan import check_options
from launcher.terminal import console


@click.command()
@click.option(
    "-m", "--model", default="", help="Network whose parameters cross the links: sets the ceiling."
)
@click.option(
    "-n",
    "--num-nodes",
    type=NODES,
    help="How many of the nodes to look at. [default: all of the file; 1 on this machine]",
)
@options.batch_option
@options.where_options
@options.training_options
@options.compute_options
@options.logs_option
@options.profile_option
@options.json_option
def check(
    model: str,
    num_nodes: int | None,
    batch_size: int,
    logs_dir: Path,
    profile_dir: Path | None,
    as_json: bool,
    **values: Any,
) -> int:
    """Look at everything that can be known before a run, on all nodes at once.

    Takes the options of run but --dry-run, -v and those of data, which is not looked at. Nothing
    is left in the folders of --logs and --profile. Exit status 1 when a run would fail.
    """
    if model:
        check_model(model)
    asked = options.make_options(model, batch_size, values)
    where = options.make_where(values, num_nodes)
    err = console(stderr=True)
    nodes, transport = find_nodes(where, err)
    check_options(asked, len(nodes))
    # Fabric is not needed before nodes are opened, nor pandas at all.
    from launcher.check import check as check_nodes
    from launcher.check_json import check_json
    from launcher.check_report import print_check
    from launcher.check_verdict import judge
    from launcher.findings_results import result_findings

    here = tuple(result_findings(asked, len(nodes), logs_dir, profile_dir))
    with prepared(where, nodes, transport, err) as (session, display):
        verdict = judge(check_nodes(session, asked, display), here)
    if as_json:
        click.echo(check_json(verdict))
    else:
        print_check(console(), verdict)
    return 1 if verdict.would_fail else 0

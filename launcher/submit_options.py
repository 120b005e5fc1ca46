"""The options that `runtest submit` has besides those of what it submits."""

from __future__ import annotations

from pathlib import Path

import click

from launcher import counts
from launcher.cli_options import SLURM

# Instead of the options of the same names, which say more where there is no Slurm.
NODES = click.Option(
    ["-h", "nodes_file"],
    metavar="slurm",
    type=click.Choice([str(SLURM)]),
    default=str(SLURM),
    help="The nodes are those that Slurm gives; there is nothing else to say.",
)
NUM_NODES = click.Option(
    ["-n", "--num-nodes"],
    type=counts.NODES,
    help="How many nodes to use. [default: those of the job]",
)
DRY_RUN = click.Option(["--dry-run"], is_flag=True, help="Print the scripts, submit nothing.")
OPTIONS = (
    click.Option(["--partition"], metavar="NAME", default="", help="As sbatch has it."),
    click.Option(["--constraint"], metavar="FEATURES", default="", help="As sbatch has it."),
    click.Option(["--time"], metavar="LIMIT", default="", help="As sbatch has it: 30, 2:00:00."),
    click.Option(["--account"], metavar="NAME", default="", help="As sbatch has it."),
    click.Option(
        ["--nodes", "job_nodes"],
        type=counts.NODES,
        metavar="N",
        help="Nodes of the job. [default: as many as are used; -n, or what the largest point "
        "needs]",
    ),
    click.Option(
        ["--sbatch-option"],
        metavar="OPTION",
        multiple=True,
        help="Any other option of sbatch, with its value behind `=`: --sbatch-option=--mem=16G. "
        "As often as needed.",
    ),
    click.Option(
        ["--prologue"],
        metavar="FILE",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="Lines of bash that set up the environment: module load, source activate. They are "
        "copied into the script.",
    ),
    click.Option(
        ["--gpu-type"],
        metavar="TYPE,...",
        default="",
        help="A job for each type of GPU, as Slurm's --gres calls them; with --device cpu, for "
        "each --constraint.",
    ),
    click.Option(
        ["--gpus"],
        metavar="G,...",
        default="",
        help="A job for each number of GPUs (-g) of a node.",
    ),
    click.Option(
        ["--staged-from"],
        metavar="NAME[=DIR],...",
        default="",
        help="A job for each directory of the nodes to read the data from (--stage), or without "
        "--data to work in (-r): scratch is $SCRATCH of the job.",
    ),
    click.Option(
        ["--serial"], is_flag=True, help="Each job begins when the one before it is over."
    ),
)

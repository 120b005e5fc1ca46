"""The options of how gradients go to the parameter servers."""

from __future__ import annotations

import click

OPTIONS = (
    click.option(
        "--aggregate",
        type=click.Choice(["auto", "node", "none"]),
        default="auto",
        show_default=True,
        help="Whether a node's workers add up their gradients before they go to the parameter "
        "servers. auto: with several nodes of several workers that update together.",
    ),
    click.option(
        "--gradient-dtype",
        type=click.Choice(["fp32", "fp16", "bf16"]),
        default="fp32",
        show_default=True,
        help="What gradients are on their way to the parameter servers.",
    ),
)

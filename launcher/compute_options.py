"""The options that say in which precision a worker computes and compiled by what."""

from __future__ import annotations

from typing import Any

import click

OPTIONS = (
    click.option(
        "--precision",
        type=click.Choice(["fp32", "tf32", "fp16", "bf16"]),
        default="fp32",
        show_default=True,
        help="Of the arithmetic; parameters are fp32 always. tf32: GPUs alone. fp16: with a loss "
        "scale that finds its own size.",
    ),
    click.option(
        "--xla",
        type=click.Choice(["on", "off", "auto"]),
        default="auto",
        show_default=True,
        help="Compile each step with XLA. auto: on GPUs, and not on processors.",
    ),
    click.option(
        "--onednn",
        type=click.Choice(["on", "off"]),
        default="on",
        show_default=True,
        help="Use oneDNN's kernels where workers compute on processors.",
    ),
)


def make_computing(values: dict[str, Any]) -> dict[str, Any]:
    """The fields of Options that these options fill, from what Click gives."""
    return {
        "precision": values["precision"],
        "xla": values["xla"],
        "onednn": values["onednn"] == "on",
    }

"""How many of something an option may ask for: more no nodes have, and no protocol takes."""

from __future__ import annotations

import click

_MOST = 2**31 - 1

COUNT = click.IntRange(1, _MOST)
COUNT_OR_NONE = click.IntRange(0, _MOST)
# As many as a nodes file may list; and more than a node has, or ports for as many workers.
NODES = click.IntRange(1, 10_000)
GPUS = click.IntRange(1, 4096)

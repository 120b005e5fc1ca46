"""The options that a person typed, as words that mean the same to the same command elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Set
from pathlib import Path

import click
from click.core import ParameterSource


def as_typed(ctx: click.Context, command: click.Command, without: Set[str]) -> list[list[str]]:
    """The options of `command` that were given in `ctx`, each with its value, but for those called
    `without`. Paths of this machine are written out, so that they mean the same from everywhere.
    """
    given = [
        option
        for option in command.params
        if isinstance(option, click.Option)
        and option.name is not None
        and option.name not in without
        and ctx.get_parameter_source(option.name) is not ParameterSource.DEFAULT
    ]
    return [words for option in given for words in _words(option, ctx.params[option.name or ""])]


def _words(option: click.Option, value: object) -> Iterator[list[str]]:
    if option.is_flag:
        names = option.opts if value else option.secondary_opts
        if names:
            yield [names[0]]
        return
    values = value if option.multiple and isinstance(value, (list, tuple)) else [value]
    for each in values:
        shown = Path(str(each)).absolute() if isinstance(option.type, click.Path) else each
        yield [option.opts[0], str(shown)]

"""A group of commands one of which is meant when none is named."""

from __future__ import annotations

import difflib

import click

from launcher.errors import UsageError


class DefaultGroup(click.Group):
    """A group whose command is `run` when none is named, so that old command lines still work."""

    default = "run"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default command in front of arguments that name none.

        Raises UsageError for a word that is none: the default command takes options alone.
        """
        if args and args[0] not in self.commands and args[0][:1] not in ("", "-"):
            near = difflib.get_close_matches(args[0], list(self.commands), n=1)
            raise UsageError(
                f"{args[0][:60]!a} is not a command",
                f"{ctx.command_path} {near[0]}"
                if near
                else f"one of {', '.join(sorted(self.commands))}",
            )
        if args and args[0] not in self.commands and args[0] not in ("--help", "--version"):
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options of the default command belong to the help of the group."""
        super().format_options(ctx, formatter)
        run = self.commands[self.default]
        records = [record for p in run.get_params(ctx) if (record := p.get_help_record(ctx))]
        with formatter.section("Options of run, the default command"):
            formatter.write_dl([record for record in records if "--help" not in record[0]])

"""A group of commands whose unknown names are answered with the nearest one."""

from __future__ import annotations

import click

from attngen.errors import did_you_mean


class Commands(click.Group):
    """Subcommands in the order in which they were added, which is that of the work."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            raise click.UsageError(f"no such command '{name}'; {did_you_mean(name, self.commands)}", ctx)
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

"""``bytelm --help``: the commands on one screen, in groups."""

import itertools
import textwrap
from typing import Any

import typer.core

WIDTH = 79
"""Columns; the last one of a terminal stays empty."""

GROUPS = ("start", "text", "train", "use", "judge", "share")
"""Groups of commands, in their order; others come last."""

_OTHERS = "more"


class Overview(typer.core.TyperGroup):
    """A group whose help takes a line for each command, with the name of its group before the first one.

    The group of a command is its ``rich_help_panel``.
    """

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        self.format_usage(ctx, formatter)
        summary, _, details = (self.help or "").partition("\n\n")
        formatter.write(f"{summary}\n\n")
        groups: dict[str, list[Any]] = {group: [] for group in GROUPS}
        for name in self.list_commands(ctx):
            if not self.commands[name].hidden:
                groups.setdefault(_group(self.commands[name]), []).append(self.commands[name])
        margin = 2 + max(map(len, groups))
        names = 2 + max(len(str(command.name)) for commands in groups.values() for command in commands)
        for group, commands in groups.items():
            for first, command in zip(itertools.chain([group], itertools.repeat("")), commands, strict=False):
                short = command.get_short_help_str(WIDTH - margin - names)
                formatter.write(f"{first:<{margin}}{command.name:<{names}}{short}\n")
        options = (max(param.opts, key=len) for param in self.get_params(ctx) if not getattr(param, "hidden", False))
        formatter.write(f"\n{_wrap('Options: ' + ', '.join(options) + '.')}\n{_wrap(details)}\n")


def _group(command: Any) -> str:
    panel = command.rich_help_panel
    return panel if isinstance(panel, str) else _OTHERS


def _wrap(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), WIDTH)

"""The environment as a place for options: RUNNER_NAME, or RUNNER_COMMAND_NAME for one command alone.

Rule: every option of every command has its variables, given in one place, so that none is forgotten. Where a command
means something else by a name than others do, only the longer variable counts: what was set for the run must
not choose where an export goes. What may be given several times is one value a line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click

#: Options whose short variable belongs to another command.
_ALONE = {("export", "--output"), ("export", "--status"), ("prices", "--output"), ("report", "--output")}
_ALONE |= {("render", "--limit"), ("render", "--format")}


class Lines(click.types.StringParamType):
    """A text; in the environment one a line, since a value may hold spaces and a path colons."""

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        return [line for line in rv.split("\n") if line.strip()]


def give_variables(command: str, parameters: Iterable[click.Parameter]) -> None:
    """Name the variables of a command's options."""
    for option in parameters:
        if isinstance(option, click.Option):
            option.envvar = variables(command, next(name for name in option.opts if name.startswith("--")))


def variables(command: str, flag: str) -> list[str]:
    """`run`, `--max-failures`: RUNNER_RUN_MAX_FAILURES, which wins, and RUNNER_MAX_FAILURES."""
    name = flag.lstrip("-").replace("-", "_").upper()
    own = f"RUNNER_{command.upper()}_{name}"
    return [own] if (command, flag) in _ALONE else [own, f"RUNNER_{name}"]

"""Every option of every command from the environment; a table made of the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import pytest

from runner.cli import commands
from runner.variables import variables

#: What a command takes besides its options.
ARGUMENTS = {
    "check": ["j"],
    "render": ["j"],
    "run": ["j"],
    "retry": ["j"],
    "show": ["r", "3"],
    "export": ["r"],
    "cost": ["r"],
    "report": ["r"],
}
SEVERAL = {"--set": ["a.b=two words", "c=d:e"], "--input": ["my rows/a.jsonl", "b:c.jsonl"]}


def every_option() -> Iterator[tuple[str, str]]:
    for name, command in commands.commands.items():
        for option in command.get_params(click.Context(command)):
            if isinstance(option, click.Option) and "--help" not in option.opts:
                yield name, next(word for word in option.opts if word.startswith("--"))


OPTIONS = list(every_option())


def option_of(command: str, flag: str) -> click.Option:
    found = commands.commands[command].get_params(click.Context(commands.commands[command]))
    return next(each for each in found if isinstance(each, click.Option) and flag in each.opts)


def values(option: click.Option) -> list[str]:
    """What to give it: of what it takes, not its default."""
    if option.opts[-1] in SEVERAL:
        return SEVERAL[option.opts[-1]]
    if option.multiple:
        return ["one", "two"]
    if isinstance(option.type, click.Choice):
        return [option.type.choices[-1]]
    return ["7" if option.type.name.startswith(("int", "float")) else "two words: a"]


def parsed(command: str, *words: str) -> dict[str, Any]:
    return commands.commands[command].make_context(command, [*ARGUMENTS.get(command, []), *words]).params


def test_there_are_many_options() -> None:
    assert len(OPTIONS) > 50
    assert {("run", "--set"), ("export", "--output"), ("show", "--json"), ("simulate", "--port")} <= set(OPTIONS)


@pytest.mark.parametrize("short", [False, True], ids=["of the command", "of all"])
@pytest.mark.parametrize(("command", "flag"), OPTIONS)
def test_the_environment_says_the_same_as_the_command_line(
    command: str, flag: str, short: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    option, plain = option_of(command, flag), parsed(command)
    names = variables(command, flag)
    assert names[0] == f"RUNNER_{command.upper()}_{flag[2:].upper().replace('-', '_')}"
    if short and len(names) == 1:
        monkeypatch.setenv(f"RUNNER_{flag[2:].upper()}", values(option)[0])
        assert parsed(command) == plain
        return
    given = values(option)
    on_the_line = parsed(command, flag) if option.is_flag else parsed(command, *(w for v in given for w in (flag, v)))
    monkeypatch.setenv(names[short], "1" if option.is_flag else "\n".join(given))
    assert parsed(command) == on_the_line != plain


def test_the_longer_name_wins_and_the_command_line_over_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNNER_CONCURRENCY", "1")
    monkeypatch.setenv("RUNNER_RETRY_CONCURRENCY", "2")
    assert (parsed("run")["concurrency"], parsed("retry")["concurrency"]) == (1, 2)
    assert parsed("retry", "-c", "3")["concurrency"] == 3


@pytest.mark.parametrize(
    ("command", "flag"),
    [
        *(("export", "--output"), ("export", "--status"), ("report", "--output")),
        *(("render", "--limit"), ("render", "--format")),
    ],
)
def test_what_was_set_for_the_run_does_not_choose_what_another_command_writes(command: str, flag: str) -> None:
    assert variables(command, flag) == [f"RUNNER_{command.upper()}_{flag[2:].upper()}"]


def test_several_values_are_one_a_line_and_blank_lines_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNNER_SET", "\nrequest.messages.0.content=Say it: {{ text }}\n\nvars.tone=very dry\n")
    monkeypatch.setenv("RUNNER_INPUT", "/data/set 1:2/rows.jsonl")
    params = parsed("run")
    assert params["sets"] == ("request.messages.0.content=Say it: {{ text }}", "vars.tone=very dry")
    assert params["inputs"] == ("/data/set 1:2/rows.jsonl",)

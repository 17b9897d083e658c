"""The job's request becomes a Prompt; a Prompt and a row become the body that is sent.

Rule: everything that can be said about a template without a row is said by `compile_prompt`, all mistakes at once with
file and line. What depends on the row is a Failure(INPUT) of that row: rendering never raises.

Strategy: every string with `{{`, `{%` or `{#` is a template, wherever it stands. Templates that need no column are
rendered here and now. What is left are the leaves; `render` fills them and puts them into a body whose constant parts
are shared by all rows (nobody may change them). A string that is one single `{{ expression }}` keeps the type of its
value, except in messages and `model`, which are text, `tool_calls` excepted. In the place of a message it gives a list
of messages. Where the row decides who speaks, or who calls and answers what, each row's conversation is judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

from jinja2.exceptions import TemplateError as JinjaError

from runner.conversation import mistake
from runner.errors import TemplateError
from runner.records import Failure
from runner.template.assembly import Build, Filled, joined, mapping, sequence
from runner.template.leaf import FAULTS, Leaf, Mistake, compile_history, compile_leaf
from runner.template.names import ROW, Uses
from runner.template.sandbox import BUILTINS, RowView
from runner.wire.encode import input_failure

_MARKS = ("{{", "{%", "{#")
_CORE = ("model", "messages")


class RequestTemplate(Protocol):
    """What is read of the job's `request`."""

    @property
    def model(self) -> str: ...
    @property
    def messages(self) -> str | Sequence[Mapping[str, Any] | str]: ...
    @property
    def params(self) -> Mapping[str, Any]: ...
    @property
    def extra_body(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Prompt:
    """A compiled request. `columns`: what it reads of a row; `whole_row`: it may read any column beside these."""

    columns: frozenset[str]
    required: frozenset[str]  #: the columns that no `default` or `is defined` guards
    whole_row: bool
    variables: frozenset[str]  #: the job's vars that templates use
    constants: Mapping[str, Any]  #: the top-level parameters that are the same for every row
    model_is_template: bool
    _reserved: frozenset[str]
    _leaves: tuple[Leaf, ...]
    _names: Mapping[str, Any]
    _uses_row: bool
    _judged: bool  #: whether each row's conversation is
    _build: Build

    def clashes(self, columns: Iterable[str]) -> list[str]:
        """The names among `columns` that templates use in another sense: as one of vars, as `row`, as a function."""
        return sorted(self._reserved.intersection(columns))

    def render(self, row: Mapping[str, Any]) -> dict[str, Any] | Failure:
        """The body for a row: model, messages, then the other parameters by name. Failure(INPUT) says where and why."""
        names = {**self._names, **row}
        if self._uses_row:
            names[ROW] = RowView(row)
        values = []
        for leaf in self._leaves:
            try:
                values.append(leaf.render(names))
            except FAULTS as fault:
                return input_failure(f"{leaf.path}: {_reason(fault)}")
        body: dict[str, Any] = self._build(values)
        if not body["model"]:
            return input_failure("model: the template gives an empty name for this row")
        if self._judged and (wrong := mistake(body["messages"])):
            return input_failure(wrong)
        return body


def compile_prompt(request: RequestTemplate, variables: Mapping[str, Any], where: Callable[[str], str]) -> Prompt:
    """Raises TemplateError with every mistake; `where("request.model")` gives the file and line of a dotted path."""
    compiler = _Compiler(variables, where)
    if ROW in variables:
        compiler.mistake(f"vars.{ROW}", "`row` is the whole row in templates; choose another name")
    rest = {key: (f"request.{key}", value) for key, value in request.params.items()}
    for key, value in request.extra_body.items():
        if key in rest or key in _CORE:
            compiler.mistake(f"request.extra_body.{key}", f"given twice: request.{key} has it already; remove one")
        rest[key] = (f"request.extra_body.{key}", value)
    parts = {"model": compiler.part(request.model, "request.model")}
    parts["messages"] = compiler.conversation(request.messages)
    parts |= {key: compiler.part(value, path) for key, (path, value) in sorted(rest.items())}
    if compiler.mistakes:
        raise TemplateError("\n".join(compiler.mistakes), hint="`runner render JOB` shows what templates make of rows")
    return compiler.prompt(parts)


class _Compiler:
    """Walks a request; collects leaves and mistakes."""

    def __init__(self, variables: Mapping[str, Any], where: Callable[[str], str]) -> None:
        self.mistakes: list[str] = []
        self._leaves: list[Leaf] = []
        self._uses: list[Uses] = []  # of every template, those that need no row included
        self._judged = False
        self._variables = variables
        self._where = where

    def mistake(self, path: str, message: str) -> None:
        self.mistakes.append(f"{self._where(path)}: {path}: {message}")

    def part(self, value: Any, path: str) -> Any:
        """`value` itself where it is the same for every row, else a Filled."""
        if isinstance(value, str):
            return self._string(value, path) if any(mark in value for mark in _MARKS) else value
        if isinstance(value, Mapping):
            return mapping({key: self.part(item, f"{path}.{key}") for key, item in value.items()})
        if isinstance(value, list | tuple):
            return sequence([self.part(item, f"{path}.{number}") for number, item in enumerate(value)])
        return value

    def conversation(self, messages: str | Sequence[Mapping[str, Any] | str]) -> Any:
        """The messages, with lists of them where an item, or the whole, is one single expression."""
        path = "request.messages"
        if isinstance(messages, str):
            return self._checked([self._history(messages, path)])
        pieces = []
        numbered = [(item, f"{path}.{number}") for number, item in enumerate(messages)]
        for is_history, items in groupby(numbered, lambda pair: isinstance(pair[0], str)):
            if is_history:
                pieces += [self._history(str(item), place) for item, place in items]
            else:
                pieces.append(sequence([self.part(item, place) for item, place in items]))
        return pieces[0] if len(pieces) == 1 and not self._judged else self._checked(pieces)

    def _checked(self, pieces: list[Any]) -> Any:
        """One conversation of several pieces; judged here where no row is needed for it."""
        whole = joined(pieces)
        if not isinstance(whole, Filled) and not self.mistakes and (wrong := mistake(whole)):
            self.mistake("request.messages", wrong)
        return whole

    def _history(self, source: str, path: str) -> Any:
        self._judged = True
        return self._leaf(lambda: compile_history(source, path.removeprefix("request.")), path)

    def _string(self, source: str, path: str) -> Any:
        self._judged |= _decides(path)
        return self._leaf(lambda: compile_leaf(source, path.removeprefix("request."), is_text(path)), path)

    def _leaf(self, compiled: Callable[[], Leaf], path: str) -> Any:
        try:
            leaf = compiled()
            self._uses.append(leaf.uses)
            needs_row = leaf.uses.names - self._known_names(leaf.uses)  # `row` itself is such a name
            return self._keep(leaf) if needs_row else leaf.render({**BUILTINS, **self._variables})
        except Mistake as mistake:
            self.mistake(path, str(mistake))
        except FAULTS as fault:
            self.mistake(path, _reason(fault))
        return ""

    def _known_names(self, used: Uses) -> frozenset[str]:
        return used.called | frozenset(self._variables)

    def _keep(self, leaf: Leaf) -> Filled:
        place = len(self._leaves)
        self._leaves.append(leaf)
        return Filled(lambda values: values[place])

    def prompt(self, parts: Mapping[str, Any]) -> Prompt:
        names = frozenset[str]().union(*(used.names for used in self._uses))
        reserved = frozenset({ROW}).union(*(self._known_names(used) for used in self._uses))
        known = {**BUILTINS, **self._variables}
        wanted = [((used.names - reserved) | used.row_columns, used.guarded) for used in self._uses]
        body = mapping(parts)
        return Prompt(
            columns=frozenset[str]().union(*(columns for columns, _ in wanted)),
            required=frozenset[str]().union(*(columns - guarded for columns, guarded in wanted)),
            whole_row=any(used.whole_row for used in self._uses),
            variables=names & frozenset(self._variables),
            constants={key: part for key, part in parts.items() if not isinstance(part, Filled)},
            model_is_template=isinstance(parts["model"], Filled),
            _reserved=reserved & names,
            _leaves=tuple(self._leaves),
            _names={name: known[name] for name in reserved & names & known.keys()},
            _uses_row=ROW in names,
            _judged=self._judged,
            _build=body.build if isinstance(body, Filled) else lambda _: dict(body),
        )


def is_text(path: str) -> bool:
    """Whether a template at this dotted path must give text, whatever the type of its value."""
    parts = path.split(".")
    if parts[1] == "messages":
        return parts[3:] != ["tool_calls"]
    return parts[1:] == ["model"]


def _decides(path: str) -> bool:
    """Whether a template at this dotted path makes more of a message than what it says: who speaks, calls, answers."""
    parts = path.split(".")
    return parts[1] == "messages" and (parts[3:4] != ["content"] or parts[-1] == "type")


def _reason(fault: BaseException) -> str:
    """What went wrong, in one sentence; Python's own exceptions do not say enough without their name."""
    if isinstance(fault, JinjaError | TypeError | ValueError | OverflowError) and str(fault):
        return str(fault)
    return f"{type(fault).__name__}: {fault}"

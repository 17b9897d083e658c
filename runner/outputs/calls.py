"""The tool calls of an answer, held against what its request offered.

Rule: total. Whatever tools a request holds and whatever an answer calls, the result is one sentence or none. A schema
that cannot be compiled is the job's mistake where the job writes it, and no reason to fail an answer where a row does.
Strategy: the tools of a job are compiled once, those of rows once for each distinct text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from runner.outputs.answer import NotJsonError, parse_json
from runner.outputs.validate import NotASchemaError, plain, validator_of, violation
from runner.records import Choice, ToolCall
from runner.wire.jsonbody import mapping, mappings, string

#: The parameters that say what may be called; all others can change from row to row without compiling anything anew.
NAMES = ("tools", "tool_choice", "functions", "function_call")
MOST_NAMED = 8

#: Takes (where the schema stands, why it cannot be used).
Complain = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Offer:
    """What may be called: each name with the validator of its arguments, None where they are free or any object."""

    functions: Mapping[str, Any]
    custom: frozenset[str]  #: their input is free text
    allowed: frozenset[str] | None = None  #: by tool_choice; None: all
    must_call: bool = False

    def complaint(self, answer: Choice) -> str | None:
        """What is wrong with the calls of an answer; None: nothing."""
        if not answer.tool_calls:
            return "tool_choice asks for a call, and the answer makes none" if self.must_call else None
        if not self.functions and not self.custom and answer.content:
            return None  # nobody asked for calls: the text is the answer
        for number, call in enumerate(answer.tool_calls, 1):
            wrong = self._of_call(call)
            if wrong:
                return f"call {number}: {wrong}" if len(answer.tool_calls) > 1 else wrong
        return None

    def _of_call(self, call: ToolCall) -> str | None:
        name = call.name
        if name is None or not (name in self.functions or name in self.custom):
            offered = [*self.functions, *self.custom]
            names = ", ".join(offered[:MOST_NAMED]) + (", …" if len(offered) > MOST_NAMED else "")
            return f"the answer calls {_quoted(name)}, which was not offered ({names or 'no tool was'})"
        if self.allowed is not None and name not in self.allowed:
            return f"the answer calls {_quoted(name)}, which tool_choice does not allow"
        return None if name in self.custom else _arguments(name, call.arguments, self.functions[name])


def _quoted(name: str | None) -> str:
    return "a tool without a name" if name is None else f"`{name}`"


def _arguments(name: str, text: str | None, validator: Any) -> str | None:
    """Function arguments are an object; some servers write none where none are due."""
    try:
        value = parse_json(text) if text and not text.isspace() else {}
    except NotJsonError as error:
        return f"the arguments of `{name}` are not JSON: {error}"
    if not isinstance(value, dict):
        return f"the arguments of `{name}` are no JSON object"
    wrong = None if validator is None else violation(validator, value)
    return None if wrong is None else f"the arguments of `{name}` break its parameters {wrong}"


def offer_of(body: Mapping[str, Any], complain: Complain = lambda place, reason: None) -> Offer:
    """What a request offers. complain: told of every schema that cannot be used; its arguments are any object then."""
    functions = {name: _compiled(schema, f"{place}.parameters", complain) for name, schema, place in _functions(body)}
    custom = [string(mapping(tool.get("custom")).get("name")) for tool in mappings(body.get("tools"))]
    allowed, must_call = _choice(body.get("tool_choice") or body.get("function_call"))
    return Offer(functions, frozenset(filter(None, custom)), allowed, must_call)


_WRITTEN = tuple(b'"%b"' % name.encode() for name in NAMES)
_NOTHING = Offer({}, frozenset())


def offer_in(body: bytes) -> Offer | None:
    """What a request as it is sent offers; compiled anew only for tools that no row had before. None: who knows (it
    nests deeper than orjson goes)."""
    if not any(name in body for name in _WRITTEN):  # bodies may be megabytes, and most need not be read for it
        return _NOTHING
    try:
        members = mapping(orjson.loads(body))
        written = orjson.dumps({name: members[name] for name in NAMES if members.get(name) is not None})
    except (TypeError, ValueError):
        return None
    return _offer_written(written)


@lru_cache(maxsize=64)
def _offer_written(members: bytes) -> Offer:
    return offer_of(orjson.loads(members))


def _functions(body: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """(name, schema of its arguments, where it stands), of `tools` and of the older `functions`."""
    tools = [mapping(tool.get("function")) for tool in mappings(body.get("tools"))]
    offered = [(function, f"tools.{number}.function") for number, function in enumerate(tools)]
    older = enumerate(mappings(body.get("functions")))
    for function, place in [*offered, *((function, f"functions.{number}") for number, function in older)]:
        name = string(function.get("name"))
        if name is not None:
            yield name, function.get("parameters"), place


def _compiled(schema: Any, place: str, complain: Complain) -> Any:
    if not schema:
        return None
    try:
        return validator_of(plain(schema))
    except NotASchemaError as error:
        complain(place, str(error))
        return None


def _choice(asked: Any) -> tuple[frozenset[str] | None, bool]:
    """tool_choice, or the older function_call: which names may be called (None: all), and whether one must be."""
    if not isinstance(asked, Mapping):
        return (frozenset() if asked == "none" else None), asked == "required"
    allowed = asked.get("allowed_tools")
    if isinstance(allowed, Mapping):
        names = [_name(tool) for tool in mappings(allowed.get("tools"))]
        return frozenset(filter(None, names)), allowed.get("mode") == "required"
    name = _name(asked)
    return (None, False) if name is None else (frozenset({name}), True)


def _name(tool: Mapping[str, Any]) -> str | None:
    for inner in (tool.get("function"), tool.get("custom"), tool):
        name = inner.get("name") if isinstance(inner, Mapping) else None
        if isinstance(name, str):
            return name
    return None

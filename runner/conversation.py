"""Conversations out of data: a column's value becomes messages, and the messages of a row are judged.

Rule: what the data says is said, never compiled and never corrected. Members of a message that nobody knows here are
kept: they are the user's own. Only what says nothing is left out, since a Parquet struct has every member: null
members of a message, of its parts and of its calls (`content` may be null), and an empty list of calls.

Strategy: the table of `spec.body` judges messages, as it does those of a job file; most messages are two texts, and
are seen to be fine without it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn

from runner.spec.body import MESSAGE
from runner.spec.positions import dotted
from runner.spec.shapes import Found, literal
from runner.spec.turns import mistakes as turns
from runner.spec.words import sort_of

_LITERAL = literal(MESSAGE)
_SPEAKERS = ("system", "developer", "user", "assistant")
_STRUCTURED = ("content", "tool_calls", "audio")


def history(value: Any) -> list[Any]:
    """The messages that a column's value is: a list of them, or text that is JSON of such a list. Null and blank text
    are a conversation that has not begun. Raises TypeError or ValueError saying what else it is."""
    if isinstance(value, str):
        value = _parsed(value) if value.strip() else None
    if value is None:
        return []
    if not isinstance(value, list):
        raise TypeError(f"gives {sort_of(value)}, where a list of messages is due")
    return [_said(message) if isinstance(message, dict) else message for message in value]


def mistake(messages: Sequence[Any]) -> str | None:
    """The first thing that is wrong with a conversation, `messages.3.role: must be …`; messages count from 0."""
    if not messages:
        return "messages: the conversation holds no message"
    special = [(number, message) for number, message in enumerate(messages) if not _is_plain(message)]
    found = next(_mistakes(special, messages), None) if special else None
    return f"{dotted(found[0])}: {found[1]}" if found else None


def _mistakes(special: Sequence[tuple[int, Any]], messages: Sequence[Any]) -> Found:
    for number, message in special:
        yield from _LITERAL.check(message, ("messages", number))
    yield from turns(messages, ("messages",))


def _is_plain(message: Any) -> bool:
    """Whether a message is a role and a text, as the table would have it."""
    return (
        type(message) is dict
        and len(message) == 2
        and type(message.get("content")) is str
        and message.get("role") in _SPEAKERS
    )


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError as error:
        raise ValueError(f"gives text that is not JSON of a list of messages: {error}") from error


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _said(message: dict[str, Any]) -> dict[str, Any]:
    if _is_plain(message):
        return message
    return {
        name: _without_nulls(value) if name in _STRUCTURED else value
        for name, value in message.items()
        if _says(name, value)
    }


def _says(name: str, value: Any) -> bool:
    if name == "content":
        return True
    return value is not None and not (name == "tool_calls" and value == [])


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(below) for name, below in value.items() if below is not None}
    return [_without_nulls(below) for below in value] if isinstance(value, list) else value


def turn(answer: Mapping[str, Any], tools: Any) -> dict[str, Any] | None:
    """The assistant's message of an answer: `content`, `refusal` and `tool_calls` of its result columns, the calls as
    the wire has them. `tools`: those of its request, which say what kind each is. None: there is no answer.

    A call that came without an id is given one: the tool's message must name it. Reasoning is no part of the turn:
    providers refuse it, or bill it again.
    """
    content, refusal = answer["content"], answer["refusal"]
    calls = wire_calls(answer["tool_calls"] or (), custom_names(tools))
    if answer["status"] == "failed" and content is None and not refusal and not calls:
        return None
    message = {"role": "assistant", "content": content if content is not None or calls or refusal else ""}
    message |= {"refusal": refusal} if refusal else {}
    return message | ({"tool_calls": calls} if calls else {})


def wire_calls(calls: Sequence[Mapping[str, Any]], custom: Collection[str]) -> list[dict[str, Any]]:
    """Calls of the result columns as the wire has them. `custom`: the tools that are no functions."""
    return [_wire_call(call, number, call["name"] in custom) for number, call in enumerate(calls)]


def custom_names(tools: Any) -> frozenset[str]:
    """The tools of a request that take text and no arguments."""
    return frozenset(tool["custom"]["name"] for tool in tools or () if tool["type"] == "custom")


def _wire_call(call: Mapping[str, Any], number: int, is_custom: bool) -> dict[str, Any]:
    kind, argument = ("custom", "input") if is_custom else ("function", "arguments")
    members = {"name": call["name"] or "", argument: call["arguments"] or ""}
    return {"id": call["id"] or f"call_{number}", "type": kind, kind: members}

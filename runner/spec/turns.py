"""Who may speak after whom: a tool's messages belong to the calls of the assistant right before them.

Rule: one tool message for each call, right after the message that makes the calls, and none beside (PROTOCOL 1.2).
What is not known yet is not judged: `is_open` says of a message that its role, its calls or its id are a template, or
that it is no message at all but a place where others will be put.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.spec.positions import Path

_SHOWN = 3


@dataclass(slots=True)
class _Calls:
    """The calls of the last message that is not a tool's; `waiting` None: nobody knows them yet."""

    at: int = 0
    ids: Sequence[Any] = ()
    waiting: list[Any] | None = None


def mistakes(
    messages: Sequence[Any], path: Path, is_open: Callable[[Any], bool] = lambda _: False
) -> Iterator[tuple[Path, str]]:
    """The tool messages that answer no call, and the calls that none answers. Each message is sound in itself."""
    calls = _Calls(waiting=[])
    for number, message in enumerate(messages):
        if is_open(message):
            calls = _Calls()
        elif message["role"] == "tool":
            if wrong := _answered(calls, message["tool_call_id"]):
                yield (*path, number, "tool_call_id"), wrong
        else:
            yield from _left(calls, path)
            calls = _made(number, message)
    yield from _left(calls, path)


def _made(number: int, message: Mapping[str, Any]) -> _Calls:
    made = message.get("tool_calls") if message["role"] == "assistant" else None
    ids = [call["id"] for call in made or ()]
    return _Calls(number, ids, list(ids))


def _answered(calls: _Calls, call_id: Any) -> str | None:
    if calls.waiting is None:
        return None
    if call_id in calls.waiting:
        calls.waiting.remove(call_id)
        return None
    if call_id in calls.ids:
        return f"answers the call {call_id} a second time; a call has one tool message"
    if not calls.ids:
        return "answers no call: the message before it must be the assistant's, with tool_calls"
    return f"answers no call of the assistant's message before it, which made {_listed(calls.ids)}"


def _left(calls: _Calls, path: Path) -> Iterator[tuple[Path, str]]:
    if calls.waiting:
        yield (
            (*path, calls.at, "tool_calls"),
            f"no tool message answers {_listed(calls.waiting)}; one for each call must follow at once",
        )


def _listed(ids: Sequence[Any]) -> str:
    more = len(ids) - _SHOWN
    return ", ".join(map(str, ids[:_SHOWN])) + (f" and {more} more" if more > 0 else "")

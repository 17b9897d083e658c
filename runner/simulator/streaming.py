"""A chat completion as the event stream that OpenAI would send of it.

Rule: pure; put together again, the chunks give the completion, whatever is in it. Strategy: every choice is a row of
deltas, of which the choices take turns; a token is a delta, with its own logprob.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import orjson

from runner.simulator.answers import TOKEN_BYTES

DONE = b"data: [DONE]\n\n"


def events_of(completion: Mapping[str, Any], include_usage: bool) -> list[bytes]:
    """One event for each delta, then the usage if asked for, then [DONE]."""
    about = {name: value for name, value in completion.items() if name not in ("choices", "usage")}
    about["object"] = "chat.completion.chunk"
    aside = {"usage": None} if include_usage else {}
    turns = zip_longest(*(list(_parts(choice)) for choice in completion["choices"]))
    events = [event({**about, "choices": [part], **aside}) for turn in turns for part in turn if part is not None]
    if include_usage:
        events.append(event({**about, "choices": [], "usage": completion["usage"]}))
    return [*events, DONE]


def event(value: Any) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def half_of(events: Sequence[bytes]) -> list[bytes]:
    """What came of a stream that broke: its role and some text, never its end."""
    return list(events[: max(1, len(events) // 2)])


def _parts(choice: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    message, tokens = choice["message"], (choice["logprobs"] or {}).get("content") or ()
    index, content = choice["index"], message["content"]
    yield _part(index, {"role": "assistant", "content": None if content is None else "", "refusal": None})
    for place, piece in enumerate(_pieces(content)):
        logprobs = {"content": [tokens[place]], "refusal": None} if tokens else None
        yield _part(index, {"content": piece}, logprobs)
    for piece in _pieces(message["refusal"]):
        yield _part(index, {"refusal": piece})
    for place, call in enumerate(message.get("tool_calls", ())):
        for fragment in _fragments(call):
            yield _part(index, {"tool_calls": [{"index": place, **fragment}]})
    yield {**_part(index, {}), "finish_reason": choice["finish_reason"]}


def _part(index: int, delta: dict[str, Any], logprobs: Any = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None}


def _fragments(call: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    kind = call["type"]
    argument = "input" if kind == "custom" else "arguments"
    yield {**call, kind: {**call[kind], argument: ""}}
    for piece in _pieces(call[kind][argument]):
        yield {kind: {argument: piece}}


def _pieces(text: str | None) -> list[str]:
    text = text or ""
    return [text[place : place + TOKEN_BYTES] for place in range(0, len(text), TOKEN_BYTES)]

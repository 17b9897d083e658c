"""A row is asked for a better answer: how its body changes, and what is kept of the answer before.

Rule: pure. The new body is made from the one that was sent first, whatever had been adapted in it: keys keep their
order, and the hash stays the row's. Only the last unusable answer is shown, since one is enough to mend and the prompt
must not grow with every attempt. What is shown comes from the attempt as the journal keeps it, so a new process asks
what the last one would have asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from runner.records import Attempt, Choice, Request, ToolCall
from runner.spec.model import OnTruncation
from runner.wire.encode import BYTES_PER_TOKEN, output_cap
from runner.wire.jsonbody import compact, mapping, mappings

CAPS = ("max_completion_tokens", "max_tokens")
#: What the model is told; {error} is the row's own sentence.
MEND = "This answer cannot be used: {error}. Give the whole answer again, mended, and nothing else."
MEND_CALL = "Nothing was called: {error}. Call again, mended."

#: (request, its body) -> dollars at most, None: unknown
Bound = Callable[[Request, Mapping[str, Any]], Decimal | None]


@dataclass(frozen=True, slots=True)
class Change:
    """How the body differs from the first: its output cap is larger, an unusable answer and its error are shown."""

    growth: OnTruncation | None = None
    shown: Attempt | None = None


def changed(request: Request, change: Change, bound: Bound) -> Request:
    """The request as it is sent under `change`, with its own estimate and upper bound."""
    first = json.loads(request.body)  # not orjson, which makes floats of integers beyond 64 bit
    body = {**first, **(_larger_caps(first, change.growth) if change.growth else {})}
    if change.shown:
        body["messages"] = [*body["messages"], *_shown(body, change.shown)]
    if body == first:
        return request
    data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    more_bytes = max(0, len(data) - len(request.body))
    more_tokens = ((output_cap(body) or 0) - (output_cap(first) or 0)) * request.choices
    more_prompt = more_bytes // BYTES_PER_TOKEN
    asked = replace(
        request,
        body=data,
        tokens=request.tokens + more_prompt + more_tokens,
        prompt_tokens=request.prompt_tokens + more_prompt,
        prompt_most=None if request.prompt_most is None else request.prompt_most + more_bytes,
    )
    return replace(asked, reserved_usd=bound(asked, body))


def can_grow(body: bytes, growth: OnTruncation) -> bool:
    """Whether the body has an output cap, and one that is below the most."""
    return bool(_larger_caps(json.loads(body), growth))


def _larger_caps(body: Mapping[str, Any], growth: OnTruncation) -> dict[str, int]:
    caps = {name: body[name] for name in CAPS if type(body.get(name)) is int and 1 <= body[name] < growth.max_tokens}
    larger = {name: min(int(cap * growth.factor), growth.max_tokens) for name, cap in caps.items()}
    return {name: cap for name, cap in larger.items() if cap > caps[name]}


def _shown(body: Mapping[str, Any], answer: Attempt) -> list[dict[str, Any]]:
    """The model's turn and what is wrong with it; nothing for an answer without a word, which no server takes back."""
    content, calls = read_answer(answer.answer)
    said = {"role": "assistant", "content": content}
    if not calls:
        return [said, {"role": "user", "content": MEND.format(error=answer.error)}] if content else []
    wrong = MEND_CALL.format(error=answer.error)
    if body.get("functions") and not body.get("tools"):
        call = {"name": calls[0].name or "", "arguments": calls[0].arguments or ""}
        return [said | {"function_call": call}, {"role": "function", "name": call["name"], "content": wrong}]
    custom = {mapping(tool.get("custom")).get("name") for tool in mappings(body.get("tools"))} - {None}
    made = [_call(call, place, custom) for place, call in enumerate(calls)]
    answers = [{"role": "tool", "tool_call_id": call["id"], "content": wrong} for call in made]
    return [said | {"tool_calls": made}, *answers]


def _call(call: ToolCall, place: int, custom: Iterable[Any]) -> dict[str, Any]:
    name, text = call.name or "", call.arguments or ""
    kind, what = ("custom", "input") if call.name in custom else ("function", "arguments")
    return {"id": call.id or f"call_{place}", "type": kind, kind: {"name": name, what: text}}


def answer_text(choice: Choice) -> str | None:
    """A paid answer as `attempts[].answer` keeps it: its text or refusal; calls as `{"content", "tool_calls"}`."""
    if not choice.tool_calls:
        return choice.content or choice.refusal
    calls = [{"id": call.id, "name": call.name, "arguments": call.arguments} for call in choice.tool_calls]
    return compact({"content": choice.content, "tool_calls": calls})


def read_answer(text: str | None) -> tuple[str | None, tuple[ToolCall, ...]]:
    """Content and calls; the inverse of `answer_text`. An answer in JSON of just that form is taken for calls."""
    if not text or not (text.startswith('{"content":') and '"tool_calls":[{"id":' in text):
        return text, ()
    try:
        members = json.loads(text)
        choice = Choice(0, members["content"], tool_calls=tuple(ToolCall(**call) for call in members["tool_calls"]))
    except (ValueError, KeyError, TypeError):
        return text, ()
    words = [choice.content, *(word for call in choice.tool_calls for word in (call.id, call.name, call.arguments))]
    same = all(isinstance(word, str | None) for word in words) and answer_text(choice) == text
    return (choice.content, choice.tool_calls) if same else (text, ())

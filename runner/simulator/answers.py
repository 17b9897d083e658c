"""The chat completion that answers a request, drawn from the request alone.

Rule: pure; the same body and seed give the same answer, whoever asks and whenever.
Strategy: the hash of the body seeds one generator, and all choices are drawn from it in turn. A token is four bytes,
in the usage, in `max_tokens` and in the logprobs alike, so that the numbers of an answer fit each other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

import orjson

from runner.records import Failure
from runner.simulator.prose import paragraph, phrase, sentence
from runner.simulator.schema import value_of
from runner.wire.attach import Stamp, stamped

TOKEN_BYTES = 4
MEDIAN_TOKENS, SIGMA_TOKENS = 60, 0.6  #: of plain text answers, lognormal
REFUSAL = "I'm sorry, but I can't help with that."


@dataclass(frozen=True, slots=True)
class Blemish:
    """What is wrong with an answer on purpose."""

    refused: bool = False
    invalid: bool = False  #: prose around what should be bare JSON


WHOLE = Blemish()


def choices_of(body: Mapping[str, Any], entropy: int, blemish: Blemish = WHOLE) -> list[dict[str, Any]]:
    """The `choices` of the answer to a checked `body`. Raises ValueError for a schema that is none."""
    rng = Random(entropy)  # noqa: S311  (answers are to be repeatable, not secret)
    return [_choice(index, body, rng, blemish) for index in range(body.get("n") or 1)]


def usage_of(body: Mapping[str, Any], choices: list[dict[str, Any]], cached_tokens: int) -> dict[str, Any]:
    prompt = prompt_tokens(body)
    completion = sum(_said_tokens(choice["message"]) for choice in choices)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def prompt_tokens(body: Mapping[str, Any]) -> int:
    """Of everything the model is shown: messages and tools as JSON, media by their tables."""
    size = len(orjson.dumps(body["messages"])) + (len(orjson.dumps(body["tools"])) if body.get("tools") else 0)
    weighed = stamped(body, lambda path, where: Stamp(0, 0))
    if isinstance(weighed, Failure):
        return -(-size // TOKEN_BYTES)
    return -(-(size - weighed.inline_bytes) // TOKEN_BYTES) + weighed.tokens.likely


def tokens(text: str) -> int:
    return -(-len(text.encode()) // TOKEN_BYTES)


def max_tokens(body: Mapping[str, Any]) -> int | None:
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    return limit if isinstance(limit, int) else None


def _choice(index: int, body: Mapping[str, Any], rng: Random, blemish: Blemish) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    choice = {"index": index, "message": message, "logprobs": None, "finish_reason": "stop"}
    tool = _demanded_tool(body, rng)
    if blemish.refused:
        message["refusal"] = REFUSAL
    elif tool:
        text, whole = _cut(_tool_text(tool, rng), body)
        message["tool_calls"] = [_call(tool, _spoilt(text, blemish), rng)]
        choice["finish_reason"] = "tool_calls" if whole else "length"
    else:
        text, whole = _cut(_text(body, rng, blemish), body)
        message["content"] = text
        choice["finish_reason"] = "stop" if whole else "length"
        if body.get("logprobs"):
            choice["logprobs"] = {"content": _logprobs(text, body.get("top_logprobs") or 0, rng), "refusal": None}
    return choice


def _text(body: Mapping[str, Any], rng: Random, blemish: Blemish) -> str:
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        return _spoilt(_json(value_of(wanted["json_schema"].get("schema", {}), rng)), blemish)
    if wanted.get("type") == "json_object":
        value = {"answer": sentence(rng), "score": round(rng.random(), 2), "words": phrase(rng, 1, None).split()}
        return _spoilt(_json(value), blemish)
    text = paragraph(rng, int(TOKEN_BYTES * rng.lognormvariate(math.log(MEDIAN_TOKENS), SIGMA_TOKENS)))
    return _stopped(text, body.get("stop"))


def _spoilt(text: str, blemish: Blemish) -> str:
    return f"Sure! Here is the answer you asked for:\n{text}" if blemish.invalid else text


def _stopped(text: str, stop: str | list[str] | None) -> str:
    marks = [stop] if isinstance(stop, str) else stop or []
    places = [text.find(mark) for mark in marks if mark and mark in text]
    return text[: min(places)] if places else text


def _cut(text: str, body: Mapping[str, Any]) -> tuple[str, bool]:
    """The text within the request's limit, and whether that is all of it."""
    limit = max_tokens(body)
    if limit is None or tokens(text) <= limit:
        return text, True
    return text.encode()[: limit * TOKEN_BYTES].decode(errors="ignore"), False


def _demanded_tool(body: Mapping[str, Any], rng: Random) -> Mapping[str, Any] | None:
    """The tool that the request insists on; when it leaves the choice (`auto`), the answer is text."""
    choice = body.get("tool_choice")
    offered: list[Mapping[str, Any]] = body.get("tools") or []
    if isinstance(choice, Mapping) and choice["type"] == "allowed_tools":
        allowed = choice["allowed_tools"]
        names = [name_of(tool) for tool in allowed["tools"]]
        offered, choice = [tool for tool in offered if name_of(tool) in names], allowed.get("mode")
    if isinstance(choice, Mapping):
        return next(tool for tool in offered if name_of(tool) == name_of(choice))
    return rng.choice(offered) if choice == "required" and offered else None


def name_of(tool: Mapping[str, Any]) -> str:
    """`{"type": "function", "function": {"name": …}}`, as tools, tool choices and calls all write it."""
    return str(tool[tool["type"]]["name"])


def _tool_text(tool: Mapping[str, Any], rng: Random) -> str:
    if tool["type"] == "custom":
        return sentence(rng)
    return _json(value_of({"type": "object"} | (tool["function"].get("parameters") or {}), rng))


def _call(tool: Mapping[str, Any], text: str, rng: Random) -> dict[str, Any]:
    kind = tool["type"]
    argument = "input" if kind == "custom" else "arguments"
    return {"id": f"call_{rng.getrandbits(96):024x}", "type": kind, kind: {"name": name_of(tool), argument: text}}


def _said_tokens(message: Mapping[str, Any]) -> int:
    said = [message["content"] or "", message["refusal"] or ""]
    for call in message.get("tool_calls", ()):
        said.extend(call[call["type"]].values())
    return max(1, sum(tokens(text) for text in said))


def _logprobs(text: str, top: int, rng: Random) -> list[dict[str, Any]]:
    pieces = [text[place : place + TOKEN_BYTES] for place in range(0, len(text), TOKEN_BYTES)]
    return [_token(piece, top, rng) for piece in pieces]


def _token(piece: str, top: int, rng: Random) -> dict[str, Any]:
    chance = -rng.expovariate(8.0)
    others = [piece] + [phrase(rng, 2, TOKEN_BYTES) for _ in range(top - 1)]
    alternatives = [_chance(other, chance - 2.5 * rank) for rank, other in enumerate(others[:top])]
    return _chance(piece, chance) | {"top_logprobs": alternatives}


def _chance(piece: str, logprob: float) -> dict[str, Any]:
    return {"token": piece, "logprob": round(logprob, 6), "bytes": list(piece.encode())}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

"""Reply to outcome: the body of a chat completion, whole or as an event stream.

Rule: total and pure. Whatever status, headers and bytes came, the result is a Completion or a Failure. What `load`
gives is clean: strings are valid UTF-8, floats finite; integers are narrowed to 64 bits where they are read. Strategy:
read every choice that holds an answer (choices.py); only when none does, ask errors.py what the reply is instead.
What came back decides which of the two it is, never what was asked.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from runner.records import NO_USAGE, Billed, Choice, Completion, Failure, Kind, Reply, Status, Usage
from runner.wire.choices import ending, read_choice
from runner.wire.errors import failure, request_id
from runner.wire.jsonbody import integer, load, mapping, mappings, string
from runner.wire.sse import Streamed, assemble, is_stream
from runner.wire.usage import of_one_choice, read_usage

UNFINISHED: Final = "the stream ended before the answer did"
ENDED_BY_ERROR: Final = "the stream ended with an error"
COST_HEADER: Final = "x-litellm-response-cost"
LLAMA_CPP: Final = "timings"  #: a member of its replies alone


def decode(reply: Reply, *, choices: int, now: float, keep_raw: bool = False) -> Completion | Failure:
    """The outcome of one exchange. `choices` is the `n` that was asked for, `now` is in epoch seconds."""
    body = load(reply.body)
    stream = None
    if type(body) is not dict and _is_stream(reply):
        stream = assemble(reply.body, choices, cut=reply.cut is not None)
    if not 200 <= reply.status < 300:
        return failure(reply, stream.failed or {} if stream else body, now)
    if stream:
        return _streamed(reply, stream, choices, now, keep_raw)
    if type(body) is not dict:
        return failure(reply, body, now, _not_an_object(reply, body))
    return _whole(reply, _with_cost(reply, body), choices, now, keep_raw)


def _with_cost(reply: Reply, body: dict[str, Any]) -> dict[str, Any]:
    """LiteLLM tells the cost in a header. Not of a stream: there the headers leave before it is known."""
    told = reply.headers.get(COST_HEADER)
    usage = mapping(body.get("usage"))
    return body if told is None or usage.get("cost") is not None else {**body, "usage": {**usage, "cost": told}}


def _is_stream(reply: Reply) -> bool:
    return is_stream(reply.body) or reply.cut is not None or "event-stream" in reply.headers.get("content-type", "")


def _streamed(reply: Reply, stream: Streamed, asked: int, now: float, keep_raw: bool) -> Completion | Failure:
    usage = stream.body["usage"]
    if stream.failed is not None:
        return failure(reply, {**stream.failed, "usage": usage}, now, stream.why or ENDED_BY_ERROR)
    if not stream.complete:
        return _unfinished(reply, read_usage(usage))
    outcome = _whole(reply, stream.body, asked, now, keep_raw)
    return outcome if isinstance(outcome, Failure) else replace(outcome, first_token_s=_first_token_s(reply, stream))


def _unfinished(reply: Reply, usage: Usage) -> Failure:
    """Part of an answer is no answer; what ended the stream says of which kind that is."""
    ended = reply.cut or Failure(Kind.BAD_REPLY, UNFINISHED, status=reply.status)
    billed = Billed.MAYBE if usage == NO_USAGE else Billed.YES
    return replace(ended, billed=billed, request_id=request_id(reply), usage=usage)


def _first_token_s(reply: Reply, stream: Streamed) -> float | None:
    if stream.first_token_at is None:
        return None
    return next((round(s, 6) for received, s in reply.arrivals if received >= stream.first_token_at), None)


def _whole(reply: Reply, body: dict[str, Any], asked: int, now: float, keep_raw: bool) -> Completion | Failure:
    answers = _answers(body, asked)
    if not answers:
        return _no_answer(reply, body, now)
    usage = read_usage(body.get("usage"))
    return Completion(
        answers[0][0],
        tuple([choice for _, choice in answers]),
        usage if len(answers) == 1 or LLAMA_CPP not in body else of_one_choice(usage),
        string(body.get("model")),
        string(body.get("id")),
        integer(body.get("created")),
        string(body.get("system_fingerprint")),
        string(body.get("service_tier")),
        request_id(reply),
        raw=reply.body.decode("utf-8", "replace") if keep_raw else None,
    )


def _answers(body: dict[str, Any], asked: int) -> Sequence[tuple[Status, Choice]]:
    """Each choice that holds an answer, with its status, by index."""
    found = mappings(body.get("choices"))
    failed = bool(body.get("error"))
    if len(found) == 1 == asked:  # whatever it calls itself, it is the one
        answer = read_choice(found[0], 0, failed)
        return () if answer is None else (answer,)
    read = [read_choice(choice, index, failed) for choice, index in zip(found, _indices(found, asked), strict=True)]
    return sorted([answer for answer in read if answer is not None], key=_index)


def _index(answer: tuple[Status, Choice]) -> int:
    return answer[1].index


def _indices(found: Sequence[Mapping[str, Any]], asked: int) -> list[int]:
    # The index of a choice, not its place, says which it is. Sloppy gateways call every choice 0, or count from 1, or
    # say nothing: such a one gets the lowest free number, for dropping it would drop a paid answer.
    given: list[int | None] = []
    for choice in found:
        index = integer(choice.get("index"))
        given.append(index if index is not None and 0 <= index < asked and index not in given else None)
    free = (index for index in range(2 * len(found)) if index not in given)
    return [next(free) if index is None else index for index in given]


def _not_an_object(reply: Reply, body: Any) -> str:
    if body is not None:
        return "the reply is JSON, but not an object"
    if not reply.body[:512].lstrip():
        return "the reply is empty"
    return "the reply is no JSON" if _is_utf8(reply.body) else "the reply is not in UTF-8"


def _is_utf8(body: bytes) -> bool:
    """A character that was cut in two at the end is no other encoding."""
    try:
        getincrementaldecoder("utf-8")().decode(body)
    except UnicodeDecodeError:
        return False
    return True


def _no_answer(reply: Reply, body: dict[str, Any], now: float) -> Failure:
    choices = mappings(body.get("choices"))
    if not choices:
        return failure(reply, body, now, "the reply has no choices")
    _, outcome = ending(choices[0])
    # OpenRouter puts the error into the choice; usage, which says that it was billed, stays in the body.
    said = {**body, "error": body.get("error") or choices[0].get("error")}
    if isinstance(outcome, Kind):
        return failure(reply, said, now, f"the answer ended with finish_reason {choices[0]['finish_reason']}", outcome)
    return failure(reply, said, now, "the reply has no text, no tool call and no known finish_reason")

"""The result columns: their Arrow schema, fixed before the first reply, and a settled row as one JSON record.

Rule: a record has exactly the names of `result_schema`, in its order, and each value is JSON that `pyarrow.json` reads
back with that explicit schema: instants as ISO text in UTC, money as floats. Costs are quantised to 1e-12 dollars, so
a cost below a thousand dollars has at most 15 digits and `repr` of its float is exactly the decimal again.

Strategy: two tables of types (`ATTEMPT`, `RESULT`); what a job did not ask for is a row of `OPTIONAL` and no column.

The row's own exchange is the last one that gave an answer, if the row is not failed or failed as OUTPUT (a paid answer
that cannot be used, kept all the same): what came after it found nothing better. Every other exchange is waste, free
(0) when it was never billed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

from runner.records import Attempt, Choice, Completion, Failure, Kind, Settled, Status, Tally, ToolCall, Usage

_TEXT, _INT, _FLOAT = pa.string(), pa.int64(), pa.float64()
INSTANT = pa.timestamp("us", tz="UTC")


def _each(kind: Any, names: str) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


TOOL_CALLS = pa.list_(pa.struct(_each(_TEXT, "id name arguments")))
_TOKEN = [("token", _TEXT), ("logprob", _FLOAT)]
LOGPROBS = pa.list_(pa.struct([*_TOKEN, ("top", pa.list_(pa.struct(_TOKEN)))]))
_CHOICE = [("index", _INT), *_each(_TEXT, "content finish_reason refusal")]
CHOICES = pa.list_(pa.struct([*_CHOICE, ("tool_calls", TOOL_CALLS), ("logprobs", LOGPROBS)]))
ATTEMPT = pa.struct(
    [
        *_each(_INT, "epoch n"),
        ("started_at", INSTANT),
        *_each(_FLOAT, "seconds waited_s"),
        ("http_status", _INT),
        *_each(_TEXT, "error_kind error request_id request_hash model_returned finish_reason"),
        *_each(_INT, "prompt_tokens cached_tokens cache_write_tokens completion_tokens reasoning_tokens"),
        ("cost_usd", _FLOAT),
        ("answer", _TEXT),
    ]
)
RESULT: tuple[tuple[str, Any], ...] = (
    ("row_index", _INT),
    *_each(_TEXT, "status content"),
    ("parsed", None),  # the job's own type: ResultSpec.parsed
    *_each(_TEXT, "finish_reason refusal reasoning"),
    ("tool_calls", TOOL_CALLS),
    ("choices", CHOICES),
    ("logprobs", LOGPROBS),
    ("confidence", _FLOAT),
    *_each(_TEXT, "model model_returned response_id"),
    ("created", _INT),  # unix seconds, as the server said it
    *_each(_TEXT, "system_fingerprint service_tier endpoint"),
    *_each(_INT, "prompt_tokens cached_tokens cache_write_tokens completion_tokens reasoning_tokens total_tokens"),
    *_each(_FLOAT, "cost_usd wasted_usd total_usd"),
    ("price_source", _TEXT),
    *_each(_FLOAT, "latency_s first_token_s"),
    *_each(INSTANT, "started_at finished_at"),
    *_each(_TEXT, "error_kind error"),
    ("http_status", _INT),
    ("attempts", pa.list_(ATTEMPT)),
    *_each(_TEXT, "request_hash raw"),
)


@dataclass(frozen=True, slots=True)
class ResultSpec:
    """What a job asks for beyond the columns that every run has. `parsed` None: text answers; `choices`: n > 1."""

    parsed: Any  #: pa.DataType | None
    choices: bool
    logprobs: bool
    raw: bool
    endpoint: str


OPTIONAL: dict[str, Callable[[ResultSpec], bool]] = {
    "parsed": lambda spec: spec.parsed is not None,
    "choices": lambda spec: spec.choices,
    "logprobs": lambda spec: spec.logprobs,
    "confidence": lambda spec: spec.logprobs,
    "raw": lambda spec: spec.raw,
}
_USAGE = ("prompt_tokens", "cached_tokens", "cache_write_tokens", "completion_tokens", "reasoning_tokens")
_NO_ANSWER = Completion(Status.FAILED, (Choice(0),))


def result_schema(spec: ResultSpec) -> Any:
    """The pa.Schema of the result columns, without prefix; every column may be null."""
    asked = [(name, kind) for name, kind in RESULT if name not in OPTIONAL or OPTIONAL[name](spec)]
    return pa.schema([(name, spec.parsed if name == "parsed" else kind) for name, kind in asked])


def part_schema(inputs: Any, results: Any, prefix: str) -> Any:
    """The pa.Schema of a part: the input columns as they are, then the result columns under `prefix`."""
    return pa.schema([*inputs, *(field.with_name(prefix + field.name) for field in results)])


def prefix_of(names: Sequence[str]) -> str:
    """The prefix of the result columns of a part: its last column is request_hash, or raw when that was asked for."""
    last = names[-1]
    return last.removesuffix("raw") if last.endswith("raw") else last.removesuffix("request_hash")


def conflicts(names: Iterable[str], spec: ResultSpec, prefix: str) -> list[str]:
    """The input columns, in their order, that have the name of a result column."""
    taken = {prefix + name for name in result_schema(spec).names}
    return [name for name in names if name in taken]


def record(settled: Settled, spec: ResultSpec) -> dict[str, Any]:
    """A settled row under the names of `result_schema(spec)`, ready for JSON.

    `cost_usd` is the cost of the row's answer: null when there is no answer or when its cost is unknown. `wasted_usd`
    sums the row's other exchanges and `total_usd` all of them: 0.0 when there are none, null when one is unknown.
    Tokens are the answer's; the tokens of other exchanges stand in `attempts`.
    """
    failure = settled.outcome if isinstance(settled.outcome, Failure) else None
    answer = settled.outcome if isinstance(settled.outcome, Completion) else settled.outcome.answer or _NO_ANSWER
    line: dict[str, Any] = {
        "row_index": settled.request.index,
        "status": "failed" if failure else answer.status.value,
    }
    own = own_place([each.error_kind for each in settled.attempts], line["status"], failure.kind if failure else None)
    told = settled.attempts[-1 if own is None else own] if settled.attempts else None
    _put_answer(line, answer, spec, settled.request.choices)
    _put_source(line, settled.request.model, answer, spec.endpoint)
    _put_usage(line, answer.usage)
    _put_money(line, settled, own)
    line["latency_s"] = told.seconds if told else None
    line["first_token_s"] = answer.first_token_s
    line["started_at"] = settled.started_at
    line["finished_at"] = settled.finished_at
    line["error_kind"] = failure.kind.value if failure else None
    line["error"] = failure.message if failure else None
    line["http_status"] = failure.status if failure else told and told.http_status
    line["attempts"] = [attempt_record(attempt) for attempt in settled.attempts]
    line["request_hash"] = settled.request.hash
    if spec.raw:
        line["raw"] = answer.raw
    return line


def is_answer(error_kind: str | None) -> bool:
    """Whether an exchange of this kind gave a paid answer, if one that cannot be used."""
    return error_kind is None or error_kind == Kind.OUTPUT


def own_place(kinds: Sequence[str | None], status: str, error_kind: str | None) -> int | None:
    """Which exchange of a row, by the error kinds of all of them, gave the row its answer; None: none did."""
    if status == Status.FAILED and error_kind != Kind.OUTPUT:
        return None
    return next((place for place in range(len(kinds) - 1, -1, -1) if is_answer(kinds[place])), None)


def attempt_record(attempt: Attempt) -> dict[str, Any]:
    """An attempt under the names of `ATTEMPT`, ready for JSON."""
    usage, cost = attempt.usage, attempt.cost_usd
    return {
        "epoch": attempt.epoch,
        "n": attempt.n,
        "started_at": attempt.started_at,
        "seconds": attempt.seconds,
        "waited_s": attempt.waited_s,
        "http_status": attempt.http_status,
        "error_kind": attempt.error_kind,
        "error": attempt.error,
        "request_id": attempt.request_id,
        "request_hash": attempt.request_hash,
        "model_returned": attempt.model_returned,
        "finish_reason": attempt.finish_reason,
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "completion_tokens": usage.completion_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "cost_usd": None if cost is None else float(cost),
        "answer": attempt.answer,
    }


def attempt_from_record(line: Mapping[str, Any]) -> Attempt:
    """The inverse of `attempt_record`, from a journal line or a part. `total_tokens` is not kept in either."""
    fields = dict(line)
    usage = Usage(**{name: fields.pop(name) for name in _USAGE})
    fields["started_at"] = _instant(fields["started_at"])
    fields["cost_usd"] = _decimal(fields["cost_usd"])
    return Attempt(**fields, usage=usage)


def tally(line: Mapping[str, Any]) -> Tally:
    """The exact totals of one record, from a journal line or a part: every exchange of the row counts."""
    attempts: Sequence[Mapping[str, Any]] = line["attempts"] or ()
    total = Tally(rows={line["status"]: 1})
    own = own_place([each["error_kind"] for each in attempts], line["status"], line["error_kind"])
    for place, attempt in enumerate(attempts):
        _count(total, attempt, wasted=place != own)
    return total


def tally_attempt(line: Mapping[str, Any]) -> Tally:
    """The totals of an attempt whose row has no record yet: until an answer settles it, its cost counts as wasted."""
    total = Tally()
    _count(total, line, wasted=True)
    return total


def _count(total: Tally, attempt: Mapping[str, Any], *, wasted: bool) -> None:
    cost = _decimal(attempt["cost_usd"])
    total.exchanges += 1
    total.prompt_tokens += attempt["prompt_tokens"] or 0
    total.cached_tokens += attempt["cached_tokens"] or 0
    total.completion_tokens += attempt["completion_tokens"] or 0
    total.reasoning_tokens += attempt["reasoning_tokens"] or 0
    if cost is None:
        total.unknown_exchanges += 1
        return
    total.cost_usd += cost
    if wasted:
        total.wasted_usd += cost


def _put_answer(line: dict[str, Any], answer: Completion, spec: ResultSpec, asked: int) -> None:
    own = answer.choices[0]
    line["content"] = own.content
    if spec.parsed is not None:
        line["parsed"] = answer.parsed
    line["finish_reason"] = own.finish_reason
    line["refusal"] = own.refusal
    line["reasoning"] = own.reasoning
    line["tool_calls"] = _tool_calls(own.tool_calls)
    if spec.choices:
        line["choices"] = (
            [_choice(choice) for choice in answer.choices] if asked > 1 and answer is not _NO_ANSWER else None
        )
    if spec.logprobs:
        line["logprobs"] = _listed(own.logprobs)
        line["confidence"] = _confidence(own.logprobs)


def _put_source(line: dict[str, Any], model: str, answer: Completion, endpoint: str) -> None:
    line["model"] = model
    line["model_returned"] = answer.model
    line["response_id"] = answer.response_id
    line["created"] = answer.created
    line["system_fingerprint"] = answer.system_fingerprint
    line["service_tier"] = answer.service_tier
    line["endpoint"] = endpoint


def _put_usage(line: dict[str, Any], usage: Usage) -> None:
    line["prompt_tokens"] = usage.prompt_tokens
    line["cached_tokens"] = usage.cached_tokens
    line["cache_write_tokens"] = usage.cache_write_tokens
    line["completion_tokens"] = usage.completion_tokens
    line["reasoning_tokens"] = usage.reasoning_tokens
    line["total_tokens"] = usage.total_tokens


def _put_money(line: dict[str, Any], settled: Settled, own: int | None) -> None:
    attempts = settled.attempts
    line["cost_usd"] = float(settled.cost_usd) if own is not None and settled.cost_usd is not None else None
    line["wasted_usd"] = _dollars([each for place, each in enumerate(attempts) if place != own])
    line["total_usd"] = _dollars(attempts)
    line["price_source"] = settled.price_source


def _dollars(attempts: Sequence[Attempt]) -> float | None:
    total = Decimal(0)
    for attempt in attempts:
        if attempt.cost_usd is None:
            return None
        total += attempt.cost_usd
    return float(total)


def _decimal(dollars: float | None) -> Decimal | None:
    return None if dollars is None else Decimal(repr(dollars)).normalize()


def _instant(value: str | datetime) -> str:
    """Journals give the text itself, parts a datetime."""
    if isinstance(value, str):
        return value
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _choice(choice: Choice) -> dict[str, Any]:
    return {
        "index": choice.index,
        "content": choice.content,
        "finish_reason": choice.finish_reason,
        "refusal": choice.refusal,
        "tool_calls": _tool_calls(choice.tool_calls),
        "logprobs": _listed(choice.logprobs),
    }


def _tool_calls(calls: tuple[ToolCall, ...]) -> list[dict[str, Any]] | None:
    return [{"id": call.id, "name": call.name, "arguments": call.arguments} for call in calls] or None


def _listed(logprobs: tuple[Mapping[str, Any], ...] | None) -> list[Mapping[str, Any]] | None:
    return None if logprobs is None else list(logprobs)


def _confidence(logprobs: tuple[Mapping[str, Any], ...] | None) -> float | None:
    """The probability of the whole answer, exp(sum of logprobs); null when a token's is missing."""
    if not logprobs or any(token["logprob"] is None for token in logprobs):
        return None
    # A server that reports positive logprobs must neither give more than certainty nor overflow.
    return math.exp(min(0.0, sum(token["logprob"] for token in logprobs)))

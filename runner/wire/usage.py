"""The token counts of a reply, in every spelling that gateways use.

Rule: a count is a non-negative 64-bit integer or None, and what comes out obeys `Usage`: cached and written tokens lie
inside prompt_tokens, reasoning tokens inside completion_tokens. Strategy: read the spellings, then put inside what a
server counts beside. That is done only where its own sums say so, because the bill hangs on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from runner.records import NO_USAGE, Usage
from runner.wire.jsonbody import INT64_MAX, integer, mapping

#: Beside prompt_tokens_details.cached_tokens: DeepSeek, Anthropic, Moonshot.
_CACHED: Final = frozenset({"prompt_cache_hit_tokens", "cache_read_input_tokens", "cached_tokens"})
#: Under prompt_tokens_details: OpenAI, LiteLLM, new-api; beside it: Anthropic.
_WRITTEN: Final = frozenset({"cache_write_tokens", "cache_creation_tokens", "cached_creation_tokens"})
_WRITTEN_BESIDE: Final = frozenset({"cache_creation_input_tokens"})
_NOTHING: Final[dict[str, Any]] = {}
#: What no exchange costs; from here on it is nonsense, or another unit.
MOST_USD: Final = Decimal(1_000)
LONGEST_AMOUNT: Final = 40


def read_usage(value: Any) -> Usage:
    """`usage` of a reply; NO_USAGE when there is none."""
    if type(value) is not dict or not value:
        return NO_USAGE
    prompt = _count(value.get("prompt_tokens"))
    completion = _count(value.get("completion_tokens"))
    into, out = _details(value, "prompt_tokens_details"), _details(value, "completion_tokens_details")
    if prompt is None and "input_tokens" in value:  # Anthropic's words, and those of the Responses API
        prompt, completion = _count(value["input_tokens"]), _count(value.get("output_tokens"))
        into, out = _details(value, "input_tokens_details"), _details(value, "output_tokens_details")
        beside = "cache_read_input_tokens" in value or "cache_creation_input_tokens" in value
    else:
        beside = False
    usage = Usage(
        prompt,
        _largest(_count(into.get("cached_tokens")), value, _CACHED),
        _largest(_largest(None, into, _WRITTEN), value, _WRITTEN_BESIDE),
        completion,
        _count((out or value).get("reasoning_tokens")),
        _count(value.get("total_tokens")),
        _count(into.get("audio_tokens")) or None,
        _count(out.get("audio_tokens")) or None,
        _reported_usd(value),
    )
    return _cache_inside(usage) if beside else _sums_right(usage)


def of_one_choice(usage: Usage) -> Usage:
    """llama.cpp counts one of the choices it made: what all of them took is not known, and more than that."""
    return replace(usage, completion_tokens=None, reasoning_tokens=None, total_tokens=None)


def _reported_usd(usage: Mapping[str, Any]) -> Decimal | None:
    """What the server says that the exchange cost: OpenRouter, LiteLLM's streams; Perplexity takes it apart. With a
    key of one's own (BYOK) OpenRouter's `cost` is its fee, and the provider's bill comes beside it."""
    said = usage.get("cost")
    if said is None:
        return None
    told = dollars(said.get("total_cost") if type(said) is dict else said)
    if told is None or usage.get("is_byok") is not True:
        return told
    upstream = dollars(mapping(usage.get("cost_details")).get("upstream_inference_cost"))
    return None if upstream is None else told + upstream


def dollars(value: Any) -> Decimal | None:
    """An amount that a server names, as a number or as a text; None for what is none, or below nothing."""
    if type(value) not in (int, float, str) or (type(value) is str and len(value) > LONGEST_AMOUNT):
        return None
    try:
        amount = Decimal(repr(value) if type(value) is float else value)
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and 0 <= amount < MOST_USD else None


def _details(value: Mapping[str, Any], name: str) -> dict[str, Any]:
    details = value.get(name)
    return details if type(details) is dict else _NOTHING


def _count(value: Any) -> int | None:
    # -1 and its like stand for "unknown": guidellm's completion_tokens for a max_tokens of -1
    if type(value) is int:
        return value if 0 <= value <= INT64_MAX else None
    if type(value) is float:
        return _count(integer(value))
    return None


def _largest(best: int | None, value: Mapping[str, Any], names: frozenset[str]) -> int | None:
    # Gateways send all spellings at once and fill only the one of the upstream: a 0 beside 1,024 says nothing.
    if names.isdisjoint(value):
        return best
    counts = [count for name in names if (count := _count(value.get(name))) is not None]
    return max(counts if best is None else [best, *counts], default=None)


def _sums_right(usage: Usage) -> Usage:
    if usage.total_tokens is None or usage.prompt_tokens is None or usage.completion_tokens is None:
        return usage
    beside = usage.total_tokens - usage.prompt_tokens - usage.completion_tokens
    if beside <= 0:
        return usage
    if beside == (usage.cached_tokens or 0) + (usage.cache_write_tokens or 0):
        return _cache_inside(usage)
    if usage.reasoning_tokens and usage.reasoning_tokens != beside:
        return usage  # neither rule explains it: as the server said
    return _reasoning_inside(usage, beside)


def _cache_inside(usage: Usage) -> Usage:
    if usage.prompt_tokens is None:
        return usage
    inside = (usage.cached_tokens or 0) + (usage.cache_write_tokens or 0)
    return replace(usage, prompt_tokens=_count(usage.prompt_tokens + inside))


def _reasoning_inside(usage: Usage, beside: int) -> Usage:
    # xAI counts reasoning beside completion_tokens; Gemini's endpoint hides it in the total alone. Both bill it as
    # output, and without it a thinking model's bill comes out several times too low.
    return replace(usage, completion_tokens=(usage.completion_tokens or 0) + beside, reasoning_tokens=beside)

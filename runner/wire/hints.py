"""How long a server asks us to wait, in every form in which one says so.

Rule: seconds from now, finite and above zero, or None. A server that says 0, a negative number or a moment that has
passed gives no hint: obeyed, it would be a storm. A hint of days is kept: it means stop, and who waits decides that.
Strategy: SOURCES in the order of trust, the first that says something wins.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from runner.wire.jsonbody import mapping, mappings, number, string
from runner.wire.shapes import error_of

_UNITS_S: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONG_UNITS: Final = {"milli": "ms", "sec": "s", "min": "m", "h": "h", "day": "d"}
_STEP: Final = re.compile(r"(\d{1,15}(?:\.\d{0,15})?)(ns|us|µs|ms|s|m|h|d)")
_GO_DURATION: Final = re.compile(rf"(?:{_STEP.pattern})+")

_AMOUNT: Final = r"\d{1,15}(?:\.\d{1,15})?"
_UNIT: Final = r"milliseconds?|seconds?|secs?|minutes?|mins?|hours?|hrs?|days?|ms|s|m|h|d"
_IN_WORDS: Final = re.compile(
    rf"\b(?:try again|try your request again|retry|wait)(?:\s+(?:again|in|after|for|about|at\s+least))*\s*:?\s*"
    rf"((?:{_AMOUNT}\s*(?:{_UNIT})(?![a-z])\s*)+|{_AMOUNT}(?!\s*\w))",
    re.IGNORECASE,
)
_WORDS_STEP: Final = re.compile(rf"({_AMOUNT})\s*({_UNIT}|)(?![a-z])", re.IGNORECASE)

_EPOCH_MS_ABOVE: Final = 1e12
_EPOCH_S_ABOVE: Final = 1e9
#: The bucket that says remaining 0 names its reset in the header of the same family.
_BUCKETS: Final = tuple(
    (f"{start}remaining{end}", f"{start}reset{end}")
    for start, ends in (
        ("x-ratelimit-", ("", "-requests", "-tokens", "-tokens_usage_based")),
        ("ratelimit-", ("",)),
        ("llm_provider-x-ratelimit-", ("-requests", "-tokens")),
    )
    for end in ends
) + tuple(
    (f"anthropic-ratelimit-{what}-remaining", f"anthropic-ratelimit-{what}-reset")
    for what in ("requests", "tokens", "input-tokens", "output-tokens")
)


@dataclass(frozen=True, slots=True)
class Told:
    """All that a reply says: header names in lower case, the parsed body, its message; `now` in epoch seconds."""

    headers: Mapping[str, str]
    value: Any
    message: str
    now: float


def hint_s(told: Told) -> float | None:
    """Seconds to wait; None when the server does not say."""
    for source in SOURCES:
        wait_s = source(told)
        if wait_s is not None:
            return wait_s
    return None


def moment_s(text: str, now: float) -> float | None:
    """Seconds from `now`: a bare number (seconds, or an epoch in s or ms), a Go duration, RFC 3339, an HTTP date."""
    text = text.strip()
    for read in (_go_s, _bare_s, _rfc3339_s, _http_date_s):
        wait_s = read(text, now)
        if wait_s is not None:
            return _hint(wait_s)
    return None


def _hint(wait_s: float | None) -> float | None:
    return wait_s if wait_s is not None and 0 < wait_s < math.inf else None


def _bare(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _bare_s(text: str, now: float) -> float | None:
    value = _bare(text)
    if value is None:
        return None
    if value > _EPOCH_MS_ABOVE:
        return value / 1e3 - now
    return value - now if value > _EPOCH_S_ABOVE else value


def _go_s(text: str, _: float) -> float | None:
    """`12ms`, `6m0s`, `2m59.56s`, `1h2m3s`: OpenAI's resets, Gemini's retryDelay."""
    return _go_duration_s(text)


@lru_cache(maxsize=1024)  # every reply has two, and they are mostly alike
def _go_duration_s(text: str) -> float | None:
    if not _GO_DURATION.fullmatch(text):
        return None
    return math.fsum(float(amount) * _UNITS_S[unit] for amount, unit in _STEP.findall(text))


def _rfc3339_s(text: str, now: float) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return _aware(moment).timestamp() - now


def _http_date_s(text: str, now: float) -> float | None:
    from email.utils import parsedate_to_datetime  # 10 ms of imports for the rarest form

    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return _aware(moment).timestamp() - now


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _milliseconds(told: Told, name: str) -> float | None:
    value = _bare(told.headers.get(name, ""))
    return None if value is None else _hint(value / 1e3)


def _moment(told: Told, name: str) -> float | None:
    text = told.headers.get(name)
    return None if text is None else moment_s(text, told.now)


def _retry_info(told: Told) -> float | None:
    """Gemini: error.details[] {"@type": "…RetryInfo", "retryDelay": "34.07s"}."""
    for detail in mappings(error_of(told.value).get("details")):
        delay = detail.get("retryDelay")
        if type(delay) is str:
            return moment_s(delay, told.now)
        seconds = number(mapping(delay).get("seconds"))
        if seconds is not None:
            return _hint(seconds)
    return None


def _metadata_headers(told: Told) -> float | None:
    """OpenRouter: error.metadata.headers {"X-RateLimit-Reset": "1741305600000"}, an epoch in milliseconds."""
    found = mapping(mapping(error_of(told.value).get("metadata")).get("headers"))
    headers = {name.lower(): str(text) for name, text in found.items() if type(text) in (str, int, float)}
    for name in ("retry-after", "x-ratelimit-reset"):
        wait_s = moment_s(headers.get(name, ""), told.now)
        if wait_s is not None:
            return wait_s
    return None


def _in_words(told: Told) -> float | None:
    """`Please try again in 6m0s`, `retry after 20 seconds`; a bare number is seconds."""
    found = _IN_WORDS.search(told.message)
    if found is None:
        return None
    steps = _WORDS_STEP.findall(found.group(1))
    return _hint(math.fsum(float(amount) * _unit_s(unit.lower()) for amount, unit in steps))


def _unit_s(unit: str) -> float:
    long = next((short for start, short in _LONG_UNITS.items() if unit.startswith(start)), "s")
    return _UNITS_S.get(unit, _UNITS_S[long])


def _empty_bucket(told: Told) -> float | None:
    """The longest reset among the buckets with nothing left. Negative is Azure's word for unknown."""
    waits = [
        moment_s(told.headers[reset], told.now)
        for remaining, reset in _BUCKETS
        if reset in told.headers and _bare(string(told.headers.get(remaining)) or "") == 0
    ]
    return max((wait_s for wait_s in waits if wait_s is not None), default=None)


SOURCES: Final[tuple[Callable[[Told], float | None], ...]] = (
    lambda told: _milliseconds(told, "retry-after-ms"),
    lambda told: _moment(told, "retry-after"),
    lambda told: _milliseconds(told, "llm_provider-retry-after-ms"),
    lambda told: _moment(told, "llm_provider-retry-after"),
    _retry_info,
    _metadata_headers,
    _in_words,
    _empty_bucket,
)

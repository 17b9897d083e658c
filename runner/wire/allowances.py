"""What a reply's headers say is left of the provider's limits.

    x-ratelimit-remaining-requests: 499         x-ratelimit-reset-requests: 120ms          OpenAI, Groq, LiteLLM
    anthropic-ratelimit-tokens-remaining: 9000  anthropic-ratelimit-tokens-reset: 2026-…Z  Anthropic
    x-ratelimit-remaining: 3                    x-ratelimit-reset: 1741305600000           OpenRouter and others

Rule: a reading needs what is left and when it resets; negative or unreadable values (Azure says -1 for unknown) are no
reading. Resets are read as `hints.moment_s` reads them: Go durations, RFC 3339, epochs, seconds.
"""

from __future__ import annotations

from collections.abc import Mapping

from runner.pace import Reading
from runner.wire.hints import moment_s

#: (header of what is left, header of its reset, what is counted)
FAMILIES = (
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests", "requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens", "tokens"),
    ("x-ratelimit-remaining-tokens_usage_based", "x-ratelimit-reset-tokens_usage_based", "tokens"),
    ("llm_provider-x-ratelimit-remaining-requests", "llm_provider-x-ratelimit-reset-requests", "requests"),
    ("llm_provider-x-ratelimit-remaining-tokens", "llm_provider-x-ratelimit-reset-tokens", "tokens"),
    ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset", "requests"),
    ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset", "tokens"),
    ("x-ratelimit-remaining", "x-ratelimit-reset", "requests"),
    ("ratelimit-remaining", "ratelimit-reset", "requests"),
)


def readings(headers: Mapping[str, str], now: float) -> list[Reading]:
    """Names in lower case; now: epoch seconds."""
    found = []
    for left, reset, what in FAMILIES:
        if left in headers and reset in headers:
            remaining, reset_s = _amount(headers[left]), moment_s(headers[reset], now)
            if remaining is not None and reset_s is not None:
                found.append(Reading(left, what, remaining, reset_s))
    return found


def _amount(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None

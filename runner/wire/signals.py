"""What a status and a code mean together: the table behind the kinds of failure.

Rule: SIGNALS is read from the top and the first match wins, so what is narrow stands above what is broad. Strategy: a
row names statuses and, where those do not decide, the codes (`words`) or what the message `says`, all in lower case.
A new provider's word is a new word in a row.
"""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Final

from runner.records import Kind

_ANY: Final = range(200, 600)  #: 200 too: gateways wrap errors into it
_SERVER: Final = range(500, 600)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _says(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns))


@dataclass(frozen=True, slots=True)
class Signal:
    """Matches a status among `statuses`; with `words` or `says` given, only if a code or the message says so too."""

    kind: Kind
    statuses: Container[int]
    words: frozenset[str] = field(default_factory=frozenset)
    says: re.Pattern[str] | None = None

    def match(self, status: int, words: frozenset[str], message: str) -> bool:
        if status not in self.statuses:
            return False
        if not self.words and self.says is None:
            return True
        return not self.words.isdisjoint(words) or (self.says is not None and self.says.search(message) is not None)


#: Words that errors.py adds for a header that came: a time to wait, and x-should-retry with what it says.
HAS_RETRY_AFTER: Final = "has-retry-after"
SHOULD_RETRY: Final = "x-should-retry: "

_NO_MODEL: Final = _words("model_not_found model_not_available invalid_model unknown_model deploymentnotfound")
_MONEY: Final = _words(
    "insufficient_quota credit_balance_exhausted organization_spend_limit_exceeded project_spend_limit_exceeded "
    "organization_usage_limit_exceeded billing_hard_limit_reached billing_not_active enforced_spend_limit_reached "
    "billing_error insufficient_user_quota pre_consume_token_quota_failed insufficient_credits insufficient_balance"
)
_RATE: Final = _words(
    "rate_limit_exceeded rate_limit_error throttling_error throttlingexception too_many_requests slow_down "
    "resource_unavailable token_concurrency_limit_reached ratelimitexceeded"
)
_KEY: Final = _words(
    "invalid_api_key api_key_invalid account_deactivated authentication_error invalid_authentication unauthenticated"
)
_CONTENT: Final = _words(
    "content_filter content_policy_violation responsibleaipolicyviolation moderation moderation_blocked "
    "sensitive_words_detected prompt_blocked data_inspection_failed invalid_prompt "
    "unsupported_country_region_territory"
)
_BAD_REQUEST: Final = _words(
    "invalid_request invalid_request_error sensitive_words_detected prompt_blocked convert_request_failed "
    "bad_request_body read_request_body_failed context_length_exceeded exceed_context_size_error request_too_large"
)
_OVERLOADED: Final = _words("overloaded_error server_is_overloaded server_overloaded capacity_exceeded overloaded")

SIGNALS: Final = (
    Signal(Kind.CONFIG, range(300, 400)),
    # OpenAI: "Request too large for gpt-4o …: Limit 30000, Requested 35064", code rate_limit_exceeded. It never passes.
    Signal(Kind.REQUEST, {429}, _words("request_too_large"), _says(r"request too large")),
    # new-api and one-api answer 503 for a model that no channel serves.
    Signal(Kind.CONFIG, _ANY, _NO_MODEL),
    Signal(Kind.CONFIG, {401, 403}, says=_says(r"无权(?:访问|使用)模型")),
    Signal(Kind.CONFIG, _SERVER, says=_says(r"no available channel", r"无可用渠道")),
    Signal(Kind.CONFIG, {400}, says=_says(r"not a valid model id", r"\bmodel\b.{1,80}\bdoes not exist")),
    # OpenRouter's 402 with Retry-After is money in flight, not money gone.
    Signal(Kind.RATE, {402}, _words(HAS_RETRY_AFTER)),
    Signal(Kind.QUOTA, {402}),
    Signal(Kind.QUOTA, _ANY, _MONEY),
    Signal(
        Kind.QUOTA,
        {429},
        _words("quota_per_day"),
        _says(r"free-models-per-(?:day|month)", r"spend(?:ing)? (?:limit|cap)"),
    ),
    # Gemini says "exceeded your current quota" per minute too, and then when to retry.
    Signal(Kind.QUOTA, {403, 429}, says=_says(r"exceeded your current quota(?!.*retry in)")),
    Signal(Kind.QUOTA, {401, 403, 429}, says=_says(r"额度不足", r"余额不足", r"额度已用尽", r"预扣费额度失败")),
    Signal(
        Kind.QUOTA,
        {400, 401, 403, 429},
        says=_says(r"credit balance is too low", r"insufficient\s+(?:\w+\s+)?(?:quota|balance|credit|funds)"),
    ),
    Signal(Kind.RATE, {429}),
    Signal(Kind.RATE, {200, 400, 403, *_SERVER}, _RATE),
    Signal(Kind.AUTH, _ANY, _KEY),
    # Anthropic's types inside a 200, where no status says what they mean.
    Signal(Kind.AUTH, {200}, _words("permission_error")),
    Signal(Kind.CONFIG, {200}, _words("not_found_error")),
    Signal(Kind.TIMEOUT, {200}, _words("timeout_error")),
    Signal(Kind.AUTH, {401}),
    Signal(Kind.AUTH, {400}, says=_says(r"api key not valid", r"(?:incorrect|invalid) api key")),
    Signal(Kind.POLICY, {200, *range(400, 500)}, _CONTENT),
    Signal(Kind.POLICY, {400}, says=_says(r"content.?policy.?violation", r"content management policy")),
    Signal(
        Kind.POLICY,
        {403},
        says=_says(
            r"moderation", r"flagged", r"polic(?:y|ies)", r"\b(?:country|region|territory)\b", r"location is not"
        ),
    ),
    Signal(Kind.POLICY, {451}),
    # Also a web page from a firewall, whose fault it is not certain to be: AUTH is confirmed by probes before it stops.
    Signal(Kind.AUTH, {403}),
    Signal(Kind.CONFIG, {404}),
    Signal(Kind.TIMEOUT, {408, 409, 425}),
    # new-api wraps what the client did wrong into a 500, LiteLLM what is too long.
    Signal(Kind.REQUEST, {200, *_SERVER}, _BAD_REQUEST, _says(r"maximum context length", r"contextwindowexceeded")),
    Signal(Kind.OVERLOADED, {498, 503, 529}),
    # LiteLLM turns Anthropic's 503 and 529 into a 500.
    Signal(Kind.OVERLOADED, {200, *_SERVER}, _OVERLOADED, _says(r"\boverloaded\b")),
    Signal(Kind.SERVER, range(400, 500), frozenset({SHOULD_RETRY + "true"})),
    Signal(Kind.REQUEST, range(400, 500)),
    Signal(Kind.REQUEST, _SERVER, frozenset({SHOULD_RETRY + "false"})),
    Signal(Kind.SERVER, _SERVER),
)


def kind_of(status: int, message: str, words: frozenset[str], otherwise: Kind) -> Kind:
    """The kind of the first signal that matches, else `otherwise`. `words` in lower case."""
    message = message.lower()
    for signal in SIGNALS:
        if signal.match(status, words, message):
            return signal.kind
    return otherwise

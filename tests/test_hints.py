"""How long to wait, in every form in which a server says so."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import EXAMPLES

from runner.wire.hints import Told, hint_s, moment_s

NOW = 1_741_305_590.0  # Thu, 06 Mar 2025 23:59:50 GMT


def hint(headers: dict[str, str] | None = None, value: Any = None, message: str = "") -> float | None:
    return hint_s(Told(headers or {}, value, message, NOW))


@pytest.mark.parametrize(
    ("text", "wait_s"),
    [
        ("7", 7.0),
        (" 0.5 ", 0.5),
        ("12ms", 0.012),
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("2m59.56s", 179.56),
        ("1h2m3s", 3723.0),
        ("34.07s", 34.07),
        ("250us", 0.00025),
        ("1741305600000", 10.0),
        ("1741305600", 10.0),
        ("2025-03-07T00:00:00Z", 10.0),
        ("2025-03-07T01:00:00.5+01:00", 10.5),
        ("2025-03-07T00:00:00", 10.0),
        ("Fri, 07 Mar 2025 00:00:00 GMT", 10.0),
        ("604801", 604801.0),  # more than a week: kept, it means stop
        ("200h", 720_000.0),
        ("0", None),
        ("-1", None),
        ("0s", None),
        ("1741305580", None),  # has passed
        ("Thu, 06 Mar 2025 23:59:00 GMT", None),
        ("2025-03-06T00:00:00Z", None),
        ("nan", None),
        ("inf", None),
        ("1e400", None),
        ("9" * 400, None),
        ("", None),
        ("soon", None),
        ("5 parsecs", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("9999-99-99", None),
    ],
)
def test_a_moment_is_read_in_every_form(text: str, wait_s: float | None) -> None:
    assert moment_s(text, NOW) == (wait_s if wait_s is None else pytest.approx(wait_s, abs=1e-9))


@pytest.mark.parametrize(
    ("message", "wait_s"),
    [
        ("Please try again in 20ms.", 0.020),
        ("Please try again in 1.2s. Visit https://x", 1.2),
        ("Please try again in 6m0s.", 360.0),
        ("try again in 2m59.56s", 179.56),
        ("Please retry in 34.074824224s.", 34.074824224),
        ("Please retry after 20 seconds.", 20.0),
        ("Retry after 20", 20.0),
        ("Please wait 12 seconds before", 12.0),
        ("Try again in 1 minute 30 seconds", 90.0),
        ("try again in about 2 hours", 7200.0),
        ("try again in 3 days", 259_200.0),
        ("Please try again in 250 milliseconds", 0.25),
        ("please wait for 1 min", 60.0),
        ("retry after: 15", 15.0),
        ("Please try again later.", None),
        ("retry after 20 requests", None),
        ("limit of 20s per request", None),
        ("try again in 0s", None),
        ("try again in " + "9" * 400 + "s", None),
    ],
)
def test_a_hint_is_read_from_the_message(message: str, wait_s: float | None) -> None:
    assert hint(message=message) == (wait_s if wait_s is None else pytest.approx(wait_s))


def gemini(delay: Any) -> list[Any]:
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}
    return [{"error": {"code": 429, "details": [{"@type": "x"}, 5, info]}}]


def openrouter(**headers: Any) -> dict[str, Any]:
    return {"error": {"metadata": {"headers": {name.replace("_", "-"): text for name, text in headers.items()}}}}


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        (gemini("34s"), 34.0),
        (gemini("34.07s"), 34.07),
        (gemini("34s")[0], 34.0),
        (gemini({"seconds": 3, "nanos": 5}), 3.0),
        (gemini(None), None),
        (gemini("-3s"), None),
        (openrouter(X_RateLimit_Limit="20", X_RateLimit_Reset="1741305600000"), 10.0),
        (openrouter(X_RateLimit_Reset=1741305600000), 10.0),
        (openrouter(Retry_After="4", X_RateLimit_Reset="1741305600000"), 4.0),
        (openrouter(X_RateLimit_Reset=None), None),
        ({"error": {"metadata": {"headers": "x"}}}, None),
        ({"error": "x"}, None),
        ([], None),
    ],
)
def test_a_hint_is_read_from_the_body(value: Any, wait_s: float | None) -> None:
    assert hint(value=value) == wait_s


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m26.4s"}, 86.4),
        ({"x-ratelimit-remaining-requests": "9", "x-ratelimit-reset-requests": "1m26.4s"}, None),
        ({"x-ratelimit-remaining-requests": "-1", "x-ratelimit-reset-requests": "1s"}, None),
        ({"x-ratelimit-reset-requests": "1s"}, None),
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "6s",
            },
            6.0,
        ),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1741305600"}, 10.0),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "30"}, 30.0),
        (
            {
                "anthropic-ratelimit-output-tokens-remaining": "0",
                "anthropic-ratelimit-output-tokens-reset": "2025-03-07T00:00:00Z",
            },
            10.0,
        ),
    ],
)
def test_an_empty_bucket_says_when_it_is_full_again(headers: dict[str, str], wait_s: float | None) -> None:
    assert hint(headers) == wait_s


#: Every source, best first, each saying its own number of seconds.
ORDER: list[tuple[str, str]] = [
    ("retry-after-ms", "1500"),
    ("retry-after", "2"),
    ("llm_provider-retry-after-ms", "3000"),
    ("llm_provider-retry-after", "4"),
]


def test_the_sources_are_believed_in_their_order() -> None:
    headers = dict(ORDER) | {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "8"}
    value = {
        "error": {
            "details": [{"retryDelay": "5s"}],
            "metadata": {"headers": {"X-RateLimit-Reset": str(int((NOW + 6) * 1000))}},
        }
    }
    message = "try again in 7s"
    found = []
    for name, _ in ORDER:
        found.append(hint(headers, value, message))
        del headers[name]
    found.append(hint(headers, value, message))
    del value["error"]["details"]
    found.append(hint(headers, value, message))
    found.append(hint(headers, None, message))
    found.append(hint(headers))
    found.append(hint())
    assert found == [1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, None]


def test_a_source_that_says_nothing_leaves_the_word_to_the_next() -> None:
    assert hint({"retry-after-ms": "nan", "retry-after": "0"}, message="try again in 3s") == 3.0


@settings(deadline=None, max_examples=EXAMPLES)
@given(
    st.text(max_size=40) | st.from_regex(r"[0-9smh.:TZ+-]{1,30}") | st.datetimes().map(str) | st.floats().map(str),
    st.text(max_size=40).map("try again in ".__add__) | st.from_regex(r"retry after [0-9.smh ]{1,20}"),
)
def test_a_hint_is_finite_and_above_zero_or_there_is_none(text: str, message: str) -> None:
    for wait_s in (moment_s(text, NOW), hint({"retry-after": text}, None, message)):
        assert wait_s is None or 0 < wait_s < math.inf

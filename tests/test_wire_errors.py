"""Every shape of error body and every class of failure, as rows: what comes back, and all that follows from it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from failures import CASES, DOES, NOW, SHAPES, Case, Does, error, reply
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import EXAMPLES

from runner.errors import RunnerError
from runner.halts import Streak, Terms, Watch
from runner.records import Billed, Failure, Kind, Reply, Usage
from runner.retry import RULES, Policy, SoFar, counts, next_step
from runner.wire import signals
from runner.wire.errors import classify
from runner.wire.signals import SIGNALS

ROWS = [
    pytest.param(case, id=f"{name}: {place} ({case.status})")
    for name, cases in CASES.items()
    for place, case in enumerate(cases)
]
ALL = [case for cases in CASES.values() for case in cases]


def read(case: Case) -> Failure:
    return classify(reply(case.status, case.body, case.headers), NOW)


@pytest.mark.parametrize(
    ("body", "message"),
    [pytest.param(*found, id=f"{shape}: {name}") for shape, bodies in SHAPES.items() for name, found in bodies.items()],
)
def test_the_message_is_found_in_every_shape(body: Any, message: str) -> None:
    failure = classify(reply(500, body), NOW)
    assert (failure.kind, failure.message, failure.status) == (Kind.SERVER, message, 500)


@pytest.mark.parametrize("case", ROWS)
def test_status_headers_and_body_decide_together(case: Case) -> None:
    failure = read(case)
    assert (failure.kind, failure.message, failure.wait_s) == (case.kind, case.message, case.wait_s)
    assert (failure.status, failure.billed) == (case.status, case.billed)
    assert failure.html is case.message.startswith("a web page")


@pytest.mark.parametrize("case", ROWS)
def test_what_the_job_does_about_it(case: Case) -> None:
    failure = read(case)
    again = next_step(failure, SoFar(counted=1), Policy())
    found = Does(
        again=None if again is None else "backoff" if again.backs_off else "gate",
        counts=counts(failure),
        slows=RULES[failure.kind].slows_all,
        stops=stops(failure),
    )
    assert found == (case.does or DOES[case.kind])


def stops(failure: Failure) -> tuple[int, int] | None:
    """Rows fail so one after the other, from the first on: which of them ends the job, and with which exit code."""
    watch, streak = Watch(Terms()), Streak()
    for row in range(1, 31):
        verdict = watch.judge(failure, now_s=10.0 * row, sent_at_s=10.0 * row - 1)
        error = verdict if isinstance(verdict, RunnerError) else None
        if error is None and verdict is None:
            error = streak.see(row, failure)
        if error is not None:
            return row, error.exit_code
    return None


def test_every_kind_that_a_reply_can_have_is_among_the_cases() -> None:
    assert {case.kind for case in ALL} == set(DOES)
    assert set(Kind) - set(DOES) == {Kind.NETWORK, Kind.OUTPUT, Kind.INPUT, Kind.UNKNOWN}  # no reply, or no failure


@pytest.mark.parametrize("place", range(len(SIGNALS)))
def test_without_any_one_signal_some_reply_is_misjudged(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "SIGNALS", SIGNALS[:place] + SIGNALS[place + 1 :])
    assert any(read(case).kind is not case.kind for case in ALL)


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("https://www.example.com:8443/v1?key=sk-secret1", "www.example.com"),
        ("/login", "another place"),
        ("http://[::1", "another place"),
        (None, "another place"),
    ],
)
def test_a_redirect_names_the_host_and_nothing_else_of_the_place(location: str | None, host: str) -> None:
    headers = {} if location is None else {"location": location}
    failure = classify(Reply(302, headers, b"Found", 0.1), NOW)
    assert failure.message == f"the server redirects to {host}, which is never followed: check endpoint.base_url"


def test_usage_beside_an_error_says_that_it_was_billed() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 0, "total_tokens": 5}
    failure = classify(reply(500, {**error("m"), "usage": usage}), NOW)
    assert (failure.billed, failure.usage) == (Billed.YES, Usage(5, None, None, 0, None, 5))
    assert classify(reply(500, {**error("m"), "usage": {"unit": "x"}}), NOW).billed is Billed.NO


@pytest.mark.parametrize(
    "name", ["x-request-id", "request-id", "x-generation-id", "x-litellm-call-id", "x-oneapi-request-id"]
)
def test_the_request_id_is_kept_under_every_name(name: str) -> None:
    assert classify(Reply(500, {name: "req_1"}, b"", 0.1), NOW).request_id == "req_1"
    assert classify(Reply(500, {name: "req\udcff"}, b"", 0.1), NOW).request_id == "req\ufffd"
    assert classify(Reply(500, {name: ""}, b"", 0.1), NOW).request_id is None


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"type": "error", "error": {"message": "m"}, "request_id": "req_011"}, "req_011"),
        (error("服务器错误 (request id: 20250101123456789abcdef)"), "20250101123456789abcdef"),
        (error("Please include the request ID 1234abcd-5 in your message."), "1234abcd-5"),
        (error("the request identifies nobody"), None),
        ({"request_id": ""}, None),
        ({"request_id": "a\x1b[2J\nb"}, "a b"),
        ({"request_id": "x" * 300}, "x" * 200),
        ({"request_id": 7}, None),
    ],
)
def test_the_request_id_is_found_in_the_body_where_no_header_has_it(body: Any, found: str | None) -> None:
    assert classify(reply(500, body), NOW).request_id == found
    assert classify(reply(500, body, {"x-request-id": "req_h"}), NOW).request_id == "req_h"


def test_a_label_alone_makes_no_web_page() -> None:
    assert classify(Reply(500, {"content-type": "text/html"}, b"upstream gone", 0.1), NOW).html is False
    assert classify(Reply(500, {"content-type": "text/html"}, b"<center>x</center>", 0.1), NOW).html is True
    assert classify(Reply(500, {"content-type": "application/xml"}, b"<error/>", 0.1), NOW).html is False


#: What ends a line, moves a terminal's cursor, or turns the direction of what is printed.
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    ("error", "message", "code", "type", "status", "details", "metadata", "raw", "headers", "detail", "innererror")
)
HEADERS = st.dictionaries(
    st.sampled_from(
        ("retry-after", "retry-after-ms", "x-ratelimit-reset", "x-ratelimit-remaining", "content-type", "location")
    ),
    st.text(max_size=30) | st.sampled_from(["0", "-1", "nan", "1e400", "text/html", "9" * 400, "http://[x", "²"]),
)


@settings(deadline=None, max_examples=EXAMPLES)
@given(
    st.integers(-1, 1000),
    HEADERS,
    st.recursive(
        JSON, lambda inner: st.dictionaries(FIELDS, inner, max_size=4) | st.lists(inner, max_size=2), max_leaves=8
    ),
)
def test_any_reply_can_be_classified(status: int, headers: dict[str, str], value: Any) -> None:
    failure = classify(Reply(status, headers, json.dumps(value).encode(), 0.1), NOW)
    assert isinstance(failure, Failure)
    assert_fit_to_be_shown(failure.message)


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.integers(100, 600), HEADERS, st.binary(max_size=200))
def test_any_bytes_can_be_classified(status: int, headers: dict[str, str], body: bytes) -> None:
    assert_fit_to_be_shown(classify(Reply(status, headers, body, 0.1), NOW).message)


def assert_fit_to_be_shown(message: str) -> None:
    assert 0 < len(message) <= 500
    assert not UNSAFE.search(message)
    message.encode()

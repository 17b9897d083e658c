"""Every shape of error body and every signal of failure, as rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.records import Billed, Failure, Kind, Reply, Usage
from runner.wire import signals
from runner.wire.errors import classify, one_line
from runner.wire.signals import SIGNALS

NOW = 1_741_305_590.0
HTML = b"<!DOCTYPE html><html><head><title>Attention\n Required! | Cloudflare</title></head><body>x</body></html>"


def reply(status: int, body: Any, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, headers or {}, body if isinstance(body, bytes) else json.dumps(body).encode(), 0.1)


def error(message: str = "m", code: Any = None, type_: str | None = None, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": type_, "param": None, "code": code, **more}}


SHAPES: list[tuple[str, Any, str]] = [
    ("openai", {"error": {"message": "one", "type": "t", "param": None, "code": None}}, "one"),
    ("openrouter", error("Provider returned error", 502, metadata={"raw": "two"}), "Provider returned error: two"),
    ("gemini", [{"error": {"code": 500, "message": "three", "status": "INTERNAL", "details": []}}], "three"),
    ("anthropic", {"type": "error", "error": {"type": "api_error", "message": "four"}, "request_id": "r"}, "four"),
    ("old vllm", {"object": "error", "message": "five", "type": "T", "param": None, "code": 500}, "five"),
    ("fastapi text", {"detail": "six"}, "six"),
    (
        "fastapi list",
        {"detail": [{"loc": ["body", "messages", 0], "msg": "field required", "type": "x"}, {"msg": "too long"}]},
        "body.messages.0: field required; too long",
    ),
    ("fastapi object", {"detail": {"message": "seven"}}, "seven"),
    ("mlx", {"error": "eight"}, "eight"),
    ("message", {"message": "nine"}, "nine"),
    ("msg", {"code": 1, "msg": "ten"}, "ten"),
    ("err", {"err": "eleven"}, "eleven"),
    ("error_msg", {"error_code": 17, "error_msg": "twelve"}, "twelve"),
    ("header", {"header": {"message": "thirteen"}}, "thirteen"),
    ("response", {"response": {"error": {"message": "fourteen"}}}, "fourteen"),
    ("portkey", {"status": "failure", "message": "fifteen"}, "fifteen"),
    ("portkey html", {"html-message": "sixteen"}, "sixteen"),
    ("problem+json", {"type": "about:blank", "title": "t", "status": 500, "detail": "seventeen"}, "seventeen"),
    ("problem+json without detail", {"type": "about:blank", "title": "eighteen", "status": 500}, "eighteen"),
    ("minimax", {"choices": None, "base_resp": {"status_code": 1000, "status_msg": "nineteen"}}, "nineteen"),
    ("a JSON text", "twenty", "twenty"),
    ("plain text", b"Internal Server Error\n", "Internal Server Error"),
    ("html", HTML, "a web page came back: Attention Required! | Cloudflare"),
    ("html without title", b"<html><body>no</body></html>", "a web page came back"),
    ("empty", b"", "HTTP 500 Internal Server Error"),
    ("an empty object", {}, "HTTP 500 Internal Server Error"),
    ("null", b"null", "null"),
    ("an empty message", error(""), "HTTP 500 Internal Server Error"),
    ("invalid UTF-8", b"\xff\xfe oops", "\ufffd\ufffd oops"),
]


@pytest.mark.parametrize(("body", "message"), [pytest.param(b, m, id=name) for name, b, m in SHAPES])
def test_the_message_is_found_in_every_shape(body: Any, message: str) -> None:
    failure = classify(reply(500, body), NOW)
    assert (failure.kind, failure.message, failure.status) == (Kind.SERVER, message, 500)


GEMINI_MINUTE = [
    {
        "error": {
            "code": 429,
            "message": "You exceeded your current quota, please check your plan and billing details. "
            "Please retry in 34.07s.",
            "status": "RESOURCE_EXHAUSTED",
            "details": [
                {
                    "@type": "type.googleapis.com/google.rpc.QuotaFailure",
                    "violations": [{"quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"}],
                },
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"},
            ],
        }
    }
]
GEMINI_DAY = json.loads(json.dumps(GEMINI_MINUTE).replace("PerMinute", "PerDay"))
TOO_LARGE = (
    "Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested 35064. "
    "The input or output tokens must be reduced in order to run successfully."
)
TPM = "Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 29000, Requested 2000. "

#: status, body, headers -> kind, billed, hint
SIGNAL_ROWS: list[tuple[int, Any, dict[str, str], Kind, Billed, float | None]] = [
    # rate
    (429, error(TPM + "Please try again in 1.5s.", "rate_limit_exceeded", "tokens"), {}, Kind.RATE, Billed.NO, 1.5),
    (429, error("m", None, "requests"), {"retry-after": "7"}, Kind.RATE, Billed.NO, 7.0),
    (429, error("m", None, "rate_limit_error"), {"retry-after": "7"}, Kind.RATE, Billed.NO, 7.0),
    (429, error("m", "429", "throttling_error"), {"llm_provider-retry-after": "9"}, Kind.RATE, Billed.NO, 9.0),
    (429, GEMINI_MINUTE, {}, Kind.RATE, Billed.NO, 34.0),
    (429, error("m", "slow_down"), {}, Kind.RATE, Billed.NO, None),
    (503, error("m", "slow_down"), {}, Kind.RATE, Billed.NO, None),
    (429, error("m", "resource_unavailable"), {}, Kind.RATE, Billed.NO, None),
    (429, error("当前分组上游负载已饱和，请稍后再试"), {}, Kind.RATE, Billed.NO, None),
    (429, error("m", "token_concurrency_limit_reached"), {}, Kind.RATE, Billed.NO, None),
    (429, b"", {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, Kind.RATE, Billed.NO, 360.0),
    (429, HTML, {}, Kind.RATE, Billed.NO, None),
    (402, error("in flight", 402), {"retry-after": "3"}, Kind.RATE, Billed.NO, 3.0),
    # money
    *[
        (429, error("m", code, "insufficient_quota"), {}, Kind.QUOTA, Billed.NO, None)
        for code in ("credit_balance_exhausted", "organization_spend_limit_exceeded", None, "insufficient_quota")
    ],
    (429, error("m", "project_spend_limit_exceeded"), {}, Kind.QUOTA, Billed.NO, None),
    (429, error("m", "organization_usage_limit_exceeded"), {}, Kind.QUOTA, Billed.NO, None),
    (429, error("m", "billing_hard_limit_reached"), {}, Kind.QUOTA, Billed.NO, None),
    (429, error("m", None, "enforced_spend_limit_reached"), {"retry-after": "60"}, Kind.QUOTA, Billed.NO, 60.0),
    (429, GEMINI_DAY, {}, Kind.QUOTA, Billed.NO, 34.0),
    (429, error("Rate limit exceeded: free-models-per-day", 429), {}, Kind.QUOTA, Billed.NO, None),
    (429, error("You exceeded your current quota, please check your plan"), {}, Kind.QUOTA, Billed.NO, None),
    (400, error("Your credit balance is too low to use the API", None, "x"), {}, Kind.QUOTA, Billed.NO, None),
    (402, error("Insufficient credits", 402), {}, Kind.QUOTA, Billed.NO, None),
    (402, b"", {}, Kind.QUOTA, Billed.NO, None),
    (403, error("m", "insufficient_user_quota", "new_api_error"), {}, Kind.QUOTA, Billed.NO, None),
    (403, error("m", "pre_consume_token_quota_failed"), {}, Kind.QUOTA, Billed.NO, None),
    (403, error("用户额度不足, 剩余额度: $0.00"), {}, Kind.QUOTA, Billed.NO, None),
    # this row
    (429, error(TOO_LARGE, "rate_limit_exceeded", "tokens"), {"retry-after": "1"}, Kind.REQUEST, Billed.NO, None),
    (413, error("Request too large for x", "rate_limit_exceeded"), {}, Kind.REQUEST, Billed.NO, None),
    (400, error("m", None, "invalid_request_error"), {"retry-after": "1"}, Kind.REQUEST, Billed.NO, None),
    (400, error("m", "context_length_exceeded"), {}, Kind.REQUEST, Billed.NO, None),
    (400, error("m", 400, "exceed_context_size_error", n_prompt_tokens=9), {}, Kind.REQUEST, Billed.NO, None),
    (405, {"detail": "Method Not Allowed"}, {}, Kind.REQUEST, Billed.NO, None),
    (415, b"", {}, Kind.REQUEST, Billed.NO, None),
    (418, b"", {}, Kind.REQUEST, Billed.NO, None),
    (422, {"detail": [{"loc": ["body"], "msg": "m"}]}, {}, Kind.REQUEST, Billed.NO, None),
    (500, error("m", "invalid_request", "comet_api_error"), {}, Kind.REQUEST, Billed.NO, None),
    (500, error("m", "sensitive_words_detected", "new_api_error"), {}, Kind.REQUEST, Billed.NO, None),
    (500, error("m", "convert_request_failed"), {}, Kind.REQUEST, Billed.NO, None),
    # policy
    (400, error("m", "content_filter"), {}, Kind.POLICY, Billed.NO, None),
    (400, error("m", None, innererror={"code": "ResponsibleAIPolicyViolation"}), {}, Kind.POLICY, Billed.NO, None),
    (400, error("m", "content_policy_violation"), {}, Kind.POLICY, Billed.NO, None),
    (400, error("litellm.ContentPolicyViolationError: m", "400"), {}, Kind.POLICY, Billed.NO, None),
    (403, error("m", "content_policy_violation"), {}, Kind.POLICY, Billed.NO, None),
    (403, error("no", 403, metadata={"reasons": ["sexual"], "flagged_input": "x"}), {}, Kind.POLICY, Billed.NO, None),
    (403, error("Country, region, or territory not supported"), {}, Kind.POLICY, Billed.NO, None),
    (451, b"", {}, Kind.POLICY, Billed.NO, None),
    # the key
    (401, error("m", "invalid_api_key"), {}, Kind.AUTH, Billed.NO, None),
    (401, b"", {}, Kind.AUTH, Billed.NO, None),
    (403, error("m", "account_deactivated"), {}, Kind.AUTH, Billed.NO, None),
    (403, error("This key may not do that", None, "permission_error"), {}, Kind.AUTH, Billed.NO, None),
    (403, HTML, {}, Kind.AUTH, Billed.NO, None),
    (500, error("m", "invalid_api_key"), {}, Kind.AUTH, Billed.NO, None),
    (400, error("API key not valid. Please pass a valid API key.", 400), {}, Kind.AUTH, Billed.NO, None),
    # the job
    (404, error("m", "model_not_found"), {}, Kind.CONFIG, Billed.NO, None),
    (404, {"detail": "Not Found"}, {}, Kind.CONFIG, Billed.NO, None),
    (404, HTML, {}, Kind.CONFIG, Billed.NO, None),
    (403, error("Project does not have access to model `x`", "model_not_found"), {}, Kind.CONFIG, Billed.NO, None),
    (503, error("m", "model_not_found", "new_api_error"), {"retry-after": "5"}, Kind.CONFIG, Billed.NO, None),
    (500, error("m", "model_not_found"), {}, Kind.CONFIG, Billed.NO, None),
    (503, error("No available channel for model x under group default"), {}, Kind.CONFIG, Billed.NO, None),
    (503, error("当前分组 default 下对于模型 x 无可用渠道"), {}, Kind.CONFIG, Billed.NO, None),
    (400, error("nope/x is not a valid model ID", 400), {}, Kind.CONFIG, Billed.NO, None),
    (301, b"", {"location": "https://www.example.com/v1/x"}, Kind.CONFIG, Billed.NO, None),
    (304, b"", {}, Kind.CONFIG, Billed.NO, None),
    # later
    (408, b"", {}, Kind.TIMEOUT, Billed.MAYBE, None),
    (409, b"", {}, Kind.TIMEOUT, Billed.NO, None),
    (425, b"", {"retry-after": "2"}, Kind.TIMEOUT, Billed.NO, 2.0),
    (498, error("m", "capacity_exceeded"), {}, Kind.OVERLOADED, Billed.NO, None),
    (503, error("m", "server_is_overloaded"), {"retry-after": "2.5"}, Kind.OVERLOADED, Billed.NO, 2.5),
    (503, b"", {}, Kind.OVERLOADED, Billed.NO, None),
    (529, {"type": "error", "error": {"type": "overloaded_error"}}, {}, Kind.OVERLOADED, Billed.NO, None),
    (500, error("m", None, "overloaded_error"), {}, Kind.OVERLOADED, Billed.NO, None),
    (500, error("litellm.InternalServerError: Overloaded", "500"), {}, Kind.OVERLOADED, Billed.NO, None),
    *[
        (status, b"x", {"retry-after": "4"}, Kind.SERVER, Billed.MAYBE if status in (504, 524) else Billed.NO, 4.0)
        for status in (500, 501, 502, 504, 520, 521, 522, 523, 524, 525, 526, 527, 530, 599)
    ],
    # 200 and what is no status at all
    (200, b"", {}, Kind.BAD_REPLY, Billed.MAYBE, None),
    (202, HTML, {}, Kind.BAD_REPLY, Billed.MAYBE, None),
    (200, error("m"), {"retry-after": "1"}, Kind.BAD_REPLY, Billed.MAYBE, None),
    (200, error("m", 429), {"retry-after": "1"}, Kind.RATE, Billed.MAYBE, 1.0),
    (200, error("m", 502), {}, Kind.SERVER, Billed.MAYBE, None),
    (200, error("m", "403"), {}, Kind.AUTH, Billed.MAYBE, None),
    (200, error("m", 404), {}, Kind.CONFIG, Billed.MAYBE, None),
    (200, error("m", None, "insufficient_quota"), {}, Kind.QUOTA, Billed.MAYBE, None),
    (200, error("m", 200), {}, Kind.BAD_REPLY, Billed.MAYBE, None),
    (200, error("m", True), {}, Kind.BAD_REPLY, Billed.MAYBE, None),
    (100, b"", {}, Kind.BAD_REPLY, Billed.NO, None),
    (999, b"", {}, Kind.BAD_REPLY, Billed.NO, None),
]


@pytest.mark.parametrize(("status", "body", "headers", "kind", "billed", "wait_s"), SIGNAL_ROWS)
def test_status_and_code_decide_together(
    status: int, body: Any, headers: dict[str, str], kind: Kind, billed: Billed, wait_s: float | None
) -> None:
    failure = classify(reply(status, body, headers), NOW)
    assert (failure.kind, failure.billed, failure.wait_s) == (kind, billed, wait_s)
    assert failure.status == status
    assert failure.html is (body is HTML)


@pytest.mark.parametrize("place", range(len(SIGNALS)))
def test_without_any_one_signal_some_reply_is_misjudged(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "SIGNALS", SIGNALS[:place] + SIGNALS[place + 1 :])
    assert any(
        classify(reply(status, body, sent), NOW).kind is not kind for status, body, sent, kind, *_ in SIGNAL_ROWS
    )


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


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (429, "HTTP 429 Too Many Requests"),
        (524, "HTTP 524 A Timeout Occurred"),
        (529, "HTTP 529 Site Is Overloaded"),
        (599, "HTTP 599"),
    ],
)
def test_without_a_message_the_status_speaks(status: int, message: str) -> None:
    assert classify(reply(status, b""), NOW).message == message


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


def test_a_label_alone_makes_no_web_page() -> None:
    assert classify(Reply(500, {"content-type": "text/html"}, b"upstream gone", 0.1), NOW).html is False
    assert classify(Reply(500, {"content-type": "text/html"}, b"<center>x</center>", 0.1), NOW).html is True
    assert classify(Reply(500, {"content-type": "application/xml"}, b"<error/>", 0.1), NOW).html is False


KEY = "abcDEF123456ghiJKL"


@pytest.mark.parametrize(
    "text",
    [
        f"Incorrect API key provided: sk-{KEY}. You can find your API key at https://platform.openai.com/account.",
        f"Incorrect API key provided: sk-proj-{KEY}-{KEY}",
        f"Incorrect API key provided: {KEY}",
        f"invalid key '{KEY}'",
        f"api_key={KEY}&x=1",
        f"Authorization: Bearer {KEY} is not valid",
        f"无效的令牌：{KEY}",
        f"Received API Key = gsk_{KEY}, Key Hash (Token) ={KEY}{KEY}",
        f"token: eyJhbGciOi.{KEY}.{KEY}",
        f"x-goog-api-key AIza{KEY}",
        "key " + "q" * 20,
    ],
)
def test_a_key_that_the_server_echoes_is_masked(text: str) -> None:
    for line in (
        one_line(text),
        classify(reply(401, error(text)), NOW).message,
        classify(reply(500, text.encode()), NOW).message,
    ):
        assert KEY not in line
        assert "q" * 20 not in line
        assert "***" in line


@pytest.mark.parametrize(
    "text",
    [
        "You can find your API key at https://platform.openai.com/account/api-keys.",
        "Invalid token (request id: 20250101123456789abcdef)",
        "This model's maximum context length is 128000 tokens. However, your messages resulted in 130000 tokens.",
        "Missing bearer token in Authorization header",
        "Rate limit reached for gpt-4.1-mini-2025-04-14 on tokens per min (TPM): Limit 30000, Used 29000",
        "unknown parameter: max_completion_tokens",
        "the ask-and-answer task",
    ],
)
def test_what_is_no_key_is_left_as_it_is(text: str) -> None:
    assert one_line(text) == text


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        (" a\r\n\tb\u2028c\u0085d\x00e\x7f ", "a b c d e"),
        ("\x1b[31mred\x1b[0m \x1b]0;title\x07x", "red x"),
        ("abc\u202egnp.exe", "abc gnp.exe"),
        ("half \ud83d of it", "half \ufffd of it"),
        ("x" * 500, "x" * 500),
        ("x" * 501, "x" * 499 + "…"),
        ("é" * 9_000, "é" * 499 + "…"),
    ],
)
def test_foreign_text_becomes_one_line(text: str, line: str) -> None:
    assert one_line(text) == line


@settings(deadline=None, max_examples=200)
@given(st.text(st.characters(), max_size=700))
def test_one_line_is_one_line_whatever_comes(text: str) -> None:
    line = one_line(text)
    assert len(line) <= 500
    line.encode()
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in line)
    assert one_line(line) == line


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


@settings(deadline=None, max_examples=200)
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
    assert 0 < len(failure.message) <= 500
    failure.message.encode()


@settings(deadline=None, max_examples=200)
@given(st.integers(100, 600), HEADERS, st.binary(max_size=200))
def test_any_bytes_can_be_classified(status: int, headers: dict[str, str], body: bytes) -> None:
    failure = classify(Reply(status, headers, body, 0.1), NOW)
    assert 0 < len(failure.message) <= 500

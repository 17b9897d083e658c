"""What servers answer when they fail: every known shape of body, and every class of failure.

Rule: real wording where the wording decides, "m" where it does not. Strategy: SHAPES says where a message stands, CASES
what a status, headers and a body mean together, and DOES what the job does about each kind.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runner.records import Billed, Kind, Reply

NOW = 1_741_305_590.0
HTML = b"<!DOCTYPE html><html><head><title>Attention\n Required! | Cloudflare</title></head><body>x</body></html>"
NGINX = b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body><center>nginx</center></body>\r\n</html>\r\n"
PAGE = "a web page came back: Attention Required! | Cloudflare"


def reply(status: int, body: Any, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, headers or {}, body if isinstance(body, bytes) else json.dumps(body).encode(), 0.1)


def error(message: str = "m", code: Any = None, type_: str | None = None, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": type_, "param": None, "code": code, **more}}


def anthropic(type_: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": type_, "message": "m"}, "request_id": "req_1"}


#: The shapes, with what is read out of a 500 of each.
SHAPES: dict[str, dict[str, tuple[Any, str]]] = {
    "1 an error object": {
        "openai": ({"error": {"message": "one", "type": "t", "param": None, "code": None}}, "one"),
        "an integer for a code": (error("one", 500, n_prompt_tokens=9000, n_ctx=4096), "one"),
        "a status as text for a code": (error("litellm.APIError: one", "500"), "litellm.APIError: one"),
        "openrouter": (
            error("Provider returned error", 502, metadata={"raw": "two", "provider_name": "x"}) | {"user_id": "u"},
            "Provider returned error: two",
        ),
        "openrouter without words of its own": (error("", 502, metadata={"raw": "two"}), "two"),
        "a message that is an object": (error({"message": "three"}), "three"),  # type: ignore[arg-type]
        "more beside it": ({"error": {"code": "x"}, "message": "outside"}, "outside"),
    },
    "2 a list of one": {
        "gemini": ([{"error": {"code": 500, "message": "three", "status": "INTERNAL", "details": []}}], "three"),
    },
    "3 type error": {
        "anthropic": ({"type": "error", "error": {"type": "api_error", "message": "four"}, "request_id": "r"}, "four"),
    },
    "4 object error": {
        "old vllm": ({"object": "error", "message": "five", "type": "T", "param": None, "code": 500}, "five"),
    },
    "5 detail": {
        "text": ({"detail": "six"}, "six"),
        "list": (
            {"detail": [{"loc": ["body", "messages", 0], "msg": "field required", "type": "x"}, {"msg": "too long"}]},
            "body.messages.0: field required; too long",
        ),
        "object": ({"detail": {"message": "seven"}}, "seven"),
    },
    "6 an error text": {"mlx": ({"error": "eight"}, "eight")},
    "7 message and its like": {
        "message": ({"message": "nine"}, "nine"),
        "msg": ({"code": 1, "msg": "ten"}, "ten"),
        "err": ({"err": "eleven"}, "eleven"),
        "error_msg": ({"error_code": 17, "error_msg": "twelve"}, "twelve"),
        "header": ({"header": {"message": "thirteen"}}, "thirteen"),
        "response": ({"response": {"error": {"message": "fourteen"}}}, "fourteen"),
        "errors": ({"success": False, "errors": [{"code": 1, "message": "fourteen"}]}, "fourteen"),
        "minimax": ({"choices": None, "base_resp": {"status_code": 1000, "status_msg": "nineteen"}}, "nineteen"),
    },
    "8 portkey": {
        "status": ({"status": "failure", "message": "fifteen"}, "fifteen"),
        "html-message": ({"html-message": "sixteen"}, "sixteen"),
    },
    "9 problem+json": {
        "with detail": ({"type": "about:blank", "title": "t", "status": 500, "detail": "seventeen"}, "seventeen"),
        "without": ({"type": "about:blank", "title": "eighteen", "status": 500}, "eighteen"),
    },
    "10 no JSON": {
        "plain text": (b"Internal Server Error\n", "Internal Server Error"),
        "html of cloudflare": (HTML, PAGE),
        "html of nginx": (NGINX, "a web page came back: 502 Bad Gateway"),
        "html without title": (b"<html><body>no</body></html>", "a web page came back"),
        "empty": (b"", "HTTP 500 Internal Server Error"),
        "invalid UTF-8": (b"\xff\xfe oops", "\ufffd\ufffd oops"),
        "JSON that was cut": (b'{"error":{"message":"ha', '{"error":{"message":"ha'),
    },
    "none of these": {
        "a JSON text": ("twenty", "twenty"),
        "an empty object": ({}, "HTTP 500 Internal Server Error"),
        "an empty list": ([], "HTTP 500 Internal Server Error"),
        "null": (b"null", "null"),
        "words in no known place": ({"why": ["x"]}, 'HTTP 500 Internal Server Error: {"why":["x"]}'),
        "a code and no words": (
            {"error": {"message": "", "code": "x"}},
            'HTTP 500 Internal Server Error: {"error":{"message":"","code":"x"}}',
        ),
    },
}

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
GEMINI_SAYS = GEMINI_MINUTE[0]["error"]["message"]
SPENDING_CAP = "Your project has exceeded its monthly spending cap."
TOO_LARGE = (
    "Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested 35064. "
    "The input or output tokens must be reduced in order to run successfully."
)
TPM = "Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 29000, Requested 2000. "
TOO_LONG = "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens."
LITELLM_LONG = "litellm.ContextWindowExceededError: AnthropicException - prompt is too long"
SATURATED = "当前分组上游负载已饱和，请稍后再试"


@dataclass(frozen=True)
class Does:
    """What a job does about a failure that comes as the first, and then again and again.

    again: None, or whether the row waits for the shared gate or backs off by itself; counts: uses up an attempt;
    slows: the whole job; stops: the how-manyeth such failure ends the job, and its exit code; None: it goes on.
    """

    again: str | None
    counts: bool
    slows: bool
    stops: tuple[int, int] | None


ALIKE = (20, 3)
DOES: Mapping[Kind, Does] = {
    Kind.RATE: Does("gate", False, True, None),
    Kind.OVERLOADED: Does("gate", False, True, None),
    Kind.TIMEOUT: Does("backoff", True, False, ALIKE),
    Kind.SERVER: Does("backoff", True, False, ALIKE),
    Kind.BAD_REPLY: Does("backoff", True, False, ALIKE),
    Kind.REQUEST: Does(None, True, False, ALIKE),
    Kind.POLICY: Does(None, True, False, None),
    Kind.AUTH: Does("gate", False, True, (4, 3)),  # the key is read again, and three requests ask
    Kind.QUOTA: Does(None, False, False, (1, 3)),
    Kind.CONFIG: Does(None, False, False, (1, 3)),
}
WEB_PAGES = Does("backoff", True, False, (3, 3))
LONG_WAIT = Does("gate", False, True, (1, 75))


@dataclass(frozen=True)
class Case:
    """A reply, and all that follows from it. `does`: where it is not what the kind says."""

    kind: Kind
    status: int
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = "m"
    wait_s: float | None = None
    billed: Billed = Billed.NO
    does: Does | None = None


def money(code: str | None, status: int = 429, type_: str | None = None) -> Case:
    return Case(Kind.QUOTA, status, error("m", code, type_))


def after(seconds: str) -> dict[str, str]:
    return {"retry-after": seconds}


def server(status: int, message: str) -> Case:
    """Statuses behind which a request may have worked on are billed, perhaps."""
    billed = Billed.MAYBE if status in (504, 524) else Billed.NO
    return Case(Kind.SERVER, status, b"", after("4"), message, 4.0, billed)


def inside(kind: Kind, body: Any, message: str = "m", **more: Any) -> Case:
    """An error with status 200."""
    return Case(kind, 200, body, message=message, billed=Billed.MAYBE, **more)


#: The classes, each with the replies that belong to it.
CASES: dict[str, list[Case]] = {
    "timeout, lock": [
        Case(Kind.TIMEOUT, 408, message="HTTP 408 Request Timeout", billed=Billed.MAYBE),
        Case(Kind.TIMEOUT, 409, error()),
        Case(Kind.TIMEOUT, 425, error(), after("2"), wait_s=2.0),
    ],
    "rate": [
        Case(
            Kind.RATE,
            429,
            error(TPM + "Please try again in 1.5s.", "rate_limit_exceeded", "tokens"),
            message=TPM + "Please try again in 1.5s.",
            wait_s=1.5,
        ),
        Case(Kind.RATE, 429, error("m", None, "requests"), after("7"), wait_s=7.0),
        Case(Kind.RATE, 429, error("m", "rate_limit_exceeded"), {"retry-after-ms": "250"} | after("7"), wait_s=0.25),
        Case(Kind.RATE, 429, anthropic("rate_limit_error"), after("7"), wait_s=7.0),
        Case(Kind.RATE, 429, error("m", "429", "throttling_error"), {"llm_provider-retry-after": "9"}, wait_s=9.0),
        Case(Kind.RATE, 429, GEMINI_MINUTE, message=GEMINI_SAYS, wait_s=34.0),
        Case(Kind.RATE, 429, [{"error": {"message": "m", "status": "RESOURCE_EXHAUSTED"}}]),
        Case(
            Kind.RATE, 429, error("m", 429, metadata={"headers": {"X-RateLimit-Reset": "1741305600000"}}), wait_s=10.0
        ),
        Case(Kind.RATE, 429, error("m", "slow_down")),
        Case(Kind.RATE, 503, error("m", "slow_down")),
        Case(Kind.RATE, 400, error("m", "throttlingexception")),
        Case(
            Kind.RATE,
            429,
            b"",
            {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"},
            "HTTP 429 Too Many Requests",
            360.0,
        ),
        Case(Kind.RATE, 429, HTML, message=PAGE),
        Case(Kind.RATE, 429, error("m", "rate_limit_exceeded"), after("86400"), wait_s=86400.0, does=LONG_WAIT),
        # OpenRouter: money that is in flight, not money that is gone
        Case(Kind.RATE, 402, error("in flight", 402), after("3"), "in flight", 3.0),
    ],
    "money": [
        *[
            money(code, type_="insufficient_quota")
            for code in (None, "insufficient_quota", "credit_balance_exhausted", "organization_spend_limit_exceeded")
        ],
        *map(
            money,
            ("project_spend_limit_exceeded", "organization_usage_limit_exceeded", "billing_hard_limit_reached"),
        ),
        Case(Kind.QUOTA, 429, error("m", None, "enforced_spend_limit_reached"), after("60"), wait_s=60.0),
        Case(Kind.QUOTA, 429, GEMINI_DAY, message=GEMINI_SAYS, wait_s=34.0),
        Case(
            Kind.QUOTA,
            429,
            [{"error": {"code": 429, "message": SPENDING_CAP, "status": "RESOURCE_EXHAUSTED"}}],
            message=SPENDING_CAP,
        ),
        *[
            Case(Kind.QUOTA, status, error(text), message=text)
            for status, text in (
                (429, "Rate limit exceeded: free-models-per-day"),
                (429, "You exceeded your current quota, please check your plan"),
                (400, "Your credit balance is too low to use the API"),
                (402, "Insufficient credits"),
                (403, "用户额度不足, 剩余额度: $0.00"),
                (401, "该令牌额度已用尽"),
                (403, "预扣费额度失败, 用户剩余额度: $0.10, 需要预扣费额度: $0.20"),
            )
        ],
        Case(Kind.QUOTA, 402, message="HTTP 402 Payment Required"),
        Case(Kind.QUOTA, 402, anthropic("billing_error")),
        money("insufficient_user_quota", 403, "new_api_error"),
        money("pre_consume_token_quota_failed", 403, "new_api_error"),
    ],
    "no flex capacity": [Case(Kind.RATE, 429, error("m", "resource_unavailable"))],
    "a saturated gateway": [
        Case(Kind.RATE, 429, error(SATURATED, "429", "upstream_error"), message=SATURATED),
        Case(Kind.RATE, 429, error("m", "token_concurrency_limit_reached")),
    ],
    "the key": [
        Case(Kind.AUTH, 401, error("m", "invalid_api_key")),
        Case(Kind.AUTH, 401, message="HTTP 401 Unauthorized"),
        Case(Kind.AUTH, 401, anthropic("authentication_error")),
        Case(Kind.AUTH, 401, {"status": "failure", "message": "Invalid API key"}, message="Invalid API key"),
        Case(Kind.AUTH, 401, error("无效的令牌", None, "one_api_error"), message="无效的令牌"),
        Case(Kind.AUTH, 403, error("m", "account_deactivated")),
        Case(Kind.AUTH, 403, anthropic("permission_error")),
        Case(Kind.AUTH, 403, HTML, message=PAGE),
        Case(Kind.AUTH, 500, error("m", "invalid_api_key")),
        Case(
            Kind.AUTH,
            400,
            error("API key not valid. Please pass a valid API key.", 400),
            message="API key not valid. Please pass a valid API key.",
        ),
    ],
    "not this content, not here": [
        Case(Kind.POLICY, 400, error("m", "content_filter")),
        Case(Kind.POLICY, 400, error("m", None, innererror={"code": "ResponsibleAIPolicyViolation"})),
        Case(Kind.POLICY, 400, error("m", "content_policy_violation")),
        Case(
            Kind.POLICY,
            400,
            error("litellm.ContentPolicyViolationError: m", "400"),
            message="litellm.ContentPolicyViolationError: m",
        ),
        Case(Kind.POLICY, 403, error("m", "content_policy_violation")),
        Case(Kind.POLICY, 403, error("m", "prompt_blocked")),
        Case(Kind.POLICY, 403, error("m", 403, metadata={"reasons": ["sexual"], "flagged_input": "x"})),
        Case(
            Kind.POLICY,
            403,
            error("Country, region, or territory not supported"),
            message="Country, region, or territory not supported",
        ),
        Case(Kind.POLICY, 403, error("m", "unsupported_country_region_territory")),
        Case(Kind.POLICY, 451, message="HTTP 451 Unavailable For Legal Reasons"),
    ],
    "the job": [
        Case(Kind.CONFIG, 404, error("m", "model_not_found")),
        Case(Kind.CONFIG, 404, anthropic("not_found_error")),
        Case(Kind.CONFIG, 404, {"detail": "Not Found"}, message="Not Found"),
        Case(Kind.CONFIG, 404, HTML, message=PAGE),
        Case(Kind.CONFIG, 403, error("m", "model_not_found")),
        Case(Kind.CONFIG, 503, error("m", "model_not_found", "new_api_error"), after("5")),
        Case(Kind.CONFIG, 500, error("m", "model_not_found")),
        *[
            Case(Kind.CONFIG, status, error(text), message=text)
            for status, text in (
                (503, "No available channel for model x under group default"),
                (503, "当前分组 default 下对于模型 x 无可用渠道"),
                (403, "该令牌无权访问模型 x"),
                (400, "nope/x is not a valid model ID"),
                (400, "The model `x` does not exist"),
            )
        ],
        *[
            Case(
                Kind.CONFIG,
                status,
                headers={"location": "https://www.example.com/v1/x"},
                message="the server redirects to www.example.com, which is never followed: check endpoint.base_url",
            )
            for status in (301, 302, 304, 307, 308)
        ],
    ],
    "a bad request": [
        Case(Kind.REQUEST, 400, error("m", None, "invalid_request_error"), after("1")),
        Case(Kind.REQUEST, 400, anthropic("invalid_request_error")),
        Case(Kind.REQUEST, 400, error("m", "context_length_exceeded")),
        Case(Kind.REQUEST, 400, error("m", 400, "exceed_context_size_error", n_prompt_tokens=9)),
        Case(Kind.REQUEST, 400, error(TOO_LONG, 400), message=TOO_LONG),
        Case(Kind.REQUEST, 400, error(LITELLM_LONG, "400"), message=LITELLM_LONG),
        Case(Kind.REQUEST, 405, {"detail": "Method Not Allowed"}, message="Method Not Allowed"),
        Case(Kind.REQUEST, 413, message="HTTP 413 Request Entity Too Large"),
        Case(Kind.REQUEST, 413, anthropic("request_too_large")),
        Case(Kind.REQUEST, 415, error()),
        Case(Kind.REQUEST, 418, error()),
        Case(Kind.REQUEST, 422, {"detail": [{"loc": ["body"], "msg": "m"}]}, message="body: m"),
        # a request beyond the limit by itself, whatever its status says
        Case(Kind.REQUEST, 429, error(TOO_LARGE, "rate_limit_exceeded", "tokens"), after("1"), TOO_LARGE),
        Case(Kind.REQUEST, 429, anthropic("request_too_large")),
    ],
    "a bad request in a 500": [
        Case(
            Kind.REQUEST,
            500,
            error("m (request id: 20250101123456789)", "invalid_request", "comet_api_error"),
            message="m (request id: 20250101123456789)",
        ),
        *[
            Case(Kind.REQUEST, 500, error("m", code, "new_api_error"))
            for code in (
                "sensitive_words_detected",
                "prompt_blocked",
                "convert_request_failed",
                "bad_request_body",
                "read_request_body_failed",
            )
        ],
        Case(Kind.REQUEST, 500, error(TOO_LONG), message=TOO_LONG),
        Case(Kind.REQUEST, 500, error(LITELLM_LONG, "500"), message=LITELLM_LONG),
    ],
    "overloaded": [
        Case(Kind.OVERLOADED, 498, error("m", "capacity_exceeded")),
        Case(Kind.OVERLOADED, 503, error("m", "server_is_overloaded"), after("2.5"), wait_s=2.5),
        Case(Kind.OVERLOADED, 503, error("m", None, "service_unavailable_error")),
        Case(Kind.OVERLOADED, 503, message="HTTP 503 Service Unavailable"),
        Case(Kind.OVERLOADED, 503, HTML, message=PAGE),
        Case(Kind.OVERLOADED, 503, b"", after("3600"), "HTTP 503 Service Unavailable", 3600.0, does=LONG_WAIT),
        Case(Kind.OVERLOADED, 529, anthropic("overloaded_error")),
        Case(Kind.OVERLOADED, 500, error("m", None, "overloaded_error")),
        Case(
            Kind.OVERLOADED,
            500,
            error("litellm.InternalServerError: AnthropicException - Overloaded", "500"),
            message="litellm.InternalServerError: AnthropicException - Overloaded",
        ),
    ],
    "the server": [
        Case(Kind.SERVER, 500, error()),
        Case(Kind.SERVER, 500, anthropic("api_error")),
        Case(Kind.SERVER, 504, anthropic("timeout_error"), billed=Billed.MAYBE),
        Case(
            Kind.SERVER,
            500,
            error("litellm.APIConnectionError: Server disconnected", "500"),
            message="litellm.APIConnectionError: Server disconnected",
        ),
        Case(Kind.SERVER, 500, b"Internal Server Error", message="Internal Server Error"),
        Case(Kind.SERVER, 502, NGINX, message="a web page came back: 502 Bad Gateway"),
        server(500, "HTTP 500 Internal Server Error"),
        server(501, "HTTP 501 Not Implemented"),
        server(502, "HTTP 502 Bad Gateway"),
        server(504, "HTTP 504 Gateway Timeout"),
        server(520, "HTTP 520 Web Server Returned an Unknown Error"),
        server(521, "HTTP 521 Web Server Is Down"),
        server(522, "HTTP 522 Connection Timed Out"),
        server(523, "HTTP 523 Origin Is Unreachable"),
        server(524, "HTTP 524 A Timeout Occurred"),
        server(525, "HTTP 525 TLS Handshake Failed"),
        server(526, "HTTP 526 Invalid TLS Certificate"),
        server(527, "HTTP 527"),
        server(599, "HTTP 599"),
    ],
    "what the server says of asking again": [
        Case(Kind.SERVER, 400, error(), {"x-should-retry": "true"}),
        Case(Kind.REQUEST, 400, error(), {"x-should-retry": "false"}),
        Case(Kind.REQUEST, 500, error(), {"x-should-retry": "False"}),
        Case(Kind.SERVER, 500, error(), {"x-should-retry": "true"}),
        Case(Kind.RATE, 429, error(), {"x-should-retry": "false"}),
        Case(Kind.QUOTA, 429, error("m", "insufficient_quota"), {"x-should-retry": "true"}),
        Case(Kind.OVERLOADED, 529, error(), {"x-should-retry": "false"}),
    ],
    "an error inside a 200": [
        inside(Kind.BAD_REPLY, b"", "HTTP 200 OK"),
        inside(Kind.BAD_REPLY, HTML, PAGE, does=WEB_PAGES),
        inside(Kind.BAD_REPLY, error(), headers=after("1")),
        inside(Kind.BAD_REPLY, error("m", None, "server_error")),
        inside(Kind.BAD_REPLY, error("m", 200)),
        inside(Kind.BAD_REPLY, error("m", True)),
        inside(Kind.BAD_REPLY, {"status": "failure", "message": "m"}),
        inside(Kind.RATE, error("m", 429), headers=after("1"), wait_s=1.0),
        inside(Kind.RATE, error("m", "429", "throttling_error")),
        inside(Kind.SERVER, error("m", 502)),
        inside(Kind.AUTH, error("m", "403")),
        inside(Kind.CONFIG, error("m", 404)),
        inside(Kind.CONFIG, error("m", "model_not_found")),
        inside(Kind.QUOTA, error("m", None, "insufficient_quota")),
        inside(Kind.POLICY, error("m", "content_filter")),
        inside(Kind.REQUEST, error("m", "context_length_exceeded")),
        inside(Kind.REQUEST, {"object": "error", "message": "m", "type": "BadRequestError", "code": 400}),
        *[
            inside(kind, anthropic(type_))
            for type_, kind in {
                "invalid_request_error": Kind.REQUEST,
                "authentication_error": Kind.AUTH,
                "billing_error": Kind.QUOTA,
                "permission_error": Kind.AUTH,
                "not_found_error": Kind.CONFIG,
                "request_too_large": Kind.REQUEST,
                "rate_limit_error": Kind.RATE,
                "timeout_error": Kind.TIMEOUT,
                "api_error": Kind.BAD_REPLY,
                "overloaded_error": Kind.OVERLOADED,
            }.items()
        ],
    ],
    "no status at all": [
        Case(Kind.BAD_REPLY, 100, message="HTTP 100 Continue"),
        Case(Kind.BAD_REPLY, 999, message="HTTP 999"),
    ],
}

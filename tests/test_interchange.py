"""Batch files: which lines are requests, what a result line holds, and that both are what others read and write."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import EXAMPLES

from runner.interchange.requests import PATH, Lines, custom_id, request_line
from runner.interchange.results import Names, result_line
from runner.outputs.each import output_asked_by
from runner.records import Choice, Completion, Failure, Kind, Status

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi {{ x }}"}]}
LINE: dict[str, Any] = {"custom_id": "a", "method": "POST", "url": PATH, "body": BODY}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def refusal(**changes: Any) -> str:
    failure = Lines().render(LINE | changes)
    assert isinstance(failure, Failure)
    assert failure.kind is Kind.INPUT
    return failure.message


def test_a_line_is_sent_as_it_stands() -> None:
    body = {
        "zeta": 1,
        "messages": [{"role": "user", "content": "{{ 7*7 }}", "mood": None}],
        "model": "m",
        "temperature": None,
        "response_format": FORMAT,
        "n": 3,
    }
    found = Lines().render(LINE | {"body": body})
    assert found is body
    assert request_line("a", orjson.dumps(found)) == orjson.dumps(LINE | {"body": body}) + b"\n"


@pytest.mark.parametrize("url", [PATH, "/chat/completions", "/openai/v1/chat/completions"])
def test_the_path_may_have_another_root(url: str) -> None:
    assert Lines().render(LINE | {"url": url}) == BODY


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "GET"}, "method: must be POST"),
        ({"method": None}, "method: must be POST"),
        ({"url": "/v1/embeddings"}, "url: must be /v1/chat/completions; where it is sent is endpoint.base_url"),
        ({"url": "https://a.b/v1/chat/completions"}, "url: must be /v1/chat/completions; "),
        ({"url": None}, "url: must be /v1/chat/completions; "),
        ({"body": None}, "body: must be a mapping, not null"),
        ({"body": "{}"}, "body: must be a mapping, not text"),
        ({"body": {"messages": BODY["messages"]}}, "body.model: is required"),
        ({"body": {"model": "m"}}, "body.messages: is required"),
        ({"body": BODY | {"model": ""}}, "body.model: must be the name of a model, not text"),
        ({"body": BODY | {"model": None}}, "body.model: must be the name of a model, not null"),
        ({"body": BODY | {"messages": []}}, "body.messages: the conversation holds no message"),
        ({"body": BODY | {"messages": "{{ x }}"}}, "body.messages: must be a list, not text"),
        ({"body": BODY | {"messages": [{"role": "usr"}]}}, "body.messages.0.role: must be system, "),
        ({"body": BODY | {"messages": [{"role": "assistant", "tool_calls": [CALL]}]}}, "no tool message answers c1"),
        (
            {
                "body": BODY
                | {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": 3}}}}
            },
            "body.response_format.json_schema.schema: not a usable JSON Schema: ",
        ),
    ],
)
def test_a_line_that_is_no_request_says_why(changes: dict[str, Any], said: str) -> None:
    assert refusal(**changes).startswith(said) or said in refusal(**changes)


WORDS = ["user", "object", "json_schema", "json_object", "string", "#", "#/$defs/a", "http://a.b/c", "(", "\ud800"]
KEYS = ["role", "content", "type", "json_schema", "schema", "name", "properties", "pattern", "$ref", "$defs", "\udfff"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=8,
)


MEMBERS = st.dictionaries(st.sampled_from(["model", "messages", "response_format", "tools", "stop", "n", "x"]), JSON)
SCHEMAS = st.builds(lambda schema: FORMAT | {"json_schema": {"name": "x", "schema": schema}}, JSON)


@settings(deadline=None, max_examples=EXAMPLES)
@given(MEMBERS | st.builds(lambda form: BODY | {"response_format": form}, SCHEMAS))
def test_any_body_is_a_request_or_a_sentence(body: dict[str, Any]) -> None:
    found = Lines().render(LINE | {"body": body | {"model": "m"}})
    assert isinstance(found, Failure) or found["model"] == "m"


@pytest.mark.parametrize(
    ("value", "name"), [("a", "a"), ("", "row-7"), (None, "row-7"), (3, "3"), (True, "true"), ([1], "[1]"), (0, "0")]
)
def test_a_row_is_called_by_its_id_or_its_position(value: Any, name: str) -> None:
    assert custom_id(value, 7) == name


def test_each_answer_is_held_against_the_schema_of_its_own_row() -> None:
    def checked(content: str, **body: Any) -> Any:
        wanted = output_asked_by(orjson.dumps(BODY | body))
        answer = Completion(Status.OK, (Choice(0, content, "stop"),))
        return wanted.check(answer) if wanted else answer

    assert checked('{"n": 1}').parsed is None
    assert checked('{"n": 1, "m": [2]}', response_format=FORMAT).parsed == '{"n":1,"m":[2]}'
    assert checked("[1]", response_format={"type": "json_object"}).parsed == "[1]"
    assert isinstance(checked('{"n": "x"}', response_format=FORMAT), Failure)
    assert checked('x "response_format"', messages=[{"content": '"response_format"'}]).parsed is None


ROW: dict[str, Any] = {
    **dict.fromkeys(["content", "refusal", "reasoning", "tool_calls", "logprobs", "service_tier", "response_id"]),
    **dict.fromkeys(["created", "model_returned", "system_fingerprint", "error_kind", "error", "http_status"]),
    **dict.fromkeys(["prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "reasoning_tokens"]),
    "cache_write_tokens": None,
    "finished_at": "2025-01-02T03:04:05.000006Z",
    "status": "ok",
    "finish_reason": "stop",
    "model": "m",
    "attempts": [{"request_id": "r-0"}, {"request_id": "r-1"}],
}


def line(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(orjson.dumps(result_line(ROW | changes, Names("batch_req_1", "a", {"note"}))))
    assert list(found) == ["id", "custom_id", "response", "error"]
    assert (found["id"], found["custom_id"]) == ("batch_req_1", "a")
    return found


def test_an_answer_is_the_completion_that_came() -> None:
    told = {
        "response_id": "x-1",
        "created": 7,
        "model_returned": "m-2025",
        "system_fingerprint": "f",
        "service_tier": "flex",
    }
    counts = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
        "cached_tokens": 4,
        "reasoning_tokens": 1,
    }
    found = line(content="fine", reasoning="hm", http_status=200, **told, **counts)
    assert found["error"] is None
    assert found["response"] == {
        "status_code": 200,
        "request_id": "r-1",
        "body": {
            "id": "x-1",
            "object": "chat.completion",
            "created": 7,
            "model": "m-2025",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "fine", "refusal": None, "reasoning_content": "hm"},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 15,
                "prompt_tokens_details": {"cached_tokens": 4},
                "completion_tokens_details": {"reasoning_tokens": 1},
            },
            "service_tier": "flex",
            "system_fingerprint": "f",
        },
    }


def test_what_the_server_owed_and_did_not_say_is_ours() -> None:
    body = line(content="x")["response"]["body"]
    assert (body["id"], body["created"], body["model"]) == ("chatcmpl-batch_req_1", 1735787045, "m")
    assert body["usage"] is None
    assert "service_tier" not in body


def test_calls_choices_and_logprobs_have_the_shape_of_the_wire() -> None:
    calls = [{"id": "c1", "name": "f", "arguments": "{}"}, {"id": None, "name": "note", "arguments": "x"}]
    message = line(tool_calls=calls)["response"]["body"]["choices"][0]["message"]
    noted = {"id": "call_1", "type": "custom", "custom": {"name": "note", "input": "x"}}
    assert message == {"role": "assistant", "content": None, "refusal": None, "tool_calls": [CALL, noted]}
    top = [{"token": "a", "logprob": -0.5}]
    tokens = [{"token": "a", "logprob": -0.5, "top": top}]
    plain = {"finish_reason": "stop", "refusal": None, "tool_calls": None}
    choices = [{"index": n, "content": str(n), "logprobs": tokens, **plain} for n in range(2)]
    found = line(choices=choices)["response"]["body"]["choices"]
    assert [choice["message"]["content"] for choice in found] == ["0", "1"]
    likely = {"token": "a", "logprob": -0.5, "bytes": None}
    assert found[1]["logprobs"] == {"content": [likely | {"top_logprobs": [likely]}], "refusal": None}


@pytest.mark.parametrize(("raw", "body"), [('{"a": 1.0}', {"a": 1.0}), ("data: {}", None), ("[1]", None), ("{", None)])
def test_the_reply_itself_is_the_body_where_it_was_kept(raw: str, body: Any) -> None:
    found = line(content="x", raw=raw)["response"]["body"]
    assert found == body if body else found["object"] == "chat.completion"


FAILED = {"status": "failed", "finish_reason": None, "error": "no"}


@pytest.mark.parametrize(
    ("row", "status", "code"),
    [
        ({"error_kind": "REQUEST", "http_status": 400}, 400, None),
        ({"error_kind": "SERVER", "http_status": 500}, 500, None),
        ({"error_kind": "TIMEOUT"}, None, "request_timeout"),
        ({"error_kind": "INPUT", "attempts": []}, None, "input"),
        ({"error_kind": "BAD_REPLY", "http_status": 200}, None, "bad_reply"),
        ({"error_kind": "OUTPUT", "http_status": 200, "content": "prose"}, 200, "output"),
        ({"error_kind": "OUTPUT", "http_status": None, "content": "prose"}, 200, "output"),
    ],
)
def test_a_failed_row_says_how_it_failed(row: dict[str, Any], status: int | None, code: str | None) -> None:
    found = line(**FAILED | row)
    assert (found["response"] or {}).get("status_code") == status
    assert found["error"] == (code and {"code": code, "message": "no"})
    if status and status >= 400:
        assert found["response"]["body"]["error"]["message"] == "no"
    if status == 200:
        assert found["response"]["body"]["choices"][0]["message"]["content"] == "prose"

"""Replies to outcomes: every spelling of an answer, every 200 that is none, and anything else that JSON can say."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import EXAMPLES

from runner.records import NO_USAGE, Billed, Choice, Completion, Failure, Kind, Reply, Status, ToolCall, Usage
from runner.wire.choices import FINISH
from runner.wire.decode import decode
from runner.wire.usage import read_usage

NOW = 1_741_305_590.0
USAGE = {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29}


def reply(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, headers or {}, body if isinstance(body, bytes) else json.dumps(body).encode(), 0.1)


def choice(index: Any = 0, finish: Any = "stop", content: Any = "hi", **message: Any) -> dict[str, Any]:
    return {"index": index, "finish_reason": finish, "message": {"role": "assistant", "content": content, **message}}


def chat(*choices: Any, **more: Any) -> dict[str, Any]:
    return {"id": "c1", "object": "chat.completion", "created": 1, "model": "m-1", "choices": list(choices), **more}


def completion(body: Any, choices: int = 1) -> Completion:
    outcome = decode(reply(body), choices=choices, now=NOW)
    assert isinstance(outcome, Completion), outcome
    return outcome


def failure(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Failure:
    outcome = decode(reply(body, status, headers), choices=1, now=NOW)
    assert isinstance(outcome, Failure), outcome
    return outcome


def test_a_plain_answer_is_read_whole() -> None:
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1741569952,
        "model": "gpt-4.1-2025-04-14",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello!", "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            **USAGE,
            "prompt_tokens_details": {"cached_tokens": 3, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 4, "audio_tokens": 0},
        },
        "service_tier": "default",
        "system_fingerprint": "fp_1",
        "timings": {"unknown": "members are ignored"},
    }
    sent = reply(body, headers={"x-request-id": "req_1"})
    expected = Completion(
        status=Status.OK,
        choices=(Choice(0, "Hello!", "stop"),),
        usage=Usage(19, 3, None, 10, 4, 29),
        model="gpt-4.1-2025-04-14",
        response_id="chatcmpl-1",
        created=1741569952,
        system_fingerprint="fp_1",
        service_tier="default",
        request_id="req_1",
    )
    assert decode(sent, choices=1, now=NOW) == expected
    kept = decode(sent, choices=1, now=NOW, keep_raw=True)
    assert isinstance(kept, Completion)
    assert kept.raw == json.dumps(body)


def test_only_choices_are_needed() -> None:
    assert completion({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}) == Completion(
        Status.OK, (Choice(0, "x", "stop"),)
    )


# -- how an answer ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("finish", "canonical", "status"),
    [
        ("stop", "stop", Status.OK),
        ("tool_calls", "tool_calls", Status.OK),
        ("function_call", "function_call", Status.OK),
        ("length", "length", Status.TRUNCATED),
        ("content_filter", "content_filter", Status.FILTERED),
        ("end_turn", "stop", Status.OK),
        ("STOP", "stop", Status.OK),
        ("eos", "stop", Status.OK),
        ("tool_use", "tool_calls", Status.OK),
        ("max_tokens", "length", Status.TRUNCATED),
        ("MAX_TOKENS", "length", Status.TRUNCATED),
        ("model_length", "length", Status.TRUNCATED),
        ("SAFETY", "content_filter", Status.FILTERED),
        ("RECITATION", "content_filter", Status.FILTERED),
        ("refusal", "refusal", Status.REFUSED),
        ("a word of tomorrow", "a word of tomorrow", Status.OK),
        ("", None, Status.OK),
        (None, None, Status.OK),
        (7, None, Status.OK),
    ],
)
def test_finish_reason_decides_the_status(finish: Any, canonical: str | None, status: Status) -> None:
    found = completion(chat(choice(finish=finish)))
    assert (found.status, found.choices[0].finish_reason) == (status, canonical)


def test_the_table_of_endings_knows_each_canonical_word_as_itself() -> None:
    for word in ("stop", "length", "tool_calls", "function_call", "content_filter", "error", "refusal"):
        assert FINISH[word][0] == word
    assert {word.lower() for word in FINISH} == set(FINISH)
    assert {canonical for canonical, _ in FINISH.values()} <= set(FINISH)


@pytest.mark.parametrize("finish", ["stop", "length", None])
def test_a_refusal_refuses_however_it_ended(finish: str | None) -> None:
    found = completion(chat(choice(finish=finish, content=None, refusal="I won't.")))
    assert found.status is Status.REFUSED
    assert found.choices == (Choice(0, None, finish, "I won't."),)


def test_an_empty_refusal_is_none() -> None:
    assert completion(chat(choice(refusal=""))) == completion(chat(choice()))


@pytest.mark.parametrize("content", ["", None])
@pytest.mark.parametrize(
    ("finish", "status"), [("stop", "ok"), ("length", "truncated"), ("content_filter", "filtered")]
)
def test_an_empty_answer_that_ended_is_an_answer(content: str | None, finish: str, status: str) -> None:
    found = completion(chat(choice(finish=finish, content=content)))
    assert (found.status, found.choices[0].content) == (status, content)


# -- what it says ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"content": "a"}, Choice(0, "a", "stop")),
        ({"content": "a\u2028b\x00c"}, Choice(0, "a\u2028b\x00c", "stop")),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, Choice(0, "ab", "stop")),
        ({"content": ["a", "b"]}, Choice(0, "ab", "stop")),
        ({"content": [{"type": "refusal", "refusal": "no"}]}, Choice(0, None, "stop", "no")),
        ({"content": []}, Choice(0, None, "stop")),
        ({}, Choice(0, None, "stop")),
        # no text at all: kept as it is, for it was paid
        ({"content": {"label": "x"}}, Choice(0, '{"label":"x"}', "stop")),
        ({"content": [1, {"a": None}]}, Choice(0, '[1,{"a":null}]', "stop")),
        ({"content": False}, Choice(0, "false", "stop")),
        ({"content": None, "audio": {"id": "a", "transcript": "said"}}, Choice(0, "said", "stop")),
        ({"content": "<think>x</think>y"}, Choice(0, "y", "stop", reasoning="x")),
        ({"content": "a", "reasoning_content": "r"}, Choice(0, "a", "stop", reasoning="r")),
        ({"content": "a", "reasoning": "r"}, Choice(0, "a", "stop", reasoning="r")),
        ({"content": "a", "reasoning": None, "reasoning_content": ""}, Choice(0, "a", "stop")),
        (
            {
                "content": "a",
                "reasoning_details": [
                    {"type": "reasoning.text", "text": "r"},
                    {"type": "reasoning.summary", "summary": "s"},
                    {"type": "reasoning.encrypted", "data": "x"},
                ],
            },
            Choice(0, "a", "stop", reasoning="r\ns"),
        ),
        (
            {"content": "a", "thinking_blocks": [{"type": "thinking", "thinking": "r", "signature": "x"}]},
            Choice(0, "a", "stop", reasoning="r"),
        ),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "r"}]},
                    {"type": "text", "text": "a"},
                ]
            },
            Choice(0, "a", "stop", reasoning="r"),
        ),
        (
            {"content": [{"type": "thinking", "thinking": "r"}, {"type": "text", "text": "a"}]},
            Choice(0, "a", "stop", reasoning="r"),
        ),
        (
            {"tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": '}}]},
            Choice(0, None, "stop", tool_calls=(ToolCall("1", "f", '{"a": '),)),
        ),
        (
            {"tool_calls": [{"id": "1", "type": "custom", "custom": {"name": "f", "input": "x"}}]},
            Choice(0, None, "stop", tool_calls=(ToolCall("1", "f", "x"),)),
        ),
        (
            {"tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}, {"function": None}, 3]},
            Choice(0, None, "stop", tool_calls=(ToolCall(None, "f", '{"a":1}'), ToolCall(None, None, None))),
        ),
        (
            {"content": "", "function_call": {"name": "f", "arguments": "{}"}},
            Choice(0, "", "stop", tool_calls=(ToolCall(None, "f", "{}"),)),
        ),
        ({"content": "a", "tool_calls": [], "function_call": None}, Choice(0, "a", "stop")),
    ],
)
def test_a_message_is_read_in_every_spelling(message: dict[str, Any], expected: Choice) -> None:
    assert completion(chat({"index": 0, "finish_reason": "stop", "message": message})).choices == (expected,)


def test_a_message_may_be_called_delta_or_be_bare_text() -> None:
    assert completion(chat({"finish_reason": "stop", "delta": {"content": "a"}})).choices[0].content == "a"
    assert completion(chat({"finish_reason": "stop", "text": "a"})).choices[0].content == "a"


@pytest.mark.parametrize(
    ("content", "answer", "thought"),
    [
        ("<think>Hm, well.</think>billing", "billing", "Hm, well."),
        ("\n<think>\nHm.\n</think>\n\n{}", "{}", "Hm."),
        ("<think></think>yes", "yes", None),
        ("<think>\n\n</think>\n\nyes", "yes", None),
        ("<think>a</think>b</think>c", "b</think>c", "a"),
        ("<think>Hm.</think>", "", "Hm."),
        ("<think>Hm, and then", "<think>Hm, and then", None),
        ("Hm.</think>yes", "Hm.</think>yes", None),
        ("Say <think>x</think>", "Say <think>x</think>", None),
        ("<thinking>x</thinking>y", "<thinking>x</thinking>y", None),
    ],
)
def test_thoughts_that_an_answer_begins_with_are_reasoning(content: str, answer: str, thought: str | None) -> None:
    (found,) = completion(chat(choice(content=content))).choices
    assert (found.content, found.reasoning) == (answer, thought)


def test_reasoning_of_its_own_member_stays_beside_thoughts_in_the_text() -> None:
    (found,) = completion(chat(choice(content="<think>a</think>b", reasoning_content="said apart"))).choices
    assert (found.content, found.reasoning) == ("b", "said apart")


@pytest.mark.parametrize(
    ("texts", "kept"),
    [
        (["<think>", "Hm", "</think>", "\n\n", "bill", "ing"], ["bill", "ing"]),
        (["<think>Hm</think>\n\n", "billing"], ["billing"]),
        (["other", "words"], ["other", "words"]),
        ([None, None], [None, None]),
    ],
)
def test_the_tokens_of_thoughts_are_no_tokens_of_the_answer(texts: list[Any], kept: list[Any]) -> None:
    said = choice(content="<think>Hm</think>\n\nbilling")
    logprobs = {"content": [{"token": text, "logprob": -0.5} for text in texts]}
    (found,) = completion(chat({**said, "logprobs": logprobs})).choices
    assert [token["token"] for token in found.logprobs or ()] == kept


def test_logprobs_are_tokens_with_their_rivals() -> None:
    top = [{"token": "a", "logprob": -0.1, "bytes": [97]}, {"token": "b", "logprob": -9999.0}]
    tokens = [
        {"token": "a", "logprob": -0.1, "bytes": None, "top_logprobs": top},
        {"token": "\ud83d", "logprob": 0},
        {"token": None, "logprob": "x", "top_logprobs": None},
    ]
    body = chat({**choice(), "logprobs": {"content": tokens, "refusal": None}})
    assert completion(body).choices[0].logprobs == (
        {"token": "a", "logprob": -0.1, "top": [{"token": "a", "logprob": -0.1}, {"token": "b", "logprob": -9999.0}]},
        {"token": "\ufffd", "logprob": 0.0, "top": []},
        {"token": None, "logprob": None, "top": []},
    )
    never = {"content": [{"token": "a", "logprob": -math.inf}]}  # written -Infinity, which is no JSON
    assert completion(chat({**choice(), "logprobs": never})).choices[0].logprobs == (
        {"token": "a", "logprob": None, "top": []},
    )


@pytest.mark.parametrize(
    ("logprobs", "expected"),
    [
        (None, None),
        ([], None),
        ({}, None),
        ({"content": None}, None),
        ({"content": []}, ()),
        (
            {"content": None, "refusal": [{"token": "a", "logprob": -1}]},
            ({"token": "a", "logprob": -1.0, "top": []},),
        ),
    ],
)
def test_logprobs_may_be_missing_in_many_ways(logprobs: Any, expected: Any) -> None:
    assert completion(chat({**choice(), "logprobs": logprobs})).choices[0].logprobs == expected


# -- several answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "indices", "order"),
    [
        (3, [0, 1, 2], [(0, "a"), (1, "b"), (2, "c")]),
        (3, [2, 0, 1], [(0, "b"), (1, "c"), (2, "a")]),
        (3, [0, 0, 0], [(0, "a"), (1, "b"), (2, "c")]),
        (3, [None, None, None], [(0, "a"), (1, "b"), (2, "c")]),
        (3, [1, 2, 3], [(0, "c"), (1, "a"), (2, "b")]),
        (3, ["1", True, 1.0], [(0, "a"), (1, "c"), (2, "b")]),
        (3, [-1, 2**70, 0], [(0, "c"), (1, "a"), (2, "b")]),
        (3, [2], [(2, "a")]),
        (2, [0, 1, 2], [(0, "a"), (1, "b"), (2, "c")]),
        (1, [1], [(0, "a")]),
        (1, [1, 0], [(0, "b"), (1, "a")]),
    ],
)
def test_choices_are_keyed_on_index(asked: int, indices: list[Any], order: list[tuple[int, str]]) -> None:
    body = chat(*[choice(index, content=text) for index, text in zip(indices, "abc", strict=False)])
    assert [(found.index, found.content) for found in completion(body, asked).choices] == order


def test_the_first_answer_gives_the_status_and_what_is_no_answer_is_left_out() -> None:
    body = chat(choice(1), choice(0, "length"), choice(2, "error"), choice(3, None, None), None, 5)
    found = completion(body, 4)
    assert found.status is Status.TRUNCATED
    assert [answer.index for answer in found.choices] == [0, 1]


# -- tokens ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, NO_USAGE),
        ({}, NO_USAGE),
        ([], NO_USAGE),
        ({"other": 1}, NO_USAGE),
        (USAGE, Usage(19, None, None, 10, None, 29)),
        (
            {**USAGE, "prompt_tokens_details": None, "completion_tokens_details": []},
            Usage(19, None, None, 10, None, 29),
        ),
        (
            {**USAGE, "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 2}},
            Usage(19, 5, 2, 10, None, 29),
        ),
        ({**USAGE, "completion_tokens_details": {"reasoning_tokens": 8}}, Usage(19, None, None, 10, 8, 29)),
        ({**USAGE, "reasoning_tokens": 8}, Usage(19, None, None, 10, 8, 29)),
        # DeepSeek
        ({**USAGE, "prompt_cache_hit_tokens": 16, "prompt_cache_miss_tokens": 3}, Usage(19, 16, None, 10, None, 29)),
        # Anthropic through LiteLLM: inside prompt_tokens
        ({**USAGE, "cache_creation_input_tokens": 4, "cache_read_input_tokens": 6}, Usage(19, 6, 4, 10, None, 29)),
        # every spelling at once, one of them filled
        (
            {**USAGE, "prompt_tokens_details": {"cached_tokens": 0}, "prompt_cache_hit_tokens": 16},
            Usage(19, 16, None, 10, None, 29),
        ),
        # Moonshot
        ({**USAGE, "cached_tokens": 6}, Usage(19, 6, None, 10, None, 29)),
        # Anthropic's own: beside input_tokens
        (
            {"input_tokens": 9, "output_tokens": 10, "cache_creation_input_tokens": 4, "cache_read_input_tokens": 6},
            Usage(19, 6, 4, 10, None, None),
        ),
        ({"input_tokens": 9, "output_tokens": 1, "cache_read_input_tokens": None}, Usage(9, None, None, 1, None, None)),
        # the Responses API's: inside
        (
            {
                "input_tokens": 19,
                "input_tokens_details": {"cached_tokens": 6},
                "output_tokens": 10,
                "output_tokens_details": {"reasoning_tokens": 2},
                "total_tokens": 29,
            },
            Usage(19, 6, None, 10, 2, 29),
        ),
        # cached tokens counted beside the prompt, by the server's own sum
        (
            {**USAGE, "total_tokens": 129, "prompt_tokens_details": {"cached_tokens": 100}},
            Usage(119, 100, None, 10, None, 129),
        ),
        # xAI counts reasoning beside; Gemini's endpoint shows it in the total alone
        (
            {**USAGE, "total_tokens": 129, "completion_tokens_details": {"reasoning_tokens": 100}},
            Usage(19, None, None, 110, 100, 129),
        ),
        ({**USAGE, "total_tokens": 129}, Usage(19, None, None, 110, 100, 129)),
        # sums that nothing explains stay as they came
        (
            {**USAGE, "total_tokens": 129, "completion_tokens_details": {"reasoning_tokens": 7}},
            Usage(19, None, None, 10, 7, 129),
        ),
        ({**USAGE, "total_tokens": 5}, Usage(19, None, None, 10, None, 5)),
        # what is no count
        ({**USAGE, "completion_tokens": -1}, Usage(19, None, None, None, None, 29)),
        ({**USAGE, "prompt_tokens": True}, Usage(None, None, None, 10, None, 29)),
        ({**USAGE, "prompt_tokens": "19"}, Usage(None, None, None, 10, None, 29)),
        ({**USAGE, "prompt_tokens": 19.0}, Usage(19, None, None, 10, None, 29)),
        ({**USAGE, "prompt_tokens": 19.5}, Usage(None, None, None, 10, None, 29)),
        ({**USAGE, "prompt_tokens": 2**63}, Usage(None, None, None, 10, None, 29)),
        ({**USAGE, "prompt_tokens": 1e300}, Usage(None, None, None, 10, None, 29)),
    ],
)
def test_usage_is_read_in_every_spelling(usage: Any, expected: Usage) -> None:
    assert read_usage(usage) == expected
    assert completion(chat(choice(), usage=usage)).usage == expected


# -- 200 and no answer -------------------------------------------------------------------------------------------

HTML = b"\n <!doctype HTML><title>Welcome</title>"


@pytest.mark.parametrize(
    ("body", "kind", "message", "html"),
    [
        (b"", Kind.BAD_REPLY, "the reply is empty", False),
        (b" \n", Kind.BAD_REPLY, "the reply is empty", False),
        (b"null", Kind.BAD_REPLY, "the reply is no JSON", False),
        (b"[]", Kind.BAD_REPLY, "the reply is JSON, but not an object", False),
        (b"3", Kind.BAD_REPLY, "the reply is JSON, but not an object", False),
        (b'{"choices":[{"message":{"content":"cut', Kind.BAD_REPLY, "the reply is no JSON", False),
        (b'{"choices":[{"message":{"content":"\xff"}}]}', Kind.BAD_REPLY, "the reply is not in UTF-8", False),
        (b'{"choices":[{"message":{"content":"caf\xe9"}}]}', Kind.BAD_REPLY, "the reply is not in UTF-8", False),
        (b'{"choices":[{"message":{"content":"caf\xc3', Kind.BAD_REPLY, "the reply is no JSON", False),
        (json.dumps(chat(choice())).encode("utf-16"), Kind.BAD_REPLY, "the reply is not in UTF-8", False),
        (json.dumps(chat(choice())).encode("utf-16-le"), Kind.BAD_REPLY, "the reply is no JSON", False),
        (b"[" * 200_000, Kind.BAD_REPLY, "the reply is no JSON", False),
        (b"data: {}\n\n", Kind.BAD_REPLY, "the stream ended before the answer did", False),
        (HTML, Kind.BAD_REPLY, "a web page came back: Welcome", True),
        ({}, Kind.BAD_REPLY, "the reply has no choices", False),
        (chat(), Kind.BAD_REPLY, "the reply has no choices", False),
        ({"choices": None}, Kind.BAD_REPLY, "the reply has no choices", False),
        ({"choices": {"0": choice()}}, Kind.BAD_REPLY, "the reply has no choices", False),
        ({"choices": [None, 1]}, Kind.BAD_REPLY, "the reply has no choices", False),
        (chat({}), Kind.BAD_REPLY, "the reply has no text, no tool call and no known finish_reason", False),
        (
            chat(choice(finish=None, content="", reasoning_content="cut")),
            Kind.BAD_REPLY,
            "the reply has no text, no tool call and no known finish_reason",
            False,
        ),
        ({"error": {"message": "boom"}}, Kind.BAD_REPLY, "boom", False),
        ({"error": "boom"}, Kind.BAD_REPLY, "boom", False),
        ([{"error": {"message": "boom", "code": 503}}], Kind.OVERLOADED, "boom", False),
        ({"error": {"message": "boom", "code": 502}}, Kind.SERVER, "boom", False),
        ({"error": {"message": "boom", "code": "400"}}, Kind.REQUEST, "boom", False),
        ({"error": {"message": "boom", "code": 400}, "choices": []}, Kind.REQUEST, "boom", False),
        (chat(choice(finish=None), error={"message": "boom", "code": 429}), Kind.RATE, "boom", False),
        (chat(choice(content=""), error={"message": "boom"}), Kind.BAD_REPLY, "boom", False),
        (chat(choice(finish="error")), Kind.SERVER, "the answer ended with finish_reason error", False),
        (chat(choice(finish="ERROR")), Kind.SERVER, "the answer ended with finish_reason ERROR", False),
        (chat(choice(finish="error"), error={"message": "boom", "code": 429}), Kind.RATE, "boom", False),
        (chat({**choice(finish="error"), "error": {"message": "boom", "code": 503}}), Kind.OVERLOADED, "boom", False),
        (
            chat(choice(finish="insufficient_system_resource")),
            Kind.OVERLOADED,
            "the answer ended with finish_reason insufficient_system_resource",
            False,
        ),
    ],
)
def test_a_200_that_is_no_answer_is_a_failure(body: Any, kind: Kind, message: str, html: bool) -> None:
    found = failure(body)
    assert (found.kind, found.message, found.html) == (kind, message, html)
    assert (found.status, found.billed) == (200, Billed.MAYBE)


def test_usage_in_such_a_reply_says_that_it_was_billed() -> None:
    for body in (chat(usage=USAGE), chat(choice(finish="error"), usage=USAGE), {"error": "boom", "usage": USAGE}):
        found = failure(body)
        assert (found.billed, found.usage) == (Billed.YES, Usage(19, None, None, 10, None, 29))


@pytest.mark.parametrize("error", [None, {}, "", {"message": "", "type": "", "param": "", "code": None}])
def test_an_answer_that_ended_is_kept_beside_an_empty_error(error: Any) -> None:
    assert completion(chat(choice(), error=error)).choices[0].content == "hi"


@pytest.mark.parametrize("status", [201, 206])
def test_any_2xx_may_hold_an_answer(status: int) -> None:
    assert isinstance(decode(reply(chat(choice()), status), choices=1, now=NOW), Completion)


@pytest.mark.parametrize(
    ("status", "kind"), [(100, "BAD_REPLY"), (301, "CONFIG"), (429, "RATE"), (500, "SERVER"), (0, "BAD_REPLY")]
)
def test_no_other_status_holds_one(status: int, kind: str) -> None:
    assert failure(chat(choice()), status).kind == kind


# -- whatever comes ----------------------------------------------------------------------------------------------


def test_what_orjson_refuses_is_read_and_made_storable() -> None:
    body = (
        b'\xef\xbb\xbf{"choices":[{"finish_reason":"stop",'
        b'"message":{"content":"half \\ud83d, whole \\ud83d\\ude00"}}],'
        b'"created":123456789012345678901234567890,"model":"\\udfff","x":[NaN,1e400,-Infinity,' + b"9" * 5000 + b"],"
        b'"usage":{"prompt_tokens":1e400,"completion_tokens":3.0}}'
    )
    found = completion(body)
    assert found.choices[0].content == "half \ufffd, whole 😀"
    assert (found.created, found.model) == (None, "\ufffd")
    assert found.usage == Usage(completion_tokens=3)


@pytest.mark.parametrize("created", [2**63, -(2**63) - 1, 2.0**60, 10**30, 1.5, True, "1", None])
def test_created_is_a_64_bit_integer_or_nothing(created: Any) -> None:
    assert completion(chat(choice()) | {"created": created}).created is None


def test_ten_megabytes_of_text_are_an_answer() -> None:
    for text in ("é" * 5_000_000, "x" * 10_000_000):
        assert completion(chat(choice(content=text))).choices[0].content == text


def texts_and_numbers(value: Any) -> Iterator[Any]:
    if is_dataclass(value):
        value = [getattr(value, field.name) for field in fields(value)]
    if isinstance(value, Mapping):
        value = [*value, *value.values()]
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from texts_and_numbers(item)
    else:
        yield value


def assert_storable(outcome: Any) -> None:
    assert isinstance(outcome, (Completion, Failure))
    for leaf in texts_and_numbers(outcome):
        if isinstance(leaf, str):
            leaf.encode()
        elif isinstance(leaf, float):
            assert math.isfinite(leaf)
        elif isinstance(leaf, int):
            assert -(2**63) <= leaf < 2**63
        else:
            assert leaf is None
    if isinstance(outcome, Failure):
        assert 0 < len(outcome.message) <= 500
    else:
        assert outcome.choices
        assert len({answer.index for answer in outcome.choices}) == len(outcome.choices)
    orjson.dumps(outcome)


LEAF = (
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats()
    | st.text(st.characters(), max_size=12)
    | st.sampled_from(["stop", "error", "length", "", "\ud800", 1.0, 1e308, 2**63])
)
ANY = st.recursive(
    LEAF,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=6), inner, max_size=3)
    ),
    max_leaves=5,
)


def or_any(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return strategy | strategy | strategy | ANY


def members(**values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return or_any(st.fixed_dictionaries({}, optional={name: or_any(value) for name, value in values.items()}))


def many(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return or_any(st.lists(strategy, max_size=3))


TOKEN = members(token=st.just("a"), logprob=st.floats(), top_logprobs=many(members(token=ANY, logprob=ANY)))
CALL = members(id=ANY, function=members(name=ANY, arguments=ANY), custom=members(name=ANY, input=ANY))
PART = members(type=st.sampled_from(["text", "thinking", "refusal"]), text=ANY, thinking=ANY, refusal=ANY)
MESSAGE = members(
    content=many(PART),
    refusal=ANY,
    tool_calls=many(CALL),
    function_call=members(name=ANY, arguments=ANY),
    reasoning=ANY,
    reasoning_details=many(members(text=ANY, summary=ANY)),
    thinking_blocks=many(members(thinking=ANY)),
    audio=members(transcript=ANY),
)
CHOICE = members(
    index=st.integers(-1, 3),
    finish_reason=st.sampled_from(["stop", "error", None, "x"]),
    message=MESSAGE,
    logprobs=members(content=many(TOKEN), refusal=many(TOKEN)),
    text=ANY,
    error=ANY,
)
ERROR = members(
    message=ANY,
    code=st.sampled_from([429, "500", 200]),
    type=ANY,
    details=many(members(retryDelay=ANY, violations=many(members(quotaId=ANY)))),
    metadata=members(headers=st.dictionaries(st.just("Retry-After"), ANY), raw=ANY, reasons=ANY),
)
TOKENS = members(cached_tokens=ANY, reasoning_tokens=ANY)
BODY = members(
    choices=many(CHOICE),
    error=ERROR,
    usage=members(
        prompt_tokens=st.integers(0, 9),
        completion_tokens=st.integers(0, 9),
        total_tokens=st.integers(0, 99) | st.just(2**63 - 1),
        prompt_tokens_details=TOKENS,
        completion_tokens_details=TOKENS,
        cache_read_input_tokens=ANY,
        input_tokens=ANY,
    ),
    id=ANY,
    created=ANY,
    model=ANY,
    service_tier=ANY,
    system_fingerprint=ANY,
    detail=ANY,
)


@settings(deadline=None, max_examples=EXAMPLES)
@given(BODY, st.integers(1, 3), st.sampled_from([200, 200, 200, 429, 500]), st.booleans())
def test_any_json_at_any_place_gives_an_outcome_that_can_be_stored(body: Any, n: int, status: int, raw: bool) -> None:
    assert_storable(decode(reply(body, status), choices=n, now=NOW, keep_raw=raw))


@settings(deadline=None, max_examples=EXAMPLES)
@given(
    st.integers(-1, 1000) | st.just(200),
    st.dictionaries(st.sampled_from(["x-request-id", "content-type", "retry-after"]), st.text(max_size=20)),
    st.binary(max_size=100) | st.binary(max_size=40).map(b'{"choices":[{"message":{"content":"%b"}}]}'.__mod__),
    st.integers(-1, 2),
)
def test_any_bytes_give_an_outcome_that_can_be_stored(
    status: int, headers: dict[str, str], body: bytes, n: int
) -> None:
    assert_storable(decode(reply(body, status, headers), choices=n, now=NOW, keep_raw=True))


TOLD = {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29}


@pytest.mark.parametrize(
    ("members", "dollars"),
    [
        ({"cost": 0.00014}, "0.00014"),
        ({"cost": 0}, "0"),
        ({"cost": 1}, "1"),
        ({"cost": "2.85e-05"}, "0.0000285"),
        ({"cost": {"total_cost": 0.006, "request_cost": 0.005}}, "0.006"),  # Perplexity
        # OpenRouter fills the upstream's cost always, and it is another bill only with a key of one's own
        ({"cost": 0.95, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.95}}, "0.95"),
        ({"cost": 0.95, "is_byok": True, "cost_details": {"upstream_inference_cost": 19}}, "19.95"),
        ({"cost": 0.95, "is_byok": True, "cost_details": {"upstream_inference_cost": None}}, None),
        ({"cost": 0.95, "is_byok": True}, None),
        ({"cost": -0.5}, None),
        ({"cost": True}, None),
        ({"cost": None}, None),
        ({"cost": "free"}, None),
        ({"cost": "NaN"}, None),
        ({"cost": "1e999999999"}, None),
        ({"cost": "9" * 5000}, None),
        ({"cost": 1000}, None),
        ({"cost": [0.1]}, None),
        ({"cost": {"total": 0.1}}, None),
    ],
)
def test_what_the_server_says_that_it_cost(members: dict[str, Any], dollars: str | None) -> None:
    expected = None if dollars is None else Decimal(dollars)
    assert completion(chat(choice(), usage=TOLD | members)).usage == Usage(
        19, None, None, 10, None, 29, None, None, expected
    )


def test_litellm_tells_the_cost_in_a_header() -> None:
    def told(body: Any, **headers: str) -> Usage:
        sent = reply(body, headers={name.replace("_", "-"): value for name, value in headers.items()})
        outcome = decode(sent, choices=1, now=NOW)
        return outcome.usage

    whole = chat(choice(), usage=TOLD)
    assert told(whole, x_litellm_response_cost="0.0009884999999999998").reported_usd == Decimal("0.0009884999999999998")
    assert told(whole, x_litellm_response_cost="0.0").reported_usd == Decimal(0)
    for nothing in ("None", "", "-1", "abc"):
        assert told(whole, x_litellm_response_cost=nothing) == Usage(19, None, None, 10, None, 29)
    assert told(chat(choice()), x_litellm_response_cost="0.5") == Usage(reported_usd=Decimal("0.5"))
    # what the body says is the final word
    assert told(chat(choice(), usage=TOLD | {"cost": 0.25}), x_litellm_response_cost="0.5").reported_usd == Decimal(
        "0.25"
    )


def test_the_headers_of_a_stream_leave_before_its_cost_is_known() -> None:
    chunk = chat({"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}, usage=TOLD)
    body = b"data: " + json.dumps(chunk).encode() + b"\n\ndata: [DONE]\n\n"
    headers = {"content-type": "text/event-stream", "x-litellm-response-cost": "0.0"}
    assert decode(reply(body, headers=headers), choices=1, now=NOW).usage == Usage(19, None, None, 10, None, 29)


def test_an_answer_that_failed_has_the_cost_that_it_told() -> None:
    found = decode(reply(chat(usage=USAGE | {"cost": 0.5})), choices=1, now=NOW)
    assert isinstance(found, Failure)
    assert (found.billed, found.usage.reported_usd) == (Billed.YES, Decimal("0.5"))


def test_audio_tokens_are_read_where_there_are_any() -> None:
    usage = {"prompt_tokens": 19, "prompt_tokens_details": {"audio_tokens": 7, "cached_tokens": 0}}
    usage |= {"completion_tokens": 10, "completion_tokens_details": {"audio_tokens": 0, "reasoning_tokens": 0}}
    assert read_usage(usage) == Usage(19, 0, None, 10, 0, None, audio_tokens=7)


def test_llama_cpp_counts_one_of_several_choices_so_their_tokens_are_unknown() -> None:
    body = chat(choice(0), choice(1), usage=TOLD, timings={"predicted_n": 10})
    assert completion(body, choices=2).usage == Usage(19, None, None, None, None, None)
    assert completion(chat(choice(0), choice(1), usage=TOLD), choices=2).usage == Usage(19, None, None, 10, None, 29)
    assert completion(chat(choice(0), usage=TOLD, timings={})).usage == Usage(19, None, None, 10, None, 29)

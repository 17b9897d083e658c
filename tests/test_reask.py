"""How the body of a row changes when it is asked again, and what is kept of the answer before."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import EXAMPLES

from runner.reask import Change, answer_text, can_grow, changed, read_answer
from runner.records import Attempt, Choice, Request, ToolCall
from runner.spec.model import OnTruncation
from runner.wire.encode import output_cap

FIRST = {
    "model": "m",
    "messages": [{"role": "user", "content": "grüß dich"}],
    "max_completion_tokens": 100,
    "seed": 2**70,
    "temperature": 0.1,
}
TWICE = OnTruncation(factor=2, max_tokens=4000)
CALL = ToolCall("c1", "find", '{"q": 1')


def bound(request: Request, body: Mapping[str, Any]) -> Decimal | None:
    if request.model != "m" or request.prompt_most is None:
        return None
    return Decimal(request.prompt_most) + 1000 * Decimal((output_cap(body) or 0) * request.choices)


def request(body: dict[str, Any], **more: Any) -> Request:
    data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    given = {"prompt_most": len(data) + 5, "model": "m", "choices": 1} | more
    return Request(3, data, "hash", tokens=50, **given)


def unusable(answer: str | None, error: str = "it is wrong") -> Attempt:
    return Attempt(1, 1, "2026-01-02T03:04:05.000006Z", 1.0, 0.0, 200, "OUTPUT", error, answer=answer)


def body_under(change: Change, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(changed(request(FIRST | more), change, bound).body)
    return made


def test_more_room_changes_the_cap_and_not_a_byte_besides() -> None:
    first = request(FIRST)
    again = changed(first, Change(growth=TWICE), bound)
    assert again.body == first.body.replace(b'"max_completion_tokens":100', b'"max_completion_tokens":200')
    assert (again.hash, again.index) == (first.hash, first.index)
    assert again.tokens == first.tokens + 100
    assert again.reserved_usd == len(first.body) + 5 + 200 * 1000


@pytest.mark.parametrize(
    ("caps", "grown"),
    [
        ({"max_completion_tokens": 100}, {"max_completion_tokens": 200}),
        ({"max_tokens": 100}, {"max_tokens": 200}),
        ({"max_tokens": 30, "max_completion_tokens": 100}, {"max_tokens": 60, "max_completion_tokens": 200}),
        ({"max_tokens": 3000}, {"max_tokens": 4000}),
        ({"max_tokens": 100, "max_completion_tokens": 4000}, {"max_tokens": 200, "max_completion_tokens": 4000}),
        ({"max_tokens": 4000}, None),
        ({"max_tokens": 10**400}, None),
        ({"max_tokens": None}, None),
        ({"max_tokens": -1}, None),
        ({"max_tokens": True}, None),
        ({"max_tokens": 100.0}, None),
        ({}, None),
    ],
)
def test_only_a_cap_that_can_grow_grows(caps: dict[str, Any], grown: dict[str, Any] | None) -> None:
    plain = {name: value for name, value in FIRST.items() if name != "max_completion_tokens"} | caps
    first = request(plain)
    assert can_grow(first.body, TWICE) == (grown is not None)
    again = changed(first, Change(growth=TWICE), bound)
    assert json.loads(again.body) == plain | (grown or {})
    assert list(json.loads(again.body)) == list(plain)
    assert (again == first) == (grown is None)


def test_a_factor_that_adds_less_than_a_token_does_not_grow() -> None:
    assert not can_grow(b'{"max_tokens":1}', OnTruncation(factor=1.5, max_tokens=100))
    assert can_grow(b'{"max_tokens":2}', OnTruncation(factor=1.5, max_tokens=100))


def test_each_choice_may_fill_the_larger_room() -> None:
    again = changed(request(FIRST, choices=3), Change(growth=TWICE), bound)
    assert (again.tokens, again.reserved_usd) == (50 + 300, len(again.body) + 5 + 600 * 1000)


@pytest.mark.parametrize("more", [{"prompt_most": None}, {"model": "other"}])
def test_an_unknown_bound_stays_unknown(more: dict[str, Any]) -> None:
    assert changed(request(FIRST, **more), Change(growth=TWICE), bound).reserved_usd is None


def test_the_same_question_is_the_same_request() -> None:
    first = request(FIRST)
    assert changed(first, Change(), bound) is first


def test_an_unusable_answer_is_shown_with_its_error_behind_the_messages() -> None:
    first = request(FIRST)
    again = changed(first, Change(shown=unusable('{"label": "ü"}', "at $.label: no")), bound)
    made = json.loads(again.body)
    assert made["messages"] == [
        *FIRST["messages"],  # type: ignore[misc]
        {"role": "assistant", "content": '{"label": "ü"}'},
        {
            "role": "user",
            "content": "This answer cannot be used: at $.label: no. Give the whole answer again, mended, and nothing "
            "else.",
        },
    ]
    assert {**made, "messages": FIRST["messages"]} == FIRST  # an integer beyond 64 bit too
    assert list(made) == list(FIRST)
    more = len(again.body) - len(first.body)
    assert (again.tokens, again.prompt_most) == (50 + more // 4, len(again.body) + 5)
    assert again.reserved_usd == len(again.body) + 5 + 100 * 1000


@pytest.mark.parametrize("answer", [None, ""])
def test_an_answer_without_a_word_is_not_shown(answer: str | None) -> None:
    assert changed(request(FIRST), Change(shown=unusable(answer)), bound) == request(FIRST)


def calls(*made: ToolCall, content: str | None = None) -> str | None:
    return answer_text(Choice(0, content, "tool_calls", tool_calls=made))


def test_each_call_is_followed_by_a_message_of_the_tool_that_says_what_is_wrong() -> None:
    tools = [{"type": "function", "function": {"name": "find"}}, {"type": "custom", "custom": {"name": "shell"}}]
    told = unusable(calls(CALL, ToolCall(None, "shell", "ls"), content="let me see"), "call 1: cut")
    *first, said, one, two = body_under(Change(shown=told), tools=tools)["messages"]
    assert first == FIRST["messages"]
    assert said == {
        "role": "assistant",
        "content": "let me see",
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"q": 1'}},
            {"id": "call_1", "type": "custom", "custom": {"name": "shell", "input": "ls"}},
        ],
    }
    wrong = "Nothing was called: call 1: cut. Call again, mended."
    assert one == {"role": "tool", "tool_call_id": "c1", "content": wrong}
    assert two == {"role": "tool", "tool_call_id": "call_1", "content": wrong}


def test_a_call_of_the_old_form_is_answered_in_the_old_form() -> None:
    told = unusable(calls(ToolCall(None, "find", "{")), "cut")
    *_, said, answered = body_under(Change(shown=told), functions=[{"name": "find"}])["messages"]
    assert said == {"role": "assistant", "content": None, "function_call": {"name": "find", "arguments": "{"}}
    assert answered == {
        "role": "function",
        "name": "find",
        "content": "Nothing was called: cut. Call again, mended.",
    }


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        (Choice(0, "fine"), "fine"),
        (Choice(0, None, refusal="no"), "no"),
        (Choice(0, None), None),
        (Choice(0, ""), None),
        (
            Choice(0, None, tool_calls=(CALL,)),
            '{"content":null,"tool_calls":[{"id":"c1","name":"find","arguments":"{\\"q\\": 1"}]}',
        ),
    ],
)
def test_what_is_kept_of_an_answer_is_its_text_or_its_calls(choice: Choice, text: str | None) -> None:
    assert answer_text(choice) == text


texts = st.none() | st.text(max_size=20)
tool_calls = st.lists(st.builds(ToolCall, texts, texts, texts), max_size=3).map(tuple)


@settings(deadline=None, max_examples=EXAMPLES)
@given(texts, tool_calls)
def test_what_is_kept_of_calls_reads_back(content: str | None, made: tuple[ToolCall, ...]) -> None:
    text = answer_text(Choice(0, content, tool_calls=made))
    assert read_answer(text) == ((content, made) if made else (content or None, ()))


ALIKE = [
    '{"content":1,"tool_calls":[{"id":[]}]}',
    '{"content":null,"tool_calls":[{"id":',
    '{"content":1,"tool_calls":[{"id":"a","name":"b","arguments":"c"}]}',
    '{"content":null,"tool_calls":[{"id":"a","name":"b","arguments":{}}]}',
    '{"content":null,"tool_calls":[{"id":"a","name":"b","arguments":"c"}]} ',
]


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.text() | st.sampled_from(ALIKE))
def test_a_text_is_never_lost_to_a_likeness(text: str) -> None:
    assert read_answer(text) == (text, ())

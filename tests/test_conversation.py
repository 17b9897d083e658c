"""Whole conversations out of a column: what becomes of them, what is wrong with them, and that nothing in them runs."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_template import Asked, where
from thorough import EXAMPLES

from runner.conversation import history, mistake
from runner.errors import TemplateError
from runner.records import Failure, Kind
from runner.spec.body import MESSAGE
from runner.spec.shapes import literal
from runner.template import Prompt, compile_prompt

CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"q": "x"}'}}
OTHER = {"id": "c2", "type": "custom", "custom": {"name": "note", "input": "x"}}
USER = {"role": "user", "content": "hi"}
CALLS = {"role": "assistant", "content": None, "tool_calls": [CALL]}
ANSWER = {"role": "tool", "content": "found", "tool_call_id": "c1"}
OTHER_ANSWER = {"role": "tool", "content": "noted", "tool_call_id": "c2"}
PARTS = {
    "role": "user",
    "content": [
        {"type": "text", "text": "see", "cache_control": {"type": "ephemeral"}},
        {"type": "image_url", "image_url": {"url": "https://a.b/c.png", "detail": "low"}},
    ],
}


def prompt(*messages: Any, variables: dict[str, Any] | None = None) -> Prompt:
    return compile_prompt(Asked(messages=messages), variables or {}, where)


def said(compiled: Prompt, **row: Any) -> Any:
    body = compiled.render(row)
    assert isinstance(body, dict), body
    return body["messages"]


def refusal(compiled: Prompt, **row: Any) -> str:
    failure = compiled.render(row)
    assert isinstance(failure, Failure)
    assert failure.kind is Kind.INPUT
    return failure.message


WHOLE = compile_prompt(Asked(messages="{{ history }}"), {}, where)
SPLICED = prompt(
    {"role": "system", "content": "be {{ mood }}"}, "{{ history }}", {"role": "user", "content": "{{ q }}"}
)


def test_a_column_is_the_whole_conversation() -> None:
    assert said(WHOLE, history=[USER, CALLS, ANSWER]) == [USER, CALLS, ANSWER]
    assert WHOLE.columns == WHOLE.required == {"history"}
    assert not WHOLE.constants.get("messages")


def test_a_list_is_spliced_between_fixed_messages() -> None:
    system, question = {"role": "system", "content": "be kind"}, {"role": "user", "content": "why?"}
    assert said(SPLICED, mood="kind", q="why?", history=[USER, PARTS]) == [system, USER, PARTS, question]
    assert said(SPLICED, mood="kind", q="why?", history=[]) == [system, question]
    assert SPLICED.columns == {"mood", "history", "q"}


def test_several_lists_stand_where_they_are_written() -> None:
    compiled = prompt("{{ a }}", "{{ row['b'] }}", USER, "\n{{ c[-1:] }}\n")
    assert said(compiled, a=[CALLS], b=[ANSWER], c=[1, PARTS]) == [CALLS, ANSWER, USER, PARTS]
    assert compiled.columns == {"a", "b", "c"}


@pytest.mark.parametrize("text", ["{{ 7*7 }}", "{% raw %}", "{{ row }}", "{# #}", "{{", "\u2028{{ q }}"])
def test_text_of_a_history_is_never_a_template(text: str) -> None:
    told = [
        {"role": "user", "content": text, "name": "x"},
        {"role": "user", "content": [{"type": "text", "text": text}]},
    ]
    for value in (told, json.dumps(told)):
        assert said(SPLICED, mood="m", q=text, history=value)[1:] == [*told, {"role": "user", "content": text}]
    assert refusal(WHOLE, history=[{"role": text, "content": "x"}]).startswith("messages.0.role: must be system, ")
    calls = {"role": "assistant", "tool_calls": text}
    assert refusal(WHOLE, history=[calls]) == "messages.0.tool_calls: must be a list, not text"


@pytest.mark.parametrize("value", [None, "", " \n", "[]", "null", []])
def test_a_conversation_that_has_not_begun_is_fine_beside_other_messages(value: Any) -> None:
    assert len(said(SPLICED, mood="m", q="q", history=value)) == 2
    assert refusal(WHOLE, history=value) == "messages: the conversation holds no message"


def test_json_text_is_read_exactly() -> None:
    told = [{"role": "user", "content": "ü\u2028 {{ x }}", "seen": 123456789012345678901234567890, "at": 1.5}]
    assert said(WHOLE, history=json.dumps(told)) == told


def test_members_that_nobody_knows_are_kept() -> None:
    extra = {"cache_control": {"type": "ephemeral", "ttl": None}, "mood": "good"}
    told = {"role": "assistant", "content": "x", "name": "bo", "refusal": "no", "reasoning_content": "hm", **extra}
    assert said(WHOLE, history=[USER | extra, told]) == [USER | extra, told]


def test_members_that_say_nothing_are_left_out() -> None:
    blank = {"name": None, "tool_calls": None, "tool_call_id": None, "refusal": None}
    assert said(WHOLE, history=[USER | blank, {"role": "assistant", "content": "x", "tool_calls": []}]) == [
        USER,
        {"role": "assistant", "content": "x"},
    ]
    assert said(WHOLE, history=[CALLS | {"audio": None}, ANSWER | blank | {"tool_call_id": "c1"}]) == [CALLS, ANSWER]


def test_structs_of_parquet_become_the_messages_that_they_mean() -> None:
    told = [PARTS, {"role": "assistant", "content": None, "tool_calls": [CALL, OTHER]}, ANSWER, OTHER_ANSWER]
    texts = [message for message in told if message is not PARTS]
    (row,) = pa.table({"history": pa.array([texts])}).to_pylist()
    assert row["history"][1]["tool_calls"] is None
    assert said(WHOLE, history=row["history"]) == texts
    (row,) = pa.table({"history": pa.array([[PARTS]])}).to_pylist()
    assert row["history"][0]["content"][0]["image_url"] is None
    assert said(WHOLE, history=row["history"]) == [PARTS]


WRONG = [
    ("x", "messages: gives text that is not JSON of a list of messages: Expecting value: line 1 column 1 (char 0)"),
    ("[NaN]", "messages: gives text that is not JSON of a list of messages: NaN is not JSON"),
    ('{"role": "user"}', "messages: gives a mapping, where a list of messages is due"),
    (7, "messages: gives a number, where a list of messages is due"),
    (["hi"], "messages.0: must be a mapping, not text"),
    ([None], "messages.0: must be a mapping, not null"),
    ([USER, {"content": "x"}], "messages.1.role: is required: system, developer, user, assistant or tool"),
    ([USER, {"role": ["user"], "content": "x"}], "messages.1.role: must be system, "),
    ([{"role": "User", "content": "x"}], "did you mean user?"),
    ([{"role": "user"}], "messages.0.content: is required"),
    ([{"role": "user", "content": None}], "messages.0.content: must be text or a list of parts, not null"),
    ([{"role": "user", "content": {"file": "/etc/passwd"}}], "messages.0.content: must be text or a list of parts, "),
    ([{"role": "user", "content": []}], "messages.0.content: must not be empty"),
    ([{"role": "user", "content": [{"type": "video"}]}], "messages.0.content.0.type: must be text, image_url, "),
    ([{"role": "system", "content": [PARTS["content"][1]]}], "messages.0.content.0.type: must be text"),
    ([{"role": "assistant"}], "messages.0: an assistant message needs content or tool_calls"),
    ([{"role": "assistant", "tool_calls": [{"id": "c1"}]}], "messages.0.tool_calls.0.type: is required"),
    ([ANSWER], "messages.0.tool_call_id: answers no call: the message before it must be the assistant's, "),
    ([CALLS, USER, ANSWER], "messages.0.tool_calls: no tool message answers c1; one for each call must follow at once"),
    ([USER, CALLS], "messages.1.tool_calls: no tool message answers c1; "),
    (
        [CALLS, OTHER_ANSWER],
        "messages.1.tool_call_id: answers no call of the assistant's message before it, which made c1",
    ),
    (
        [CALLS, ANSWER, ANSWER],
        "messages.2.tool_call_id: answers the call c1 a second time; a call has one tool message",
    ),
    ([CALLS, {"role": "tool", "content": "x"}], "messages.1.tool_call_id: is required"),
    ([CALLS | {"tool_calls": [{**CALL, "id": str(n)} for n in range(5)]}], "answers 0, 1, 2 and 2 more; "),
]


@pytest.mark.parametrize(("value", "sentence"), WRONG)
def test_a_bad_conversation_is_a_failure_that_names_the_message(value: Any, sentence: str) -> None:
    assert sentence in refusal(WHOLE, history=value)


def test_messages_are_counted_as_they_would_be_sent() -> None:
    assert refusal(SPLICED, mood="m", q="q", history=[USER, ANSWER]).startswith("messages.2.tool_call_id: ")
    assert refusal(SPLICED, mood="m", q="q", history=7) == "messages.1: gives a number, where a list of messages is due"


def test_calls_of_a_history_are_answered_by_a_fixed_message() -> None:
    compiled = prompt("{{ history }}", {"role": "tool", "content": "{{ found }}", "tool_call_id": "{{ call }}"})
    assert said(compiled, history=[CALLS], found="found", call="c1") == [CALLS, ANSWER]
    assert "answers no call of" in refusal(compiled, history=[CALLS], found="found", call="c9")


@pytest.mark.parametrize(
    "message",
    [
        {"role": "{{ x }}", "content": "a"},
        {"role": "user", "content": "a", "name": "{{ x }}"},
        {"role": "user", "content": [{"type": "{{ x }}", "text": "a"}]},
        {"role": "assistant", "tool_calls": "{{ x }}"},
        {"role": "tool", "content": "a", "tool_call_id": "{{ x }}"},
    ],
)
def test_a_fixed_message_whose_row_decides_what_it_is_is_judged_too(message: dict[str, Any]) -> None:
    assert refusal(prompt(message), x="").startswith("messages.0")


def test_a_template_of_the_text_alone_costs_no_judging() -> None:
    plain = prompt(
        {"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "{{ x }}"}]}
    )
    assert not plain._judged
    assert WHOLE._judged and SPLICED._judged


def test_a_list_among_vars_is_put_in_once() -> None:
    shots = [USER, {"role": "assistant", "content": "{{ not a template }}"}]
    compiled = prompt("{{ shots }}", {"role": "user", "content": "{{ q }}"}, variables={"shots": shots})
    assert said(compiled, q="q") == [*shots, {"role": "user", "content": "q"}]
    assert prompt("{{ shots }}", variables={"shots": shots}).constants["messages"] == shots


def mistakes(*messages: Any, variables: dict[str, Any] | None = None) -> str:
    with pytest.raises(TemplateError) as caught:
        prompt(*messages, variables=variables)
    return caught.value.message


def test_what_is_wrong_without_a_row_is_told_before_any() -> None:
    assert "request.messages.1: must be one single {{ expression }} that gives" in mistakes(USER, "x {{ history }}")
    assert "request.messages.0: must be one single" in mistakes("{% if a %}{{ history }}{% endif %}")
    assert (
        mistakes("{{ shots }}", variables={"shots": [ANSWER]})
        .split(": ", 1)[1]
        .startswith("request.messages: messages.0.tool_call_id: answers no call")
    )
    assert "gives a number, where" in mistakes("{{ shots }}", variables={"shots": 3})


NAMES = st.sampled_from(["role", "content", "tool_calls", "tool_call_id", "name", "refusal", "audio", "mood"])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["user", "assistant", "tool", "c1", "{{ x }}", "", "text"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.sampled_from(["id", "type", "text"]), inner),
    max_leaves=6,
)
MESSAGES = st.sampled_from([USER, CALLS, ANSWER, PARTS]) | st.dictionaries(NAMES, VALUES) | VALUES


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.lists(MESSAGES, max_size=5) | VALUES)
def test_any_value_is_a_conversation_or_a_sentence(value: Any) -> None:
    body = WHOLE.render({"history": value})
    if isinstance(body, dict):
        assert mistake(body["messages"]) is None
        assert history(body["messages"]) == body["messages"]


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.dictionaries(st.sampled_from(["role", "content"]), VALUES) | st.sampled_from([USER, CALLS]))
def test_what_is_fine_at_a_glance_is_fine_for_the_table(message: dict[str, Any]) -> None:
    table = list(literal(MESSAGE).check(message, ("messages", 0)))
    assert (mistake([message]) is None) is (not table and not message.get("tool_calls"))

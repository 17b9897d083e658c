"""The order of calls and tool messages in the conversation that a job file writes."""

from __future__ import annotations

import pytest
from test_spec_refusals import mistakes, read_no_file

from runner.spec import parse

HEAD = "input: {path: a}\nrequest:\n  model: m\n  messages:\n"
CALLS = "    - {role: assistant, tool_calls: [{id: a, type: function, function: {name: f, arguments: '{}'}}]}\n"
ANSWER = "    - {role: tool, tool_call_id: a, content: x}\n"
USER = "    - {role: user, content: x}\n"


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        (USER + ANSWER, "6: request.messages.1.tool_call_id: answers no call: the message before it must be"),
        (USER + CALLS, "6: request.messages.1.tool_calls: no tool message answers a; one for each call must follow"),
        (CALLS + USER, "5: request.messages.0.tool_calls: no tool message answers a; "),
        (CALLS + ANSWER + ANSWER, "7: request.messages.2.tool_call_id: answers the call a a second time"),
        (CALLS + ANSWER.replace("a,", "b,"), "6: request.messages.1.tool_call_id: answers no call of the assistant's"),
        ("    - hello\n", "5: request.messages.0: must be a mapping, not text"),
    ],
)
def test_a_conversation_out_of_order_is_told_with_its_line(messages: str, said: str) -> None:
    assert any(mistake.startswith(f"jobs/x.yaml:{said}") for mistake in mistakes(HEAD + messages))


@pytest.mark.parametrize(
    "messages",
    [
        USER + CALLS + ANSWER + USER,
        "    - '{{ history }}'\n" + ANSWER,
        CALLS + "    - '{{ answers }}'\n",
        CALLS + "    - {role: '{{ r }}', content: x}\n",
        CALLS + "    - {role: tool, tool_call_id: '{{ id }}', content: x}\n",
        "    - {role: assistant, tool_calls: '{{ calls }}'}\n" + ANSWER,
        CALLS.replace("id: a", "id: '{{ id }}'") + ANSWER,
    ],
)
def test_what_only_a_row_can_tell_is_left_to_the_row(messages: str) -> None:
    assert parse(HEAD + messages, "jobs/x.yaml", read_file=read_no_file).request.messages


def test_messages_that_are_neither_a_list_nor_an_expression_are_refused() -> None:
    said = mistakes("input: {path: a}\nrequest: {model: m, messages: hello}\n")
    assert said == ["jobs/x.yaml:2: request.messages: must be a list, not text"]

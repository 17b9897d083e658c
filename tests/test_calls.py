"""Tool calls held against what was offered: pure, over every form of tools and tool_choice."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from thorough import EXAMPLES

from runner.outputs import Expected, compile_offer, compile_output
from runner.outputs.calls import Offer, offer_in, offer_of
from runner.records import Billed, Choice, Completion, Failure, Kind, Status, ToolCall

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": CITY}}
NOW = {"type": "function", "function": {"name": "now"}}
SHELL = {"type": "custom", "custom": {"name": "shell"}}
TOOLS = [WEATHER, NOW, SHELL]
PARIS = ToolCall("c1", "weather", '{"city": "Paris"}')


def choice(*calls: ToolCall, content: str | None = None) -> Choice:
    return Choice(0, content, "tool_calls", tool_calls=calls)


def complaint(body: dict[str, Any], *calls: ToolCall, content: str | None = None) -> str | None:
    written = offer_in(json.dumps(body).encode())
    assert written is not None
    said = offer_of(body).complaint(choice(*calls, content=content))
    assert written.complaint(choice(*calls, content=content)) == said
    return said


@pytest.mark.parametrize(
    "call",
    [
        PARIS,
        ToolCall(None, "weather", ' {"city": "é", "more": 1}\n'),
        ToolCall("c", "now", "{}"),
        ToolCall("c", "now", ""),
        ToolCall("c", "now", None),
        ToolCall("c", "now", " \n"),
        ToolCall("c", "now", '{"whatever": [1]}'),
        ToolCall("c", "shell", "rm -rf {"),
        ToolCall("c", "shell", None),
    ],
)
def test_a_call_of_what_was_offered_is_an_answer(call: ToolCall) -> None:
    assert complaint({"tools": TOOLS}, call) is None
    assert complaint({"tools": TOOLS}, PARIS, call) is None


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (ToolCall("c", "weather", '{"city": "Par'), "the arguments of `weather` are not JSON: "),
        (ToolCall("c", "weather", "Paris"), "the arguments of `weather` are not JSON: expecting value at character 1"),
        (ToolCall("c", "weather", '```json\n{"city": "Paris"}\n```'), "the arguments of `weather` are not JSON: "),
        (ToolCall("c", "weather", '["Paris"]'), "the arguments of `weather` are no JSON object"),
        (ToolCall("c", "now", "null"), "the arguments of `now` are no JSON object"),
        (ToolCall("c", "weather", ""), 'the arguments of `weather` break its parameters at $: "city" is a required'),
        (
            ToolCall("c", "weather", '{"city": 3}'),
            'the arguments of `weather` break its parameters at $.city: 3 is not of type "string"',
        ),
        (ToolCall("c", "wether", "{}"), "the answer calls `wether`, which was not offered (weather, now, shell)"),
        (ToolCall("c", None, "{}"), "the answer calls a tool without a name, which was not offered (weather, now"),
    ],
)
def test_a_call_that_cannot_be_used_says_why(call: ToolCall, said: str) -> None:
    told = complaint({"tools": TOOLS}, call)
    assert told is not None
    assert told.startswith(said)
    assert complaint({"tools": TOOLS}, PARIS, call) == f"call 2: {told}"


def test_a_long_offer_is_not_listed_whole() -> None:
    tools = [{"type": "function", "function": {"name": f"f{n}"}} for n in range(20)]
    told = complaint({"tools": tools}, ToolCall("c", "g", "{}"))
    assert told == "the answer calls `g`, which was not offered (f0, f1, f2, f3, f4, f5, f6, f7, …)"


def test_a_call_that_nobody_asked_for_is_no_answer_unless_there_is_text() -> None:
    assert complaint({}, PARIS) == "the answer calls `weather`, which was not offered (no tool was)"
    assert complaint({}, PARIS, content="It rains.") is None
    assert complaint({"tools": TOOLS}, ToolCall("c", "x", "{}"), content="It rains.") is not None
    assert complaint({}, content="It rains.") is None


NONE_CAME = "tool_choice asks for a call, and the answer makes none"
NOT_ALLOWED = "the answer calls `weather`, which tool_choice does not allow"


@pytest.mark.parametrize(
    ("asked", "with_call", "without"),
    [
        (None, None, None),
        ("auto", None, None),
        ("none", NOT_ALLOWED, None),
        ("required", None, NONE_CAME),
        ({"type": "function", "function": {"name": "weather"}}, None, NONE_CAME),
        ({"type": "function", "function": {"name": "now"}}, NOT_ALLOWED, NONE_CAME),
        ({"type": "custom", "custom": {"name": "shell"}}, NOT_ALLOWED, NONE_CAME),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [WEATHER]}}, None, None),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [WEATHER]}}, None, NONE_CAME),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [NOW, SHELL]}}, NOT_ALLOWED, None),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "name": "now"}]},
            },
            NOT_ALLOWED,
            None,
        ),
        ({"type": "of tomorrow"}, None, None),
    ],
)
def test_tool_choice_says_what_may_be_called_and_whether_something_must(
    asked: Any, with_call: str | None, without: str | None
) -> None:
    body = {"tools": TOOLS} | ({} if asked is None else {"tool_choice": asked})
    assert complaint(body, PARIS) == with_call
    assert complaint(body, content="It rains.") == without


@pytest.mark.parametrize(("asked", "must"), [(None, None), ("auto", None), ({"name": "weather"}, NONE_CAME)])
def test_the_older_functions_are_offers_too(asked: Any, must: str | None) -> None:
    body = {"functions": [{"name": "weather", "parameters": CITY}]} | ({"function_call": asked} if asked else {})
    assert complaint(body, PARIS) is None
    assert complaint(body, content="It rains.") == must
    assert complaint(body, ToolCall(None, "weather", "{")) is not None


BAD = [
    ({"type": "objectt"}, 'at $.type: "objectt" is not valid'),
    ({"$ref": "https://example.com/x.json"}, "it refers to https://example.com/x.json, and nothing is fetched"),
    ([CITY], "is not of type"),
]


@pytest.mark.parametrize(("parameters", "said"), BAD)
def test_parameters_that_are_no_schema_are_a_mistake_of_the_job(parameters: Any, said: str) -> None:
    tools = [NOW, {"type": "function", "function": {"name": "f", "parameters": parameters}}]
    offer, (mistake,) = compile_offer({"tools": tools}, (), lambda path: f"job.yaml:{len(path)}")
    assert offer is not None
    place = "request.tools.1.function.parameters"
    assert mistake.startswith(f"job.yaml:{len(place)}: {place}: not a usable JSON Schema: ")
    assert said in mistake


@pytest.mark.parametrize(("parameters", "said"), BAD)
def test_in_the_tools_of_a_row_they_only_leave_the_arguments_unjudged(parameters: Any, said: str) -> None:
    body = {"tools": [{"type": "function", "function": {"name": "f", "parameters": parameters}}]}
    assert complaint(body, ToolCall("c", "f", '{"x": 1}')) is None
    assert complaint(body, ToolCall("c", "f", "{")) is not None


def test_tools_that_hang_on_the_row_are_judged_by_its_request() -> None:
    assert compile_offer({"tools": TOOLS}, {"tool_choice"}, str) == (None, [])
    expected = Expected(None, None)
    came = Completion(Status.OK, (choice(PARIS),))
    for body, known in (({"tools": [WEATHER]}, True), ({"tools": [NOW]}, False), ({}, False)):
        checked = expected.check(came, json.dumps(body | {"messages": []}).encode())
        assert (checked is came) == known


def test_tools_of_rows_are_compiled_once_for_each_text() -> None:
    one, two = (json.dumps({"messages": [text], "tools": TOOLS}).encode() for text in ("a", "b"))
    assert offer_in(one) is offer_in(two)


def test_tools_beyond_any_depth_are_not_judged() -> None:
    deep = b'{"tools":' + b"[" * 400 + b"]" * 400 + b"}"
    assert offer_in(deep) is None
    came = Completion(Status.OK, (choice(PARIS),))
    assert Expected(None, None).check(came, deep) is came


# What the judge of a job makes of it

OFFER, _ = compile_offer({"tools": TOOLS}, (), str)
FORMAT = compile_output({"type": "json_schema", "json_schema": {"name": "x", "schema": CITY}})
BODY = b"{}"


def test_an_unusable_call_is_a_billed_failure_that_keeps_it() -> None:
    came = Completion(Status.OK, (choice(ToolCall("c", "x", "{}")),), request_id="r1")
    failure = Expected(None, OFFER).check(came, BODY)
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.billed, failure.status, failure.answer) == (Kind.OUTPUT, Billed.YES, 200, came)
    assert failure.message == "the answer calls `x`, which was not offered (weather, now, shell)"


@pytest.mark.parametrize("status", [Status.TRUNCATED, Status.FILTERED, Status.REFUSED])
def test_an_incomplete_answer_is_not_judged_by_its_calls(status: Status) -> None:
    cut = Completion(status, (choice(ToolCall("c", "weather", '{"ci')),))
    assert Expected(FORMAT, OFFER).check(cut, BODY) is cut


def test_beside_tools_an_answer_in_words_is_held_against_the_schema() -> None:
    expected = Expected(FORMAT, OFFER)
    called = Completion(Status.OK, (choice(PARIS),))
    assert expected.check(called, BODY) is called
    told = expected.check(Completion(Status.OK, (Choice(0, '{"city": "Rome"}'),)), BODY)
    assert isinstance(told, Completion)
    assert told.parsed == {"city": "Rome"}
    assert isinstance(expected.check(Completion(Status.OK, (Choice(0, "Rome"),)), BODY), Failure)


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=5) | st.sampled_from(["weather", "function"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "function", "custom", "name", "parameters", "properties", "allowed_tools", "tools"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)
bodies = st.dictionaries(st.sampled_from(["tools", "tool_choice", "functions", "function_call"]), anything)
made = st.builds(ToolCall, st.none(), st.none() | st.text(max_size=3) | st.just("weather"), st.none() | st.text())


@settings(deadline=None, max_examples=EXAMPLES)
@example({"tool_choice": {"allowed_tools": {"tools": True}}}, [], None)
@given(bodies, st.lists(made, max_size=2), st.none() | st.text(max_size=3))
def test_whatever_is_offered_and_whatever_is_called_the_verdict_is_a_sentence_or_none(
    body: dict[str, Any], calls: list[ToolCall], content: str | None
) -> None:
    offer = offer_in(json.dumps(body).encode())
    assert isinstance(offer, Offer)
    told = offer.complaint(choice(*calls, content=content))
    assert told is None or told

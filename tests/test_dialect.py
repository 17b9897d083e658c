"""The provider differences: who answers a model, what it takes, and what becomes of a body that it does not take."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import EXAMPLES

from runner.dialect import (
    TABLE,
    Bodies,
    Dialect,
    Finding,
    Provider,
    Severity,
    Terms,
    adapt,
    check,
    model_of,
    plain_roles,
    provider_of,
)
from runner.records import Failure, Kind

OPENAI, CLAUDE, GEMINI = Provider
SAY = [{"role": "user", "content": "hi"}]

NAMES: list[tuple[str, Provider | None]] = [
    ("gpt-4.1-mini", OPENAI),
    ("gpt-4o", OPENAI),
    ("gpt-3.5-turbo", OPENAI),
    ("gpt-5", OPENAI),
    ("GPT-5.1", OPENAI),
    ("chatgpt-4o-latest", OPENAI),
    ("o1", OPENAI),
    ("o3-mini-2025-01-31", OPENAI),
    ("o4-mini", OPENAI),
    ("openai/o3", OPENAI),
    ("openrouter/openai/gpt-4o:extended", OPENAI),
    ("ft:gpt-4o-mini-2024-07-18:acme::abc", OPENAI),
    (" gpt-4o ", OPENAI),
    ("claude-sonnet-4-5-20250929", CLAUDE),
    ("Claude-3-Haiku", CLAUDE),
    ("anthropic/claude-opus-4", CLAUDE),
    ("openrouter/anthropic/claude-3.5-sonnet:beta", CLAUDE),
    ("us.anthropic.claude-sonnet-4-20250514-v1:0", CLAUDE),
    ("vertex_ai/claude-sonnet-4@20250514", CLAUDE),
    ("gemini-2.5-flash", GEMINI),
    ("google/gemini-2.5-pro", GEMINI),
    ("models/gemini-1.5-flash", GEMINI),
    ("llama-3.3-70b", None),
    ("meta-llama/Llama-3.3-70B-Instruct", None),
    ("qwen3-32b", None),
    ("deepseek-chat", None),
    ("google/gemma-2-9b-it", None),
    ("openai/gpt-oss-120b", None),
    ("EleutherAI/gpt-neox-20b", None),
    ("EleutherAI/gpt-j-6b", None),
    ("gpt2", None),
    ("AIDC-AI/Marco-o1", None),
    ("o1js", None),
    ("claudette", None),
    ("geminix", None),
    ("mistral/openai", None),
    ("openai/", None),
    ("", None),
]


@pytest.mark.parametrize(("name", "provider"), NAMES)
def test_the_provider_is_found_from_the_models_name(name: str, provider: Provider | None) -> None:
    assert provider_of(name) is provider
    assert provider_of(name, "none") is None
    assert provider_of(name, "gemini") is GEMINI


@given(st.text())
@settings(deadline=None, max_examples=EXAMPLES)
def test_any_name_has_a_provider_or_none(name: str) -> None:
    provider = provider_of(name)
    assert provider is None or model_of(name, provider).family.provider is provider
    assert all(model_of(name, each).provider is each for each in Provider)


def errors(model: str, **body: Any) -> list[str]:
    provider = provider_of(model)
    found = check({"model": model, "messages": SAY, **body}, provider)
    return [each.sentence for each in found if each.severity is Severity.ERROR]


MODELS = {OPENAI: "gpt-4.1", CLAUDE: "claude-sonnet-4", GEMINI: "gemini-2.5-flash"}
TOOLS = [{"type": "function", "function": {"name": "f"}}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}
OBJECT = {"type": "json_object"}
#: parameter -> for each provider (what it takes, what it does not)
TAKEN: dict[str, dict[Provider, tuple[list[Any], list[Any]]]] = {
    "temperature": {
        OPENAI: ([0, 1.5, 2], []),
        CLAUDE: ([0, 0.5, 1], [1.01, 2]),
        GEMINI: ([0, 2], []),
    },
    "top_p": {each: ([0, 0.5, 1], []) for each in Provider},
    "n": {OPENAI: ([1, 128], []), CLAUDE: ([1], [2, 8, 128]), GEMINI: ([1, 8], [9, 128])},
    "stop": {
        OPENAI: (["a", ["a"] * 4], [["a"] * 5]),
        CLAUDE: (["a", ["a"] * 4], [["a"] * 5, " ", ["a", "\n"]]),
        GEMINI: (["a", ["a"] * 5], [["a"] * 6]),
    },
    "tools": {each: ([TOOLS], []) for each in Provider},
    "response_format": {
        OPENAI: ([SCHEMA, OBJECT, {"type": "text"}], []),
        CLAUDE: ([SCHEMA, {"type": "text"}], [OBJECT]),
        GEMINI: ([SCHEMA, OBJECT], []),
    },
    "logprobs": {OPENAI: ([True, False], []), CLAUDE: ([False], [True]), GEMINI: ([False], [True])},
    "reasoning_effort": {
        OPENAI: ([None], ["low"]),  # gpt-4.1 does not reason
        CLAUDE: ([None], ["low", "none"]),
        GEMINI: ([None], ["low", "none"]),
    },
}
VALUES = [
    (name, provider, value, fits)
    for name, row in TAKEN.items()
    for provider, (good, bad) in row.items()
    for fits, values in ((True, good), (False, bad))
    for value in values
]


@pytest.mark.parametrize(("name", "provider", "value", "fits"), VALUES)
def test_each_cell_of_the_table_is_kept(name: str, provider: Provider, value: Any, fits: bool) -> None:
    found = errors(MODELS[provider], **{name: value})
    assert [sentence.split(":")[0] for sentence in found] == ([] if fits else [name])


def test_the_cases_cover_the_table() -> None:
    assert TAKEN.keys() == TABLE.keys()
    assert all(row.keys() == set(Provider) for row in (*TAKEN.values(), *TABLE.values()))


def test_the_table_says_what_it_says() -> None:
    assert {name: [cell.text for cell in row.values()] for name, row in TABLE.items()} == {
        "temperature": ["0–2", "0–1", "0–2"],
        "top_p": ["0–1", "0–1", "0–1"],
        "n": ["1–128", "only 1", "1–8"],
        "stop": ["up to 4", "up to 4", "up to 5"],
        "tools": ["yes", "yes", "yes"],
        "response_format": ["yes", "yes (json_schema)", "yes"],
        "logprobs": ["yes", "no", "no"],
        "reasoning_effort": ["o-series, GPT-5.1+", "no", "no (native `thinking`, through extra_body)"],
    }


@pytest.mark.parametrize("name", sorted(TABLE))
def test_null_asks_for_nothing(name: str) -> None:
    assert all(errors(model, **{name: None}) == [] for model in (*MODELS.values(), "o3", "gpt-5"))


SENTENCES = [
    ("claude-x", {"temperature": 1.5}, "temperature: Claude takes 0–1; give a number from 0 to 1"),
    ("claude-x", {"n": 2}, "n: Claude takes only 1; give 1"),
    ("gemini-x", {"n": 9}, "n: Gemini takes 1–8; give a number from 1 to 8"),
    ("gemini-x", {"stop": ["a"] * 6}, "stop: Gemini takes up to 5; give fewer texts"),
    ("claude-x", {"response_format": OBJECT}, "response_format: Claude does not take json_object; ask for json_schema"),
    ("gemini-x", {"logprobs": True}, "logprobs: Gemini does not take it; leave it out"),
    (
        "gemini-x",
        {"reasoning_effort": "low"},
        "reasoning_effort: Gemini does not take it; leave it out; `thinking` goes into extra_body",
    ),
    (
        "gpt-4.1",
        {"reasoning_effort": "low"},
        "reasoning_effort: not taken by OpenAI's GPT-4o, GPT-4.1 and their like; leave it out; "
        "the o-series and GPT-5.1 or later take it",
    ),
    (
        "o3",
        {"reasoning_effort": "none"},
        "reasoning_effort: only low, medium or high for OpenAI's o3 and o4-mini; write one of these",
    ),
    ("o3", {"temperature": 0}, "temperature: not taken by OpenAI's o3 and o4-mini; leave it out"),
    (
        "gpt-5.5",
        {"top_p": 0.5},
        "top_p: not taken by OpenAI's GPT-5.5 and later while they reason; "
        "leave it out, or write reasoning_effort: none",
    ),
]


@pytest.mark.parametrize(("model", "body", "said"), SENTENCES)
def test_an_error_names_the_provider_and_the_cure(model: str, body: dict[str, Any], said: str) -> None:
    assert errors(model, **body) == [said]


SAMPLED = {"temperature": 0.2, "top_p": 0.9, "logprobs": True, "top_logprobs": 3}
WEIGHED = {"presence_penalty": 1, "frequency_penalty": -1, "logit_bias": {"5": 1}}
REASONING = [
    "o1",
    "o1-2024-12-17",
    "o3-mini",
    "o3",
    "openai/o3-pro",
    "o4-mini-2025-04-16",
    "gpt-5",
    "gpt-5-mini",
    "gpt-5-nano-2025-08-07",
    "gpt-5-pro",
    "gpt-5-codex",
    "gpt-5.1-chat-latest",
    "gpt-5.2-pro",
    "gpt-5.1-codex-mini",
    "gpt-5.5",
    "gpt-6",
]
PLAIN = ["gpt-5-chat-latest", "gpt-4.1", "gpt-4o-mini", "chatgpt-4o-latest", "gpt-4", "gpt-3.5-turbo"]


def names(model: str, **body: Any) -> set[str]:
    return {sentence.split(":")[0] for sentence in errors(model, **body)}


@pytest.mark.parametrize("model", REASONING)
def test_reasoning_models_refuse_sampling_and_weights(model: str) -> None:
    assert names(model, **SAMPLED, **WEIGHED) == SAMPLED.keys() | WEIGHED.keys()


@pytest.mark.parametrize("model", PLAIN)
def test_models_that_do_not_reason_take_sampling_and_no_effort(model: str) -> None:
    assert names(model, **SAMPLED, **WEIGHED, stop="x") == set()
    assert names(model, reasoning_effort="low") == {"reasoning_effort"}


EFFORTS = [
    ("gpt-5.1", None, True),
    ("gpt-5.1", "none", True),
    ("gpt-5.2-2025-12-11", None, True),
    ("gpt-5.4-mini", "none", True),
    ("gpt-5.1", "low", False),
    ("gpt-5.5", "none", True),
    ("gpt-5.5", None, False),
    ("gpt-5.10", "none", True),
    ("gpt-5.10", None, False),
]


@pytest.mark.parametrize(("model", "effort", "taken"), EFFORTS)
def test_later_models_take_sampling_while_they_do_not_reason(model: str, effort: str | None, taken: bool) -> None:
    assert names(model, **SAMPLED, reasoning_effort=effort) == (set() if taken else SAMPLED.keys())
    assert names(model, **WEIGHED, reasoning_effort=effort) == WEIGHED.keys()


ASKED_EFFORTS = [
    ("o1", ["low", "medium", "high"], ["none", "minimal", "xhigh"]),
    ("o4-mini", ["low", "medium", "high"], ["none"]),
    ("gpt-5", ["minimal", "low", "medium", "high"], ["none", "xhigh"]),
    ("gpt-5.1", ["none", "low", "high", "xhigh"], []),
    ("gpt-6", ["none", "minimal", "max"], []),
]


@pytest.mark.parametrize(("model", "good", "bad"), ASKED_EFFORTS)
def test_reasoning_effort_is_for_models_that_reason(model: str, good: list[str], bad: list[str]) -> None:
    assert [effort for effort in good if names(model, reasoning_effort=effort)] == []
    assert [effort for effort in bad if not names(model, reasoning_effort=effort)] == []


@pytest.mark.parametrize(
    ("model", "taken"),
    [("o1", True), ("o3-mini", True), ("o3", False), ("o3-pro", False), ("o4-mini", False), ("gpt-5", False)],
)
def test_some_reasoning_models_refuse_stop(model: str, taken: bool) -> None:
    assert names(model, stop=["x"]) == (set() if taken else {"stop"})


def test_a_dialect_that_is_set_holds_for_any_name() -> None:
    found = check({"model": "my-deployment", "messages": SAY, "n": 2, "max_completion_tokens": 5}, CLAUDE)
    assert [(each.severity, each.parameter) for each in found] == [("error", "n"), ("notice", "max_completion_tokens")]
    plain = {"model": "my-deployment", "messages": SAY, "reasoning_effort": "low", "temperature": 2, "max_tokens": 5}
    assert check(plain, OPENAI) == []


# What is sent otherwise, and what deserves a word


def changed(model: str, messages: Any = SAY, **body: Any) -> tuple[dict[str, Any], list[str]]:
    """What is sent beside model and messages, and the notices."""
    whole = {"model": model, "messages": messages, **body}
    found = [each for each in check(whole, provider_of(model)) if each.changes]
    return adapt(whole, found), [each.said_of_change for each in found]


CAPS = [
    ("gpt-4.1", "max_tokens", "max_tokens"),
    ("gpt-4.1", "max_completion_tokens", "max_completion_tokens"),
    ("gpt-4o-mini", "max_tokens", "max_tokens"),
    ("gpt-5-chat-latest", "max_tokens", "max_tokens"),
    ("o3", "max_tokens", "max_completion_tokens"),
    ("gpt-5-mini", "max_tokens", "max_completion_tokens"),
    ("gpt-5.1", "max_tokens", "max_completion_tokens"),
    ("gpt-5", "max_completion_tokens", "max_completion_tokens"),
    ("gpt-3.5-turbo", "max_completion_tokens", "max_tokens"),
    ("gpt-4", "max_completion_tokens", "max_tokens"),
    ("azure/gpt-35-turbo", "max_completion_tokens", "max_tokens"),
    ("gpt-4-turbo", "max_completion_tokens", "max_tokens"),
    ("claude-sonnet-4", "max_completion_tokens", "max_tokens"),
    ("claude-sonnet-4", "max_tokens", "max_tokens"),
    ("gemini-2.5-pro", "max_completion_tokens", "max_tokens"),
]


@pytest.mark.parametrize(("model", "written", "sent"), CAPS)
def test_the_cap_is_sent_under_the_name_that_the_model_takes(model: str, written: str, sent: str) -> None:
    body, notices = changed(model, **{written: 7, "user": "u"})
    assert list(body.items())[2:] == [(sent, 7), ("user", "u")]
    assert len(notices) == (written != sent)
    assert all(said.startswith(f"{written}: sent as {sent} to ") for said in notices)


@pytest.mark.parametrize("order", [("max_tokens", "max_completion_tokens"), ("max_completion_tokens", "max_tokens")])
@pytest.mark.parametrize(
    ("model", "kept"),
    [("gpt-4.1", "max_completion_tokens"), ("o3", "max_completion_tokens"), ("claude-x", "max_tokens")],
)
def test_of_two_caps_one_is_sent(model: str, kept: str, order: tuple[str, str]) -> None:
    body, notices = changed(model, **{order[0]: 5, order[1]: 6})
    assert dict(list(body.items())[2:]) == {kept: 5 if order[0] == kept else 6}
    assert len(notices) == 1
    left = {order[0]: 5, order[1]: None}
    wanted = order[0] if model == "gpt-4.1" else kept
    assert changed(model, **left)[0][wanted] == 5
    assert (order[1] in changed(model, **left)[0]) == (order[1] == wanted or order[0] == wanted)


DEVELOPER = [{"role": "developer", "content": "rules"}, *SAY]


@pytest.mark.parametrize("model", ["claude-x", "gemini-x", "gpt-4", "gpt-4-turbo-2024-04-09", "gpt-3.5-turbo"])
def test_developer_is_sent_as_system_where_it_is_not_known(model: str) -> None:
    body, notices = changed(model, DEVELOPER)
    assert body["messages"] == [{"role": "system", "content": "rules"}, *SAY]
    assert [said.split(" to ")[0] for said in notices] == ["messages: developer is sent as system"]
    assert DEVELOPER[0]["role"] == "developer"


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4.1", "o1", "o4-mini", "gpt-5", "gpt-5-chat-latest"])
def test_developer_stays_where_it_is_known(model: str) -> None:
    assert changed(model, DEVELOPER) == ({"model": model, "messages": DEVELOPER}, [])


SYSTEM = [{"role": "system", "content": "rules"}, *SAY]
LATE = [*SAY, {"role": "system", "content": "rules"}]
REMARKS = [
    ("o1", {"messages": SYSTEM}, [("advice", "messages")]),
    ("gpt-5.1", {"messages": SYSTEM}, [("advice", "messages")]),
    ("gpt-4.1", {"messages": SYSTEM}, []),
    ("o1", {"messages": DEVELOPER}, []),
    ("gpt-4.1", {"messages": LATE}, [("warning", "messages")]),
    ("llama", {"messages": LATE}, [("warning", "messages")]),
    ("llama", {"messages": [SYSTEM[0], *DEVELOPER]}, []),
    ("llama", {"messages": [SYSTEM[0]]}, []),
    ("llama", {"messages": [None, "x", SYSTEM[0]]}, [("warning", "messages")]),
    ("llama", {"temperature": 0, "top_p": 1}, [("warning", "top_p")]),
    ("gpt-4.1", {"temperature": 0, "top_p": 1}, [("warning", "top_p")]),
    ("gpt-4.1", {"temperature": 0, "top_p": None}, []),
    ("gpt-5", {"reasoning_effort": "minimal"}, [("warning", "reasoning_effort")]),
    ("gpt-5.1", {"reasoning_effort": "low"}, []),
    ("gpt-4.1", {"response_format": OBJECT}, [("warning", "response_format")]),
    ("gpt-4.1", {"response_format": OBJECT, "messages": [{"role": "user", "content": "Answer in Json."}]}, []),
    ("gpt-4.1", {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, []),
    ("gemini-x", {"response_format": OBJECT}, []),
    ("claude-x", {"seed": 1, "store": False, "user": None}, [("warning", "seed")]),
    ("gemini-x", {"seed": 1, "user": "u"}, []),
    ("llama", {"n": 50, "stop": ["a"] * 9, "logprobs": True, "reasoning_effort": "low", "max_tokens": 5}, []),
]


@pytest.mark.parametrize(("model", "body", "found"), REMARKS)
def test_what_is_not_refused_gets_a_word_of_its_own_weight(
    model: str, body: dict[str, Any], found: list[tuple[str, str]]
) -> None:
    seen = check({"model": model, "messages": SAY, **body}, provider_of(model))
    assert [(each.severity, each.parameter) for each in seen] == found
    assert not any(each.changes for each in seen)


def test_a_finding_says_itself() -> None:
    assert Finding(Severity.ERROR, "n", "no", "give 1").sentence == "n: no; give 1"
    assert Finding(Severity.ERROR, "n", "no", "give 1").said_of_change == "n: left out, no"
    assert Finding(Severity.NOTICE, "n", "sent as m").said_of_change == "n: sent as m"


# A job's bodies


def dialect(body: dict[str, Any], *differing: str, drop: bool = False, asked: str = "auto") -> Dialect:
    constants = {name: value for name, value in body.items() if name not in differing}
    return Dialect(Terms(asked, drop), Bodies(constants, frozenset(body)))


def refused(made: Any) -> str:
    assert isinstance(made, Failure)
    assert made.kind is Kind.INPUT
    return made.message


def test_a_body_that_needs_nothing_is_the_same_object() -> None:
    body = {"model": "gpt-4.1", "messages": SAY, "temperature": 0, "max_completion_tokens": 5}
    assert dialect(body).fit(body) is body
    assert dialect(body, "temperature", "model").fit(body) is body
    wild = {"model": "claude-x", "messages": DEVELOPER, "n": 9, "max_completion_tokens": 5}
    assert dialect(wild, asked="none").fit(wild) is wild
    other = {**wild, "model": "llama"}
    assert dialect(other, drop=True).fit(other) is other


def test_a_row_whose_model_does_not_take_a_parameter_fails_with_the_cure() -> None:
    body = {"model": "claude-x", "messages": SAY, "temperature": 1.5}
    both = dialect(body, "model"), dialect(body, "temperature")
    for each in both:
        assert refused(each.fit(body)) == (
            "temperature: Claude takes 0–1; give a number from 0 to 1, or endpoint.on_unsupported: drop leaves it out"
        )
    assert both[0].fit({**body, "model": "gemini-x"}) == {**body, "model": "gemini-x"}
    assert both[1].fit({**body, "temperature": 0.5}) == {**body, "temperature": 0.5}


def test_drop_leaves_out_what_a_rows_model_does_not_take() -> None:
    asked = {"messages": DEVELOPER, "temperature": 1.5, "n": 3, "stop": "x", "logprobs": True, "max_tokens": 9}
    job = dialect({"model": "", **asked}, "model", drop=True)
    sent = {model: job.fit({"model": model, **asked}) for model in ("gpt-4.1", "o4-mini", "claude-x", "gemini-x")}
    as_system = [{"role": "system", "content": "rules"}, *SAY]
    assert sent["gpt-4.1"] == {"model": "gpt-4.1", **asked}
    assert sent["o4-mini"] == {"model": "o4-mini", "messages": DEVELOPER, "n": 3, "max_completion_tokens": 9}
    assert sent["claude-x"] == {"model": "claude-x", "messages": as_system, "stop": "x", "max_tokens": 9}
    assert sent["gemini-x"] == {
        "model": "gemini-x",
        "messages": as_system,
        "temperature": 1.5,
        "n": 3,
        "stop": "x",
        "max_tokens": 9,
    }


def test_what_depends_on_two_parameters_is_decided_by_the_row() -> None:
    body = {"model": "gpt-5.1", "messages": SAY, "temperature": 0, "reasoning_effort": "none"}
    job = dialect(body, "reasoning_effort", drop=True)
    assert job.fit(body) is body
    assert "temperature" not in job.fit({**body, "reasoning_effort": "high"})


@pytest.mark.parametrize("model", ["gpt-4.1", "claude-x", "gemini-x", "llama"])
@pytest.mark.parametrize("differing", [(), ("model",), ("stream",), ("stream", "model")])
def test_a_stream_is_asked_for_its_tokens(model: str, differing: tuple[str, ...]) -> None:
    body = {"model": model, "messages": SAY, "stream": True}
    asked = {**body, "stream_options": {"include_usage": True}}
    job, told = dialect(body, *differing), list[str]()
    job.listen(told.append)
    assert job.fit(body) == asked
    assert told == [
        "stream_options: sent as {include_usage: true}, for a stream tells its tokens only when it is asked to"
    ]
    assert [each.message for each in job.findings(body)] == [told[0].removeprefix("stream_options: ")]
    if "stream" in differing:
        assert job.fit(unstreamed := {**body, "stream": False}) is unstreamed


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        ({"stream_options": {"include_usage": False}}, "auto"),
        ({"stream_options": {}}, "auto"),
        ({"stream": False}, "auto"),
        ({"stream": None}, "auto"),
        ({}, "none"),
    ],
)
def test_a_stream_is_sent_as_it_was_written_where_the_job_says_how(change: dict[str, Any], asked: str) -> None:
    body = {"model": "gpt-4.1", "messages": SAY, "stream": True, **change}
    job = dialect(body, asked=asked)
    assert job.fit(body) is body
    assert job.findings(body) == []


def test_changes_are_told_once_whenever_somebody_listens() -> None:
    body = {"model": "claude-x", "messages": SAY, "n": 2, "max_completion_tokens": 5}
    job, told = dialect(body, "n", drop=True), list[str]()
    job.fit(body)
    job.listen(told.append)
    assert told == ["max_completion_tokens: sent as max_tokens to Claude", "n: left out, Claude takes only 1"]
    for count in range(1, 50):
        job.fit({**body, "n": count})
    assert len(told) == 2


def test_changes_of_a_constant_model_are_told_before_the_first_row() -> None:
    told: list[str] = []
    dialect({"model": "o3", "messages": SAY, "max_tokens": 5}).listen(told.append)
    assert told == ["max_tokens: sent as max_completion_tokens to OpenAI's o3 and o4-mini"]


def test_errors_of_a_job_are_those_of_no_row_in_particular() -> None:
    body = {"model": "claude-x", "messages": SAY, "n": 2, "temperature": 2}
    assert [each.parameter for each in dialect(body).errors()] == ["temperature", "n"]
    assert [each.parameter for each in dialect(body, "n").errors()] == ["temperature"]
    assert dialect(body, "model").errors() == dialect(body, drop=True).errors() == []
    assert dialect(body, asked="none").errors() == []


def test_rows_may_name_more_models_than_are_remembered() -> None:
    body = {"model": "claude-x", "messages": SAY, "n": 2}
    job = dialect(body, "model")
    for number in range(3000):
        assert refused(job.fit({**body, "model": f"claude-{number}"})).startswith("n: ")


@pytest.mark.parametrize(
    ("messages", "roles"),
    [
        (SYSTEM, [{"role": "system"}, {"role": "user"}]),
        ([{"role": "{{ role }}", "content": "x"}], None),
        ("{{ history }}", None),
        (["{{ history }}", *SAY], None),
        ([{"content": "x"}], None),
        ([{"role": ["user"]}], None),
    ],
)
def test_roles_are_known_before_the_rows_where_they_are_plain(messages: Any, roles: Any) -> None:
    assert plain_roles(messages) == roles


VALUES_OF = {
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0, 1),
    "n": st.integers(1, 128),
    "stop": st.one_of(st.text(), st.lists(st.text(max_size=3), min_size=1, max_size=7)),
    "max_tokens": st.integers(1, 99),
    "max_completion_tokens": st.integers(1, 99),
    "logprobs": st.booleans(),
    "top_logprobs": st.integers(0, 20),
    "reasoning_effort": st.sampled_from(["none", "minimal", "low", "high", "xhigh"]),
    "response_format": st.sampled_from([OBJECT, SCHEMA]),
    "presence_penalty": st.floats(-2, 2),
    "seed": st.integers(),
}
BODIES = st.fixed_dictionaries(
    {
        "model": st.sampled_from([*MODELS.values(), *REASONING, *PLAIN, "gpt-5.1", "llama"]),
        "messages": st.sampled_from([SAY, SYSTEM, DEVELOPER, LATE]),
    },
    optional={name: st.none() | values for name, values in VALUES_OF.items()},
)


@given(BODIES, st.sets(st.sampled_from([*VALUES_OF, "model", "messages"])))
@settings(deadline=None, max_examples=EXAMPLES)
def test_what_is_fitted_is_taken_and_fitting_it_again_changes_nothing(
    body: dict[str, Any], differing: set[str]
) -> None:
    """And whether a parameter is a template makes no difference."""
    made = dialect(body, *differing, drop=True).fit(body)
    assert isinstance(made, dict)
    assert not [found for found in check(made, provider_of(made["model"])) if found.changes]
    assert made == dialect(body, drop=True).fit(body)
    assert dialect(made, drop=True).fit(made) is made
    assert not made.keys() - body.keys() - {"max_tokens", "max_completion_tokens"}
    strict = dialect(body, *differing).fit(body)
    assert strict == made or isinstance(strict, Failure)

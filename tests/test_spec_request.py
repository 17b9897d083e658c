"""The request of a job file: messages and every documented parameter, their sorts and ranges."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runner.errors import JobError
from runner.spec import JobSpec, parse
from runner.spec.body import PARAMETERS, faults
from runner.spec.positions import dotted


def read_no_file(path: str) -> str:
    raise AssertionError(path)


def job(**request: Any) -> JobSpec:
    base = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    text = json.dumps({"input": {"path": "a"}, "request": {**base, **request}})
    return parse(text, "jobs/x.yaml", read_file=read_no_file)


def mistakes(**request: Any) -> list[str]:
    with pytest.raises(JobError) as raised:
        job(**request)
    return [said.removeprefix("jobs/x.yaml:1: request.") for said in raised.value.mistakes]


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}
GRAMMAR = {"type": "grammar", "grammar": {"definition": "x", "syntax": "lark"}}
CUSTOM = {"type": "custom", "custom": {"name": "g", "description": "d", "format": GRAMMAR}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "label", "strict": True, "schema": {"type": "object"}}}
ALLOWED = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "function"}]}}
HERE = {"type": "approximate", "approximate": {"city": "Bonn"}}

#: parameter -> values that are taken, values that are not
RANGES: dict[str, tuple[list[Any], list[Any]]] = {
    "temperature": ([0, 2, 0.5], [-0.1, 2.1, True, "1", [1]]),
    "top_p": ([0, 1, 0.5], [-0.1, 1.1, False]),
    "n": ([1, 128], [0, 129, 1.5, "5", True]),
    "stop": (["a", ["a"], ["a", "b", "c", "d"], ["a"] * 9], [[], [1], 1]),
    "max_tokens": ([1, 100000], [0, -1, 1.0, "9"]),
    "max_completion_tokens": ([1, 100000], [0, -1, 1.0]),
    "presence_penalty": ([-2, 2], [-2.1, 2.1]),
    "frequency_penalty": ([-2, 2], [-2.1, 2.1]),
    "logit_bias": ([{"50256": -100}, {"1": 100.0}, {}], [{"50256": -101}, {"word": 1}, [1]]),
    "logprobs": ([True, False], [1, "true"]),
    "tools": ([[TOOL], [CUSTOM]], [[], [TOOL] * 129, {}, [{"type": "other"}], [{"type": "function"}]]),
    "tool_choice": (
        ["none", "auto", "required", {"type": "function", "function": {"name": "f"}}, ALLOWED],
        ["some", 1, {"type": "function"}, {"type": "custom", "custom": {"name": "a b"}}],
    ),
    "parallel_tool_calls": ([True], ["yes"]),
    "response_format": (
        [{"type": "text"}, {"type": "json_object"}, FORMAT],
        ["json", {"type": "xml"}, {"type": "json_schema"}, {"type": "json_schema", "json_schema": {"name": "a b"}}],
    ),
    "reasoning_effort": (["none", "minimal", "low", "medium", "high", "xhigh", "max"], ["lowest", 1]),
    "verbosity": (["low", "medium", "high"], ["max"]),
    "stream": ([False, True], [1]),
    "stream_options": (
        [{}, {"include_usage": True}, {"include_usage": False, "include_obfuscation": False}],
        [{"include_usage": 1}, {"other": True}, True],
    ),
    "service_tier": (["auto", "default", "flex", "scale", "priority", "fast"], ["slow"]),
    "seed": ([0, -(2**63), 2**63 - 1], [2**63, 1.5]),
    "user": (["u"], [1]),
    "safety_identifier": (["a" * 64], ["a" * 65]),
    "prompt_cache_key": (["k"], [1]),
    "prompt_cache_retention": (["in_memory", "24h"], ["1h"]),
    "prompt_cache_options": ([{"ttl": "30m", "mode": "implicit"}], [{"ttl": "1m"}, {"other": 1}]),
    "metadata": ([{"a" * 64: "b" * 512}, {}], [{"a" * 65: "b"}, {"a": "b" * 513}, {str(i): "" for i in range(17)}]),
    "store": ([True], ["no"]),
    "modalities": ([["text", "audio"]], [["image"], "text"]),
    "audio": ([{"voice": "alloy", "format": "wav"}], [{"voice": "alloy"}, {"voice": "alloy", "format": "ogg"}]),
    "prediction": ([{"type": "content", "content": "x"}], [{"type": "other", "content": "x"}, "x"]),
    "web_search_options": ([{"search_context_size": "low", "user_location": HERE}, {}], [{"search_context_size": "x"}]),
    "moderation": ([{"model": "m", "policy": {"a": 1}}], ["m", {"mode": 1}]),
    "functions": ([[{"name": "f"}]], [[], [{}]]),
    "function_call": (["none", "auto", {"name": "f"}], ["required", {}]),
}


#: Without these a parameter means nothing.
NEEDED: dict[str, dict[str, Any]] = {"top_logprobs": {"logprobs": True}, "stream_options": {"stream": True}}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, (good, _) in RANGES.items() for value in good])
def test_a_parameter_within_its_range_is_kept_as_written(name: str, value: Any) -> None:
    kept = job(**{name: value}, **NEEDED.get(name, {})).request.params[name]
    assert kept == value
    assert type(kept) is type(value)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, (_, bad) in RANGES.items() for value in bad])
def test_a_parameter_outside_its_range_is_told_by_name(name: str, value: Any) -> None:
    found = mistakes(**{name: value})
    assert found
    assert all(said.startswith((f"{name}: ", f"{name}.")) for said in found)


def test_top_logprobs_need_logprobs() -> None:
    assert job(logprobs=True, top_logprobs=20).request.params["top_logprobs"] == 20
    assert mistakes(top_logprobs=5) == ["top_logprobs: needs logprobs: true"]
    assert mistakes(top_logprobs=21, logprobs=True) == ["top_logprobs: must be from 0 to 20"]


#: Members of a mapping out of data that nobody knows are the data's own.
THE_DATAS_OWN = [
    ("prompt_cache_options", {"other": 1}),
    ("moderation", {"mode": 1}),
    ("stream_options", {"other": True}),
]
CASES = [(name, value, True) for name, (good, _) in RANGES.items() for value in good]
CASES += [(name, value, False) for name, (_, bad) in RANGES.items() for value in bad]


@pytest.mark.parametrize(("name", "value", "fits"), CASES)
def test_a_value_that_a_template_gave_is_judged_alike(name: str, value: Any, fits: bool) -> None:
    found = list(faults({name: value, **NEEDED.get(name, {})}, [name]))
    assert bool(found) != (fits or (name, value) in THE_DATAS_OWN)
    assert all(path[0] == name for path, _ in found)


RENDERED = [
    ({"temperature": "0.5"}, "temperature", "must be a number, not text; let the template end in | float or | int"),
    ({"verbosity": "{{ low }}"}, "verbosity", "must be low, medium or high"),
    ({"logit_bias": {"{{ 1 }}": 1}}, "logit_bias.{{ 1 }}", "this key must be a token id"),
    ({"top_logprobs": 5, "logprobs": False}, "top_logprobs", "needs logprobs: true"),
    ({"stream_options": {"include_usage": True}, "stream": None}, "stream_options", "needs stream: true"),
]


@pytest.mark.parametrize(("body", "path", "said"), RENDERED)
def test_what_a_template_gave_is_data_and_told_by_its_place(body: dict[str, Any], path: str, said: str) -> None:
    assert [(dotted(place), sentence) for place, sentence in faults(body, body)] == [(path, said)]


def test_a_rendered_null_and_a_text_with_braces_are_fine() -> None:
    assert list(faults({"n": None, "user": "{{ x }}", "stop": ["{% y"]}, ["n", "user", "stop", "extra"])) == []


def test_the_cases_cover_every_parameter() -> None:
    assert RANGES.keys() | {"top_logprobs"} == PARAMETERS.keys()


@pytest.mark.parametrize("name", sorted(PARAMETERS))
@pytest.mark.parametrize("value", ["{{ column }}", "{% if a %}1{% endif %}", None])
def test_any_parameter_may_be_a_template_or_null(name: str, value: str | None) -> None:
    assert job(**{name: value}, **NEEDED.get(name, {})).request.params[name] == value


def test_a_template_may_stand_deep_inside_a_parameter() -> None:
    assert job(logit_bias={"5": "{{ bias }}"}, stop=["{{ stop }}"]).request.params["stop"] == ["{{ stop }}"]


def test_braces_alone_are_no_template() -> None:
    assert mistakes(n="{5}") == ["n: must be a whole number, not text"]


SENTENCES = [
    ({"temperature": 3}, "temperature: must be from 0 to 2"),
    ({"n": "5"}, "n: must be a whole number, not text; remove the quotes"),
    ({"max_tokens": 0}, "max_tokens: must be at least 1"),
    ({"max_tokens": 1.5}, "max_tokens: must be a whole number"),
    ({"model": ""}, "model: must not be empty"),
    ({"model": 3}, "model: must be text, not a number"),
    ({"messages": []}, "messages: must not be empty"),
    ({"messages": {}}, "messages: must be a list, not a mapping"),
    ({"stop": 1}, "stop: must be text or a list of texts, not a number"),
    ({"verbosity": "hihg"}, "verbosity: must be low, medium or high; did you mean high?"),
    ({"logit_bias": {"a": 1}}, "logit_bias.a: this key must be a token id"),
    ({"metadata": {str(n): "" for n in range(17)}}, "metadata: must hold at most 16 pairs"),
    ({"temprature": 1}, "temprature: unknown key; did you mean temperature? newer parameters go into extra_body"),
    ({"zzz": 1}, "zzz: unknown key; newer parameters go into extra_body"),
    ({"extra_body": 1}, "extra_body: must be a mapping, not a number"),
    ({"extra_body": {"n": 2}}, "extra_body.n: is a parameter of the request itself; write it as request.n"),
    ({"tools": [{}]}, "tools.0.type: is required: function or custom"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": "x"}}},
        "response_format.json_schema.schema: must be a mapping (a JSON Schema) or {file: path}, not text",
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}, "strct": True}}},
        "response_format.json_schema.strct: unknown key; did you mean strict?",
    ),
]


@pytest.mark.parametrize(("request_", "said"), SENTENCES)
def test_the_request_is_judged_in_plain_words(request_: dict[str, Any], said: str) -> None:
    assert mistakes(**request_) == [said]


CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
PARTS = [
    {"type": "text", "text": "{{ a }}", "prompt_cache_breakpoint": {"mode": "explicit"}},
    {"type": "image_url", "image_url": {"url": "https://x/a.png", "detail": "low"}},
    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA", "filename": "a.pdf"}},
    {"type": "file", "file": {"file_id": "f-1"}},
    {"type": "image_url", "image_url": {"file": "{{ path }}", "detail": "high"}},
    {"type": "input_audio", "input_audio": {"file": "a.wav"}},
    {"type": "file", "file": {"file": "a.pdf", "filename": "b.pdf"}},
]
MESSAGES = [
    {"role": "system", "content": "x", "name": "rules"},
    {"role": "developer", "content": [{"type": "text", "text": "x"}]},
    {"role": "user", "content": "", "name": "ann"},
    {"role": "user", "content": PARTS},
    {"role": "assistant", "content": "x", "refusal": None},
    {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
    {"role": "{{ role }}", "content": "x"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "x", "tool_call_id": "c1"},
    {"role": "assistant", "tool_calls": [{"id": "c2", "type": "custom", "custom": {"name": "g", "input": "x"}}]},
    {"role": "tool", "content": [{"type": "text", "text": "x"}], "tool_call_id": "c2"},
]


def test_messages_of_the_wire_are_kept_as_written() -> None:
    assert job(messages=MESSAGES).request.messages == tuple(MESSAGES)


BAD_MESSAGES: list[tuple[Any, str]] = [
    ("x", ": must be a mapping, not text"),
    ({"content": "x"}, ".role: is required: system, developer, user, assistant or tool"),
    ({"role": "usr", "content": "x"}, ".role: must be system, developer, user, assistant or tool; did you mean user?"),
    ({"role": "user"}, ".content: is required"),
    ({"role": "user", "content": None}, ".content: must be text or a list of parts, not null"),
    ({"role": "user", "content": 3}, ".content: must be text or a list of parts, not a number"),
    ({"role": "user", "content": []}, ".content: must not be empty"),
    ({"role": "user", "content": ["x"]}, ".content.0: must be a mapping, not text"),
    ({"role": "user", "content": "x", "tool_calls": [CALL]}, ".tool_calls: unknown key"),
    ({"role": "user", "content": "x", "nmae": "y"}, ".nmae: unknown key; did you mean name?"),
    ({"role": "tool", "content": "x"}, ".tool_call_id: is required"),
    ({"role": "assistant"}, ": an assistant message needs content or tool_calls"),
    ({"role": "assistant", "content": None}, ": an assistant message needs content or tool_calls"),
    ({"role": "assistant", "tool_calls": []}, ".tool_calls: must not be empty"),
    ({"role": "system", "content": [PARTS[1]]}, ".content.0.type: must be text"),
    ({"role": "user", "content": [{"type": "text"}]}, ".content.0.text: is required"),
    (
        {"role": "user", "content": [{"type": "image_url", "image_url": "https://x"}]},
        ".content.0.image_url: must be a mapping, not text",
    ),
    (
        {"role": "user", "content": [{"type": "file", "file": {"filename": "a"}}]},
        ".content.0.file: needs one of file_id, file_data and file (a local path)",
    ),
]
BAD_MEDIA = [
    ("image_url", {"detail": "low"}, ": needs either url or file (a local path)"),
    ("image_url", {"url": "https://x", "file": "a"}, ": needs either url or file (a local path)"),
    ("image_url", {"file": "a", "detail": "hgh"}, ".detail: must be auto, low or high; did you mean high?"),
    ("image_url", {"url": "x", "fil": "a"}, ".fil: unknown key; did you mean file?"),
    ("image_url", {"file": ""}, ".file: must not be empty"),
    ("input_audio", {"data": "AAAA"}, ": needs data and format, or file (a local path)"),
    ("input_audio", {"file": "a", "format": "wav"}, ": a local file says itself what it is; leave out data and format"),
    ("file", {"file": "a", "file_id": "b"}, ": needs one of file_id, file_data and file (a local path)"),
    ("file", {"file_data": "data:,"}, ": file_data needs a filename"),
]


@pytest.mark.parametrize(("message", "said"), BAD_MESSAGES)
def test_a_message_that_is_none_is_told_by_its_place(message: Any, said: str) -> None:
    assert mistakes(messages=[message]) == [f"messages.0{said}"]


@pytest.mark.parametrize(("kind", "value", "said"), BAD_MEDIA)
def test_a_part_with_media_names_them_in_one_way(kind: str, value: dict[str, Any], said: str) -> None:
    message = {"role": "user", "content": [{"type": kind, kind: value}]}
    assert mistakes(messages=[message]) == [f"messages.0.content.0.{kind}{said}"]

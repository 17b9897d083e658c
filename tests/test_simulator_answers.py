from __future__ import annotations

import json
import re
from collections import Counter
from random import Random
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import EXAMPLES

from runner.errors import UsageError
from runner.simulator import SimulatorOptions
from runner.simulator.answers import REFUSAL, Blemish, choices_of, tokens, usage_of
from runner.simulator.faults import Fates, Fault
from runner.simulator.limits import Limits, go_duration
from runner.simulator.options import options_from, words_of
from runner.simulator.pattern import compile_pattern
from runner.simulator.refusals import refusal_of
from runner.simulator.schema import value_of

ASK: dict[str, Any] = {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "Label this."}]}


def asking(schema: Any) -> dict[str, Any]:
    return ASK | {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


def content(body: dict[str, Any], entropy: int = 1) -> str:
    return str(choices_of(body, entropy)[0]["message"]["content"])


def fits(schema: Any, value: Any) -> bool:
    return bool(jsonschema_rs.validator_for(schema, validate_formats=True).is_valid(value))


NAMES = st.text("abcxyz", min_size=1, max_size=3)
SMALL = st.integers(0, 5)
FORMATS = ["date", "time", "date-time", "duration", "email", "uri", "uuid", "ipv4", "ipv6", "hostname"]
LEAVES = (
    st.sampled_from(
        [True, {}, {"type": "null"}, {"type": "boolean"}, {"type": ["string", "null"]}, {"const": {"a": 1}}]
    )
    | st.lists(st.none() | st.booleans() | st.integers() | NAMES, min_size=1).map(lambda values: {"enum": values})
    | st.sampled_from(FORMATS).map(lambda name: {"type": "string", "format": name})
    | st.builds(lambda low, more: {"type": "string", "minLength": low, "maxLength": low + more}, SMALL, SMALL)
    | st.builds(
        lambda kind, low, more: {"type": kind, "minimum": low, "maximum": low + more},
        st.sampled_from(["integer", "number"]),
        st.integers(-1000, 1000),
        st.integers(0, 1000),
    )
    | st.builds(
        lambda low, step: {"type": "integer", "exclusiveMinimum": low, "multipleOf": step}, SMALL, st.integers(1, 9)
    )
    | st.builds(lambda high: {"type": "number", "exclusiveMaximum": high}, st.integers(-5, 5))
    | st.sampled_from([0.01, 0.5, 0.1]).map(lambda step: {"type": "number", "multipleOf": step})
)


def _object(properties: dict[str, Any], dropped: int, closed: bool) -> dict[str, Any]:
    required = list(properties)[dropped:]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": not closed}


def _array(items: Any, low: int, more: int) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": low, "maxItems": low + more}


INNER: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(_object, st.dictionaries(NAMES, inner, max_size=4), SMALL, st.booleans()),
        st.builds(_array, inner, st.integers(0, 2), SMALL),
        st.lists(inner, min_size=1, max_size=3).map(lambda branches: {"anyOf": branches}),
        st.lists(inner, min_size=1, max_size=3).map(
            lambda items: {"type": "array", "prefixItems": items, "items": False}
        ),
        inner.map(lambda extra: {"type": "object", "additionalProperties": extra, "minProperties": 1}),
    ),
    max_leaves=8,
)
SCHEMAS = INNER | INNER.map(lambda shared: {"$defs": {"a/b": shared}, "allOf": [{"$ref": "#/$defs/a~1b"}]})


@settings(deadline=None, max_examples=EXAMPLES)
@given(SCHEMAS, st.integers(0, 2**32))
def test_every_answer_fits_its_schema(schema: Any, entropy: int) -> None:
    assert fits(schema, value_of(schema, Random(entropy)))


TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "required": ["name", "children", "next"],
            "properties": {
                "name": {"type": "string"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
        }
    },
}
SUM = {
    "anyOf": [{"$ref": "#/$defs/sum"}, {"$ref": "#/$defs/number"}],
    "$defs": {
        "sum": {
            "type": "object",
            "required": ["left", "right"],
            "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}},
            "additionalProperties": False,
        },
        "number": {"type": "object", "required": ["value"], "properties": {"value": {"type": "integer"}}},
    },
}


@pytest.mark.parametrize(
    "schema",
    [
        TREE,
        SUM,
        {"type": "string", "pattern": r"^INV-\d{4}/[A-F]{2,3}$"},
        {"type": "array", "items": {"enum": ["a", "b", "c"]}, "minItems": 3, "uniqueItems": True},
        {"type": "array", "contains": {"const": 7}, "minItems": 1},
        {"oneOf": [{"type": "integer", "minimum": 0, "maximum": 9}, {"type": "integer", "minimum": 5, "maximum": 20}]},
        {"type": "integer", "minimum": 1, "maximum": 4, "not": {"const": 2}},
        {"allOf": [{"minimum": 3}, {"type": "integer", "maximum": 9}, {"minimum": 8}]},
        {"type": "object", "required": ["a"], "additionalProperties": {"type": "integer"}},
        {"type": "object", "patternProperties": {"^x-[a-z]+$": {"type": "null"}}, "additionalProperties": False},
        {"type": "object", "properties": {"a": {}, "b": {}, "c": {}}, "minProperties": 2, "maxProperties": 2},
        {"type": "array", "items": {"type": "string", "maxLength": 4.0}, "minItems": 2.0},
        {"type": "object", "properties": {"never": False, "always": True}, "required": ["always"]},
    ],
    ids=str,
)
def test_awkward_schemas_are_met_too(schema: Any) -> None:
    assert [value for value in (value_of(schema, Random(n)) for n in range(50)) if not fits(schema, value)] == []


def test_a_schema_that_nothing_fits_ends_all_the_same() -> None:
    endless = {
        "type": "object",
        "required": ["l", "m", "r"],
        "properties": {name: {"$ref": "#"} for name in "lmr"},
    }
    assert isinstance(value_of(endless, Random(0)), dict)
    assert value_of({"$ref": "#"}, Random(0)) is not None


@pytest.mark.parametrize("schema", [{"type": "text"}, {"$ref": "https://example.com/x.json"}, 7])
def test_what_is_no_schema_is_refused_and_nothing_is_fetched(schema: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        choices_of(asking(schema), 1)


@pytest.mark.parametrize(
    "pattern",
    [
        r"^\d{4}-\d{2}-\d{2}$",
        r"[A-Z]{2,3}[^A-Z\s]?",
        r"(foo|ba[rz])+-(?:x|y)*",
        r"^\$\d+\.\d\d$",
        r"[\w.-]+@[a-z]+\.com",
        r"\u00e9\x41[\]\\^-]a{2,}",
        r"(?P<name>a|b)",
        "",
        r"a|",
    ],
)
def test_texts_of_a_pattern_match_it(pattern: str) -> None:
    drawn = [compile_pattern(pattern)(Random(n)) for n in range(30)]
    assert [text for text in drawn if not re.search(pattern, text)] == []
    assert all(len(text) < 200 for text in drawn)


def test_the_same_request_gets_the_same_answer_and_another_one_another() -> None:
    assert choices_of(ASK, 5) == choices_of(ASK, 5)
    assert len({content(ASK, entropy) for entropy in range(50)}) == 50


def test_all_of_a_schema_is_drawn_from() -> None:
    drawn = Counter(json.loads(content(asking({"enum": ["a", "b", None]}), n)) for n in range(90))
    assert set(drawn) == {"a", "b", None}


def test_an_answer_beyond_max_tokens_is_cut_there() -> None:
    whole = choices_of(ASK, 3)[0]
    cut = choices_of(ASK | {"max_completion_tokens": 5}, 3)[0]
    assert (whole["finish_reason"], cut["finish_reason"]) == ("stop", "length")
    assert cut["message"]["content"] == whole["message"]["content"][:20]
    assert usage_of(ASK, [cut], 0)["completion_tokens"] == 5


def test_a_picture_is_counted_by_the_table_and_not_by_its_bytes() -> None:
    def prompt(**picture: Any) -> int:
        parts = [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": picture}]
        count: int = usage_of({"model": "gpt-4o", "messages": [{"role": "user", "content": parts}]}, [], 0)[
            "prompt_tokens"
        ]
        return count

    assert prompt(url="data:image/png;base64," + "A" * 1_000_000, detail="low") < 85 + 60
    assert prompt(url="https://x/a.png", detail="high") > 1536
    assert prompt(file=3) > 0  # no JSON whatever breaks it


def test_a_stop_string_ends_the_text_before_it() -> None:
    assert "e" not in content(ASK | {"stop": ["e"]})


def test_n_choices_are_told_apart_and_billed_together() -> None:
    choices = choices_of(ASK | {"n": 3}, 1)
    assert [choice["index"] for choice in choices] == [0, 1, 2]
    texts = [choice["message"]["content"] for choice in choices]
    assert len(set(texts)) == 3
    assert usage_of(ASK, choices, 0)["completion_tokens"] == sum(map(tokens, texts))


def test_logprobs_spell_the_answer_and_rank_the_alternatives() -> None:
    choice = choices_of(ASK | {"logprobs": True, "top_logprobs": 3}, 1)[0]
    said = choice["logprobs"]["content"]
    assert "".join(token["token"] for token in said) == choice["message"]["content"]
    assert all(token["logprob"] <= 0 and len(token["top_logprobs"]) == 3 for token in said)
    ranks = [[top["logprob"] for top in token["top_logprobs"]] for token in said]
    assert ranks == [sorted(rank, reverse=True) for rank in ranks]
    assert len(said) == usage_of(ASK, [choice], 0)["completion_tokens"]


def test_json_object_gives_an_object() -> None:
    assert isinstance(json.loads(content(ASK | {"response_format": {"type": "json_object"}})), dict)


PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "ping"}},
    {"type": "custom", "custom": {"name": "say"}},
]
PING = {"type": "function", "function": {"name": "ping"}}


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("required", {"weather", "ping", "say"}),
        ({"type": "function", "function": {"name": "weather"}}, {"weather"}),
        ({"type": "custom", "custom": {"name": "say"}}, {"say"}),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [PING]}}, {"ping"}),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [PING]}}, set()),
        ("auto", set()),
        ("none", set()),
        (None, set()),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_a_demanded_tool_is_called_with_arguments_that_fit(choice: Any, names: set[str]) -> None:
    body = ASK | {"tools": TOOLS, "tool_choice": choice}
    assert refusal_of(body) is None
    called = set()
    for entropy in range(40):
        answer = choices_of(body, entropy)[0]
        for call in answer["message"].get("tool_calls", ()):
            called.add(call[call["type"]]["name"])
            assert answer["finish_reason"] == "tool_calls"
            assert call["type"] == "custom" or isinstance(json.loads(call["function"]["arguments"]), dict)
            assert (
                call["type"] == "custom"
                or call["function"]["name"] != "weather"
                or fits(PARAMETERS, json.loads(call["function"]["arguments"]))
            )
    assert called == names


def test_blemishes_spoil_an_answer_on_purpose() -> None:
    refused = choices_of(ASK, 1, Blemish(refused=True))[0]["message"]
    assert (refused["content"], refused["refusal"]) == (None, REFUSAL)
    spoilt = choices_of(asking({"type": "integer"}), 1, Blemish(invalid=True))[0]["message"]["content"]
    with pytest.raises(json.JSONDecodeError):
        json.loads(spoilt)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 200) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "name", "function", "custom", "schema", "json_schema", "allowed_tools", "tools"])
            | st.sampled_from(["mode", "parameters", "role", "content", "required", "json_object"]),
            inner | st.sampled_from(["function", "custom", "json_schema", "required", "object"]),
            max_size=3,
        )
    ),
    max_leaves=8,
)
KEYS = ["stream", "n", "max_tokens", "max_completion_tokens", "logprobs", "top_logprobs", "stop", "response_format"]


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(["messages", "tools", "tool_choice", *KEYS], JSON)))
def test_no_request_whatever_breaks_it(extra: dict[str, Any]) -> None:
    body = ASK | extra
    if refusal_of(body) is None:
        try:
            choices = choices_of(body, 1)
        except ValueError:
            return
        assert len(choices) == (body.get("n") or 1)
        assert usage_of(body, choices, 0)["completion_tokens"] >= 1


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": ""}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": ["hi"]}, "messages"),
        ({"stream": 2}, "stream"),
        ({"n": 0}, "n"),
        ({"n": True}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"tools": []}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "fly"}}}, "tool_choice"),
    ],
    ids=str,
)
def test_a_mistaken_request_is_refused_by_the_name_of_its_parameter(change: dict[str, Any], param: str) -> None:
    refusal = refusal_of(ASK | change)
    assert refusal is not None
    assert (refusal.status, refusal.param) == (400, param)


def test_the_share_of_each_fault_is_its_rate() -> None:
    options = SimulatorOptions(rate_429=0.1, rate_cut=0.02, rate_refusal=0.3)
    fates = Fates(options)
    met = Counter(fates.next().fault for _ in range(10_000))
    assert set(met) == {None, Fault.RATE, Fault.CUT, Fault.REFUSAL}
    assert abs(met[Fault.RATE] - 1000) < 150
    assert abs(met[Fault.CUT] - 200) < 60
    assert abs(met[Fault.REFUSAL] - 3000) < 250


def test_the_seed_decides_the_fate_of_every_request() -> None:
    def drawn(seed: int) -> list[Any]:
        fates = Fates(SimulatorOptions(seed=seed, rate_500=0.5))
        return [fates.next() for _ in range(20)]

    assert drawn(1) == drawn(1) != drawn(2)


def test_latency_is_lognormal_about_its_median() -> None:
    fates = Fates(SimulatorOptions(latency_ms=80, sigma=0.5))
    seconds = sorted(fates.next().latency_s for _ in range(4001))
    assert seconds[2000] == pytest.approx(0.08, rel=0.05)
    assert seconds[3365] == pytest.approx(0.08 * 2.718**0.5, rel=0.08)  # one sigma above: 84.13 %


def test_requests_run_out_and_come_back_evenly() -> None:
    limits = Limits(rpm=2, tpm=None)
    assert limits.take(5, "m", 0.0) is None
    assert limits.headers() == {
        "x-ratelimit-limit-requests": "2",
        "x-ratelimit-remaining-requests": "1",
        "x-ratelimit-reset-requests": "30s",
    }
    assert limits.take(5, "m", 0.0) is None
    denial = limits.take(5, "m", 10.0)
    assert denial is not None
    assert denial.kind == "requests"
    assert denial.wait_s == pytest.approx(20.0)
    assert denial.message.endswith("(RPM): Limit 2, Used 2, Requested 1. Please try again in 20s.")
    assert limits.take(5, "m", 30.0) is None


def test_tokens_run_out_too_and_a_request_beyond_the_limit_never_passes() -> None:
    limits = Limits(rpm=None, tpm=100)
    assert limits.take(80, "m", 0.0) is None
    denial = limits.take(50, "m", 0.0)
    assert denial is not None
    assert denial.kind == "tokens"
    assert denial.wait_s == pytest.approx(18.0)
    never = limits.take(101, "m", 600.0)
    assert never is not None
    assert never.message == "Request too large for m on tokens per min (TPM): Limit 100, Requested 101."
    assert limits.take(100, "m", 600.0) is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0ms"), (0.012, "12ms"), (1, "1s"), (1.5, "1.5s"), (360, "6m0s"), (179.56, "2m59.56s")]
)
def test_durations_are_written_as_go_does(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text


def test_options_become_words_and_come_back() -> None:
    options = SimulatorOptions(port=8000, latency_ms=0.0, rpm=60, rate_bad_json=0.25, no_auth=True, log="a b.jsonl")
    assert options_from(words_of(options)) == (options, False)
    assert words_of(SimulatorOptions()) == []
    assert options_from(["--with-parent"]) == (SimulatorOptions(), True)


@pytest.mark.parametrize(
    "change",
    [{"rate_500": 1.5}, {"rate_500": 0.6, "rate_cut": 0.6}, {"latency_ms": -1}, {"sigma": float("nan")}, {"rpm": 0}],
)
def test_options_that_cannot_be_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        SimulatorOptions(**change)

"""Encoding: golden hashes, what cannot be sent, and the estimate."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import EXAMPLES

from runner.records import Billed, Failure, Kind, Request
from runner.wire import encode as room
from runner.wire.encode import HASH_RECIPE, encode, output_cap

BASE = "https://api.cometapi.com/v1"
PLAIN = {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "hi"}]}
FOREIGN = {**PLAIN, "messages": [{"role": "user", "content": "Zürich \U0001f600 \u2028"}], "temperature": 0.5}
HUGE = {**PLAIN, "seed": 10**30}


def sent(body: dict[str, Any], base_url: str = BASE) -> Request:
    request = encode(7, body, base_url)
    assert isinstance(request, Request), request
    return request


def refused(body: dict[str, Any]) -> str:
    failure = encode(7, body, BASE)
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.billed) == (Kind.INPUT, Billed.NO)
    return failure.message


# A change here means that every stored answer would be asked for again: add a recipe, never change one.
@pytest.mark.parametrize(
    ("body", "base_url", "digest"),
    [
        (PLAIN, BASE, "3b24d09dbf8525b1aa1cff7aa04a5fa1"),
        (PLAIN, "http://localhost:8000/v1", "0ff32b1733b5d627b5a842c1dd1c59ce"),
        (FOREIGN, BASE, "f3e66294b60bd17a35af368d2e5b91d7"),
        (HUGE, BASE, "743aa2c5926e4a8397c5f3e45f162b67"),
    ],
)
def test_the_hash_of_recipe_1_never_changes(body: dict[str, Any], base_url: str, digest: str) -> None:
    assert HASH_RECIPE == 1
    assert sent(body, base_url).hash == digest


def test_the_body_is_compact_json_in_the_given_order() -> None:
    request = sent({"z": 1, "model": "m", "a": "é"})
    assert request.body == '{"z":1,"model":"m","a":"é"}'.encode()
    assert (request.index, request.model, request.choices) == (7, "m", 1)


def test_what_orjson_refuses_the_standard_library_writes() -> None:
    nested: Any = 1
    for _ in range(300):
        nested = [nested]
    body = {"model": "é", "n": 10**30, "logit_bias": {50256: -100}, "deep": nested}
    assert json.loads(sent(body).body) == {**body, "logit_bias": {"50256": -100}}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            {"messages": [{}, {"content": "ab\ud83d"}]},
            "messages.1.content cannot be encoded as UTF-8: half a character (U+D83D) at character 3; repair the input",
        ),
        ({"\ud83d": 1}, "the name of a parameter cannot be encoded as UTF-8"),
        ({"a": None, "temperature": float("nan")}, "temperature is nan, which JSON does not have"),
        ({"a": [1, {"b": float("-inf")}]}, "a.1.b is -inf, which JSON does not have"),
        ({"seed": 10**30, "a": float("inf")}, "a is inf, which JSON does not have"),
        ({"seed": 10**5000}, "the request cannot be written as JSON: Exceeds the limit"),
        ({"a": b"x"}, "the request cannot be written as JSON: Object of type bytes is not JSON serializable"),
    ],
)
def test_what_cannot_be_sent_is_a_failure_that_says_where(body: dict[str, Any], said: str) -> None:
    assert refused(body).startswith(said)


def test_a_body_nested_beyond_all_bounds_is_a_failure() -> None:
    nested: Any = 1
    for _ in range(100_000):
        nested = [nested]
    assert refused({"a": nested}) == "the request is nested too deeply to be written as JSON"


def test_a_null_in_the_text_or_in_the_body_is_no_nan() -> None:
    assert sent({"a": None, "b": "null", "c": 1.5}).body == b'{"a":null,"b":"null","c":1.5}'


def test_the_size_of_a_body_is_capped_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_BODY_BYTES", 20)
    assert len(sent({"model": "aéaaaa"}).body) == 19
    assert sent({"model": "aéaaaaa"}).body
    assert refused({"model": "aéaaaaaa"}).startswith("the request has 21 bytes, the limit is 20")


@pytest.mark.parametrize(
    ("body", "cap", "choices", "reply_tokens"),
    [
        ({}, None, 1, 256),
        ({"max_tokens": 10}, 10, 1, 10),
        ({"max_tokens": 10, "max_completion_tokens": 20}, 20, 1, 20),
        ({"max_tokens": 10, "n": 3}, 10, 3, 30),
        ({"max_tokens": -1, "n": 0}, None, 1, 256),
        ({"max_tokens": "10", "n": "3"}, None, 1, 256),
        ({"max_tokens": True, "n": True}, None, 1, 256),
        ({"max_completion_tokens": None, "max_tokens": 5, "n": None}, 5, 1, 5),
    ],
)
def test_the_estimate_is_the_text_and_the_room_for_every_answer(
    body: dict[str, Any], cap: int | None, choices: int, reply_tokens: int
) -> None:
    request = sent(body)
    assert output_cap(body) == cap
    assert request.choices == choices
    assert request.tokens == len(request.body) // 4 + reply_tokens


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("\udc00"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=3), anything, max_size=4))
@settings(deadline=None, max_examples=EXAMPLES)
def test_any_body_is_sent_as_it_is_or_refused(body: dict[str, Any]) -> None:
    request = encode(0, body, BASE)
    if isinstance(request, Request):
        assert json.loads(request.body) == body
    else:
        assert request.kind is Kind.INPUT

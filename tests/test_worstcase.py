"""What one exchange can cost at most, and what a job with a budget lacks for it to be known."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import EXAMPLES

from runner.pricing import Price, cost
from runner.records import Failure, Request, Usage
from runner.wire.encode import encode
from runner.worstcase import lacking, worst_usd

PRICE = Price("m", Decimal(1), None, None, Decimal(2), "job", "m")
HEARS = replace(PRICE, input_audio=Decimal(9))
SPEAKS = replace(PRICE, output_audio=Decimal(20))
RECORDING = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
TOOL = {"type": "function", "function": {"name": "find"}}
SPOKEN: dict[str, Any] = {"model": "m", "modalities": ["text", "audio"]}
SEARCH = {"search_context_size": "low"}


def body(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": "x"}, *parts] if parts else "x"
    return {"model": "m", "messages": [{"role": "user", "content": content}], "max_tokens": 100} | more


def worst(given: dict[str, Any], price: Price | None = PRICE, most: int | None = 1000, **more: Any) -> Decimal | None:
    """In millionths of a dollar, of a prompt of at most 1,000 tokens."""
    request = encode(0, given, "http://x/v1")
    assert isinstance(request, Request)
    found = worst_usd(replace(request, prompt_most=most), given, price, media=more.get("media", False))
    return None if found is None else found * 10**6


@pytest.mark.parametrize(
    ("more", "millionths"),
    [
        ({}, 1000 + 200),
        ({"n": 3}, 1000 + 600),
        ({"tools": [TOOL]}, 1256 + 200),
        ({"functions": [TOOL["function"]]}, 1256 + 200),
        ({"tools": [TOOL], "model": "anthropic/claude-x"}, 2024 + 200),
        ({"response_format": {"type": "json_object"}, "model": "claude-x"}, 2024 + 200),
        ({"response_format": {"type": "json_object"}}, 1000 + 200),
        ({"tools": None, "functions": [], "prediction": None, "web_search_options": None}, 1000 + 200),
        ({"web_search_options": SEARCH}, None),
        ({"web_search_options": {}}, None),
        ({"plugins": [{"id": "web"}]}, None),
        ({"plugins": []}, 1000 + 200),
        ({"search_parameters": {"mode": "auto"}}, None),
        ({"search_parameters": {"mode": "off"}}, 1000 + 200),
        ({"enable_search": True}, None),
        ({"enable_search": False}, 1000 + 200),
        ({"tools": [TOOL, {"type": "web_search"}]}, None),
        ({"tools": [{"googleSearch": {}}]}, None),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, 1256 + 200),
        ({"model": "openai/gpt-4o:online"}, None),
        ({"model": "gpt-4o-search-preview-2025-03-11"}, None),
        ({"model": "perplexity/sonar-pro"}, None),
        ({"model": "my-search/gpt-4o"}, 1000 + 200),
        ({"max_tokens": None}, None),
        ({"max_tokens": 50, "max_completion_tokens": 80}, 1000 + 160),
        ({"max_tokens": 90, "max_completion_tokens": 80}, 1000 + 180),
        ({"max_tokens": None, "max_completion_tokens": 80}, 1000 + 160),
        ({"max_tokens": -1, "max_completion_tokens": 80}, None),
        ({"max_tokens": True}, None),
        ({"max_tokens": 1.5}, None),
        ({"max_tokens": None, "prediction": {"type": "content", "content": "x"}}, None),
    ],
)
def test_a_request_costs_at_most_what_its_body_says(more: dict[str, Any], millionths: int | None) -> None:
    assert worst(body(**more)) == millionths


def test_a_price_by_request_holds_what_the_server_does_beside_answering() -> None:
    fee = replace(PRICE, per_request=Decimal("0.005"))
    assert worst(body(web_search_options=SEARCH), fee) == 5000 + 1000 + 200
    assert worst(body(model="m:online"), fee) == 5000 + 1000 + 200
    constants = {"model": "m:online", "max_tokens": 5}
    assert list(lacking(constants, {"model", "max_tokens"}, fee)) == []


def test_what_is_predicted_may_be_billed_as_output_beside_the_cap() -> None:
    given = body(prediction={"type": "content", "content": "y" * 500})
    found = worst(given)
    assert found is not None
    assert found >= 1000 + 2 * (100 + 500)


@pytest.mark.parametrize(
    ("given", "price", "millionths"),
    [
        (body(RECORDING), PRICE, None),
        (body(RECORDING), HEARS, 9 * 1000 + 200),
        (body(RECORDING), SPEAKS, None),
        (body(modalities=["text", "audio"]), PRICE, None),
        (body(modalities=["text", "audio"]), SPEAKS, 1000 + 20 * 100),
        (body(modalities=["text"]), PRICE, 1000 + 200),
        (body(modalities=["text", "audio"]), None, None),
        (body(RECORDING), Price("m", None, None, None, None, "job", "m", per_request=Decimal("0.00005")), 50),
    ],
)
def test_sound_without_a_price_of_its_own_has_no_bound(
    given: dict[str, Any], price: Price | None, millionths: int | None
) -> None:
    assert worst(given, price, media=True) == millionths


@pytest.mark.parametrize(("model", "tokens"), [("gpt-4o", 128_000), ("openai/gpt-4o", 128_000), ("nobody-knows", None)])
def test_a_prompt_that_cannot_be_measured_is_taken_to_fill_the_context(model: str, tokens: int | None) -> None:
    given = body({"type": "file", "file": {"file_id": "f-1"}}, model=model)
    assert worst(given, most=None, media=True) == (None if tokens is None else tokens + 200)


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.lists(st.text(max_size=30), max_size=6))
def test_of_each_message_more_bytes_than_its_text_are_reckoned(texts: list[str]) -> None:
    """What marks a message for the model is a few tokens; a character is never less than its UTF-8 bytes."""
    messages = [{"role": "user", "content": text} for text in texts]
    request = encode(0, {"model": "m", "messages": messages, "max_tokens": 1}, "http://x/v1")
    if isinstance(request, Failure):  # half a character
        return
    assert request.prompt_most is not None
    assert request.prompt_most >= sum(len(text.encode()) + 28 for text in texts) + 16


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 100), st.integers(0, 100), st.sampled_from([1, 2, 5]))
def test_no_usage_within_the_bounds_costs_more(prompt: int, heard: int, out: int, spoken: int, n: int) -> None:
    price = replace(HEARS, output_audio=Decimal(20), cached_input=Decimal("0.5"))
    usage = Usage(prompt, 7, 3, n * out, audio_tokens=heard, output_audio_tokens=spoken)
    dollars, most = cost(usage, price), worst(body(RECORDING, n=n, modalities=["audio"]), price, media=True)
    assert dollars is not None
    assert most is not None
    assert dollars * 10**6 <= most


@pytest.mark.parametrize(
    ("constants", "names", "price", "kinds", "said"),
    [
        ({"model": "m", "max_tokens": 5}, {"model", "max_tokens"}, PRICE, (), []),
        ({"model": "m", "max_completion_tokens": 5}, {"model", "max_completion_tokens"}, PRICE, (), []),
        ({"model": "m"}, {"model", "max_tokens"}, PRICE, (), []),  # by row: each row is looked at
        ({}, {"model", "max_tokens"}, None, (), []),
        ({"model": "m", "max_tokens": 5}, {"model", "max_tokens"}, None, (), ["pricing.m"]),
        ({"model": "m"}, {"model"}, PRICE, (), ["not capped"]),
        ({"model": "m", "max_tokens": -1}, {"model", "max_tokens"}, None, (), ["pricing.m", "not capped"]),
        ({"max_tokens": 5} | SPOKEN, {"max_tokens"}, PRICE, (), ["pricing.m.output_audio"]),
        ({"max_tokens": 5} | SPOKEN, {"max_tokens"}, SPEAKS, ("input_audio",), ["pricing.m.input_audio"]),
        ({"max_tokens": 5} | SPOKEN, {"max_tokens"}, None, ("file",), ["pricing.m "]),
        ({"model": "m", "max_tokens": 5}, {"max_tokens"}, PRICE, ("file",), ["neither is the context of m"]),
        ({"model": "gpt-4o", "max_tokens": 5}, {"max_tokens"}, PRICE, ("file", "image_url"), []),
        (
            {"model": "m", "max_tokens": 5, "web_search_options": SEARCH},
            {"max_tokens"},
            PRICE,
            (),
            ["pricing.m.per_request"],
        ),
        ({"model": "m", "max_tokens": 5, "plugins": [{"id": "web"}]}, {"max_tokens"}, PRICE, (), ["request.plugins"]),
        ({"model": "m:online", "max_tokens": 5}, {"max_tokens"}, PRICE, (), ["the model m:online, which searches"]),
    ],
)
def test_what_a_job_with_a_budget_lacks(
    constants: dict[str, Any], names: set[str], price: Price | None, kinds: tuple[str, ...], said: list[str]
) -> None:
    found = list(lacking(constants, names, price, kinds))
    assert len(found) == len(said)
    assert all(word in sentence for word, sentence in zip(said, found, strict=True))

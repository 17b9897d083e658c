"""What a gateway publishes about its prices, and the file that a job may name."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import EXAMPLES

from runner.catalogue import Catalogue, Listing, Offer, read_catalogue, read_listing

USD = "USD / M Tokens"
HEAD = (
    '{"format": "runner-prices/1", "source": "https://x/api/models", "fetched_at": "2026-11-22T10:00:00Z", "models": '
)


def item(name: Any = "m", currency: Any = USD, **pricing: Any) -> dict[str, Any]:
    return {"id": name, "provider": "p", "model_type": "text", "pricing": {"currency": currency, **pricing}}


def listing(*items: Any, **more: Any) -> Listing | str:
    body = {"success": True, "page": 0, "page_size": 0, "total": len(items), "data": list(items), **more}
    return read_listing(json.dumps(body).encode())


def offer(**pricing: Any) -> Offer | None:
    found = listing(item(**pricing))
    assert isinstance(found, Listing)
    return found.models.get("m")


@pytest.mark.parametrize(
    ("pricing", "rates"),
    [
        ({"input": 0.4, "output": 1.6, "per_request": None, "per_second": None}, ("0.4", "1.6", None)),
        ({"input": "0.40", "output": " 1.6 "}, ("0.40", "1.6", None)),
        ({"input": 0, "output": 0}, ("0", "0", None)),
        ({"input": None, "output": None, "per_request": 0.056}, (None, None, "0.056")),
        ({"input": 1, "output": 2, "per_request": 0.01}, ("1", "2", "0.01")),
        ({"input": -1, "output": 2, "per_request": 0.01}, (None, "2", "0.01")),
        ({"input": "free", "output": True, "per_request": "1e-3"}, (None, None, "0.001")),
        ({"input": 1e300, "output": [1], "per_request": 5}, (None, None, "5")),
    ],
)
def test_what_a_model_costs(pricing: dict[str, Any], rates: tuple[str | None, ...]) -> None:
    wanted = [None if rate is None else Decimal(rate) for rate in rates]
    found = offer(**pricing)
    assert found is not None
    assert [found.input, found.output, found.per_request] == wanted


@pytest.mark.parametrize(
    "pricing",
    [
        {},
        {"input": None, "output": None, "per_second": 0.1},
        {"input": 1},
        {"input": "NaN", "output": "Infinity"},
        {"input": float("nan"), "output": 1},
        {"input": -0.1, "output": 1},
        {"input": {"a": 1}, "output": 1},
    ],
)
def test_what_cannot_be_priced_is_counted_and_has_no_offer(pricing: dict[str, Any]) -> None:
    assert listing(item(**pricing)) == Listing({}, unpriced=1, foreign=0, withheld=0)


@pytest.mark.parametrize("currency", ["CNY / M Tokens", "USD / K Tokens", "USD", "", 3, ["USD / M Tokens"]])
def test_another_currency_or_unit_is_no_dollar(currency: Any) -> None:
    assert listing(item(currency=currency, input=1, output=2)) == Listing({}, unpriced=0, foreign=1, withheld=0)


@pytest.mark.parametrize(
    "currency", ["USD / M Tokens", "usd/m tokens", "$ per million tokens", "USD / 1M tokens", None]
)
def test_dollars_are_known_in_every_spelling(currency: Any) -> None:
    assert offer(currency=currency, input=1, output=2) == Offer(input=Decimal(1), output=Decimal(2))


def test_entries_that_are_none_are_passed_over() -> None:
    found = listing(
        None, 3, "m", {}, {"id": 7}, {"id": " "}, {"id": "a"}, {"id": "b", "pricing": 3}, item(" c ", input=1, output=1)
    )
    assert found == Listing({"c": Offer(input=Decimal(1), output=Decimal(1))}, unpriced=2, foreign=0, withheld=0)


def test_a_page_of_the_list_says_how_much_is_missing() -> None:
    found = listing(item(input=1, output=1), total=4)
    assert isinstance(found, Listing)
    assert found.withheld == 3


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<!DOCTYPE html><html></html>", "a web page came back, not JSON"),
        (b"", "it is not JSON, or not all of it"),
        (b'{"success":true,"data":[{"id":"m"', "it is not JSON, or not all of it"),
        (b"\xff\xfe", "it is not JSON, or not all of it"),
        (b"[" * 100_000, "it is not JSON, or not all of it"),
        (b'"a text"', "it is JSON, but a text"),
        (b"[]", "the answer is JSON without a list of models under `data`"),
        (b"null", "the answer is JSON without a list of models under `data`"),
        (b'{"success":true,"data":{}}', "the answer is JSON without a list of models under `data`"),
        (b'{"success":false,"data":[]}', "the answer says that it failed (`success` is false)"),
    ],
)
def test_what_is_no_list_is_said_in_words(body: bytes, words: str) -> None:
    assert read_listing(body) == words


def test_a_hundred_thousand_models_are_read() -> None:
    found = listing(*(item(f"m{number}", input=number / 1000, output=1) for number in range(100_000)))
    assert isinstance(found, Listing)
    assert len(found.models) == 100_000
    assert found.models["m1234"].input == Decimal("1.234")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "pricing", "input", "data", "output", "currency"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.lists(JSON, max_size=4))
def test_whatever_stands_in_the_list_no_offer_is_out_of_range(items: list[Any]) -> None:
    found = listing(*items)
    assert isinstance(found, Listing)
    for made in found.models.values():
        assert all(0 <= rate <= 1_000_000 for rate in made.rates().values())


RATES = st.none() | st.decimals(0, 1000, places=6)
OFFERS = st.builds(Offer, RATES, RATES, RATES, RATES, RATES)


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.dictionaries(st.text(min_size=1, max_size=12), OFFERS, max_size=5))
def test_a_file_holds_what_was_written_into_it(models: dict[str, Offer]) -> None:
    made = Catalogue(models, "https://x/api/models", "2026-11-22T10:00:00Z")
    assert read_catalogue(made.to_file()) == made


def test_the_file_has_a_line_for_each_model() -> None:
    models = {"b": Offer(per_request=Decimal("0.0560")), "a": Offer(input=Decimal("0.40"), output=Decimal(2))}
    lines = Catalogue(models, None, None).to_file().decode().split("\n")
    assert lines[1:3] == ['"a": {"input": 0.4, "output": 2},', '"b": {"per_request": 0.056}']


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "is not a file of prices; `runner prices -o FILE` makes one"),
        ("[]", "is not a file of prices; `runner prices -o FILE` makes one"),
        ('{"format": "runner-prices/9", "models": {}}', "is not a file of prices; `runner prices -o FILE` makes one"),
        ("m: {input: 1}", "it is not JSON, or not all of it"),
        (HEAD + '{"m": 3}}', "models.m must be a mapping of rates"),
        (
            HEAD + '{"m": {"ouput": 3}}}',
            "models.m.ouput is unknown; a model has input, cached_input, cache_write, output, per_request",
        ),
        (HEAD + '{"m": {"input": "3"}}}', "models.m.input must be a number from 0 to 1,000,000"),
        (HEAD + '{"m": {"input": -3}}}', "models.m.input must be a number from 0 to 1,000,000"),
        (HEAD + '{"m": {"input": NaN, "output": 1e9}}}', "models.m.output must be a number from 0 to 1,000,000"),
        ('{"format": "runner-prices/1", "source": 3, "models": {}}', "source and fetched_at must be text"),
    ],
)
def test_a_mistake_in_the_file_is_said_with_its_place(text: str, words: str) -> None:
    assert read_catalogue(text.encode()) == words

"""What tokens cost, exactly."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from runner.pricing import JOB, LIST, Price, cost, price_of, upper_bound, words
from runner.records import NO_USAGE, Usage


@dataclass(frozen=True)
class Rates:
    input: Decimal | None = None
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None
    output: Decimal | None = None


@dataclass(frozen=True)
class Pricing:
    models: Mapping[str, Rates] = field(default_factory=dict)
    factor: Decimal = Decimal(1)


def price(input_: str | None, cached: str | None, write: str | None, output: str | None) -> Price:
    return Price("m", rate(input_), rate(cached), rate(write), rate(output), JOB, "m")


def rate(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


MINI = price("0.40", "0.10", None, "1.60")
SONNET = price("3", "0.30", "3.75", "15")


@pytest.mark.parametrize(
    ("usage", "rates", "dollars"),
    [
        # 1,000 x 0.40 + 100 x 1.60, in millionths
        (Usage(1000, None, None, 100), MINI, "0.00056"),
        (Usage(1000, 0, 0, 100), MINI, "0.00056"),
        # cached tokens lie inside prompt_tokens: 200 x 0.40 + 800 x 0.10 + 100 x 1.60
        (Usage(1000, 800, None, 100), MINI, "0.00032"),
        # 100 x 3 + 700 x 0.30 + 200 x 3.75 + 10 x 15
        (Usage(1000, 700, 200, 10), SONNET, "0.00141"),
        # no rate for writing, or for cached tokens: the input rate
        (Usage(1000, None, 200, 100), MINI, "0.00056"),
        (Usage(1000, 800, None, 100), price("0.40", None, None, "1.60"), "0.00056"),
        # reasoning tokens lie inside completion_tokens
        (Usage(1000, None, None, 100, 90), MINI, "0.00056"),
        # more cached than prompt, more written than left: the prompt is all that is charged
        (Usage(1000, 5000, 5000, 0), SONNET, "0.0003"),
        (Usage(1000, 400, 5000, 0), SONNET, "0.00237"),
        (Usage(0, None, None, 0), MINI, "0"),
        (Usage(1, None, None, 0), price("0.000001", None, None, "0"), "1e-12"),
        # half a dust goes to the even side
        (Usage(1, None, None, 0), price("0.0000005", None, None, "0"), "0"),
        (Usage(3, None, None, 0), price("0.0000005", None, None, "0"), "2e-12"),
        (Usage(None, None, None, 100), MINI, None),
        (Usage(1000, None, None, None), MINI, None),
        (NO_USAGE, MINI, None),
        (Usage(1000, None, None, 100), None, None),
        (Usage(1000, None, None, 100), price(None, None, None, "1.6"), None),
        (Usage(1000, None, None, 100), price("0.4", None, None, None), None),
        # a server's nonsense is priced without a fault
        (Usage(2**63 - 1, None, None, 2**63 - 1), SONNET, "166020696663386"),
    ],
)
def test_the_bill_of_one_exchange(usage: Usage, rates: Price | None, dollars: str | None) -> None:
    assert cost(usage, rates) == (None if dollars is None else Decimal(dollars))


TOKENS = st.integers(0, 2**63 - 1) | st.integers(0, 10_000_000)
MAYBE_TOKENS = st.none() | TOKENS
RATE = st.decimals(0, 10_000, places=6) | st.decimals(0, 100, places=3)
USAGES = st.builds(Usage, TOKENS, MAYBE_TOKENS, MAYBE_TOKENS, TOKENS)
PRICES = st.builds(Price, st.just("m"), RATE, st.none() | RATE, st.none() | RATE, RATE, st.just(JOB), st.just("m"))


@settings(deadline=None, max_examples=200)
@given(USAGES, PRICES)
def test_a_float64_holds_the_cost_exactly(usage: Usage, rates: Price) -> None:
    dollars = cost(usage, rates)
    assert dollars is not None
    assert Decimal(repr(float(dollars))) == dollars


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_every_prompt_token_is_charged_once(plain: int, cached: int, written: int, out: int) -> None:
    usage = Usage(plain + cached + written, cached, written, out)
    millionths = plain * 3 + cached * Decimal("0.30") + written * Decimal("3.75") + out * 15
    assume(millionths < 10**9)
    assert cost(usage, SONNET) == millionths / 10**6


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 10**6), MAYBE_TOKENS, MAYBE_TOKENS, st.integers(0, 10**6), PRICES)
def test_no_exchange_costs_more_than_its_upper_bound(
    prompt: int, cached: int | None, written: int | None, out: int, rates: Price
) -> None:
    dollars, bound = cost(Usage(prompt, cached, written, out), rates), upper_bound(prompt, out, 1, rates)
    assert dollars is not None
    assert bound is not None
    assert 0 <= dollars <= bound


@pytest.mark.parametrize(
    ("body_bytes", "cap", "choices", "rates", "dollars"),
    [
        (1000, 60, 1, MINI, "0.000496"),
        (1000, 60, 3, MINI, "0.000688"),
        (1000, 60, 1, SONNET, "0.00465"),  # writing the cache is the dearest
        (1, 0, 1, price("0.0000001", None, None, "0"), "1e-12"),  # rounded up
        (1000, None, 1, MINI, None),
        (1000, 60, 1, None, None),
        (1000, 60, 1, price(None, "1", None, "1"), None),
        (1000, 60, 1, price("1", "1", None, None), None),
    ],
)
def test_the_most_that_an_exchange_can_cost(
    body_bytes: int, cap: int | None, choices: int, rates: Price | None, dollars: str | None
) -> None:
    assert upper_bound(body_bytes, cap, choices, rates) == (None if dollars is None else Decimal(dollars))


def test_the_job_s_own_price_wins() -> None:
    pricing = Pricing({"gpt-4o": Rates(Decimal(7), None, None, Decimal(9))})
    assert price_of("gpt-4o", pricing) == Price("gpt-4o", Decimal(7), None, None, Decimal(9), JOB, "gpt-4o")


@pytest.mark.parametrize("model", ["anthropic/claude-x", "openrouter/anthropic/claude-x"])
def test_a_vendor_s_prefix_is_stripped(model: str) -> None:
    short, long = (
        Rates(Decimal(1), Decimal(2), Decimal(3), Decimal(4)),
        Rates(Decimal(5), Decimal(6), Decimal(7), Decimal(8)),
    )
    found = price_of(model, Pricing({"claude-x": short}))
    assert found == Price(model, Decimal(1), Decimal(2), Decimal(3), Decimal(4), JOB, "claude-x")
    found = price_of(model, Pricing({"claude-x": short, "anthropic/claude-x": long}))
    assert found is not None
    assert found.matched == "anthropic/claude-x"


def test_the_factor_applies_to_every_rate() -> None:
    pricing = Pricing({"m": Rates(Decimal("0.40"), Decimal("0.10"), None, Decimal("1.60"))}, Decimal("0.8"))
    assert price_of("m", pricing) == Price("m", Decimal("0.32"), Decimal("0.08"), None, Decimal("1.28"), JOB, "m")
    listed, cheaper = price_of("gpt-4o-mini", Pricing()), price_of("gpt-4o-mini", Pricing(factor=Decimal("0.5")))
    assert listed is not None and listed.input is not None and listed.output is not None
    assert cheaper is not None
    assert (cheaper.input, cheaper.output) == (listed.input / 2, listed.output / 2)
    assert cheaper.source == LIST


@pytest.mark.parametrize(
    ("model", "rates", "matched"),
    [
        ("gpt-4o-mini", ("0.15", "0.075", None, "0.6"), "openai/gpt-4o-mini"),
        ("gpt-4o-mini-2024-07-18", ("0.15", "0.075", None, "0.6"), "openai/gpt-4o-mini"),
        ("openai/gpt-4o-mini", ("0.15", "0.075", None, "0.6"), "openai/gpt-4o-mini"),
        # tiered by the length of the prompt: the base tier
        ("anthropic/claude-sonnet-4-5", ("3", "0.3", "3.75", "15"), "anthropic/claude-sonnet-4-5"),
        ("gemini-2.5-pro", ("1.25", "0.125", None, "10"), "google/gemini-2.5-pro"),
    ],
)
def test_the_public_list_price(model: str, rates: tuple[str | None, ...], matched: str) -> None:
    found = price_of(model, Pricing())
    assert found is not None
    assert (found.model, found.source, found.matched) == (model, LIST, matched)
    assert (found.input, found.cached_input, found.cache_write, found.output) == tuple(map(rate, rates))


@pytest.mark.parametrize("model", ["no-such-model-of-anybody", "", "/", "a/b/c", "模型"])
def test_an_unknown_model_has_no_price(model: str) -> None:
    assert price_of(model, Pricing()) is None


@pytest.mark.parametrize(
    ("rates", "text"),
    [
        (MINI, "$0.40 in, $0.10 cached, $1.60 out per million tokens (the job's price)"),
        (SONNET, "$3.00 in, $0.30 cached, $3.75 cache write, $15.00 out per million tokens (the job's price)"),
        (
            Price("x", Decimal("0.15"), Decimal("0.075"), None, Decimal("600"), LIST, "openai/x"),
            "$0.15 in, $0.075 cached, $600.00 out per million tokens (public list price of openai/x)",
        ),
        (price(None, None, None, None), "no rates per million tokens (the job's price)"),
    ],
)
def test_the_price_in_words(rates: Price, text: str) -> None:
    assert words(rates) == text


def test_the_price_library_is_loaded_only_when_a_list_price_is_asked_for() -> None:
    program = "import sys, runner.pricing; sys.exit('genai_prices' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

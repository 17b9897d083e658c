"""What tokens cost, exactly."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from thorough import EXAMPLES

from runner.catalogue import Catalogue, Offer
from runner.pricing import (
    CATALOGUE,
    JOB,
    LIST,
    SERVER,
    Charge,
    Market,
    Price,
    Prices,
    at_tier,
    cost,
    history,
    price_of,
    upper_bound,
    words,
)
from runner.records import NO_USAGE, Usage
from runner.spec.model import PricingSpec


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


@settings(deadline=None, max_examples=EXAMPLES)
@given(USAGES, PRICES)
def test_a_float64_holds_the_cost_exactly(usage: Usage, rates: Price) -> None:
    dollars = cost(usage, rates)
    assert dollars is not None
    assert Decimal(repr(float(dollars))) == dollars


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_every_prompt_token_is_charged_once(plain: int, cached: int, written: int, out: int) -> None:
    usage = Usage(plain + cached + written, cached, written, out)
    millionths = plain * 3 + cached * Decimal("0.30") + written * Decimal("3.75") + out * 15
    assume(millionths < 10**9)
    assert cost(usage, SONNET) == millionths / 10**6


@settings(deadline=None, max_examples=EXAMPLES)
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


DAY = date(2026, 11, 22)
OPENAI, COMET = "https://api.openai.com/v1", "https://api.cometapi.com/v1"


def given_prices(section: dict[str, object], market: Market = Market(OPENAI, None, DAY)) -> Prices:  # noqa: B008
    return Prices(PricingSpec.model_validate(section), market)


AUDIO = replace(MINI, input_audio=Decimal(10), output_audio=Decimal(20))
THINKING = replace(MINI, reasoning=Decimal(3))
BY_REQUEST = replace(price(None, None, None, None), per_request=Decimal("0.056"))
BOTH = replace(MINI, per_request=Decimal("0.01"))


@pytest.mark.parametrize(
    ("usage", "rates", "dollars"),
    [
        # audio tokens lie inside the prompt's and the answer's: 900 x 0.40 + 100 x 10 + 70 x 1.60 + 30 x 20
        (Usage(1000, None, None, 100, audio_tokens=100, output_audio_tokens=30), AUDIO, "0.002072"),
        # without a rate of their own they cost what text costs
        (Usage(1000, None, None, 100, audio_tokens=100, output_audio_tokens=30), MINI, "0.00056"),
        # more than there is room for
        (Usage(1000, 900, None, 100, audio_tokens=500, output_audio_tokens=500), AUDIO, "0.00309"),
        # 1,000 x 0.40 + 10 x 1.60 + 90 x 3
        (Usage(1000, None, None, 100, 90), THINKING, "0.000686"),
        # an exchange that has its price needs no tokens
        (NO_USAGE, BY_REQUEST, "0.056"),
        (Usage(1000, None, None, 100), BY_REQUEST, "0.056"),
        (Usage(1000, None, None, 100), BOTH, "0.01056"),
        (NO_USAGE, BOTH, None),
    ],
)
def test_the_bill_of_audio_thought_and_whole_requests(usage: Usage, rates: Price, dollars: str | None) -> None:
    assert cost(usage, rates) == (None if dollars is None else Decimal(dollars))


LONG = replace(
    price("1", None, None, "10"), steps=((100, price("2", "0.2", None, "15")), (200, price("3", None, None, "20")))
)


@pytest.mark.parametrize(
    ("prompt", "dollars"), [(100, "0.00011"), (101, "0.000217"), (200, "0.000415"), (201, "0.000623"), (None, None)]
)
def test_beyond_a_length_the_whole_request_costs_other_rates(prompt: int | None, dollars: str | None) -> None:
    assert cost(Usage(prompt, None, None, 1), LONG) == (None if dollars is None else Decimal(dollars))


def test_the_upper_bound_knows_the_rates_of_long_prompts() -> None:
    assert upper_bound(100, 1, 1, LONG) == Decimal("0.00011")
    assert upper_bound(150, 1, 1, LONG) == Decimal("0.000315")
    assert upper_bound(300, 1, 1, LONG) == Decimal("0.00092")
    assert upper_bound(None, 1, 1, LONG) is None


@pytest.mark.parametrize(
    ("tier", "dollars"),
    [
        (None, "0.00056"),
        ("default", "0.00056"),
        ("auto", "0.00056"),
        ("scale", "0.00056"),
        ("flex", "0.00028"),
        ("batch", "0.00036"),  # 1,000 x 0.20 + 100 x 1.60
        ("priority", "0.00112"),
        ("fast", "0.00112"),
    ],
)
def test_each_service_tier_has_its_price(tier: str | None, dollars: str) -> None:
    tiers = {"flex": 0.5, "batch": {"input": 0.2, "output": 1.6}, "priority": 2}
    prices = given_prices({"m": {"input": 0.4, "output": 1.6, **tiers}})
    assert prices.charge("m", Usage(1000, None, None, 100), tier) == Charge(Decimal(dollars), JOB)


def test_a_tier_has_the_job_s_factor_and_its_own() -> None:
    prices = given_prices(
        {"m": {"input": 1, "output": 2, "flex": {"input": 1, "output": 1, "factor": 0.5}}, "factor": 0.8}
    )
    assert prices.charge("m", Usage(10**6, None, None, 0), "flex").usd == Decimal("0.4")


def test_the_upper_bound_takes_the_dearer_of_the_tier_asked_for_and_the_standard_one() -> None:
    found = given_prices({"m": {"input": 1, "output": 1, "flex": 0.5, "priority": 2}}).of("m")
    bounds = [upper_bound(500_000, 500_000, 1, found, tier) for tier in (None, "flex", "priority", "default")]
    assert bounds == [1, 1, 2, 1]


@settings(deadline=None, max_examples=EXAMPLES)
@given(
    st.builds(Usage, *[st.integers(0, 500)] * 5, st.none(), st.integers(0, 500), st.integers(0, 500)),
    st.lists(RATE, min_size=8, max_size=8),
    st.sampled_from([None, "flex", "priority"]),
    st.sampled_from([None, "flex", "priority"]),
)
def test_no_exchange_of_any_tier_or_length_costs_more_than_its_upper_bound(
    usage: Usage, rates: list[Decimal], asked: str | None, used: str | None
) -> None:
    names = (
        "input",
        "cached_input",
        "cache_write",
        "output",
        "input_audio",
        "output_audio",
        "reasoning",
        "per_request",
    )
    plain = replace(MINI, **dict(zip(names, rates, strict=True)))
    long = replace(plain.times(Decimal(2)), cached_input=Decimal(50))
    whole = replace(plain, steps=((250, long),), tiers={"flex": plain.times(Decimal("0.5")), "priority": long})
    dollars = cost(usage, whole, used if used == asked else None)
    bound = upper_bound(usage.prompt_tokens, usage.completion_tokens, 1, whole, asked)
    assert dollars is not None and bound is not None
    assert dollars <= bound


GATEWAY = Catalogue(
    {"gpt-4.1-mini": Offer(input=Decimal("0.32"), output=Decimal("1.28"))}, "https://x", "2026-11-20T10:00:00Z"
)


def test_job_server_catalogue_list_in_this_order() -> None:
    market, usage = Market(COMET, GATEWAY, DAY), Usage(1000, None, None, 100)
    told = replace(usage, reported_usd=Decimal("0.0007"))
    by_job = given_prices({"gpt-4.1-mini": {"input": 1, "output": 1}}, market)
    assert by_job.charge("gpt-4.1-mini", told, None) == Charge(Decimal("0.0011"), JOB)
    prices = given_prices({}, market)
    assert prices.charge("gpt-4.1-mini", told, None) == Charge(Decimal("0.0007"), SERVER)
    assert prices.charge("openai/gpt-4.1-mini", usage, None) == Charge(Decimal("0.000448"), CATALOGUE)
    assert prices.charge("gpt-4.1", usage, None) == Charge(Decimal("0.0028"), LIST)
    assert prices.charge("nobody-s-model", usage, None) == Charge(None, None)
    assert prices.charge("nobody-s-model", told, None) == Charge(Decimal("0.0007"), SERVER)


def test_what_the_server_says_stands_in_where_the_job_s_price_needs_tokens() -> None:
    prices = given_prices({"m": {"input": 1, "output": 1}})
    assert prices.charge("m", Usage(reported_usd=Decimal("0.5")), None) == Charge(Decimal("0.5"), SERVER)
    assert prices.charge("m", NO_USAGE, None) == Charge(None, None)


def test_the_factor_is_for_prices_and_not_for_what_the_server_says() -> None:
    prices = given_prices({"factor": 0.5}, Market(COMET, GATEWAY, DAY))
    usage = Usage(1000, None, None, 0)
    assert prices.charge("gpt-4.1-mini", usage, None).usd == Decimal("0.00016")
    assert prices.charge("gpt-4.1-mini", replace(usage, reported_usd=Decimal("0.5")), None).usd == Decimal("0.5")


def test_what_a_server_says_is_kept_to_the_picodollar_and_may_be_nothing() -> None:
    prices = given_prices({})
    assert prices.charge("m", Usage(reported_usd=Decimal("0.0009884999999999998")), None).usd == Decimal(
        "0.000988500000"
    )
    assert prices.charge("m", Usage(reported_usd=Decimal(0)), None) == Charge(Decimal(0), SERVER)


@pytest.mark.parametrize(
    ("model", "tier", "prompt", "dollars"),
    [
        ("gpt-5.4", None, 272_000, "0.68"),
        ("gpt-5.4", None, 272_001, "1.360005"),
        ("gpt-5.4", "priority", 1000, "0.005"),
        ("gpt-5.4", "flex", 1000, "0.00125"),
        ("gpt-5.4", "batch", 1000, "0.00125"),
        ("gpt-4.1-mini", "flex", 1000, "0.0002"),  # not in the list: half, assumed
        ("gpt-4o", "batch", 1000, "0.00125"),
        ("claude-sonnet-4-5", "batch", 1000, "0.0015"),
        ("claude-sonnet-4-5", "priority", 1000, None),  # not in the list, and not cheaper
        ("claude-sonnet-4-5", None, 200_001, "1.200006"),
    ],
)
def test_the_list_knows_tiers_and_long_prompts(model: str, tier: str | None, prompt: int, dollars: str | None) -> None:
    found = given_prices({}).charge(model, Usage(prompt, None, None, 0), tier)
    assert found == (Charge(None, None) if dollars is None else Charge(Decimal(dollars), LIST))


def test_a_discount_of_our_own_is_said() -> None:
    found = price_of("gpt-4.1-mini", Pricing(), Market(OPENAI, None, DAY))
    assert found is not None
    assert at_tier(found, "flex").assumed == "half the list price, assumed"
    assert at_tier(found, "priority").assumed is None
    assert words(found, "flex").endswith("openai/gpt-4.1-mini, flex tier, half the list price, assumed)")


@pytest.mark.parametrize(
    ("model", "base_url", "matched", "estimate"),
    [
        ("gpt-4.1-mini", OPENAI, "openai/gpt-4.1-mini", False),
        ("gpt-4.1-mini", COMET, "openai/gpt-4.1-mini", True),
        ("gpt-4.1-mini", "http://127.0.0.1:8000/v1", "openai/gpt-4.1-mini", True),
        (
            "anthropic/claude-sonnet-4.5",
            "https://openrouter.ai/api/v1",
            "openrouter/anthropic/claude-sonnet-4.5",
            False,
        ),
        ("llama-3.3-70b-versatile", "https://api.groq.com/openai/v1", "groq/llama-3.3-70b-versatile", False),
    ],
)
def test_the_list_price_is_an_estimate_where_the_endpoint_is_another_s(
    model: str, base_url: str, matched: str, estimate: bool
) -> None:
    found = price_of(model, Pricing(), Market(base_url, None, DAY))
    assert found is not None
    assert (found.matched, found.estimate) == (matched, estimate)
    assert ("an estimate at this endpoint" in words(found)) is estimate


def test_groq_s_flex_tier_is_no_cheaper() -> None:
    prices = given_prices({}, Market("https://api.groq.com/openai/v1", None, DAY))
    usage = Usage(1000, None, None, 100)
    charges = [prices.charge("llama-3.3-70b-versatile", usage, tier) for tier in (None, "flex")]
    assert charges[0] == charges[1]


def test_each_model_without_a_price_is_told_once() -> None:
    said: list[str] = []
    prices = given_prices({"half": {"input": 1}})
    prices.of("nobody-s-model")
    prices.listen(said.append)
    for model in ("nobody-s-model", "half", "gpt-4.1", "half", "nobody-s-model"):
        prices.of(model)
    assert [sentence.split(":")[0] for sentence in said] == [
        "no price is known for nobody-s-model",
        "no price is known for half",
    ]


def test_what_run_json_keeps_of_a_price() -> None:
    prices = given_prices({"m": {"input": 0.4, "output": 1.6, "flex": 0.5}}, Market(COMET, GATEWAY, DAY))
    for model in ("m", "gpt-4.1-mini", "gpt-4.1", "nobody-s-model"):
        prices.charge(model, Usage(1, None, None, 1, reported_usd=Decimal(1) if "nobody" in model else None), None)
    told = prices.to_json()
    flex = {"flex": {"input": "0.2", "output": "0.8"}}
    assert told["m"] == [
        {"source": "job", "matched": "m", "as_of": None, "input": "0.4", "output": "1.6", "tiers": flex}
    ]
    assert told["gpt-4.1-mini"][0]["as_of"] == "2026-11-20T10:00:00Z"
    assert told["gpt-4.1"][0]["as_of"].startswith("genai-prices ")
    assert told["gpt-4.1"][0]["estimate"] is True
    assert told["nobody-s-model"] == [{"source": None}, {"source": "server"}]


def test_the_history_of_prices_forgets_nothing() -> None:
    cheap, dear, server = ({"source": "job", "input": "1"}, {"source": "list", "input": "2"}, {"source": "server"})
    kept = history({}, {"m": [cheap]}, "1")
    assert history(kept, {"m": [cheap]}, "2") == kept == {"m": [{"since": "1", **cheap}]}
    kept = history(kept, {"m": [dear, server]}, "3")
    kept = history(kept, {"m": [cheap, server], "n": [dear]}, "4")
    assert kept["m"] == [
        {"since": "1", **cheap},
        {"since": "3", **dear},
        {"since": "3", **server},
        {"since": "4", **cheap},
    ]
    assert history(kept, {"m": [cheap, server]}, "5") == kept
    assert kept["n"] == [{"since": "4", **dear}]

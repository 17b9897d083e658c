"""Public list prices.

Rule: the only reader of genai-prices, and never of its updater: prices are those of the installed version on the day
that is asked for. Discounts by the time of day are left out: a run does not choose its hours. Strategy: the entry of
the endpoint's own provider where it is known by its address, else the vendor's, which is an estimate there.

The discounts of batch and flex are ours where the list has none, or lists the full price for them: half, as those
vendors give that sell them for money. What priority costs beyond the list is not known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import lru_cache
from importlib import metadata
from typing import Any, Final

from runner.pricing.price import LIST, Price, candidate_names

_HALF: Final = Decimal("0.5")
#: Their flex tier trades speed for a higher limit, not for money.
_FLEX_AT_FULL_PRICE: Final = frozenset({"groq"})
_ASSUMED: Final = "half the list price, assumed"
#: Price's rate -> the list's.
_NAMES: Final = {
    "input": "input_mtok",
    "cached_input": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "output": "output_mtok",
    "input_audio": "input_audio_mtok",
    "output_audio": "output_audio_mtok",
    "reasoning": "output_reasoning_mtok",
}
#: Tier -> how the list names it.
_VARIANTS: Final = {
    "batch": ("processing", "batch"),
    "flex": ("service_tier", "flex"),
    "priority": ("service_tier", "priority"),
}


@lru_cache(maxsize=1024)
def list_price(model: str, base_url: str, on: date) -> Price | None:
    """The public price of a model at an endpoint on a day; None: there is none."""
    at = datetime.combine(on, time(12), UTC)
    for found in _entries(model, base_url, at):
        own = re.match(found.provider.api_pattern, base_url) is not None
        whole = _price(model, found, found.model_price)
        return replace(whole, tiers=_tiers(whole, found, at), estimate=bool(base_url) and not own, as_of=_version())
    return None


@lru_cache(maxsize=1024)
def context_window(model: str) -> int | None:
    """How many tokens a prompt and its answer may have together; None: the list does not say."""
    for found in _entries(model, "", datetime.combine(date.max, time(12), UTC)):
        if found.model.context_window is not None:
            return int(found.model.context_window)
    return None


def _entries(model: str, base_url: str, at: datetime) -> Iterator[Any]:
    for url in (base_url, None) if base_url else (None,):
        for name in candidate_names(model):
            found = _looked_up(name, at, url)
            if found is not None:
                yield found


def _looked_up(name: str, at: datetime, url: str | None) -> Any:
    import genai_prices  # 250 ms, so only when a price is asked for

    nothing = genai_prices.Usage(input_tokens=0, output_tokens=0)
    try:
        return genai_prices.calc_price(nothing, name, genai_request_timestamp=at, provider_api_url=url)
    except LookupError:
        return None


@lru_cache(maxsize=1)
def _version() -> str:
    return f"genai-prices {metadata.version('genai-prices')}"


def _price(model: str, found: Any, rates: Any) -> Price:
    listed = {name: getattr(rates, theirs, None) for name, theirs in _NAMES.items()}
    starts = sorted({tier.start for rate in listed.values() for tier in getattr(rate, "tiers", ())})
    base = Price(model, None, None, None, None, LIST, f"{found.provider.id}/{found.model.id}")
    steps = tuple((start, replace(base, **_beyond(listed, start))) for start in starts)
    return replace(base, **{name: _base(rate) for name, rate in listed.items()}, steps=steps)


def _beyond(listed: Mapping[str, Any], start: int) -> dict[str, Any]:
    """The rates of prompts of more than `start` tokens."""
    found = {}
    for name, rate in listed.items():
        passed = [tier.price for tier in getattr(rate, "tiers", ()) if tier.start <= start]
        found[name] = Decimal(passed[-1]) if passed else _base(rate)
    return found


def _base(rate: Any) -> Any:
    base = getattr(rate, "base", rate)
    return None if base is None else Decimal(base)


def _tiers(whole: Price, found: Any, at: datetime) -> dict[str, Price]:
    half = replace(whole.times(_HALF), assumed=_ASSUMED)
    nothing = replace(Price(whole.model, None, None, None, None, LIST, whole.matched), assumed="not in the list")
    flex = whole if found.provider.id in _FLEX_AT_FULL_PRICE else half
    tiers = {"batch": half, "flex": flex, "priority": nothing}
    for tier, (key, value) in _VARIANTS.items():
        rates = _variant(found, at, key, value)
        listed = None if rates is None else _price(whole.model, found, rates)
        if listed and (tier == "priority" or (listed.input, listed.output) != (whole.input, whole.output)):
            tiers[tier] = listed
    return tiers


def _variant(found: Any, at: datetime, key: str, value: str) -> Any:
    """The rates of a variant that the list has on that day; None: it has none."""
    variants = getattr(found.model, "price_variants", None) or ()
    if not any(
        each.when == {key: value} and (each.constraint is None or each.constraint.active(at)) for each in variants
    ):
        return None
    return found.model.get_prices(at, {key: value})

"""Which price a model has, and what an exchange of it comes to.

Rule: the job's own price first, then what the server says, then the gateway's catalogue, then the public list. Each
model is looked up once, and one without a price is told once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple, Protocol

from runner.catalogue import Catalogue
from runner.pricing.listed import list_price
from runner.pricing.money import cost, rounded
from runner.pricing.price import CATALOGUE, JOB, RATES, SERVER, TIERS, Price, candidate_names
from runner.records import Usage


class Rates(Protocol):
    """The members of `price.RATES`, each Decimal | None, as the job file gives them; a tier has a `factor` besides, a
    model its `TIERS`."""

    @property
    def input(self) -> Decimal | None: ...
    @property
    def cached_input(self) -> Decimal | None: ...
    @property
    def cache_write(self) -> Decimal | None: ...
    @property
    def output(self) -> Decimal | None: ...


class Pricing(Protocol):
    """The `pricing` section of a job file."""

    @property
    def models(self) -> Mapping[str, Rates]: ...
    @property
    def factor(self) -> Decimal: ...


@dataclass(frozen=True, slots=True)
class Market:
    """Where prices are looked for besides the job: at this endpoint, on this day."""

    base_url: str = ""
    catalogue: Catalogue | None = None
    on: date = date.max  #: max: the newest that the list knows of


class Charge(NamedTuple):
    """Dollars of an exchange and who says so; both None: unknown."""

    usd: Decimal | None
    source: str | None


UNKNOWN = Charge(None, None)
FREE = Charge(Decimal(0), None)


def price_of(model: str, pricing: Pricing, market: Market = Market()) -> Price | None:
    """The price of a model: the job's, with `vendor/` stripped where need be, else the gateway's, else the public one;
    None: unknown."""
    for name in candidate_names(model):
        rates = pricing.models.get(name)
        if rates is not None:
            return _of_job(model, name, rates).times(pricing.factor)
    found = _of_catalogue(model, market.catalogue) or list_price(model, market.base_url, market.on)
    return None if found is None else found.times(pricing.factor)


def _of_job(model: str, name: str, given: Any) -> Price:
    whole = Price(model=model, source=JOB, matched=name, **_rates(given))
    tiers = {tier: _tier(whole, asked) for tier in TIERS if (asked := getattr(given, tier, None)) is not None}
    return replace(whole, tiers=tiers)


def _rates(given: Any) -> dict[str, Any]:
    return {name: getattr(given, name, None) for name in RATES}


def _tier(whole: Price, asked: Any) -> Price:
    """A tier has rates of its own, or the standard ones, times its factor."""
    rates = _rates(asked)
    own = any(rate is not None for rate in rates.values())
    tiered = replace(whole, **rates) if own else whole
    return tiered.times(asked.factor)


def _of_catalogue(model: str, catalogue: Catalogue | None) -> Price | None:
    if catalogue is None:
        return None
    for name in candidate_names(model):
        offer = catalogue.models.get(name)
        if offer is not None:
            return Price(model=model, source=CATALOGUE, matched=name, as_of=catalogue.fetched_at, **_rates(offer))
    return None


class Prices:
    """The price of each model that rows ask for, looked up once, and what exchanges of it come to."""

    def __init__(self, pricing: Pricing, market: Market = Market()) -> None:
        self._pricing = pricing
        self._market = market
        self._known: dict[str, Price | None] = {}
        self._reported: set[str] = set()  #: models whose cost the server told
        self._tell: Callable[[str], object] = lambda sentence: None

    def listen(self, tell: Callable[[str], object]) -> None:
        """Have each model without a price told, those met so far too."""
        self._tell = tell
        for model, price in self._known.items():
            if price is None or not price.is_known:
                tell(no_price(model))

    def of(self, model: str) -> Price | None:
        if model not in self._known:
            price = price_of(model, self._pricing, self._market)
            self._known[model] = price
            if price is None or not price.is_known:
                self._tell(no_price(model))
        return self._known[model]

    def charge(self, model: str, usage: Usage, tier: str | None) -> Charge:
        """What an exchange comes to, in the service tier that it used."""
        price = self._known[model] if model in self._known else self.of(model)
        if usage.reported_usd is None or (price is not None and price.source == JOB):
            usd = cost(usage, price, tier)
            if usd is not None and price is not None:
                return Charge(usd, price.source)
        if usage.reported_usd is None:
            return UNKNOWN
        self._reported.add(model)
        return Charge(rounded(usage.reported_usd), SERVER)

    @property
    def news(self) -> int:
        """Grows with what `to_json` holds."""
        return len(self._known) + len(self._reported)

    def to_json(self) -> dict[str, list[dict[str, Any]]]:
        """The price of every model asked for so far, in dollars per million tokens; of source None: none is known.
        `server`: the server has told its own costs."""
        told = {model: [_plain(price)] for model, price in list(self._known.items())}
        for model in list(self._reported):
            told[model].append({"source": SERVER})
        return told


def no_price(model: str) -> str:
    return (
        f"no price is known for {model}: its cost columns stay empty unless the server tells the cost "
        f"(give pricing.{model} in the job)"
    )


def _plain(price: Price | None) -> dict[str, Any]:
    if price is None:
        return {"source": None}
    estimate = {"estimate": True} if price.estimate else {}
    return {"source": price.source, "matched": price.matched, "as_of": price.as_of, **estimate, **price.to_json()}

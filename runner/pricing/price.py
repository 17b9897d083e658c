"""The price of a model: its rates, those of its service tiers, and those of long prompts.

Rule: a price is whole before the first row: the job's factor is in it, a tier's multiplier too, so that an exchange
costs a lookup and some products.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Final

JOB: Final = "job"  #: Price.source: the job file says so
SERVER: Final = "server"  #: the server said what the exchange cost
CATALOGUE: Final = "catalogue"  #: the file with the gateway's own prices that the job names
LIST: Final = "list"  #: the vendor's public list price, an estimate behind a gateway

TIERS: Final = ("batch", "flex", "priority")
#: What replies call them besides.
_TIER_WORDS: Final = {"fast": "priority"}

#: Dollars per million tokens.
TOKEN_RATES: Final = ("input", "cached_input", "cache_write", "input_audio", "output", "output_audio", "reasoning")
RATES: Final = (*TOKEN_RATES, "per_request")


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per million tokens of `model`, the factor applied. `matched` is the entry that the rates come from."""

    model: str
    input: Decimal | None
    cached_input: Decimal | None
    cache_write: Decimal | None
    output: Decimal | None
    source: str
    matched: str
    input_audio: Decimal | None = None
    output_audio: Decimal | None = None
    reasoning: Decimal | None = None
    per_request: Decimal | None = None  #: dollars of an exchange, beside its tokens
    tiers: Mapping[str, Price] = field(default_factory=dict)  #: a tier that is not there costs the same
    steps: tuple[tuple[int, Price], ...] = ()  #: rising; a prompt of more tokens costs this, the whole of it
    as_of: str | None = None  #: of when the rates are
    estimate: bool = False  #: the endpoint is not the vendor whose price it is
    assumed: str | None = None  #: of a tier: in words, how its rates were reckoned

    def times(self, factor: Decimal) -> Price:
        if factor == 1:
            return self
        scaled: dict[str, Any] = {name: _scaled(getattr(self, name), factor) for name in RATES}
        return replace(
            self,
            **scaled,
            tiers={name: tier.times(factor) for name, tier in self.tiers.items()},
            steps=tuple((above, step.times(factor)) for above, step in self.steps),
        )

    @property
    def is_known(self) -> bool:
        """Whether an exchange with all its tokens told can be priced."""
        return (self.input is not None and self.output is not None) or self.by_request_alone

    @property
    def by_request_alone(self) -> bool:
        return self.per_request is not None and self.input is None and self.output is None

    def to_json(self) -> dict[str, Any]:
        """For run.json: every rate that is known, as decimal text."""
        rates = {name: f"{rate.normalize():f}" for name, rate in self._rates()}
        tiers = {name: tier.to_json() for name, tier in self.tiers.items()}
        steps = [{"above_tokens": above, **step.to_json()} for above, step in self.steps]
        return {
            **rates,
            **({"tiers": tiers} if tiers else {}),
            **({"long_prompts": steps} if steps else {}),
            **({"assumed": self.assumed} if self.assumed else {}),
        }

    def _rates(self) -> Iterator[tuple[str, Decimal]]:
        for name in RATES:
            rate = getattr(self, name)
            if rate is not None:
                yield name, rate


def _scaled(rate: Decimal | None, factor: Decimal) -> Decimal | None:
    return None if rate is None else rate * factor


def at_tier(price: Price, tier: str | None) -> Price:
    """The price in a service tier, as requests and replies name it."""
    if tier is None or not price.tiers:
        return price
    return price.tiers.get(_TIER_WORDS.get(tier, tier), price)


def candidate_names(model: str) -> Iterator[str]:
    """`openrouter/anthropic/claude-x`, `anthropic/claude-x`, `claude-x`."""
    yield model
    while "/" in model:
        model = model.split("/", 1)[1]
        yield model


def words(price: Price, tier: str | None = None) -> str:
    """The price for people: `$0.40 in, $0.10 cached, $1.60 out per million tokens (public list price of …)`."""
    shown = at_tier(price, tier)
    named = (("in", shown.input), ("cached", shown.cached_input), ("cache write", shown.cache_write))
    rates = [f"{_dollars(rate)} {name}" for name, rate in (*named, ("out", shown.output)) if rate is not None]
    by_token = f"{', '.join(rates)} per million tokens" if rates else ""
    by_request = "" if shown.per_request is None else f"{_dollars(shown.per_request)} a request"
    said = " and ".join(filter(None, (by_token, by_request))) or "no rates per million tokens"
    tiered = [f"{tier} tier"] if shown is not price else []
    assumed = [shown.assumed] if shown.assumed else []
    long = [f"more beyond {shown.steps[0][0]:,} prompt tokens"] if shown.steps else []
    return f"{said} ({', '.join([_origin(price), *tiered, *assumed, *long])})"


def _origin(price: Price) -> str:
    if price.source == JOB:
        return "the job's price"
    if price.source == CATALOGUE:
        return f"the gateway's catalogue of {(price.as_of or 'unknown date')[:10]}"
    return f"public list price of {price.matched}" + (", an estimate at this endpoint" if price.estimate else "")


def _dollars(rate: Decimal) -> str:
    """At least two decimals, no trailing zeros beyond: $0.40, $0.075, $12.00."""
    whole, _, cents = f"{rate.normalize():f}".partition(".")
    return f"${whole}.{cents.ljust(2, '0')}"

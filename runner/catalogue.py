"""The prices that a gateway publishes: what it sends, and the file that a job may name.

Rule: pure. Of the gateway's list only what can be used is taken: dollars, per million tokens or per request; a number
that is none, or below nothing, is no price. The file is ours: what is wrong in it is said, never skipped, for it may be
written by hand. Rates are Decimal, as they were written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

FORMAT: Final = "runner-prices/1"
#: Dollars per million tokens, and of a request.
RATES: Final = ("input", "cached_input", "cache_write", "output", "per_request")
_DEAREST: Final = Decimal(1_000_000)
_CHEAPEST: Final = Decimal("1e-9")
_CURRENCY: Final = re.compile(r"(?i)\s*(usd|\$)\s*(/|per)\s*(1\s*)?m(illion)?\s*tok(en)?s?\s*")
_NOT_OURS: Final = "is not a file of prices; `runner prices -o FILE` makes one"


@dataclass(frozen=True, slots=True)
class Offer:
    """What a model costs; None is not said."""

    input: Decimal | None = None
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None
    output: Decimal | None = None
    per_request: Decimal | None = None

    @property
    def by_tokens(self) -> bool:
        return self.input is not None and self.output is not None

    def rates(self) -> dict[str, Decimal]:
        return {name: rate for name in RATES if (rate := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The offers of a gateway by model, where they come from and when they were fetched (ISO 8601; None: not said)."""

    models: Mapping[str, Offer]
    source: str | None = None
    fetched_at: str | None = None

    def to_file(self) -> bytes:
        """One line a model, by name, so that two files can be compared."""
        head = {"format": FORMAT, "source": self.source, "fetched_at": self.fetched_at}
        lines = [f"{json.dumps(name)}: {_numbers(offer)}" for name, offer in sorted(self.models.items())]
        models = ",\n".join(lines)
        return f'{json.dumps(head)[:-1]}, "models": {{\n{models}\n}}}}\n'.encode()


@dataclass(frozen=True, slots=True)
class Listing:
    """What a gateway's reply held: the offers, and how many models it names without a price that can be used."""

    models: Mapping[str, Offer]
    unpriced: int  #: no rate that a chat completion is billed by
    foreign: int  #: in another currency or unit
    withheld: int  #: counted in `total` and not sent


def _numbers(offer: Offer) -> str:
    return "{" + ", ".join(f'"{name}": {rate.normalize():f}' for name, rate in offer.rates().items()) + "}"


def read_listing(data: bytes) -> Listing | str:
    """The body of `GET /api/models`, or what is wrong with it in words."""
    value = _loaded(data)
    if isinstance(value, str):
        return value
    if not isinstance(value, dict) or not isinstance(value.get("data"), list):
        return "the answer is JSON without a list of models under `data`"
    if value.get("success") is False:
        return "the answer says that it failed (`success` is false)"
    models: dict[str, Offer] = {}
    foreign = 0
    named = set()
    for name, pricing in _named(value["data"]):
        named.add(name)
        if not _in_dollars(pricing.get("currency")):
            foreign += 1
            continue
        offer = Offer(**{rate: _rate(pricing.get(rate)) for rate in RATES})
        if offer.by_tokens or offer.per_request is not None:
            models[name] = offer
    total = value.get("total")
    withheld = int(total) - len(value["data"]) if isinstance(total, Decimal) and total.is_finite() else 0
    return Listing(models, len(named) - len(models) - foreign, foreign, max(0, withheld))


def _named(items: list[Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for item in items:
        name = item.get("id") if isinstance(item, dict) else None
        if isinstance(name, str) and name.strip():
            pricing = item.get("pricing")
            yield name.strip(), pricing if isinstance(pricing, dict) else {}


def _in_dollars(currency: Any) -> bool:
    """A model without any price says no currency either."""
    return currency is None or (isinstance(currency, str) and _CURRENCY.fullmatch(currency) is not None)


def _rate(value: Any) -> Decimal | None:
    """A number, or a text that is one, in the range of prices."""
    try:
        number = Decimal(value.strip()) if isinstance(value, str) else value
    except InvalidOperation:
        return None
    if not isinstance(number, Decimal) or not number.is_finite():
        return None
    return +number if number == 0 or _CHEAPEST <= number <= _DEAREST else None


def read_catalogue(data: bytes) -> Catalogue | str:
    """A file of prices, or what is wrong with it in words."""
    value = _loaded(data)
    if isinstance(value, str):
        return value
    if not isinstance(value, dict) or value.get("format") != FORMAT or not isinstance(value.get("models"), dict):
        return _NOT_OURS
    models: dict[str, Offer] = {}
    for name, rates in value["models"].items():
        offer = _offer(rates)
        if isinstance(offer, str):
            return f"models.{name}{offer}"
        models[name] = offer
    source, fetched_at = (value.get(key) for key in ("source", "fetched_at"))
    texts = all(isinstance(text, str | None) for text in (source, fetched_at))
    return Catalogue(models, source, fetched_at) if texts else "source and fetched_at must be text"


def _offer(rates: Any) -> Offer | str:
    if not isinstance(rates, dict):
        return " must be a mapping of rates"
    for name, rate in rates.items():
        if name not in RATES:
            return f".{name} is unknown; a model has {', '.join(RATES)}"
        if rate is not None and (isinstance(rate, str) or _rate(rate) is None):
            return f".{name} must be a number from 0 to {_DEAREST:,}"
    return Offer(**{name: _rate(rate) for name, rate in rates.items()})


def _loaded(data: bytes) -> Any:
    """JSON with its numbers as Decimal; text: why it is none."""
    if data[:512].lstrip().startswith(b"<"):
        return "a web page came back, not JSON"
    try:
        value = json.loads(data, parse_float=Decimal, parse_int=Decimal, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return "it is not JSON, or not all of it"
    return value if not isinstance(value, str) else "it is JSON, but a text"


def _no_number(_: str) -> None:
    return None

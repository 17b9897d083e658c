"""What tokens cost.

Rule: the only reader of genai-prices, and never of its updater: prices are those of the installed version, so a run
can be priced again. Unknown is None, never 0. Strategy: the job's own price of a model first, then the public list
price, both times the job's factor; rates are Decimal dollars per million tokens.

Money is Decimal dollars in multiples of 1e-12. Below 1,000 dollars, which no exchange reaches, that is at most 15
significant digits, and 15 survive a float64: `Decimal(repr(float(cost)))` is the cost again, so a float64 column holds
the exact bill. Above, 15 significant digits are kept, for the same reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Context, Decimal
from functools import lru_cache
from typing import Any, Final, Protocol

from runner.records import Usage

JOB: Final = "job"  #: Price.source: the job file says so
LIST: Final = "list"  #: Price.source: the vendor's public list price, an estimate behind a gateway

_MILLIONTH: Final = -6
_DUST: Final = Decimal("1e-12")
_DUST_BELOW: Final = Decimal(1000)
_FIFTEEN: Final = Context(prec=15, rounding=ROUND_HALF_EVEN)
_FIFTEEN_UP: Final = Context(prec=15, rounding=ROUND_CEILING)


class Rates(Protocol):
    """Dollars per million tokens, as the job file gives them."""

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
class Price:
    """Dollars per million tokens of `model`, the factor applied. `matched` is the entry that the rates come from."""

    model: str
    input: Decimal | None
    cached_input: Decimal | None
    cache_write: Decimal | None
    output: Decimal | None
    source: str
    matched: str


class Prices:
    """The price of each model that rows ask for, looked up once."""

    def __init__(self, pricing: Pricing) -> None:
        self._pricing = pricing
        self._known: dict[str, Price | None] = {}

    def of(self, model: str) -> Price | None:
        if model not in self._known:
            self._known[model] = price_of(model, self._pricing)
        return self._known[model]

    def source(self, model: str) -> str | None:
        price = self.of(model)
        return price.source if price else None

    def to_json(self) -> dict[str, Any]:
        """Dollars per million tokens of every model asked for so far; None: no price is known."""
        return {model: price and _plain_price(price) for model, price in self._known.items()}


def _plain_price(price: Price) -> dict[str, Any]:
    rates = {name: getattr(price, name) for name in ("input", "cached_input", "cache_write", "output")}
    plain = {name: None if rate is None else str(rate) for name, rate in rates.items()}
    return plain | {"source": price.source, "matched": price.matched}


def price_of(model: str, pricing: Pricing) -> Price | None:
    """The price of a model: the job's, with `vendor/` stripped where need be, else the public one; None: unknown."""
    for name in _names(model):
        rates = pricing.models.get(name)
        if rates is not None:
            price = Price(model, rates.input, rates.cached_input, rates.cache_write, rates.output, JOB, name)
            return _times(price, pricing.factor)
    found = _list_price(model)
    return None if found is None else _times(found, pricing.factor)


def cost(usage: Usage, price: Price | None) -> Decimal | None:
    """Dollars of one exchange; None when the price or the tokens are not known.

    Cached and written tokens lie inside prompt_tokens and are counted once, at their own rate, or at the input rate
    when they have none. More of them than prompt_tokens is a server's nonsense: the prompt is all that is charged.
    """
    if price is None or price.input is None or price.output is None:
        return None
    if usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    plain = usage.prompt_tokens
    dollars = usage.completion_tokens * price.output
    if usage.cached_tokens:
        cached = min(usage.cached_tokens, plain)
        plain -= cached
        dollars += cached * (price.input if price.cached_input is None else price.cached_input)
    if usage.cache_write_tokens:
        written = min(usage.cache_write_tokens, plain)
        plain -= written
        dollars += written * (price.input if price.cache_write is None else price.cache_write)
    return _rounded((dollars + plain * price.input).scaleb(_MILLIONTH), _FIFTEEN)


def upper_bound(
    prompt_tokens: int | None, max_output_tokens: int | None, choices: int, price: Price | None
) -> Decimal | None:
    """Dollars that one exchange can cost at most; None when the price, the prompt or the cap of the output is unknown.

    prompt_tokens: at most. A token covers at least one byte, so of text it is the bytes. They are taken at the dearest
    of the input rates.
    """
    if price is None or price.input is None or price.output is None:
        return None
    if prompt_tokens is None or max_output_tokens is None:
        return None
    dearest = max(rate for rate in (price.input, price.cached_input, price.cache_write) if rate is not None)
    dollars = prompt_tokens * dearest + max_output_tokens * choices * price.output
    return _rounded(dollars.scaleb(_MILLIONTH), _FIFTEEN_UP)


def words(price: Price) -> str:
    """The price for people: `$0.40 in, $0.10 cached, $1.60 out per million tokens (public list price of …)`."""
    named = (("in", price.input), ("cached", price.cached_input), ("cache write", price.cache_write))
    rates = [f"{_dollars(rate)} {name}" for name, rate in (*named, ("out", price.output)) if rate is not None]
    where = "the job's price" if price.source == JOB else f"public list price of {price.matched}"
    return f"{', '.join(rates) or 'no rates'} per million tokens ({where})"


def _names(model: str) -> Iterator[str]:
    """`openrouter/anthropic/claude-x`, `anthropic/claude-x`, `claude-x`."""
    yield model
    while "/" in model:
        model = model.split("/", 1)[1]
        yield model


def _times(price: Price, factor: Decimal) -> Price:
    if factor == 1:
        return price
    return replace(
        price,
        input=_scaled(price.input, factor),
        cached_input=_scaled(price.cached_input, factor),
        cache_write=_scaled(price.cache_write, factor),
        output=_scaled(price.output, factor),
    )


def _scaled(rate: Decimal | None, factor: Decimal) -> Decimal | None:
    return None if rate is None else rate * factor


@lru_cache(maxsize=1024)
def _list_price(model: str) -> Price | None:
    for name in _names(model):
        found = _looked_up(name)
        if found is not None:
            rates = found.model_price
            return Price(
                model,
                _base(getattr(rates, "input_mtok", None)),
                _base(getattr(rates, "cache_read_mtok", None)),
                _base(getattr(rates, "cache_write_mtok", None)),
                _base(getattr(rates, "output_mtok", None)),
                LIST,
                f"{found.provider.id}/{found.model.id}",
            )
    return None


def _looked_up(name: str) -> Any:
    import genai_prices  # 250 ms, so only when a price is asked for

    try:
        return genai_prices.calc_price(genai_prices.Usage(input_tokens=0, output_tokens=0), name)
    except LookupError:
        return None


def _base(rate: Any) -> Decimal | None:
    # Some models charge more once a prompt is longer than 128,000 or 200,000 tokens. The base tier is taken: bulk rows
    # are far shorter, and a job with longer ones names its own price.
    base = getattr(rate, "base", rate)
    return None if base is None else Decimal(base)


def _rounded(dollars: Decimal, context: Context) -> Decimal:
    if dollars < _DUST_BELOW:
        return dollars.quantize(_DUST, rounding=context.rounding)
    return context.plus(dollars)


def _dollars(rate: Decimal) -> str:
    """At least two decimals, no trailing zeros beyond: $0.40, $0.075, $12.00."""
    whole, _, cents = f"{rate.normalize():f}".partition(".")
    return f"${whole}.{cents.ljust(2, '0')}"

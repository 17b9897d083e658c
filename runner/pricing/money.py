"""Tokens times rates, exactly.

Rule: money is Decimal dollars in multiples of 1e-12. Below 1,000 dollars, which no exchange reaches, that is at most 15
significant digits, and 15 survive a float64: `Decimal(repr(float(cost)))` is the cost again, so a float64 column holds
the exact bill. Above, 15 significant digits are kept, for the same reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Context, Decimal
from typing import Final

from runner.pricing.price import Price, at_tier
from runner.records import Usage

_MILLIONTH: Final = -6
_DUST: Final = Decimal("1e-12")
_DUST_BELOW: Final = Decimal(1000)
_NOTHING: Final = Decimal(0)
_FIFTEEN: Final = Context(prec=15, rounding=ROUND_HALF_EVEN)
_FIFTEEN_UP: Final = Context(prec=15, rounding=ROUND_CEILING)


def cost(usage: Usage, price: Price | None, tier: str | None = None) -> Decimal | None:
    """Dollars of one exchange in the service tier that it used; None when the price or the tokens are not known.

    Cached, written and audio tokens lie inside prompt_tokens, reasoning and audio ones inside completion_tokens: they
    are counted once, at their own rate where there is one. More of them than there is room for is a server's nonsense:
    the whole is all that is charged.
    """
    if price is None:
        return None
    price = _in_force(at_tier(price, tier), usage.prompt_tokens)
    if price.input is None or price.output is None:
        return rounded(price.per_request or _NOTHING) if price.by_request_alone else None
    if usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    dollars, plain = _NOTHING, usage.prompt_tokens
    for count, rate in (
        (usage.cached_tokens, price.cached_input),
        (usage.cache_write_tokens, price.cache_write),
        (usage.audio_tokens, price.input_audio),
    ):
        if count:
            inside = min(count, plain)
            plain -= inside
            dollars += inside * (price.input if rate is None else rate)
    dollars += plain * price.input + _output(usage, usage.completion_tokens, price)
    return rounded(dollars.scaleb(_MILLIONTH) + (price.per_request or _NOTHING))


def _output(usage: Usage, completion_tokens: int, price: Price) -> Decimal:
    assert price.output is not None
    dollars, plain = _NOTHING, completion_tokens
    for count, rate in ((usage.reasoning_tokens, price.reasoning), (usage.output_audio_tokens, price.output_audio)):
        if count and rate is not None:
            inside = min(count, plain)
            plain -= inside
            dollars += inside * rate
    return dollars + plain * price.output


def _in_force(price: Price, prompt_tokens: int | None) -> Price:
    """Beyond some lengths of the prompt the whole request costs other rates."""
    if price.steps and prompt_tokens is not None:
        for above, dearer in price.steps:
            price = dearer if prompt_tokens > above else price
    return price


def upper_bound(
    prompt_tokens: int | None, max_output_tokens: int | None, choices: int, price: Price | None, tier: str | None = None
) -> Decimal | None:
    """Dollars that one exchange can cost at most; None when the price, the prompt or the cap of the output is unknown.

    prompt_tokens: at most. A token covers at least one byte, so of text it is the bytes. Every token is taken at the
    dearest rate that may apply to it: of cached ones and others, of every length of prompt up to this one, of the tier
    that is asked for and of the standard one, which the server may use instead.
    """
    if price is None:
        return None
    asked = at_tier(price, tier)
    if asked is price and not price.steps:  # most rows, at no further cost
        return _most(prompt_tokens, max_output_tokens, choices, price)
    possible = [price] if asked is price else [price, asked]
    possible += [step for each in possible for step in _up_to(each, prompt_tokens)]
    bounds = [_most(prompt_tokens, max_output_tokens, choices, each) for each in possible]
    known = [bound for bound in bounds if bound is not None]
    return max(known) if len(known) == len(bounds) else None


def _up_to(price: Price, prompt_tokens: int | None) -> list[Price]:
    """The rates of long prompts that a prompt of at most so many tokens may reach."""
    return [dearer for above, dearer in price.steps if prompt_tokens is None or prompt_tokens > above]


def _most(prompt_tokens: int | None, max_output_tokens: int | None, choices: int, price: Price) -> Decimal | None:
    if price.by_request_alone:
        return rounded(price.per_request or _NOTHING, _FIFTEEN_UP)
    if price.input is None or price.output is None or prompt_tokens is None or max_output_tokens is None:
        return None
    into = _dearest((price.input, price.cached_input, price.cache_write, price.input_audio))
    out = _dearest((price.output, price.reasoning, price.output_audio))
    dollars = (prompt_tokens * into + max_output_tokens * choices * out).scaleb(_MILLIONTH)
    return rounded(dollars + (price.per_request or _NOTHING), _FIFTEEN_UP)


def _dearest(rates: Iterable[Decimal | None]) -> Decimal:
    return max(rate for rate in rates if rate is not None)


def rounded(dollars: Decimal, context: Context = _FIFTEEN) -> Decimal:
    """To the digits that a float64 holds."""
    if dollars < _DUST_BELOW:
        return dollars.quantize(_DUST, rounding=context.rounding)
    return context.plus(dollars)

"""Money in flight: what may still be spent.

Rule: spent plus reserved never exceeds the budget. A request's worst case is reserved before it leaves; when it has
ended its cost takes that place, and where the cost is not known the reservation stays spent.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from runner.pricing import Price, at_tier
from runner.reask import CAPS
from runner.wire.encode import output_cap


@dataclass(slots=True)
class Budget:
    """Dollars. spent: over the whole life of the run, unknown exchanges at their worst case."""

    max_usd: Decimal
    spent_usd: Decimal = Decimal(0)
    reserved_usd: Decimal = Decimal(0)

    @property
    def left_usd(self) -> Decimal:
        return self.max_usd - self.spent_usd - self.reserved_usd

    def fits(self, worst_usd: Decimal | None) -> bool:
        """Whether a request that may cost so much may leave; one of unknown worst case never."""
        return worst_usd is not None and worst_usd <= self.left_usd

    def reserve(self, worst_usd: Decimal | None) -> None:
        self.reserved_usd += worst_usd or 0

    def settle(self, worst_usd: Decimal | None, cost_usd: Decimal | None) -> None:
        """The request has ended. cost_usd: None: unknown."""
        self.reserved_usd -= worst_usd or 0
        self.spent_usd += (worst_usd or Decimal(0)) if cost_usd is None else cost_usd


def lacking(constants: Mapping[str, Any], given: Collection[str], price: Price | None) -> Iterator[str]:
    """What a job with a budget lacks so that the worst case of its requests can be known.

    constants: the parameters that are the same for every row; given: all that there are; price: of a constant model.
    """
    model = constants.get("model")
    if model is not None and (price is None or not at_tier(price, constants.get("service_tier")).is_known):
        yield f"no price is known for {model}; give pricing.{model} with input and output"
    by_row = [name for name in CAPS if name in given and name not in constants]
    if not by_row and output_cap(constants) is None:
        yield "the output is not capped; give request.max_completion_tokens (or max_tokens)"

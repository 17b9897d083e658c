"""Money in flight: what may still be spent.

Rule: spent plus reserved never exceeds the budget, whenever the process dies. A request's worst case is reserved before
it leaves; when its end is on disk its cost takes that place, and where the cost is not known the reservation stays
spent. Not sooner: of an end that is not on disk a next process knows nothing, and takes the worst case for spent.

The worst case is arithmetic about what is sent. A server that bills more all the same (another tier than asked, a cap
that it ignores, a prompt of its own beside ours) has shown that the arithmetic is short by so many times: from then on
whatever is in flight and whatever leaves is reserved at that many times its worst case.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Context, Decimal

#: Rounded up, so that a server that bills a little more each time is told of a few times and not with every answer.
_TWO_DIGITS_UP = Context(prec=2, rounding=ROUND_CEILING)

End = tuple[int, int]  #: of an exchange: its row and its number there


@dataclass(slots=True)
class Budget:
    """Dollars. spent: over the whole life of the run, unknown exchanges at their worst case."""

    max_usd: Decimal
    spent_usd: Decimal = Decimal(0)
    times: Decimal = Decimal(1)  #: how many times its worst case an exchange has cost, at the most
    free_was_billed: bool = False  #: a request that costs nothing by its price did, so that no number of times helps
    _reserved_usd: Decimal = Decimal(0)  #: by arithmetic
    _ended: dict[End, tuple[Decimal | None, Decimal | None]] = field(default_factory=dict)  #: worst case and cost

    @property
    def reserved_usd(self) -> Decimal:
        return self._reserved_usd * self.times

    @property
    def waits_for_disk(self) -> bool:
        """Whether exchanges that are over are still reserved for."""
        return bool(self._ended)

    @property
    def left_usd(self) -> Decimal:
        return self.max_usd - self.spent_usd - self.reserved_usd

    def at_most(self, worst_usd: Decimal | None) -> Decimal | None:
        """What a request may cost by all that is known; None: nobody knows. worst_usd: by arithmetic."""
        if worst_usd is None or (self.free_was_billed and not worst_usd):
            return None
        return worst_usd * self.times

    def fits(self, worst_usd: Decimal | None) -> bool:
        """Whether a request with this worst case may leave; one of unknown worst case never."""
        most_usd = self.at_most(worst_usd)
        return most_usd is not None and most_usd <= self.left_usd

    def reserve(self, worst_usd: Decimal | None) -> None:
        self._reserved_usd += worst_usd or 0

    def ended(self, end: End, worst_usd: Decimal | None, cost_usd: Decimal | None) -> bool:
        """The exchange is over. cost_usd: None: unknown. True: it cost more than was thought possible, and whatever is
        in flight or leaves after it is reckoned dearer."""
        self._ended[end] = worst_usd, cost_usd
        return cost_usd is not None and self._learns(worst_usd or Decimal(0), cost_usd)

    def written(self, ends: Iterable[End]) -> None:
        """These are on disk."""
        for end in ends:
            if end in self._ended:
                self.settle(*self._ended.pop(end))

    def settle(self, worst_usd: Decimal | None, cost_usd: Decimal | None) -> None:
        """What was reserved has been spent: cost_usd of it, or all where that is not known (None)."""
        self._reserved_usd -= worst_usd or 0
        self.spent_usd += (self.at_most(worst_usd) or Decimal(0)) if cost_usd is None else cost_usd

    def recall(self, times: Decimal | None) -> None:
        """An earlier process has learned this. None: that a request was billed which costs nothing by its price."""
        self.free_was_billed |= times is None
        self.times = max(self.times, times or self.times)

    def _learns(self, worst_usd: Decimal, cost_usd: Decimal) -> bool:
        if cost_usd <= worst_usd * self.times:
            return False
        if not worst_usd:
            known, self.free_was_billed = self.free_was_billed, True
            return not known
        self.times = _TWO_DIGITS_UP.divide(cost_usd, worst_usd)
        return True

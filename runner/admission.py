"""Who may send next: the waiting room in front of the slots.

Rule: a row waits here without a slot and without rate, in order within its lane, and is let in only when a slot is
free, the lane's gate is open, its buckets have enough and the budget has room for its worst case, all looked at in the
same instant (`Lane.ready_in`, `Budget.fits`). The arithmetic is pace.py's and budget.py's; this file only waits and
wakes. A row for which the budget has no room waits while anything is in flight, or on its way to the disk, whose cost
may be less than its worst case; when nothing is, rows that are cheaper go before it, and when there are none the budget
is used up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal

import anyio
from anyio.abc import TaskGroup

from runner.budget import Budget, End
from runner.pace import Lane, Slots

#: Before the budget is called used up, rows that are just being taken up may turn out to be cheaper.
LAST_LOOK_S = 0.1


class _Ticket:
    """One waiting row."""

    __slots__ = ("admitted", "called", "tokens", "worst_usd")

    def __init__(self, tokens: int, worst_usd: Decimal | None) -> None:
        self.tokens = tokens
        self.worst_usd = worst_usd
        self.called = anyio.Event()
        self.admitted = False


class Admission:
    """Slots over all lanes, a queue for each."""

    def __init__(
        self, slots: Slots, clock: Callable[[], float], tasks: TaskGroup, budget: Budget | None = None
    ) -> None:
        self.slots = slots
        self.budget = budget
        self.others_come: Callable[[], bool] = lambda: False  #: rows that will ask to be let in by themselves
        self.on_change: Callable[[], object] = lambda: None  #: who waits, or what is free, may have changed
        self.on_used_up: Callable[[Decimal | None], None] = lambda worst_usd: None  #: the least that a row may cost
        self._used_up_at: float | None = None
        self._clock = clock
        self._queues: dict[int, tuple[Lane, deque[_Ticket]]] = {}
        self._alarm_at = float("inf")
        self._sooner = anyio.Event()
        self.closed = False
        self.waiting = 0  #: rows
        tasks.start_soon(self._alarm)

    @property
    def short_words(self) -> str | None:
        """That rows wait for the budget, if they do."""
        heads = [queue[0] for _, queue in self._queues.values() if queue]
        if self.budget and any(not self.budget.fits(ticket.worst_usd) for ticket in heads):
            return f"waiting for what is in flight: the budget has ${self.budget.left_usd:f} left"
        return None

    def try_enter(self, lane: Lane, tokens: int, worst_usd: Decimal | None = None) -> bool:
        """Go straight through when nobody waits and nothing holds the row back: the usual case, without an event."""
        waits = self._queues.get(id(lane))
        if self.closed or not self.slots.free or (waits and waits[1]):
            return False
        if self.budget and not self.budget.fits(worst_usd):
            return False
        now = self._clock()
        if lane.ready_in(now, tokens) != 0:
            return False
        self._take(lane, now, tokens, worst_usd)
        return True

    async def enter(self, lane: Lane, tokens: int, worst_usd: Decimal | None = None) -> bool:
        """Wait for a slot of the lane. False: the room was closed, nothing may be sent any more."""
        if self.closed:
            return False
        _, queue = self._queues.setdefault(id(lane), (lane, deque()))
        ticket = _Ticket(tokens, worst_usd)
        queue.append(ticket)
        self.waiting += 1
        self.pump()
        await ticket.called.wait()
        return ticket.admitted

    def unsent(self, worst_usd: Decimal | None) -> None:
        """Nothing left: what was reserved is free."""
        if self.budget:
            self.budget.settle(worst_usd, Decimal(0))

    def written(self, ends: Iterable[End]) -> None:
        """The ends of these exchanges are on disk: their rooms in the budget are what they cost."""
        if self.budget:
            self.budget.written(ends)
            self.pump()

    def leave(self, lane: Lane, *, undurable: bool) -> None:
        """The exchange is over. undurable: it settled its row or was paid for, which counts until it is `saved`."""
        lane.in_flight -= 1
        self.slots.in_flight -= 1
        self.slots.undurable += undurable
        self.pump()

    def saved(self, count: int) -> None:
        """So many of what was undurable are on disk."""
        self.slots.undurable -= count
        self.pump()

    def close(self) -> None:
        """Send everybody home."""
        self.closed = True
        self.waiting = 0
        for _, queue in self._queues.values():
            while queue:
                queue.popleft().called.set()

    def pump(self) -> None:
        """Let in whoever may go; wake up again when the next one may."""
        now = self._clock()
        for lane, queue in self._queues.values():
            self._pump_lane(lane, queue, now)
        if self.budget:
            self._look_at_budget(self.budget, now)
        self.on_change()

    def _pump_lane(self, lane: Lane, queue: deque[_Ticket], now: float) -> None:
        while queue and self.slots.free:
            ticket = self._next(queue)
            wait_s = lane.ready_in(now, ticket.tokens) if ticket else None
            if ticket is None or wait_s is None:
                break
            if wait_s > 0:
                self._wake_at(now + wait_s)
                break
            queue.remove(ticket)
            self.waiting -= 1
            self._take(lane, now, ticket.tokens, ticket.worst_usd)
            ticket.admitted = True
            ticket.called.set()

    def _next(self, queue: deque[_Ticket]) -> _Ticket | None:
        """The first in line; where the budget has no room for it and nothing is in flight, the first with room."""
        if self.budget is None or self.budget.fits(queue[0].worst_usd):
            return queue[0]
        if self._some_may_cost_less(self.budget):
            return None
        return next((ticket for ticket in queue if self.budget.fits(ticket.worst_usd)), None)

    def _some_may_cost_less(self, budget: Budget) -> bool:
        """Than what is reserved for them."""
        return self.slots.in_flight > 0 or budget.waits_for_disk

    def _look_at_budget(self, budget: Budget, now: float) -> None:
        """Tell when nothing is in flight and there is room for nobody who waits, and still is none a moment later."""
        if self._some_may_cost_less(budget) or not self._all_too_dear(budget):
            self._used_up_at = None
            return
        if self._used_up_at is None or self.others_come():
            self._used_up_at = now + LAST_LOOK_S
        if now < self._used_up_at:  # timers may ring a little early
            self._wake_at(self._used_up_at)
            return
        known = [worst_usd for worst_usd in self._worst_cases() if worst_usd is not None]
        self.on_used_up(min(known, default=None))

    def _all_too_dear(self, budget: Budget) -> bool:
        """Whether rows wait and none of them has room."""
        return self.waiting > 0 and not any(budget.fits(worst_usd) for worst_usd in self._worst_cases())

    def _worst_cases(self) -> Iterator[Decimal | None]:
        return (ticket.worst_usd for _, queue in self._queues.values() for ticket in queue)

    def _take(self, lane: Lane, now: float, tokens: int, worst_usd: Decimal | None) -> None:
        lane.take(now, tokens)
        self.slots.in_flight += 1
        if self.budget:
            self.budget.reserve(worst_usd)

    def _wake_at(self, moment: float) -> None:
        if moment < self._alarm_at:
            self._alarm_at = moment
            self._sooner.set()

    async def _alarm(self) -> None:
        """The one timer: rings at the earliest moment at which a waiting row may go."""
        while True:
            self._sooner = anyio.Event()
            # A hair late rather than early: an early look would find the gate still closed and only come back.
            with anyio.move_on_after(max(0.0, self._alarm_at - self._clock()) + 1e-3):
                await self._sooner.wait()
                continue
            self._alarm_at = float("inf")
            self.pump()

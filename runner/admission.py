"""Who may send next: the waiting room in front of the slots.

Rule: a row waits here without a slot and without rate, in order within its lane, and is let in only when a slot is
free, the lane's gate is open and its buckets have enough, all looked at in the same instant (`Lane.ready_in`). The
arithmetic is pace.py's; this file only waits and wakes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import anyio
from anyio.abc import TaskGroup

from runner.pace import Lane, Slots


class _Ticket:
    """One waiting row."""

    __slots__ = ("admitted", "called", "tokens")

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.called = anyio.Event()
        self.admitted = False


class Admission:
    """Slots over all lanes, a queue for each."""

    def __init__(self, slots: Slots, clock: Callable[[], float], tasks: TaskGroup) -> None:
        self.slots = slots
        self._clock = clock
        self._queues: dict[int, tuple[Lane, deque[_Ticket]]] = {}
        self._alarm_at = float("inf")
        self._sooner = anyio.Event()
        self.closed = False
        tasks.start_soon(self._alarm)

    @property
    def waiting(self) -> int:
        return sum(len(queue) for _, queue in self._queues.values())

    def try_enter(self, lane: Lane, tokens: int) -> bool:
        """Go straight through when nobody waits and nothing holds the row back: the usual case, without an event."""
        waits = self._queues.get(id(lane))
        if self.closed or not self.slots.free or (waits and waits[1]):
            return False
        now = self._clock()
        if lane.ready_in(now, tokens) != 0:
            return False
        self._take(lane, now, tokens)
        return True

    async def enter(self, lane: Lane, tokens: int) -> bool:
        """Wait for a slot of the lane. False: the room was closed, nothing may be sent any more."""
        if self.closed:
            return False
        _, queue = self._queues.setdefault(id(lane), (lane, deque()))
        ticket = _Ticket(tokens)
        queue.append(ticket)
        self.pump()
        await ticket.called.wait()
        return ticket.admitted

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
        for _, queue in self._queues.values():
            while queue:
                queue.popleft().called.set()

    def pump(self) -> None:
        """Let in whoever may go; wake up again when the next one may."""
        now = self._clock()
        for lane, queue in self._queues.values():
            self._pump_lane(lane, queue, now)

    def _pump_lane(self, lane: Lane, queue: deque[_Ticket], now: float) -> None:
        while queue and self.slots.free:
            wait_s = lane.ready_in(now, queue[0].tokens)
            if wait_s is None:
                break
            if wait_s > 0:
                self._wake_at(now + wait_s)
                break
            ticket = queue.popleft()
            self._take(lane, now, ticket.tokens)
            ticket.admitted = True
            ticket.called.set()

    def _take(self, lane: Lane, now: float, tokens: int) -> None:
        lane.take(now, tokens)
        self.slots.in_flight += 1

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

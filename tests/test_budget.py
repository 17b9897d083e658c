"""Money in flight: the arithmetic, and the engine under a budget on a virtual clock."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual_clock import run_virtual

from runner.budget import Budget
from runner.engine import LocalEngine
from runner.errors import StoppedError
from runner.halts import Terms
from runner.ports import Event, Settings, Wiring
from runner.pricing import Charge
from runner.records import Billed, Choice, Completion, Failure, Kind, Outcome, Reply, Request, Settled, Status, Usage
from runner.stop import Stop


def usd(text: str) -> Decimal:
    return Decimal(text)


def test_what_is_reserved_has_no_room_for_others_until_its_end_is_on_disk() -> None:
    budget = Budget(usd("1"), spent_usd=usd("0.4"))
    assert budget.fits(usd("0.6"))
    assert not budget.fits(usd("0.61"))
    budget.reserve(usd("0.5"))
    assert not budget.fits(usd("0.2"))
    assert not budget.ended((7, 1), usd("0.5"), usd("0.1"))
    assert (budget.fits(usd("0.2")), budget.waits_for_disk) == (False, True)
    budget.written([(7, 2), (8, 1)])
    assert not budget.fits(usd("0.2"))
    budget.written([(8, 1), (7, 1)])
    assert (budget.spent_usd, budget.reserved_usd, budget.left_usd) == (usd("0.5"), 0, usd("0.5"))
    budget.written([(7, 1)])  # a row's record has its last exchange once more
    assert (budget.left_usd, budget.waits_for_disk) == (usd("0.5"), False)


def test_a_cost_that_is_not_known_keeps_its_worst_case_spent() -> None:
    budget = Budget(usd("1"))
    budget.reserve(usd("0.3"))
    assert not budget.ended((0, 1), usd("0.3"), None)
    budget.written([(0, 1)])
    assert budget.left_usd == usd("0.7")


def test_a_request_without_a_worst_case_never_fits() -> None:
    assert not Budget(usd("1000")).fits(None)


def test_a_server_that_bills_more_than_was_possible_makes_everything_dearer() -> None:
    budget = Budget(usd("1"))
    budget.reserve(usd("0.1"))
    budget.reserve(usd("0.2"))
    assert budget.ended((0, 1), usd("0.1"), usd("0.1342"))
    assert (budget.times, budget.reserved_usd) == (usd("1.4"), usd("0.42"))  # rounded up; what is in flight too
    budget.written([(0, 1)])
    assert (budget.spent_usd, budget.reserved_usd) == (usd("0.1342"), usd("0.28"))
    assert (budget.fits(usd("0.4")), budget.fits(usd("0.5"))) == (True, False)
    assert not budget.ended((1, 1), usd("0.2"), usd("0.27"))  # no more than was reserved by now
    budget.reserve(usd("0.2"))
    assert not budget.ended((2, 1), usd("0.2"), None)
    budget.written([(1, 1), (2, 1)])
    assert budget.spent_usd == usd("0.1342") + usd("0.27") + usd("0.28")


def test_what_is_free_by_its_price_and_was_billed_is_not_sent_any_more() -> None:
    budget = Budget(usd("1"))
    assert budget.fits(usd("0"))
    assert budget.ended((0, 1), usd("0"), usd("0.01"))
    assert not budget.ended((1, 1), usd("0"), usd("0.01"))  # and told once
    assert (budget.fits(usd("0")), budget.fits(usd("0.1")), budget.times) == (False, True, 1)


@pytest.mark.parametrize(
    ("times", "fits"), [(["1.5", "3", "2"], [True, False]), ([None], [True, True]), ([], [True, True])]
)
def test_what_earlier_processes_have_learned_holds(times: list[str | None], fits: list[bool]) -> None:
    budget = Budget(usd("1"))
    for each in times:
        budget.recall(each and usd(each))
    assert [budget.fits(usd(worst)) for worst in ("0.3", "0.4")] == fits
    assert budget.fits(usd("0")) == (None not in times)


class Till:
    """An endpoint that bills each request something up to its worst case, or fails, or nobody knows."""

    def __init__(self, budget: Budget, rows: list[Request], seed: int, **more: Any) -> None:
        self.luck = random.Random(seed)
        self.budget = budget
        self.rows = rows
        self.billed = Decimal(0)
        self.most_at_once = Decimal(0)
        self.times: Decimal | None = None  #: each exchange is billed this many times its worst case
        self.dearer: list[tuple[Request, Decimal]] = []
        self.settled: list[Settled] = []
        self.taken: set[int] = set()
        wiring = Wiring(
            send=self._send,
            judge=lambda reply, request: self._judge(request),
            charge=lambda model, usage, tier: Charge(Decimal(usage.total_tokens or 0) / 1000, "job"),
            sent=lambda request, n, at: None,
            rekey=lambda: False,
            luck=self.luck.random,
        )
        terms = Terms(max_wait_s=1e6, outage_s=1e6)
        self.engine = LocalEngine(wiring, Settings(terms=terms, budget=budget, max_backoff_s=1.0, **more))
        self.engine.on_dearer = lambda request, cost_usd: self.dearer.append((request, cost_usd))
        begin = self.engine._begin

        def begun(request: Request) -> Any:
            self.taken.add(request.index)
            return begin(request)

        self.engine._begin = begun  # type: ignore[method-assign]

    async def _send(self, body: bytes) -> Reply | Failure:
        self.most_at_once = max(self.most_at_once, self.budget.spent_usd + self.budget.reserved_usd)
        await anyio.sleep(self.luck.random())
        worst = Decimal(body.decode())
        if self.times is None and self.luck.random() < 0.2:  # it may have been billed, and at most the worst case
            self.billed += worst * self.luck.choice([0, 1])
            return Failure(Kind.TIMEOUT, "late", billed=Billed.MAYBE)
        if self.luck.random() < 0.1:
            return Failure(Kind.RATE, "slow", 429, wait_s=0.5)
        return Reply(200, {}, body, 1.0)

    def _judge(self, request: Request) -> Outcome:
        assert request.reserved_usd is not None
        cost = (request.reserved_usd * self.luck.randint(0, 1000)).quantize(Decimal(1)) / 1000
        cost = request.reserved_usd * self.times if self.times else cost
        self.billed += cost
        return Completion(Status.OK, (Choice(0, "x", "stop"),), Usage(total_tokens=int(cost * 1000)))

    def run(self) -> Stop:
        return run_virtual(self._main)

    async def _main(self) -> Stop:
        stop = Stop()
        give, requests = anyio.create_memory_object_stream[Request](max(1, len(self.rows)))
        events, take = anyio.create_memory_object_stream[Event](4096)
        for row in self.rows:
            give.send_nowait(row)
        give.close()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._collect, take)
            await self.engine.run(requests, events, stop)
        return stop

    @property
    def refused_usd(self) -> Decimal | None:
        """Of the rows that were taken up and are not final, what the cheapest may cost."""
        final = {each.request.index for each in self.settled}
        taken = [request for request in self.rows if request.index in self.taken - final]
        return min((request.reserved_usd for request in taken if request.reserved_usd is not None), default=None)

    async def _collect(self, take: Any) -> None:
        async with take:
            async for event in take:
                self.settled += [event] if isinstance(event, Settled) else []
                await anyio.sleep(0.01)
                self.engine.saved(1)
                attempt = event.attempts[-1] if isinstance(event, Settled) else event.attempt
                row = event.request.index
                self.engine.written([(row, attempt.n)])


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), st.integers(11, 49), st.integers(1, 12), st.integers(0, 90), st.integers(0, 2**32))
def test_a_server_that_bills_a_multiple_is_kept_within_the_budget_too(
    rows: int, tenths: int, concurrency: int, more: int, seed: int
) -> None:
    """As long as the first replies, whose requests left before anybody could know, do not use it up."""
    times = Decimal(tenths) / 10
    budget = Budget(times * concurrency * 10 + more)
    till = Till(budget, [row(n, "10") for n in range(rows)], seed, concurrency=concurrency)
    till.times = times
    stop = till.run()
    assert till.billed <= budget.max_usd
    assert budget.reserved_usd == 0
    assert (len(till.settled) == rows) != stop.is_set
    if stop.is_set:
        assert budget.left_usd < 10 * budget.times
    assert [request.index for request, _ in till.dearer[:1]] == [each.request.index for each in till.settled[:1]]


def row(index: int, worst: str) -> Request:
    return Request(index, worst.encode(), "", "m", 10, reserved_usd=Decimal(worst))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=40),
    st.integers(0, 400),
    st.integers(0, 100),
    st.integers(1, 16),
    st.integers(0, 2**32),
)
def test_spent_and_reserved_never_pass_the_budget_and_it_stops_only_when_nothing_fits(
    worst: list[int], most: int, spent: int, concurrency: int, seed: int
) -> None:
    budget = Budget(Decimal(most), Decimal(spent))
    till = Till(budget, [row(n, str(usd)) for n, usd in enumerate(worst)], seed, concurrency=concurrency)
    stop = till.run()
    assert till.most_at_once <= max(most, spent)
    assert till.billed + spent <= max(most, spent)
    assert budget.reserved_usd == 0
    if len(till.settled) < len(worst):
        assert isinstance(stop.reason, StoppedError)
        assert "budget" in stop.reason.message
        assert till.refused_usd is not None and till.refused_usd > budget.left_usd
    else:
        assert not stop.is_set


def test_a_row_for_which_there_is_no_room_waits_for_what_is_in_flight() -> None:
    """Each may cost 6 of 10 and costs nothing: one after the other they all have room."""
    budget = Budget(Decimal(10))
    till = Till(budget, [row(n, "6") for n in range(5)], 1, concurrency=5)
    till.luck.random = lambda: 0.99  # type: ignore[method-assign]
    till.luck.randint = lambda low, high: 0  # type: ignore[method-assign]
    stop = till.run()
    assert (len(till.settled), stop.is_set, budget.spent_usd) == (5, False, 0)


def test_a_cheaper_row_goes_before_one_for_which_there_is_no_room() -> None:
    budget = Budget(Decimal(5))
    till = Till(budget, [row(0, "6"), row(1, "6"), row(2, "3")], 1, concurrency=1)
    till.luck.random = lambda: 0.99  # type: ignore[method-assign]
    stop = till.run()
    assert [each.request.index for each in till.settled] == [2]
    assert isinstance(stop.reason, StoppedError)
    assert "that may cost $6: $" in stop.reason.message
    assert f"--max-usd {(budget.spent_usd + 6).normalize():f} or more" in str(stop.reason.hint)

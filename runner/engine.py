"""Requests in, final rows out, as fast as the endpoint allows.

Rule: expected failures are values; the engine only carries out what the rules return (`retry.next_step`,
`halts.Watch`, `pace.Lane`). A worker is a row: it may sleep between attempts, but it holds a slot only while its
request is on the wire. There are as many workers awake as there are slots; while a slot is free, another is taken on
for each that has to wait, up to several times the slots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from decimal import Decimal
from functools import partial

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from tenacity import AsyncRetrying, RetryCallState, retry_if_result, wait_random_exponential

from runner.admission import Admission
from runner.budget import End
from runner.errors import RunnerError
from runner.exchange import Exchange, Work
from runner.halts import used_up
from runner.lanes import Lanes, is_charged
from runner.ports import Ended, Event, Settings, Wiring, iso_now
from runner.records import Attempt, Failure, Reply, Request, Settled
from runner.retry import Again, change_after, counts, falls_short, next_step
from runner.stop import Stop

WORKERS_PER_SLOT = 4
#: When rows name their models, rows of a throttled one must not keep the others from being taken up.
WORKERS_FOR_MODELS = 4096


class LocalEngine:
    """Workers, gate and backoff in this process."""

    def __init__(self, wiring: Wiring, settings: Settings) -> None:
        self.wiring = wiring
        self.settings = settings
        self.lanes = Lanes(wiring, settings)
        self.lanes.on_room = self._hire
        self.slots = self.lanes.slots
        self.bug: Exception | None = None
        self.on_dearer: Callable[[Request, Decimal], None] = lambda request, cost_usd: None
        self._admission: Admission | None = None
        self._start_worker: Callable[[], object] = lambda: None
        many = WORKERS_FOR_MODELS if settings.terms.model_is_template else 0
        self._most_workers = max(settings.concurrency * WORKERS_PER_SLOT, many)
        self._crew = 0  #: workers
        self._backing_off = 0  #: of these, the ones whose row sleeps before its next attempt
        self._no_more = False  #: rows to take up

    async def run(
        self, requests: MemoryObjectReceiveStream[Request], events: MemoryObjectSendStream[Event], stop: Stop
    ) -> None:
        with events, requests, anyio.CancelScope() as everything:
            async with anyio.create_task_group() as watchers:
                self._admission = Admission(self.slots, self.wiring.clock, watchers, self.settings.budget)
                self._admission.on_used_up = partial(self._budget_used_up, stop)
                self._admission.others_come = lambda: self._backing_off > 0
                self._admission.on_change = self._hire
                watchers.start_soon(self._leave_on, stop, everything)
                async with anyio.create_task_group() as workers:
                    self._start_worker = partial(workers.start_soon, self._worker, requests, events, stop)
                    self._hire()
                self._no_more = True
                watchers.cancel_scope.cancel()
        if self.bug:
            raise self.bug

    def saved(self, count: int) -> None:
        """So many settled rows are durable: their room is free."""
        if self._admission:
            self._admission.saved(count)

    def written(self, ends: Iterable[End]) -> None:
        """The ends of these exchanges are durable."""
        if self._admission:
            self._admission.written(ends)

    @property
    def waiting_for(self) -> str | None:
        """In words, what holds the rows back now; None when nothing does."""
        short = self._admission and self._admission.short_words
        return self.lanes.waiting_for(short or None)

    async def _leave_on(self, stop: Stop, everything: anyio.CancelScope) -> None:
        """What is in flight may finish, for drain_s at most; a second signal does not wait."""
        await stop.wait()
        assert self._admission
        self._admission.close()
        with anyio.move_on_after(self.settings.drain_s):
            await stop.wait_abandoned()
        everything.cancel()

    def _budget_used_up(self, stop: Stop, worst_usd: Decimal | None) -> None:
        assert self._admission and self.settings.budget
        stop.set(used_up(self.settings.budget, worst_usd))
        self._admission.close()

    @property
    def _awake(self) -> int:
        """Workers whose row does not wait: for its backoff, the gate, the rate, or a slot."""
        assert self._admission
        return self._crew - self._backing_off - self._admission.waiting

    def _hire(self) -> None:
        """Keep as many workers awake as there are slots, unless all slots are taken: more would only wait for one."""
        assert self._admission
        if self._no_more or self._admission.closed:
            return
        while self.slots.free and self._awake < self.slots.most and self._crew < self._most_workers:
            self._crew += 1
            self._start_worker()

    async def _worker(
        self, requests: MemoryObjectReceiveStream[Request], events: MemoryObjectSendStream[Event], stop: Stop
    ) -> None:
        """Row after row. A bug in one row must not cancel the others: what they have on the wire is paid for."""
        try:
            while not stop.is_set and self._awake <= self.slots.most:
                request = await _next(requests)
                if request is None:
                    self._no_more = True
                    break
                settled = await self._settle(request, events, stop)
                if settled is None:
                    break
                await _hand_over(events, settled)
        except Exception as bug:  # noqa: BLE001 - held, and raised after the drain
            self.bug = self.bug or bug
            stop.set()
        finally:
            self._crew -= 1

    async def _settle(self, request: Request, events: MemoryObjectSendStream[Event], stop: Stop) -> Settled | None:
        """One row until it is final; None when the job stops first."""
        work = self._begin(request)
        if work.answers and not self._take_up(work):
            return self._as_it_is(work)
        turn = await self._turn(work, events, stop)
        if isinstance(turn, Again):
            turn = await self._back_off(turn, work, events, stop)
        return turn if isinstance(turn, Settled) else None

    def _begin(self, request: Request) -> Work:
        lane, watch = self.lanes.of(request.model)
        return Work(request, lane, watch, self.wiring.clock())

    def _take_up(self, work: Work) -> bool:
        """Go on asking for a better answer where the last process died; False: the answer that there is stays."""
        change = change_after(work.answers, work.request.body, self.settings.policy)
        if change:
            work.ask(change, self.wiring)
        return change is not None

    def _as_it_is(self, work: Work) -> Settled:
        """The row is final with the paid answer that it has, without another exchange."""
        self.slots.undurable += 1  # like any other row that is final and not yet on disk
        return work.settled(None)

    def _unsent(self, work: Work, failure: Failure) -> Settled:
        return self._as_it_is(work) if work.answers else work.unsent(failure)

    async def _back_off(
        self, first: Again, work: Work, events: MemoryObjectSendStream[Event], stop: Stop
    ) -> Settled | Again | None:
        """The row's later attempts. tenacity decides how long each waits: exponential, full jitter, capped, and never
        less than the server asks for.

        One AsyncRetrying a row (sharing one between tasks corrupts its statistics), entered only after a failure.
        """
        pending: list[Again] = [first]
        jitter = wait_random_exponential(multiplier=1, max=self.settings.max_backoff_s)

        async def turn() -> Settled | Again | None:
            return pending.pop() if pending else await self._turn(work, events, stop)

        def wait(state: RetryCallState) -> float:
            assert state.outcome
            seconds: float = max(jitter(state), state.outcome.result().at_least_s)
            work.spent_s += seconds
            return seconds

        async def sleep(seconds: float) -> None:
            self._backing_off += 1
            self._hire()
            try:
                await stop.sleep(seconds)
            finally:
                self._backing_off -= 1

        retrying = AsyncRetrying(
            sleep=sleep, wait=wait, retry=retry_if_result(lambda result: isinstance(result, Again))
        )
        return await retrying(turn)

    async def _turn(self, work: Work, events: MemoryObjectSendStream[Event], stop: Stop) -> Settled | Again | None:
        """Exchanges until the row is final, must back off by itself (Again), or the job stops (None)."""
        while True:
            exchange = await self._exchange(work)
            if not isinstance(exchange, Exchange):
                return self._unsent(work, exchange) if exchange else None
            verdict = self._verdict(work, exchange)
            assert self._admission
            if isinstance(verdict, RunnerError):  # before the slot is free: the next in line must not leave any more
                stop.set(verdict)
                self._admission.close()
            self._admission.leave(work.lane, undurable=isinstance(verdict, Settled) or exchange.paid)
            if isinstance(verdict, Settled):
                return verdict
            await _hand_over(events, Ended(work.request, work.attempts[-1]))
            if isinstance(verdict, RunnerError):
                return None
            work.ready_at = self.wiring.clock()
            if verdict.backs_off:
                return verdict

    async def _exchange(self, work: Work) -> Exchange | Failure | None:
        """Wait for a slot, send, and judge what comes back. Failure: the row cannot be sent, and was not. None: the
        room is closed."""
        assert self._admission
        admission, lane, asking = self._admission, work.lane, work.asking
        tokens, worst_usd = asking.tokens, asking.reserved_usd
        while admission.try_enter(lane, tokens, worst_usd) or await admission.enter(lane, tokens, worst_usd):
            try:
                ended = await (self._filled(work) if self.wiring.fill else self._talk(work, asking.body))
            except BaseException:  # what was reserved stays so: nobody knows what it cost
                admission.leave(lane, undurable=False)
                raise
            if isinstance(ended, Exchange):
                self._pay(work, ended.attempt, worst_usd)
                return ended
            lane.give_back(tokens)
            admission.unsent(worst_usd)
            admission.leave(lane, undurable=False)
            if ended:
                return ended
        return None

    def _pay(self, work: Work, attempt: Attempt, worst_usd: Decimal | None) -> None:
        budget, cost_usd = self.settings.budget, attempt.cost_usd
        if budget and budget.ended((work.request.index, attempt.n), worst_usd, cost_usd) and cost_usd is not None:
            self.on_dearer(work.asking, cost_usd)

    async def _filled(self, work: Work) -> Exchange | Failure | None:
        """Send the request with its files, which are in memory until the reply is here. None: not now."""
        assert self._admission and self.wiring.fill
        async with self.wiring.fill(work.asking.body) as whole:
            if isinstance(whole, Failure):
                return whole
            # Room for the bytes may have been long in coming: look at the gate again.
            if self._admission.closed or work.lane.gate.open_in(self.wiring.clock()) > 0:
                return None
            return await self._talk(work, whole)

    async def _talk(self, work: Work, body: bytes) -> Exchange:
        sent_at, at = self.wiring.clock(), iso_now()
        work.mark = mark = work.lane.mark(sent_at)
        self.wiring.sent(self._reckoned(work.asking), work.n, at)
        reply = await self.wiring.send(body)
        if isinstance(reply, Reply):
            work.lane.read(self.wiring.clock(), mark, self.wiring.readings(reply))
        outcome = reply if isinstance(reply, Failure) else self.wiring.judge(reply, work.asking)
        reserved_usd = self._reckoned(work.asking).reserved_usd
        return work.ended(outcome, (at, sent_at, self.wiring.clock() - sent_at), self.wiring, reserved_usd)

    def _reckoned(self, request: Request) -> Request:
        """The request with what it may cost by all that the run has seen: the worst case that is written down."""
        budget = self.settings.budget
        if budget is None or budget.times == 1:
            return request
        return replace(request, reserved_usd=budget.at_most(request.reserved_usd))

    def _verdict(self, work: Work, exchange: Exchange) -> Settled | Again | RunnerError:
        outcome = exchange.outcome
        probing = work.lane.breaker.open
        halted = self.lanes.heard(work, exchange)
        if halted:
            return halted
        if isinstance(outcome, Failure):  # while the breaker is open a failure says nothing about its row
            work.counted += counts(outcome) and not (probing and is_charged(outcome))
        final = not (isinstance(outcome, Failure) or falls_short(outcome))  # most rows, at no further cost
        again = None if final else next_step(outcome, work.so_far, self.settings.policy)
        if again is None:
            return work.settled(outcome)
        if again.change:
            work.fell_short(outcome)
            work.ask(again.change, self.wiring)
        return again


async def _next(requests: MemoryObjectReceiveStream[Request]) -> Request | None:
    """The next request, without a turn of the loop when one is there (anyio's receive() takes one); None: no more."""
    try:
        return requests.receive_nowait()
    except anyio.WouldBlock:
        pass
    except anyio.EndOfStream:
        return None
    try:
        return await requests.receive()
    except anyio.EndOfStream:
        return None


async def _hand_over(events: MemoryObjectSendStream[Event], event: Event) -> None:
    """Give an event to keep. Shielded: what is in it has been paid for, and keep always takes it."""
    try:
        events.send_nowait(event)
    except anyio.WouldBlock:
        with anyio.CancelScope(shield=True):
            await events.send(event)

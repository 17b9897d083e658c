"""Providers as arithmetic, and an engine that sends to one on a virtual clock: an hour of traffic in a second.

A `Provider` answers after a latency, unless one of its limits says no: requests a second (a token bucket, or a
window), tokens a second, or a number in flight beyond which it refuses, or queues, as self-hosted servers do.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

import anyio
from virtual_clock import run_virtual

from runner.engine import LocalEngine
from runner.halts import Terms
from runner.ports import Event, Settings, Wiring
from runner.pricing import Charge
from runner.records import Choice, Completion, Failure, Kind, Outcome, Reply, Request, Settled, Status, Usage
from runner.stop import Stop
from runner.wire.allowances import readings

TOKENS = Usage(prompt_tokens=10, completion_tokens=5, total_tokens=15)
ANSWER = Completion(Status.OK, (Choice(0, "yes", "stop"),), TOKENS)


@dataclass
class Allowance:
    """A token bucket, as providers keep them."""

    per_s: float
    burst: float
    level: float = field(init=False)
    at: float = 0.0

    def __post_init__(self) -> None:
        self.level = self.burst

    def fill(self, now: float) -> None:
        self.level = min(self.burst, self.level + (now - self.at) * self.per_s)
        self.at = now

    def take(self, now: float, amount: float) -> bool:
        self.fill(now)
        taken = self.level >= amount
        self.level -= amount if taken else 0
        return taken

    def ready_in(self, amount: float) -> float:
        return max(0.0, (amount - self.level) / self.per_s)


@dataclass
class Window:
    """So many requests in any span of a length, as quick limiters count them."""

    most: int
    length_s: float
    taken: deque[float] = field(default_factory=deque)
    at: float = 0.0

    def take(self, now: float, amount: float) -> bool:
        self.at = now
        while self.taken and self.taken[0] <= now - self.length_s:
            self.taken.popleft()
        free = len(self.taken) + amount <= self.most
        self.taken.extend([now] * int(amount) if free else ())
        return free

    def ready_in(self, amount: float) -> float:
        return max(0.0, self.taken[0] + self.length_s - self.at)


@dataclass
class Provider:
    """`hints`: whether a 429 says how long to wait; `whole_hints`: in whole seconds. `refusal_s`: until one is told so.
    `headers`: what every reply carries, by its time."""

    latency_s: float = 0.1
    sigma: float = 0.0
    requests: Allowance | Window | None = None
    tokens: Allowance | None = None
    most: int | None = None
    queues: bool = False
    hints: bool = True
    whole_hints: bool = False
    refusal_s: float = 0.01
    changes: Callable[[Provider, float], None] = lambda provider, now: None
    headers: Callable[[Provider, float], Mapping[str, str]] = lambda provider, now: {}
    outcome: Callable[[Provider, float], Failure | None] = lambda provider, now: None
    sends: list[float] = field(default_factory=list)
    refusals: int = 0
    busy: int = 0
    most_in_flight: int = 0
    in_flight: int = 0
    queue: deque[anyio.Event] = field(default_factory=deque)
    luck: random.Random = field(default_factory=lambda: random.Random(7))

    async def send(self, body: bytes) -> Reply | Failure:
        now = anyio.current_time()
        self.sends.append(now)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.changes(self, now)
        try:
            return await self._answer(now)
        finally:
            self.in_flight -= 1

    async def _answer(self, now: float) -> Reply | Failure:
        broken = self.outcome(self, now)
        refused = self._refused(now)
        if broken or refused:
            await anyio.sleep(self.refusal_s)
            self.refusals += refused is not None
            return broken or refused or Failure(Kind.SERVER, "unreachable")
        await self._turn()
        latency_s = self.latency_s * (self.luck.lognormvariate(0, self.sigma) if self.sigma else 1.0)
        await anyio.sleep(latency_s)
        self.busy -= 1
        if self.queue:
            self.queue.popleft().set()
        return Reply(200, self.headers(self, anyio.current_time()), b"", latency_s)

    async def _turn(self) -> None:
        self.busy += 1
        if self.queues and self.most is not None and self.busy > self.most:
            turn = anyio.Event()
            self.queue.append(turn)
            await turn.wait()

    def _refused(self, now: float) -> Failure | None:
        for allowance, amount in ((self.requests, 1.0), (self.tokens, float(TOKENS.total_tokens or 0))):
            if allowance and not allowance.take(now, amount):
                wait_s = allowance.ready_in(amount)
                told_s = math.ceil(wait_s) if self.whole_hints else wait_s
                return Failure(Kind.RATE, "slow down", 429, wait_s=told_s if self.hints else None)
        if self.most is not None and not self.queues and self.busy >= self.most:
            return Failure(Kind.RATE, "too many at once", 429)
        return None


@dataclass
class Night:
    """What came of sending rows to a provider."""

    provider: Provider
    engine: LocalEngine
    settled: list[Settled] = field(default_factory=list)
    ended_s: float = 0.0
    seen: list[tuple[float, int, float]] = field(default_factory=list)  #: (second, rows final, limit of the first lane)

    @property
    def calls_per_row(self) -> float:
        return len(self.provider.sends) / len(self.settled)

    @property
    def failed(self) -> int:
        return sum(isinstance(row.outcome, Failure) for row in self.settled)

    def reached_at(self, rows_per_s: float) -> float | None:
        """The first second over which so many rows became final."""
        pairs = zip(self.seen, self.seen[1:], strict=False)
        return next((second for (_, a, _), (second, b, _) in pairs if b - a >= rows_per_s), None)

    @property
    def limit(self) -> float:
        """Of the first lane, before the rows ran out."""
        return self.seen[-2][2]


def night(provider: Provider, rows: int, **settings: object) -> Night:
    """Send `rows` rows on a virtual clock that starts at 0."""
    given = {"terms": Terms(max_wait_s=1e6, outage_s=1e6), **settings}
    wiring = Wiring(
        send=provider.send,
        judge=lambda reply, request: _answered(),
        charge=lambda model, usage, tier: Charge(Decimal("0.001"), "job"),
        sent=lambda request, n, at: None,
        rekey=lambda: False,
        luck=random.Random(3).random,
        readings=lambda reply: readings(reply.headers, anyio.current_time()),
    )
    made = Night(provider, LocalEngine(wiring, Settings(**given)))  # type: ignore[arg-type]
    run_virtual(_run, made, rows)
    return made


def _answered() -> Outcome:
    return ANSWER


async def _run(made: Night, rows: int) -> None:
    give, requests = anyio.create_memory_object_stream[Request](rows)
    events, take = anyio.create_memory_object_stream[Event](4096)
    for row in range(rows):
        give.send_nowait(Request(row, b"{}", f"hash {row}", "m", TOKENS.total_tokens or 0))
    give.close()
    async with anyio.create_task_group() as looking:
        looking.start_soon(_look, made)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_collect, made, take)
            await made.engine.run(requests, events, Stop())
            made.ended_s = anyio.current_time()
        looking.cancel_scope.cancel()


async def _collect(made: Night, take: anyio.abc.ObjectReceiveStream[Event]) -> None:
    async with take:
        async for event in take:
            if isinstance(event, Settled):
                made.settled.append(event)
                made.engine.saved(1)


async def _look(made: Night) -> None:
    while True:
        limit = made.engine.lanes.of("m")[0].limit.now
        made.seen.append((anyio.current_time(), len(made.settled), limit))
        await anyio.sleep(1.0)

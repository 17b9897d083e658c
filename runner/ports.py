"""What an engine is given, and what it gives.

Rule: an engine knows the job only by these: the wire, the rules and the clocks as functions, the limits as numbers.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from runner.budget import Budget
from runner.columns import is_answer
from runner.halts import Terms
from runner.pace import Reading
from runner.pricing import Charge
from runner.reask import Bound
from runner.records import Attempt, Failure, Outcome, Reply, Request, Settled, Usage
from runner.retry import Policy
from runner.stop import Stop


@dataclass(frozen=True, slots=True)
class Ended:
    """An exchange that did not settle its row."""

    request: Request
    attempt: Attempt

    @property
    def paid(self) -> bool:
        """It gave an answer that is asked for again."""
        return is_answer(self.attempt.error_kind)


Event = Ended | Settled
Send = Callable[[bytes], Awaitable[Reply | Failure]]
#: A request's body -> the body with its local files, while it is open; Failure(INPUT): one of them cannot be sent.
Fill = Callable[[bytes], AbstractAsyncContextManager[bytes | Failure]]


class Engine(Protocol):
    """What sends. It closes `events` when it is done: no more requests, or stopped and drained."""

    async def run(
        self, requests: MemoryObjectReceiveStream[Request], events: MemoryObjectSendStream[Event], stop: Stop
    ) -> None: ...

    def saved(self, count: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Wiring:
    """What the engine is given: the wire, the rules of this job, and the clocks."""

    send: Send
    judge: Callable[[Reply, Request], Outcome]
    charge: Callable[[str, Usage, str | None], Charge]  #: (model, usage, service tier)
    sent: Callable[[Request, int, str], None]  #: (request, n, at): note it before it leaves
    rekey: Callable[[], bool]  #: read the key again; True when it changed
    luck: Callable[[], float]
    bound: Bound = lambda request, body: None
    clock: Callable[[], float] = anyio.current_time
    readings: Callable[[Reply], Sequence[Reading]] = lambda reply: ()  #: what it says is left of the limits
    fill: Fill | None = None  #: None: requests are sent as they are


@dataclass(frozen=True, slots=True)
class Settings:
    """The job's limits."""

    concurrency: int = 32  #: with `learns` the most
    learns: bool = False  #: find out how many
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    max_backoff_s: float = 60.0
    drain_s: float = 25.0
    policy: Policy = field(default_factory=Policy)
    terms: Terms = field(default_factory=Terms)
    budget: Budget | None = None


def iso_now() -> str:
    """Now in UTC, ISO 8601 with microseconds and a Z."""
    seconds, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
    return f"{_second(seconds)}.{microseconds:06d}Z"


@lru_cache(maxsize=2)
def _second(epoch_s: int) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).isoformat()[:19]

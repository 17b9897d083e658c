"""One row on its way, and what each of its exchanges came to.

Rule: nothing here waits or decides; the engine carries a row through its exchanges and keeps the account here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal

from runner.halts import Watch
from runner.pace import Lane
from runner.ports import Wiring, iso_now
from runner.records import Attempt, Billed, Completion, Failure, Outcome, Request, Settled


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request that went out and what came of it."""

    outcome: Outcome
    attempt: Attempt
    sent_at: float


@dataclass(slots=True)
class Work:
    """One row on its way."""

    request: Request
    lane: Lane
    watch: Watch
    ready_at: float
    attempts: list[Attempt] = field(default_factory=list)
    counted: int = 0
    spent_s: float = 0.0
    first_n: int = field(init=False)

    def __post_init__(self) -> None:
        before = [attempt.n for attempt in self.request.prior if attempt.epoch == self.request.epoch]
        self.first_n = max(before, default=0) + 1

    @property
    def n(self) -> int:
        """The number of the next exchange."""
        return self.first_n + len(self.attempts)

    def ended(self, outcome: Outcome, times: tuple[str, float, float], wiring: Wiring) -> Exchange:
        """An exchange is over. times: when it was sent, as text and by the clock, and how many seconds it took."""
        at, sent_at, seconds = times
        self.spent_s += seconds
        timed = (at, seconds, sent_at - self.ready_at)
        return Exchange(outcome, _attempt(self, outcome, timed, cost_of(self.request.model, outcome, wiring)), sent_at)

    def settled(self, exchange: Exchange, price_source: str | None) -> Settled:
        return Settled(
            request=self.request,
            outcome=exchange.outcome,
            attempts=(*self.request.prior, *self.attempts),
            price_source=price_source,
            started_at=self.attempts[0].started_at,
            finished_at=iso_now(),
            cost_usd=exchange.attempt.cost_usd,
        )

    def unsent(self, failure: Failure) -> Settled:
        """The row is final without this request: nothing left, so no exchange is counted and no request is its own."""
        now = iso_now()
        return Settled(
            request=replace(self.request, hash=""),
            outcome=failure,
            attempts=(*self.request.prior, *self.attempts),
            started_at=self.attempts[0].started_at if self.attempts else now,
            finished_at=now,
        )


def cost_of(model: str, outcome: Outcome, wiring: Wiring) -> Decimal | None:
    """Free when it surely was, unknown when it may have been billed, else by its usage."""
    if isinstance(outcome, Failure) and outcome.billed is not Billed.YES:
        return Decimal(0) if outcome.billed is Billed.NO else None
    return wiring.cost(model, outcome.usage)


def _attempt(work: Work, outcome: Outcome, times: tuple[str, float, float], cost_usd: Decimal | None) -> Attempt:
    at, seconds, waited_s = times
    failed = outcome if isinstance(outcome, Failure) else None
    answer = outcome if isinstance(outcome, Completion) else outcome.answer
    return Attempt(
        epoch=work.request.epoch,
        n=work.n,
        started_at=at,
        seconds=round(seconds, 6),
        waited_s=round(waited_s, 6),
        http_status=failed.status if failed else 200,
        error_kind=failed.kind if failed else None,
        error=failed.message if failed else None,
        request_id=outcome.request_id,
        request_hash=work.request.hash,
        model_returned=answer.model if answer else None,
        finish_reason=answer.choices[0].finish_reason if answer else None,
        usage=outcome.usage,
        cost_usd=cost_usd,
    )

"""One row on its way, and what each of its exchanges came to.

Rule: nothing here waits or decides; the engine carries a row through its exchanges and keeps the account here. The
last paid answer is the row's, whatever fails after it: a row that was asked for a better answer and got none settles
with the one that it has.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal

from runner.columns import is_answer
from runner.halts import Watch
from runner.pace import NOTHING_LEFT, Lane, Mark
from runner.ports import Wiring, iso_now
from runner.pricing import FREE, UNKNOWN, Charge
from runner.reask import Change, answer_text, changed, read_answer
from runner.records import Attempt, Billed, Choice, Completion, Failure, Kind, Outcome, Request, Settled, Status
from runner.retry import SoFar, falls_short, is_paid


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request that went out and what came of it."""

    outcome: Outcome
    attempt: Attempt
    sent_at: float

    @property
    def paid(self) -> bool:
        return is_paid(self.outcome)


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
    first_n: int = 1
    asking: Request = field(init=False)  #: as it is sent now; its hash is the row's
    answers: list[Attempt] = field(default_factory=list)  #: paid answers to this very request that fell short
    kept: Outcome | None = None  #: the last of them
    mark: Mark = NOTHING_LEFT  #: of its request that left last

    def __post_init__(self) -> None:
        self.asking = self.request
        before = [attempt for attempt in self.request.prior if attempt.epoch == self.request.epoch]
        if before:
            self.first_n = max(attempt.n for attempt in before) + 1
            self.answers = [attempt for attempt in before if self._answers_this(attempt)]
            self.kept = _kept(self.answers[-1]) if self.answers else None

    def _answers_this(self, attempt: Attempt) -> bool:
        return is_answer(attempt.error_kind) and attempt.request_hash == self.request.hash

    @property
    def n(self) -> int:
        """The number of the next exchange."""
        return self.first_n + len(self.attempts)

    @property
    def so_far(self) -> SoFar:
        """With the last exchange for an answer that falls short, if it was one."""
        last = self.attempts[-1:] if is_answer(self.attempts[-1].error_kind) else []
        return SoFar(self.counted, self.spent_s, (*self.answers, *last), self.request.body)

    def ended(
        self, outcome: Outcome, times: tuple[str, float, float], wiring: Wiring, reserved_usd: Decimal | None
    ) -> Exchange:
        """An exchange is over. times: when it was sent, as text and by the clock, and how many seconds it took."""
        at, sent_at, seconds = times
        self.spent_s += seconds
        timed = (at, seconds, sent_at - self.ready_at)
        attempt = _attempt(self, outcome, timed, charge_of(self.asking, outcome, wiring), reserved_usd)
        self.attempts.append(attempt)
        return Exchange(outcome, attempt, sent_at)

    def fell_short(self, outcome: Outcome) -> None:
        """The last exchange gave an answer that is asked for again: it is kept until there is another."""
        self.answers.append(self.attempts[-1])
        self.kept = outcome

    def ask(self, change: Change, wiring: Wiring) -> None:
        """From now on the row asks for a better answer."""
        self.asking = changed(self.request, change, wiring.bound)

    def settled(self, outcome: Outcome | None) -> Settled:
        """The row is final. outcome: of its last exchange; None: there was none in this process."""
        made = [*self.request.prior, *self.attempts]
        own = len(made) - 1
        if self.kept and not (outcome and is_paid(outcome)):
            outcome, own = self.kept, made.index(self.answers[-1])
        assert outcome
        if made[own].answer is not None:
            made[own] = replace(made[own], answer=None)
        return Settled(
            request=self.request,
            outcome=outcome,
            attempts=tuple(made),
            price_source=made[own].price_source if is_answer(made[own].error_kind) else None,
            started_at=(self.attempts or self.answers)[0].started_at,
            finished_at=iso_now(),
            cost_usd=made[own].cost_usd,
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


def charge_of(request: Request, outcome: Outcome, wiring: Wiring) -> Charge:
    """Free when it surely was, unknown when it may have been billed, else by its usage and the tier that it used."""
    if isinstance(outcome, Failure) and outcome.billed is not Billed.YES:
        return FREE if outcome.billed is Billed.NO else UNKNOWN
    answer = outcome if isinstance(outcome, Completion) else outcome.answer
    used = answer.service_tier if answer else None
    return wiring.charge(request.model, outcome.usage, used or request.service_tier)


def _attempt(
    work: Work, outcome: Outcome, times: tuple[str, float, float], charge: Charge, reserved_usd: Decimal | None
) -> Attempt:
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
        cost_usd=charge.usd,
        answer=answer_text(answer.choices[0]) if answer and falls_short(outcome) else None,
        price_source=charge.source,
        reserved_usd=reserved_usd,
    )


def _kept(attempt: Attempt) -> Outcome:
    """What the journal has of an answer whose process died: its text or calls, its tokens, its error."""
    content, calls = read_answer(attempt.answer)
    choice = Choice(0, content, attempt.finish_reason, tool_calls=calls)
    status = Status.OK if attempt.error_kind else Status.TRUNCATED
    answer = Completion(status, (choice,), attempt.usage, attempt.model_returned, request_id=attempt.request_id)
    if attempt.error_kind is None:
        return answer
    return Failure(
        Kind.OUTPUT,
        attempt.error or "",
        attempt.http_status,
        Billed.YES,
        request_id=attempt.request_id,
        answer=answer,
        usage=attempt.usage,
    )

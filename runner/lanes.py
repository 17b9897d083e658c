"""The lanes of an engine: what its exchanges tell about the pace, and what holds its rows back.

Rule: the arithmetic is pace.py's and the judgement halts.py's; here an outcome is told to both, and as many slots are
given as the lanes have found to be good.
"""

from __future__ import annotations

from collections.abc import Callable

from runner.errors import RunnerError
from runner.exchange import Exchange, Work
from runner.halts import Pause, Watch, duration
from runner.pace import FIRST_LIMIT, Bucket, Lane, Learning, Limit, Slots
from runner.ports import Settings, Wiring
from runner.records import Completion, Failure, Kind
from runner.retry import counts

#: The endpoint is well and turns this row down.
REFUSALS = (Kind.REQUEST, Kind.POLICY)
#: Nothing has come back for so long: say what is waited for.
QUIET_S = 30.0


class Lanes:
    """One lane and one watch for each model; slots over all of them."""

    def __init__(self, wiring: Wiring, settings: Settings) -> None:
        self._wiring = wiring
        self._settings = settings
        self.slots = Slots(min(FIRST_LIMIT, settings.concurrency) if settings.learns else settings.concurrency)
        self.on_room: Callable[[], None] = lambda: None  #: there may be more slots than before
        self._by_model: dict[str, tuple[Lane, Watch]] = {}
        self._heard_at: float | None = None  #: when a reply came last; at first: when that was asked for

    def of(self, model: str) -> tuple[Lane, Watch]:
        return self._by_model.get(model) or self._new(model)

    def _new(self, model: str) -> tuple[Lane, Watch]:
        settings = self._settings
        per_minute = (settings.requests_per_minute, settings.tokens_per_minute)
        requests, tokens = (Bucket(limit) if limit else None for limit in per_minute)
        limit = (Learning if settings.learns else Limit)(settings.concurrency)
        lane = Lane(limit, requests, tokens, max_backoff_s=settings.max_backoff_s)
        self._by_model[model] = lane, Watch(settings.terms)
        self._make_room()
        return self._by_model[model]

    def _make_room(self) -> None:
        if self._settings.learns:
            found = sum(int(lane.limit.now) for lane, _ in self._by_model.values())
            self.slots.most = min(self._settings.concurrency, found)
            self.on_room()

    def heard(self, work: Work, exchange: Exchange) -> RunnerError | None:
        """Take in what an exchange says about the pace, and about the whole job: the error that stops it."""
        now, outcome = self._wiring.clock(), exchange.outcome
        self._heard_at = now
        if isinstance(outcome, Completion) or outcome.kind is Kind.OUTPUT:
            self._answered(work, exchange, now)
        elif outcome.kind in REFUSALS:
            work.watch.alive()
            work.lane.gate.success(exchange.sent_at)
        return self._failed(work, outcome, exchange.sent_at, now) if isinstance(outcome, Failure) else None

    def _answered(self, work: Work, exchange: Exchange, now: float) -> None:
        usage, limit = exchange.outcome.usage, work.lane.limit
        work.watch.success(now)
        difference = 0 if usage.total_tokens is None else usage.total_tokens - work.asking.tokens
        before = limit.now
        work.lane.succeeded(now, exchange.sent_at, usage.completion_tokens or 1, difference)
        if limit.now != before:
            self._make_room()

    def _failed(self, work: Work, failure: Failure, sent_at: float, now: float) -> RunnerError | None:
        """Ask what the failure says about the whole job; close the gate when it says wait."""
        judged = self._judged(work, failure, sent_at, now)
        if not isinstance(judged, Pause):
            return judged
        work.lane.failed(failure, now, work.mark, judged.wait_s, self._wiring.luck())
        self._make_room()
        return None

    def _judged(self, work: Work, failure: Failure, sent_at: float, now: float) -> RunnerError | Pause | None:
        if failure.kind is Kind.AUTH and self._wiring.rekey():
            work.watch.rekeyed(now)
            return Pause(0.0)
        judged = work.watch.judge(failure, now, sent_at)
        if judged is not None or not is_charged(failure):
            return judged
        was_open = work.lane.breaker.open
        work.lane.breaker.see(failed=True)
        if not work.lane.breaker.open:
            return None
        if not was_open:  # the row that tipped it over has been charged; what comes now are probes
            work.watch.alive()
        return work.watch.broken(failure, now)

    def waiting_for(self, budget: str | None = None) -> str | None:
        """In words, what holds the rows back now; None when nothing does."""
        now = self._wiring.clock()
        for model, (lane, _) in self._by_model.items():
            words = _held_by(lane, now)
            if words:
                return f"{model}: {words}"
        if budget:
            return budget
        self._heard_at = now if self._heard_at is None else self._heard_at
        quiet_s = now - self._heard_at
        if self.slots.in_flight and quiet_s > QUIET_S:
            return f"waiting for {self.slots.in_flight} answers; none has come for {duration(quiet_s)}"
        return None


def is_charged(failure: Failure) -> bool:
    """Whether it used up an attempt and says something about the endpoint, not about the row."""
    return counts(failure) and failure.kind not in (*REFUSALS, Kind.OUTPUT)


def _held_by(lane: Lane, now: float) -> str | None:
    """What a lane waits for, where that is a second or more."""
    closed_s = lane.gate.open_in(now)
    if closed_s > 0:
        why = "more than half of the last 100 requests failed; " if lane.breaker.open else ""
        return f"{why}waiting {closed_s:.0f} s ({lane.gate.closings}. time in a row)"
    told_s = max((meter.ready_in(now, 1) for _, meter in lane.meters.values()), default=0.0)
    if told_s >= 1:
        return f"the provider's limit is nearly used up; the next request leaves in {told_s:.0f} s"
    own_s = max((bucket.ready_in(now, 1) for bucket in (lane.requests, lane.tokens) if bucket), default=0.0)
    if own_s >= 1:
        return f"the job's own limit a minute; the next request leaves in {own_s:.0f} s"
    paced_s = lane.tempo.ready_in(now)
    return f"sending as slowly as it takes requests; the next leaves in {paced_s:.0f} s" if paced_s >= 1 else None

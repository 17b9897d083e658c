"""A lane is one (endpoint, model): what throttles one lane never slows another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from runner.pace.breaker import Breaker
from runner.pace.bucket import Bucket
from runner.pace.gate import FIRST_WAIT_S, Gate, wait_of
from runner.pace.limit import Limit
from runner.pace.mark import Mark
from runner.pace.meter import Meter, Reading
from runner.pace.start import Start
from runner.pace.tempo import Tempo
from runner.records import Failure, Kind


@dataclass(slots=True)
class Lane:
    """The pace of one (endpoint, model)."""

    limit: Limit
    requests: Bucket | None = None
    tokens: Bucket | None = None
    gate: Gate = field(default_factory=Gate)
    tempo: Tempo = field(default_factory=Tempo)
    start: Start = field(default_factory=Start)
    breaker: Breaker = field(default_factory=Breaker)
    meters: dict[str, tuple[str, Meter]] = field(default_factory=dict)
    in_flight: int = 0
    sent_requests: int = 0
    sent_tokens: int = 0
    left: int = 0  #: requests
    max_backoff_s: float = 60.0  #: the longest wait without a hint

    def ready_in(self, now: float, tokens: int) -> float | None:
        """Seconds until a request of `tokens` may leave; None: when one that is in flight has ended."""
        most = 1 if self.gate.probing else int(self.limit.now)
        if self.in_flight >= most:
            return None
        waits = [self.gate.open_in(now), self.tempo.ready_in(now), self.start.ready_in(now)]
        if self.requests:
            waits.append(self.requests.ready_in(now, 1))
        if self.tokens:
            waits.append(self.tokens.ready_in(now, tokens))
        for what, meter in self.meters.values():
            waits.append(meter.ready_in(now, 1 if what == "requests" else tokens))
        return max(waits)

    def take(self, now: float, tokens: int) -> None:
        self.in_flight += 1
        self.sent_requests += 1
        self.sent_tokens += tokens
        self.tempo.take(now)
        self.start.take(now)
        if self.requests:
            self.requests.take(now, 1)
        if self.tokens:
            self.tokens.take(now, tokens)
        for what, meter in self.meters.values():
            meter.take(now, 1 if what == "requests" else tokens)

    def give_back(self, tokens: int) -> None:
        """A request that was let in did not leave."""
        self.tempo.level += 1.0
        self.sent_requests -= 1
        self.sent_tokens -= tokens
        if self.requests:
            self.requests.correct(-1)
        if self.tokens:
            self.tokens.correct(-tokens)

    def mark(self, now: float) -> Mark:
        """To be taken once for a request, when it leaves."""
        self.left += 1
        return Mark(now, self.sent_requests, self.sent_tokens, self.left, self.in_flight)

    def read(self, now: float, mark: Mark, told: Sequence[Reading]) -> None:
        """What the reply to the request of `mark` says is left of the provider's limits."""
        for reading in told:
            _, meter = self.meters.setdefault(reading.name, (reading.what, Meter()))
            by_requests = reading.what == "requests"
            since = self.sent_requests - mark.requests if by_requests else self.sent_tokens - mark.tokens
            meter.read(now, mark.at, reading, since)

    def failed(self, failure: Failure, now: float, mark: Mark, hint_s: float | None, luck: float) -> None:
        """Close the gate after a failure that slows all, for hint_s or by lot. A lane that cannot be reached, or whose
        key is refused, is probed by single requests; one that is too busy gets a smaller window, one that is too fast
        a slower tempo."""
        fresh, was_held = self.gate.is_fresh(mark.at), self.tempo.holds
        if not fresh:
            self._same_storm(failure, now, mark, hint_s)
            return
        first_s = self._slow(now, mark) if failure.kind is Kind.RATE else FIRST_WAIT_S
        self.gate.close(now, wait_of(hint_s, self.gate.closings, self.max_backoff_s, luck, first_s), mark.at)
        if failure.kind is Kind.RATE:
            self.tempo.pause(now, self.gate.closed_until, told=hint_s is not None)
        if not self._probe(failure):
            self.limit.shrink(max(self.in_flight, mark.in_flight), now, paced=was_held and failure.kind is Kind.RATE)

    def _same_storm(self, failure: Failure, now: float, mark: Mark, hint_s: float | None) -> None:
        """A storm of a hundred must not draw the longest of a hundred lots: only the server's word lengthens it."""
        if failure.kind is Kind.RATE:
            self.tempo.refuse_too(mark)
        self._probe(failure)
        if failure.wait_s is not None and hint_s is not None:
            self.gate.close(now, hint_s, mark.at)

    def _probe(self, failure: Failure) -> bool:
        dead = failure.unreachable or failure.kind is Kind.AUTH or self.breaker.open
        self.gate.probing = self.gate.probing or dead
        return dead

    def _slow(self, now: float, mark: Mark) -> float:
        """Fall to the tempo that is taken. Returns the first wait where the server gives no hint: the time between two
        requests. A row of closings is one in which the door stayed shut: what left in between was taken, if it was not
        refused, long before its answer is here."""
        if self.tempo.refuse(now, mark):
            self.gate.closings = 0
        assert self.tempo.rate
        return 1 / self.tempo.rate

    def succeeded(self, now: float, sent_at: float, work: float, token_difference: int) -> None:
        """An answer. work: output tokens. token_difference: reported less estimated."""
        self.gate.success(sent_at)
        self.breaker.see(failed=False)
        self.limit.grow(self.in_flight, now, now - sent_at, work)
        if self.tokens:
            self.tokens.correct(token_difference)

"""A lane is one (endpoint, model): what throttles one lane never slows another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from runner.pace.breaker import Breaker
from runner.pace.bucket import Bucket
from runner.pace.gate import Gate
from runner.pace.limit import Limit
from runner.pace.meter import Meter, Reading
from runner.pace.tempo import Tempo
from runner.records import Failure, Kind


@dataclass(frozen=True, slots=True)
class Mark:
    """How much had been sent when a request left, itself included."""

    at: float
    requests: int
    tokens: int


@dataclass(slots=True)
class Lane:
    """The pace of one (endpoint, model)."""

    limit: Limit
    requests: Bucket | None = None
    tokens: Bucket | None = None
    gate: Gate = field(default_factory=Gate)
    tempo: Tempo = field(default_factory=Tempo)
    breaker: Breaker = field(default_factory=Breaker)
    meters: dict[str, tuple[str, Meter]] = field(default_factory=dict)
    in_flight: int = 0
    sent_requests: int = 0
    sent_tokens: int = 0

    def ready_in(self, now: float, tokens: int) -> float | None:
        """Seconds until a request of `tokens` may leave; None: when one that is in flight has ended."""
        most = 1 if self.gate.probing else int(self.limit.now)
        if self.in_flight >= most:
            return None
        waits = [self.gate.open_in(now), self.tempo.ready_in(now)]
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
        """To be taken when a request leaves."""
        return Mark(now, self.sent_requests, self.sent_tokens)

    def read(self, now: float, mark: Mark, told: Sequence[Reading]) -> None:
        """What the reply to the request of `mark` says is left of the provider's limits."""
        for reading in told:
            _, meter = self.meters.setdefault(reading.name, (reading.what, Meter()))
            by_requests = reading.what == "requests"
            since = self.sent_requests - mark.requests if by_requests else self.sent_tokens - mark.tokens
            meter.read(now, mark.at, reading, since)

    def failed(self, failure: Failure, now: float, sent_at: float, wait_s: float) -> None:
        """Close the gate after a failure that slows all. A lane that cannot be reached, or whose key is refused, is
        probed by single requests; one that is too busy gets a smaller window, one that is too fast a slower tempo."""
        fresh = self.gate.is_fresh(sent_at)
        paced = self.tempo.rate is not None and self.in_flight + 1 < int(self.limit.now)
        if fresh or failure.wait_s is not None:  # a storm of a hundred must not draw the longest of a hundred lots
            self.gate.close(now, wait_s, sent_at)
        if fresh and failure.kind is Kind.RATE:
            self.tempo.refuse(now, self.gate.closed_until)
        if failure.unreachable or failure.kind is Kind.AUTH or self.breaker.open:
            self.gate.probing = True
        elif fresh and not (paced and failure.kind is Kind.RATE):  # it was too fast, not too many
            self.limit.shrink(self.in_flight, now)

    def succeeded(self, now: float, sent_at: float, work: float, token_difference: int) -> None:
        """An answer. work: output tokens. token_difference: reported less estimated."""
        self.gate.success(sent_at)
        self.breaker.see(failed=False)
        self.limit.grow(self.in_flight, now, now - sent_at, work)
        if self.tokens:
            self.tokens.correct(token_difference)

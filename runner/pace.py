"""When the next request may leave: pure arithmetic, `now` (monotonic seconds) and `luck` (0 to 1) come in as arguments.

Rule: a lane is one (endpoint, model); what throttles one lane never slows another. A lane holds a gate (closed by 429,
503, an outage, a refused key), a limit on requests in flight that shrinks when the gate closes, and two token buckets.
`Slots` is over all lanes: it bounds what is on the wire and what has come back but is not durable yet.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from runner.records import Failure

#: The gate's first wait without a hint, doubled at each closing in turn; CometAPI's pages advise 1 s · 2^k.
FIRST_WAIT_S = 1.0


@dataclass(slots=True)
class Bucket:
    """A token bucket that starts with one second's worth, refills evenly, and may owe.

    An amount larger than the bucket is let through when the bucket is full and leaves it in debt, so that one huge
    request cannot block its lane for ever.
    """

    per_minute: float
    level: float = field(init=False)
    at: float | None = None

    def __post_init__(self) -> None:
        self.level = self.capacity

    @property
    def rate(self) -> float:
        """Units a second."""
        return self.per_minute / 60.0

    @property
    def capacity(self) -> float:
        return max(1.0, self.rate)

    def _refill(self, now: float) -> None:
        if self.at is not None:
            self.level = min(self.capacity, self.level + (now - self.at) * self.rate)
        self.at = now

    def ready_in(self, now: float, amount: float) -> float:
        """Seconds until `amount` may be taken; 0: now."""
        self._refill(now)
        missing = min(amount, self.capacity) - self.level
        return max(0.0, missing / self.rate)

    def take(self, now: float, amount: float) -> None:
        self._refill(now)
        self.level -= amount

    def correct(self, difference: float) -> None:
        """The reply reported `difference` more units than were estimated (negative: fewer)."""
        # No deeper in debt than a minute's worth: the provider's own window has rolled over by then, and a server that
        # reports 10^18 tokens must not hold the lane for years.
        self.level = min(self.capacity, max(self.level - difference, -self.per_minute))


@dataclass(slots=True)
class Gate:
    """Closed until a moment; while probing it lets one request through at a time, until one succeeds."""

    closed_until: float = 0.0
    closed_at: float = float("-inf")
    closings: int = 0  #: in a row, without a success between
    probing: bool = False

    def open_in(self, now: float) -> float:
        return max(0.0, self.closed_until - now)

    def close(self, now: float, wait_s: float, sent_at: float) -> bool:
        """Close for `wait_s`. False when the failed request left before the last closing: the same storm, already
        answered; it may only lengthen the wait."""
        fresh = sent_at >= self.closed_at
        self.closed_until = max(self.closed_until, now + wait_s)
        if fresh:
            self.closed_at = now
            self.closings += 1
        return fresh

    def success(self, sent_at: float) -> None:
        """An answer to a request that left after the last closing: the endpoint takes requests again."""
        if sent_at >= self.closed_at:
            self.closings = 0
            self.probing = False


def wait_of(hint_s: float | None, closings: int, max_backoff_s: float, luck: float) -> float:
    """Seconds to close a gate: the server's hint with a little jitter on top, else full jitter on 1, 2, 4, … s."""
    if hint_s is not None:
        return hint_s + 0.05 * luck * max(1.0, hint_s)
    ceiling: float = min(max_backoff_s, FIRST_WAIT_S * 2.0 ** min(closings, 30))
    return max(0.05, ceiling * luck)


@dataclass(slots=True)
class Limit:
    """How many requests of a lane may be in flight: multiplicative decrease once per closing, additive increase."""

    most: int
    now: float = field(init=False)

    def __post_init__(self) -> None:
        self.now = float(self.most)

    def shrink(self) -> None:
        self.now = max(1.0, self.now * 0.7)

    def grow(self, in_flight: int) -> None:
        """One success. Grows by one per round trip of the whole window, and only while the limit is what binds."""
        if in_flight + 1 >= int(self.now):
            self.now = min(float(self.most), self.now + 1.0 / self.now)


@dataclass(slots=True)
class Lane:
    """The pace of one (endpoint, model)."""

    limit: Limit
    requests: Bucket | None = None
    tokens: Bucket | None = None
    gate: Gate = field(default_factory=Gate)
    in_flight: int = 0

    def ready_in(self, now: float, tokens: int) -> float | None:
        """Seconds until a request of `tokens` may leave; None: when one that is in flight has ended."""
        most = 1 if self.gate.probing else int(self.limit.now)
        if self.in_flight >= most:
            return None
        waits = [self.gate.open_in(now)]
        if self.requests:
            waits.append(self.requests.ready_in(now, 1))
        if self.tokens:
            waits.append(self.tokens.ready_in(now, tokens))
        return max(waits)

    def take(self, now: float, tokens: int) -> None:
        self.in_flight += 1
        if self.requests:
            self.requests.take(now, 1)
        if self.tokens:
            self.tokens.take(now, tokens)

    def give_back(self, tokens: int) -> None:
        """A request that was let in did not leave."""
        if self.requests:
            self.requests.correct(-1)
        if self.tokens:
            self.tokens.correct(-tokens)

    def failed(self, failure: Failure, now: float, sent_at: float, wait_s: float) -> None:
        """Close the gate after a failure that slows all. A lane that cannot be reached, or whose key is refused, is
        probed by single requests; one that is too busy gets a smaller window."""
        fresh = self.gate.close(now, wait_s, sent_at)
        if failure.unreachable or failure.kind == "AUTH":
            self.gate.probing = True
        elif fresh:
            self.limit.shrink()

    def succeeded(self, sent_at: float, token_difference: int) -> None:
        self.gate.success(sent_at)
        self.limit.grow(self.in_flight)
        if self.tokens:
            self.tokens.correct(token_difference)


@dataclass(slots=True)
class Slots:
    """`most` requests on the wire, and at most `most` answers that are not durable yet.

    The second bound makes a promise arithmetic: what a kill can cause to be sent again is what is on the wire plus what
    has come back and is not on disk, never more than twice the concurrency.
    """

    most: int
    in_flight: int = 0
    undurable: int = 0

    @property
    def free(self) -> bool:
        return self.in_flight < self.most and self.in_flight + self.undurable < 2 * self.most

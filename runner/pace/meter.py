"""What a provider says is left of its limits: the run slows before a 429, not after it.

Rule: what is left must last until the reset. Providers refill a bucket evenly (OpenAI, Anthropic: reset is when it is
full again) or count within a window (reset is when it begins anew); spreading what is left over the time to the reset
holds for both. A full bucket is used at once, and from half-full on exactly its refill is sent: what is left over the
time to be full is then the refill itself.
"""

from __future__ import annotations

from dataclasses import dataclass

#: With nothing left, one request asks again after this share of the reset: buckets have one long before they are full.
LOOK_AGAIN = 1 / 8
SOONEST_S = 1.0
SLACK_S = 0.05


@dataclass(frozen=True, slots=True)
class Reading:
    """One limit as a reply tells it. what: requests or tokens; reset_s: seconds from the reply."""

    name: str
    what: str
    remaining: float
    reset_s: float


@dataclass(slots=True)
class Meter:
    """One limit of a lane, as last told."""

    per_s: float = 0.0
    level: float = 0.0
    at: float = 0.0
    opens_at: float = float("-inf")  #: nothing was left: one may ask again then
    until: float = float("-inf")  #: the reset: after it the reading says nothing
    read_of: float = float("-inf")  #: when the request left that was told so

    def read(self, now: float, sent_at: float, reading: Reading, sent_since: float) -> None:
        """sent_since: what has left after that request and is not in the reading."""
        if sent_at < self.read_of:
            return
        left = reading.remaining - sent_since
        self.read_of, self.until, self.at = sent_at, now + reading.reset_s, now
        self.per_s = max(0.0, left) / reading.reset_s
        self.level = min(self.level, self._most) if left > 0 else 0.0
        if left < 1:
            self.per_s = 0.0
            self.opens_at = now + min(reading.reset_s, max(SOONEST_S, reading.reset_s * LOOK_AGAIN))

    @property
    def _most(self) -> float:
        return max(1.0, self.per_s * SLACK_S)

    def ready_in(self, now: float, amount: float) -> float:
        """Seconds until `amount` may leave."""
        if now >= self.until:
            return 0.0
        if self.per_s == 0.0:
            return max(0.0, self.opens_at - now)
        self.level = min(self._most, self.level + max(0.0, now - self.at) * self.per_s)
        self.at = max(now, self.at)
        return max(0.0, (min(amount, self._most) - self.level) / self.per_s)

    def take(self, now: float, amount: float) -> None:
        if now < self.until:
            self.level -= amount
            if self.per_s == 0.0:  # it asks; the others wait for what it is told
                self.opens_at = self.until

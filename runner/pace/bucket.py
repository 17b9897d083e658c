"""The job's own limits: requests or tokens a minute."""

from __future__ import annotations

from dataclasses import dataclass, field


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

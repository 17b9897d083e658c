"""The provider's limits: requests and tokens per minute, and what its headers say about them.

Rule: no clock; `now` comes in, in seconds of any monotonic clock.
Strategy: one bucket each, full at the start, refilled evenly. OpenAI's manner: a refused request takes nothing, `reset`
is the time until the bucket is full again, and a request larger than a whole bucket can never pass.
"""

from __future__ import annotations

from dataclasses import dataclass

MINUTE_S = 60.0


@dataclass(slots=True)
class Bucket:
    """`per_minute` None: no limit, and no headers."""

    kind: str  #: requests or tokens, as the headers and the error's type say it
    unit: str  #: RPM or TPM
    per_minute: int | None
    level: float = 0.0
    read_at: float | None = None

    def refill(self, now: float) -> None:
        limit = float(self.per_minute or 0)
        if self.read_at is None:
            self.level = limit
        else:
            self.level = min(limit, self.level + (now - self.read_at) * limit / MINUTE_S)
        self.read_at = now

    def lacks(self, amount: int) -> bool:
        return self.per_minute is not None and self.level < amount

    def wait_s(self, amount: int) -> float:
        """Until `amount` is there, or until the bucket is full for what never fits."""
        limit = self.per_minute or 1
        return max(0.0, (min(amount, limit) - self.level) * MINUTE_S / limit)

    def headers(self) -> dict[str, str]:
        if self.per_minute is None:
            return {}
        return {
            f"x-ratelimit-limit-{self.kind}": str(self.per_minute),
            f"x-ratelimit-remaining-{self.kind}": str(max(0, int(self.level))),
            f"x-ratelimit-reset-{self.kind}": go_duration(self.wait_s(self.per_minute)),
        }


@dataclass(frozen=True, slots=True)
class Denial:
    message: str
    kind: str
    wait_s: float


class Limits:
    def __init__(self, rpm: int | None, tpm: int | None) -> None:
        self.buckets = (Bucket("requests", "RPM", rpm), Bucket("tokens", "TPM", tpm))

    def take(self, tokens: int, model: str, now: float) -> Denial | None:
        """Take one request of `tokens`, or say why not."""
        wanted = list(zip(self.buckets, (1, tokens), strict=True))
        for bucket, _ in wanted:
            bucket.refill(now)
        for bucket, amount in wanted:
            if bucket.lacks(amount):
                return _denial(bucket, amount, model)
        for bucket, amount in wanted:
            bucket.level -= amount
        return None

    def headers(self) -> dict[str, str]:
        return self.buckets[0].headers() | self.buckets[1].headers()


def go_duration(seconds: float) -> str:
    """Go's way to write a duration, as the reset headers do: 12ms, 1.5s, 6m0s."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds, 3), 60)
    return f"{int(minutes)}m{rest:g}s" if minutes else f"{rest:g}s"


def _denial(bucket: Bucket, amount: int, model: str) -> Denial:
    limit = bucket.per_minute or 0
    where = f"for {model} on {bucket.kind} per min ({bucket.unit}): Limit {limit}"
    if amount > limit:
        return Denial(f"Request too large {where}, Requested {amount}.", bucket.kind, 0.0)
    wait_s, used = bucket.wait_s(amount), limit - int(bucket.level)
    said = f"Used {used}, Requested {amount}. Please try again in {go_duration(wait_s)}."
    return Denial(f"Rate limit reached {where}, {said}", bucket.kind, wait_s)

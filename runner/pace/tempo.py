"""Requests a second that an endpoint which says 429 seems to take.

Rule: a rate cannot be held by the number in flight (six a second at a tenth of a second each is less than one), so
after the first 429 requests are spaced. A storm is then the one or two requests that leave before the refusal is back.

Strategy, as TCP's CUBIC does with its window (RFC 9438): at a refusal the rate falls by a tenth, by more when the last
one was moments ago; then, while it is what holds rows back, it grows along a cubic that is steep far below the rate
that failed, flat near it and steep again beyond, so that a limit that was raised is found within seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

#: What is left of the rate after a refusal; and after one within SOON_S of the last.
KEPT, KEPT_SOON = 0.9, 0.6
SOON_S = 2.0
#: Seconds from a refusal back to the rate that failed.
BACK_S = 4.0
#: Beyond this share of it the rate that failed is disproved, and the growth is this much a second.
BEYOND, FASTER = 1.02, 1.25
#: Requests may leave together that are due within this; timers are late by about a millisecond.
SLACK_S = 0.02
SLOWEST_PER_S = 0.01
COUNT_S, SHORTEST_S = 1.0, 0.1


def _share(held_s: float, lost: float) -> float:
    """Of the rate that failed, so many seconds after it had failed and `lost` of it was given up."""
    cubic = 1.0 + lost * (held_s / BACK_S - 1.0) ** 3
    if cubic <= BEYOND:
        return cubic
    beyond_s = held_s - BACK_S * (1.0 + ((BEYOND - 1.0) / lost) ** (1 / 3))
    share: float = BEYOND * FASTER ** min(beyond_s, 60.0)
    return share


@dataclass(slots=True)
class Tempo:
    """`rate` (requests a second) None: nothing was ever refused, requests are not spaced."""

    rate: float | None = None
    too_fast: float = 0.0  #: the rate that failed last
    level: float = 1.0
    at: float = 0.0
    held_s: float = 0.0  #: time since the last refusal in which the tempo held rows back
    held: bool = False  #: it does now
    kept: float = KEPT
    reopens_at: float = 0.0
    counting_since: float | None = None
    sent: int = 0  #: since then; once spaced: since the gate opened
    sent_before: int = 0  #: in the COUNT_S before then

    def ready_in(self, now: float) -> float:
        """Seconds until the next request is due."""
        if self.rate is None:
            return 0.0
        self._refill(now, self.rate)
        if self.level >= 1.0:
            return 0.0
        self.held = True
        return (1.0 - self.level) / self.rate

    def take(self, now: float) -> None:
        if self.rate is not None:
            self._refill(now, self.rate)
            self.level -= 1.0
            self.sent += 1
            return
        if self.counting_since is None:
            self.counting_since = now
        elif now - self.counting_since > COUNT_S:
            self.counting_since, self.sent_before, self.sent = now, self.sent, 0
        self.sent += 1

    def _refill(self, now: float, rate: float) -> None:
        passed = max(0.0, now - self.at)
        self.at = max(now, self.at)
        self.level = min(max(1.0, rate * SLACK_S), self.level + passed * rate)
        if self.held and passed:
            self.held_s, self.held = self.held_s + passed, False
            self.rate = max(SLOWEST_PER_S, self.too_fast * _share(self.held_s, 1.0 - self.kept))

    def refuse(self, now: float, reopens_at: float) -> None:
        """The first refusal of a storm; the next request leaves when the gate opens."""
        soon = now - self.reopens_at < SOON_S
        if self.rate is None:
            self._fall(self._lately(now), KEPT_SOON)
        elif self.sent > 1:  # the first one after a pause says nothing about the pace: the door is still shut
            self._fall(self.rate, KEPT_SOON if soon else KEPT)
        self.level, self.at, self.reopens_at, self.sent = 1.0, reopens_at, reopens_at, 0

    def _fall(self, too_fast: float, kept: float) -> None:
        self.too_fast, self.kept = too_fast, kept
        self.rate = max(SLOWEST_PER_S, too_fast * kept)
        self.held_s, self.held = 0.0, False

    def _lately(self, now: float) -> float:
        """Requests a second that were sent in the last one or two seconds. A first burst tells little: the guess is on
        the high side, for a rate that is too high falls within a few requests."""
        passed = 0.0 if self.counting_since is None else now - self.counting_since
        over_s = passed + (COUNT_S if self.sent_before else 0.0)
        return max(1, self.sent + self.sent_before) / max(SHORTEST_S, over_s)

"""Requests a second that an endpoint which says 429 seems to take.

Rule: a rate cannot be held by the number in flight (six a second at a tenth of a second each is less than one), so
after the first 429 requests are spaced. A refusal says what is taken; as long as there is none the rate grows, the
faster the longer.

What is taken. Providers fill a bucket, and it is empty whenever they refuse: so what they took between two refusals is
what they filled in, and the rate of that is theirs. A bucket that ran over in between makes this too little. It does
when we pause for longer than a request's time (a hint of a whole second): the rest of such a pause does not count. One
that holds a single request does so all the time: then our own rate, less the share that was refused, is nearer. The
higher of the two is believed and the rate falls to a little below it, never rises. A refusal before which nothing was
taken since the last one says nothing about the rate: the door is still shut.

How it grows. By steps, flat at first, since the estimate is good, and steeper with every step (one leads back to the
estimate, two to a sixth beyond, four to twice as much), because a limit that was raised may have been raised by any
factor. How long a step is says how often the limit is asked, and that has a price: a refused call, and the wait that
follows it. A step is as long as CALLS of the one, or as WAITS of the other. It is also several round trips of a refusal
long, or the rate would be far beyond the limit before that is told. Time in which the tempo held nobody back is no part
of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from runner.pace.mark import NOTHING_LEFT, Mark

#: Of what seems to be taken: the bucket fills a little, and a small error does not cost a refusal at once.
BELOW = 0.95
#: Growth of the first step; the n-th is this to the power of 2n - 1. The inverse of BELOW: one step leads back.
FASTER = 1.05
#: The limit is asked every one to two steps: refusals then cost about one call in thirty.
CALLS = 24.0
#: Their waits about a tenth of the time, where providers make us wait longer than a call takes. More would be lost by
#: finding a higher limit late.
WAITS = 8.0
#: Round trips of a refusal in a step: near the estimate the rate grows by two or three per cent in one.
TRIPS = 4.0
#: The longest step on account of the calls: below four a second they are cheaper than the time to find a higher limit.
LONGEST_BY_CALLS_S = 6.0
#: And of the waits: providers' windows are a minute, and a wait of an hour must not freeze the rate for a day.
LONGEST_BY_WAITS_S = 60.0
#: Beyond so many steps the rate does not follow its curve any more: 1.05 ** 400 is more than any endpoint takes.
MOST_STEPS = 20.0
#: Of the rate before the first refusal: it was the whole pool's, at once.
AT_FIRST = 0.5
#: Of a request: what was taken between two refusals is known to within one.
HALF = 0.5
#: Requests may leave together that are due within this; timers are late by about a millisecond.
SLACK_S = 0.02
SLOWEST_PER_S = 0.01
COUNT_S, SHORTEST_S = 1.0, 0.25


@dataclass(slots=True)
class Tempo:
    """`rate` (requests a second) None: nothing was ever refused, requests are not spaced."""

    rate: float | None = None
    base: float = 0.0  #: what the rate was after the last refusal
    steps: float = 0.0  #: of growth since then
    level: float = 1.0
    at: float = 0.0
    holds: bool = False  #: it held rows back since the last refusal
    holding: bool = False  #: it does now
    last: Mark = NOTHING_LEFT  #: of the refused request before
    refused: int = 0  #: since it was heard of
    trip_s: float = 0.0  #: from sending a request to hearing that it is refused
    pause_s: float = 0.0  #: that the last refusal cost
    counting_since: float | None = None
    sent: int = 0  #: since then, until requests are spaced
    sent_before: int = 0  #: in the COUNT_S before then

    def ready_in(self, now: float) -> float:
        """Seconds until the next request is due."""
        if self.rate is None:
            return 0.0
        self._refill(now, self.rate)
        if self.level >= 1.0:
            return 0.0
        self.holding = self.holds = True
        return (1.0 - self.level) / self.rate

    def take(self, now: float) -> None:
        if self.rate is not None:
            self._refill(now, self.rate)
            self.level -= 1.0
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
        if self.holding and passed:
            self.holding = False
            self.steps = min(MOST_STEPS, self.steps + passed / self._step_s(rate))
            self.rate = self.base * FASTER ** (self.steps**2)

    def _step_s(self, rate: float) -> float:
        by_calls_s = min(LONGEST_BY_CALLS_S, CALLS / rate)
        by_waits_s = min(LONGEST_BY_WAITS_S, WAITS * self.pause_s)
        return max(by_calls_s, by_waits_s, TRIPS * self.trip_s)

    def refuse(self, now: float, mark: Mark) -> bool:
        """A refusal of a request that left after the last one was heard of. False: the door is still shut, nothing that
        left since the refused one before was taken."""
        sent = mark.ordinal - self.last.ordinal
        taken = sent - self.refused - 1
        if self.rate is None:
            self._fall(self._lately(now) * AT_FIRST)
        elif taken > 0:
            counted_s = mark.at - self.last.at - max(0.0, self.pause_s - 1 / self.rate)
            taken_per_s = (taken + HALF) / max(1e-3, counted_s)
            self._fall(BELOW * min(self.rate, max(taken_per_s, self.rate * taken / sent)))
        self.trip_s, self.last, self.refused = now - mark.at, mark, 0
        return taken > 0

    def pause(self, now: float, reopens_at: float) -> None:
        """After a refusal: the next request leaves then."""
        self.pause_s = reopens_at - now
        self.level, self.at = 1.0, reopens_at

    def _fall(self, rate: float) -> None:
        self.base = self.rate = max(SLOWEST_PER_S, rate)
        self.steps, self.holds, self.holding = 0.0, False, False

    def _lately(self, now: float) -> float:
        """Requests a second that were sent in the last one or two seconds. A first burst tells little: the guess is on
        the high side, for a rate that is too high falls within a few requests."""
        passed = 0.0 if self.counting_since is None else now - self.counting_since
        over_s = passed + (COUNT_S if self.sent_before else 0.0)
        return max(1, self.sent + self.sent_before) / max(SHORTEST_S, over_s)

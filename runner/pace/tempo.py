"""Requests a second that an endpoint which says 429 seems to take.

Rule: a rate cannot be held by the number in flight (six a second at a tenth of a second each is less than one), so
after the first 429 requests are spaced. A refusal says what is taken; as long as there is none the rate grows, the
faster the longer.

What is taken. Providers fill a bucket, and it is empty whenever they refuse: so what they took between two refusals is
what they filled in, and the rate of that is theirs. Two things blur it. A bucket that holds a single request runs over
all the time: then our own rate, less the share that was refused, is nearer, and the higher of the two counts. And while
we wait for longer than a request's time (a hint of a whole second, a lot that was too long) either the bucket runs over
or it fills: the rate lies between what was taken in all that time and what was taken in the rest of it. The longer the
wait beside the rest the less is known, and the guess is nearer to the middle. Where the server itself names a wait of
seconds, that is its window, which is used up sooner or later whatever the rate: the higher end is taken.

The rate falls to a little below the guess, never rises. A refusal before which nothing was taken since the last one
says nothing about the rate: the door is still shut, and the wait goes on.

How it grows. By steps, flat at first, since the guess is good, and steeper with every step (one leads back to the
highest that it may be, two to a sixth beyond, four to twice as much), because a limit that was raised may have been
raised by any factor. How long a step is says how often the limit is asked, and that has a price: a refused call, and
the wait that follows it. A step is as long as CALLS of the one, or as WAITS of the other. It is also several round
trips of a refusal long, or the rate would be far beyond the limit before that is told. Time in which the tempo held
nobody back is no part of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from runner.pace.mark import NOTHING_LEFT, Mark

#: Of what seems to be taken: the bucket fills a little, and a small error does not cost a refusal at once.
BELOW = 0.95
#: Growth of the first step after a good guess; the n-th is this to the power of 2n - 1. The inverse of BELOW.
FASTER = 1.05
#: The limit is asked every one to two steps: refusals then cost about one call in thirty.
CALLS = 24.0
#: Their waits a twelfth of the time, where providers make us wait longer than a call takes. More would be lost by
#: finding a higher limit late.
WAITS = 12.0
#: While a step leads back over a wide range, the low rate itself costs as much as waits: fewer, the wider the range.
UNSURE_WAITS, FEWEST_WAITS = 1.5, 2.0
#: Hints of up to a second or two may be fractions that were rounded up.
COARSE_S = 2.2
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
COUNT_S, SHORTEST_S, SHORTEST_CYCLE_S = 1.0, 0.25, 1e-3


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
    faster: float = FASTER  #: growth of the first step
    shut: Mark = NOTHING_LEFT  #: of the last refused request before which something was taken
    refused: int = 0  #: since it was heard of
    pause_s: float = 0.0  #: waited since then
    is_window: bool = False  #: the server itself has named a wait of seconds
    of_pool: bool = False  #: it was the whole pool's burst that was refused
    trip_s: float = 0.0  #: from sending a request to hearing that it is refused
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
            squared = self.steps**2
            self.rate = self.base * self.faster ** min(1.0, squared) * FASTER ** max(0.0, squared - 1)

    def _step_s(self, rate: float) -> float:
        by_calls_s = min(LONGEST_BY_CALLS_S, CALLS / rate)
        unsure = max(FEWEST_WAITS, UNSURE_WAITS / (self.faster - 1)) if self.steps < 1 else WAITS
        by_waits_s = min(LONGEST_BY_WAITS_S, min(WAITS, unsure) * self.pause_s)
        return max(by_calls_s, by_waits_s, TRIPS * self.trip_s)

    def refuse(self, now: float, mark: Mark) -> bool:
        """A refusal of a request that left after the last one was heard of. False: the door is still shut, nothing that
        left since the refused one before was taken."""
        self.trip_s = now - mark.at
        taken = mark.ordinal - self.shut.ordinal - self.refused - 1
        if self.rate is None:
            self._fall(self._lately(now) * AT_FIRST)
        elif taken > 0:
            self._learn(mark, self.rate, taken)
        else:
            self.refused += 1
            return False
        self.of_pool = self.shut is NOTHING_LEFT
        self.shut, self.refused, self.pause_s = mark, 0, 0.0
        return taken > 0

    def refuse_too(self, mark: Mark) -> None:
        """A refusal of a request that left before the last one was heard of. Those that left together are told in any
        order: one that left earlier than the request that was refused first was never counted as taken."""
        self.refused += mark.ordinal > self.shut.ordinal

    def _learn(self, mark: Mark, rate: float, taken: int) -> None:
        passed_s = max(SHORTEST_CYCLE_S, mark.at - self.shut.at)
        idle_s = max(0.0, min(self.pause_s - 1 / rate, passed_s - SHORTEST_CYCLE_S))
        busy_s = passed_s - idle_s
        # What was refused of a burst before a long wait says nothing about the rate after it.
        sent = taken + 1 if self.of_pool and idle_s > self.trip_s else mark.ordinal - self.shut.ordinal
        high = min(rate, max((taken + HALF) / busy_s, rate * taken / sent))
        low = min(high, (taken + HALF) / passed_s)
        doubt = 0.0 if self.is_window else min(0.5, idle_s / (2 * busy_s))
        guess = high * (low / high) ** doubt
        self._fall(BELOW * guess, FASTER * high / guess)

    def pause(self, now: float, reopens_at: float, *, told: bool = False) -> None:
        """After a refusal: the next request leaves then. told: the server said when."""
        wait_s = reopens_at - now
        self.is_window = told and wait_s > COARSE_S
        if self.of_pool and not self.pause_s and not self.is_window:
            self._soften(wait_s)
        self.pause_s += wait_s
        self.level, self.at = 1.0, reopens_at

    def _soften(self, wait_s: float) -> None:
        """Where the first refusal costs a long wait, begin between the rate of the pool and what was taken of it."""
        passed_s = wait_s + (0.0 if self.counting_since is None else self.shut.at - self.counting_since)
        low = max(HALF, self.shut.ordinal - HALF) / max(SHORTEST_CYCLE_S, passed_s)
        if self.rate is not None and low < BELOW * self.rate and wait_s * self.rate > 2:
            guess = (low * self.rate) ** 0.5
            self._fall(guess, self.rate / guess)

    def _fall(self, rate: float, faster: float = FASTER) -> None:
        self.base = self.rate = max(SLOWEST_PER_S, rate)
        self.faster = faster
        self.steps, self.holds, self.holding = 0.0, False, False

    def _lately(self, now: float) -> float:
        """Requests a second that were sent in the last one or two seconds. A first burst tells little: the guess is on
        the high side, for a rate that is too high falls within a few requests."""
        passed = 0.0 if self.counting_since is None else now - self.counting_since
        over_s = passed + (COUNT_S if self.sent_before else 0.0)
        return max(1, self.sent + self.sent_before) / max(SHORTEST_S, over_s)

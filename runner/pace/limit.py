"""How many requests of a lane may be in flight.

Rule: the limit falls when the endpoint says that it is too much, and grows only while it is what binds.

Strategy, where the job gives a number: that number, multiplicative decrease once per closing, additive increase. Where
it says auto (`Learning`): the number is found. Hosted endpoints refuse beyond theirs, self-hosted ones never do: they
queue, and every further request only waits longer. So what counts is work done, output tokens a second: the limit
doubles while a window of answers at the new limit gave clearly more than one at the old; where it stops paying, the
limit settles, and from time to time a window a step above or below asks whether that is still so. A refusal while the
tempo (tempo.py) held rows back was about the rate and leaves the limit alone. Any other takes it to three quarters of
what was in flight, from where it comes back, asks a step above, and doubles again if that pays: the first burst of a
run may be refused where many more in flight, but not at once, are welcome.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

FIRST_LIMIT = 16
#: A window of answers is telling when it holds a whole limit's worth, and at least so many.
FEWEST = 16
FEWEST_TO_PROBE = 64
#: Growing pays when work grows by more than this share of the growth of the limit: linear is 1, queueing 0.
PAYS = 0.3
#: A window must have been full for this share of its answers to say anything about its limit.
SATURATED = 0.8
STEP_UP, STEP_DOWN = 1.25, 0.8
#: A lower limit is as good when it loses less than this share of the work.
AS_GOOD = 0.95
#: Windows between two probes; doubled while they find nothing, up to the most.
PROBE_EVERY, PROBE_AT_MOST = 4, 32


@dataclass(slots=True)
class Limit:
    """A number from the job file: never more than `most`."""

    most: int
    now: float = field(init=False)

    def __post_init__(self) -> None:
        self.now = float(self.most)

    def shrink(self, in_flight: int = 0, now: float = 0.0, *, paced: bool = False) -> None:
        """Once per closing. in_flight: when the refused request left, or when it closed, whichever is more. paced: it
        was too fast for the endpoint, not too many."""
        if not paced:
            self.now = max(1.0, self.now * 0.7)

    def grow(self, in_flight: int, now: float = 0.0, seconds: float = 0.0, work: float = 1.0) -> None:
        """One success. Grows by one per round trip of the whole window, and only while the limit is what binds."""
        if in_flight + 1 >= int(self.now):
            self.now = min(float(self.most), self.now + 1.0 / self.now)


class Phase(Enum):
    """What a learning limit is about."""

    DOUBLING = auto()
    SETTLED = auto()
    ABOVE = auto()  #: a window a step above the settled limit
    BELOW = auto()
    RETURNING = auto()  #: after a closing, back towards where it happened


@dataclass(slots=True)
class _Window:
    """Answers to requests that left under one limit.

    Work a second is taken from Little's law, in flight through latency, and not from a count over a time: answers come
    in waves, and a count depends on where in a wave it stops.
    """

    begun_s: float
    answers: int = 0
    full: int = 0  #: of these, while the limit was reached
    in_flight: int = 0  #: sum
    work: float = 0.0
    latency_s: float = 0.0  #: sum

    def add(self, seconds: float, work: float, in_flight: int, *, full: bool) -> None:
        self.answers += 1
        self.full += full
        self.in_flight += in_flight
        self.work += work
        self.latency_s += seconds

    @property
    def saturated(self) -> bool:
        return self.full >= SATURATED * self.answers

    @property
    def per_second(self) -> float:
        return self.in_flight / self.answers * self.work / max(1e-9, self.latency_s)


@dataclass(slots=True)
class Learning(Limit):
    """A limit that is found. Never more than `most`."""

    phase: Phase = Phase.DOUBLING
    window: _Window = field(default_factory=lambda: _Window(float("-inf")))
    settled_at: float = 0.0  #: the limit that probes are measured against
    gave: float | None = None  #: work a second at `settled_at`
    doubts: int = 0  #: windows in a row that did not pay
    refused_at: float = 0.0  #: in flight at the last closing
    probe_every: int = PROBE_EVERY
    quiet: int = 0  #: windows since the last probe
    went_up: bool = False

    def __post_init__(self) -> None:
        self.now = float(min(FIRST_LIMIT, self.most))
        self.settled_at = self.now

    def shrink(self, in_flight: int = 0, now: float = 0.0, *, paced: bool = False) -> None:
        """Once per closing: three quarters of what was in flight, and no more doubling; a probe goes back. More in
        flight than the limit: it has fallen already, and what is refused now left before that."""
        if in_flight > self.now:
            return
        if self.phase is Phase.ABOVE:
            self._found_nothing(now)
        elif not paced or (self.phase is Phase.RETURNING and in_flight + 1 >= SATURATED * self.now):
            self.refused_at = min(self.now, max(1.0, float(in_flight)))
            self._go(self.refused_at * 0.75, Phase.RETURNING, now)

    def grow(self, in_flight: int, now: float = 0.0, seconds: float = 0.0, work: float = 1.0) -> None:
        """One success that took so many seconds and did so much work (output tokens)."""
        if now - seconds < self.window.begun_s:
            return
        window = self.window
        window.add(seconds, work, in_flight, full=in_flight + 1 >= int(self.now))
        fewest = FEWEST if self.phase in (Phase.DOUBLING, Phase.RETURNING) else FEWEST_TO_PROBE
        if window.answers < max(fewest, self.now):
            return
        self.window = _Window(now)
        if window.saturated:
            _AFTER[self.phase](self, window.per_second, now)

    def _go(self, limit: float, phase: Phase, now: float) -> None:
        self.now = min(float(self.most), max(1.0, limit))
        self.phase = phase
        self.window = _Window(now)

    def _settle(self, limit: float, gave: float | None, now: float) -> None:
        self.settled_at, self.gave, self.quiet = limit, gave, 0
        self._go(limit, Phase.SETTLED, now)

    def _pays(self, gave: float) -> bool:
        """Whether the present limit gives clearly more than the settled one did."""
        if self.gave is None:
            return True
        return gave / self.gave - 1 >= PAYS * (self.now / self.settled_at - 1)

    def _after_doubling(self, gave: float, now: float) -> None:
        if self._pays(gave):
            self.settled_at, self.gave, self.doubts = self.now, gave, 0
            if self.now >= self.most:
                self._settle(self.now, gave, now)
            else:
                self._go(self.now * 2, Phase.DOUBLING, now)
            return
        self.doubts += 1
        if self.doubts > 1:  # one poor window may be luck
            # What is given beyond the last limit that paid says how far beyond it the end lies.
            beyond = gave / self.gave if self.gave else 1.0
            self._settle(min(self.now, self.settled_at * max(1.0, beyond)), None, now)

    def _after_settled(self, gave: float, now: float) -> None:
        self.gave = gave if self.gave is None else (self.gave + gave) / 2
        self.quiet += 1
        if self.quiet < self.probe_every:
            return
        self.went_up = not self.went_up and self.now < self.most
        step, phase = (STEP_UP, Phase.ABOVE) if self.went_up else (STEP_DOWN, Phase.BELOW)
        self._go(self.settled_at * step, phase, now)

    def _after_above(self, gave: float, now: float) -> None:
        if not self._pays(gave):
            self._found_nothing(now)
        elif self.now >= self.most:
            self._settle(self.now, gave, now)
        else:  # what was settled is out of date
            self.probe_every = PROBE_EVERY
            self.settled_at, self.gave, self.doubts = self.now, gave, 0
            # Near what was refused half a pool must not be sent against it; beyond, it was a burst that was refused.
            near = self.now <= self.refused_at < self.now * 2
            self._go(self.now * (STEP_UP if near else 2), Phase.ABOVE if near else Phase.DOUBLING, now)

    def _after_below(self, gave: float, now: float) -> None:
        if self.gave is not None and gave >= AS_GOOD * self.gave:
            self._settle(self.now, max(gave, self.gave), now)
        else:
            self._found_nothing(now)

    def _found_nothing(self, now: float) -> None:
        self.probe_every = min(PROBE_AT_MOST, self.probe_every * 2)
        self._settle(self.settled_at, self.gave, now)

    def _after_returning(self, gave: float, now: float) -> None:
        near = 0.95 * self.refused_at
        if self.now >= near:  # it may have been a burst that was too much: ask whether more is taken
            self.settled_at, self.gave, self.went_up = self.now, gave, True
            self._go(self.now * STEP_UP, Phase.ABOVE, now)
        else:
            half = self.now + (near - self.now) / 2
            self._go(near if half > 0.95 * near else half, Phase.RETURNING, now)


_AFTER = {
    Phase.DOUBLING: Learning._after_doubling,
    Phase.SETTLED: Learning._after_settled,
    Phase.ABOVE: Learning._after_above,
    Phase.BELOW: Learning._after_below,
    Phase.RETURNING: Learning._after_returning,
}

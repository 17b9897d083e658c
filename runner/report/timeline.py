"""What happened when: counts, dollars and requests in flight by time, in a fixed number of bins.

Rule: the memory is the same for one row and for ten million. Strategy: bins of the narrowest width that reaches over
all that was seen so far; when an instant lies beyond, bins are added up into wider ones (`scales.WIDTHS_US`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from runner.scales import bins_for, stretches, width_for

#: 45 hours of 10 seconds each.
BINS = 1 << 14
#: Nothing shorter is a pause.
PAUSE_US = 60_000_000
#: ok, not_ok: rows that became final. spent_pico: dollars * 1e12. busy_us: the time that requests were in flight.
#: limited: replies 429. broken: other exchanges that failed.
SERIES = ("ok", "not_ok", "spent_pico", "busy_us", "limited", "broken")


@dataclass(frozen=True, slots=True)
class Course:
    """`series[name][n]`: the sum over bin n, which begins at `start_us(n)`. first, last: what was seen at all."""

    width_us: int
    origin: int  #: number of the first bin, counted from 1970
    first_us: int
    last_us: int
    series: dict[str, Any]

    def start_us(self, number: int) -> int:
        return (self.origin + number) * self.width_us

    def clipped(self, from_bin: int, to_bin: int) -> tuple[int, int]:
        """The instants that these bins span, no further than anything was seen; never nothing."""
        start, end = max(self.start_us(from_bin), self.first_us), min(self.start_us(to_bin), self.last_us)
        return start, max(end, start + 1)

    def seconds(self, number: int) -> float:
        """How much of a bin was seen; of one at an end at least half counts: what a moment holds is no rate."""
        start, end = self.clipped(number, number + 1)
        alone = len(self.series["ok"]) == 1
        return (end - start if alone else max(end - start, self.width_us // 2)) / 1e6

    def busy(self) -> list[bool]:
        """In which bins anything happened."""
        found: list[bool] = np.any([values != 0 for values in self.series.values()], axis=0).tolist()
        return found

    def stretches(self) -> list[tuple[int, int]]:
        """The bins in which something went on, as (from, up to), without long pauses."""
        return stretches(self.busy(), PAUSE_US // self.width_us) or [(0, len(self.busy()))]

    @property
    def work_s(self) -> float:
        """How long something went on, long pauses left out."""
        return sum(end - start for start, end in (self.clipped(*span) for span in self.stretches())) / 1e6

    def coarser(self, width_us: int) -> Course:
        origin = self.first_us // width_us
        bins = max(self.last_us - 1, self.first_us) // width_us - origin + 1  # what ends it is no bin of its own
        series = {name: _folded(values, self, (width_us, origin, bins)) for name, values in self.series.items()}
        return Course(width_us, origin, self.first_us, self.last_us, series)

    def drawn(self, events: int) -> Course:
        """In as many bins as so many events are worth; long pauses do not count as time."""
        most, width = bins_for(events), self.width_us
        work = sum(end - start for start, end in self.stretches()) * width
        return self.coarser(width_for(0, max(work - 1, 0), most, width))


def _folded(values: Any, course: Course, wider: tuple[int, int, int]) -> Any:
    width, origin, bins = wider
    used = np.flatnonzero(values)
    folded = np.zeros(bins, np.int64)
    places = (used + course.origin) * course.width_us // width - origin
    np.add.at(folded, np.minimum(places, bins - 1), values[used])
    return folded


class Timeline:
    """Fed with instants in any order."""

    def __init__(self) -> None:
        self._now: Course | None = None

    def count(self, name: str, instants_us: Any, amounts: Any = 1) -> None:
        """amounts: one for all, or one for each instant; whole numbers."""
        if len(instants_us):
            now = self._reach(int(instants_us.min()), int(instants_us.max()))
            np.add.at(now.series[name], instants_us // now.width_us - now.origin, amounts)

    def in_flight(self, starts_us: Any, ends_us: Any) -> None:
        """Requests that were in flight from `starts` to `ends`."""
        if not len(starts_us):
            return
        now = self._reach(int(starts_us.min()), int(ends_us.max()))
        width, series = now.width_us, now.series["busy_us"]
        first, last = starts_us // width, ends_us // width
        # From its start on a request fills every bin, from its end on it takes that back.
        np.add.at(series, first - now.origin, (first + 1) * width - starts_us)
        np.add.at(series, last - now.origin, ends_us - (last + 1) * width)
        whole = np.zeros(BINS + 1, np.int64)
        np.add.at(whole, first + 1 - now.origin, 1)
        np.add.at(whole, last + 1 - now.origin, -1)
        series += np.cumsum(whole)[:BINS] * width

    def course(self) -> Course | None:
        """None when nothing happened."""
        return self._now and self._now.coarser(self._now.width_us)

    def _reach(self, first_us: int, last_us: int) -> Course:
        now = self._now
        if now is None:
            width = width_for(first_us, last_us, BINS)
            nothing = {name: np.zeros(BINS, np.int64) for name in SERIES}
            self._now = Course(width, first_us // width, first_us, last_us, nothing)
            return self._now
        first, last = min(now.first_us, first_us), max(now.last_us, last_us)
        width = width_for(first, last, BINS, now.width_us)
        origin = first // width
        series = now.series
        if (width, origin) != (now.width_us, now.origin):
            series = {name: _folded(values, now, (width, origin, BINS)) for name, values in series.items()}
        self._now = Course(width, origin, first, last, series)
        return self._now
